"""From the classes of a map to those of another system: every row, its reason, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from wetmap.classes import MapClass, class_table, distinct_colours
from wetmap.crosswalk import DRY_LAND, OWN_ROW, SAME_NAME, crosswalk_names, packaged, translate
from wetmap.errors import RecipeError

NEW_BRUNSWICK = class_table("new-brunswick")


def legend(*names: str, upland: str | None = None) -> tuple[MapClass, ...]:
    colours = distinct_colours(names)
    return tuple(
        MapClass(code, name, colour, upland=name == upland)
        for code, (name, colour) in enumerate(zip(names, colours, strict=True), start=1)
    )


def becomes(classes, target, own=None):
    return {step.before.name: step.after.name for step in translate(classes, target, own or {}).steps}


def test_packaged_crosswalks_name_each_class_of_both_tables_and_give_reasons():
    assert crosswalk_names() == ("cnwi", "cwcs")
    for name in crosswalk_names():
        walk = packaged(name)
        assert [row.source for row in walk.rows] == [row.name for row in class_table(walk.source)]
        assert {row.target for row in walk.rows} <= {row.name for row in class_table(walk.target)}
        assert all(row.rests_on for row in walk.rows)
        upland = {row.name for row in class_table(walk.source) if row.upland}
        assert {row.target for row in walk.rows if row.source in upland} == {
            row.name for row in class_table(walk.target) if row.upland
        }


@pytest.mark.parametrize("target", ["cwcs", "cnwi"])
def test_what_satellites_do_not_see_is_said(target):
    notes = {row.source: row.note for row in packaged(target).rows}
    for peat in ("bog", "fen", "forested wetland", "shrub wetland"):
        assert "40 cm" in notes[peat]
        assert "not seen" in notes[peat]
    assert "may be a treed bog or fen" in notes["forested wetland"]
    assert "may be a shrubby bog or fen" in notes["shrub wetland"]
    assert "2 m" in notes["water"]


def test_the_inventory_in_the_canadian_system():
    assert becomes(NEW_BRUNSWICK, "cwcs") == {
        "aquatic bed": "shallow water",
        "bog": "bog",
        "fen": "fen",
        "forested wetland": "swamp",
        "freshwater marsh": "marsh",
        "coastal marsh": "marsh",
        "shrub wetland": "swamp",
        "water": "water",
        "upland": "upland",
    }
    assert becomes(NEW_BRUNSWICK, "cnwi")["water"] == "shallow/open water"


def test_codes_go_through_a_table_and_nodata_stays():
    found = translate(NEW_BRUNSWICK, "cwcs", {})
    table = found.table()
    assert table.dtype == np.uint8
    assert table.shape == (256,)
    assert table[:10].tolist() == [0, 5, 1, 2, 3, 4, 4, 3, 6, 7]
    assert not table[10:].any()
    assert [row.code for row in found.classes] == [1, 2, 3, 4, 5, 6, 7]


def test_only_classes_that_can_occur_are_in_the_legend_under_their_own_codes():
    found = translate(legend("FW", "Open Water"), "cwcs", {})
    assert [(row.code, row.name) for row in found.classes] == [(3, "swamp"), (6, "water")]


def test_names_synonyms_dry_land_and_own_rows():
    classes = legend("BO", "shallow water", "hay field", "sedge meadow", upland="hay field")
    found = translate(classes, "cwcs", {"Sedge Meadow": "Fen"})
    assert [(step.after.name, step.rests_on) for step in found.steps][1:] == [
        ("shallow water", SAME_NAME),
        ("upland", DRY_LAND),
        ("fen", OWN_ROW),
    ]
    assert found.steps[0].after.name == "bog"


def test_an_own_row_goes_before_the_packaged_one():
    assert becomes(NEW_BRUNSWICK, "cwcs", {"shrub wetland": "fen"})["shrub wetland"] == "fen"


@pytest.mark.parametrize(
    ("names", "target", "own", "said"),
    [
        (["bog", "heath"], "cwcs", {}, r"no row for 'heath'.*crosswalk_rows.*`heath: bog`.*shallow water"),
        (["bog"], "cwcs", {"bog": "mire"}, r"'mire', which is no class of cwcs.*marsh"),
        (["bog"], "cwcs", {"fen": "fen"}, r"'fen' is no class of the map \('bog'\)"),
        (["bog"], "ramsar", {}, r"no crosswalk to 'ramsar'.*cnwi, cwcs"),
    ],
)
def test_what_is_refused(names, target, own, said):
    with pytest.raises(RecipeError, match=said):
        translate(legend(*names), target, own)
