"""Weights by the public code's names, for every architecture that has public code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wetmap.errors import BundleError
from wetmap.models import create, entry, load_reference, model_names
from wetmap.models.adapt import Adapted, adapt_reference
from wetmap.models.reference import key_map
from wetmap.models.supervit import SuperVit, micro_shape
from wetmap.models.vvt import WIRINGS, Vvt
from wetmap.models.wetmapformer import WetMapFormer, Wiring

GOLDEN = Path(__file__).parents[1] / "golden"

#: A small model of each architecture that has public code, by its name there.
PUBLIC = ("wetmapformer-window", "wetmapformer-published", "vvt-micro", "supervit-micro")
DENSE = ("vvt-micro-dense", "supervit-micro-dense")


def public_weights(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Weights in the public code's own names and layouts, drawn at random."""
    draw = torch.Generator().manual_seed(seed)
    state, found = model.state_dict(), {}
    for weight in key_map(model).weights:
        if weight.target is None:
            found[weight.name] = torch.zeros(() if weight.name == "count" else (4, 0))
            continue
        value = torch.rand(state[weight.target].shape, generator=draw) - 0.5
        if weight.axes is not None:
            value = value.unsqueeze(2) if len(weight.axes) == 5 else value
            value = value.permute([weight.axes.index(axis) for axis in range(len(weight.axes))])
        found[weight.name] = value
    return found


def small(name: str, bands: int = 3, classes: int = 5, **options: Any) -> Any:
    return create(name, bands=bands, classes=classes, **options)


def test_a_model_is_made_by_the_names_of_bands_and_classes():
    model = create("vvt-micro", bands=16, classes=7, window=16)
    assert (model.bands, model.classes, model.window) == (16, 7, 16)
    assert create(name="wetmapformer-window", bands=16, classes=7).head.out_features == 7


@pytest.mark.parametrize("name", PUBLIC)
def test_one_function_fills_every_architecture(name):
    model = small(name)
    weights = public_weights(model)
    load_reference(model, {f"param/{key}": value for key, value in weights.items()} | {"input": torch.zeros(1)})
    state = model.state_dict()
    for weight in key_map(model).weights:
        if weight.target is not None:
            assert torch.equal(weight.ours(weights[weight.name]), state[weight.target]), weight.name
    filled = {weight.target for weight in key_map(model).weights}
    assert {key for key, _ in model.named_parameters()} <= filled


def test_the_golden_files_are_filled_by_it_too():
    keras = WetMapFormer(16, 7, wiring=Wiring(widths=(16, 32), head_width=8, kernel=1, mlp_ratio=0))
    tensors = load_file(GOLDEN / "wetmapformer/tiny_small.safetensors")
    load_reference(keras, tensors)
    with torch.no_grad():
        logits = keras.eval()(tensors["input"].permute(0, 3, 1, 2))
    torch.testing.assert_close(logits, tensors["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_missing_left_over_or_misshapen_is_named_and_nothing_is_filled(name):
    model = small(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weights = public_weights(model)
    *_, lost = (key for key in weights if weights[key].numel())
    wrong = {key: value for key, value in weights.items() if key != lost} | {"optimizer.step": torch.zeros(1)}
    with pytest.raises(BundleError, match="2 weights are missing or left over") as caught:
        load_reference(model, wrong)
    assert f"{lost} (missing)" in str(caught.value)
    assert "optimizer.step (left over)" in str(caught.value)
    with pytest.raises(BundleError, match=f"{lost} has the shape"):
        load_reference(model, {**weights, lost: torch.zeros(2, 3)})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_models_without_public_code_are_refused():
    for name in model_names():
        if entry(name).family != "torch" or name.startswith(("vvt-", "supervit-", "wetmapformer-")):
            continue
        with torch.device("meta"):
            model = create(name, bands=3, classes=2)
        with pytest.raises(BundleError, match="no published counterpart"):
            load_reference(model, {})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vvt-micro-dense", {}, "VvtDense has parts that the release has not: head"),
        ("supervit-micro-dense", {}, "SuperVitDense has parts that the release has not"),
        ("vvt-micro", {"extractor": "spectral"}, "Vvt has parts that the release has not: front"),
        ("supervit-micro", {"patching": "multi"}, "'resize'"),
    ],
)
def test_forms_that_were_not_published_are_refused(name, options, message):
    with pytest.raises(BundleError, match=message):
        load_reference(small(name, **options), {})


def test_naming_the_models_and_asking_for_help_import_no_torch():
    torchless = "sys.exit('torch' in sys.modules)"
    code = f"import sys, wetmap.models as m; m.load_reference, m.create; {torchless}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = (
        "import sys\nsys.argv = ['wetmap', 'model', '--help']\nfrom wetmap.cli.main import app\n"
        f"try:\n    app()\nexcept SystemExit:\n    pass\n{torchless}"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "import" in done.stdout


def fitted(name: str, adapted: Adapted, bands: int, classes: int, **options: Any) -> Any:
    model = small(name, bands, classes, **options)
    state = model.state_dict()
    for key, value in adapted.state.items():
        state[key].copy_(value)
    return model.eval()


@pytest.mark.parametrize("name", ["vvt-micro", "supervit-micro"])
@pytest.mark.parametrize("bands", [1, 7])
def test_the_answer_to_equal_bands_outlives_the_change_of_their_number(name, bands):
    few = small(name, bands=3, classes=5)
    weights = public_weights(few)
    load_reference(few, weights)
    adapted = adapt_reference(small(name, bands=bands, classes=5), weights, keep_head=True)
    assert list(adapted.adapted.values()) == [f"the mean over its 3 inputs times 3/{bands}, for each of {bands}"]
    many = fitted(name, adapted, bands, 5)
    grey = torch.rand(2, 1, few.window, few.window)
    with torch.no_grad():
        expected = few.eval().spatial(grey.expand(-1, 3, -1, -1))
        found = many.spatial(grey.expand(-1, bands, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_layers_of_wetmapformer_that_add_bands_up_keep_their_scale():
    """Its own bands are told apart by 32 filters each: what is equal in all of them gives the same, few or many."""
    few = small("wetmapformer-window", bands=3, classes=5)
    weights = public_weights(few)
    load_reference(few, weights)
    adapted = adapt_reference(small("wetmapformer-window", bands=7, classes=5), weights, keep_head=True)
    assert len(adapted.adapted) == 7
    many = fitted("wetmapformer-window", adapted, 7, 5)
    for kind in ("weight", "bias", "running_mean", "running_var"):
        narrow, wide = (getattr(model.spectra.norm, kind).view(-1, 32) for model in (few, many))
        torch.testing.assert_close(wide, narrow.mean(0).expand(7, 32))
    filters = torch.rand(2, 1, 32, 8, 8)
    maps = [filters.expand(-1, bands, -1, -1, -1).flatten(1, 2) for bands in (3, 7)]
    with torch.no_grad():
        pairs = [
            [model.extractor.skip(x), model.extractor.separable1.pointwise(x)]
            for model, x in zip((few, many), maps, strict=True)
        ]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PUBLIC)
def test_with_the_bands_and_classes_of_the_source_nothing_is_changed(name):
    model = small(name)
    weights = public_weights(model)
    adapted = adapt_reference(model, weights, keep_head=True)
    assert not adapted.adapted
    assert not adapted.fresh
    load_reference(model, weights)
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in adapted.state.items())
    assert {key for key, _ in model.named_parameters()} == set(adapted.taken) - {
        key for key, _ in model.named_buffers()
    }
    assert not any(key.startswith("normalisation.") for key in adapted.state)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize(("classes", "keep", "reason"), [(9, True, "for 5 classes and not 9"), (5, False, "known")])
def test_the_layer_of_the_classes_is_left_out_where_the_classes_differ(name, classes, keep, reason):
    weights = public_weights(small(name, classes=5))
    with torch.device("meta"):
        model = small(name, classes=classes)
    adapted = adapt_reference(model, weights, keep_head=keep)
    assert {"head.weight", "head.bias"} == set(adapted.fresh)
    named = {key for key, why in adapted.left_out.items() if reason in why}
    assert {key.rpartition(".")[0] or key.rpartition("/")[0] for key in named} <= {"head", "predictions"}
    assert len(named) == 2
    without = {key: value for key, value in weights.items() if key not in named}
    assert set(adapt_reference(model, without, keep_head=keep).state) == set(adapted.state)


@pytest.mark.parametrize("name", DENSE)
def test_of_a_dense_form_the_trunk_is_filled(name):
    released = small(name.removesuffix("-dense"), window=32)
    model = small(name, window=32)
    adapted = adapt_reference(model, public_weights(released), keep_head=False)
    trunk = {key for key, _ in model.named_parameters() if key.startswith("trunk.")}
    assert set(adapted.state) == trunk
    assert set(adapted.left_out) == {"head.weight", "head.bias"}
    assert set(adapted.fresh) == {key for key, _ in model.named_parameters()} - trunk


def test_weights_of_another_size_of_the_model_are_refused_by_name():
    weights = public_weights(Vvt(3, 5, wiring=WIRINGS["micro"]))
    with torch.device("meta"):
        other = small("vvt-tiny")
    with pytest.raises(BundleError, match=r"block1\.1.*\(missing\)"):
        adapt_reference(other, weights, keep_head=False)
    tables = public_weights(SuperVit(3, 5, shape=micro_shape(16)))
    tables["pos_embed_list.1"] = torch.zeros(1, 50, 64)
    with pytest.raises(BundleError, match=r"pos_embed_list\.1 has the shape \(1, 50, 64\), not \(1, 37, 64\)"):
        adapt_reference(small("supervit-micro"), tables, keep_head=False)
    tables = public_weights(SuperVit(3, 5, shape=micro_shape(16)))
    tables["patch_embed.proj.weight"] = torch.zeros(64, 4, 3, 3)
    with pytest.raises(
        BundleError, match=r"patch_embed\.proj\.weight has the shape \(64, 3, 3, 3\), not \(64, 3, 2, 2\)"
    ):
        adapt_reference(small("supervit-micro"), tables, keep_head=False)


def test_values_that_are_not_numbers_are_refused():
    weights = public_weights(small("vvt-micro"))
    weights["block1.0.norm1.weight"][0] = torch.nan
    with pytest.raises(BundleError, match=r"block1\.0\.norm1\.weight holds values that are not numbers"):
        adapt_reference(small("vvt-micro"), weights, keep_head=False)
