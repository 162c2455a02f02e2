"""Masks of clouds by a network, on tiles that lie the same whatever the blocks.

A network sees what is around a pixel, and normalises what it is given, so its answer for a pixel depends on the whole
array. The arrays are therefore tiles of one size, counted from the grid's origin, each with a margin that is read and
not used; a block takes its pixels out of the tiles it meets. A tile of a pass is made once and kept in the stage's
folder until the stage is finished.
"""

from __future__ import annotations

import errno
import math
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import RecipeError, WorkspaceError, full_disk
from wetmap.geo import Grid
from wetmap.imagery.cloud_masks import MASKS, UNSEEN, parts_of, refuse_missing, try_out, version_of
from wetmap.imagery.masks import Classes
from wetmap.recipe import Recipe
from wetmap.stages.block_reading import REACH_M, BlockReader, Pass, pass_name

#: Side of a tile, pixels, where its pixels are not large; halved until it is near enough to every block that needs it.
TILE_PX = 512
#: Pixels around a tile that the network sees too. With 509 px of surroundings in all OmniCloudMask is nearly as good as
#: it gets, with 96 it has most of it (its documentation, "Spatial Context").
MARGIN_PX = 128
#: Folder in the stage's folder where tiles are kept while blocks are made.
FOLDER = "masks"
#: Farthest that clouds can be grown, metres: the recipe's limit of ``optical.dilate_m``.
GROWN_M = 2000.0


def tile_px(res_m: float) -> int:
    """Side of the tiles on a grid, pixels: a power of two, at most ``TILE_PX``.

    Scenes farther than ``REACH_M`` from a block are not at hand when it is made; a tile and its margin lie within that
    reach of every block whose pixels, or the rim that clouds grow in, meet the tile.
    """
    most = (REACH_M - GROWN_M) / res_m - MARGIN_PX
    return min(TILE_PX, int(2 ** math.floor(math.log2(max(most, 1.0)) + 1e-9)))


def refuse_unusable(recipe: Recipe) -> None:
    """Refuse a mask that cannot be made, before anything is read.

    Raises:
        RecipeError: The mask is unknown, or the grid's pixels are too small or too large for it.
        UsageError: Its package is not installed.
    """
    _, name = parts_of(recipe.optical.mask_from)
    if name is None:
        return
    refuse_missing(name)
    mask, res_m = MASKS[name], recipe.grid.res_m
    if not mask.finest_m <= res_m <= mask.coarsest_m:
        raise RecipeError(
            f"optical.mask_from names {name}, which is made for pixels of {mask.finest_m:g} to {mask.coarsest_m:g} m, "
            f"and grid.res_m is {res_m:g}.",
            do="Take a pixel within that, or write `mask_from: scl`.",
        )


def try_once(recipe: Recipe) -> None:
    """Run the recipe's mask on a made-up tile, so that what is wrong with it is said before hours of reading.

    Raises:
        UsageError: It cannot be run.
    """
    _, name = parts_of(recipe.optical.mask_from)
    if name is not None:
        try_out(name, tile_px(recipe.grid.res_m) + 2 * MARGIN_PX)


def asked(recipe: Recipe) -> dict[str, str]:
    """What of the mask changes features, for the stage's key: nothing, where scenes' own classification is the mask."""
    _, name = parts_of(recipe.optical.mask_from)
    if name is None:
        return {}
    return {"mask_from": recipe.optical.mask_from, "mask_version": version_of(name)}


def bands_of_mask(recipe: Recipe) -> Sequence[str]:
    """Bands that the recipe's mask needs of every optical scene."""
    _, name = parts_of(recipe.optical.mask_from)
    return () if name is None else MASKS[name].bands


def read_more(res_m: float) -> float:
    """Pixels that are read for each pixel that is masked: tiles are read with their margins."""
    side = tile_px(res_m)
    return ((side + 2 * MARGIN_PX) / side) ** 2


def cloud_classes(reader: BlockReader, scenes: Pass, margin: int, name: str) -> Classes:
    """What a mask says of a pass on a block and a margin around it, (y, x) uint8; ``UNSEEN`` where it saw nothing.

    Args:
        reader: Reads the block.
        scenes: The scenes of the pass.
        margin: Pixels around the block.
        name: The mask, of ``MASKS``.
    """
    grid, window = reader.task.grid, reader.window
    side = tile_px(grid.res_m)
    y0 = round((grid.top - window.top) / grid.res_m) - margin
    x0 = round((window.left - grid.left) / grid.res_m) - margin
    height, width = window.height + 2 * margin, window.width + 2 * margin
    found = np.zeros((height, width), dtype=np.uint8)
    for row in range(y0 // side, (y0 + height - 1) // side + 1):
        for col in range(x0 // side, (x0 + width - 1) // side + 1):
            top, left = max(row * side, y0), max(col * side, x0)
            bottom, right = min((row + 1) * side, y0 + height), min((col + 1) * side, x0 + width)
            tile = _tile(reader, scenes, name, (row, col))
            found[top - y0 : bottom - y0, left - x0 : right - x0] = tile[
                top - row * side : bottom - row * side, left - col * side : right - col * side
            ]
    return found


def _tile(reader: BlockReader, scenes: Pass, name: str, place: tuple[int, int]) -> Classes:
    """A tile's classes, (side, side): kept from another block, or made now."""
    row, col = place
    grid, folder = reader.task.grid, reader.task.masks
    side = tile_px(grid.res_m)
    file = None if folder is None else folder / f"{pass_name(scenes)}-{row}_{col}"
    kept = None if file is None else _read(file, side)
    if kept is not None:
        return kept
    wide = side + 2 * MARGIN_PX
    window = grid.window(row * side - MARGIN_PX, col * side - MARGIN_PX, wide, wide)
    bands = _bands(reader, scenes, MASKS[name].bands, window)
    observed: NDArray[np.bool_] = np.asarray(np.isfinite(bands).all(axis=0))
    inner = slice(MARGIN_PX, MARGIN_PX + side)
    tile = np.full((side, side), UNSEEN, dtype=np.uint8)
    if observed[inner, inner].any():
        classes = MASKS[name].classify(bands[0], bands[1], bands[2], observed)
        tile = np.where(observed, classes, UNSEEN)[inner, inner].astype(np.uint8)
    lost = {(str(failure["sensor"]), str(failure["scene"])) for failure in reader.failures}
    if file is not None and not any((str(scene.sensor), scene.id) in lost for scene in scenes):
        _keep(file, tile)
    return tile


def _bands(reader: BlockReader, scenes: Pass, names: Sequence[str], window: Grid) -> NDArray[np.float32]:
    """Bands of a pass, (band, y, x) NaN where not observed; where scenes overlap the last in the list counts."""
    bands = np.full((len(names), *window.shape), np.nan, dtype=np.float32)
    for scene in reversed(scenes):
        values = reader.read_scene(scene, names, window)
        for number, name in enumerate(names):
            if name in values:
                np.copyto(bands[number], values[name], where=np.isnan(bands[number]))
    return bands


def _read(file: Path, side: int) -> Classes | None:
    """A tile that was kept; None where there is none, or a damaged one."""
    try:
        found = np.frombuffer(zlib.decompress(file.read_bytes()), dtype=np.uint8)
    except (OSError, zlib.error):
        return None
    return found.reshape(side, side) if found.size == side**2 else None


def _keep(file: Path, tile: Classes) -> None:
    """Keep a tile; other threads and processes may do the same at the same time, with the same bytes."""
    temporary = file.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(exist_ok=True)
        temporary.write_bytes(zlib.compress(tile.tobytes(), 1))
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise full_disk(error) from error
        raise WorkspaceError(
            f"{file.parent} cannot be written ({error.strerror}).", do="Check its permissions and the space left."
        ) from error
