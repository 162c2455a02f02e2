"""Terrain through the front door: own elevation model, every feature, and what the user is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from tests.fakes.tiny_archive import write_raster
from tests.walk.conftest import Run, write_recipe
from wetmap.cube import Cube

TERRAIN = ["elevation", "slope", "aspect", "tpi", "tpi_wide", "twi", "hand"]


def recipe(folder: Path, **changes: Any) -> Path:
    """The small area with terrain alone, from a model of 25 m in its UTM zone."""
    dem = folder / "dem.tif"
    if not dem.exists():
        folder.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[0:340, 0:360].astype(float)
        height = 40 + 0.05 * x + 12 * np.sin(x / 9) * np.cos(y / 13)
        write_raster(dem, height.astype(np.float32), Affine(25, 0, 386_000, 0, -25, 5_089_000), crs="EPSG:32620")
    own = {"from": "rasters", "files": [{"path": "dem.tif", "bands": ["elevation"], "unit": "m"}]}
    parts: dict[str, Any] = {
        "sources": {"optical": None, "radar": None, "terrain": own},
        "features": {"preset": "custom", "optical": [], "indices": [], "radar": [], "terrain": TERRAIN},
        "reference": None,
        "terrain": {"drainage_ha": 20, "flow_cells": 20_000},
    }
    return write_recipe(folder, **{**parts, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("terrain")


def manifests(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "space/stages" / stage).glob("*/manifest.json"))]


def test_every_feature_and_what_is_said_about_it(folder: Path, wetmap: Run) -> None:
    done = wetmap("fetch", "--recipe", recipe(folder))
    (made,) = manifests(folder, "fetch")
    told = made["terrain"]
    assert (told["native_m"], told["step"], told["lattice_m"]) == (25.0, 3, 30.0)
    assert told["flow_m"] > 37.5
    assert (
        f"elevation model of 25 m, slopes between cells of 30 m, water run on cells of {told['flow_m']}" in done.stderr
    )
    assert "Note:   If the elevation model holds the tree canopy" in done.stdout
    assert "coarser than the elevation model (25 m)" in done.stdout
    cube = Cube.open(next((folder / "space/stages/fetch").glob("*/cube.zarr")))
    names = [band.name.removeprefix("terrain.") for band in cube.bands]
    assert names == ["elevation", "slope", "aspect_north", "aspect_east", "tpi", "tpi_wide", "twi", "hand"]
    values, observed = cube.read_window(0, 0, *cube.grid.shape)
    got = dict(zip(names, values, strict=True))
    assert observed.all()
    assert float(got["hand"].min()) >= 0
    assert np.corrcoef(got["hand"].ravel(), got["tpi"].ravel())[0, 1] > 0.5, "rises stand above their drainage"
    steep = got["slope"] > 1
    np.testing.assert_allclose(np.hypot(got["aspect_north"], got["aspect_east"])[steep], 1.0, atol=2e-4)


def test_only_what_matters_makes_the_plan_new(folder: Path, wetmap: Run) -> None:
    before = len(manifests(folder, "plan"))
    wetmap("fetch", "--recipe", recipe(folder, terrain={"drainage_ha": 60, "flow_cells": 20_000}))
    assert len(manifests(folder, "plan")) == before + 1
    plain = {"preset": "custom", "optical": [], "indices": [], "radar": [], "terrain": ["slope"]}
    wetmap("fetch", "--recipe", recipe(folder, features=plain, terrain={"drainage_ha": 60}))
    wetmap("fetch", "--recipe", recipe(folder, features=plain, terrain={"drainage_ha": 70}))
    assert len(manifests(folder, "plan")) == before + 2
