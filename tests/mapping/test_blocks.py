"""Mapping a block: whatever the blocks, the same answer for every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wetmap.geo import Block, Grid
from wetmap.mapping import map_block, whole_tiles


@dataclass(frozen=True)
class Geometry:
    tile: int
    margin: int


@dataclass(frozen=True)
class WindowMean:
    """A model whose answer is the mean of a window, and which counts how a tile was cut if it could see it."""

    geometry: Geometry

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        side = self.geometry.tile + 2 * self.geometry.margin
        assert features.shape == (1, 1, side, side)
        assert observed.shape == (1, 1, side, side)
        values = np.where(np.isnan(features), 0, features)[0, 0]
        reach = 2 * self.geometry.margin + 1
        windows = np.lib.stride_tricks.sliding_window_view(values, (reach, reach))
        mean = np.clip(windows.mean(axis=(2, 3)), 0, 1)
        return np.stack([mean, 1 - mean])[None].astype(np.float32)


@dataclass(frozen=True)
class Raster:
    """A raster in memory; unobserved outside and where it is NaN."""

    values: NDArray[np.float32]

    def read_window(self, y0: int, x0: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        found = np.full((1, height, width), np.nan, dtype=np.float32)
        for row in range(max(y0, 0), min(y0 + height, self.values.shape[0])):
            left, right = max(x0, 0), min(x0 + width, self.values.shape[1])
            if right > left:
                found[0, row - y0, left - x0 : right - x0] = self.values[row, left:right]
        return found, ~np.isnan(found)


def map_all(
    raster: Raster, model: WindowMean, block_px: int, inside: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    height, width = raster.values.shape
    index = np.zeros((height, width), dtype=np.uint8)
    probability = np.zeros((height, width), dtype=np.float32)
    valid = np.zeros((height, width), dtype=np.bool_)
    for block in Grid("EPSG:32620", 10.0, 0.0, 0.0, height, width).blocks(whole_tiles(block_px, model.geometry.tile)):
        found = map_block(raster, model, block, inside[block.slices])
        index[block.slices], probability[block.slices], valid[block.slices] = (
            found.index,
            found.probability,
            found.valid,
        )
    return index, probability, valid


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.sampled_from([4, 8, 16]),
    margin=st.integers(0, 5),
    block_px=st.integers(1, 80),
    seed=st.integers(0, 99),
)
def test_blocks_only_schedule_the_work(
    height: int, width: int, tile: int, margin: int, block_px: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((height, width), dtype=np.float32)
    values[rng.random((height, width)) < 0.1] = np.nan
    raster, model = Raster(values), WindowMean(Geometry(tile, margin))
    inside = rng.random((height, width)) < 0.8
    index, probability, valid = map_all(raster, model, block_px, inside)
    np.testing.assert_array_equal(valid, inside & ~np.isnan(values))
    whole = map_all(raster, model, 10_000, inside)
    np.testing.assert_array_equal(index[valid], whole[0][valid])
    np.testing.assert_array_equal(probability[valid], whole[1][valid])
    padded = np.pad(np.where(np.isnan(values), 0, values), margin)
    reach = 2 * margin + 1
    mean = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach)).mean(axis=(2, 3))
    np.testing.assert_allclose(probability[valid], np.maximum(mean, 1 - mean)[valid], rtol=1e-5)


@pytest.mark.parametrize(("block_px", "tile", "expected"), [(100, 64, 128), (64, 64, 64), (1, 32, 32), (512, 64, 512)])
def test_blocks_are_whole_tiles(block_px: int, tile: int, expected: int) -> None:
    assert whole_tiles(block_px, tile) == expected


def test_of_equal_probabilities_the_first_class_wins() -> None:
    model = WindowMean(Geometry(4, 0))
    found = map_block(
        Raster(np.full((4, 4), 0.5, dtype=np.float32)), model, Block(0, 0, 0, 0, 4, 4), np.ones((4, 4), dtype=np.bool_)
    )
    assert (found.index == 0).all()


def test_tiles_without_a_valid_pixel_cost_nothing() -> None:
    class Never(WindowMean):
        def tile_probabilities(self, *_: object) -> NDArray[np.float32]:
            raise AssertionError("asked for a tile that nobody needs")

    model = Never(Geometry(4, 2))
    found = map_block(
        Raster(np.ones((8, 8), dtype=np.float32)), model, Block(0, 0, 0, 0, 8, 8), np.zeros((8, 8), dtype=np.bool_)
    )
    assert not found.valid.any()
