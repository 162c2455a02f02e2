"""The same map in one process, two processes, two Slurm jobs, and on a scheduler's address; jobs that die or leave."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system import slurm_tasks
from tests.system.slurm import Slurm, processes_with
from tests.walk.conftest import RECIPE, command, run_here, write_recipe
from wetmap.cluster import Workers, jobs, stream
from wetmap.errors import ClusterError, WorkersLostError
from wetmap.recipe import Cluster

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
#: What each job asks for; loopback is the network that the virtual nodes share.
JOB = {"interface": "lo", "memory": "2GiB", "walltime": "30m"}


@pytest.fixture(autouse=True)
def _here(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Slurm's commands find it, jobs find the tests' modules, and nothing is left of any test."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(jobs, "ASK_EVERY_S", 1.0)
    yield
    slurm.wait_empty()
    slurm.wait_for(lambda: not dask_workers(slurm), 10)  # without cgroups, Slurm forgets what takes a moment to end


def dask_workers(slurm: Slurm) -> list[str]:
    """Command lines of workers that were started by jobs."""
    found = []
    for process in processes_with("SLURM_CONF", slurm.environment["SLURM_CONF"]):
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(process.cmdline()))
    return [line for line in found if "dask_worker" in line]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map that one process makes."""
    folder = tmp_path_factory.mktemp("one")
    make(folder)
    return folder


def make(folder: Path, *flags: str, **cluster: Any) -> str:
    """Make the small map in this process, and give what was said."""
    write(folder, **cluster)
    done = run_here(["run", str(folder / "recipe.yaml"), *flags])
    assert done.returncode == 0, done.stderr
    return done.stderr


def write(folder: Path, **cluster: Any) -> None:
    """Write the recipe, the same in all tests but for where it is worked on."""
    training = {**RECIPE["training"], "epochs": 2, "forest_trees": 5}
    write_recipe(folder, cluster={"workers": 1, **cluster}, products={"probabilities": True}, training=training)


def begun(folder: Path, one: Path, *stages: str) -> Path:
    """A folder in which these stages are done already, as the map of one process has them."""
    for stage in stages:
        shutil.copytree(one / "space/stages" / stage, folder / "space/stages" / stage)
    return folder


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every product and of every file of the model."""
    return {
        f"{name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("map", "model")
        for path in sorted((folder / "space" / name).iterdir())
    }


def ledgers(folder: Path) -> dict[str, set[tuple[str, str]]]:
    """Of each stage with blocks: every block and what became of it."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in (folder / "space/stages").glob("*/*/ledger/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found.setdefault(path.parts[-4], set()).update((row["block"], row["status"]) for row in rows)
    return found


def same(folder: Path, one: Path) -> None:
    assert digests(folder) == digests(one)
    assert ledgers(folder) == ledgers(one)
    assert {"fetch", "predict"} <= set(ledgers(folder))


def crew(tmp_path: Path, said: list[str] | None = None, **settings: Any) -> Workers:
    job = {**JOB, **settings.pop("job", {})}
    told = [] if said is None else said
    part = Cluster(kind="slurm", job=job, **settings)
    return Workers(part, tmp_path / ".dask", logs=tmp_path / "job-logs", say=told.append)


def test_two_processes_make_the_same_map(one: Path, tmp_path: Path) -> None:
    folder = begun(tmp_path / "two", one, "simulate", "plan")
    make(folder, "--workers", "2", "--cluster", "local")
    same(folder, one)


def test_two_slurm_jobs_make_the_same_map(one: Path, tmp_path: Path) -> None:
    folder = begun(tmp_path / "slurm", one, "simulate")
    said = make(folder, "--cluster", "slurm", "--workers", "2", job=JOB)
    same(folder, one)
    assert "cluster: 2 jobs of slurm (" in said
    assert "scheduler dashboard: http://127.0.0.1:" in said
    logs = list((folder / "space/job-logs").glob("wetmap-*.err"))
    assert len(logs) == 4, "two jobs for fetch, none while one process trains, two for the map"
    assert not list((folder / "space/.dask").iterdir()), "neither the file that workers saw, nor their keys"
    assert "slurm" not in (folder / "space/map/report.html").read_text()


def test_a_scheduler_that_runs_already_makes_the_same_map(one: Path, tmp_path: Path) -> None:
    with scheduler(tmp_path, workers=2) as address:
        folder = begun(tmp_path / "far", one, "simulate", "plan")
        said = make(folder, "--cluster", address)
        same(folder, one)
        assert f"cluster: 2 workers of {address}" in said
        again = make(folder, "--cluster", address)
        assert "predict: already done" in again, "where it is worked on makes nothing new"


@contextlib.contextmanager
def scheduler(folder: Path, workers: int) -> Iterator[str]:
    """A Dask scheduler and workers as a person starts them, in processes of their own."""
    with contextlib.ExitStack() as stack:
        file = folder / "scheduler.json"
        here = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        _process(stack, "distributed.cli.dask_scheduler", *here)
        until = time.monotonic() + 60
        while not file.exists() or not file.read_text():
            assert time.monotonic() < until
            time.sleep(0.1)
        address: str = json.loads(file.read_text())["address"]
        for _ in range(workers):
            rest = ["--nthreads", "2", "--no-dashboard", "--local-directory", str(folder / "dask")]
            _process(stack, "distributed.cli.dask_worker", address, *rest)
        from distributed import Client

        with Client(address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(workers, timeout=60)  # type: ignore[no-untyped-call]
        yield address


def _process(stack: contextlib.ExitStack, module: str, *arguments: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def end() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in (*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        child.wait()

    stack.callback(end)


def test_a_cancelled_job_and_a_killed_client_cost_nothing(one: Path, tmp_path: Path, slurm: Slurm) -> None:
    """One of two jobs is cancelled in the middle of the map, and then the whole command is killed and given again."""
    folder = begun(tmp_path / "hurt", one, "simulate", "plan", "cubes", "train")
    write(folder, job=JOB)
    arguments = command("run", folder / "recipe.yaml", "--cluster", "slurm", "--workers", "2")
    child = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        wait_for_blocks(folder, "fetch", 1, child)
        slurm.run("scancel", min(slurm.jobs("RUNNING"), key=int), expect=None)
        wait_for_blocks(folder, "predict", 1, child)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        said = child.communicate()[1]
    assert "failed" not in said
    slurm.wait_empty(30)  # jobs whose client is gone end by themselves
    done = run_here(["run", str(folder / "recipe.yaml"), "--cluster", "slurm", "--workers", "2"])
    assert done.returncode == 0, done.stderr
    assert "predict: continues where it stopped" in done.stderr
    same(folder, one)


def wait_for_blocks(folder: Path, stage: str, count: int, child: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 90
    while (
        sum(len(path.read_text().splitlines()) for path in (folder / "space/stages").glob(f"{stage}/*/ledger/*.jsonl"))
        < count
    ):
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_workers_that_leave_before_their_walltime_are_replaced_and_lose_nothing(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leaves four seconds after it began: no death, and a new job in its place. One is cancelled.

    One job is asked for at first, and three once there is work for them.
    """
    monkeypatch.setattr(jobs, "lifetime", lambda _: (4, 1))
    monkeypatch.setattr(jobs, "REPLACED_AFTER_S", 2.0)
    monkeypatch.setattr(jobs, "ADAPT_EVERY_S", 0.5)
    folder = tmp_path / "notes"
    folder.mkdir()
    tasks = [(folder, number, 0.3) for number in range(60)]
    done = []
    said: list[str] = []
    with crew(tmp_path, said, workers=3, minimum_workers=1) as workers:
        for task, result in workers.stream(slurm_tasks.note, tasks):
            assert isinstance(result, str), result
            done.append(task[1])
            if len(done) == 20:
                slurm.run("scancel", max(slurm.jobs("RUNNING"), key=int), expect=None)
    assert sorted(done) == list(range(60))
    used = {path.name.split("-")[1] for path in folder.iterdir()}
    assert len(used) >= 4
    left = [path for path in (tmp_path / "job-logs").glob("*.err") if "worker-lifetime-reached" in path.read_text()]
    assert len(left) >= 2, "workers left by themselves"
    assert "1 job of slurm" in said[0]
    assert ", up to 3 as work comes, 3 workers in all" in said[0]
    assert len(list(folder.iterdir())) - 60 <= 2 * len(used), "what was in hand when a worker left, and no more"


def test_a_task_that_kills_its_worker_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    folder = tmp_path / "marks"
    folder.mkdir()
    with crew(tmp_path, workers=2) as workers:
        found = {task[1]: result for task, result in workers.stream(slurm_tasks.die, [(folder, n) for n in range(6)])}
    killer = found.pop(3)
    assert isinstance(killer, WorkersLostError)
    assert "died each of the 4 times" in str(killer)
    assert found == {number: number for number in range(6) if number != 3}
    assert len(list(folder.iterdir())) == 4


def test_jobs_that_end_before_a_worker_came_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOST_AFTER_S", 1.0)
    prologue = ["echo no such module: wetlands >&2", "exit 3"]
    with (
        crew(tmp_path, workers=1, job={"prologue": prologue}) as workers,
        pytest.raises(WorkersLostError, match=r"none of the jobs \(\d+\) waits or runs.*no such module: wetlands"),
    ):
        list(workers.stream(slurm_tasks.die, [(tmp_path, 0)]))


def test_a_job_that_slurm_refuses_is_told_with_its_reason(tmp_path: Path, slurm: Slurm) -> None:
    with (
        crew(tmp_path, workers=1, job={"queue": "nowhere"}) as workers,
        pytest.raises(ClusterError, match=r"sbatch refused a job: .*invalid partition.*Mend cluster\.job"),
    ):
        list(workers.stream(slurm_tasks.die, [(tmp_path, 0)]))
    assert not slurm.jobs()


def test_jobs_that_wait_in_the_queue_are_waited_for(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is lost while a job waits, however long."""
    monkeypatch.setattr(stream, "LOST_AFTER_S", 0.5)
    said: list[str] = []
    for node in slurm.nodes:
        slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")

    def let_go() -> None:
        for node in slurm.nodes:
            slurm.run("scontrol", "update", f"nodename={node}", "state=resume")

    timer = threading.Timer(4.0, let_go)
    timer.start()
    try:
        with crew(tmp_path, said, workers=1) as workers:
            ((_, result),) = workers.stream(slurm_tasks.die, [(tmp_path, 0)])
    finally:
        timer.join()
    assert result == 0
    assert any("1 PENDING" in line for line in said), said


def test_ctrl_c_cancels_jobs_that_still_wait(one: Path, tmp_path: Path, slurm: Slurm) -> None:
    """They would start later, for nobody."""
    folder = begun(tmp_path / "stopped", one, "simulate", "plan")
    write(folder, job={**JOB, "directives": ["--hold"]})
    arguments = command("fetch", "--recipe", folder / "recipe.yaml", "--cluster", "slurm", "--workers", "2")
    child = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=dict(os.environ), start_new_session=True)
    try:
        slurm.wait_for(lambda: len(slurm.jobs("PENDING")) == 2 or child.poll() is not None, 60)
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(20) == 130
    finally:
        child.kill()
        said = child.communicate()[1]
    assert "the same command continues" in said
    slurm.wait_empty(10)
