"""Workers: every item once, few in flight, errors as results, one or two processes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from wetmap.cluster import THREAD_VARIABLES, WAITING_PER_WORKER, Workers, explain, local, stream
from wetmap.cluster import workers as crews
from wetmap.errors import SourceError, WorkersLostError
from wetmap.recipe import Cluster


def halve(number: int) -> int:
    if number % 2:
        raise SourceError(f"{number} is odd.", do="Give an even number.")
    return number // 2


def process_id(_: int) -> int:
    return os.getpid()


def die(marks: tuple[Path, int, int]) -> int:
    """Kill the own worker as long as fewer than so many processes died here."""
    folder, number, deaths = marks
    if number == 3 and len(list(folder.iterdir())) < deaths:
        (folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return number


def threads_seen(_: int) -> dict[str, Any]:
    """What this process's libraries may start."""
    import torch
    import zarr
    from threadpoolctl import threadpool_info

    return {
        "torch": torch.get_num_threads(),
        "pools": {row["num_threads"] for row in threadpool_info()},
        "zarr": (zarr.config.get("threading.max_workers"), zarr.config.get("async.concurrency")),
        "environment": {os.environ.get(name) for name in THREAD_VARIABLES},
    }


def sampled(_: int) -> bool:
    """Whether Dask looks at every thread of this process a hundred times a second."""
    import dask

    return bool(dask.config.get("distributed.worker.profile.enabled"))


def meet(number: int) -> int:
    """Wait until two tasks are here at the same time."""
    _MEETING.wait(timeout=20)
    return number


_MEETING = threading.Barrier(2)


def test_every_item_once_and_errors_are_results(tmp_path: Path) -> None:
    with Workers(Cluster(workers=1), tmp_path) as workers:
        found = dict(workers.stream(halve, range(20)))
    assert sorted(found) == list(range(20))
    assert [found[number] for number in range(0, 20, 2)] == list(range(10))
    assert str(found[3]) == "3 is odd. Give an even number."
    assert isinstance(found[3], SourceError)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_two_workers_are_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Whether a process is made from one that has the libraries, or from nothing, as on macOS and Windows."""
    if method == "spawn":
        monkeypatch.setattr(local, "prepare_processes", lambda: "spawn")
    with Workers(Cluster(workers=2), tmp_path) as workers:
        processes = {result for _, result in workers.stream(process_id, range(12))}
        odd = dict(workers.stream(halve, [3]))
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert isinstance(odd[3], SourceError), "our errors travel between processes with their advice"
    assert odd[3].do == "Give an even number."


def test_items_are_taken_as_workers_need_them(tmp_path: Path) -> None:
    taken: list[int] = []

    def items() -> object:
        for number in range(0, 100, 2):
            taken.append(number)
            yield number

    with Workers(Cluster(workers=1), tmp_path) as workers:
        stream = workers.stream(halve, items())  # type: ignore[arg-type]
        next(stream)
        assert len(taken) <= 1 + WAITING_PER_WORKER + 1
        stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_library_starts_more_threads_than_it_may(tmp_path: Path, workers: int) -> None:
    import torch
    import zarr

    before = torch.get_num_threads(), os.environ.get("GDAL_NUM_THREADS"), zarr.config.get("threading.max_workers")
    with Workers(Cluster(workers=workers, threads_per_worker=3), tmp_path) as crew:
        (seen,) = dict(crew.stream(threads_seen, [0])).values()
    # a library that was loaded before may have been told of fewer
    assert max(seen.pop("pools")) == 3
    assert seen == {"torch": 3, "zarr": (3, 3), "environment": {"3"}}
    now = torch.get_num_threads(), os.environ.get("GDAL_NUM_THREADS"), zarr.config.get("threading.max_workers")
    assert now == before, "this process is as it was"


def test_two_tasks_at_once_in_one_worker(tmp_path: Path) -> None:
    with Workers(Cluster(workers=1), tmp_path) as workers:
        assert sorted(result for _, result in workers.stream(meet, range(4), at_once=2)) == [0, 1, 2, 3]


def test_a_killed_worker_loses_nothing_and_a_block_that_kills_every_time_is_named(tmp_path: Path) -> None:
    """Killed once: tried again. Killed each time: an error for that item, and results for all others."""
    once, always = tmp_path / "once", tmp_path / "always"
    for folder in (once, always):
        folder.mkdir()
    said: list[str] = []
    with Workers(Cluster(workers=2), tmp_path / "dask", say=said.append) as workers:
        found = dict(workers.stream(die, [(once, number, 1) for number in range(8)], at_once=2))
        assert sorted(map(str, found.values())) == [str(number) for number in range(8)]
        assert [line for line in said if "1 of 2 worker processes died" in line and "--memory" in line] == said
        assert len(said) == 1
        found = dict(workers.stream(die, [(always, number, 99) for number in range(8)], at_once=2))
    killer = found.pop((always, 3, 99))
    assert isinstance(killer, WorkersLostError)
    assert "died each of the 4 times" in str(killer)
    assert sorted(map(str, found.values())) == [str(number) for number in range(8) if number != 3]
    assert len(list(always.iterdir())) == 4


def test_nobody_waits_for_ever_for_workers_that_do_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LOST_AFTER_S", 0.5)
    monkeypatch.setattr(stream, "LOOK_EVERY_S", 0.1)
    with Workers(Cluster(workers=2), tmp_path) as workers:
        coming = workers.stream(halve, range(0, 40, 2))
        next(coming)
        assert workers._local is not None
        workers._local.cluster.scale(0)
        with pytest.raises(WorkersLostError, match="none came back within"):
            list(coming)


def test_nobody_waits_for_ever_for_workers_that_do_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "START_WITHIN_S", 0.001)
    with Workers(Cluster(workers=2), tmp_path) as workers, pytest.raises(WorkersLostError, match="did not answer"):
        list(workers.stream(halve, range(0, 4, 2)))


def test_workers_here_are_not_looked_at_all_the_time(tmp_path: Path) -> None:
    with Workers(Cluster(workers=2), tmp_path) as workers:
        assert dict(workers.stream(sampled, range(2))) == {0: False, 1: False}


@pytest.mark.parametrize(
    "first",
    ["import wetmap.cluster.quick_exit", "import wetmap.cli.main as m, sys; sys.argv[1:] = ['--version']; m.main()"],
)
def test_a_process_ends_without_a_last_look_for_circles(first: str) -> None:
    """Registered first, and so called last: by then what is there is set aside from the search."""
    code = f"import atexit, gc; atexit.register(lambda: print('set aside', gc.get_freeze_count() > 0)); {first}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set aside True"


def test_no_more_workers_than_cores_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "count_cores", lambda: 5)
    assert Workers(Cluster(), tmp_path).count == 5
    assert Workers(Cluster(threads_per_worker=2), tmp_path).count == 2
    assert Workers(Cluster(threads_per_worker=8), tmp_path).count == 1
    assert Workers(Cluster(workers=3, threads_per_worker=2), tmp_path).count == 3, "what is asked is done"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SourceError("It broke.", do="Mend it."), "It broke. Mend it."),
        (
            OSError(errno.ENOSPC, "No space left on device", "cube.zarr"),
            "The disk is full (cube.zarr). Free some space",
        ),
        (ValueError("bad\nsecond line"), "ValueError: bad"),
    ],
)
def test_errors_are_explained_in_one_line(error: Exception, words: str) -> None:
    assert explain(error).startswith(words)
    assert "\n" not in explain(error)


def test_a_second_run_on_the_machine_is_not_in_the_way(tmp_path: Path) -> None:
    """Dask's own status server would take port 8787 of every interface, and complain where it is taken."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody has it already: as good
            taken.bind(("127.0.0.1", 8787))
            taken.listen()
        with Workers(Cluster(workers=1), tmp_path) as workers:
            assert dict(workers.stream(halve, [4])) == {4: 2}
