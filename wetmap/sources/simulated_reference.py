"""Reference polygons of the simulated landscape: small cut-outs of the truth, a known share of them named wrongly."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy.ndimage import binary_dilation, binary_erosion, label
from shapely.geometry import Polygon, shape

from wetmap.geo.grid import Grid
from wetmap.sources.landscape import COVERS
from wetmap.sources.noise import generator

if TYPE_CHECKING:
    import geopandas

#: A pixel and its eight neighbours.
AROUND = np.ones((3, 3), np.bool_)
#: Layer of the GeoPackage.
LAYER = "wetlands"
#: Half the longer side of a polygon, pixels, smallest and largest.
RADIUS_PX = (3.0, 8.0)
#: Polygons of fewer pixels are not kept.
SMALLEST_PX = 8
#: Pixels between two polygons.
GAP_PX = 3
#: Places looked at for each polygon, of which the one farthest from its own kind is taken.
CANDIDATES = 12
#: Outlines are simplified by this share of a pixel.
SIMPLIFY_PX = 0.6
#: Time stamp in the GeoPackage: the file is a function of what it holds, not of when it was written.
TIME_STAMP = "2000-01-01T00:00:00Z"


@dataclass(frozen=True)
class ReferencePolygon:
    """One polygon and what it says."""

    geometry: Polygon
    """In the CRS of the truth raster."""
    true_class: str
    """What lies there."""
    said_class: str
    """What the reference says (field CLASS)."""


def draw_reference(
    cover: NDArray[np.uint8], inside: NDArray[np.bool_], grid: Grid, *, count: int, noise: float, seed: int
) -> list[ReferencePolygon]:
    """Draw reference polygons, in turn for every cover, spread over the area.

    Args:
        cover: Codes of ``COVERS``, (height, width) of ``grid``.
        inside: Pixels in the area of interest, (height, width).
        grid: Where the covers lie.
        count: Polygons wanted; there are fewer where the land has no room for them.
        noise: Share of them with a wrong class, 0-1.
        seed: Seed of the draw.

    Returns:
        Polygons that keep at least a pixel from the border of their class and ``GAP_PX`` from each other.
    """
    random = generator(seed, "reference")
    drawer = _Drawer(cover, inside, random)
    regions: list[tuple[Polygon, str]] = []
    codes = [kind.code for kind in COVERS]
    while len(regions) < count and codes:
        for code in list(codes):
            if len(regions) == count:
                break
            polygon = drawer.draw(code)
            if polygon is None:
                codes.remove(code)
            else:
                regions.append((_on_ground(polygon, grid), COVERS[code - 1].reference_class))
    return _with_noise(regions, noise, random)


class _Drawer:
    """Draws one polygon after the other, keeping what is taken."""

    def __init__(self, cover: NDArray[np.uint8], inside: NDArray[np.bool_], random: np.random.Generator) -> None:
        self.random = random
        self.shape = cover.shape
        self.core: dict[int, NDArray[np.bool_]] = {}
        self.free: dict[int, NDArray[np.intp]] = {}
        self.drawn: dict[int, list[tuple[int, int]]] = {kind.code: [] for kind in COVERS}
        self.taken = np.zeros(cover.shape, np.bool_)
        for kind in COVERS:
            core = binary_erosion((cover == kind.code) & inside, AROUND)
            self.core[kind.code] = core
            centres = binary_erosion(core)
            self.free[kind.code] = np.flatnonzero(centres if centres.any() else core)

    def draw(self, code: int) -> Polygon | None:
        """A polygon of one cover in pixel coordinates (x = column), or None where there is no more room."""
        while True:
            free = self.free[code] = self.free[code][~self.taken.ravel()[self.free[code]]]
            if free.size == 0:
                return None
            row, column = self._place(code)
            rows, columns, region = self._region(code, row, column)
            if int(region.sum()) >= SMALLEST_PX:
                self.drawn[code].append((row, column))
                self.taken[rows, columns] |= binary_dilation(region, AROUND, iterations=GAP_PX)
                return _outline(region, rows.start, columns.start)
            self.taken[row, column] = True

    def _place(self, code: int) -> tuple[int, int]:
        """Best of a few candidates after D. P. Mitchell (SIGGRAPH 1991): the one farthest from its own kind."""
        chosen = self.random.choice(self.free[code], size=CANDIDATES)
        rows, columns = np.unravel_index(chosen, self.shape)
        best = 0
        if self.drawn[code]:
            there = np.array(self.drawn[code])
            distance = np.hypot(rows[:, None] - there[:, 0], columns[:, None] - there[:, 1]).min(axis=1)
            best = int(distance.argmax())
        return int(rows[best]), int(columns[best])

    def _region(self, code: int, row: int, column: int) -> tuple[slice, slice, NDArray[np.bool_]]:
        """Pixels of one cover that hang together around a place, within a turned rectangle or ellipse."""
        long = self.random.uniform(*RADIUS_PX)
        short, turn = long * self.random.uniform(0.45, 1.0), self.random.uniform(0, np.pi)
        reach = int(np.ceil(1.5 * long)) + GAP_PX
        rows = slice(max(row - reach, 0), min(row + reach + 1, self.shape[0]))
        columns = slice(max(column - reach, 0), min(column + reach + 1, self.shape[1]))
        down, across = np.mgrid[rows, columns]
        along = ((down - row) * np.sin(turn) + (across - column) * np.cos(turn)) / long
        beside = ((down - row) * np.cos(turn) - (across - column) * np.sin(turn)) / short
        form = np.maximum(abs(along), abs(beside)) if self.random.random() < 0.5 else np.hypot(along, beside)
        parts, _ = label((form <= 1.0) & self.core[code][rows, columns] & ~self.taken[rows, columns])
        part = parts[row - rows.start, column - columns.start]
        return rows, columns, np.asarray((parts == part) & (part > 0))


def _outline(region: NDArray[np.bool_], row: int, column: int) -> Polygon:
    """Simplified outline of connected pixels, holes filled, in pixel coordinates (x = column)."""
    outlines = [shape(outline) for outline, value in shapes(region.astype(np.uint8), mask=region) if value]
    whole = max(outlines, key=lambda outline: float(outline.area))
    plain = shapely.simplify(shapely.get_exterior_ring(whole), SIMPLIFY_PX)
    return Polygon(shapely.get_coordinates(plain) + np.array([column, row]))


def _on_ground(polygon: Polygon, grid: Grid) -> Polygon:
    """Pixel coordinates to the grid's CRS."""
    return Polygon([(grid.left + x * grid.res_m, grid.top - y * grid.res_m) for x, y in polygon.exterior.coords])


def _with_noise(
    regions: list[tuple[Polygon, str]], noise: float, random: np.random.Generator
) -> list[ReferencePolygon]:
    """Give a share of the polygons the name of another class."""
    wrong = set(random.choice(len(regions), size=round(noise * len(regions)), replace=False)) if regions else set()
    names = sorted({kind.reference_class for kind in COVERS})
    polygons = []
    for number, (geometry, true) in enumerate(regions):
        others = [name for name in names if name != true]
        said = others[int(random.integers(len(others)))] if number in wrong else true
        polygons.append(ReferencePolygon(geometry, true, said))
    return polygons


def reference_frame(polygons: list[ReferencePolygon], crs: str) -> geopandas.GeoDataFrame:
    """The polygons as a table: id, CLASS (what the reference says), true_class, noisy, simulated."""
    import geopandas

    return geopandas.GeoDataFrame(
        {
            "id": np.arange(1, len(polygons) + 1, dtype=np.int32),
            "CLASS": [polygon.said_class for polygon in polygons],
            "true_class": [polygon.true_class for polygon in polygons],
            "noisy": [polygon.said_class != polygon.true_class for polygon in polygons],
            "simulated": [True] * len(polygons),
        },
        geometry=[polygon.geometry for polygon in polygons],
        crs=crs,
    )


def geopackage(polygons: list[ReferencePolygon], crs: str, note: str) -> bytes:
    """The polygons as a GeoPackage; the same polygons give the same bytes.

    Args:
        polygons: The polygons.
        crs: Their CRS.
        note: What the layer's metadata say about its origin.
    """
    file = io.BytesIO()
    with _fixed_time():
        reference_frame(polygons, crs).to_file(
            file, layer=LAYER, driver="GPKG", engine="pyogrio", layer_metadata={"SIMULATED": note}
        )
    return file.getvalue()


@contextmanager
def _fixed_time() -> Iterator[None]:
    """Make GDAL write a fixed time stamp."""
    import pyogrio

    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": TIME_STAMP})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
