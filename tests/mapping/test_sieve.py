"""The minimum mapping unit: a worked example, and what holds for every map and every way to cut it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from wetmap.classes import MapClass
from wetmap.geo import Block
from wetmap.mapping.patches import RimTable, number_patches, survey
from wetmap.mapping.postprocess import rule_of
from wetmap.mapping.sieve import Rule, Sieved, graph_of, sieve

BOG, FEN, MARSH, WOOD, FIELD = 1, 2, 3, 4, 5
CLASSES = [
    MapClass(BOG, "bog", "#75130e"),
    MapClass(FEN, "fen", "#f6d127"),
    MapClass(MARSH, "marsh", "#0d3783"),
    MapClass(WOOD, "wood", "#2d7a36", upland=True),
    MapClass(FIELD, "field", "#ede9e4", upland=True),
]


def rule(**units):
    """Units in pixels, by class name; ``every`` for all others."""
    every = units.pop("every", 1)
    base = rule_of(CLASSES, every / 100, {name: value / 100 for name, value in units.items()}, res_m=10)
    assert base.unit_px[BOG] == units.get("bog", every)
    return base


def blocks_of(shape, side):
    for row in range(math.ceil(shape[0] / side)):
        for col in range(math.ceil(shape[1] / side)):
            y0, x0 = row * side, col * side
            yield Block(row, col, y0, x0, min(side, shape[0] - y0), min(side, shape[1] - x0))


def sieved(codes, how: Rule, connectivity=4, side=64) -> tuple[np.ndarray, Sieved]:
    """The whole sieve on an array cut into blocks."""
    blocks = list(blocks_of(codes.shape, side))
    surveys = [survey(codes[block.slices], block, codes.shape[1], connectivity) for block in blocks]
    table = RimTable(connectivity)
    for block, found in zip(blocks, surveys, strict=True):
        table.add(block, found)
    rims = table.close()
    graphs = {key: graph_of(found, rims.of_block[key]) for key, found in enumerate(surveys)}
    told = sieve(graphs, rims, how)
    out = np.zeros_like(codes)
    for key, block in enumerate(blocks):
        classes = np.append(graphs[key].final, 0).astype(np.uint8)
        out[block.slices] = classes[number_patches(codes[block.slices], connectivity)]
    return out, told


def read(text):
    """A map drawn in letters."""
    letters = {".": 0, "b": BOG, "f": FEN, "m": MARSH, "w": WOOD, "d": FIELD}
    return np.array([[letters[letter] for letter in line] for line in text.split()], dtype=np.uint8)


def test_worked_example_by_hand() -> None:
    """The unit is 4 px. From the top: a fen pixel in bog; a marsh pixel with three sides to fen and one to bog; two
    pixels of bog with two sides to fen and four to wood, which still become fen; a field inside fen; an island."""
    before = read("""
        bbbbbfff..
        bfbbbmff.m
        bbbbbfff..
        wwwwwbbw..
        wwwwwwww..
        fffffwww..
        ffdffwww..
        fffffwww..
    """)
    after = read("""
        bbbbbfff..
        bbbbbfff.m
        bbbbbfff..
        wwwwwffw..
        wwwwwwww..
        fffffwww..
        fffffwww..
        fffffwww..
    """)
    out, told = sieved(before, rule(every=4))
    np.testing.assert_array_equal(out, after)
    assert (told.small, told.isolated) == (5, 1)
    for side in (1, 3, 4, 7):
        again, same = sieved(before, rule(every=4), side=side)
        np.testing.assert_array_equal(again, after)
        assert same == told


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("bbbbmff bbbb.ff", "bbbbbff bbbb.ff", "one side each, both large: the larger patch"),
        ("bbmff bb.ff", "bbbff bb.ff", "one side each, equally large: the lower code"),
        ("ffmbb ff.bb", "ffbbb ff.bb", "likewise, wherever it lies"),
    ],
)
def test_ties(before: str, after: str, why: str) -> None:
    assert (sieved(read(before), rule(every=3))[0] == read(after)).all(), why


def test_a_wetland_of_small_patches_stays_a_wetland() -> None:
    """Nothing in it reaches the unit, all of it together does: it becomes its commonest class, not the wood around."""
    before = read("wwwwwww wbbfmmw wbfffbw wmmfbbw wwwwwww")
    out, told = sieved(before, rule(every=6))
    assert set(np.unique(out[1:4, 1:6])) == {BOG}  # bog 6 px, fen 5 px, marsh 4 px
    assert (out == WOOD).sum() == (before == WOOD).sum()
    assert told.isolated == 0


def test_a_wetland_below_the_unit_in_all_joins_what_is_around() -> None:
    out, _ = sieved(read("wwwwwww wwbfwww wwwwwww"), rule(every=6))
    assert (out == WOOD).all()


def test_rounds_reach_what_touches_small_patches_only() -> None:
    assert (sieved(read("bbbbfmfmf"), rule(every=4))[0] == BOG).all()


def test_every_class_has_its_own_unit() -> None:
    before = read("wwwwwww wbwfffw wwwwwww")
    assert (sieved(before, rule(every=3, bog=1))[0] == before).all()
    assert (sieved(before, rule(every=4, bog=1))[0] == read("wwwwwww wbwwwww wwwwwww")).all()


def test_corners_count_with_8_alone() -> None:
    before = read("bww wbw wwb")
    assert (sieved(before, rule(every=3), connectivity=8)[0] == before).all()
    out, _ = sieved(before, rule(every=3), connectivity=4)
    assert (out == WOOD).all()


def test_hectares_become_whole_pixels() -> None:
    """1 ha is 100 pixels of 10 m and 12 of 30 m (11.1, rounded up); 0 keeps every patch."""
    assert rule_of(CLASSES, 1.0, {}, 10.0).unit_px[BOG] == 100
    assert rule_of(CLASSES, 1.0, {}, 30.0).unit_px[BOG] == 12
    assert rule_of(CLASSES, 0.3, {}, 10.0).unit_px[BOG] == 30  # 0.3 is not exact in binary
    own = rule_of(CLASSES, None, {" Fen ": 0.5}, 10.0)
    assert (own.unit_px[BOG], own.unit_px[FEN], own.upland[WOOD]) == (0, 50, True)


class Reference:
    """The rule as it is told, patch by patch, on the whole map at once."""

    def __init__(self, codes, how: Rule, connectivity) -> None:
        found = survey(codes, Block(0, 0, 0, 0, *codes.shape), codes.shape[1], connectivity)
        self.how, self.ids = how, number_patches(codes, connectivity)
        self.code, self.size, self.first = found.code.tolist(), found.sums[:, 0].tolist(), found.first.tolist()
        self.members = [[patch] for patch in range(len(self.code))]
        self.touches: list[dict[int, int]] = [{} for _ in self.code]
        for one, other, sides in zip(found.one.tolist(), found.other.tolist(), found.border.tolist(), strict=True):
            self.touches[one][other] = self.touches[other][one] = sides
        self.root: list[tuple[int, int, int] | None] = [None] * len(self.code)
        self.gone: set[int] = set()
        for node in range(len(self.code)):
            self.settle_if_large(node)

    def settle_if_large(self, node, *, anyway=False) -> None:
        if anyway or self.size[node] >= self.how.unit_px[self.code[node]]:
            self.root[node] = (-self.size[node], self.code[node], self.first[node])

    def open(self):
        return [node for node, root in enumerate(self.root) if root is None and node not in self.gone]

    def near(self, node, *, by_kind):
        kind = self.how.upland
        return [one for one in self.touches[node] if not by_kind or kind[self.code[one]] == kind[self.code[node]]]

    def join(self, *, by_kind) -> None:
        while True:
            chosen = {}
            for node in self.open():
                sides: dict[tuple[int, int, int], int] = {}
                for other in self.near(node, by_kind=by_kind):
                    if (root := self.root[other]) is not None:
                        sides[root] = sides.get(root, 0) + self.touches[node][other]
                if sides:
                    chosen[node] = min(sides, key=lambda root: (-sides[root], root))
            if not chosen:
                return
            for node, root in chosen.items():
                self.root[node] = root

    def unite(self, *, by_kind, last) -> None:
        waiting = set(self.open())
        while waiting:
            region, front = set(), {waiting.pop()}
            while front:
                region |= front
                front = {one for node in front for one in self.near(node, by_kind=by_kind) if one in waiting} - region
            waiting -= region
            per_class: dict[int, int] = {}
            for node in region:
                per_class[self.code[node]] = per_class.get(self.code[node], 0) + self.size[node]
            new = len(self.code)
            self.code.append(min(per_class, key=lambda code: (-per_class[code], code)))
            self.size.append(sum(per_class.values()))
            self.first.append(min(self.first[node] for node in region))
            self.members.append([patch for node in region for patch in self.members[node]])
            self.root.append(None)
            self.touches.append({})
            for node in region:
                for other in self.touches[node].keys() - region:
                    sides = self.touches[other].pop(node)
                    self.touches[new][other] = self.touches[new].get(other, 0) + sides
                    self.touches[other][new] = self.touches[new][other]
            self.gone |= region
            self.settle_if_large(new, anyway=last)

    def result(self):
        for by_kind in (True, False):
            self.join(by_kind=by_kind)
            self.unite(by_kind=by_kind, last=not by_kind)
        classes = np.zeros(self.ids.max() + 2, dtype=np.uint8)
        for members, root in zip(self.members, self.root, strict=True):
            if root is not None:
                classes[members] = root[1]
        return classes[self.ids]


@pytest.mark.parametrize("seed", range(14))
def test_is_the_rule_patch_by_patch(seed: int) -> None:
    draw = np.random.default_rng(seed)
    share = draw.random(6)
    codes = draw.choice(6, draw.integers(15, 40, 2), p=share / share.sum()).astype(np.uint8)
    how, connectivity = rule(every=int(draw.integers(2, 15)), bog=int(draw.integers(1, 5))), int(draw.choice([4, 8]))
    expected = Reference(codes, how, connectivity).result()
    for side in (64, *draw.integers(4, 16, 2).tolist()):
        np.testing.assert_array_equal(sieved(codes, how, connectivity, side)[0], expected, err_msg=f"blocks of {side}")


MAPS = arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 1, 2, 2, 3, 4, 4, 5])
)


@settings(deadline=None, max_examples=25)
@given(
    codes=MAPS, unit=st.integers(1, 20), bog=st.integers(1, 6), connectivity=st.sampled_from([4, 8]), zoom=st.booleans()
)
def test_what_holds_for_every_map(codes, unit, bog, connectivity, zoom) -> None:
    codes = np.kron(codes, np.ones((2, 2), dtype=np.uint8)) if zoom else codes
    how = rule(every=unit, bog=bog)
    out, told = sieved(codes, how, connectivity)
    np.testing.assert_array_equal(out == 0, codes == 0, err_msg="nodata, and with it the area, stays")
    assert set(np.unique(out)) <= set(np.unique(codes)), "no class is invented"
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    patches, isolated = number_patches(out, connectivity), 0
    for patch in range(patches.max() + 1):
        here = patches == patch
        if here.sum() < how.unit_px[out[here][0]]:
            assert not (ndimage.binary_dilation(here, structure) & ~here & (out > 0)).any(), "it has a neighbour"
            isolated += 1
    assert isolated == told.isolated
    again, twice = sieved(out, how, connectivity)
    np.testing.assert_array_equal(again, out, err_msg="twice is once")
    assert twice == Sieved(isolated, isolated)
    large = number_patches(codes, connectivity)
    for patch in np.unique(large[large >= 0]):
        here = large == patch
        if here.sum() >= how.unit_px[codes[here][0]]:
            assert (out[here] == codes[here]).all(), "what is large enough is not touched"
    for side in (2, 3, 5, 16):
        cut, same = sieved(codes, how, connectivity, side)
        np.testing.assert_array_equal(cut, out, err_msg=f"blocks of {side} px")
        assert same == told


@settings(deadline=None, max_examples=10)
@given(codes=MAPS, connectivity=st.sampled_from([4, 8]), side=st.integers(1, 7))
def test_joined_rims_are_the_patches_of_the_whole(codes, connectivity, side) -> None:
    blocks = list(blocks_of(codes.shape, side))
    table = RimTable(connectivity)
    surveys = [survey(codes[block.slices], block, codes.shape[1], connectivity) for block in blocks]
    for block, found in zip(blocks, surveys, strict=True):
        table.add(block, found)
    rims = table.close()
    whole = survey(codes, replace(blocks[0], height=codes.shape[0], width=codes.shape[1]), codes.shape[1], connectivity)
    of = dict(zip(whole.first.tolist(), zip(whole.code.tolist(), whole.sums[:, 0].tolist(), strict=True), strict=True))
    for first, code, pixels in zip(rims.first.tolist(), rims.code.tolist(), rims.sums[:, 0].tolist(), strict=True):
        assert of[first] == (code, pixels)
    assert len(set(rims.first.tolist())) == len(rims.first)
