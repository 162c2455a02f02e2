"""WetMapFormer in dense form: live attention, a margin that holds the receptive field, strips that change nothing."""

from __future__ import annotations

import pytest
import torch

from wetmap.models import create
from wetmap.models.layers import LocalWindowAttention
from wetmap.models.wetmapformer.dense import reach_px


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_parameters_at_the_published_inputs():
    counted = {
        size: sum(p.numel() for p in create("wetmapformer", bands=16, classes=7, size=size).parameters())
        for size in ("small", "medium")
    }
    assert counted == {"small": 331_147, "medium": 580_367}


def test_attention_compares_places(enliven):
    torch.manual_seed(1)
    model = create("wetmapformer", bands=5, classes=3, window=16)
    enliven(model, 2)
    model.eval()
    attention = next(part for part in model.modules() if isinstance(part, LocalWindowAttention))
    seen = []
    attention.register_forward_hook(lambda part, given, _: seen.append(part.weights(given[0])[0]))
    model(noise(2, 5, 16, 16))
    weights = seen[0].detach()
    assert weights.shape == (2, 4, 16, 25), "4 x 4 tokens of 4 pixels, 5 x 5 neighbours, heads of 32 channels"
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 16))
    assert float(weights.std(-1).min()) > 1e-4, "no query weighs all its neighbours alike"
    assert float((weights - weights.mean(2, keepdim=True)).abs().max()) > 1e-3, "queries differ"


@pytest.mark.parametrize(
    ("options", "bound"), [({}, 27), ({"attention": 7}, 31), ({"attention": 3}, 27), ({"size": "medium"}, 43)]
)
def test_the_margin_holds_all_that_an_answer_depends_on(options, bound, enliven):
    torch.manual_seed(1)
    model = create("wetmapformer", bands=2, classes=3, **options).double()
    enliven(model, 2)
    model.eval()
    side = 128
    assert reach_px(model.wiring) == bound <= model.geometry.margin
    features = noise(1, 2, side, side).double().requires_grad_()
    middle = side // 2
    for row in range(middle, middle + 4):  # every phase of a token
        (gradient,) = torch.autograd.grad(model(features)[0, :, row, row].sum(), features)
        rows, cols = torch.nonzero(gradient[0].abs().sum(0), as_tuple=True)
        reached = int(torch.stack([row - rows.min(), rows.max() - row, row - cols.min(), cols.max() - row]).max())
        assert bound - 5 <= reached <= bound


def test_spectra_in_strips_are_the_spectra(enliven):
    torch.manual_seed(1)
    model = create("wetmapformer", bands=3, classes=3)
    enliven(model, 2)
    model.eval()
    maps = noise(1, 3, 20, 12)
    torch.testing.assert_close(model.pixel(maps), model.pixel._extract(maps), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 17])
def test_any_side_is_answered_at_every_pixel(side):
    model = create("wetmapformer", bands=1, classes=2).eval()
    assert model(noise(1, 1, side, side + 1)).shape == (1, 2, side, side + 1)
