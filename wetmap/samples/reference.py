"""Reference polygons, points or a label raster become labels on the grid.

Rules:

1. A pixel gets a polygon's class when its **centre** is inside the polygon, and a point's when the point is in it.
2. Where features of different classes meet in a pixel, it stays unlabelled.
3. Only pixels whose centre lies in the area of interest are labelled.
4. A label raster is sampled at the pixel centres (nearest neighbour), never interpolated.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wetmap.classes import MapClass
from wetmap.errors import ReferenceDataError, UsageError
from wetmap.geo import Aoi, Grid
from wetmap.recipe import ClassSpec, Reference
from wetmap.samples.class_table import with_background
from wetmap.samples.files import need_files
from wetmap.samples.label_raster import read_label_raster
from wetmap.samples.labels import REGION_PX, UNLABELLED, Labels, Painted, Report, region_ids
from wetmap.samples.vector import check_vector, read_vector

#: Pixels that are counted at a time.
COUNTED_PX = 2**24


def read_reference(reference: Reference, classes: Sequence[ClassSpec], grid: Grid, aoi: Aoi) -> Labels:
    """Read reference data onto the grid.

    Args:
        reference: The file, its class field and layer, and whether background is drawn.
        classes: The classes of the recipe; without them every value of the reference becomes one.
        grid: The map's raster.
        aoi: The area; nothing outside it is labelled.

    Returns:
        Labels, the class table and a report of what was left out.

    Raises:
        UsageError: The file does not exist, or has no such layer, class field or site field.
        RecipeError: Classes of the recipe contradict each other.
        ReferenceDataError: The file is unreadable, has no CRS, no feature in the area, or none of a class of the map.

    Warns:
        ReferenceWarning: Features were left out or repaired; or there is no class of dry land.
    """
    need_files(reference)
    path = reference.path
    report, inside = Report(), aoi.inside(grid)
    if _is_vector(path):
        painted = read_vector(reference, classes, grid, aoi, inside, report=report)
    else:
        if reference.also:
            raise UsageError(
                f"The reference file {path} is a label raster, and reference.also adds vector files to vector files.",
                do="Take `also` out, or burn those files into the raster in QGIS (Raster > Conversion > Rasterize).",
            )
        if reference.site_field is not None:
            raise UsageError(
                f"The reference file {path} is a label raster, which has no field {reference.site_field!r}.",
                do="Use splits.kind blocks, or give the sites as polygons with the class and the site as fields.",
            )
        painted = read_label_raster(reference, classes, grid, inside, report)
    table = with_background(painted.classes, reference.background)
    _refuse_nothing(painted, reference)
    report.rows["pixels"] = _pixels(painted, table)
    candidates = None
    if painted.far is not None:
        candidates = painted.far & inside & (painted.codes == UNLABELLED)
        for y0 in range(0, grid.height, REGION_PX):  # strip by strip: of a province the ids are 6 GB
            rows = slice(y0, y0 + REGION_PX)
            here, ids = candidates[rows], region_ids(grid, painted.next_id, rows)
            painted.polygon[rows][here] = ids[here]
        report.rows["background_candidates"] = int(candidates.sum())
    if not any(row.upland for row in table):
        _warn_no_upland(table, report)
    return Labels(painted.codes, painted.polygon, table, report.to_json(), candidates, painted.sites)


def check_reference(reference: Reference, classes: Sequence[ClassSpec], grid: Grid, aoi: Aoi) -> None:
    """Refuse a reference whose layer, fields or classes do not fit, before the hours that a fetch may take.

    A label raster is only opened: its values are looked at when it is read.

    Raises:
        UsageError: As ``read_reference``.
        RecipeError: Likewise.
        ReferenceDataError: Likewise, but for features that label no pixel.
    """
    if _is_vector(reference.path):
        check_vector(reference, classes, grid, aoi)


def _is_vector(path: Path) -> bool:
    """Whether GDAL opens the file as a vector file; if not, whether it is a raster.

    Raises:
        ReferenceDataError: It is neither.
    """
    import pyogrio
    import rasterio
    from pyogrio.errors import DataSourceError
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    try:
        if len(pyogrio.list_layers(path)):
            return True
    except (DataSourceError, UnicodeDecodeError) as error:
        reason = str(error)
    else:
        reason = "it has no layers"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a raster without CRS gets its own error later
            with rasterio.open(path):
                return False
    except RasterioIOError as error:
        raise ReferenceDataError(
            f"The reference file {path} is neither a vector file nor a raster ({reason}).",
            do="Open it in QGIS and export it as GeoPackage, or as GeoTIFF for a label raster.",
        ) from error


def _refuse_nothing(painted: Painted, reference: Reference) -> None:
    if (painted.codes == UNLABELLED).all():
        raise ReferenceDataError(
            f"The reference {reference.path} labels no pixel of the area: its features are smaller than a pixel, or "
            "overlap with other classes everywhere.",
            do="Give larger polygons, or points, or a finer --res.",
        )


def _pixels(painted: Painted, table: Sequence[MapClass]) -> dict[str, int]:
    counts = np.zeros(256, dtype=np.int64)
    for strip in np.array_split(painted.codes, max(1, painted.codes.size // COUNTED_PX)):
        counts += np.bincount(strip.ravel(), minlength=256)  # which makes 8 bytes of each
    return {row.name: int(counts[row.code]) for row in table}


def _warn_no_upland(table: Sequence[MapClass], report: Report) -> None:
    report.note(
        f"No class of the reference is dry land ({', '.join(row.name for row in table)}): everything would become "
        "one of these.",
        "Add `background:` to the recipe's reference to draw samples outside the polygons, or say `upland: true` at "
        "the class that is dry land.",
    )
