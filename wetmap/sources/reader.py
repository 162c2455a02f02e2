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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from wetmap.errors import SourceError
from wetmap.gdal_cache import bound_gdal_cache
from wetmap.geo import Grid
from wetmap.sources import network
from wetmap.sources.positions import Lattice, Projection, steps_of
from wetmap.sources.scene import PIXEL, SHARE, WEIGHT
from wetmap.sources.secrets import address
from wetmap.sources.signing import SignerName
from wetmap.sources.trouble import local_trouble
from wetmap.sources.weighted import pixel_side_m, weighted

Resampling = Literal["bilinear", "nearest"]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: Source pixel, its weight, and whether it is inside the source.
_Neighbour = tuple[NDArray[np.intp], Floats, Bools]
#: Masks that follow from stored values alone.
_PLAIN_MASKS = {MaskFlags.all_valid, MaskFlags.nodata}

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
    signer: SignerName = ""
    """Who signs the link, each time that it is opened."""
    shift_m: tuple[float, float] = (0.0, 0.0)
    """Metres east and north in the grid's CRS by which its pixels are moved (co-registration): no second resampling."""


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


def extent_on(
    href: str, window: Grid, shift_m: tuple[float, float] = (0.0, 0.0), signer: SignerName = ""
) -> NDArray[np.float32]:
    """Where a file has a pixel, observed or not: 1, and NaN beyond its edges; (height, width) float32.

    ``shift_m`` moves the file, and ``signer`` signs its link, as in ``RasterBand``.

    Raises:
        SourceError: As ``read_onto``.
    """

    def outline(dataset: Any) -> NDArray[np.float32]:
        projection = Projection(window.crs, dataset.crs.to_wkt(), dataset.transform, shift_m)
        rows, cols = projection.positions(Lattice.of(window))
        inside = _index(rows, dataset.height)[1] & _index(cols, dataset.width)[1]
        return np.where(inside, np.float32(1), np.float32(np.nan))

    return _with_dataset(RasterBand(href, signer=signer), outline)


def read_tile(
    source: RasterBand, convert: Callable[[Floats], Floats], names: Sequence[str], window: Grid
) -> dict[str, NDArray[np.float32]]:
    """What one of several tiles of an elevation model contributes to a window (see ``sources.weighted``).

    Returns:
        ``PIXEL`` if it is named: the side of the file's own pixels on the ground, metres, the same at every pixel.
        ``elevation`` in the unit of ``convert``, ``WEIGHT`` and ``SHARE`` if ``WEIGHT`` is named. Each (height, width)
        float32.

    Raises:
        SourceError: As ``read_onto``.
    """

    def side(dataset: Any) -> NDArray[np.float32]:
        return np.full(window.shape, pixel_side_m(dataset, window), dtype=np.float32)

    def contribution(dataset: Any) -> NDArray[np.float32]:
        return weighted(dataset, lambda part: convert(_stored(dataset, source, part)), window)

    found = {PIXEL: _with_dataset(source, side)} if PIXEL in names else {}
    if WEIGHT in names:
        found |= zip(("elevation", WEIGHT, SHARE), _with_dataset(source, contribution), strict=True)
    return found


def _with_dataset(source: RasterBand, use: Callable[[Any], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Open a file, check it, use it; what goes wrong is said without the secrets of its link."""

    def open_and_use(href: str, driver: str | None = None) -> NDArray[np.float32]:
        with rasterio.open(href, driver=driver) as dataset:
            _check(dataset, source, address(source.href))
            return use(dataset)

    bound_gdal_cache()
    if network.is_remote(source.href):
        return network.read(source.href, lambda href: open_and_use(href, _remote_format(href)), source.signer)
    try:
        return open_and_use(source.href)
    except (RasterioError, OSError) as error:
        raise SourceError(
            f"{source.href} cannot be read ({local_trouble(error, source.href)}).",
            do="Check that the file is there and whole; then run the same command again.",
        ) from None


def _remote_format(href: str) -> str:
    """The one driver that opens a remote file; not VRT, say, through which a catalogue could read this machine."""
    path = href.partition("?")[0].lower()
    return "JP2OpenJPEG" if path.endswith((".jp2", ".j2k")) else "GTiff"


def _check(dataset: Any, source: RasterBand, name: str) -> None:
    if dataset.crs is None:
        raise SourceError(f"{name} has no CRS.", do="Set its CRS (in QGIS: Layer > Set CRS) and save it again.")
    if dataset.transform.is_identity:
        raise SourceError(f"{name} has no place on the ground (no transform).", do="Georeference it and save it again.")
    if source.band > dataset.count:
        plural = "band" if dataset.count == 1 else "bands"
        raise SourceError(
            f"{name} has {dataset.count} {plural}, and band {source.band} is wanted.", do="Check the file."
        )


def _read(
    dataset: Any, source: RasterBand, window: Grid, convert: Callable[[Floats], Floats] | None
) -> NDArray[np.float32]:
    lattice = Lattice.of(window)
    projection = Projection(window.crs, dataset.crs.to_wkt(), dataset.transform, source.shift_m)
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
    values = _stored(dataset, source, Window(x0, y0, x1 - x0, y1 - y0))
    if convert is not None:
        values = convert(values)  # what is not finite afterwards was not observed
        np.copyto(values, np.nan, where=np.isinf(values))
    take = _nearest if source.resampling == "nearest" else _bilinear
    return take(values, rows - y0, cols - x0)


def _stored(dataset: Any, source: RasterBand, window: Window) -> Floats:
    """Stored values, (height, width) float64, NaN where the file or the caller says that nothing was observed."""
    values: Floats
    nodata = {source.nodata}
    if set(dataset.mask_flag_enums[source.band - 1]) <= _PLAIN_MASKS:  # asking GDAL for the mask reads everything twice
        stored = dataset.read(source.band, window=window)
        values = stored.astype(np.float64)
        nodata.add(dataset.nodatavals[source.band - 1])
    else:
        masked = dataset.read(source.band, window=window, masked=True)
        stored = np.ma.getdata(masked)
        values = stored.astype(np.float64)
        values[np.ma.getmaskarray(masked)] = np.nan
    for value in nodata - {None}:
        values[values == value] = np.nan
    if stored.dtype.kind == "f":
        values[~np.isfinite(values)] = np.nan
    return values


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
    if rows.shape[1] == cols.shape[0] == 1:  # rows and columns apart: two copies of strips, no gathering of pixels
        taken = _strip(_strip(values, row[:, 0], 0), col[0], 1)
        if row_inside.all() and col_inside.all():
            return taken
        return np.where(row_inside & col_inside, taken, np.nan)
    return np.where(row_inside & col_inside, values[row, col], np.nan)


def _strip(values: NDArray[Any], index: NDArray[np.intp], axis: int) -> NDArray[Any]:
    """Rows (axis 0) or columns (axis 1) by number; a view where they are all there once, in order."""
    if index.size == values.shape[axis] and index[0] == 0 and bool((np.diff(index) == 1).all()):
        return values
    return values.take(index, axis=axis)


def _bilinear(values: Floats, rows: Floats, cols: Floats) -> Floats:
    """Bilinear with the weights of invalid neighbours dropped; NaN where the nearest pixel is not valid.

    Where all four neighbours are valid nothing is divided, whatever the rest of the window holds: a pixel's bits do not
    depend on its window.
    """
    nearest = _nearest(values, rows, cols)
    if _whole(rows) and _whole(cols):
        return nearest
    valid = np.isfinite(values)
    down, across = _neighbours(rows, values.shape[0]), _neighbours(cols, values.shape[1])
    mix = _mix_strips if rows.shape[1] == cols.shape[0] == 1 else _mix_pixels
    if valid.all() and all(inside.all() for _, _, inside in (*down, *across)):
        return mix(values, down, across)
    total = mix(np.where(valid, values, 0.0), down, across)
    weights = mix(valid.astype(np.float64), down, across)
    every = mix(valid.astype(np.float64), *(_halves(pairs) for pairs in (down, across))) == 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(nearest), np.where(every, total, total / weights), np.nan)


def _mix_strips(values: Floats, down: list[_Neighbour], across: list[_Neighbour]) -> Floats:
    """Weighted sum of four neighbours where rows and columns are apart: first down, then across."""
    (above, above_share, _), (below, below_share, _) = down
    (left, left_share, _), (right, right_share, _) = across
    rows = values.take(above[:, 0], axis=0) * above_share + values.take(below[:, 0], axis=0) * below_share
    mixed: Floats = rows.take(left[0], axis=1) * left_share + rows.take(right[0], axis=1) * right_share
    return mixed


def _mix_pixels(values: Floats, down: list[_Neighbour], across: list[_Neighbour]) -> Floats:
    """The same where every pixel has its own rows and columns."""
    (above, above_share, _), (below, below_share, _) = down
    (left, left_share, _), (right, right_share, _) = across
    to_left = values[above, left] * above_share + values[below, left] * below_share
    to_right = values[above, right] * above_share + values[below, right] * below_share
    mixed: Floats = to_left * left_share + to_right * right_share
    return mixed


def _halves(pairs: list[_Neighbour]) -> list[_Neighbour]:
    """The same neighbours with equal weights, so that a sum of ones is exactly 1 where all of them are there."""
    return [(pixel, np.where(inside, 0.5, 0.0), inside) for pixel, _, inside in pairs]


def _whole(positions: Floats) -> bool:
    finite = positions[np.isfinite(positions)]
    return bool(np.all(finite == np.rint(finite)))


def _neighbours(positions: Floats, size: int) -> list[_Neighbour]:
    """The two source pixels around each position, their weights, 0 outside the source, and whether they are inside."""
    with np.errstate(invalid="ignore"):
        below = np.floor(positions)
        share = np.nan_to_num(positions - below, nan=0.0)
    pairs = []
    for pixel, weight in ((below, 1 - share), (below + 1, share)):
        inside = (pixel >= 0) & (pixel < size)
        pairs.append((np.where(inside, pixel, 0).astype(np.intp), np.where(inside, weight, 0.0), inside))
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
