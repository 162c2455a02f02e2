"""wetmap status."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wetmap.cli.options import AoiOption, JsonOption, WorkspaceOption, resolve_recipe


def status(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe (YAML).", show_default=False)] = None,
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """How far is it: blocks done, failed and left, who works on them, hours left, what comes next."""
    from wetmap.cli.output import emit
    from wetmap.stages import status as stage_table
    from wetmap.workspace import NOTED, Workspace

    resolved = resolve_recipe(recipe, workspace, {"aoi": aoi})
    space = Workspace(resolved.root)
    if recipe is None and aoi is None and not (space.root / "recipe.yaml").exists() and (space.root / NOTED).exists():
        recipe = space.root / NOTED  # a workspace remembers its recipe when its first verb is through
        resolved = resolve_recipe(recipe, resolved.root, {})
    rows = stage_table.status(
        space,
        own_model=resolved.recipe.predict.bundle is None,
        simulated=stage_table.simulates(resolved.recipe),
        recipe=recipe,
    )
    given = {"--recipe": recipe, "--aoi": None if recipe else aoi, "--workspace": workspace}
    again = [str(word) for name, value in given.items() if value is not None for word in (name, value)]
    result = stage_table.told(space, rows, again)
    emit(result, stage_table.lines(result), as_json=as_json)
