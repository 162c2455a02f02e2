"""What the map keeps of the model's answer beside class and confidence, as the recipe's ``products`` ask."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wetmap.cube import chunk_side
from wetmap.mapping import BlockMap, Keep
from wetmap.mapping.layers import NO_PERCENT
from wetmap.recipe import Recipe

#: Bytes per pixel of the classes and the confidence in the workspace, and of their files.
MAP_BYTES = 4
#: Bytes per pixel and season of clear_count.tif; its pixels lie in the cube already.
COUNT_BYTES = 2
#: Bytes per pixel of applicability.tif, and of what it is made from.
GROUND_BYTES = 2


def keep_of(recipe: Recipe) -> Keep:
    """What is kept of each block."""
    return Keep(probabilities=recipe.products.probabilities, entropy=recipe.products.entropy)


def asked(recipe: Recipe) -> dict[str, Any]:
    """What a map with these layers is asked more than one without; empty where there are none."""
    names = [name for name in ("entropy", "probabilities") if getattr(keep_of(recipe), name)]
    return {"layers": names} if names else {}


def counts_clear(recipe: Recipe) -> bool:
    """Whether there is a clear_count.tif."""
    return recipe.products.clear_count and recipe.sources.optical is not None


def written_bytes(recipe: Recipe, classes: int) -> int:
    """Bytes per pixel that the map and its files take at most, in the workspace, before compression."""
    counts = COUNT_BYTES * len(recipe.seasons) if counts_clear(recipe) else 0
    ground = GROUND_BYTES if recipe.products.applicability else 0
    return MAP_BYTES + 2 * keep_of(recipe).pixel_bytes(classes) + counts + ground


def create(group: zarr.Group, keep: Keep, classes: int, shape: tuple[int, int], block_px: int) -> None:
    """Make the arrays, one shard per block as in the cube, so that a window of the map decodes little more than itself.

    Args:
        group: The map's.
        keep: What is kept.
        classes: Classes of the model.
        shape: Rows and columns of the grid.
        block_px: Side of the blocks.
    """
    arrays = {"probabilities": (classes,)} if keep.probabilities else {}
    chunk = chunk_side(block_px)
    shard = tuple(min(block_px, math.ceil(side / chunk) * chunk) for side in shape)  # no larger than a small map
    for name, before in {**arrays, **({"entropy": ()} if keep.entropy else {})}.items():
        group.create_array(
            name,
            shape=(*before, *shape),
            chunks=(*before, chunk, chunk),
            shards=(*before, *shard),
            dtype="uint8",
            fill_value=NO_PERCENT,
            overwrite=True,
        )


def arrays_of(group: zarr.Group, keep: Keep) -> dict[str, Any]:
    """The arrays, by name, as a worker writes them."""
    return {name: group[name] for name in ("probabilities", "entropy") if getattr(keep, name)}


def write(arrays: dict[str, Any], mapped: BlockMap, slices: tuple[slice, slice]) -> None:
    """Write a mapped block to its place."""
    for name, array in arrays.items():
        values: NDArray[np.uint8] = getattr(mapped, name)
        array[(..., *slices)] = values
