"""What faults are tried with: one calm map, copies of it that are hurt in the middle of their work, and what is left.

A trial is a workspace of its own and a ``wetmap`` in processes of its own, which carry a mark in their environment, so
that whoever outlives the run is found, also when its parent is gone. Moments are counted in blocks that the ledger
shows as settled; with ``WETMAP_TORTURE=20`` each fault is tried twenty times, at moments drawn at random.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.system.slurm import processes_with
from tests.walk.conftest import RECIPE, command, run_here, write_recipe

#: How often each fault is tried, and what its moments are drawn from.
TIMES = int(os.environ.get("WETMAP_TORTURE", "1"))
SEED = int(os.environ.get("WETMAP_TORTURE_SEED", "7"))
#: Variable that marks the processes of a trial.
MARK = "WETMAP_TRIAL"
#: Seconds that are waited for blocks, and for processes to end whose client is gone.
TO_WORK_S, TO_END_S = 120.0, 20.0
#: Three kilometres on a side: 9 blocks to map and 16 to fetch.
AREA = (-64.412, 45.897, -64.369, 45.926)
#: Names of files that are there only while something is written.
UNFINISHED = ("**/.tmp-*", "**/.old-*", "**/*.partial")
#: What Python runs before anything else, so that every module finds this clock.
CLOCK = """\
import os, time
def _told(true=time.time, file=os.environ["WETMAP_TRIAL_CLOCK"]):
    with open(file) as said:
        return true() + float(said.read() or 0)
time.time = _told
time.time_ns = lambda: int(_told() * 1e9)
"""


@dataclass
class Blow:
    """One fault, and what it cost."""

    fault: str
    """In a reader's words."""
    done: int = 0
    """Blocks that were settled when it struck."""
    again: int = 0
    """Blocks among those that were worked on again."""
    left: int = 0
    """Processes and unfinished files that were left behind."""


@dataclass
class Trial:
    """One workspace that is hurt."""

    folder: Path
    calm: Path
    fault: str
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    settled: set[str] = field(default_factory=set)
    """Blocks that were settled when the fault struck."""

    @property
    def recipe(self) -> Path:
        """Its recipe."""
        return self.folder / "recipe.yaml"

    @property
    def stages(self) -> Path:
        """Its work."""
        return self.folder / "space/stages"

    @contextlib.contextmanager
    def started(self, *arguments: str | Path, **environment: str) -> Iterator[Running]:
        """A ``wetmap`` in the background; at the end nothing of it is left, however the test ends."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
            child = subprocess.Popen(
                command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", MARK: self.mark, **environment},
            )
            try:
                yield Running(self, child, said)
            finally:
                child.kill()
                child.wait()
                for process in self.processes():
                    with contextlib.suppress(psutil.Error):
                        process.kill()

    def mapping(self, *more: str, **environment: str) -> contextlib.AbstractContextManager[Running]:
        """``wetmap predict`` with two workers, in the background."""
        return self.started("predict", "--recipe", self.recipe, "--workers", "2", *more, **environment)

    def fetching(self, *more: str, **environment: str) -> contextlib.AbstractContextManager[Running]:
        """``wetmap fetch``, two blocks at a time, in the background."""
        return self.started("fetch", "--recipe", self.recipe, "--workers", "2", *more, **environment)

    def run(self, verb: str, *more: str, expect: int = 0) -> str:
        """Give a command, one worker, in this process, and what it said."""
        done = run_here([verb, "--recipe", str(self.recipe), "--workers", "1", *more])
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr

    def lines(self, stage: str) -> list[dict[str, Any]]:
        """What the ledger of a stage says, whole lines only."""
        found = []
        for path in self.stages.glob(f"{stage}/*/ledger/*.jsonl"):
            for line in path.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    found.append(json.loads(line))
        return found

    def blocks(self, stage: str) -> set[str]:
        """Blocks that are settled."""
        return {row["block"] for row in self.lines(stage) if row["status"] != "failed"}

    def failed(self, stage: str) -> set[str]:
        """Blocks that failed at some time."""
        return {row["block"] for row in self.lines(stage) if row["status"] == "failed"}

    def strike(self, stage: str) -> None:
        """Note what is settled at the moment of the fault."""
        self.settled = self.blocks(stage)

    def processes(self) -> list[psutil.Process]:
        """Everybody who works for this trial."""
        return processes_with(MARK, self.mark)

    def workers(self) -> list[psutil.Process]:
        """Processes that work on blocks: the children of the one that they are made from."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if "forkserver" in " ".join(process.cmdline()) and "forkserver" in _parent(process):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def orphans(self) -> list[str]:
        """Command lines of processes that are there some seconds after the command ended."""
        until = time.monotonic() + TO_END_S
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.1)
        return [" ".join(process.cmdline()) for process in left]

    def unfinished(self) -> list[str]:
        """Files of the workspace that only a writer in the middle of its work has."""
        space = self.folder / "space"
        found = [path for pattern in UNFINISHED for path in space.glob(pattern)]
        found += space.glob(".dask/**/worker-*")
        return sorted(str(path.relative_to(space)) for path in found)

    def same_map(self) -> Blow:
        """The map and the model are those of the calm run; nobody and nothing is left over."""
        apart = set(products(self.folder).items()) ^ set(products(self.calm).items())
        assert apart == set(), f"not the calm bytes: {sorted(apart)}"
        return self._counted("predict")

    def same_cube(self) -> Blow:
        """The cube is that of the calm run; nobody and nothing is left over."""
        apart = set(cube(self.folder).items()) ^ set(cube(self.calm).items())
        assert apart == set(), f"not the calm bytes: {sorted(apart)}"
        return self._counted("fetch")

    def _counted(self, stage: str) -> Blow:
        orphans, files = self.orphans(), self.unfinished()
        assert orphans == [], f"they outlived the run: {orphans}"
        assert files == [], f"they are left: {files}"
        made = Counter(row["block"] for row in self.lines(stage) if row["status"] != "failed")
        assert len(made) == len({row["block"] for row in lines_of(self.calm, stage)})
        again = [block for block in self.settled if made[block] > 1]
        assert again == [], "what was finished is not made again"
        return Blow(self.fault, len(self.settled), len(again), len(orphans) + len(files))


@dataclass
class Running:
    """A ``wetmap`` in the background."""

    trial: Trial
    child: subprocess.Popen[bytes]
    _said: Any

    def wait_for(self, stage: str, count: int) -> None:
        """Wait until so many blocks are settled, and note them."""
        self.until(lambda: len(self.trial.blocks(stage)) >= count)
        self.trial.strike(stage)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; the command must not end before."""
        until = time.monotonic() + TO_WORK_S
        while not condition():
            assert self.child.poll() is None, f"it ended before the fault:\n{self.said()}"
            assert time.monotonic() < until, self.said()
            time.sleep(0.005)

    def end(self, expect: int = 0) -> str:
        """Wait for its end, and give what it said."""
        code = self.child.wait(TO_WORK_S)
        assert code == expect, f"exit {code}\n{self.said()}"
        assert "Traceback" not in self.said(), self.said()
        return self.said()

    def kill(self) -> None:
        """Kill -9."""
        self.child.kill()
        self.child.wait()

    def said(self) -> str:
        """What it printed so far."""
        self._said.seek(0)
        text: str = self._said.read()
        return text


def _parent(process: psutil.Process) -> str:
    parent = process.parent()
    return "" if parent is None else " ".join(parent.cmdline())


def make_calm(folder: Path) -> Path:
    """Make the map that nothing disturbs."""
    write(folder)
    done = run_here(["run", str(folder / "recipe.yaml")])
    assert done.returncode == 0, done.stderr
    return folder


def write(folder: Path, **changes: Any) -> Path:
    """The recipe and the area of every trial."""
    short = {"training": {**RECIPE["training"], "epochs": 1}, "samples": {"per_class": 80}}
    path = write_recipe(folder, **{**short, **changes})
    west, south, east, north = AREA
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    (folder / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return path


def copy(calm: Path, folder: Path, stage: str, **changes: Any) -> Path:
    """A copy of the calm workspace as it was before a stage (``fetch`` or ``predict``)."""
    write(folder, **changes)
    gone = {"predict": ("predict", "mosaic", "report"), "fetch": ("fetch", "train", "predict", "mosaic", "report")}
    for path in (calm / "space/stages").iterdir():
        if path.is_dir() and path.name not in gone[stage]:
            shutil.copytree(path, folder / "space/stages" / path.name)
    if stage == "predict":
        shutil.copytree(calm / "space/model", folder / "space/model")
    return folder


def products(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the map and of the model."""
    return {f"{name}/{key}": value for name in ("map", "model") for key, value in digests(folder / "space" / name)}


def cube(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the cube, and of what is told about it."""
    (made,) = (folder / "space/stages/fetch").glob("*/cube.zarr")
    return {**dict(digests(made)), "manifest": _digest(made.parent / "manifest.json")}


def digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Relative path and SHA-256 of every file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), _digest(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lines_of(folder: Path, stage: str) -> list[dict[str, Any]]:
    """What the ledger of another workspace says."""
    return Trial(folder, folder, "").lines(stage)


@functools.cache
def no_mounts() -> str | None:
    """Why no file system can be mounted here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux mounts file systems"
    with tempfile.TemporaryDirectory() as name:
        done = _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", name)
        if done.returncode == 0:
            _unmount(Path(name))
            return None
    return f"mount says: {done.stderr.strip()}"


@contextlib.contextmanager
def small_disk(folder: Path, size_mb: int = 64) -> Iterator[Path]:
    """A disk of so many megabytes at a folder."""
    folder.mkdir(parents=True)
    done = _mount("-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder))
    assert done.returncode == 0, done.stderr
    try:
        yield folder
    finally:
        _unmount(folder)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written into a folder meanwhile, by root neither."""
    for options in (("--bind", str(folder)), ("-o", "remount,bind,ro")):
        done = _mount(*options, str(folder))
        assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        _unmount(folder)


def fill(disk: Path, leave_bytes: int) -> Path:
    """Leave so much free on a disk; the file that takes the rest."""
    path = disk / "filler"
    free = shutil.disk_usage(disk).free
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - leave_bytes, 4096))
    return path


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Clock:
    """A clock that processes are told instead of the system's, as long as they are Python."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(CLOCK)
        self._file = folder / "seconds"
        self.environment = {"PYTHONPATH": str(folder), "WETMAP_TRIAL_CLOCK": str(self._file)}

    def jump(self, days: float) -> None:
        """From now on it is so many days later than it is."""
        self._file.write_text(str(days * 86400))


def starve(number: int) -> int:
    """Number 3 takes memory until there is none; its process may have little more than it has. Workers call this."""
    if number == 3:
        limit = psutil.Process().memory_info().vms + 2**27
        psutil.Process().rlimit(psutil.RLIMIT_AS, (limit, limit))
        hoard = []
        while True:
            hoard.append(bytearray(2**24))
    return number


def moment(name: str, turn: int) -> random.Random:
    """What a trial's moments are drawn from."""
    return random.Random(f"{SEED}/{name}/{turn}")  # noqa: S311 - moments, not secrets


def table(blows: list[Blow]) -> str:
    """The table of a long run: one line per fault."""
    rows = [
        "| fault | times | blocks done when it struck | done blocks made again | left behind |",
        "|---|---|---|---|---|",
    ]
    for fault in dict.fromkeys(blow.fault for blow in blows):
        own = [blow for blow in blows if blow.fault == fault]
        done = [blow.done for blow in own]
        span = f"{min(done)} to {max(done)}"
        rows.append(
            f"| {fault} | {len(own)} | {span} | {sum(blow.again for blow in own)} | {sum(blow.left for blow in own)} |"
        )
    return "\n".join(rows) + "\n"
