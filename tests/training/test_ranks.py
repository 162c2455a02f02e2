"""Two processes on the CPU (gloo). What needs no second process is in test_seat.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from rank_networks import Failing, Plain, Watched, WatchedNormed

from wetmap import models
from wetmap.bundle import network_payload
from wetmap.errors import TrainingError
from wetmap.recipe import Training
from wetmap.training import ranks
from wetmap.training.checkpoint import STATE_FILE
from wetmap.training.data import Arrays
from wetmap.training.fit import FitResult, FitRun, fit_network, reproducible
from wetmap.training.logs import LOG_FOLDER

Windows = Callable[..., Arrays]

slow = pytest.mark.slow


class StopHereError(Exception):
    """A stand-in for a kill."""


def _bytes(result: FitResult) -> bytes:
    return network_payload(result.state).data


def _seeded(make: Callable[..., torch.nn.Module], *arguments: Any) -> torch.nn.Module:
    with reproducible(seed=5, threads=1):
        return make(*arguments)


@pytest.fixture
def two(quick: Training) -> Training:
    """61 samples in batches of 16: the last batch of an epoch cannot be halved."""
    return quick.model_copy(update={"devices": 2, "epochs": 3})


@pytest.fixture
def data(windows: Windows) -> tuple[Arrays, Arrays]:
    return windows(61, noise=1.5), windows(31, seed=1, noise=1.5)


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    yield
    assert [child for child in psutil.Process().children(recursive=True) if _follows(child)] == []
    assert not torch.distributed.is_initialized()


def _follows(process: psutil.Process) -> bool:
    try:
        return any("follow_parent" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


@slow
def test_two_processes_end_alike_and_as_one_does(
    two: Training, data: tuple[Arrays, Arrays], fit_run: FitRun, tmp_path: Path
) -> None:
    alone = fit_network(
        _seeded(Plain), *data, two.model_copy(update={"devices": 1}), run=replace(fit_run, folder=tmp_path / "alone")
    )
    hook, environment = sys.excepthook, dict(os.environ)
    both = fit_network(_seeded(Watched, tmp_path), *data, two, run=fit_run)
    assert (sys.excepthook, dict(os.environ)) == (hook, environment)
    for name, value in alone.state.items():
        torch.testing.assert_close(both.state[name], value, atol=1e-5, rtol=1e-5)
    for row, other in zip(alone.history, both.history, strict=True):
        assert row == pytest.approx(other, abs=1e-5)
    first, second = ((tmp_path / f"{rank}.txt").read_text().splitlines() for rank in (0, 1))
    assert first == second
    assert len(set(first)) == 3  # it changed from epoch to epoch
    assert sorted(path.name for path in fit_run.folder.iterdir()) == [STATE_FILE, LOG_FOLDER]
    assert len(list((fit_run.folder / LOG_FOLDER).iterdir())) == 1


@slow
def test_statistics_and_averages_are_the_same_too(
    two: Training, data: tuple[Arrays, Arrays], fit_run: FitRun, tmp_path: Path
) -> None:
    settings = two.model_copy(update={"ema": 0.9})
    result = fit_network(_seeded(WatchedNormed, tmp_path), *data, settings, run=fit_run)
    first, second = ((tmp_path / f"{rank}.txt").read_text().splitlines() for rank in (0, 1))
    assert first == second
    assert len(set(first)) == 3
    assert result.state["norm.0.running_var"].ne(1).all()


@slow
def test_the_four_networks_of_a_supervit_learn_alike(
    two: Training, windows: Windows, fit_run: FitRun, tmp_path: Path
) -> None:
    """Each of its losses is a mean over something else, and a step leaves parameters out."""
    data, found = (windows(29, width=8), windows(10, seed=1, width=8)), []
    for devices in (1, 2):
        settings = two.model_copy(update={"devices": devices, "epochs": 2, "batch_size": 12, "learning_rate": 1e-3})
        network = _seeded(lambda: models.create("supervit-micro", 3, 3, layers=2, band_layer=(0, 0, 1), window=8))
        found.append(fit_network(network, *data, settings, run=replace(fit_run, folder=tmp_path / str(devices))))
    alone, both = found
    for name, value in alone.state.items():
        torch.testing.assert_close(both.state[name], value, atol=1e-5, rtol=1e-5)
    for row, other in zip(alone.history, both.history, strict=True):
        assert row == pytest.approx(other, abs=1e-5)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import BAND_LAYER, CLASSES, make_windows, still
from rank_networks import Plain
from wetmap.recipe import Training
from wetmap.training.fit import FitRun, fit_network, reproducible
with reproducible(seed=5, threads=1):
    network = Plain()
folder = Path({folder!r})
run = FitRun(classes=CLASSES, band_layer=BAND_LAYER, seed=7, key="asked", folder=folder, threads=1, clock=still)
data = make_windows(61, noise=1.5), make_windows(31, seed=1, noise=1.5)
fit_network(network, *data, Training(**{settings!r}), run=run)
"""


@slow
def test_killed_and_run_again_equals_undisturbed(
    two: Training, data: tuple[Arrays, Arrays], fit_run: FitRun, tmp_path: Path
) -> None:
    """A SIGKILL of the process that leads; the other goes with it."""
    settings = two.model_copy(update={"epochs": 30, "patience": 30})
    code = CHILD.format(
        tests=str(Path(__file__).parent), folder=str(fit_run.folder), settings=settings.model_dump(mode="json")
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while not (fit_run.folder / STATE_FILE).exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    others = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert len(others) == 1
    _, alive = psutil.wait_procs(others, timeout=10)
    assert alive == []
    rows: list[dict[str, Any]] = []
    resumed = fit_network(_seeded(Plain), *data, settings, run=fit_run, progress=rows.append)
    assert 0 < len(rows) < 30
    whole = fit_network(_seeded(Plain), *data, settings, run=replace(fit_run, folder=tmp_path / "whole"))
    assert _bytes(resumed) == _bytes(whole)
    assert resumed.history == whole.history


@slow
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("error", r"Process 2 of 2 of this training failed \(ValueError: the band is missing\)"),
        ("kill", r"Process 2 of 2 of this training was ended by SIGKILL"),
        ("nan", r"training loss became nan in epoch 2 of 3, batch 2"),
    ],
)
def test_a_failure_of_another_process_is_said_and_ends_all(
    two: Training, data: tuple[Arrays, Arrays], fit_run: FitRun, how: str, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        fit_network(_seeded(Failing, 1, how), *data, two, run=fit_run)
    assert (fit_run.folder / STATE_FILE).exists()  # the first epoch is not lost


@slow
def test_a_process_that_cannot_begin_is_said(
    two: Training, data: tuple[Arrays, Arrays], fit_run: FitRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_CODE", "import sys; sys.exit('no such library')")
    with pytest.raises(TrainingError, match=r"Process 2 of 2 .* failed \(exit status 1: no such library\)"):
        fit_network(_seeded(Plain), *data, two, run=fit_run)


@slow
@pytest.mark.parametrize(("end", "expected"), [(StopHereError, StopHereError), (signal.SIGTERM, SystemExit)])
def test_ending_the_first_process_ends_the_other(
    two: Training, data: tuple[Arrays, Arrays], fit_run: FitRun, end: Any, expected: type[BaseException]
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stop(_: dict[str, Any]) -> None:
        if isinstance(end, signal.Signals):
            os.kill(os.getpid(), end)
        else:
            raise end

    with pytest.raises(expected) as raised:
        fit_network(_seeded(Plain), *data, two, run=fit_run, progress=stop)
    assert getattr(raised.value, "code", 143) == 143
    assert signal.getsignal(signal.SIGTERM) == before


VERB = """
import sys
from pathlib import Path
from wetmap.cli import main

def fits():
    for key in ("one", "two"):
        folder = Path({folder!r}) / key
        code = {code!r}.replace("FOLDER", str(folder))
        exec(code)
    Path({folder!r}, "done").touch()
    sys.exit(0)

main.app = fits
main.main()
"""


@slow
def test_under_torchrun_the_first_leads_two_fits_and_lets_the_others_go(
    two: Training, data: tuple[Arrays, Arrays], fit_run: FitRun, tmp_path: Path
) -> None:
    """The same as with processes of our own; ``training.devices`` says nothing there."""
    ours = fit_network(_seeded(Plain), *data, two, run=fit_run)
    settings = two.model_copy(update={"devices": 1}).model_dump(mode="json")
    code = CHILD.format(tests=str(Path(__file__).parent), folder="FOLDER", settings=settings)
    script = tmp_path / "verb.py"
    script.write_text(VERB.format(folder=str(tmp_path), code=code))
    # the others unpickle the network by the name of its module
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (tmp_path / "done").exists()
    theirs = [(tmp_path / key / STATE_FILE).read_bytes() for key in ("one", "two")]
    assert theirs == [(fit_run.folder / STATE_FILE).read_bytes()] * 2
    assert len(ours.history) == 3
