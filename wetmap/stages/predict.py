"""Stage predict: the model goes over the cube block by block.

Each worker has two blocks in hand: while one is inferred, the other is read or written.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wetmap.allocator import give_freed_memory_back, keep_freed_memory
from wetmap.bundle import Bundle, Predictor, check_fits, load_bundle, load_predictor
from wetmap.cube import Cube
from wetmap.errors import BundleError
from wetmap.geo import Block
from wetmap.ledger import Entry
from wetmap.mapping import Keep, map_block
from wetmap.models.points import Point
from wetmap.stages import fetch, kept_layers, operating_point, plan, precision, predict_plan, train
from wetmap.stages.context import BlockTask, Context, Pace, run_blocks
from wetmap.stages.shards import blocks_of, need_few_left, need_settled
from wetmap.workspace import StageFolder, because, write_json

#: Raised when the same request would give other pixels.
REVISION = 2

#: classes.tif: not mapped.
NO_CLASS = 0
#: confidence.tif: not mapped; else percent, 0 to 100.
NO_CONFIDENCE = 255

#: One block of a process is inferred at a time, in all of its threads.
_TURN = threading.Lock()


@dataclass(frozen=True)
class _Work:
    cube: Path
    inside: Path
    bundle: Path
    identity: str
    target: Path
    block_px: int
    threads: int
    point: Point | None
    device: str
    precision: str
    keep: Keep


@dataclass(frozen=True)
class _Open:
    """What a worker opens once."""

    predictor: Predictor
    codes: NDArray[np.uint8]
    cube: Cube
    inside: Any
    classes: Any
    confidence: Any
    layers: dict[str, Any]


def bundle_folder(context: Context) -> Path:
    """The model to map with: one from elsewhere if the recipe names it, else this workspace's."""
    return context.recipe.predict.bundle or train.folder_of(context).path / "bundle"


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the cube, the model and its operating point, and the threads that order its sums."""
    elsewhere = context.recipe.predict.bundle
    card = None if elsewhere is None else elsewhere / "model.json"
    return {
        "revision": REVISION,
        "fetch": fetch.identity(context),
        "model": train.folder_of(context).key if card is None else _digest(card),
        "threads": context.workers.threads,
        **operating_point.asked(context.recipe.predict),
        **precision.asked(context.recipe.predict),
        **kept_layers.asked(context.recipe),
    }


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("predict", asked(context))


def open_bundle(context: Context) -> Bundle:
    """The model, checked against the cube.

    Raises:
        BundleError: There is no model yet, it is damaged, or it does not fit the cube.
    """
    if context.recipe.predict.bundle is None and not _trained(context):
        changes = train.folder_of(context).changes if context.recipe.reference is not None else ()
        since = f" (changed since the last training: {because(changes)})" if changes else ""
        raise BundleError(
            f"There is no model for this recipe and cube in {context.workspace.root}{since}.",
            do="Run wetmap train with --reference first, or give a trained one with --bundle.",
        )
    bundle = load_bundle(bundle_folder(context))
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    check_fits(bundle.card, bands=cube.bands, layers=cube.layers, res_m=cube.grid.res_m)
    return bundle


def run(context: Context) -> StageFolder:
    """Map every block that holds a pixel of the area; or prepare shards, map one, or close what they have mapped."""
    bundle = open_bundle(context)
    folder = folder_of(context)
    with context.workspace.lock("predict", context.share):
        if not context.prepared:
            _open_again(context, folder)
        elif not folder.complete:
            need_settled(folder, "predict")
        if folder.complete:
            context.begin(folder, asked(context))
            return folder
        # refused before anything is written
        point = operating_point.settle(context, bundle, folder)
        settled = predict_plan.settle(context, bundle, folder, point)
        load_predictor(bundle, point=point)  # what cannot be made is refused here, once, not in every worker
        context.begin(folder, asked(context))
        if not context.prepared:
            predict_plan.keep(folder, settled)
        _map_all(context, bundle, folder, point, settled)
        context.workers.rest()  # what follows needs the memory
        _opened.cache_clear()  # one worker is this process
        give_freed_memory_back()
    return folder


def identity(context: Context) -> dict[str, Any]:
    """What identifies the map for the stages after this one: its key, and the blocks that it lacks."""
    folder = folder_of(context)
    failed = (folder.manifest or {}).get("failed", [])
    return {"predict": folder.key, **({"without": failed} if failed else {})}


def _open_again(context: Context, folder: StageFolder) -> None:
    """Blocks that failed within ``--max-failed`` are tried again by the next run."""
    failed = (folder.manifest or {}).get("failed", [])
    if failed:
        context.listener.say(f"predict: {len(failed)} blocks failed last time and are tried again")
        (folder.path / "manifest.json").unlink()


def _map_all(
    context: Context, bundle: Bundle, folder: StageFolder, point: Point | None, settled: predict_plan.Settled
) -> None:
    planned = plan.load(plan.folder_of(context))
    work = _Work(
        cube=fetch.cube_path(fetch.folder_of(context)),
        inside=planned.inside,
        bundle=bundle_folder(context),
        identity=_digest(bundle.folder / "model.json"),
        target=folder.path / "map.zarr",
        block_px=settled.block_px,
        threads=context.workers.threads,
        point=point,
        device=settled.device,
        precision=settled.precision.used,
        keep=kept_layers.keep_of(context.recipe),
    )
    if not context.prepared:
        _create(work, planned.grid.shape, len(bundle.card.classes))
    side = settled.block_px
    make = functools.partial(fetch.near_area, planned.grid, planned.inside, side, reach_px=0)
    near = blocks_of(folder.path, planned.grid, side, make)
    if context.only == "plan":
        return
    if context.only == "finish":
        need_few_left(folder, "predict")
    entries = run_blocks(context, folder, near, _map_block, work, Pace(predict_plan.AT_ONCE, settled.workers))
    if context.shard is not None:
        return
    write_json(
        folder.path / "manifest.json",
        {
            "stage": "predict",
            "blocks": len(entries),
            "failed": sorted(entry.block for entry in entries if entry.status == "failed"),
            "skipped": sum(entry.status == "skipped" for entry in entries),
            "block_px": settled.block_px,
            "tile_px": bundle.card.geometry.tile,
            "operating_point": None if point is None else asdict(point),
            "device": settled.device,
            "precision": asdict(settled.precision),
        },
    )


def measure_rate(context: Context, bundle: Bundle, settled: predict_plan.Settled, point: Point | None = None) -> float:
    """Pixels per second of one worker, measured here and now on one tile of the middle of the cube."""
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    predictor = load_predictor(
        bundle,
        threads=context.workers.threads,
        point=point,
        device=settled.device,
        precision=settled.precision.used,
    )
    tile = bundle.card.geometry.tile
    block = Block(0, 0, cube.grid.height // 2 // tile * tile, cube.grid.width // 2 // tile * tile, tile, tile)
    inside = np.ones((tile, tile), dtype=np.bool_)
    keep = kept_layers.keep_of(context.recipe)
    map_block(cube, predictor, block, inside, keep=keep)  # the first call pays for start-up
    start = time.perf_counter()
    map_block(cube, predictor, block, inside, keep=keep)
    return tile * tile / max(time.perf_counter() - start, 1e-9)


def read_map(folder: StageFolder, name: str, block: Block) -> NDArray[np.uint8]:
    """A block of ``classes`` (codes, 0 nodata), ``confidence`` or ``entropy`` (percent, 255 nodata), (height, width).

    Of ``probabilities`` (class, height, width), percent, 255 nodata. Layers are there if the recipe asks for them.
    """
    rows, cols = block.slices
    path = folder.path / "map.zarr" / name
    array = _read_only(path, (path / "zarr.json").stat().st_mtime_ns)
    return np.asarray(array[..., rows, cols], dtype=np.uint8)


@functools.lru_cache(maxsize=8)
def _read_only(path: Path, _made: int) -> Any:
    return zarr.open_array(str(path), mode="r")


def _trained(context: Context) -> bool:
    return context.recipe.reference is not None and train.folder_of(context).complete


def _create(work: _Work, shape: tuple[int, int], classes: int) -> None:
    if (work.target / "confidence" / "zarr.json").exists():  # the last that is made
        return
    group = zarr.open_group(str(work.target), mode="a", zarr_format=3)
    kept_layers.create(group, work.keep, classes, shape, work.block_px)
    chunks = (min(work.block_px, shape[0]), min(work.block_px, shape[1]))
    for name, fill in (("classes", NO_CLASS), ("confidence", NO_CONFIDENCE)):
        group.create_array(name, shape=shape, chunks=chunks, dtype="uint8", fill_value=fill, overwrite=True)


@functools.lru_cache(maxsize=1)
def _opened(work: _Work) -> _Open:
    keep_freed_memory(one_arena=True)
    loaded = load_bundle(work.bundle)
    group = zarr.open_group(str(work.target), mode="r+")
    return _Open(
        load_predictor(loaded, threads=work.threads, point=work.point, device=work.device, precision=work.precision),
        np.array([row.code for row in loaded.card.classes], dtype=np.uint8),
        Cube.open(work.cube),
        zarr.open_array(str(work.inside), mode="r"),
        group["classes"],
        group["confidence"],
        kept_layers.arrays_of(group, work.keep),
    )


def _map_block(task: BlockTask) -> Entry:
    with _TURN:
        tools = _opened(task.work)
    rows, cols = task.block.slices
    inside = np.asarray(tools.inside[rows, cols], dtype=np.bool_)
    mapped = map_block(tools.cube, tools.predictor, task.block, inside, turn=_TURN, keep=task.work.keep)
    if not mapped.valid.any():
        return Entry(task.block.name, "skipped", "no pixel of the area was observed here")
    percent = np.rint(mapped.probability * 100).astype(np.uint8)
    tools.classes[rows, cols] = np.where(mapped.valid, tools.codes[mapped.index], NO_CLASS)
    tools.confidence[rows, cols] = np.where(mapped.valid, percent, NO_CONFIDENCE)
    kept_layers.write(tools.layers, mapped, (rows, cols))
    return Entry(task.block.name, "done")


def _digest(path: Path) -> str:
    if not path.exists():
        raise BundleError(
            f"{path} does not exist, so {path.parent} is not a model.", do="Give the folder that wetmap train wrote."
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()
