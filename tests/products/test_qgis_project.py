"""map.qgz: what is in the zip. That QGIS opens it is looked at in tests/system."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from wetmap.classes import MapClass
from wetmap.errors import WorkspaceError
from wetmap.geo import Grid
from wetmap.products.geotiff import write_cog
from wetmap.products.layers import GROUPS, KNOWN_LAYERS, MapLayer, map_layers
from wetmap.products.qgis_project import Project, write_project
from wetmap.products.style import write_class_style, write_ramp_style

GRID = Grid("EPSG:32620", 10.0, 400_000.0, 5_100_000.0, 40, 60)
CLASSES = (MapClass(1, 'bog & "fen" <b>', "#aa4400"), MapClass(5, "upland", "#dddddd"))
PROJECT = Project("Lake & <marsh>", GRID, CLASSES, simulated=True)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "map"
    folder.mkdir()
    write_class_style(folder / "classes.tif", CLASSES)
    write_ramp_style(folder / "confidence.tif", low=0, high=100, label="Probability (%)")
    write_ramp_style(folder / "probabilities.tif", low=0, high=100, label="Probability of bog (%)")
    write_cog(
        folder / "probabilities.tif",
        GRID,
        lambda block: np.ones((2, block.height, block.width), np.uint8),
        dtype="uint8",
        nodata=255,
        overview="average",
        colours=None,
        description=tuple(item.name for item in CLASSES),
        tags={},
    )
    for name in ("classes.tif", "confidence.tif", "polygons.gpkg", "my_own.tif", "areas.csv"):
        (folder / name).touch()
    return {path.name: path for path in folder.iterdir()}


def read(path: Path) -> ElementTree.Element:
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        assert name == "map.qgs"
        return ElementTree.fromstring(archive.read(name))  # noqa: S314 - written a line before


def test_layers_are_named_and_ordered_and_others_come_first() -> None:
    names = ["zzz.tif", "confidence.tif", "classes.tif.aux.xml", "my_own.tif", "classes.tif", "polygons.gpkg"]
    assert [(layer.file, layer.title) for layer in map_layers(names)] == [
        ("my_own.tif", "My own"),
        ("zzz.tif", "Zzz"),
        ("confidence.tif", "Confidence (%)"),
        ("polygons.gpkg", "Polygons"),
        ("classes.tif", "Classes"),
    ]


def test_every_known_layer_is_explained_and_stands_in_its_group() -> None:
    assert all(layer.about and layer.group in GROUPS for layer in KNOWN_LAYERS)
    places = [GROUPS.index(layer.group) for layer in KNOWN_LAYERS]
    assert places == sorted(places), "the list and the groups have one order"


def test_project_holds_every_layer_with_a_relative_path_and_its_style(tmp_path: Path, files: dict[str, Path]) -> None:
    write_project(tmp_path / "map.qgz", PROJECT, map_layers(files), files)
    root = read(tmp_path / "map.qgz")
    assert root.findtext("title") == "Lake & <marsh> (SIMULATED)"
    assert root.findtext("properties/Paths/Absolute") == "false"
    assert root.findtext("projectCrs/spatialrefsys/authid") == "EPSG:32620"
    layers = {layer.findtext("layername"): layer for layer in root.findall("projectlayers/maplayer")}
    assert {name: layer.findtext("datasource") for name, layer in layers.items()} == {
        "My own (SIMULATED)": "./my_own.tif",
        "Confidence (%) (SIMULATED)": "./confidence.tif",
        'Probability of bog & "fen" <b> (%) (SIMULATED)': "./probabilities.tif",
        "Probability of upland (%) (SIMULATED)": "./probabilities.tif",
        "Polygons (SIMULATED)": "./polygons.gpkg|layername=polygons",
        "Classes (SIMULATED)": "./classes.tif",
        "Areas by class (pixel counts) (SIMULATED)": "./areas.csv|option:AUTODETECT_TYPE=YES",
    }
    entries = layers["Classes (SIMULATED)"].findall("pipe/rasterrenderer/colorPalette/paletteEntry")
    assert [entry.get("label") for entry in entries] == ['bog & "fen" <b>', "upland"]
    categories = layers["Polygons (SIMULATED)"].findall("renderer-v2/categories/category")
    assert [category.get("label") for category in categories] == ['bog & "fen" <b>', "upland"]
    ids = [layer.findtext("id") for layer in layers.values()]
    assert [entry.get("id") for entry in root.iter("layer-tree-layer")] == ids
    assert [entry.get("id") for entry in root.findall("layerorder/layer")] == ids
    assert len(set(ids)) == len(layers)


def test_groups_are_in_order_and_of_the_bands_one_is_shown(tmp_path: Path, files: dict[str, Path]) -> None:
    write_project(tmp_path / "map.qgz", PROJECT, map_layers(files), files)
    groups = read(tmp_path / "map.qgz").findall("layer-tree-group/layer-tree-group")
    assert [group.get("name") for group in groups] == [
        "Other layers",
        "How sure the model is",
        "Probability of each class",
        "Map",
    ]
    assert [group.get("mutually-exclusive") for group in groups] == [None, None, "1", None]
    assert [group.get("expanded") for group in groups] == ["0", "0", "0", "1"]
    ticked = [entry.get("name") for group in groups for entry in group if entry.get("checked") == "Qt::Checked"]
    assert ticked == ["Classes (SIMULATED)"]


def test_every_band_has_the_files_ramp_under_its_own_name(tmp_path: Path, files: dict[str, Path]) -> None:
    write_project(tmp_path / "map.qgz", PROJECT, map_layers(files), files)
    layers = read(tmp_path / "map.qgz").findall("projectlayers/maplayer")
    bands = [layer for layer in layers if layer.findtext("datasource") == "./probabilities.tif"]
    renderers = [layer.find("pipe/rasterrenderer") for layer in bands]
    assert [renderer.get("band") for renderer in renderers if renderer is not None] == ["1", "2"]
    ends = [[item.get("label") for item in layer.iter("item")][::4] for layer in bands]
    assert ends[1] == ["Probability of upland (%) 0", "Probability of upland (%) 100"]
    stops = [[item.get("value") for item in layer.iter("item")] for layer in bands]
    assert stops[0] == stops[1]


def test_every_layer_says_what_it_tells(tmp_path: Path, files: dict[str, Path]) -> None:
    write_project(tmp_path / "map.qgz", PROJECT, map_layers(files), files)
    root = read(tmp_path / "map.qgz")
    assert "SIMULATED" in root.findtext("projectMetadata/abstract", "")
    for layer in root.findall("projectlayers/maplayer"):
        if layer.findtext("datasource") == "./my_own.tif":
            continue
        told = layer.findtext("abstract", "")
        assert told.startswith("SIMULATED: made from a simulated landscape"), layer.findtext("layername")
        assert layer.findtext("resourceMetadata/abstract") == told
        note = layer.find("customproperties/Option/Option[@name='userNotes']")
        assert note is not None
        assert told[:30] in note.get("value", "")


def test_a_damaged_raster_is_told(tmp_path: Path, files: dict[str, Path]) -> None:
    files["probabilities.tif"].write_text("no raster")
    with pytest.raises(WorkspaceError, match=r"probabilities\.tif is damaged"):
        write_project(tmp_path / "map.qgz", PROJECT, map_layers(files), files)


def test_same_map_gives_the_same_bytes_wherever_it_lies(tmp_path: Path, files: dict[str, Path]) -> None:
    write_project(tmp_path / "map.qgz", PROJECT, map_layers(files), files)
    other = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "map", other)
    moved = {path.name: path for path in sorted(other.iterdir(), reverse=True)}
    write_project(tmp_path / "other.qgz", PROJECT, map_layers(moved), moved)
    assert (tmp_path / "other.qgz").read_bytes() == (tmp_path / "map.qgz").read_bytes()
    with zipfile.ZipFile(tmp_path / "map.qgz") as archive:
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
        assert str(tmp_path).encode() not in archive.read("map.qgs")


def test_a_damaged_style_is_told(tmp_path: Path, files: dict[str, Path]) -> None:
    files["classes.qml"].write_text("<qgis")
    with pytest.raises(WorkspaceError, match=r"classes\.qml is damaged"):
        write_project(tmp_path / "map.qgz", PROJECT, [MapLayer("classes.tif", "Classes", "classes")], files)
