"""Stage predict: the model goes over the cube block by block."""

from __future__ import annotations

import functools
import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wetmap.bundle import Bundle, check_fits, load_bundle, load_predictor
from wetmap.cube import Cube
from wetmap.errors import BundleError
from wetmap.geo import Block
from wetmap.ledger import Entry
from wetmap.mapping import Predictor, map_block, whole_tiles
from wetmap.models.points import Point
from wetmap.stages import fetch, operating_point, plan, train
from wetmap.stages.context import BlockTask, Context, run_blocks
from wetmap.workspace import StageFolder, read_json, write_json

#: Raised when the same request would give other pixels.
REVISION = 1

#: classes.tif: not mapped.
NO_CLASS = 0
#: confidence.tif: not mapped; else percent, 0 to 100.
NO_CONFIDENCE = 255


@dataclass(frozen=True)
class _Work:
    cube: Path
    inside: Path
    bundle: Path
    target: Path
    threads: int
    point: Point | None


def bundle_folder(context: Context) -> Path:
    """The model to map with: one from elsewhere if the recipe names it, else this workspace's."""
    return context.recipe.predict.bundle or train.folder_of(context).path / "bundle"


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the cube, the model and its operating point, and the threads that order its sums."""
    elsewhere = context.recipe.predict.bundle
    card = None if elsewhere is None else elsewhere / "model.json"
    return {
        "revision": REVISION,
        "fetch": fetch.folder_of(context).key,
        "model": train.folder_of(context).key if card is None else _digest(card),
        "threads": context.workers.threads,
        **operating_point.asked(context.recipe.predict),
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
        raise BundleError(
            f"There is no model in {context.workspace.root}.",
            do="Run wetmap train with --reference first, or give a trained one with --bundle.",
        )
    bundle = load_bundle(bundle_folder(context))
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    check_fits(bundle.card, bands=cube.bands, layers=cube.layers, res_m=cube.grid.res_m)
    return bundle


def run(context: Context) -> StageFolder:
    """Map every block that holds a pixel of the area."""
    bundle = open_bundle(context)
    planned = plan.load(plan.folder_of(context))
    folder = folder_of(context)
    with context.workspace.lock("predict"):
        # refused before anything is written
        point = None if folder.complete else operating_point.settle(context, bundle, folder)
        if not folder.complete:
            load_predictor(bundle, point=point)  # what cannot be made is refused here, once, not in every worker
        if not context.begin(folder, asked(context)):
            return folder
        tile = bundle.card.geometry.tile
        block_px = _frozen_block(context, folder, whole_tiles(context.recipe.predict.block_px, tile))
        work = _Work(
            cube=fetch.cube_path(fetch.folder_of(context)),
            inside=planned.inside,
            bundle=bundle_folder(context),
            target=folder.path / "map.zarr",
            threads=context.workers.threads,
            point=point,
        )
        _create(work.target, planned.grid.shape, block_px)
        wanted = [
            block for block, near in fetch.blocks_wanted(planned.grid, planned.inside, block_px, reach_px=0) if near
        ]
        entries = run_blocks(context, folder, wanted, _map_block, work)
        write_json(
            folder.path / "manifest.json",
            {
                "stage": "predict",
                "blocks": len(entries),
                "failed": sorted(entry.block for entry in entries if entry.status == "failed"),
                "block_px": block_px,
                "tile_px": tile,
                "operating_point": None if point is None else asdict(point),
            },
        )
    return folder


def measure_rate(context: Context, bundle: Bundle, point: Point | None = None) -> float:
    """Pixels per second of one worker, measured here and now on one tile of the middle of the cube."""
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    predictor = load_predictor(bundle, threads=context.workers.threads, point=point)
    tile = bundle.card.geometry.tile
    block = Block(0, 0, cube.grid.height // 2 // tile * tile, cube.grid.width // 2 // tile * tile, tile, tile)
    inside = np.ones((tile, tile), dtype=np.bool_)
    map_block(cube, predictor, block, inside)  # the first call pays for start-up
    start = time.perf_counter()
    map_block(cube, predictor, block, inside)
    return tile * tile / max(time.perf_counter() - start, 1e-9)


def read_map(folder: StageFolder, name: str, block: Block) -> NDArray[np.uint8]:
    """A block of ``classes`` (codes, 0 nodata) or ``confidence`` (percent, 255 nodata)."""
    rows, cols = block.slices
    group = zarr.open_group(str(folder.path / "map.zarr"), mode="r")
    return np.asarray(group[name][rows, cols], dtype=np.uint8)  # type: ignore[index]  # the group holds arrays only


def _trained(context: Context) -> bool:
    return context.recipe.reference is not None and train.folder_of(context).complete


def _frozen_block(context: Context, folder: StageFolder, wanted: int) -> int:
    """The block size this map was begun with: a restart must find the same blocks in the ledger."""
    settings = read_json(folder.path / "settings.json")
    if settings is None:
        write_json(folder.path / "settings.json", {"block_px": wanted})
        return wanted
    begun = int(settings["block_px"])
    if begun != wanted:
        context.listener.say(f"This map was begun in blocks of {begun} px and goes on so (asked: {wanted} px).")
    return begun


def _create(path: Path, shape: tuple[int, int], block_px: int) -> None:
    if (path / "confidence").exists():
        return
    group = zarr.open_group(str(path), mode="a", zarr_format=3)
    chunks = (min(block_px, shape[0]), min(block_px, shape[1]))
    for name, fill in (("classes", NO_CLASS), ("confidence", NO_CONFIDENCE)):
        group.create_array(name, shape=shape, chunks=chunks, dtype="uint8", fill_value=fill, overwrite=True)


@functools.lru_cache(maxsize=2)
def _predictor(bundle: Path, _identity: str, threads: int, point: Point | None) -> tuple[Predictor, NDArray[np.uint8]]:
    loaded = load_bundle(bundle)
    codes = np.array([row.code for row in loaded.card.classes], dtype=np.uint8)
    return load_predictor(loaded, threads=threads, point=point), codes


def _map_block(task: BlockTask) -> Entry:
    work: _Work = task.work
    predictor, codes = _predictor(work.bundle, _digest(work.bundle / "model.json"), work.threads, work.point)
    inside = plan.read_inside(work.inside, task.block)
    mapped = map_block(Cube.open(work.cube), predictor, task.block, inside)
    rows, cols = task.block.slices
    group = zarr.open_group(str(work.target), mode="r+")
    percent = np.rint(mapped.probability * 100).astype(np.uint8)
    classes: Any = group["classes"]
    confidence: Any = group["confidence"]
    classes[rows, cols] = np.where(mapped.valid, codes[mapped.index], NO_CLASS)
    confidence[rows, cols] = np.where(mapped.valid, percent, NO_CONFIDENCE)
    return Entry(task.block.name, "done")


def _digest(path: Path) -> str:
    if not path.exists():
        raise BundleError(
            f"{path} does not exist, so {path.parent} is not a model.", do="Give the folder that wetmap train wrote."
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()
