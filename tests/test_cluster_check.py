"""What sets a worker apart is named; a scheduler's address that is wrong is refused at once."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.cluster import Workers, address, check, stream
from wetmap.cluster.check import PACKAGES, Answer, Greeting, answer, differences, greeting, look_once, versions
from wetmap.errors import ClusterError, WorkersLostError, WorkspaceError
from wetmap.recipe import Cluster

TOLD = Greeting("3.11.2", (("wetmap", "0.1.0"), ("torch", "2.13.0"), ("numpy", "2.4.1")), Path("/shared/t"), "word")
SAME = Answer("node7", "/opt/bin/python", "3.11.9", TOLD.versions, None)


def double(number: int) -> int:
    return 2 * number


def test_a_worker_that_is_the_same_is_not_spoken_of() -> None:
    assert differences(TOLD, SAME) is None


def test_each_difference_is_named_with_both_versions() -> None:
    other = replace(
        SAME,
        python="3.12.1",
        versions=(("wetmap", "0.1.0"), ("torch", "2.12.1")),
        trouble="does not see /shared/t (No such file or directory)",
    )
    said = differences(TOLD, other)
    assert said == (
        "runs Python 3.12.1, and this process 3.11.2; it has torch 2.12.1, and this process 2.13.0; it has numpy not "
        "installed, and this process 2.4.1; it does not see /shared/t (No such file or directory)"
    )
    error = check.refusal(other.host, other.executable, said)
    assert str(error).startswith("The worker on node7 (/opt/bin/python) runs Python 3.12.1, and")
    assert "cluster.job.python" in error.do


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.sampled_from(PACKAGES), st.sampled_from(["1", "2"])))
def test_a_difference_is_found_exactly_where_there_is_one(theirs: dict[str, str]) -> None:
    told = replace(TOLD, versions=tuple((name, "1") for name in PACKAGES))
    said = differences(told, replace(SAME, versions=tuple(theirs.items()))) or ""
    apart = {name for name in PACKAGES if theirs.get(name) != "1"}
    assert {name for name in PACKAGES if f"has {name} " in said} == apart


def test_the_versions_are_those_of_this_environment() -> None:
    import numpy
    import torch

    found = dict(versions())
    assert set(found) == set(PACKAGES)
    assert found["numpy"] == numpy.__version__
    assert torch.__version__.startswith(found["torch"].partition("+")[0])


def test_a_worker_sees_the_file_and_writes_beside_it(tmp_path: Path) -> None:
    with greeting(tmp_path / "deep/scratch") as told:
        assert answer(told).trouble is None
        assert told.token is not None
        assert list(told.token.parent.iterdir()) == [told.token], "nothing stays beside it"
        assert told.token.parent.stat().st_mode & 0o777 == 0o700
    assert not list((tmp_path / "deep/scratch").iterdir())


def test_a_folder_that_is_not_shared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SEEN_WITHIN_S", 0.2)
    with greeting(tmp_path) as told:
        elsewhere = replace(told, token=tmp_path / "not/here")
        assert "does not see" in (answer(elsewhere).trouble or "")
        assert str(tmp_path / "not/here") in (answer(elsewhere).trouble or "")
        copied = replace(told, word="another")
        assert "its folder is a copy, not the shared one" in (answer(copied).trouble or "")
        assert answer(replace(told, token=None)).trouble is None, "a scheduler need not see it"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with greeting(tmp_path) as told:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "write_text", refuse)
        assert told.token is not None
        assert answer(told).trouble == f"cannot write to {told.token.parent} (Permission denied)"
        with pytest.raises(WorkspaceError, match="cannot be written"), greeting(tmp_path / "more"):
            pass


def test_the_file_is_waited_for_a_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems show a new file late."""
    calls: list[Path] = []
    read = Path.read_bytes

    def late(path: Path) -> bytes:
        calls.append(path)
        if len(calls) < 3:
            raise FileNotFoundError(2, "No such file or directory")
        return read(path)

    with greeting(tmp_path) as told:
        monkeypatch.setattr(Path, "read_bytes", late)
        assert answer(told).trouble is None
    assert len(calls) == 3


def test_what_runs_that_were_killed_have_left_is_cleared_away(tmp_path: Path) -> None:
    """Of this machine at once, of another after a day."""
    host, nobody = platform.node(), 2**22 + 1  # beyond the largest number of a process
    names = {
        "dead": f"run-{host}-{nobody}-0a",
        "alive": f"run-{host}-{os.getpid()}-0b",
        "old": f"run-other-host-{nobody}-0c",
        "young": f"run-other-host-{nobody}-0d",
    }
    for name in names.values():
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").touch()
    yesterday = time.time() - check.OLD_S - 60
    os.utime(tmp_path / names["old"], (yesterday, yesterday))
    with greeting(tmp_path):
        left = {key for key, name in names.items() if (tmp_path / name).exists()}
    assert left == {"alive", "young"}


def test_a_worker_looks_once_before_its_first_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Greeting] = []
    monkeypatch.setattr(check, "answer", lambda told: looks.append(told) or replace(SAME, versions=versions()))
    with greeting(tmp_path) as told:
        good = replace(told, python="3.11.0", versions=versions())
        for _ in range(3):
            look_once(good)
        assert len(looks) == 1
        for _ in range(2):
            with pytest.raises(ClusterError, match=r"node7 .* has numpy .*, and this process 0\.0\.1"):
                look_once(replace(good, word="other", versions=(("numpy", "0.0.1"),)))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (ModuleNotFoundError("No module", name="wetmap.cluster"), "has no module wetmap.cluster, which wetmap needs"),
        (RuntimeError("odd"), "cannot be asked (RuntimeError: odd)"),
        (OSError("it left"), None),
        (SAME, None),
    ],
)
def test_what_workers_answer(said: Any, words: str | None) -> None:
    refused = stream.judge(TOLD, "tcp://10.0.0.7:4000", said)
    assert (refused is None) if words is None else (words in str(refused))


def test_nobody_at_the_address_is_said_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "ANSWER_S", 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with (
        Workers(Cluster(kind=where), tmp_path) as workers,
        pytest.raises(ClusterError, match=rf"No Dask scheduler answers at {where} within 1 s .* Start one"),
    ):
        list(workers.stream(double, [1]))
    assert time.monotonic() - began < 10
    assert not list(tmp_path.iterdir())


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Any]:
    """A scheduler of this process, without workers yet."""
    from distributed import LocalCluster

    start: Any = LocalCluster
    with start(
        n_workers=0,
        threads_per_worker=3,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        local_directory=str(tmp_path / "dask"),
    ) as cluster:
        yield cluster


def test_workers_of_a_scheduler_that_runs(tmp_path: Path, scheduler: Any) -> None:
    said: list[str] = []
    part = Cluster(kind=scheduler.scheduler_address)
    with Workers(part, tmp_path / "scratch", say=said.append) as workers:
        with pytest.raises(WorkersLostError, match=r"has no workers\. Start some .*: dask worker tcp://127"):
            list(workers.stream(double, [1]))
        scheduler.scale(2)
        scheduler.wait_for_workers(2, timeout=30)
        assert dict(workers.stream(double, range(30))) == {number: 2 * number for number in range(30)}
        assert workers.count == 2
        assert workers.ask(double, 4) == 8
    assert said[0] == f"cluster: 2 workers of {part.kind}"
    assert said[1].startswith("scheduler dashboard: http://127.0.0.1:")
    assert len(scheduler.scheduler.workers) == 2, "they are somebody else's and stay"
    assert not list((tmp_path / "scratch").iterdir())


def test_another_version_is_refused_before_any_task(
    tmp_path: Path, scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler.scale(1)
    scheduler.wait_for_workers(1, timeout=30)
    mine = versions()
    tried = iter([tuple((name, "9.9" if name == "numpy" else own) for name, own in mine)])
    monkeypatch.setattr(check, "versions", lambda: next(tried, mine))
    with (
        Workers(Cluster(kind=scheduler.scheduler_address), tmp_path / "scratch") as workers,
        pytest.raises(
            ClusterError, match=r"The scheduler on .* has numpy \S+, and this process 9\.9\. Give all machines"
        ),
    ):
        list(workers.stream(double, [1]))


def test_no_more_tasks_at_a_time_than_the_stage_can_bear(tmp_path: Path, scheduler: Any) -> None:
    """The worker has three threads; a stage that wants one block at a time in each process gets that."""
    scheduler.scale(1)
    scheduler.wait_for_workers(1, timeout=30)
    with Workers(Cluster(kind=scheduler.scheduler_address, workers=3), tmp_path / "scratch") as workers:
        _seen.clear()
        list(workers.stream(crowd, range(9)))
        assert max(_seen) == 1
        _seen.clear()
        list(workers.stream(crowd, range(9), at_once=3))
        assert max(_seen) in {2, 3}


_seen: list[int] = []
_inside: list[int] = []


def crowd(number: int) -> None:
    _inside.append(number)
    time.sleep(0.03)
    _seen.append(len(_inside))
    _inside.remove(number)


def test_a_scheduler_that_goes_away_is_an_error(
    tmp_path: Path, scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LOST_AFTER_S", 1.0)
    monkeypatch.setattr(stream, "LOOK_EVERY_S", 0.2)
    scheduler.scale(1)
    scheduler.wait_for_workers(1, timeout=30)
    with Workers(Cluster(kind=scheduler.scheduler_address), tmp_path / "scratch") as workers:
        coming = workers.stream(crowd, range(1000))
        next(coming)
        scheduler.close()
        with pytest.raises(WorkersLostError, match=r"went away|has had no workers"):
            list(coming)
