"""Divide samples into folds in space, so that held-out scores mean something.

A model sees a window around each sample. Two windows of ``w`` pixels share pixels where the samples are closer than
``w`` in rows **and** columns (Chebyshev distance), so samples of different roles are kept at least that far apart:
windows of test samples share no pixel with windows of training samples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from wetmap.classes import MapClass
from wetmap.errors import LeakWarning, SplitError
from wetmap.recipe import Splits
from wetmap.samples.draw import Samples
from wetmap.samples.folds import assign_groups, assign_pixels, block_groups, block_side_px

#: What a sample is used for.
ROLES = ("train", "validation", "test", "dropped")
#: Divisions that are tried before a class missing from a role is given up on.
ATTEMPTS = 12


@dataclass(frozen=True)
class Split:
    """Which sample is used for what."""

    fold: NDArray[np.int16]
    """(sample,), 0 to folds - 1; -1 = dropped because it is too close to a sample of another role."""
    role: NDArray[np.str_]
    """(sample,), one of ``ROLES``."""
    kind: str
    """``blocks``, ``polygons`` or ``random-pixels-leaky``."""
    folds: int
    """Number of folds."""
    test_fold: int
    """The fold for testing."""
    validation_fold: int
    """The fold for choosing the epoch: the one after the test fold."""
    block_px: int | None
    """Side of the blocks, pixels; None for other kinds."""
    buffer_px: int
    """Least Chebyshev distance between samples of different roles, pixels; 0 = none is kept."""
    leakage: float
    """Share of the test windows that share a pixel with a training window, 0-1, measured."""
    counts: dict[str, dict[str, int]]
    """Samples per class name and role."""
    res_m: float
    """Pixel side, metres."""

    @property
    def summary(self) -> dict[str, Any]:
        """Plain data for the manifest and the report."""
        return {
            "kind": self.kind,
            "folds": self.folds,
            "test_fold": self.test_fold,
            "validation_fold": self.validation_fold,
            "block_px": self.block_px,
            "block_m": None if self.block_px is None else self.block_px * self.res_m,
            "buffer_px": self.buffer_px,
            "buffer_m": self.buffer_px * self.res_m,
            "leakage": self.leakage,
            "dropped": int((self.role == "dropped").sum()),
            "counts": self.counts,
        }


def split_samples(
    samples: Samples,
    spec: Splits,
    *,
    window_px: int,
    res_m: float,
    grid_shape: tuple[int, int],
    classes: Sequence[MapClass],
    seed: int,
) -> Split:
    """Divide samples into folds and give each its role.

    Test samples are all kept. Validation samples too close to a test sample are dropped, then training samples too
    close to a test or validation sample: the largest role gives way.

    Args:
        samples: Labelled pixels.
        spec: Kind, number of folds, block side, buffer, and the fold for testing.
        window_px: Side of the model's window, pixels.
        res_m: Pixel side, metres.
        grid_shape: (height, width) of the grid, pixels.
        classes: The class table.
        seed: Seed.

    Returns:
        The split; ``leakage`` is measured, and is 0 for blocks and polygons.

    Raises:
        SplitError: A class is not in every fold, or in no sample of a role.

    Warns:
        LeakWarning: The kind is ``random-pixels-leaky``.
    """
    names = [row.name for row in classes]
    at = np.stack([samples.row, samples.col], axis=1).astype(np.float64)
    block_px, buffer_px = None, max(window_px, math.ceil((spec.buffer_m or 0.0) / res_m - 1e-9))
    groups: NDArray[np.int32] | NDArray[np.int64] | None = None
    if spec.kind == "random-pixels-leaky":
        buffer_px = 0
    elif spec.kind == "blocks":
        block_px = block_side_px(samples, spec, window_px, res_m, grid_shape)
        groups = block_groups(samples, block_px)
    else:
        groups = samples.polygon
    fold = _best_folds(samples, groups, spec, at, buffer_px=buffer_px, classes=len(names), seed=seed)
    _refuse_missing_fold(fold, samples, spec, names, block_m=None if block_px is None else block_px * res_m)
    role = roles_of(fold, at, spec.folds, spec.test_fold, buffer_px)
    _refuse_missing_role(role, samples, spec, names, buffer_m=buffer_px * res_m)
    leakage = window_overlap(at[role == "test"], at[role == "train"], window_px)
    if spec.kind == "random-pixels-leaky":
        warnings.warn(
            f"splits.kind random-pixels-leaky: {leakage:.0%} of the test windows share pixels with training windows, "
            "so the scores say how well the model remembers, not how well it maps. Use blocks or polygons.",
            LeakWarning,
            stacklevel=2,
        )
    return Split(
        fold=np.where(role == "dropped", -1, fold).astype(np.int16),
        role=role,
        kind=spec.kind,
        folds=spec.folds,
        test_fold=spec.test_fold,
        validation_fold=(spec.test_fold + 1) % spec.folds,
        block_px=block_px,
        buffer_px=buffer_px,
        leakage=leakage,
        counts=_counts(role, samples, names),
        res_m=res_m,
    )


def roles_of(
    fold: NDArray[np.int16], at: NDArray[np.float64], folds: int, test_fold: int, buffer_px: int
) -> NDArray[np.str_]:
    """Roles from folds, with the samples dropped that are closer than ``buffer_px`` to a sample of another role.

    Args:
        fold: (sample,), 0 to folds - 1.
        at: (sample, 2), pixel row and column.
        folds: Number of folds.
        test_fold: The fold for testing; the next one is for validation.
        buffer_px: Least Chebyshev distance, pixels; 0 drops nothing.

    Returns:
        (sample,), one of ``ROLES``.
    """
    test, validation = fold == test_fold, fold == (test_fold + 1) % folds
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


def _closer(at: NDArray[np.float64], others: NDArray[np.float64], distance_px: int) -> NDArray[np.bool_]:
    """Which points have one of ``others`` at a Chebyshev distance of less than ``distance_px`` (whole pixels)."""
    if not len(others) or not len(at):
        return np.zeros(len(at), dtype=np.bool_)
    distance, _ = KDTree(others).query(at, p=np.inf, distance_upper_bound=float(distance_px))
    return np.asarray(distance < distance_px - 0.5)


def _best_folds(
    samples: Samples,
    groups: NDArray[np.int32] | NDArray[np.int64] | None,
    spec: Splits,
    at: NDArray[np.float64],
    *,
    buffer_px: int,
    classes: int,
    seed: int,
) -> NDArray[np.int16]:
    """Of a few divisions the one whose thinnest class in any role is least thin, whatever fold is tested.

    The buffer decides: it can leave a class of few places with hardly a training sample although every fold has its
    share. The fold that is tested plays no part, so that testing each fold in turn tests one and the same division.
    """
    if groups is None:
        return assign_pixels(samples.label, spec.folds, classes, seed)
    best, standing = None, (-math.inf, -math.inf)
    for attempt in range(ATTEMPTS):
        fold = assign_groups(groups, samples.label, spec.folds, classes, (seed, attempt))
        roles = [roles_of(fold, at, spec.folds, tested, buffer_px) for tested in range(spec.folds)]
        thin = [_thinnest(role, samples.label, classes) for role in roles]
        found = (-sum(missing for missing, _ in thin), min((least for _, least in thin), default=0.0))
        if found > standing:
            best, standing = fold, found
    if best is None:
        raise SplitError("There are no samples to split.", do="Give reference data.")
    return best


def _thinnest(role: NDArray[np.str_], label: NDArray[np.uint8], classes: int) -> tuple[int, float]:
    """Pairs of a role and a class without a sample; and the least share of a class's samples in any role, 0-1."""
    total = np.bincount(label, minlength=classes)
    shares = np.stack([np.bincount(label[role == wanted], minlength=classes) for wanted in ROLES[:3]]) / np.maximum(
        total, 1
    )
    return int((shares == 0).sum()), float(shares.min(initial=1.0))


def _counts(role: NDArray[np.str_], samples: Samples, names: Sequence[str]) -> dict[str, dict[str, int]]:
    return {
        name: {wanted: int(((role == wanted) & (samples.label == index)).sum()) for wanted in ROLES}
        for index, name in enumerate(names)
    }


def _refuse_missing_fold(
    fold: NDArray[np.int16], samples: Samples, spec: Splits, names: Sequence[str], *, block_m: float | None
) -> None:
    for index, name in enumerate(names):
        counts = np.bincount(fold[samples.label == index], minlength=spec.folds)
        if (counts == 0).any():
            where = f" of {block_m:g} m blocks" if block_m is not None else ""
            smaller = "smaller splits.block_m, " if block_m is not None else ""
            raise SplitError(
                f"Class {name} is not in every one of the {spec.folds} folds{where}: it has {_listed(counts)} samples "
                f"in folds 0 to {spec.folds - 1}.",
                do=f"Use fewer splits.folds, {smaller}more reference in other places, or merge the class with another.",
            )


def _refuse_missing_role(
    role: NDArray[np.str_], samples: Samples, spec: Splits, names: Sequence[str], *, buffer_m: float
) -> None:
    counts = _counts(role, samples, names)
    for name, by_role in counts.items():
        empty = [wanted for wanted in ("train", "validation", "test") if not by_role[wanted]]
        if empty:
            listed = ", ".join(f"{by_role[wanted]} {wanted}" for wanted in ROLES)
            advice = "larger splits.block_m" if spec.kind == "blocks" else "splits.kind blocks"
            raise SplitError(
                f"Class {name} has no {empty[0]} sample with fold {spec.test_fold} held out and {buffer_m:g} m kept "
                f"between folds: {listed}.",
                do=f"Try {advice}, fewer splits.folds, a smaller splits.buffer_m, another splits.test_fold, more "
                "reference in other places, or merge the class with another.",
            )


def _listed(counts: NDArray[np.int64]) -> str:
    return ", ".join(str(int(count)) for count in counts)
