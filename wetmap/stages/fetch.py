"""Stage fetch: block by block, scenes become features in the cube."""

from __future__ import annotations

import uuid
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wetmap.cube import Cube, bands_of
from wetmap.errors import ClippedWarning, RecipeError
from wetmap.geo import Block, Grid
from wetmap.ledger import Entry
from wetmap.recipe_file import plain
from wetmap.stages import clear_cover, plan
from wetmap.stages.block_reading import FetchTask
from wetmap.stages.context import Context, Pace, run_blocks
from wetmap.stages.earthengine_rules import backscatter
from wetmap.stages.fetch_block import Work, make_block
from wetmap.stages.lost_reads import counted, lacks, passes_by_layer, scenes_of
from wetmap.stages.scene_table import write_table
from wetmap.stages.scenes_check import check_scenes, warn_of_suspects
from wetmap.workspace import StageFolder, key_of, write_json

#: Raised when the same request would give other features.
REVISION = 3

#: Blocks are fetched when they come this close to the area, pixels: windows reach beyond its edge.
REACH_PX = 32


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the plan, the bands and the cleaning."""
    recipe = context.recipe
    return {
        "revision": REVISION,
        "plan": plan.identity(context),
        "bands": [asdict(band) for band in bands_of(recipe)],
        "block_px": recipe.grid.block_px,
        "optical": {name: value for name, value in plain(recipe.optical).items() if name != "min_clear_looks"},
        "radar": plain(recipe.radar),
    }


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("fetch", asked(context))


def cube_path(folder: StageFolder) -> Path:
    """The cube inside the stage's folder."""
    return folder.path / "cube.zarr"


def blocks_wanted(grid: Grid, inside: Path, block_px: int, reach_px: int = REACH_PX) -> Iterator[tuple[Block, bool]]:
    """Every block, and whether any pixel within ``reach_px`` of it lies in the area."""
    for block in grid.blocks(block_px):
        y0, x0 = max(block.y0 - reach_px, 0), max(block.x0 - reach_px, 0)
        y1 = min(block.y0 + block.height + reach_px, grid.height)
        x1 = min(block.x0 + block.width + reach_px, grid.width)
        yield block, bool(plan.read_inside(inside, Block(0, 0, y0, x0, y1 - y0, x1 - x0)).any())


def _pace(context: Context) -> Pace:
    """Blocks in threads of this process, one for each worker that was asked for.

    What takes time is done outside of Python's lock (decoding, sorting, waiting for a server), and processes would each
    hold the libraries again: 200 MB and two seconds for each.
    """
    return Pace(at_once=context.workers.count * context.workers.threads, workers=1)


def run(context: Context) -> StageFolder:
    """Fetch every block that comes near the area."""
    bands = bands_of(context.recipe)
    if not bands:
        raise RecipeError("The recipe asks for no features.", do="Name features and give at least one source.")
    planned = plan.load(plan.folder_of(context))
    plan.refuse_empty_layers(context, planned.scenes)
    folder = folder_of(context)
    with context.workspace.lock("fetch"):
        _open_again(context, folder)
        if not context.begin(folder, asked(context)):
            return folder
        seasons = tuple(season.name for season in context.recipe.seasons)
        simulated = any(scene.simulated for scene in planned.scenes)
        Cube.create(
            cube_path(folder), planned.grid, bands, seasons, block_px=context.recipe.grid.block_px, simulated=simulated
        )
        task = FetchTask(
            grid=planned.grid,
            bands=bands,
            seasons=seasons,
            scenes=(),  # workers take those near their block from the table
            archives={str(sensor): archive for sensor, archive in plan.archives(context).items()},
            optical=context.recipe.optical,
            radar=planned.radar.settle(context.recipe.radar) if planned.radar else context.recipe.radar,
            accumulation=planned.accumulation,
            terrain=planned.terrain,
            days={season.name: (season.start, season.end) for season in context.recipe.seasons},
            strong_power=planned.radar.strong_power if planned.radar else {},
            run=uuid.uuid4().hex,
        )
        near = [
            block
            for block, wanted in blocks_wanted(planned.grid, planned.inside, context.recipe.grid.block_px)
            if wanted
        ]
        work = Work(
            task=task,
            scenes=write_table(folder.path, planned.scenes),
            cube=cube_path(folder),
            inside=planned.inside,
            ledger=folder.path / "ledger",
            network=context.recipe.network,
            max_failed=context.recipe.cluster.max_failed,
        )
        planned = replace(planned, scenes=(), skipped=())  # not thousands of scenes beside the blocks
        entries = run_blocks(context, folder, near, make_block, work, _pace(context), holes_again=True)
        looks = clear_cover.told(entry.facts.get("clear_ha", {}) for entry in entries)
        clear_cover.warn_of_few_looks(looks, context.recipe.optical.min_clear_looks)
        checked = check_scenes(row for entry in entries for row in entry.facts.get("scenes_check", ()))
        warn_of_suspects(checked)
        lost = [{"block": entry.block, **row} for entry in entries for row in entry.detail]
        if lost:
            context.listener.say(
                f"{counted(len(lost), 'read')} of {counted(len(scenes_of(lost)), 'scene')} failed; they are named in "
                f"{folder.path / 'manifest.json'}, and the same command tries them again"
            )
        write_json(
            folder.path / "manifest.json",
            {
                "stage": "fetch",
                "blocks": len(entries),
                "failed": sorted(entry.block for entry in entries if entry.status == "failed"),
                "failed_reads": lost,
                "clear_looks": looks,
                "scenes_check": checked,
                "clipped": _clipped(entries),
                "passes": passes_by_layer(bands, plan.load(plan.folder_of(context)).scenes, lost),
                "backscatter": backscatter(context.recipe),
                "terrain": task.terrain.to_json() if task.terrain else None,
                "simulated": simulated,
            },
        )
    return folder


def _clipped(entries: Sequence[Entry]) -> dict[str, int]:
    """Pixels that were clipped, by band, with a warning for each."""
    total: Counter[str] = Counter()
    for entry in entries:
        total.update(entry.facts.get("clipped", {}))
    for band, pixels in sorted(total.items()):
        warnings.warn(
            f"{band} goes beyond what the cube stores in {pixels:,} pixels and is clipped there. Where that is much of "
            "the area, leave it out of the features.",
            ClippedWarning,
            stacklevel=3,
        )
    return dict(sorted(total.items()))


def identity(context: Context) -> str:
    """What identifies the cube for the stages after this one: its key, and what it lacks.

    Blocks and scenes that failed within ``--max-failed`` may be there after the next run, under the same key.
    """
    folder = folder_of(context)
    missing = lacks(folder.manifest or {}, "failed")
    return folder.key if not missing else f"{folder.key} without {key_of({'lacks': missing})}"


def _open_again(context: Context, folder: StageFolder) -> None:
    """Blocks and reads that failed within ``--max-failed`` are tried again by the next run."""
    manifest = folder.manifest or {}
    blocks = {row["block"] for row in manifest.get("failed_reads", [])} | set(manifest.get("failed", []))
    if blocks:
        context.listener.say(
            f"fetch: {len(blocks)} block{'' if len(blocks) == 1 else 's'} failed or lack scenes since last time; "
            "what is missing is tried again"
        )
        (folder.path / "manifest.json").unlink()
