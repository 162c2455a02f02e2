"""wetmap compare."""

from __future__ import annotations

from typing import Annotated

import typer

from wetmap.cli.options import (
    AoiOption,
    ClassFieldOption,
    ClusterOption,
    DryRunOption,
    JsonOption,
    LayerOption,
    RecipeOption,
    ReferenceOption,
    WorkersOption,
    WorkspaceOption,
    open_context,
)
from wetmap.errors import UsageError


def compare(
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = None,
    reference: ReferenceOption = None,
    class_field: ClassFieldOption = None,
    layer: LayerOption = None,
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            help="Models, with commas; laptop: those of a laptop's size; all: every model [default: the recipe's, "
            "laptop].",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            min=0,
            help="Training time of each network on each fold, above 0 [default: the recipe's, 3].",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            "--folds", help="Folds to test on in turn, such as 0,1,2 [default: splits.test_fold].", show_default=False
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window", min=8, help="Largest window of any model, pixels [default: theirs].", show_default=False
        ),
    ] = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train several models on the same samples, folds and minutes, and write one table; forest and boosting too."""
    from wetmap.cli.output import emit

    overrides = {
        "aoi": aoi,
        "reference.path": reference,
        "reference.class_field": class_field,
        "reference.layer": layer,
        "compare.models": None if models is None else _words(models),
        "compare.minutes": minutes,
        "compare.folds": None if folds is None else _numbers(folds),
        "compare.window_px": window,
        "cluster.workers": workers,
        "cluster.kind": cluster,
    }
    with open_context(recipe, workspace, overrides, as_json=as_json) as context:
        from wetmap.stages import chain
        from wetmap.stages import compare as stage

        if dry_run:
            result = stage.estimate(context)
        else:
            chain.compare(context)
            result = stage.summary(context)
    emit(result, stage.lines(result), as_json=as_json)


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError("--models names no model.", do="Give names with commas, such as --models unet,vit, or all.")
    return words


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--folds {text} is not a list of numbers.", do="Give them as 0,1,2.") from error
