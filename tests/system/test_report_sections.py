"""The sections of report.html in a real browser: on a phone, on paper, with the keyboard, and for weak eyes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_page import assessment, contenders, png, report_data, scores
from tests.system.chromium import LOW_CONTRAST, Visit, chromium_missing, started, visit
from tests.system.conftest import need
from wetmap.classes import MapClass
from wetmap.report.data import ChartPicture, Comparison, Contender, FileSum
from wetmap.report.page import write_report

pytestmark = pytest.mark.system

#: A sheet of A4 without its margins, CSS pixels.
PAPER = {"width": 718, "height": 1046}
#: Twelve classes, as many as a province may have, with names that are long or do not break.
CLASSES = tuple(
    MapClass(code, name, f"#{40 + 15 * code:02x}{200 - 12 * code:02x}88")
    for code, name in enumerate(
        ["Bog", "Fen", "freshwater marsh with emergent plants", "Sumpfdotterblumenwiesenbrachestadium"]
        + [f"class of land cover number {number}" for number in range(8)],
        start=1,
    )
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on which every section has all that it can have."""
    folder = tmp_path_factory.mktemp("page")
    names = [item.name for item in CLASSES]
    rows = [{**assessment()["classes"][0], "class": name} for name in names]
    matrix = [[0.01] * len(names)] * len(names)
    head = {"title": "Models compared", "split": "Blocks of 160 m", "leaks": "paper", "notes": ["One fold."]}
    row = {"answers": "dense", "macro_f1": 0.7, "macro_f1_interval": [0.6, 0.8], "parameters": 12_345_678}
    looks = {"season": "early summer", "hectares_by_looks": [1.0, 2.0, 3.0, 4.0, 0, 0, 0, 0, 0, 5.0, 90.0]}
    data = report_data(
        folder,
        CLASSES,
        assessment=assessment(classes=rows, matrix=matrix, away_m=100.0),
        assessment_note="The sample is old.",
        contenders=[*contenders(names), Contender("another-model-of-a-long-name", scores(names, 0.4))],
        leak_note="LEAKS: all of it.",
        simulated=True,
        split_png=png(700, 500),
        split_alt="Map of the samples.",
        split_counts={name: {"train": 1, "validation": 2, "test": 3, "dropped": 4} for name in names},
        charts=[ChartPicture("Learning curves", png(1000, 900), "Curves.", "Read them so.")],
        calibration={"temperature": 1.4, "n": 9, "ece_before": 0.1, "ece_after": 0.2}
        | {"test_ece_before": 0.1, "test_ece_after": 0.2},
        comparison=Comparison(head, [{"model": "unet", "class_f1": dict.fromkeys(names, 0.5), **row}], png(900, 600)),
        applicability={"threshold": 0.4, "samples": 900, "hectares_inside": 30.0, "hectares_outside": 10.0},
        clear_looks=[looks],
        few_looks=["early summer: few"],
        limits=[("Ground unlike the samples", "On 3 ha. " * 9)],
        checksums=[FileSum("classes.tif", 10, "ab" * 32)],
        lost=(("S2A_MSIL2A_20210610T150721_N0300_R082_T20TLS_20210610T201123", "B03.tif cannot be read"),),
        steps=("Minimum mapping unit changed 1.2 ha.",),
        shifts=("Radar lies 2 m west.",),
        shifts_png=png(800, 400),
        shifts_alt="Arrows.",
    )
    write_report(folder / "report.html", data)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    need("chromium", chromium_missing())
    with started() as running:
        yield running


@pytest.fixture
def opened(browser: Any, page: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    with visit(browser, page, **getattr(request, "param", {})) as seen:
        yield seen
        assert seen.messages == []
        assert seen.requests == [page.as_uri()[:200], *(one for one in seen.requests if one.startswith("data:"))]


@pytest.mark.parametrize("opened", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_nothing_is_wider_than_a_phone_but_what_can_be_scrolled_by_itself(opened: Visit) -> None:
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    # every box that scrolls is reached with the keyboard, so that it can be scrolled without a finger
    wide = "[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0 &&"
    wide += " ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.clientWidth > 0).map(e => e.className)"
    assert opened.page.evaluate(wide) == []
    smallest = "Math.min(...[...document.querySelectorAll('main *')].filter(e => e.checkVisibility() && e.innerText)"
    smallest += ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
    assert opened.page.evaluate(smallest) >= 12


@pytest.mark.parametrize("opened", [{"viewport": PAPER}], indirect=True)
def test_on_paper_everything_is_open_and_nothing_is_cut(opened: Visit) -> None:
    shown = "[...document.querySelectorAll('details > :not(summary)')].map(e => e.checkVisibility())"
    heights = "[...document.querySelectorAll('details')].map(e => e.getBoundingClientRect().height)"
    assert not any(opened.page.evaluate(shown))
    closed = opened.page.evaluate(heights)
    opened.page.emulate_media(media="print")
    assert len(opened.page.evaluate(shown)) > 6
    assert all(opened.page.evaluate(shown))
    assert all(now > before + 10 for now, before in zip(opened.page.evaluate(heights), closed, strict=True))
    hidden = "[...document.querySelectorAll('.scroll, .drawing, pre')].filter(e =>"
    hidden += " getComputedStyle(e).overflowX !== 'visible' && e.scrollWidth > e.clientWidth + 1).length"
    assert opened.page.evaluate(hidden) == 0
    assert opened.page.evaluate("document.documentElement.scrollWidth") == PAPER["width"]
    assert opened.page.locator("nav").is_hidden()


def test_letters_stand_out_from_what_lies_behind(opened: Visit) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert opened.page.evaluate(LOW_CONTRAST) == []


def test_the_keyboard_skips_to_the_map_and_follows_the_contents(opened: Visit) -> None:
    opened.press("Tab")
    skip = opened.page.locator(".skip")
    assert skip.evaluate("e => e === document.activeElement")
    assert skip.bounding_box()["x"] >= 0
    opened.page.emulate_media(reduced_motion="reduce")
    for link in opened.page.locator("nav a").all():
        target = link.get_attribute("href")
        link.focus()
        opened.press("Enter")
        box = opened.page.locator(target).bounding_box()
        assert -1 <= box["y"] < 900, target
