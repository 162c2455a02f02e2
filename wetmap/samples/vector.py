"""Reference polygons and points from a vector file onto the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.features import rasterize

from wetmap.classes import MapClass
from wetmap.errors import ReferenceDataError, UsageError
from wetmap.geo import Aoi, Grid
from wetmap.recipe import ClassSpec, MoreReference, Reference
from wetmap.samples.class_table import codes_by_value, resolve_classes, value_key, value_text
from wetmap.samples.class_values import refuse_unfound
from wetmap.samples.labels import UNLABELLED, Painted, Report
from wetmap.samples.shapes import project, sound
from wetmap.samples.sites import name_sites

#: Segments per quarter circle of a buffer. Its edges lie inside the circle by a factor of cos(45 degrees / segments).
BUFFER_SEGMENTS = 16
#: Feature ids above this are replaced by the place in the file, so that ids of squares still fit int32 behind them.
LARGEST_ID = 2**30
#: Fields or values named in a message, at most.
LISTED = 20


@dataclass(frozen=True)
class _Layer:
    name: str
    crs: CRS
    field: str | None
    """The class field; None where all features have one value."""
    features: int


class _NothingThereError(ReferenceDataError):
    """No feature of a file lies in the area."""


@dataclass(frozen=True)
class _Features:
    geometry: NDArray[Any]
    """Polygons and points that touch the area, in the grid's CRS."""
    ids: NDArray[np.int32]
    values: list[Any]
    """Class values; None where empty."""
    sites: list[Any] | None
    """Values of the site field, None where empty; None without such a field."""
    near: NDArray[Any]
    """Every geometry near the area, for the background's distance."""


def read_vector(
    reference: Reference,
    classes: Sequence[ClassSpec],
    grid: Grid,
    aoi: Aoi,
    inside: NDArray[np.bool_],
    *,
    report: Report,
) -> Painted:
    """Read polygons or points of any CRS onto the grid.

    Args:
        reference: The file, layer, class field and site field.
        classes: The classes of the recipe, or none.
        grid: The map's raster.
        aoi: The area.
        inside: Pixels of the area, (height, width).
        report: Where counts and notes go.

    Raises:
        UsageError: The layer or the class field is not named or does not exist, or the site field does not.
        ReferenceDataError: Unreadable, without CRS or geometry; no feature in the area; none of a class of the map.
    """
    features, table, codes, sites = _classified(reference, classes, grid, aoi, report)
    painted, polygon, overlapping = paint(features.geometry, features.ids, codes, grid, inside)
    if overlapping:
        report.note(
            f"In {overlapping} pixels features of different classes overlap; these pixels stay unlabelled.",
            "Mend the overlaps in QGIS (Vector > Geoprocessing) if they are many.",
        )
    used = np.unique(polygon[polygon >= 0])
    report.rows["overlapping_pixels"] = overlapping
    report.rows["features_used"] = len(used)
    report.rows["features_without_pixel"] = int((codes > 0).sum()) - len(used)
    far = None
    if reference.background is not None:
        far = far_from(features.near, reference.background.buffer_m, grid)
    return Painted(painted, polygon, table, int(features.ids.max()) + 1, far, sites)


def check_vector(reference: Reference, classes: Sequence[ClassSpec], grid: Grid, aoi: Aoi) -> None:
    """Refuse what ``read_vector`` would refuse of a file, its fields and its classes; nothing is painted."""
    features, _, _, _ = _classified(reference, classes, grid, aoi, Report())
    refuse_unfound(classes, features.values, reference.background, where=f"in {aoi.name}", field=reference.class_field)


def _classified(
    reference: Reference, classes: Sequence[ClassSpec], grid: Grid, aoi: Aoi, report: Report
) -> tuple[_Features, tuple[MapClass, ...], NDArray[np.int64], Any]:
    """The features in the area, the class table, each feature's code (0: none), and its site if there are sites."""
    layer = _layer(reference)
    features = _features(reference, layer, grid, aoi, report)
    for more in reference.also:
        features = _with_more(features, more, reference, grid, aoi, report=report)
    values = [value for value in features.values if value is not None]
    table = resolve_classes(classes, values)
    codes = _codes(features, codes_by_value(classes, table), report)
    sites = None
    if features.sites is not None:
        sites = name_sites(features.ids, features.sites, report)
        codes[[value is None for value in features.sites]] = 0
    if not (codes > 0).any():
        found = ", ".join(repr(text) for text in sorted({value_text(value) for value in values})[:LISTED]) or "nothing"
        raise ReferenceDataError(
            f"None of the {len(codes)} reference features in the area is of a class of the recipe: {layer.field} holds "
            f"{found}, and the recipe names {', '.join(row.name for row in table)}.",
            do="List these values under `reference:` of the classes they belong to.",
        )
    return features, table, codes, sites


def _with_more(
    first: _Features, more: MoreReference, reference: Reference, grid: Grid, aoi: Aoi, *, report: Report
) -> _Features:
    """The features of another file behind those there are, with ids of their own.

    Raises:
        UsageError: As ``read_vector``.
        ReferenceDataError: Likewise; a file without a feature in the area is a note.
    """
    single = Reference(path=more.path, class_field=more.class_field, layer=more.layer, background=reference.background)
    layer, own = _layer(single, named=more.value is None), Report()
    try:
        found = _features(single, layer, grid, aoi, own, value=more.value)
    except _NothingThereError as error:
        report.note(error.what, "Nothing of that file is used.")
        return first
    report.rows.setdefault("also", []).append({"file": more.path.name, **own.rows})
    report.notes += own.notes
    count = len(found.ids)
    return _Features(
        geometry=np.concatenate([first.geometry, found.geometry]),
        ids=np.concatenate([first.ids, np.arange(count, dtype=np.int32) + np.int32(first.ids.max() + 1)]),
        values=[*first.values, *found.values],
        sites=None if first.sites is None else [*first.sites, *[None] * count],
        near=np.concatenate([first.near, found.near]),
    )


def paint(
    geometry: NDArray[Any], ids: NDArray[np.int32], codes: NDArray[np.int64], grid: Grid, inside: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.int32], int]:
    """Paint features of known class onto the grid by the rule of the pixel centre.

    Args:
        geometry: Polygons and points in the grid's CRS, (feature,).
        ids: Their ids, (feature,).
        codes: Their class codes, (feature,); 0 = none, not painted.
        grid: The raster.
        inside: Pixels of the area, (height, width).

    Returns:
        Codes (height, width) with 255 where unlabelled, ids (height, width) with -1 (where features of one class
        overlap, the lowest id), and the number of pixels of the area in which classes overlap.
    """
    painted = np.full(grid.shape, UNLABELLED, dtype=np.uint8)
    clash = np.zeros(grid.shape, dtype=np.bool_)
    for code in np.unique(codes[codes > 0]):
        mask = _burn(((shape, 1) for shape in geometry[codes == code]), grid, np.uint8).astype(np.bool_)
        clash |= mask & (painted != UNLABELLED)
        painted[mask] = code
    lowest_last = np.argsort(-ids, kind="stable")
    known = lowest_last[codes[lowest_last] > 0]
    polygon = _burn(((geometry[at], int(ids[at]) + 1) for at in known), grid, np.int32)
    polygon -= 1  # in place: of a province it is 6 GB
    overlapping = int((clash & inside).sum())
    clash |= ~inside
    painted[clash] = UNLABELLED
    polygon[painted == UNLABELLED] = -1
    return painted, polygon, overlapping


def far_from(geometry: NDArray[Any], buffer_m: float, grid: Grid) -> NDArray[np.bool_]:
    """Pixels whose centre is farther than ``buffer_m`` metres from every feature and that no feature touches.

    Args:
        geometry: Features in the grid's CRS, (feature,).
        buffer_m: Distance, metres.
        grid: The raster.

    Returns:
        (height, width), True where far.
    """
    near = _burn(((shape, 1) for shape in geometry), grid, np.uint8, touched=True).astype(np.bool_)
    if buffer_m > 0:
        outside_circle = buffer_m / math.cos(math.pi / 4 / BUFFER_SEGMENTS)
        wide = shapely.buffer(geometry, outside_circle, quad_segs=BUFFER_SEGMENTS)
        near |= _burn(((shape, 1) for shape in wide), grid, np.uint8).astype(np.bool_)
    return ~near


def _burn(shapes: Any, grid: Grid, dtype: Any, *, touched: bool = False) -> NDArray[Any]:
    listed = list(shapes)
    if not listed:
        return np.zeros(grid.shape, dtype=dtype)
    transform: Affine = grid.transform
    burnt = rasterize(listed, out_shape=grid.shape, fill=0, transform=transform, all_touched=touched, dtype=dtype)
    return np.asarray(burnt)


def _layer(reference: Reference, *, named: bool = True) -> _Layer:
    """The layer that is read; ``named`` says whether a field names the class."""
    path = reference.path
    layers = [str(row[0]) for row in pyogrio.list_layers(path)]
    name = reference.layer or layers[0]
    if name not in layers:
        raise UsageError(
            f"The reference file {path} has no layer {name!r}.", do=f"Choose one of its layers: {_listed(layers)}."
        )
    try:
        info = pyogrio.read_info(path, layer=name, force_feature_count=True)
    except (DataSourceError, DataLayerError) as error:
        raise _unreadable(reference, error) from error
    fields = [str(field) for field in info["fields"]]
    if named and reference.class_field not in fields:
        what = (
            "No class field is named for" if reference.class_field is None else f"No field {reference.class_field!r} in"
        )
        raise UsageError(
            f"{what} the reference file {path} (layer {name}).",
            do=f"Give --class-field (`class_field:` in the recipe) with one of its fields: {_listed(fields)}.",
        )
    if reference.site_field is not None and reference.site_field not in fields:
        raise UsageError(
            f"No field {reference.site_field!r} in the reference file {path} (layer {name}).",
            do=f"Name one of its fields as reference.site_field: {_listed(fields)}.",
        )
    if info["geometry_type"] is None:
        raise ReferenceDataError(f"Layer {name} of {path} holds no geometry.", do="Give a layer of polygons or points.")
    if info["crs"] is None:
        raise ReferenceDataError(
            f"The reference file {path} has no CRS.", do="Set its CRS in QGIS (Layer > Set CRS) and save it again."
        )
    try:
        crs = CRS.from_user_input(info["crs"])
    except CRSError as error:
        raise ReferenceDataError(
            f"The CRS of the reference file {path} is not one that PROJ knows ({info['crs']}).",
            do="Save it with another CRS in QGIS.",
        ) from error
    return _Layer(name, crs, reference.class_field if named else None, int(info["features"]))


def _features(
    reference: Reference, layer: _Layer, grid: Grid, aoi: Aoi, report: Report, *, value: str | int | None = None
) -> _Features:
    bounds = _bounds_in_file(grid, layer.crs, 0.0 if reference.background is None else reference.background.buffer_m)
    columns = list(dict.fromkeys(name for name in (layer.field, reference.site_field) if name is not None))
    try:
        frame = geopandas.read_file(
            reference.path, layer=layer.name, columns=columns, bbox=bounds, fid_as_index=True, engine="pyogrio"
        )
    except (DataSourceError, DataLayerError, FeatureError, ValueError) as error:
        raise _unreadable(reference, error) from error
    report.rows |= {"kind": "vector", "layer": layer.name, "features": layer.features}
    if not len(frame):
        raise _nothing_in_area(reference, layer, grid, aoi, bounds)
    geometry = sound(shapely.force_2d(frame.geometry.to_numpy()), report)
    projected = project(geometry, layer.crs, grid)
    touching = _touches(projected, aoi.geometry_in(grid.crs))
    report.rows["features_outside"] = layer.features - int(touching.sum()) - report.rows["features_without_geometry"]
    if not touching.any():
        raise _nothing_in_area(reference, layer, grid, aoi, bounds)
    return _Features(
        geometry=projected[touching],
        ids=_ids(frame.index.to_numpy())[touching],
        values=[value] * int(touching.sum()) if layer.field is None else _filled(frame[layer.field][touching]),
        sites=None if reference.site_field is None else _filled(frame[reference.site_field][touching]),
        near=projected[~shapely.is_missing(projected)],
    )


def _filled(column: Any) -> list[Any]:
    """Values of a field, None where empty."""
    return [None if pd.isna(value) or not value_text(value) else value for value in column]


def _codes(features: _Features, by_value: dict[str, int], report: Report) -> NDArray[np.int64]:
    """Class code of each feature; 0 for a value that no class stands for, or none."""
    codes = np.zeros(len(features.values), dtype=np.int64)
    unmatched: dict[str, int] = {}
    empty = 0
    for at, value in enumerate(features.values):
        if value is None:
            empty += 1
            continue
        codes[at] = by_value.get(value_key(value), 0)
        if not codes[at]:
            unmatched[value_text(value)] = unmatched.get(value_text(value), 0) + 1
    report.rows["features_without_class"] = empty
    if empty:
        report.note(
            f"{empty} of {len(codes)} reference features in the area have an empty class field; they are left out.",
            "Fill the field if their class is known.",
        )
    report.unmatched(dict(sorted(unmatched.items())), "features")
    return codes


def _touches(geometry: NDArray[Any], area: Any) -> NDArray[np.bool_]:
    shapely.prepare(area)
    return np.asarray(shapely.intersects(area, geometry), dtype=np.bool_)


def _ids(fids: NDArray[Any]) -> NDArray[np.int32]:
    """The file's own feature ids where they are usable, else the place in the file."""
    usable = len(np.unique(fids)) == len(fids) and fids.min() >= 0 and fids.max() < LARGEST_ID
    return fids.astype(np.int32) if usable else np.arange(len(fids), dtype=np.int32)


def _bounds_in_file(grid: Grid, crs: CRS, buffer_m: float) -> tuple[float, float, float, float] | None:
    """The grid and its surroundings in the file's CRS; None (read everything) where that is not a plain rectangle."""
    margin = buffer_m + grid.res_m
    left, bottom, right, top = grid.bounds
    to_file = Transformer.from_crs(grid.crs, crs, always_xy=True)
    try:
        west, south, east, north = to_file.transform_bounds(
            left - margin, bottom - margin, right + margin, top + margin, densify_pts=101
        )
    except ProjError:
        return None
    plain = all(map(math.isfinite, (west, south, east, north))) and west < east and south < north
    return (west, south, east, north) if plain else None


def _nothing_in_area(
    reference: Reference, layer: _Layer, grid: Grid, aoi: Aoi, bounds: tuple[float, float, float, float] | None
) -> ReferenceDataError:
    info = pyogrio.read_info(reference.path, layer=layer.name, force_total_bounds=True)
    lies = "nowhere" if info["total_bounds"] is None else _box(info["total_bounds"])
    area = _box(bounds) if bounds is not None else _box(grid.bounds)
    return _NothingThereError(
        f"None of the {layer.features} features of {reference.path} lies in {aoi.name}: in {layer.crs.name} they span "
        f"{lies} and the area {area}.",
        do="Give a reference for this area, or mend the file's CRS if it is wrong.",
    )


def _box(bounds: Any) -> str:
    west, south, east, north = (float(value) for value in bounds)
    return f"x {west:.6g} to {east:.6g}, y {south:.6g} to {north:.6g}"


def _unreadable(reference: Reference, error: Exception) -> ReferenceDataError:
    reason = str(error).strip().splitlines()
    return ReferenceDataError(
        f"The reference file {reference.path} cannot be read ({reason[0] if reason else type(error).__name__}).",
        do="Open it in QGIS and export it as GeoPackage.",
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(names[:LISTED]) or "(none)") + more
