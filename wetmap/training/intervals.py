"""How sure the held-out scores are: bootstrap intervals over groups (polygons or blocks), never over pixels.

Pixels of one polygon are right or wrong together, so a thousand pixels of ten bogs say little more than ten bogs.
Whole groups are therefore drawn, with replacement, as many as there are, and the scores computed anew: the cluster
bootstrap (Davison and Hinkley, 1997, "Bootstrap Methods and their Application", section 3.8).

The interval is the expanded percentile interval: percentiles of the draws at levels widened so that with normal scores
it would be Student's t interval (Hesterberg, 2015, "What Teachers Should Know About the Bootstrap", The American
Statistician 69(4), 371-386; https://arxiv.org/abs/1411.5279). Plain percentiles are too narrow with few groups. The
bias-corrected and accelerated interval (BCa; Efron, 1987, JASA 82, 171-185) was tried and not taken: with 8, 15, 30 and
80 simulated blocks of five classes (400 repeats each), a nominal 95 % covered the true macro F1 in 96, 93, 91, 92 %
(expanded), 88, 88, 90, 92 % (percentile), 86, 88, 89, 90 % (BCa), and drawing pixels in 54, 48, 49, 44 %. As many
polygons of one class each, so that some classes are in very few, are harder: 78, 91, 95, 95 % (expanded), 70, 89, 94,
95 % (percentile), 73, 83, 82, 95 % (BCa), 27, 27, 22, 29 % (pixels).

Limits: groups must be alike and independent, which neighbouring blocks are only roughly; a group drawn from one place
says nothing about another; what varies is the test groups, not the training, so a model trained anew with another seed
may leave the interval. Scores of every draw at 1 give the interval 1 to 1, which is not certainty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetmap.errors import TrainingError, UsageError
from wetmap.training.metrics import confusion_counts

#: Groups below which there is no interval: fewer cannot show how much groups differ.
MIN_GROUPS = 5
#: Draws of groups; at the widened levels of few groups the bounds are among the outermost draws.
DRAWS = 2000
#: Weights (draws x groups) held at once: bounds the memory at some 100 MB.
WEIGHTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A score and how sure it is."""

    value: float | None
    """The score of all samples; None where it has none."""
    low: float | None
    """Lower bound of the interval; None where there is no honest one."""
    high: float | None
    """Upper bound of the interval; None where there is no honest one."""
    groups: int
    """Groups that speak for it: for a class, those with samples of the class."""
    note: str = ""
    """Why there is no interval, or what makes it shaky; empty when neither."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both bounds, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class ClassEstimate:
    """F1 of one class."""

    name: str
    """Name of the class."""
    n: int
    """Samples that truly are of the class."""
    f1: Estimate
    """Its F1, 0-1."""


@dataclass(frozen=True)
class GroupScores:
    """Scores of one model with intervals over groups."""

    classes: tuple[ClassEstimate, ...]
    """One per class, in the order of the class table."""
    macro_f1: Estimate
    """Mean F1 of the classes that have samples."""
    overall_accuracy: Estimate
    """Share of the samples predicted right."""
    n: int
    """Samples."""
    groups: int
    """Groups they lie in."""
    level: float
    """Nominal coverage of the intervals, 0-1."""
    draws: int
    """Bootstrap draws."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back unchanged."""
        return {**asdict(self), "classes": [asdict(row) for row in self.classes]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GroupScores:
        """Rebuild scores written by ``to_json``."""
        rows = tuple(ClassEstimate(row["name"], row["n"], Estimate(**row["f1"])) for row in data["classes"])
        named = {name: Estimate(**data[name]) for name in ("macro_f1", "overall_accuracy")}
        return cls(**{**data, **named, "classes": rows})


@dataclass(frozen=True)
class PairedDifference:
    """How much better one model is than another on the same groups."""

    macro_f1: Estimate
    """Macro F1 of a minus that of b, with its interval."""
    share_above_zero: float | None
    """Share of the draws in which a is better, ties counting half, 0-1; None where there is no interval."""
    groups: int
    """Groups drawn from."""
    level: float
    """Nominal coverage of the interval, 0-1."""
    draws: int
    """Bootstrap draws."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def group_intervals(
    truth: ArrayLike,
    predicted: ArrayLike,
    groups: ArrayLike,
    class_names: Sequence[str],
    *,
    draws: int = DRAWS,
    level: float = 0.95,
    seed: int,
) -> GroupScores:
    """Score predictions, with bootstrap intervals over groups.

    Args:
        truth: True class index of each sample, (n,) int, 0 to K-1.
        predicted: Predicted class index of each sample, (n,) int, 0 to K-1.
        groups: Group of each sample, (n,) int, any numbers: the polygon, or the block of the split.
        class_names: The K classes' names.
        draws: Draws of groups.
        level: Nominal coverage, 0-1.
        seed: The same seed and samples give the same intervals; the order of the samples does not matter.

    Returns:
        The scores of ``metrics.scores``, with intervals; a class without samples has no F1 here. A class in fewer than
        ``MIN_GROUPS`` groups has no interval and says why; the macro F1 names such classes, on which its interval
        leans. In a draw that holds no sample of a class, the macro F1 is the mean over the others.

    Raises:
        TrainingError: Lengths differ, or a class index is outside 0 to K-1.
        UsageError: ``draws`` or ``level`` make no interval.

    Example:
        >>> found = group_intervals([0, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 1], [1, 1, 2, 2, 3, 3], ["bog", "fen"], seed=1)
        >>> round(found.macro_f1.value, 3), found.groups, found.macro_f1.interval
        (0.829, 3, None)
    """
    _check_settings(draws, level)
    counts = _group_counts(truth, predicted, groups, len(class_names))
    found = _scores_of(counts.sum(axis=0))
    drawn = np.concatenate([_scores_of(part) for part in _draw(counts, draws, seed)])
    total, spoken = len(counts), (counts[:, 1] > 0).sum(axis=0)
    n = counts[:, 1].sum(axis=0)
    rows = tuple(
        ClassEstimate(name, int(n[at]), _estimate(found[at], drawn[:, at], int(spoken[at]), level, "of this class"))
        for at, name in enumerate(class_names)
    )
    shaky = _shaky(class_names, n, spoken)
    return GroupScores(
        classes=rows,
        macro_f1=_estimate(found[-2], drawn[:, -2], total, level, note=shaky),
        overall_accuracy=_estimate(found[-1], drawn[:, -1], total, level),
        n=int(n.sum()),
        groups=total,
        level=level,
        draws=draws,
    )


def paired_difference(  # noqa: PLR0913 - the two models, the samples and the three knobs of a bootstrap
    truth: ArrayLike,
    predicted_a: ArrayLike,
    predicted_b: ArrayLike,
    groups: ArrayLike,
    class_names: Sequence[str],
    *,
    draws: int = DRAWS,
    level: float = 0.95,
    seed: int,
) -> PairedDifference:
    """Compare the macro F1 of two models on the same samples: each draw takes the same groups for both.

    Args:
        truth: True class index of each sample, (n,) int, 0 to K-1.
        predicted_a: Class indices that one model predicted, (n,) int.
        predicted_b: Class indices that the other model predicted, (n,) int.
        groups: Group of each sample, (n,) int.
        class_names: The K classes' names.
        draws: Draws of groups.
        level: Nominal coverage, 0-1.
        seed: As in ``group_intervals``.

    Returns:
        The difference a - b. The share of draws above 0 is not a p-value, nor the probability that a is better: it
        answers for other test groups like these, not for other training runs.

    Raises:
        TrainingError: Lengths differ, or a class index is outside 0 to K-1.
        UsageError: ``draws`` or ``level`` make no interval.
    """
    _check_settings(draws, level)
    both = [_group_counts(truth, guess, groups, len(class_names)) for guess in (predicted_a, predicted_b)]
    one, other = (float(_scores_of(counts.sum(axis=0))[-2]) for counts in both)
    parts = zip(*(_draw(counts, draws, seed) for counts in both), strict=True)
    drawn = np.concatenate([_scores_of(a)[:, -2] - _scores_of(b)[:, -2] for a, b in parts])
    present = both[0][:, 1]
    shaky = _shaky(class_names, present.sum(axis=0), (present > 0).sum(axis=0))
    found = _estimate(np.float64(one - other), drawn, len(present), level, note=shaky)
    above = float((drawn > 0).mean() + (drawn == 0).mean() / 2)
    return PairedDifference(found, None if found.interval is None else above, len(present), level, draws)


def expanded_level(level: float, n: int) -> float:
    """Level in the lower tail at which ``n`` groups' percentile is taken: Phi(-sqrt(n / (n - 1)) t), Hesterberg 2015.

    Args:
        level: Nominal coverage of the interval, 0-1.
        n: Groups, at least 2.

    Example:
        >>> round(expanded_level(0.95, 10), 4), round(expanded_level(0.95, 10_000), 4)
        (0.0086, 0.025)
    """
    from scipy.special import ndtr, stdtrit

    return float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))


def _check_settings(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise UsageError(
            f"{draws} draws at level {level:g} make no interval.",
            do="Ask for 1,000 draws or more, and a level as 0.95.",
        )


def _group_counts(truth: ArrayLike, predicted: ArrayLike, groups: ArrayLike, classes: int) -> NDArray[np.float64]:
    """Hits, samples and guesses of each class in each group: (group, 3, class), whole numbers.

    These are the diagonal and the margins of the groups' confusion matrices, all that the scores need of them.
    """
    confusion_counts(truth, predicted, classes)  # refuses what does not fit
    true, guess = np.asarray(truth, dtype=np.int64).ravel(), np.asarray(predicted, dtype=np.int64).ravel()
    names = np.asarray(groups).ravel()
    if names.shape != true.shape:
        raise TrainingError(
            f"There are {names.size} groups and {true.size} samples.", do="Give the group of every sample."
        )
    known, group = np.unique(names, return_inverse=True)
    hit = true == guess
    columns = (group[hit] * classes + true[hit], group * classes + true, group * classes + guess)
    size = len(known) * classes
    tables = [np.bincount(column, minlength=size).reshape(len(known), classes) for column in columns]
    return np.stack(tables, axis=1).astype(np.float64)


def _draw(counts: NDArray[np.float64], draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Counts of drawn sets of groups, (some draws, 3, class): weights of the groups @ their counts.

    Exact, whatever the order of summation: whole numbers below 2^53.
    """
    total, flat = len(counts), counts.reshape(len(counts), int(np.prod(counts.shape[1:])))
    generator = np.random.Generator(np.random.PCG64(seed))
    at_once = max(1, min(draws, WEIGHTS_AT_ONCE // max(total, 1)))
    for start in range(0, draws, at_once):
        rows = min(at_once, draws - start)
        chosen = generator.integers(0, max(total, 1), (rows, total)) + total * np.arange(rows)[:, None]
        weights = np.bincount(chosen.ravel(), minlength=rows * total).reshape(rows, total)
        yield (weights @ flat).reshape(rows, *counts.shape[1:])


def _scores_of(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of each class that has samples, macro F1, overall accuracy, (..., K + 2); NaN where there is none."""
    hits, there, guessed = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    f1 = np.divide(2 * hits, there + guessed, out=np.full(hits.shape, np.nan), where=there > 0)
    present, total = (there > 0).sum(axis=-1), there.sum(axis=-1)
    macro = np.divide(np.nansum(f1, axis=-1), present, out=np.full(present.shape, np.nan), where=present > 0)
    accuracy = np.divide(hits.sum(axis=-1), total, out=np.full(total.shape, np.nan), where=total > 0)
    return np.concatenate([f1, np.asarray(macro)[..., None], np.asarray(accuracy)[..., None]], axis=-1)


def _estimate(
    found: np.float64, drawn: NDArray[np.float64], groups: int, level: float, which: str = "", note: str = ""
) -> Estimate:
    if np.isnan(found):
        return Estimate(None, None, None, groups, "no samples")
    if groups < MIN_GROUPS:
        few = " ".join(["in", str(groups), "group" if groups == 1 else "groups", which]).strip()
        return Estimate(float(found), None, None, groups, f"{few}: too few for an interval (at least {MIN_GROUPS})")
    tail = expanded_level(level, groups)
    low, high = np.quantile(drawn[~np.isnan(drawn)], [tail, 1 - tail])
    return Estimate(float(found), float(low), float(high), groups, note)


def _shaky(names: Sequence[str], n: NDArray[np.float64], spoken: NDArray[np.int64]) -> str:
    rows = zip(names, n, spoken, strict=True)
    few = [f"{name} ({count})" for name, samples, count in rows if samples and count < MIN_GROUPS]
    return f"leans on classes in few groups, so it is likely too narrow: {', '.join(few)}" if few else ""
