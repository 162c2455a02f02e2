"""Downloaded files and the L-band mosaic through the front door: `wetmap fetch` on the tiny archive."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from shapely.geometry import mapping

from tests.fakes import tiny_archive
from tests.fakes.downloads import download, mosaic, zipped
from tests.walk.conftest import Run
from wetmap.cube import Cube


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the archive (with L-band), its catalogue, the same as downloads, and the area."""
    folder = tmp_path_factory.mktemp("tiny")
    items = tiny_archive.write_files(folder)
    download(folder / "mine", folder, items)
    for root in sorted((folder / "mine").glob("S2B_*.SAFE")):
        zipped(root)
    tiny_archive.write_catalog(folder, [*items, mosaic(folder, 2015), mosaic(folder, 2020)])
    (folder / "area.geojson").write_text(json.dumps(mapping(tiny_archive.aoi().geometry)))
    return folder


def fetch(tiny: Path, wetmap: Run, name: str, **changes: Any) -> tuple[Cube, dict[str, Any]]:
    """Fetch a recipe from files (or with `sources` of its own); gives the cube and what the command said."""
    catalog = {"from": "stac", "catalog": "stac/catalog.json"}
    recipe: dict[str, Any] = {
        "aoi": "area.geojson",
        "workspace": name,
        "grid": {"block_px": 64},
        "seasons": [{"name": "summer", "start": "2021-06-01", "end": "2021-09-30"}],
        "sources": {
            "optical": {"from": "files", "folder": "mine"},
            "radar": {"from": "files", "folder": "mine"},
            "lband": catalog,
        },
        "features": {"preset": "custom", "lband": ["HH", "HV"]},
        "coregistration": {"radar": "off"},
        "cluster": {"workers": 1},
        **changes,
    }
    path = tiny / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    said = json.loads(wetmap("fetch", "--recipe", path, "--json").stdout)
    return Cube.open(Path(said["cube"])), said


@pytest.fixture(scope="module")
def files(tiny: Path, wetmap: Run) -> tuple[Cube, dict[str, Any]]:
    """The cube made from files, and what the command said."""
    return fetch(tiny, wetmap, "files")


def test_files_give_the_cube_of_the_catalogue(tiny: Path, wetmap: Run, files: tuple[Cube, dict[str, Any]]) -> None:
    ours, said = files
    assert said["scenes"] == {"optical": 3, "radar": 4, "lband": 1}
    catalog = {"from": "stac", "catalog": "stac/catalog.json"}
    theirs, _ = fetch(tiny, wetmap, "catalogue", sources=dict.fromkeys(("optical", "radar", "lband"), catalog))
    assert [band.name for band in ours.bands] == [band.name for band in theirs.bands]
    mine, seen = ours.read_window(0, 0, *ours.grid.shape)
    other, seen_there = theirs.read_window(0, 0, *theirs.grid.shape)
    np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(seen, seen_there)
    assert [band.name for band in ours.bands][-2:] == ["lband.HH", "lband.HV"]
    hh, hv = mine[-2:]
    layer = seen[ours.layers.index("lband")]
    assert 0.8 < layer.mean() < 1
    assert np.median(hh[layer]) == pytest.approx(20 * np.log10(5500) - 83, abs=1.5)
    np.testing.assert_allclose((hh - hv)[layer], 20 * np.log10(2), atol=0.02)


def test_the_plan_says_why(tiny: Path, files: tuple[Cube, dict[str, Any]]) -> None:
    (plan,) = (tiny / "files/stages/plan").glob("*/plan.json")
    rules = {scene["sensor"]: scene["offset_rule"] for scene in json.loads(plan.read_text())["scenes"]}
    assert "BOA_ADD_OFFSET" in rules["optical"]
    assert "gamma-0 power, as the name (pyroSAR) says" in rules["radar"]
    assert "Mosaic of 2020" in rules["lband"]
    assert files[1]["skipped_scenes"] == 1, "the cloudy one"


@pytest.mark.usefixtures("files")
def test_a_changed_folder_makes_the_plan_new(tiny: Path, wetmap: Run) -> None:
    before = json.loads(wetmap("fetch", "--recipe", tiny / "files.yaml", "--json", "--dry-run").stdout)
    assert before["stages"]["plan"] == "already done"
    assert before["fetch"]["scenes"] == {"optical": 3, "radar": 4, "lband": 1}
    os.utime(next((tiny / "mine").glob("S1A__IW___A_*_VV_*.tif")), ns=(5, 5))
    after = json.loads(wetmap("fetch", "--recipe", tiny / "files.yaml", "--json", "--dry-run").stdout)
    assert after["stages"]["plan"].startswith("new, because of files.optical.S1A__IW___A_"), "they share the folder"


def test_a_preset_of_sixteen_bands_has_no_room_for_l_band(tiny: Path, wetmap: Run) -> None:
    path = tiny / "refused.yaml"
    path.write_text(yaml.safe_dump({"aoi": "area.geojson", "features": {"lband": ["HH"]}}))
    refused = wetmap("fetch", "--recipe", path, expect=2)
    assert "preset paper16 fixes its bands, and lband" in refused.stderr
