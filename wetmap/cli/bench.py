"""wetmap bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetmap.cli.options import AoiOption, JsonOption, RecipeOption, WorkersOption, WorkspaceOption
from wetmap.errors import UsageError

if TYPE_CHECKING:
    from wetmap.recipe import Recipe


def bench(
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = None,
    models: Annotated[
        str, typer.Option("--models", help="Models, with commas; laptop: those of a laptop's size; all: every model.")
    ] = "laptop",
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", help="Folder of a trained model to measure too [default: the workspace's].", show_default=False
        ),
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how fast each model maps on this machine, and the hours for your area. Nothing is written."""
    from wetmap.cli.output import emit, listening

    names = [word.strip() for word in models.split(",") if word.strip()]
    if not names:
        raise UsageError("--models names no model.", do="Give names with commas, such as --models unet,vit, or all.")
    flags = {"aoi": aoi, "cluster.workers": workers}
    named = None if recipe is None else _recipe(recipe, None, flags).workspace
    root = workspace or named or (None if aoi is None else Path(f"{aoi.stem}-wetmap"))
    known = _recipe(recipe, root, flags)
    with listening(as_json=as_json) as listener:
        from wetmap.stages import bench as stage

        result = stage.run(known, names, bundle or known.predict.bundle or _trained(root), listener)
    emit(result, stage.lines(result), as_json=as_json)


def _recipe(file: Path | None, root: Path | None, overrides: dict[str, Path | int | None]) -> Recipe:
    """The recipe that is given, or the workspace's, or the defaults; with what the flags say."""
    from wetmap.recipe_file import load_recipe

    remembered = None if root is None else root / "recipe.yaml"
    if file is None and remembered is not None and remembered.exists():
        file = remembered
    given = {
        name: value.absolute() if isinstance(value, Path) else value
        for name, value in overrides.items()
        if value is not None
    }
    return load_recipe(file, given)


def _trained(root: Path | None) -> Path | None:
    """The model of the workspace, if there is one."""
    return root / "model" if root is not None and (root / "model" / "model.json").exists() else None
