"""wetmap fetch."""

from __future__ import annotations

from typing import Annotated

import typer

from wetmap.cli.options import (
    AoiOption,
    ClusterOption,
    DryRunOption,
    JsonOption,
    MaxFailedOption,
    RecipeOption,
    WorkersOption,
    WorkspaceOption,
    open_context,
)
from wetmap.cli.parts import OnlyOption, ShardOption, part_of


def fetch(
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = None,
    crs: Annotated[
        str | None, typer.Option("--crs", help="CRS of the map, in metres [default: the UTM zone].", show_default=False)
    ] = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    max_failed: MaxFailedOption = None,
    shard: ShardOption = None,
    only: OnlyOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch imagery and make one co-registered feature cube of the area."""
    from wetmap.cli.output import emit

    overrides = {
        "aoi": aoi,
        "grid.crs": crs,
        "cluster.workers": workers,
        "cluster.kind": cluster,
        "cluster.max_failed": max_failed,
    }
    with open_context(recipe, workspace, overrides, as_json=as_json) as whole:
        context = part_of(whole, shard, only, dry_run=dry_run)
        from wetmap.stages import chain, part_words, summary

        if dry_run:
            result = summary.estimate(context, ("fetch",))
        else:
            chain.fetch(context)
            result = summary.of_fetch(context) if chain.whole(context) else part_words.of_part(context, "fetch")
    lines = part_words.lines if "part" in result else summary.lines
    emit(result, lines(result), as_json=as_json)
