"""Speckle filters of a square window, in linear power: boxcar, Lee, gamma-MAP, and Quegan's for many passes.

Speckle multiplies: an even surface of power s is seen as s times a random factor of mean 1 and variance 1/looks. Every
filter takes (y, x) float64 linear power above 0 with NaN where nothing was observed, wants its reach of pixels around
the pixels of interest, and gives NaN where the pixel itself was not observed: nothing is filled in, and what was not
observed counts in no window. A pixel's value is the same to the last bit wherever the array around it begins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.windows import box_sum

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def boxcar(power: Floats, window_px: int) -> Floats:
    """Mean of a square window in linear power; n pixels of independent speckle give n times the looks.

    Args:
        power: (y, x) float64, linear, NaN where not observed. Half a window around the pixels of interest must be
            there.
        window_px: Side of the window, pixels, odd.

    Returns:
        (y, x) float64, NaN where the pixel itself is not observed.
    """
    seen = np.isfinite(power)
    mean, _ = moments(power, seen, window_px)
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
    mean, variance = moments(power, seen, window_px)
    noise = mean * mean / looks
    signal = np.maximum((variance - noise) / (1.0 + 1.0 / looks), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(signal > 0, signal / (signal + noise), 0.0)
        return np.where(seen, mean + share * (np.where(seen, power, 0.0) - mean), np.nan)


def gamma_map(power: Floats, window_px: int, looks: float) -> Floats:
    """Most probable power where both the scene and the speckle are gamma distributed.

    A. Lopes, E. Nezry, R. Touzi, H. Laur (1993), Structure detection and statistical adaptive speckle filtering in SAR
    images, International Journal of Remote Sensing 14(9), 1735-1758 (first at IGARSS 1990). With m the window's mean, c
    its standard deviation over m, and c_u = 1/sqrt(looks) that of speckle alone: the mean where c <= c_u; the pixel as
    it is where c >= sqrt(2) c_u, an edge or a point; between them the positive root of
    ``a R^2 - (a - looks - 1) m R - looks z m = 0``, with ``a = (1 + c_u^2) / (c^2 - c_u^2)`` the order of the scene's
    gamma distribution.

    A maximum is not a mean: for few looks the answer is a little low (docs: radar).

    Args:
        power: (y, x) float64, linear, NaN where not observed. Half a window around the pixels of interest must be
            there.
        window_px: Side of the window, pixels, odd.
        looks: Equivalent number of looks.

    Returns:
        (y, x) float64, NaN where the pixel itself is not observed.
    """
    seen = np.isfinite(power)
    mean, variance = moments(power, seen, window_px)
    pixel = np.where(seen, power, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = variance / (mean * mean)
        order = (1.0 + 1.0 / looks) / (spread - 1.0 / looks)
        linear = (order - looks - 1.0) * mean
        root = (linear + np.sqrt(linear * linear + 4.0 * order * looks * pixel * mean)) / (2.0 * order)
        estimate = np.where(spread <= 1.0 / looks, mean, np.where(spread >= 2.0 / looks, pixel, root))
    return np.where(seen, estimate, np.nan)


def ratio_to_mean(power: Floats, window_px: int) -> tuple[Floats, Floats]:
    """What one pass gives to Quegan's filter: its local mean, and the pixel over that mean.

    Args:
        power: (y, x) float64, linear, NaN where not observed. Half a window around the pixels of interest must be
            there.
        window_px: Side of the window, pixels, odd.

    Returns:
        Mean of the window, linear power, and the pixel's ratio to it, dimensionless; (y, x) float64 each, NaN where the
        pixel itself is not observed.
    """
    mean = boxcar(power, window_px)
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean, np.where(mean > 0, power / mean, np.where(np.isnan(mean), np.nan, 1.0))


def quegan(passes: Floats, window_px: int) -> Floats:
    """Filter passes over one place together: each keeps its own local mean, and all share their detail.

    S. Quegan, J. J. Yu (2001), Filtering of multichannel SAR images, IEEE TGRS 39(11), 2373-2379, for passes of
    independent speckle and equal looks: ``J_k = (m_k / N) sum_i I_i / m_i``, m_i the local mean of pass i, N the passes
    that saw the pixel. Of N passes with windows of n pixels the looks become ``looks n N / (N + n - 1)`` (to first
    order in the speckle): one pass stays as it is, and many passes come near n times the looks, at the resolution of
    one pixel as long as all passes show the same pattern.

    Args:
        passes: (pass, y, x) float64, linear, NaN where not observed. Half a window around the pixels of interest must
            be there.
        window_px: Side of the window, pixels, odd.

    Returns:
        (pass, y, x) float64, NaN where the pass did not see the pixel.
    """
    means = np.empty_like(passes)
    total, count = np.zeros(passes.shape[1:]), np.zeros(passes.shape[1:])
    for number, power in enumerate(passes):
        means[number], ratio = ratio_to_mean(power, window_px)
        seen = np.isfinite(ratio)
        total += np.where(seen, ratio, 0.0)
        count += seen
    with np.errstate(invalid="ignore", divide="ignore"):
        filtered: Floats = means * (total / count)
    return filtered


def minimum_square_error(power: Floats, mean: Floats, variance: Floats, noise: Floats | float) -> Floats:
    """The linear estimate of least mean square error from a pixel and the moments of its surroundings.

    ``m + b (z - m)`` with ``b = Var(x) / Var(z)`` and ``Var(x) = (v - m^2 s) / (1 + s)``, s the variance of the speckle
    (J.-S. Lee, M. R. Grunes, G. de Grandi (1999), Polarimetric SAR speckle filtering and its implication for
    classification, IEEE TGRS 37(5), 2363-2373, section II). ``lee`` keeps the slightly different factor of 1980.

    Args:
        power: The pixels z, linear power.
        mean: Mean m of the surroundings, linear power.
        variance: Variance v of the surroundings, power squared.
        noise: Variance s of speckle of mean 1.

    Returns:
        The estimate, linear power; NaN where an input is.
    """
    signal = np.maximum((variance - mean * mean * noise) / (1.0 + noise), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(signal > 0, signal / variance, 0.0)
    return mean + share * (power - mean)


def moments(power: Floats, seen: Bools, window_px: int) -> tuple[Floats, Floats]:
    """Mean and variance of what was observed in the window, (y, x) each; NaN where nothing was.

    Args:
        power: (y, x) float64, linear.
        seen: Where it was observed, (y, x).
        window_px: Side of the window, pixels, odd.
    """
    radius = window_px // 2
    filled = np.where(seen, power, 0.0)
    count = box_sum(seen.astype(np.float64), radius)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = box_sum(filled, radius) / count
        variance = box_sum(filled * filled, radius) / count - mean * mean
    return mean, np.maximum(variance, 0.0)
