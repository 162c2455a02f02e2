"""Accuracy and area from a stratified random sample, whether or not the strata are the classes of the map.

S. V. Stehman (2014), Estimating area and map accuracy for stratified random sampling when the strata are different from
the map classes, International Journal of Remote Sensing 35(13), 4923-4939. Where the strata are the map's classes its
estimators are those of Olofsson et al. (2013, 2014), Remote Sensing of Environment 129, 122-131 and 148, 42-57, but for
the finite population correction, which those leave out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import AssessmentError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Two-sided 95 % of the normal distribution.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Sample:
    """A sample that was interpreted, and the population that it was drawn from."""

    stratum: Ints
    """Stratum of each sample unit, (n,), 0 to H - 1."""
    mapped: Ints
    """Class of the map at each unit, (n,), 0 to K - 1."""
    reference: Ints
    """Class that the interpreter saw, (n,), 0 to K - 1."""
    sizes: Floats
    """Population units (pixels) of each stratum, (H,)."""
    classes: int
    """Number of classes, K."""
    poststratified: bool = False
    """Whether the units were drawn without regard to the strata (simple random, systematic): their number in each
    stratum is then itself a matter of chance."""

    @property
    def counts(self) -> Ints:
        """Sample units of each stratum, (H,)."""
        return np.bincount(self.stratum, minlength=self.sizes.size)


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error."""

    value: float
    """The estimate; NaN where it has no value: nothing mapped, or nothing seen, of a class."""
    se: float
    """Standard error; NaN where ``value`` is."""

    @property
    def interval(self) -> tuple[float, float]:
        """The textbook 95 % interval, value -+ 1.96 standard errors; not cut off at 0 and 1."""
        return self.value - Z95 * self.se, self.value + Z95 * self.se


@dataclass(frozen=True)
class Estimates:
    """What a sample says of a map."""

    matrix: Floats
    """Share of the area by map class (rows) and reference class (columns), (K, K), sum 1."""
    overall: Estimate
    """Overall accuracy."""
    users: tuple[Estimate, ...]
    """User's accuracy by class: of what is mapped so, the share that is so."""
    producers: tuple[Estimate, ...]
    """Producer's accuracy by class: of what is so, the share that is mapped so."""
    area: tuple[Estimate, ...]
    """Share of the area by reference class."""


def estimate(sample: Sample) -> Estimates:
    """Estimate accuracy and area shares.

    Args:
        sample: At least two units in every stratum that has more population than that.

    Returns:
        All estimates as shares of the area, 0-1.

    Raises:
        AssessmentError: A stratum has fewer than two units, or more units than population.
    """
    _check(sample)
    correct = (sample.mapped == sample.reference).astype(np.float64)
    matrix = np.zeros((sample.classes, sample.classes))
    share_of_unit = (weights(sample) / np.maximum(sample.counts, 1))[sample.stratum]
    np.add.at(matrix, (sample.mapped, sample.reference), share_of_unit)
    mapped = [(sample.mapped == k).astype(np.float64) for k in range(sample.classes)]
    seen = [(sample.reference == k).astype(np.float64) for k in range(sample.classes)]
    return Estimates(
        matrix,
        mean(sample, correct),
        tuple(ratio(sample, correct * x, x) for x in mapped),
        tuple(ratio(sample, correct * x, x) for x in seen),
        tuple(mean(sample, x) for x in seen),
    )


def mean(sample: Sample, y: Floats) -> Estimate:
    """Mean of a quantity over the population: Stehman (2014), equations 3 and 25.

    Args:
        sample: The sample.
        y: The quantity at each unit, (n,).
    """
    return Estimate(_mean(sample, y), float(np.sqrt(_variance(sample, y))))


def ratio(sample: Sample, y: Floats, x: Floats) -> Estimate:
    """Ratio of two totals: Stehman (2014), equations 27 and 28, the variance by linearisation.

    Args:
        sample: The sample.
        y: Numerator at each unit, (n,).
        x: Denominator at each unit, (n,).
    """
    bottom = _mean(sample, x)
    if bottom == 0:
        return Estimate(float("nan"), float("nan"))
    value = _mean(sample, y) / bottom
    return Estimate(value, float(np.sqrt(_variance(sample, y - value * x)) / bottom))


def weights(sample: Sample) -> Floats:
    """Share of the population in each stratum, (H,), sum 1."""
    return np.asarray(sample.sizes / sample.sizes.sum(), dtype=np.float64)


def _mean(sample: Sample, y: Floats) -> float:
    counts = sample.counts
    sums = np.bincount(sample.stratum, weights=y, minlength=counts.size)
    return float(weights(sample) @ np.divide(sums, counts, out=np.zeros(counts.size), where=counts > 0))


def _variance(sample: Sample, y: Floats) -> float:
    """Variance of the mean of y, with the finite population correction.

    Poststratified: Cochran (1977), Sampling Techniques, section 5A.9, equation 5A.42.
    """
    counts, share = sample.counts, weights(sample)
    spread = np.zeros(counts.size)
    for h in np.flatnonzero(counts > 1):  # a single unit is all of its stratum
        spread[h] = np.var(y[sample.stratum == h], ddof=1)
    if sample.poststratified:
        n = int(counts.sum())
        left = 1 - n / sample.sizes.sum()
        return float(left / n * (share @ spread) + ((1 - share) @ spread) / n**2)
    held = counts > 0
    left = 1 - counts[held] / sample.sizes[held]
    return float(np.sum(share[held] ** 2 * left * spread[held] / counts[held]))


def _check(sample: Sample) -> None:
    counts = sample.counts
    # sizes are weighted by area: a stratum of one pixel need not have the size 1
    thin = np.flatnonzero((counts < 2) & (sample.sizes - counts > 0.5))
    if thin.size:
        rows = ", ".join(f"{h} has {counts[h]}" for h in thin)
        raise AssessmentError(
            f"A stratum needs at least two interpreted units for a variance: stratum {rows}.",
            do="Interpret more units there, or join the stratum with another one.",
        )
    over = np.flatnonzero(counts > sample.sizes)
    if over.size:
        rows = ", ".join(f"{h} has {counts[h]} units of {sample.sizes[h]:g}" for h in over)
        raise AssessmentError(
            f"More units were interpreted than the stratum holds: stratum {rows}.",
            do="Check that the sample belongs to this map.",
        )
