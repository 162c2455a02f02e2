"""How well a map of the simulated landscape agrees with what is true there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from wetmap.classes import MapClass
from wetmap.gdal_cache import bound_gdal_cache
from wetmap.geo import Block, Grid
from wetmap.recipe import ClassSpec
from wetmap.sources.landscape import COVERS
from wetmap.stages import fetch, postprocess, predict, simulate
from wetmap.stages.context import Context

#: Side of the windows that are compared at once, pixels.
WINDOW_PX = 512
#: What the reference calls each cover.
VALUES = {cover.code: "upland" if cover.upland else cover.name for cover in COVERS}


def agreement(context: Context, classes: tuple[MapClass, ...]) -> dict[str, Any] | None:
    """Compare the whole map with the landscape it was simulated from.

    Args:
        context: The run.
        classes: The map's classes. The reference calls both upland covers ``upland``; the recipe's crosswalk applies.

    Returns:
        As ``shares``. None where nothing was simulated.
    """
    catalog = simulate.catalog_of(context)
    if catalog is None or not (catalog.parent / "truth.tif").exists():
        return None
    from wetmap.cube import Cube

    grid = Cube.open(fetch.cube_path(fetch.folder_of(context))).grid
    pairs: Counter[tuple[int, int]] = Counter()
    read = postprocess.reader(postprocess.final(context))
    for block in grid.blocks(WINDOW_PX):
        mapped = read(block)
        true = _truth(catalog.parent / "truth.tif", grid, block)
        both = (mapped != predict.NO_CLASS) & (true != 0)
        values, counts = np.unique(np.stack([true[both], mapped[both]]), axis=1, return_counts=True)
        for (one, other), count in zip(values.T.tolist(), counts.tolist(), strict=True):
            pairs[one, other] += count
    return shares(pairs, classes, context.recipe.classes)


def shares(
    pairs: Mapping[tuple[int, int], int], classes: Sequence[MapClass], specs: Sequence[ClassSpec]
) -> dict[str, Any] | None:
    """How well map and truth agree, over every mapped pixel whose truth is known.

    Args:
        pairs: Pixels by true cover code and map code.
        classes: The map's classes.
        specs: The recipe's classes, with the values of the reference that they stand for.

    Returns:
        ``pixels`` compared; ``agreement``, their share that is right; ``commonest``, the commonest true class, and
        ``commonest_agreement``, the share that guessing it would reach; ``found``, per class the share of its true
        pixels that the map found; ``without_class``, pixels by true cover that no class of the map stands for: they are
        compared too, and wrong whatever the map says. None where no true cover has a class.
    """
    codes = _codes(classes, specs)
    names = {row.code: row.name for row in classes}
    total, right = sum(pairs.values()), Counter[int]()
    true, lacking = Counter[int](), Counter[str]()
    for (cover, mapped), count in pairs.items():
        code = codes.get(cover, 0)
        if not code:
            lacking[VALUES[cover]] += count
            continue
        true[code] += count
        right[code] += count if mapped == code else 0
    if not true:
        return None
    commonest, most = max(true.items(), key=lambda item: (item[1], -item[0]))
    return {
        "pixels": total,
        "agreement": right.total() / total,
        "commonest": names[commonest],
        "commonest_agreement": most / total,
        "found": {names[code]: right[code] / count for code, count in sorted(true.items())},
        "without_class": dict(sorted(lacking.items())),
    }


def _codes(classes: Sequence[MapClass], specs: Sequence[ClassSpec]) -> dict[int, int]:
    """Map code of every cover code, by the recipe's own crosswalk; 0 where the map has no class for it."""
    stands_for = {str(value).casefold(): spec.name for spec in specs for value in spec.reference}
    by_name = {row.name.casefold(): row.code for row in classes}
    return {code: by_name.get(stands_for.get(value, value).casefold(), 0) for code, value in VALUES.items()}


def _truth(path: Path, grid: Grid, block: Block) -> NDArray[np.uint8]:
    """Cover codes on a block of the grid, nearest neighbour, 0 where there is no landscape."""
    bound_gdal_cache()
    with (
        rasterio.open(path) as source,
        WarpedVRT(source, crs=grid.crs, transform=grid.transform, height=grid.height, width=grid.width) as warped,
    ):
        return np.asarray(warped.read(1, window=Window(block.x0, block.y0, block.width, block.height)), dtype=np.uint8)
