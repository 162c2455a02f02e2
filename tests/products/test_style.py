"""Styles: exactly the classes, whatever their names hold."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.classes import MapClass, class_table
from wetmap.errors import UsageError
from wetmap.geo import Grid
from wetmap.products.geotiff import write_cog
from wetmap.products.style import write_class_style, write_ramp_style

# What XML 1.0 can hold in one line; everything else becomes a space.
PLAIN = st.text(
    st.characters(min_codepoint=32, exclude_categories=("Cs",), exclude_characters="\ufffe\uffff"), min_size=1
)
NAMES = st.one_of(PLAIN, st.sampled_from(['<bog & "fen">', "tourbière", "]]>", "&amp;", "沼泽", "'"])).filter(str.strip)


def read(path):
    return ElementTree.fromstring(path.read_bytes())  # noqa: S314 - written a line before


def test_qml_holds_exactly_the_classes(tmp_path):
    table = class_table("new-brunswick")
    qml, aux = write_class_style(tmp_path / "classes.tif", table)
    assert (qml.name, aux.name) == ("classes.qml", "classes.tif.aux.xml")
    renderer = read(qml).find("pipe/rasterrenderer")
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    entries = [entry.attrib for entry in renderer.findall("colorPalette/paletteEntry")]
    assert entries[1] == {"value": "2", "color": "#75130e", "alpha": "255", "label": "bog"}
    assert [entry["label"] for entry in entries] == [item.name for item in table]


def test_category_names_run_from_zero_and_the_table_has_colours(tmp_path):
    classes = (MapClass(5, "fen", "#f6d127"), MapClass(2, "bog", "#75130e"))
    _, aux = write_class_style(tmp_path / "classes.tif", classes)
    band = read(aux).find("PAMRasterBand")
    assert [item.text or "" for item in band.findall("CategoryNames/Category")] == ["", "", "bog", "", "", "fen"]
    table = band.find("GDALRasterAttributeTable")
    columns = [[item.text for item in column] for column in table.findall("FieldDefn")]
    assert columns == [
        ["Value", "0", "5"],
        ["Class", "2", "2"],
        ["Red", "0", "6"],
        ["Green", "0", "7"],
        ["Blue", "0", "8"],
    ]
    rows = [[item.text for item in row] for row in table.findall("Row")]
    assert rows == [["2", "bog", "117", "19", "14"], ["5", "fen", "246", "209", "39"]]


@settings(deadline=None, max_examples=60)
@given(st.lists(NAMES, min_size=1, max_size=5))
def test_any_name_comes_back_equal(tmp_path_factory, names):
    tif = tmp_path_factory.mktemp("names") / "classes.tif"
    classes = [MapClass(code, name, "#112233") for code, name in enumerate(names, start=1)]
    qml, aux = write_class_style(tif, classes)
    assert [entry.get("label") for entry in read(qml).iter("paletteEntry")] == names
    assert [item.text for item in read(aux).iter("Category")][1:] == names


@pytest.mark.parametrize("name", ["bog\x00fen", "bog\nfen", "bog\tfen", "bog\x0bfen", "bog\ud800fen", "bog\ufffffen"])
def test_what_xml_cannot_hold_becomes_a_space(tmp_path, name):
    qml, aux = write_class_style(tmp_path / "classes.tif", [MapClass(1, name, "#112233")])
    assert next(read(qml).iter("paletteEntry")).get("label") == "bog fen"
    assert [item.text for item in read(aux).iter("Category")] == [None, "bog fen"]


def test_dots_in_the_name_stay(tmp_path):
    qml, aux = write_class_style(tmp_path / "map.v2.tif", class_table("new-brunswick"))
    assert (qml.name, aux.name) == ("map.v2.qml", "map.v2.tif.aux.xml")


def test_gdal_still_reads_the_map_with_the_names_beside_it(tmp_path):
    tif = tmp_path / "classes.tif"
    write_class_style(tif, class_table("new-brunswick"))
    pixels = np.array([[1, 2], [9, 0]], dtype=np.uint8)
    write_cog(
        tif,
        Grid("EPSG:32620", 10.0, 3e5, 5.1e6, 2, 2),
        lambda block: pixels[block.slices],
        dtype="uint8",
        nodata=0,
        overview="mode",
        colours=None,
        description="class",
        tags={},
    )
    with rasterio.open(tif) as source:
        assert {str(tif), f"{tif}.aux.xml"} == set(source.files)
        np.testing.assert_array_equal(source.read(1), pixels)
        assert source.nodata == 0


@pytest.mark.parametrize(
    "classes", [(), (MapClass(1, "bog", "#112233"), MapClass(1, "fen", "#445566"))], ids=["none", "one code twice"]
)
def test_classes_that_make_no_legend_are_refused(tmp_path, classes):
    with pytest.raises(UsageError, match="Give every class a code of its own"):
        write_class_style(tmp_path / "classes.tif", classes)
    assert not list(tmp_path.iterdir())


def test_a_ramp_runs_from_low_to_high(tmp_path):
    qml = write_ramp_style(tmp_path / "confidence.tif", low=0, high=100, label="Probability & <more>")
    assert qml.name == "confidence.qml"
    shader = read(qml).find("pipe/rasterrenderer[@type='singlebandpseudocolor']/rastershader/colorrampshader")
    items = [item.attrib for item in shader.findall("item")]
    assert [float(item["value"]) for item in items] == [0, 25, 50, 75, 100]
    assert [items[0]["label"], items[1]["label"], items[-1]["label"]] == [
        "Probability & <more> 0",
        "25",
        "Probability & <more> 100",
    ]
    assert items[0]["color"] == "#440154"
    assert (float(shader.get("minimumValue")), float(shader.get("maximumValue"))) == (0, 100)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (float("nan"), 1)])
def test_a_ramp_needs_two_ends(tmp_path, low, high):
    with pytest.raises(UsageError, match=r"colour ramp of confidence\.tif"):
        write_ramp_style(tmp_path / "confidence.tif", low=low, high=high, label="x")


def test_same_classes_same_bytes_and_nothing_else_in_the_folder(tmp_path):
    first = [path.read_bytes() for path in write_class_style(tmp_path / "classes.tif", class_table("new-brunswick"))]
    again = [path.read_bytes() for path in write_class_style(tmp_path / "classes.tif", class_table("new-brunswick"))]
    assert first == again
    assert sorted(item.name for item in tmp_path.iterdir()) == ["classes.qml", "classes.tif.aux.xml"]
