"""Radar by itself through the front door: looks measured, one track of two, statistics, and what the manifests say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from shapely.geometry import mapping

from tests.fakes import tiny_archive
from tests.walk.conftest import Run
from wetmap.cube import Cube

RECIPE = {
    "name": "tiny",
    "aoi": "area.geojson",
    "workspace": "space",
    "grid": {"crs": tiny_archive.CRS, "block_px": 32},
    "seasons": [{"name": "summer", "start": "2021-06-01", "end": "2021-09-30"}],
    "features": {
        "preset": "custom",
        "optical": [],
        "indices": [],
        "radar_statistics": ["mean", "std"],
        "radar_ratio": True,
        "orbit_states": ["any"],
    },
    "cluster": {"workers": 1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny archive as a static catalogue, and the area."""
    catalog = tiny_archive.write_catalog(tmp_path / "archive", tiny_archive.write_files(tmp_path / "archive"))
    (tmp_path / "area.geojson").write_text(json.dumps(mapping(tiny_archive.aoi().geometry)))
    write(tmp_path, catalog, {})
    return tmp_path


def write(folder: Path, catalog: Path, radar: dict[str, object]) -> None:
    sources = {"optical": None, "terrain": None, "radar": {"from": "stac", "catalog": str(catalog)}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "sources": sources, "radar": radar}))


def told(folder: Path, stage: str, name: str) -> list[dict]:
    """A file of a stage's folders, the newest last."""
    files = sorted((folder / "space/stages" / stage).glob(f"*/{name}"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in files]


def test_looks_tracks_and_statistics(folder: Path, wetmap: Run) -> None:
    catalog = folder / "archive/stac/catalog.json"
    radar = {"speckle": "lee-sigma", "window_px": 7, "looks": "estimate", "relative_orbits": [62], "border_m": 30}
    write(folder, catalog, radar)
    said = wetmap("fetch", "--recipe", "recipe.yaml", cwd=folder)
    assert "looks (" in said.stdout + said.stderr
    plan = told(folder, "plan", "plan.json")[-1]
    assert plan["radar"]["looks"] == pytest.approx(4.4, rel=0.25)  # some hundred windows
    assert plan["radar"]["strong_power"]["VV"] == pytest.approx(0.22, rel=0.15)
    assert [row["reason"] for row in plan["skipped"]] == ["relative orbit 171 is not in radar.relative_orbits"]
    assert told(folder, "plan", "manifest.json")[-1]["radar_tracks"] == [
        {
            "season": "summer",
            "orbit_state": "ascending",
            "relative_orbit": 62,
            "platform": "SENTINEL-1A",
            "passes": 2,
            "scenes": 3,
        }
    ]
    assert told(folder, "fetch", "manifest.json")[-1]["passes"]["summer.radar_any"] == {
        "planned": 2,
        "lost": 0,
        "in_blocks": 0,
    }
    cube = Cube.open(next((folder / "space/stages/fetch").glob("*/cube.zarr")))
    values, observed = cube.read_window(0, 0, *cube.grid.shape)
    assert observed.mean() > 0.99
    mean = dict(zip((band.name for band in cube.bands), np.nanmean(values, axis=(1, 2)), strict=True))
    assert mean["summer.VV_any"] == pytest.approx(-10.0, abs=0.3)
    assert mean["summer.VH_any"] == pytest.approx(-17.0, abs=0.3)
    assert 0.1 < mean["summer.VV_std_any"] < 1.5
    assert mean["summer.VV_VH_ratio_any"] == pytest.approx(5.0, rel=0.1)

    # Another filter, and only the cube is made anew: the scenes were found, and nothing has to be measured for it.
    write(folder, catalog, {**radar, "speckle": "quegan", "looks": 4.4})
    wetmap("fetch", "--recipe", "recipe.yaml", cwd=folder)
    assert told(folder, "plan", "plan.json")[-1]["radar"] is None
    write(folder, catalog, {**radar, "speckle": "refined-lee", "looks": 5.0})
    wetmap("fetch", "--recipe", "recipe.yaml", cwd=folder)
    assert len(told(folder, "plan", "plan.json")) == 2
    assert len(told(folder, "fetch", "manifest.json")) == 3


def test_a_track_that_is_not_there(folder: Path, wetmap: Run) -> None:
    write(folder, folder / "archive/stac/catalog.json", {"relative_orbits": [5]})
    said = wetmap("fetch", "--recipe", "recipe.yaml", cwd=folder, expect=1)
    assert "the 4 found are of 62, 171" in said.stderr
    assert not list((folder / "space/stages/plan").glob("*/plan.json"))
