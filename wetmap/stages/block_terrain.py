"""The terrain part of a block: elevation and what follows from it; wetness was computed in the plan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.terrain import slope_degrees, tpi
from wetmap.sources.reader import RasterBand, read_onto
from wetmap.stages.block_reading import BlockReader, Values, cropped, feature, serves
from wetmap.stages.terrain_plan import TWI_BAND

#: Radius of the disc of topographic position, metres: hillslope scale (Weiss 2001 used 300 m and 2000 m).
TPI_RADIUS_M = 300.0


def terrain_features(reader: BlockReader) -> Values:
    """Elevation, slope, topographic position and wetness, where they are wanted, by name (y, x)."""
    wanted = [feature(band) for band in reader.bands("terrain")]
    if not wanted:
        return {}
    res_m = reader.window.res_m
    radius = max(1, round(TPI_RADIUS_M / res_m))
    margin = radius if "tpi" in wanted else 1
    elevation = _elevation(reader, margin)
    values: Values = {}
    if "elevation" in wanted:
        values["terrain.elevation"] = cropped(elevation, margin).astype(np.float32)
    if "slope" in wanted:
        values["terrain.slope"] = cropped(slope_degrees(elevation, res_m), margin).astype(np.float32)
    if "tpi" in wanted:
        values["terrain.tpi"] = cropped(tpi(elevation, radius), margin).astype(np.float32)
    if "twi" in wanted and reader.task.accumulation is not None:
        values["terrain.twi"] = read_onto(RasterBand(str(reader.task.accumulation), band=TWI_BAND), reader.window)
    return values


def _elevation(reader: BlockReader, margin: int) -> NDArray[np.float64]:
    tiles = tuple(scene for scene in reader.task.scenes if serves(scene, "terrain"))
    elevation = reader.read(tiles, ["elevation"], margin).get("elevation")
    shape = (reader.window.height + 2 * margin, reader.window.width + 2 * margin)
    return np.full(shape, np.nan) if elevation is None else elevation.astype(np.float64)
