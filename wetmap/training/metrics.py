"""Scores of a classification on held-out samples, from counts alone.

A ratio whose denominator is zero has no value: it is ``None`` here and ``null`` in JSON, never 0 and never NaN.
These are scores of the samples they were computed on. They are not an estimate of the map's accuracy, which needs a
probability sample of the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetmap.errors import TrainingError


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class."""

    name: str
    """Name of the class."""
    n: int
    """Samples that truly are of the class (its support)."""
    precision: float | None
    """Share of the samples predicted as the class that truly are, 0-1; None where nothing was predicted as it."""
    recall: float | None
    """Share of the class's samples that were predicted as it, 0-1; None where the class has no samples."""
    f1: float | None
    """2 tp / (2 tp + fp + fn), 0-1; None where the class was neither there nor predicted."""


@dataclass(frozen=True)
class Scores:
    """Scores of a model on one set of samples."""

    classes: tuple[ClassScores, ...]
    """One per class, in the order of the class table."""
    macro_f1: float | None
    """Mean F1 over the classes that have samples, every class counting the same, 0-1; None without samples."""
    overall_accuracy: float | None
    """Share of the samples that were predicted right, 0-1; None without samples."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts; rows are the true class, columns the predicted class."""

    @property
    def n(self) -> int:
        """Number of samples."""
        return sum(row.n for row in self.classes)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back unchanged."""
        return {
            **asdict(self),
            "classes": [asdict(row) for row in self.classes],
            "confusion": [*map(list, self.confusion)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scores:
        """Rebuild scores written by ``to_json``."""
        return cls(
            classes=tuple(ClassScores(**row) for row in data["classes"]),
            macro_f1=data["macro_f1"],
            overall_accuracy=data["overall_accuracy"],
            confusion=tuple(tuple(row) for row in data["confusion"]),
        )


def scores(truth: ArrayLike, predicted: ArrayLike, class_names: Sequence[str]) -> Scores:
    """Score predictions against the truth.

    Args:
        truth: True class index of each sample, (n,) int, 0 to K-1.
        predicted: Predicted class index of each sample, (n,) int, 0 to K-1.
        class_names: The K classes' names.

    Returns:
        Scores per class and over all. A class without samples does not enter the macro F1, but samples of other
        classes that were predicted as it still count against those classes.

    Raises:
        TrainingError: The two differ in length, or hold an index outside 0 to K-1.

    Example:
        >>> found = scores([0, 0, 1], [0, 1, 1], ["bog", "fen"])
        >>> round(found.macro_f1, 3), found.confusion
        (0.667, ((1, 1), (0, 1)))
    """
    counts = confusion_counts(truth, predicted, len(class_names))
    rows = tuple(_class_scores(name, counts, index) for index, name in enumerate(class_names))
    total = int(counts.sum())
    present = [row.f1 for row in rows if row.n and row.f1 is not None]
    return Scores(
        classes=rows,
        macro_f1=float(np.mean(present)) if present else None,
        overall_accuracy=_ratio(int(np.trace(counts)), total),
        confusion=tuple(tuple(int(count) for count in row) for row in counts),
    )


def confusion_counts(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count samples by true (row) and predicted (column) class, (K, K).

    Raises:
        TrainingError: The two differ in length, or hold an index outside 0 to K-1.
    """
    true, guess = np.asarray(truth, dtype=np.int64).ravel(), np.asarray(predicted, dtype=np.int64).ravel()
    if true.shape != guess.shape:
        raise TrainingError(
            f"There are {true.size} true labels and {guess.size} predictions.",
            do="Score a prediction for every sample.",
        )
    for what, values in (("true", true), ("predicted", guess)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise TrainingError(
                f"The {what} class indices run from {values.min()} to {values.max()}, and there are {classes} classes "
                f"(0 to {classes - 1}).",
                do="Leave unlabelled samples (255) out, and use the class table that the samples were made with.",
            )
    return np.bincount(true * classes + guess, minlength=classes * classes).reshape(classes, classes)


def commonest_class_scores(train_labels: ArrayLike, truth: ArrayLike, class_names: Sequence[str]) -> Scores:
    """Score the naive guess: every sample is of the class that is commonest in training (ties: the first).

    Args:
        train_labels: Class index of each training sample, (n,) int.
        truth: True class index of each held-out sample, (m,) int.
        class_names: The K classes' names.

    Raises:
        TrainingError: There are no training labels, or an index is outside 0 to K-1.
    """
    labels = np.asarray(train_labels, dtype=np.int64).ravel()
    if labels.size == 0:
        raise TrainingError("There are no training labels to find the commonest class in.", do="Add reference data.")
    guess = int(np.bincount(labels, minlength=len(class_names)).argmax())
    return scores(truth, np.full(np.asarray(truth).size, guess), class_names)


def _class_scores(name: str, counts: NDArray[np.int64], index: int) -> ClassScores:
    hits = int(counts[index, index])
    there, guessed = int(counts[index].sum()), int(counts[:, index].sum())
    return ClassScores(
        name=name,
        n=there,
        precision=_ratio(hits, guessed),
        recall=_ratio(hits, there),
        f1=_ratio(2 * hits, there + guessed),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
