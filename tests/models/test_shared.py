"""The shared evaluation of WetMapFormer against windows cut out and classified one by one."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from wetmap.models import create
from wetmap.models.wetmapformer import WetMapFormer, Wiring, folding, load_reference, shared_head, spectral_form
from wetmap.models.windows import WindowClassifier

GOLDEN = Path(__file__).parents[1] / "golden" / "wetmapformer"

#: name, bands, classes, tile, options.
CASES: list[tuple[str, int, int, int, dict[str, Any]]] = [
    ("wetmapformer-window", 16, 7, 9, {}),
    ("wetmapformer-window", 5, 3, 8, {"size": "medium"}),
    ("wetmapformer-window", 2, 4, 8, {"size": "large"}),
    ("wetmapformer-window", 1, 2, 1, {}),
    ("wetmapformer-window", 3, 5, 7, {"stem_stride": 2}),
    ("wetmapformer-window", 6, 3, 5, {"stem_stride": 1}),
    ("wetmapformer-window", 3, 4, 6, {"window": 10}),
    ("wetmapformer-window", 4, 3, 5, {"window": 16, "stem_stride": 2}),
    ("wetmapformer-published", 7, 6, 10, {}),
    ("wetmapformer-published", 3, 3, 8, {"size": "medium"}),
    ("wetmapformer-published", 2, 4, 8, {"size": "large"}),
    ("wetmapformer-published", 4, 3, 3, {"window": 32}),
]


def lively(name: str, bands: int, classes: int, enliven: Any, seed: int = 4, **options: Any) -> WetMapFormer:
    """A model in which nothing is 0 or 1 by default, and some channels are turned over, dead, or always on."""
    torch.manual_seed(seed)
    model = create(name, bands, classes, layers=2, band_layer=[band % 2 for band in range(bands)], **options)
    assert isinstance(model, WetMapFormer)
    enliven(model, seed)
    with torch.no_grad():
        scale = model.spectra.norm.weight
        scale.mul_(torch.randn(scale.shape).sign())
        scale[::7] = 0
        model.spectra.norm.bias.mul_(5)
    return model.eval()


def scene(bands: int, side: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A tile at the corner of a raster: nothing beyond two of its sides, holes, and a layer missing here and there."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn((1, bands, side, side), generator=draw)
    features[:, :, :3] = torch.nan
    features[:, :, :, -2:] = torch.nan
    features[0, bands // 2, side // 2, side // 2] = torch.nan
    features[0, 0, 4, 4] = torch.inf
    return features, torch.rand((1, 2, side, side), generator=draw) > 0.1


def even_out(model: WetMapFormer, features: Tensor, observed: Tensor) -> None:
    """Scale and shift the classifier so that every class has its share of the pixels."""
    normalised = model.normalisation(features, observed)
    with torch.no_grad():
        logits = WindowClassifier.tile_logits(model, normalised)
        if len(logits) > 1:
            spread = (logits - logits.mean(1, keepdim=True)).std(0)
            model.head.weight.div_(spread[:, None])
            model.head.bias.div_(spread)
        model.head.bias.sub_(WindowClassifier.tile_logits(model, normalised).median(0).values)


def compare(model: WetMapFormer, features: Tensor, observed: Tensor, limit: float) -> Tensor:
    found = model.tile_probabilities(features, observed)
    expected = model.tile_probabilities_naive(features, observed)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=limit)
    best = expected.topk(2, 1).values
    clear = best[:, 0] - best[:, 1] > 2 * limit
    assert torch.equal(found.argmax(1)[clear], expected.argmax(1)[clear])
    return found.argmax(1)


@pytest.mark.parametrize(("name", "bands", "classes", "tile", "options"), CASES)
def test_shared_is_naive(name, bands, classes, tile, options, enliven):
    model = lively(name, bands, classes, enliven, **options)
    features, observed = scene(bands, tile + model.window)
    # in float64 rounding cannot hide a wrong tap
    twin = copy.deepcopy(model).double()
    even_out(twin, features, observed)
    winners = compare(twin, features, observed, 1e-11)
    if tile > 4:
        assert len(winners.unique()) >= min(classes, 3)
    model.load_state_dict(twin.state_dict())
    # fourteen blocks triple the stream each, and what the classes share in it cancels at the end
    compare(model, features, observed, 1e-4 if options.get("size") == "large" else 1e-5)


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 999),
    bands=st.integers(1, 9),
    classes=st.integers(2, 9),
    tile=st.integers(1, 11),
    sizes=st.tuples(st.sampled_from([1, 10, 64]), st.sampled_from([1, 40, 100])),
)
def test_shared_is_naive_however_the_work_is_cut(enliven, seed, bands, classes, tile, sizes):
    windows, pixels = sizes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_head, "WINDOWS_TOGETHER", windows)
        patch.setattr(spectral_form, "PIXELS_TOGETHER", pixels)
        model = lively("wetmapformer-window", bands, classes, enliven, seed).double()
        compare(model, *scene(bands, tile + 8, seed), 1e-11)


@pytest.mark.parametrize("case", ["tiny_small", "tiny_fixedcall"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_released_network_by_the_shared_way(case, dtype):
    tensors = load_file(GOLDEN / f"{case}.safetensors")
    wiring = {"tiny_small": {"kernel": 1, "mlp_ratio": 0}, "tiny_fixedcall": {"depths": (1, 2)}}[case]
    model = WetMapFormer(16, 7, wiring=Wiring(widths=(16, 32), head_width=8, **wiring))
    load_reference(model, tensors)
    model = model.eval().to(dtype)
    expected = tensors["f64/logits" if dtype is torch.float64 else "logits"].softmax(1)
    patches = tensors["input"].permute(0, 3, 1, 2)
    tiles = torch.full((len(patches), 16, 9, 9), torch.nan)
    tiles[:, :, :8, :8] = patches
    found = model.tile_probabilities(tiles.to(dtype))[:, :, 0, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8 if dtype is torch.float64 else 2e-6)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_other_attention_kernels_and_head_widths(kernel, enliven):
    torch.manual_seed(1)
    model = WetMapFormer(3, 4, wiring=Wiring(kernel=kernel, head_width=16, widths=(32, 48), depths=(2, 2), mlp_ratio=2))
    enliven(model, 2)
    with torch.no_grad():
        for block in model.stage2:
            block.attention.positions.normal_()
            block.attention.qkv.weight.mul_(3)
    features, observed = scene(3, 14)
    compare(model.eval().double(), features, observed[:, :1], 1e-11)


def test_windows_that_nothing_is_shared_for(enliven):
    model = WetMapFormer(3, 4, wiring=Wiring(widths=(16, 32), head_width=8), window=4)
    enliven(model, 2)
    features, observed = scene(3, 10)
    compare(model.eval(), features, observed[:, :1], 1e-6)


def test_no_window_is_classified_on_its_own(enliven, monkeypatch):
    model = lively("wetmapformer-window", 3, 4, enliven)
    features, observed = scene(3, 14)
    expected = model.tile_probabilities_naive(features, observed)

    def never(*_: Any) -> None:
        raise AssertionError("a window was classified on its own")

    monkeypatch.setattr(WetMapFormer, "spatial", never)
    monkeypatch.setattr(WetMapFormer, "classify", never)
    monkeypatch.setattr(WindowClassifier, "tile_logits", never)
    torch.testing.assert_close(model.tile_probabilities(features, observed), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("packing", "onednn"), [(True, True), (False, True), (False, False)])
def test_every_way_of_multiplying_gives_the_same(packing, onednn, monkeypatch):
    if (packing and not folding._PACKING) or (onednn and not folding._ONEDNN):
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(folding, "_PACKING", packing)
    monkeypatch.setattr(folding, "_ONEDNN", onednn)
    draw = torch.Generator().manual_seed(0)
    weight, bias, rows = (torch.randn(shape, generator=draw) for shape in ((24, 48), (24,), (700, 48)))
    layer = folding.Affine(weight.double(), bias.double()).to(rows)
    assert (layer.packed is not None) is packing
    for some in (rows, rows[:1], rows[:5]):
        exact = some.double() @ weight.double().T + bias.double()
        torch.testing.assert_close(layer(some).double(), exact, rtol=0, atol=1e-4)
        torch.testing.assert_close(layer.gelu(some).double(), torch.nn.functional.gelu(exact), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["wetmapformer-window", "wetmapformer-published"])
def test_mapping_in_half_precision_is_close(name, enliven):
    model = lively(name, 6, 4, enliven)
    features, observed = scene(6, 24)
    even_out(model, features, observed)
    expected = model.tile_probabilities(features, observed)
    half = copy.deepcopy(model).to(torch.bfloat16)
    found = half.tile_probabilities(features.to(torch.bfloat16), observed)
    assert found.dtype is torch.bfloat16
    difference = (found.float() - expected).abs()
    assert float(difference.max()) < 0.15
    assert 0 < float(difference.mean()) < 0.02
    # physical units have more digits than half precision keeps: statistics may stay as they are
    half.normalisation.float()
    closer = half.tile_probabilities(features, observed)
    assert float((closer.float() - expected).abs().mean()) < 0.02


def test_folded_weights_follow_the_model(enliven):
    model = lively("wetmapformer-window", 3, 4, enliven)
    features, observed = scene(3, 13)
    keys = set(model.state_dict())
    before = compare_values(model, features, observed)
    with torch.no_grad():
        model.stem.weight.mul_(1.5)
    changed = compare_values(model, features, observed)
    assert not torch.equal(before, changed)
    model.extractor.norm1.running_mean.add_(0.5)  # a statistic, not a weight
    assert not torch.equal(changed, compare_values(model, features, observed))
    other = lively("wetmapformer-window", 3, 4, enliven, seed=9)
    model.load_state_dict(other.state_dict())
    assert torch.equal(compare_values(model, features, observed), compare_values(other, features, observed))
    model.head.weight.data.mul_(2)  # unseen by torch's own counting, but not by the change of mode
    model.train().eval()
    compare_values(model, features, observed)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
        assert torch.equal(compare_values(twin, features, observed), compare_values(model, features, observed))
    assert set(model.state_dict()) == keys


def test_the_folded_weights_are_made_once(enliven, monkeypatch):
    made = []
    init = shared_head.FoldedHead.__init__
    monkeypatch.setattr(shared_head.FoldedHead, "__init__", lambda *args: (made.append(1), init(*args))[1])
    model = lively("wetmapformer-window", 3, 4, enliven)
    for seed in range(3):
        model.tile_probabilities(*scene(3, 12, seed))
    assert len(made) == 1


def compare_values(model: WetMapFormer, features: Tensor, observed: Tensor) -> Tensor:
    compare(model, features, observed, 1e-5)
    return model.tile_probabilities(features, observed)
