"""The graph of a map's patches: what touches what, what is settled, and how open patches are put together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.mapping.patches import Ints, components, contract

#: Not settled yet, or not on a rim.
OPEN = -1

#: What a block copies of its patches on rims.
STATE = ("code", "pixels", "first", "root", "root_code", "root_pixels")

Bytes = NDArray[np.uint8]


@dataclass
class Graph:
    """Patches and what they touch: those of a block, or those on all rims."""

    code: Bytes
    """(node,), class code."""
    pixels: Ints
    """(node,), size."""
    first: Ints
    """(node,), place of the first pixel in the map."""
    root: Ints
    """(node,), first pixel of the large patch it belongs to; -1 while open."""
    root_code: Bytes
    """(node,), class code of that patch."""
    root_pixels: Ints
    """(node,), size of that patch before the first round."""
    one: Ints
    """(contact,), a node."""
    other: Ints
    """(contact,), a node that it touches; each pair once."""
    border: Ints
    """(contact,), pixel sides that they share."""
    rim: Ints
    """(node,), place in the table of rims; -1 for a patch that touches none."""
    patch: Ints
    """(waiting,), patches of the survey whose class is not final yet."""
    origin: Ints
    """(waiting,), their nodes."""
    final: Bytes
    """(patch of the survey,), its class; 0 while it waits."""

    @property
    def open(self) -> NDArray[np.bool_]:
        """Nodes that belong to no large patch yet, (node,)."""
        return np.asarray(self.root == OPEN)


@dataclass(frozen=True)
class Regions:
    """Connected open nodes, as one patch each."""

    code: Bytes
    """(region,), the commonest class."""
    pixels: Ints
    """(region,), size."""
    first: Ints
    """(region,), place of the first pixel in the map."""


def fresh(code: Bytes, pixels: Ints, first: Ints, contacts: tuple[Ints, Ints, Ints], rim: Ints) -> Graph:
    """A graph in which nothing is settled; ``contacts`` are its ``one``, ``other`` and ``border``."""
    count = len(code)
    return Graph(
        code=code.copy(),
        pixels=pixels.copy(),
        first=first.copy(),
        root=np.full(count, OPEN, dtype=np.int64),
        root_code=np.zeros(count, dtype=np.uint8),
        root_pixels=np.zeros(count, dtype=np.int64),
        one=contacts[0],
        other=contacts[1],
        border=contacts[2],
        rim=rim,
        patch=np.arange(count),
        origin=np.arange(count),
        final=np.zeros(count, dtype=np.uint8),
    )


def settle_large(graph: Graph, unit_px: Ints, *, anyway: bool = False) -> int:
    """Open nodes that are large enough become their own root; returns how many are not, without those on rims.

    Args:
        graph: Changed in place.
        unit_px: The units.
        anyway: Settle the small ones too.
    """
    large = graph.pixels >= unit_px[graph.code]
    here = graph.open & (graph.rim == OPEN)
    now = here & (large | anyway)
    graph.root[now] = graph.first[now]
    graph.root_code[now] = graph.code[now]
    graph.root_pixels[now] = graph.pixels[now]
    return int(np.count_nonzero(here & ~large))


def retire(graph: Graph) -> None:
    """Let go of settled nodes that touch no open one: their patches' class is final, and nobody asks for more."""
    useful = graph.open[graph.one] | graph.open[graph.other]
    graph.one, graph.other, graph.border = graph.one[useful], graph.other[useful], graph.border[useful]
    wanted = graph.open
    wanted[graph.one] = wanted[graph.other] = True
    gone = ~wanted[graph.origin]
    graph.final[graph.patch[gone]] = graph.root_code[graph.origin[gone]]
    place = np.cumsum(wanted) - 1
    graph.patch, graph.origin = graph.patch[~gone], place[graph.origin[~gone]]
    graph.one, graph.other = place[graph.one], place[graph.other]
    for name in (*STATE, "rim"):
        setattr(graph, name, getattr(graph, name)[wanted])


def regions(graph: Graph, upland: NDArray[np.bool_] | None, links: Ints | None = None) -> Ints:
    """Region of each open node, (node,), from 0 without gaps; -1 for settled ones.

    Args:
        graph: The patches.
        upland: The kind of a code; None where kinds do not matter.
        links: (link, 2), nodes that belong together besides.
    """
    together = graph.open[graph.one] & graph.open[graph.other]
    if upland is not None:
        together &= upland[graph.code[graph.one]] == upland[graph.code[graph.other]]
    one, other = graph.one[together], graph.other[together]
    if links is not None:
        one, other = np.concatenate([one, links[:, 0]]), np.concatenate([other, links[:, 1]])
    union = components(len(graph.code), one, other)
    member = np.full(len(graph.code), OPEN, dtype=np.int64)
    member[graph.open] = np.unique(union[graph.open], return_inverse=True)[1]
    return member


def united(region: Ints, rows: Ints) -> Regions:
    """Each region as one patch of its commonest class.

    Args:
        region: (row,), from 0 without gaps.
        rows: (row, 3), as of ``_rows_of``.
    """
    count = int(region.max(initial=-1)) + 1
    keys, inverse = np.unique(region * 256 + rows[:, 0], return_inverse=True)
    per_class = np.zeros(len(keys), dtype=np.int64)
    np.add.at(per_class, inverse, rows[:, 1])
    order = np.lexsort((keys % 256, -per_class, keys // 256))
    _, best = np.unique(keys[order] // 256, return_index=True)
    pixels, first = np.zeros(count, dtype=np.int64), np.full(count, np.iinfo(np.int64).max)
    np.add.at(pixels, region, rows[:, 1])
    np.minimum.at(first, region, rows[:, 2])
    return Regions((keys[order][best] % 256).astype(np.uint8), pixels, first)


def contracted(graph: Graph, member: Ints, regions: Regions) -> tuple[Graph, Ints]:
    """The graph with each region as one open node behind the settled ones, and the new place of every node."""
    settled = np.flatnonzero(~graph.open)
    moved = np.empty(len(graph.code), dtype=np.int64)
    moved[settled] = np.arange(len(settled))
    moved[graph.open] = len(settled) + member[graph.open]
    useful = graph.open[graph.one] | graph.open[graph.other]
    count = len(settled) + len(regions.code)
    one, other, border = contract(moved[graph.one[useful]], moved[graph.other[useful]], graph.border[useful], count)
    open_root = np.full(len(regions.code), OPEN, dtype=np.int64)
    made = Graph(
        code=np.concatenate([graph.code[settled], regions.code]),
        pixels=np.concatenate([graph.pixels[settled], regions.pixels]),
        first=np.concatenate([graph.first[settled], regions.first]),
        root=np.concatenate([graph.root[settled], open_root]),
        root_code=np.concatenate([graph.root_code[settled], np.zeros(len(regions.code), dtype=np.uint8)]),
        root_pixels=np.concatenate([graph.root_pixels[settled], np.zeros(len(regions.code), dtype=np.int64)]),
        one=one,
        other=other,
        border=border,
        rim=np.concatenate([graph.rim[settled], open_root]),
        patch=graph.patch,
        origin=moved[graph.origin],
        final=graph.final,
    )
    return made, moved
