"""Deal samples to folds: groups in space, sites, or, as the paper did, single samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import SplitError
from wetmap.recipe import Splits
from wetmap.samples.draw import Samples
from wetmap.samples.folds import assign_groups, assign_published, block_groups, block_side_px
from wetmap.samples.roles import roles_of, thinnest

#: Divisions that are tried before a class missing from a role is given up on.
ATTEMPTS = 12
#: Sites that are too few for one to test, one to choose the epoch and one to train.
TWO_SITES = 2
#: Fold of the blocks of the other site that choose the epoch, where there are two sites.
BLOCKS_FOLD = 2

_Judge = Callable[[NDArray[np.int16]], tuple[float, float]]


@dataclass(frozen=True)
class Dealt:
    """Samples in folds, before any is dropped."""

    fold: NDArray[np.int16]
    """(sample,), 0 to ``folds`` - 1."""
    folds: int
    """Number of folds."""
    test: int
    """The fold for testing."""
    validation: int
    """The fold for choosing the epoch."""
    block_px: int | None = None
    """Side of the blocks, pixels; None where there are none."""


@dataclass(frozen=True)
class Dealer:
    """What all ways of dealing need to know."""

    spec: Splits
    """Kind, number of folds, the fold for testing."""
    classes: int
    """Number of classes."""
    buffer_px: int
    """Least Chebyshev distance between samples of different roles, pixels."""
    seed: int
    """Seed."""
    window_px: int
    """Side of the model's window, pixels."""
    res_m: float
    """Pixel side, metres."""
    grid_shape: tuple[int, int]
    """(height, width) of the grid, pixels."""

    def deal(self, samples: Samples) -> Dealt:
        """Deal the samples as the kind asks.

        Raises:
            SplitError: Sites are asked for and there are not two, or none of the number of the test fold.
        """
        if self.spec.kind == "paper":
            return Dealt(assign_published(samples.label, self.classes, self.seed), folds=3, test=0, validation=1)
        if self.spec.kind == "sites":
            return self._sites(samples)
        block_px, groups = None, samples.polygon.astype(np.int64)
        if self.spec.kind == "blocks":
            block_px = self._block_px(samples)
            groups = block_groups(samples, block_px)
        folds, test = self.spec.folds, self.spec.test_fold
        return Dealt(self.best_folds(samples, groups), folds, test, (test + 1) % folds, block_px)

    def best_folds(self, samples: Samples, groups: NDArray[np.int64]) -> NDArray[np.int16]:
        """Of a few divisions the one whose thinnest class in any role is least thin, whatever fold is tested.

        The buffer decides: it can leave a class of few places with hardly a training sample although every fold has
        its share. The fold that is tested plays no part, so that testing each fold in turn tests one and the same
        division.
        """
        at, folds = places(samples), self.spec.folds

        def judge(fold: NDArray[np.int16]) -> tuple[float, float]:
            roles = [roles_of(fold, at, test, (test + 1) % folds, self.buffer_px) for test in range(folds)]
            thin = [thinnest(role, samples.label, self.classes) for role in roles]
            return -sum(missing for missing, _ in thin), min((least for _, least in thin), default=0.0)

        return _best(self._attempts(groups, samples.label), judge)

    def _sites(self, samples: Samples) -> Dealt:
        """One site for testing, the next for choosing the epoch; of two sites, blocks of the other one."""
        names, test = samples.site_names, self.spec.test_fold
        site = samples.site
        if site is None or len(names) < TWO_SITES:
            found = f"its samples lie in one site, {names[0]}" if names else "the reference names none"
            raise SplitError(
                f"splits.kind sites holds one site out, and {found}.",
                do="Name the field that tells sites apart as reference.site_field, or use splits.kind blocks.",
            )
        if test >= len(names):
            listed = ", ".join(f"{number} = {name}" for number, name in enumerate(names))
            raise SplitError(
                f"splits.test_fold is {test}, and there are {len(names)} sites with samples: {listed}.",
                do="Choose one of these numbers.",
            )
        if len(names) > TWO_SITES:
            return Dealt(site, len(names), test, (test + 1) % len(names))
        other = np.flatnonzero(site != test)
        kept = Samples(samples.row[other], samples.col[other], samples.label[other], samples.polygon[other])
        block_px = self._block_px(kept)
        at = places(samples)

        def candidates() -> Iterator[NDArray[np.int16]]:
            for part in self._attempts(block_groups(kept, block_px), kept.label):
                fold = site.copy()
                fold[other[part == 0]] = BLOCKS_FOLD
                yield fold

        def judge(fold: NDArray[np.int16]) -> tuple[float, float]:
            role = roles_of(fold, at, test, BLOCKS_FOLD, self.buffer_px)
            missing, least = thinnest(role, samples.label, self.classes)
            return -missing, least

        return Dealt(_best(candidates(), judge), BLOCKS_FOLD + 1, test, BLOCKS_FOLD, block_px)

    def _attempts(self, groups: NDArray[np.int64], label: NDArray[np.uint8]) -> Iterator[NDArray[np.int16]]:
        for attempt in range(ATTEMPTS):
            yield assign_groups(groups, label, self.spec.folds, self.classes, (self.seed, attempt))

    def _block_px(self, samples: Samples) -> int:
        return block_side_px(samples, self.spec, self.window_px, self.res_m, self.grid_shape)


def places(samples: Samples) -> NDArray[np.float64]:
    """Pixel row and column of the samples, (sample, 2)."""
    return np.stack([samples.row, samples.col], axis=1).astype(np.float64)


def _best(candidates: Iterator[NDArray[np.int16]], judge: _Judge) -> NDArray[np.int16]:
    """The first of the candidates that none is judged above."""
    best, standing = None, (-math.inf, -math.inf)
    for fold in candidates:
        found = judge(fold)
        if found > standing:
            best, standing = fold, found
    if best is None:
        raise SplitError("There are no samples to split.", do="Give reference data.")
    return best
