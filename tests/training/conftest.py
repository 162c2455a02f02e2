"""Tiny stand-ins: windows whose classes can be told apart, and a network that learns them in a few epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wetmap.models.contract import Geometry
from wetmap.models.tiles import TileNetwork
from wetmap.recipe import Training
from wetmap.training.data import Arrays
from wetmap.training.fit import FitRun

#: Two bands of an optical layer, one of a radar layer.
BAND_LAYER = (0, 0, 1)
CLASSES = ("bog", "fen", "water")


class TinyNetwork(nn.Module):
    """Batch normalisation, dropout and a convolution: each a way to be less than reproducible."""

    def __init__(self, bands: int = 3, classes: int = 3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("variance", torch.ones(bands))
        self.conv = nn.Conv2d(bands, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, classes)

    def set_normalisation(self, mean: Tensor, variance: Tensor) -> None:
        self.mean = torch.as_tensor(mean, dtype=torch.float32)
        self.variance = torch.as_tensor(variance, dtype=torch.float32)

    def forward(self, features: Tensor, observed: Tensor) -> Tensor:
        scaled = (features - self.mean[:, None, None]) / self.variance.sqrt()[:, None, None]
        maps = torch.relu(
            self.norm(self.conv(scaled.masked_fill(~observed[:, list(BAND_LAYER)] | scaled.isnan(), 0.0)))
        )
        return self.head(self.dropout(maps.mean(dim=(2, 3))))


def make_windows(n: int = 60, seed: int = 0, *, noise: float = 0.5, width: int = 4) -> Arrays:
    """Windows of three classes; band 0 tells bog from the rest, the radar band tells water."""
    generator = np.random.default_rng(seed)
    label = np.arange(n) % 3
    centres = np.array([[2.0, 0.3, -12.0], [0.0, 0.3, -12.0], [0.0, 0.1, -20.0]])[label]
    features = centres[:, :, None, None] + noise * generator.standard_normal((n, 3, width, width))
    observed = generator.random((n, 2, width, width)) > 0.05
    features = np.where(observed[:, BAND_LAYER], features, np.nan).astype(np.float32)
    return Arrays(features=features, observed=observed, label=label)


@dataclass(frozen=True)
class Tiles(Arrays):
    """Windows that also say which other samples lie in them."""

    label_window: NDArray[np.uint8]
    row: NDArray[np.int32]
    col: NDArray[np.int32]


class TinyDense(TileNetwork):
    """A convolution, batch normalisation and dropout that answer for every pixel."""

    def __init__(self, window: int = 8) -> None:
        geometry = Geometry(tile=window, margin=2, stride=1)
        super().__init__(3, 3, window=window, geometry=geometry, layers=2, band_layer=BAND_LAYER)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Conv2d(8, 3, 1)

    def classify(self, normalised: Tensor) -> Tensor:
        return self.head(self.dropout(torch.relu(self.norm(self.conv(normalised)))))


def make_tiles(n: int = 60, seed: int = 0, *, noise: float = 0.5, width: int = 8, side: int = 48) -> Tiles:
    """Samples of a small landscape of three classes in squares of six pixels, and the tile around each."""
    generator = np.random.default_rng(seed)
    down, across = np.indices((side, side))
    truth = (down // 6 + across // 6) % 3
    levels = np.array([[2.0, 0.3, -12.0], [0.0, 0.3, -12.0], [0.0, 0.1, -20.0]])[truth]
    features = (levels + noise * generator.standard_normal(levels.shape)).transpose(2, 0, 1).astype(np.float32)
    observed = generator.random((2, side, side)) > 0.05
    features[~observed[list(BAND_LAYER)]] = np.nan
    row, col = np.divmod(generator.permutation(side * side)[:n], side)
    labels = np.full((side, side), 255, dtype=np.uint8)
    labels[row, col] = truth[row, col]
    half = width // 2

    def cut(maps: np.ndarray, outside: float) -> np.ndarray:
        edges = [(0, 0)] * (maps.ndim - 2) + [(half, half)] * 2
        wide = np.pad(maps, edges, constant_values=outside)
        return np.stack([wide[..., r : r + width, c : c + width] for r, c in zip(row, col, strict=True)])

    return Tiles(
        features=cut(features, np.nan),
        observed=cut(observed, False),
        label=truth[row, col],
        label_window=cut(labels, 255),
        row=row.astype(np.int32),
        col=col.astype(np.int32),
    )


@pytest.fixture
def windows() -> Callable[..., Arrays]:
    return make_windows


@pytest.fixture
def tiles() -> Callable[..., Tiles]:
    return make_tiles


@pytest.fixture
def dense() -> Callable[[], TinyDense]:
    def make() -> TinyDense:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return TinyDense()

    return make


@pytest.fixture
def network() -> Callable[[], TinyNetwork]:
    def make() -> TinyNetwork:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return TinyNetwork()

    return make


@pytest.fixture(params=["window", "dense"])
def learner(
    request: pytest.FixtureRequest, network: Callable[[], TinyNetwork], dense: Callable[[], TinyDense]
) -> tuple[nn.Module, Callable[..., Arrays]]:
    """A network of windows or of tiles, and what makes its samples."""
    return (network(), make_windows) if request.param == "window" else (dense(), make_tiles)


@pytest.fixture
def quick() -> Training:
    return Training(
        epochs=5, patience=5, batch_size=16, learning_rate=0.01, warmup_epochs=1, drop_layers=0.2, forest_trees=5
    )


@pytest.fixture
def fit_run(tmp_path: Path) -> FitRun:
    return FitRun(
        classes=CLASSES, band_layer=BAND_LAYER, seed=7, key="asked", folder=tmp_path / "fit", threads=1, clock=still
    )


def still() -> float:
    """A clock that stands, so that histories are the same to the byte."""
    return 0.0
