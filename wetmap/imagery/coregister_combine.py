"""Many tie blocks become one shift, with its spread, or the reason why nothing is claimed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.coregister import Tie

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Fewest blocks that must agree, and their least share of those that show anything.
LEAST_TIES, LEAST_SHARE = 3, 0.6
#: What a block's own standard error leaves out (ground that changed, terrain), pixels, standard deviation.
FLOOR_PX = 0.1
#: Blocks agree when they differ from the common shift by less than this squared distance in units of their errors: the
#: 99 % point of chi-square with 2 degrees of freedom.
AGREE = 9.21
#: The common shift's standard error must be below this, pixels.
MOST_ERROR_PX = 0.2
#: Scales a median absolute deviation to the standard deviation of a normal distribution.
MAD = 1.4826
#: Most rounds of choosing who agrees.
ROUNDS = 20


@dataclass(frozen=True)
class Shift:
    """What the tie blocks of a group say together."""

    shift_px: tuple[float, float]
    """(rows, columns) by which the pictures lie off the reference, south and east positive; NaN where unknown."""
    spread_px: tuple[float, float]
    """Median absolute deviation of the blocks that agree, scaled to a standard deviation, (rows, columns)."""
    error_px: float
    """Standard error of the common shift in its weaker direction, pixels."""
    used: int
    """Blocks that show anything."""
    agreeing: tuple[int, ...]
    """Places of the blocks that agree, in the order given."""
    doubt: str = ""
    """Why the shift is not claimed; empty where it is."""

    @property
    def confident(self) -> bool:
        """Whether the shift is claimed."""
        return not self.doubt

    @property
    def length_px(self) -> float:
        """Length of the shift, pixels."""
        return math.hypot(*self.shift_px)


def combine(ties: Sequence[Tie]) -> Shift:
    """The shift on which most tie blocks agree.

    The largest set of blocks that agree with one of them begins; then its mean, weighted by the blocks' errors, and the
    set of those that agree with that mean are found in turn until they stay. One odd block, or some, changes nothing.

    Args:
        ties: One per block, those with a fault too.

    Returns:
        The shift; with ``doubt`` where too few blocks show anything, or too few of them agree.
    """
    good = [at for at, tie in enumerate(ties) if not tie.fault]
    if not good:
        return _nothing(0, f"none of the {len(ties)} tie blocks shows edges that both pictures share")
    shifts = np.array([ties[at].shift_px for at in good])
    covariances = np.array([_matrix(ties[at]) for at in good])
    agree = _settle(shifts, covariances)
    mean, covariance = _mean(shifts[agree], covariances[agree])
    spread = MAD * np.median(np.abs(shifts[agree] - np.median(shifts[agree], axis=0)), axis=0)
    error = math.sqrt(float(np.linalg.eigvalsh(covariance)[-1]))
    count = int(agree.sum())
    return Shift(
        shift_px=(float(mean[0]), float(mean[1])),
        spread_px=(float(spread[0]), float(spread[1])),
        error_px=error,
        used=len(good),
        agreeing=tuple(at for at, yes in zip(good, agree, strict=True) if yes),
        doubt=_doubt(count, len(good), len(ties), error),
    )


def differ(first: Shift, second: Shift) -> float:
    """By how much two shifts differ, pixels."""
    return math.hypot(first.shift_px[0] - second.shift_px[0], first.shift_px[1] - second.shift_px[1])


def _doubt(agreeing: int, used: int, blocks: int, error_px: float) -> str:
    if used < LEAST_TIES:
        return f"only {used} of {blocks} tie blocks show edges that both pictures share, and {LEAST_TIES} are needed"
    if agreeing < max(LEAST_TIES, LEAST_SHARE * used):
        return f"only {agreeing} of the {used} tie blocks that show anything agree"
    if not error_px <= MOST_ERROR_PX:
        return f"its standard error is {error_px:.2f} px, more than {MOST_ERROR_PX:g} px"
    return ""


def _nothing(used: int, doubt: str) -> Shift:
    nan = float("nan")
    return Shift((nan, nan), (nan, nan), nan, used, (), doubt)


def _matrix(tie: Tie) -> Floats:
    a, b, c = tie.covariance
    return np.array([[a + FLOOR_PX**2, b], [b, c + FLOOR_PX**2]])


def _settle(shifts: Floats, covariances: Floats) -> Bools:
    """Which blocks agree, (block,) bool."""
    sets = [_near(shifts, covariances, shift, own) for shift, own in zip(shifts, covariances, strict=True)]
    weights = 1.0 / np.trace(covariances, axis1=1, axis2=2)
    agree = max(sets, key=lambda one: (int(one.sum()), float(weights[one].sum())))
    for _ in range(ROUNDS):
        mean, covariance = _mean(shifts[agree], covariances[agree])
        now = _near(shifts, covariances, mean, covariance)
        if not now.any() or np.array_equal(now, agree):
            break
        agree = now
    return agree


def _near(shifts: Floats, covariances: Floats, shift: Floats, covariance: Floats) -> Bools:
    """Which blocks agree with a shift."""
    off = shifts - shift
    distance = np.einsum("bi,bij,bj->b", off, np.linalg.inv(covariances + covariance), off)
    return np.asarray(distance <= AGREE)


def _mean(shifts: Floats, covariances: Floats) -> tuple[Floats, Floats]:
    """Weighted mean (2,) and its covariance (2, 2), widened where the blocks differ by more than their errors say."""
    inverses = np.linalg.inv(covariances)
    covariance = np.linalg.inv(inverses.sum(axis=0))
    mean = covariance @ np.einsum("bij,bj->i", inverses, shifts)
    if len(shifts) > 1:
        off = shifts - mean
        chi = float(np.einsum("bi,bij,bj->", off, inverses, off)) / (2 * (len(shifts) - 1))
        covariance = covariance * max(1.0, chi)
    return mean, covariance
