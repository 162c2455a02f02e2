"""What each sample is used for, given its fold, and how far apart the uses are kept.

A model sees a window around each sample. Two windows of ``w`` pixels share pixels where the samples are closer than
``w`` in rows **and** columns (Chebyshev distance), so samples of different roles are kept at least that far apart:
windows of test samples share no pixel with windows of training samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: What a sample is used for.
ROLES = ("train", "validation", "test", "dropped")


def roles_of(
    fold: NDArray[np.int16], at: NDArray[np.float64], test_fold: int, validation_fold: int, buffer_px: int
) -> NDArray[np.str_]:
    """Roles from folds, with the samples dropped that are closer than ``buffer_px`` to a sample of another role.

    Args:
        fold: (sample,), number of the fold.
        at: (sample, 2), pixel row and column.
        test_fold: The fold for testing.
        validation_fold: The fold for choosing the epoch; all others are for training.
        buffer_px: Least Chebyshev distance, pixels; 0 drops nothing.

    Returns:
        (sample,), one of ``ROLES``.
    """
    test, validation = fold == test_fold, fold == validation_fold
    train = ~(test | validation)
    if buffer_px:
        validation = validation & ~_closer(at, at[test], buffer_px)
        train = train & ~_closer(at, at[test | validation], buffer_px)
    return np.select([test, validation, train], ["test", "validation", "train"], default="dropped")


def window_overlap(test: NDArray[np.float64], train: NDArray[np.float64], window_px: int) -> float:
    """Share of the windows around ``test`` that share a pixel with a window around ``train``, 0-1.

    Args:
        test: (sample, 2), pixel row and column.
        train: (sample, 2), pixel row and column.
        window_px: Side of the windows, pixels.
    """
    return float(_closer(test, train, window_px).mean()) if len(test) else 0.0


def thinnest(role: NDArray[np.str_], label: NDArray[np.uint8], classes: int) -> tuple[int, float]:
    """Pairs of a role and a class without a sample; and the least share of a class's samples in any role, 0-1.

    Args:
        role: (sample,), one of ``ROLES``.
        label: (sample,), class index.
        classes: Number of classes.
    """
    total = np.bincount(label, minlength=classes)
    shares = np.stack([np.bincount(label[role == wanted], minlength=classes) for wanted in ROLES[:3]]) / np.maximum(
        total, 1
    )
    return int((shares == 0).sum()), float(shares.min(initial=1.0))


def _closer(at: NDArray[np.float64], others: NDArray[np.float64], distance_px: int) -> NDArray[np.bool_]:
    """Which points have one of ``others`` at a Chebyshev distance of less than ``distance_px`` (whole pixels)."""
    if not len(others) or not len(at):
        return np.zeros(len(at), dtype=np.bool_)
    from scipy.spatial import KDTree  # takes a fifth of a second to load, in every command

    distance, _ = KDTree(others).query(at, p=np.inf, distance_upper_bound=float(distance_px))
    return np.asarray(distance < distance_px - 0.5)
