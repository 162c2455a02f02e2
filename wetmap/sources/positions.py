"""Where the pixels of the grid lie in a source raster: a function of the pixel alone, not of the window asked for."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from wetmap.geo import Grid

Floats = NDArray[np.float64]

#: Nodes between which positions in another CRS are interpolated, pixels. Projections bend by less than 1 / (6.4e6 m)
#: per metre, so over 16 px of 10 m the position is off by less than a millimetre.
NODE_PX = 16
#: Positions this close to a source pixel's centre lie on it, pixels: arithmetic noise must not turn a copy into a mean.
SNAP_PX = 1e-6


@dataclass(frozen=True)
class Lattice:
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
    def of(cls, window: Grid) -> Lattice:
        """The lattice of a window."""
        col0, phase_x = _split(window.left / window.res_m)
        row0, phase_y = _split(-window.top / window.res_m)
        return cls(window.res_m, col0, row0, window.width, window.height, phase_x, phase_y)

    def refined(self, steps: int) -> Lattice:
        """The same ground in pixels ``steps`` times smaller."""
        return Lattice(
            self.res_m / steps,
            self.col0 * steps,
            self.row0 * steps,
            self.width * steps,
            self.height * steps,
            self.phase_x * steps,
            self.phase_y * steps,
        )

    def rows(self, start: int, stop: int) -> Lattice:
        """Some of its rows."""
        return dataclasses.replace(self, row0=self.row0 + start, height=stop - start)

    @property
    def x(self) -> Floats:
        """Pixel centres from west to east, (width,), metres."""
        cols = np.arange(self.col0, self.col0 + self.width) + (0.5 + self.phase_x)
        return np.asarray(cols * self.res_m, dtype=np.float64)

    @property
    def y(self) -> Floats:
        """Pixel centres from north to south, (height,), metres."""
        rows = np.arange(self.row0, self.row0 + self.height) + (0.5 + self.phase_y)
        return np.asarray(-rows * self.res_m, dtype=np.float64)


def _split(place: float) -> tuple[int, float]:
    """Whole pixels and what remains, the same in every window of a raster (hence the rounding)."""
    whole = round(place)
    return whole, round(place - whole, 6)


@dataclass(frozen=True)
class Projection:
    """From the grid's CRS to rows and columns of a source raster, counted between pixel centres."""

    crs: str
    source_wkt: str
    transform: Affine
    shift_m: tuple[float, float] = (0.0, 0.0)
    """Metres east and north in the grid's CRS by which the source is moved before it is read."""

    @property
    def separable(self) -> bool:
        """Whether columns depend on x alone and rows on y alone."""
        return self.transform.b == 0 and self.transform.d == 0 and _same_crs(self.crs, self.source_wkt)

    def positions(self, lattice: Lattice) -> tuple[Floats, Floats]:
        """Rows and columns of the lattice's pixel centres.

        (height, 1) and (1, width) where they are separable, else both (height, width).
        """
        if self.separable:
            a = self.transform
            cols = (lattice.x - self.shift_m[0] - a.c) / a.a - 0.5
            rows = (lattice.y - self.shift_m[1] - a.f) / a.e - 0.5
            return _snapped(rows)[:, np.newaxis], _snapped(cols)[np.newaxis, :]
        rows, cols = self._interpolated(lattice)
        return _snapped(rows), _snapped(cols)

    def exact(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """(rows, cols) of points in the grid's CRS, of a source that is not moved; not finite where it fails."""
        if not _same_crs(self.crs, self.source_wkt):
            x, y = _transformer(self.crs, self.source_wkt).transform(x, y)
        inverse = ~self.transform
        return inverse.d * x + inverse.e * y + (inverse.f - 0.5), inverse.a * x + inverse.b * y + (inverse.c - 0.5)

    def _interpolated(self, lattice: Lattice) -> tuple[Floats, Floats]:
        """Exact at nodes fixed on the lattice, linear between them."""
        node_cols, left, across = _nodes(lattice.col0, lattice.width)
        node_rows, above, down = _nodes(lattice.row0, lattice.height)
        x = (node_cols * NODE_PX + lattice.phase_x) * lattice.res_m
        y = -(node_rows * NODE_PX + lattice.phase_y) * lattice.res_m
        x, y = np.meshgrid(x - self.shift_m[0], y - self.shift_m[1])
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


def steps_of(window: Grid, projection: Projection, width: int, height: int) -> int:
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
