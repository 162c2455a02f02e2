"""wetmap run."""

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
    TokensOption,
    WorkersOption,
    WorkspaceOption,
    open_context,
)


def run(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).", show_default=False)],
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    tokens: TokensOption = None,
    keep: KeepOption = None,
    budget: BudgetOption = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    memory: MemoryOption = None,
    max_failed: MaxFailedOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Do all of it from one recipe: fetch, train, predict."""
    from wetmap.cli.output import emit

    overrides = {
        "aoi": aoi,
        "predict.tokens": tokens,
        "predict.keep": keep,
        "predict.budget": budget,
        "cluster.workers": workers,
        "cluster.kind": cluster,
        "cluster.memory": memory,
        "cluster.max_failed": max_failed,
    }
    with open_context(recipe, workspace, overrides, as_json=as_json) as context:
        from wetmap.stages import chain, summary

        if dry_run:
            result = summary.estimate(context, ("fetch", "train", "predict"))
        else:
            chain.run(context)
            result = summary.of_map(context)
    emit(result, summary.lines(result), as_json=as_json)
