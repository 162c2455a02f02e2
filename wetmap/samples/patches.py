"""Windows of one role, in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import UsageError


@dataclass(frozen=True)
class Patches:
    """Windows of one role, in memory."""

    features: NDArray[np.float32]
    """(sample, band, row, col), NaN where not observed."""
    observed: NDArray[np.bool_]
    """(sample, layer, row, col)."""
    label: NDArray[np.uint8]
    """(sample,), class index of the labelled pixel."""
    label_window: NDArray[np.uint8]
    """(sample, row, col), class index of the drawn samples of the same role; 255 = none."""
    fold: NDArray[np.int16]
    """(sample,)."""
    polygon: NDArray[np.int32]
    """(sample,), reference feature."""
    row: NDArray[np.int32]
    """(sample,), pixel row of the labelled pixel on the grid."""
    col: NDArray[np.int32]
    """(sample,), pixel column of the labelled pixel on the grid."""

    def __len__(self) -> int:
        return len(self.label)

    def crop(self, window_px: int) -> Patches:
        """The same samples in smaller windows, the labelled pixel at index (window_px // 2, window_px // 2).

        Raises:
            UsageError: The windows are smaller than that.
        """
        side = self.features.shape[-1]
        if window_px > side:
            raise UsageError(
                f"Windows of {window_px} px were asked for, and the samples have {side} px.",
                do="Delete the patch cubes and run wetmap train again.",
            )
        first = side // 2 - window_px // 2
        cut = (..., slice(first, first + window_px), slice(first, first + window_px))
        return replace(
            self, features=self.features[cut], observed=self.observed[cut], label_window=self.label_window[cut]
        )
