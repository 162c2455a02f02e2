"""The report: one page, offline, that says what it is and nothing that a name smuggles in."""

from __future__ import annotations

import base64
import dataclasses
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wetmap.classes import MapClass, class_table
from wetmap.errors import UsageError, WorkspaceError
from wetmap.geo import Grid
from wetmap.products.areas import count_areas
from wetmap.products.geotiff import write_cog
from wetmap.report.page import ReportData, ScenesUsed, write_report

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Reads a page: text, tags with attributes, table cells; fails on tags that do not close."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.pieces, self.cells = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.pieces.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    @property
    def text(self):
        return " ".join("".join(self.pieces).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def write_maps(folder, classes, height=30, width=40, seed=0):
    grid = Grid("EPSG:32620", 10.0, 300_000.0, 5_100_000.0, height, width)
    rng = np.random.default_rng(seed)
    codes = rng.choice(np.array([0] + [item.code for item in classes], dtype=np.uint8), grid.shape)
    percent = np.where(codes == 0, 255, rng.integers(0, 101, grid.shape)).astype(np.uint8)
    for name, pixels, nodata, overview in (("classes", codes, 0, "mode"), ("confidence", percent, 255, "average")):
        write_cog(
            folder / f"{name}.tif",
            grid,
            lambda block, pixels=pixels: pixels[block.slices],
            dtype="uint8",
            nodata=nodata,
            overview=overview,
            colours=None,
            description=name,
            tags={},
        )
    return codes, count_areas(grid, lambda block: codes[block.slices], classes)


def scores(names, f1, n=20):
    rows = [{"name": name, "precision": f1, "recall": f1, "f1": f1, "n": n} for name in names]
    return {
        "macro_f1": f1,
        "overall_accuracy": f1 + 0.01,
        "per_class": rows,
        "confusion": [[n] * len(names)] * len(names),
    }


def report_data(folder, classes=None, **changes):
    classes = class_table("new-brunswick") if classes is None else classes
    names = [item.name for item in classes]
    _, areas = write_maps(folder, classes)
    data = ReportData(
        title="Lower river",
        area="river, 12 ha",
        simulated=False,
        classes=classes,
        areas=areas,
        classes_tif=folder / "classes.tif",
        grid="EPSG:32620, 40 x 30 px of 10 m",
        recipe="seed: 1\n",
        versions={"wetmap": "0.1.0"},
        confidence_tif=folder / "confidence.tif",
        confidence_range=(0.0, 100.0),
        model_name="wetmapformer-window",
        model=scores(names, 0.8123),
        baseline=scores(names, 0.7512),
        guess_name="upland",
        guess=scores(names, 0.0512),
        split=(("kind", "blocks"), ("buffer", "80 m")),
        scenes=(ScenesUsed("summer", "Sentinel-2", 11, "2021-06-03 to 2021-09-21"),),
        skipped=(("S2A_20210713", "91 % cloud"),),
        figures=(("93.1%", "of mapped pixels agree with the simulated truth"),),
        notes=("Class fen is thin.",),
    )
    return dataclasses.replace(data, **changes)


@pytest.fixture
def page_of(tmp_path):
    def write(**changes):
        write_report(tmp_path / "report.html", report_data(tmp_path, **changes))
        return Page(tmp_path / "report.html")

    return write


def test_the_page_says_what_a_manager_asks(page_of):
    text = page_of().text
    for said in (
        "Lower river",
        "river, 12 ha",
        "0.81 ",
        "0.75 ",
        "0.05",
        "commonest class (upland)",
        "Pixel counts, not estimates of area",
        "80 m",
        "11",
        "2021-06-03 to 2021-09-21",
        "S2A_20210713",
        "91 % cloud",
        "EPSG:32620, 40 x 30 px of 10 m",
        "seed: 1",
        "0.1.0",
        "93.1%",
        "Class fen is thin.",
        "freshwater marsh",
    ):
        assert said in text, said
    assert "SIMULATED" not in text
    assert "too good" not in text


def test_simulated_is_said_on_top_and_again(page_of):
    text = page_of(simulated=True).text
    body = text.split("wetland map", 1)[1]
    assert body.strip().startswith("SIMULATED")
    assert text.count("SIMULATED") >= 3


NOTE = "LEAKS: 98% of the test windows share pixels with training windows."


def test_every_score_of_a_split_that_leaks_is_marked(page_of):
    page = page_of(leak_note=NOTE)
    assert "These scores are too good." in page.text
    assert "no model saw" not in page.text
    body = page.text.split("wetland map", 1)[1].strip()
    assert body.startswith("LEAKS — the scores on this page are too good: 98% of the test windows")
    for marked in (
        "(scores: LEAKS)",
        "LEAKS: macro F1 of wetmapformer-window",
        "LEAKS: macro F1 of the random forest",
        "LEAKS: macro F1 of always guessing",
        "LEAKS: not to be quoted",
        "LEAKS: For comparison",
        "LEAKS: Held-out pixels. Rows",
    ):
        assert marked in page.text, marked
    honest = page_of().text
    assert "no model saw in training" in honest
    assert "LEAKS" not in honest


def test_the_split_is_shown_as_a_map_with_words(page_of):
    target = io.BytesIO()
    Image.new("RGB", (30, 20), "white").save(target, "png")
    page = page_of(split_png=target.getvalue(), split_alt='Map of the samples: 3 "train"')
    picture = page.all("img")[-1]
    assert picture["alt"] == 'Map of the samples: 3 "train"'
    assert (picture["width"], picture["height"]) == ("30", "20")
    assert base64.b64decode(picture["src"].split(",", 1)[1]) == target.getvalue()
    assert len(page_of().all("img")) == 2


def test_nothing_is_fetched_from_anywhere(page_of):
    page = page_of(recipe="catalog: https://example.org/stac\n", skipped=(("https://example.org/a.tif?sig=x", "gone"),))
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a", "audio", "video"} & {
        tag for tag, _ in page.tags
    }
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), tag
            assert name not in {"href", "srcset", "action", "background"}
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            elif name != "alt":
                assert "//" not in (value or "")
    policy = next(item["content"] for item in page.all("meta") if "http-equiv" in item)
    assert policy.startswith("default-src 'none'")


def test_the_style_fetches_nothing(tmp_path):
    write_report(tmp_path / "report.html", report_data(tmp_path))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text


NASTY = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1),
    st.sampled_from(
        ["<script>alert(1)</script>", '"><img src=x onerror=1>', "{{ 7 * 7 }}", "&lt;b&gt;", "tourbière", "]]>"]
    ),
).filter(str.strip)


@settings(deadline=None, max_examples=25)
@given(NASTY, NASTY, NASTY)
def test_any_name_is_shown_as_it_is_and_does_nothing(tmp_path_factory, name, title, reason):
    folder = tmp_path_factory.mktemp("page")
    classes = (MapClass(1, name, "#75130e"), MapClass(2, f"{name}-2", "#f6d127"))
    plain = Page(_written(folder, report_data(folder, (MapClass(1, "a", "#75130e"), MapClass(2, "b", "#f6d127")))))
    data = report_data(
        folder, classes, title=title, area=reason, skipped=[(name, reason)], notes=[reason], recipe=title
    )
    page = Page(_written(folder, data))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert [list(attributes) for _, attributes in page.tags] == [list(attributes) for _, attributes in plain.tags]
    assert name in [cell.strip() for cell in page.cells] or name in page.cells
    assert reason in page.cells
    assert title in page.pieces


def _written(folder, data):
    write_report(folder / "report.html", data)
    return folder / "report.html"


def test_every_picture_has_words_and_a_size(page_of):
    page = page_of()
    pictures = page.all("img")
    assert len(pictures) == 2
    for picture in pictures:
        assert len(picture["alt"]) > 20
        image = Image.open(io.BytesIO(base64.b64decode(picture["src"].split(",", 1)[1])))
        assert image.size == (int(picture["width"]), int(picture["height"])) == (40, 30)
    assert page.all("html") == [{"lang": "en"}]
    assert all("scope" in item for item in page.all("th") if item)
    assert any(item.get("name") == "viewport" for item in page.all("meta"))


def test_the_legend_has_each_class_with_its_hectares_and_share(page_of, tmp_path):
    page = page_of()
    _, areas = write_maps(tmp_path, class_table("new-brunswick"))
    cells = [cell.strip() for cell in page.cells]
    for row in areas:
        at = cells.index(row.name)
        assert cells[at + 1 : at + 3] == [f"{row.hectares:.1f}", f"{row.share_percent:.1f}"]
    swatches = [item["style"] for item in page.all("span") if item.get("class") == "swatch"]
    assert swatches[:9] == [f"background: {item.colour}" for item in class_table("new-brunswick")]


def test_scores_stand_side_by_side_per_class(page_of):
    names = ["bog", "fen"]
    model, baseline = scores(names, 0.9, n=7), scores(names, 0.5, n=7)
    model["per_class"][1] = {"name": "fen", "precision": float("nan"), "recall": 0.0, "f1": None, "n": 7}
    classes = (MapClass(1, "bog", "#75130e"), MapClass(2, "fen", "#f6d127"))
    cells = [cell.strip() for cell in page_of(classes=classes, model=model, baseline=baseline, guess=None).cells]
    at = cells.index("Held-out pixels")
    assert cells[at + 1 : at + 17] == [
        *("bog", "0.90", "0.90", "0.90", "0.50", "0.50", "0.50", "7"),
        *("fen", "–", "0.00", "–", "0.50", "0.50", "0.50", "7"),  # noqa: RUF001
    ]
    assert cells[at + 17 : at + 20] == ["Macro F1", "0.90", "0.50"]


def test_scenes_found_are_used_or_left_out_and_what_could_not_be_read_is_apart(page_of):
    """A scene that serves two seasons is one scene; one that some blocks lack is used, and named beside."""
    seasons = tuple(ScenesUsed(name, "optical", 20, "2021-06-03 to 2021-09-21") for name in ("summer", "year"))
    lost = (("S2A_20210610", "B03.tif cannot be read"),)
    said = "2 of them could not be read in 4 of 12 blocks"
    text = page_of(scenes=seasons, scenes_used=32, lost=lost, lost_words=said).text
    assert f"32 scenes used, 1 left out (listed under Details); {said} (listed under Details)" in text
    assert "What was left out, and why (1)" in text
    assert "What could not be read in some blocks, and why (1)" in text
    assert "B03.tif cannot be read" in text
    assert "could not be read" not in page_of().text


def test_without_scores_baseline_confidence_or_scenes_it_is_still_a_page(page_of):
    text = page_of(
        model=None,
        baseline=None,
        guess=None,
        confidence_tif=None,
        scenes=(),
        skipped=(),
        split=(),
        figures=(),
        notes=(),
    ).text
    assert "No held-out scores came with this model." in text
    assert "0 scenes used" in text
    assert "How sure" not in text
    assert "0.80" in page_of(baseline=None, model=scores(["bog"], 0.8)).text


def test_large_numbers_are_readable_and_small_shares_are_not_nothing(page_of):
    @dataclasses.dataclass
    class Row:
        code: int
        pixels: int
        hectares: float
        share_percent: float

    cells = page_of(areas=[Row(1, 123_456_700, 1_234_567.04, 99.99), Row(2, 1, 0.01, 0.0001)]).cells
    assert "1\u202f234\u202f567.0" in cells
    assert "< 0.1" in cells


def test_same_data_same_bytes_in_one_file(tmp_path):
    data = report_data(tmp_path)
    write_report(tmp_path / "a.html", data)
    write_report(tmp_path / "b.html", data)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert not list(tmp_path.glob(".tmp-*"))


def test_areas_of_another_class_table_are_refused(page_of):
    with pytest.raises(UsageError, match="code 9, which no class has"):
        page_of(classes=class_table("new-brunswick")[:8], areas=report_areas())


def report_areas():
    grid = Grid("EPSG:32620", 10.0, 300_000.0, 5_100_000.0, 2, 2)
    return count_areas(grid, lambda _: np.full((2, 2), 9, dtype=np.uint8), class_table("new-brunswick"))


def test_a_missing_map_is_said(page_of, tmp_path):
    with pytest.raises(WorkspaceError, match=r"gone\.tif cannot be read"):
        page_of(classes_tif=tmp_path / "gone.tif")


def test_a_name_that_utf8_cannot_hold_is_no_crash(page_of):
    assert "S2?" in page_of(skipped=(("S2\udcff", "broken name"),)).text
