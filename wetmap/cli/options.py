"""Options that several verbs share, and the context they make."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetmap.errors import UsageError

if TYPE_CHECKING:
    from wetmap.recipe import Recipe
    from wetmap.stages.context import Context

AoiOption = Annotated[
    Path | None,
    typer.Option("--aoi", help="Area of interest: GeoJSON, GeoPackage or Shapefile, in any CRS.", show_default=False),
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="Folder for everything [default: ./<aoi stem>-wetmap].", show_default=False),
]
RecipeOption = Annotated[
    Path | None,
    typer.Option("--recipe", help="Recipe (YAML) [default: the workspace's own, or the defaults].", show_default=False),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be read, computed and written; do nothing.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for machines.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Worker processes; 0 for one per core.", show_default=False)
]
MaxFailedOption = Annotated[
    float | None,
    typer.Option(
        "--max-failed",
        min=0,
        max=1,
        help="Share of blocks, or of scenes, that may fail before it is an error, 0-1.",
        show_default=False,
    ),
]


def resolve_recipe(recipe: Path | None, workspace: Path | None, overrides: Mapping[str, Any]) -> tuple[Recipe, Path]:
    """The recipe after defaults, file and flags, and the workspace it belongs to.

    Without ``--recipe``, the workspace's own recipe is used: what an earlier verb was told holds for the next one.
    """
    from wetmap.recipe_file import load_recipe

    given = {
        name: value.absolute() if isinstance(value, Path) else value
        for name, value in overrides.items()
        if value is not None
    }
    own = load_recipe(recipe, given) if recipe is not None else None
    root = (
        workspace or (own.workspace if own is not None else None) or _default_root(own.aoi if own else given.get("aoi"))
    )
    kept = root / "recipe.yaml"
    resolved = own if own is not None else load_recipe(kept if kept.exists() else None, given)
    return resolved, root.absolute()


def _default_root(aoi: Path | None) -> Path:
    if aoi is None:
        raise UsageError(
            "Neither --aoi nor --workspace is given, nor an `aoi:` in a recipe.",
            do="Give --aoi with the area's file, for instance --aoi nb.geojson.",
        )
    return Path(f"{aoi.stem}-wetmap")


@contextlib.contextmanager
def open_context(
    recipe: Path | None,
    workspace: Path | None,
    overrides: Mapping[str, Any],
    *,
    as_json: bool,
    dry_run: bool,
) -> Iterator[Context]:
    """The context of one run: recipe, workspace, workers, and a listener on standard error."""
    from wetmap.cli.output import listening
    from wetmap.cluster import Workers
    from wetmap.recipe_file import dump_recipe
    from wetmap.stages.context import Context
    from wetmap.workspace import Workspace, write_bytes

    resolved, root = resolve_recipe(recipe, workspace, overrides)
    space = Workspace(root)
    with listening(as_json=as_json) as listener, Workers(resolved.cluster, root / ".dask") as workers:
        context = Context(resolved, space, workers, listener)
        if not dry_run:
            _ = context.aoi  # an area that cannot be read must not leave a workspace behind
            space.open()
            write_bytes(root / "recipe.yaml", dump_recipe(resolved).encode())
        yield context
