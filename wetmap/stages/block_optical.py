"""The optical part of a block: read, mask, composite, indices.

Memory holds the looks of one band at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.composite import median_composite
from wetmap.imagery.indices import index_bands, spectral_index
from wetmap.imagery.masks import clear_mask, dilate_px
from wetmap.stages.block_reading import BlockReader, Pass, Values, cropped, feature

#: A pass, and where it shows the ground; None where there is no classification.
Look = tuple[Pass, NDArray[np.bool_] | None]


def optical_features(reader: BlockReader, season: str) -> tuple[Values, NDArray[np.uint16]]:
    """Composites and indices of one season by name (y, x), and the clear looks behind them (y, x)."""
    layer = f"{season}.optical"
    wanted = reader.bands(layer)
    names = [feature(band) for band in wanted if band.kind == "reflectance"]
    indices = [feature(band) for band in wanted if band.kind == "index"]
    needed = list(dict.fromkeys([*names, *(name for index in indices for name in index_bands(index))]))
    while True:
        failed = len(reader.failures)
        composites, count = _composites(reader, _clear(reader, layer) if wanted else [], needed)
        if len(reader.failures) == failed:
            break  # Else a scene failed half way, and again without it: no band may keep it.
    values = {f"{season}.{name}": composites[name] for name in names}
    values |= {f"{season}.{index}": spectral_index(index, composites) for index in indices}
    return values, count


def _clear(reader: BlockReader, layer: str) -> list[Look]:
    """The layer's passes that show any ground of the block, and where."""
    settings, res_m = reader.task.optical, reader.window.res_m
    margin = dilate_px(settings.dilate_m, res_m)
    found: list[Look] = []
    for scenes in reader.passes(layer):
        if any("SCL" not in scene.bands for scene in scenes):
            found.append((scenes, None))
            continue
        scl = reader.read(scenes, ["SCL"], margin).get("SCL")
        if scl is None or np.isnan(scl).all():
            continue
        mask = cropped(clear_mask(scl, res_m=res_m, dilate_m=settings.dilate_m), margin)
        if mask.any():
            found.append((scenes, mask))
    return found


def _composites(reader: BlockReader, clear: Sequence[Look], names: Sequence[str]) -> tuple[Values, NDArray[np.uint16]]:
    """Median of each band, and the least number of looks behind any of them."""
    composites: Values = {}
    least: NDArray[np.uint16] | None = None
    for name in names:
        stack = np.full((len(clear), *reader.window.shape), np.nan, dtype=np.float32)
        for number, (scenes, mask) in enumerate(clear):
            values = reader.read(scenes, [name], 0).get(name)
            if values is not None:
                stack[number] = values if mask is None else np.where(mask, values, np.nan)
        composites[name], count = median_composite(stack)
        least = count if least is None else np.minimum(least, count)
    return composites, np.zeros(reader.window.shape, dtype=np.uint16) if least is None else least
