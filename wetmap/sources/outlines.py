"""Outlines of scenes on the globe: across the antimeridian, missing, or in another unit than the standard asks for.

Archives give an outline that crosses 180 degrees in three ways: as two polygons, as one that goes beyond 180, or as one
whose longitudes jump from 179 to -179, which on paper covers the rest of the world and not the scene.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
from pyproj import Geod, Transformer
from shapely.errors import ShapelyError
from shapely.geometry import Polygon, shape
from shapely.geometry.base import BaseGeometry

from wetmap.geo import Aoi, Grid

#: Outlines of scenes are trusted to this much, degrees (about 2 km).
NEAR_DEG = 0.02
#: A ring with a wider step between neighbouring vertices jumps over the antimeridian, degrees: no scene is that wide.
JUMP_DEG = 180.0
#: What broken outlines end in.
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, ShapelyError)
_GEOD = Geod(ellps="WGS84")


def outline_of(item: Mapping[str, Any]) -> BaseGeometry | None:
    """Where a STAC item says it lies: longitude and latitude, longitudes within -180 to 180, split at the antimeridian.

    Args:
        item: STAC item, of which ``geometry`` or else ``bbox`` is used.

    Returns:
        The outline, or None where the item gives none that can be used: no geometry, a broken one, or coordinates
        that are not degrees (some items hold metres of their UTM zone).
    """
    geometry = item.get("geometry")
    if geometry:
        try:
            outline = on_globe(shape(dict(geometry)))
        except _BROKEN:
            outline = None
        if outline is not None:
            return outline
    return _of_box(item.get("bbox"))


def on_globe(geometry: BaseGeometry) -> BaseGeometry | None:
    """A geometry in degrees with its longitudes within -180 to 180; None where it is empty or not in degrees."""
    if geometry.is_empty:
        return None
    west, south, east, north = geometry.bounds
    if not (-360 <= west <= east <= 360 and -90 <= south <= north <= 90):  # also where a coordinate is not a number
        return None
    pieces = [piece for part in shapely.get_parts(shapely.force_2d(geometry)) for piece in _unrolled(part)]
    valid = [shapely.make_valid(piece) for piece in pieces]
    whole = valid[0] if len(valid) == 1 else shapely.union_all(valid)
    return None if whole.is_empty else whole


def touches(item: Mapping[str, Any], aoi: Aoi) -> bool:
    """Whether an item's outline meets the area; yes where its outline is not known."""
    outline = outline_of(item)
    return outline is None or bool(shapely.intersects(outline, aoi.geometry))


def near(item: Mapping[str, Any], window: Grid) -> bool:
    """Whether an item's outline comes near a window of the grid; yes where its outline is not known."""
    outline = outline_of(item)
    return outline is None or bool(shapely.intersects(outline, window_outline(window)))


@functools.lru_cache(maxsize=64)
def window_outline(window: Grid) -> BaseGeometry:
    """A window of the grid and ``NEAR_DEG`` around it, in longitude and latitude."""
    edge = shapely.segmentize(shapely.box(*window.bounds), window.res_m * max(window.shape) / 8)
    to_degrees = Transformer.from_crs(window.crs, "EPSG:4326", always_xy=True)
    outline = shapely.transform(edge, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
    return on_globe(shapely.buffer(_follow(outline), NEAR_DEG)) or shapely.box(-180, -90, 180, 90)


def area_m2(geometry: BaseGeometry) -> float:
    """Area on the WGS 84 ellipsoid, m2."""
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type in {"Polygon", "MultiPolygon"}]
    return float(sum(abs(_GEOD.geometry_area_perimeter(part)[0]) for part in parts))


def _unrolled(part: BaseGeometry) -> list[BaseGeometry]:
    """One polygon as the pieces that it has within -180 to 180."""
    followed = _follow(part)
    west, _, east, _ = followed.bounds
    if west >= -180 and east <= 180:
        return [followed]
    turns = [shapely.make_valid(_moved(followed, turn)) for turn in (-360.0, 0.0, 360.0)]
    pieces = [shapely.intersection(turned, shapely.box(-180, -90, 180, 90)) for turned in turns]
    return [piece for piece in pieces if piece.area > 0]


def _moved(part: BaseGeometry, degrees: float) -> BaseGeometry:
    return shapely.transform(part, lambda xy: np.column_stack([xy[:, 0] + degrees, xy[:, 1]]))


def _follow(part: BaseGeometry) -> BaseGeometry:
    """A polygon whose rings go on beyond 180 degrees where they jumped from one side of the map to the other."""
    if not isinstance(part, Polygon) or not _jumps(part):
        return part
    beyond = shapely.transform(
        part, lambda xy: np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]])
    )
    west, _, east, _ = beyond.bounds
    return beyond if 0 < east - west < JUMP_DEG else part  # else it is a band around the globe


def _jumps(part: Polygon) -> bool:
    steps = np.diff(shapely.get_coordinates(part.exterior)[:, 0])
    return bool((np.abs(steps) > JUMP_DEG).any())


def _of_box(box: Any) -> BaseGeometry | None:
    """The outline of a ``bbox`` of 4 or 6 numbers; west may be greater than east (RFC 7946, 5.2)."""
    if not isinstance(box, list | tuple) or len(box) not in {4, 6}:
        return None
    try:
        west, south, east, north = (float(box[at]) for at in ((0, 1, 2, 3) if len(box) == 4 else (0, 1, 3, 4)))
    except (TypeError, ValueError, OverflowError):
        return None
    if west > east:
        east += 360
    if west == east or south == north:
        return None
    return on_globe(shapely.box(west, south, east, north))
