"""Stage applicability: how far each pixel's features are from those that the model was trained on.

Block by block, with a ledger. Blocks are whole batches of `wetmap.assessment.applicability`, laid out from the grid's
origin as squares, so that a pixel's index does not depend on how the map was cut, to the last bit.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wetmap.assessment.applicability import BATCH, LAYER_NODATA, LAYER_THRESHOLD, Applicability
from wetmap.bundle import APPLICABILITY_FILE, Bundle, load_applicability, load_bundle
from wetmap.cube import Cube
from wetmap.errors import BundleError
from wetmap.geo import Block
from wetmap.ledger import Entry, Ledger
from wetmap.mapping.postprocess import CM2_PER_HA, area_cm2
from wetmap.products.geotiff import write_cog
from wetmap.products.style import write_ramp_style
from wetmap.recipe import Recipe
from wetmap.stages import fetch, plan, predict
from wetmap.stages.context import BlockTask, Context
from wetmap.stages.map_steps import every_block
from wetmap.stages.shards import blocks_of, need_few_left, need_settled
from wetmap.workspace import StageFolder, write_json

#: Raised when the same request would give other pixels, or another file of them.
REVISION = 1
#: Side of the squares of one batch, pixels, and of the blocks, which are whole squares.
SQUARE_PX = 64
BLOCK_PX = 512
#: Name of the layer, in the workspace and in the map's folder.
LAYER = "applicability"


@dataclass(frozen=True)
class _Work:
    cube: Path
    inside: Path
    bundle: Path
    digest: str | None
    target: Path


@dataclass(frozen=True)
class _Open:
    """What a worker opens once."""

    applicability: Applicability
    cube: Cube
    inside: Any
    layer: Any


def wanted(recipe: Recipe) -> bool:
    """Whether the recipe asks for the layer."""
    return recipe.products.applicability


def check(recipe: Recipe) -> None:
    """Refuse a model from elsewhere that cannot say where it applies, before anything is computed.

    Raises:
        BundleError: It has no area of applicability.
    """
    if wanted(recipe) and recipe.predict.bundle is not None:
        _need(load_bundle(recipe.predict.bundle))


def look(context: Context) -> None:
    """Refuse what `check` refuses, of whichever model is to map.

    Raises:
        BundleError: There is no model, or it has no area of applicability.
    """
    if wanted(context.recipe):
        _need(predict.open_bundle(context))


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the cube, what the model knows, and the threads that order the sums."""
    return {
        "revision": REVISION,
        "fetch": fetch.identity(context),
        "applicability": _digest(predict.bundle_folder(context)),
        "threads": context.workers.threads,
    }


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage(LAYER, asked(context))


def run(context: Context) -> None:
    """Compute the layer of every block that holds a pixel of the area; without the wish for it, do nothing.

    As the stage predict: all of it, or what comes before shards, one shard, or what comes after them.

    Raises:
        BundleError: The model has no area of applicability.
        TooManyFailuresError: A block failed.
    """
    if not wanted(context.recipe):
        return
    known = _need(predict.open_bundle(context))
    folder = folder_of(context)
    with context.workspace.lock(LAYER, context.share):
        if context.prepared and not folder.complete:
            need_settled(folder, "predict")
        if not context.begin(folder, asked(context)):
            return
        planned = plan.load(plan.folder_of(context))
        bundle = predict.bundle_folder(context)
        work = _Work(
            cube=fetch.cube_path(fetch.folder_of(context)),
            inside=planned.inside,
            bundle=bundle,
            digest=_digest(bundle),
            target=folder.path / "map.zarr",
        )
        if not context.prepared:
            _create(work.target, planned.grid.shape)
        make = functools.partial(fetch.near_area, planned.grid, planned.inside, BLOCK_PX, reach_px=0)
        blocks = blocks_of(folder.path, planned.grid, BLOCK_PX, make)
        if context.only == "plan":
            return
        if context.only == "finish":
            need_few_left(folder, "predict")
        every_block(context, folder, blocks, _measure_block, work)
        if context.shard is None:
            about = {"stage": LAYER, "threshold": known.threshold, "samples": len(known.samples)}
            write_json(folder.path / "manifest.json", about | _totals(folder, blocks))


def told(context: Context) -> dict[str, Any] | None:
    """The threshold, and what lies inside and outside, for manifests and the summary; None without the layer."""
    if not wanted(context.recipe):
        return None
    manifest = folder_of(context).manifest or {}
    return {key: value for key, value in manifest.items() if key != "stage"}


def sentence(row: dict[str, Any]) -> str:
    """``1,234.5 ha (7 %) are unlike the training data: outside the area of applicability``."""
    outside, whole = row["hectares_outside"], row["hectares_outside"] + row["hectares_inside"]
    share = f"{100 * outside / whole:.1f}" if whole else "0"
    return f"{outside:,.1f} ha ({share} %) are unlike the training samples: outside the area of applicability"


def write_layer(folder: Path, context: Context, tags: dict[str, str]) -> dict[str, Any] | None:
    """Write ``applicability.tif`` and its style into the map's folder, where the recipe asks for them.

    Args:
        folder: Where to.
        context: The run.
        tags: Metadata of the map's files.

    Returns:
        As `told`.
    """
    row = told(context)
    if row is None:
        return None
    own = folder_of(context)
    path = folder / f"{LAYER}.tif"
    write_cog(
        path,
        plan.load(plan.folder_of(context)).grid,
        lambda block: predict.read_map(own, LAYER, block),
        dtype="uint8",
        nodata=LAYER_NODATA,
        overview="average",
        colours=None,
        description=f"dissimilarity to the training samples (percent of the threshold; {LAYER_THRESHOLD} and less is "
        "inside the area of applicability)",
        tags={**tags, "units": "percent of the threshold", "DI_THRESHOLD": repr(row["threshold"])},
    )
    label = f"Dissimilarity to the training samples (above {LAYER_THRESHOLD}: outside the area of applicability)"
    write_ramp_style(path, low=0, high=2 * LAYER_THRESHOLD, label=label)
    return row


def _need(bundle: Bundle) -> Applicability:
    found = load_applicability(bundle)
    if found is None:
        raise BundleError(
            f"The model in {bundle.folder} has no {APPLICABILITY_FILE}, which products.applicability needs: it is of "
            "an older wetmap, was imported, or its samples do not allow one (no feature varies, or no sample differs "
            "from those of the other folds).",
            do="Train with this wetmap, or leave products.applicability out.",
        )
    return found


def _digest(bundle: Path) -> str | None:
    path = bundle / APPLICABILITY_FILE
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _totals(folder: StageFolder, blocks: Sequence[Block]) -> dict[str, float]:
    """Pixels and hectares inside and outside, of all blocks; whole square centimetres are added up, so exactly."""
    ledger = Ledger(folder.path / "ledger")
    entries = ledger.entries()
    counts = [entry.facts["counts"] for entry in ledger.with_facts(entries[block.name] for block in blocks)]
    inside, outside, inside_cm2, outside_cm2 = (sum(row[column] for row in counts) for column in range(4))
    return {
        "pixels_inside": inside,
        "pixels_outside": outside,
        "hectares_inside": inside_cm2 / CM2_PER_HA,
        "hectares_outside": outside_cm2 / CM2_PER_HA,
    }


def _create(path: Path, shape: tuple[int, int]) -> None:
    if (path / LAYER / "zarr.json").exists():
        return
    chunks = (min(BLOCK_PX, shape[0]), min(BLOCK_PX, shape[1]))
    group = zarr.open_group(str(path), mode="a", zarr_format=3)
    group.create_array(LAYER, shape=shape, chunks=chunks, dtype="uint8", fill_value=LAYER_NODATA, overwrite=True)


@functools.lru_cache(maxsize=1)
def _opened(work: _Work) -> _Open:
    return _Open(
        _need(load_bundle(work.bundle)),
        Cube.open(work.cube),
        zarr.open_array(str(work.inside), mode="r"),
        zarr.open_group(str(work.target), mode="r+")[LAYER],
    )


def _measure_block(task: BlockTask) -> Entry:
    tools = _opened(task.work)
    block = task.block
    rows, cols = block.slices
    inside = np.asarray(tools.inside[rows, cols], dtype=np.bool_)
    layer = block_layer(tools.applicability, tools.cube, block, inside)
    tools.layer[rows, cols] = layer
    area = area_cm2(tools.cube.grid, block)
    parts = layer <= LAYER_THRESHOLD, (layer > LAYER_THRESHOLD) & (layer != LAYER_NODATA)
    counts = [int(part.sum()) for part in parts] + [int(area[part].sum()) for part in parts]
    return Entry(block.name, "done", facts={"counts": counts})


def block_layer(applicability: Applicability, cube: Cube, block: Block, inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The layer of one block.

    Args:
        applicability: What the model knows.
        cube: Its features are compared.
        block: Its origin is a multiple of `SQUARE_PX`.
        inside: Pixels of the block that lie in the area, (height, width).

    Returns:
        (height, width), as `Applicability.layer`; nodata outside the area and where nothing was observed.
    """
    observed = cube.read_observed(block.y0, block.x0, block.height, block.width)
    valid = inside & observed.any(axis=0)
    layer = np.full(valid.shape, LAYER_NODATA, dtype=np.uint8)
    if not valid.any():
        return layer
    features = cube.read_features(block.y0, block.x0, block.height, block.width)
    seen = observed[[cube.layers.index(band.layer) for band in cube.bands]]
    for y in range(0, block.height, SQUARE_PX):
        for x in range(0, block.width, SQUARE_PX):
            square = (slice(y, y + SQUARE_PX), slice(x, x + SQUARE_PX))
            if valid[square].any():
                values = np.where(seen[:, *square], features[:, *square], np.float32(np.nan))
                pixels = np.full((len(values), SQUARE_PX, SQUARE_PX), np.nan, dtype=np.float32)
                pixels[:, : values.shape[1], : values.shape[2]] = values
                found = applicability.layer(applicability.index(pixels.reshape(len(values), BATCH).T))
                found = found.reshape(SQUARE_PX, SQUARE_PX)[: values.shape[1], : values.shape[2]]
                layer[square] = np.where(valid[square], found, LAYER_NODATA)
    return layer
