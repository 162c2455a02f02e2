"""Many looks become one value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def median_composite(stack: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Median over time of what was observed.

    Args:
        stack: (t, y, x) float32, NaN where not observed; overwritten (it may be large).

    Returns:
        (y, x) float32 with NaN where no look was observed, and the number of looks (y, x) uint16.
    """
    count = np.isfinite(stack).sum(axis=0)
    if stack.shape[0] == 0:
        return np.full(stack.shape[1:], np.nan, dtype=np.float32), count.astype(np.uint16)
    stack.sort(axis=0)  # NaN goes last
    low = np.take_along_axis(stack, np.maximum(count - 1, 0)[np.newaxis] // 2, axis=0)[0]
    high = np.take_along_axis(stack, (count // 2)[np.newaxis].clip(max=stack.shape[0] - 1), axis=0)[0]
    middle = np.where(count % 2 == 1, low, (low + high) * np.float32(0.5))
    return np.where(count > 0, middle, np.float32(np.nan)).astype(np.float32), count.astype(np.uint16)
