"""The analyst's path (docs/how-to/look-at-the-map.md) in real QGIS: measure a class, fill the sample, get the table."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from PIL import Image

from tests.walk.conftest import run_here
from wetmap.classes import MapClass
from wetmap.geo import Grid
from wetmap.products.areas import count_areas, write_areas_csv
from wetmap.products.geotiff import write_cog
from wetmap.products.layers import map_layers
from wetmap.products.qgis_project import Project, write_project
from wetmap.products.sample_file import read_design
from wetmap.products.style import write_class_style
from wetmap.stages.polygons import MapReaders, make_polygons

pytestmark = pytest.mark.system

CLASSES = (MapClass(1, 'bog & "fen" <b>', "#aa4400"), MapClass(2, "沼泽", "#22aa44"), MapClass(7, "upland", "#dddddd"))
NAMES = {row.code: row.name for row in CLASSES}
#: 330 km from the middle of its UTM zone, where a pixel of 100 m2 is 0.2 % smaller on the ground.
GRID = Grid("EPSG:32620", 10.0, 170_000.0, 5_100_000.0, 120, 160)
#: An area of the analyst's own, in degrees: its edges run between the pixels' centres.
OWN = (400, 300, 1203, 907)


def codes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    array = np.full(GRID.shape, 7, np.uint8)
    array[20:60, 30:90] = 1
    array[70:100, 60:110] = 2
    array[:6, :6] = 0
    return array


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map's folder, and a polygon of the analyst's own."""
    root = tmp_path_factory.mktemp("analyst")
    folder = root / "map"
    folder.mkdir()
    array = codes()
    write_cog(
        folder / "classes.tif",
        GRID,
        lambda block: array[block.slices],
        dtype="uint8",
        nodata=0,
        overview="mode",
        colours={row.code: row.colour for row in CLASSES},
        description="class",
        tags={"SIMULATED": "yes"},
    )
    write_class_style(folder / "classes.tif", CLASSES)
    write_areas_csv(folder / "areas.csv", count_areas(GRID, lambda block: array[block.slices], CLASSES), simulated=True)
    percent = np.full(array.shape, 80, np.uint8)
    readers = MapReaders(GRID, lambda block: array[block.slices], lambda block: percent[block.slices])
    make_polygons(folder / "polygons.gpkg", readers, CLASSES, 4, simulated=True)
    files = {path.name: path for path in folder.iterdir()}
    write_project(folder / "map.qgz", Project("Toy", GRID, CLASSES, simulated=True), map_layers(files), files)
    left, down, right, up = OWN
    own = geopandas.GeoSeries.from_wkt(
        [
            f"POLYGON (({GRID.left + left} {GRID.top - down}, {GRID.left + right} {GRID.top - down}, "
            f"{GRID.left + right} {GRID.top - up}, {GRID.left + left} {GRID.top - up}, "
            f"{GRID.left + left} {GRID.top - down}))"
        ],
        crs=GRID.crs,
    )
    geopandas.GeoDataFrame({"name": ["mine"]}, geometry=own).to_file(root / "own.gpkg")
    return root


def in_qgis(python: Path, script: str, *words: object, home: Path) -> dict[str, Any]:
    """What a script says that runs in the Python of QGIS."""
    environment = {"PATH": os.environ["PATH"], "QT_QPA_PLATFORM": "offscreen", "HOME": str(home), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [python, Path(__file__).with_name(script), *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    complaints = [line for line in done.stderr.splitlines() if "Warning" in line and "own.gpkg" not in line]
    assert not any(word in line for line in complaints for word in (".gpkg", "Invalid content")), complaints
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_a_class_is_measured_as_the_page_says(qgis: Path, made: Path, tmp_path: Path) -> None:
    told = in_qgis(qgis, "qgis_measure.py", made / "map", made / "own.gpkg", tmp_path, home=tmp_path)
    array = codes()
    with (made / "map/areas.csv").open(encoding="utf-8-sig", newline="") as file:
        areas = {row["class"]: row for row in csv.DictReader(file)}
    # the table in the project is areas.csv, with numbers as numbers
    assert {row["class"]: (row["pixels"], row["hectares"]) for row in told["areas"]} == {
        name: (int(row["pixels"]), float(row["hectares"])) for name, row in areas.items()
    }
    # the polygons' $area is the true area, as areas.csv has it
    for name, hectares in told["polygons"].items():
        assert hectares == pytest.approx(float(areas[name]["hectares"]), rel=1e-5)
    # the report of unique values counts pixels, and measures them on the projected grid: 0.2 % too much here
    unique = {int(float(row["value"])): row for row in told["unique"]}
    assert {NAMES[code]: int(float(row["count"])) for code, row in unique.items()} == {
        name: int(row["pixels"]) for name, row in areas.items()
    }
    for code, row in unique.items():
        flat, true = float(row["m2" if "m2" in row else "m²"]) / 1e4, float(areas[NAMES[code]]["hectares"])
        assert flat == pytest.approx(int(float(row["count"])) / 100)
        assert 1.0015 < flat / true < 1.0021, (flat, true)
    assert told["nodata_pixels"] == 36
    # within the analyst's own polygon: pixels whose centre lies in it, and polygons cut along its edge
    (zone,) = told["zones"]
    left, down, right, up = OWN
    window = array[round(down / 10) : round(up / 10), round(left / 10) : round(right / 10)]
    counted = {int(key.removeprefix("HISTO_")): int(float(zone[key])) for key in zone if key.startswith("HISTO_")}
    assert {code: count for code, count in counted.items() if code in NAMES} == {
        int(code): int((window == code).sum()) for code in np.unique(window)
    }
    for code in np.unique(window).tolist():
        name = NAMES[code]
        flat = overlap(array == code) / 1e4
        true = flat * float(areas[name]["hectares"]) / (int(areas[name]["pixels"]) / 100)
        assert told["clipped"][name] == pytest.approx(true, rel=3e-5), name


def overlap(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """Square metres of the projected grid that pixels share with the analyst's own area."""
    left, down, right, up = OWN
    rows = np.clip(np.minimum(np.arange(1, 121) * 10, up) - np.maximum(np.arange(120) * 10, down), 0, 10)
    cols = np.clip(np.minimum(np.arange(1, 161) * 10, right) - np.maximum(np.arange(160) * 10, left), 0, 10)
    return float((np.outer(rows, cols) * mask).sum())


def test_the_form_is_the_one_that_was_written(qgis: Path, made: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample.gpkg"
    run_here(["sample", "--map", str(made / "map/classes.tif"), "--units", "30", "--output", str(sample)])
    told = in_qgis(qgis, "qgis_form.py", sample, tmp_path, home=tmp_path)
    form = told["form"]
    empty = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"
    assert form["reference"]["widget"] == form["certainty"]["widget"] == "ValueMap"
    assert form["reference"]["values"] == [
        ["(not interpreted)", empty],
        *([row.name] * 2 for row in CLASSES),
        ["none of these (say what in the note)", "none of these"],
    ]
    assert [value for value, _ in form["certainty"]["values"]] == ["(not interpreted)", "high", "medium", "low"]
    assert {name for name, field in form.items() if field["read_only"]} >= {"unit", "lon", "lat"}
    assert not any(form[name]["read_only"] for name in ("reference", "certainty", "interpreter", "note"))
    assert form["fid"]["widget"] == "Hidden"
    assert told["renderer"] == "categorizedSymbol"
    assert told["labels"] == "unit"
    assert told["layers"] in (["sample"], ["sample", "layer_styles"])
    assert sorted(told["lines"]) == [f"point {unit:02d}" for unit in range(1, 31)]
    assert told["crs"] == GRID.crs


def test_a_sample_is_filled_through_its_form_and_gives_the_table(qgis: Path, made: Path, tmp_path: Path) -> None:
    sample, classes = tmp_path / "sample.gpkg", made / "map/classes.tif"
    done = run_here(["sample", "--map", str(classes), "--units", "60", "--least", "10", "--output", str(sample)])
    assert done.returncode == 0, done.stderr
    design = read_design(sample)
    assert design is not None
    seen = [NAMES[code] for code in design.codes]
    wrong = seen.index("upland")
    seen[wrong] = NAMES[2]  # one place where the map is wrong
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps({str(unit): name for unit, name in enumerate(seen, start=1)}), encoding="utf-8")
    told = in_qgis(qgis, "qgis_form.py", sample, tmp_path, answers, home=tmp_path)
    filled = told["fill"]
    assert filled["editing"]
    assert filled["offered"][:-1] == ["(not interpreted)", *(row.name for row in CLASSES)]
    assert filled["shown"] == "(not interpreted)"
    assert (filled["filled"], filled["committed"]) == (60, True), filled["errors"]
    assert f"point {wrong + 1:02d}: {NAMES[2]}" in told["lines"]
    before, after = (np.asarray(Image.open(tmp_path / f"{when}.png").convert("RGB")) for when in ("before", "after"))
    assert (before == (230, 0, 120)).all(axis=-1).sum() > 500, "squares to interpret are seen"
    assert (after == (60, 60, 60)).all(axis=-1).sum() > 500, "and those that were interpreted differ"
    done = run_here(["assess", "--map", str(classes), "--reference", str(sample), "--output", str(tmp_path / "out")])
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "60 of 60 units of a stratified sample" in done.stdout
    with (tmp_path / "out/accuracy.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    with (made / "map/areas.csv").open(encoding="utf-8-sig", newline="") as file:
        counted = {row["class"]: float(row["hectares"]) for row in csv.DictReader(file)}
    for name, row in rows.items():
        assert float(row["hectares_low"]) < counted[name] < float(row["hectares_high"]), name
        assert float(row["mapped_ha"]) == pytest.approx(counted[name], abs=1e-3)
    assert float(rows[NAMES[2]]["hectares_value"]) > counted[NAMES[2]]
