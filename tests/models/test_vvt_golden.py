from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wetmap.errors import BundleError
from wetmap.models.vvt import (
    WIRINGS,
    Vvt,
    Wiring,
    load_reference,
    reference_name,
)
from wetmap.models.vvt.attention import angles

HERE = Path(__file__).parents[1] / "golden" / "vvt"
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "golden" / "vvt"
CASES: dict[str, Any] = json.loads((HERE / "cases.json").read_text())

#: Largest error as a share of the tensor's largest value.
FLOAT32, FLOAT64 = 1e-5, 1e-10
#: The same for gradients in float32, against those of float64. In each case some queries have weights of 0 or nearly 0
#: in a head (in stages of one or two tokens, above all), where the gradient of ``1 / (weight + 1e-4)`` is steep.
GRADIENT32 = {"base": 5e-5, "sr": 1e-4, "native_init": 5e-5, "clamps": 2e-4}
#: Attention to a single token gives ``v w / (w + 1e-4)``: what remains of the gradients of queries and keys is the
#: difference of two terms that agree to 1e-4 or better. In ``clamps`` it is 2e-7 of the model's largest gradient.
CANCELLING = ("block4.0.attn.q_proj", "block4.0.attn.k_proj")
CANCELLING32 = 0.05


def wiring(config: dict[str, Any], norm_eps: float, **changes: Any) -> Wiring:
    names = {
        "widths": "embed_dims",
        "depths": "depths",
        "heads": "num_heads",
        "mlp_ratios": "mlp_ratios",
        "feature_reductions": "fr_ratios",
        "key_strides": "sr_ratios",
    }
    chosen: dict[str, Any] = {own: tuple(config[theirs]) for own, theirs in names.items()}
    return Wiring(**chosen, gate_reduction=config["se_ratio"], norm_eps=norm_eps, **changes)


#: The wiring whose first three scales have fewer keys than tokens.
KEYS_IN_SQUARES = wiring(CASES["sr"]["config"], 1e-6)


def drawn(case: str, run: str) -> Tensor:
    """The input of a run, by the rule it was made by: normal deviates, seeded with the name's checksum."""
    seed = (zlib.crc32(f"input:{case}{run}".encode()) + 1000003 * CASES[case]["seed"]) % 2**32
    values = np.random.RandomState(seed).standard_normal(CASES[case]["input_shape"])
    return torch.from_numpy(values.astype(np.float32))


def cut(case: str) -> dict[str, Tensor]:
    """The copy in this repository, with what it shares with ``base`` put back."""
    tensors = load_file(HERE / f"{case}.safetensors")
    weights = load_file(HERE / "base.safetensors") if case in ("sr", "clamps") else {}
    run = CASES[case]["run"]
    shared = {key: value for key, value in weights.items() if key.startswith("param/")}
    return {f"{run}/input": drawn(case, run), **shared, **tensors} if case != "clamps" else {**shared, **tensors}


def network(case: str, tensors: dict[str, Tensor], dtype: torch.dtype, **changes: Any) -> Vvt:
    model = Vvt(16, 7, wiring=wiring(CASES[case]["config"], CASES[case]["norm_eps"], **changes))
    load_reference(model, tensors)
    return model.to(dtype).eval()


def error(found: Tensor, expected: Tensor) -> float:
    """Largest error, as a share of the largest value; of the first images or every n-th value where that is stored."""
    if expected.ndim == 1 and found.shape != expected.shape:
        found = found.flatten()[:: math.ceil(found.numel() / 32)]
    found = found[: len(expected)].double()
    assert found.shape == expected.shape
    largest = float(expected.double().abs().max())
    return float((found - expected.double()).abs().max()) / (largest or 1.0)


def sites(model: Vvt) -> dict[str, nn.Module]:
    named: dict[str, nn.Module] = {}
    for scale, stage in enumerate(model.trunk.stages, 1):
        named |= {f"patch_embed{scale}": stage.embedding, f"norm{scale}": stage.norm}
        for number, block in enumerate(stage.blocks):
            name = f"block{scale}.{number}"
            named |= {name: block, f"{name}.attn": block.attention, f"{name}.mlp": block.mlp}
    return named


def compare_outputs(model: Vvt, tensors: dict[str, Tensor], run: str, kind: str, limit: float) -> int:
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: found.update({name: output.flatten(1, 2)})

    for name, module in sites(model).items():
        module.register_forward_hook(keep(name))
    with torch.no_grad():
        found["output"] = model.spatial(tensors[f"{run}/input"].to(next(model.parameters()).dtype))
    stored = {name: tensors[f"{run}/{kind}/{name}"] for name in found if f"{run}/{kind}/{name}" in tensors}
    for name, expected in stored.items():
        assert error(found[name], expected) < limit, name
    return len(stored)


def gradients(model: Vvt, tensors: dict[str, Tensor], run: str) -> dict[str, Tensor]:
    features = tensors[f"{run}/input"].to(next(model.parameters()).dtype).clone().requires_grad_()
    (model.spatial(features) * tensors[f"{run}/cotangent"].to(features.dtype)).sum().backward()
    found = {f"grad/{reference_name(name)}": value.grad for name, value in model.named_parameters()}
    return {**found, "grad_input": features.grad}


def gradient_limit(case: str, name: str, dtype: torch.dtype) -> float:
    if dtype is torch.float64:
        return FLOAT64
    return CANCELLING32 if case == "clamps" and any(part in name for part in CANCELLING) else GRADIENT32[case]


KINDS = [("f32", torch.float32, 5), ("f64", torch.float64, 21), ("f64angles", torch.float64, 1)]


@pytest.mark.parametrize(("kind", "dtype", "count"), KINDS)
@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_the_release_computes(case, kind, dtype, count):
    tensors = cut(case)
    model = network(case, tensors, dtype, exact_angles=kind == "f64angles")
    limit = FLOAT32 if dtype is torch.float32 else FLOAT64
    assert compare_outputs(model, tensors, CASES[case]["run"], kind, limit) == count
    assert sum(value.numel() for value in model.parameters()) == CASES[case]["params"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_its_gradients_are_those_of_the_release(case, dtype):
    tensors, run = cut(case), CASES[case]["run"]
    found = gradients(network(case, tensors, dtype), tensors, run)
    assert {f"{run}/f64/{name}" for name in found} == {key for key in tensors if "/grad" in key}
    for name, value in found.items():
        limit = gradient_limit(case, name, dtype)
        assert error(value, tensors[f"{run}/f64/{name}"]) < limit, name
        norm = CASES[case]["grad_norm"][name.removeprefix("grad/").removeprefix("grad_")]
        assert float(value.double().norm()) == pytest.approx(norm, rel=limit, abs=1e-12), name


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_the_release_computes_full_files(case):
    path = BESIDE / f"{case}.safetensors"
    if not path.exists():
        pytest.skip(f"{case}.safetensors is not beside the checkout (../shared/golden/vvt)")
    tensors = load_file(path)
    for run in json.loads(path.with_suffix(".json").read_text())["runs"]:
        for kind, dtype, count in KINDS:
            model = network(case, tensors, dtype, exact_angles=kind == "f64angles")
            limit = FLOAT32 if dtype is torch.float32 else FLOAT64
            assert compare_outputs(model, tensors, run, kind, limit) == count
            if f"{run}/cotangent" in tensors and kind != "f64angles":
                for name, value in gradients(model, tensors, run).items():
                    assert error(value, tensors[f"{run}/f64/{name}"]) < gradient_limit(case, name, dtype), name


def test_rounded_angles_are_those_of_the_release_to_the_bit():
    tensors = load_file(HERE / "angles.safetensors")
    assert len(tensors) == 26
    for key, expected in tensors.items():
        name, part = key.split("/")
        width, rest = name[1:].split("h")
        height, stride = (int(text) for text in rest.split("sr"))
        divisor = stride if part.endswith("_k") else 1
        rows, columns = angles(height // divisor, int(width) // divisor)
        found = rows if part.startswith("row") else columns
        assert np.array_equal(found, expected.double().numpy()), key


def test_exact_angles_are_equal_parts_of_a_quarter_turn():
    rows, columns = angles(3, 2, exact=True)
    np.testing.assert_allclose(np.degrees(rows), [0, 0, 30, 30, 60, 60], rtol=1e-15)
    np.testing.assert_allclose(np.degrees(columns), [0, 45, 0, 45, 0, 45], rtol=1e-15)


@pytest.mark.parametrize("case", ["clamps", "native_init"])
def test_without_the_clamps_it_is_not_the_release(case):
    tensors, run = cut(case), CASES[case]["run"]
    with torch.no_grad():
        found = network(case, tensors, torch.float64, clamp=False).spatial(tensors[f"{run}/input"].double())
    assert error(found, tensors[f"{run}/f64/output"]) > 1e-6


def test_epsilons_are_those_of_the_release():
    model = Vvt(3, 2, wiring=KEYS_IN_SQUARES)
    epsilons = {name: part.eps for name, part in model.named_modules() if isinstance(part, nn.LayerNorm)}
    after_convolutions = {name for name in epsilons if "embedding" in name or "reduction" in name}
    assert len(after_convolutions) == 4 + 3
    assert {name for name, eps in epsilons.items() if eps == 1e-5} == after_convolutions
    assert {eps for name, eps in epsilons.items() if name not in after_convolutions} == {1e-6}
    assert {form.norm_eps for form in WIRINGS.values()} == {1e-6}


def test_weights_missing_left_over_or_of_another_shape_are_refused():
    tensors = cut("native_init")
    bare = {key.removeprefix("param/"): value for key, value in tensors.items() if key.startswith("param/")}
    form = wiring(CASES["native_init"]["config"], 1e-6)
    model = Vvt(16, 7, wiring=form)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(BundleError, match=r"1 weights are missing or left over: attn\.bias"):
        load_reference(model, {**bare, "attn.bias": torch.zeros(1)})
    with pytest.raises(BundleError, match=r"missing or left over: block1\.0\.attn\.se_fc\.0\.weight"):
        load_reference(model, {key: value for key, value in bare.items() if key != "block1.0.attn.se_fc.0.weight"})
    with pytest.raises(BundleError, match=r"head\.weight has the shape \(8, 48\), not \(7, 48\)"):
        load_reference(model, {**bare, "head.weight": torch.zeros(8, 48)})
    with pytest.raises(BundleError, match=r"missing or left over.*block1\.0\.attn\.norm"):
        load_reference(Vvt(16, 7, wiring=KEYS_IN_SQUARES), bare)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    load_reference(model, bare)
    assert all(torch.equal(value, bare[reference_name(name)]) for name, value in model.named_parameters())
