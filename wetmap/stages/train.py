"""Stage train: fit the model and a random forest on the same fold, score both on held-out ground, write bundles."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wetmap import models
from wetmap.bundle import (
    CardHistory,
    CardSeason,
    ModelCard,
    Payload,
    forest_payload,
    network_payload,
    save_bundle,
)
from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.recipe import Training
from wetmap.recipe_file import plain
from wetmap.samples import PatchCubes
from wetmap.stages import cubes, fetch
from wetmap.stages.context import Context
from wetmap.training.fit import FitRun, centre_pixels, fit_baseline_forest, fit_network, predict_windows, reproducible
from wetmap.training.metrics import Scores, commonest_class_scores, scores
from wetmap.workspace import StageFolder, write_json

#: Raised when the same request would give another model.
REVISION = 2

#: Packages whose versions a bundle names.
VERSIONS = ("wetmap", "torch", "scikit-learn", "numpy")

#: Name of the baseline in tables, and of the folder its bundle is in.
BASELINE = "forest"


@dataclass(frozen=True)
class _Trained:
    """A fitted model before it is a bundle."""

    name: str
    options: dict[str, Any]
    payload: Payload
    geometry: models.Geometry
    test_index: NDArray[np.int64]
    history: CardHistory


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the samples, the model, its training, the seed and the threads."""
    recipe = context.recipe
    return {
        "revision": REVISION,
        "cubes": cubes.folder_of(context).key,
        "model": recipe.model.name,
        "options": models.resolve_options(recipe.model.name, recipe.model.options),
        "training": plain(recipe.training),
        "seed": recipe.seed,
        "threads": context.workers.threads,
    }


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("train", asked(context))


def run(context: Context) -> StageFolder:
    """Train, score, write the bundles, and publish the model."""
    folder = folder_of(context)
    with context.workspace.lock("train"):
        if context.begin(folder, asked(context)):
            _train(context, folder)
        files = {
            str(path.relative_to(folder.path / "bundle")): path for path in sorted((folder.path / "bundle").iterdir())
        }
        context.workspace.publish("model", files, {"stage": "train", "key": folder.key})
    return folder


def _train(context: Context, folder: StageFolder) -> None:
    samples = cubes.folder_of(context)
    made = samples.manifest or {}
    classes = [MapClass.from_json(row) for row in made["classes"]]
    names = [row.name for row in classes]
    patches = PatchCubes.open(samples.path / "patches.zarr")
    test = patches.select("test")
    run = _fit_run(context, folder, names)
    fitted = [_fit_model(context, patches, run)]
    if fitted[0].name != BASELINE:
        context.listener.say("train: fitting the random forest beside it")
        fitted.append(_fit_forest(patches, context.recipe.training, run))
    table = {row.name: scores(test.label, row.test_index, names) for row in fitted}
    table["commonest class"] = commonest_class_scores(patches.select("train").label, test.label, names)
    for row in fitted:
        target = folder.path / ("bundle" if row is fitted[0] else BASELINE)
        save_bundle(target, _card(context, row, classes, table, made["split"]), row.payload)
    write_json(
        folder.path / "manifest.json",
        {
            "stage": "train",
            "model": fitted[0].name,
            "scores": {name: score.to_json() for name, score in table.items()},
            "split": made["split"],
            "history": fitted[0].history.model_dump(mode="json"),
            "simulated": Cube.open(fetch.cube_path(fetch.folder_of(context))).simulated,
        },
    )


def _fit_run(context: Context, folder: StageFolder, names: Sequence[str]) -> FitRun:
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    return FitRun(
        classes=tuple(names),
        band_layer=tuple(cube.layers.index(band.layer) for band in cube.bands),
        seed=context.recipe.seed,
        key=folder.key,
        folder=folder.path / "state",
        threads=context.workers.threads,
    )


def _fit_model(context: Context, patches: PatchCubes, run: FitRun) -> _Trained:
    recipe = context.recipe
    options = models.resolve_options(recipe.model.name, recipe.model.options)
    if models.entry(recipe.model.name).family == "forest":
        settings = recipe.training.model_copy(update={"forest_trees": int(options["trees"])})
        return _fit_forest(patches, settings, run)
    with reproducible(seed=run.seed, threads=run.threads):
        network = models.create(
            recipe.model.name,
            len(patches.bands),
            len(run.classes),
            layers=len(patches.layers),
            band_layer=run.band_layer,
            **options,
        )
    result = fit_network(
        network,
        patches.select("train"),
        patches.select("validation"),
        recipe.training,
        run=run,
        progress=lambda row: context.listener.progress(int(row["epoch"]) + 1, int(row["epochs"]), "epochs"),
    )
    probabilities = predict_windows(network, patches.select("test"), threads=run.threads)
    history = CardHistory(
        epochs=len(result.history),
        best_epoch=result.best_epoch,
        best_validation_macro_f1=result.history[result.best_epoch]["validation_macro_f1"],
    )
    payload, geometry = network_payload(result.state), cast("models.MapModel", network).geometry
    return _Trained(recipe.model.name, options, payload, geometry, probabilities.argmax(axis=1), history)


def _fit_forest(patches: PatchCubes, settings: Training, run: FitRun) -> _Trained:
    forest = fit_baseline_forest(patches.select("train"), settings, run=run)
    options = models.resolve_options(BASELINE, {"trees": settings.forest_trees})
    test = centre_pixels(patches.select("test"), run.band_layer)
    index = np.asarray(forest.pixel_probabilities(test).argmax(axis=1), dtype=np.int64)
    return _Trained(
        BASELINE, options, forest_payload(forest), forest.geometry, index, CardHistory(epochs=0, best_epoch=0)
    )


def _card(
    context: Context,
    fitted: _Trained,
    classes: Sequence[MapClass],
    table: dict[str, Scores],
    split: dict[str, Any],
) -> ModelCard:
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    return ModelCard(
        model=fitted.name,
        options=fitted.options,
        bands=cube.bands,
        layers=cube.layers,
        classes=tuple(classes),
        window=cubes.window_px(context),
        geometry=fitted.geometry,
        res_m=cube.grid.res_m,
        seasons=tuple(CardSeason(name=s.name, start=s.start, end=s.end) for s in context.recipe.seasons),
        scores=table,
        split=describe_split(split),
        history=fitted.history,
        simulated=cube.simulated,
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
        weights=fitted.payload.file,
    )


def describe_split(split: dict[str, Any]) -> str:
    """How training and held-out samples were kept apart, in words."""
    return ", ".join(f"{key} {value}" for key, value in split.items() if isinstance(value, str | int | float))
