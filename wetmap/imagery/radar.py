"""Radar backscatter: decibels, and the rim of the footprint. Speckle filters: ``wetmap.imagery.speckle``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetmap.imagery.windows import disc

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Gaps in the footprint up to 2 x this many pixels wide are holes in the data, not its edge.
HOLE_PX = 2


def to_db(power: Floats) -> Floats:
    """Linear power to decibels, 10 log10; NaN where power is zero, negative or NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(power > 0, 10.0 * np.log10(power), np.nan)


def from_db(decibels: Floats) -> Floats:
    """Decibels to linear power; NaN stays NaN."""
    return np.asarray(np.power(10.0, decibels / 10.0), dtype=np.float64)


def footprint_reach_px(rim_px: int) -> int:
    """How far from a pixel ``erode_footprint`` looks, pixels."""
    return rim_px + 2 * HOLE_PX


def erode_footprint(valid: Bools, inside: Bools, rim_px: int) -> Bools:
    """Take the rim off a scene's footprint, where ground-range products carry noise that looks like backscatter.

    The footprint is what was observed, with its small holes filled: single pixels that are not valid (radar shadow, a
    calibration that went below zero) do not eat their neighbours; what is no wider than 2 x HOLE_PX pixels is a hole.
    Where the file ends is no footprint's edge: archives and users cut scenes into pieces.

    Args:
        valid: What was observed, (y, x) bool, with ``footprint_reach_px`` around the pixels of interest.
        inside: Where the files have a pixel, observed or not, (y, x) bool.
        rim_px: Width of the rim, pixels; 0 leaves everything.

    Returns:
        (y, x) bool, never true where ``valid`` is not.
    """
    if rim_px == 0 or (valid | ~inside).all():
        return valid.copy()
    side = 2 * HOLE_PX + 1
    square = np.ones((side, side), dtype=np.bool_)
    core = ndimage.binary_erosion(~valid, structure=square, border_value=1)
    outside = ndimage.binary_dilation(core, structure=square) & inside
    rim = ndimage.binary_dilation(outside, structure=disc(rim_px))
    return np.asarray(valid & ~rim, dtype=np.bool_)
