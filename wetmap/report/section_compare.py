"""The report's section about models that were compared on the same cube."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wetmap.report.compare_table import CompareHead, CompareRow, class_names, in_order
from wetmap.report.data import Comparison, ReportData
from wetmap.report.words import DASH, bounds, embedded, number, score


def view(data: ReportData) -> dict[str, Any]:
    """What the section shows; None where nothing was compared."""
    found = data.comparison
    return {"comparison": None if found is None else _of(found)}


def can_show(table: Mapping[str, Any]) -> bool:
    """Whether a ``compare.json`` holds all that the section shows."""
    try:
        _of(Comparison(table["head"], table["rows"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return True


def _of(found: Comparison) -> dict[str, Any]:
    head = CompareHead(**found.head)
    rows = in_order([CompareRow.from_json(row) for row in found.rows])
    names = class_names(rows)
    best = next((row for row in rows if row.macro_f1 is not None), None)
    fast = max((row for row in rows if row.pixels_per_s), key=lambda row: row.pixels_per_s or 0, default=None)
    said = "" if best is None else f" Best macro F1: {best.model}, {score(best.macro_f1)}."
    said += "" if fast is None else f" Fastest: {fast.model}, {number(fast.pixels_per_s or 0)} pixels per second."
    return {
        "mark": head.mark,
        "leaks": bool(head.leaks),
        "split": head.split,
        "notes": list(head.notes),
        "names": names,
        "rows": [_row(row) for row in rows],
        "classes": [{"model": row.model, "f1": [score(row.class_f1.get(name)) for name in names]} for row in rows],
        "plot": None if found.plot_png is None else embedded(found.plot_png),
        "plot_alt": f"Chart of macro F1 against speed of {len(rows)} models.{said}",
    }


def _row(row: CompareRow) -> dict[str, Any]:
    return {
        "model": row.model,
        "macro": score(row.macro_f1),
        "macro_bounds": bounds(row.macro_f1_interval),
        "gain": DASH if row.difference is None else f"{row.difference:+.2f}",
        "gain_bounds": "" if row.difference_interval is None else "{:+.2f} to {:+.2f}".format(*row.difference_interval),
        "accuracy": score(row.overall_accuracy),
        "ece": DASH if row.ece_after is None else f"{row.ece_after:.3f}",
        "parameters": DASH if row.parameters is None else number(row.parameters),
        "speed": DASH if row.pixels_per_s is None else number(row.pixels_per_s),
        "note": row.note,
    }
