"""What an assessment says, as lines for people and as tables for a spreadsheet."""

from __future__ import annotations

import csv
import errno
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wetmap.errors import WorkspaceError, full_disk
from wetmap.stages.hectares_text import decimals, hectares_text
from wetmap.workspace import spreadsheet_cell, write_bytes, write_json

#: Said of every figure that does not come from a probability sample.
AGREEMENT = "agreement with points that were not drawn at random: it holds for these points, not for the map"


def write_files(folder: Path, result: Mapping[str, Any]) -> dict[str, Path]:
    """Write accuracy.json, accuracy.csv and error_matrix.csv; the same result gives the same bytes.

    Raises:
        WorkspaceError: They cannot be written.
    """
    try:
        return _write_files(folder, result)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise full_disk(error) from error
        raise WorkspaceError(
            f"The tables cannot be written into {folder} ({error.strerror}).",
            do="Close them where a spreadsheet has them open, or name another folder with --output.",
        ) from error


def _write_files(folder: Path, result: Mapping[str, Any]) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [row["class"] for row in result["classes"]]
    probability = result["basis"] == "probability sample"
    write_json(folder / "accuracy.json", dict(result))
    matrix = [["map \\ reference", *names]]
    for name, row in zip(names, result["matrix"], strict=True):
        matrix.append([name, *(f"{cell:.6f}" if probability else str(cell) for cell in row)])
    _write_csv(folder / "error_matrix.csv", matrix)
    _write_csv(folder / "accuracy.csv", list(_table(result)))
    return {name: folder / f"{name}" for name in ("accuracy.json", "accuracy.csv", "error_matrix.csv")}


def _table(result: Mapping[str, Any]) -> Iterator[list[str]]:
    if result["basis"] != "probability sample":
        yield ["class", "mapped", "seen", "agreed", "basis"]
        told = f"SIMULATED; {AGREEMENT}" if result["simulated"] else AGREEMENT
        for row in result["classes"]:
            yield [row["class"], str(row["mapped"]), str(row["seen"]), str(row["agreed"]), told]
        return
    figures = ("hectares", "users", "producers")
    ends = ("value", "low", "high", "se")
    yield ["class", "sampled", "seen", "mapped_ha", *(f"{figure}_{end}" for figure in figures for end in ends), "basis"]
    basis = f"{'SIMULATED; ' if result['simulated'] else ''}{result['design']} sample, 95 % intervals"
    for row in result["classes"]:
        cells = [row["class"], str(row["sampled"]), str(row["seen"]), f"{row['mapped_ha']:.4f}"]
        for figure in figures:
            cells += [_cell(row[figure], end) for end in ends]
        yield [*cells, basis]


def _cell(figure: Mapping[str, Any] | None, end: str) -> str:
    return "" if figure is None or figure[end] is None else f"{figure[end]:.6g}"


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([spreadsheet_cell(cell) for cell in row] for row in rows)
    content = text.getvalue()
    write_bytes(path, content.encode("ascii" if content.isascii() else "utf-8-sig"))


def lines(result: Mapping[str, Any]) -> list[str]:
    """What the verb prints."""
    return _agreement_lines(result) if result["basis"] == "agreement" else _sample_lines(result)


def _sample_lines(result: Mapping[str, Any]) -> list[str]:
    out = ["SIMULATED: this map shows no real place."] if result["simulated"] else []
    out.append(
        f"{result['interpreted']} of {result['units']} units of a {result['design']} sample of "
        f"{result['hectares']:,.0f} ha; 95 % intervals."
    )
    if result["away_m"] is not None:
        out.append(
            f"The figures describe the area farther than {result['away_m']:g} m from the training polygons; "
            f"{result['left_out_ha']:,.0f} ha are nearer."
        )
    width = max(len("class"), *(len(row["class"]) for row in result["classes"]))
    out.append(
        f"{'class':<{width}}  {'hectares':>24}  {'mapped':>10}  {'users accuracy':>18}  {'producers accuracy':>18}  n"
    )
    out += [
        f"{row['class']:<{width}}  {_hectares(row['hectares']):>24}  {hectares_text(row['mapped_ha']):>10}  "
        f"{_share(row['users']):>18}  {_share(row['producers']):>18}  {row['sampled']}"
        for row in result["classes"]
    ]
    out.append(f"Overall accuracy: {_share(result['overall'])}")
    out.append(
        f"Disagreement: {result['quantity_disagreement']:.3f} in how much of each class there is, "
        f"{result['allocation_disagreement']:.3f} in where it is"
    )
    if result["kappa"] is not None:
        out.append(f"Kappa (says nothing that the others do not say better): {result['kappa']:.3f}")
    second = result.get("second")
    if second:
        doubt = "" if second["se"] is None else f" (standard error {second['se']:.3f})"
        out.append(
            f"Second interpreter: differs in {second['differ']} of {second['common']} units, "
            f"{second['share_of_area']:.3f} of the area{doubt}"
        )
    return out


def _agreement_lines(result: Mapping[str, Any]) -> list[str]:
    out = ["SIMULATED: this map shows no real place."] if result["simulated"] else []
    out.append(f"{result['used']} of {result['points']} points compared: {AGREEMENT}.")
    width = max(len("class"), *(len(row["class"]) for row in result["classes"]))
    out.append(f"{'class':<{width}}  {'mapped':>7}  {'seen':>7}  {'agreed':>7}")
    out += [
        f"{row['class']:<{width}}  {row['mapped']:>7}  {row['seen']:>7}  {row['agreed']:>7}"
        for row in result["classes"]
    ]
    out.append(f"Agreement: {result['overall']:.3f}. No area follows from it; draw a sample with wetmap sample.")
    return out


def _hectares(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    places = decimals([figure["value"] or figure["high"]])
    value, low, high = (f"{figure[end]:,.{places}f}" for end in ("value", "low", "high"))
    return f"{value} ({low}-{high})"


def _share(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.2f} (-)"  # certain by definition
    return f"{figure['value']:.2f} ({figure['low']:.2f}-{figure['high']:.2f})"
