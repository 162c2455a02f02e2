"""Where water runs: depressions filled, flow shared among all lower neighbours, area added up downstream.

Cells are numbered row by row in an array with a rim of one cell around it, so that every cell has eight neighbours at
fixed distances in number. Every cell is visited once, whatever the length of its way to the sea.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.windows import shifted

Floats = NDArray[np.float64]
#: Elevations may be of either precision: nothing is added to them, and half the memory is half the memory.
Heights = NDArray[np.floating]
Bools = NDArray[np.bool_]
Cells = NDArray[np.intp]

#: The eight neighbours (rows, columns) and their distance in cells.
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
DISTANCES = tuple(float(np.hypot(down, right)) for down, right in NEIGHBOURS)
#: Exponent of the slope in sharing flow: Freeman (1991), Computers & Geosciences 17(3), 413-422.
EXPONENT = 1.1


def fill_depressions(elevation: Heights) -> Heights:
    """Raise every depression to its lowest way out.

    Morphological reconstruction by erosion from the edge of what is observed, which water may leave (Soille and
    Ansoult 1990, Signal Processing 20(2), 171-182).

    Args:
        elevation: (y, x) float32 or float64, metres, NaN where not observed.

    Returns:
        (y, x) of the same precision, metres, NaN where not observed.
    """
    from skimage.morphology import reconstruction

    seen = np.isfinite(elevation)
    if not seen.any():
        return elevation.copy()
    solid = np.where(seen, elevation, np.min(elevation[seen]) - 1)
    seed = np.where(ways_out(seen) | ~seen, solid, np.max(elevation[seen]))
    filled = reconstruction(seed, solid, method="erosion")  # type: ignore[no-untyped-call]
    return np.where(seen, filled, np.nan).astype(elevation.dtype, copy=False)


def ways_out(seen: Bools) -> Bools:
    """Observed cells at the array's edge or beside what is not observed: water may leave there."""
    out = np.zeros_like(seen)
    for down, right in NEIGHBOURS:
        out |= ~shifted(seen, down, right, False)
    return out & seen


@dataclass(frozen=True)
class Ground:
    """A filled elevation model, ready to be run down."""

    heights: Heights
    """With a rim of one cell, flattened; metres, NaN where not observed."""
    steps: NDArray[np.int32]
    """Flattened: 0 where a cell has a lower neighbour or a way out, else the steps through its flat to one; -1 where
    not observed."""
    offsets: Cells
    """From a cell's number to those of its eight neighbours."""
    shape: tuple[int, int]
    """Rows and columns with the rim."""

    @classmethod
    def of(cls, filled: Heights) -> Ground:
        """The ground of an elevation model without depressions, (y, x), metres, NaN where not observed."""
        padded = np.pad(filled, 1, constant_values=np.nan)
        offsets = np.array([down * padded.shape[1] + right for down, right in NEIGHBOURS], dtype=np.intp)
        return cls(padded.ravel(), _steps_to_outlet(padded, offsets), offsets, padded.shape)

    @property
    def seen(self) -> Bools:
        """Observed cells, flattened."""
        return np.isfinite(self.heights)

    def inner(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Flattened values without the rim, (y, x)."""
        return values.reshape(self.shape)[1:-1, 1:-1]

    def receives(self, number: int) -> Bools:
        """Cells that send water to neighbour ``number``, (y, x) with the rim."""
        down, right = NEIGHBOURS[number]
        heights, steps = self.heights.reshape(self.shape), self.steps.reshape(self.shape)
        other = shifted(heights, down, right, np.nan)
        with np.errstate(invalid="ignore"):
            along = (other == heights) & (steps > 0) & (shifted(steps, down, right, -1) == steps - 1)
            return np.asarray((other < heights) | along)

    def weights(self, cells: Cells) -> tuple[Cells, Floats]:
        """Where the water of some cells goes, and with what weight.

        Args:
            cells: Numbers, (n,).

        Returns:
            The eight neighbours' numbers, (n, 8), and their weights, (n, 8) float64: the drop per cell to lower ones;
            on flats, where there are none, one over the distance to those nearer to the outlet; else 0.
        """
        near = cells[:, np.newaxis] + self.offsets[np.newaxis, :]
        here, steps = self.heights[cells][:, np.newaxis], self.steps[cells][:, np.newaxis]
        there = self.heights[near]
        with np.errstate(invalid="ignore"):
            drop = np.where(there < here, here.astype(np.float64) - there, 0.0)
            along = (steps > 0) & (there == here) & (self.steps[near] == steps - 1)
        return near, np.where(along, 1.0, drop) / np.asarray(DISTANCES)


def _steps_to_outlet(padded: Heights, offsets: Cells) -> NDArray[np.int32]:
    seen = np.isfinite(padded)
    drains = ways_out(seen)
    with np.errstate(invalid="ignore"):
        for down, right in NEIGHBOURS:
            drains |= shifted(padded, down, right, np.nan) < padded
    steps = np.where(drains, 0, -1).astype(np.int32).ravel()
    height = padded.ravel()
    # Only cells beside a flat begin a front: elsewhere nothing is level with them and without a drain.
    front = np.flatnonzero(_beside_flats(drains, seen))
    step = 0
    while front.size:
        step += 1
        near = front[:, np.newaxis] + offsets[np.newaxis, :]
        level = (height[near] == height[front][:, np.newaxis]) & (steps[near] < 0)
        front = np.unique(near[level])
        steps[front] = step
    return steps


def _beside_flats(drains: Bools, seen: Bools) -> Bools:
    flat = seen & ~drains
    beside = np.zeros_like(flat)
    for down, right in NEIGHBOURS:
        beside |= shifted(flat, down, right, False)
    return beside & drains


def flow_accumulation(filled: Heights) -> Floats:
    """Cells that drain through each cell, itself included, with flow shared among all lower neighbours.

    Freeman's (1991) multiple flow direction: a neighbour's share is proportional to slope ** 1.1. On flats, which
    filling makes, water runs by the shortest way to the flat's outlets: cells are ordered by their number of steps to
    it. Cells are taken in waves: a cell is done when everything above it is.

    Args:
        filled: Elevation without depressions, (y, x), metres, NaN where not observed.

    Returns:
        (y, x) float64, number of cells (at least 1), NaN where not observed.
    """
    return accumulation_on(Ground.of(filled))


def accumulation_on(ground: Ground) -> Floats:
    """``flow_accumulation`` of a ground that is there already."""
    seen = ground.seen
    area = seen.astype(np.float64)
    waiting = _donors(ground)
    wave = np.flatnonzero((waiting == 0) & seen)
    while wave.size:
        near, weight = ground.weights(wave)
        weight **= EXPONENT
        total = weight.sum(axis=1)
        share = weight * (area[wave] / np.where(total > 0, total, 1.0))[:, np.newaxis]
        takes = weight > 0
        targets = near[takes]
        np.add.at(area, targets, share[takes])
        np.subtract.at(waiting, targets, 1)
        wave = np.unique(targets[waiting[targets] == 0])
    area[~seen] = np.nan
    return np.asarray(ground.inner(area), dtype=np.float64).copy()


def _donors(ground: Ground) -> NDArray[np.int8]:
    """How many neighbours send water to each cell, flattened."""
    count = np.zeros(ground.shape, dtype=np.int8)
    for number, (down, right) in enumerate(NEIGHBOURS):
        count += shifted(ground.receives(number).astype(np.int8), -down, -right, 0)
    return count.ravel()
