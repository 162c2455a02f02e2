"""Areas of interest that nobody drew: a grid, or a refusal in words."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import parsers
from tests.fuzz.fuzzing import cut_or_bent, fuzzed, mutations
from wetmap.errors import AoiError
from wetmap.geo import Grid, read_aoi

RING = [[-64.41, 45.89], [-64.39, 45.89], [-64.39, 45.91], [-64.41, 45.91], [-64.41, 45.89]]
HOLE = [[-64.405, 45.895], [-64.405, 45.9], [-64.40, 45.9], [-64.40, 45.895], [-64.405, 45.895]]
PLAIN = {"type": "Polygon", "coordinates": [RING, HOLE]}
MULTI = {"type": "MultiPolygon", "coordinates": [[RING], [[[x + 0.1, y] for x, y in RING]]]}
WHOLE: dict[str, Any] = {
    "type": "FeatureCollection",
    "name": "area",
    "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
    "features": [
        {"type": "Feature", "id": 1, "properties": {"name": "a", "n": 1.5}, "geometry": PLAIN},
        {"type": "Feature", "properties": {"name": "b", "when": "2021-06-01"}, "geometry": MULTI},
    ],
}
TEXT = json.dumps(WHOLE).encode()


def test_the_area_that_is_changed_is_good(inside: Path) -> None:
    assert isinstance(parsers.area(TEXT, inside), Grid)


@fuzzed(70)
@given(data=mutations(WHOLE))
def test_changed_values(data: Any, inside: Path) -> None:
    parsers.area(json.dumps(data).encode("utf-8", "surrogatepass"), inside)


@fuzzed(40)
@given(data=cut_or_bent(TEXT))
def test_changed_text(data: bytes, inside: Path) -> None:
    parsers.area(data, inside)


NUMBERS = st.one_of(
    st.floats(-200, 200), st.sampled_from([180.0, -180.0, 90.0, -90.0, 1e15, 1e308, float("nan"), float("inf"), 1e-320])
)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS).map(list), max_size=7).map(lambda ring: ring + ring[:1])


@fuzzed(60)
@given(rings=st.lists(POINTS, max_size=3), kind=st.sampled_from(["Polygon", "MultiPolygon", "GeometryCollection"]))
def test_any_coordinates(rings: list[Any], kind: str, inside: Path) -> None:
    shape: dict[str, Any] = {"type": kind, "coordinates": rings if kind == "Polygon" else [rings]}
    if kind == "GeometryCollection":
        shape = {"type": kind, "geometries": [{"type": "Polygon", "coordinates": rings}]}
    parsers.area(json.dumps(shape).encode(), inside)


def polygon(*ring: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [list(ring)]}


def nested(levels: int) -> dict[str, Any]:
    shape: dict[str, Any] = PLAIN
    for _ in range(levels):
        shape = {"type": "GeometryCollection", "geometries": [shape]}
    return shape


def in_crs(code: str, *ring: Any) -> dict[str, Any]:
    crs = {"type": "name", "properties": {"name": code}}
    feature = {"type": "Feature", "properties": {}, "geometry": polygon(*ring)}
    return {"type": "FeatureCollection", "crs": crs, "features": [feature]}


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({}, "cannot be read"),
        ([], "cannot be read"),
        ({"type": "FeatureCollection", "features": []}, "no geometry"),
        ({"type": "Polygon", "coordinates": []}, "no geometry"),
        (polygon([0, 0], [1, 1], [1, 0], [0, 1], [0, 0]), "invalid"),
        (polygon([0, 0], [1, 1], [2, 2], [0, 0]), "invalid"),
        (polygon([179, 1], [-179, 1], [-179, 2], [179, 2], [179, 1]), "antimeridian"),
        (polygon([179, 1], [181, 1], [181, 2], [179, 2], [179, 1]), "antimeridian"),
        (polygon([10, 84], [11, 84], [11, 89], [10, 89], [10, 84]), "UTM"),
        (polygon([10, 84], [11, 84], [11, 189], [10, 189], [10, 84]), "UTM"),
        (polygon([700000, 5e6], [700100, 5e6], [700100, 5.1e6], [700000, 5e6]), "coordinates up to 5.1e+06"),
        (polygon([0, 0], [float("nan"), 1], [1, 1], [0, 0]), "invalid"),
        (polygon([0, 0], [float("inf"), 1], [1, 1], [0, 0]), "invalid"),
        (polygon([0, 0], [1e308, 1e308], [1, 0], [0, 0]), "coordinates up to"),
        (nested(1), "GeometryCollection"),
        (nested(200), ""),
        (in_crs("EPSG:32620", [1e300, 1e300], [-1e300, 1e300], [0, -1e300], [1e300, 1e300]), "coordinates up to"),
        (in_crs("EPSG:32620", [1e12, 1e12], [2e12, 1e12], [2e12, 2e12], [1e12, 1e12]), "coordinates up to"),
        (in_crs("EPSG:99999999", *RING), ""),
        (in_crs("../../etc/passwd", *RING), ""),
        ({"type": "Point", "coordinates": [0, 0]}, "Point"),
    ],
)
def test_traps(shape: Any, words: str, inside: Path) -> None:
    found = parsers.area(json.dumps(shape).encode(), inside)
    assert isinstance(found, str) or not words
    assert words in str(found)


def test_heights_are_left_out(inside: Path) -> None:
    high = polygon(*[[x, y, 100.0] for x, y in RING])
    assert parsers.area(json.dumps(high).encode(), inside) == parsers.area(json.dumps(polygon(*RING)).encode(), inside)


@pytest.mark.parametrize("name", ["a" * 300, "a\udce9", "a;b", "-rf", "a'b", "a b", "%2e%2e", "tourbière"])
def test_names_of_files(name: str, inside: Path) -> None:
    path = inside / f"{name}.geojson"
    with contextlib.suppress(OSError):
        path.write_bytes(TEXT)
    found = ""
    with parsers.quiet(), contextlib.suppress(AoiError):
        found = read_aoi(path).name
    assert found in {name, ""}
    assert found or not name.isalnum() or len(name) > 100
