"""A step from one map of classes to the next: block by block, with a ledger, through the workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from wetmap.errors import TooManyFailuresError
from wetmap.geo import Block, Grid
from wetmap.ledger import Entry
from wetmap.mapping.postprocess import area_cm2
from wetmap.stages import predict
from wetmap.stages.context import BlockTask, Context, Pace, run_blocks
from wetmap.workspace import StageFolder, read_json, write_json

#: Side of the blocks that are worked on and of the chunks on disk, pixels. It changes no pixel.
BLOCK_PX = 1024


@dataclass(frozen=True)
class Source:
    """A map of classes on disk."""

    folder: StageFolder
    """Whose map: the model's, or a step's."""
    grid: Grid
    """Its grid."""

    def read(self, block: Block) -> NDArray[np.uint8]:
        """Codes of a block, (height, width), 0 = nodata."""
        return predict.read_map(self.folder, "classes", block)

    def around(self, block: Block, reach_px: int) -> NDArray[np.uint8]:
        """Codes of a block and ``reach_px`` more on every side; 0 outside the map."""
        y0, x0 = max(block.y0 - reach_px, 0), max(block.x0 - reach_px, 0)
        y1 = min(block.y0 + block.height + reach_px, self.grid.height)
        x1 = min(block.x0 + block.width + reach_px, self.grid.width)
        codes = np.zeros((block.height + 2 * reach_px, block.width + 2 * reach_px), dtype=np.uint8)
        top, left = y0 - block.y0 + reach_px, x0 - block.x0 + reach_px
        codes[top : top + y1 - y0, left : left + x1 - x0] = self.read(Block(0, 0, y0, x0, y1 - y0, x1 - x0))
        return codes


class Change(Protocol):
    """What a step does to a block; it pickles."""

    def __call__(self, source: Source, block: Block) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
        """The new codes, and for each part of the step the pixels that it changed; all (height, width)."""


@dataclass(frozen=True)
class _Work:
    source: Source
    change: Change
    target: Path
    counts: Path


def take(
    context: Context, folder: StageFolder, source: Source, change: Change, target: StageFolder
) -> list[tuple[int, int]]:
    """Write a new map of classes.

    Args:
        context: The run.
        folder: Where the step's own files lie: ledger, counts.
        source: The map before.
        change: What becomes of a block.
        target: The map after, which `Source` reads.

    Returns:
        For each part of the step, pixels changed and their true area in cm2.

    Raises:
        TooManyFailuresError: A block failed; a map with holes that the model did not leave is not made.
    """
    work = _Work(source, change, target.path / "map.zarr", folder.path / "counts")
    work.counts.mkdir(parents=True, exist_ok=True)
    _create(work.target, source.grid.shape)
    blocks = list(source.grid.blocks(BLOCK_PX))
    every_block(context, folder, blocks, _change_block, work)
    parts: list[list[list[int]]] = [(read_json(work.counts / f"{block.name}.json") or {})["parts"] for block in blocks]
    return [(sum(row[0] for row in rows), sum(row[1] for row in rows)) for rows in zip(*parts, strict=True)]


def every_block(context: Context, folder: StageFolder, blocks: list[Block], function: Any, work: Any) -> None:
    """Run a function over all blocks, of which none may fail.

    Raises:
        TooManyFailuresError: One did.
    """
    # with a bound on memory this process works alone: nobody has measured what a worker needs here
    pace = Pace(workers=None if context.workers.memory is None else 1)
    failed = [row for row in run_blocks(context, folder, blocks, function, work, pace) if row.status == "failed"]
    if failed:
        raise TooManyFailuresError(
            f"{len(failed)} of {len(blocks)} blocks of {folder.stage} failed, and none may; "
            f"the first is {failed[0].block}: {failed[0].reason}",
            do="Run the same command again to try them again.",
        )


def _create(path: Path, shape: tuple[int, int]) -> None:
    if (path / "classes").exists():
        return
    chunks = (min(BLOCK_PX, shape[0]), min(BLOCK_PX, shape[1]))
    group = zarr.open_group(str(path), mode="a", zarr_format=3)
    group.create_array(
        "classes", shape=shape, chunks=chunks, dtype="uint8", fill_value=predict.NO_CLASS, overwrite=True
    )


def _change_block(task: BlockTask) -> Entry:
    work: _Work = task.work
    codes, parts = work.change(work.source, task.block)
    rows, cols = task.block.slices
    array: Any = zarr.open_group(str(work.target), mode="r+")["classes"]
    array[rows, cols] = codes
    area = area_cm2(work.source.grid, task.block) if any(part.any() for part in parts) else None
    counted = [[int(part.sum()), 0 if area is None else int(area[part].sum())] for part in parts]
    write_json(work.counts / f"{task.block.name}.json", {"parts": counted})
    return Entry(task.block.name, "done")
