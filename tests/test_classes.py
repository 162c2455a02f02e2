"""Classes of a map: codes, names, colours that people tell apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, rgb2lab

from wetmap.classes import (
    MEASURE_RAMP,
    MapClass,
    class_table,
    distinct_colours,
    name_in_table,
    palette_colour,
    synonyms,
    table_names,
    table_title,
)
from wetmap.errors import UsageError

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def seen(colour, sight):
    """CIELAB of a colour as somebody with this sight sees it."""
    srgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(SIGHT[sight] @ linear, 0, 1)
    back = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(back.reshape(1, 1, 3)).reshape(3)


def nearest(colours, sight):
    return min(
        float(deltaE_ciede2000(seen(one, sight), seen(other, sight)))
        for one, other in itertools.combinations(colours, 2)
    )


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    ("table", "least"), [("new-brunswick", 17.0), ("cwcs", 17.0), ("cnwi", 17.0), ("land-cover", 10.0)]
)
def test_packaged_colours_are_told_apart_in_every_kind_of_colour_vision(table, least, sight):
    assert nearest([item.colour for item in class_table(table)], sight) >= least


@pytest.mark.parametrize("sight", SIGHT)
def test_the_ramp_grows_lighter_in_every_kind_of_colour_vision(sight):
    lightness = [seen(colour, sight)[0] for colour in MEASURE_RAMP]
    assert all(after - before > 8 for before, after in itertools.pairwise(lightness))


def test_the_inventory_has_its_seven_wetlands_and_water_and_upland():
    table = class_table("new-brunswick")
    assert [item.code for item in table] == list(range(1, 10))
    assert {item.name for item in table} == {
        *("aquatic bed", "bog", "fen", "forested wetland", "freshwater marsh", "coastal marsh", "shrub wetland"),
        *("water", "upland"),
    }
    assert [item.name for item in table if item.upland] == ["upland"]


def test_an_unknown_table_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"atlantis.*land-cover, new-brunswick"):
        class_table("atlantis")


@pytest.mark.parametrize("name", ["bog", "Bog", " BOG ", "BO", "peat-bog", "Peat_Bog"])
def test_a_known_name_has_its_colour_however_it_is_written_and_wherever_it_stands(name):
    assert palette_colour(name, 0) == palette_colour(name, 77) == "#75130e"


def test_other_names_have_colours_of_their_own():
    others = [palette_colour("heath", index) for index in range(254)]
    packaged = {item.colour for name in ("new-brunswick", "land-cover") for item in class_table(name)}
    assert len(set(others)) == 254
    assert not packaged & set(others)
    assert others == [palette_colour("tundra", index) for index in range(254)]
    assert min(nearest(others[:7], sight) for sight in SIGHT) > 8


def test_no_name_or_synonym_means_two_colours():
    shared = {}
    for table in table_names():
        also = synonyms(table)
        for item in class_table(table):
            for name in (item.name, *also[item.name]):
                assert shared.setdefault(name.casefold(), item.colour) == item.colour == palette_colour(name, 3), name


def test_the_canadian_system_has_its_five_classes_and_water_and_upland():
    assert [item.name for item in class_table("cwcs")] == [
        *("bog", "fen", "swamp", "marsh", "shallow water"),
        *("water", "upland"),
    ]
    assert [item.name for item in class_table("cnwi")] == [
        *("bog", "fen", "swamp", "marsh", "shallow/open water"),
        "upland",
    ]
    assert table_title("cwcs") == "Canadian Wetland Classification System"


@pytest.mark.parametrize(
    ("table", "name", "found"),
    [
        ("new-brunswick", "FW", "forested wetland"),
        ("new-brunswick", "Peat-Bog ", "bog"),
        ("new-brunswick", "heath", None),
        ("cwcs", "Swamp", "swamp"),
        ("cnwi", "shallow open water", "shallow/open water"),
    ],
)
def test_a_table_knows_its_classes_by_name_and_synonym(table, name, found):
    assert name_in_table(table, name) == found


def test_synonyms_in_one_map_do_not_share_a_colour():
    colours = distinct_colours(["marsh", "freshwater marsh", "aquatic bed", "heath"])
    assert colours[0] == palette_colour("freshwater marsh", 0)
    assert colours[2] == palette_colour("aquatic bed", 0)
    assert min(nearest(colours, sight) for sight in SIGHT) > 8


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["bog", "peat bog", "fen", "heath", "", "é<&>", "water"]), max_size=40))
def test_a_map_never_has_one_colour_twice(names):
    colours = distinct_colours(names)
    assert len(set(colours)) == len(colours) == len(names)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 254),
    st.text(min_size=1).filter(str.strip),
    st.from_regex(r"#[0-9a-f]{6}", fullmatch=True),
    st.booleans(),
)
def test_json_round_trip(code, name, colour, upland):
    item = MapClass(code, name, colour, upland)
    assert MapClass.from_json(item.to_json()) == item


def test_json_without_upland_means_wetland():
    assert MapClass.from_json({"code": 2, "name": "bog", "colour": "#75130e"}) == MapClass(
        2, "bog", "#75130e", upland=False
    )


@pytest.mark.parametrize(
    ("code", "name", "colour", "said"),
    [
        (0, "bog", "#75130e", "code 0"),
        (255, "bog", "#75130e", "code 255"),
        (1.5, "bog", "#75130e", "code 1.5"),
        (True, "bog", "#75130e", "code True"),
        (1, "  ", "#75130e", "no name"),
        (1, "bog", "red", "'red'"),
        (1, "bog", "#75130e\n", "colour"),
        (1, "bog", "#75130", "'#75130'"),
    ],
)
def test_what_a_class_cannot_be(code, name, colour, said):
    with pytest.raises(UsageError, match=said):
        MapClass(code, name, colour)


def test_rgb():
    assert MapClass(1, "bog", "#75130e").rgb == (117, 19, 14)
