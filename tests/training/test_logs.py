from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from wetmap.recipe import Training
from wetmap.training.data import Arrays
from wetmap.training.fit import FitRun, fit_network
from wetmap.training.logs import LOG_FOLDER, epoch_log, tag_of

Windows = Callable[..., Arrays]
Network = Callable[[], nn.Module]


class StopHereError(Exception):
    """A stand-in for a kill."""


def charts(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would draw: per chart, step and value."""
    events = EventAccumulator(str(folder / LOG_FOLDER))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_epoch_once_after_a_stop_and_a_resume(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise StopHereError

    data = windows(), windows(30, seed=1)
    with pytest.raises(StopHereError):
        fit_network(network(), *data, quick, run=fit_run, progress=stop)
    assert [step for step, _ in charts(fit_run.folder)["training/loss"]] == [0, 1, 2]
    result = fit_network(network(), *data, quick, run=fit_run)
    found = charts(fit_run.folder)
    assert sorted(found) == [
        "training/learning_rate",
        "training/loss",
        "training/seconds",
        "validation/accuracy",
        "validation/loss",
        "validation/macro_f1",
    ]
    for tag, points in found.items():
        name = tag.replace("validation/", "validation_").removeprefix("training/")
        assert points == [(row["epoch"], pytest.approx(row[name], abs=1e-6)) for row in result.history]


def test_another_request_in_the_same_folder_begins_anew(
    windows: Windows, network: Network, quick: Training, fit_run: FitRun
) -> None:
    data = windows(), windows(30, seed=1)
    fit_network(network(), *data, quick, run=fit_run)
    short = quick.model_copy(update={"epochs": 2})
    fit_network(network(), *data, short, run=replace(fit_run, key="other"))
    assert [step for step, _ in charts(fit_run.folder)["training/loss"]] == [0, 1]


def test_what_was_lost_is_written_again(tmp_path: Path) -> None:
    rows = [{"epoch": number, "loss": 1.0 / (1 + number), "seconds": 10.0} for number in range(3)]
    with epoch_log(tmp_path, rows[:2]) as add:
        add({**rows[2], "validation_macro_f1": None, "note": "text"})
    assert charts(tmp_path) == {
        "training/loss": [(row["epoch"], pytest.approx(row["loss"])) for row in rows],
        "training/seconds": [(0, 10.0), (1, 10.0), (2, 10.0)],
    }
    events = EventAccumulator(str(tmp_path / LOG_FOLDER))
    events.Reload()
    first, second, third = (event.wall_time for event in events.Scalars("training/loss"))
    assert second - first == pytest.approx(10, abs=0.1)
    assert third - second < 5


def test_validation_stands_apart() -> None:
    assert [tag_of(name) for name in ("loss", "loss_smaller", "validation_loss")] == [
        "training/loss",
        "training/loss_smaller",
        "validation/loss",
    ]
