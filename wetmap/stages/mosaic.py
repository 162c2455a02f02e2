"""Stage mosaic: the blocks of the map become GeoTIFFs that a GIS analyst opens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.geo import Block
from wetmap.products.areas import count_areas, write_areas_csv
from wetmap.products.geotiff import write_cog
from wetmap.products.style import write_class_style, write_ramp_style
from wetmap.stages import fetch, predict
from wetmap.stages.context import Context
from wetmap.workspace import StageFolder, write_json

#: Raised when the same request would give other files.
REVISION = 2


def classes_of(context: Context) -> tuple[MapClass, ...]:
    """The map's classes: the model's, in the recipe's colours where it names any."""
    colours = {spec.name: spec.colour for spec in context.recipe.classes if spec.colour is not None}
    rows = predict.open_bundle(context).card.classes
    return tuple(MapClass(row.code, row.name, colours.get(row.name, row.colour), row.upland) for row in rows)


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the mapped blocks, and how the classes look."""
    return {
        "revision": REVISION,
        "predict": predict.folder_of(context).key,
        "classes": [row.to_json() for row in classes_of(context)],
        "name": context.name,
    }


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("mosaic", asked(context))


def run(context: Context) -> StageFolder:
    """Write classes.tif, confidence.tif, their styles, and areas.csv."""
    folder = folder_of(context)
    with context.workspace.lock("mosaic"):
        if not context.begin(folder, asked(context)):
            return folder
        mapped, cube = predict.folder_of(context), Cube.open(fetch.cube_path(fetch.folder_of(context)))
        classes, tags = classes_of(context), _tags(context, simulated=cube.simulated)
        tif = folder.path / "classes.tif"
        write_cog(
            tif,
            cube.grid,
            _reader(mapped, "classes"),
            dtype="uint8",
            nodata=predict.NO_CLASS,
            overview="mode",
            colours={row.code: row.colour for row in classes},
            description="class",
            tags=tags,
        )
        write_class_style(tif, classes)
        confidence = folder.path / "confidence.tif"
        write_cog(
            confidence,
            cube.grid,
            _reader(mapped, "confidence"),
            dtype="uint8",
            nodata=predict.NO_CONFIDENCE,
            overview="average",
            colours=None,
            description="probability of the mapped class (percent)",
            tags={**tags, "units": "percent"},
        )
        write_ramp_style(confidence, low=0, high=100, label="Probability of the mapped class (%)")
        rows = count_areas(cube.grid, _reader(mapped, "classes"), classes)
        write_areas_csv(folder.path / "areas.csv", rows, simulated=cube.simulated)
        write_json(
            folder.path / "manifest.json",
            {
                "stage": "mosaic",
                "simulated": cube.simulated,
                "areas": [
                    {
                        "code": row.code,
                        "name": row.name,
                        "pixels": row.pixels,
                        "hectares": row.hectares,
                        "share_percent": row.share_percent,
                    }
                    for row in rows
                ],
            },
        )
    return folder


def _reader(mapped: StageFolder, name: str) -> Callable[[Block], NDArray[np.uint8]]:
    return lambda block: predict.read_map(mapped, name, block)


def _tags(context: Context, *, simulated: bool) -> dict[str, str]:
    tags = {"WETMAP_MAP": context.name, "WETMAP_KEY": predict.folder_of(context).key}
    if simulated:
        tags["SIMULATED"] = "Made from a simulated landscape. Not a map of any real place."
    return tags
