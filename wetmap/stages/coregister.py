"""Co-registration: how far each radar track, or optical pass, lies off the clearest optical scenes, and what is done.

Part of the plan. Each tie block's result is written as it is there, so that a run that was stopped goes on; what all
blocks say together decides, once, and is frozen with the plan.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wetmap.errors import CoregistrationWarning
from wetmap.geo import Block
from wetmap.imagery.coregister import Tie
from wetmap.imagery.coregister_combine import combine, differ
from wetmap.recipe import Coregistration, Sensor
from wetmap.recipe_file import plain
from wetmap.report.quiver import quiver_picture, quiver_words
from wetmap.sources import Archive, Scene
from wetmap.stages.context import Context, run_blocks
from wetmap.stages.coregister_words import optical_sentence, quiver_of, sentence, sentences
from wetmap.stages.tie_blocks import (
    ENOUGH,
    RADAR_PASSES,
    Pass,
    TieWork,
    choose_blocks,
    lattice,
    measure_block,
    sides,
    spread_over,
    tie_from,
)
from wetmap.workspace import StageFolder, read_json, write_bytes

__all__ = ["asked", "brief", "picture", "run", "sentences"]

#: Folder of the tie blocks' results inside the plan's, and the picture beside it.
FOLDER, PICTURE = "coregistration", "coregistration.png"
#: A group whose shift differs from the middle of all groups of its sensor by this much is called odd, pixels.
ODD_PX = 1.0
#: Groups that must be sure of their shift before one can be called odd.
LEAST_GROUPS = 3
#: Early and late passes disagree where they differ by more than the tolerance and this many of their errors.
STEP_ERRORS = 3.0

#: A group of scenes that share one shift: its key, its words, its passes in order of time.
Passes = tuple[Pass, ...]


@dataclass(frozen=True)
class Group:
    """Scenes that share a shift: a radar track of one satellite, or one optical pass."""

    key: str
    """Short name, for files and JSON."""
    title: str
    """The same in words."""
    sensor: Sensor
    """``radar`` or ``optical``."""
    passes: Passes
    """Its passes, in order of time."""

    @property
    def ids(self) -> frozenset[str]:
        """Ids of its scenes."""
        return frozenset(scene.id for scenes in self.passes for scene in scenes)


def asked(settings: Coregistration, sensors: Sequence[str]) -> dict[str, Any] | None:
    """What the plan is asked about co-registration; None where there is nothing to compare."""
    wanted = "optical" in sensors and ((settings.radar != "off" and "radar" in sensors) or settings.optical != "off")
    return plain(settings) if wanted else None


def run(
    context: Context,
    folder: StageFolder,
    inside: Path,
    archives: Mapping[Sensor, Archive],
    scenes: Sequence[Scene],
) -> tuple[list[Scene], dict[str, Any]]:
    """Measure what the recipe asks for, and give the scenes their shifts.

    Args:
        context: The run.
        folder: The plan's folder.
        inside: What the plan wrote about the inside of the area.
        archives: The archive of each sensor.
        scenes: All scenes.

    Returns:
        The scenes, those to be corrected with ``shift_m``; and the report for the plan: JSON.
    """
    settings = context.recipe.coregistration
    if asked(settings, list(archives)) is None:
        why = "the recipe turns it off" if "optical" in archives and "radar" in archives else "there is one sensor only"
        return list(scenes), {"groups": [], "tie_blocks": [], "why_not": why}
    radar = radar_groups(scenes) if settings.radar != "off" else []
    optical = optical_groups(scenes)
    measured = optical if settings.optical != "off" and len(optical) > 1 else []
    reference = _reference(scenes)
    if not reference or not (radar or measured):
        why = "no radar scene has a date and a track" if reference else "there is no optical scene"
        context.listener.say(f"Co-registration: not measured; {why}")
        return list(scenes), {"groups": [], "tie_blocks": [], "why_not": why}
    blocks = tie_blocks_of(context, inside)
    (folder.path / FOLDER).mkdir(exist_ok=True)
    work = TieWork(
        grid=context.grid,
        archives=dict(archives),
        reference=reference,
        radar={group.key: spread_over(group.passes, RADAR_PASSES) for group in radar},
        optical={group.key: group.passes[0] for group in measured},
        folder=folder.path / FOLDER,
        network=context.recipe.network,
    )
    entries = run_blocks(context, folder, blocks, measure_block, work, holes_again=True)
    report = decide(context, folder, blocks, [*radar, *measured], archives)
    report["failed_blocks"] = sorted(entry.block for entry in entries if entry.status == "failed")
    report["failed_reads"] = [{"block": entry.block, **row} for entry in entries for row in entry.detail]
    moves = {
        (row["sensor"], one): row["moved_m"] for row in report["groups"] if any(row["moved_m"]) for one in row["ids"]
    }
    for row in report["groups"]:
        del row["ids"]
    _tell(context, report["groups"])
    quiver = quiver_of(report, context.grid, context.aoi, simulated=any(scene.simulated for scene in scenes))
    if quiver is not None:
        write_bytes(folder.path / PICTURE, quiver_picture(quiver))
    return [_moved(scene, moves.get((scene.sensor, scene.id))) for scene in scenes], report


def radar_groups(scenes: Sequence[Scene]) -> list[Group]:
    """Radar scenes by satellite and track; scenes without a date (the user's own files) are in none."""
    groups: dict[tuple[str, str, int | None], list[Scene]] = {}
    for scene in scenes:
        if scene.sensor == "radar" and scene.datetime and scene.orbit_state != "any":
            groups.setdefault((scene.platform, scene.orbit_state, scene.relative_orbit), []).append(scene)
    found = []
    for (platform, state, track), members in sorted(groups.items(), key=lambda item: str(item[0])):
        number = "" if track is None else f"{track} "
        found.append(
            Group(
                key=f"{platform or 'radar'} {number}{state}",
                title=f"radar, track {number}{state}{', ' if platform else ''}{platform}",
                sensor="radar",
                passes=_passes(members),
            )
        )
    return found


def optical_groups(scenes: Sequence[Scene]) -> list[Group]:
    """One group per optical pass: optical scenes are laid onto the ground one by one, and err one by one."""
    members = [scene for scene in scenes if scene.sensor == "optical" and scene.datetime]
    return [
        Group(
            key=f"{one[0].platform or 'optical'} {one[0].relative_orbit or ''} {one[0].datetime[:10]}",
            title=f"optical, {one[0].datetime[:10]}{', ' if one[0].platform else ''}{one[0].platform}",
            sensor="optical",
            passes=(one,),
        )
        for one in _passes(members)
    ]


def _passes(scenes: Sequence[Scene]) -> Passes:
    """Scenes of one overflight together, in order of time."""
    passes: dict[tuple[Any, ...], list[Scene]] = {}
    for scene in sorted(scenes, key=lambda scene: (scene.datetime, scene.id)):
        key = (scene.datetime[:10], scene.platform, scene.relative_orbit) if scene.datetime else (scene.id,)
        passes.setdefault(key, []).append(scene)
    return tuple(tuple(members) for members in passes.values())


def _reference(scenes: Sequence[Scene]) -> Passes:
    """Optical passes, the clearest first."""

    def cloud(one: Pass) -> float:
        return float(np.mean([100.0 if scene.cloud_percent is None else scene.cloud_percent for scene in one]))

    return tuple(sorted(_passes([scene for scene in scenes if scene.sensor == "optical"]), key=cloud))


def tie_blocks_of(context: Context, inside: Path) -> list[Block]:
    """The tie blocks of the area: as large as the recipe says, smaller where there would be too few."""
    settings, grid = context.recipe.coregistration, context.grid
    found: list[Block] = []
    for side in sides(settings.block_px):
        rows, first_row = lattice(grid.height, side)
        cols, first_col = lattice(grid.width, side)
        share = _inside_share(inside, (rows, cols), side, (first_row, first_col))
        blocks = choose_blocks(share, side, (first_row, first_col), settings.tie_blocks)
        if len(blocks) > len(found):
            found = blocks
        if len(found) >= min(ENOUGH, settings.tie_blocks):
            break
    return found


def _inside_share(inside: Path, cells: tuple[int, int], side: int, first: tuple[int, int]) -> Any:
    """Share of each cell that lies in the area, (row, column); one row of cells is in memory at a time."""
    import zarr

    array = zarr.open_array(str(inside), mode="r")
    share = np.zeros(cells)
    for row in range(cells[0]):
        y0 = max(first[0] + row * side, 0)
        strip = np.asarray(array[y0 : max(first[0] + (row + 1) * side, 0)]).sum(axis=0, dtype=np.int64)
        for col in range(cells[1]):
            x0 = first[1] + col * side
            share[row, col] = strip[max(x0, 0) : max(x0 + side, 0)].sum() / side**2
    return share


def decide(
    context: Context,
    folder: StageFolder,
    blocks: Sequence[Block],
    groups: Sequence[Group],
    archives: Mapping[Sensor, Archive],
) -> dict[str, Any]:
    """What all tie blocks say about each group, and what is done about it: JSON, with the scenes' ids in ``ids``."""
    results = [read_json(folder.path / FOLDER / f"{block.name}.json") or {} for block in blocks]
    settings = context.recipe.coregistration
    rows = []
    for group in groups:
        found = [result.get(group.sensor, {}).get(group.key, {}) for result in results]
        by_part = {"all": found} if group.sensor == "optical" else {p: [one.get(p) for one in found] for p in PARTS}
        ties = {part: [tie_from(one) if one else _UNREAD for one in listed] for part, listed in by_part.items()}
        able = bool(getattr(archives[group.sensor], "moves_scenes", False))
        rows.append(_row(group, ties, settings, context.grid.res_m, able=able))
    _mark_odd(rows, context.grid.res_m)
    return {
        "groups": rows,
        "tie_blocks": [[block.y0, block.x0, block.height, block.width] for block in blocks],
        "why_not": "",
    }


PARTS = ("all", "early", "late")
_UNREAD = Tie((math.nan, math.nan), (math.nan, math.nan, math.nan), math.nan, math.nan, math.nan, "it was not read")


def _row(
    group: Group, ties: Mapping[str, Sequence[Tie]], settings: Coregistration, res_m: float, *, able: bool
) -> dict[str, Any]:
    """One group's line of the report."""
    shift = combine(ties["all"])
    step = _step(ties, settings.tolerance_px)
    mode = settings.radar if group.sensor == "radar" else settings.optical
    doubt = shift.doubt or (f"its earlier and later passes differ by {step * res_m:.1f} m" if step else "")
    above = not doubt and shift.length_px > settings.tolerance_px
    moved = above and mode == "correct" and able
    north, east = -shift.shift_px[0] * res_m, shift.shift_px[1] * res_m
    known = math.isfinite(east)
    agreeing = set(shift.agreeing)
    return {
        "key": group.key,
        "title": group.title,
        "sensor": group.sensor,
        "ids": sorted(group.ids),
        "scenes": len(group.ids),
        "confident": not doubt,
        "doubt": doubt,
        "off_m": [round(east, 2), round(north, 2)] if known else None,
        "spread_m": [round(shift.spread_px[1] * res_m, 2), round(shift.spread_px[0] * res_m, 2)] if known else None,
        "error_m": round(shift.error_px * res_m, 2) if known else None,
        "blocks": len(ties["all"]),
        "used": shift.used,
        "agreeing": len(agreeing),
        "above_tolerance": above,
        "step": bool(step),
        "odd": False,
        "moved_m": [round(-east, 2), round(-north, 2)] if moved else [0.0, 0.0],
        "left": "" if moved or not above else _why_left(mode, able=able),
        "arrows": [_arrow(tie, at in agreeing, res_m) for at, tie in enumerate(ties["all"])],
    }


def _why_left(mode: str, *, able: bool) -> str:
    return "this source's scenes cannot be moved" if able is False and mode == "correct" else "the recipe only measures"


def _step(ties: Mapping[str, Sequence[Tie]], tolerance_px: float) -> float:
    """By how much the earlier and the later passes of a track differ, pixels; 0 where they do not, or nobody knows."""
    if "early" not in ties:
        return 0.0
    early, late = combine(ties["early"]), combine(ties["late"])
    if not (early.confident and late.confident):
        return 0.0
    apart = differ(early, late)
    allowed = max(tolerance_px, STEP_ERRORS * math.hypot(early.error_px, late.error_px))
    return apart if apart > allowed else 0.0


def _arrow(tie: Tie, agrees: bool, res_m: float) -> dict[str, Any]:
    """One tie block, for the picture: metres east and north by which it lies off, or why it says nothing."""
    if tie.fault:
        return {"fault": tie.fault}
    return {"off_m": [round(tie.shift_px[1] * res_m, 2), round(-tie.shift_px[0] * res_m, 2)], "agrees": agrees}


def _mark_odd(rows: Sequence[dict[str, Any]], res_m: float) -> None:
    """Mark groups that lie far from the middle of all groups of their sensor."""
    for sensor in ("radar", "optical"):
        sure = [row for row in rows if row["sensor"] == sensor and row["confident"]]
        if len(sure) >= LEAST_GROUPS:
            middle = np.median([row["off_m"] for row in sure], axis=0)
            for row in sure:
                row["odd"] = bool(np.hypot(*(np.array(row["off_m"]) - middle)) > ODD_PX * res_m)


def moves_of(report: Mapping[str, Any]) -> list[Any]:
    """What is moved, and by how much: sensor and key of each group, metres east and north."""
    return [[row["sensor"], row["key"], row["moved_m"]] for row in report["groups"] if any(row["moved_m"])]


def brief(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report for the manifest: all but the single tie blocks, and what could not be read."""
    groups = [{name: value for name, value in row.items() if name != "arrows"} for row in report["groups"]]
    return {"groups": groups, "tie_blocks": len(report["tie_blocks"]), "why_not": report.get("why_not", "")}


def picture(context: Context, folder: StageFolder, report: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """The picture that belongs to a plan's report, PNG, and in words; None where nothing was measured."""
    quiver = quiver_of(report, context.grid, context.aoi, simulated=False)
    return (None, "") if quiver is None else ((folder.path / PICTURE).read_bytes(), quiver_words(quiver))


def _moved(scene: Scene, move: Sequence[float] | None) -> Scene:
    return scene if move is None else dataclasses.replace(scene, shift_m=(move[0], move[1]))


def _tell(context: Context, rows: Sequence[dict[str, Any]]) -> None:
    """A line per radar group and one for all optical passes; a warning where something is wrong and stays so."""
    for row in rows:
        if row["sensor"] == "radar":
            context.listener.say(f"Co-registration: {sentence(row)}")
        if row["left"] or row["step"]:
            warnings.warn(f"{sentence(row)}.", CoregistrationWarning, stacklevel=3)
        elif row["odd"] and row["sensor"] == "radar":
            text = f"{row['title']} lies elsewhere than the other {row['sensor']} groups: {sentence(row)}."
            warnings.warn(text, CoregistrationWarning, stacklevel=3)
    optical = [row for row in rows if row["sensor"] == "optical"]
    if optical:
        context.listener.say(f"Co-registration: {optical_sentence(optical)}")
