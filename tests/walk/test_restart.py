"""Kill it at any moment: the same command continues and the bytes are those of an undisturbed run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.walk.conftest import Run, command, write_recipe


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every product and of every file of the model."""
    found = {}
    for name in ("map", "model"):
        for path in sorted((folder / "space" / name).iterdir()):
            found[f"{name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command("run", folder / "recipe.yaml"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )


def count_files(folder: Path) -> int:
    """Files in the workspace; walking it while a run moves folders must not stumble."""
    return sum(len(names) for _, _, names in os.walk(folder / "space"))


@pytest.mark.slow
def test_killed_at_ten_random_moments(small: Path, tmp_path: Path, wetmap: Run) -> None:
    """Each life is given until some new files have appeared, a random number of them, and is then killed."""
    folder = tmp_path / "killed"
    write_recipe(folder)
    draw = random.Random(5)  # noqa: S311 - moments, not secrets
    kills = 0
    while kills < 10:
        child = start(folder)
        known, wanted = count_files(folder), draw.choice([1, 2, 5, 20, 60])
        deadline = time.monotonic() + 60
        while child.poll() is None and count_files(folder) < known + wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.3))
        if child.poll() is not None:
            break
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
    assert kills >= 5, "the run ended before it could be killed often enough"
    wetmap("run", folder / "recipe.yaml")
    assert digests(folder) == digests(small)
    leftovers = [path for path in (folder / "space").rglob("*") if path.name.startswith((".tmp-", ".old-"))]
    assert leftovers == []


def test_ctrl_c_stops_within_two_seconds_and_says_how_to_go_on(tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "stopped"
    write_recipe(folder, cluster={"workers": 2})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command("run", folder / "recipe.yaml"),
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    while not list((folder / "space/stages").glob("fetch/*/ledger/*.jsonl")):
        assert child.poll() is None
        time.sleep(0.05)
    group = os.getpgid(child.pid)
    began = time.monotonic()
    os.killpg(group, signal.SIGINT)
    code = child.wait(timeout=20)
    assert time.monotonic() - began < 2
    assert code == 130
    assert child.stderr is not None
    with child.stderr:
        said = child.stderr.read()
    assert "the same command continues" in said
    assert "Traceback" not in said
    deadline = time.monotonic() + 10
    while _alive(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(group), "workers outlived the run"
    assert "continues where it stopped" in wetmap("fetch", "--recipe", folder / "recipe.yaml", "--workers", "1").stderr


def begin_to_map(small: Path, folder: Path) -> subprocess.Popen[str]:
    """The map of a copy of a finished run, made once more by two workers in a process group of their own."""
    shutil.copytree(small, folder)
    for stage in ("predict", "mosaic", "report"):
        shutil.rmtree(folder / "space/stages" / stage)
    return subprocess.Popen(
        command("predict", "--recipe", folder / "recipe.yaml", "--workers", "2"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def test_ctrl_c_while_worker_processes_are_being_made_prints_one_line(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "early"
    child = begin_to_map(small, folder)
    while child.poll() is None and not psutil.Process(child.pid).children():
        time.sleep(0.01)
    time.sleep(0.5)  # it is importing libraries
    os.killpg(os.getpgid(child.pid), signal.SIGINT)
    said = child.communicate(timeout=20)[1]
    assert child.returncode == 130, said
    assert "the same command continues" in said
    assert "Traceback" not in said


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def worker_processes(parent: int) -> list[psutil.Process]:
    """The processes that work for a run: the children of the one that they are made from."""
    with contextlib.suppress(psutil.Error):
        return [child for child in psutil.Process(parent).children(recursive=True) if child.ppid() != parent]
    return []


def test_a_killed_worker_loses_its_block_and_no_more(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lost"
    child = begin_to_map(small, folder)
    killed = 0
    while child.poll() is None and not killed:
        ledger = list((folder / "space/stages").glob("predict/*/ledger/*.jsonl"))
        for worker in worker_processes(child.pid)[:1] if ledger else []:
            with contextlib.suppress(psutil.Error):
                worker.kill()
                killed += 1
        time.sleep(0.01)
    said = child.communicate(timeout=120)[1]
    assert child.returncode == 0, said
    assert killed == 1
    assert "failed" not in said
    assert digests(folder) == digests(small)


def test_second_process_in_the_same_workspace_is_refused(tmp_path: Path, small: Path, wetmap: Run) -> None:
    from wetmap.workspace import Workspace

    folder = tmp_path / "busy"
    shutil.copytree(small, folder)
    with Workspace(folder / "space").lock("predict"):
        done = wetmap("predict", "--workspace", folder / "space", expect=1)
    assert "Another wetmap works on predict" in done.stderr
    assert "Wait for it" in done.stderr
