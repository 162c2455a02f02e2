"""Even ground gives an even map: to its edges, and whatever its size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.geo import Grid
from wetmap.mapping import map_block, whole_tiles
from wetmap.models import create
from wetmap.models.contract import Geometry
from wetmap.models.lattice import Lattice
from wetmap.models.tiles import LatticeNetwork, TileNetwork


class Even:
    """A raster that is the same everywhere."""

    def __init__(self, height: int, width: int, bands: int = 3) -> None:
        self.shape = (height, width)
        self.ground = np.linspace(-1.0, 2.0, bands, dtype=np.float32)[:, None, None]

    def read_window(self, y0: int, x0: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return self.read_features(y0, x0, height, width), self.read_observed(y0, x0, height, width)

    def read_features(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.float32]:
        found = np.tile(self.ground, (1, height, width))
        found[:, ~self.read_observed(y0, x0, height, width)[0]] = np.nan
        return found

    def read_observed(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.bool_]:
        rows, cols = np.arange(y0, y0 + height), np.arange(x0, x0 + width)
        within = [(axis >= 0) & (axis < size) for axis, size in zip((rows, cols), self.shape, strict=True)]
        observed: NDArray[np.bool_] = (within[0][:, None] & within[1])[None]
        return observed


class Mapper:
    """A network as the engine wants it; with ``geometry`` another than its own."""

    def __init__(self, model: Any, geometry: Geometry | None = None) -> None:
        self.model = model
        self.geometry: Geometry = model.geometry if geometry is None else geometry

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        answers: NDArray[np.float32] = self.model.tile_probabilities(
            torch.from_numpy(features), torch.from_numpy(observed)
        ).numpy()
        return answers


class Convolutions(TileNetwork):
    """A 5 x 5 kernel, tokens of 4 pixels and back, zeros around: all that makes a network uneven near its borders."""

    def __init__(self) -> None:
        super().__init__(3, 4, window=16, geometry=Geometry(tile=32, margin=8, stride=4))
        self.near, self.token, self.head = nn.Conv2d(3, 6, 5, padding=2), nn.Conv2d(6, 6, 4, 4), nn.Conv2d(12, 4, 1)

    def classify(self, normalised: Tensor) -> Tensor:
        near = F.relu(self.near(normalised))
        coarse = F.interpolate(self.token(near), scale_factor=4.0, mode="nearest")
        logits: Tensor = self.head(torch.cat((near, coarse), 1))
        return logits


class Pixels(LatticeNetwork):
    """Pixel by pixel, so that windows agree and only their blending could be uneven."""

    def __init__(self, window: int, step: int) -> None:
        super().__init__(3, 4, window=window, stride=1)
        self.head = nn.Conv2d(3, 4, 1)
        self.lattice = Lattice(window, step)
        margin = self.lattice.margin
        self._geometry = Geometry(tile=max(1, 48 // step) * step, margin=margin, stride=step, beyond="nearest")

    def classify(self, normalised: Tensor) -> Tensor:
        logits: Tensor = self.head(normalised)
        return logits


def unevenness(mapper: Mapper, height: int, width: int, block_px: int = 256) -> float:
    """Range of the probability over the map of even ground; infinite where the classes differ."""
    reader = Even(height, width)
    grid = Grid("EPSG:32620", 10.0, 0.0, 0.0, height, width)
    maps = [
        map_block(reader, mapper, block, np.ones((block.height, block.width), np.bool_))
        for block in grid.blocks(whole_tiles(block_px, mapper.geometry.tile))
    ]
    assert all(found.valid.all() for found in maps)
    classes = {int(value) for found in maps for value in np.unique(found.index)}
    values = np.concatenate([found.probability.ravel() for found in maps])
    return float(np.ptp(values)) if len(classes) == 1 else np.inf


def seeded(make: Any) -> Any:
    torch.manual_seed(5)
    return make().eval()


@settings(deadline=None, max_examples=12)
@given(height=st.integers(1, 700), width=st.integers(1, 700))
def test_convolutions_over_tiles_of_any_raster(height: int, width: int) -> None:
    assert unevenness(Mapper(seeded(Convolutions)), height, width) <= 1e-5


@settings(deadline=None, max_examples=12)
@given(
    height=st.integers(1, 700), width=st.integers(1, 700), window=st.integers(12, 40), share=st.sampled_from([0, 1, 2])
)
def test_blended_windows_over_any_raster_at_any_overlap(height: int, width: int, window: int, share: int) -> None:
    overlap = (0, window // 4, window // 2)[share]
    assert unevenness(Mapper(seeded(lambda: Pixels(window, window - overlap))), height, width) <= 1e-5


@pytest.mark.parametrize("name", ["wetmapformer", "unet"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 41), (37, 300)])
def test_real_networks(name: str, height: int, width: int) -> None:
    mapper = Mapper(seeded(lambda: create(name, 3, 4)))
    assert unevenness(mapper, height, width) <= 1e-5


def test_without_the_edge_repeated_the_map_would_be_uneven() -> None:
    model = seeded(Convolutions)
    assert unevenness(Mapper(model, replace(model.geometry, beyond="unobserved")), 50, 50) > 1e-3
