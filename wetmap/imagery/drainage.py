"""Height above the nearest drainage: each cell's height over the channel that its water reaches first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.flow import DISTANCES, NEIGHBOURS, Cells, Floats, Ground
from wetmap.imagery.windows import shifted


def downstream_of(ground: Ground) -> Cells:
    """The one neighbour that takes a cell's water: the steepest (O'Callaghan and Mark 1984, CVGIP 28(3), 323-344).

    On flats the neighbour nearest to the outlet, beside rather than across; of equals the first in the order of
    ``NEIGHBOURS``. Water that leaves what is observed, or that is not observed, stays where it is.

    Args:
        ground: The ground.

    Returns:
        Numbers of cells, flattened with the rim, one per cell.
    """
    heights, steps = ground.heights.reshape(ground.shape), ground.steps.reshape(ground.shape)
    best = np.zeros(ground.shape)
    target = np.arange(heights.size, dtype=np.intp).reshape(ground.shape)
    number = target.copy()
    for offset, (down, right), distance in zip(ground.offsets, NEIGHBOURS, DISTANCES, strict=True):
        other = shifted(heights, down, right, np.nan)
        with np.errstate(invalid="ignore"):
            drop = np.where(other < heights, heights.astype(np.float64) - other, 0.0)
            drop[(other == heights) & (steps > 0) & (shifted(steps, down, right, -1) == steps - 1)] = 1.0
        drop /= distance
        steeper = drop > best
        best[steeper] = drop[steeper]
        target[steeper] = number[steeper] + offset
    return target.ravel()


def cells_above(downstream: Cells) -> NDArray[np.int64]:
    """Cells whose water comes through each cell, itself included, by ``downstream_of``; flattened."""
    numbers = np.arange(downstream.size)
    moving = downstream != numbers
    waiting = np.bincount(downstream[moving], minlength=downstream.size)
    count = np.ones(downstream.size, dtype=np.int64)
    wave = np.flatnonzero((waiting == 0) & moving)
    while wave.size:
        target = downstream[wave]
        np.add.at(count, target, count[wave])
        np.subtract.at(waiting, target, 1)
        ready = np.unique(target[waiting[target] == 0])
        wave = ready[downstream[ready] != ready]
    return count


def height_above_drainage(ground: Ground, least_cells: float) -> Floats:
    """Height above the nearest drainage (HAND).

    Rennó and others (2008), Remote Sensing of Environment 112(9), 3469-3481; Nobre and others (2011), Journal of
    Hydrology 404(1-2), 13-29. Nearest is meant along the water's way, not in a straight line. Heights are those of the
    filled model, so that it is never negative, and ground in a closed hollow counts at the height of its way out.

    Args:
        ground: The ground.
        least_cells: A cell is drainage when the water of at least so many cells comes through it. Where water leaves
            what is observed before it meets drainage (the sea, the array's edge), the place of leaving counts as
            drainage.

    Returns:
        (y, x) float64, metres, at least 0, 0 in drainage; NaN where not observed.
    """
    downstream = downstream_of(ground)
    numbers = np.arange(downstream.size)
    reached = np.where(cells_above(downstream) >= least_cells, numbers, downstream)
    while True:  # the way is doubled each time: log2 of the longest way
        further = reached[reached]
        if np.array_equal(further, reached):
            break
        reached = further
    above = ground.heights.astype(np.float64) - ground.heights[reached]
    return np.asarray(ground.inner(above), dtype=np.float64).copy()
