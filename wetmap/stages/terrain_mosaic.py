"""One surface of many elevation tiles: where tiles abut, heights are interpolated across the cut as within a tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wetmap.geo import Grid
from wetmap.sources import Scene
from wetmap.sources.scene import EXTENT, SHARE, WEIGHT

Floats = NDArray[np.float64]
#: Reads bands of a tile onto a window, as ``Archive.read``; nothing where the tile cannot be read.
ReadTile = Callable[[Scene, Sequence[str], Grid], Mapping[str, NDArray[np.float32]]]


def mosaic(read: ReadTile, tiles: Sequence[Scene], window: Grid, sea_m: float | None = None) -> Floats:
    """Elevation on a window, from all tiles together.

    Where tiles overlap the last in the list counts, and up to one pixel beyond its edge the others come in by their
    weight. The order of additions is that of the list, so that a pixel gets the same bits in every window.

    Args:
        read: Reads a tile.
        tiles: The tiles.
        window: The pixels wanted.
        sea_m: Height of ground that no tile has a pixel for, metres; None for not observed.

    Returns:
        (height, width) float64 that are float32 values, metres, NaN where not observed: where no tile holds the
        pixel's centre (with tiles finer than the grid: at least half of the pixel).
    """
    total, weight, share = np.zeros(window.shape), np.zeros(window.shape), np.zeros(window.shape)
    for tile in reversed(tiles):
        if weight.size and weight.min() >= 1:
            break
        found = read(tile, ("elevation", WEIGHT), window)
        if "elevation" not in found:
            continue
        value = found["elevation"].astype(np.float64)
        seen = np.isfinite(value)
        # An archive that does not know weights gives values with weight 1.
        gives = np.where(seen, found[WEIGHT], 0.0) if WEIGHT in found else seen.astype(np.float64)
        room = np.where(weight > 0, np.clip(1 - weight, 0.0, gives), gives)
        total += room * np.where(seen, value, 0.0)
        weight += room
        share += found.get(SHARE, gives)
    with np.errstate(invalid="ignore", divide="ignore"):
        surface = np.where((weight > 0) & (share >= 0.5), total / weight, np.nan)
    if sea_m is not None and np.isnan(surface).any():
        surface[_beyond_all(read, tiles, window)] = sea_m
    return surface.astype(np.float32).astype(np.float64)


def _beyond_all(read: ReadTile, tiles: Sequence[Scene], window: Grid) -> NDArray[np.bool_]:
    """Pixels for which no tile has a pixel, observed or not; none while a tile cannot be read: it might have them."""
    beyond = np.ones(window.shape, dtype=np.bool_)
    for tile in tiles:
        found = read(tile, (EXTENT,), window)
        if EXTENT not in found:
            return np.zeros(window.shape, dtype=np.bool_)
        beyond &= np.isnan(found[EXTENT])
    return beyond
