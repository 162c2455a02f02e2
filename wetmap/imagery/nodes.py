"""From coarse nodes to the pixels between them, with the same bits for a pixel in every window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.windows import shifted

Floats = NDArray[np.float64]


def between_nodes(nodes: Floats, step: int, first: tuple[int, int], shape: tuple[int, int]) -> Floats:
    """Bilinear interpolation from cells of ``step`` x ``step`` pixels to pixels.

    Weights depend only on a pixel's place within its cell, and are sums in a fixed order: windows that begin on
    different cells give a pixel the same bits.

    Args:
        nodes: Values at the cells' centres, (y, x) float64, NaN where not known. The cells around those that hold the
            pixels must be there.
        step: Pixels per cell side; with 1 values come back unchanged.
        first: Row and column of the first pixel wanted, pixels from the upper left corner of ``nodes``.
        shape: Pixels wanted, rows and columns.

    Returns:
        ``shape`` float64. Nodes that are not known have no weight and the rest is scaled up; NaN where all four are
        not known.
    """
    if step == 1:
        return nodes[first[0] : first[0] + shape[0], first[1] : first[1] + shape[1]].copy()
    known = np.isfinite(nodes)
    filled = np.where(known, nodes, 0.0)
    total, weights = np.zeros(shape), np.zeros(shape)
    for rows, down in _around(step, first[0], shape[0]):
        for cols, across in _around(step, first[1], shape[1]):
            weight = down[:, np.newaxis] * across[np.newaxis, :] * known[np.ix_(rows, cols)]
            total += weight * filled[np.ix_(rows, cols)]
            weights += weight
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weights > 0, total / weights, np.nan)


def _around(step: int, first: int, count: int) -> list[tuple[NDArray[np.intp], Floats]]:
    """The two nodes around each pixel's centre and their weights, by whole numbers."""
    doubled = 2 * np.arange(first, first + count) + 1 - step
    below, rest = doubled // (2 * step), doubled % (2 * step)
    share = rest / (2.0 * step)
    return [(below.astype(np.intp), 1.0 - share), ((below + 1).astype(np.intp), share)]


def grown(values: Floats) -> Floats:
    """Values with one ring of cells more, each the mean of its known neighbours: land reaches its own shore.

    Args:
        values: (y, x) float64, NaN where not known.

    Returns:
        (y, x) float64; known values are unchanged.
    """
    total, count = np.zeros(values.shape), np.zeros(values.shape)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = shifted(values, down, right, np.nan)
            total += np.where(np.isfinite(moved), moved, 0.0)
            count += np.isfinite(moved)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(values), values, np.where(count > 0, total / count, np.nan))
