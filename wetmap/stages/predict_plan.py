"""What is settled before the first block of a map and kept with it: device, precision, and the size of blocks.

With a bound on memory, the size of the blocks and the number of workers follow from what one worker was measured to
need for one tile, and from what a larger block holds beyond that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from wetmap.allocator import keep_freed_memory
from wetmap.budget import memory_text
from wetmap.bundle import Bundle, choose_device, load_bundle, load_predictor
from wetmap.cluster import limited_threads
from wetmap.cube import Cube
from wetmap.errors import UsageError
from wetmap.geo import Block
from wetmap.mapping import Keep, block_bytes, kept_bytes, map_block, whole_tiles
from wetmap.models.points import Point
from wetmap.stages import fetch, kept_layers, precision
from wetmap.stages.context import Context
from wetmap.workspace import StageFolder, read_json, write_json

#: Where it is kept.
FILE = "settings.json"
#: Blocks that a worker works on at the same time: one is read or written while the other is inferred.
AT_ONCE = 2
#: Side of blocks, pixels, where nothing else is asked. On small maps they are cut smaller, down to the second side,
#: until every worker has so many of them: the last ones end at different times, and until then some workers wait.
USUAL_PX, LEAST_PX, BLOCKS_PER_WORKER = 512, 256, 64
#: What the leading process needs beyond what it has when mapping begins, bytes: Dask, mosaic (GDAL keeps 64 MB of the
#: raster) and report. Measured: docs/how-to/big-areas.md.
LATER_BYTES = 150 * 2**20
#: What Dask's worker takes in a process beyond the libraries that compute, bytes.
DASK_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Footprint:
    """What one worker was measured to need, bytes."""

    base: int
    """A process with the libraries in it and nothing done, what it shares with others not counted."""
    tile: int
    """On top of that at most, with the model, while it maps a block of one tile."""
    resident: int = 0
    """The same process as ``base``, with what it shares with others: what a process in a job is charged with."""


@dataclass(frozen=True)
class Layout:
    """How the work is cut and shared out."""

    workers: int
    """Worker processes."""
    block_px: int
    """Side of the blocks, pixels."""
    needed: int | None = None
    """Memory that is needed at most, by estimate, bytes; None where there is no bound."""


@dataclass(frozen=True)
class Settled:
    """What a map is made with, from its first block to its last."""

    block_px: int
    """Side of the blocks, pixels."""
    device: str
    """``cpu`` or ``cuda``."""
    precision: precision.Choice
    """Numbers that a network computes with."""
    footprint: Footprint | None
    """What a worker needs, where it was measured."""
    workers: int
    """Workers of this run; another run may have others."""

    def to_json(self) -> dict[str, Any]:
        """What is kept."""
        kept = asdict(self)
        del kept["workers"]
        return kept


def settle(context: Context, bundle: Bundle, folder: StageFolder, point: Point | None) -> Settled:
    """What this map is made with: as it was begun, or decided now; nothing is written.

    Raises:
        UsageError: It was begun on a GPU and there is none, the memory is too little for one worker and one tile, or
            the model does not have that precision.
    """
    saved = read_json(folder.path / FILE)
    if saved is None:
        settled = _decided(context, bundle, point, _device(context, bundle))
    else:
        settled = _begun(context, bundle, point, folder, saved)
    _say(context, settled)
    return settled


def keep(folder: StageFolder, settled: Settled) -> None:
    """Write what was settled, once; a restart must find the same blocks in the ledger."""
    if not (folder.path / FILE).exists():
        write_json(folder.path / FILE, settled.to_json())


def look(context: Context, bundle: Bundle, point: Point | None) -> Settled:
    """What would be settled now, for a dry run."""
    return _decided(context, bundle, point, choose_device(bundle))


def _device(context: Context, bundle: Bundle) -> str:
    """Where blocks are computed: on this machine, or on what the first worker elsewhere has."""
    return choose_device(bundle) if context.workers.local else context.workers.ask(_device_of, bundle.folder)


def _device_of(bundle: Path) -> str:
    return choose_device(load_bundle(bundle))


def _decided(context: Context, bundle: Bundle, point: Point | None, device: str) -> Settled:
    choice = precision.choose(context, bundle, point, device)
    asked_px = _side(context, bundle.card.geometry.tile)
    settled = Settled(asked_px, device, choice, None, context.workers.count)
    return _within_memory(context, bundle, point, settled, smallest_px=bundle.card.geometry.tile)


def _side(context: Context, tile: int) -> int:
    """Side of the blocks, pixels: what the recipe asks for, or what keeps every worker busy."""
    asked = context.recipe.predict.block_px
    if asked is not None:
        return whole_tiles(asked, tile)
    side, least = whole_tiles(USUAL_PX, tile), whole_tiles(LEAST_PX, tile)
    height, width = context.grid.shape
    wanted = BLOCKS_PER_WORKER * context.workers.count
    while side > least and math.ceil(height / side) * math.ceil(width / side) < wanted:
        side = max(least, whole_tiles(side // 2, tile))
    return side


def _begun(
    context: Context, bundle: Bundle, point: Point | None, folder: StageFolder, saved: dict[str, Any]
) -> Settled:
    """What the map was begun with. Maps of before this was kept were made on the processor in float32."""
    footprint = saved.get("footprint")
    settled = Settled(
        int(saved["block_px"]),
        str(saved.get("device", "cpu")),
        precision.Choice(**saved.get("precision", {"used": "float32"})),
        None if footprint is None else Footprint(**footprint),
        context.workers.count,
    )
    device = _device(context, bundle)
    if settled.device != "cpu" and device == "cpu":
        raise UsageError(
            f"This map was begun on a GPU ({settled.device}), and PyTorch finds none here. A processor rounds "
            "otherwise, and a map is made on one kind of device.",
            do=f"Go on where there is a GPU, or delete {folder.path} and begin anew.",
        )
    if settled.device != device:
        context.listener.say("This map was begun on the processor and goes on so, though there is a GPU here.")
    asked_px = _side(context, bundle.card.geometry.tile)
    if context.workers.memory is None and settled.block_px != asked_px and footprint is None:
        context.listener.say(
            f"This map was begun in blocks of {settled.block_px} px and goes on so (now it would be {asked_px})."
        )
    return _within_memory(context, bundle, point, settled, smallest_px=settled.block_px)


def _within_memory(
    context: Context, bundle: Bundle, point: Point | None, settled: Settled, *, smallest_px: int
) -> Settled:
    """The same with blocks and workers that keep to the bound, if there is one."""
    share = context.workers.worker_memory
    memory = context.workers.memory if share is None else share
    if memory is None or (share is not None and settled.device != "cpu"):  # a job's memory is not its GPU's
        return settled
    cube, card = Cube.open(fetch.cube_path(fetch.folder_of(context))), bundle.card
    footprint = settled.footprint or measure(context, bundle, settled, point)
    keep = kept_layers.keep_of(context.recipe)
    own = psutil.Process().memory_info().rss
    measured_beside = share is None and settled.footprint is None
    layout = lay_out(
        memory,
        measuring=own + footprint.base + footprint.tile if measured_beside else 0,
        # a worker in a job is measured against its own part
        main=own + LATER_BYTES if share is None else (footprint.resident or own) + DASK_BYTES,
        footprint=footprint,
        most_workers=context.workers.count if share is None else 1,
        sides=range(settled.block_px, smallest_px - 1, -card.geometry.tile),
        block=lambda side: (
            block_bytes(
                len(card.bands), len(card.layers), len(card.classes), side, card.geometry, chunk_px=cube.chunk_px
            )
            + kept_bytes(keep, len(card.classes), side, card.geometry)
        ),
    )
    workers = layout.workers if share is None else settled.workers
    return replace(settled, block_px=layout.block_px, workers=workers, footprint=footprint)


def lay_out(
    memory: int,
    *,
    main: int,
    footprint: Footprint,
    most_workers: int,
    sides: range,
    block: Callable[[int], int],
    measuring: int = 0,
) -> Layout:
    """The most workers that fit, and the largest blocks that so many can hold.

    Args:
        memory: The bound, bytes.
        main: What the leading process needs, bytes; a single worker is a part of it.
        footprint: What each worker needs for one tile.
        most_workers: Workers that were asked for.
        sides: Sides that a block may have, the largest first, pixels; whole tiles.
        block: What a block of a side holds, bytes.
        measuring: What this process and the one that measured beside it held, bytes; 0 where nothing was measured.

    Raises:
        UsageError: One worker with the smallest block needs more.
    """
    tile = block(-sides.step)
    needed = 0
    for workers in range(most_workers, 0, -1):
        for side in sides:
            each = footprint.tile + AT_ONCE * block(side) - tile
            needed = max(main + workers * each + (0 if workers == 1 else workers * footprint.base), measuring)
            if needed <= memory:
                return Layout(workers, side, needed)
    raise UsageError(
        f"Mapping needs about {memory_text(needed)} with one worker and blocks of {sides[-1]} px, and --memory allows "
        f"{memory_text(memory)} (in jobs, that is a worker's part of cluster.job.memory, less a fifth).",
        do=f"Give at least --memory {-(-needed // 2**20)}MiB (in jobs a quarter more to each), or a smaller model.",
    )


def measure(context: Context, bundle: Bundle, settled: Settled, point: Point | None) -> Footprint:
    """What a worker needs, measured in a process of its own that maps one tile of the middle of the cube."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(
            _measure_here,
            fetch.cube_path(fetch.folder_of(context)),
            bundle.folder,
            {
                "threads": context.workers.threads,
                "point": point,
                "device": settled.device,
                "precision": settled.precision.used,
            },
            kept_layers.keep_of(context.recipe),
        ).result()


def _measure_here(cube_path: Path, bundle: Path, options: dict[str, Any], keep: Keep) -> Footprint:
    import torch  # what every worker has

    process = psutil.Process()
    with limited_threads(options["threads"]):
        keep_freed_memory(one_arena=True)
        torch.zeros(1)
        cube = Cube.open(cube_path)
        before, own = process.memory_info().rss, process.memory_full_info().uss
        predictor = load_predictor(load_bundle(bundle), **options)
        tile = predictor.geometry.tile
        y0, x0 = (size // 2 // tile * tile for size in cube.shape)
        block = Block(0, 0, y0, x0, min(tile, cube.shape[0] - y0), min(tile, cube.shape[1] - x0))
        for _ in range(2):  # what is made once and kept is there from the second on
            map_block(cube, predictor, block, np.ones((block.height, block.width), dtype=np.bool_), keep=keep)
        peak = max(_highest(), process.memory_info().rss)
    return Footprint(base=own, tile=max(peak - before, 0), resident=before)


def _highest() -> int:
    """The most memory that this process has held, bytes; 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    row = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(row.split()[1]) * 1024


def _say(context: Context, settled: Settled) -> None:
    """The choice in one line."""
    memory, threads = context.workers.memory, context.workers.threads
    parts = [
        f"blocks of {settled.block_px} px",
        f"{_counted(settled.workers, 'worker')} of {_counted(threads, 'thread')}",
        f"{settled.precision.used} on the {'processor' if settled.device == 'cpu' else 'GPU'}",
    ]
    bound = "" if memory is None else f" (within {memory_text(memory)})"
    why = f"; {settled.precision.why}" if settled.precision.why else ""
    context.listener.say(f"predict: {', '.join(parts)}{bound}{why}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
