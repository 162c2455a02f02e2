from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.budget import parse_budget
from wetmap.errors import UsageError
from wetmap.models.points import Point
from wetmap.recipe import Predict
from wetmap.stages import operating_point
from wetmap.stages.operating_point import Row, choose, table, tiles_touched
from wetmap.workspace import StageFolder

PIXELS = 120_000
#: Fast and poor, middling, slow and good; and one that is slower than the good one and worse.
ROWS = [
    Row(Point(tokens, keep), f1, rate, PIXELS / rate)
    for tokens, keep, f1, rate in (
        (4, 0.5, 0.40, 8000.0),
        (6, 0.7, 0.55, 2000.0),
        (8, 0.7, 0.60, 1000.0),
        (8, 1.0, 0.58, 500.0),
    )
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h", (8, 0.7)),
        ("240s", (8, 0.7)),
        ("2m", (8, 0.7)),
        ("119s", (6, 0.7)),
        ("1m", (6, 0.7)),
        ("15s", (4, 0.5)),
        ("1k-px-per-s", (8, 0.7)),
        ("1.1k-px-per-s", (6, 0.7)),
        ("8k-px-per-s", (4, 0.5)),
    ],
)
def test_the_most_accurate_that_keeps_to_the_budget(text, expected):
    best = choose(ROWS, parse_budget(text), text, PIXELS)
    assert (best.point.tokens, best.point.keep) == expected


def test_of_equally_accurate_ones_the_fastest_and_unknown_is_worst():
    rows = [Row(Point(4, k), f1, rate, 1.0) for k, f1, rate in ((0.5, None, 9.0), (0.7, 0.2, 3.0), (1.0, 0.2, 2.0))]
    assert choose(rows, parse_budget("1h"), "1h", 1).point.keep == 0.7
    assert choose(rows[:1], parse_budget("1h"), "1h", 1).point.keep == 0.5


@pytest.mark.parametrize("text", ["14s", "9k-px-per-s"])
def test_none_fits_names_the_fastest(text):
    with pytest.raises(
        UsageError, match=r"4 tokens a side, keep 0\.5, maps 8,000 pixels .* 15\.0 s for 120,000"
    ) as caught:
        choose(ROWS, parse_budget(text), text, PIXELS)
    assert text in caught.value.what


def test_the_table_marks_what_was_chosen():
    lines = table(ROWS, ROWS[1], "supervit-micro with 2 workers, 120,000 pixels")
    assert len(lines) == 2 + len(ROWS)
    assert [line for line in lines if "chosen" in line] == [lines[3]]
    assert lines[3].split()[:6] == ["6", "0.7", "0.550", "2,000", "1.0", "min"]


@settings(deadline=None, max_examples=50)
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(1, 16), seed=st.integers(0, 99))
def test_tiles_that_hold_a_pixel_of_the_area(height, width, tile, seed):
    inside = np.random.default_rng(seed).random((height, width)) > 0.9
    rows, cols = np.nonzero(inside)
    assert tiles_touched(inside, tile) == len({(r // tile, c // tile) for r, c in zip(rows, cols, strict=True)})


def test_what_identifies_the_choice():
    assert operating_point.asked(Predict()) == {}
    hour, minutes = (operating_point.asked(Predict(budget=text)) for text in ("1h", "60m"))
    assert hour == minutes == {"operating_point": {"budget": {"seconds": 3600.0}}}
    assert operating_point.asked(Predict(tokens=6)) == {"operating_point": {"tokens": 6, "keep": None}}
    assert operating_point.asked(Predict(keep=0.5)) != operating_point.asked(Predict(keep=0.7))


def test_a_model_without_points_or_without_this_one_is_refused():
    operating_point.check_model("wetmapformer-window", Predict())
    operating_point.check_model("supervit-small-dense", Predict(tokens=12, keep=0.6))
    for part in (Predict(tokens=6), Predict(keep=0.5), Predict(budget="1h")):
        with pytest.raises(UsageError, match=r"wetmapformer-window has no operating points.*supervit-micro"):
            operating_point.check_model("wetmapformer-window", part)
    with pytest.raises(UsageError, match=r"12 tokens a side\. Choose one of 4, 6, 8"):
        operating_point.check_model("supervit-micro", Predict(tokens=12))


def test_of_two_that_choose_at_once_the_first_holds(tmp_path: Path):
    folder = StageFolder("predict", "key", tmp_path / "predict")
    part = Predict(budget="1h")
    assert operating_point._keep(folder, Point(8, 0.7), part, ROWS) == Point(8, 0.7)
    assert operating_point._keep(folder, Point(4, 0.5), part, ROWS) == Point(8, 0.7)
    assert [path.name for path in folder.path.iterdir()] == [operating_point.FILE]
