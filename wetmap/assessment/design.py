"""How many units to interpret, in which strata, and which ones.

P. Olofsson et al. (2014), Good practices for estimating area and assessing accuracy of land change, Remote Sensing of
Environment 148, 42-57, section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import AssessmentError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Allocation = Literal["proportional", "equal", "neyman"]

#: Fewest units of a stratum: two are needed for a variance at all, and Olofsson et al. advise 50 to 100 for rare ones.
LEAST_UNITS = 2


def sample_size(sizes: Sequence[float], users: Sequence[float], target_se: float) -> int:
    """Units that give the overall accuracy a standard error: equation 13, for strata much larger than the sample.

    Args:
        sizes: Pixels of each stratum, (H,).
        users: User's accuracy expected in each stratum, 0-1, (H,).
        target_se: Standard error wanted of the overall accuracy, 0-1.

    Raises:
        AssessmentError: The standard error is not positive, or an accuracy is not between 0 and 1.
    """
    _check(sizes, users)
    if not 0 < target_se < 1:
        raise AssessmentError(
            f"The standard error wanted is {target_se:g}.", do="Give a number between 0 and 1, such as 0.01."
        )
    share = np.array(sizes) / sum(sizes)
    return math.ceil((float(share @ _spread(users)) / target_se) ** 2 - 1e-9)


def smallest_sample(
    sizes: Sequence[float], users: Sequence[float], target_se: float, kind: Allocation, *, least: int = 0
) -> int:
    """Fewest units with which an allocation is expected to reach a standard error of the overall accuracy.

    For ``neyman`` that is about ``sample_size``; other allocations need more.

    Args:
        sizes: Pixels of each stratum, (H,).
        users: User's accuracy expected in each stratum, 0-1, (H,).
        target_se: Standard error wanted, 0-1.
        kind: How units are divided.
        least: Fewest units of a stratum.

    Raises:
        AssessmentError: As ``sample_size``.
    """
    held = [number for number, size in enumerate(sizes) if size > 0]
    pixels, right = [sizes[number] for number in held], [users[number] for number in held]
    share = np.array(pixels) / sum(pixels)

    def reached(units: int) -> bool:
        each = allocate(units, pixels, kind, users=right, least=least)
        return float(np.sum(share**2 * _spread(right) ** 2 / each)) <= target_se**2 * (1 + 1e-9)

    floor = int(sum(min(size, max(least, LEAST_UNITS)) for size in pixels))
    low, high = floor - 1, max(floor, sample_size(pixels, right, target_se))
    most = int(sum(pixels))
    while high < most and not reached(high):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def allocate(
    units: int,
    sizes: Sequence[float],
    kind: Allocation,
    *,
    users: Sequence[float] | None = None,
    least: int = 0,
    advice: str = "",
) -> Ints:
    """Divide the units among the strata.

    Args:
        units: Units in all.
        sizes: Pixels of each stratum, (H,); empty strata get none.
        kind: ``proportional`` to the sizes; ``equal``; ``neyman``: proportional to size times the standard deviation
            that is expected there (Cochran 1977, section 5.5), the best for the overall accuracy.
        users: User's accuracy expected in each stratum, 0-1, (H,); for ``neyman``.
        least: Fewest units of a stratum, as far as it has pixels; what that takes is taken from the others.
        advice: What else to do where there are too few units, a sentence.

    Returns:
        Units of each stratum, (H,), in all ``units`` unless the strata have fewer pixels.

    Raises:
        AssessmentError: There are too few units for the strata.
    """
    room = np.array(sizes, dtype=np.float64)
    held = room > 0
    floor = np.minimum(np.where(held, max(least, LEAST_UNITS), 0), room)
    if floor.sum() > units:
        raise AssessmentError(
            f"{units} units are too few for {int(held.sum())} strata of at least {max(least, LEAST_UNITS)} each.",
            do=f"Take at least {int(floor.sum())} units, or a smaller least number.{' ' if advice else ''}{advice}",
        )
    if kind == "equal":
        wish = held.astype(np.float64)
    elif kind == "proportional" or users is None:
        wish = room.copy()
    else:
        _check(sizes, users)
        wish = room * np.maximum(_spread(users), 1e-6)
    return _shared_out(min(units, int(room.sum())), wish, floor, room)


def _shared_out(units: int, wish: Floats, floor: Floats, room: Floats) -> Ints:
    """Whole numbers near ``wish`` in proportion, between floor and room, that add up to ``units``."""
    low, high = 0.0, units / wish[wish > 0].min() + 1.0
    for _ in range(200):  # the factor at which the clipped shares add up: they grow with it
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(wish * middle, floor, room).sum() < units else (low, middle)
    exact = np.clip(wish * high, floor, room)
    whole = np.floor(exact + 1e-9)
    order = np.argsort(-(exact - whole), kind="stable")
    for h in order[: units - int(whole.sum())]:
        whole[h] += 1
    return np.asarray(whole, dtype=np.int64)


def draw_ranks(units: Sequence[int], sizes: Sequence[int], seed: int) -> list[Ints]:
    """Which pixels of each stratum are in the sample: sorted ranks, 0 to size - 1, each pixel as likely as any other.

    A stratum's draw depends on its own number and size alone, not on how many others there are.
    """
    drawn = []
    for number, (count, size) in enumerate(zip(units, sizes, strict=True)):
        rng = np.random.default_rng([seed, number])
        drawn.append(np.sort(rng.choice(size, size=count, replace=False)).astype(np.int64))
    return drawn


def systematic_step(units: int, pixels: int) -> int:
    """Step of a square grid that meets about so many pixels, pixels.

    Raises:
        AssessmentError: There are fewer pixels than units.
    """
    if not 0 < units <= pixels:
        raise AssessmentError(
            f"{units} units are wanted of {pixels} pixels.", do="Take at least 1 unit, and at most one for each pixel."
        )
    return max(1, math.floor(math.sqrt(pixels / units)))


def _spread(users: Sequence[float]) -> Floats:
    """Standard deviation of being right, sqrt(U (1 - U)), (H,)."""
    right = np.array(users, dtype=np.float64)
    return np.asarray(np.sqrt(right * (1 - right)), dtype=np.float64)


def _check(sizes: Sequence[float], users: Sequence[float]) -> None:
    if len(sizes) != len(users) or not all(0 <= one <= 1 for one in users):
        raise AssessmentError(
            f"User's accuracies expected of {len(sizes)} strata are given as {', '.join(f'{u:g}' for u in users)}.",
            do="Give one number between 0 and 1 for each stratum.",
        )
