"""Other ways in, through the front door: a STAC API over HTTP, several seasons with terrain, the province's CRS."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio

from tests.fakes.stac_api import make_app, serve
from tests.walk.conftest import Run, command, write_recipe
from wetmap.cube import Cube

SEASONS = [
    {"name": "spring", "start": "2021-05-01", "end": "2021-06-15"},
    {"name": "summer", "start": "2021-06-16", "end": "2021-08-31"},
]


def with_archive(small: Path, folder: Path) -> Path:
    """A folder with the small recipe and its simulated archive, and nothing else done."""
    shutil.copytree(small / "space/stages/simulate", folder / "space/stages/simulate")
    return folder


def cube_of(folder: Path) -> Cube:
    return Cube.open(next((folder / "space/stages/fetch").glob("*/cube.zarr")))


def read_all(cube: Cube) -> tuple[np.ndarray, np.ndarray]:
    return cube.read_window(0, 0, *cube.grid.shape)


def test_an_api_over_http_gives_the_cube_of_the_files_on_disk(small: Path, tmp_path: Path, wetmap: Run) -> None:
    archive = next((small / "space/stages/simulate").glob("*/archive"))
    catalog = pystac.Catalog.from_file(str(archive / "catalog.json"))
    counts: Counter[str] = Counter()
    items, collections = [], [child.to_dict(include_self_link=False) for child in catalog.get_children()]
    with serve(make_app([], [], archive, counts)) as base:
        for item in catalog.get_items(recursive=True):
            item.make_asset_hrefs_absolute()
            body = item.to_dict(include_self_link=False)
            for asset in body["assets"].values():
                asset["href"] = f"{base}/files/{Path(asset['href']).relative_to(archive)}"
            items.append(body)
    with serve(make_app(collections, items, archive, counts)) as api:
        # The files move to the API's own port: the port of the first server is gone.
        port = api.rpartition(":")[2]
        text = json.dumps(items).replace(base, f"http://127.0.0.1:{port}")
        for body in json.loads(text):
            items[[one["id"] for one in items].index(body["id"])].update(body)
        source = {"from": "stac", "catalog": api}
        recipe = write_recipe(tmp_path, sources={"optical": source, "radar": source, "terrain": source}, reference=None)
        wetmap("fetch", "--recipe", recipe)
    theirs, ours = read_all(cube_of(small)), read_all(cube_of(tmp_path))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
    assert counts["files 206"] > 10, "scenes were read by ranges"


def test_two_seasons_and_terrain(small: Path, tmp_path: Path, wetmap: Run) -> None:
    with_archive(small, tmp_path)
    recipe = write_recipe(tmp_path, seasons=SEASONS, features={"preset": "seasonal"})
    wetmap("fetch", "--recipe", recipe)
    cube = cube_of(tmp_path)
    names = [band.name for band in cube.bands]
    assert len(names) == 36
    values, observed = read_all(cube)
    assert observed[cube.layers.index("terrain")].all()
    slope, twi = values[names.index("terrain.slope")], values[names.index("terrain.twi")]
    assert 0 <= np.nanmin(slope) < np.nanmax(slope) < 60
    assert np.corrcoef(slope.ravel(), twi.ravel())[0, 1] < -0.3, "steep ground is dry ground"
    spring, summer = (values[names.index(f"{season}.NDVI")] for season in ("spring", "summer"))
    assert np.nanmean(summer) > np.nanmean(spring), "it greens up"


def test_the_provinces_crs(small: Path, tmp_path: Path, wetmap: Run) -> None:
    with_archive(small, tmp_path)
    recipe = write_recipe(tmp_path)
    wetmap("fetch", "--recipe", recipe, "--crs", "EPSG:2953")
    cube = cube_of(tmp_path)
    assert cube.grid.crs == "EPSG:2953"
    assert cube.grid.left % 10 == cube.grid.top % 10 == 0
    theirs, _ = read_all(cube_of(small))
    values, observed = read_all(cube)
    assert observed.mean() > 0.95
    assert np.nanmean(values[0]) == pytest.approx(np.nanmean(theirs[0]), rel=0.05)


def test_no_scene_in_season_is_said_at_plan_time(small: Path, tmp_path: Path, wetmap: Run) -> None:
    with_archive(small, tmp_path)
    winter = [{"name": "winter", "start": "2021-01-01", "end": "2021-01-31"}]
    said = wetmap("fetch", "--recipe", write_recipe(tmp_path, seasons=winter), expect=2).stderr
    assert "2021-01-01" in said
    assert not list((tmp_path / "space/stages").glob("fetch"))


def test_unknown_index_is_said_before_anything_is_read(small: Path, tmp_path: Path, wetmap: Run) -> None:
    with_archive(small, tmp_path)
    features = {"preset": "custom", "indices": ["NOTANINDEX"]}
    said = wetmap("fetch", "--recipe", write_recipe(tmp_path, features=features), expect=2).stderr
    assert "NOTANINDEX" in said


def test_progress_bars_on_a_terminal(small: Path, tmp_path: Path) -> None:
    with_archive(small, tmp_path)
    write_recipe(tmp_path)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.Popen(
        command("fetch", "--recipe", tmp_path / "recipe.yaml"),
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass  # the terminal ends when the process does
    finally:
        os.close(ours)
    assert child.wait() == 0
    assert b"fetch (blocks)" in shown
    assert "━".encode() in shown


def test_an_orbit_state_without_scenes_is_refused_also_under_a_finished_plan(tmp_path: Path, wetmap: Run) -> None:
    """The plan does not depend on the orbit states, so asking for another one finds it done."""
    transform = rasterio.Affine(30, 0, 388000, 0, -30, 5088000)
    profile = {"driver": "GTiff", "height": 150, "width": 150, "count": 1, "dtype": "float32", "transform": transform}
    with rasterio.open(tmp_path / "s1.tif", "w", crs="EPSG:32620", **profile) as target:
        target.write(np.full((1, 150, 150), -12, dtype=np.float32))
    radar = {"from": "rasters", "files": [{"path": "s1.tif", "bands": ["VV"], "unit": "gamma0_db"}]}
    features = {"preset": "custom", "optical": [], "indices": [], "radar": ["VV"], "orbit_states": ["any"]}
    parts = {"sources": {"optical": None, "radar": radar, "terrain": None}, "reference": None}
    wetmap("fetch", "--recipe", write_recipe(tmp_path, features=features, **parts))
    apart = write_recipe(tmp_path, features={**features, "orbit_states": ["ascending", "descending"]}, **parts)
    said = wetmap("fetch", "--recipe", apart, expect=1).stderr
    assert "No scene serves summer.radar_ascending, summer.radar_descending" in said


def test_a_file_that_covers_part_of_the_area_is_said_once_and_in_words(tmp_path: Path, wetmap: Run) -> None:
    transform = rasterio.Affine(30, 0, 388000, 0, -30, 5084200)
    profile = {"driver": "GTiff", "height": 60, "width": 150, "count": 1, "dtype": "float32", "transform": transform}
    with rasterio.open(tmp_path / "s1.tif", "w", crs="EPSG:32620", **profile) as target:
        target.write(np.full((1, 60, 150), -12, dtype=np.float32))
    radar = {"from": "rasters", "files": [{"path": "s1.tif", "bands": ["VV"], "unit": "gamma0_db"}]}
    features = {"preset": "custom", "optical": [], "indices": [], "radar": ["VV"], "orbit_states": ["any"]}
    sources = {"optical": None, "radar": radar, "terrain": None}
    recipe = write_recipe(tmp_path, features=features, sources=sources, reference=None)
    for verb in (("recipe", "check", recipe), ("fetch", "--recipe", recipe)):
        lines = [line for line in wetmap(*verb).stderr.splitlines() if "% of area" in line]
        assert len(lines) == 1
        assert lines[0].startswith("warning: ")
