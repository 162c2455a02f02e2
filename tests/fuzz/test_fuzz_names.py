"""Names that mean something elsewhere: each comes back from every file as itself, or as what its writer says."""

from __future__ import annotations

import csv
import datetime as dt
import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzzing import ODD_TEXTS, fuzzed
from tests.report.test_page import Page, report_data
from wetmap.classes import MapClass
from wetmap.geo import Grid
from wetmap.products.areas import AreaRow, write_areas_csv
from wetmap.products.layers import map_layers
from wetmap.products.polygons import polygon_style
from wetmap.products.qgis_project import Project, write_project
from wetmap.products.sample_form import form_style
from wetmap.products.stac_item import MapFacts, write_item
from wetmap.products.style import write_class_style, xml_text
from wetmap.report.page import write_report
from wetmap.stages import assess_files, change_files
from wetmap.workspace import spreadsheet_cell

#: Names of classes: anything but blanks alone, which no class can be called.
NAMES = st.one_of(
    st.sampled_from([text for text in ODD_TEXTS if text.strip()]),
    st.text(st.characters(), min_size=1, max_size=30),
    st.text("<>&\"'={}[]()%\\/;:,\t\r\n\x00\x85\u2028\u202e\ud800\U0010ffff", min_size=1, max_size=12),
).filter(lambda text: bool(text.strip()))
GRID = Grid("EPSG:32620", 10.0, 400_000.0, 5_100_000.0, 30, 40)


def classes_of(names: list[str]) -> tuple[MapClass, ...]:
    return tuple(MapClass(code, name, f"#1122{code:02x}") for code, name in enumerate(names, start=1))


def question(text: str) -> str:
    """As UTF-8 holds it: halves of characters become question marks."""
    return text.encode("utf-8", "replace").decode()


@fuzzed(40)
@given(names=st.lists(NAMES, min_size=1, max_size=4), title=NAMES)
def test_xml(names: list[str], title: str, inside: Path) -> None:
    """Style, attribute table, polygons, form, project: what XML cannot hold is a space."""
    classes, expected = classes_of(names), [xml_text(name) for name in names]
    qml, aux = write_class_style(inside / "classes.tif", classes)
    assert [entry.get("label") for entry in parsed(qml.read_bytes()).iter("paletteEntry")] == expected
    rows = [[cell.text or "" for cell in row] for row in parsed(aux.read_bytes()).iter("Row")]
    assert [row[1] for row in rows] == expected
    polygons = parsed(polygon_style(classes).encode())
    assert [entry.get("label") for entry in polygons.iter("category")] == expected
    form = parsed(form_style(classes, 10.0).encode())
    listed = [option.get("value") for option in form.iter("Option")]
    assert set(expected) <= set(listed)
    (inside / "classes.tif").touch()
    files = {path.name: path for path in inside.iterdir()}
    write_project(inside / "map.qgz", Project(title, GRID, classes), map_layers(files), files)
    with zipfile.ZipFile(inside / "map.qgz") as archive:
        assert archive.namelist() == ["map.qgs"]
        project = parsed(archive.read("map.qgs"))
    assert project.findtext("title") == xml_text(title)
    assert [entry.get("label") for entry in project.iter("paletteEntry")] == expected
    sources = {element.text for element in project.iter("datasource")}
    assert sources == {"./classes.tif"}


def parsed(data: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(data)  # noqa: S314 - written a line before


@fuzzed(30)
@given(names=st.lists(NAMES, min_size=1, max_size=4), title=NAMES)
def test_stac(names: list[str], title: str, inside: Path) -> None:
    days = dt.date(2021, 6, 1), dt.date(2021, 9, 30)
    facts = MapFacts(title, GRID, classes_of(names), days, {"wetmap": "1"}, title)
    (inside / "areas.csv").write_text("x")
    write_item(inside / "map.json", facts, {"areas.csv": inside / "areas.csv"})
    item = json.loads((inside / "map.json").read_bytes().decode("utf-8"))
    assert item["properties"]["title"] == question(title)
    assert item["id"].replace("-", "").replace("_", "").isalnum()
    assert item["assets"]["areas.csv"]["href"] == "./areas.csv"


@fuzzed(40)
@given(names=st.lists(NAMES, min_size=1, max_size=4))
def test_tables(names: list[str], inside: Path) -> None:
    """No cell is a formula, and every name can be told."""
    write_areas_csv(inside / "areas.csv", [AreaRow(at, name, 1, 0.5, 50.0) for at, name in enumerate(names)])
    change_files.write_table(inside / "change.csv", [["class", *map(question, names)], ["a", "-1.5"]])
    rows = [
        {"class": question(name), "mapped": 1, "seen": 1, "agreed": 1} for name in dict.fromkeys(map(question, names))
    ]
    matrix = [[1] * len(rows)] * len(rows)
    assess_files.write_files(inside, {"basis": "agreement", "simulated": False, "classes": rows, "matrix": matrix})
    for file in inside.glob("*.csv"):
        for cell in (cell for row in read(file) for cell in row):
            assert spreadsheet_cell(cell) == cell, file.name
    told = [row[1] for row in read(inside / "areas.csv")[1:]]
    assert told == [question(spreadsheet_cell(name)) for name in names]
    assert read(inside / "change.csv")[1] == ["a", "-1.5"]


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("name", ["=1+1", "+1+1", "-1+1", "@x", "\t=1", "\r=1", "-2+3+cmd|' /C calc'!A0"])
def test_formulas(name: str) -> None:
    assert spreadsheet_cell(name) == f"'{name}"


@pytest.mark.parametrize("text", ["-1.5", "+2", "1e-3", "-inf", "bog", "", "a=b", "tourbière"])
def test_what_is_no_formula(text: str) -> None:
    assert spreadsheet_cell(text) == text


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The tags of a page whose names are harmless."""
    return tags(tmp_path_factory.mktemp("plain"), "a", "b")


def tags(folder: Path, name: str, title: str) -> list[Any]:
    data = report_data(folder, classes_of([name, f"{name} 2"]), title=title, recipe=title, area=title, notes=(title,))
    write_report(folder / "report.html", data)
    text = (folder / "report.html").read_bytes().decode("utf-8")
    assert "Content-Security-Policy" in text
    return [(tag, sorted(attributes)) for tag, attributes in Page(folder / "report.html").tags]


@fuzzed(8)
@given(name=NAMES, title=NAMES)
def test_the_page(name: str, title: str, inside: Path, plain: list[Any]) -> None:
    """The page has the same tags with the same attributes, whatever things are called."""
    assert tags(inside, name, title) == plain
