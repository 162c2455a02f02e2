"""Training tiles of dense networks: partly labelled, cut so that every sample is in some tile of an epoch.

Samples lie close together, so a tile around each of them would show the same ground many times. Instead the samples
are sorted into the cells of a coarse grid, and one tile is cut for each cell that holds any, around one of its samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetmap.training.data import (
    SYMMETRIES,
    ArraySet,
    Augmentation,
    Batch,
    as_tensors,
    hide_layers,
    layers_to_hide,
    turn,
)

#: Target of a pixel that nobody labelled: outside loss and metrics (PyTorch's own default of ``ignore_index``).
IGNORE = -100
#: What a SeedSequence is for, beside (seed, epoch).
TILE_STREAM = 2
#: Tiles in a batch when nothing is learnt.
PLAIN_BATCH = 32


class TileSet(ArraySet, Protocol):
    """Windows around samples that also say which other samples of the same role lie in them."""

    @property
    def label_window(self) -> NDArray[np.uint8]:
        """(n, w, w) class index, 255 = unlabelled."""

    @property
    def row(self) -> NDArray[np.int32]:
        """(n,) pixel row of the sample on the grid."""

    @property
    def col(self) -> NDArray[np.int32]:
        """(n,) pixel column of the sample on the grid."""


def cells(
    row: NDArray[np.int32], col: NDArray[np.int32], side_px: int, origin: tuple[int, int] = (0, 0)
) -> NDArray[np.int64]:
    """Cell of each sample, (n,), numbered from 0 without gaps; cells are squares of ``side_px`` from ``origin``."""
    down = (row.astype(np.int64) + origin[0]) // side_px
    across = (col.astype(np.int64) + origin[1]) // side_px
    _, number = np.unique(down * (int(across.max(initial=0)) + 1) + across, return_inverse=True)
    return np.asarray(number, dtype=np.int64)


def centres(cell: NDArray[np.int64], turn_of: NDArray[np.float64]) -> NDArray[np.int64]:
    """The sample of each cell whose turn comes first, (cells,), in the order of the cells."""
    order = np.lexsort((turn_of, cell))
    first = np.flatnonzero(np.diff(cell[order], prepend=-1))
    return np.asarray(order[first], dtype=np.int64)


def cell_weights(cell: NDArray[np.int64], label: NDArray[np.integer]) -> NDArray[np.float64]:
    """Chance of each cell's tile to be drawn, (cells,), of sum 1, that brings rare classes as often as common ones.

    A cell stands for the rarest class among its samples; every class that some cell stands for is as likely, and so are
    all cells that stand for the same class. Classes that are rarest nowhere come along with the others.

    Args:
        cell: (n,) cell of each sample, from 0 without gaps.
        label: (n,) class index of each sample.
    """
    counts = np.bincount(label)
    rarest_first = np.lexsort((label, counts[label], cell))
    stands_for = label[rarest_first[np.flatnonzero(np.diff(cell[rarest_first], prepend=-1))]]
    classes, which, cells_of_class = np.unique(stands_for, return_inverse=True, return_counts=True)
    return np.asarray(1 / (len(classes) * cells_of_class[which]), dtype=np.float64)


def draw_balanced(
    cell: NDArray[np.int64], label: NDArray[np.integer], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The middle samples of tiles, (count,), any of a cell drawn by ``cell_weights`` with replacement."""
    by_cell = np.argsort(cell, kind="stable")
    sizes = np.bincount(cell)
    drawn = generator.choice(len(sizes), count, p=cell_weights(cell, label))
    place = (generator.random(count) * sizes[drawn]).astype(np.int64)
    return np.asarray(by_cell[np.cumsum(sizes)[drawn] - sizes[drawn] + place], dtype=np.int64)


class TileBatches:
    """The training tiles of ``epoch``, cut and augmented anew, in batches of about ``batch_size`` labelled pixels.

    Every epoch has the same number of tiles: that of the cells from the grid's origin, but two at least, since batch
    normalisation learns little from one. The cells of an epoch begin elsewhere, so that a sample is not always seen
    with the same neighbours.

    Args:
        arrays: The training windows with what is known around them.
        augmentation: What is changed about them.
        batch_size: Labelled pixels in a batch, about.
        seed: Seed of the run.
        balanced: Whether tiles of rare classes come as often as others, by drawing with replacement.
    """

    def __init__(
        self, arrays: TileSet, augmentation: Augmentation, *, batch_size: int, seed: int, balanced: bool = False
    ) -> None:
        self.epoch = 0
        self._features, self._observed, _ = as_tensors(arrays)
        self._target = targets(arrays.label_window)
        self._present: NDArray[np.bool_] = np.asarray(np.asarray(arrays.observed).any(axis=(2, 3)))
        self._row, self._col = np.asarray(arrays.row), np.asarray(arrays.col)
        self._balance = np.asarray(arrays.label, dtype=np.int64) if balanced else None
        self._augmentation, self._seed = augmentation, seed
        self._band_layer = torch.tensor(augmentation.band_layer, dtype=torch.int64)
        self.side_px = max(self._target.shape[-1] // 2, 1)
        cell = cells(self._row, self._col, self.side_px)
        first = centres(cell, np.zeros(len(cell)))
        self._tiles = max(len(first), 2)
        labelled = float((self._target[torch.from_numpy(first)] != IGNORE).sum()) / max(len(first), 1)
        self._batch_size = max(2, round(batch_size / max(labelled, 1.0)))
        self._starts = [at for at in range(0, self._tiles, self._batch_size) if self._tiles - at > 1]
        self.turns = np.ones(len(cell)) if self._balance is None else cell_weights(cell, self._balance)[cell]
        """(n,) how often each sample comes in an epoch, as a multiple of anything."""

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Batch]:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, self.epoch, TILE_STREAM])))
        low, high = generator.integers(0, self.side_px, 2).tolist()
        cell = cells(self._row, self._col, self.side_px, (low, high))
        if self._balance is None:
            chosen = centres(cell, generator.random(len(cell)))
            chosen = np.resize(generator.permutation(chosen), self._tiles)
        else:
            chosen = draw_balanced(cell, self._balance, self._tiles, generator)
        symmetry = generator.integers(0, SYMMETRIES, self._tiles)
        draw = generator.random((self._tiles, self._present.shape[1]))
        hidden = layers_to_hide(self._present[chosen], draw, self._augmentation.drop_layers)
        for start in self._starts:
            part = slice(start, start + self._batch_size)
            yield self._batch(torch.from_numpy(chosen[part]), torch.from_numpy(hidden[part]), symmetry[part])

    def _batch(self, index: Tensor, hidden: Tensor, symmetry: NDArray[np.int64]) -> Batch:
        features, observed = hide_layers(self._features[index], self._observed[index], hidden, self._band_layer)
        target = self._target[index]
        if self._augmentation.flips:
            chosen = torch.from_numpy(symmetry)
            features, observed = turn(features, chosen), turn(observed, chosen)
            target = turn(target[:, None], chosen)[:, 0]
        return features, observed, target


class PlainTiles:
    """Tiles in which every sample is answered for once, near the middle of its tile.

    The context of an answer is at least a quarter of a tile on each side.
    """

    def __init__(self, arrays: TileSet, *, batch_size: int = PLAIN_BATCH) -> None:
        self._features, self._observed, label = as_tensors(arrays)
        row, col = np.asarray(arrays.row), np.asarray(arrays.col)
        side = self._features.shape[-1]
        cell = cells(row, col, max(side // 4, 1))
        self._centre = centres(cell, np.zeros(len(cell)))
        centre = self._centre[cell]
        self.tile = cell
        """(n,) the tile that answers for each sample."""
        self.down: NDArray[np.int64] = row.astype(np.int64) - row[centre] + side // 2
        """(n,) row of each sample in its tile."""
        self.across: NDArray[np.int64] = col.astype(np.int64) - col[centre] + side // 2
        """(n,) column of each sample in its tile."""
        self._target = torch.full((len(self._centre), side, side), IGNORE, dtype=torch.int64)
        self._target[torch.from_numpy(cell), torch.from_numpy(self.down), torch.from_numpy(self.across)] = label
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._centre) / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._centre), self._batch_size):
            index = torch.from_numpy(self._centre[start : start + self._batch_size])
            yield self._features[index], self._observed[index], self._target[start : start + self._batch_size]


def targets(label_window: NDArray[np.uint8]) -> Tensor:
    """Class index of each labelled pixel and ``IGNORE`` elsewhere, (n, w, w) int64, from 255 = unlabelled."""
    index = torch.from_numpy(np.asarray(label_window, dtype=np.int64))
    return index.masked_fill(index == np.iinfo(np.uint8).max, IGNORE)
