"""Counts of multiply-adds against counts by hand."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wetmap import models
from wetmap.models import macs
from wetmap.models.macs import multiply_adds, multiply_adds_per_pixel


class Attention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def test_the_modules_examples_hold():
    assert doctest.testmod(macs).failed == 0


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 10), 10 * 10 * 3 * 3 * 3 * 8),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (2, 8, 10, 10), 2 * 10 * 10 * 3 * 3 * 8),
        (nn.Conv3d(1, 8, (7, 3, 3)), (1, 1, 16, 8, 8), 10 * 6 * 6 * 7 * 3 * 3 * 8),
        (Attention(), (1, 2, 5, 8), 2 * 2 * 5 * 5 * 8),
        (
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.5, batch_first=True),
            (1, 5, 16),
            5 * (3 * 16 * 16 + 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16,
        ),
    ],
)
def test_counts_what_a_hand_counts(model, shape, expected):
    assert multiply_adds(model, torch.zeros(shape)) == expected


def test_leaves_everything_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[1].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast_path, generator = torch.backends.mha.get_fastpath_enabled(), torch.get_rng_state()
    assert multiply_adds(model, torch.ones(3, 4)) == 48
    assert [part.training for part in model.modules()] == [True, True, False, True]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_map_costs_its_tile_with_the_margin():
    """As it maps, neighbouring windows share their work: a pixel costs less than a window of its own."""
    model = models.create("wetmapformer-window", 3, 3, layers=2, band_layer=(0, 0, 1))
    side, tile = model.geometry.side, model.geometry.tile
    whole = multiply_adds(model, torch.zeros(1, 3, side, side), method="tile_probabilities")
    assert multiply_adds_per_pixel(model, 3, 2) == whole / tile**2 > 0
    one = multiply_adds(model, torch.zeros(1, 3, 8, 8))
    assert one == multiply_adds(model, torch.zeros(2, 3, 8, 8)) / 2
    assert multiply_adds_per_pixel(model, 3, 2) < one
