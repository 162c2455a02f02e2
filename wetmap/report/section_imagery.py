"""The report's section about imagery: scenes, clear looks, shifts, and where the model knows the ground."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wetmap.report.data import ReportData
from wetmap.report.words import embedded, hectares, percent

#: Numbers of clear looks that are told apart: first and last of each, the last one open. The first three are those that
#: warnings speak of: none, and too few for a median to outvote one wrong look.
LOOKS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 9), (10, None))
#: Their colours, few to many: vermilion to blue, of rising darkness beyond the middle.
COLOURS = ("#b34700", "#e69f00", "#f4d58d", "#bcd7e8", "#56b4e9", "#0072b2")


def view(data: ReportData) -> dict[str, Any]:
    """What the section shows."""
    return {
        "scenes_used": sum(row.used for row in data.scenes) if data.scenes_used is None else data.scenes_used,
        "looks": clear_looks(data.clear_looks),
        "shifts": None if data.shifts_png is None else embedded(data.shifts_png),
        "ground": ground(data.applicability),
    }


def clear_looks(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Hectares by number of clear looks, a bar and a row per season.

    Args:
        rows: Season, ``hectares_by_looks`` (0, 1, ..., the last "or more") and their sum, hectares.

    Returns:
        None without seasons.
    """
    if not rows:
        return None
    shown = []
    for row in rows:
        sums = [math.fsum(row["hectares_by_looks"][low : None if high is None else high + 1]) for low, high in LOOKS]
        whole = math.fsum(sums)
        shares = [100 * value / whole if whole else 0.0 for value in sums]
        starts = [math.fsum(shares[:at]) for at in range(len(shares))]
        shown.append(
            {
                "season": row["season"],
                "cells": [
                    {"hectares": hectares(value), "share": percent(share)}
                    for value, share in zip(sums, shares, strict=True)
                ],
                "parts": [
                    {"at": f"{start:.2f}", "width": f"{share:.2f}", "colour": colour}
                    for start, share, colour in zip(starts, shares, COLOURS, strict=True)
                    if share > 0
                ],
                "said": ", ".join(
                    f"{percent(share)} % {name}" for share, name in zip(shares, _names(), strict=True) if share > 0
                ),
            }
        )
    return {
        "names": [{"text": text, "colour": colour} for text, colour in zip(_names(), COLOURS, strict=True)],
        "rows": shown,
        "alt": "Share of the area by number of clear looks. "
        + " ".join(f"{row['season']}: {row['said']}." for row in shown),
    }


def _names() -> list[str]:
    words = [
        f"{low}" if low == high else f"{low} or more" if high is None else f"{low} to {high}" for low, high in LOOKS
    ]
    return [f"{word} {'look' if word == '1' else 'looks'}" for word in words]


def ground(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Hectares inside and outside the area of applicability, and their shares."""
    if found is None:
        return None
    inside, outside = float(found["hectares_inside"]), float(found["hectares_outside"])
    whole = inside + outside
    share = 100 * outside / whole if whole else 0.0
    return {
        "inside": hectares(inside),
        "outside": hectares(outside),
        "inside_percent": percent(100 - share if whole else 0.0),
        "outside_percent": percent(share),
        "width": f"{share:.2f}",
        "threshold": f"{found['threshold']:.3f}",
        "samples": found.get("samples"),
        "alt": f"{percent(share)} % of the area is outside the area of applicability.",
    }
