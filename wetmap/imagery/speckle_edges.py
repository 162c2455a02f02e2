"""Speckle filters that choose which neighbours count: refined Lee (half-windows along edges) and Lee sigma.

In linear power; arrays, nodata and reach as in ``wetmap.imagery.speckle``.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from wetmap.imagery.speckle import Bools, Floats, lee, minimum_square_error, moments
from wetmap.imagery.windows import box_sum, shifted

#: Side of the window of the refined Lee filter, pixels: its means of 3 x 3 overlap by one (Lee 1981).
REFINED_PX = 7
#: Share of the speckle that the sigma range holds (Lee et al. 2009 recommend 0.9).
SIGMA_SHARE = 0.9
#: The percentile above which a pixel may be a strong target, and how many of 3 x 3 must be (Lee et al. 2009).
STRONG_PERCENTILE, STRONG_COUNT = 98.0, 5

#: From the centre to the next mean of 3 x 3, for the eight sides that an edge can have: (rows, columns). A half-window
#: is the pixels on that side and on the line through the centre.
SIDES = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def refined_lee(power: Floats, looks: float) -> Floats:
    """Lee's filter on the half of a window that lies along the edge through the pixel.

    J.-S. Lee (1981), Refined filtering of image noise using local statistics, Computer Graphics and Image Processing
    15(4), 380-389: in a window of 7 x 7 the nine means of 3 x 3 give a gradient in four directions; across the
    strongest, the side whose mean is nearer to the centre's is the pixel's own; mean and variance come from the 28
    pixels of that half. The estimate is that of ``minimum_square_error`` (Lee, Grunes, de Grandi 1999, who take the
    half-window everywhere, as here). Where a mean of 3 x 3 has no observed pixel, the centre's stands in.

    Args:
        power: (y, x) float64, linear, NaN where not observed. Three pixels around the pixels of interest must be there.
        looks: Equivalent number of looks.

    Returns:
        (y, x) float64, NaN where the pixel itself is not observed.
    """
    seen = np.isfinite(power)
    side = _own_side(power)
    filled = np.where(seen, power, 0.0)
    reach = REFINED_PX // 2
    sums = _Sums.zeros(power.shape)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            members = np.array([down * rows + right * cols >= 0 for rows, cols in SIDES])
            sums.add(shifted(filled, down, right, 0.0), members[side] & shifted(seen, down, right, False))
    mean, variance = sums.moments()
    return np.where(seen, minimum_square_error(filled, mean, variance, 1.0 / looks), np.nan)


def _own_side(power: Floats) -> NDArray[np.intp]:
    """For each pixel the side of the strongest edge on which it lies, an index into ``SIDES``, (y, x)."""
    height, width = power.shape
    step = REFINED_PX // 2 - 1
    wide = np.pad(power, step, constant_values=np.nan)
    means, _ = moments(wide, np.isfinite(wide), 3)
    centre = means[step : step + height, step : step + width]
    around = []
    for down, right in SIDES:
        y0, x0 = step * (1 + down), step * (1 + right)
        mean = means[y0 : y0 + height, x0 : x0 + width]
        around.append(np.where(np.isnan(mean), centre, mean))
    # Across each of four directions, three means on either side: the one straight ahead and its two neighbours.
    steepness = []
    for number in range(4):
        ahead = around[number] + (around[number - 1] + around[number + 1])
        behind = around[number + 4] + (around[number + 3] + around[(number + 5) % 8])
        steepness.append(np.abs(ahead - behind))
    direction = np.argmax(np.nan_to_num(np.stack(steepness), nan=-1.0), axis=0)
    away = np.stack([np.abs(mean - centre) for mean in around])
    ahead_away = np.take_along_axis(away, direction[np.newaxis], axis=0)[0]
    behind_away = np.take_along_axis(away, direction[np.newaxis] + 4, axis=0)[0]
    return np.asarray(np.where(behind_away < ahead_away, direction + 4, direction), dtype=np.intp)


@dataclass(frozen=True)
class SigmaRange:
    """Factors of the true power between which a share of the speckle lies without changing the mean."""

    lower: float
    """Smallest factor."""
    upper: float
    """Largest factor."""
    variance: float
    """Variance of the speckle between them, whose mean is 1."""


@functools.lru_cache(maxsize=64)
def sigma_range(looks: float, share: float = SIGMA_SHARE) -> SigmaRange:
    """The range of factors around 1 that holds a share of gamma speckle and has mean 1.

    Lee et al. (2009), equations 7 and 8, whose tables are solved here for any number of looks. With F_L the
    distribution function of gamma speckle of L looks and mean 1, ``F_L(upper) - F_L(lower) = share``, and as x times
    the density of order L is the density of order L + 1 with the same rate, the mean is 1 where
    ``F_{L+1}(upper) - F_{L+1}(lower) = share`` at rate L.

    Args:
        looks: Equivalent number of looks, above 0.
        share: Share of the speckle inside, above 0 and below 1.
    """
    from scipy.optimize import brentq  # takes a fifth of a second to load, in every command

    def ends(below: float) -> tuple[float, float]:
        first, last = gammaincinv(looks, below), gammaincinv(looks, min(below + share, 1.0 - 1e-15))
        return float(first), float(last)

    def excess(below: float) -> float:
        first, last = ends(below)
        return float(gammainc(looks + 1.0, last) - gammainc(looks + 1.0, first)) - share

    below = brentq(excess, 0.0, 1.0 - share, xtol=1e-14)
    first, last = ends(float(below))
    # E[x^2] over the range: the density of order L + 2, times (L + 1) / L.
    square = (looks + 1.0) / looks * float(gammainc(looks + 2.0, last) - gammainc(looks + 2.0, first)) / share
    return SigmaRange(lower=first / looks, upper=last / looks, variance=max(square - 1.0, 0.0))


def lee_sigma(power: Floats, window_px: int, looks: float, *, strong: float = math.inf) -> Floats:
    """Mean and variance of those neighbours that speckle alone can explain; strong targets stay.

    J.-S. Lee, J.-H. Wen, T. L. Ainsworth, K.-S. Chen, A. J. Chen (2009), Improved sigma filter for speckle filtering of
    SAR imagery, IEEE TGRS 47(1), 202-213. A first estimate x of each pixel comes from its 3 x 3; of the window those
    pixels count that lie in ``sigma_range`` times x; from their mean and variance, with the variance of the speckle in
    that range, ``minimum_square_error``. Where no pixel lies in the range, x is the answer. Pixels of
    ``strong_targets`` keep their value, and count in no window.

    Args:
        power: (y, x) float64, linear, NaN where not observed. Half a window and two pixels around the pixels of
            interest must be there.
        window_px: Side of the window, pixels, odd (the authors take 9).
        looks: Equivalent number of looks.
        strong: Power above which a pixel may be a strong target, linear; infinite: none is. It is an input, and not
            taken from the array, so that a pixel does not depend on the array it is cut out in.

    Returns:
        (y, x) float64, NaN where the pixel itself is not observed.
    """
    seen = np.isfinite(power)
    filled = np.where(seen, power, 0.0)
    target = strong_targets(power, strong)
    ranged = sigma_range(looks)
    first = lee(power, 3, looks)
    with np.errstate(invalid="ignore"):
        lower, upper = ranged.lower * first, ranged.upper * first
    usable = seen & ~target
    radius = window_px // 2
    sums = _Sums.zeros(power.shape)
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            near = shifted(filled, down, right, 0.0)
            sums.add(near, (near >= lower) & (near <= upper) & shifted(usable, down, right, False))
    mean, variance = sums.moments()
    estimate = np.where(sums.count > 0, minimum_square_error(filled, mean, variance, ranged.variance), first)
    return np.where(seen, np.where(target, power, estimate), np.nan)


def strong_targets(power: Floats, strong: float) -> Bools:
    """Pixels of a cluster of strong ones: at least five in the 3 x 3 around one of them (Lee et al. 2009).

    Args:
        power: (y, x) float64, linear, NaN where not observed. Two pixels around the pixels of interest must be there.
        strong: Power above which a pixel is strong, linear.

    Returns:
        (y, x) bool.
    """
    with np.errstate(invalid="ignore"):
        bright = power > strong
    if not bright.any():
        return bright
    centre = bright & (box_sum(bright.astype(np.float64), 1) >= STRONG_COUNT)
    return np.asarray(bright & (box_sum(centre.astype(np.float64), 1) > 0))


@dataclass
class _Sums:
    """Running sums over chosen neighbours, (y, x) each."""

    count: Floats
    total: Floats
    square: Floats

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> _Sums:
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def add(self, values: Floats, chosen: Bools) -> None:
        kept = np.where(chosen, values, 0.0)
        self.count += chosen
        self.total += kept
        self.square += kept * kept

    def moments(self) -> tuple[Floats, Floats]:
        """Mean and variance; NaN where nothing was chosen."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self.total / self.count
            variance = np.maximum(self.square / self.count - mean * mean, 0.0)
        return mean, variance
