from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wetmap.errors import BundleError
from wetmap.models import create
from wetmap.models.wetmapformer import WetMapFormer, Wiring, load_reference, reference_count
from wetmap.models.wetmapformer.network import AttentionBlock, ChannelNorm, ConvBlock, Extractor
from wetmap.models.wetmapformer.reference import reference_layers

HERE = Path(__file__).parents[1] / "golden" / "wetmapformer"
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "golden" / "wetmapformer"

TINY: dict[str, dict[str, Any]] = {
    "tiny_small": {"widths": (16, 32), "head_width": 8, "kernel": 1, "mlp_ratio": 0},
    "tiny_fixedcall": {"widths": (16, 32), "head_width": 8, "depths": (1, 2)},
}
#: Cases that may lie beside the checkout.
WIRINGS: dict[str, dict[str, Any]] = {
    **TINY,
    "tiny_medium": {"widths": (16, 32), "head_width": 32, "kernel": 1, "mlp_ratio": 0, "depths": (3, 4)},
    "tiny_large": {"widths": (16, 32), "head_width": 128, "kernel": 1, "mlp_ratio": 0, "depths": (6, 8)},
    "small": {"kernel": 1, "mlp_ratio": 0},
    "full_medium": {"head_width": 256, "kernel": 1, "mlp_ratio": 0, "depths": (3, 4)},
    "full_large": {"head_width": 1024, "kernel": 1, "mlp_ratio": 0, "depths": (6, 8)},
}

#: Largest error as a share of the tensor's largest value.
FLOAT32, FLOAT64 = 1e-5, 1e-10
#: TensorFlow's float64 GELU divides by a square root of 2 that was rounded to float32: 7e-9 per activation.
FLOAT64_WITH_GELU = 1e-8


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def network(case: str, tensors: dict[str, Tensor], dtype: torch.dtype) -> WetMapFormer:
    model = WetMapFormer(16, 7, wiring=Wiring(**WIRINGS[case]))
    load_reference(model, tensors)
    return model.eval().to(dtype)


def outputs(model: WetMapFormer, features: Tensor) -> dict[str, Tensor]:
    """What each Keras layer with a counterpart gives, channels last."""
    kept: dict[str, Tensor] = {}
    modules = dict(model.named_modules())

    def keep(name: str, maps: bool) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            kept[name] = output.detach().permute(0, 2, 3, 1) if maps else output.detach()

        return hook

    for layer in reference_layers(model):
        # the band convolutions work on another arrangement, with the activation outside
        if layer.path and not layer.name.startswith("conv3d"):
            module = modules[layer.path]
            maps = isinstance(module, nn.Linear | nn.LayerNorm) is False or isinstance(module, ChannelNorm)
            module.register_forward_hook(keep(layer.name, maps))
    with torch.no_grad():
        kept["logits"] = model(features)
    return kept


def compare(case: str, tensors: dict[str, Tensor], twin: dict[str, Tensor], dtype: torch.dtype) -> int:
    """Compare logits and every stored activation; gives the number of activations compared."""
    model = network(case, tensors, dtype)
    features = tensors["input"].permute(0, 3, 1, 2).to(dtype)
    limit = FLOAT32
    if dtype is torch.float64:
        limit = FLOAT64_WITH_GELU if model.wiring.mlp_ratio else FLOAT64
    with torch.no_grad():
        assert error(model(features), twin["logits"]) < limit
    found = outputs(model, features[:2])
    compared = 0
    for name, value in found.items():
        expected = twin.get(f"act/{name}")
        if expected is None or name == "predictions":  # that one is stored after the softmax
            continue
        if value.shape != expected.shape:  # the release computes padded tokens too, and crops them later
            expected = expected[:, : value.shape[1], : value.shape[2]]
        assert error(value, expected) < limit, name
        compared += 1
    return compared


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", TINY)
def test_it_computes_what_the_release_computes(case, dtype):
    tensors = load_file(HERE / f"{case}.safetensors")
    twin = tensors
    if dtype is torch.float64:
        twin = {key.removeprefix("f64/"): value for key, value in tensors.items() if key.startswith("f64/")}
    assert compare(case, tensors, twin, dtype) >= 12


def test_the_last_error_in_float64_is_tensorflows_gelu(monkeypatch):
    monkeypatch.setattr(
        nn.functional,
        "gelu",
        lambda x: 0.5 * x * (1 + torch.erf(x / torch.tensor(2.0).sqrt().double())),
    )
    tensors = load_file(HERE / "tiny_fixedcall.safetensors")
    model = network("tiny_fixedcall", tensors, torch.float64)
    with torch.no_grad():
        assert error(model(tensors["input"].permute(0, 3, 1, 2).double()), tensors["f64/logits"]) < FLOAT64


@pytest.mark.parametrize("case", WIRINGS)
def test_it_computes_what_the_release_computes_full_files(case):
    path = BESIDE / f"{case}.safetensors"
    if not path.exists():
        pytest.skip(f"{case}.safetensors is not beside the checkout (../shared/golden/wetmapformer)")
    tensors = load_file(path)
    compare(case, tensors, tensors, torch.float32)
    twin = path.with_name(f"{case}.float64.safetensors")
    if twin.exists():
        compare(case, tensors, load_file(twin), torch.float64)
    config = path.with_suffix(".json")
    if config.exists():
        model = WetMapFormer(16, 7, wiring=Wiring(**WIRINGS[case]))
        counted = json.loads(config.read_text())
        assert reference_count(model) == counted["params_total"]
        assert sum(p.numel() for p in model.parameters()) == counted["params_trainable"]


@pytest.mark.parametrize(
    ("name", "size", "count", "trainable"),
    [
        ("wetmapformer-window", "small", 1_376_816, None),
        ("wetmapformer-window", "medium", 4_123_084, None),
        ("wetmapformer-window", "large", 6_851_560, None),
        ("wetmapformer-published", "small", 719_728, 717_519),
        ("wetmapformer-published", "medium", 1_626_988, 1_623_755),
        ("wetmapformer-published", "large", 1_859_560, 1_846_599),
    ],
)
def test_parameters_as_keras_counts_them(name, size, count, trainable):
    model = create(name, 16, 7, size=size)
    assert isinstance(model, WetMapFormer)
    assert reference_count(model) == count
    if trainable is not None:
        assert sum(p.numel() for p in model.parameters()) == trainable


def test_large_has_no_attention_and_the_others_have():
    kinds = {
        size: {type(block) for block in create("wetmapformer-window", 2, 2, size=size).stage2}
        for size in ("small", "medium", "large")
    }
    assert kinds == {"small": {AttentionBlock}, "medium": {AttentionBlock}, "large": {ConvBlock}}


@pytest.mark.parametrize(("name", "alive"), [("wetmapformer-window", True), ("wetmapformer-published", False)])
def test_queries_and_keys_matter_as_meant_and_not_as_published(name, alive, enliven):
    torch.manual_seed(0)
    model = create(name, 4, 3)
    enliven(model, 1)
    model.eval()
    features = torch.randn(4, 4, 8, 8)
    with torch.no_grad():
        before = model(features)
        model.stage2[0].attention.qkv.weight[:512] *= -3
        model.stage2[0].attention.positions += torch.linspace(-2, 2, model.stage2[0].attention.positions.shape[1])
        assert torch.equal(before, model(features)) is not alive


@pytest.mark.parametrize(
    ("window", "stem_stride", "tokens"), [(8, 4, 1), (8, 2, 2), (8, 1, 4), (16, 4, 2), (12, 4, 2), (32, 1, 16)]
)
def test_the_window_and_the_stem_decide_how_many_tokens_attend(window, stem_stride, tokens):
    model = create("wetmapformer-window", 2, 2, window=window, stem_stride=stem_stride).eval()
    seen: list[Tensor] = []
    model.stage2[0].attention.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.randn(1, 2, window, window))
    assert seen[0].shape == (1, tokens, tokens, 256)


def test_every_pixel_of_an_odd_sized_window_counts():
    torch.manual_seed(0)
    model = create("wetmapformer-window", 2, 2, window=10).eval()
    features = torch.randn(1, 2, 10, 10, requires_grad=True)
    model(features)[0, 0].backward()
    assert bool((features.grad.abs().sum(1) > 0).all())


def test_the_decoder_starts_before_the_residual_is_added():
    torch.manual_seed(0)
    extractor = Extractor(32).eval()
    seen: list[Tensor] = []
    extractor.up1.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    with torch.no_grad():
        spectra = torch.randn(1, 32, 8, 8)
        extractor(spectra)
        extractor.skip.weight.mul_(5)
        extractor(spectra)
    assert torch.equal(seen[0], seen[1])


def test_weights_missing_left_over_or_of_another_shape_are_refused():
    tensors = {k: v for k, v in load_file(HERE / "tiny_small.safetensors").items() if k.startswith("param/")}
    bare = {key.removeprefix("param/"): value for key, value in tensors.items()}
    model = WetMapFormer(16, 7, wiring=Wiring(**TINY["tiny_small"]))
    load_reference(model, bare)
    with pytest.raises(BundleError, match="missing or left over: stem"):
        load_reference(model, {**bare, "stem": torch.zeros(1)})
    with pytest.raises(BundleError, match="missing or left over: conv2d/bias"):
        load_reference(model, {k: v for k, v in bare.items() if k != "conv2d/bias"})
    with pytest.raises(BundleError, match="conv2d_2/kernel"):
        load_reference(model, {**bare, "conv2d_2/kernel": torch.zeros(4, 4, 32, 17)})
    with pytest.raises(BundleError, match="dense/kernel"):
        load_reference(model, {**bare, "dense/kernel": torch.zeros(16, 4)})
    with pytest.raises(BundleError, match="missing or left over"):
        load_reference(WetMapFormer(16, 7, wiring=Wiring(**TINY["tiny_fixedcall"])), bare)
