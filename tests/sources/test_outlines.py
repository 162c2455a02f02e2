"""Outlines across the antimeridian, missing, or in metres."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from shapely.geometry import MultiPolygon, Polygon, box, mapping

from wetmap.geo import Aoi, Grid
from wetmap.sources.outlines import area_m2, near, on_globe, outline_of, touches, window_outline

#: A scene of 2 x 1 degrees over the antimeridian, in the three ways that archives write it down, and as a box.
SPLIT = MultiPolygon([box(179, 50, 180, 51), box(-180, 50, -179, 51)])
BEYOND = box(179, 50, 181, 51)
BEFORE = box(-181, 50, -179, 51)
JUMPING = Polygon([(179, 50), (-179, 50), (-179, 51), (179, 51)])


def item(geometry: Any = None, **more: Any) -> dict[str, Any]:
    return {"geometry": None if geometry is None else mapping(geometry), **more}


def area_at(lon: float, lat: float) -> Aoi:
    return Aoi("place", MultiPolygon([box(lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01)]))


@pytest.mark.parametrize("geometry", [SPLIT, BEYOND, BEFORE, JUMPING], ids=["split", "beyond", "before", "jumping"])
def test_every_way_to_write_the_antimeridian_is_the_same_ground(geometry: Any) -> None:
    outline = outline_of(item(geometry))
    assert outline is not None
    assert outline.symmetric_difference(SPLIT).area == pytest.approx(0, abs=1e-9)
    for lon, inside in ((179.5, True), (-179.5, True), (178.0, False), (-178.0, False), (0.0, False)):
        assert touches(item(geometry), area_at(lon, 50.5)) is inside


def test_a_box_from_east_to_west_crosses_too() -> None:
    assert touches(item(bbox=[179, 50, -179, 51]), area_at(-179.5, 50.5))
    assert not touches(item(bbox=[179, 50, -179, 51]), area_at(0, 50.5))
    assert touches(item(bbox=[179, 50, 0, -179, 51, 100]), area_at(179.5, 50.5))


def test_the_whole_world_is_the_whole_world() -> None:
    for lon in (-179.9, -90.0, 0.0, 90.0, 179.9):
        assert touches(item(box(-180, -90, 180, 90)), area_at(lon, 10))
        assert touches(item(bbox=[-180, -90, 180, 90]), area_at(lon, 10))


@pytest.mark.parametrize(
    "broken",
    [
        item(box(602280, 1325600, 885640, 1569800)),  # metres of UTM, as in one real item
        item(),
        {},
        item(bbox=[1, 2]),
        item(bbox=["a", 0, 1, 1]),
        {"geometry": {"type": "Polygon", "coordinates": []}},
        {"geometry": {"type": "Nonsense"}},
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], ["x", 1], [1, 1], [0, 0]]]}},
        item(box(float("inf"), 0, 1, 1)),
    ],
)
def test_an_outline_that_cannot_be_used_leaves_nothing_out(broken: dict[str, Any]) -> None:
    assert outline_of(broken) is None
    assert touches(broken, area_at(10, 10))
    assert near(broken, Grid("EPSG:32619", 10.0, 700000.0, 5010000.0, 8, 8))


def test_metres_fall_back_on_a_box_in_degrees() -> None:
    both = item(box(602280, 1325600, 885640, 1569800), bbox=[10, 10, 11, 11])
    assert touches(both, area_at(10.5, 10.5))
    assert not touches(both, area_at(20, 20))


def test_a_ring_that_crosses_itself_is_mended() -> None:
    bow = Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    assert touches(item(bow), area_at(0.9, 0.5))


@settings(deadline=None, max_examples=60)
@given(
    west=st.floats(-180, 179.9),
    width=st.floats(0.01, 20),
    south=st.floats(-70, 60),
    along=st.floats(0.05, 0.95),
    way=st.sampled_from(["beyond", "jumping", "before"]),
)
def test_a_point_inside_is_inside_however_the_outline_is_written(
    west: float, width: float, south: float, along: float, way: str
) -> None:
    scene = box(west, south, west + width, south + 1)
    if way == "jumping":
        scene = shapely.transform(scene, lambda xy: np.column_stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]]))
    elif way == "before" and west > 0:
        scene = shapely.transform(scene, lambda xy: xy - [360.0, 0.0])
    outline = on_globe(scene)
    assert outline is not None
    lon = (west + along * width + 180) % 360 - 180
    assert shapely.distance(outline, shapely.Point(lon, south + 0.5)) < 1e-9
    assert outline.area == pytest.approx(width, rel=1e-6)


def test_windows_beside_the_antimeridian_see_scenes_on_both_sides() -> None:
    """Zone 60 ends at 180; a block of its map reaches a kilometre beyond."""
    to_metres = Transformer.from_crs("EPSG:4326", "EPSG:32660", always_xy=True)
    x, y = to_metres.transform(180.0, 50.5)
    window = Grid("EPSG:32660", 10.0, round(x - 1000, -1), round(y + 1000, -1), 200, 200)
    west, _, east, _ = window_outline(window).bounds
    assert (west, east) == (-180, 180), "split, not wrapped around the world"
    assert area_m2(window_outline(window)) < 5e7
    for geometry in (SPLIT, BEYOND, JUMPING, box(-180, 50, -179, 51), box(179, 50, 180, 51)):
        assert near(item(geometry), window)
    assert not near(item(box(0, 50, 1, 51)), window)


def test_area_is_on_the_ellipsoid() -> None:
    """One degree square at the equator: 12,308.8 km2 (WGS 84)."""
    assert area_m2(box(0, 0, 1, 1)) / 1e6 == pytest.approx(12308.8, rel=1e-4)
    assert area_m2(SPLIT) == pytest.approx(area_m2(box(10, 50, 12, 51)), rel=1e-3)  # edges are geodesics
