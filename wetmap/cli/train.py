"""wetmap train."""

from __future__ import annotations

from pathlib import Path
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


def train(
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = None,
    reference: ReferenceOption = None,
    class_field: ClassFieldOption = None,
    layer: LayerOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Name of the model to train.", show_default=False)
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start",
            help="Weights to begin from: of `wetmap model import`, or a trained model's folder.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the samples, at most.", show_default=False)
    ] = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the model, and a random forest beside it, on reference data; score both on held-out ground."""
    from wetmap.cli.output import emit

    overrides = {
        "aoi": aoi,
        "reference.path": reference,
        "reference.class_field": class_field,
        "reference.layer": layer,
        "model.name": model,
        "training.epochs": epochs,
        "training.start": start,
        "cluster.workers": workers,
        "cluster.kind": cluster,
    }
    with open_context(recipe, workspace, overrides, as_json=as_json) as context:
        from wetmap.stages import chain, summary

        if dry_run:
            result = summary.estimate(context, ("train",))
        else:
            chain.train(context)
            result = summary.of_train(context)
    emit(result, summary.lines(result), as_json=as_json)
