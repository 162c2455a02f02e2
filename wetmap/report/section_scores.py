"""The report's section about held-out scores: contenders side by side, intervals, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wetmap.report.data import Bounds, ClassScore, Contender, ReportData
from wetmap.report.words import DASH, bounds, number, percent, score

#: Colour and shape of each contender in the chart: Okabe and Ito (2008), "Color Universal Design", darkest first; never
#: told by colour alone.
LOOKS = (("#0072b2", "round"), ("#b34700", "square"), ("#00795a", "hollow"), ("#595959", "bar"), ("#8a4f7d", "round"))
#: Ends of the shading of a confusion matrix: right answers, and wrong ones. On both, and on all that lies between them
#: and white, letters of the page's ink (#1d2b2a) have a contrast above 5.
RIGHT, WRONG = (95, 176, 168), (240, 165, 100)


def view(data: ReportData) -> dict[str, Any]:
    """What the section shows."""
    names = list(dict.fromkeys([item.name for item in data.classes] + _class_names(data.contenders)))
    colours = {item.name: item.colour for item in data.classes}
    rows: list[dict[str, Any]] = []
    for name in names:
        entries = [_entry(one, name) for one in data.contenders]
        known = next((entry for entry in entries if entry is not None), None)
        if known is not None:
            cells = [_cell(one, entry) for one, entry in zip(data.contenders, entries, strict=True)]
            rows.append({"name": name, "colour": colours.get(name), "n": known["n"], "cells": cells})
    return {
        "scores": {
            "contenders": [_head(one, data.guess_class) for one in data.contenders],
            "rows": rows,
            "n": sum(row["n"] for row in rows),
            "macro": [_whole(one.scores["macro_f1"], one.macro_bounds) for one in data.contenders],
            "overall": [_whole(one.scores["overall_accuracy"], one.overall_bounds) for one in data.contenders],
            "groups": next((one.groups for one in data.contenders if one.groups is not None), None),
            "notes": list(dict.fromkeys(one.note for one in data.contenders if one.note)),
            "bounded": any(one.class_bounds or one.macro_bounds for one in data.contenders),
            "chart": f1_chart(data.contenders, [row["name"] for row in rows], data.mark),
            "confusions": [
                confusion(one) for one in data.contenders if one.role != "guess" and one.scores["confusion"]
            ],
        }
    }


def key_figures(data: ReportData) -> list[tuple[str, str]]:
    """Macro F1 of each contender, for the top of the page: (value, what it is)."""
    out = []
    for one in data.contenders:
        what = "always guessing the commonest class" if one.role == "guess" else one.name
        said = f" (95 %: {bounds(one.macro_bounds)})" if one.macro_bounds and one.role == "model" else ""
        out.append((score(one.scores["macro_f1"]), f"{data.mark}macro F1 of {what}{said}"))
    return out


def f1_chart(contenders: Sequence[Contender], names: Sequence[str], mark: str) -> dict[str, Any] | None:
    """F1 of each class and contender with its interval: places in percent, and the same in words.

    Args:
        contenders: In the order of their lanes.
        names: Classes, in order.
        mark: What must stand before every figure.

    Returns:
        None without contenders or classes.
    """
    if not contenders or not names or len(contenders) > len(LOOKS):
        return None
    lane = 100 / (len(contenders) + 0.6)
    rows = []
    for name in names:
        marks = []
        for place, one in enumerate(contenders):
            entry = _entry(one, name)
            if entry is None or score(entry["f1"]) == DASH:
                continue
            pair = one.class_bounds.get(name)
            colour, shape = LOOKS[place]
            marks.append(
                {
                    "y": f"{lane * (place + 0.8):.2f}",
                    "at": f"{100 * (entry['f1'] or 0.0):.2f}",
                    "low": None if pair is None else f"{100 * pair[0]:.2f}",
                    "high": None if pair is None else f"{100 * pair[1]:.2f}",
                    "colour": colour,
                    "shape": shape,
                }
            )
        rows.append({"name": name, "marks": marks})
    return {
        "rows": rows,
        "height_rem": f"{0.5 + 0.62 * len(contenders):.2f}",
        "legend": [
            {"name": one.name, "colour": look[0], "shape": look[1]}
            for one, look in zip(contenders, LOOKS, strict=False)
        ],
        "ticks": [{"at": f"{100 * tick:g}", "text": f"{tick:g}"} for tick in (0, 0.25, 0.5, 0.75, 1)],
        "alt": f"{mark}F1 of each class, with 95 % intervals where known. {_f1_words(contenders[0], names)}",
    }


def _f1_words(one: Contender, names: Sequence[str]) -> str:
    said = []
    for name in names:
        entry = _entry(one, name)
        if entry is not None:
            pair = bounds(one.class_bounds.get(name))
            said.append(f"{name} {score(entry['f1'])}{f' ({pair})' if pair else ''}")
    return f"{one.name}: {', '.join(said)}."


def confusion(one: Contender) -> dict[str, Any]:
    """A confusion matrix as a table: counts, shares of the row (the reference class), and shades.

    Args:
        one: A contender; its rows are the reference, its columns what it answers.
    """
    names = [row["name"] for row in one.scores["per_class"]]
    rows = []
    for at, counts in enumerate(one.scores["confusion"]):
        total = sum(counts)
        cells = [
            {
                "count": count,
                "share": "" if not total else f"{percent(100 * count / total)} %",
                "shade": shade(count / total if total else 0.0, right=column == at),
            }
            for column, count in enumerate(counts)
        ]
        rows.append({"name": names[at], "cells": cells, "n": total})
    return {"name": one.name, "role": one.role, "names": names, "rows": rows, "worst": _worst(names, one)}


def shade(share: float, *, right: bool) -> str:
    """Colour of a cell, ``#rrggbb``: white for none, deeper for a larger share of the row.

    Example:
        >>> shade(0, right=True), shade(1, right=True), shade(1, right=False)
        ('#ffffff', '#5fb0a8', '#f0a564')
    """
    end = RIGHT if right else WRONG
    return "#" + "".join(f"{round(255 + (one - 255) * share):02x}" for one in end)


def _worst(names: Sequence[str], one: Contender) -> str:
    """The commonest mistake as a sentence; empty where nothing was mistaken."""
    pairs = [
        (count / sum(counts), count, names[row], names[column])
        for row, counts in enumerate(one.scores["confusion"])
        for column, count in enumerate(counts)
        if row != column and count
    ]
    if not pairs:
        return ""
    share, count, true, said = max(pairs, key=lambda pair: pair[:2])
    return f"The largest share lost: {percent(100 * share)} % of {true} ({number(count)} pixels) is taken for {said}."


def _class_names(contenders: Sequence[Contender]) -> list[str]:
    return [row["name"] for one in contenders for row in one.scores["per_class"]]


def _entry(one: Contender, name: str) -> ClassScore | None:
    return next((row for row in one.scores["per_class"] if row["name"] == name), None)


def _head(one: Contender, guess_class: str) -> dict[str, Any]:
    of = f" ({guess_class})" if one.role == "guess" and guess_class else ""
    return {"name": f"{one.name}{of}", "role": one.role, "wide": one.role == "model"}


def _cell(one: Contender, entry: ClassScore | None) -> dict[str, Any]:
    known = entry or {"name": "", "precision": None, "recall": None, "f1": None, "n": 0}
    return {
        "precision": score(known["precision"]),
        "recall": score(known["recall"]),
        "f1": score(known["f1"]),
        "bounds": "" if entry is None else bounds(one.class_bounds.get(entry["name"])),
        "wide": one.role == "model",
    }


def _whole(value: float | None, pair: Bounds | None) -> dict[str, str]:
    return {"value": score(value), "bounds": bounds(pair)}
