"""Patches as polygons: every outline exactly along the pixels' sides, whole across blocks.

An outline is known by its corners. A corner is seen in the four pixels around it, so each block finds its own, and
nothing is cut at a block's rim. Along every line of the lattice the corners of a patch pair up, one after the other:
that makes the sides, and the sides make rings.

Parts are connected by sides, so that every part is a valid polygon: where two pixels of a part meet in a corner alone,
the rings stay with the gap, and a hole may touch another ring in a point. Patches whose pixels may touch by corners are
several parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wetmap.mapping.patches import Ints

#: Columns of the table of corners.
PART, ROW, COL, WEST, NORTH, LEVEL_OUT = range(6)
CORNER_COLUMNS = 6


@dataclass(frozen=True)
class Outlines:
    """Parts as rings of corners, in the ragged form that shapely takes.

    Rings are closed; the first ring of a part is its outside, counter-clockwise on the ground, the others are holes.
    """

    part: Ints
    """(part,), ascending."""
    corners: Ints
    """(corner, 2), column and row of the lattice of pixel corners."""
    rings: Ints
    """(ring + 1,), where each ring begins in ``corners``."""
    parts: Ints
    """(part + 1,), where each part begins in ``rings``."""


def find_corners(parts: Ints, y0: int, x0: int) -> Ints:
    """Corners at the lattice points between the pixels of a window.

    Args:
        parts: Part of every pixel, (height, width), -1 for none: a block with one more row above and one more column
            on the left, and, at the map's far edges, below and on the right.
        y0: Lattice row of the point between the first two rows.
        x0: Lattice column of the point between the first two columns.

    Returns:
        (corner, 6): part, row, column, whether its level side runs west, whether its upright side runs north, and
        whether the ring leaves by the level side. A ring has its part on the right as seen on the screen.
    """
    quadrants = {
        (True, True): parts[:-1, :-1],
        (False, True): parts[:-1, 1:],
        (True, False): parts[1:, :-1],
        (False, False): parts[1:, 1:],
    }
    tables = []
    for (west, north), own in quadrants.items():
        beside, across = quadrants[not west, north], quadrants[not west, not north]
        under = quadrants[west, not north]
        convex = (own >= 0) & (own != beside) & (own != under) & (own != across)
        concave = (beside >= 0) & (beside == under) & (own != beside)
        # a convex corner leaves by its level side where that lies west of north or east of south
        for where, part, level_out in ((convex, own, west == north), (concave, beside, west != north)):
            rows, cols = np.nonzero(where)
            table = np.empty((len(rows), CORNER_COLUMNS), dtype=np.int64)
            table[:, PART], table[:, ROW], table[:, COL] = part[rows, cols], rows + y0, cols + x0
            table[:, WEST], table[:, NORTH], table[:, LEVEL_OUT] = west, north, level_out
            tables.append(table)
    return np.concatenate(tables)


def trace(corners: Ints) -> Outlines:
    """Rings of whole parts from all their corners.

    Args:
        corners: (corner, 6), as of ``find_corners``, in any order.
    """
    rows = corners[np.lexsort((~corners[:, WEST], corners[:, COL], corners[:, ROW], corners[:, PART]))]
    count = len(rows)
    upright = np.lexsort((~rows[:, NORTH], rows[:, ROW], rows[:, COL], rows[:, PART]))
    by_level = np.arange(count) ^ 1  # in this order the first two belong together, and the next two
    by_upright = np.empty(count, dtype=np.int64)
    by_upright[upright[0::2]], by_upright[upright[1::2]] = upright[1::2], upright[0::2]
    following = np.where(rows[:, LEVEL_OUT] == 1, by_level, by_upright)
    ring, place = _walk(following)
    # back to front: clockwise on the screen becomes counter-clockwise; the first corner stays the first
    order = np.lexsort((-place, place > 0, ring))
    starts = np.flatnonzero(place[order] == 0)
    part = rows[order[starts], PART]
    first_ring = np.flatnonzero(np.concatenate([[True], np.diff(part) != 0])) if len(part) else starts
    lengths = np.diff(np.append(starts, count)) + 1
    ends = np.cumsum(lengths)
    xy = np.empty((int(ends[-1]) if len(ends) else 0, 2), dtype=np.int64)
    closing = np.zeros(len(xy), dtype=np.bool_)
    closing[ends - 1] = True
    xy[~closing] = rows[order][:, [COL, ROW]]
    xy[closing] = rows[order[starts]][:, [COL, ROW]]
    return Outlines(
        part=part[first_ring],
        corners=xy,
        rings=np.concatenate([[0], ends]).astype(np.int64),
        parts=np.append(first_ring, len(part)).astype(np.int64),
    )


def _walk(following: Ints) -> tuple[Ints, NDArray[np.int64]]:
    """Ring of each corner, numbered by its lowest corner, and its place along the ring from there.

    Places are found by doubling: who knows its successor 2^k steps on learns the one 2^(k+1) steps on.
    """
    count = len(following)
    here = np.arange(count)
    links = coo_array((np.ones(count, dtype=np.int8), (here, following)), shape=(count, count))
    _, found = connected_components(links, directed=False)
    start = np.full(int(found.max(initial=-1)) + 1, count)
    np.minimum.at(start, found, here)
    ring = np.asarray(start[found], dtype=np.int64)
    last = following == ring  # the next one is the ring's first
    jump = np.where(last, here, following)
    left = np.where(last, 0, 1)
    while True:
        further = left[jump]
        if not further.any():
            break
        left, jump = left + further, jump[jump]
    return ring, np.bincount(ring, minlength=count)[ring] - 1 - left
