"""Labels on the grid: which pixel is known to be what, and which reference polygon says so."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.classes import MapClass
from wetmap.errors import ReferenceWarning
from wetmap.geo import Grid

#: Code of a pixel that nobody labelled: outside loss and metrics alike.
UNLABELLED = 255
#: Side of the squares that stand in for polygons where there are none (label rasters, background), pixels: eight
#: windows of 8 px, so that most of a square is farther than a window from its neighbours.
REGION_PX = 64


@dataclass(frozen=True)
class Sites:
    """Which site each reference feature belongs to."""

    names: tuple[str, ...]
    """Names, sorted: numbers by value, text by its letters."""
    of_feature: dict[int, int]
    """Place in ``names`` by id of the feature."""


@dataclass(frozen=True)
class Labels:
    """Reference data on the grid."""

    codes: NDArray[np.uint8]
    """(height, width), class codes 1 to 254; 255 = unlabelled."""
    polygon: NDArray[np.int32]
    """(height, width), id of the reference feature that labels the pixel; -1 where none does. In a label raster, and
    where background may be drawn, the id of a square of ``REGION_PX``."""
    classes: tuple[MapClass, ...]
    """The class table; the background class is in it when there is one."""
    report: dict[str, Any]
    """What was read, used and left out, as plain data for the manifest."""
    background: NDArray[np.bool_] | None = None
    """(height, width), True where background samples may be drawn: unlabelled, inside the area, and farther than the
    buffer from every reference feature. None when no background is asked for."""
    sites: Sites | None = None
    """The sites of the features; None unless the reference has a site field."""


@dataclass
class Report:
    """Collects what was left out and why; every note is a warning at once and a row of the manifest later."""

    rows: dict[str, Any] = field(default_factory=dict)
    """Counts by name."""
    notes: list[str] = field(default_factory=list)
    """Warnings, as sentences."""

    def note(self, what: str, do: str) -> None:
        """Warn, and remember it."""
        self.notes.append(f"{what} {do}")
        warnings.warn(f"{what} {do}", ReferenceWarning, stacklevel=3)

    def unmatched(self, values: dict[str, int], unit: str) -> None:
        """Note reference values that no class of the map stands for."""
        self.rows["unmatched_values"] = values
        if values:
            listed = ", ".join(f"{value!r} ({count})" for value, count in list(values.items())[:10])
            more = f" and {len(values) - 10} more" if len(values) > 10 else ""
            self.note(
                f"{sum(values.values())} reference {unit} have a value that no class of the recipe stands for: "
                f"{listed}{more}; they are left out.",
                "Name these values under `reference:` of a class, if they belong to one.",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return {**self.rows, "warnings": list(self.notes)}


@dataclass(frozen=True)
class Painted:
    """What a reader of one kind of reference hands back."""

    codes: NDArray[np.uint8]
    """(height, width), class codes; 255 = unlabelled."""
    polygon: NDArray[np.int32]
    """(height, width), feature or square id; -1 = none."""
    classes: tuple[MapClass, ...]
    """The class table without background."""
    next_id: int
    """An id above every one used."""
    far: NDArray[np.bool_] | None
    """(height, width), True farther than the background's buffer from every reference feature; None unless asked."""
    sites: Sites | None = None
    """The sites of the features; None unless asked."""


def region_ids(grid: Grid, first: int, strip: slice = slice(None)) -> NDArray[np.int32]:
    """Ids of the squares of ``REGION_PX`` from the grid's origin, beginning with ``first``.

    Args:
        grid: The raster.
        first: The first id.
        strip: Rows that are wanted; default: all of them.

    Returns:
        (rows, width) int32.
    """
    across = -(-grid.width // REGION_PX)
    rows = np.arange(grid.height, dtype=np.int32)[strip] // REGION_PX * across
    cols = np.arange(grid.width, dtype=np.int32) // REGION_PX
    return (rows[:, None] + cols[None, :] + first).astype(np.int32)
