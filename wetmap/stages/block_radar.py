"""The radar part of a block: read, take the rim off, filter and average in linear power, then decibels.

Memory holds one pass at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wetmap import recipe
from wetmap.cube import layers_of
from wetmap.imagery.radar import boxcar, erode_footprint, footprint_reach_px, lee, to_db
from wetmap.sources import EXTENT
from wetmap.stages.block_reading import BlockReader, Values, cropped, feature

_NOTHING = np.empty((0, 0), dtype=np.float32)


def radar_features(reader: BlockReader, season: str) -> Values:
    """Mean backscatter of one season for each orbit state wanted, dB, by name (y, x)."""
    values: Values = {}
    prefix = f"{season}.radar_"
    for layer in layers_of(reader.task.bands):
        if layer.startswith(prefix):
            state = layer.removeprefix(prefix)
            names = [feature(band).removesuffix(f"_{state}") for band in reader.bands(layer)]
            for name, mean in _mean_power(reader, layer, names).items():
                values[f"{season}.{name}_{state}"] = to_db(mean).astype(np.float32)
    return values


def _mean_power(reader: BlockReader, layer: str, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Mean over the passes of the filtered linear power; NaN where no pass saw the pixel."""
    settings, shape = reader.task.radar, reader.window.shape
    rim = math.ceil(settings.border_m / reader.window.res_m - 1e-9)
    filter_reach = 0 if settings.speckle == "none" else settings.window_px // 2
    margin = filter_reach + (footprint_reach_px(rim) if rim else 0)
    total = {name: np.zeros(shape) for name in names}
    count = {name: np.zeros(shape) for name in names}
    for scenes in reader.passes(layer):
        bands = reader.read(scenes, [*names, EXTENT], margin)
        inside = np.isfinite(bands.pop(EXTENT, _NOTHING))
        if not bands:
            continue
        valid = np.logical_and.reduce([np.isfinite(power) for power in bands.values()])
        if not valid.any():
            continue
        kept = erode_footprint(valid, inside, rim)
        for name, power in bands.items():
            smooth = cropped(_despeckle(np.where(kept, power, np.nan).astype(np.float64), settings), margin)
            seen = np.isfinite(smooth)
            total[name] += np.where(seen, smooth, 0.0)
            count[name] += seen
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: np.where(count[name] > 0, total[name] / count[name], np.nan) for name in names}


def _despeckle(power: NDArray[np.float64], settings: recipe.Radar) -> NDArray[np.float64]:
    if settings.speckle == "boxcar":
        return boxcar(power, settings.window_px)
    if settings.speckle == "lee":
        return lee(power, settings.window_px, settings.looks)
    return power
