"""Hectares per class, counted from the map's pixels.

A count of pixels is not an estimate of area: it carries the map's errors along. Every row says so.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from wetmap.classes import MapClass
from wetmap.geo import Block, Grid
from wetmap.workspace import spreadsheet_cell, write_bytes

#: What the figures are, in the last column of every row.
BASIS = "pixel count, not an estimate"
#: Areas are added as whole numbers, a pixel about two to this power, which gives one sum in any order, to 13 digits;
#: and a window of 512 x 512 pixels stays below two to the power of 63.
PIXEL_BITS = 43
#: Side of the windows in which the map is counted, pixels.
WINDOW_PX = 512


@dataclass(frozen=True)
class AreaRow:
    """What the map holds of one class."""

    code: int
    """Value in classes.tif."""
    name: str
    """Name in legends."""
    pixels: int
    """Pixels of the class."""
    hectares: float
    """Their true area on the ellipsoid, hectares."""
    share_percent: float
    """Share of the area of all classes, percent; 0 where nothing is mapped."""


def count_areas(
    grid: Grid, read_classes: Callable[[Block], ArrayLike], classes: Sequence[MapClass]
) -> tuple[AreaRow, ...]:
    """Measure every class of a map.

    Args:
        grid: The map's grid.
        read_classes: Class codes of a block, (height, width), integer; codes of no class, such as nodata, are left out.
        classes: The classes, in the order of the rows.

    Returns:
        One row per class, absent ones with zeros. Hectares do not depend on the order of the pixels.
    """
    pixels = dict.fromkeys((item.code for item in classes), 0)
    parts = dict.fromkeys(pixels, 0)
    per_m2 = 2.0 ** (PIXEL_BITS - math.ceil(2 * math.log2(grid.res_m)))
    for block in grid.blocks(WINDOW_PX):
        codes = np.asarray(read_classes(block))
        area = np.rint(per_m2 * grid.pixel_area_m2(block)).astype(np.int64)
        for code in np.unique(codes).tolist():
            if code in pixels:
                here = codes == code
                pixels[code] += int(np.count_nonzero(here))
                parts[code] += int(area[here].sum())
    hectares = {code: value / per_m2 / 1e4 for code, value in parts.items()}
    total = math.fsum(hectares.values())
    return tuple(
        AreaRow(
            code=item.code,
            name=item.name,
            pixels=pixels[item.code],
            hectares=hectares[item.code],
            share_percent=100 * (hectares[item.code] / total) if total else 0.0,
        )
        for item in classes
    )


def write_areas_csv(path: Path, rows: Sequence[AreaRow], *, simulated: bool = False) -> None:
    """Write the areas as a table that a spreadsheet opens: UTF-8, comma, one row per class.

    Hectares have four decimals (square metres), shares four. Names beyond ASCII bring a byte-order mark, without
    which Excel takes the file for another encoding. A name that a spreadsheet would take for a formula begins with an
    apostrophe; a half of a character becomes a question mark. Of a simulated landscape every row says so.

    Raises:
        WorkspaceError: The disk is full.
    """
    text = io.StringIO(newline="")
    basis = f"SIMULATED; {BASIS}" if simulated else BASIS
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(("code", "class", "pixels", "hectares", "share_percent", "basis"))
    for row in rows:
        name = spreadsheet_cell(row.name)
        table.writerow((row.code, name, row.pixels, f"{row.hectares:.4f}", f"{row.share_percent:.4f}", basis))
    content = text.getvalue()
    write_bytes(path, content.encode("ascii" if content.isascii() else "utf-8-sig", errors="replace"))
