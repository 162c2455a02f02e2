"""The table of ``wetmap compare``: every model on the same folds, as CSV, Markdown and JSON.

Pure text from rows; the best macro F1 comes first. What was simulated or leaks is said on top of the Markdown, in the
head of the JSON, and in every row of the CSV, whose rows travel alone.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

#: Characters that Markdown or HTML would read as more than themselves.
_MARKDOWN = {character: "\\" + character for character in "\\`*_[]|~$#!"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
#: First characters that make a spreadsheet take a text for a formula.
_FORMULA = ("=", "+", "-", "@")

Interval = tuple[float, float]


@dataclass(frozen=True)
class CompareRow:
    """One model of a comparison. None is what is not known or does not apply."""

    model: str
    """Name."""
    answers: str
    """What it answers for: ``window``, ``dense`` or ``pixel``."""
    parameters: int | None = None
    """Trained numbers; None for trees."""
    macs_per_pixel: float | None = None
    """Multiply-adds per pixel of the map."""
    training_s: float | None = None
    """Training time, seconds."""
    epochs: int | None = None
    """Epochs trained."""
    best_epoch: int | None = None
    """Epoch whose weights were kept, counted from 1."""
    macro_f1: float | None = None
    """On the test fold, 0-1."""
    macro_f1_interval: Interval | None = None
    """Its interval over groups."""
    overall_accuracy: float | None = None
    """On the test fold, 0-1."""
    class_f1: Mapping[str, float | None] = field(default_factory=dict)
    """F1 by class name, 0-1."""
    ece_before: float | None = None
    """Expected calibration error on the test fold without the temperature, 0-1."""
    ece_after: float | None = None
    """The same with it."""
    pixels_per_s: float | None = None
    """Pixels mapped per second on this machine."""
    difference: float | None = None
    """Macro F1 less that of the forest on the same samples."""
    difference_interval: Interval | None = None
    """Its interval, paired over groups."""
    note: str = ""
    """What else to know, one line."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back; what is no finite number becomes null."""
        return {key: _json_value(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompareRow:
        """Rebuild a row written by ``to_json``."""
        pairs = {key: tuple(data[key]) for key in ("macro_f1_interval", "difference_interval") if data.get(key)}
        return cls(**{**data, **pairs})


@dataclass(frozen=True)
class CompareHead:
    """What is true of all rows."""

    title: str
    """What was compared, where."""
    split: str = ""
    """How the folds were made, in words."""
    samples: int | None = None
    """Test samples."""
    groups: int | None = None
    """Groups that they lie in, over which the intervals are."""
    level: float = 0.95
    """Nominal coverage of the intervals, 0-1."""
    simulated: bool = False
    """True when imagery or labels were simulated."""
    leaks: str = ""
    """Name of a split whose training windows overlap the test windows; empty when none do."""
    notes: Sequence[str] = ()
    """Further sentences."""

    @property
    def mark(self) -> str | None:
        """What must be said beside every figure, for charts too; None when nothing."""
        return mark_of(simulated=self.simulated, leaks=self.leaks)


def mark_of(*, simulated: bool, leaks: str = "") -> str | None:
    """The words that mark a figure: ``SIMULATED``, ``LEAKS: <split>``, both, or None."""
    parts = (["SIMULATED"] if simulated else []) + ([f"LEAKS: {leaks} split"] if leaks else [])
    return ", ".join(parts) or None


def in_order(rows: Sequence[CompareRow]) -> list[CompareRow]:
    """Rows by macro F1, the best first; those without come last; equals by name."""
    return sorted(rows, key=lambda row: (-_known(row.macro_f1, -math.inf), row.model))


def class_names(rows: Sequence[CompareRow]) -> list[str]:
    """Names of the classes of all rows, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.class_f1))


def compare_csv(rows: Sequence[CompareRow], head: CompareHead) -> str:
    """The table as CSV: numbers in full, bounds in columns of their own."""
    names = class_names(rows)
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    plain = [item.name for item in fields(CompareRow) if item.name not in ("class_f1", "note")]
    columns = [part for name in plain for part in ((f"{name}_low", f"{name}_high") if "_interval" in name else (name,))]
    writer.writerow([*columns, *(_cell(f"f1 {name}") for name in names), "mark", "note"])
    for row in in_order(rows):
        values: list[Any] = []
        for name in plain:
            value = getattr(row, name)
            values += (value or (None, None)) if "_interval" in name else [value]
        values += [row.class_f1.get(name) for name in names]
        writer.writerow([_cell(value) for value in (*values, head.mark or "", row.note)])
    return target.getvalue()


def compare_json(rows: Sequence[CompareRow], head: CompareHead) -> str:
    """The table as JSON: ``head``, ``mark`` and ``rows``, which ``CompareRow.from_json`` reads."""
    data = {"head": asdict(head), "mark": head.mark, "rows": [row.to_json() for row in in_order(rows)]}
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def compare_markdown(rows: Sequence[CompareRow], head: CompareHead) -> str:
    """The table as Markdown for GitHub, its columns in line; a second table has the F1 of each class."""
    ordered = in_order(rows)
    percent = f"{100 * head.level:g} %"
    columns = {
        "model": [_text(row.model) for row in ordered],
        "answers": [_text(row.answers) for row in ordered],
        f"macro F1 [{percent}]": [_with_interval(row.macro_f1, row.macro_f1_interval) for row in ordered],
        f"against forest [{percent}]": [
            _with_interval(row.difference, row.difference_interval, sign="+") for row in ordered
        ],
        "accuracy": [_score(row.overall_accuracy) for row in ordered],
        "ECE": [_score(row.ece_before) for row in ordered],
        "ECE calibrated": [_score(row.ece_after) for row in ordered],
        "parameters": [_whole(row.parameters) for row in ordered],
        "MACs / px": [_short(row.macs_per_pixel) for row in ordered],
        "px / s": [_whole(row.pixels_per_s) for row in ordered],
        "training": [_duration(row.training_s) for row in ordered],
        "epochs (best)": [_epochs(row) for row in ordered],
        "note": [_text(row.note) for row in ordered],
    }
    parts = [f"# {_text(head.title)}"]
    parts += [f"> **{_text(head.mark)}**"] if head.mark else []
    parts += [" ".join(_sentences(head))] if _sentences(head) else []
    parts += [_table(columns, text=("model", "answers", "note"))]
    names = class_names(ordered)
    if names:
        by_class = {"model": columns["model"]}
        for name in names:
            by_class[_text(name)] = [_score(row.class_f1.get(name)) for row in ordered]
        parts += ["F1 of each class:", _table(by_class, text=("model",))]
    parts += [_text(note) for note in head.notes]
    return "\n\n".join(parts) + "\n"


def compare_lines(rows: Sequence[CompareRow], head: CompareHead) -> list[str]:
    """The table for a terminal, narrower than the Markdown; what a model's note says stands below it."""
    ordered = in_order(rows)
    columns = {
        "model": [" ".join(row.model.split()) for row in ordered],
        "macro F1": [_with_interval(row.macro_f1, row.macro_f1_interval) for row in ordered],
        "against forest": [_with_interval(row.difference, row.difference_interval, sign="+") for row in ordered],
        "accuracy": [_score(row.overall_accuracy) for row in ordered],
        "px / s": [_whole(row.pixels_per_s) for row in ordered],
        "training": [_duration(row.training_s) for row in ordered],
    }
    notes = [f"{' '.join(row.model.split())}: {' '.join(row.note.split())}" for row in ordered if row.note]
    return [*([head.mark] if head.mark else []), *_table(columns, text=("model",)).splitlines(), *notes]


def _sentences(head: CompareHead) -> list[str]:
    found = [f"Split: {_text(head.split)}."] if head.split else []
    if head.samples is not None:
        inside = "" if head.groups is None else f" in {_whole(head.groups)} groups"
        found.append(f"Test samples: {_whole(head.samples)}{inside}.")
    if head.groups is not None:
        found.append(f"Intervals are {100 * head.level:g} %, over groups.")
    return found


def _table(columns: Mapping[str, Sequence[str]], *, text: Sequence[str]) -> str:
    """A table whose columns are in line: text to the left, numbers to the right."""
    lines: list[list[str]] = [[] for _ in range(2 + max(map(len, columns.values()), default=0))]
    for title, cells in columns.items():
        width = max(3, len(title), *map(len, cells)) if cells else max(3, len(title))
        left = title in text
        rule = "-" * width if left else "-" * (width - 1) + ":"
        padded = [cell.ljust(width) if left else cell.rjust(width) for cell in (title, *cells)]
        for line, cell in zip(lines, (padded[0], rule, *padded[1:]), strict=True):
            line.append(cell)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> Any:
    """A value of the CSV: a text that a spreadsheet would run as a formula is kept a text by an apostrophe."""
    if isinstance(value, str):
        line = " ".join(value.split())
        return f"'{line}" if line.startswith(_FORMULA) else line
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: str | None) -> str:
    return "".join(_MARKDOWN.get(character, character) for character in " ".join((value or "").split()))


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or not math.isfinite(value) else value


def _score(value: float | None, sign: str = "") -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:{sign}.3f}"  # noqa: RUF001


def _with_interval(value: float | None, interval: Interval | None, sign: str = "") -> str:
    bounds = "" if interval is None else f" [{_score(interval[0], sign)}, {_score(interval[1], sign)}]"
    return _score(value, sign) + bounds


def _whole(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.0f}"  # noqa: RUF001


def _short(value: float | None) -> str:
    """A large number with three digits and k, M or G."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _duration(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "–"  # noqa: RUF001
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _epochs(row: CompareRow) -> str:
    if row.epochs is None:
        return "–"  # noqa: RUF001
    return str(row.epochs) if row.best_epoch is None else f"{row.epochs} ({row.best_epoch})"
