"""wetmap predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wetmap.cli.options import (
    AoiOption,
    BudgetOption,
    ClusterOption,
    DryRunOption,
    JsonOption,
    KeepOption,
    MaxFailedOption,
    MemoryOption,
    RecipeOption,
    TokensOption,
    WorkersOption,
    WorkspaceOption,
    open_context,
)
from wetmap.cli.parts import OnlyOption, ShardOption, part_of


def predict(
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", help="Folder of a trained model from elsewhere [default: this workspace's].", show_default=False
        ),
    ] = None,
    block_px: Annotated[
        int | None,
        typer.Option(
            "--block-px",
            min=1,
            help="Side of a block, pixels, rounded up to whole tiles of the model; changes no pixel.",
            show_default=False,
        ),
    ] = None,
    tokens: TokensOption = None,
    keep: KeepOption = None,
    budget: BudgetOption = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    memory: MemoryOption = None,
    max_failed: MaxFailedOption = None,
    shard: ShardOption = None,
    only: OnlyOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Map the area: classes, confidence, areas and a report that open in QGIS and in a browser."""
    from wetmap.cli.output import emit

    overrides = {
        "aoi": aoi,
        "predict.bundle": bundle,
        "predict.block_px": block_px,
        "predict.tokens": tokens,
        "predict.keep": keep,
        "predict.budget": budget,
        "cluster.workers": workers,
        "cluster.kind": cluster,
        "cluster.memory": memory,
        "cluster.max_failed": max_failed,
    }
    with open_context(recipe, workspace, overrides, as_json=as_json) as whole:
        context = part_of(whole, shard, only, dry_run=dry_run)
        if not dry_run and only != "plan":
            context.workers.prepare("wetmap.stages.predict")
        from wetmap.stages import chain, part_words, summary

        if dry_run:
            result = summary.estimate(context, ("predict",))
        else:
            chain.predict(context)
            result = summary.of_map(context) if chain.whole(context) else part_words.of_part(context, "predict")
    lines = part_words.lines if "part" in result else summary.lines
    emit(result, lines(result), as_json=as_json)
