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
from wetmap.report.data import ChartPicture, Comparison, Contender, FileSum, ReportData, ScenesUsed
from wetmap.report.page import write_report
from wetmap.report.section_scores import confusion, shade

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """Reads a page: text, tags with attributes, table cells; fails on tags that do not close."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.pieces, self.cells, self.texts = [], [], [], [], {}
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.pieces.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def pieces_of(self, tag):
        """Text of every element of a kind."""
        return [text.strip() for text in self.texts.get(tag, ())]

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


def contenders(names, f1=0.8123, n=20):
    model = Contender(
        "wetmapformer-window",
        scores(names, f1, n),
        "model",
        class_bounds={names[0]: (0.71, 0.9), names[1]: (0.2, 0.95)},
        macro_bounds=(0.7, 0.88),
        overall_bounds=(0.72, 0.89),
        groups=31,
        note="leans on classes in few groups, so it is likely too narrow: fen (3)",
    )
    return [
        model,
        Contender("forest", scores(names, 0.7512, n)),
        Contender("boosting", scores(names, 0.7301, n)),
        Contender("commonest class", scores(names, 0.0512, n), "guess"),
    ]


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
        contenders=contenders(names),
        guess_class="upland",
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
        "0.81",
        "0.75",
        "0.73",
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


def test_a_word_under_the_figures_keeps_scores_apart_from_accuracy(page_of):
    said, top = "Such scores are not the accuracy of this map.", page_of().text.split("On this page")[0]
    assert said in top
    assert "Macro F1 is the mean F1 over classes" in top
    assert "The hectares below are pixel counts." in top
    assert "wetmap assess" in top
    bare = page_of(contenders=()).text.split("On this page")[0]
    assert "acro F1" not in bare
    assert said not in bare
    assert "The hectares below are pixel counts." in bare


def test_an_assessed_map_has_its_accuracy_at_the_top_and_no_such_word(page_of):
    top = page_of(assessment=assessment()).text.split("On this page")[0]
    assert "Macro F1 is the mean F1 over classes" in top
    assert "pixel counts" not in top
    assert "not the accuracy" not in top


def test_scores_of_a_model_from_elsewhere_say_so(page_of):
    note = "The scores came with the model."
    text = page_of(scores_note=note).text
    assert note in text.split("How good the model is")[-1].split("Which classes are taken")[0]
    assert note in text.split("On this page")[0]


def before_the_title(text):
    """What a reader meets first, after the link that skips to the map."""
    return text.split("Skip to the map", 1)[1].strip()


def test_simulated_is_said_on_top_and_again(page_of):
    text = page_of(simulated=True).text
    assert before_the_title(text).startswith("SIMULATED")
    assert text.count("SIMULATED") >= 3


NOTE = "LEAKS: 98% of the test windows share pixels with training windows."


def test_every_score_of_a_split_that_leaks_is_marked(page_of):
    page = page_of(leak_note=NOTE)
    assert "These scores are too good." in page.text
    assert "no model saw" not in page.text
    body = before_the_title(page.text)
    assert body.startswith("LEAKS — the scores on this page are too good: 98% of the test windows")
    for marked in (
        "(scores: LEAKS)",
        "LEAKS: macro F1 of wetmapformer-window",
        "LEAKS: macro F1 of forest",
        "LEAKS: macro F1 of always guessing",
        "LEAKS: not to be quoted",
        "LEAKS: F1 on held-out pixels",
        "LEAKS: Held-out pixels, wetmapformer-window. Rows",
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
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "audio", "video"} & {
        tag for tag, _ in page.tags
    }
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), tag
            assert name not in {"srcset", "action", "background"}
            assert name != "href" or (tag == "a" and value.startswith("#"))
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            elif name not in {"alt", "aria-label"}:
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


def everything(name, reason):
    """What may come from files of other people, under a name."""
    head = {"title": name, "split": f"{reason}.", "notes": [reason]}
    row = {"model": name, "answers": reason, "class_f1": {name: 0.5}, "note": reason, "macro_f1": 0.5}
    looks = {"season": name, "hectares_by_looks": [1.0] * 11, "hectares": 11.0}
    classes = [{**one, "class": name} for one in assessment()["classes"]]
    return {
        "skipped": [(name, reason)],
        "notes": [reason],
        "assessment": assessment(classes=classes),
        "assessment_note": reason,
        "assess_commands": [reason],
        "comparison": Comparison(head, [row], png()),
        "clear_looks": [looks],
        "few_looks": [reason],
        "limits": [(name, reason)],
        "checksums": [FileSum(name, 1, "ab")],
        "split_counts": {name: {"train": 1}},
        "charts": [ChartPicture(name, png(), reason, reason)],
        "guess_class": name,
    }


@settings(deadline=None, max_examples=25)
@given(NASTY, NASTY, NASTY)
def test_any_name_is_shown_as_it_is_and_does_nothing(tmp_path_factory, name, title, reason):
    folder = tmp_path_factory.mktemp("page")
    classes = (MapClass(1, name, "#75130e"), MapClass(2, f"{name}-2", "#f6d127"))
    usual = (MapClass(1, "a", "#75130e"), MapClass(2, "b", "#f6d127"))
    plain = Page(_written(folder, report_data(folder, usual, **everything("a", "gone"))))
    data = report_data(folder, classes, title=title, area=reason, recipe=title, **everything(name, reason))
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
    assert all(item.get("scope") for item in page.all("th"))
    drawings = [item for item in page.all("svg") if item.get("role") == "img"]
    assert all(len(item["aria-label"]) > 20 for item in drawings)
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


def test_scores_of_all_contenders_stand_side_by_side(page_of):
    rows = contenders(["bog", "fen"], f1=0.9, n=7)
    rows[0].scores["per_class"][1] = {"name": "fen", "precision": float("nan"), "recall": 0.0, "f1": None, "n": 7}
    classes = (MapClass(1, "bog", "#75130e"), MapClass(2, "fen", "#f6d127"))
    cells = [cell.strip() for cell in page_of(classes=classes, contenders=rows).cells]
    at = cells.index("Held-out pixels")
    assert cells[at + 1 : at + 7] == ["F1", "Precision", "Recall", "F1", "F1", "F1"]
    assert cells[at + 7 : at + 23] == [
        *("bog", "7", "0.90 0.71 to 0.90", "0.90", "0.90", "0.75", "0.73", "0.05"),
        *("fen", "7", "– 0.20 to 0.95", "–", "0.00", "0.75", "0.73", "0.05"),  # noqa: RUF001
    ]
    assert cells[at + 23 : at + 30] == ["Macro F1", "", "0.90 0.70 to 0.88", "", "0.75", "0.73", "0.05"]


def test_the_confusion_matrix_is_a_table_of_counts_shares_and_shades(page_of):
    table = {**scores(["bog", "fen", "pond"], 0.5), "confusion": [[8, 2, 0], [1, 0, 3], [0, 0, 0]]}
    one = Contender("net", table, "model")
    rows = confusion(one)["rows"]
    assert [[cell["count"] for cell in row["cells"]] for row in rows] == [[8, 2, 0], [1, 0, 3], [0, 0, 0]]
    assert [cell["share"] for cell in rows[0]["cells"]] == ["80.0 %", "20.0 %", "0.0 %"]
    assert [cell["share"] for cell in rows[2]["cells"]] == ["", "", ""]
    assert rows[1]["cells"][2]["shade"] == shade(0.75, right=False) != shade(0.75, right=True)
    assert confusion(one)["worst"] == "The largest share lost: 75.0 % of fen (3 pixels) is taken for pond."
    classes = tuple(MapClass(n, name, f"#00000{n}") for n, name in enumerate(["bog", "fen", "pond"], start=1))
    page = page_of(classes=classes, contenders=[one])
    cells = [cell.strip() for cell in page.cells]
    at = cells.index("Reference")
    assert cells[at + 1 : at + 5] == ["bog", "fen", "pond", "All"]
    assert cells[at + 5 : at + 10] == ["bog", "8 80.0 %", "2 20.0 %", "0 0.0 %", "10"]


def luminance(colour):
    """Relative luminance of ``#rrggbb``, WCAG 2.1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("right", [True, False])
def test_letters_can_be_read_on_every_shade(right):
    ink = luminance("#1d2b2a")
    for step in range(101):
        assert (luminance(shade(step / 100, right=right)) + 0.05) / (ink + 0.05) > 4.5


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


def test_without_scores_confidence_or_scenes_it_is_still_a_page(page_of):
    text = page_of(
        contenders=(),
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
    assert "nothing is known here of its training" in text
    assert "0.80" in page_of(contenders=[Contender("net", scores(["bog"], 0.8), "model")]).text


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


FIGURE = {"value": 1830.4, "se": 90.0, "low": 1650.2, "high": 2011.7, "method": "dirichlet"}
SHARE = {"value": 0.812, "se": 0.03, "low": 0.74, "high": 0.871, "method": "wilson"}
#: Certain by definition, and so without an interval.
CERTAIN = {"value": 0.0, "se": None, "low": None, "high": None, "method": "definition", "why": "no such class"}


def assessment(**changes):
    """What ``wetmap assess`` writes."""
    row = {"code": 1, "class": "bog", "sampled": 60, "seen": 55, "mapped_ha": 1700.0}
    rows = [
        {**row, "hectares": FIGURE, "users": SHARE, "producers": SHARE},
        {**row, "code": None, "class": "beaver pond", "hectares": {**FIGURE, "value": 3.0, "low": 0.04, "high": 20.0}}
        | {"mapped_ha": 0.0, "users": None, "producers": CERTAIN},
    ]
    return {
        "basis": "probability sample",
        "design": "stratified",
        "simulated": False,
        "poststratified": False,
        "away_m": None,
        "left_out_ha": 0.0,
        "hectares": 2500.0,
        "overall": SHARE,
        "classes": rows,
        "matrix": [[0.7, 0.1], [0.05, 0.15]],
        "quantity_disagreement": 0.042,
        "allocation_disagreement": 0.111,
        "kappa": 0.6,
        "map_changed": False,
        "units": 120,
        "interpreted": 118,
        "file": "sample.gpkg",
    } | changes


def test_without_an_assessment_the_page_says_how_to_get_one(page_of):
    page = page_of(assess_commands=["wetmap sample --aoi a.geojson --units 600", "wetmap assess --reference b.gpkg"])
    assert "counts of pixels, not estimates" in page.text
    assert "wetmap sample --aoi a.geojson --units 600 wetmap assess --reference b.gpkg" in page.text
    assert "Hectares, estimated" not in page.cells


def test_an_assessment_is_shown_with_its_intervals(page_of):
    page = page_of(assessment=assessment())
    assert "118 of 120 points of a stratified random sample" in page.text
    cells = [cell.strip() for cell in page.cells]
    at = cells.index("Points seen so")
    assert cells[at + 1 : at + 8] == [
        *(
            "bog",
            "1\u202f830 1\u202f650 to 2\u202f012",
            "1\u202f700",
            "0.81 0.74 to 0.87",
            "0.81 0.74 to 0.87",
            "60",
            "55",
        )
    ]
    assert cells[at + 8 : at + 13] == ["beaver pond", "3.00 0.04 to 20.0", "0.00", "–", "0.00 –"]  # noqa: RUF001
    assert "Overall accuracy0.81 0.74 to 0.87" in page.text
    assert "0.04 of the area in how much there is of each class, 0.11 in where it is" in page.text
    said = next(item["aria-label"] for item in page.all("div") if "hectares of each" in item.get("aria-label", ""))
    assert "bog 1\u202f830 (1\u202f650 to 2\u202f012)" in said
    bars = [float(item["width"]) for item in page.all("rect")]
    assert bars == [73.22, 0.12]  # of an axis to 2,500 ha
    assert "0.81 overall accuracy of the map (95 %: 0.74 to 0.87)" in " ".join(
        f"{value} {label}" for label, value in zip(page.pieces_of("dt"), page.pieces_of("dd"), strict=True)
    )
    assert "counts of pixels, not estimates" not in page.text


def test_what_narrows_an_assessment_is_said(page_of):
    text = page_of(
        assessment=assessment(
            away_m=100.0,
            left_out_ha=55.5,
            map_changed=True,
            poststratified=True,
            second={"common": 90, "differ": 9, "share_of_area": 0.08, "se": 0.02, "units": [1]},
        ),
        assessment_note="It is odd.",
    ).text
    assert "farther than 100 m from the training polygons alone; 55.5 ha are nearer" in text
    assert "drawn from an earlier map" in text
    assert "poststratified" in text
    assert "something else in 9 of 90 points: 0.080 of the area (standard error 0.020)" in text
    assert "It is odd." in text


def test_agreement_is_called_agreement_and_has_no_interval(page_of):
    rows = [{"code": 1, "class": "bog", "mapped": 9, "seen": 8, "agreed": 7}]
    found = {"basis": "agreement", "file": "p.gpkg", "points": 12, "used": 10, "overall": 0.7, "matrix": [[7]]}
    page = page_of(assessment={**found, "left_out": {"outside the map": 2, "without a class": 0}, "classes": rows})
    assert "Agreement, not accuracy. The map was compared with 10 points of 12" in page.text
    assert "Left out: 2 outside the map." in page.text
    assert "counts of pixels, not estimates" in page.text
    assert not page.all("rect")
    assert "95 % interval" not in page.text.split("How good the model is")[0]


def test_clear_looks_have_a_bar_and_a_row_per_season(page_of):
    looks = [{"season": "summer", "hectares_by_looks": [1.0, 2.0, 3.0, 4.0, 0, 0, 0, 0, 0, 0, 90.0], "hectares": 100.0}]
    page = page_of(clear_looks=looks, few_looks=["summer: 1.0 ha (1 %) of the area have no clear look"])
    cells = [cell.strip() for cell in page.cells]
    at = cells.index("10 or more looks")
    assert cells[at + 1 : at + 8] == [
        *("summer", "1.00 1.0 %", "2.00 2.0 %", "3.00 3.0 %", "4.00 4.0 %", "0.00 0.0 %", "90.0 90.0 %")
    ]
    assert "summer: 1.0 ha (1 %) of the area have no clear look." in page.text
    assert [item["width"] for item in page.all("rect")] == ["1.00", "2.00", "3.00", "4.00", "90.00"]


def test_the_area_of_applicability_is_shown_or_said_how_to_ask_for(page_of):
    assert "products: applicability: true" in page_of().text
    found = {"threshold": 0.4321, "samples": 900, "hectares_inside": 30.0, "hectares_outside": 10.0}
    text = page_of(applicability=found).text
    assert "10.0 ha (25.0 %) are outside the area of applicability" in text
    assert "Threshold of dissimilarity: 0.432, from 900 training samples" in text
    assert "products: applicability" not in text


def png(width=30, height=20):
    target = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(target, "png")
    return target.getvalue()


def test_the_training_has_its_charts_and_calibration(page_of):
    card = {"temperature": 1.4, "n": 120, "ece_before": 0.11, "ece_after": 0.03}
    page = page_of(
        charts=[ChartPicture("Learning curves", png(), "Curves over 9 epochs.", "Read it so.")],
        calibration={**card, "test_ece_before": 0.12, "test_ece_after": 0.05},
    )
    assert page.all("img")[-1]["alt"] == "Curves over 9 epochs."
    cells = [cell.strip() for cell in page.cells]
    at = cells.index("held-out pixels")
    assert cells[at : at + 3] == ["held-out pixels", "0.120", "0.050"]
    assert "became larger" not in page.text
    worse = page_of(calibration={**card, "test_ece_before": 0.02, "test_ece_after": 0.05})
    assert "became larger" in worse.text


def test_models_that_were_compared_are_shown(page_of):
    head = {"title": "Models compared: a", "split": "Blocks of 160 m.", "simulated": True, "notes": ["So it is."]}
    row = {"answers": "dense", "class_f1": {"bog": 0.6}, "pixels_per_s": 12345.6}
    rows = [
        {"model": "forest", "macro_f1": 0.6, "macro_f1_interval": [0.5, 0.7], **row, "pixels_per_s": 23456.7},
        {"model": "unet", "macro_f1": 0.7, "difference": 0.1, "difference_interval": [-0.02, 0.2], **row},
    ]
    page = page_of(comparison=Comparison(head, rows, png()))
    cells = [cell.strip() for cell in page.cells]
    at = cells.index("Pixels per second")
    assert cells[at + 1 : at + 5] == ["unet", "0.70", "+0.10 -0.02 to +0.20", "–"]  # noqa: RUF001
    assert "Best macro F1: unet, 0.70. Fastest: forest, 23\u202f457 pixels per second." in page.all("img")[-1]["alt"]
    assert "SIMULATED" in page.text
    assert {"href": "#compare"} in page.all("a")
    assert {"href": "#compare"} not in page_of().all("a")


def test_limits_and_checksums_stand_as_they_are_given(page_of):
    page = page_of(limits=[("Low confidence", "On 3 % ...")], checksums=[FileSum("classes.tif", 1_234_567, "ab" * 32)])
    assert ("Low confidence", "On 3 % ...") in zip(page.pieces_of("dt"), page.pieces_of("dd"), strict=True)
    cells = [cell.strip() for cell in page.cells]
    at = cells.index("classes.tif")
    assert cells[at + 1 : at + 3] == ["1.2 MB", "ab" * 32]


def test_the_contents_lead_to_every_section_and_headings_are_in_order(page_of):
    page = page_of()
    headings = [(tag, attributes.get("id")) for tag, attributes in page.tags if tag in {"h1", "h2", "h3"}]
    assert [tag for tag, _ in headings].count("h1") == 1
    assert headings[0][0] == "h1"
    sections = [name for tag, name in headings if tag == "h2" and name != "contents"]
    links = [item["href"] for item in page.all("a")]
    assert links[0] == "#main"
    assert links[1:] == [f"#{name}" for name in sections]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in links} <= set(ids)
    labelled = {item["aria-labelledby"] for item in page.all("section") if "aria-labelledby" in item}
    assert set(sections) <= labelled


def test_every_table_has_a_caption_and_wide_ones_can_be_scrolled_with_the_keyboard(page_of):
    page = page_of(assessment=assessment())
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") > 5
    boxes = [item for item in page.all("div") if item.get("class") == "scroll" and "tabindex" in item]
    assert len(boxes) >= 5
    assert all(item["role"] == "region" and item["aria-label"] for item in boxes)
