"""What a map cannot tell: each sentence stands where its numbers call for it, and nowhere else."""

from __future__ import annotations

import dataclasses

import pytest

from wetmap.report.limits import Calibrated, ClassFacts, MapFacts, limits

GOOD = ClassFacts("fen", 12.0, train=400, test=300, f1=0.9, interval=(0.86, 0.93))
#: A map with nothing to say but what is true of every map.
BEST = MapFacts([GOOD], assessed="sample", outside_ha=0.0, low_confidence_percent=0.0, unit_ha=0.5)
ALWAYS = ["Small things", "The ground itself", "Law"]


def said(facts=BEST, **changes):
    return dict(limits(dataclasses.replace(facts, **changes)))


def of_class(**changes):
    return said(classes=[GOOD, dataclasses.replace(GOOD, name="bog", **changes)])


def test_a_good_map_has_few_limits():
    assert list(said()) == ALWAYS


@pytest.mark.parametrize(
    ("changes", "topic", "words"),
    [
        ({"simulated": True}, "SIMULATED", "a made-up landscape"),
        ({"leak_note": "LEAKS: 98% of ..."}, "LEAKS", "how well the model remembers"),
        ({"assessed": "no"}, "Accuracy and areas", "hectares are counts of pixels"),
        ({"assessed": "agreement"}, "Accuracy and areas", "were not drawn at random"),
        ({"outside_ha": None}, "Ground unlike the samples", "products.applicability"),
        ({"outside_ha": 123.45, "outside_percent": 7.21}, "Ground unlike the samples", "On 123.5 ha (7.2 %)"),
        ({"low_confidence_percent": 3.14}, "Low confidence", "On 3.1 % of the map"),
        ({"low_confidence_percent": 0.01}, "Low confidence", "On < 0.1 % of the map"),
        ({"few_looks": ["summer: 5.0 ha (1 %) of the area have no clear look"]}, "Few clear looks", "Summer: 5.0 ha"),
        ({"unmatched": [("gravel pit", 12)]}, "What the legend lacks", "also name gravel pit (12)"),
        (
            {"seen_only": [("beaver pond", 5), ("pit", 1)]},
            "What the map lacks",
            "beaver pond (5 points) and pit (1 point)",
        ),
        ({"elsewhere": ""}, "Scores from elsewhere", "are not of this map"),
        (
            {"elsewhere": "summer 2019-06-01 to 2019-09-30"},
            "Scores from elsewhere",
            "(summer 2019-06-01 to 2019-09-30)",
        ),
        (
            {"calibration": Calibrated(1.72, 0.102, 0.201)},
            "Calibration",
            "by 0.201 on average, 0.102 without the calibration (temperature 1.72). So they are too timid",
        ),
        ({"calibration": Calibrated(0.5, 0.1, 0.2)}, "Calibration", "So they are too sure"),
        ({"missing_blocks": 2}, "Holes", "2 blocks of the area could not be read or mapped and are missing"),
        ({"steps": True}, "Steps after the model", "has not been scored"),
    ],
)
def test_a_sentence_stands_where_the_numbers_call_for_it(changes, topic, words):
    assert words in said(**changes)[topic]
    assert sorted(said(**changes)) == sorted({*ALWAYS, topic})


@pytest.mark.parametrize(
    ("changes", "topic", "words"),
    [
        ({"f1": 0.49, "interval": (0.4, 0.55)}, "Poor classes", "bog (F1 0.49)"),
        ({"f1": 0.7, "interval": (0.5, 0.81)}, "Unsure scores", "bog (0.50 to 0.81)"),
        ({"interval": None}, "Scores without interval", "places of bog are too few"),
        ({"train": 49}, "Thin classes", "fewer than 50 training samples of bog (49)"),
        ({"test": 49}, "Few held-out pixels", "Scores of bog (49) rest on fewer than 50"),
        ({"area_ha": (3.0, 0.5, 3.6)}, "Unsure areas", "bog (0.50 to 3.60 ha)"),
        ({"mapped_ha": 0.0}, "Classes that are nowhere", "bog is in the legend and nowhere on the map"),
    ],
)
def test_a_class_that_the_map_knows_badly_is_named(changes, topic, words):
    found = of_class(**changes)
    assert words in found[topic]
    assert "fen" not in found[topic]
    assert sorted(found) == sorted({*ALWAYS, topic})


@pytest.mark.parametrize(
    "changes", [{"f1": 0.5}, {"interval": (0.5, 0.8)}, {"train": 50}, {"test": 50}, {"area_ha": (3.0, 1.0, 4.0)}]
)
def test_at_the_threshold_nothing_is_said(changes):
    assert list(of_class(**changes)) == ALWAYS


def test_a_class_of_which_nothing_is_known_is_not_called_thin():
    assert list(of_class(train=None, test=None, f1=None, interval=None)) == ALWAYS


def test_a_model_without_scores_is_not_said_to_be_poor():
    nothing = dataclasses.replace(GOOD, test=None, f1=None, interval=None, train=None)
    found = said(scored=False, classes=[nothing], steps=True)
    assert list(found) == ["Scores", "Small things", "Law"]


def test_the_minimum_mapping_unit_and_the_window_are_said_in_metres_and_hectares():
    assert "Patches below 0.5 ha were merged" in said()["Small things"]
    loose = said(unit_ha=None, window_px=8, pixel_m=20.0)["Small things"]
    assert "A pixel is 20 m by 20 m (0.04 ha)" in loose
    assert "a window of 160 m by 160 m" in loose
    assert "No minimum mapping unit was asked for" in loose
    assert "window" not in said()["Small things"]


def test_the_most_important_comes_first():
    facts = dataclasses.replace(
        BEST,
        classes=[dataclasses.replace(GOOD, f1=0.2, train=3, test=4, interval=(0.0, 0.6), mapped_ha=0.0)],
        simulated=True,
        leak_note="LEAKS: all",
        assessed="no",
        outside_ha=None,
        low_confidence_percent=40.0,
        unmatched=[("pit", 1)],
        missing_blocks=1,
    )
    assert [topic for topic, _ in limits(facts)] == [
        *("SIMULATED", "LEAKS", "Accuracy and areas", "Poor classes", "Unsure scores", "Thin classes"),
        *("Few held-out pixels", "What the legend lacks", "Classes that are nowhere", "Ground unlike the samples"),
        *("Low confidence", "Holes", "Small things", "The ground itself", "Law"),
    ]


def test_long_lists_are_cut_and_counted():
    classes = [dataclasses.replace(GOOD, name=f"class {number}", f1=0.1, interval=(0.1, 0.2)) for number in range(11)]
    poor = said(classes=classes)["Poor classes"]
    assert "class 7 (F1 0.10) and 3 more" in poor
    assert "class 8" not in poor


def test_a_calibration_that_helped_is_no_limit():
    assert list(said(calibration=Calibrated(1.72, 0.2, 0.1))) == ALWAYS


def test_low_confidence_says_when_the_calibration_is_to_blame():
    timid = said(low_confidence_percent=40.4, calibration=Calibrated(1.72, 0.102, 0.201))["Low confidence"]
    assert timid.endswith("Part of that is the calibration, which made probabilities too timid.")
    sure = said(low_confidence_percent=40.4, calibration=Calibrated(0.5, 0.1, 0.2))["Low confidence"]
    assert sure.endswith("It would be more without the calibration, which made probabilities too sure.")
    helped = said(low_confidence_percent=40.4, calibration=Calibrated(1.72, 0.2, 0.1))["Low confidence"]
    assert "calibration" not in helped


def test_scores_that_a_foreign_model_does_not_have_are_not_said_to_be_from_elsewhere():
    assert "Scores from elsewhere" not in said(elsewhere="summer", scored=False)
