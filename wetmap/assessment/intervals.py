"""Intervals that hold for rare classes too.

The textbook interval, estimate -+ 1.96 standard errors, rests on many counts. A rare class is often seen only a few
times outside its own stratum, and then the interval covers the truth in 60 to 93 of 100 samples instead of 95 (``python
benchmarks/coverage.py``); where nothing was seen it has no width at all. Here each stratum's shares get a Dirichlet
posterior, whose prior counts together as one sample unit, and the interval is that of the weighted sum of draws. For
the overall accuracy that prior would pull all strata to the same side; it gets the score interval of as many units of a
simple random sample as the design is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wetmap.assessment.estimate import Z95, Estimate, Estimates, Sample, weights

Floats = NDArray[np.float64]
Method = Literal["normal", "posterior", "score"]

#: From this effective number of units on the textbook interval covers as promised (``benchmarks/coverage.py``).
ENOUGH = 100.0
#: Draws of the posterior: its 2.5 % quantile is then good to about 3 % of the interval's width.
DRAWS, SEED = 4000, 20141
LOW, HIGH = 0.025, 0.975


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    """Lower end; NaN where there is no estimate."""
    high: float
    """Upper end."""
    method: Method
    """``normal`` (textbook), ``posterior``, or ``score``."""


@dataclass(frozen=True)
class Intervals:
    """The intervals of ``Estimates``, in the same places."""

    overall: Interval
    users: tuple[Interval, ...]
    producers: tuple[Interval, ...]
    area: tuple[Interval, ...]


def intervals(sample: Sample, estimates: Estimates, *, method: Method | None = None) -> Intervals:
    """The 95 % interval of every estimate.

    Args:
        sample: The sample.
        estimates: What ``estimate`` said of it.
        method: One method for all; None: textbook where there are enough units, else the posterior.

    Returns:
        Intervals within 0 to 1 that hold their estimate.
    """
    agreed, mapped, seen = posterior(sample)
    classes = range(sample.classes)

    def made(one: Estimate, draws: Floats, units: NDArray[np.bool_]) -> Interval:
        enough = one.se > 0 and effective_count(sample, units) >= ENOUGH
        return _interval(one, draws, method or ("normal" if enough else "posterior"))

    wrong = sample.mapped != sample.reference
    with np.errstate(invalid="ignore", divide="ignore"):
        return Intervals(
            score(sample, estimates.overall) if method is None else made(estimates.overall, agreed.sum(axis=1), wrong),
            tuple(made(estimates.users[k], agreed[:, k] / mapped[:, k], (sample.mapped == k) & wrong) for k in classes),
            tuple(
                made(estimates.producers[k], agreed[:, k] / seen[:, k], (sample.reference == k) & wrong)
                for k in classes
            ),
            tuple(made(estimates.area[k], seen[:, k], sample.reference == k) for k in classes),
        )


def score(sample: Sample, one: Estimate) -> Interval:
    """The score interval (Wilson 1927) of a share, with the effective sample size p (1 - p) / variance.

    Korn and Graubard (1998), Survey Methodology 24(2), 193-201, take that size for designs of any kind. Where all units
    agree there is no variance, and the size is that of their weights (Kish).
    """
    share, units = one.value, effective_count(sample, np.ones(sample.stratum.size, dtype=np.bool_))
    size = share * (1 - share) / one.se**2 if one.se > 0 else units
    middle = (share + Z95**2 / (2 * size)) / (1 + Z95**2 / size)
    half = Z95 / (1 + Z95**2 / size) * np.sqrt(share * (1 - share) / size + Z95**2 / (4 * size**2))
    return Interval(max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)), "score")


def posterior(sample: Sample) -> tuple[Floats, Floats, Floats]:
    """Draws of three shares of the area for each class: mapped so and so, mapped so, and so, (draws, K) each.

    They are the same for the same sample. In each stratum every pair of a map class that occurs there and any
    reference class gets the same prior; together they weigh as much as one unit (Perks' prior, which spreads one
    observation over all cells). The pairs of all strata together are never held: a map of change may have 254 classes.
    """
    rng = np.random.default_rng(SEED)
    columns = max(sample.classes, 2)  # where the map has one class, there may be others that nobody saw
    agreed, mapped, seen = (np.zeros((DRAWS, columns)) for _ in range(3))
    for h, weight in enumerate(weights(sample)):
        inside = sample.stratum == h
        if not inside.any():
            continue
        rows = np.unique(sample.mapped[inside])
        counts = np.zeros((columns, columns))
        np.add.at(counts, (sample.mapped[inside], sample.reference[inside]), 1.0)
        cells = counts[rows].ravel()
        drawn = weight * rng.dirichlet(cells + 1 / cells.size, size=DRAWS).reshape(DRAWS, rows.size, columns)
        agreed[:, rows] += drawn[:, np.arange(rows.size), rows]
        mapped[:, rows] += drawn.sum(axis=2)
        seen += drawn.sum(axis=1)
    return agreed[:, : sample.classes], mapped[:, : sample.classes], seen[:, : sample.classes]


def effective_count(sample: Sample, units: NDArray[np.bool_]) -> float:
    """How many equally weighted units some units are worth: (sum of weights)^2 / sum of squared weights (Kish 1965).

    Args:
        sample: The sample; a unit's weight is the share of the area that it stands for.
        units: Which units count, (n,).
    """
    each = (weights(sample) / np.maximum(sample.counts, 1))[sample.stratum][units]
    return float(each.sum() ** 2 / np.sum(each**2)) if each.size else 0.0


def _interval(one: Estimate, draws: Floats, method: Method) -> Interval:
    if np.isnan(one.value):
        return Interval(float("nan"), float("nan"), method)
    low, high = one.interval if method == "normal" else np.quantile(draws, [LOW, HIGH])
    return Interval(max(0.0, min(float(low), one.value)), min(1.0, max(float(high), one.value)), method)
