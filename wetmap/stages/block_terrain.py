"""The terrain part of a block: elevation and what follows from it; what the whole area decides is in the plan.

Slope, aspect and position are taken between cells as coarse as the elevation model itself, and interpolated to the
map's pixels: a slope between pixels that were themselves interpolated would show the model's facets, not the land.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.geo import Grid
from wetmap.imagery.nodes import between_nodes
from wetmap.imagery.terrain import aspect_of, disc_mean, gradient, slope_of
from wetmap.sources.positions import Lattice
from wetmap.sources.reader import RasterBand, read_onto
from wetmap.stages.block_reading import BlockReader, Values, feature, serves
from wetmap.stages.terrain_mosaic import mosaic
from wetmap.stages.terrain_plan import HAND_BAND, TWI_BAND, TerrainPlan

Floats = NDArray[np.float64]

#: Radius of the disc of topographic position, metres: hillslope scale (Weiss 2001 used 300 m and 2000 m).
TPI_RADIUS_M = 300.0
#: Features that are taken between the cells of the lattice.
GRADIENT_FEATURES = {"slope", "aspect_north", "aspect_east"}


def terrain_features(reader: BlockReader) -> Values:
    """The terrain features that are wanted, by name, (y, x) float32, NaN where elevation is not observed."""
    wanted = {feature(band) for band in reader.bands("terrain")}
    if not wanted:
        return {}
    settled = reader.task.terrain or TerrainPlan(reader.window.res_m, 1, reader.window.res_m)
    found: dict[str, Floats] = {}
    nodes = _Nodes.around(reader.window, settled.step, _margin(wanted, settled.lattice_m))
    heights = _heights(reader, nodes.window, settled) if wanted & {*GRADIENT_FEATURES, "tpi"} else None
    found["elevation"] = (
        nodes.pixels(heights) if heights is not None and settled.step == 1 else _heights(reader, reader.window, settled)
    )
    if heights is not None:
        found |= _between(nodes, heights, settled.lattice_m, found["elevation"], wanted)
    found |= _from_plan(reader, settled, found["elevation"], wanted)
    seen = np.isfinite(found["elevation"])
    return {
        f"terrain.{name}": np.where(seen, values, np.nan).astype(np.float32)
        for name, values in found.items()
        if name in wanted
    }


def _margin(wanted: set[str], lattice_m: float) -> int:
    """Cells around those that hold the block: the disc's radius, or the slope's neighbours."""
    return _radius(lattice_m) if "tpi" in wanted else 1


def _radius(lattice_m: float) -> int:
    return max(1, round(TPI_RADIUS_M / lattice_m))


@dataclass(frozen=True)
class _Nodes:
    """The cells around a block: squares of ``step`` map pixels, counted from the CRS's origin, whatever the block."""

    window: Grid
    """The cells as a grid."""
    step: int
    """Pixels per cell side."""
    first: tuple[int, int]
    """The block's first pixel, row and column, from the upper left corner of the cells."""
    shape: tuple[int, int]
    """The block's pixels."""

    @classmethod
    def around(cls, block: Grid, step: int, margin: int) -> _Nodes:
        """The cells that hold the block's pixels, one more for interpolation, and ``margin`` for neighbourhoods."""
        at, reach = Lattice.of(block), margin + 1
        row0, col0 = at.row0 // step - reach, at.col0 // step - reach
        row1, col1 = (at.row0 + at.height - 1) // step + reach, (at.col0 + at.width - 1) // step + reach
        window = Grid(
            crs=block.crs,
            res_m=step * block.res_m,
            left=(col0 * step + at.phase_x) * block.res_m,
            top=-(row0 * step + at.phase_y) * block.res_m,
            height=row1 - row0 + 1,
            width=col1 - col0 + 1,
        )
        return cls(window, step, (at.row0 - row0 * step, at.col0 - col0 * step), block.shape)

    def pixels(self, values: Floats) -> Floats:
        """Values of the cells at the block's pixels, bilinear."""
        return between_nodes(values, self.step, self.first, self.shape)


def _heights(reader: BlockReader, window: Grid, settled: TerrainPlan) -> Floats:
    tiles = [scene for scene in reader.task.scenes if serves(scene, "terrain")]
    return mosaic(reader.read_scene, tiles, window, settled.sea_m)


def _between(
    nodes: _Nodes, heights: Floats, lattice_m: float, elevation: Floats, wanted: set[str]
) -> dict[str, Floats]:
    """Slope, aspect and position, from the cells' heights."""
    found: dict[str, Floats] = {}
    if wanted & GRADIENT_FEATURES:
        east, south = (nodes.pixels(part) for part in gradient(heights, lattice_m))
        found["slope"] = slope_of(east, south)
        found["aspect_north"], found["aspect_east"] = aspect_of(east, south)
    if "tpi" in wanted:
        found["tpi"] = elevation - nodes.pixels(disc_mean(heights, _radius(lattice_m)))
    return found


def _from_plan(reader: BlockReader, settled: TerrainPlan, elevation: Floats, wanted: set[str]) -> dict[str, Floats]:
    """Wetness, height above drainage and wide position, from what was computed for the whole area."""
    found: dict[str, Floats] = {}
    for name, band in (("twi", TWI_BAND), ("hand", HAND_BAND)):
        if name in wanted and reader.task.accumulation is not None:
            found[name] = _read(str(reader.task.accumulation), band, reader.window)
    if "tpi_wide" in wanted and settled.wide is not None:
        found["tpi_wide"] = elevation - _read(settled.wide, 1, reader.window)
    return found


def _read(path: str, band: int, window: Grid) -> Floats:
    return read_onto(RasterBand(path, band=band), window).astype(np.float64)
