"""The report's section about hectares: with intervals from an assessment, or what to do for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wetmap.report.data import ReportData
from wetmap.report.words import hectares, nice_ticks, score, tick

#: What a design of `wetmap sample` is called.
DESIGNS = {
    "stratified": "stratified random sample, the strata being the classes of the map",
    "simple": "simple random sample",
    "systematic": "systematic sample on a grid with a random start",
}

#: Hectares below which there is nothing to draw: a hundredth of a square metre.
LEAST_HA = 1e-6


def view(data: ReportData) -> dict[str, Any]:
    """What the section shows: ``kind`` is ``sample``, ``agreement`` or ``none``."""
    colours = {item.name: item.colour for item in data.classes}
    found = data.assessment
    shown: dict[str, Any] = {"kind": "none"}
    if found is not None:
        shown = of_sample(found, colours) if found["basis"] == "probability sample" else of_agreement(found, colours)
    return {"areas": {**shown, "note": data.assessment_note, "commands": list(data.assess_commands)}}


def key_figures(data: ReportData) -> list[tuple[str, str]]:
    """Overall accuracy of an assessed map, for the top of the page: (value, what it is)."""
    found = data.assessment
    if found is None or found["basis"] != "probability sample" or found["overall"] is None:
        return []
    one = found["overall"]
    return [(score(one["value"]), f"overall accuracy of the map (95 %: {score(one['low'])} to {score(one['high'])})")]


def can_show(result: Mapping[str, Any]) -> bool:
    """Whether an assessment holds all that the section shows; one that somebody edited may not."""
    try:
        (of_sample if result["basis"] == "probability sample" else of_agreement)(result, {})
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return False
    return True


def of_sample(result: Mapping[str, Any], colours: Mapping[str, str]) -> dict[str, Any]:
    """An assessment with a probability sample.

    Args:
        result: As `wetmap assess` wrote it.
        colours: Colour by class name.
    """
    rows = [
        {
            "name": row["class"],
            "colour": colours.get(row["class"]),
            "area": _figure(row["hectares"], hectares),
            "mapped": hectares(row["mapped_ha"]),
            "users": _figure(row["users"], score),
            "producers": _figure(row["producers"], score),
            "sampled": int(row["sampled"]),
            "seen": int(row["seen"]),
        }
        for row in result["classes"]
    ]
    design = DESIGNS.get(result["design"], result["design"])
    words = [
        f"{int(result['interpreted'])} of {int(result['units'])} points of a {design}, interpreted by a person; they "
        f"speak for {hectares(result['hectares'])} ha. Intervals are 95 %."
    ]
    if result["poststratified"]:
        words.append("Estimates are poststratified by the classes of the map.")
    if result["away_m"] is not None:
        words.append(
            f"The figures describe the area farther than {result['away_m']:g} m from the training polygons alone; "
            f"{hectares(result['left_out_ha'])} ha are nearer and were not sampled."
        )
    if result.get("map_changed"):
        words.append("The sample was drawn from an earlier map, which makes the intervals wider, not wrong.")
    return {
        "kind": "sample",
        "words": words,
        "rows": rows,
        "chart": area_chart(result["classes"], colours),
        "overall": _figure(result["overall"], score),
        "quantity": score(result["quantity_disagreement"]),
        "allocation": score(result["allocation_disagreement"]),
        "second": _second(result.get("second")),
        "matrix": _matrix(result),
    }


def area_chart(classes: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> dict[str, Any] | None:
    """Bars of hectares with their intervals, places in percent of the axis, and the same in words.

    Args:
        classes: Rows of an assessment.
        colours: Colour by class name.

    Returns:
        None where no class has an area.
    """
    known = [row for row in classes if row["hectares"] is not None]
    top = max((max(row["hectares"]["high"], row["mapped_ha"]) for row in known), default=0.0)
    if top < LEAST_HA:
        return None
    ticks = nice_ticks(top)
    end = ticks[-1]

    def at(value: float) -> str:
        return f"{100 * min(max(value, 0.0), end) / end:.2f}"

    said = "; ".join(
        f"{row['class']} {hectares(row['hectares']['value'])} ({hectares(row['hectares']['low'])} to "
        f"{hectares(row['hectares']['high'])})"
        for row in known
    )
    return {
        "rows": [
            {
                "name": row["class"],
                "colour": colours.get(row["class"], "#8a9791"),
                "value": at(row["hectares"]["value"]),
                "low": at(row["hectares"]["low"]),
                "high": at(row["hectares"]["high"]),
                "mapped": at(row["mapped_ha"]),
            }
            for row in known
        ],
        "ticks": [{"at": at(value), "text": tick(value)} for value in ticks],
        "alt": f"Estimated hectares of each class with 95 % intervals: {said}.",
    }


def of_agreement(result: Mapping[str, Any], colours: Mapping[str, str]) -> dict[str, Any]:
    """A comparison with points that nobody drew at random: counts, no interval.

    Args:
        result: As `wetmap assess` wrote it.
        colours: Colour by class name.
    """
    left = [f"{int(count)} {why}" for why, count in result["left_out"].items() if count]
    return {
        "kind": "agreement",
        "used": int(result["used"]),
        "points": int(result["points"]),
        "left_out": ", ".join(left),
        "overall": score(result["overall"]),
        "rows": [
            {
                "name": row["class"],
                "colour": colours.get(row["class"]),
                **{key: int(row[key]) for key in ("mapped", "seen", "agreed")},
            }
            for row in result["classes"]
        ],
    }


def _figure(found: Mapping[str, Any] | None, words: Any) -> dict[str, str] | None:
    if found is None:
        return None
    if found["low"] is None:  # certain by definition, such as the producer's accuracy of a class that the map lacks
        return {"value": words(found["value"]), "low": "", "high": ""}
    return {"value": words(found["value"]), "low": words(found["low"]), "high": words(found["high"])}


def _second(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    doubt = "" if found["se"] is None else f" (standard error {found['se']:.3f})"
    return (
        f"A second interpreter saw something else in {int(found['differ'])} of {int(found['common'])} points: "
        f"{found['share_of_area']:.3f} of the area{doubt}."
    )


def _matrix(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shares of the area in percent, by class of the map (rows) and what was seen (columns)."""
    names = [row["class"] for row in result["classes"]]
    return [
        {"name": name, "cells": [f"{100 * float(cell):.1f}" for cell in row]}
        for name, row in zip(names, result["matrix"], strict=True)
    ]
