"""How the report writes numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.report.section_areas import area_chart
from wetmap.report.section_imagery import clear_looks, ground
from wetmap.report.section_training import learning_words
from wetmap.report.words import file_size, hectares, nice_ticks, tick


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0.00"), (3.456, "3.46"), (12.34, "12.3"), (999.96, "1\u202f000.0"), (1234.5, "1\u202f234")],
)
def test_hectares_have_as_many_decimals_as_say_something(value, said):
    assert hectares(value) == said


def test_sizes_of_files():
    assert [file_size(n) for n in (999, 1000, 4_910_000, 2_500_000_000)] == ["999 bytes", "1.0 kB", "4.9 MB", "2.5 GB"]


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-3, 1e9))
def test_an_axis_has_few_round_steps_from_0_to_beyond_the_largest(top):
    ticks = nice_ticks(top)
    assert ticks[0] == 0
    assert ticks[-1] >= top * (1 - 1e-9)
    assert 2 <= len(ticks) <= 6
    assert float(tick(ticks[1]).replace("\u202f", "")) == pytest.approx(ticks[1])


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 3), st.floats(0, 1e6)), min_size=1, max_size=9)
)
def test_bars_and_whiskers_lie_on_the_axis_in_their_order(rows):
    classes = [
        {"class": f"c{n}", "mapped_ha": mapped, "hectares": {"value": v, "low": v * down, "high": v * (1 + up)}}
        for n, (v, down, up, mapped) in enumerate(rows)
    ]
    chart = area_chart(classes, {})
    if chart is None:
        assert all(max(row["mapped_ha"], row["hectares"]["high"]) < 1e-6 for row in classes)
        return
    for row in chart["rows"]:
        low, value, high, mapped = (float(row[name]) for name in ("low", "value", "high", "mapped"))
        assert 0 <= low <= value <= high <= 100
        assert 0 <= mapped <= 100


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1e5), min_size=11, max_size=11))
def test_every_hectare_of_clear_looks_is_shown_once(hectares_by_looks):
    shown = clear_looks([{"season": "summer", "hectares_by_looks": hectares_by_looks}])
    assert shown is not None
    widths = [float(part["width"]) for part in shown["rows"][0]["parts"]]
    assert sum(widths) == pytest.approx(100 if sum(hectares_by_looks) else 0, abs=0.05)
    assert len(shown["rows"][0]["cells"]) == len(shown["names"]) == 6


def test_ground_without_a_pixel_is_no_division_by_nothing():
    found = ground({"threshold": 0.1, "hectares_inside": 0.0, "hectares_outside": 0.0})
    assert found is not None
    assert (found["inside_percent"], found["outside_percent"]) == ("0.0", "0.0")


def test_learning_curves_in_words():
    history = [{"epoch": 0, "loss": 1.5, "validation_macro_f1": 0.25}, {"epoch": 1, "loss": 0.5}]
    assert learning_words(history, 0) == (
        "Learning curves over 2 epochs: training loss from 1.500 to 0.500, validation macro F1 from 0.250 to 0.250. "
        "Epoch 1 was kept."
    )
    assert learning_words([], None) == "Learning curves over 0 epochs: no figures."
