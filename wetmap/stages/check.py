"""What can be said about a recipe before anything is fetched."""

from __future__ import annotations

from pathlib import Path

from wetmap import models
from wetmap.bundle import load_bundle
from wetmap.cube import bands_of, layers_of
from wetmap.errors import RecipeError, UsageError
from wetmap.geo import Aoi, make_grid, read_aoi
from wetmap.imagery.indices import index_bands
from wetmap.recipe import Recipe, Reference, Sensor
from wetmap.samples import check_reference
from wetmap.samples.files import need_files
from wetmap.sources import check_bands, open_archive
from wetmap.sources.stac import StacArchive
from wetmap.sources.stac_search import refuse_missing
from wetmap.stages import applicability, operating_point, other_classes, postprocess
from wetmap.stages.earthengine_rules import refuse_unrunnable
from wetmap.stages.plan import sensors_wanted, source_bands


def check_recipe(recipe: Recipe, *, with_reference: bool = True) -> str:
    """Refuse what would fail later: indices, model options, files that are named and missing or do not fit.

    No archive on the network is asked, and nothing is written.

    Args:
        recipe: The recipe.
        with_reference: Whether its reference data must be there; a dry run answers without.

    Returns:
        What it is about, in one sentence.

    Raises:
        WetmapError: The first fault, with advice.
    """
    for name in recipe.features.indices:
        index_bands(name)
    models.resolve_options(recipe.model.name, recipe.model.options)
    if recipe.predict.bundle is None:
        operating_point.check_model(recipe.model.name, recipe.predict)
    if with_reference and isinstance(recipe.reference, Reference):
        need_files(recipe.reference)
    if recipe.predict.bundle is not None:
        _need(recipe.predict.bundle / "model.json", "predict.bundle")
        load_bundle(recipe.predict.bundle)
    elif recipe.training.start is not None:
        _need(recipe.training.start, "training.start")
        _check_start(recipe, recipe.training.start)
    postprocess.check(recipe)
    applicability.check(recipe)
    other_classes.check(recipe)
    refuse_unrunnable(recipe)
    for sensor in sensors_wanted(recipe):
        _check_catalogue(recipe, sensor)
    if recipe.aoi is None:
        return "It names no area of interest."
    return _check_area(recipe, read_aoi(recipe.aoi), with_reference=with_reference)


def _check_area(recipe: Recipe, aoi: Aoi, *, with_reference: bool) -> str:
    """Refuse rasters and reference data that do not fit the area, and say what its grid is."""
    for sensor in sensors_wanted(recipe):
        source = recipe.sources.of(sensor)
        if source is not None and source.kind == "rasters":
            archive = open_archive(source, sensor)
            scenes, _ = archive.search(sensor, aoi, recipe.seasons, max_cloud_percent=recipe.optical.max_cloud_percent)
            check_bands(scenes, sensor, source_bands(recipe)[sensor])
    part, reference = recipe.grid, recipe.reference
    grid = make_grid(aoi, res_m=part.res_m, crs=part.crs, align=part.align)
    if with_reference and recipe.predict.bundle is None and isinstance(reference, Reference):
        if recipe.splits.kind != "sites":
            reference = reference.model_copy(update={"site_field": None})  # of use to that kind alone
        check_reference(reference, recipe.classes, grid, aoi)
    return f"Grid: {grid.describe()}."


def _check_catalogue(recipe: Recipe, sensor: Sensor) -> None:
    source = recipe.sources.of(sensor)
    if source is None:
        raise RecipeError(f"The features need {sensor}, and sources.{sensor} is null.", do="Name a source for it.")
    if source.kind == "stac":
        refuse_missing(source.catalog, f"sources.{sensor}.catalog")
        StacArchive.of(source, sensor).refuse_collection(sensor)
    if source.kind == "files":
        _need(source.folder, f"sources.{sensor}.folder")


def _check_start(recipe: Recipe, start: Path) -> None:
    """Refuse weights to begin from that do not fit the model to train; nothing of it is computed."""
    if models.entry(recipe.model.name).family != "torch":
        return
    import torch

    from wetmap.training.start import check_start

    bands = bands_of(recipe)
    layers = layers_of(bands)
    with torch.device("meta"):  # only its names and shapes are wanted; the classes' layer may be of another number
        network = models.create(
            recipe.model.name,
            len(bands),
            2,
            layers=len(layers),
            band_layer=[layers.index(band.layer) for band in bands],
            **models.resolve_options(recipe.model.name, recipe.model.options),
        )
    check_start(network, start, bands=[band.name for band in bands])


def _need(path: Path, key: str) -> None:
    if not path.exists():
        raise UsageError(f"{key} names {path}, which does not exist.", do="Give the path of a file that is there.")
