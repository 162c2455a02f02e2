"""What a killed process leaves is removed, and what the system refuses is said in one line."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NoReturn

import pytest

from wetmap.cli import main as front_door
from wetmap.cluster import Workers, explain
from wetmap.errors import REFUSED, WorkersLostError
from wetmap.recipe import Cluster
from wetmap.workspace import sweep


def test_chunks_that_were_being_written_are_removed_and_whole_ones_stay(tmp_path: Path) -> None:
    chunks = tmp_path / "map.zarr/classes/c/0"
    chunks.mkdir(parents=True)
    for name in ("0", ".3f2a9c.partial"):
        (chunks / name).touch()
    sweep(tmp_path)
    assert [path.name for path in chunks.iterdir()] == ["0"]


def test_folders_of_killed_workers_are_removed_and_those_in_use_stay(tmp_path: Path) -> None:
    from distributed.diskutils import WorkSpace

    place = tmp_path / "dask-scratch-space"
    used = WorkSpace(str(place)).new_work_dir(prefix="worker-")
    dead = place / "worker-dead"
    dead.mkdir()
    (place / "worker-dead.dirlock").touch()
    with Workers(Cluster(workers=1), tmp_path):
        pass
    assert not dead.exists()
    assert sorted(path.name for path in place.glob("worker-*")) == [
        Path(used.dir_path).name,
        f"{Path(used.dir_path).name}.dirlock",
    ]
    used.release()


@pytest.mark.parametrize("number", REFUSED)
def test_what_the_system_refuses_is_one_line_with_advice(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = OSError(number, "It may not be", "/data/space/map")

    def refuse() -> NoReturn:
        raise error

    monkeypatch.setattr(front_door, "app", refuse)
    monkeypatch.setattr(front_door, "_exit_at_once_on_ctrl_c", lambda: None)
    with pytest.raises(SystemExit) as end:
        front_door.main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "/data/space/map" in said
    assert "run the same command again" in said
    assert explain(error) in said


def test_an_error_that_may_be_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble() -> NoReturn:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(front_door, "app", stumble)
    monkeypatch.setattr(front_door, "_exit_at_once_on_ctrl_c", lambda: None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        front_door.main()


def test_a_worker_process_that_ends_while_it_starts_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> NoReturn:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", fail)
    with (
        Workers(Cluster(workers=2), tmp_path) as workers,
        pytest.raises(WorkersLostError, match=r"One of 2 worker processes .* \(Nanny failed to start\.\).*--memory"),
    ):
        list(workers.stream(abs, [1]))


def test_out_of_memory_is_told_with_advice() -> None:
    assert explain(MemoryError()) == ("Memory ran out. Give --memory, fewer --workers, or a smaller --block-px.")
    assert explain(MemoryError("Unable to allocate 9 GiB")).startswith("Memory ran out (Unable to allocate 9 GiB). ")
