"""The map's layers beside classes and confidence as GeoTIFFs: probabilities, entropy, clear looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.geo import Block
from wetmap.mapping.layers import NO_PERCENT
from wetmap.products.geotiff import write_cog
from wetmap.products.style import write_ramp_style, xml_text
from wetmap.stages import kept_layers, plan, predict
from wetmap.stages.context import Context

#: clear_count.tif: outside the area.
NO_COUNT = 65535
#: Said in the files whose pixels no step after the model changes.
BASIS = "the model's calibrated probabilities, before any step after it"


@dataclass
class ClearLooks:
    """Reads the cube's clear looks, and notes the most of any season, at which the colours of all end."""

    cube: Cube
    """The cube."""
    inside: Path
    """Pixels of the area, as the plan keeps them."""
    most: int = field(default=0, init=False)
    """The most looks of a season so far."""

    def __call__(self, block: Block) -> NDArray[np.uint16]:
        """Looks of a block, (season, height, width); 65535 outside the area, 0 where there was none."""
        inside = plan.read_inside(self.inside, block)
        looks = np.minimum(self.cube.read_clear_count(block), NO_COUNT - 1)
        if inside.any():
            self.most = max(self.most, int(looks[:, inside].max()))
        return np.where(inside, looks, np.uint16(NO_COUNT))


def write_kept(folder: Path, context: Context, cube: Cube, classes: Sequence[MapClass], tags: dict[str, str]) -> None:
    """Write the layers that mapping kept, as the recipe asks, each with its style, into the folder of the products.

    Args:
        folder: Where to.
        context: The recipe, and the workspace with the map.
        cube: The cube that was mapped.
        classes: The map's classes, in the order of the model's.
        tags: Tags of every file.

    Raises:
        WorkspaceError: The disk is full.
    """
    keep = kept_layers.keep_of(context.recipe)
    if keep.entropy:
        path = folder / "entropy.tif"
        _write_kept(path, context, cube, "entropy of the class probabilities (percent of the most)", tags)
        write_ramp_style(path, low=0, high=100, label="Entropy of the class probabilities (%)")
    if keep.probabilities:
        path = folder / "probabilities.tif"
        _write_kept(path, context, cube, tuple(xml_text(row.name) for row in classes), tags)
        write_ramp_style(path, low=0, high=100, label=f"Probability of {classes[0].name} (%)")


def _write_kept(
    path: Path, context: Context, cube: Cube, description: str | tuple[str, ...], tags: dict[str, str]
) -> None:
    """One of the layers that mapping kept, by the file's stem, in percent."""
    mapped = predict.folder_of(context)
    write_cog(
        path,
        cube.grid,
        lambda block: predict.read_map(mapped, path.stem, block),
        dtype="uint8",
        nodata=NO_PERCENT,
        overview="average",
        colours=None,
        description=description,
        tags={**tags, "units": "percent", "basis": BASIS},
    )


def write_clear_count(folder: Path, context: Context, cube: Cube, tags: dict[str, str]) -> None:
    """Write the clear looks of each season, with their style, if the recipe asks for them.

    Args:
        folder: Where to.
        context: The recipe, and the workspace with the plan.
        cube: The cube that was mapped.
        tags: Tags of the file.

    Raises:
        WorkspaceError: The disk is full.
    """
    if not kept_layers.counts_clear(context.recipe):
        return
    path = folder / "clear_count.tif"
    read = ClearLooks(cube, plan.load(plan.folder_of(context)).inside)
    write_cog(
        path,
        cube.grid,
        read,
        dtype="uint16",
        nodata=NO_COUNT,
        overview="average",
        colours=None,
        description=cube.seasons,
        tags={**tags, "units": "clear optical looks"},
    )
    write_ramp_style(path, low=0, high=max(read.most, 1), label=f"Clear looks, {cube.seasons[0]}")
