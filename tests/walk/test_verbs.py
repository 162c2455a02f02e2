"""The verbs as a user types them: three lines, dry runs, JSON, help, exit codes, what bad input gets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from tests.walk.conftest import Run, run_here, write_recipe


def test_three_lines_on_one_workspace(small: Path, tmp_path: Path, wetmap: Run, wetmap_apart: Run) -> None:
    """``fetch --aoi``, ``train --aoi --reference --class-field``, ``predict --aoi``, each a process of its own."""
    scenes = next((small / "space/stages/simulate").glob("*/archive"))
    shutil.copy(small / "area.geojson", tmp_path / "nb.geojson")
    shutil.copy(scenes / "reference.gpkg", tmp_path / "wetlands.gpkg")
    recipe = (small / "recipe.yaml").read_text().replace("reference: simulated\n", "").replace("workspace: space\n", "")
    (tmp_path / "mine.yaml").write_text(recipe)
    shutil.copytree(scenes.parent.parent, tmp_path / "nb-wetmap/stages/simulate")
    wetmap_apart("fetch", "--aoi", "nb.geojson", "--recipe", "mine.yaml", cwd=tmp_path)
    said = wetmap("train", "--aoi", "nb.geojson", cwd=tmp_path, expect=1).stderr
    assert "There is no reference data to train on. Give --reference" in said
    said = wetmap("predict", "--aoi", "nb.geojson", cwd=tmp_path, expect=1).stderr
    assert "There is no model for this recipe and cube in" in said
    assert "wetmap train" in said
    reference = ("--reference", "wetlands.gpkg", "--class-field", "CLASS")
    wetmap_apart("train", "--aoi", "nb.geojson", *reference, cwd=tmp_path)
    done = wetmap_apart("predict", "--aoi", "nb.geojson", "--json", cwd=tmp_path)
    assert Path(json.loads(done.stdout)["map"]) == tmp_path / "nb-wetmap/map/classes.tif"
    assert (tmp_path / "nb-wetmap/map/classes.tif").exists()


def test_dry_run_writes_nothing(tmp_path: Path, wetmap: Run) -> None:
    recipe = write_recipe(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = json.loads(wetmap("run", recipe, "--dry-run", "--json").stdout)
    assert sorted(tmp_path.rglob("*")) == before
    assert result["fetch"]["blocks"] == 4
    assert result["pixels"] > 10_000
    assert result["stages"]["fetch"] == "to do"
    said = wetmap("run", recipe, "--dry-run").stdout
    assert "nothing is written" in said


def test_dry_run_of_a_finished_workspace_measures_the_model(small: Path, wetmap: Run) -> None:
    result = json.loads(wetmap("run", small / "recipe.yaml", "--dry-run", "--json").stdout)
    assert set(result["stages"].values()) == {"already done"}
    assert result["predict"]["pixels_per_s_per_worker"] > 10
    assert result["fetch"]["scenes"]["optical"] > 2
    assert 0 < result["fetch"]["read_gb"] < 0.1


def test_help_imports_nothing_heavy() -> None:
    """What makes ``wetmap --help`` answer in under half a second; timed by ``benchmarks/help.py``."""
    heavy = (
        "numpy",
        "torch",
        "rasterio",
        "geopandas",
        "dask",
        "distributed",
        "zarr",
        "lightning",
        "sklearn",
        "pydantic_core",
    )
    code = f"import sys, wetmap.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_doctor_tells_what_is_there_and_no_secret(
    wetmap: Run, wetmap_apart: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EARTHENGINE_TOKEN", "very-secret")
    done = wetmap_apart("doctor", "--json", "--workspace", tmp_path / "not/there")
    result = json.loads(done.stdout)
    assert result["credentials"]["Earth Engine"] == "found"
    assert result["gdal drivers"]["COG"] == "yes"
    assert "wetmapformer-window" in result["models"]
    assert "very-secret" not in done.stdout + done.stderr
    assert "versions: wetmap" in wetmap("doctor").stdout


def test_recipe_verbs(tmp_path: Path, wetmap: Run) -> None:
    recipe = write_recipe(tmp_path)
    assert "EPSG:32620" in wetmap("recipe", "check", recipe).stdout
    assert "label_smoothing: 0.05" in wetmap("recipe", "show", recipe).stdout
    assert json.loads(wetmap("recipe", "schema").stdout)["title"] == "Recipe"
    wetmap("recipe", "init", tmp_path / "new.yaml", "--aoi", tmp_path / "area.geojson")
    assert "wetlands.gpkg, which does not exist" in wetmap("recipe", "check", tmp_path / "new.yaml", expect=2).stderr
    corners = shapely.box(-64.41, 45.897, -64.40, 45.91), shapely.box(-64.40, 45.897, -64.39, 45.91)
    rows = {"CLASS": ["bog", "fen"], "geometry": corners}
    geopandas.GeoDataFrame(rows, crs="EPSG:4326").to_file(tmp_path / "wetlands.gpkg")
    assert "valid" in wetmap("recipe", "check", tmp_path / "new.yaml").stdout
    assert "exists already" in wetmap("recipe", "init", tmp_path / "new.yaml", expect=2).stderr


RASTERS = {"from": "rasters", "files": [{"path": "none.tif", "bands": ["B02"], "unit": "reflectance"}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": {"preset": "custom", "indices": ["FOO"]}}, "FOO"),
        ({"model": {"name": "wetmapformer-window", "options": {"nonsense": 3}}}, "no option nonsense"),
        ({"model": {"name": "nobody"}}, "no model called 'nobody'"),
        ({"reference": {"path": "none.gpkg", "class_field": "CLASS"}}, "none.gpkg, which does not exist"),
        ({"sources": {"optical": RASTERS, "radar": None, "terrain": None}}, "none.tif"),
        (
            {"sources": {"optical": {"from": "stac", "catalog": "none/catalog.json"}}},
            "catalog.json, which does not exist",
        ),
        ({"aoi": "none.geojson"}, "does not exist"),
    ],
    ids=["index", "option", "model", "reference", "raster", "catalogue", "area"],
)
def test_check_and_run_refuse_before_anything_is_fetched(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    recipe = write_recipe(tmp_path, **changes)
    for verb in (("recipe", "check"), ("run",)):
        done = run_here([*verb, str(recipe)])
        assert done.returncode in {1, 2}
        assert message in done.stderr
    assert not (tmp_path / "space").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("fetch",), 2, "Neither --aoi nor --workspace is given"),
        (("fetch", "--aoi", "none.geojson"), 2, "does not exist"),
        (("fetch", "--aoi", "area.geojson", "--crs", "EPSG:4326"), 2, "degree"),
        (("fetch", "--nonsense"), 2, "No such option"),
        (("run", "none.yaml"), 2, "does not exist"),
        (("predict", "--aoi", "area.geojson"), 1, "Run wetmap fetch"),
        (("train", "--aoi", "area.geojson"), 1, "no reference data"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_no_workspace(
    tmp_path: Path, wetmap: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    write_recipe(tmp_path)
    done = wetmap(*arguments, cwd=tmp_path, expect=code)
    lines = [line for line in done.stderr.splitlines() if line.startswith("wetmap: ")]
    assert message in done.stderr
    assert len(lines) == 1 or "No such option" in message
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "area-wetmap").exists()


def test_errors_are_json_too(tmp_path: Path, wetmap_apart: Run) -> None:
    done = wetmap_apart("fetch", "--aoi", tmp_path / "none.geojson", "--json", expect=2)
    assert set(json.loads(done.stdout)) == {"error", "do", "kind"}


def test_class_field_that_does_not_exist_names_those_that_do(small: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    reference = next((folder / "space/stages/simulate").glob("*/archive/reference.gpkg"))
    said = wetmap(
        "train", "--workspace", folder / "space", "--reference", reference, "--class-field", "KLASSE", expect=2
    ).stderr
    assert "KLASSE" in said
    assert "CLASS" in said
    assert (folder / "space/map/classes.tif").exists()
    assert "KLASSE" not in (folder / "space/recipe.yaml").read_text(), "a failed verb is not remembered"


def test_class_with_too_few_samples_is_named(small: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    frame = geopandas.read_file(next((folder / "space/stages/simulate").glob("*/archive/reference.gpkg")))
    rare = frame[frame["CLASS"] == "open water"].head(1).assign(CLASS="rare")
    frame[frame["CLASS"] != "open water"].to_file(tmp_path / "r.gpkg")
    geopandas.GeoDataFrame(geopandas.pd.concat([frame, rare]), crs=frame.crs).to_file(tmp_path / "r.gpkg")
    (folder / "space/recipe.yaml").unlink()
    recipe = write_recipe(folder, reference={"path": str(tmp_path / "r.gpkg"), "class_field": "CLASS"}, classes=[])
    said = wetmap("train", "--recipe", recipe, expect=1).stderr
    assert "rare" in said


def test_model_from_elsewhere_is_refused_when_it_does_not_fit(small: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    card = folder / "space/model/model.json"
    data = json.loads(card.read_text())
    data["res_m"] = 20.0
    card.unlink()
    card.write_text(json.dumps(data))
    said = wetmap("predict", "--workspace", folder / "space", "--bundle", folder / "space/model", expect=1).stderr
    assert "the pixel is 10 m in the cube and 20 m in the model" in said


def test_model_from_elsewhere_maps(small: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    shutil.copytree(folder / "space/model", tmp_path / "model")
    shutil.rmtree(folder / "space/stages/train")
    said = wetmap("predict", "--workspace", folder / "space", "--bundle", tmp_path / "model").stdout
    words = "in the seasons (summer 2021-06-01 to 2021-08-31) of the run that trained it and are not of this map"
    assert words in said
    assert (folder / "space/map/report.html").read_text().count(words) == 3, "top, scores, limits"
    assert "of the run that trained it" not in (small / "space/map/report.html").read_text()
    assert "bundle: null" in (folder / "space/recipe.yaml").read_text(), "--bundle holds for one command"
    with rasterio.open(folder / "space/map/classes.tif") as one, rasterio.open(small / "space/map/classes.tif") as two:
        np.testing.assert_array_equal(one.read(1), two.read(1))


def test_scene_that_cannot_be_read_is_named_and_the_rest_is_kept(small: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    for stage in ("plan", "fetch", "cubes", "train", "predict", "mosaic", "report"):
        shutil.rmtree(folder / "space/stages" / stage)
    broken = min(path for path in (folder / "space/stages/simulate").glob("*/archive/sentinel-1-rtc/S1*202107*"))
    for tif in broken.glob("*.tif"):
        tif.write_bytes(b"not a tiff")
    refused = wetmap("fetch", "--workspace", folder / "space", expect=1).stderr
    assert broken.name in refused
    assert "allow more with --max-failed" in refused
    done = wetmap("fetch", "--workspace", folder / "space", "--max-failed", "0.2", "--workers", "2", "--json")
    assert json.loads(done.stdout)["failed_reads"] > 0
    assert json.loads(done.stdout)["failed_blocks"] == []
    assert f"{broken.name} is left out" in done.stderr
    assert re.search(r"\d+ warnings?, above\.", done.stderr)
    manifest = next((folder / "space/stages/fetch").glob("*/manifest.json")).read_text()
    assert broken.name in manifest
