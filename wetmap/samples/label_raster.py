"""A label raster onto the grid: the value at each pixel centre, never an interpolation between classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.windows import Window
from scipy import ndimage

from wetmap.errors import ReferenceDataError
from wetmap.gdal_cache import bound_gdal_cache
from wetmap.geo import Block, Grid
from wetmap.recipe import Background, ClassSpec, Reference
from wetmap.samples.class_table import codes_by_value, resolve_classes, value_key, value_text
from wetmap.samples.labels import UNLABELLED, Painted, Report, region_ids

#: Pixels of the grid that are sampled at a time, side: bounds the memory, not the result.
SAMPLE_PX = 512
#: A centre that lies on the edge of two source pixels belongs to the right and lower one, rounding or not; pixels.
TIE_PX = 1e-6
#: Distinct values beyond which a raster is a measurement and not classes.
LARGEST_LEGEND = 4096


def read_label_raster(
    reference: Reference, classes: Sequence[ClassSpec], grid: Grid, inside: NDArray[np.bool_], report: Report
) -> Painted:
    """Read a raster of class values, of any CRS and resolution, onto the grid.

    Args:
        reference: The file. Its nodata value and mask are unlabelled, and so is 255 in a raster of bytes unless a
            class of the recipe claims it.
        classes: The classes of the recipe, or none.
        grid: The map's raster.
        inside: Pixels of the area, (height, width).
        report: Where counts and notes go.

    Raises:
        ReferenceDataError: Unreadable, no CRS, more than one band; no label in the area, or none of a class.
    """
    if reference.class_field is not None:
        report.note(
            f"The reference {reference.path} is a label raster; the class field {reference.class_field!r} is not used.",
            "Leave --class-field out.",
        )
    places, values, byte = _sampled(reference, grid)
    claimed = {value_key(value) for spec in classes for value in spec.reference}
    if byte and value_key(UNLABELLED) not in claimed:
        for place, value in enumerate(values):
            if value == UNLABELLED:
                places[places == place] = -1
    far = _far(reference.background, places, grid)
    places[~inside] = -1
    counts = np.bincount(places[places >= 0], minlength=len(values))
    present = [value for value, count in zip(values, counts, strict=True) if count]
    if not present:
        raise ReferenceDataError(
            f"The label raster {reference.path} labels no pixel of the area.",
            do="Give a reference for this area, or mend the file's CRS or nodata value if they are wrong.",
        )
    table = resolve_classes(classes, present)
    by_value = codes_by_value(classes, table)
    lookup = np.array([*(by_value.get(value_key(value), UNLABELLED) for value in values), UNLABELLED], dtype=np.uint8)
    unmatched = {
        value_text(value): int(count)
        for value, code, count in sorted(zip(values, lookup[:-1], counts, strict=True))
        if code == UNLABELLED and count
    }
    if len(unmatched) == len(present):
        raise ReferenceDataError(
            f"No pixel of the label raster {reference.path} is of a class of the recipe: it holds "
            f"{', '.join(list(unmatched)[:20])}, and the recipe names {', '.join(row.name for row in table)}.",
            do="List these values under `reference:` of the classes they belong to.",
        )
    codes = lookup[places]
    polygon = region_ids(grid, 0)
    next_id = int(polygon[-1, -1]) + 1
    polygon[codes == UNLABELLED] = -1
    report.rows |= {"kind": "label raster", "pixels_unlabelled": int((inside & (codes == UNLABELLED)).sum())}
    report.unmatched(unmatched, "pixels")
    return Painted(codes, polygon, table, next_id, far)


def _far(background: Background | None, places: NDArray[np.int32], grid: Grid) -> NDArray[np.bool_] | None:
    """Pixels whose centre is farther than the buffer from every labelled pixel's; None unless asked."""
    if background is None:
        return None
    labelled = places >= 0
    return np.asarray(ndimage.distance_transform_edt(~labelled, sampling=grid.res_m) > background.buffer_m)


def _sampled(reference: Reference, grid: Grid) -> tuple[NDArray[np.int32], list[float], bool]:
    """The raster at the pixel centres of the grid.

    Returns:
        Place of each pixel's value in the list of values, (height, width), -1 where there is none; the values; whether
        the raster is of bytes.
    """
    places = np.full(grid.shape, -1, dtype=np.int32)
    known: dict[float, int] = {}
    bound_gdal_cache()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # _crs_of says it as an error
            with rasterio.open(reference.path) as raster:
                crs = _crs_of(raster, reference)
                for block in grid.blocks(SAMPLE_PX):
                    places[block.slices] = _placed(_at_centres(raster, crs, grid, block), known, reference)
                byte = raster.dtypes[0] == "uint8"
    except RasterioIOError as error:
        raise ReferenceDataError(
            f"The label raster {reference.path} cannot be read ({error}).",
            do="Open it in QGIS and export it as GeoTIFF.",
        ) from error
    return places, list(known), byte


def _crs_of(raster: Any, reference: Reference) -> CRS:
    if raster.count != 1:
        raise ReferenceDataError(
            f"The label raster {reference.path} has {raster.count} bands, and classes are one band.",
            do="Export the band of classes alone.",
        )
    if raster.crs is None:
        raise ReferenceDataError(
            f"The label raster {reference.path} has no CRS.",
            do="Assign it in QGIS (Raster > Projections > Assign Projection).",
        )
    return CRS.from_wkt(raster.crs.to_wkt())


def _at_centres(raster: Any, crs: CRS, grid: Grid, block: Block) -> NDArray[np.float64]:
    """Values at the pixel centres of a block, (height, width), NaN where the raster has none."""
    rows, cols = block.slices
    x, y = np.meshgrid(grid.x[cols], grid.y[rows])
    if crs != CRS.from_user_input(grid.crs):
        x, y = Transformer.from_crs(grid.crs, crs, always_xy=True).transform(x, y)
    to_pixel = ~raster.transform
    column = np.floor(to_pixel.a * x + to_pixel.b * y + to_pixel.c + TIE_PX).astype(np.int64)
    row = np.floor(to_pixel.d * x + to_pixel.e * y + to_pixel.f + TIE_PX).astype(np.int64)
    values = np.full(x.shape, np.nan)
    within = (row >= 0) & (row < raster.height) & (column >= 0) & (column < raster.width)
    if not within.any():
        return values
    at_row, at_column = row[within], column[within]
    top, left = int(at_row.min()), int(at_column.min())
    window = Window(left, top, int(at_column.max()) - left + 1, int(at_row.max()) - top + 1)
    read = raster.read(1, window=window, masked=True).astype(np.float64).filled(np.nan)
    values[within] = read[at_row - top, at_column - left]
    return values


def _placed(values: NDArray[np.float64], known: dict[float, int], reference: Reference) -> NDArray[np.int32]:
    """Values to places in ``known``, which grows by the values that are new."""
    places = np.full(values.shape, -1, dtype=np.int32)
    finite = np.isfinite(values)
    distinct, inverse = np.unique(values[finite], return_inverse=True)
    if len(distinct) + len(known) > LARGEST_LEGEND:
        raise ReferenceDataError(
            f"The label raster {reference.path} holds more than {LARGEST_LEGEND} distinct values, from "
            f"{float(distinct.min()):g} to {float(distinct.max()):g}: it is not a raster of classes.",
            do="Give a raster whose values are classes.",
        )
    lookup = np.array([known.setdefault(float(value), len(known)) for value in distinct], dtype=np.int32)
    if len(distinct):
        places[finite] = lookup[inverse]
    return places
