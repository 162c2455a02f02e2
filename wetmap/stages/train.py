"""Stage train: fit the model, a forest and boosting on the same folds, score all on held-out ground, write bundles."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from wetmap import models
from wetmap.bundle import CardSeason, ModelCard, save_bundle
from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.errors import UsageError
from wetmap.recipe_file import plain
from wetmap.report.compare_table import mark_of
from wetmap.samples import PatchCubes
from wetmap.samples.splits import describe_split
from wetmap.stages import cubes, fetch
from wetmap.stages.context import Context
from wetmap.stages.fitting import BASELINES, Fitted, Job, Roles, baseline_options, fit_one, fit_run
from wetmap.stages.known_ground import measured
from wetmap.stages.train_charts import write_charts
from wetmap.training.intervals import GroupScores, group_intervals
from wetmap.training.metrics import Scores, commonest_class_scores
from wetmap.training.points import score_points
from wetmap.workspace import StageFolder, write_json

#: Raised when the same request would give another model.
REVISION = 4

#: Packages whose versions a bundle names.
VERSIONS = ("wetmap", "torch", "scikit-learn", "numpy")

#: The baseline that a map is compared with first.
BASELINE = BASELINES[0]
#: Name of the naive guess in tables.
GUESS = "commonest class"


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the samples, the model, its training, the seed and the threads."""
    recipe = context.recipe
    return {
        "revision": REVISION,
        "cubes": cubes.folder_of(context).key,
        "model": recipe.model.name,
        "options": models.resolve_options(recipe.model.name, recipe.model.options),
        "training": {**plain(recipe.training), "start": _start_identity(context)},
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
        files = {path.name: path for part in ("bundle", "charts") for path in sorted((folder.path / part).iterdir())}
        context.workspace.publish("model", files, {"stage": "train", "key": folder.key})
    return folder


def _train(context: Context, folder: StageFolder) -> None:
    samples = cubes.folder_of(context)
    made = samples.manifest or {}
    classes = [MapClass.from_json(row) for row in made["classes"]]
    roles = Roles.of(PatchCubes.open(samples.path / "patches.zarr"))
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    fitted = _fit_all(context, folder, roles, tuple(row.name for row in classes))
    names = [row.name for row in classes]
    table = {row.name: row.scores(roles, tuple(names)) for row in fitted}
    intervals = {
        row.name: group_intervals(roles.test.label, row.index, roles.test.polygon, names, seed=context.recipe.seed)
        for row in fitted
    }
    table[GUESS] = commonest_class_scores(roles.train.label, roles.test.label, names)
    ground = measured(roles, cube)
    for row in fitted:
        target = folder.path / ("bundle" if row is fitted[0] else row.name)
        card = _card(context, row, classes, table, intervals, roles, made["split"])
        save_bundle(target, card, row.payload, applicability=ground)
    mark = mark_of(simulated=cube.simulated, leaks=made["split"]["kind"] if made["split"].get("leaks") else "")
    write_charts(folder.path / "charts", fitted[0], table, intervals, roles, mark=mark)
    write_json(
        folder.path / "manifest.json",
        {
            "stage": "train",
            "model": fitted[0].name,
            "scores": {name: score.to_json() for name, score in table.items()},
            "intervals": {name: found.to_json() for name, found in intervals.items()},
            "calibration": {row.name: row.card_calibration(roles).model_dump(mode="json") for row in fitted},
            "split": made["split"],
            "history": fitted[0].history.model_dump(mode="json"),
            "epochs": fitted[0].epochs,
            "warnings": list(fitted[0].warnings),
            "start": None if fitted[0].start is None else fitted[0].start.line,
            "applicability": None
            if ground is None
            else {"samples": len(ground.samples), "threshold": ground.threshold, "mean_distance": ground.mean_distance},
            "simulated": cube.simulated,
        },
    )


def _fit_all(context: Context, folder: StageFolder, roles: Roles, classes: tuple[str, ...]) -> list[Fitted]:
    """The model of the recipe first, then the baselines that it is not."""
    recipe = context.recipe
    run = fit_run(context, classes, key=folder.key, folder=folder.path / "state")
    options = models.resolve_options(recipe.model.name, recipe.model.options)
    fitted = [
        fit_one(
            Job(recipe.model.name, options, recipe.training, run),
            roles,
            progress=lambda row: context.listener.progress(int(row["epoch"]) + 1, int(row["epochs"]), "epochs"),
        )
    ]
    if fitted[0].start is not None:
        context.listener.say(fitted[0].start.line)
    for name in BASELINES:
        if name != recipe.model.name:
            context.listener.say(f"train: fitting {name} beside it")
            fitted.append(fit_one(Job(name, baseline_options(name, recipe.training), recipe.training, run), roles))
    return fitted


def _card(
    context: Context,
    fitted: Fitted,
    classes: Sequence[MapClass],
    table: Mapping[str, Scores],
    intervals: Mapping[str, GroupScores],
    roles: Roles,
    split: dict[str, Any],
) -> ModelCard:
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    names = tuple(row.name for row in classes)
    points = (
        []
        if fitted.parameters is None
        else score_points(fitted.model, roles.validation.crop(fitted.window_px), names, threads=context.workers.threads)
    )
    return ModelCard(
        model=fitted.name,
        options=fitted.options,
        bands=cube.bands,
        layers=cube.layers,
        classes=tuple(classes),
        window=fitted.window_px,
        geometry=fitted.geometry,
        res_m=cube.grid.res_m,
        seasons=tuple(CardSeason(name=s.name, start=s.start, end=s.end) for s in context.recipe.seasons),
        scores=dict(table),
        intervals=dict(intervals),
        split=describe_split(split),
        history=fitted.history,
        calibration=fitted.card_calibration(roles),
        points=tuple(points),
        simulated=cube.simulated,
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
        weights=fitted.payload.file,
    )


def _start_identity(context: Context) -> str | None:
    """What identifies the weights that training begins from.

    Raises:
        UsageError: They are the model of this workspace, which training would replace.
    """
    from wetmap.training.start import start_digest

    start = context.recipe.training.start
    if start is None:
        return None
    own = (context.workspace.root / "model").resolve()
    if own in (start.resolve(), *start.resolve().parents):
        raise UsageError(
            f"The start {start} is this workspace's own model, which training replaces.",
            do="Copy the folder elsewhere first and give the copy.",
        )
    return start_digest(start)
