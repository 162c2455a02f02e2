"""One HTML page about one map: what it shows, how good it is, and what it was made from.

The page opens offline: styles and pictures are inside. It holds no clock of its own, so the same map gives the same
bytes. Each section has a template, ``section_*.html``, and a module that turns the data into what it shows.
"""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from wetmap.classes import MEASURE_RAMP
from wetmap.errors import UsageError
from wetmap.report import (
    section_areas,
    section_compare,
    section_imagery,
    section_scores,
    section_training,
    words,
)
from wetmap.report.data import LEAKS_MARK, ReportData, ScenesUsed
from wetmap.report.picture import Picture, class_picture, measure_picture, scale_bar_m
from wetmap.report.viewer import viewer_view
from wetmap.workspace import write_bytes

__all__ = ["LEAKS_MARK", "ReportData", "ScenesUsed", "write_report"]


def write_report(path: Path, data: ReportData) -> None:
    """Write the page, in one step.

    Args:
        path: The HTML file; its folder exists.
        data: What it says.

    Raises:
        UsageError: A row of areas has a code of no class.
        WorkspaceError: A map cannot be read, or the disk is full.
    """
    # A lone surrogate (from a file name that is not UTF-8) cannot be written; it becomes a question mark.
    page = _environment().get_template("template.html").render(_view(data))
    write_bytes(path, page.encode("utf-8", errors="replace"))


@functools.cache
def _environment() -> jinja2.Environment:
    """The templates; each is compiled once in a process."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wetmap", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        file_size=words.file_size, number=words.number, percent=words.percent, plural=words.plural
    )
    return environment


def _view(data: ReportData) -> dict[str, Any]:
    """What the templates show, in their own words."""
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
        "leak_text": data.leak_note.removeprefix(f"{LEAKS_MARK}: "),
        "figures": [*section_areas.key_figures(data), *section_scores.key_figures(data), *data.figures],
        "figures_note": _figures_note(data),
        "contents": _contents(data),
        "viewer": None if data.viewer is None else viewer_view(data.viewer, simulated=data.simulated),
        **section_areas.view(data),
        **section_scores.view(data),
        **section_compare.view(data),
        **section_training.view(data),
        **section_imagery.view(data),
    }


def _figures_note(data: ReportData) -> str:
    """What the figures at the top are and are not, for a reader who goes no further."""
    assessed, said = bool(section_areas.key_figures(data)), []
    if data.contenders:
        said.append("Macro F1 is the mean F1 over classes, of a model on held-out reference samples, 0 to 1.")
        said += [data.scores_note] if data.scores_note else []
    if data.contenders and not assessed:
        said.append("Such scores are not the accuracy of this map.")
    if not assessed:
        said.append(
            "The hectares below are pixel counts. Accuracy and areas, both with intervals, come from wetmap sample and "
            "wetmap assess."
        )
    return " ".join(said)


def _contents(data: ReportData) -> list[tuple[str, str]]:
    """Sections of the page, in order: (anchor, title)."""
    compared = [("compare", "Models compared")] if data.comparison is not None else []
    return [
        ("map", "The map"),
        ("areas", "How much there is of each class"),
        ("scores", "How good the model is"),
        ("limits", "What this map cannot tell you"),
        ("ground", "Where the model knows the ground"),
        *compared,
        ("training", "How the model was trained"),
        ("imagery", "What it was made from"),
        ("details", "Details"),
    ]


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
        "longest_rem": f"{words.TALLEST_REM * min(1.0, picture.width / picture.height):.2f}",
        "bar_percent": 100 * bar_m / picture.ground_width_m,
        "bar_text": f"{bar_m / 1000:g} km" if bar_m >= 1000 else f"{bar_m:g} m",
    }


def _alt(data: ReportData, legend: Sequence[Mapping[str, Any]]) -> str:
    """The map in words, for those who do not see it: its largest classes."""
    largest = sorted((row for row in legend if row["pixels"]), key=lambda row: -row["share"])[:3]
    if not largest:
        return f"Map of {data.title}: nothing is mapped."
    parts = ", ".join(f"{row['name']} ({words.percent(row['share'])} %)" for row in largest)
    return f"Map of {data.title}. Largest classes: {parts}."
