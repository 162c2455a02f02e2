"""How alike colours look: published values of CIEDE2000, and simulated colour vision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, rgb2lab

from wetmap.classes import OTHER_COLOURS, class_table
from wetmap.colour_vision import LEAST_DIFFERENCE, SIGHTS, alike, ciede2000, seen

COLOUR = st.from_regex(r"#[0-9a-f]{6}", fullmatch=True)

# Sharma, Wu and Dalal (2005), table 1: pairs that separate right from wrong ways round the circle of hues.
PUBLISHED = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, 3.1571, -77.2803), (50.0, 0.0, -82.7485), 2.8615),
    ((50.0, 2.8361, -74.0200), (50.0, 0.0, -82.7485), 3.4412),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0009), 7.1792),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0011), 7.2195),
    ((50.0, -0.0010, 2.4900), (50.0, 0.0009, -2.4900), 4.8045),
    ((50.0, -0.0010, 2.4900), (50.0, 0.0011, -2.4900), 4.7461),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (61.0, -5.0, 29.0), 22.8977),
    ((50.0, 2.5, 0.0), (56.0, -27.0, -3.0), 31.9030),
    ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535),
]


@pytest.mark.parametrize(("one", "other", "published"), PUBLISHED)
def test_ciede2000_gives_the_published_values(one, other, published):
    assert ciede2000(one, other) == pytest.approx(published, abs=5e-5)
    assert ciede2000(other, one) == pytest.approx(published, abs=5e-5)


@settings(deadline=None, max_examples=60)
@given(COLOUR, COLOUR)
def test_normal_sight_agrees_with_another_library(one, other):
    rgb = [np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255 for colour in (one, other)]
    labs = [rgb2lab(value.reshape(1, 1, 3)).reshape(3) for value in rgb]
    mine = [seen(colour, "normal sight") for colour in (one, other)]
    np.testing.assert_allclose(mine, labs, atol=0.05)
    assert ciede2000(*mine) == pytest.approx(float(deltaE_ciede2000(*labs)), abs=0.1)


@pytest.mark.parametrize("sight", [name for name in SIGHTS if name != "normal sight"])
def test_every_kind_of_colour_vision_sees_greys_as_they_are(sight):
    for grey in ("#000000", "#808080", "#ffffff"):
        assert ciede2000(seen(grey, sight), seen(grey, "normal sight")) < 0.01


def test_red_and_green_are_one_colour_to_some_and_blue_and_yellow_are_not():
    red, green = "#b35d0d", "#6f7a10"
    differences = {sight: ciede2000(seen(red, sight), seen(green, sight)) for sight in SIGHTS}
    assert differences["normal sight"] > 30
    assert min(differences["protanopia"], differences["deuteranopia"]) < 10
    assert min(ciede2000(seen("#0d3783", sight), seen("#f6d127", sight)) for sight in SIGHTS) > 50


def test_a_pair_is_named_once_with_the_sight_that_tells_it_apart_least():
    (pair,) = alike(["#b35d0d", "#0d3783", "#7d7200"])
    assert (pair.first, pair.second) == (0, 2)
    assert pair.sight in {"protanopia", "deuteranopia"}
    assert pair.difference < LEAST_DIFFERENCE
    assert pair.difference == pytest.approx(ciede2000(seen("#b35d0d", pair.sight), seen("#7d7200", pair.sight)))


def test_the_same_colour_twice_is_the_most_alike():
    found = alike(["#b35d0d", "#7d7200", "#b35d0d"])
    assert (found[0].first, found[0].second, found[0].difference) == (0, 2, 0.0)
    assert [pair.difference for pair in found] == sorted(pair.difference for pair in found)


@pytest.mark.parametrize("table", ["new-brunswick", "cwcs", "cnwi", "land-cover"])
def test_packaged_palettes_and_the_spare_colours_pass(table):
    assert alike([item.colour for item in class_table(table)]) == []
    assert alike(OTHER_COLOURS) == []
