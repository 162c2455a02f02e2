"""The recipe as the report shows it: without what does not change the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from wetmap.recipe import EarthEngineSource, FilesSource, RastersSource, Recipe, Reference, Sensor, Sources, StacSource
from wetmap.recipe_map import Postprocess
from wetmap.samples.files import without_folders
from wetmap.stages.context import Context


def shown_recipe(context: Context) -> Recipe:
    """The recipe without folders of this machine, workers, and the size of blocks."""
    recipe = context.recipe
    reference = recipe.reference
    if isinstance(reference, Reference):
        reference = without_folders(reference)
    start, bundle = recipe.training.start, recipe.predict.bundle
    cluster = recipe.cluster
    return recipe.model_copy(
        update={
            "workspace": None,
            "compare": type(recipe.compare)(),
            "grid": recipe.grid.model_copy(update={"align": recipe.grid.align and Path(recipe.grid.align.name)}),
            "sources": _without_folders(recipe.sources),
            "aoi": None if recipe.aoi is None else Path(recipe.aoi.name),
            "reference": reference,
            "postprocess": _masks_without_folders(recipe.postprocess),
            # where the work runs does not change the map; threads and failures do
            "cluster": type(cluster)(threads_per_worker=cluster.threads_per_worker, max_failed=cluster.max_failed),
            "training": recipe.training.model_copy(update={"start": start and Path(start.name)}),
            "predict": recipe.predict.model_copy(
                update={"block_px": type(recipe.predict)().block_px, "bundle": bundle and Path(bundle.name)}
            ),
        }
    )


def _masks_without_folders(part: Postprocess) -> Postprocess:
    masks = [mask.model_copy(update={"path": Path(mask.path.name)}) for mask in part.masks]
    return part.model_copy(update={"masks": masks})


def _without_folders(sources: Sources) -> Sources:
    """The user's own files by name alone; a static catalogue on disk too."""
    shown: dict[str, Any] = {}
    for sensor in get_args(Sensor):
        source = sources.of(sensor)
        if isinstance(source, RastersSource):
            files = [file.model_copy(update={"path": Path(file.path.name)}) for file in source.files]
            source = source.model_copy(update={"files": files})
        elif isinstance(source, EarthEngineSource) and source.credentials is not None:
            source = source.model_copy(update={"credentials": Path(source.credentials.name)})
        elif isinstance(source, FilesSource):
            source = source.model_copy(update={"folder": Path(source.folder.name)})
        elif isinstance(source, StacSource) and "://" not in source.catalog:
            source = source.model_copy(update={"catalog": Path(source.catalog).name})
        shown[sensor] = source
    return sources.model_copy(update=shown)
