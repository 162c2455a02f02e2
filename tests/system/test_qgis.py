"""The map's folder in real QGIS: what an analyst sees who drags a file in, or opens the project."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

# the fixtures of the walk: one small recipe, run once
from tests.walk.conftest import small as small  # noqa: PLC0414 - a fixture
from tests.walk.conftest import wetmap_apart as wetmap_apart  # noqa: PLC0414 - a fixture
from wetmap.classes import MapClass
from wetmap.geo import Grid
from wetmap.products.areas import count_areas, write_areas_csv
from wetmap.products.class_map import open_class_map
from wetmap.products.geotiff import write_cog
from wetmap.products.layers import map_layers
from wetmap.products.qgis_project import Project, write_project
from wetmap.products.style import write_class_style, write_ramp_style
from wetmap.stages.polygons import MapReaders, make_polygons

pytestmark = pytest.mark.system

CLASSES = (
    MapClass(1, 'bog & "fen" <b>', "#aa4400"),
    MapClass(2, "沼泽", "#22aa44"),
    MapClass(7, "upland", "#dddddd"),
)
LEGEND = [[item.name, item.colour] for item in CLASSES]
CODE, OWN = "EPSG:32620", "+proj=laea +lat_0=46 +lon_0=-66 +datum=WGS84 +units=m"
#: Pixels of the picture per pixel of the map, as in qgis_look.py.
ZOOM = 4


def codes() -> NDArray[np.uint8]:
    """Three classes, and a corner without one."""
    array = np.full((40, 60), 7, np.uint8)
    array[10:30, 5:25] = 1
    array[20:35, 30:50] = 2
    array[:6, :6] = 0
    return array


def of(array: NDArray[Any]) -> Any:
    return lambda block: array[..., *block.slices]


def write_map(folder: Path, crs: str) -> Grid:
    """A map's folder, made by what makes a real one."""
    folder.mkdir()
    grid = Grid(crs, 10.0, 400_000.0, 5_100_000.0, 40, 60)
    classes = codes()
    percent = np.where(classes > 0, 30 + 10 * classes, 255).astype(np.uint8)
    entropy = np.where(classes > 0, 0.25, np.nan).astype(np.float32)
    shares = np.stack([np.where(classes == row.code, 80, 10) for row in CLASSES])
    shares = np.where(classes > 0, shares, 255).astype(np.uint8)
    looks = np.stack([classes, np.where(classes > 0, 2 * classes, 0)]).astype(np.uint16)
    unlike = np.where(classes > 0, 30 * classes, 255).astype(np.uint8)
    colours = {row.code: row.colour for row in CLASSES}
    plain: dict[str, Any] = {"overview": "average", "colours": None, "tags": {}}
    write_cog(
        folder / "classes.tif",
        grid,
        of(classes),
        dtype="uint8",
        nodata=0,
        overview="mode",
        colours=colours,
        description="class",
        tags={},
    )
    write_class_style(folder / "classes.tif", CLASSES)
    write_cog(folder / "confidence.tif", grid, of(percent), dtype="uint8", nodata=255, description="p", **plain)
    write_ramp_style(folder / "confidence.tif", low=0, high=100, label="Probability of the mapped class (%)")
    write_cog(folder / "unstyled.tif", grid, of(entropy), dtype="float32", nodata=np.nan, description="e", **plain)
    names, seasons = tuple(row.name for row in CLASSES), ("spring", "summer")
    layers = (
        ("entropy", percent, 255, "e", 100, "Entropy of the class probabilities (%)"),
        ("probabilities", shares, 255, names, 100, f"Probability of {names[0]} (%)"),
        ("clear_count", looks, 65535, seasons, 14, "Clear looks, spring"),
        ("applicability", unlike, 255, "a", 200, "Dissimilarity to the training samples"),
    )
    for name, array, nodata, description, high, label in layers:
        path, dtype = folder / f"{name}.tif", str(array.dtype)
        write_cog(path, grid, of(array), dtype=dtype, nodata=nodata, description=description, **plain)
        write_ramp_style(path, low=0, high=high, label=label)
    write_areas_csv(folder / "areas.csv", count_areas(grid, of(classes), CLASSES), simulated=True)
    readers = MapReaders(grid, lambda block: classes[block.slices], lambda block: percent[block.slices])
    make_polygons(folder / "polygons.gpkg", readers, CLASSES, 4, simulated=True)
    files = {path.name: path for path in folder.iterdir()}
    write_project(folder / "map.qgz", Project("Toy", grid, CLASSES, simulated=True), map_layers(files), files)
    return grid


def look(python: Path, folder: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    script = Path(__file__).with_name("qgis_look.py")
    # a home of its own: settings of the person who runs the tests change nothing, and stay as they are
    environment = {"PATH": os.environ["PATH"], "QT_QPA_PLATFORM": "offscreen", "HOME": str(out), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [python, script, folder, out], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def picture(path: Path) -> NDArray[np.uint8]:
    """Colours in the middle of each pixel of the map, (height, width, 3)."""
    whole = np.asarray(Image.open(path).convert("RGB"))
    return whole[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM]


def expected(array: NDArray[np.uint8], classes: tuple[MapClass, ...]) -> NDArray[np.uint8]:
    """The map in its palette, white where nothing is mapped."""
    palette = np.full((256, 3), 255, np.uint8)
    for item in classes:
        palette[item.code] = item.rgb
    return palette[array]


@pytest.fixture(scope="module")
def toy(qgis: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Grid]:
    """What QGIS says of a toy map whose folder was moved after it was made, and the pictures it drew."""
    root = tmp_path_factory.mktemp("toy")
    grid = write_map(root / "made", CODE)
    (root / "made").rename(root / "moved, to another place")
    return look(qgis, root / "moved, to another place", root / "out"), root / "out", grid


def test_classes_dragged_in_show_exactly_their_names_and_colours(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    seen = toy[0]["alone"]["classes.tif"]
    assert seen["renderer"] == "paletted"
    assert seen["legend"] == LEGEND
    assert (seen["nodata"], seen["crs"], seen["size"]) == (0, CODE, [60, 40])


def test_confidence_dragged_in_is_a_ramp(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    seen = toy[0]["alone"]["confidence.tif"]
    assert seen["renderer"] == "singlebandpseudocolor"
    assert (seen["nodata"], seen["crs"]) == (255, CODE)
    assert seen["legend"][0][0] == "Probability of the mapped class (%) 0"
    assert [colour for _, colour in seen["legend"]][::4] == ["#440154", "#fde725"]


def test_project_opens_every_layer_in_order_with_its_name_and_style(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    told, _, grid = toy
    project = told["project"]
    names = [
        "Unstyled",
        "Confidence (%)",
        "Entropy (%)",
        "Unlike the training samples (% of the threshold)",
        *(f"Probability of {row.name} (%)" for row in CLASSES),
        "Clear looks, spring",
        "Clear looks, summer",
        "Polygons",
        "Classes",
        "Areas by class (pixel counts)",
    ]
    names = [f"{name} (SIMULATED)" for name in names]
    assert project["opened"], project["error"]
    assert project["bad"] == []
    assert project["names"] == names
    assert project["order"] == names[:-1], "tables are not drawn"
    assert project["shown"] == ["Classes (SIMULATED)"]
    assert project["title"] == "Toy (SIMULATED)"
    assert project["crs"] == CODE
    assert project["ellipsoid"] == "EPSG:7030"
    assert project["area_unit"] == "ha"
    assert project["extent"] == list(grid.bounds)
    layers = {layer["name"].removesuffix(" (SIMULATED)"): layer for layer in project["layers"]}
    table = layers.pop("Areas by class (pixel counts)")
    assert [layer["crs"] for layer in layers.values()] == [CODE] * len(layers)
    polygons, classes = layers["Polygons"], layers["Classes"]
    assert (polygons["renderer"], polygons["legend"], polygons["features"]) == ("categorizedSymbol", LEGEND, 3)
    assert (classes["renderer"], classes["legend"], classes["nodata"]) == ("paletted", LEGEND, 0)
    assert layers["Unstyled"]["renderer"] == "singlebandgray"
    assert (table["features"], table["renderer"]) == (3, None)
    assert table["fields"]["hectares"] == "Real"
    assert table["fields"]["pixels"].startswith("Integer")


@pytest.mark.parametrize(
    ("name", "band", "nodata", "ends"),
    [
        (
            "Confidence (%)",
            1,
            255,
            ("Probability of the mapped class (%) 0", "Probability of the mapped class (%) 100"),
        ),
        (
            "Entropy (%)",
            1,
            255,
            ("Entropy of the class probabilities (%) 0", "Entropy of the class probabilities (%) 100"),
        ),
        ("Unlike the training samples (% of the threshold)", 1, 255, ("Dissimilarity to the training samples 0", "")),
        (f"Probability of {CLASSES[0].name} (%)", 1, 255, (f"Probability of {CLASSES[0].name} (%) 0", "")),
        (f"Probability of {CLASSES[2].name} (%)", 3, 255, (f"Probability of {CLASSES[2].name} (%) 0", "")),
        ("Clear looks, summer", 2, 65535, ("Clear looks, summer 0", "Clear looks, summer 14")),
    ],
)
def test_every_measure_has_its_ramp_its_band_and_its_nodata(
    toy: tuple[dict[str, Any], Path, Grid], name: str, band: int, nodata: float, ends: tuple[str, str]
) -> None:
    told, _, grid = toy
    (layer,) = (one for one in told["project"]["layers"] if one["name"] == f"{name} (SIMULATED)")
    assert layer["renderer"] == "singlebandpseudocolor"
    assert (layer["band"], layer["nodata"], layer["extent"]) == (band, nodata, list(grid.bounds))
    assert layer["legend"][0] == [ends[0], "#440154"]
    assert layer["legend"][-1][1] == "#fde725"
    assert ends[1] in {"", layer["legend"][-1][0]}


def test_groups_open_on_the_map_and_show_one_band_at_a_time(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    groups = {group["name"]: group for group in toy[0]["project"]["groups"]}
    assert list(groups) == [
        "Other layers",
        "How sure the model is",
        "Probability of each class",
        "Clear looks of each season",
        "Map",
    ]
    assert [group["opened"] for group in groups.values()] == [False] * 4 + [True]
    exclusive = [name for name, group in groups.items() if group["exclusive"]]
    assert exclusive == ["Probability of each class", "Clear looks of each season"]
    for name in exclusive:
        assert groups[name]["after ticking"] == [groups[name]["layers"][-1]]


def test_every_layer_and_the_project_say_what_they_tell(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    project = toy[0]["project"]
    assert project["about"].startswith("SIMULATED: made from a simulated landscape")
    for layer in project["layers"]:
        if layer["name"] == "Unstyled (SIMULATED)":
            continue
        assert layer["tip"].startswith("SIMULATED: made from a simulated landscape"), layer["name"]
        assert layer["abstract"] == layer["tip"]
        assert layer["note"].startswith("<p>SIMULATED")


def test_polygons_dragged_in_bring_their_own_style(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    seen = toy[0]["alone"]["polygons.gpkg"]
    assert (seen["renderer"], seen["legend"], seen["features"], seen["crs"]) == ("categorizedSymbol", LEGEND, 3, CODE)
    drawn, classes = picture(toy[1] / "polygons.png"), codes()
    inner = np.zeros(classes.shape, dtype=bool)
    inner[1:-1, 1:-1] = True
    for shift in (-1, 1):  # away from the outlines
        for axis in (0, 1):
            inner &= np.roll(classes, shift, axis) == classes
    np.testing.assert_array_equal(drawn[inner], expected(classes, CLASSES)[inner])


def test_areas_are_measured_on_the_ellipsoid_in_hectares(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    ((*rows,),) = toy[0]["measured"]
    assert len(rows) == 3
    for area, hectares in rows:
        assert area == pytest.approx(hectares, rel=1e-4)
    assert toy[0]["project"]["distance_unit"] == "meters"
    assert toy[0]["project"]["absolute_paths"] == "false"


def test_gdal_knows_the_names_and_colours_of_the_classes(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    told = toy[0]["gdal"]
    by_code = {row.code: row for row in CLASSES}
    assert told["categories"] == [by_code[code].name if code in by_code else "" for code in range(8)]
    assert told["columns"] == ["Value", "Class", "Red", "Green", "Blue"]
    assert told["rows"] == [[str(row.code), row.name, *map(str, row.rgb)] for row in CLASSES]
    assert {code: tuple(told["colours"][str(code)][:3]) for code in by_code} == {row.code: row.rgb for row in CLASSES}


def test_bands_of_a_file_dragged_in_are_named(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    alone = toy[0]["alone"]
    assert alone["probabilities.tif"]["bands"] == [f"Band {at}: {row.name}" for at, row in enumerate(CLASSES, 1)]
    assert alone["probabilities.tif"]["legend"][0][0] == f"Probability of {CLASSES[0].name} (%) 0"
    assert alone["clear_count.tif"]["bands"] == ["Band 1: spring", "Band 2: summer"]
    assert {name for name, seen in alone.items() if not seen["valid"]} == set()


def test_gdals_own_validator_finds_valid_cloud_optimized_files(qgis: Path, tmp_path: Path) -> None:
    """GDAL comes with QGIS, and brings the script by which files are judged everywhere."""
    write_map(tmp_path / "map", CODE)
    for path in sorted((tmp_path / "map").glob("*.tif")):
        words = [qgis, "-m", "osgeo_utils.samples.validate_cloud_optimized_geotiff", "--full-check=yes", path]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{path.name}: {done.stdout}{done.stderr}"
        assert "is a valid cloud optimized GeoTIFF" in done.stdout, done.stdout


def test_drawn_colours_are_the_palettes(toy: tuple[dict[str, Any], Path, Grid]) -> None:
    for name in ("classes.png", "project.png"):
        np.testing.assert_array_equal(picture(toy[1] / name), expected(codes(), CLASSES), name)
    drawn = picture(toy[1] / "confidence.png")
    assert (drawn[:6, :6] == 255).all()
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 4  # three percentages and nothing


def test_a_crs_without_a_code_is_known_by_its_definition(qgis: Path, tmp_path: Path) -> None:
    from pyproj import CRS

    write_map(tmp_path / "map", CRS.from_user_input(OWN).to_wkt())
    told = look(qgis, tmp_path / "map", tmp_path / "out")
    project = told["project"]
    assert project["bad"] == []
    assert project["crs_valid"]
    assert all(layer["crs_valid"] and layer["metres"] for layer in project["layers"] if layer["renderer"])
    np.testing.assert_array_equal(picture(tmp_path / "out/project.png"), expected(codes(), CLASSES))


def test_the_folder_that_a_run_leaves(qgis: Path, small: Path, tmp_path: Path) -> None:
    source = open_class_map(small / "space/map/classes.tif")
    array = source.codes_at(*np.indices(source.grid.shape).reshape(2, -1)).reshape(source.grid.shape)
    told = look(qgis, small / "space/map", tmp_path / "out")
    project = told["project"]
    assert project["opened"], project["error"]
    assert project["bad"] == []
    layers = {Path(layer["source"].partition("|")[0]).name: layer for layer in project["layers"]}
    assert set(layers) == {path.name for path in (small / "space/map").glob("*.tif")} | {"areas.csv"}
    assert layers["classes.tif"]["legend"] == [[row.name, row.colour] for row in source.classes]
    assert all(layer["renderer"] != "singlebandgray" for layer in layers.values()), layers
    np.testing.assert_array_equal(picture(tmp_path / "out/project.png"), expected(array, source.classes))
