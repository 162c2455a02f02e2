"""Mapping a block: whatever the blocks, the same answer for every pixel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wetmap.errors import UsageError
from wetmap.geo import Block, Grid
from wetmap.mapping import BlockMap, map_block, whole_tiles


@dataclass(frozen=True)
class Geometry:
    tile: int
    margin: int
    beyond: Literal["unobserved", "nearest"] = "unobserved"


@dataclass(frozen=True)
class WindowMean:
    """A model whose answer is the mean of a window; what was not observed counts as 0."""

    geometry: Geometry

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        side = self.geometry.tile + 2 * self.geometry.margin
        assert features.shape == observed.shape == (1, 1, side, side)
        assert features.flags.c_contiguous
        assert observed.flags.c_contiguous
        np.testing.assert_array_equal(observed, ~np.isnan(features))
        values = np.where(observed, features, 0)[0, 0]
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


@dataclass(frozen=True)
class GridRaster(Raster):
    """One that knows its shape, tells what was observed apart, and notes what it was asked."""

    asked: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.values.shape
        return height, width

    def read_features(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.float32]:
        self.asked.append("features")
        return self.read_window(y0, x0, height, width)[0]

    def read_observed(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.bool_]:
        self.asked.append("observed")
        return self.read_window(y0, x0, height, width)[1]


def empty(shape: tuple[int, ...]) -> BlockMap:
    height, width = shape
    return BlockMap(
        np.zeros((height, width), np.uint8), np.zeros((height, width), np.float32), np.zeros((height, width), np.bool_)
    )


def map_all(
    raster: Raster, model: WindowMean, block_px: int, inside: NDArray[np.bool_], order: int | None = None
) -> BlockMap:
    """Map block by block; with ``order`` shuffled, each by a worker that knows nothing of the others."""
    height, width = raster.values.shape
    whole = empty(raster.values.shape)
    grid = Grid("EPSG:32620", 10.0, 0.0, 0.0, height, width)
    blocks = list(grid.blocks(whole_tiles(block_px, model.geometry.tile)))
    if order is not None:
        np.random.default_rng(order).shuffle(blocks)
    for block in blocks:
        found = map_block(raster, WindowMean(model.geometry), block, inside[block.slices])
        whole.index[block.slices] = found.index
        whole.probability[block.slices] = found.probability
        whole.valid[block.slices] = found.valid
    return whole


GEOMETRIES = st.builds(
    Geometry, st.sampled_from([4, 8, 16]), st.integers(0, 5), st.sampled_from(["unobserved", "nearest"])
)
#: Sides of a raster, 1 and less than a window among them.
SIDES = st.one_of(st.integers(1, 3), st.integers(1, 70))


@settings(deadline=None, max_examples=50)
@given(height=SIDES, width=SIDES, geometry=GEOMETRIES, block_px=st.integers(1, 80), seed=st.integers(0, 99))
def test_blocks_only_schedule_the_work(height: int, width: int, geometry: Geometry, block_px: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((height, width), dtype=np.float32)
    values[rng.random((height, width)) < 0.1] = np.nan
    raster, model = GridRaster(values), WindowMean(geometry)
    inside = rng.random((height, width)) < 0.8
    found = map_all(raster, model, block_px, inside, order=seed)
    # a valid pixel is never lost, and none is made up
    np.testing.assert_array_equal(found.valid, inside & ~np.isnan(values))
    whole = map_all(raster, model, 10_000, inside)
    np.testing.assert_array_equal(found.index[found.valid], whole.index[found.valid])
    np.testing.assert_array_equal(found.probability[found.valid], whole.probability[found.valid])
    mode = "edge" if geometry.beyond == "nearest" else "constant"
    padded = np.pad(np.where(np.isnan(values), 0, values), geometry.margin, mode=mode)  # type: ignore[call-overload]
    reach = 2 * geometry.margin + 1
    mean = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach)).mean(axis=(2, 3))
    np.testing.assert_allclose(found.probability[found.valid], np.maximum(mean, 1 - mean)[found.valid], rtol=1e-5)
    if geometry.beyond == "unobserved":
        plain = map_all(Raster(values), model, block_px, inside)
        np.testing.assert_array_equal(plain.probability[found.valid], found.probability[found.valid])


@settings(deadline=None, max_examples=30)
@given(height=SIDES, width=SIDES, geometry=GEOMETRIES, seed=st.integers(0, 99))
def test_a_pixel_that_was_not_observed_changes_nothing_beyond_the_margin(
    height: int, width: int, geometry: Geometry, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((height, width), dtype=np.float32)
    holed = values.copy()
    row, col = int(rng.integers(height)), int(rng.integers(width))
    holed[row, col] = np.nan
    everywhere = np.ones((height, width), dtype=np.bool_)
    before, after = (map_all(GridRaster(grid), WindowMean(geometry), 16, everywhere) for grid in (values, holed))
    far = np.ones((height, width), dtype=np.bool_)
    near = geometry.margin
    far[max(row - near, 0) : row + near + 1, max(col - near, 0) : col + near + 1] = False
    np.testing.assert_array_equal(before.probability[far], after.probability[far])
    np.testing.assert_array_equal(before.index[far], after.index[far])
    expected = everywhere.copy()
    expected[row, col] = False
    np.testing.assert_array_equal(after.valid, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 700)])
def test_what_is_repeated_beyond_the_grid_is_its_nearest_pixel(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).random(shape, dtype=np.float32)
    values[0, 0] = np.nan  # not observed at the corner, and so not beyond it
    geometry = Geometry(8, 3, "nearest")
    seen: list[NDArray[np.float32]] = []

    class Noting(WindowMean):
        def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
            seen.append(features[0, 0])
            return super().tile_probabilities(features, observed)

    block = Block(0, 0, 0, 0, *shape)
    map_block(GridRaster(values), Noting(geometry), block, np.ones(shape, dtype=np.bool_))
    rows, cols = (np.clip(np.arange(-3, 11), 0, size - 1) for size in shape)
    if shape != (1, 1):  # there no pixel is valid
        np.testing.assert_array_equal(seen[0], values[np.ix_(rows, cols)])
    assert len(seen) == (0 if shape == (1, 1) else -(-shape[0] // 8) * -(-shape[1] // 8))


def test_who_does_not_know_where_the_grid_ends_cannot_repeat_its_edge() -> None:
    block, inside = Block(0, 0, 0, 0, 4, 4), np.ones((4, 4), dtype=np.bool_)
    with pytest.raises(UsageError, match="Raster does not say where that is"):
        map_block(Raster(np.ones((4, 4), np.float32)), WindowMean(Geometry(4, 1, "nearest")), block, inside)


@pytest.mark.parametrize(("block_px", "tile", "expected"), [(100, 64, 128), (64, 64, 64), (1, 32, 32), (512, 64, 512)])
def test_blocks_are_whole_tiles(block_px: int, tile: int, expected: int) -> None:
    assert whole_tiles(block_px, tile) == expected


def test_of_equal_probabilities_the_first_class_wins() -> None:
    model = WindowMean(Geometry(4, 0))
    found = map_block(
        Raster(np.full((4, 4), 0.5, dtype=np.float32)), model, Block(0, 0, 0, 0, 4, 4), np.ones((4, 4), dtype=np.bool_)
    )
    assert (found.index == 0).all()


class Never(WindowMean):
    def tile_probabilities(self, *_: object) -> NDArray[np.float32]:
        raise AssertionError("asked for a tile that nobody needs")


@pytest.mark.parametrize("beyond", ["unobserved", "nearest"])
def test_blocks_without_a_valid_pixel_cost_nothing(beyond: Literal["unobserved", "nearest"]) -> None:
    model, block = Never(Geometry(4, 2, beyond)), Block(0, 0, 8, 8, 8, 8)
    values = np.ones((20, 20), dtype=np.float32)
    raster = GridRaster(values)
    assert not map_block(raster, model, block, np.zeros((8, 8), dtype=np.bool_)).valid.any()
    assert raster.asked == []  # not in the area
    values[8:16, 8:16] = np.nan
    assert not map_block(raster, model, block, np.ones((8, 8), dtype=np.bool_)).valid.any()
    assert raster.asked == ["observed"]  # in the area, and never observed
    values[9, 9] = 1
    with pytest.raises(AssertionError, match="nobody needs"):
        map_block(raster, model, block, np.ones((8, 8), dtype=np.bool_))


def test_tiles_without_a_valid_pixel_cost_nothing() -> None:
    asked: list[float] = []

    class Counting(WindowMean):
        def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
            asked.append(float(features[0, 0, 2, 2]))
            return super().tile_probabilities(features, observed)

    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    inside = np.zeros((8, 8), dtype=np.bool_)
    inside[1, 6] = inside[7, 0] = True
    map_block(GridRaster(values), Counting(Geometry(4, 2)), Block(0, 0, 0, 0, 8, 8), inside)
    assert asked == [4, 32]


def test_the_turn_is_held_while_the_model_works_and_not_while_reading() -> None:
    held: list[str] = []

    @contextmanager
    def turn() -> Iterator[None]:
        held.append("taken")
        yield
        held.append("given back")

    class Telling(WindowMean):
        def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
            held.append("tile")
            return super().tile_probabilities(features, observed)

    raster = GridRaster(np.ones((4, 8), np.float32), held)
    model, block = Telling(Geometry(4, 1)), Block(0, 0, 0, 0, 4, 8)
    map_block(raster, model, block, np.ones((4, 8), dtype=np.bool_), turn=turn())
    assert held == ["observed", "features", "taken", "tile", "tile", "given back"]
