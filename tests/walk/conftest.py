"""One small map through the front door, made once and looked at by many tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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


@pytest.fixture(scope="session")
def wetmap() -> Run:
    """Run the command line as a user does, one thread, and give what it printed."""

    def run(*arguments: str | Path, cwd: Path | None = None, expect: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        done = subprocess.run(
            command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, wetmap: Run) -> Path:
    """A folder in which the small recipe was run once, undisturbed. Tests look and do not touch."""
    folder = tmp_path_factory.mktemp("small")
    wetmap("run", write_recipe(folder))
    return folder
