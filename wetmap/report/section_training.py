"""The report's section about the training: how samples were kept apart, learning curves, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wetmap.report.data import ReportData
from wetmap.report.words import embedded, number

#: What a curve is called, by its key in the history.
CURVES = (
    ("loss", "training loss"),
    ("validation_loss", "validation loss"),
    ("validation_macro_f1", "validation macro F1"),
)

#: Roles of samples, and what they are called.
ROLES = (("train", "Training"), ("validation", "Validation"), ("test", "Test, held out"), ("dropped", "Dropped"))


def view(data: ReportData) -> dict[str, Any]:
    """What the section shows."""
    return {
        "split": None if data.split_png is None else embedded(data.split_png),
        "samples": samples_by_role(data),
        "roles": [title for _, title in ROLES],
        "charts": [
            {"title": one.title, "alt": one.alt, "read": one.read, "picture": embedded(one.png)} for one in data.charts
        ],
        "calibration": None if data.calibration is None else calibration(data.calibration),
    }


def samples_by_role(data: ReportData) -> list[dict[str, Any]]:
    """Samples of each class by role, in the order of the legend; empty where they are not known."""
    colours = {item.name: item.colour for item in data.classes}
    names = [item.name for item in data.classes if item.name in data.split_counts]
    names += [name for name in data.split_counts if name not in colours]
    return [
        {
            "name": name,
            "colour": colours.get(name),
            "counts": [data.split_counts[name].get(role, 0) for role, _ in ROLES],
        }
        for name in names
    ]


def learning_words(history: Sequence[Mapping[str, Any]], best_epoch: int | None) -> str:
    """Learning curves in words: where each began, ended, and the epoch that was kept (counted from 1).

    Args:
        history: A row per epoch.
        best_epoch: The epoch that was kept, from 0.
    """
    parts = []
    for key, name in CURVES:
        values = [float(row[key]) for row in history if row.get(key) is not None]
        if values:
            parts.append(f"{name} from {values[0]:.3f} to {values[-1]:.3f}")
    kept = "" if best_epoch is None else f" Epoch {best_epoch + 1} was kept."
    epochs = "1 epoch" if len(history) == 1 else f"{len(history)} epochs"
    return f"Learning curves over {epochs}: {', '.join(parts) or 'no figures'}.{kept}"


def reliability_words(card: Mapping[str, Any]) -> str:
    """The reliability diagram in words."""
    if card.get("test_ece_before") is None:
        return f"Reliability diagram; temperature {card['temperature']:.2f}."
    return (
        f"Reliability diagram of the held-out pixels. Expected calibration error {card['test_ece_before']:.3f} before "
        f"and {card['test_ece_after']:.3f} after calibration, temperature {card['temperature']:.2f}."
    )


def calibration(card: Mapping[str, Any]) -> dict[str, Any]:
    """Calibration errors before and after: of the samples it was fitted on, and of the held-out ones."""
    rows = [(f"validation pixels, on which it was fitted ({number(card['n'])})", card["ece_before"], card["ece_after"])]
    before, after = card.get("test_ece_before"), card.get("test_ece_after")
    if before is not None and after is not None:
        rows.insert(0, ("held-out pixels", before, after))
    return {
        "temperature": f"{card['temperature']:.2f}",
        "rows": [{"of": of, "before": f"{one:.3f}", "after": f"{other:.3f}"} for of, one, other in rows],
        "worse": before is not None and after is not None and after > before,
    }
