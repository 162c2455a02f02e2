"""Where water runs: depressions filled, flow shared among all lower neighbours, area added up downstream."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.windows import shifted

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: The eight neighbours (rows, columns) and their distance in pixels.
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
DISTANCES = tuple(float(np.hypot(down, right)) for down, right in NEIGHBOURS)
#: Exponent of the slope in sharing flow: Freeman (1991), Computers & Geosciences 17(3), 413-422.
EXPONENT = 1.1


def fill_depressions(elevation: Floats) -> Floats:
    """Raise every depression to its lowest way out.

    Morphological reconstruction by erosion from the edge of what is observed, which water may leave (Soille and
    Ansoult 1990, Signal Processing 20(2), 171-182).

    Args:
        elevation: (y, x) float64, metres, NaN where not observed.

    Returns:
        (y, x) float64, metres, NaN where not observed.
    """
    from skimage.morphology import reconstruction

    seen = np.isfinite(elevation)
    if not seen.any():
        return elevation.copy()
    solid = np.where(seen, elevation, np.min(elevation[seen]) - 1.0)
    seed = np.where(_ways_out(seen) | ~seen, solid, np.max(elevation[seen]))
    filled = reconstruction(seed, solid, method="erosion")  # type: ignore[no-untyped-call]
    return np.where(seen, filled, np.nan)


def _ways_out(seen: Bools) -> Bools:
    """Observed cells at the array's edge or beside what is not observed: water may leave there."""
    out = np.zeros_like(seen)
    for down, right in NEIGHBOURS:
        out |= ~shifted(seen, down, right, False)
    return out & seen


def flow_accumulation(filled: Floats) -> Floats:
    """Cells that drain through each cell, itself included, with flow shared among all lower neighbours.

    Freeman's (1991) multiple flow direction: a neighbour's share is proportional to slope ** 1.1. On flats, which
    filling makes, water runs by the shortest way to the flat's outlets: cells are ordered by their number of steps to
    it. Cells are taken in waves: a cell is done when everything above it is.

    Args:
        filled: Elevation without depressions, (y, x) float64, metres, NaN where not observed.

    Returns:
        (y, x) float64, number of cells (at least 1), NaN where not observed.
    """
    seen = np.isfinite(filled)
    padded = np.pad(filled, 1, constant_values=np.nan)
    steps = _steps_to_outlet(padded)
    weights = _shares(padded, steps)
    offsets = np.array([down * padded.shape[1] + right for down, right in NEIGHBOURS])
    area = np.where(np.isfinite(padded), 1.0, 0.0).ravel()
    waiting = _donors(weights).ravel()
    flat_weights = weights.reshape(len(NEIGHBOURS), -1)
    wave = np.flatnonzero((waiting == 0) & np.isfinite(padded).ravel())
    while wave.size:
        shares = flat_weights[:, wave]
        targets = (wave[np.newaxis, :] + offsets[:, np.newaxis])[shares > 0]
        np.add.at(area, targets, (shares * area[wave])[shares > 0])
        np.subtract.at(waiting, targets, 1)
        wave = np.unique(targets[waiting[targets] == 0])
    inner = area.reshape(padded.shape)[1:-1, 1:-1]
    return np.where(seen, inner, np.nan)


def _steps_to_outlet(padded: Floats) -> NDArray[np.int32]:
    """0 where a cell has a lower neighbour or a way out, else the steps through its flat to such a cell; -1 if none."""
    seen = np.isfinite(padded)
    drains = _ways_out(seen)
    with np.errstate(invalid="ignore"):
        for down, right in NEIGHBOURS:
            drains |= shifted(padded, down, right, np.nan) < padded
    steps = np.where(drains, 0, -1).astype(np.int32).ravel()
    offsets = np.array([down * padded.shape[1] + right for down, right in NEIGHBOURS])
    height = padded.ravel()
    front = np.flatnonzero(steps == 0)
    step = 0
    while front.size:
        step += 1
        near = front[:, np.newaxis] + offsets[np.newaxis, :]
        level = (height[near] == height[front][:, np.newaxis]) & (steps[near] < 0)
        front = np.unique(near[level])
        steps[front] = step
    return steps.reshape(padded.shape)


def _shares(padded: Floats, steps: NDArray[np.int32]) -> NDArray[np.float32]:
    """Share of a cell's flow that goes to each neighbour, (8, y, x); all 0 where water leaves the raster."""
    weights = np.zeros((len(NEIGHBOURS), *padded.shape), dtype=np.float32)
    for number, ((down, right), distance) in enumerate(zip(NEIGHBOURS, DISTANCES, strict=True)):
        other = shifted(padded, down, right, np.nan)
        with np.errstate(invalid="ignore"):
            drop = np.where(other < padded, (padded - other) / distance, 0.0)
            along = (other == padded) & (steps > 0) & (shifted(steps, down, right, -1) == steps - 1)
        weights[number] = np.where(along, 1.0 / distance, drop**EXPONENT)
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights /= np.where(total > 0, total, 1.0)
    return weights


def _donors(weights: NDArray[np.float32]) -> NDArray[np.int32]:
    """How many neighbours send water to each cell, (y, x)."""
    count = np.zeros(weights.shape[1:], dtype=np.int32)
    for number, (down, right) in enumerate(NEIGHBOURS):
        count += shifted((weights[number] > 0).astype(np.int32), -down, -right, 0)
    return count
