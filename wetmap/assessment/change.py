"""How much of each class was gained and lost between two dates, from one sample with a class for both.

Every quantity is a value at each sample unit: a class's gain is 1 where the unit became that class and 0 elsewhere, its
loss 1 where it stopped being that class, and its net change gain minus loss: 1, 0 or -1. The net change of the area is
the mean of that last value, and so its variance is the variance of a stratified mean (Stehman 2014, equation 25, as in
``estimate``). With a, b in {0, 1} for "is the class after" and "before", the value is a - b, and in each stratum

    s2(a - b) = s2(a) + s2(b) - 2 s(a, b),

so the covariance of the two areas, which come from the same units, is in it. Two areas taken from two separate samples
have none, and their difference is far less certain: at a unit that did not change a and b move together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.assessment.estimate import Estimate, Sample, mean, weights
from wetmap.assessment.intervals import DRAWS, ENOUGH, HIGH, LOW, SEED, Interval, Method, effective_count

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Weights in a prior, units, of what an end of an interval must not overstate and of what it must not understate. The
#: lower end of a gain counts a twentieth of a unit of gain in each stratum, its upper end a third. One weight for both
#: ends covers too little: a light one where large strata changed in a few units that the sample missed, a heavy one
#: where they did not change, and the more strata there are the less (``benchmarks/change_coverage.py``).
LIGHT, HEAVY = 1 / 20, 1 / 3


@dataclass(frozen=True)
class Figure:
    """An estimate with its 95 % interval, a share of the area."""

    estimate: Estimate
    """The share, -1 to 1, and its standard error."""
    interval: Interval
    """Its interval; it holds the estimate."""


@dataclass(frozen=True)
class ClassChange:
    """What became of one class, in shares of the area."""

    before: Figure
    """How much there was."""
    after: Figure
    """How much there is."""
    gain: Figure
    """What became this class."""
    loss: Figure
    """What stopped being this class."""
    net: Figure
    """Gain minus loss, which is after minus before."""


def class_changes(
    sample: Sample, before: Ints, after: Ints, classes: int, *, method: Method | None = None
) -> tuple[ClassChange, ...]:
    """Gain, loss and net change of every class.

    Args:
        sample: The sample; its strata and their sizes count, and its classes, of whatever kind, do not.
        before: Class that was seen at each unit for the first date, (n,), 0 to ``classes`` - 1.
        after: The same for the second date.
        classes: Number of classes.
        method: One kind of interval for all; None: textbook where there are enough units, else the posterior.

    Returns:
        One row per class. Nets add up to 0, and so do gains less losses: what one class gains others lose.
    """
    rows = []
    for k in range(classes):
        gained, lost = (after == k) & (before != k), (before == k) & (after != k)
        rows.append(
            ClassChange(
                before=_share(sample, before == k, method),
                after=_share(sample, after == k, method),
                gain=_share(sample, gained, method),
                loss=_share(sample, lost, method),
                net=_net(sample, gained, lost, method),
            )
        )
    return tuple(rows)


def transition_areas(sample: Sample, *, method: Method | None = None) -> tuple[Figure, ...]:
    """Share of the area of every reference class of a sample, for samples with many strata and many rare classes.

    The estimates are those of ``estimate``. ``intervals`` spreads one unit of prior over all classes, which is little
    for each where there are dozens of transitions.

    Args:
        sample: The sample; its reference classes are the transitions.
        method: One kind of interval for all; None: textbook where there are enough units, else the posterior.
    """
    return tuple(_share(sample, sample.reference == k, method) for k in range(sample.classes))


def _share(sample: Sample, units: Bools, method: Method | None) -> Figure:
    found = mean(sample, units.astype(np.float64))
    chosen = method or _method(sample, found, units.astype(np.int64))
    if chosen == "normal":
        return Figure(found, _clipped(found, *found.interval, 0.0, "normal"))
    low = np.quantile(_drawn(sample, (units,), LIGHT, HEAVY)[0], LOW)
    high = np.quantile(_drawn(sample, (units,), HEAVY, LIGHT)[0], HIGH)
    return Figure(found, _clipped(found, float(low), float(high), 0.0, chosen))


def _net(sample: Sample, gained: Bools, lost: Bools, method: Method | None) -> Figure:
    change = gained.astype(np.int64) - lost.astype(np.int64)
    found = mean(sample, change.astype(np.float64))
    chosen = method or _method(sample, found, change)
    if chosen == "normal":
        return Figure(found, _clipped(found, *found.interval, -1.0, "normal"))
    light, heavy = (_drawn(sample, (gained, lost), *prior) for prior in ((LIGHT, HEAVY), (HEAVY, LIGHT)))
    low, high = np.quantile(light[0] - heavy[1], LOW), np.quantile(heavy[0] - light[1], HIGH)
    return Figure(found, _clipped(found, float(low), float(high), -1.0, chosen))


def _method(sample: Sample, found: Estimate, value: Ints) -> Method:
    """The textbook interval where enough units differ from what is commonest in their stratum: they make its variance.

    Args:
        sample: The sample.
        found: The estimate.
        value: What is estimated, at each unit, (n,): -1, 0 or 1.
    """
    counts = np.zeros((sample.sizes.size, 3), dtype=np.int64)
    np.add.at(counts, (sample.stratum, value + 1), 1)
    rare = value + 1 != counts.argmax(axis=1)[sample.stratum]
    return "normal" if found.se > 0 and effective_count(sample, rare) >= ENOUGH else "posterior"


def _drawn(sample: Sample, kinds: tuple[Bools, ...], prior: float, others: float) -> Floats:
    """Draws of the share of the area of each kind of unit, (kind, draws), from a Dirichlet posterior per stratum.

    Args:
        sample: The sample.
        kinds: Which units are of a kind, (n,) each; no unit is of two.
        prior: Weight of each kind in the prior, units.
        others: Weight of all other units in it.
    """
    rng = np.random.default_rng(SEED)
    share = np.zeros((len(kinds), DRAWS))
    for h, weight in enumerate(weights(sample)):
        inside = sample.stratum == h
        units = int(inside.sum())
        if not units:
            continue
        counts = np.array([np.count_nonzero(kind & inside) for kind in kinds], dtype=np.float64)
        cells = [*(counts + prior), units - counts.sum() + others]
        share += weight * rng.dirichlet(cells, size=DRAWS)[:, :-1].T
    return share


def _clipped(one: Estimate, low: float, high: float, least: float, method: Method) -> Interval:
    return Interval(max(least, min(low, one.value)), min(1.0, max(high, one.value)), method)
