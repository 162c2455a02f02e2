"""Sums over windows that give a pixel the same bits wherever the array around it begins.

Running sums, as in ``scipy.ndimage.uniform_filter``, carry rounding along a row from the array's edge, so that a
block's edge would show in the last bits. Here shifted copies are added in a fixed order.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Value = TypeVar("Value", bound=np.generic)


def shifted(values: NDArray[Value], down: int, right: int, fill: float) -> NDArray[Value]:
    """A copy in which pixel (y, x) holds what was at (y + down, x + right); ``fill`` beyond the array.

    Args:
        values: (y, x), any dtype.
        down: Rows.
        right: Columns.
        fill: What lies outside.
    """
    height, width = values.shape
    out = np.full_like(values, fill)
    if abs(down) < height and abs(right) < width:
        out[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)] = values[
            max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)
        ]
    return out


def box_sum(values: Floats, radius: int) -> Floats:
    """Sum over (2 radius + 1) squared pixels, (y, x); what lies beyond the array counts as 0."""
    across = values.copy()
    for step in range(1, radius + 1):
        across += shifted(values, 0, step, 0.0)
        across += shifted(values, 0, -step, 0.0)
    total = across.copy()
    for step in range(1, radius + 1):
        total += shifted(across, step, 0, 0.0)
        total += shifted(across, -step, 0, 0.0)
    return total


def disc_sum(values: Floats, radius: int) -> Floats:
    """Sum over the pixels whose centres are within ``radius`` pixels, (y, x); what lies beyond the array counts as 0.

    Rows of the disc have few different widths; each is grown from the one before.
    """
    half_widths = [int(np.floor(np.sqrt(radius**2 - row**2))) for row in range(radius + 1)]
    total = np.zeros_like(values)
    run = values.copy()
    for half in range(radius + 1):
        if half:
            run += shifted(values, 0, half, 0.0)
            run += shifted(values, 0, -half, 0.0)
        for row in (row for row in range(radius + 1) if half_widths[row] == half):
            total += shifted(run, row, 0, 0.0)
            if row:
                total += shifted(run, -row, 0, 0.0)
    return total


def disc(radius: int) -> Bools:
    """The pixels whose centres are within ``radius`` pixels, (2 radius + 1, 2 radius + 1)."""
    steps = np.arange(-radius, radius + 1)
    return np.asarray(steps[:, np.newaxis] ** 2 + steps[np.newaxis, :] ** 2 <= radius**2)
