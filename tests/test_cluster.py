"""Workers: every item once, few in flight, errors as results, one or two processes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

import pytest

from wetmap.cluster import IN_FLIGHT_PER_WORKER, Workers, explain
from wetmap.errors import SourceError
from wetmap.recipe import Cluster


def halve(number: int) -> int:
    if number % 2:
        raise SourceError(f"{number} is odd.", do="Give an even number.")
    return number // 2


def process_id(_: int) -> int:
    return os.getpid()


def test_every_item_once_and_errors_are_results(tmp_path: Path) -> None:
    with Workers(Cluster(workers=1), tmp_path) as workers:
        found = dict(workers.stream(halve, range(20)))
    assert sorted(found) == list(range(20))
    assert [found[number] for number in range(0, 20, 2)] == list(range(10))
    assert str(found[3]) == "3 is odd. Give an even number."
    assert isinstance(found[3], SourceError)


def test_two_workers_are_two_processes(tmp_path: Path) -> None:
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
        assert len(taken) <= IN_FLIGHT_PER_WORKER + 1
        stream.close()  # type: ignore[attr-defined]


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
