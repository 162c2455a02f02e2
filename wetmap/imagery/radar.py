"""Radar backscatter: decibels, speckle filters in linear power, the rim of the footprint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetmap.imagery.windows import box_sum, disc

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


def boxcar(power: Floats, window_px: int) -> Floats:
    """Mean of a square window in linear power.

    Args:
        power: (y, x) float64, linear, NaN where not observed. Half a window around the pixels of interest must be
            there.
        window_px: Side of the window, pixels, odd.

    Returns:
        (y, x) float64, NaN where the pixel itself is not observed.
    """
    seen = np.isfinite(power)
    mean, _ = _moments(power, seen, window_px)
    return np.where(seen, mean, np.nan)


def lee(power: Floats, window_px: int, looks: float) -> Floats:
    """Local-statistics filter for multiplicative speckle in linear power.

    J.-S. Lee (1980), Digital image enhancement and noise filtering by use of local statistics, IEEE TPAMI 2(2),
    165-168, equations for multiplicative noise of mean 1 and variance 1/looks: the estimate is ``m + k (z - m)`` with
    ``Q = (v - m^2 / looks) / (1 + 1 / looks)`` and ``k = Q / (Q + m^2 / looks)``, m and v the window's mean and
    variance. In even areas k is 0 and the estimate is the window's mean; at strong edges k tends to 1 and the pixel
    stays.

    Args:
        power: (y, x) float64, linear, NaN where not observed. Half a window around the pixels of interest must be
            there.
        window_px: Side of the window, pixels, odd.
        looks: Equivalent number of looks.

    Returns:
        (y, x) float64, NaN where the pixel itself is not observed.
    """
    seen = np.isfinite(power)
    mean, variance = _moments(power, seen, window_px)
    noise = mean * mean / looks
    signal = np.maximum((variance - noise) / (1.0 + 1.0 / looks), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(signal > 0, signal / (signal + noise), 0.0)
        return np.where(seen, mean + share * (np.where(seen, power, 0.0) - mean), np.nan)


def _moments(power: Floats, seen: Bools, window_px: int) -> tuple[Floats, Floats]:
    """Mean and variance of what was observed in the window; NaN where nothing was."""
    radius = window_px // 2
    filled = np.where(seen, power, 0.0)
    count = box_sum(seen.astype(np.float64), radius)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = box_sum(filled, radius) / count
        variance = box_sum(filled * filled, radius) / count - mean * mean
    return mean, np.maximum(variance, 0.0)


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
