"""Agreement with the simulated truth: over every mapped pixel, those that the legend has no class for included."""

from __future__ import annotations

from collections import Counter

import pytest

from wetmap.classes import MapClass
from wetmap.recipe import ClassSpec
from wetmap.sources.landscape import COVERS
from wetmap.stages.summary import truth_line
from wetmap.stages.truth import shares

CODE = {cover.name: cover.code for cover in COVERS}
CLASSES = (MapClass(1, "peat", "#75130e"), MapClass(2, "upland", "#ffffbe", upland=True))
SPECS = [ClassSpec(name="peat", reference=["bog", "fen"]), ClassSpec(name="upland", upland=True)]


def counted(coastal: int = 0) -> Counter[tuple[int, int]]:
    """Pixels by true cover and mapped class: 80 of 100 right, and some coastal marsh that no class stands for."""
    return Counter(
        {
            (CODE["bog"], 1): 20,
            (CODE["fen"], 1): 10,
            (CODE["fen"], 2): 20,
            (CODE["upland forest"], 2): 45,
            (CODE["upland open"], 2): 5,
            (CODE["coastal marsh"], 1): coastal,
        }
    )


def test_covers_are_compared_in_the_classes_of_the_map() -> None:
    found = shares(+counted(), CLASSES, SPECS)
    assert found is not None
    assert found["pixels"] == 100
    assert found["agreement"] == 0.8
    assert (found["commonest"], found["commonest_agreement"]) == ("peat", 0.5)
    assert found["found"] == {"peat": 0.6, "upland": 1.0}
    assert found["without_class"] == {}
    assert truth_line(found) == (
        "Agreement with the simulated truth: 0.800 of the mapped pixels (guessing the commonest class, peat: 0.500)"
    )


def test_ground_that_the_map_has_no_class_for_counts_as_wrong() -> None:
    found = shares(counted(coastal=100), CLASSES, SPECS)
    assert found is not None
    assert found["pixels"] == 200
    assert found["agreement"] == pytest.approx(0.4)
    assert found["commonest_agreement"] == pytest.approx(0.25)
    assert found["without_class"] == {"coastal marsh": 100}
    assert truth_line(found).endswith("; 0.500 are coastal marsh, for which the map has no class: counted as wrong)")


def test_both_uplands_are_one_thing_to_lack() -> None:
    found = shares(counted(coastal=1), CLASSES[:1], SPECS[:1])
    assert found is not None
    assert found["without_class"] == {"coastal marsh": 1, "upland": 50}


def test_a_map_without_any_true_class_has_no_agreement() -> None:
    assert shares(Counter({(CODE["coastal marsh"], 1): 3}), CLASSES, SPECS) is None
