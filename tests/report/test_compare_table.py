"""The comparison as text: sorted, marked, in line, and safe to open."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.report.compare_table import (
    CompareHead,
    CompareRow,
    compare_csv,
    compare_json,
    compare_lines,
    compare_markdown,
    in_order,
    mark_of,
)

HEAD = CompareHead("Models on the simulated landscape", split="blocks of 1280 m", samples=12_345, groups=42)
FOREST = CompareRow("forest", "pixel", macro_f1=0.7, class_f1={"bog": 0.9, "fen": 0.5}, pixels_per_s=90_000.4)
FORMER = CompareRow(
    "wetmapformer",
    "dense",
    parameters=719_728,
    macs_per_pixel=39_049.25,
    training_s=287.0,
    epochs=40,
    best_epoch=22,
    macro_f1=0.735,
    macro_f1_interval=(0.695, 0.77),
    overall_accuracy=0.835,
    class_f1={"bog": 0.91, "fen": None},
    ece_before=0.1,
    ece_after=0.02,
    pixels_per_s=52_000.0,
    difference=0.035,
    difference_interval=(-0.005, 0.07),
    note="dense head",
)
FAILED = CompareRow("big | model", "dense", note="ran out of memory\nat epoch 3 <b>*")


def cells(line):
    """Cells of a line of a Markdown table, as GitHub parts them."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_best_comes_first_and_what_failed_last():
    same = CompareRow("a", "window", macro_f1=0.7)
    assert [row.model for row in in_order([FAILED, FOREST, same, FORMER])] == [
        "wetmapformer",
        "a",
        "forest",
        "big | model",
    ]


def test_markdown_says_what_is_known():
    text = compare_markdown([FAILED, FOREST, FORMER], HEAD)
    assert text.startswith("# Models on the simulated landscape\n\nSplit: blocks of 1280 m. Test samples: 12,345 in 42")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert cells(table[2]) == [
        "wetmapformer",
        "dense",
        "0.735 [0.695, 0.770]",
        "+0.035 [-0.005, +0.070]",
        "0.835",
        "0.100",
        "0.020",
        "719,728",
        "39 k",
        "52,000",
        "5 min",
        "40 (22)",
        "dense head",
    ]
    assert cells(table[4])[0] == r"big \| model"
    assert cells(table[4])[-1] == r"ran out of memory at epoch 3 &lt;b&gt;\*"
    assert set(cells(table[4])[2:-1]) == {"–"}  # noqa: RUF001
    assert [cells(line) for line in (table[5], *table[7:])] == [
        ["model", "bog", "fen"],
        ["wetmapformer", "0.910", "–"],  # noqa: RUF001
        ["forest", "0.900", "0.500"],
        [r"big \| model", "–", "–"],  # noqa: RUF001
    ]


def test_markdown_is_in_line():
    lines = compare_markdown([FAILED, FOREST, FORMER], HEAD).splitlines()
    table = [line for line in lines if line.startswith("|")]
    for part in (table[:5], table[5:]):
        assert len({len(line) for line in part}) == 1
        assert set(part[1]) <= set("|-: ")


def test_the_terminal_shows_a_narrow_table_and_the_notes_below():
    mark, header, rule, *body = compare_lines([FAILED, FOREST, FORMER], CompareHead("x", simulated=True))
    assert mark == "SIMULATED"
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        "model",
        "macro F1",
        "against forest",
        "accuracy",
        "px / s",
        "training",
    ]
    assert {len(line) for line in body[:3]} == {len(header)} == {len(rule)}
    assert body[0].startswith("| wetmapformer | 0.735 [0.695, 0.770] | +0.035 [-0.005, +0.070] |")
    assert body[3:] == ["wetmapformer: dense head", "big | model: ran out of memory at epoch 3 <b>*"]


def test_marks_are_on_every_form():
    head = CompareHead("x", simulated=True, leaks="paper")
    assert head.mark == "SIMULATED, LEAKS: paper split"
    assert "> **SIMULATED, LEAKS: paper split**" in compare_markdown([FOREST], head)
    assert json.loads(compare_json([FOREST], head))["mark"] == head.mark
    rows = list(csv.DictReader(io.StringIO(compare_csv([FOREST, FORMER], head))))
    assert {row["mark"] for row in rows} == {head.mark}
    assert HEAD.mark is None
    assert "SIMULATED" not in compare_markdown([FOREST], HEAD)
    assert (mark_of(simulated=True), mark_of(simulated=False, leaks="paper")) == ("SIMULATED", "LEAKS: paper split")


def test_csv_has_numbers_in_full_and_bounds_apart():
    rows = list(csv.DictReader(io.StringIO(compare_csv([FOREST, FORMER, FAILED], HEAD))))
    first = rows[0]
    assert (first["model"], first["parameters"], first["macs_per_pixel"]) == ("wetmapformer", "719728", "39049.25")
    assert (first["macro_f1_interval_low"], first["macro_f1_interval_high"]) == ("0.695", "0.77")
    assert (first["difference_interval_low"], first["f1 bog"], first["f1 fen"]) == ("-0.005", "0.91", "")
    assert (rows[1]["macro_f1_interval_low"], rows[1]["pixels_per_s"]) == ("", "90000.4")
    assert rows[2]["note"] == "ran out of memory at epoch 3 <b>*"


@pytest.mark.parametrize("text", ["=1+1", " =1+1", "+1", "-cmd|'/c calc'!A0", "@SUM(A1)", "\t=x"])
def test_no_text_of_the_csv_is_a_formula(text):
    row = CompareRow(text, "window", macro_f1=-0.5, note=text, class_f1={text: 0.5})
    found = list(csv.reader(io.StringIO(compare_csv([row], HEAD))))
    assert not [cell for line in found for cell in line if cell.startswith(("=", "+", "@", "\t", "-c"))]
    assert "-0.5" in found[1]


def test_json_comes_back_as_it_was():
    data = json.loads(compare_json([FOREST, FORMER], HEAD))
    assert [CompareRow.from_json(row) for row in data["rows"]] == [FORMER, FOREST]
    assert list(data["rows"][0]["class_f1"]) == ["bog", "fen"]
    assert data["head"]["groups"] == 42


def test_what_is_no_number_is_empty_everywhere():
    row = CompareRow("odd", "window", macro_f1=math.nan, pixels_per_s=math.inf, class_f1={"bog": math.nan})
    assert in_order([row, FOREST])[0] == FOREST
    assert json.loads(compare_json([row], HEAD))["rows"][0]["macro_f1"] is None
    for text in (compare_csv([row], HEAD), compare_markdown([row], HEAD)):
        assert not re.search(r"\b(nan|inf)\b", text)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5, unique=True))
@settings(deadline=None, max_examples=60)
def test_any_names_keep_the_tables_whole(names):
    rows = [CompareRow(name, "window", class_f1=dict.fromkeys(names, 0.5), note=name) for name in names]
    table = [line for line in compare_markdown(rows, HEAD).split("\n") if line.startswith("|")]
    assert len(table) == 2 * (len(names) + 2)
    assert {len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) for line in table[: len(names) + 2]} == {15}
    assert len(list(csv.reader(io.StringIO(compare_csv(rows, HEAD))))) == len(names) + 1


def test_a_table_of_nothing_is_still_a_table():
    assert compare_markdown([], CompareHead("none")).count("\n|") == 2
    assert len(compare_csv([], HEAD).splitlines()) == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59.6, "60 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h"), (None, "–")],  # noqa: RUF001
)
def test_times_are_short(seconds, words):
    table = compare_markdown([CompareRow("a", "window", training_s=seconds)], HEAD)
    assert cells([line for line in table.splitlines() if line.startswith("|")][2])[10] == words
