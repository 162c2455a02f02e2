"""Tiles that become one surface: a tile's values with the weight that it has there, so that neighbours can be added.

A tile read alone has no neighbours beyond its edge, and its outermost half pixel is level where the land is not. Here a
tile gives, up to one of its pixels beyond its edge, what its own pixels contribute to the bilinear value and with what
weight; the contributions of tiles that abut add up to what one file of both would have given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.windows import Window

from wetmap.geo import Grid
from wetmap.sources.positions import Lattice, Projection, steps_of

Floats = NDArray[np.float64]
#: Stored values of a window of the file, (rows, columns) float64, NaN where not observed.
Stored = Callable[[Window], Floats]

#: Most pixels that are resampled at once; more are taken in strips.
STRIP_PIXELS = 2_000_000


def weighted(dataset: Any, stored: Stored, window: Grid) -> NDArray[np.float32]:
    """What a file contributes to each pixel of a window.

    Args:
        dataset: The open file.
        stored: Reads a window of it, in the unit wanted.
        window: The pixels wanted.

    Returns:
        (3, height, width) float32: the mean of the file's values around the pixel's centre, bilinear, NaN where it
        contributes nothing; its weight, 0 to 1; and the share of the pixel whose nearest source pixel is in the file
        and valid, 0 or 1 unless the grid is coarser than the file, where it is the share of n x n samples.
    """
    projection = Projection(window.crs, dataset.crs.to_wkt(), dataset.transform)
    steps = steps_of(window, projection, dataset.width, dataset.height)
    fine = Lattice.of(window).refined(steps)
    found = np.zeros((3, *window.shape), dtype=np.float32)
    found[0] = np.nan
    rows = max(1, STRIP_PIXELS // (fine.width * steps))
    for y0 in range(0, window.height, rows):
        y1 = min(y0 + rows, window.height)
        strip = _strip(dataset, stored, fine.rows(y0 * steps, y1 * steps), projection)
        if strip is not None:
            found[:, y0:y1] = _pooled(*strip, steps)
    return found


def pixel_side_m(dataset: Any, window: Grid) -> float:
    """Longer side of a file's pixels on the ground, metres of the grid's CRS, at the middle of the file.

    Measured at one place per file, so that it is the same for every window. NaN where the CRS does not reach there.
    """
    a = dataset.transform
    cols = dataset.width / 2 + np.array([0.0, 1.0, 0.0])
    rows = dataset.height / 2 + np.array([0.0, 0.0, 1.0])
    to_grid = Transformer.from_crs(CRS.from_wkt(dataset.crs.to_wkt()), CRS.from_user_input(window.crs), always_xy=True)
    x, y = to_grid.transform(a.a * cols + a.b * rows + a.c, a.d * cols + a.e * rows + a.f)
    side = max(math.hypot(x[1] - x[0], y[1] - y[0]), math.hypot(x[2] - x[0], y[2] - y[0]))
    return side if math.isfinite(side) else math.nan


def _strip(
    dataset: Any, stored: Stored, lattice: Lattice, projection: Projection
) -> tuple[Floats, Floats, Floats] | None:
    """Sum of weighted values, weights and whether the nearest pixel is valid, at the lattice's centres."""
    rows, cols = projection.positions(lattice)
    span = _span(rows, dataset.height), _span(cols, dataset.width)
    if span[0] is None or span[1] is None:
        return None
    (y0, y1), (x0, x1) = span[0], span[1]
    values = stored(Window(x0, y0, x1 - x0, y1 - y0))
    valid = np.isfinite(values)
    filled = np.where(valid, values, 0.0)
    rows, cols = rows - y0, cols - x0
    total = np.zeros((lattice.height, lattice.width))
    weights = np.zeros(total.shape)
    for row, down in _neighbours(rows, values.shape[0]):
        for col, across in _neighbours(cols, values.shape[1]):
            weight = down * across * valid[row, col]
            total += weight * filled[row, col]
            weights += weight
    row, row_inside = _nearest(rows, values.shape[0])
    col, col_inside = _nearest(cols, values.shape[1])
    return total, weights, (row_inside & col_inside & valid[row, col]).astype(np.float64)


def _span(positions: Floats, size: int) -> tuple[int, int] | None:
    """First and last + 1 source pixel that positions up to one pixel outside need, or None."""
    reach = positions[(positions > -1) & (positions < size)]
    if reach.size == 0:
        return None
    return max(0, math.floor(reach.min())), min(size, math.floor(reach.max()) + 2)


def _neighbours(positions: Floats, size: int) -> list[tuple[NDArray[np.intp], Floats]]:
    """The two source pixels around each position and their weights; weight 0 outside the source."""
    with np.errstate(invalid="ignore"):
        below = np.floor(positions)
        share = positions - below
    pairs = []
    for pixel, weight in ((below, 1 - share), (below + 1, share)):
        inside = (pixel >= 0) & (pixel < size)
        pairs.append((np.where(inside, pixel, 0).astype(np.intp), np.where(inside, weight, 0.0)))
    return pairs


def _nearest(positions: Floats, size: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    with np.errstate(invalid="ignore"):
        nearest = np.floor(positions + 0.5)
        inside = (nearest >= 0) & (nearest < size)
    return np.where(inside, nearest, 0).astype(np.intp), inside


def _pooled(total: Floats, weights: Floats, nearest: Floats, steps: int) -> NDArray[np.float32]:
    """Sums over each steps x steps group of samples, as (value, weight, share of valid samples)."""
    height, width = total.shape[0] // steps, total.shape[1] // steps
    sums = np.zeros((3, height, width))
    for down in range(steps):
        for across in range(steps):
            for number, part in enumerate((total, weights, nearest)):
                sums[number] += part[down::steps, across::steps]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(sums[1] > 0, sums[0] / sums[1], np.nan)
    return np.stack([value, sums[1] / steps**2, sums[2] / steps**2]).astype(np.float32)
