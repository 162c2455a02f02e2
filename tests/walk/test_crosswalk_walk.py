"""The map in other classes, through the front door: an analyst adds two lines to a recipe that was run already."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import rasterio
import yaml

from tests.walk.conftest import Run
from wetmap.products.class_map import open_class_map


def with_products(folder: Path, **products: object) -> Path:
    """The recipe of the folder with these products."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "products": products}))
    return path


def test_two_lines_write_the_map_in_the_canadian_classes(small: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "walk"
    shutil.copytree(small, folder)
    before = (folder / "space/map/classes.tif").read_bytes()
    recipe = with_products(folder, crosswalk="cwcs")
    said = wetmap("predict", "--recipe", recipe, expect=2).stderr
    assert "the crosswalk to cwcs has no row for 'wetland'" in said
    assert "crosswalk_rows" in said

    recipe = with_products(folder, crosswalk="cwcs", crosswalk_rows={"wetland": "marsh"})
    said = wetmap("predict", "--recipe", recipe).stderr
    assert "predict: already done" in said
    made = folder / "space/map"
    assert (made / "classes.tif").read_bytes() == before
    mine, theirs = open_class_map(made / "classes.tif"), open_class_map(made / "classes_cwcs.tif")
    assert [row.name for row in theirs.classes] == ["marsh", "water", "upland"]
    with rasterio.open(made / "classes.tif") as old, rasterio.open(made / "classes_cwcs.tif") as new:
        codes = {row.name: row.code for row in mine.classes}
        table = np.zeros(256, dtype=np.uint8)
        table[[codes["water"], codes["wetland"], codes["upland"]]] = [6, 4, 7]
        np.testing.assert_array_equal(new.read(1), table[old.read(1)])
        assert "SIMULATED" in new.tags()
    assert "wetland,4,marsh,products.crosswalk_rows of the recipe" in (made / "crosswalk_cwcs.csv").read_text()
    assert "SIMULATED" in (made / "areas_cwcs.csv").read_text()
    with zipfile.ZipFile(made / "map.qgz") as project:
        assert "./classes_cwcs.tif" in project.read(project.namelist()[0]).decode()
    assets = json.loads((made / "map.json").read_text())["assets"]
    assert {row["value"] for row in assets["classes_cwcs.tif"]["classification:classes"]} >= {4, 6, 7}
