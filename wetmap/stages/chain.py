"""The stages in their order, as the verbs walk them."""

from __future__ import annotations

import warnings

from wetmap.errors import WetmapWarning, WorkspaceError
from wetmap.recipe import Reference
from wetmap.samples.class_values import refuse_unknown_values
from wetmap.stages import applicability, cubes, mosaic, other_classes, plan, postprocess, report, simulate
from wetmap.stages import compare as compare_stage
from wetmap.stages import fetch as fetch_stage
from wetmap.stages import predict as predict_stage
from wetmap.stages import train as train_stage
from wetmap.stages.check import check_recipe
from wetmap.stages.context import Context
from wetmap.stages.report_renewal import renew_report
from wetmap.workspace import because


def fetch(context: Context) -> None:
    """Imagery to one co-registered cube; or its plan, one shard, or the closing of what shards have made."""
    _ = context.grid  # an area that cannot be mapped must not leave a workspace behind
    if not context.prepared:
        _refuse_reference(context)
        context.workspace.open()
        context.note()
        simulate.run(context)
        plan.run(context)
    fetch_stage.run(context)
    if whole(context):
        context.remember()


def train(context: Context) -> None:
    """Cube and reference data to a model."""
    cubes.reference_of(context)
    _need_cube(context)
    context.workers.dismiss()  # one process trains, and nobody pays for jobs that wait meanwhile
    cubes.run(context)
    train_stage.run(context)
    context.remember()


def compare(context: Context) -> None:
    """Cube and reference data to a table of models."""
    cubes.reference_of(context)
    _need_cube(context)
    context.workers.dismiss()
    compare_stage.run(context)
    context.remember()
    renew_report(context.workspace.root, context.listener)


def predict(context: Context) -> None:
    """Cube and model to a map; or its plan, one shard, or the closing of what shards have mapped."""
    _need_cube(context)
    postprocess.look(context)
    applicability.look(context)
    other_classes.look(context)
    predict_stage.run(context)
    if not whole(context):
        applicability.run(context)
        return
    postprocess.run(context)
    applicability.run(context)
    mosaic.run(context)
    report.run(context)
    context.remember()


def run(context: Context) -> None:
    """All of it. What can be refused is refused before the hours that a fetch may take."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WetmapWarning)  # the plan says the same again, and once is enough
        check_recipe(context.recipe)
    with_model = context.recipe.predict.bundle is None
    if with_model:
        cubes.reference_of(context)
    fetch(context)
    if with_model:
        train(context)
    predict(context)


def whole(context: Context) -> bool:
    """Whether the verb comes to its end, rather than prepare or make a part."""
    return context.shard is None and context.only != "plan"


def _refuse_reference(context: Context) -> None:
    """Refuse classes that no feature of the reference's files is of, before the hours of a fetch."""
    reference = context.recipe.reference
    if context.recipe.predict.bundle is None and isinstance(reference, Reference) and context.recipe.classes:
        refuse_unknown_values(reference, context.recipe.classes)


def _need_cube(context: Context) -> None:
    folder = fetch_stage.folder_of(context)
    if folder.complete:
        return
    what = f"The workspace {context.workspace.root} holds no finished cube for this area and recipe"
    changed = f" (changed since the last fetch: {because(folder.changes)})" if folder.changes else ""
    raise WorkspaceError(f"{what}{changed}.", do="Run wetmap fetch with the same --aoi and --workspace first.")
