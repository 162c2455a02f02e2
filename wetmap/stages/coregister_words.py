"""What co-registration found, in words and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wetmap.geo import Aoi, Grid
from wetmap.report.quiver import Quiver, ShiftMap


def sentence(row: Mapping[str, Any]) -> str:
    """One group's result in words, without a full stop."""
    counted = f"{row['agreeing']} of {row['used']} tie blocks that show anything agree, {row['blocks']} looked at"
    if not row["confident"]:
        return f"{row['title']}: not claimed, because {row['doubt']}; its scenes stay as they are"
    east, north = row["off_m"]
    where = f"{row['title']}: lies {_direction(east, north)} of the clearest optical scenes"
    spread = f"spread {math.hypot(*row['spread_m']):.1f} m, {counted}"
    if any(row["moved_m"]):
        plural = "scene is" if row["scenes"] == 1 else "scenes are"
        return f"{where} ({spread}); its {row['scenes']} {plural} moved back as they are read"
    if row["left"]:
        return f"{where} ({spread}); this is above the tolerance, and nothing is moved, because {row['left']}"
    return f"{where} ({spread}); this is within the tolerance"


def optical_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """All optical passes in words, without a full stop."""
    sure = [row for row in rows if row["confident"]]
    lengths = sorted(math.hypot(*row["off_m"]) for row in sure)
    moved = sum(any(row["moved_m"]) for row in rows)
    if not sure:
        return f"optical: none of {len(rows)} passes shows its shift for sure; they stay as they are"
    return (
        f"optical: {len(sure)} of {len(rows)} passes show their shift for sure, {lengths[len(lengths) // 2]:.1f} m in "
        f"the middle, {lengths[-1]:.1f} m at most; {moved} moved back as they are read"
    )


def _direction(east: float, north: float) -> str:
    sides = "east" if east >= 0 else "west", "north" if north >= 0 else "south"
    return f"{abs(east):.1f} m {sides[0]} and {abs(north):.1f} m {sides[1]}"


def sentences(report: Mapping[str, Any]) -> list[str]:
    """The whole report as sentences, one per radar group and one for all optical passes."""
    rows = report["groups"]
    said = [sentence(row) for row in rows if row["sensor"] == "radar"]
    optical = [row for row in rows if row["sensor"] == "optical"]
    said += [optical_sentence(optical)] if optical else []
    return [f"{one[0].upper()}{one[1:]}." for one in said]


def quiver_of(report: Mapping[str, Any], grid: Grid, aoi: Aoi, *, simulated: bool) -> Quiver | None:
    """What the picture of the report shows; None where nothing was measured."""
    if not report["groups"] or not report["tie_blocks"]:
        return None
    blocks = np.array(report["tie_blocks"], dtype=np.float64)
    rings = [ring for part in aoi.geometry_in(grid.crs).geoms for ring in (part.exterior, *part.interiors)]
    return Quiver(
        x=grid.left + (blocks[:, 1] + blocks[:, 3] / 2) * grid.res_m,
        y=grid.top - (blocks[:, 0] + blocks[:, 2] / 2) * grid.res_m,
        side_m=float(blocks[0, 2]) * grid.res_m,
        groups=[_map_of(row) for row in report["groups"]],
        outline=[np.asarray(ring.coords)[:, :2] for ring in rings],
        simulated=simulated,
    )


def _map_of(row: Mapping[str, Any]) -> ShiftMap:
    nothing = [math.nan, math.nan]
    said = sentence(row).removeprefix(f"{row['title']}: ")
    return ShiftMap(
        title=row["title"],
        said=f"{said[0].upper()}{said[1:]}",
        off_m=np.array([arrow.get("off_m", nothing) for arrow in row["arrows"]], dtype=np.float64),
        agrees=np.array([bool(arrow.get("agrees")) for arrow in row["arrows"]], dtype=np.bool_),
    )
