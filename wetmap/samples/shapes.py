"""Geometries of a vector file: repaired, reduced to polygons and points, and projected to the grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from wetmap.geo import Grid
from wetmap.geo.aoi import DENSIFY_DEG
from wetmap.samples.labels import Report

#: Longest piece of an edge before it is projected from another projected CRS, metres: the chord of a 1 km piece leaves
#: the curve by millimetres.
DENSIFY_M = 1000.0


def sound(geometry: NDArray[Any], report: Report) -> NDArray[Any]:
    """Repair invalid geometries and keep the polygons (or points) of each; what has neither becomes None."""
    present = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    invalid = present & ~shapely.is_valid(geometry)
    report.rows["features_repaired"] = int(invalid.sum())
    if invalid.any():
        first = int(np.flatnonzero(invalid)[0])
        report.note(
            f"{int(invalid.sum())} reference features near the area have an invalid geometry (the first: "
            f"{shapely.is_valid_reason(geometry[first])}); they were repaired.",
            "Look at them in QGIS (Vector > Geometry Tools > Check Validity).",
        )
        geometry = geometry.copy()
        geometry[invalid] = shapely.make_valid(geometry[invalid])
    kept = np.array([_polygons_or_points(shape) for shape in geometry], dtype=object)
    without = sum(shape is None for shape in kept)
    report.rows["features_without_geometry"] = without
    if without:
        report.note(
            f"{without} reference features near the area have neither polygon nor point; they are left out.",
            "Give polygons or points.",
        )
    return kept


def project(geometry: NDArray[Any], crs: CRS, grid: Grid) -> NDArray[Any]:
    """To the grid's CRS, edges densified first: a straight line in one CRS is a curve in another.

    What cannot be projected (it lies on the other side of the earth) becomes None.
    """
    if crs == CRS.from_user_input(grid.crs):
        return geometry
    factor = crs.axis_info[0].unit_conversion_factor if crs.axis_info and not crs.is_geographic else 1.0
    step = DENSIFY_DEG if crs.is_geographic else DENSIFY_M / (factor or 1.0)
    to_grid = Transformer.from_crs(crs, grid.crs, always_xy=True)
    dense = shapely.segmentize(geometry, step)

    def moved(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(to_grid.transform(xy[:, 0], xy[:, 1]))

    projected: NDArray[Any] = shapely.transform(dense, moved)
    projected[~np.isfinite(shapely.bounds(projected)).all(axis=1)] = None
    return projected


def _polygons_or_points(shape: Any) -> Any:
    if shape is None or shape.is_empty:
        return None
    parts = shapely.get_parts(shape)
    while any(
        part.geom_type in {"GeometryCollection", "MultiPolygon", "MultiPoint", "MultiLineString"} for part in parts
    ):
        parts = shapely.get_parts(parts)
    for kind, make in (("Polygon", shapely.multipolygons), ("Point", shapely.multipoints)):
        kept = [part for part in parts if part.geom_type == kind and not part.is_empty]
        if kept:
            return kept[0] if len(kept) == 1 else make(kept)
    return None
