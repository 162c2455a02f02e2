"""Masks of the recipe's ``postprocess.masks``: files whose places are written into the map."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.features import rasterize
from rasterio.windows import Window
from scipy import ndimage

from wetmap.errors import SourceError, UsageError
from wetmap.gdal_cache import bound_gdal_cache
from wetmap.geo import Block, Grid
from wetmap.geo.aoi import DENSIFY_DEG
from wetmap.recipe_file import plain
from wetmap.recipe_map import Mask

#: Longest piece of an edge before it is projected, metres: its chord leaves the curve by millimetres.
DENSIFY_M = 1000.0
#: A centre that lies on the edge of two pixels of a file belongs to the right and lower one, rounding or not; pixels.
TIE_PX = 1e-6
#: Files that belong to a Shapefile, by suffix.
SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg")
#: Geometry types that cover ground without a buffer begin or end with these words.
AREAS = ("Polygon", "Surface", "PolyhedralSurface", "TIN", "Unknown", "GeometryCollection")


def asked(mask: Mask) -> dict[str, Any]:
    """What a mask asks: its part of the recipe, and size and time of its files."""
    stamps = []
    for path in _files(mask.path):
        stat = path.stat() if path.exists() else None
        stamps.append([path.name, stat.st_size if stat else None, stat.st_mtime_ns if stat else None])
    return {**plain(mask), "path": mask.path.name, "files": stamps}


def check_mask(mask: Mask, place: int) -> None:
    """Refuse a mask whose file cannot be used.

    Args:
        mask: The mask.
        place: Its place in the list, from 0, for the message.

    Raises:
        UsageError: The file or the layer is not there.
        SourceError: It cannot be read, has no CRS, or holds nothing that covers ground.
    """
    if not mask.path.exists():
        raise UsageError(
            f"postprocess.masks.{place} names {mask.path}, which does not exist.",
            do="Give the path of a file that is there.",
        )
    vector = is_vector(mask)
    for key, given, kind in (("values", mask.values, not vector), ("layer", mask.layer, vector)):
        if given is not None and not kind:
            raise UsageError(
                f"postprocess.masks.{place} has {key}, and {mask.path} is a {'vector file' if vector else 'raster'}.",
                do="Leave it out." if vector is False else "Save the features that you want as a file of their own.",
            )
    if vector:
        _check_vector(mask)
    else:
        _check_raster(mask)


def is_vector(mask: Mask) -> bool:
    """Whether GDAL opens the file as a vector file; if not, it is a raster.

    Raises:
        SourceError: It is neither.
    """
    try:
        if len(pyogrio.list_layers(mask.path)):
            return True
    except (DataSourceError, UnicodeDecodeError) as error:
        reason = _first_line(error)
    else:
        reason = "it has no layers"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # no CRS is an error of its own
            with rasterio.open(mask.path):
                return False
    except RasterioIOError as error:
        raise SourceError(
            f"The mask {mask.path} is neither a vector file nor a raster ({reason}).",
            do="Open it in QGIS and export it as GeoPackage, or as GeoTIFF.",
        ) from error


def covered(mask: Mask, grid: Grid, block: Block) -> NDArray[np.bool_]:
    """Pixels of a block that a mask covers, (height, width).

    A pixel is covered when its centre is; within ``buffer_m`` metres of what the file holds.

    Raises:
        SourceError: The file cannot be read.
    """
    if is_vector(mask):
        return _vector_covers(mask, grid.window(block.y0, block.x0, block.height, block.width))
    reach = math.ceil(mask.buffer_m / grid.res_m)
    around = grid.window(block.y0 - reach, block.x0 - reach, block.height + 2 * reach, block.width + 2 * reach)
    hit = _raster_holds(mask, around)
    if reach and hit.any():
        hit = np.asarray(ndimage.distance_transform_edt(~hit, sampling=grid.res_m) <= mask.buffer_m)
    return hit[reach : reach + block.height, reach : reach + block.width]


def _vector_covers(mask: Mask, window: Grid) -> NDArray[np.bool_]:
    info = _info(mask)
    crs = CRS.from_user_input(info["crs"])
    margin = mask.buffer_m + window.res_m
    try:
        _, _, geometry, _ = pyogrio.raw.read(
            mask.path, layer=mask.layer, columns=[], bbox=_bounds(window, crs, margin), force_2d=True
        )
    except (DataSourceError, DataLayerError, FeatureError, ValueError) as error:
        raise _unreadable(mask, error) from error
    shapes = _projected(shapely.from_wkb(geometry), crs, window)
    if mask.buffer_m > 0:
        shapes = shapely.buffer(shapes, mask.buffer_m)
    shapes = shapes[(shapely.get_dimensions(shapes) == 2) & ~shapely.is_empty(shapes)]
    if not len(shapes):
        return np.zeros(window.shape, dtype=np.bool_)
    burnt = rasterize(
        ((shape, 1) for shape in shapes), out_shape=window.shape, fill=0, transform=window.transform, dtype=np.uint8
    )
    return np.asarray(burnt, dtype=np.bool_)


def _projected(shapes: NDArray[Any], crs: CRS, window: Grid) -> NDArray[Any]:
    """Sound geometries in the grid's CRS, edges densified: a straight line in one CRS is a curve in another."""
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken])
    if crs != CRS.from_user_input(window.crs):
        factor = crs.axis_info[0].unit_conversion_factor if crs.axis_info and not crs.is_geographic else 1.0
        dense = shapely.segmentize(shapes, DENSIFY_DEG if crs.is_geographic else DENSIFY_M / (factor or 1.0))
        to_grid = Transformer.from_crs(crs, window.crs, always_xy=True)
        shapes = shapely.transform(dense, lambda xy: np.column_stack(to_grid.transform(xy[:, 0], xy[:, 1])))
        shapes = shapes[np.isfinite(shapely.bounds(shapes)).all(axis=1)]
    return shapely.get_parts(shapes)


def _raster_holds(mask: Mask, window: Grid) -> NDArray[np.bool_]:
    """Pixels whose centre lies on a value that counts."""
    hit = np.zeros(window.shape, dtype=np.bool_)
    bound_gdal_cache()
    try:
        with rasterio.open(mask.path) as raster:
            x, y = np.meshgrid(window.x, window.y)
            to_file = Transformer.from_crs(window.crs, raster.crs.to_wkt(), always_xy=True)
            x, y = to_file.transform(x, y)
            to_pixel = ~raster.transform
            col = to_pixel.a * x + to_pixel.b * y + to_pixel.c + TIE_PX
            row = to_pixel.d * x + to_pixel.e * y + to_pixel.f + TIE_PX
            within = (row >= 0) & (row < raster.height) & (col >= 0) & (col < raster.width)
            if not within.any():
                return hit
            at_row, at_col = np.floor(row[within]).astype(np.int64), np.floor(col[within]).astype(np.int64)
            top, left = int(at_row.min()), int(at_col.min())
            part = Window(left, top, int(at_col.max()) - left + 1, int(at_row.max()) - top + 1)
            read = raster.read(1, window=part, masked=True)
    except RasterioIOError as error:
        raise _unreadable(mask, error) from error
    counts = read.filled(0) != 0 if mask.values is None else np.isin(read.data, mask.values) & ~read.mask
    hit[within] = counts[at_row - top, at_col - left]
    return hit


def _info(mask: Mask) -> dict[str, Any]:
    layers = [str(row[0]) for row in pyogrio.list_layers(mask.path)]
    if mask.layer is not None and mask.layer not in layers:
        raise UsageError(
            f"The mask {mask.path} has no layer {mask.layer!r}.", do=f"Choose one of its layers: {', '.join(layers)}."
        )
    try:
        info: dict[str, Any] = pyogrio.read_info(mask.path, layer=mask.layer or layers[0], force_feature_count=True)
    except (DataSourceError, DataLayerError) as error:
        raise _unreadable(mask, error) from error
    return info


def _check_vector(mask: Mask) -> None:
    info = _info(mask)
    if info["crs"] is None:
        raise SourceError(
            f"The mask {mask.path} has no CRS.", do="Set its CRS in QGIS (Layer > Set CRS) and save it again."
        )
    try:
        CRS.from_user_input(info["crs"])
    except CRSError as error:
        raise SourceError(
            f"The CRS of the mask {mask.path} is not one that PROJ knows ({info['crs']}).",
            do="Save it with another CRS in QGIS.",
        ) from error
    kind = str(info["geometry_type"])
    if not info["features"] or not (mask.buffer_m > 0 or any(word in kind for word in AREAS)) or kind == "None":
        raise SourceError(
            f"The mask {mask.path} holds no polygons ({info['features']} features of type {kind}).",
            do="Give polygons, or lines or points with a buffer_m.",
        )


def _check_raster(mask: Mask) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(mask.path) as raster:
            if raster.count != 1 or raster.crs is None:
                raise SourceError(
                    f"The mask {mask.path} has {raster.count} bands and {'a' if raster.crs else 'no'} CRS.",
                    do="Give a raster of one band with a CRS.",
                )


def _bounds(window: Grid, crs: CRS, margin: float) -> tuple[float, float, float, float] | None:
    """The window and its surroundings in the file's CRS; None (read everything) where that is no plain rectangle."""
    left, bottom, right, top = window.bounds
    to_file = Transformer.from_crs(window.crs, crs, always_xy=True)
    try:
        box = to_file.transform_bounds(left - margin, bottom - margin, right + margin, top + margin, densify_pts=101)
    except ProjError:
        return None
    west, south, east, north = box
    return (west, south, east, north) if all(map(math.isfinite, box)) and west < east and south < north else None


def _files(path: Path) -> tuple[Path, ...]:
    parts = SHAPEFILE_PARTS if path.suffix.lower() == ".shp" else ()
    return (path, *(path.with_suffix(suffix) for suffix in parts))


def _unreadable(mask: Mask, error: Exception) -> SourceError:
    return SourceError(
        f"The mask {mask.path} cannot be read ({_first_line(error)}).", do="Open it in QGIS and export it anew."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
