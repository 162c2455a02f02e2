"""The stages in their order, as the verbs walk them."""

from __future__ import annotations

import warnings

from wetmap.errors import WetmapWarning, WorkspaceError
from wetmap.stages import applicability, cubes, mosaic, plan, postprocess, report, simulate
from wetmap.stages import compare as compare_stage
from wetmap.stages import fetch as fetch_stage
from wetmap.stages import predict as predict_stage
from wetmap.stages import train as train_stage
from wetmap.stages.check import check_recipe
from wetmap.stages.context import Context


def fetch(context: Context) -> None:
    """Imagery to one co-registered cube."""
    _ = context.grid  # an area that cannot be mapped must not leave a workspace behind
    context.workspace.open()
    simulate.run(context)
    plan.run(context)
    fetch_stage.run(context)
    context.remember()


def train(context: Context) -> None:
    """Cube and reference data to a model."""
    cubes.reference_of(context)
    _need_cube(context)
    cubes.run(context)
    train_stage.run(context)
    context.remember()


def compare(context: Context) -> None:
    """Cube and reference data to a table of models."""
    cubes.reference_of(context)
    _need_cube(context)
    compare_stage.run(context)
    context.remember()


def predict(context: Context) -> None:
    """Cube and model to a map."""
    _need_cube(context)
    postprocess.look(context)
    applicability.look(context)
    predict_stage.run(context)
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


def _need_cube(context: Context) -> None:
    folder = fetch_stage.folder_of(context)
    if folder.complete:
        return
    what = f"The workspace {context.workspace.root} holds no finished cube for this area and recipe"
    changed = f" (changed since the last fetch: {'; '.join(folder.changes[:3])})" if folder.changes else ""
    raise WorkspaceError(f"{what}{changed}.", do="Run wetmap fetch with the same --aoi and --workspace first.")
