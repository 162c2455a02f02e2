"""Training by the clock. No test waits: the clocks are made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from torch import nn

from wetmap.bundle import network_payload
from wetmap.errors import SlowTrainingWarning
from wetmap.recipe import Training
from wetmap.training.checkpoint import FitState
from wetmap.training.data import Arrays
from wetmap.training.fit import FitRun, fit_network
from wetmap.training.module import learning_rate

Windows = Callable[..., Arrays]
Network = Callable[[], nn.Module]


class StopHereError(Exception):
    """A stand-in for a kill."""


@dataclass
class Ticking:
    """A second passes whenever somebody looks: an epoch of four steps takes five."""

    now: float = 100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def long(quick: Training) -> Training:
    return quick.model_copy(update={"epochs": 1000, "patience": 1000, "warmup_epochs": 0})


def test_stops_within_the_epoch_in_which_the_time_is_up(
    windows: Windows, network: Network, long: Training, fit_run: FitRun
) -> None:
    run, settings = replace(fit_run, clock=Ticking()), long.model_copy(update={"minutes": 12 / 60})
    result = fit_network(network(), windows(), windows(30, seed=1), settings, run=run)
    # two epochs take 10 s; of the third, the second step ends at 12 s and is the last
    assert [row["seconds"] for row in result.history] == [5, 5, 3]
    rates = [row["learning_rate"] for row in result.history]
    assert rates == pytest.approx(
        [learning_rate(settings, 0, 4, share) for share in (3 / 12, 8 / 12, 11 / 12)], rel=0.01
    )


def test_what_an_earlier_run_took_counts(windows: Windows, network: Network, long: Training, fit_run: FitRun) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise StopHereError

    run, settings = replace(fit_run, clock=Ticking()), long.model_copy(update={"minutes": 12 / 60})
    data = windows(), windows(30, seed=1)
    with pytest.raises(StopHereError):
        fit_network(network(), *data, settings, run=run, progress=stop)
    run = replace(fit_run, clock=Ticking(now=5000.0))  # another process has another clock
    resumed = fit_network(network(), *data, settings, run=run)
    assert [row["seconds"] for row in resumed.history] == [5, 5, 3]
    rows: list[dict[str, Any]] = []
    again = fit_network(network(), *data, settings, run=run, progress=rows.append)
    assert rows == []
    assert again.history == resumed.history


def test_an_epoch_that_takes_longer_than_all_the_time_is_cut_validated_and_kept(
    windows: Windows, network: Network, long: Training, fit_run: FitRun
) -> None:
    model = network()
    steps: list[bool] = []
    model.register_forward_pre_hook(lambda module, _: steps.append(module.training))
    run, settings = replace(fit_run, clock=Ticking()), long.model_copy(update={"minutes": 2 / 60})
    result = fit_network(model, windows(), windows(30, seed=1), settings, run=run)
    assert steps == [True, True, False, False]
    assert [row["seconds"] for row in result.history] == [3]
    assert result.best_epoch == 0
    assert result.history[0]["validation_macro_f1"] is not None


def test_a_batch_that_takes_longer_than_all_the_time_is_the_only_one_and_warned_of(
    windows: Windows, network: Network, long: Training, fit_run: FitRun
) -> None:
    model = network()
    steps: list[bool] = []
    model.register_forward_pre_hook(lambda module, _: steps.append(module.training))
    run, settings = replace(fit_run, clock=Ticking()), long.model_copy(update={"minutes": 0.5 / 60})
    with pytest.warns(SlowTrainingWarning, match=r"One batch of \d+ samples took 1 s, and all training .* take 0\.5 s"):
        result = fit_network(model, windows(), windows(30, seed=1), settings, run=run)
    assert steps == [True, False, False]
    assert [row["batches"] for row in result.history] == [1]


def test_time_to_spare_changes_nothing(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun, tmp_path
) -> None:
    data, found = (windows(), windows(30, seed=1)), []
    for name, minutes in (("without", None), ("with", 1e6)):
        settings, run = quick.model_copy(update={"minutes": minutes}), replace(fit_run, folder=tmp_path / name)
        found.append(fit_network(network(), *data, settings, run=run))
    assert network_payload(found[0].state).data == network_payload(found[1].state).data
    assert found[0].history == found[1].history


def test_the_rate_falls_with_the_steps_or_the_time_whichever_is_further() -> None:
    settings = Training(epochs=10, warmup_epochs=0, learning_rate=1.0)
    assert learning_rate(settings, 25, 10, 0.5) == pytest.approx(0.5)
    assert learning_rate(settings, 75, 10, 0.5) == learning_rate(settings, 75, 10)
    assert learning_rate(settings, 25, 10, 1.3) == 0.0


def test_the_warm_up_ends_with_a_tenth_of_the_time() -> None:
    settings = Training(epochs=1000, warmup_epochs=3, learning_rate=1.0)
    assert learning_rate(settings, 0, 10, 0.0) == pytest.approx(1 / 30)
    assert learning_rate(settings, 0, 10, 0.05) == pytest.approx(0.5, rel=0.01)
    assert learning_rate(settings, 0, 10, 0.1) == pytest.approx(learning_rate(settings, 40, 10, 0.1))
    assert learning_rate(settings, 40, 10, 0.0) == pytest.approx(1.0, rel=1e-3)


def test_a_state_knows_when_its_time_is_up() -> None:
    state = FitState([{"epoch": 0, "seconds": 40.0}, {"epoch": 1, "seconds": 20.0}], 1, {}, {})
    assert state.seconds == 60
    assert state.exhausted(9, 9, 1.0)
    assert not state.exhausted(9, 9, 1.01)
    assert not state.exhausted(9, 9)
