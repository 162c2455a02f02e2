"""Helpers for the model tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


def _enliven(model: nn.Module, seed: int) -> None:
    """Give norms and biases values that hide nothing: a scale of 1 or a bias of 0 would let a mistake through."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith(("num_batches_tracked", "band_layer")):
            continue
        noise = torch.rand(value.shape, generator=draw, dtype=value.dtype)
        if name.endswith(("running_var", "variance")) or (name.endswith("weight") and value.ndim == 1):
            value.copy_(0.5 + noise)
        elif value.ndim == 1:
            value.copy_(0.2 * (noise - 0.5))


@pytest.fixture
def enliven() -> Callable[[nn.Module, int], None]:
    return _enliven
