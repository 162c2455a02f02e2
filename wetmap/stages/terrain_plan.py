"""What the terrain features need from the whole area: catchment area and wetness, computed once, on a coarser grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from wetmap.errors import SourceError
from wetmap.geo import Grid
from wetmap.imagery.flow import fill_depressions, flow_accumulation
from wetmap.imagery.terrain import slope_degrees, twi
from wetmap.sources import Archive, Scene

#: Flow is not computed finer than the elevation model's own resolution (Copernicus DEM GLO-30), metres.
FINEST_M = 30.0
#: Land around the area whose water runs into it: what lies farther is not counted. Metres.
MARGIN_M = 3000.0
#: Most cells of the coarse grid; a larger area gets larger cells. A million cells take about 0.2 GB and some seconds.
MOST_CELLS = 8_000_000
#: Side of the pieces in which elevation is read, cells.
PIECE_PX = 1024
#: Bands of the raster that ``plan_terrain`` writes.
AREA_BAND, TWI_BAND = 1, 2


def coarse_grid(grid: Grid) -> Grid:
    """The grid on which flow is computed: the area and a margin, at 30 m or coarser."""
    height_m = grid.height * grid.res_m + 2 * MARGIN_M
    width_m = grid.width * grid.res_m + 2 * MARGIN_M
    res = max(grid.res_m, FINEST_M, math.ceil(math.sqrt(height_m * width_m / MOST_CELLS)))
    left = math.floor((grid.left - MARGIN_M) / res)
    top = math.ceil((grid.top + MARGIN_M) / res)
    return Grid(
        crs=grid.crs,
        res_m=res,
        left=left * res,
        top=top * res,
        height=math.ceil(height_m / res) + 1,
        width=math.ceil(width_m / res) + 1,
    )


def plan_terrain(archive: Archive, scenes: Sequence[Scene], grid: Grid, path: Path) -> None:
    """Compute specific catchment area and topographic wetness of the whole area and write them.

    Args:
        archive: The archive of the elevation model.
        scenes: Its tiles.
        grid: The map's grid.
        path: GeoTIFF to write: band 1 specific catchment area, m2 per m of contour; band 2 topographic wetness index,
            ln(m); float32, NaN where elevation is not known.

    Raises:
        SourceError: A tile cannot be read, or no tile holds an elevation in the area.
    """
    coarse = coarse_grid(grid)
    elevation = _elevation(archive, scenes, coarse)
    if not np.isfinite(elevation).any():
        raise SourceError(
            f"The {len(scenes)} elevation tiles hold no elevation in the area.",
            do="Check the terrain source, or leave twi out of features.terrain.",
        )
    area = flow_accumulation(fill_depressions(elevation)) * coarse.res_m
    wetness = twi(area, slope_degrees(elevation, coarse.res_m))
    _write(path, coarse, area.astype(np.float32), wetness.astype(np.float32))


def _elevation(archive: Archive, scenes: Sequence[Scene], grid: Grid) -> NDArray[np.float64]:
    elevation = np.full(grid.shape, np.nan)
    for block in grid.blocks(PIECE_PX):
        window = grid.window(block.y0, block.x0, block.height, block.width)
        elevation[block.slices] = mosaic(archive, scenes, window)
    return elevation


def mosaic(archive: Archive, scenes: Sequence[Scene], window: Grid) -> NDArray[np.float64]:
    """Elevation on a window, (y, x) float64, metres: of each pixel the first tile, in order, that holds it."""
    elevation = np.full(window.shape, np.nan)
    for scene in scenes:
        missing = np.isnan(elevation)
        if not missing.any():
            break
        bands = archive.read(scene, ("elevation",), window)
        if "elevation" in bands:
            elevation = np.where(missing, bands["elevation"], elevation)
    return elevation


def _write(path: Path, grid: Grid, area: NDArray[np.float32], wetness: NDArray[np.float32]) -> None:
    """Write atomically."""
    temporary = path.with_name(f".tmp-{path.name}")
    with rasterio.open(
        temporary,
        "w",
        driver="GTiff",
        width=grid.width,
        height=grid.height,
        count=2,
        dtype="float32",
        crs=grid.crs,
        transform=grid.transform,
        nodata=float("nan"),
        tiled=True,
        compress="deflate",
        predictor=3,
    ) as dataset:
        dataset.write(area, AREA_BAND)
        dataset.write(wetness, TWI_BAND)
        dataset.set_band_description(AREA_BAND, "specific catchment area, m")
        dataset.set_band_description(TWI_BAND, "topographic wetness index, ln(m)")
    temporary.replace(path)
