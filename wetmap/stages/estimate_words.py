"""What a dry run expects of a verb, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What a dry run of fetch tells in lines of its own, or to machines alone.
TOLD = {"scenes_by_month", "read_gb", "read_gb_by_sensor", "hours", "assumed_mb_per_s", "scene_list", "skipped"}
TOLD |= {"typical_looks", "typical_read_gb", "typical_hours", "measured_on", "busy"}
#: Facts of a dry run in words; those without words of their own are named by their keys.
WORDS = {
    "write_gb": "{} to write",
    "write_gb_at_most": "at most {} to write",
    "pixels_per_s_per_worker": "{} pixels a second for each worker",
    "hours": "{} hours",
    "block_px": "blocks of {} pixels a side",
    "samples_per_class_at_most": "at most {} samples per class",
    "epochs_at_most": "at most {} epochs",
}


def facts(told: Mapping[str, Any]) -> str:
    """All facts of a verb in one line; those that are told elsewhere, or not known, are left out."""
    return ", ".join(_fact(key, value) for key, value in told.items() if value is not None and key not in TOLD)


def _fact(key: str, value: Any) -> str:
    """One fact of a dry run in words: ``12 blocks``, ``0.2 GB to write``."""
    if isinstance(value, dict) or key not in WORDS:
        return f"{key.replace('_', ' ')} {_flat(value)}"
    if isinstance(value, str):  # "0.1 and 0.02 for each class", or "not known: ..."
        gb = value.replace(" and ", " GB and ").replace(" for each", " GB for each")
        return WORDS[key].format(gb) if key.endswith("_gb_at_most") else f"{key.replace('_', ' ')} {value}"
    if "_gb" in key:
        return WORDS[key].format(_gb(value)).replace("at most less", "less")
    return WORDS[key].format(f"{value:,g}" if isinstance(value, float) else f"{value:,}")


def _gb(value: float) -> str:
    if value >= 1:
        return f"{value:,.1f} GB"
    return f"{value * 1000:.0f} MB" if value else "less than 1 MB"


def _flat(value: Any) -> str:
    return " + ".join(f"{count} {name}" for name, count in value.items()) if isinstance(value, dict) else str(value)
