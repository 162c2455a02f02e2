from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wetmap.bundle import network_payload
from wetmap.errors import TrainingError
from wetmap.recipe import Training
from wetmap.training.checkpoint import STATE_FILE
from wetmap.training.data import Arrays, TrainingBatches
from wetmap.training.fit import (
    FitResult,
    FitRun,
    fit_network,
    fresh_statistics,
    predict_logits,
    reproducible,
)
from wetmap.training.metrics import scores
from wetmap.training.module import learning_rate, make_optimiser
from wetmap.training.pixels import fit_pixels

Windows = Callable[..., Arrays]
Network = Callable[[], nn.Module]


class StopHereError(Exception):
    """A stand-in for a kill."""


def _bytes(result: FitResult) -> bytes:
    return network_payload(result.state).data


def test_learns_what_can_be_learnt_and_keeps_the_best(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun
) -> None:
    model, held_out = network(), windows(60, seed=9)
    seen: list[dict[str, Any]] = []
    result = fit_network(model, windows(), windows(30, seed=1), quick, run=fit_run, progress=seen.append)
    logits = predict_logits(model, held_out)
    assert logits.shape == (60, 3)
    assert logits.dtype == np.float32
    assert (logits < 0).any()  # not probabilities
    found = scores(held_out.label, logits.argmax(axis=1), fit_run.classes)
    assert found.macro_f1 is not None
    assert found.macro_f1 > 0.9
    curve = [row["validation_macro_f1"] for row in result.history]
    assert result.best_epoch == int(np.argmax(curve))  # the first of equals
    assert [row["epoch"] for row in seen] == [0, 1, 2, 3, 4]
    assert seen[-1]["epochs"] == 5
    assert seen[-1]["best_epoch"] == result.best_epoch
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, result.state[name], rtol=0, atol=0)


def test_noise_scores_at_chance(windows: Windows, network: Network, quick: Training, fit_run: FitRun) -> None:
    noise = replace(windows(240), label=np.random.default_rng(1).integers(0, 3, 240))
    held_out = replace(windows(240, seed=2), label=np.random.default_rng(2).integers(0, 3, 240))
    model = network()
    fit_network(model, noise, windows(30, seed=1), quick.model_copy(update={"epochs": 2}), run=fit_run)
    right = (predict_logits(model, held_out).argmax(axis=1) == held_out.label).mean()
    assert right < 1 / 3 + 4 * np.sqrt(1 / 3 * 2 / 3 / 240)


def test_best_weights_are_of_the_best_epoch(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun
) -> None:
    """Late epochs at this rate are worse than an early one, whose score the kept weights must reproduce."""
    validation = windows(60, seed=1, noise=2.5)
    model = network()
    settings = quick.model_copy(update={"learning_rate": 0.1, "epochs": 6, "patience": 6})
    result = fit_network(model, windows(noise=2.5), validation, settings, run=replace(fit_run, seed=8))
    curve = [row["validation_macro_f1"] for row in result.history]
    again = scores(validation.label, predict_logits(model, validation).argmax(axis=1), fit_run.classes)
    assert again.macro_f1 == curve[result.best_epoch] == max(curve)
    assert curve[-1] < max(curve)  # else this shows nothing


def test_same_seed_same_bytes_another_seed_others(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun, tmp_path: Path
) -> None:
    def fit(name: str, seed: int) -> FitResult:
        run = replace(fit_run, folder=tmp_path / name, seed=seed)
        torch.manual_seed(abs(hash(name)) % 1000)  # what went before must not matter
        return fit_network(network(), windows(), windows(30, seed=1), quick, run=run)

    first, again, other = fit("one", 7), fit("two", 7), fit("three", 8)
    assert _bytes(first) == _bytes(again)
    assert first.history == again.history
    assert [row["loss"] for row in first.history] != [row["loss"] for row in other.history]


@pytest.mark.parametrize("after", [0, 2])
def test_stopped_and_resumed_equals_undisturbed(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun, tmp_path: Path, after: int
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == after:
            raise StopHereError

    data = windows(noise=1.5), windows(30, seed=1, noise=1.5)
    whole = fit_network(network(), *data, quick, run=replace(fit_run, folder=tmp_path / "whole"))
    with pytest.raises(StopHereError):
        fit_network(network(), *data, quick, run=fit_run, progress=stop)
    rows: list[dict[str, Any]] = []
    resumed = fit_network(network(), *data, quick, run=fit_run, progress=rows.append)
    assert [row["epoch"] for row in rows] == list(range(after + 1, 5))  # it really went on from there
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert _bytes(resumed) == _bytes(whole)
    assert (fit_run.folder / STATE_FILE).read_bytes() == (tmp_path / "whole" / STATE_FILE).read_bytes()


def test_stopped_within_an_epoch_and_resumed_equals_undisturbed(
    windows: Windows,
    network: Network,
    quick: Training,
    fit_run: FitRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = windows(), windows(30, seed=1)
    whole = fit_network(network(), *data, quick, run=replace(fit_run, folder=tmp_path / "whole"))
    original, calls = TrainingBatches._batch, []

    def failing(self: TrainingBatches, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 10:  # four batches an epoch: the second batch of the third
            raise StopHereError
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingBatches, "_batch", failing)
        with pytest.raises(StopHereError):
            fit_network(network(), *data, quick, run=fit_run)
    assert _bytes(fit_network(network(), *data, quick, run=fit_run)) == _bytes(whole)


def test_a_finished_fit_is_not_trained_again(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun
) -> None:
    data = windows(), windows(30, seed=1)
    first = fit_network(network(), *data, quick, run=fit_run)
    rows: list[dict[str, Any]] = []
    model = network()
    second = fit_network(model, *data, quick, run=fit_run, progress=rows.append)
    assert rows == []
    assert second.history == first.history
    assert _bytes(second) == _bytes(first)
    assert not model.training


def test_a_state_of_another_request_is_ignored(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun
) -> None:
    data = windows(), windows(30, seed=1)
    fit_network(network(), *data, quick, run=fit_run)
    rows: list[dict[str, Any]] = []
    fit_network(network(), *data, quick, run=replace(fit_run, key="other"), progress=rows.append)
    assert len(rows) == 5


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from conftest import BAND_LAYER, CLASSES, TinyNetwork, make_windows, still
from wetmap.recipe import Training
from wetmap.training.fit import FitRun, fit_network
torch.manual_seed(5)
folder = Path({folder!r})
run = FitRun(classes=CLASSES, band_layer=BAND_LAYER, seed=7, key="asked", folder=folder, threads=1, clock=still)
fit_network(TinyNetwork(), make_windows(), make_windows(30, seed=1), Training(**{settings!r}), run=run)
"""


#: Every option on that is off by default.
EVERYTHING = {"loss": "focal", "sampling": "balanced", "ema": 0.9, "mixup": 0.4, "cutmix": 1.0, "noise": 0.2}


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_killed_and_run_again_equals_undisturbed(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun, tmp_path: Path, options: dict[str, Any]
) -> None:
    """A real SIGKILL, at whatever moment it comes after the first epoch, in another process."""
    settings = quick.model_copy(update={"epochs": 60, "patience": 60, **options})
    data = windows(), windows(30, seed=1)
    code = CHILD.format(
        tests=str(Path(__file__).parent), folder=str(fit_run.folder), settings=settings.model_dump(mode="json")
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 200
    while not (fit_run.folder / STATE_FILE).exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    rows: list[dict[str, Any]] = []
    resumed = fit_network(network(), *data, settings, run=fit_run, progress=rows.append)
    assert 0 < len(rows) < 60
    whole = fit_network(network(), *data, settings, run=replace(fit_run, folder=tmp_path / "whole"))
    assert _bytes(resumed) == _bytes(whole)
    assert resumed.history == whole.history


def test_stops_early_when_nothing_gets_better(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun
) -> None:
    settings = quick.model_copy(update={"epochs": 40, "patience": 3})
    result = fit_network(network(), windows(noise=0.1), windows(30, seed=1, noise=0.1), settings, run=fit_run)
    assert len(result.history) == result.best_epoch + 1 + 3 < 40


def test_leaves_the_process_as_it_was(windows: Windows, network: Network, quick: Training, fit_run: FitRun) -> None:
    logger = logging.getLogger("lightning.pytorch")
    before = (
        list(warnings.filters),
        dict(os.environ),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_rng_state().tolist(),
        logger.level,
        warnings.formatwarning,
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
    )
    fit_network(network(), windows(), windows(30, seed=1), quick, run=replace(fit_run, threads=2))
    after = (
        list(warnings.filters),
        dict(os.environ),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_rng_state().tolist(),
        logger.level,
        warnings.formatwarning,
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
    )
    assert before == after


FRESH = """
import logging, os, sys, warnings
import torch, torch._inductor.config, zarr
filters, environment, formatter = list(warnings.filters), dict(os.environ), warnings.formatwarning
import wetmap.training.fit, wetmap.bundle
assert "lightning" not in sys.modules, "imported too early"
assert list(warnings.filters) == filters, "filters changed by import"
"""


def test_a_fresh_process_hears_nothing_of_lightning(tmp_path: Path, quick: Training) -> None:
    code = FRESH + CHILD.format(
        tests=str(Path(__file__).parent), folder=str(tmp_path / "fit"), settings=quick.model_dump(mode="json")
    )
    code += "assert warnings.formatwarning is formatter\nassert dict(os.environ) == environment\n"
    # this process has imported Lightning at its own risk
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTORCH", "TORCH"))}
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=False, env=clean
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ctrl_c_reaches_the_caller(windows: Windows, network: Network, quick: Training, fit_run: FitRun) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_network(network(), windows(), windows(30, seed=1), quick, run=fit_run, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_termination_is_not_a_success(windows: Windows, network: Network, quick: Training, fit_run: FitRun) -> None:
    def terminate(_: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        fit_network(network(), windows(), windows(30, seed=1), quick, run=fit_run, progress=terminate)
    assert stop.value.code == 143


def test_batch_normalisation_follows_the_training_however_few_the_steps(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun
) -> None:
    """With Keras' momentum and four steps an epoch, validation would be scored with the untrained statistics."""
    model = network()
    assert isinstance(model.norm, nn.BatchNorm2d)
    model.norm.momentum = 0.01
    seen: list[torch.Tensor] = []
    model.norm.register_forward_pre_hook(
        lambda norm, inputs: seen.append(inputs[0].mean(dim=(0, 2, 3)).detach()) if norm.training else None
    )
    settings = quick.model_copy(update={"epochs": 1, "learning_rate": 1e-9})
    result = fit_network(model, windows(), windows(30, seed=1), settings, run=fit_run)
    assert len(seen) == 4
    momentum = 1 - 0.02**0.25
    expected = sum(momentum * (1 - momentum) ** (3 - step) * mean for step, mean in enumerate(seen))
    torch.testing.assert_close(result.state["norm.running_mean"], expected)
    assert model.norm.momentum == 0.01


@pytest.mark.parametrize(("steps", "expected"), [(1, 0.98), (4, 1 - 0.02**0.25), (1000, 0.1)])
def test_momentum_is_raised_where_it_must_be(network: Network, steps: int, expected: float) -> None:
    model = network()
    assert isinstance(model.norm, nn.BatchNorm2d)
    with fresh_statistics(model, steps):
        assert model.norm.momentum == pytest.approx(expected)
    assert model.norm.momentum == 0.1


@pytest.mark.parametrize("weights", ["none", "inverse"])
def test_class_weights_matter_where_classes_are_uneven(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun, weights: str
) -> None:
    rows = np.flatnonzero((np.arange(120) % 3 != 1) | (np.arange(120) < 6))
    whole = windows(120, noise=1.2)
    uneven = Arrays(whole.features[rows], whole.observed[rows], whole.label[rows])
    settings = quick.model_copy(update={"class_weights": weights, "epochs": 3})
    model = network()
    fit_network(model, uneven, windows(60, seed=1), settings, run=fit_run)
    fen = (predict_logits(model, windows(90, seed=3, noise=1.2)).argmax(axis=1) == 1).mean()
    assert (fen > 0.15) == (weights == "inverse"), fen


def test_learning_rate_by_hand() -> None:
    settings = Training(epochs=10, warmup_epochs=2, learning_rate=1.0)
    rates = [learning_rate(settings, step, 5) for step in range(50)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1.0
    assert rates[30] == pytest.approx(0.5)  # half way through the cosine's 40 steps
    assert 0 < rates[49] < 0.01
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


def test_a_warm_up_longer_than_the_training_leaves_an_epoch() -> None:
    settings = Training(epochs=2, warmup_epochs=9, learning_rate=1.0)
    np.testing.assert_allclose([learning_rate(settings, step, 2) for step in range(4)], [0.5, 1, 1, 0.5])
    one = Training(epochs=1, warmup_epochs=3, learning_rate=1.0)
    assert learning_rate(one, 0, 2) == 1.0


def test_norms_and_biases_do_not_decay(network: Network) -> None:
    groups = make_optimiser(network(), Training(weight_decay=0.1)).param_groups
    assert {group["weight_decay"]: {p.ndim for p in group["params"]} for group in groups} == {0.1: {2, 4}, 0.0: {1}}


def test_predicting_leaves_the_mode_and_does_not_depend_on_the_batch(windows: Windows, network: Network) -> None:
    model = network().train()
    one, other = predict_logits(model, windows(10), 10), predict_logits(model, windows(10), 3)
    assert model.training
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_reproducible_seeds_what_is_made_inside() -> None:
    first = []
    for _ in range(2):
        with reproducible(seed=3, threads=1):
            first.append(nn.Linear(3, 3).weight)
    torch.testing.assert_close(first[0], first[1], rtol=0, atol=0)


def test_refuses_one_class(windows: Windows, network: Network, quick: Training, fit_run: FitRun) -> None:
    alone = replace(windows(6), label=np.full(6, 1))
    with pytest.raises(TrainingError, match=r"All 6 training samples are of one class \(fen\).*background"):
        fit_network(network(), alone, windows(6), quick, run=fit_run)


@pytest.mark.parametrize(("n", "held", "role"), [(0, 6, "training"), (6, 0, "validation")])
def test_refuses_an_empty_role(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun, n: int, held: int, role: str
) -> None:
    with pytest.raises(TrainingError, match=f"no {role} samples"):
        fit_network(network(), windows(n), windows(held), quick, run=fit_run)


def test_refuses_a_single_sample(windows: Windows, network: Network, quick: Training, fit_run: FitRun) -> None:
    with pytest.raises(TrainingError, match="only 1 training sample"):
        fit_network(network(), windows(1), windows(6), quick, run=fit_run)


def test_refuses_batches_of_one(windows: Windows, network: Network, quick: Training, fit_run: FitRun) -> None:
    with pytest.raises(TrainingError, match="batch_size is 1"):
        fit_network(network(), windows(6), windows(6), quick.model_copy(update={"batch_size": 1}), run=fit_run)


def test_refuses_other_bands(windows: Windows, network: Network, quick: Training, fit_run: FitRun) -> None:
    with pytest.raises(TrainingError, match="training windows have 3 bands, and 2 were expected"):
        fit_network(network(), windows(6), windows(6), quick, run=replace(fit_run, band_layer=(0, 1)))


def test_says_when_and_where_the_loss_is_lost(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    original = model.forward
    calls = []

    def forward(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        # four training and two validation batches an epoch: the second batch of the second epoch
        return original(*arguments) * (float("nan") if len(calls) == 8 else 1.0)

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(
        TrainingError, match=r"training loss became nan in epoch 2 of 5, batch 2, at learning rate 0.0099"
    ):
        fit_network(model, windows(), windows(30, seed=1), quick, run=fit_run)


def test_refuses_to_predict_nothing(windows: Windows, network: Network) -> None:
    with pytest.raises(TrainingError, match="no samples to predict"):
        predict_logits(network(), windows(0))


#: A forest that is grown in no time.
FOREST = {"trees": 5}


def test_the_forest_sees_the_labelled_pixel_alone(windows: Windows, fit_run: FitRun) -> None:
    arrays = windows(60)
    spoilt = arrays.features.copy()
    spoilt[:, :, np.arange(4) != 2] = 1e6
    spoilt[:, :, :, np.arange(4) != 2] = 1e6
    moved = arrays.features.copy()
    moved[:, :, 2, 2] += np.random.default_rng(0).standard_normal((60, 3))
    one, other, third = (
        fit_pixels("forest", replace(arrays, features=features), arrays, FOREST, run=fit_run).to_bytes()
        for features in (arrays.features, spoilt, moved)
    )
    assert one == other
    assert one != third


def test_the_forest_does_not_read_what_was_not_observed(windows: Windows, fit_run: FitRun) -> None:
    arrays = windows(60)
    filled = np.where(np.isnan(arrays.features), np.float32(1e6), arrays.features)
    one, other = (
        fit_pixels("forest", data, arrays, FOREST, run=fit_run).to_bytes()
        for data in (arrays, replace(arrays, features=filled))
    )
    assert one == other


@pytest.mark.parametrize("name", ["forest", "boosting"])
def test_a_model_of_pixels_refuses_one_class(windows: Windows, fit_run: FitRun, name: str) -> None:
    one = replace(windows(6), label=np.zeros(6, dtype=int))
    with pytest.raises(TrainingError, match="one class"):
        fit_pixels(name, one, windows(6), {}, run=fit_run)
