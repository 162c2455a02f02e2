"""Stage fetch: block by block, scenes become features in the cube."""

from __future__ import annotations

import shutil
import uuid
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from wetmap.cube import Cube, bands_of
from wetmap.errors import ClippedWarning, RecipeError
from wetmap.geo import Block, Grid
from wetmap.ledger import Entry, Ledger
from wetmap.recipe_file import plain
from wetmap.stages import clear_cover, cloud_tiles, plan
from wetmap.stages.block_reading import FetchTask
from wetmap.stages.context import Context, Pace, run_blocks
from wetmap.stages.earthengine_rules import backscatter
from wetmap.stages.fetch_block import Work, make_block
from wetmap.stages.lost_reads import counted, lacks, passes_by_layer, scenes_of
from wetmap.stages.scene_table import INDEX, write_table
from wetmap.stages.scenes_check import check_scenes, warn_of_suspects
from wetmap.stages.shards import blocks_of, need_few_left, need_settled
from wetmap.workspace import StageFolder, key_of, write_json

#: Raised when the same request would give other features.
REVISION = 3

#: What of the recipe's optical part changes no feature, and what ``cloud_tiles.asked`` says of it.
IDLE_OPTICAL = frozenset({"min_clear_looks", "mask_from"})
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
        "optical": {
            **{name: value for name, value in plain(recipe.optical).items() if name not in IDLE_OPTICAL},
            **cloud_tiles.asked(recipe),
        },
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


def near_area(grid: Grid, inside: Path, block_px: int, reach_px: int = REACH_PX) -> Iterator[Block]:
    """The blocks with a pixel of the area within ``reach_px`` of them, row by row."""
    return (block for block, wanted in blocks_wanted(grid, inside, block_px, reach_px) if wanted)


def _pace(context: Context) -> Pace:
    """Blocks in threads of this process, one for each worker that was asked for.

    What takes time is done outside of Python's lock (decoding, sorting, waiting for a server), and processes would each
    hold the libraries again: 200 MB and two seconds for each.
    """
    return Pace(*context.workers.fetch_pace())


def run(context: Context) -> StageFolder:
    """Fetch every block that comes near the area; or prepare shards, make one, or close what they have made."""
    if not bands_of(context.recipe):
        raise RecipeError("The recipe asks for no features.", do="Name features and give at least one source.")
    cloud_tiles.refuse_unusable(context.recipe)
    if context.prepared:
        need_settled(plan.folder_of(context), "fetch", "manifest.json")
    planned = plan.load(plan.folder_of(context))
    plan.refuse_empty_layers(context, planned.scenes)
    folder = folder_of(context)
    with context.workspace.lock("fetch", context.share):
        if not context.prepared:
            _open_again(context, folder)
        elif not folder.complete:
            need_settled(folder, "fetch")
        if not context.begin(folder, asked(context)):
            return folder
        cloud_tiles.try_once(context.recipe)
        work = _work(context, folder, planned)
        if not context.prepared:
            write_table(folder.path, planned.scenes)
            _create(context, folder, planned)
        side = context.recipe.grid.block_px
        near = blocks_of(folder.path, planned.grid, side, partial(near_area, planned.grid, planned.inside, side))
        if context.only == "plan":
            return folder
        if context.only == "finish":
            need_few_left(folder, "fetch")
        del planned  # not thousands of scenes beside the blocks
        entries = run_blocks(context, folder, near, make_block, work, _pace(context), holes_again=True)
        if context.shard is None:
            _close(context, folder, entries)
    return folder


def _create(context: Context, folder: StageFolder, planned: plan.Plan) -> None:
    seasons = tuple(season.name for season in context.recipe.seasons)
    Cube.create(
        cube_path(folder),
        planned.grid,
        bands_of(context.recipe),
        seasons,
        block_px=context.recipe.grid.block_px,
        simulated=_simulated(planned),
    )


def _simulated(planned: plan.Plan) -> bool:
    return any(scene.simulated for scene in planned.scenes)


def _work(context: Context, folder: StageFolder, planned: plan.Plan) -> Work:
    """What workers need; scenes are in the table."""
    recipe = context.recipe
    task = FetchTask(
        grid=planned.grid,
        bands=bands_of(recipe),
        seasons=tuple(season.name for season in recipe.seasons),
        scenes=(),  # workers take those near their block from the table
        archives={str(sensor): archive for sensor, archive in plan.archives(context).items()},
        optical=recipe.optical,
        radar=planned.radar.settle(recipe.radar) if planned.radar else recipe.radar,
        accumulation=planned.accumulation,
        terrain=planned.terrain,
        days={season.name: (season.start, season.end) for season in recipe.seasons},
        strong_power=planned.radar.strong_power if planned.radar else {},
        run=uuid.uuid4().hex,
        masks=folder.path / cloud_tiles.FOLDER,
    )
    return Work(
        task=task,
        scenes=folder.path / INDEX,
        cube=cube_path(folder),
        inside=planned.inside,
        ledger=folder.path / "ledger",
        network=recipe.network,
        max_failed=recipe.cluster.max_failed,
    )


def _close(context: Context, folder: StageFolder, entries: Sequence[Entry]) -> None:
    """Say what is wrong with the cube, and write the manifest."""
    planned, ledger = plan.load(plan.folder_of(context)), Ledger(folder.path / "ledger")
    looks = clear_cover.told(entry.facts.get("clear_ha", {}) for entry in ledger.with_facts(entries))
    clear_cover.warn_of_few_looks(looks, context.recipe.optical.min_clear_looks)
    checked = check_scenes(row for entry in ledger.with_facts(entries) for row in entry.facts.get("scenes_check", ()))
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
            "clipped": _clipped(ledger.with_facts(entries)),
            "passes": passes_by_layer(bands_of(context.recipe), planned.scenes, lost),
            "backscatter": backscatter(context.recipe),
            "terrain": planned.terrain.to_json() if planned.terrain else None,
            "simulated": _simulated(planned),
        },
    )
    shutil.rmtree(folder.path / cloud_tiles.FOLDER, ignore_errors=True)  # the cube has what they were for


def _clipped(entries: Iterable[Entry]) -> dict[str, int]:
    """Pixels that were clipped, by band, with a warning for each."""
    total: Counter[str] = Counter()
    for entry in entries:
        total.update(entry.facts.get("clipped", {}))
    for band, pixels in sorted(total.items()):
        warnings.warn(
            f"{band} goes beyond what the cube stores in {pixels:,} pixels and is clipped there. Where that is much of "
            "the area, leave it out of the features.",
            ClippedWarning,
            stacklevel=4,
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
