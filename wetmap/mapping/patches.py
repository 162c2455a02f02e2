"""Patches of a map: connected pixels of one class, found block by block and joined over the blocks' rims.

A block is surveyed on its own. Whatever does not touch its rim is complete; what does is joined, by a union-find over
the rims alone, with what lies on the other side. A patch is named by its first pixel in reading order, which does not
depend on how the map was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from wetmap.geo import Block

Connectivity: TypeAlias = Literal[4, 8]
"""4: pixels of a patch share a side; 8: a side or a corner."""
Ints: TypeAlias = NDArray[np.int64]

#: Not a patch: nodata, or outside.
NONE = -1


@dataclass(frozen=True)
class Survey:
    """The patches of one block, as if there were nothing beyond it. Patches are numbered from 0 in reading order."""

    code: NDArray[np.uint8]
    """(patch,), class code."""
    sums: Ints
    """(patch, k), what was summed over each patch's pixels; the first column counts them."""
    first: Ints
    """(patch,), place of the first pixel in the whole map, row * width + column."""
    sides: tuple[Ints, Ints, Ints, Ints]
    """Patch along the top, bottom, left and right rim; -1 for nodata."""
    one: Ints
    """(contact,), the lower number of two patches that touch."""
    other: Ints
    """(contact,), the higher one."""
    border: Ints
    """(contact,), pixel sides that they share; 0 where they touch by a corner alone."""

    @property
    def rim(self) -> Ints:
        """Patches that touch the block's rim, ascending."""
        ids = np.unique(np.concatenate(self.sides))
        return ids[ids >= 0]


@dataclass(frozen=True)
class Rims:
    """What is known of the patches on rims, joined over the whole map: the table whose size is that of the rims."""

    of_block: list[Ints]
    """By block, in the order they were added: joined patch of each of ``Survey.rim``."""
    code: NDArray[np.uint8]
    """(joined,), class code."""
    sums: Ints
    """(joined, k), summed over all blocks."""
    first: Ints
    """(joined,), place of the first pixel."""
    one: Ints
    """(contact,), the lower number of two joined patches that touch across a rim."""
    other: Ints
    """(contact,), the higher one."""
    border: Ints
    """(contact,), pixel sides that they share across rims."""


def number_patches(codes: NDArray[np.uint8], connectivity: Connectivity) -> Ints:
    """Number the patches of a block in reading order from 0, (height, width); -1 where the code is 0."""
    if not codes.any():
        return np.full(codes.shape, NONE, dtype=np.int64)
    numbered: Any = label(codes, background=0, connectivity=1 if connectivity == 4 else 2)  # type: ignore[no-untyped-call]  # scikit-image has no types
    return np.asarray(numbered, dtype=np.int64) - 1


def survey(
    codes: NDArray[np.uint8],
    block: Block,
    width: int,
    connectivity: Connectivity,
    measures: Sequence[Ints] = (),
) -> Survey:
    """Find the patches of a block and what touches what.

    Args:
        codes: Class codes, (height, width); 0 = nodata.
        block: Where the block lies.
        width: Pixels across the whole map.
        connectivity: What makes a patch.
        measures: Further whole numbers to sum over patches, each (height, width), below 2^53 in all.
    """
    ids = number_patches(codes, connectivity)
    flat = ids.ravel()
    count = int(flat.max(initial=NONE)) + 1
    first = np.zeros(count + 1, dtype=np.int64)
    first[flat[::-1]] = np.arange(flat.size - 1, -1, -1)  # the last value written is the first in reading order
    first = first[:count]
    mapped = flat >= 0
    columns = [np.bincount(flat[mapped], minlength=count)]
    columns += [np.bincount(flat[mapped], one.ravel()[mapped], minlength=count) for one in measures]
    one, other, border = _contacts(ids, connectivity, count)
    return Survey(
        code=codes.ravel()[first],
        sums=np.stack(columns, axis=1).astype(np.int64),
        first=(block.y0 + first // block.width) * width + block.x0 + first % block.width,
        sides=(ids[0], ids[-1], ids[:, 0], ids[:, -1]),
        one=one,
        other=other,
        border=border,
    )


@dataclass
class RimTable:
    """Collects the rims of all blocks, in reading order, and joins them."""

    connectivity: Connectivity
    """What makes a patch."""
    _base: int = 0
    _of_block: list[Ints] = field(default_factory=list)
    _code: list[NDArray[np.uint8]] = field(default_factory=list)
    _sums: list[Ints] = field(default_factory=list)
    _first: list[Ints] = field(default_factory=list)
    _touching: list[Ints] = field(default_factory=list)
    _above: Ints | None = None
    _bottoms: list[Ints] = field(default_factory=list)
    _tops: list[Ints] = field(default_factory=list)
    _right: Ints | None = None

    def add(self, block: Block, found: Survey) -> None:
        """Add the next block in reading order."""
        if block.col == 0:
            self._end_row()
        rim = found.rim
        ids = np.full(len(found.code) + 1, NONE, dtype=np.int64)
        ids[rim] = self._base + np.arange(len(rim))
        self._base += len(rim)
        top, bottom, left, right = (ids[side] for side in found.sides)
        if self._right is not None:
            self._touch(self._right, left)
        self._right = right
        self._tops.append(top)
        self._bottoms.append(bottom)
        self._of_block.append(ids[rim])
        self._code.append(found.code[rim])
        self._sums.append(found.sums[rim])
        self._first.append(found.first[rim])

    def close(self) -> Rims:
        """Join everything that was added."""
        self._end_row()
        code, first = _joined(self._code, np.uint8), _joined(self._first, np.int64)
        sums = np.concatenate(self._sums) if self._sums else np.zeros((0, 1), dtype=np.int64)
        touching = np.concatenate([np.zeros((0, 3), dtype=np.int64), *self._touching])
        one, other, border = touching.T
        same = code[one] == code[other]
        union = components(self._base, one[same], other[same])
        count = int(union.max(initial=-1)) + 1
        code_of, first_of = np.zeros(count, dtype=np.uint8), np.full(count, np.iinfo(np.int64).max)
        code_of[union] = code
        np.minimum.at(first_of, union, first)
        sums_of = np.zeros((count, sums.shape[1]), dtype=np.int64)
        np.add.at(sums_of, union, sums)
        one, other, border = contract(union[one[~same]], union[other[~same]], border[~same], count)
        return Rims([union[ids] for ids in self._of_block], code_of, sums_of, first_of, one, other, border)

    def _end_row(self) -> None:
        if not self._tops:
            return
        if self._above is not None:
            self._touch(self._above, np.concatenate(self._tops))
        self._above = np.concatenate(self._bottoms)
        self._tops, self._bottoms, self._right = [], [], None

    def _touch(self, one: Ints, other: Ints) -> None:
        """Note what touches along a seam: by sides, and by corners where these count."""
        pairs = [np.stack([one, other, np.ones_like(one)], axis=1)]
        if self.connectivity == 8:
            corner = np.zeros(len(one) - 1, dtype=np.int64)
            pairs += [np.stack([one[:-1], other[1:], corner], axis=1), np.stack([one[1:], other[:-1], corner], axis=1)]
        rows = np.concatenate(pairs)
        rows = rows[(rows[:, :2] >= 0).all(axis=1)]
        self._touching.append(np.stack(contract(rows[:, 0], rows[:, 1], rows[:, 2], self._base), axis=1))


def components(count: int, one: Ints, other: Ints) -> Ints:
    """Number of each node's connected component, (count,), from 0 in order of its lowest node."""
    links = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    _, found = connected_components(links, directed=False)
    _, index, inverse = np.unique(found, return_index=True, return_inverse=True)
    order = np.empty(len(index), dtype=np.int64)
    order[np.argsort(index)] = np.arange(len(index))
    return np.asarray(order[inverse], dtype=np.int64)


def contract(one: Ints, other: Ints, border: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    """Contacts with each pair once, the lower number first, borders added up; a node's contact with itself is dropped.

    Args:
        one: Nodes, (contact,), below ``count``.
        other: What they touch, (contact,).
        border: Pixel sides shared, (contact,).
        count: Number of nodes.
    """
    apart = one != other
    low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
    keys, inverse = np.unique(low * np.int64(count) + high, return_inverse=True)
    total = np.bincount(inverse, border[apart], minlength=len(keys)).astype(np.int64)
    return keys // max(count, 1), keys % max(count, 1), total


def _contacts(ids: Ints, connectivity: Connectivity, count: int) -> tuple[Ints, Ints, Ints]:
    pairs = [(ids[:, :-1], ids[:, 1:], 1), (ids[:-1], ids[1:], 1)]
    if connectivity == 8:
        pairs += [(ids[:-1, :-1], ids[1:, 1:], 0), (ids[:-1, 1:], ids[1:, :-1], 0)]
    ones, others, borders = [], [], []
    for one, other, border in pairs:
        touching = (one != other) & (one >= 0) & (other >= 0)
        ones.append(one[touching])
        others.append(other[touching])
        borders.append(np.full(len(ones[-1]), border, dtype=np.int64))
    return contract(np.concatenate(ones), np.concatenate(others), np.concatenate(borders), count)


def _joined(parts: Iterable[NDArray[np.generic]], dtype: type[np.generic]) -> NDArray[np.generic]:
    return np.concatenate([np.zeros(0, dtype=dtype), *parts])
