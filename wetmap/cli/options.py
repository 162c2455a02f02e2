"""Options that several verbs share, and the context they make."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetmap.errors import UsageError

if TYPE_CHECKING:
    from wetmap.recipe import Recipe
    from wetmap.stages.context import Context

#: Flags that say how one command works, not what the map is: the workspace does not remember them.
FOR_ONE_COMMAND = {
    "predict.bundle",
    "predict.block_px",
    "predict.tokens",
    "predict.keep",
    "predict.budget",
    "compare.models",
    "compare.minutes",
    "compare.folds",
    "compare.window_px",
    "cluster.kind",
    "cluster.workers",
    "cluster.memory",
    "cluster.max_failed",
}

#: Two ways to say one thing: a flag for one of them puts aside what the recipe says with another.
OPERATING_POINT = ("predict.tokens", "predict.keep", "predict.budget")

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
ReferenceOption = Annotated[
    Path | None,
    typer.Option(
        "--reference", help="Reference polygons or points (vector file), or a label raster.", show_default=False
    ),
]
ClassFieldOption = Annotated[
    str | None, typer.Option("--class-field", help="Field that names the class.", show_default=False)
]
LayerOption = Annotated[
    str | None, typer.Option("--layer", help="Layer of a GeoPackage [default: the first].", show_default=False)
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be read, computed and written; do nothing.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for machines.")]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Worker processes; 0 for as many as the cores allow.", show_default=False),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Where blocks are worked on: local, jobs of slurm, pbs or sge, or a Dask scheduler's address (tcp://...).",
        show_default=False,
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Memory that mapping may use, all processes together (2GiB, 1500MB): blocks and workers follow from it.",
        show_default=False,
    ),
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
TokensOption = Annotated[
    int | None,
    typer.Option("--tokens", min=1, help="Of a SuperViT: tokens a side [default: the most].", show_default=False),
]
KeepOption = Annotated[
    float | None,
    typer.Option(
        "--keep",
        min=0,
        max=1,
        help="Of a SuperViT: share of the tokens that is kept, above 0 [default: 1].",
        show_default=False,
    ),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Of a SuperViT: time (90s, 20m, 1h30m) or rate (50k-px-per-s) to choose the point for, measured here.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Resolved:
    """The recipe of one command."""

    recipe: Recipe
    """After defaults, file and every flag: what this command goes by."""
    kept: Recipe
    """Without the flags that hold for one command only: what the workspace remembers."""
    root: Path
    """The workspace's folder."""


def resolve_recipe(recipe: Path | None, workspace: Path | None, overrides: Mapping[str, Any]) -> Resolved:
    """The recipe after defaults, file and flags, and the workspace it belongs to.

    Without ``--recipe``, the workspace's own recipe is used: what an earlier verb was told holds for the next one.
    """
    from wetmap.recipe_file import load_recipe

    given = {
        name: value.absolute() if isinstance(value, Path) else value
        for name, value in overrides.items()
        if value is not None
    }
    if any(name in given for name in OPERATING_POINT):
        given = {**dict.fromkeys(OPERATING_POINT), **given}
    lasting = {name: value for name, value in given.items() if name not in FOR_ONE_COMMAND}
    own = load_recipe(recipe, given) if recipe is not None else None
    root = (
        workspace or (own.workspace if own is not None else None) or _default_root(own.aoi if own else given.get("aoi"))
    )
    remembered = root / "recipe.yaml"
    file = recipe or (remembered if remembered.exists() else None)
    return Resolved(own or load_recipe(file, given), load_recipe(file, lasting), root.absolute())


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
) -> Iterator[Context]:
    """The context of one run: recipe, workspace, workers, and a listener on standard error. Nothing is written."""
    from wetmap.cli.output import listening
    from wetmap.cluster import Workers
    from wetmap.stages.context import Context
    from wetmap.workspace import Workspace

    resolved = resolve_recipe(recipe, workspace, overrides)
    with (
        listening(as_json=as_json) as listener,
        Workers(
            resolved.recipe.cluster, resolved.root / ".dask", logs=resolved.root / "job-logs", say=listener.say
        ) as workers,
    ):
        yield Context(resolved.recipe, resolved.kept, Workspace(resolved.root), workers, listener)
