"""Tables of change, and its lines for people: what two maps say of each other, and what a sample says of both."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from wetmap.stages.change import BASIS, Change
from wetmap.stages.hectares_text import decimals, hectares_text
from wetmap.workspace import spreadsheet_cell, write_bytes, write_json

#: Transitions that the verb prints; the table has all.
LISTED = 12
#: The sample that is advised: points of each entry of the map of change (Olofsson et al. 2014, section 5.1.2, take 50
#: to 100 for rare ones), more for those that are large, and fewest in all.
LEAST_POINTS, MORE_POINTS, LEAST_SAMPLE = 50, 300, 600
#: Said wherever pixels of two maps are compared.
CAUTION = (
    "These are pixel counts, not estimates. Comparing two maps multiplies their errors: of two that are each right in "
    "85 % of the pixels, and err in different places, both are right in 72 %, and most errors show as change. Hectares "
    "of change come from a sample of the map of change."
)
#: Figures of a class's change, and what they are called.
FIGURES = ("before", "after", "gain", "loss", "net")
ENDS = ("value", "low", "high", "se")


def summary_of(change: Change) -> dict[str, Any]:
    """What ``wetmap change`` found, as plain data."""
    table, counts = change.table, change.counts
    names = {item.code: item.name for item in table.classes}
    code_of = {pair: row for row in table.shown for pair in row.pairs}
    total = sum(counts.hectares.values())
    rows = [
        {
            "before": names[b],
            "after": names[a],
            "pixels": counts.pixels[b, a],
            "hectares": counts.hectares[b, a],
            "share_percent": 100 * counts.hectares[b, a] / total,
            "code": code_of[b, a].code,
            "shown_as": code_of[b, a].name,
        }
        for b, a in counts.pixels
    ]
    changed = sum(ha for (b, a), ha in counts.hectares.items() if b != a)
    return {
        "before": table.before,
        "after": table.after,
        "before_sha256": table.before_sha256,
        "after_sha256": table.after_sha256,
        "basis": BASIS,
        "simulated": change.simulated,
        "hectares": total,
        "changed_ha": changed,
        "left_out_ha": {"only_before": counts.only_before_ha, "only_after": counts.only_after_ha},
        "transitions": rows,
        "grouped": [
            {"name": row.name, "pairs": len(row.pairs), "hectares": sum(counts.hectares[pair] for pair in row.pairs)}
            for row in table.shown
            if len(row.pairs) > 1
        ],
    }


def write_change_tables(folder: Path, change: Change) -> dict[str, Path]:
    """Write transitions.csv, matrix.csv and change.json; the same maps give the same bytes."""
    told = summary_of(change)
    write_json(folder / "change.json", told)
    basis = _basis(told["simulated"])
    rows = [["code", "before", "after", "pixels", "hectares", "share_percent", "shown_as", "basis"]]
    rows += [
        [
            str(row["code"]),
            row["before"],
            row["after"],
            str(row["pixels"]),
            f"{row['hectares']:.4f}",
            f"{row['share_percent']:.4f}",
            row["shown_as"],
            basis,
        ]
        for row in told["transitions"]
    ]
    write_table(folder / "transitions.csv", rows)
    write_table(folder / "matrix.csv", list(_matrix(change, basis)))
    return {name: folder / name for name in ("change.json", "transitions.csv", "matrix.csv")}


def change_lines(change: Change, tif: Path) -> list[str]:
    """What ``wetmap change`` prints."""
    told = summary_of(change)
    out = ["SIMULATED: these maps show no real place."] if told["simulated"] else []
    share = 100 * told["changed_ha"] / told["hectares"]
    left_out = sum(told["left_out_ha"].values())
    out.append(
        f"{told['before']} to {told['after']}: {told['hectares']:,.1f} ha compared, {left_out:,.1f} ha left out (no "
        f"class in one of the maps); {hectares_text(told['changed_ha'], least=1)} ha ({share:.1f} %) differ."
    )
    rows = sorted((row for row in told["transitions"] if row["before"] != row["after"]), key=lambda row: -row["pixels"])
    names = [f"{row['before']} -> {row['after']}" for row in rows]
    width = max((len(name) for name in names[:LISTED]), default=0)
    places = decimals([row["hectares"] for row in rows[:LISTED]], least=1)
    out += [
        f"  {name:<{width}}  {row['hectares']:>10,.{places}f} ha"
        for name, row in zip(names[:LISTED], rows, strict=False)
    ]
    if len(rows) > LISTED:
        out.append(f"  ... and {len(rows) - LISTED} more in transitions.csv")
    out += [
        f"{row['name']} stands for {row['pairs']} pairs of classes, {hectares_text(row['hectares'], least=1)} ha "
        "together."
        for row in told["grouped"]
    ]
    out += [
        CAUTION,
        f"Map of change: {tif}, with transitions.csv and matrix.csv beside it.",
        *_next(change, tif),
    ]
    return out


def _next(change: Change, tif: Path) -> list[str]:
    """How to draw the sample: points for each entry of the map of change, and more for the large ones."""
    pixels = [sum(change.counts.pixels[pair] for pair in row.pairs) for row in change.table.shown]
    if all(b == a for b, a in change.counts.pixels):
        return ["The two maps say the same everywhere: there is no change to sample."]
    wanted = max(LEAST_SAMPLE, 100 * math.ceil((LEAST_POINTS * len(pixels) + MORE_POINTS) / 100))
    units = min(wanted, sum(pixels))
    out = [f"Next: wetmap sample --map {quote(str(tif))} --units {units} --least {LEAST_POINTS}"]
    if units > LEAST_SAMPLE:
        out.append(
            f"The map of change has {len(pixels)} entries, and each needs its points: a larger --least-ha, or --stable "
            "one, makes fewer."
        )
    return out


def write_estimates(folder: Path, result: Mapping[str, Any]) -> dict[str, Path]:
    """Write change.csv, what a sample says of every class's gain and loss; nothing where it says nothing of change."""
    if "change" not in result:
        return {}
    basis = f"{'SIMULATED; ' if result['simulated'] else ''}{result['design']} sample, 95 % intervals"
    rows = [["class", *(f"{figure}_ha_{end}" for figure in FIGURES for end in ENDS), "basis"]]
    for row in result["change"]:
        cells = [f"{row[figure][end]:.6g}" for figure in FIGURES for end in ENDS]
        rows.append([row["class"], *cells, basis])
    write_table(folder / "change.csv", rows)
    return {"change.csv": folder / "change.csv"}


def estimate_lines(result: Mapping[str, Any]) -> list[str]:
    """What ``wetmap assess`` prints of change; nothing where the sample says nothing of it."""
    if "change" not in result:
        return []
    width = max(len("class"), *(len(row["class"]) for row in result["change"]))
    heads = ("gain, ha", "loss, ha", "net change, ha")
    out = ["Change of each class, hectares with 95 % intervals:"]
    out.append(f"{'class':<{width}}  " + "  ".join(f"{head:>26}" for head in heads))
    out += [
        f"{row['class']:<{width}}  "
        + "  ".join(f"{_hectares(row[figure], signed=figure == 'net'):>26}" for figure in ("gain", "loss", "net"))
        for row in result["change"]
    ]
    return out


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a table that a spreadsheet opens; a name that it would take for a formula is made text.

    Raises:
        WorkspaceError: The disk is full.
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([spreadsheet_cell(cell) for cell in row] for row in rows)
    content = text.getvalue()
    write_bytes(path, content.encode("ascii" if content.isascii() else "utf-8-sig"))


def _matrix(change: Change, basis: str) -> Iterator[list[str]]:
    """Hectares by class before (rows) and after (columns), with sums."""
    classes, hectares = change.table.classes, change.counts.hectares
    yield ["before \\ after, hectares", *(item.name for item in classes), "all", "basis"]
    for row in classes:
        cells = [hectares.get((row.code, col.code), 0.0) for col in classes]
        yield [row.name, *(f"{cell:.4f}" for cell in cells), f"{sum(cells):.4f}", basis]
    sums = [sum(hectares.get((row.code, col.code), 0.0) for row in classes) for col in classes]
    yield ["all", *(f"{cell:.4f}" for cell in sums), f"{sum(sums):.4f}", basis]


def _basis(simulated: bool) -> str:
    return f"SIMULATED; {BASIS}" if simulated else BASIS


def _hectares(figure: Mapping[str, Any], *, signed: bool) -> str:
    places = decimals([figure["value"] or figure["high"]], least=1)
    if signed:
        form = f"+,.{places}f"
        return f"{figure['value']:{form}} ({figure['low']:{form}} to {figure['high']:{form}})"
    form = f",.{places}f"
    return f"{figure['value']:{form}} ({figure['low']:{form}} to {figure['high']:{form}})"
