"""Tiny stand-ins: windows whose classes can be told apart, and a network that learns them in a few epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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


@pytest.fixture
def windows() -> Callable[..., Arrays]:
    return make_windows


@pytest.fixture
def network() -> Callable[[], TinyNetwork]:
    def make() -> TinyNetwork:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return TinyNetwork()

    return make


@pytest.fixture
def quick() -> Training:
    return Training(
        epochs=5, patience=5, batch_size=16, learning_rate=0.01, warmup_epochs=1, drop_layers=0.2, forest_trees=5
    )


@pytest.fixture
def fit_run(tmp_path: Path) -> FitRun:
    return FitRun(classes=CLASSES, band_layer=BAND_LAYER, seed=7, key="asked", folder=tmp_path / "fit", threads=1)
