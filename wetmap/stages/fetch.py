"""Stage fetch: block by block, scenes become features in the cube."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wetmap.cube import Cube, bands_of
from wetmap.errors import RecipeError
from wetmap.geo import Block, Grid
from wetmap.ledger import Entry
from wetmap.recipe_file import plain
from wetmap.stages import plan
from wetmap.stages.block_features import block_features
from wetmap.stages.block_reading import FetchTask
from wetmap.stages.context import BlockTask, Context, run_blocks
from wetmap.workspace import StageFolder, write_json

#: Raised when the same request would give other features.
REVISION = 2

#: Blocks are fetched when they come this close to the area, pixels: windows reach beyond its edge.
REACH_PX = 32


@dataclass(frozen=True)
class _Work:
    task: FetchTask
    cube: Path
    max_failed: float


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the plan, the bands and the cleaning."""
    recipe = context.recipe
    return {
        "revision": REVISION,
        "plan": plan.folder_of(context).key,
        "bands": [asdict(band) for band in bands_of(recipe)],
        "block_px": recipe.grid.block_px,
        "optical": plain(recipe.optical),
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


def run(context: Context) -> StageFolder:
    """Fetch every block that comes near the area."""
    bands = bands_of(context.recipe)
    if not bands:
        raise RecipeError("The recipe asks for no features.", do="Name features and give at least one source.")
    planned = plan.load(plan.folder_of(context))
    plan.refuse_empty_layers(context, planned.scenes)
    folder = folder_of(context)
    with context.workspace.lock("fetch"):
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
            scenes=planned.scenes,
            archives={str(sensor): archive for sensor, archive in plan.archives(context).items()},
            optical=context.recipe.optical,
            radar=context.recipe.radar,
            accumulation=planned.accumulation,
        )
        near = [
            block
            for block, wanted in blocks_wanted(planned.grid, planned.inside, context.recipe.grid.block_px)
            if wanted
        ]
        entries = run_blocks(
            context, folder, near, _make_block, _Work(task, cube_path(folder), context.recipe.cluster.max_failed)
        )
        lost = [row for entry in entries for row in entry.detail]
        if lost:
            context.listener.say(f"{len(lost)} reads failed; they are named in {folder.path / 'manifest.json'}")
        write_json(
            folder.path / "manifest.json",
            {
                "stage": "fetch",
                "blocks": len(entries),
                "failed": sorted(entry.block for entry in entries if entry.status == "failed"),
                "failed_reads": lost,
                "simulated": simulated,
            },
        )
    return folder


def _make_block(task: BlockTask) -> Entry:
    work: _Work = task.work
    result = block_features(work.task, task.block)
    Cube.open(work.cube).write_block(task.block, result.features, result.observed, result.clear_count)
    lost = sorted({str(row["scene"]) for row in result.failures})
    if len(lost) > work.max_failed * len(work.task.scenes):
        first = result.failures[0]
        reason = f"{len(lost)} scenes could not be read, the first is {first['scene']}: {first['reason']}"
        return Entry(task.block.name, "failed", reason, tuple(result.failures))
    return Entry(task.block.name, "done", detail=tuple(result.failures))
