"""Whatever is killed, filled, locked, slowed or told a wrong time: the bytes of the calm run, and nothing left behind.

Each fault is tried once; ``make torture`` tries it many times, at other moments, and writes a table.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio

from tests.system import faults
from tests.system.conftest import need
from tests.system.faults import Blow, Trial
from tests.system.slurm import Slurm
from tests.system.test_slurm_dask import JOB, scheduler
from wetmap.cluster import Workers, explain, jobs
from wetmap.errors import WorkersLostError
from wetmap.recipe import Cluster

pytestmark = pytest.mark.system

Hurt = Callable[..., Trial]
Note = Callable[[Blow], None]


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the map was made undisturbed. Tests look and do not touch."""
    return faults.make_calm(tmp_path_factory.mktemp("calm"))


@pytest.fixture(scope="session", params=range(faults.TIMES))
def turn(request: pytest.FixtureRequest) -> int:
    """Which time it is that the fault is tried."""
    number: int = request.param
    return number


@pytest.fixture
def draw(request: pytest.FixtureRequest, turn: int) -> random.Random:
    """What this trial's moments are drawn from."""
    return faults.moment(request.node.originalname, turn)


@pytest.fixture
def hurt(calm: Path, tmp_path: Path) -> Hurt:
    """Make a copy of the calm workspace, as it was before a stage."""

    def make(fault: str, stage: str = "predict", folder: Path | None = None, **changes: object) -> Trial:
        return Trial(faults.copy(calm, folder or tmp_path / "hurt", stage, **changes), calm, fault)

    return make


@pytest.fixture(scope="session")
def note() -> Note:
    """Keep what a fault cost, in the table of a long run (file named by WETMAP_TORTURE_TABLE)."""
    blows: list[Blow] = []
    path = os.environ.get("WETMAP_TORTURE_TABLE")

    def keep(blow: Blow) -> None:
        blows.append(blow)
        if path:
            Path(path).write_text(faults.table(blows), encoding="utf-8")

    return keep


def test_client_killed_while_it_maps(hurt: Hurt, draw: random.Random, note: Note) -> None:
    trial = hurt("kill -9 of the client while it maps")
    with trial.mapping() as running:
        running.wait_for("predict", draw.randint(1, 5))
        running.kill()
        assert trial.orphans() == []
    (array,) = trial.stages.glob("predict/*/map.zarr/classes")
    (array / ".0f3a.partial").touch()  # what a chunk is called until it is whole; few kills find one
    assert "continues where it stopped" in trial.run("predict")
    note(trial.same_map())


def test_client_killed_while_it_fetches(hurt: Hurt, draw: random.Random, note: Note) -> None:
    trial = hurt("kill -9 of the client while it fetches", "fetch")
    with trial.fetching() as running:
        running.wait_for("fetch", draw.randint(1, 10))
        running.kill()
        assert trial.orphans() == []
    assert "continues where it stopped" in trial.run("fetch")
    note(trial.same_cube())


def test_worker_killed(hurt: Hurt, draw: random.Random, note: Note) -> None:
    """The run itself goes on; nothing is given again."""
    trial = hurt("kill -9 of a worker process")
    with trial.mapping() as running:
        running.wait_for("predict", draw.randint(1, 4))
        draw.choice(trial.workers()).kill()
        assert "failed" not in running.end()
    note(trial.same_map())


def test_scheduler_killed(
    hurt: Hurt, draw: random.Random, note: Note, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster that runs already; that of a run alone is in its client."""
    trial = hurt("kill -9 of the scheduler")
    with contextlib.ExitStack() as stack:
        with monkeypatch.context() as marked:
            marked.setenv(faults.MARK, trial.mark)
            address = stack.enter_context(scheduler(tmp_path, workers=2))
        running = stack.enter_context(trial.mapping("--cluster", address))
        running.wait_for("predict", draw.randint(1, 4))
        (process,) = [each for each in trial.processes() if "distributed.cli.dask_scheduler" in each.cmdline()]
        process.kill()
        assert "scheduler" in running.end(expect=1)
    trial.run("predict")
    note(trial.same_map())


def test_slow_worker(hurt: Hurt, draw: random.Random, note: Note) -> None:
    trial = hurt("a worker that stands still for seconds")
    with trial.mapping() as running:
        running.wait_for("predict", draw.randint(1, 4))
        slow = draw.choice(trial.workers())
        slow.suspend()
        time.sleep(draw.uniform(1, 3))
        assert running.child.poll() is None, "its blocks are waited for"
        slow.resume()
        assert "failed" not in running.end()
    note(trial.same_map())


@pytest.mark.usefixtures("turn")
def test_worker_out_of_memory(tmp_path: Path, note: Note) -> None:
    """The task that takes all memory is named, and all others are done, whether its worker lives on or not."""
    with Workers(Cluster(workers=2), tmp_path) as workers:
        found = dict(workers.stream(faults.starve, range(12)))
    error = found.pop(3)
    assert isinstance(error, (MemoryError, WorkersLostError))
    assert "--memory" in explain(error)
    assert found == {number: number for number in range(12) if number != 3}
    assert not list(tmp_path.glob("**/worker-*"))
    note(Blow("a worker that gets no more memory"))


def test_disk_full(hurt: Hurt, draw: random.Random, note: Note, tmp_path: Path) -> None:
    need("tmpfs", faults.no_mounts())
    stage = draw.choice(["predict", "fetch"])
    with faults.small_disk(tmp_path / "disk", 160) as disk:
        trial = hurt(f"a full disk ({stage})", stage, disk / "hurt")
        filler = faults.fill(disk, draw.randint(0, 200_000))
        said = trial.run(stage, expect=1)
        assert "disk is full" in said or "No space left" in said
        assert "Free some space" in said
        trial.strike(stage)
        filler.unlink()
        trial.run(stage)
        note(trial.same_map() if stage == "predict" else trial.same_cube())


@pytest.mark.usefixtures("turn")
def test_read_only_workspace(hurt: Hurt, note: Note) -> None:
    need("tmpfs", faults.no_mounts())
    trial = hurt("a workspace that is read-only")
    with faults.read_only(trial.folder / "space"):
        assert "ead-only" in trial.run("predict", expect=1)
    trial.run("predict")
    note(trial.same_map())


def test_output_becomes_read_only(hurt: Hurt, draw: random.Random, note: Note) -> None:
    need("tmpfs", faults.no_mounts())
    what = draw.choice(["map.zarr", "ledger"])
    trial = hurt(f"output that becomes read-only ({what})")
    with trial.mapping() as running:
        running.wait_for("predict", draw.randint(1, 4))
        ((folder),) = trial.stages.glob(f"predict/*/{what}")
        with faults.read_only(folder):
            assert "ead-only" in running.end(expect=1)
    trial.run("predict")
    note(trial.same_map())


def test_clock_jumps(hurt: Hurt, draw: random.Random, note: Note) -> None:
    """Forty days back and then a year ahead while it runs, the ledger begun in the future."""
    stage = draw.choice(["predict", "fetch"])
    trial = hurt(f"clock jumps ({stage})", stage)
    clock = faults.Clock(trial.folder / "clock")
    clock.jump(10)
    with (trial.mapping if stage == "predict" else trial.fetching)(**clock.environment) as running:
        running.wait_for(stage, draw.randint(1, 2))
        clock.jump(-40)
        running.wait_for(stage, draw.randint(3, 4))
        clock.jump(365)
        running.end()
    written = [row["at"] - time.time() for row in trial.lines(stage)]
    assert max(written) > 86400 > -86400 > min(written), "the fault has struck"
    trial.run(stage)
    note(trial.same_map() if stage == "predict" else trial.same_cube())


def test_two_clients(hurt: Hurt, draw: random.Random, note: Note) -> None:
    """The second is refused while the first is in the middle of its work, and the first is not disturbed."""
    trial = hurt("two clients on one workspace")
    with trial.mapping() as running:
        running.wait_for("predict", draw.randint(1, 4))
        for worker in trial.workers():
            worker.suspend()
        assert "Another wetmap works on predict" in trial.run("predict", expect=1)
        for worker in trial.workers():
            worker.resume()
        assert "failed" not in running.end()
    note(trial.same_map())


def test_poisoned_block(hurt: Hurt, draw: random.Random, note: Note) -> None:
    """A part of the cube cannot be read: what needs it fails and is named, all else is the calm map."""
    trial = hurt("a block that always fails")
    (features,) = trial.stages.glob("fetch/*/cube.zarr/features/c")
    shard = draw.choice(sorted(path for path in features.rglob("*") if path.is_file()))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    said = trial.run("predict", expect=1)
    failed = trial.failed("predict")
    assert 1 <= len(failed) <= 4
    assert all(f"predict block {block}: " in said for block in failed)
    trial.strike("predict")
    trial.run("predict", "--max-failed", "0.6")
    assert_the_rest_is_calm(trial, failed)
    shard.write_bytes(whole)
    trial.run("predict")
    note(trial.same_map())


def assert_the_rest_is_calm(trial: Trial, failed: set[str]) -> None:
    """Blocks of 128 px that failed are nodata, and all other pixels are those of the calm run."""
    with rasterio.open(trial.folder / "space/map/classes.tif") as file:
        found = file.read(1)
    with rasterio.open(trial.calm / "space/map/classes.tif") as file:
        wanted = file.read(1)
    for block in failed:
        row, col = int(block[1:6]) * 128, int(block[7:12]) * 128
        wanted[row : row + 128, col : col + 128] = 0
    assert np.array_equal(found, wanted)


@pytest.fixture
def queue(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """Slurm's commands find it; no job outlives its test."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jobs, "ASK_EVERY_S", 1.0)
    yield slurm
    for node in slurm.nodes:
        slurm.run("scontrol", "update", f"nodename={node}", "state=resume", expect=None)
    slurm.wait_empty(60)


def kill_a_job(trial: Trial, slurm: Slurm, draw: random.Random) -> None:
    """Kill -9 everything that works in a job."""
    job = draw.choice(sorted(slurm.jobs("RUNNING")))
    for process in trial.processes():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job:
                process.send_signal(signal.SIGKILL)


def cancel_a_job(_: Trial, slurm: Slurm, draw: random.Random) -> None:
    """Scancel."""
    slurm.run("scancel", draw.choice(sorted(slurm.jobs("RUNNING"))), expect=None)


def drain_a_node(_: Trial, slurm: Slurm, draw: random.Random) -> None:
    """A node takes no more jobs and then goes down with the one it has; it comes back with the end of the test."""
    node = slurm.facts(draw.choice(sorted(slurm.jobs("RUNNING"))))["NodeList"]
    for state in ("drain", "down"):
        slurm.run("scontrol", "update", f"nodename={node}", f"state={state}", "reason=fault")


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("kill -9 of a Slurm job's processes", kill_a_job),
        ("scancel of a job", cancel_a_job),
        ("drain of a node that then goes down", drain_a_node),
    ],
    ids=["kill", "scancel", "drain"],
)
def test_slurm_job_lost(
    hurt: Hurt, draw: random.Random, note: Note, queue: Slurm, fault: str, how: Callable[..., None]
) -> None:
    """The run itself goes on with another job in its place."""
    trial = hurt(fault, cluster={"workers": 1, "job": JOB})
    with trial.mapping("--cluster", "slurm") as running:
        running.wait_for("predict", draw.randint(1, 3))
        how(trial, queue, draw)
        assert "failed" not in running.end()
    note(trial.same_map())
