from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wetmap.models import create
from wetmap.models.unet import Pair, UNet, margin, reach


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_its_size_and_its_reach():
    model = create("unet", 16, 7)
    assert sum(parameter.numel() for parameter in model.parameters()) == 440_391
    assert [reach(poolings) for poolings in range(4)] == [2, 9, 23, 51]
    assert [margin(poolings) for poolings in range(4)] == [2, 10, 24, 56]


def test_the_reach_is_what_the_network_looks_at(enliven):
    torch.manual_seed(0)
    model = UNet(1, 2, width=4).double().eval()
    enliven(model, 1)
    with torch.no_grad():
        for value in model.parameters():  # no ReLU is ever closed, and nothing cancels
            value.abs_()
    model.normalisation.set(torch.zeros(1), torch.ones(1))
    side = 4 * (2 * margin() // 4 + 4)
    features = 5 + noise(1, 1, side, side).double().abs()
    features.requires_grad_()
    logits = model(features)
    farthest = 0
    for row in range(side // 2, side // 2 + 4):
        (gradient,) = torch.autograd.grad(logits[0, :, row, side // 2].sum(), features, retain_graph=True)
        rows = torch.nonzero(gradient[0, 0].abs().sum(1)).flatten()
        farthest = max(farthest, row - int(rows[0]), int(rows[-1]) - row)
    # of two pooled places only the larger one is heard, so that the very last pixel may not be
    assert reach() - 3 <= farthest <= reach() <= margin()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (16, 18), (33, 4)])
def test_a_map_of_any_size_is_answered(height, width):
    model = create("unet", 3, 4, width=8).eval()
    with torch.no_grad():
        logits = model(noise(2, 3, height, width))
        filled = torch.full((2, 3, height + -height % 4, width + -width % 4), torch.nan)
        filled[:, :, :height, :width] = noise(2, 3, height, width)
        # what is filled up is what was not observed
        torch.testing.assert_close(model(filled)[:, :, :height, :width], logits)
    assert logits.shape == (2, 4, height, width)


def test_norms_are_multiplied_into_the_kernels(enliven):
    torch.manual_seed(0)
    pair = Pair(3, 5)
    enliven(pair, 1)
    maps = noise(2, 3, 6, 7)
    one = F.relu(F.batch_norm(pair[0](maps), *statistics(pair[1]), eps=pair[1].eps))
    two = F.relu(F.batch_norm(pair[3](one), *statistics(pair[4]), eps=pair[4].eps))
    torch.testing.assert_close(pair.eval()(maps), two, rtol=1e-5, atol=1e-6)


def statistics(norm):
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def test_even_ground_is_answered_evenly(enliven):
    model = create("unet", 3, 4, width=8).eval()
    enliven(model, 1)
    with torch.no_grad():
        logits = model(torch.full((1, 3, 64, 64), 0.7))[0, :, margin() : -margin(), margin() : -margin()]
    torch.testing.assert_close(logits, logits[:, :1, :1].expand_as(logits), rtol=1e-5, atol=1e-5)


def test_it_can_be_exported():
    torch.manual_seed(0)
    model = create("unet", 2, 3, width=8).eval()
    features = noise(1, 2, 16, 16)
    program = torch.export.export(model, (features,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(features), model(features))
