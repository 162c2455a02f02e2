"""Charts: reproducible bytes, marks that stay, names that cannot break them, and numbers at the right places."""

from __future__ import annotations

import functools
import io
import re
import subprocess
import sys
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wetmap.errors import UsageError
from wetmap.report.chart import MARK_COLOUR, plain, wrapped
from wetmap.report.charts import class_f1_chart, confusion_chart, learning_chart, reliability_chart
from wetmap.report.compare_table import CompareRow
from wetmap.report.speed_chart import accuracy_against_speed, place_labels

NAMES = ["Aquatic bed", "Forested wetland, deciduous and mixed", "Water"]
#: Names that would break a chart that read them as more than text.
NASTY = ["cost in $ and $x_1^", "<b>&amp;</b> -- \x00\x1b\ud800", "\n \t"]


@dataclass(frozen=True)
class Estimate:
    value: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ClassRow:
    name: str
    n: int
    f1: Estimate


@dataclass(frozen=True)
class Bin:
    n: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    ece: float
    bins: tuple[Bin, ...]


SURE = Reliability(0.2, (Bin(0, None, None), Bin(40, 0.6, 0.4), Bin(60, 0.95, 0.75)))
HISTORY = [
    {"epoch": epoch, "loss": 2 / (1 + epoch), "validation_loss": 2.1 / (1 + epoch), "learning_rate": 1e-3}
    | {"validation_macro_f1": None if epoch == 0 else 0.1 * epoch, "validation_accuracy": 0.5}
    for epoch in range(6)
]


def rows_of(names=NAMES):
    estimates = [Estimate(0.8, (0.7, 0.9)), Estimate(0.5), Estimate(None)]
    return [ClassRow(name, 10 * at, estimate) for at, (name, estimate) in enumerate(zip(names, estimates, strict=True))]


def models_of(names=("forest", "wetmapformer", "vvt")):
    kinds = ("pixel", "dense", "window")
    return [
        CompareRow(
            name, kinds[at % 3], macro_f1=0.6 + at / 50, macro_f1_interval=(0.5, 0.7), pixels_per_s=10.0 ** (at + 1)
        )
        for at, name in enumerate(names)
    ]


def draw(kind, names=NAMES, **options):
    if kind == "confusion":
        return confusion_chart([[5, 1, 0], [0, 0, 0], [2, 0, 12_345]], names, **options)
    if kind == "learning":
        return learning_chart(HISTORY, best_epoch=4, **options)
    if kind == "reliability":
        return reliability_chart(SURE, Reliability(0.01, SURE.bins), temperature=1.5, **options)
    if kind == "class_f1":
        return class_f1_chart({"forest": rows_of(names), "wetmapformer": rows_of(names)}, **options)
    return accuracy_against_speed(models_of(names), **options)


KINDS = ("confusion", "learning", "reliability", "class_f1", "speed")


@functools.cache
def drawn(kind):
    """The chart of a kind, without a mark, drawn once."""
    return draw(kind)


def said(chart):
    """Lines of text of a drawing; matplotlib leaves them as comments beside their outlines."""
    return re.findall(r"<!-- (.*?) -->", chart.svg.decode(), re.DOTALL)


def marked_pixels(chart):
    """Pixels of the mark's ground."""
    image = np.asarray(Image.open(io.BytesIO(chart.png)).convert("RGB"))
    wanted = [int(MARK_COLOUR[at : at + 2], 16) for at in (1, 3, 5)]
    return int((image == wanted).all(axis=-1).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_give_the_same_bytes_and_a_mark_is_printed(kind):
    chart = draw(kind, mark="LEAKS: paper split")
    assert draw(kind) == drawn(kind)
    assert "LEAKS: paper split" in said(chart)
    assert chart.alt.startswith("LEAKS: paper split. ")
    assert marked_pixels(chart) > 2000
    without = drawn(kind)
    assert marked_pixels(without) == 0
    assert "LEAKS" not in without.alt
    for one in (chart, without):
        width, height = Image.open(io.BytesIO(one.png)).size
        assert 500 < width < 2000
        assert 400 < height < 2000
        assert len(one.png) < 300_000
        ET.fromstring(one.svg)  # noqa: S314 - our own drawing
        assert not re.search(rb"matplotlib|\d{4}-\d\d-\d\d", one.svg.split(b"</metadata>")[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_is_only_a_name(kind):
    chart = draw(kind, NASTY, title="a $b$ <i> \x07 title", mark="$x$ <>")
    ET.fromstring(chart.svg)  # noqa: S314 - our own drawing
    assert b"\x00" not in chart.svg
    assert "a $b$ &lt;i&gt; title" in said(chart)


@pytest.mark.parametrize("kind", KINDS)
def test_a_persons_own_settings_change_nothing_and_stay(kind):
    plain_chart = drawn(kind)
    with mpl.rc_context({"font.size": 22, "savefig.dpi": 30, "axes.grid": True, "savefig.transparent": True}):
        assert draw(kind) == plain_chart
        assert mpl.rcParams["font.size"] == 22
    assert mpl.rcParams["text.parse_math"]


def test_scripts_that_the_font_lacks_are_drawn_without_a_warning():
    assert draw("confusion", ["湿地", "болото", "مستنقع"]).png


def test_counts_of_the_confusion_are_printed_with_n():
    chart = drawn("confusion")
    texts = said(chart)
    assert {"12,345", "5", "Aquatic bed", "n = 6", "Forested wetland,", "deciduous and mixed", "n = 0"} <= set(texts)
    assert chart.alt == "Confusion matrix of 3 classes: 12,350 of 12,353 samples on the diagonal."


def test_a_large_confusion_has_shades_only():
    chart = confusion_chart(7777 * np.eye(25, dtype=int), [*"abcdefghijklmnopqrstuvwxy"])
    assert "7,777" not in said(chart)


def test_shade_is_the_share_of_the_row():
    """A class of 10 samples is as dark as one of 10,000 where both are all right."""
    image = np.asarray(Image.open(io.BytesIO(confusion_chart([[10, 0], [0, 10_000]], ["a", "b"]).png)).convert("RGB"))
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    dark = colours[counts > 20_000]
    assert (8, 48, 107) in [tuple(colour) for colour in dark.tolist()]  # the end of the ramp, of both cells
    assert counts[(colours == (8, 48, 107)).all(axis=1)][0] > 2 * 100 * 150


def test_a_confusion_must_fit_its_names():
    with pytest.raises(UsageError, match=r"\(2, 2\) is not of 3 classes"):
        confusion_chart([[1, 2], [3, 4]], NAMES)


def test_resumed_histories_draw_like_whole_ones():
    stale = {**HISTORY[2], "loss": 99.0}
    assert learning_chart([HISTORY[0], HISTORY[1], stale, *HISTORY[2:]], best_epoch=4) == drawn("learning")
    assert "kept: epoch 5, validation macro F1 0.400" in said(drawn("learning"))
    assert "kept: epoch 1" in said(learning_chart(HISTORY[:1], best_epoch=0))
    with pytest.raises(UsageError, match="no history"):
        learning_chart([])


def test_reliability_says_both_errors():
    texts = said(drawn("reliability"))
    assert {"before calibration", "expected calibration error 0.200"} <= set(texts)
    assert {"after, temperature 1.50", "expected calibration error 0.010"} <= set(texts)
    assert "after" not in reliability_chart(SURE).alt


def test_f1_of_classes_has_n_and_refuses_what_cannot_be_told_apart():
    assert {"Water", "n = 20", "wetmapformer"} <= set(said(drawn("class_f1")))
    for models in ({}, {str(at): rows_of() for at in range(8)}, {"a": rows_of(), "b": rows_of(["x", "y", "z"])}):
        with pytest.raises(UsageError, match="cannot be drawn side by side"):
            class_f1_chart(models)


def test_speed_names_every_model_and_those_left_out():
    odd = CompareRow("oddity", "polygon", macro_f1=0.4, pixels_per_s=5)
    chart = accuracy_against_speed([*models_of(), odd, CompareRow("failed", "dense", note="no memory")])
    assert {"forest", "wetmapformer", "vvt", "oddity", "polygon"} <= set(said(chart))
    assert any("not shown, for want of a speed or a score: failed" in text for text in said(chart))
    assert chart.alt == "Macro F1 against speed of 4 models; best: vvt, fastest: vvt."
    with pytest.raises(UsageError, match="No model has both"):
        accuracy_against_speed([CompareRow("failed", "dense", macro_f1=0.5)])


def overlaps(one, other):
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])


@given(st.lists(st.tuples(st.floats(100, 900), st.floats(50, 450)), min_size=1, max_size=16))
@settings(deadline=None, max_examples=30)
def test_labels_stay_inside_and_apart(points):
    sizes = [(90.0, 12.0)] * len(points)
    boxes = place_labels(points, sizes, [], (0, 0, 1000, 500))
    assert boxes == place_labels(points, sizes, [], (0, 0, 1000, 500))
    for at, box in enumerate(boxes):
        assert 0 <= box[0] < box[2] <= 1000
        assert 0 <= box[1] < box[3] <= 500
        assert not any(overlaps(box, other) for other in boxes[:at])


def test_a_label_keeps_clear_of_what_is_there():
    free, kept = (
        place_labels([(100, 100)], [(50, 10)], taken, (0, 0, 200, 200))[0] for taken in ([], [(107, 0, 160, 200)])
    )
    assert free[0] > 100
    assert not overlaps(kept, (107, 0, 160, 200))


@given(st.text())
@settings(deadline=None, max_examples=80)
def test_plain_text_is_one_printable_line(text):
    found = plain(text, 20)
    assert len(found) <= 20
    assert found.isprintable()
    assert wrapped(text)


def test_no_window_system_and_nothing_until_it_is_drawn():
    code = (
        "import sys, wetmap.report.charts as charts, wetmap.report.speed_chart\n"
        "assert 'matplotlib' not in sys.modules\n"
        "charts.confusion_chart([[1]], ['a'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
