"""What the map on the page is made of: codes that survive, names that stay names, a size that has a bound."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import zlib

import jinja2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from wetmap.classes import MapClass
from wetmap.errors import WorkspaceError
from wetmap.geo import Grid
from wetmap.products.geotiff import write_cog
from wetmap.report import viewer
from wetmap.report.viewer import Background, MeasureLayer, ViewerData, as_script, viewer_view

CLASSES = (MapClass(1, "bog", "#75130e"), MapClass(2, "fen", "#f6d127"), MapClass(254, "upland", "#dddddd"))
NASTY = 'bog & "fen" <b></script><!--'


def write(path, pixels, dtype="uint8", nodata=0, overview="mode", crs="EPSG:32620", at=(300_000.0, 5_100_000.0)):
    names = path.stem if pixels.ndim == 2 else tuple(f"band {number}" for number in range(len(pixels)))
    write_cog(
        path,
        Grid(crs, 10.0, *at, *pixels.shape[-2:]),
        lambda block: pixels[(..., *block.slices)],
        dtype=dtype,
        nodata=nodata,
        overview=overview,
        colours=None,
        description=names,
        tags={},
    )
    return path


def unpacked(row):
    codes = np.frombuffer(zlib.decompress(base64.b64decode(row["codes"])), np.uint8)
    return codes.reshape(row["height"], row["width"])


def packed(view):
    return json.loads(str(view["data"]))


def noise(shape, seed=0):
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 254], np.uint8), shape)


@pytest.fixture
def data(tmp_path):
    codes = noise((50, 70))
    percent = np.where(codes == 0, 255, np.arange(50 * 70).reshape(50, 70) % 101).astype(np.uint8)
    measure = MeasureLayer(write(tmp_path / "confidence.tif", percent, nodata=255, overview="average"), "Confidence")
    return ViewerData("Lower river", write(tmp_path / "classes.tif", codes), CLASSES, [measure])


def test_classes_hide_the_background_at_first_so_that_colours_are_those_of_the_legend(data):
    photo = Background("Summer", b"jpeg")
    environment = jinja2.Environment(loader=jinja2.PackageLoader("wetmap", "report"), autoescape=True)
    page = environment.get_template("viewer.html").render(
        viewer=viewer_view(dataclasses.replace(data, backgrounds=[photo]))
    )
    assert 'id="viewer-opacity-classes" min="10" max="100" step="5" value="100"' in page


def test_codes_and_percent_arrive_exactly(data):
    found = packed(viewer_view(data))
    np.testing.assert_array_equal(unpacked(found["raster"]), noise((50, 70)))
    expected = np.where(noise((50, 70)) == 0, 255, np.arange(3500).reshape(50, 70) % 101)
    np.testing.assert_array_equal(unpacked(found["measures"][0]), expected)
    assert found["measures"][0] | {"codes": ""} == {
        "id": "measure-0",
        "title": "Confidence",
        "unit": "",
        "low": 0.0,
        "high": 100.0,
        "offset": 0.0,
        "step": 1.0,
        "decimals": 0,
        "clipped": False,
        "width": 70,
        "height": 50,
        "codes": "",
    }
    assert found["ground"] == {"left": 300_000.0, "top": 5_100_000.0, "width": 700.0, "height": 500.0}
    assert found["crs"] == "EPSG:32620"
    assert found["classes"][2] == {"code": 254, "name": "upland", "colour": "#dddddd"}


def test_a_code_of_no_class_is_no_class(data):
    fewer = dataclasses.replace(data, classes=CLASSES[:2])
    assert set(np.unique(unpacked(packed(viewer_view(fewer))["raster"]))) == {0, 1, 2}


def test_a_map_of_at_most_2048_pixels_is_whole_and_the_page_says_so(tmp_path, data):
    assert "Every pixel of the map is here (10 m)" in viewer_view(data)["fineness"]
    codes = np.repeat(np.array([[1, 2]], np.uint8), 1500, axis=1).repeat(4, axis=0)
    view = viewer_view(ViewerData("wide", write(tmp_path / "wide.tif", codes), CLASSES))
    assert unpacked(packed(view)["raster"]).shape == (3, 2048)
    assert "coarser than the map: one of its pixels is 15 m wide, one of the map is 10 m" in view["fineness"]
    assert np.unique(unpacked(packed(view)["raster"])).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("values", "low", "high", "nodata", "expected"),
    [
        ([0, 3, 40, 9], 0.0, None, 65535, ["0", "3", "40", "9"]),
        ([0, 500, 1000, 65535], 0.0, None, 65535, ["0", "500", "1000", None]),
        ([1, 2, 65535, 65535], 0.0, None, 65535, ["1", "2", None, None]),
        ([90, 254, 300, 65535], 0.0, 200.0, 65535, ["90", "254", "254", None]),
        ([65535] * 4, 0.0, None, 65535, [None] * 4),
    ],
)
def test_a_measure_reads_back_as_it_was(tmp_path, values, low, high, nodata, expected):
    array = np.array([values, values], np.uint16)
    tif = write(tmp_path / "m.tif", array, dtype="uint16", nodata=nodata, overview="average")
    classes = write(tmp_path / "c.tif", np.ones_like(array, np.uint8))
    row = packed(viewer_view(ViewerData("m", classes, CLASSES, [MeasureLayer(tif, "m", low=low, high=high)])))[
        "measures"
    ][0]
    found = [
        None if code == 255 else f"{row['offset'] + code * row['step']:.{row['decimals']}f}"
        for code in unpacked(row)[0].tolist()
    ]
    if row["step"] > 1:  # more values than codes: to half a step
        truth = [None if text is None else pytest.approx(float(text), abs=row["step"] / 2) for text in expected]
        assert [None if text is None else float(text) for text in found] == truth
    else:
        assert [None if text is None else float(text) for text in found] == [
            None if text is None else float(text) for text in expected
        ]
    assert row["clipped"] == (300 in values)


def test_a_season_is_a_band(tmp_path):
    looks = np.stack([np.full((4, 5), 3, np.uint16), np.full((4, 5), 8, np.uint16)])
    tif = write(tmp_path / "clear_count.tif", looks, dtype="uint16", nodata=65535, overview="average")
    classes = write(tmp_path / "c.tif", np.ones((4, 5), np.uint8))
    layers = [MeasureLayer(tif, f"Clear looks {band}", high=None, band=band) for band in (1, 2)]
    rows = packed(viewer_view(ViewerData("m", classes, CLASSES, layers)))["measures"]
    values = [row["offset"] + row["step"] * int(unpacked(row)[0, 0]) for row in rows]
    assert values == pytest.approx([3, 8])
    assert [row["id"] for row in rows] == ["measure-0", "measure-1"]


def test_the_size_has_a_bound_and_a_large_map_is_shown_coarser(tmp_path, monkeypatch):
    monkeypatch.setattr(viewer, "LEAST_PX", 64)
    monkeypatch.setattr(viewer, "MOST_BYTES", 60_000)
    codes = noise((300, 400))
    values = np.random.default_rng(1).integers(0, 101, codes.shape).astype(np.uint8)
    tif = write(tmp_path / "p.tif", values, nodata=255, overview="average")
    measures = [MeasureLayer(tif, f"m{number}") for number in range(3)]
    given = ViewerData("noise", write(tmp_path / "c.tif", codes), CLASSES, measures, [Background("b", b"x" * 9000)])
    view = viewer_view(given)
    assert len(str(view["data"])) < 60_000 + 2000  # and what is no raster: classes, latitudes
    assert unpacked(packed(view)["raster"]).shape == (75, 100)
    assert "coarser than the map" in view["fineness"]


def test_the_bound_of_the_page_is_what_the_docs_may_say():
    assert (viewer.LONGEST_PX, viewer.MOST_BYTES) == (2048, 16_000_000)


@settings(deadline=None, max_examples=60)
@given(st.text() | st.sampled_from([NASTY, "<!--<script>", "]]>", "\u2028", "{{ 7 * 7 }}"]))
def test_data_in_a_script_element_stays_data(text):
    said = str(as_script({"name": text}))
    assert not re.search(r"[<>&]|[^\x20-\x7e]", said)
    assert json.loads(said) == {"name": text}


def test_names_with_markup_are_text_in_the_page(data):
    named = dataclasses.replace(
        data,
        title=NASTY,
        classes=[MapClass(1, NASTY, "#75130e")],
        measures=[dataclasses.replace(data.measures[0], title=NASTY, note=NASTY)],
        backgrounds=[Background(NASTY, b"")],
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wetmap", "report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("viewer.html").render(viewer=viewer_view(named))
    assert page.count("</script>") == 2
    assert "<b>" not in page
    assert "<!--" not in page.split("<script", 1)[0]
    assert page.count("bog &amp; &#34;fen&#34; &lt;b&gt;") >= 6


def test_the_script_is_the_one_that_the_policy_allows_and_asks_nobody(data):
    view = viewer_view(data)
    digest = base64.b64encode(hashlib.sha256(str(view["script"]).encode()).digest()).decode()
    assert view["script_hash"] == f"sha256-{digest}"
    for word in ("http:", "https:", "//www", "fetch(", "XMLHttp", "import(", "eval(", "innerHTML", "</"):
        assert word not in view["script"], word
    for word in ("url(", "@import", "</"):
        assert word not in view["css"], word
    assert "\r" not in view["script"]


def test_a_simulated_map_says_so_itself(data):
    environment = jinja2.Environment(loader=jinja2.PackageLoader("wetmap", "report"), autoescape=True)
    template = environment.get_template("viewer.html")
    assert template.render(viewer=viewer_view(data, simulated=True)).count("SIMULATED") == 2
    assert "SIMULATED" not in template.render(viewer=viewer_view(data))


def test_same_map_same_bytes(data):
    assert str(viewer_view(data)["data"]) == str(viewer_view(data)["data"])


def test_a_map_that_is_gone_is_said(data, tmp_path):
    with pytest.raises(WorkspaceError, match=r"gone\.tif cannot be read"):
        viewer_view(dataclasses.replace(data, classes_tif=tmp_path / "gone.tif"))


@pytest.mark.parametrize(
    ("crs", "at", "shape"),
    [
        ("EPSG:32620", (300_000.0, 5_400_000.0), (40_000, 35_000)),  # a province in UTM
        ("EPSG:2953", (2_300_000.0, 7_700_000.0), (35_000, 40_000)),  # the same in the province's stereographic grid
        ("EPSG:3832", (2_800_000.0, 8_000_000.0), (20_000, 20_000)),  # over the date line
        ("EPSG:32633", (400_000.0, 5_000_000.0), (150, 130)),
    ],
)
def test_latitude_and_longitude_are_right_everywhere(crs, at, shape):
    frame = viewer._Frame(viewer.CRS.from_user_input(crs), *at, 10.0, *shape)
    found = viewer._lattice(frame)
    assert found is not None
    nodes = found["rows"]
    assert nodes <= viewer.MOST_NODES
    lon, lat = (np.array(found[name]).reshape(nodes, nodes) for name in ("lon", "lat"))
    u, v = np.random.default_rng(2).uniform(0, 1, (2, 2000))
    true_lon, true_lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(
        at[0] + u * shape[1] * 10, at[1] - v * shape[0] * 10
    )
    col, row = u * (nodes - 1), v * (nodes - 1)
    i, j = row.astype(int), col.astype(int)
    s, t = col - j, row - i
    for values, truth in ((lon, true_lon), (lat, true_lat)):
        got = (values[i, j] * (1 - s) + values[i, j + 1] * s) * (1 - t)
        got += (values[i + 1, j] * (1 - s) + values[i + 1, j + 1] * s) * t
        assert np.abs((got - truth + 180) % 360 - 180).max() * 111_320 < 2.5  # metres, of pixels of 10 m
