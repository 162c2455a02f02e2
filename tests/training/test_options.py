"""The options of the recipe's training part: each reaches the training, none spoils stopping and going on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from wetmap import models
from wetmap.bundle import network_payload
from wetmap.errors import TrainingError
from wetmap.models.supervit import SuperVit
from wetmap.recipe import Training
from wetmap.training.checkpoint import STATE_FILE, load_state
from wetmap.training.data import Augmentation, TrainingBatches
from wetmap.training.fit import FitResult, FitRun, fit_network, predict_logits
from wetmap.training.losses import Criterion
from wetmap.training.metrics import scores
from wetmap.training.module import learning_rate, make_optimiser
from wetmap.training.subnetworks import choices_of_step, super_step
from wetmap.training.trainer import lightning_precision

Make = Callable[..., Any]

#: One value of every option that is not the default.
OPTIONS: dict[str, Any] = {
    "loss": "focal",
    "sampling": "balanced",
    "ema": 0.9,
    "mixup": 0.4,
    "cutmix": 1.0,
    "noise": 0.2,
    "gradient_norm": 0.05,
    "precision": "bfloat16",
}


class StopHereError(Exception):
    """A stand-in for a kill."""


@pytest.fixture
def case(windows: Make, tiles: Make, network: Make, dense: Make) -> Callable[[str], tuple[Any, Any, Any]]:
    """A new network and its two sets of samples, by kind."""

    def make(kind: str) -> tuple[nn.Module, Any, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            if kind == "window":
                return network(), windows(40, noise=1.5), windows(20, seed=1, noise=1.5)
            if kind == "dense":
                return dense(), tiles(40, noise=1.5), tiles(20, seed=1, noise=1.5)
            rest = {"layers": 2, "band_layer": (0, 0, 1)}
            if kind == "supervit":
                model = models.create("supervit-micro", 3, 3, window=8, **rest)
                return model, windows(24, width=8, noise=1.5), windows(9, seed=1, width=8, noise=1.5)
            model = models.create("supervit-micro-dense", 3, 3, window=16, **rest)
            return model, tiles(24, width=16, noise=1.5), tiles(9, seed=1, width=16, noise=1.5)

    return make


@pytest.fixture
def brief(quick: Training) -> Training:
    return quick.model_copy(update={"epochs": 3, "patience": 3})


def _bytes(result: FitResult) -> bytes:
    return network_payload(result.state).data


KINDS = ["window", "dense", "supervit", "supervit-dense"]


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["defaults", "everything"])
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_equals_undisturbed(
    case: Make, brief: Training, fit_run: FitRun, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 0:
            raise StopHereError

    settings = brief.model_copy(update={"epochs": 2, **options})
    whole = fit_network(*case(kind), settings, run=replace(fit_run, folder=tmp_path / "whole"))
    with pytest.raises(StopHereError):
        fit_network(*case(kind), settings, run=fit_run, progress=stop)
    rows: list[dict[str, Any]] = []
    resumed = fit_network(*case(kind), settings, run=fit_run, progress=rows.append)
    assert [row["epoch"] for row in rows] == [1]
    assert resumed.history == whole.history
    assert _bytes(resumed) == _bytes(whole)
    assert (fit_run.folder / STATE_FILE).read_bytes() == (tmp_path / "whole" / STATE_FILE).read_bytes()
    assert all(value.dtype != torch.bfloat16 for value in whole.state.values())


@pytest.mark.parametrize("kind", ["window", "dense"])
def test_every_option_reaches_the_training(
    case: Make, brief: Training, fit_run: FitRun, tmp_path: Path, kind: str
) -> None:
    settings = brief.model_copy(update={"epochs": 1})

    def fit(name: str, **options: Any) -> bytes:
        run = replace(fit_run, folder=tmp_path / name)
        return _bytes(fit_network(*case(kind), settings.model_copy(update=options), run=run))

    plain = fit("plain")
    assert fit("same") == plain
    for name, value in OPTIONS.items():
        assert fit(name, **{name: value}) != plain, name
    assert fit("gamma", loss="focal", focal_gamma=0.0) != fit("two", loss="focal", focal_gamma=2.0)


def test_what_balancing_evens_is_not_weighted_again(
    windows: Make, network: Make, brief: Training, fit_run: FitRun, tmp_path: Path
) -> None:
    rows = np.flatnonzero((np.arange(90) % 3 != 1) | (np.arange(90) < 6))
    whole = windows(90)
    uneven = replace(whole, **{name: getattr(whole, name)[rows] for name in ("features", "observed", "label")})

    def losses(sampling: str, weights: str) -> list[float]:
        settings = brief.model_copy(update={"sampling": sampling, "class_weights": weights})
        run = replace(fit_run, folder=tmp_path / (sampling + weights))
        return [row["loss"] for row in fit_network(network(), uneven, windows(20, seed=1), settings, run=run).history]

    assert losses("balanced", "inverse") == pytest.approx(losses("balanced", "none"), rel=1e-4)
    assert losses("as-drawn", "inverse") != pytest.approx(losses("as-drawn", "none"), rel=1e-2)


@pytest.mark.parametrize(
    "options", [{"mixup": 0.2, "noise": 0.1}, {"ema": 0.9, "sampling": "balanced"}, {"loss": "focal"}]
)
def test_it_still_learns(learner: Any, quick: Training, fit_run: FitRun, options: dict[str, Any]) -> None:
    model, make = learner
    fit_network(model, make(120), make(40, seed=1), quick.model_copy(update={"epochs": 8, **options}), run=fit_run)
    held_out = make(90, seed=9)
    found = scores(held_out.label, predict_logits(model, held_out).argmax(axis=1), fit_run.classes)
    assert found.macro_f1 is not None
    assert found.macro_f1 > 0.8


def test_the_average_is_what_is_scored_and_kept(case: Make, brief: Training, fit_run: FitRun) -> None:
    model, train, validation = case("window")
    settings = brief.model_copy(update={"ema": 0.99})
    result = fit_network(model, train, validation, settings, run=fit_run)
    state = load_state(fit_run.folder, fit_run.key, model.state_dict())
    assert state is not None
    assert not torch.equal(state.average["conv.weight"], state.model["conv.weight"])
    assert not torch.equal(state.average["norm.running_mean"], state.model["norm.running_mean"])
    found = scores(validation.label, predict_logits(model, validation).argmax(axis=1), fit_run.classes)
    assert found.macro_f1 == result.history[result.best_epoch]["validation_macro_f1"]
    if result.best_epoch == len(result.history) - 1:
        torch.testing.assert_close(state.average, result.state, rtol=0, atol=0)


def test_the_average_does_not_disturb_the_weights(case: Make, brief: Training, fit_run: FitRun, tmp_path: Path) -> None:
    """The weights themselves are trained as without an average, also across the validation that swaps them out."""
    states = []
    for ema in (0.0, 0.9):
        run = replace(fit_run, folder=tmp_path / str(ema))
        model, train, validation = case("window")
        fit_network(model, train, validation, brief.model_copy(update={"ema": ema}), run=run)
        state = load_state(run.folder, run.key, model.state_dict())
        assert state is not None
        states.append(state.model)
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["window", "supervit"])
@pytest.mark.parametrize("norm", [0.0, 0.01])
def test_gradients_are_cut_to_the_norm_or_left(
    case: Make, brief: Training, fit_run: FitRun, kind: str, norm: float
) -> None:
    norms = []

    def note(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        grads = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))

    handle = register_optimizer_step_pre_hook(note)
    try:
        fit_network(*case(kind), brief.model_copy(update={"epochs": 1, "gradient_norm": norm}), run=fit_run)
    finally:
        handle.remove()
    assert len(norms) >= 2
    assert max(norms) > 0.1 if norm == 0 else max(norms) <= 0.01001


@pytest.mark.parametrize(
    ("asked", "cuda", "own", "expected"),
    [
        ("auto", False, False, "32-true"),
        ("auto", True, False, "32-true"),
        ("auto", True, True, "bf16-mixed"),
        ("float32", True, True, "32-true"),
        ("bfloat16", False, False, "bf16-mixed"),
    ],
)
def test_precision_follows_the_device(
    monkeypatch: pytest.MonkeyPatch, asked: str, cuda: bool, own: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: own or including_emulation)
    assert lightning_precision(asked, nn.Conv2d(1, 1, 1)) == expected


def test_bfloat16_is_refused_where_gradients_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv3d(1, 1, 1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"bfloat16, in which a CPU .* 3-D convolutions wrong.*Use auto"):
        lightning_precision("bfloat16", model)
    assert lightning_precision("auto", model) == "32-true"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert lightning_precision("bfloat16", model) == "bf16-mixed"


def test_supervit_learns_by_its_four_networks(case: Make, brief: Training, fit_run: FitRun) -> None:
    """Two steps of the fit are two steps by hand."""
    plain = {"flips": False, "drop_layers": 0.0, "warmup_epochs": 0}
    settings = brief.model_copy(update={"epochs": 1, "batch_size": 12, "gradient_norm": 0.1, **plain})
    model, train, validation = case("supervit")
    result = fit_network(model, train, validation, settings, run=fit_run)

    by_hand, _, _ = case("supervit")
    assert isinstance(by_hand, SuperVit)
    by_hand.set_normalisation(model.normalisation.mean, model.normalisation.variance)
    criterion = Criterion(torch.from_numpy(_weights(train.label)), smoothing=settings.label_smoothing)
    optimiser = make_optimiser(by_hand, settings)
    losses = []
    batches = TrainingBatches(train, Augmentation(False, 0.0, (0, 0, 1)), batch_size=12, seed=fit_run.seed)
    for step, batch in enumerate(batches):
        optimiser.zero_grad()
        choices = choices_of_step(len(by_hand.shape.tokens), fit_run.seed, 0, step)
        losses.append([float(loss) for loss in super_step(by_hand.train(), batch, criterion, choices)])
        nn.utils.clip_grad_norm_(by_hand.parameters(), 0.1)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step, 2)
        optimiser.step()
    torch.testing.assert_close(result.state, by_hand.state_dict(), rtol=1e-5, atol=1e-6)
    row = result.history[0]
    names = ("loss", "loss_largest_pruned", "loss_smaller", "loss_smaller_pruned")
    assert [row[name] for name in names] == pytest.approx(np.mean(losses, axis=0).tolist(), rel=1e-4)


def _weights(label: np.ndarray) -> np.ndarray:
    counts = np.bincount(label, minlength=3)
    return (len(label) / (3 * counts)).astype(np.float32)


def test_choices_are_of_seed_epoch_and_step() -> None:
    drawn = [choices_of_step(4, seed, epoch, step) for seed in (1, 2) for epoch in range(8) for step in range(8)]
    assert drawn == [
        choices_of_step(4, seed, epoch, step) for seed in (1, 2) for epoch in range(8) for step in range(8)
    ]
    assert len(set(drawn)) == 12  # two rates, three sizes, two rates: all of them come
    assert drawn[:64] != drawn[64:]


def test_other_networks_have_one_loss(case: Make, brief: Training, fit_run: FitRun) -> None:
    result = fit_network(*case("dense"), brief.model_copy(update={"epochs": 1}), run=fit_run)
    assert [name for name in result.history[0] if "loss" in name] == ["loss", "validation_loss"]
