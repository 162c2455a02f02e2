"""Probabilities that mean what they say: one temperature, fitted on the validation fold.

A network's probabilities are usually too sure. Temperature scaling (Guo, Pleiss, Sun and Weinberger, 2017, "On
Calibration of Modern Neural Networks", ICML, https://arxiv.org/abs/1706.04599) divides the logits by one number T: the
class stays the same, the probabilities become flatter (T > 1) or sharper (T < 1).

What "calibrated" means here: among validation samples that are mapped with probability 0.8, some 80 % are right. That
holds for the *class mix of the drawn samples*, which is as even as the reference allows, and not for the map's, where
one class may cover most of the ground. The inverse-frequency class weights of the training lean towards rare classes on
top of that, and the temperature does not undo it. So a probability ranks pixels and compares maps of one model. It is
not the chance that a pixel of the map is right, nor may it be summed to areas.

Models that give probabilities (forest, boosting) go the same way, with log p for logits. softmax(log p / T) equals
softmax(logits / T), because the two differ by a constant per sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetmap.errors import TrainingError

#: Bins of the expected calibration error, as in Guo et al. 2017 (section 4.1, M = 15).
BINS: Final = 15
#: Temperatures considered; a fit at an end says so.
COLDEST, HOTTEST = 0.05, 20.0
#: The least positive normal float32: what underflowed to 0 in a network's answer counts as it.
LEAST_PROBABILITY: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Bin:
    """Samples whose predicted class has a probability within bounds."""

    low: float
    """Lower bound, not included (0 in the first bin is)."""
    high: float
    """Upper bound, included."""
    n: int
    """Samples."""
    confidence: float | None
    """Mean probability of the predicted class, 0-1; None without samples."""
    accuracy: float | None
    """Share predicted right, 0-1; None without samples."""


@dataclass(frozen=True)
class Reliability:
    """How well probabilities agree with what happened."""

    ece: float
    """Expected calibration error: mean over samples of |accuracy - confidence| of their bin, 0-1."""
    bins: tuple[Bin, ...]
    """Bins of equal width from 0 to 1, for the reliability diagram."""

    @property
    def n(self) -> int:
        """Samples."""
        return sum(row.n for row in self.bins)


@dataclass(frozen=True)
class Calibration:
    """A temperature and what it does to the samples that it was fitted on."""

    temperature: float
    """What logits are divided by; 1 leaves them alone."""
    floor: float
    """Probabilities below it count as it."""
    before: Reliability
    """Without it."""
    after: Reliability
    """With it, on the same samples: slightly flattering. Quote that of the test fold."""
    note: str = ""
    """What is odd about the fit; empty when nothing."""

    def apply(self, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Probabilities with the temperature, (n, K, ...)."""
        return tempered(probabilities, self.temperature, floor=self.floor)

    def card(self) -> dict[str, Any]:
        """The fields of ``wetmap.model_card.CardCalibration``, fitted on and measured on the validation fold."""
        return {
            "temperature": self.temperature,
            "floor": self.floor,
            "n": self.before.n,
            "bins": len(self.before.bins),
            "ece_before": self.before.ece,
            "ece_after": self.after.ece,
        }


def calibrate(probabilities: ArrayLike, labels: ArrayLike, *, floor: float = 0.0, bins: int = BINS) -> Calibration:
    """Fit a temperature to a model's answers on the validation fold, and measure before and after.

    Args:
        probabilities: (n, K), sums to 1 over the classes.
        labels: True class index, (n,) int.
        floor: Probabilities below it count as it; 0 for networks and boosting. A forest that gives a class no vote does
            not mean never: half a vote, ``1 / (2 * trees)``, keeps such samples from ruling the fit.
        bins: Bins of the expected calibration error.

    Raises:
        TrainingError: There are no samples, shapes do not fit, or a value is not a probability.
    """
    answers, truth = _checked(probabilities, labels)
    right = answers.argmax(axis=1) == truth
    if right.all():
        temperature, note = 1.0, "every sample is right, so no temperature can be told"
    else:
        temperature = fit_temperature(np.log(np.maximum(answers, max(floor, LEAST_PROBABILITY))), truth)
        ends = temperature in (COLDEST, HOTTEST)
        note = f"the best temperature lies beyond {COLDEST:g} to {HOTTEST:g}" if ends else ""
    before = reliability(answers, truth, bins=bins)
    after = reliability(tempered(answers, temperature, floor=floor), truth, bins=bins)
    return Calibration(temperature, floor, before, after, note)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature at which the labels are likeliest: the least mean negative log likelihood of softmax(logits / T).

    The likelihood is log-concave in 1/T, so its slope has one root, which bisection (Brent) finds from any start.

    Args:
        logits: (n, K), finite, before the softmax; or logarithms of probabilities.
        labels: True class index, (n,) int, 0 to K-1.

    Returns:
        Between ``COLDEST`` and ``HOTTEST``.

    Raises:
        TrainingError: There are no samples, shapes do not fit, or a logit is not finite.

    Example:
        >>> round(fit_temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1]), 3)  # 3 of 4 are right: odds of 3, log 3 = 2 / T
        1.82
    """
    from scipy.optimize import brentq

    values, truth = _checked(logits, labels)
    values = values - values.max(axis=1, keepdims=True)
    true_value = values[np.arange(len(truth)), truth].mean()

    def slope(coldness: float) -> float:
        """Derivative of the mean negative log likelihood by 1/T: expected logit less the true one's."""
        weights = np.exp(values * coldness)
        return float(((weights * values).sum(axis=1) / weights.sum(axis=1)).mean() - true_value)

    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    if slope(1 / COLDEST) <= 0:
        return COLDEST
    return float(1 / brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-13, rtol=1e-13))


def tempered(
    probabilities: NDArray[np.floating[Any]], temperature: float, *, floor: float = 0.0
) -> NDArray[np.float32]:
    """Divide the logits of probabilities by a temperature: softmax(log p / T), which is softmax(logits / T).

    Args:
        probabilities: (n, K, ...), float; sums to 1 over the classes.
        temperature: Above 0; 1 gives back the same numbers.
        floor: Probabilities below it count as it.

    Returns:
        The same shape, float32. The likeliest class stays the same, ties and roundings included, and each position
        depends on its own probabilities alone.
    """
    if temperature == 1:
        return np.asarray(probabilities, dtype=np.float32)
    raised = np.maximum(probabilities, max(floor, LEAST_PROBABILITY), dtype=np.float64)
    raised = (raised / raised.max(axis=1, keepdims=True)) ** (1 / temperature)
    total = raised[:, 0].copy()
    for index in range(1, raised.shape[1]):  # class by class: the sum is the same for any number of positions
        total += raised[:, index]
    found: NDArray[np.float32] = (raised / total[:, None]).astype(np.float32)
    best = np.expand_dims(np.asarray(probabilities).argmax(axis=1), 1)
    rounded_away = np.expand_dims(found.argmax(axis=1), 1) != best
    if rounded_away.any():
        above = np.nextafter(found.max(axis=1, keepdims=True), np.float32(2))
        np.put_along_axis(found, best, np.where(rounded_away, above, np.take_along_axis(found, best, 1)), 1)
    return found


def reliability(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = BINS) -> Reliability:
    """Expected calibration error and its bins, of the predicted class's probability (Guo et al. 2017, equation 3).

    Args:
        probabilities: (n, K), sums to 1 over the classes.
        labels: True class index, (n,) int.
        bins: Bins of equal width.

    Raises:
        TrainingError: There are no samples, shapes do not fit, or a value is not a probability.

    Example:
        >>> found = reliability([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], [0, 1, 0])
        >>> round(found.ece, 3)  # (2 * |0.5 - 0.9| + 1 * |1 - 0.6|) / 3
        0.4
    """
    answers, truth = _checked(probabilities, labels)
    if answers.min() < 0 or answers.max() > 1 + 1e-5:
        raise TrainingError(
            f"Probabilities run from {answers.min():g} to {answers.max():g}.", do="Apply the softmax first."
        )
    confidence, right = answers.max(axis=1), answers.argmax(axis=1) == truth
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    sure, good = (np.bincount(place, weights=values, minlength=bins) for values in (confidence, right))
    rows = tuple(
        Bin(
            low=at / bins,
            high=(at + 1) / bins,
            n=int(n[at]),
            confidence=float(sure[at] / n[at]) if n[at] else None,
            accuracy=float(good[at] / n[at]) if n[at] else None,
        )
        for at in range(bins)
    )
    return Reliability(ece=float(np.abs(good - sure).sum() / len(truth)), bins=rows)


def _checked(values: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores, truth = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.int64).ravel()
    if scores.ndim != 2 or len(scores) != len(truth) or not scores.size:
        raise TrainingError(
            f"A calibration needs (n, K) answers and n labels, and these are {scores.shape} and {truth.size}.",
            do="Give the answers of at least one validation sample, with its labels.",
        )
    if not np.isfinite(scores).all():
        raise TrainingError("An answer of the model is not a number.", do="Train again with a lower learning rate.")
    if truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise TrainingError(
            f"The labels run from {truth.min()} to {truth.max()}, and the model answers {scores.shape[1]} classes.",
            do="Leave unlabelled samples (255) out, and use the model's own class table.",
        )
    return scores, truth
