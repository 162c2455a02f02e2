"""One small map through the front door, made once and looked at by many tests."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import pytest
import yaml
from filelock import FileLock

from wetmap.cli import main as front_door

Run = Callable[..., "subprocess.CompletedProcess[str]"]

#: About 1.5 km on a side: 9 blocks of 64 px, three classes, seconds of work.
RECIPE: dict[str, Any] = {
    "name": "small",
    "aoi": "area.geojson",
    "workspace": "space",
    "sources": {sensor: {"from": "simulated"} for sensor in ("optical", "radar", "terrain")},
    "simulated": {"seed": 7, "optical_every_days": 20, "radar_every_days": 24, "reference_polygons": 3000},
    "grid": {"block_px": 96},
    "seasons": [{"name": "summer", "start": "2021-06-01", "end": "2021-08-31"}],
    "reference": "simulated",
    "classes": [
        {"name": "water", "reference": ["open water", "aquatic bed"]},
        {
            "name": "wetland",
            "reference": ["freshwater marsh", "shrub wetland", "bog", "fen", "forested wetland", "coastal marsh"],
        },
        {"name": "upland", "upland": True},
    ],
    "samples": {"per_class": 150},
    "splits": {"folds": 3, "block_m": 160},
    "model": {"name": "wetmapformer-window"},
    "training": {"epochs": 4, "warmup_epochs": 1, "forest_trees": 20, "batch_size": 32},
    "predict": {"block_px": 64},
    "cluster": {"workers": 1},
}


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write the area and the recipe, with parts of it changed, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ring = [[-64.411, 45.897], [-64.392, 45.898], [-64.391, 45.911], [-64.412, 45.910], [-64.411, 45.897]]
    (folder / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


def command(*arguments: str | Path) -> list[str]:
    """The ``wetmap`` command of this environment."""
    return [sys.executable, "-c", "from wetmap.cli.main import main; main()", *map(str, arguments)]


def copy_of_fetched(source: Path, folder: Path) -> Path:
    """Copy what does not depend on the samples and the model: the simulated scenes, the plan and the cube."""
    for stage in ("simulate", "plan", "fetch"):
        shutil.copytree(source / "space/stages" / stage, folder / "space/stages" / stage)
    return folder


@contextlib.contextmanager
def _standard_stream(number: int) -> Iterator[TextIO]:
    """A file in the place of standard output (1) or error (2), for Python and for compiled libraries."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", buffering=1) as file:
        before = os.dup(number)
        os.dup2(file.fileno(), number)
        try:
            yield file
        finally:
            os.dup2(before, number)
            os.close(before)


def _as_at_the_start_of_python() -> None:
    """The filters of warnings that a fresh process has; pytest's would turn them into errors."""
    warnings.resetwarnings()
    for quiet in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", quiet)


def run_here(arguments: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which has imported already what a fresh one imports for seconds."""
    with contextlib.ExitStack() as stack:
        out, err = (stack.enter_context(_standard_stream(number)) for number in (1, 2))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(contextlib.chdir(cwd or Path.cwd()))
        stack.enter_context(mock.patch.dict(os.environ, COLUMNS="120"))
        stack.enter_context(mock.patch.object(sys, "argv", ["wetmap", *arguments]))
        # what Ctrl-C does to a process is looked at in processes of their own
        stack.enter_context(mock.patch.object(front_door, "_exit_at_once_on_ctrl_c"))
        stack.enter_context(warnings.catch_warnings())
        _as_at_the_start_of_python()
        code: Any = 0
        try:
            front_door.main()
        except SystemExit as end:
            code = end.code or 0
        gc.collect()  # sockets of a cluster are closed here, not in the middle of another test
        said = []
        for stream in (out, err):
            stream.flush()
            stream.seek(0)
            said.append(stream.read())
    return subprocess.CompletedProcess(arguments, code, *said)


def run_apart(arguments: list[str], cwd: Path | None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, one thread, as a user does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280
    )


def _checked(how: Callable[[list[str], Path | None], subprocess.CompletedProcess[str]]) -> Run:
    def run(*arguments: str | Path, cwd: Path | None = None, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = how([str(word) for word in arguments], cwd)
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def wetmap() -> Run:
    """Run the command line in this process, and give what it printed."""
    return _checked(run_here)


@pytest.fixture(scope="session")
def wetmap_apart() -> Run:
    """Run the command line in a process of its own, for what only a fresh one shows: its imports, its end."""
    return _checked(run_apart)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, wetmap_apart: Run) -> Path:
    """A folder in which the small recipe was run once, undisturbed. Tests look and do not touch.

    All processes of a test run share it: the first that asks makes it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "small"
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            wetmap_apart("run", write_recipe(folder / "walk"))
            (folder / "made").touch()
    return folder / "walk"
