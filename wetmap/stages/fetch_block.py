"""One block of the stage fetch, in a worker: a small task becomes features in the cube."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.cube import Cube, clipped
from wetmap.geo import Block, Grid
from wetmap.ledger import Entry, Ledger
from wetmap.recipe import Network
from wetmap.sources import network
from wetmap.stages import clear_cover, plan
from wetmap.stages.block_features import block_features
from wetmap.stages.block_reading import BlockReader, FetchTask
from wetmap.stages.context import BlockTask
from wetmap.stages.lost_reads import counted
from wetmap.stages.scene_table import open_table


@dataclass(frozen=True)
class Work:
    """What a worker needs for any block: a few kilobytes, however many scenes the plan has."""

    task: FetchTask
    """What is wanted, without scenes."""
    scenes: Path
    """The table of the plan's scenes."""
    cube: Path
    """The cube to write into."""
    inside: Path
    """Which pixels are in the area: see ``plan.read_inside``."""
    ledger: Path
    """Folder of the stage's ledger."""
    network: Network
    """How patiently files are read."""
    max_failed: float
    """Share of the scenes near a block that it may lack, 0-1."""


def make_block(task: BlockTask) -> Entry:
    """Make one block and write it.

    A block that was made before without some scenes is left as it is where none of them can be read today either.
    """
    work: Work = task.work
    block = task.block
    window = work.task.grid.window(block.y0, block.x0, block.height, block.width)
    near = replace(work.task, scenes=open_table(work.scenes).near(window))
    before = _before(work.ledger, work.task.run).get(block.name)
    with network.using(work.network):
        lost = None if before is None else still_lost(near, window, before.detail)
        if before is not None and lost is not None:
            return _entry(block.name, lost, len(near.scenes), work.max_failed, before.facts)
        result = block_features(near, block)
    Cube.open(work.cube).write_block(block, result.features, result.observed, result.clear_count)
    facts = {
        "clear_ha": _clear_hectares(work, block, result.clear_count),
        "scenes_check": list(result.checks),
        "clipped": clipped(result.features, near.bands),
    }
    return _entry(block.name, result.failures, len(near.scenes), work.max_failed, facts)


def still_lost(task: FetchTask, window: Grid, before: Sequence[dict[str, str]]) -> tuple[dict[str, str], ...] | None:
    """Look whether scenes that a block lacks can be read today.

    Args:
        task: What is wanted, and the scenes near the block.
        window: The block's pixels.
        before: What could not be read when the block was made, as rows of its entry.

    Returns:
        The rows, with today's reasons, where none of the scenes can be read; None where the block is to be made again.
    """
    reader = BlockReader(task, window)
    scenes = {f"{scene.sensor} {scene.id}": scene for scene in task.scenes}
    for row in before:
        scene = scenes.get(f"{row['sensor']} {row['scene']}")
        if scene is None or reader.read((scene,), row["bands"].split(), 0):
            return None
    return tuple(reader.failures)


@functools.lru_cache(maxsize=1)
def _before(ledger: Path, _run: str) -> dict[str, Entry]:
    """Blocks that were made before this run without some scenes, by name; looked up once in each process."""
    kept = Ledger(ledger)
    holes = [entry for entry in kept.entries().values() if entry.detail]
    return {entry.block: entry for entry in kept.with_facts(holes) if entry.facts}


def _entry(
    block: str, lost: Sequence[dict[str, str]], scenes: int, max_failed: float, facts: Mapping[str, Any]
) -> Entry:
    names = sorted({str(row["scene"]) for row in lost})
    if len(names) > max_failed * scenes:
        share = math.ceil(1000 * len(names) / max(scenes, 1)) / 10  # rounded up: as --max-failed it is enough
        reason = (
            f"{len(names)} of {counted(scenes, 'scene')} near it could not be read ({share:g} %), more than the "
            f"{100 * max_failed:g} % allowed, the first is {lost[0]['scene']}: {lost[0]['reason']}"
        )
        return Entry(block, "failed", reason, tuple(lost), facts)
    return Entry(block, "done", detail=tuple(lost), facts=facts)


def _clear_hectares(work: Work, block: Block, count: NDArray[np.uint16]) -> dict[str, list[float]]:
    """Hectares of the area in a block by number of clear looks (season, y, x), for each season with optical bands."""
    layers = {band.layer for band in work.task.bands}
    inside = plan.read_inside(work.inside, block)
    area_m2 = work.task.grid.pixel_area_m2(block)
    return {
        season: clear_cover.clear_hectares(looks, inside, area_m2)
        for season, looks in zip(work.task.seasons, count, strict=True)
        if f"{season}.optical" in layers
    }
