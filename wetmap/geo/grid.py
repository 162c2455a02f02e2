"""The one grid that everything is on: CRS, transform, shape; split into blocks.

Decided once from the area of interest, snapped to multiples of the resolution, and handed to everybody: nobody
re-derives it. Coordinates are pixel centres; x grows to the east, rows grow to the south.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from wetmap.errors import AoiError, UsageError
from wetmap.geo.aoi import Aoi

#: Nodes between which the areal scale is interpolated, pixels. The scale of a transverse Mercator changes by less
#: than 1e-7 over 64 px of 10 m, so linear interpolation is exact far beyond the printed digits.
AREA_NODE_PX = 64


@dataclass(frozen=True)
class Block:
    """A rectangle of the grid that one task works on, in pixels of the grid's own raster."""

    row: int
    """Index of the block from the top."""
    col: int
    """Index of the block from the left."""
    y0: int
    """First pixel row."""
    x0: int
    """First pixel column."""
    height: int
    """Pixel rows."""
    width: int
    """Pixel columns."""

    @property
    def name(self) -> str:
        """The block's name in ledgers and file names."""
        return f"r{self.row:05d}c{self.col:05d}"

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, for indexing a (..., y, x) array."""
        return slice(self.y0, self.y0 + self.height), slice(self.x0, self.x0 + self.width)


@dataclass(frozen=True)
class Grid:
    """The map's raster: immutable and hashable.

    The transform maps pixel *corners*: ``(col, row) -> (x, y)``; the centre is at ``(col + 0.5, row + 0.5)``.
    """

    crs: str
    """A projected CRS in metres, as ``EPSG:n`` where it has a code, else as WKT."""
    res_m: float
    """Pixel side, metres."""
    left: float
    """x of the raster's left edge, metres, a multiple of ``res_m`` unless the grid is aligned with a raster."""
    top: float
    """y of the raster's top edge, metres, likewise."""
    height: int
    """Pixel rows."""
    width: int
    """Pixel columns."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.height, self.width

    @property
    def transform(self) -> Affine:
        """Pixel corner (col, row) to CRS (x, y)."""
        return Affine(self.res_m, 0.0, self.left, 0.0, -self.res_m, self.top)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top), metres in the grid's CRS."""
        return (
            self.left,
            self.top - self.height * self.res_m,
            self.left + self.width * self.res_m,
            self.top,
        )

    @property
    def geobox(self) -> GeoBox:
        """The same raster for odc-geo and odc-stac."""
        return GeoBox(self.shape, self.transform, self.crs)

    @property
    def x(self) -> NDArray[np.float64]:
        """X of the pixel centres, (width,), metres."""
        return self.left + (np.arange(self.width, dtype=np.float64) + 0.5) * self.res_m

    @property
    def y(self) -> NDArray[np.float64]:
        """Y of the pixel centres, (height,), metres, decreasing."""
        return self.top - (np.arange(self.height, dtype=np.float64) + 0.5) * self.res_m

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back unchanged."""
        return {
            "crs": self.crs,
            "res_m": self.res_m,
            "left": self.left,
            "top": self.top,
            "height": self.height,
            "width": self.width,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Grid:
        """Rebuild a grid written by ``to_json``."""
        return cls(**data)

    def window(self, y0: int, x0: int, height: int, width: int) -> Grid:
        """A grid on the same raster, ``height`` x ``width`` pixels from (y0, x0); it may reach outside this one."""
        return Grid(
            crs=self.crs,
            res_m=self.res_m,
            left=self.left + x0 * self.res_m,
            top=self.top - y0 * self.res_m,
            height=height,
            width=width,
        )

    def blocks(self, block_px: int) -> Iterator[Block]:
        """Split into blocks of ``block_px`` from the grid's origin; the last row and column may be smaller."""
        for row in range(math.ceil(self.height / block_px)):
            for col in range(math.ceil(self.width / block_px)):
                y0, x0 = row * block_px, col * block_px
                yield Block(row, col, y0, x0, min(block_px, self.height - y0), min(block_px, self.width - x0))

    def pixel_area_m2(self, block: Block | None = None) -> NDArray[np.float64]:
        """True area of each pixel on the ellipsoid, (height, width), m2.

        The projected area divided by the projection's areal scale (PROJ ``proj_factors``), so that a UTM pixel is
        not counted 0.3 % too large or 0.08 % too small.
        """
        y0, x0, height, width = (
            (0, 0, self.height, self.width) if block is None else (block.y0, block.x0, block.height, block.width)
        )
        rows, cols = _nodes(y0, height), _nodes(x0, width)
        scale = self._areal_scale(rows, cols)
        down = _interpolation(np.arange(y0, y0 + height, dtype=np.float64) + 0.5, rows)
        across = _interpolation(np.arange(x0, x0 + width, dtype=np.float64) + 0.5, cols)
        return np.asarray(self.res_m**2 / (down @ scale @ across.T), dtype=np.float64)

    def _areal_scale(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
        """Areal scale of the projection at pixel-edge coordinates, (rows, cols), dimensionless."""
        from pyproj import Proj

        crs = CRS.from_user_input(self.crs)
        x, y = np.meshgrid(self.left + cols * self.res_m, self.top - rows * self.res_m)
        geodetic = crs.geodetic_crs
        if geodetic is None:
            raise UsageError(f"{self.crs} has no geodetic base.", do="Choose another --crs.")
        lon, lat = Transformer.from_crs(crs, geodetic, always_xy=True).transform(x, y)
        factors = Proj(crs).get_factors(lon, lat)
        return np.asarray(factors.areal_scale, dtype=np.float64).reshape(x.shape)

    def describe(self) -> str:
        """One line for people: CRS, size, resolution."""
        name = CRS.from_user_input(self.crs).name
        return f"{self.crs} ({name}), {self.width} x {self.height} px of {self.res_m:g} m"


def _nodes(start: int, count: int) -> NDArray[np.float64]:
    """Nodes on the grid's own lattice, so that an area does not depend on how the grid is cut into blocks."""
    first = start // AREA_NODE_PX
    last = math.ceil((start + count) / AREA_NODE_PX)
    return np.arange(first, last + 1, dtype=np.float64) * AREA_NODE_PX


def _interpolation(at: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear interpolation as a matrix, (len(at), len(nodes))."""
    left = np.clip(((at - nodes[0]) // AREA_NODE_PX).astype(int), 0, len(nodes) - 2)
    share = (at - nodes[left]) / AREA_NODE_PX
    matrix = np.zeros((len(at), len(nodes)))
    index = np.arange(len(at))
    matrix[index, left] = 1 - share
    matrix[index, left + 1] = share
    return matrix


def make_grid(aoi: Aoi, *, res_m: float = 10.0, crs: str = "auto", align: Path | None = None) -> Grid:
    """Decide the grid of an area.

    Args:
        aoi: The area of interest.
        res_m: Pixel side, metres.
        crs: ``auto`` for the UTM zone that holds most of the area, or any projected CRS in metres.
        align: A raster whose CRS and pixel edges the grid takes over.

    Returns:
        The smallest grid whose edges are multiples of ``res_m``, or lie on those of ``align``, and that holds the area.

    Raises:
        UsageError: The CRS is unknown, not projected, or not in metres; or ``align`` is no raster of such pixels.
        AoiError: The area cannot be projected to the CRS.
    """
    phase_x = phase_y = 0.0
    if align is not None:
        crs, phase_x, phase_y = _lattice_of(align, res_m, crs)
    chosen = aoi.utm_crs() if crs == "auto" else _metric_crs(crs)
    left, bottom, right, top = aoi.bounds_in(chosen)
    if not all(map(math.isfinite, (left, bottom, right, top))):
        raise AoiError(
            f"{aoi.name} cannot be projected to {chosen}: its bounds become {left:g}, {bottom:g}, {right:g}, {top:g}.",
            do="Choose a --crs that covers the area.",
        )
    column0, row0 = math.floor(_snap((left - phase_x) / res_m)), math.ceil(_snap((top - phase_y) / res_m))
    column1, row1 = math.ceil(_snap((right - phase_x) / res_m)), math.floor(_snap((bottom - phase_y) / res_m))
    return Grid(
        crs=chosen,
        res_m=res_m,
        left=column0 * res_m + phase_x,
        top=row0 * res_m + phase_y,
        height=max(row0 - row1, 1),
        width=max(column1 - column0, 1),
    )


def _lattice_of(path: Path, res_m: float, crs: str) -> tuple[str, float, float]:
    """CRS of a raster, and how far its edges lie past multiples of ``res_m``, x and y, metres.

    Raises:
        UsageError: It cannot be read, has no CRS, other pixels than ``res_m``, or another CRS than ``crs``.
    """
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as raster:
            own, a = raster.crs, raster.transform
    except RasterioError as error:
        raise UsageError(f"grid.align {path} cannot be read ({error}).", do="Give one of your rasters.") from error
    if own is None:
        raise UsageError(f"grid.align {path} has no CRS.", do="Set it in QGIS (Layer > Set CRS) and save it.")
    square = a.b == a.d == 0 and abs(a.a - res_m) < 1e-9 * res_m and abs(a.e + res_m) < 1e-9 * res_m
    if not square:
        raise UsageError(
            f"grid.align {path} has pixels of {a.a:g} x {-a.e:g} m, and grid.res_m is {res_m:g}.",
            do="Give a raster with pixels of that size, north up, or another grid.res_m.",
        )
    if crs != "auto" and CRS.from_user_input(crs) != CRS.from_wkt(own.to_wkt()):
        raise UsageError(f"grid.align {path} is in {own.to_string()}, and grid.crs is {crs}.", do="Leave grid.crs out.")
    return own.to_wkt(), round(a.c % res_m, 6), round(a.f % res_m, 6)


def _snap(value: float) -> float:
    """A bound within a thousandth of a pixel of the lattice lies on it: rounded coordinates must not add a row."""
    nearest = round(value)
    return float(nearest) if abs(value - nearest) < 1e-3 else value


def _metric_crs(crs: str) -> str:
    from pyproj.exceptions import CRSError

    try:
        parsed = CRS.from_user_input(crs)
    except CRSError as error:
        raise UsageError(
            f"--crs {crs!r} is not a CRS that PROJ knows ({error}).", do="Give one such as EPSG:2953."
        ) from error
    unit = parsed.axis_info[0].unit_name if parsed.axis_info else "unknown"
    if not parsed.is_projected or unit not in {"metre", "meter"}:
        raise UsageError(
            f"--crs {crs} ({parsed.name}) is measured in {unit}, and the grid needs metres.",
            do="Give a projected CRS such as EPSG:2953, or leave --crs out for the UTM zone.",
        )
    code = parsed.to_epsg()
    return f"EPSG:{code}" if code else parsed.to_wkt()
