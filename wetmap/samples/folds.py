"""Assign groups of samples (blocks, polygons) to folds so that every class is in every fold, as evenly as can be."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import SplitError
from wetmap.recipe import Splits
from wetmap.samples.draw import Samples

#: Blocks per fold that the default block side aims at: enough to give each fold several places of each class.
BLOCKS_PER_FOLD = 8
#: Least default block side, windows. With a buffer of one window on two sides, a block of four keeps most of itself.
WINDOWS_PER_BLOCK = 4
#: Shares of the published protocol: ``test_size`` and ``validation_split`` in the released notebook of WetMapFormer
#: (Jamali et al. 2023, doi:10.1016/j.jag.2023.103333).
PAPER_TEST, PAPER_VALIDATION = 0.3, 0.1


def block_side_px(samples: Samples, spec: Splits, window_px: int, res_m: float, grid_shape: tuple[int, int]) -> int:
    """Side of the blocks, pixels.

    The recipe's ``block_m``, rounded to pixels; else the side at which the rectangle around the samples holds
    ``BLOCKS_PER_FOLD`` blocks per fold, but at least ``WINDOWS_PER_BLOCK`` windows.

    Raises:
        SplitError: The block is smaller than the window.
    """
    if spec.block_m is not None:
        side = max(round(spec.block_m / res_m), 1)
        if side < window_px:
            raise SplitError(
                f"splits.block_m = {spec.block_m:g} is smaller than the model's window of {window_px * res_m:g} m.",
                do=f"Give at least {WINDOWS_PER_BLOCK * window_px * res_m:g}, or leave it out.",
            )
        return side
    height = _span(samples.row, grid_shape[0])
    width = _span(samples.col, grid_shape[1])
    return max(math.isqrt(height * width // (BLOCKS_PER_FOLD * spec.folds)), WINDOWS_PER_BLOCK * window_px)


def block_groups(samples: Samples, block_px: int) -> NDArray[np.int64]:
    """Block of each sample, (sample,), numbered by rows from the grid's origin."""
    row, col = samples.row.astype(np.int64) // block_px, samples.col.astype(np.int64) // block_px
    return row * (int(col.max(initial=0)) + 1) + col


def assign_groups(
    groups: NDArray[np.int32] | NDArray[np.int64],
    label: NDArray[np.uint8],
    folds: int,
    classes: int,
    stream: tuple[int, ...],
) -> NDArray[np.int16]:
    """Assign whole groups to folds.

    Greedy: groups are taken in the order of the largest share they hold of any class, and each goes to the fold that
    holds least of what it brings (the smallest inner product of class shares), ties to the fold with fewest samples,
    remaining ties by lot. Counting shares and not samples makes a rare class weigh as much as a common one.

    Args:
        groups: Group of each sample, (sample,).
        label: Class index of each sample, (sample,).
        folds: Number of folds.
        classes: Number of classes.
        stream: Seed of the lots.

    Returns:
        Fold of each sample, (sample,).
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream)))
    _, group = np.unique(groups, return_inverse=True)
    table = np.zeros((int(group.max(initial=-1)) + 1, classes))
    np.add.at(table, (group, label), 1)
    sizes = table.sum(axis=1)
    share = table / np.maximum(table.sum(axis=0), 1)
    order = np.lexsort((generator.permutation(len(share)), -sizes, -share.max(axis=1, initial=0)))
    held, held_size = np.zeros((folds, classes)), np.zeros(folds)
    chosen = np.zeros(len(share), dtype=np.int16)
    for at in order:
        # Rounding keeps the choice the same where sums differ in the last bit only.
        cost = np.round(held @ share[at], 12)
        fold = int(np.lexsort((generator.permutation(folds), held_size, cost))[0])
        chosen[at] = fold
        held[fold] += share[at]
        held_size[fold] += sizes[at]
    return chosen[group]


def assign_published(label: NDArray[np.uint8], classes: int, seed: int) -> NDArray[np.int16]:
    """Deal single samples at random as the WetMapFormer paper's code does. For comparison only: it leaks.

    Of each class ``PAPER_TEST`` is for testing and ``PAPER_VALIDATION`` of the rest for choosing the epoch. The paper's
    code takes the latter from all classes together; here it is even in each, so that a small class has some.

    Args:
        label: Class index of each sample, (sample,).
        classes: Number of classes.
        seed: Seed.

    Returns:
        (sample,), 0 = test, 1 = validation, 2 = training.
    """
    fold = np.full(len(label), 2, dtype=np.int16)
    for index in range(classes):
        members = np.flatnonzero(label == index)
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index))))
        members = generator.permutation(members)
        test = max(math.floor(PAPER_TEST * len(members) + 0.5), 1)
        validation = max(math.floor(PAPER_VALIDATION * (len(members) - test) + 0.5), 1)
        fold[members[:test]] = 0
        fold[members[test : test + validation]] = 1
    return fold


def _span(values: NDArray[np.int32], size: int) -> int:
    return min(int(values.max() - values.min()) + 1, size) if len(values) else size
