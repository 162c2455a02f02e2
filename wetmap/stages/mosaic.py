"""Stage mosaic: the blocks of the map become GeoTIFFs that a GIS analyst opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.geo import Block, Grid
from wetmap.products.areas import count_areas, write_areas_csv
from wetmap.products.geotiff import write_cog
from wetmap.products.style import write_class_style, write_ramp_style
from wetmap.stages import applicability, fetch, kept_layers, other_classes, postprocess, predict
from wetmap.stages.context import Context
from wetmap.stages.layer_files import write_clear_count, write_kept
from wetmap.stages.polygons import MapReaders, make_polygons
from wetmap.workspace import StageFolder, write_json

#: Gives a block of a raster.
Reader = Callable[[Block], NDArray[np.uint8]]

#: Raised when the same request would give other files.
REVISION = 2
#: Likewise, of polygons.gpkg alone.
POLYGONS_REVISION = 1
#: Likewise, of entropy.tif and probabilities.tif, and of clear_count.tif.
LAYERS_REVISION, CLEAR_COUNT_REVISION = 1, 2


def classes_of(context: Context) -> tuple[MapClass, ...]:
    """The map's classes: the model's, in the recipe's colours where it names any."""
    colours = {spec.name: spec.colour for spec in context.recipe.classes if spec.colour is not None}
    rows = predict.open_bundle(context).card.classes
    return tuple(MapClass(row.code, row.name, colours.get(row.name, row.colour), row.upland) for row in rows)


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the mapped blocks, what was done to them, how the classes look, and the products."""
    part = context.recipe.postprocess
    extra: dict[str, Any] = {}
    if postprocess.wanted(context.recipe):
        extra["postprocess"] = postprocess.folder_of(context).key
    if part.polygons:
        extra["polygons"] = {"connectivity": part.connectivity, "revision": POLYGONS_REVISION}
    if kept_layers.keep_of(context.recipe).anything:
        extra["layers"] = LAYERS_REVISION
    if kept_layers.counts_clear(context.recipe):
        extra["clear_count"] = CLEAR_COUNT_REVISION
    if applicability.wanted(context.recipe):
        extra["applicability"] = applicability.folder_of(context).key
    return {
        "revision": REVISION,
        **predict.identity(context),
        "classes": [row.to_json() for row in classes_of(context)],
        "name": context.name,
        **extra,
        **other_classes.asked(context.recipe, classes_of(context)),
    }


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("mosaic", asked(context))


def run(context: Context) -> StageFolder:
    """Write classes.tif, confidence.tif, their styles, areas.csv, and the layers and polygons that are asked for."""
    folder = folder_of(context)
    with context.workspace.lock("mosaic"):
        if not context.begin(folder, asked(context)):
            return folder
        cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
        read_classes = postprocess.reader(postprocess.final(context))
        read_confidence = postprocess.confidence_reader(context)
        classes, tags = classes_of(context), _tags(context, simulated=cube.simulated)
        of_model = _tags_of_model(context, simulated=cube.simulated)
        with ThreadPoolExecutor(1) as beside:  # most of the work is compression, outside of Python's lock
            other = beside.submit(_write_confidence, folder.path / "confidence.tif", cube.grid, read_confidence, tags)
            counting = beside.submit(count_areas, cube.grid, read_classes, classes)
            looks = beside.submit(write_clear_count, folder.path, context, cube, of_model)
            _write_classes(folder.path / "classes.tif", cube.grid, read_classes, classes, tags)
            write_kept(folder.path, context, cube, classes, of_model)
            ground = applicability.write_layer(folder.path, context, of_model)
            other.result()
            rows = counting.result()
            looks.result()
        write_areas_csv(folder.path / "areas.csv", rows, simulated=cube.simulated)
        other_classes.write(
            folder.path, context.recipe, cube.grid, read_classes, classes, tags=tags, simulated=cube.simulated
        )
        if context.recipe.postprocess.polygons:
            readers = MapReaders(cube.grid, read_classes, read_confidence)
            connectivity = context.recipe.postprocess.connectivity
            make_polygons(folder.path / "polygons.gpkg", readers, classes, connectivity, simulated=cube.simulated)
        write_json(
            folder.path / "manifest.json",
            {
                "stage": "mosaic",
                "simulated": cube.simulated,
                "applicability": ground,
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


def _write_classes(path: Path, grid: Grid, read: Reader, classes: Sequence[MapClass], tags: dict[str, str]) -> None:
    write_cog(
        path,
        grid,
        read,
        dtype="uint8",
        nodata=predict.NO_CLASS,
        overview="mode",
        colours={row.code: row.colour for row in classes},
        description="class",
        tags=tags,
    )
    write_class_style(path, classes)


def _write_confidence(path: Path, grid: Grid, read: Reader, tags: dict[str, str]) -> None:
    write_cog(
        path,
        grid,
        read,
        dtype="uint8",
        nodata=predict.NO_CONFIDENCE,
        overview="average",
        colours=None,
        description="probability of the mapped class (percent)",
        tags={**tags, "units": "percent"},
    )
    write_ramp_style(path, low=0, high=100, label="Probability of the mapped class (%)")


def _tags(context: Context, *, simulated: bool) -> dict[str, str]:
    tags = _tags_of_model(context, simulated=simulated)
    if postprocess.wanted(context.recipe):
        tags["WETMAP_POSTPROCESS"] = postprocess.folder_of(context).key
    return tags


def _tags_of_model(context: Context, *, simulated: bool) -> dict[str, str]:
    """Tags of what no step after the model changes."""
    tags = {"WETMAP_MAP": context.name, "WETMAP_KEY": predict.folder_of(context).key}
    if simulated:
        tags["SIMULATED"] = "Made from a simulated landscape. Not a map of any real place."
    return tags
