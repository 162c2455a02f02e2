"""One HTML page about one map: what it shows, how good it is, and what it was made from.

The page opens offline: styles and pictures are inside, and there are no scripts. It holds no clock of its own, so the
same map gives the same bytes.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import jinja2
from PIL import Image

from wetmap.classes import MEASURE_RAMP, MapClass
from wetmap.errors import UsageError
from wetmap.report.picture import Picture, class_picture, measure_picture, scale_bar_m
from wetmap.workspace import write_bytes

#: Longer side of a picture on the page, in the page's letter sizes: a tall map still fits a screen.
TALLEST_REM = 44
#: Marks every figure that comes from a split that leaks.
LEAKS_MARK = "LEAKS"


class ClassScore(TypedDict):
    """Held-out scores of one class."""

    name: str
    """Name in legends."""
    precision: float | None
    """Share of what was mapped as the class that is the class, 0-1; None (or NaN) where nothing was."""
    recall: float | None
    """Share of the class that was mapped as it, 0-1; None (or NaN) where there is none."""
    f1: float | None
    """Harmonic mean of the two, 0-1."""
    n: int
    """Held-out pixels of the class."""


class Scores(TypedDict):
    """Held-out scores of one model."""

    macro_f1: float
    """Mean of the classes' F1, 0-1."""
    overall_accuracy: float
    """Share of held-out pixels that are right, 0-1."""
    per_class: Sequence[ClassScore]
    """One row per class."""
    confusion: Sequence[Sequence[int]]
    """Held-out pixels by reference class (rows) and mapped class (columns), in the order of ``per_class``."""


class Area(Protocol):
    """What the map holds of one class, as the table of areas has it."""

    @property
    def code(self) -> int:
        """Value in classes.tif."""

    @property
    def pixels(self) -> int:
        """Pixels of the class."""

    @property
    def hectares(self) -> float:
        """True area of these pixels, hectares."""

    @property
    def share_percent(self) -> float:
        """Share of the area of all classes, percent."""


@dataclass(frozen=True)
class ScenesUsed:
    """What one sensor gave to one season."""

    season: str
    """Name of the season."""
    sensor: str
    """Sensor, in words; with the orbit state where passes are kept apart."""
    used: int
    """Scenes that serve it."""
    dates: str
    """First and last day, in words."""


@dataclass(frozen=True)
class ReportData:
    """Everything the page says."""

    title: str
    """Name of the map."""
    area: str
    """The area of interest in one line."""
    simulated: bool
    """True if any of it was made from simulated scenes: the page then says so on top."""
    classes: Sequence[MapClass]
    """The map's classes, in the order of the legend."""
    areas: Sequence[Area]
    """Pixel counts by class."""
    classes_tif: Path
    """The map of classes."""
    grid: str
    """The grid in one line."""
    recipe: str
    """The resolved recipe, YAML."""
    versions: Mapping[str, str]
    """Versions by name of software."""
    confidence_tif: Path | None = None
    """The map of confidence."""
    confidence_range: tuple[float, float] = (0.0, 1.0)
    """Values of the confidence map that mean none and certainty."""
    model_name: str = "model"
    """Name of the model that made the map."""
    model: Scores | None = None
    """Its held-out scores."""
    baseline_name: str = "random forest"
    """Name of the model trained beside it."""
    baseline: Scores | None = None
    """Its scores on the same held-out pixels."""
    guess_name: str = ""
    """The commonest class among the training samples."""
    guess: Scores | None = None
    """Scores of always answering that class."""
    split: Sequence[tuple[str, str]] = ()
    """How training and held-out samples were kept apart: (what, value)."""
    leak_note: str = ""
    """What is wrong with the scores of a split that lets training windows overlap held-out ones, beginning with
    ``LEAKS_MARK``: the page then says so on top and at every score. Empty where nothing leaks."""
    split_png: bytes | None = None
    """The split as a map, PNG."""
    split_alt: str = ""
    """The same in words."""
    shifts: Sequence[str] = ()
    """How far scenes lie off each other and what was done about it, as sentences."""
    shifts_png: bytes | None = None
    """The same as maps with arrows, PNG."""
    shifts_alt: str = ""
    """The picture in words."""
    scenes: Sequence[ScenesUsed] = ()
    """Scenes by season and sensor."""
    skipped: Sequence[tuple[str, str]] = ()
    """What was left out, and why: (name, reason)."""
    scenes_used: int | None = None
    """Scenes that serve any season, each counted once; None: the sum of the rows."""
    lost: Sequence[tuple[str, str]] = ()
    """Scenes among those used that could not be read in some blocks, and why: (name, reason)."""
    lost_words: str = ""
    """How many of them, and in how many blocks."""
    figures: Sequence[tuple[str, str]] = ()
    """Further key figures for the top of the page: (value, what it is)."""
    steps: Sequence[str] = ()
    """What was done to the map after the model answered, one line each."""
    notes: Sequence[str] = ()
    """Warnings of the run, as sentences."""
    made: str | None = None
    """When it was made, if the page is to say so."""


def write_report(path: Path, data: ReportData) -> None:
    """Write the page, in one step.

    Args:
        path: The HTML file; its folder exists.
        data: What it says.

    Raises:
        UsageError: A row of areas has a code of no class.
        WorkspaceError: A map cannot be read, or the disk is full.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wetmap", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(score=_score, bar=_bar, number=_number, percent=_percent, plural=_plural)
    # A lone surrogate (from a file name that is not UTF-8) cannot be written; it becomes a question mark.
    page = environment.get_template("template.html").render(_view(data))
    write_bytes(path, page.encode("utf-8", errors="replace"))


def _view(data: ReportData) -> dict[str, Any]:
    """What the template shows, in its own words."""
    legend = _legend(data)
    picture = class_picture(data.classes_tif, data.classes)
    confidence = None if data.confidence_tif is None else measure_picture(data.confidence_tif, *data.confidence_range)
    return {
        "data": data,
        "legend": legend,
        "mapped_ha": math.fsum(row["hectares"] for row in legend),
        "map": _embedded(picture),
        "map_alt": _alt(data, legend),
        "confidence": None if confidence is None else _embedded(confidence),
        "ramp": ", ".join(MEASURE_RAMP),
        "scores": _score_rows(data),
        "mark": f"{LEAKS_MARK}: " if data.leak_note else "",
        "leak_text": data.leak_note.removeprefix(f"{LEAKS_MARK}: "),
        "split": None if data.split_png is None else _split_view(data.split_png),
        "shifts": None if data.shifts_png is None else _split_view(data.shifts_png),
        "figures": [*_key_figures(data), *data.figures],
        "scenes_used": sum(row.used for row in data.scenes) if data.scenes_used is None else data.scenes_used,
    }


def _legend(data: ReportData) -> list[dict[str, Any]]:
    by_code = {row.code: row for row in data.areas}
    foreign = sorted(by_code.keys() - {item.code for item in data.classes})
    if foreign:
        raise UsageError(
            f"the areas hold code {foreign[0]}, which no class has.",
            do="Count areas and write the report with one class table.",
        )
    largest = max((row.share_percent for row in data.areas), default=0.0)
    rows = []
    for item in data.classes:
        area = by_code.get(item.code)
        share = area.share_percent if area else 0.0
        rows.append(
            {
                "name": item.name,
                "colour": item.colour,
                "pixels": area.pixels if area else 0,
                "hectares": area.hectares if area else 0.0,
                "share": share,
                "bar": 100 * share / largest if largest else 0.0,
            }
        )
    return rows


def _embedded(picture: Picture) -> dict[str, Any]:
    bar_m = scale_bar_m(picture.ground_width_m)
    return {
        "source": "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii"),
        "width": picture.width,
        "height": picture.height,
        "longest_rem": f"{TALLEST_REM * min(1.0, picture.width / picture.height):.2f}",
        "bar_percent": 100 * bar_m / picture.ground_width_m,
        "bar_text": f"{bar_m / 1000:g} km" if bar_m >= 1000 else f"{bar_m:g} m",
    }


def _split_view(png: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
    return {
        "source": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        "width": width,
        "height": height,
        "longest_rem": f"{TALLEST_REM * min(1.0, width / height):.2f}",
    }


def _alt(data: ReportData, legend: Sequence[Mapping[str, Any]]) -> str:
    """The map in words, for those who do not see it: its largest classes."""
    largest = sorted((row for row in legend if row["pixels"]), key=lambda row: -row["share"])[:3]
    if not largest:
        return f"Map of {data.title}: nothing is mapped."
    parts = ", ".join(f"{row['name']} ({_percent(row['share'])} %)" for row in largest)
    return f"Map of {data.title}. Largest classes: {parts}."


def _score_rows(data: ReportData) -> list[dict[str, Any]]:
    """Scores of the model and the baseline side by side, in the order of the legend."""
    sides = [_by_name(data.model), _by_name(data.baseline)]
    names = [item.name for item in data.classes]
    names += [name for side in sides for name in side if name not in names]
    colours = {item.name: item.colour for item in data.classes}
    rows = []
    for name in dict.fromkeys(names):
        model, baseline = (side.get(name) for side in sides)
        known = model or baseline
        if known is not None:
            rows.append(
                {"name": name, "colour": colours.get(name), "model": model, "baseline": baseline, "n": known["n"]}
            )
    return rows


def _by_name(scores: Scores | None) -> dict[str, ClassScore]:
    return {} if scores is None else {row["name"]: row for row in scores["per_class"]}


def _key_figures(data: ReportData) -> list[tuple[str, str]]:
    named = (
        (data.model, f"macro F1 of {data.model_name}"),
        (data.baseline, f"macro F1 of the {data.baseline_name}"),
        (data.guess, "macro F1 of always guessing the commonest class"),
    )
    mark = f"{LEAKS_MARK}: " if data.leak_note else ""
    return [(_score(scores["macro_f1"]), f"{mark}{label}") for scores, label in named if scores is not None]


def _score(value: float | None) -> str:
    """A score with two decimals; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"  # noqa: RUF001


def _bar(value: float | None) -> str:
    """Length of a score's bar, percent."""
    return "0" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _number(value: float, decimals: int = 0) -> str:
    """A number with thousands apart by a narrow no-break space, so that no country reads it as a decimal point."""
    return f"{value:,.{decimals}f}".replace(",", "\u202f")


def _percent(value: float) -> str:
    """A share with one decimal; what is there but too small to show is not shown as nothing."""
    return "< 0.1" if 0 < value < 0.05 else f"{value:.1f}"


def _plural(count: int, one: str, many: str) -> str:
    return f"{_number(count)} {one if count == 1 else many}"
