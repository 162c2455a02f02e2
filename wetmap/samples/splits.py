"""Divide samples into training, validation and test so that held-out scores mean something, and say how."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.classes import MapClass
from wetmap.errors import LeakWarning, SplitError
from wetmap.recipe import Splits
from wetmap.samples.deal import Dealer, places
from wetmap.samples.draw import Samples
from wetmap.samples.roles import ROLES, roles_of, window_overlap

__all__ = ["LEAKS", "ROLES", "Split", "describe_split", "leak_note", "split_facts", "split_samples", "with_window"]

#: The word that marks every figure of a split that leaks.
LEAKS = "LEAKS"


@dataclass(frozen=True)
class Split:
    """Which sample is used for what."""

    fold: NDArray[np.int16]
    """(sample,), 0 to folds - 1; -1 = dropped because it is too close to a sample of another role."""
    role: NDArray[np.str_]
    """(sample,), one of ``ROLES``."""
    kind: str
    """``blocks``, ``polygons``, ``sites`` or ``paper``."""
    folds: int
    """Number of folds. Sites are one each; with two sites there are three, the last being blocks of the other site."""
    test_fold: int
    """The fold for testing."""
    validation_fold: int
    """The fold for choosing the epoch: the one after the test fold; with two sites the blocks of the other site."""
    block_px: int | None
    """Side of the blocks, pixels; None where there are none."""
    buffer_px: int
    """Least Chebyshev distance between samples of different roles, pixels; 0 = none is kept."""
    leakage: float
    """Share of the test windows that share a pixel with a training window, 0-1, measured."""
    counts: dict[str, dict[str, int]]
    """Samples per class name and role."""
    res_m: float
    """Pixel side, metres."""
    sites: tuple[str, ...] = ()
    """Names of the sites, by fold; empty for other kinds."""

    @property
    def buffer_m(self) -> float:
        """Least distance between samples of different roles, metres."""
        return self.buffer_px * self.res_m

    @property
    def leaks(self) -> bool:
        """Whether scores on the test samples are too good: single pixels at random, or windows that overlap."""
        return self.kind == "paper" or self.leakage > 0

    @property
    def test_site(self) -> str | None:
        """The site held out for testing."""
        return self.sites[self.test_fold] if self.sites else None

    @property
    def validation_site(self) -> str | None:
        """Where the samples for choosing the epoch come from."""
        if not self.sites:
            return None
        if self.validation_fold < len(self.sites):
            return self.sites[self.validation_fold]
        return f"blocks of {self.sites[1 - self.test_fold]}"

    @property
    def summary(self) -> dict[str, Any]:
        """Plain data for the manifest and the report. ``folds`` and its kin are None where the kind has no folds."""
        has_folds = self.kind != "paper"
        return {
            "kind": self.kind,
            "leaks": self.leaks,
            "folds": self.folds if has_folds else None,
            "test_fold": self.test_fold if has_folds else None,
            "validation_fold": self.validation_fold if has_folds else None,
            "sites": list(self.sites) or None,
            "test_site": self.test_site,
            "validation_site": self.validation_site,
            "block_px": self.block_px,
            "block_m": None if self.block_px is None else self.block_px * self.res_m,
            "buffer_px": self.buffer_px,
            "buffer_m": self.buffer_m,
            "leakage": self.leakage,
            "dropped": int((self.role == "dropped").sum()),
            "counts": self.counts,
        }


def leak_note(summary: Mapping[str, Any]) -> str:
    """What must stand beside every figure of a split that leaks, beginning with ``LEAKS``; empty where nothing leaks.

    Args:
        summary: ``Split.summary``, also as read back from a manifest.
    """
    if not summary.get("leaks"):
        return ""
    return (
        f"{LEAKS}: {summary['leakage']:.0%} of the test windows share pixels with training windows, so the scores say "
        "how well the model remembers, not how well it maps."
    )


def split_facts(summary: Mapping[str, Any]) -> list[str]:
    """How the samples were divided, what distance was kept, and the leakage that was measured: a line each.

    Args:
        summary: ``Split.summary``, also as read back from a manifest.
    """
    held = (
        f"fold {summary['test_fold']} of {summary['folds']} held out, fold {summary['validation_fold']} for validation"
    )
    kind = {
        "blocks": f"Blocks of {summary['block_m'] or 0:g} m: {held}",
        "polygons": f"Whole polygons: {held}",
        "sites": f"Sites: {summary['test_site']} held out, {summary['validation_site']} for validation",
        "paper": "Single pixels dealt at random, as published: 30% test, 7% validation, 63% training",
    }[summary["kind"]]
    apart = f"{summary['buffer_m']:g} m" if summary["buffer_m"] else "none"
    return [
        kind,
        f"Distance kept between samples of different use: {apart}",
        f"Measured leakage: {summary['leakage']:.1%} of the test windows share a pixel with a training window",
    ]


def describe_split(summary: Mapping[str, Any]) -> str:
    """How training and held-out samples were kept apart, in words; a split that leaks begins with its ``leak_note``.

    Args:
        summary: ``Split.summary``, also as read back from a manifest.
    """
    note = leak_note(summary)
    return (f"{note} " if note else "") + ". ".join(split_facts(summary)) + "."


def split_samples(  # noqa: PLR0913 - the samples, how they are split, and the ground they lie on
    samples: Samples,
    spec: Splits,
    *,
    window_px: int,
    res_m: float,
    grid_shape: tuple[int, int],
    classes: Sequence[MapClass],
    seed: int,
    per_class: int | None = None,
) -> Split:
    """Divide samples into folds and give each its role.

    Test samples are all kept. Validation samples too close to a test sample are dropped, then training samples too
    close to a test or validation sample: the largest role gives way.

    Args:
        samples: Labelled pixels; with their sites for the kind ``sites``.
        spec: Kind, number of folds, block side, buffer, and the fold for testing.
        window_px: Side of the model's window, pixels.
        res_m: Pixel side, metres.
        grid_shape: (height, width) of the grid, pixels.
        classes: The class table.
        seed: Seed.
        per_class: Samples that were drawn of a class at most; for advice alone.

    Returns:
        The split; ``leakage`` is measured, and is 0 for blocks, polygons and sites.

    Raises:
        SplitError: A class is not in every fold, or in no sample of a role; or there are not two sites.

    Warns:
        LeakWarning: The kind is ``paper``.
    """
    names = [row.name for row in classes]
    buffer_px = 0
    if spec.kind != "paper":
        buffer_px = max(window_px, math.ceil((spec.buffer_m or 0.0) / res_m - 1e-9))
    dealt = Dealer(spec, len(names), buffer_px, seed, window_px, res_m, grid_shape).deal(samples)
    if spec.kind in {"blocks", "polygons"}:
        side_m = dealt.block_px and dealt.block_px * res_m
        _refuse_missing_fold(dealt.fold, samples, spec, names, side_m, per_class)
    at = places(samples)
    role = roles_of(dealt.fold, at, dealt.test, dealt.validation, buffer_px)
    split = Split(
        fold=np.where(role == "dropped", -1, dealt.fold).astype(np.int16),
        role=role,
        kind=spec.kind,
        folds=dealt.folds,
        test_fold=dealt.test,
        validation_fold=dealt.validation,
        block_px=dealt.block_px,
        buffer_px=buffer_px,
        leakage=window_overlap(at[role == "test"], at[role == "train"], window_px),
        counts=_counts(role, samples, names),
        res_m=res_m,
        sites=samples.site_names if spec.kind == "sites" else (),
    )
    _refuse_missing_role(split)
    if split.leaks:
        warnings.warn(
            f"splits.kind {spec.kind} {leak_note(split.summary)} Use blocks, polygons or sites for scores that mean "
            "something.",
            LeakWarning,
            stacklevel=2,
        )
    return split


def with_window(error: SplitError, window_px: int, owner: str, advice: str) -> SplitError:
    """The same refusal with the window that keeps folds apart and makes blocks large, and what makes it smaller.

    Args:
        error: What was refused.
        window_px: Side of the window, pixels.
        owner: Which model, or models, ask for it.
        advice: A sentence.
    """
    return SplitError(
        f"{error.what} The window is {window_px} px, because of {owner}. Folds are kept at least as far apart, and "
        "blocks are larger still.",
        do=f"{error.do} {advice}",
    )


def _counts(role: NDArray[np.str_], samples: Samples, names: Sequence[str]) -> dict[str, dict[str, int]]:
    return {
        name: {wanted: int(((role == wanted) & (samples.label == index)).sum()) for wanted in ROLES}
        for index, name in enumerate(names)
    }


def _refuse_missing_fold(
    fold: NDArray[np.int16],
    samples: Samples,
    spec: Splits,
    names: Sequence[str],
    block_m: float | None,
    per_class: int | None,
) -> None:
    for index, name in enumerate(names):
        counts = np.bincount(fold[samples.label == index], minlength=spec.folds)
        if (counts == 0).any():
            where = f" of {block_m:g} m blocks" if block_m is not None else ""
            smaller = "smaller splits.block_m, " if block_m is not None else ""
            capped = per_class is not None and counts.sum() >= per_class
            more = f"more than {per_class:,} samples.per_class, " if capped else ""
            raise SplitError(
                f"Class {name} is not in every one of the {spec.folds} folds{where}: it has {_listed(counts)} samples "
                f"in folds 0 to {spec.folds - 1}.",
                do=f"Use {more}fewer splits.folds, {smaller}more reference in other places, or merge the class with "
                "another.",
            )


def _refuse_missing_role(split: Split) -> None:
    for name, by_role in split.counts.items():
        empty = [wanted for wanted in ("train", "validation", "test") if not by_role[wanted]]
        if empty:
            listed = ", ".join(f"{by_role[wanted]} {wanted}" for wanted in ROLES)
            held, advice = _held_out(split)
            raise SplitError(
                f"Class {name} has no {empty[0]} sample{held}: {listed}.",
                do=f"Try {advice}, or merge the class with another.",
            )


def _held_out(split: Split) -> tuple[str, str]:
    """What was held out how, and what else could be tried."""
    apart = f" and {split.buffer_m:g} m kept between folds"
    if split.kind == "paper":
        return " with single pixels dealt at random", "more reference for it"
    if split.kind == "sites":
        return (
            f" with site {split.test_site} held out, the epoch chosen on {split.validation_site}{apart}",
            "more reference for it in that site, another splits.test_fold, splits.kind blocks",
        )
    larger = "larger splits.block_m" if split.kind == "blocks" else "splits.kind blocks"
    return (
        f" with fold {split.test_fold} held out{apart}",
        f"{larger}, fewer splits.folds, a smaller splits.buffer_m, another splits.test_fold, more reference in other "
        "places",
    )


def _listed(counts: NDArray[np.int64]) -> str:
    return ", ".join(str(int(count)) for count in counts)
