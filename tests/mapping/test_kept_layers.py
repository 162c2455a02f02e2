"""What is kept beside the class: the model's own probabilities, their entropy, the same however the map was cut."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wetmap.geo import Block, Grid
from wetmap.mapping import BlockMap, Keep, kept_bytes, map_block, whole_tiles
from wetmap.mapping.layers import NO_PERCENT, Layers, normalised_entropy, percent
from wetmap.models.contract import Geometry

ALL = Keep(probabilities=True, entropy=True)


@dataclass(frozen=True)
class Softmax:
    """Class k's logit is k + 1 times the feature; what was not observed counts as 0."""

    geometry: Geometry
    classes: int = 4

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        return softmax(np.where(observed, features, 0)[0, 0], self.classes)[None]


def softmax(values: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    raised = np.exp(values[None] * np.arange(1, classes + 1).reshape(-1, 1, 1))
    return (raised / raised.sum(axis=0)).astype(np.float32)


@dataclass(frozen=True)
class Raster:
    values: NDArray[np.float32]

    def read_window(self, y0: int, x0: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        found = np.full((1, height, width), np.nan, dtype=np.float32)
        here = self.values[y0 : y0 + height, x0 : x0 + width]
        found[0, : here.shape[0], : here.shape[1]] = here
        return found, ~np.isnan(found)


def map_all(raster: Raster, model: Softmax, block_px: int, inside: NDArray[np.bool_], keep: Keep = ALL) -> BlockMap:
    shape = raster.values.shape
    whole = BlockMap(
        np.zeros(shape, np.uint8),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.bool_),
        np.full((model.classes, *shape), NO_PERCENT, np.uint8),
        np.full(shape, NO_PERCENT, np.uint8),
    )
    for block in Grid("EPSG:32620", 10.0, 0.0, 0.0, *shape).blocks(whole_tiles(block_px, model.geometry.tile)):
        found = map_block(raster, model, block, inside[block.slices], keep=keep)
        for name in ("index", "probability", "valid", "probabilities", "entropy"):
            if getattr(found, name) is not None:
                getattr(whole, name)[(..., *block.slices)] = getattr(found, name)
    return whole


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 60), st.integers(1, 60), st.sampled_from([4, 16]), st.integers(1, 80), st.integers(1, 9), st.data()
)
def test_layers_are_the_models_probabilities_however_the_map_is_cut(
    height: int, width: int, tile: int, block_px: int, classes: int, data: st.DataObject
) -> None:
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = draw.normal(0, 3, (height, width)).astype(np.float32)
    values[draw.random(values.shape) < 0.2] = np.nan
    inside = draw.random(values.shape) < 0.8
    model = Softmax(Geometry(tile=tile, margin=0, stride=1), classes)
    found = map_all(Raster(values), model, block_px, inside)
    valid = inside & ~np.isnan(values)
    np.testing.assert_array_equal(found.valid, valid)
    assert found.probabilities is not None
    assert found.entropy is not None
    expected = softmax(np.nan_to_num(values), classes)
    np.testing.assert_array_equal(found.probabilities[:, valid], np.rint(expected * 100)[:, valid])
    assert (found.probabilities[:, ~valid] == NO_PERCENT).all()
    assert (found.entropy[~valid] == NO_PERCENT).all()
    sums = found.probabilities[:, valid].sum(axis=0, dtype=int)
    assert (np.abs(sums - 100) <= classes / 2).all()
    # what confidence says is the band of the mapped class
    np.testing.assert_array_equal(found.probabilities.max(axis=0)[valid], np.rint(found.probability * 100)[valid])
    again = map_all(Raster(values), model, 9999, inside)
    for name in ("index", "probability", "probabilities", "entropy"):
        np.testing.assert_array_equal(getattr(found, name)[..., valid], getattr(again, name)[..., valid])


def test_entropy_by_hand() -> None:
    answers = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [0.7, 0.1, 0.1, 0.1]], dtype=np.float32)
    found = normalised_entropy(answers.T[:, None])[0]
    last = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1)) / math.log(4)
    np.testing.assert_allclose(found, [0, 1, 0.5, last], atol=1e-7)
    np.testing.assert_array_equal(percent(found), [0, 100, 50, 68])
    assert not normalised_entropy(np.ones((1, 2, 2), np.float32)).any(), "a single class is certain"


def test_roundings_beyond_certainty_stay_percent() -> None:
    beyond = np.array([np.nextafter(np.float32(1), np.float32(2)), -1e-9, 0.005, 0.015, 0.994], dtype=np.float32)
    np.testing.assert_array_equal(percent(beyond), [100, 0, 0, 2, 99])
    certain = np.stack([np.full((1, 1), beyond[0]), np.zeros((1, 1), np.float32)])
    assert percent(normalised_entropy(certain))[0, 0] == 0


def test_nothing_asked_costs_nothing() -> None:
    layers = Layers(Keep(), np.ones((4, 4), np.bool_))
    layers.add(np.full((3, 4, 4), 1 / 3, np.float32), 0, 0)
    assert layers.probabilities is layers.entropy is None
    geometry = Geometry(tile=8, margin=2, stride=1)
    assert kept_bytes(Keep(), 7, 10, geometry) == 0
    assert kept_bytes(Keep(entropy=True), 7, 10, geometry) == 16 * 16
    assert kept_bytes(ALL, 7, 10, geometry) == 16 * 16 * 8


@pytest.mark.parametrize("keep", [Keep(entropy=True), Keep(probabilities=True), ALL])
def test_layers_take_no_more_memory_than_was_said(keep: Keep) -> None:
    """What a block holds more with layers than without: the layers, and of a tile less than the model's answer."""
    model, side = Softmax(Geometry(tile=64, margin=0, stride=1), 9), 512
    raster = Raster(np.zeros((side, side), np.float32))
    inside = np.ones((side, side), np.bool_)
    peaks = []
    for kept in (Keep(), keep):
        map_block(raster, model, Block(0, 0, 0, 0, side, side), inside, keep=kept)
        tracemalloc.start()
        map_block(raster, model, Block(0, 0, 0, 0, side, side), inside, keep=kept)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    said = kept_bytes(keep, 9, side, model.geometry)
    assert 0.5 * said < peaks[1] - peaks[0] < said + 100_000
