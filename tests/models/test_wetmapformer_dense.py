"""WetMapFormer in dense form: live attention, a margin that holds the receptive field, a folded form like them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from wetmap.models import create
from wetmap.models.layers import LocalWindowAttention
from wetmap.models.macs import multiply_adds
from wetmap.models.tiles import TileNetwork
from wetmap.models.wetmapformer import DenseWetMapFormer, dense_form, folding, spectral_form
from wetmap.models.wetmapformer.dense import reach_px
from wetmap.models.wetmapformer.dense_form import DenseForm, Needed

OPTIONS: list[dict[str, Any]] = [{}, {"size": "medium"}, {"attention": 3}, {"attention": 7}]


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


def lively(enliven: Any, bands: int, classes: int, seed: int = 1, **options: Any) -> DenseWetMapFormer:
    """A model in which norms turn channels over, switch them off and leave them on, and queries tell keys apart."""
    torch.manual_seed(seed)
    model = create("wetmapformer", bands, classes, layers=2, band_layer=[band % 2 for band in range(bands)], **options)
    assert isinstance(model, DenseWetMapFormer)
    enliven(model, seed)
    with torch.no_grad():
        scale = model.pixel.spectra.norm.weight
        scale.mul_(torch.randn(scale.shape).sign())
        scale[::7] = 0
        for part in model.modules():
            if isinstance(part, LocalWindowAttention):
                part.positions.normal_()
                part.qkv.weight.mul_(3)
    return model.eval()


def scene(model: DenseWetMapFormer, tile: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A tile with holes, and a layer missing here and there."""
    side = tile + 2 * model.geometry.margin
    features = noise(1, model.bands, side, side, seed=seed)
    features[0, 0, side // 2, side // 2] = torch.nan
    return features, noise(1, 2, side, side, seed=seed + 1) > -1.5


@torch.no_grad()
def plain(model: DenseWetMapFormer, features: Tensor, observed: Tensor) -> Tensor:
    """The layers over the whole tile, and the margin cut off."""
    return TileNetwork._answers(model, features, observed)


@torch.no_grad()
def even_out(model: DenseWetMapFormer, features: Tensor, observed: Tensor) -> None:
    """Scale and shift the classifier so that every class has its share of the pixels and none is certain."""
    logits = model(features, observed).transpose(0, 1).flatten(1)
    spread = logits.std(1).clamp(min=1e-6)
    model.head.weight.div_(spread[:, None, None, None])
    model.head.bias.copy_((model.head.bias - logits.mean(1)) / spread)


def compare(model: DenseWetMapFormer, features: Tensor, observed: Tensor, limit: float) -> Tensor:
    found, expected = model.tile_probabilities(features, observed), plain(model, features, observed)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=limit)
    return found


@pytest.mark.parametrize("options", OPTIONS)
def test_the_folded_form_is_the_layers(options, enliven):
    model = lively(enliven, 5, 4, **options)
    features, observed = scene(model, 20)
    even_out(model, features, observed)
    found = compare(model, features, observed, 2e-5 if options.get("size") == "medium" else 1e-5)
    assert float(found.std((2, 3)).min()) > 0.02, "the answers say something"
    assert len(found.argmax(1).unique()) == 4
    compare(model.double(), features, observed, 1e-10)


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 999),
    bands=st.integers(1, 7),
    classes=st.integers(2, 18),
    tiles=st.integers(1, 5),
    sizes=st.tuples(st.sampled_from([60, 500, 10**6]), st.sampled_from([1, 6, 64]), st.sampled_from([1, 5])),
)
def test_the_folded_form_is_the_layers_however_the_work_is_cut(enliven, seed, bands, classes, tiles, sizes):
    together, strip, squares = sizes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectral_form, "PIXELS_TOGETHER", together)
        patch.setattr(dense_form, "PIXELS_TOGETHER", together)
        patch.setattr(dense_form, "STRIP_PX", strip)
        patch.setattr(dense_form, "SQUARES", squares)
        model = lively(enliven, bands, classes, seed).double()
        compare(model, *scene(model, 4 * tiles, seed), 1e-10)


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_computed_beyond_the_tile_is_within_the_margin(options):
    model = create("wetmapformer", 2, 3, **options)
    needed = Needed.of(model.wiring)
    # an answer at the tile's edge; one inside of it reaches as far the other way
    assert needed.own <= reach_px(model.wiring) <= needed.own + dense_form.QUERIES + 1 <= model.geometry.margin + 4


def test_folded_weights_follow_the_model_and_are_made_once(enliven, monkeypatch):
    made = []
    init = DenseForm.__init__
    monkeypatch.setattr(DenseForm, "__init__", lambda *args: (made.append(1), init(*args))[1])
    model = lively(enliven, 3, 4)
    features, observed = scene(model, 8)
    even_out(model, features, observed)
    keys = set(model.state_dict())
    before = compare(model, features, observed, 1e-5)
    assert torch.equal(before, model.tile_probabilities(features, observed))
    assert len(made) == 1
    with torch.no_grad():
        model.stem.weight.mul_(1.5)
    changed = compare(model, features, observed, 1e-5)
    assert not torch.equal(before, changed)
    model.local1_norm.running_mean.add_(0.5)  # a statistic, not a weight
    again = compare(model, features, observed, 1e-5)
    assert not torch.equal(changed, again)
    assert len(made) == 3
    model.head.weight.data.mul_(2)  # unseen by torch's own counting, but not by the change of mode
    model.train().eval()
    after = compare(model, features, observed, 1e-5)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
        assert torch.equal(twin.tile_probabilities(features, observed), after)
    assert set(model.state_dict()) == keys


def test_only_mapping_uses_the_folded_form(enliven, monkeypatch):
    model = lively(enliven, 3, 4)
    features, observed = scene(model, 8)
    expected = model.tile_probabilities(features, observed)

    def never(*_: Any) -> None:
        raise AssertionError("a layer was computed")

    with monkeypatch.context() as patch:
        patch.setattr(DenseWetMapFormer, "classify", never)
        assert torch.equal(model.tile_probabilities(features, observed), expected)
    monkeypatch.setattr(DenseForm, "logits", never)
    model(features, observed).sum().backward()
    assert model.stem.weight.grad is not None


def test_what_a_map_costs_is_counted(enliven):
    model = lively(enliven, 16, 7)
    side = 2 * model.geometry.margin + 40
    pixels, tokens = (40 + 2 * Needed.of(model.wiring).own) ** 2, 14**2
    spectral = 16 * 16 * 16 + 16 * 16 * 5 * 32 + 512 * 32
    counted = multiply_adds(model, noise(1, 16, side, side), method="tile_probabilities")
    assert counted > pixels * spectral + tokens * (4 * 128 * 128 + 2 * 4 * 128 * 128)
    assert counted < 1.6 * pixels * spectral


def test_mapping_in_half_precision_is_close(enliven):
    model = lively(enliven, 6, 4)
    features, observed = scene(model, 16)
    expected = model.tile_probabilities(features, observed)
    half = copy.deepcopy(model).to(torch.bfloat16)
    found = half.tile_probabilities(features.to(torch.bfloat16), observed)
    assert found.dtype is torch.bfloat16
    assert 0 < float((found.float() - expected).abs().max()) < 0.05
    # physical units have more digits than half precision keeps: statistics may stay as they are
    half.normalisation.float()
    assert float((half.tile_probabilities(features, observed).float() - expected).abs().max()) < 0.05
    # where classes are close, no further than the layers in half precision: fewer steps round
    even_out(model, features, observed)
    expected = model.tile_probabilities(features, observed)
    half, features = copy.deepcopy(model).to(torch.bfloat16), features.to(torch.bfloat16)
    by_form, by_layers = half.tile_probabilities(features, observed), plain(half, features, observed)
    assert float((by_form.float() - expected).abs().mean()) < 1.1 * float((by_layers.float() - expected).abs().mean())


@pytest.mark.parametrize("packing", [True, False])
def test_every_way_of_convolving_gives_the_same(packing, monkeypatch):
    if packing and not folding._PACKING:
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(folding, "_PACKING", packing)
    maps = noise(9, 8, 6)
    for groups, padding in ((1, (0, 2)), (6, (0, 0))):
        weight, bias = noise(6 if groups > 1 else 10, 6 // groups, 3, 5), noise(6 if groups > 1 else 10, seed=1)
        exact = torch.nn.functional.conv2d(maps.permute(2, 0, 1)[None], weight, bias, padding=padding, groups=groups)
        expected = exact[0].permute(1, 2, 0)
        for size in (None, (9, 8)):
            layer = folding.Convolution(weight.double(), bias.double(), padding).to(maps, size)
            assert (layer.packed is not None) is packing
            torch.testing.assert_close(layer(maps), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(layer.relu(maps), expected.relu(), rtol=1e-5, atol=1e-5)
            assert layer(maps).is_contiguous()
