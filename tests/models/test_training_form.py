"""WetMapFormer's training form against the layers one by one."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wetmap.models import create
from wetmap.models.wetmapformer import WetMapFormer, training_form, training_front
from wetmap.models.windows import WindowClassifier

#: name, bands, windows in the batch, options: odd numbers of bands, tokens that do and do not come in whole cells.
CASES: list[tuple[str, int, int, dict[str, Any]]] = [
    ("wetmapformer-published", 16, 3, {}),
    ("wetmapformer-published", 1, 3, {"size": "medium"}),
    ("wetmapformer-published", 2, 2, {"size": "large", "window": 10}),
    ("wetmapformer-window", 5, 4, {}),
    ("wetmapformer-window", 3, 3, {"window": 12, "stem_stride": 2}),
    ("wetmapformer-window", 7, 2, {"stem_stride": 1}),
    ("wetmapformer-window", 2, 2, {"window": 18}),
    ("wetmapformer-window", 2, 3, {"size": "large", "stem_stride": 2}),
]


def lively(name: str, bands: int, enliven: Any, **options: Any) -> WetMapFormer:
    """A model in float64 and training mode in which nothing is 0 or 1 by default, and some channels are turned over."""
    torch.manual_seed(4)
    model = create(name, bands, 3, **options)
    assert isinstance(model, WetMapFormer)
    enliven(model, 4)
    with torch.no_grad():
        scale = model.spectra.norm.weight
        scale.mul_(torch.randn(scale.shape).sign())
        scale[::7] = 0
    return model.double().train()


def windows(model: WetMapFormer, count: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    shape = (count, model.bands, model.window, model.window)
    return torch.randn(shape, generator=draw, dtype=torch.float64).to(model.head.weight.dtype)


def one_by_one(model: WetMapFormer, normalised: Tensor) -> Tensor:
    return WindowClassifier.window_logits(model, normalised)


def step(model: WetMapFormer, logits: Any, count: int) -> dict[str, Tensor | None]:
    """Logits, every gradient, that of the windows too, and what the norms noted."""
    maps = windows(model, count).requires_grad_()
    answer = logits(model, maps)
    (answer * windows(model, count, 1).flatten(1)[:, :3]).sum().backward()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    return {"logits": answer.detach(), "gradient of maps": maps.grad, **gradients, **dict(model.named_buffers())}


def assert_same(found: dict[str, Tensor | None], expected: dict[str, Tensor | None], limit: float) -> None:
    largest = max(
        float(value.abs().max()) for name, value in expected.items() if name[:4] == "grad" and value is not None
    )
    for name, value in expected.items():
        other = found[name]
        if value is None or other is None:
            assert value is other, name
            continue
        scale = largest if name.startswith("gradient") else float(value.abs().max())
        torch.testing.assert_close(
            other, value, rtol=0, atol=limit * max(scale, 1e-300), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("name", "bands", "count", "options"), CASES)
def test_it_is_the_layers_one_by_one(name, bands, count, options, enliven):
    model = lively(name, bands, enliven, **options)
    found = step(copy.deepcopy(model), training_form.logits, count)
    expected = step(model, one_by_one, count)
    assert_same(found, expected, 1e-11)


@pytest.mark.parametrize("numbers", [1, 7 * 96 * 64, 1 << 30])
def test_it_is_the_same_however_the_windows_are_cut(numbers, enliven, monkeypatch):
    model = lively("wetmapformer-published", 3, enliven)
    expected = step(copy.deepcopy(model), one_by_one, 17)
    monkeypatch.setattr(training_front, "NUMBERS_TOGETHER", numbers)
    assert_same(step(model, training_form.logits, 17), expected, 1e-11)


def test_float32_is_as_near_to_float64_as_the_layers_are(enliven):
    exact = lively("wetmapformer-published", 9, enliven)
    expected = step(copy.deepcopy(exact), one_by_one, 24)["logits"]
    assert expected is not None
    found = [step(copy.deepcopy(exact).float(), way, 24)["logits"] for way in (training_form.logits, one_by_one)]
    ours, plain = (float((answer.double() - expected).abs().max()) for answer in found if answer is not None)
    assert ours < max(plain, 1e-5 * float(expected.abs().max()))


def test_the_gradient_of_the_front_by_finite_differences(enliven):
    model = lively("wetmapformer-published", 1, enliven)
    with torch.no_grad():
        model.spectra.norm.weight.fill_(0.7)
    spectra, extractor = model.spectra, model.extractor
    names = ("conv1", "conv2", "norm")
    weights = [part for name in names for part in spectra.get_submodule(name).parameters()]
    weights += [*extractor.separable1.parameters(), *extractor.skip.parameters()]

    def front(maps: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        answer = training_front.front(maps, 1e-3, training_front.FrontWeights(*values))
        return answer.separated, answer.skipped

    assert torch.autograd.gradcheck(front, (windows(model, 2).requires_grad_(), *weights), fast_mode=True)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_the_running_statistics_follow_the_momentum(momentum, enliven):
    model = lively("wetmapformer-window", 2, enliven)
    model.spectra.norm.momentum = momentum
    twin = copy.deepcopy(model)
    for seed in range(3):
        model.window_logits(windows(model, 4, seed))
        one_by_one(twin, windows(model, 4, seed))
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))


def test_two_steps_give_the_same_bytes(enliven):
    model = lively("wetmapformer-published", 4, enliven).float()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (step(copy.deepcopy(model), training_form.logits, 40) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(before)
    for name, value in first.items():
        other = second[name]
        assert value is other is None or (value is not None and other is not None and torch.equal(value, other)), name


def test_weights_that_are_not_trained_need_no_gradient(enliven):
    model = lively("wetmapformer-published", 2, enliven)
    model.spectra.requires_grad_(False)
    model(windows(model, 3)).sum().backward()
    assert model.spectra.conv1.weight.grad is None
    assert model.extractor.skip.weight.grad is not None
    with torch.no_grad():
        assert not model(windows(model, 3)).requires_grad


def test_where_it_applies(enliven, monkeypatch):
    model = lively("wetmapformer-window", 2, enliven).float()
    maps = windows(model, 2)
    assert training_form.applies(model, maps)
    with torch.autocast("cpu", torch.bfloat16):
        assert not training_form.applies(model, maps)
    assert not training_form.applies(model, maps.to("meta"))
    assert not training_form.applies(copy.deepcopy(model).eval(), maps)
    assert not training_form.applies(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)), maps)
    frozen = copy.deepcopy(model)
    frozen.spectra.norm.eval()
    assert not training_form.applies(frozen, maps)
    asked: list[int] = []
    monkeypatch.setattr(
        training_form, "logits", lambda _model, given: asked.append(len(given)) or one_by_one(model, given)
    )
    model(maps)
    assert asked == [2]
    model.eval()(maps)
    assert asked == [2]


def test_in_training_mode_it_can_be_exported(enliven):
    model = lively("wetmapformer-published", 2, enliven).float()
    maps = windows(model, 2)
    program = torch.export.export(model, (maps,))
    expected = one_by_one(model, model.normalisation(maps))
    torch.testing.assert_close(program.module()(maps), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_benchmark_compares_with_the_same_network(layout, enliven):
    path = Path(__file__).parents[2] / "benchmarks" / "naive_wetmapformer.py"
    spec = importlib.util.spec_from_file_location("naive_wetmapformer", path)
    assert spec is not None
    assert spec.loader is not None
    naive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(naive)
    model = lively("wetmapformer-published", 3, enliven)
    network = naive.LayerByLayer(model, layout)
    maps = windows(model, 4)
    maps[0, 0, 0, 0] = torch.nan
    found = network(maps)
    found.square().sum().backward()
    expected = model(maps)
    expected.square().sum().backward()
    torch.testing.assert_close(found, expected)
    for (name, ours), theirs in zip(model.named_parameters(), network.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(theirs.grad.view_as(ours), ours.grad, rtol=1e-8, atol=1e-10, msg=name)
