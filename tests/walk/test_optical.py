"""Optical choices of the recipe through the front door, and what fetch says of looks and scenes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from shapely.geometry import mapping

from tests.fakes import tiny_archive
from tests.walk.conftest import Run
from wetmap.cube import Cube
from wetmap.geo import read_aoi

#: The archive calls this scene's baseline 03.01, and 1000 counts are in its pixels.
MISLABELLED = "S2A_20210820"
SAID = r"summer: [\d,.]+ ha \(.*%\) of the area have no clear look, [\d,.]+ ha \(.*%\) fewer than 3"


def write(folder: Path, catalog: Path, **optical: Any) -> Path:
    """A recipe for the tiny archive on 5 m pixels, so that the scenes' check has enough of them."""
    (folder / "area.geojson").write_text(json.dumps(mapping(tiny_archive.aoi().geometry)))
    path = folder / "recipe.yaml"
    body = {
        "aoi": "area.geojson",
        "workspace": "space",
        "sources": {"optical": {"from": "stac", "catalog": str(catalog)}},
        "features": {"preset": "custom", "optical": ["B03", "B08"], "indices": ["NDWI"], "radar": [], "terrain": []},
        "grid": {"res_m": 5, "block_px": 96},
        "seasons": [{"name": "summer", "start": "2021-06-01", "end": "2021-09-30"}],
        "cluster": {"workers": 1},
        "optical": optical,
    }
    path.write_text(yaml.safe_dump(body))
    return path


def manifests(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (folder / "space/stages/fetch").glob("*/manifest.json")]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    items = tiny_archive.write_files(folder)
    for item in items:
        if item["id"] == MISLABELLED:
            item["properties"]["s2:processing_baseline"] = "03.01"
    return tiny_archive.write_catalog(folder, items)


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory, catalog: Path, wetmap: Run) -> tuple[Path, str, str]:
    folder = tmp_path_factory.mktemp("optical")
    done = wetmap("fetch", "--recipe", write(folder, catalog, composite="medoid"))
    return folder, done.stdout, " ".join(done.stderr.split())


def test_hectares_by_clear_looks_add_up_to_the_area(fetched: tuple[Path, str, str]) -> None:
    """One cloud with its shadow stands in every scene."""
    folder, out, err = fetched
    (made,) = manifests(folder)
    (row,) = made["clear_looks"]
    assert row["season"] == "summer"
    assert row["hectares"] == pytest.approx(read_aoi(folder / "area.geojson").area_ha, rel=0.02)  # whole pixels
    cube = Cube.open(next((folder / "space/stages/fetch").glob("*/cube.zarr")))
    unseen = float((~cube.read_observed(0, 0, *cube.shape)).mean())
    assert row["hectares_by_looks"][0] / row["hectares"] == pytest.approx(unseen, rel=0.05)
    assert re.search(SAID, err)
    assert re.search("Looks: +" + SAID, out)


def test_a_scene_whose_offset_is_wrong_is_named(fetched: tuple[Path, str, str]) -> None:
    folder, out, err = fetched
    checked = {row["scene"]: row for row in manifests(folder)[0]["scenes_check"]}
    assert {name: row["verdict"] for name, row in checked.items()} == {
        "S2A_20210610": "",
        "S2B_20210715": "",
        MISLABELLED: "offset-missing",
    }
    assert checked[MISLABELLED]["bands"]["B08"]["difference"] == pytest.approx(0.1, abs=0.005)
    said = rf"summer: scene {MISLABELLED} is \+0\.10.*the offset of -0\.1 may not have been applied"
    assert re.search(said, err)
    assert re.search(f"Check: +{MISLABELLED}: unlike", out)


def test_the_limit_of_looks_is_for_the_warning_alone(
    fetched: tuple[Path, str, str], catalog: Path, wetmap: Run
) -> None:
    folder, _, _ = fetched
    done = wetmap("fetch", "--recipe", write(folder, catalog, composite="medoid", min_clear_looks=5))
    assert re.search(r"Looks: .* fewer than 5", done.stdout)
    assert len(manifests(folder)) == 1


def test_another_composite_is_another_cube(fetched: tuple[Path, str, str], catalog: Path, wetmap: Run) -> None:
    folder, _, _ = fetched
    wetmap("fetch", "--recipe", write(folder, catalog, composite="percentile", percentile=10))
    cubes = [Cube.open(path) for path in (folder / "space/stages/fetch").glob("*/cube.zarr")]
    one, other = (cube.read_features(0, 0, *cube.shape) for cube in cubes)
    assert float(np.nanmean(np.abs(one - other))) > 0.001


def test_a_percentile_that_nothing_uses_is_refused(tmp_path: Path, catalog: Path, wetmap: Run) -> None:
    done = wetmap("fetch", "--recipe", write(tmp_path, catalog, percentile=10), expect=2)
    assert "percentile is 10, and composite median does not use it" in " ".join(done.stderr.split())
