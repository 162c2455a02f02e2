"""Read one band of one raster file onto a window of the grid: one resampling, the same answer in every window.

GDAL's warper approximates the map projection along the rows of whatever window it is asked for, so the same pixel gets
slightly different values in different windows. Here every pixel's position in the source is a function of the pixel
alone: its place on the grid's lattice, and for another CRS nodes that are fixed on that lattice. Blocks therefore leave
no trace, and on a grid that shares the source's lattice the stored values come back unchanged.

Rules:

1. A pixel is observed where the source pixel that holds its centre is valid: footprints neither grow nor shrink.
2. Bilinear weights of neighbours that are not valid are dropped and the rest scaled up: nothing bleeds in from nodata.
3. Where the grid is coarser than the source, a pixel is the mean of n x n such samples, n = round(grid / source), and
   observed where at least half of them are. On nested lattices that is the plain mean of the source pixels.
4. Classes are nearest neighbour, always.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from wetmap.errors import SourceError
from wetmap.geo import Grid
from wetmap.sources.positions import Lattice, Projection, steps_of

Resampling = Literal["bilinear", "nearest"]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Settings of GDAL while remote files are read: no listing of folders, bounded waiting, a few patient retries, and a
#: cache that does not take 5 % of the machine in every worker.
REMOTE_ENV: Mapping[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "VSI_CACHE": "TRUE",
    "GDAL_CACHEMAX": 128,
}
LOCAL_ENV: Mapping[str, Any] = {"GDAL_CACHEMAX": 128}

#: Most pixels that are resampled at once; more are taken in strips.
STRIP_PIXELS = 4_000_000


@dataclass(frozen=True)
class RasterBand:
    """One band of one raster file, and how its numbers are to be understood."""

    href: str
    """Path or URL that GDAL opens."""
    band: int = 1
    """Number of the band, from 1."""
    nodata: float | None = None
    """Stored value that means not observed, beside what the file itself says."""
    resampling: Resampling = "bilinear"
    """How values are taken between pixel centres."""


def read_onto(
    source: RasterBand, window: Grid, convert: Callable[[Floats], Floats] | None = None
) -> NDArray[np.float32]:
    """Read a band onto a window.

    Args:
        source: The band.
        window: The pixels wanted, on a lattice of multiples of its resolution.
        convert: Applied to stored values before resampling: scale and offset, decibel to power. What it makes NaN
            counts as not observed.

    Returns:
        (height, width) float32, NaN where not observed.

    Raises:
        SourceError: The file cannot be opened or read, has no CRS, or lacks the band.
    """
    return _with_dataset(source, lambda dataset: _read(dataset, source, window, convert))


def extent_on(href: str, window: Grid) -> NDArray[np.float32]:
    """Where a file has a pixel, observed or not: 1, and NaN beyond its edges; (height, width) float32.

    Raises:
        SourceError: As ``read_onto``.
    """

    def outline(dataset: Any) -> NDArray[np.float32]:
        projection = Projection(window.crs, dataset.crs.to_wkt(), dataset.transform)
        rows, cols = projection.positions(Lattice.of(window))
        inside = _index(rows, dataset.height)[1] & _index(cols, dataset.width)[1]
        return np.where(inside, np.float32(1), np.float32(np.nan))

    return _with_dataset(RasterBand(href), outline)


def _with_dataset(source: RasterBand, use: Callable[[Any], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Open a file, check it, use it; what goes wrong is said without the secrets of its link."""
    name = without_query(source.href)
    try:
        with (
            rasterio.Env(**(REMOTE_ENV if is_remote(source.href) else LOCAL_ENV)),
            rasterio.open(source.href) as dataset,
        ):
            _check(dataset, source, name)
            return use(dataset)
    except (RasterioError, OSError) as error:
        raise SourceError(
            f"{name} cannot be read ({without_query(str(error))}).",
            do="Check that the file is there and whole, and that the network works; then run the same command again.",
        ) from None


def is_remote(href: str) -> bool:
    """Whether GDAL reads this over the network."""
    return href.startswith(("http://", "https://", "s3://", "/vsicurl", "/vsis3", "/vsiaz", "/vsigs"))


def without_query(text: str) -> str:
    """Cut the query off every URL in a text: signed links carry their secret there."""
    return re.sub(r"\?[^\s'\",)]*", "", text)


def _check(dataset: Any, source: RasterBand, name: str) -> None:
    if dataset.crs is None:
        raise SourceError(f"{name} has no CRS.", do="Set its CRS (in QGIS: Layer > Set CRS) and save it again.")
    if dataset.transform.is_identity:
        raise SourceError(f"{name} has no place on the ground (no transform).", do="Georeference it and save it again.")
    if source.band > dataset.count:
        raise SourceError(f"{name} has {dataset.count} bands, and band {source.band} is wanted.", do="Check the file.")


def _read(
    dataset: Any, source: RasterBand, window: Grid, convert: Callable[[Floats], Floats] | None
) -> NDArray[np.float32]:
    lattice = Lattice.of(window)
    projection = Projection(window.crs, dataset.crs.to_wkt(), dataset.transform)
    steps = 1
    if source.resampling == "bilinear":
        steps = steps_of(window, projection, dataset.width, dataset.height)
    fine = lattice.refined(steps)
    values = np.full(window.shape, np.nan, dtype=np.float32)
    rows = max(1, STRIP_PIXELS // (fine.width * steps))
    for y0 in range(0, window.height, rows):
        y1 = min(y0 + rows, window.height)
        strip = fine.rows(y0 * steps, y1 * steps)
        values[y0:y1] = _mean_of(_sample(dataset, source, strip, projection, convert), steps)
    return values


def _sample(
    dataset: Any,
    source: RasterBand,
    lattice: Lattice,
    projection: Projection,
    convert: Callable[[Floats], Floats] | None,
) -> Floats:
    """Values at the lattice's pixel centres, (height, width) float64, NaN where not observed."""
    rows, cols = projection.positions(lattice)
    span = _span(rows, dataset.height), _span(cols, dataset.width)
    if span[0] is None or span[1] is None:
        return np.full((lattice.height, lattice.width), np.nan)
    (y0, y1), (x0, x1) = span[0], span[1]
    stored = dataset.read(source.band, window=Window(x0, y0, x1 - x0, y1 - y0), masked=True)
    values = np.ma.getdata(stored).astype(np.float64)
    values[np.ma.getmaskarray(stored)] = np.nan
    if source.nodata is not None:
        values[values == source.nodata] = np.nan
    if convert is not None:
        values = convert(values)
    values[~np.isfinite(values)] = np.nan
    take = _nearest if source.resampling == "nearest" else _bilinear
    return take(values, rows - y0, cols - x0)


def _span(positions: Floats, size: int) -> tuple[int, int] | None:
    """First and last + 1 source pixel that these positions need, or None when all lie outside."""
    inside = positions[(positions >= -0.5) & (positions < size - 0.5)]
    if inside.size == 0:
        return None
    return max(0, math.floor(inside.min())), min(size, math.floor(inside.max()) + 2)


def _index(positions: Floats, size: int) -> tuple[NDArray[np.intp], Bools]:
    """Nearest source pixel of each position, and whether there is one."""
    with np.errstate(invalid="ignore"):
        nearest = np.floor(positions + 0.5)
        inside = (nearest >= 0) & (nearest < size)
    return np.where(inside, nearest, 0).astype(np.intp), inside


def _nearest(values: Floats, rows: Floats, cols: Floats) -> Floats:
    row, row_inside = _index(rows, values.shape[0])
    col, col_inside = _index(cols, values.shape[1])
    return np.where(row_inside & col_inside, values[row, col], np.nan)


def _bilinear(values: Floats, rows: Floats, cols: Floats) -> Floats:
    """Bilinear with the weights of invalid neighbours dropped; NaN where the nearest pixel is not valid."""
    nearest = _nearest(values, rows, cols)
    if _whole(rows) and _whole(cols):
        return nearest
    valid = np.isfinite(values)
    filled = np.where(valid, values, 0.0)
    total = np.zeros(nearest.shape)
    weights = np.zeros(nearest.shape)
    for row, row_weight in _neighbours(rows, values.shape[0]):
        for col, col_weight in _neighbours(cols, values.shape[1]):
            weight = row_weight * col_weight * valid[row, col]
            total += weight * filled[row, col]
            weights += weight
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(nearest), total / weights, np.nan)


def _whole(positions: Floats) -> bool:
    finite = positions[np.isfinite(positions)]
    return bool(np.all(finite == np.rint(finite)))


def _neighbours(positions: Floats, size: int) -> list[tuple[NDArray[np.intp], Floats]]:
    """The two source pixels around each position and their weights; weight 0 outside the source."""
    with np.errstate(invalid="ignore"):
        below = np.floor(positions)
        share = np.nan_to_num(positions - below, nan=0.0)
    pairs = []
    for pixel, weight in ((below, 1 - share), (below + 1, share)):
        inside = (pixel >= 0) & (pixel < size)
        pairs.append((np.where(inside, pixel, 0).astype(np.intp), np.where(inside, weight, 0.0)))
    return pairs


def _mean_of(fine: Floats, steps: int) -> NDArray[np.float32]:
    """Mean of each steps x steps group, NaN where fewer than half of the group is observed."""
    if steps == 1:
        return fine.astype(np.float32)
    total = np.zeros((fine.shape[0] // steps, fine.shape[1] // steps))
    count = np.zeros(total.shape)
    for down in range(steps):
        for across in range(steps):
            part = fine[down::steps, across::steps]
            seen = np.isfinite(part)
            total += np.where(seen, part, 0.0)
            count += seen
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(2 * count >= steps * steps, total / count, np.nan).astype(np.float32)
