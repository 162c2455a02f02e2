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

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.errors import RasterioError
from rasterio.windows import Window

from wetmap.errors import SourceError
from wetmap.geo import Grid

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

#: Nodes between which positions in another CRS are interpolated, pixels. Projections bend by less than 1 / (6.4e6 m)
#: per metre, so over 16 px of 10 m the position is off by less than a millimetre.
NODE_PX = 16
#: Positions this close to a source pixel's centre lie on it, pixels: arithmetic noise must not turn a copy into a mean.
SNAP_PX = 1e-6
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
    name = without_query(source.href)
    try:
        with (
            rasterio.Env(**(REMOTE_ENV if is_remote(source.href) else LOCAL_ENV)),
            rasterio.open(source.href) as dataset,
        ):
            _check(dataset, source, name)
            return _read(dataset, source, window, convert)
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
    lattice = _Lattice.of(window)
    projection = _Projection(window.crs, dataset.crs.to_wkt(), dataset.transform)
    steps = 1
    if source.resampling == "bilinear":
        steps = _steps(window, projection, dataset.width, dataset.height)
    fine = lattice.refined(steps)
    values = np.full(window.shape, np.nan, dtype=np.float32)
    rows = max(1, STRIP_PIXELS // (fine.width * steps))
    for y0 in range(0, window.height, rows):
        y1 = min(y0 + rows, window.height)
        strip = fine.rows(y0 * steps, y1 * steps)
        values[y0:y1] = _mean_of(_sample(dataset, source, strip, projection, convert), steps)
    return values


@dataclass(frozen=True)
class _Lattice:
    """A window as whole numbers of pixels from the CRS's origin: positions are the same in every window."""

    res_m: float
    col0: int
    row0: int
    width: int
    height: int
    phase_x: float
    """Pixels by which the raster is off multiples of its resolution; 0 for a map's grid."""
    phase_y: float

    @classmethod
    def of(cls, window: Grid) -> _Lattice:
        col0, phase_x = _split(window.left / window.res_m)
        row0, phase_y = _split(-window.top / window.res_m)
        return cls(window.res_m, col0, row0, window.width, window.height, phase_x, phase_y)

    def refined(self, steps: int) -> _Lattice:
        return _Lattice(
            self.res_m / steps,
            self.col0 * steps,
            self.row0 * steps,
            self.width * steps,
            self.height * steps,
            self.phase_x * steps,
            self.phase_y * steps,
        )

    def rows(self, start: int, stop: int) -> _Lattice:
        return dataclasses.replace(self, row0=self.row0 + start, height=stop - start)

    @property
    def x(self) -> Floats:
        cols = np.arange(self.col0, self.col0 + self.width) + (0.5 + self.phase_x)
        return np.asarray(cols * self.res_m, dtype=np.float64)

    @property
    def y(self) -> Floats:
        rows = np.arange(self.row0, self.row0 + self.height) + (0.5 + self.phase_y)
        return np.asarray(-rows * self.res_m, dtype=np.float64)


def _split(place: float) -> tuple[int, float]:
    """Whole pixels and what remains, the same in every window of a raster (hence the rounding)."""
    whole = round(place)
    return whole, round(place - whole, 6)


@dataclass(frozen=True)
class _Projection:
    """From the grid's CRS to rows and columns of a source raster, counted between pixel centres."""

    crs: str
    source_wkt: str
    transform: Affine

    @property
    def separable(self) -> bool:
        """Whether columns depend on x alone and rows on y alone."""
        return self.transform.b == 0 and self.transform.d == 0 and _same_crs(self.crs, self.source_wkt)

    def positions(self, lattice: _Lattice) -> tuple[Floats, Floats]:
        """Rows and columns of the lattice's pixel centres.

        (height, 1) and (1, width) where they are separable, else both (height, width).
        """
        if self.separable:
            a = self.transform
            cols = (lattice.x - a.c) / a.a - 0.5
            rows = (lattice.y - a.f) / a.e - 0.5
            return _snapped(rows)[:, np.newaxis], _snapped(cols)[np.newaxis, :]
        rows, cols = self._interpolated(lattice)
        return _snapped(rows), _snapped(cols)

    def exact(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """(rows, cols) of points in the grid's CRS; not finite where the projection fails."""
        if not _same_crs(self.crs, self.source_wkt):
            x, y = _transformer(self.crs, self.source_wkt).transform(x, y)
        inverse = ~self.transform
        return inverse.d * x + inverse.e * y + (inverse.f - 0.5), inverse.a * x + inverse.b * y + (inverse.c - 0.5)

    def _interpolated(self, lattice: _Lattice) -> tuple[Floats, Floats]:
        """Exact at nodes fixed on the lattice, linear between them."""
        node_cols, left, across = _nodes(lattice.col0, lattice.width)
        node_rows, above, down = _nodes(lattice.row0, lattice.height)
        x = (node_cols * NODE_PX + lattice.phase_x) * lattice.res_m
        y = -(node_rows * NODE_PX + lattice.phase_y) * lattice.res_m
        x, y = np.meshgrid(x, y)
        rows, cols = self.exact(x, y)
        return _between(rows, above, down, left, across), _between(cols, above, down, left, across)


def _nodes(start: int, count: int) -> tuple[Floats, NDArray[np.intp], Floats]:
    """Numbers of the nodes around pixels ``start`` and on, each pixel's node to the left, and its share of the way."""
    pixels = np.arange(start, start + count)
    first = start // NODE_PX
    nodes = np.arange(first, (start + count - 1) // NODE_PX + 2, dtype=np.float64)
    left = pixels // NODE_PX
    share = (pixels - left * NODE_PX + 0.5) / NODE_PX
    return nodes, np.asarray(left - first, dtype=np.intp), np.asarray(share, dtype=np.float64)


def _between(values: Floats, above: NDArray[np.intp], down: Floats, left: NDArray[np.intp], across: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        top = values[above][:, left] * (1 - across) + values[above][:, left + 1] * across
        bottom = values[above + 1][:, left] * (1 - across) + values[above + 1][:, left + 1] * across
        return np.asarray(top * (1 - down)[:, np.newaxis] + bottom * down[:, np.newaxis], dtype=np.float64)


def _snapped(positions: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        nearest = np.rint(positions)
        return np.where(np.abs(positions - nearest) < SNAP_PX, nearest, positions)


@functools.lru_cache(maxsize=256)
def _same_crs(crs: str, source_wkt: str) -> bool:
    return bool(rasterio.crs.CRS.from_user_input(crs) == rasterio.crs.CRS.from_wkt(source_wkt))


@functools.lru_cache(maxsize=64)
def _transformer(crs: str, source_wkt: str) -> Transformer:
    return Transformer.from_crs(CRS.from_user_input(crs), CRS.from_wkt(source_wkt), always_xy=True)


def _steps(window: Grid, projection: _Projection, width: int, height: int) -> int:
    """How many source pixels go side by side into one of the grid, rounded, at the centre of the source.

    Measured at one place per file, so that it is the same for every window.
    """
    a = projection.transform
    x, y = a.a * width / 2 + a.b * height / 2 + a.c, a.d * width / 2 + a.e * height / 2 + a.f
    if not _same_crs(projection.crs, projection.source_wkt):
        x, y = _transformer(projection.crs, projection.source_wkt).transform(x, y, direction="INVERSE")
    if not (math.isfinite(x) and math.isfinite(y)):
        return 1
    res = window.res_m
    rows, cols = projection.exact(np.array([x, x + res, x]), np.array([y, y, y - res]))
    across = math.hypot(rows[1] - rows[0], cols[1] - cols[0])
    down = math.hypot(rows[2] - rows[0], cols[2] - cols[0])
    ratio = math.sqrt(across * down)
    return max(1, math.floor(ratio + 0.5)) if math.isfinite(ratio) else 1


def _sample(
    dataset: Any,
    source: RasterBand,
    lattice: _Lattice,
    projection: _Projection,
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
