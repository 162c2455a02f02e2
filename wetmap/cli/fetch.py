"""wetmap fetch."""

from __future__ import annotations

from typing import Annotated

import typer

from wetmap.cli.options import (
    AoiOption,
    DryRunOption,
    JsonOption,
    MaxFailedOption,
    RecipeOption,
    WorkersOption,
    WorkspaceOption,
    open_context,
)


def fetch(
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = None,
    crs: Annotated[
        str | None, typer.Option("--crs", help="CRS of the map, in metres [default: the UTM zone].", show_default=False)
    ] = None,
    workers: WorkersOption = None,
    max_failed: MaxFailedOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch imagery and make one co-registered feature cube of the area."""
    from wetmap.cli.output import emit

    overrides = {"aoi": aoi, "grid.crs": crs, "cluster.workers": workers, "cluster.max_failed": max_failed}
    with open_context(recipe, workspace, overrides, as_json=as_json) as context:
        from wetmap.stages import chain, summary

        if dry_run:
            result = summary.estimate(context, ("fetch",))
        else:
            chain.fetch(context)
            result = summary.of_fetch(context)
    emit(result, summary.lines(result), as_json=as_json)
