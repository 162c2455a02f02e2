"""map.qgz: what is in the zip. That QGIS opens it is looked at in tests/system."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from wetmap.classes import MapClass
from wetmap.errors import WorkspaceError
from wetmap.geo import Grid
from wetmap.products.layers import MapLayer, map_layers
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
    for name in ("classes.tif", "confidence.tif", "polygons.gpkg", "my_own.tif", "areas.csv"):
        (folder / name).touch()
    return {path.name: path for path in folder.iterdir()}


def read(path: Path) -> ElementTree.Element:
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        assert name == "map.qgs"
        return ElementTree.fromstring(archive.read(name))  # noqa: S314 - written a line before


def test_layers_are_named_and_ordered_and_others_follow() -> None:
    names = ["zzz.tif", "confidence.tif", "classes.tif.aux.xml", "my_own.tif", "classes.tif", "polygons.gpkg"]
    assert [(layer.file, layer.title) for layer in map_layers(names)] == [
        ("polygons.gpkg", "Polygons"),
        ("classes.tif", "Classes"),
        ("confidence.tif", "Confidence (%)"),
        ("my_own.tif", "My own"),
        ("zzz.tif", "Zzz"),
    ]


def test_project_holds_every_layer_with_a_relative_path_and_its_style(tmp_path: Path, files: dict[str, Path]) -> None:
    write_project(tmp_path / "map.qgz", PROJECT, map_layers(files), files)
    root = read(tmp_path / "map.qgz")
    assert root.findtext("title") == "Lake & <marsh> (SIMULATED)"
    assert root.findtext("properties/Paths/Absolute") == "false"
    assert root.findtext("projectCrs/spatialrefsys/authid") == "EPSG:32620"
    layers = {layer.findtext("layername"): layer for layer in root.findall("projectlayers/maplayer")}
    assert {name: layer.findtext("datasource") for name, layer in layers.items()} == {
        "Polygons (SIMULATED)": "./polygons.gpkg|layername=polygons",
        "Classes (SIMULATED)": "./classes.tif",
        "Confidence (%) (SIMULATED)": "./confidence.tif",
        "My own (SIMULATED)": "./my_own.tif",
    }
    entries = layers["Classes (SIMULATED)"].findall("pipe/rasterrenderer/colorPalette/paletteEntry")
    assert [entry.get("label") for entry in entries] == ['bog & "fen" <b>', "upland"]
    categories = layers["Polygons (SIMULATED)"].findall("renderer-v2/categories/category")
    assert [category.get("label") for category in categories] == ['bog & "fen" <b>', "upland"]
    tree = root.findall("layer-tree-group/layer-tree-layer")
    assert [entry.get("checked") == "Qt::Checked" for entry in tree] == [False, True, False, False]
    ids = [layer.findtext("id") for layer in layers.values()]
    assert [entry.get("id") for entry in tree] == ids
    assert [entry.get("id") for entry in root.findall("layerorder/layer")] == ids
    assert len(set(ids)) == 4


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
