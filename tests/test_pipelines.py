"""The recipes of `pipelines/`: they load, agree with each other and with the class tables, and answer a dry run."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import warnings
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import yaml

from tests.walk.conftest import run_here
from wetmap.classes import class_table
from wetmap.errors import ReferenceWarning, UsageError
from wetmap.geo import Grid, read_aoi
from wetmap.recipe import Recipe, Reference
from wetmap.recipe_file import load_recipe
from wetmap.samples import check_reference, read_reference
from wetmap.stages import other_classes

FOLDER = Path(__file__).resolve().parents[1] / "pipelines"
PROVINCE = "new_brunswick"
PILOTS = ("albert_county", "york_county", "grand_bay_westfield")
PAGE = "https://www2.gnb.ca/content/gnb/en/departments/erd/open-data/data_download.html"
#: Blocks of 512 px that hold something of the area, and its hectares (aoi/README.md).
SIZES = {
    "new_brunswick": (3024, 7_278_258),
    "albert_county": (90, 179_600),
    "york_county": (389, 847_700),
    "grand_bay_westfield": (8, 7_046),
}

each = pytest.mark.parametrize("name", [PROVINCE, *PILOTS])


def recipe_of(name: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.yaml")


def reference_of(recipe: Recipe) -> Reference:
    assert isinstance(recipe.reference, Reference)
    return recipe.reference


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_folder_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.aoi is not None
    assert recipe.workspace is not None
    assert max(map(len, path.read_text().splitlines())) <= 140


@each
def test_codes_and_colours_are_those_of_the_inventory(name: str) -> None:
    recipe = recipe_of(name)
    known = {row.name: row.code for row in class_table("new-brunswick")}
    assert all(known[spec.name] == spec.code for spec in recipe.classes)
    assert len(recipe.classes) >= len(known) - 1
    values = [str(value) for spec in recipe.classes for value in spec.reference if len(str(value)) == 2]
    assert set(values) >= {"AB", "BO", "FE", "FW", "FM", "SB"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other_classes.check(recipe)  # the crosswalk has a row for each, and their colours are told apart


@each
def test_a_pilot_area_is_a_part_of_the_provinces_map(name: str) -> None:
    recipe, whole = recipe_of(name), recipe_of(PROVINCE)
    for part in ("grid", "seasons", "sources", "features", "terrain", "optical", "radar", "model"):
        assert getattr(recipe, part) == getattr(whole, part), part
    assert recipe.grid.crs == "EPSG:2953"
    assert recipe.postprocess.minimum_mapping_unit_ha == 1.0
    assert [season.name for season in recipe.seasons] == ["spring", "summer", "autumn"]


@each
def test_the_one_step_before_is_named_with_its_page_and_place(name: str) -> None:
    reference = reference_of(recipe_of(name))
    assert reference.class_field == "WC"
    assert reference.background is not None
    for file in (reference, *reference.also):
        assert file.obtain is not None
        assert PAGE in file.obtain
        assert f"pipelines/nb_data/{file.path.name}" in file.obtain
        assert file.path == FOLDER / "nb_data" / file.path.name


def test_the_part_for_a_cluster_loads_when_its_comment_signs_are_taken_off() -> None:
    text = (FOLDER / "new_brunswick.yaml").read_text()
    block = text[text.index("# cluster:\n") :]
    data = yaml.safe_load(re.sub(r"(?m)^# ?", "", block))
    assert set(data) == {"cluster"}
    assert Recipe.model_validate(data).cluster.kind == "slurm"


def test_the_other_way_to_map_a_pilot_area_loads_too() -> None:
    text = (FOLDER / "grand_bay_westfield.yaml").read_text()
    (line,) = re.findall(r"(?m)^# (predict: .*)$", text)
    before, after = text[: text.index("classes:\n")], text[text.index("# To map this area with a model") :]
    recipe = Recipe.model_validate(yaml.safe_load(f"{before}\n{after}\n{line}"))
    assert recipe.predict.bundle == Path("../new_brunswick-wetmap/model")
    assert recipe.reference is None
    assert recipe.seasons == recipe_of(PROVINCE).seasons, "the model's features need the seasons that it learnt"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is resolved, as without a network; and the model is timed for a moment only."""

    def unresolved(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    monkeypatch.setattr("wetmap.sources.stac_search.FIRST_WAIT", 0.0)
    monkeypatch.setattr("wetmap.stages.bench.SECONDS_EACH", 0.02)


def wetmap(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return run_here([str(word) for word in words])


@each
@pytest.mark.usefixtures("offline")
def test_a_dry_run_answers_without_a_network_and_without_the_reference(name: str) -> None:
    done = wetmap("run", FOLDER / f"{name}.yaml", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    blocks, hectares = SIZES[name]
    assert told["fetch"]["blocks"] == pytest.approx(blocks, rel=0.02)
    assert told["area_ha"] == pytest.approx(hectares, rel=0.01)
    assert "EPSG:2953" in told["grid"]
    assert "its name cannot be resolved" in told["fetch"]["scenes"]
    assert told["fetch"]["typical_looks"].keys() == {"optical", "radar", "terrain"}
    assert 0.5 * blocks < told["fetch"]["typical_read_gb"] * 6 < 12 * blocks
    # 104 bytes of features, 10 of what was observed, 6 of clear looks
    whole_blocks_gb = blocks * 512**2 * 120 / 1e9
    assert 0.65 * whole_blocks_gb < told["fetch"]["write_gb"] <= whole_blocks_gb
    assert told["predict"]["hours"] > 0
    assert told["predict"]["write_gb_at_most"] > 0
    assert told["memory"][0].endswith("to draw samples (12 bytes for each pixel of the grid)")
    assert "cluster.memory" in told["memory"][1]
    assert len(told["missing"]) == 2
    assert told["stages"]["cubes"] == "waits for the files that are missing"
    assert not list(FOLDER.parent.glob(f"{name}-wetmap")), "nothing is written"


@pytest.mark.usefixtures("offline")
def test_the_dry_run_in_words() -> None:
    said = wetmap("run", FOLDER / "grand_bay_westfield.yaml", "--dry-run").stdout
    for words in ("Grid:   EPSG:2953", "Read:   at most about", "Not searched: reckoned from the satellites' cycles"):
        assert words in said
    assert re.search(r"Map:    about \S+ (min|hours) of inference with \d+ workers?, measured on an untrained", said)
    assert "Disk:   at most about 0.2 GB for the cube and the map" in said
    assert "Memory: 0.3 GB to draw samples" in said
    assert said.count(PAGE) == 2


@pytest.mark.parametrize("verb", [("recipe", "check"), ("run",)])
def test_a_run_without_the_reference_says_where_to_get_it_and_where_to_put_it(verb: tuple[str, ...]) -> None:
    done = wetmap(*verb, FOLDER / "new_brunswick.yaml")
    assert done.returncode == 2
    assert "reference.path names" in done.stderr
    assert PAGE in done.stderr
    assert "pipelines/nb_data/wetlands.zip" in done.stderr
    assert not (FOLDER.parent / "new_brunswick-wetmap").exists()


def zipped(folder: Path, name: str, column: str, values: list[str], boxes: list[Any], crs: str) -> Path:
    """A zip with a Shapefile in it, as the province's pages give them."""
    frame = geopandas.GeoDataFrame({"OBJECTID": range(len(values)), column: values}, geometry=boxes, crs=crs)
    frame.to_file(folder / f"{name}.shp")
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in sorted(folder.glob(f"{name}.*")):
            if part != path:
                archive.write(part, part.name)
    return path


@pytest.fixture
def ground() -> Grid:
    """640 x 640 px at Grand Bay-Westfield."""
    area = read_aoi(FOLDER.parent / "aoi/grand_bay_westfield.geojson").geometry_in("EPSG:2953").centroid
    return Grid("EPSG:2953", 10.0, round(area.x, -1) - 3200, round(area.y, -1) + 3200, 640, 640)


def layers(folder: Path, ground: Grid, column: str = "WC") -> Reference:
    """The two layers, a strip of 10 x 40 px per code, and a lake over the lower half of one of them."""
    codes = ["AB", "BO", "FE", "FW", "FM", "SB", "CM", "TF", None]
    x, y = ground.left + 1000, ground.top - 1000
    boxes = [shapely.box(x + 200 * n, y - 400, x + 200 * n + 100, y) for n in range(len(codes))]
    wetlands = zipped(folder, "wetlands", column, codes, boxes, "EPSG:2953")  # type: ignore[arg-type]
    lake = [shapely.box(x, y - 600, x + 100, y - 200)]
    bodies = zipped(folder, "waterbodies", "NAME", ["Long Lake"], lake, "EPSG:2953")
    reference = reference_of(recipe_of("new_brunswick"))
    more = [reference.also[0].model_copy(update={"path": bodies})]
    return reference.model_copy(update={"path": wetlands, "also": more})


def test_the_provinces_layers_are_read_with_the_recipes_crosswalk(tmp_path: Path, ground: Grid) -> None:
    recipe, reference = recipe_of(PROVINCE), layers(tmp_path, ground)
    aoi = read_aoi(FOLDER.parent / "aoi/grand_bay_westfield.geojson")
    with pytest.warns(ReferenceWarning) as caught:
        labels = read_reference(reference, recipe.classes, ground, aoi)
    said = " ".join(str(one.message) for one in caught)
    assert "1 of 10 reference features in the area have an empty class field" in said
    assert "'TF' (1)" in said
    assert "In 200 pixels features of different classes overlap" in said
    counts = labels.report["pixels"]
    assert counts == {
        **dict.fromkeys(("bog", "fen", "forested wetland", "freshwater marsh", "coastal marsh", "shrub wetland"), 400),
        "aquatic bed": 200,
        "water": 200,
        "upland": 0,
    }
    assert labels.background is not None
    assert labels.background.any()
    rows, cols = np.nonzero(labels.codes != 255)
    strips = labels.background[rows.min() - 9 : rows.min() + 49, cols.min() : cols.min() + 170]
    assert not strips.any(), "background keeps 100 m off, off features of no class too"


def test_another_class_field_is_refused_with_the_fields_there_are(tmp_path: Path, ground: Grid) -> None:
    recipe, reference = recipe_of(PROVINCE), layers(tmp_path, ground, column="WETLAND")
    aoi = read_aoi(FOLDER.parent / "aoi/grand_bay_westfield.geojson")
    with pytest.raises(UsageError, match=r"No field 'WC' in .*wetlands.zip.*with one of its fields: OBJECTID, WETLAND"):
        check_reference(reference, recipe.classes, ground, aoi)
