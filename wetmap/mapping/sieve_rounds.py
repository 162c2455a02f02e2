"""The rounds of the sieve: who joins whom, and when. The rule is told in `wetmap.mapping.sieve`.

An open patch joins in the round after the first of its neighbours, so the round is its distance from the nearest large
patch, counted in patches, and what it is offered comes from neighbours of the round before alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.mapping.patch_graph import OPEN, Bytes, Graph
from wetmap.mapping.patches import Ints

#: The round of what never joins, or not as far as is known.
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Offers:
    """What settled nodes offer to nodes that they touch: one row per contact."""

    node: Ints
    """(offer,), who is offered to join."""
    root: Ints
    """(offer,), first pixel of the large patch."""
    code: Bytes
    """(offer,), its class code."""
    pixels: Ints
    """(offer,), its size before the first round."""
    border: Ints
    """(offer,), pixel sides of the contact."""
    number: Ints
    """(offer,), the round."""

    def take(self, at: NDArray[Any]) -> Offers:
        """Some of the offers, by mask or place."""
        return Offers(*(getattr(self, row.name)[at] for row in fields(self)))


def of_rims(when: Ints, graph: Graph) -> Ints:
    """The round of each node of a block, as far as it is known: 0 for the settled, that of the table for rims."""
    known = np.where(graph.open, NEVER, 0)
    on_rim = graph.rim != OPEN
    known[on_rim] = when[graph.rim[on_rim]]
    return known


def run_rounds(graph: Graph, upland: NDArray[np.bool_] | None, when: Ints) -> Offers:
    """All rounds within a block.

    Args:
        graph: The block; nodes that join get their root. Those on rims join when ``when`` says, whatever is offered.
        upland: The kind of a code; None where kinds do not matter.
        when: (node,), the round in which a node joins, `NEVER` for what is not known; changed in place.

    Returns:
        What nodes on rims are offered in the first round in which they are offered anything.
    """
    starts, reached, border = _neighbours(graph, upland)
    inner = graph.rim == OPEN
    waiting = np.flatnonzero(~inner & (when > 0) & (when < NEVER))
    waiting = waiting[np.argsort(when[waiting], kind="stable")]
    due = when[waiting]
    asked = np.zeros(len(when), dtype=np.bool_)
    told: list[Offers] = []
    front, number = np.flatnonzero(when == 0), 0
    while True:
        if not len(front):  # nothing more happens before the next patch on a rim joins
            at = int(np.searchsorted(due, number))
            if at == len(due):
                return together(told)
            number = int(due[at])
            front = waiting[due == number]
        number += 1
        found = _reached_from(graph, front, (starts, reached, border), number)
        ours = inner[found.node]
        joined = _best(found.take(ours & (when[found.node] == NEVER)))
        _join_roots(graph, joined)
        when[joined.node] = number
        first = found.take(~ours & (when[found.node] >= number) & ~asked[found.node])
        asked[first.node] = True
        told.append(first)
        front = np.concatenate([joined.node, waiting[due == number]])


def _neighbours(graph: Graph, upland: NDArray[np.bool_] | None) -> tuple[Ints, Ints, Ints]:
    """Contacts by node: where each node's begin, (node + 1,); whom it touches; along how many sides."""
    node, other = np.concatenate([graph.one, graph.other]), np.concatenate([graph.other, graph.one])
    border = np.concatenate([graph.border, graph.border])
    useful = graph.open[other] | (graph.rim[other] != OPEN)
    if upland is not None:
        useful &= upland[graph.code[node]] == upland[graph.code[other]]
    node, other, border = node[useful], other[useful], border[useful]
    order = np.argsort(node, kind="stable")
    starts = np.searchsorted(node[order], np.arange(len(graph.code) + 1))
    return starts, other[order], border[order]


def _reached_from(graph: Graph, front: Ints, contacts: tuple[Ints, Ints, Ints], number: int) -> Offers:
    """What the nodes of a front offer to all that they touch."""
    starts, reached, border = contacts
    count = starts[front + 1] - starts[front]
    source = np.repeat(front, count)
    at = np.arange(len(source)) + np.repeat(starts[front] - (np.cumsum(count) - count), count)
    roots = graph.root[source], graph.root_code[source], graph.root_pixels[source]
    return Offers(reached[at], *roots, border[at], np.full(len(at), number))


def across_rims(table: Graph, upland: NDArray[np.bool_] | None, when: Ints) -> Offers:
    """What patches on rims offer each other across the rims."""
    node, other = np.concatenate([table.one, table.other]), np.concatenate([table.other, table.one])
    border = np.concatenate([table.border, table.border])
    useful = (when[node] > 0) & (when[other] < NEVER)
    if upland is not None:
        useful &= upland[table.code[node]] == upland[table.code[other]]
    node, other = node[useful], other[useful]
    roots = table.root[other], table.root_code[other], table.root_pixels[other]
    return Offers(node, *roots, border[useful], when[other] + 1)


def schedule(table: Graph, when: Ints, offers: Offers) -> Ints:
    """Settle patches on rims by their earliest offers; returns those of which something is new.

    Args:
        table: The patches; changed in place.
        when: (patch,), the round in which each joins; changed in place.
        offers: All that is offered to them now.
    """
    earliest = np.where(when == 0, 0, NEVER)
    np.minimum.at(earliest, offers.node, offers.number)
    best = _best(offers.take((offers.number == earliest[offers.node]) & (when[offers.node] > 0)))
    new = (earliest[best.node] != when[best.node]) | (best.root != table.root[best.node])
    when[:] = earliest
    _join_roots(table, best)
    return np.asarray(best.node[new])


def _join_roots(graph: Graph, chosen: Offers) -> None:
    graph.root[chosen.node], graph.root_code[chosen.node] = chosen.root, chosen.code
    graph.root_pixels[chosen.node] = chosen.pixels


def _best(offers: Offers) -> Offers:
    """The best offer to each node, by the rule; borders with one large patch are added up."""
    rows = offers.take(np.lexsort((offers.root, offers.node)))
    new = np.ones(len(rows.node), dtype=np.bool_)
    new[1:] = (np.diff(rows.node) != 0) | (np.diff(rows.root) != 0)
    starts = np.flatnonzero(new)
    summed = np.add.reduceat(rows.border, starts) if len(starts) else rows.border
    rows = replace(rows.take(starts), border=summed)
    rows = rows.take(np.lexsort((rows.root, rows.code, -rows.pixels, -rows.border, rows.node)))
    return rows.take(np.unique(rows.node, return_index=True)[1])


def together(parts: Sequence[Offers]) -> Offers:
    """Several tables as one."""
    empty = np.zeros(0, dtype=np.int64)
    nothing = Offers(empty, empty, empty.astype(np.uint8), empty, empty, empty)
    every = [nothing, *parts]
    return Offers(*(np.concatenate([getattr(part, row.name) for part in every]) for row in fields(Offers)))
