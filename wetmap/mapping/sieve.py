"""The minimum mapping unit: patches that are too small join a neighbour, exactly, over the whole map.

The rule. A patch is *large enough* when it has at least the unit's pixels of its class. Classes are of two kinds,
wetland and upland. Within each connected region of one kind:

1. In rounds, every small patch that touches a patch which is large enough joins the one it shares the longest border
   with (pixel sides); then the larger; then the lower class code; then the one that begins first in reading order. What
   joined in a round counts as part of that patch in the next. Sizes are those before the first round.
2. A region without any patch that is large enough becomes one patch of its commonest class (of equal ones the lower
   code).

Then both steps once more without regard to kind, for regions that are still too small: step 1 joins them to what
surrounds them, and step 2 unites islands in nodata that hold nothing large enough. Afterwards a patch below the unit
touches no other: it stays, and is counted.

Why kinds come first: a fen whose pools and ridges are all below the unit stays a wetland and is not eaten by the forest
around it.

The rule works on the graph of patches alone. A block holds the graph of its own patches; patches on rims are in a table
of their own, which every block copies from before a round and which collects what the blocks say about them after it.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wetmap.mapping.patch_graph import (
    OPEN,
    STATE,
    Graph,
    contracted,
    fresh,
    regions,
    retire,
    settle_large,
    united,
)
from wetmap.mapping.patches import Ints, Rims, Survey
from wetmap.mapping.sieve_rounds import NEVER, Offers, across_rims, of_rims, run_rounds, schedule, together


@dataclass(frozen=True)
class Rule:
    """What is too small, and what goes with what."""

    unit_px: Ints
    """(256,), pixels from which a patch of a code is large enough."""
    upland: NDArray[np.bool_]
    """(256,), the kind of a code."""


@dataclass(frozen=True)
class Sieved:
    """What came of it."""

    small: int
    """Patches below the unit before."""
    isolated: int
    """Patches below the unit after: they touch no other."""


def graph_of(found: Survey, rim: Ints) -> Graph:
    """The graph of one block.

    Args:
        found: Its survey; the first sum counts pixels.
        rim: Joined patch of each of its patches on the rim.
    """
    on_rim = np.full(len(found.code), OPEN, dtype=np.int64)
    on_rim[found.rim] = rim
    return fresh(found.code, found.sums[:, 0], found.first, (found.one, found.other, found.border), on_rim)


def sieve(blocks: MutableMapping[int, Graph], rims: Rims, rule: Rule) -> Sieved:
    """Settle every patch of the map.

    Args:
        blocks: The graph of every block, by its place in reading order; read and replaced one at a time, so that they
            need not all be in memory.
        rims: The patches on rims.
        rule: The units and kinds.

    Returns:
        Counts. In ``blocks``, ``final`` is then the class of every patch of the survey.
    """
    return _Sieve(blocks, rims, rule).run()


class _Sieve:
    def __init__(self, blocks: MutableMapping[int, Graph], rims: Rims, rule: Rule) -> None:
        self.blocks, self.rule = blocks, rule
        nowhere = np.full(len(rims.code), OPEN, dtype=np.int64)
        self.table = fresh(rims.code, rims.sums[:, 0], rims.first, (rims.one, rims.other, rims.border), nowhere)
        self.rims_of = {key: np.unique(ids) for key, ids in enumerate(rims.of_block)}
        self.live = set(blocks)

    def run(self) -> Sieved:
        small = settle_large(self.table, self.rule.unit_px)
        for key in self.blocks:
            graph = self.blocks[key]
            small += settle_large(graph, self.rule.unit_px)
            self._keep(key, graph)
        self._join(self.rule.upland)
        self._unite(self.rule.upland, self.rule.unit_px)
        self._join(None)
        isolated = self._unite(None, self.rule.unit_px, last=True)
        for key in sorted(self.blocks):
            graph = self._load(key, self.table)
            graph.final[graph.patch] = graph.root_code[graph.origin]
            self.blocks[key] = graph
        return Sieved(small, isolated)

    def _join(self, upland: NDArray[np.bool_] | None) -> None:
        """Step 1. Blocks run all rounds alone, with what is known of when patches on rims join, until that is stable.

        When a patch joins is its distance from the nearest large one, in patches. Each pass brings these rounds nearer
        from above, by at least one more round that is right everywhere and usually by all that do not cross several
        blocks; with the rounds, the offers are right.
        """
        table = self.table
        when = np.where(table.open, NEVER, 0)
        told: dict[int, Offers] = {}
        active = sorted(self.live)
        while True:
            for key in active:
                graph = self._load(key, table)
                offers = run_rounds(graph, upland, of_rims(when, graph))
                told[key] = replace(offers, node=graph.rim[offers.node])
            changed = schedule(table, when, together([across_rims(table, upland, when), *told.values()]))
            if not len(changed):
                break
            active = [key for key in sorted(self.live) if np.isin(self.rims_of[key], changed).any()]
        for key in sorted(self.live):
            graph = self._load(key, table)
            run_rounds(graph, upland, of_rims(when, graph))
            self._keep(key, graph)

    def _unite(self, upland: NDArray[np.bool_] | None, unit_px: Ints, *, last: bool = False) -> int:
        """Step 2: what is still open becomes one patch per region; returns how many of these are too small."""
        nodes = np.flatnonzero(self.table.open)
        owners, contents, links = [nodes], [_rows_of(self.table, nodes)], [np.zeros((0, 2), dtype=np.int64)]
        for key in sorted(self.live):
            graph = self._load(key, self.table)
            member = regions(graph, upland)
            lead, on_rim, inner = _on_rims(graph, member)
            links.append(np.stack([graph.rim[on_rim], lead[member[on_rim]]], axis=1))
            inner = inner[lead[member[inner]] != OPEN]
            owners.append(lead[member[inner]])
            contents.append(_rows_of(graph, inner))
        old = self.table
        member = regions(old, upland, np.concatenate(links))
        self.table, moved = contracted(old, member, united(member[np.concatenate(owners)], np.concatenate(contents)))
        small = settle_large(self.table, unit_px, anyway=last)
        for key in sorted(self.blocks):
            graph, few = _united_block(self._load(key, old), upland, moved, unit_px, last=last)
            small += few
            self._keep(key, graph)
        self.rims_of = {key: np.unique(moved[ids]) for key, ids in self.rims_of.items()}
        return small

    def _keep(self, key: int, graph: Graph) -> None:
        retire(graph)
        self.blocks[key] = graph
        if not graph.open.any():
            self.live.discard(key)

    def _load(self, key: int, table: Graph) -> Graph:
        """A copy of a block's graph, with what became of its patches on rims."""
        kept = self.blocks[key]
        graph = replace(kept, **{name: getattr(kept, name).copy() for name in STATE})
        at = np.flatnonzero(graph.rim != OPEN)
        for name in STATE:
            getattr(graph, name)[at] = getattr(table, name)[graph.rim[at]]
        return graph


def _on_rims(graph: Graph, member: Ints) -> tuple[Ints, Ints, Ints]:
    """Lowest rim patch of each region (-1 for none); open nodes on rims; open nodes on none."""
    on_rim = np.flatnonzero(graph.open & (graph.rim != OPEN))
    inner = np.flatnonzero(graph.open & (graph.rim == OPEN))
    lead = np.full(int(member.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lead, member[on_rim], graph.rim[on_rim])
    return np.where(lead == np.iinfo(np.int64).max, OPEN, lead), on_rim, inner


def _rows_of(graph: Graph, nodes: Ints) -> Ints:
    """(node, 3): code, pixels, first pixel."""
    return np.stack([graph.code[nodes].astype(np.int64), graph.pixels[nodes], graph.first[nodes]], axis=1)


def _united_block(
    graph: Graph, upland: NDArray[np.bool_] | None, moved: Ints, unit_px: Ints, *, last: bool
) -> tuple[Graph, int]:
    """Step 2 within a block, whose patches on rims have moved to new places in the table."""
    member = regions(graph, upland)
    lead, _, _ = _on_rims(graph, member)
    nodes = np.flatnonzero(graph.open)
    made, _ = contracted(graph, member, united(member[nodes], _rows_of(graph, nodes)))
    made.rim[len(made.rim) - len(lead) :] = lead
    on_rim = made.rim != OPEN
    made.rim[on_rim] = moved[made.rim[on_rim]]
    return made, settle_large(made, unit_px, anyway=last)
