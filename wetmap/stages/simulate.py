"""The stage before the first, for recipes that ask for it: write the simulated archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wetmap.errors import RecipeError
from wetmap.recipe import Recipe
from wetmap.recipe_file import plain
from wetmap.stages.context import Context
from wetmap.stages.status import simulates
from wetmap.workspace import StageFolder, write_json

#: Raised when the simulation gives other bytes for the same request.
REVISION = 1


def wanted(context: Context) -> bool:
    """Whether anything in the recipe is simulated."""
    return simulates(context.recipe)


def refuse_other_days(recipe: Recipe) -> None:
    """Refuse seasons without a single day of the simulated archive, before it is written.

    Raises:
        RecipeError: A season lies outside ``simulated.start`` to ``simulated.end``.
    """
    sources = (recipe.sources.optical, recipe.sources.radar)
    if not any(source is not None and source.kind == "simulated" for source in sources):
        return
    first, last = recipe.simulated.start, recipe.simulated.end
    outside = [season for season in recipe.seasons if season.end < first or season.start > last]
    if outside:
        named = ", ".join(f"{season.name} ({season.start} to {season.end})" for season in outside)
        raise RecipeError(
            f"The simulated archive has scenes of {first} to {last}, and none of season {named}.",
            do="Set simulated.start and simulated.end so that they hold the season, or move the season.",
        )


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the area and the simulation's settings."""
    return {"aoi": context.aoi.sha256, "simulated": plain(context.recipe.simulated), "revision": REVISION}


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("simulate", asked(context))


def catalog_of(context: Context) -> Path | None:
    """The simulated catalogue, or None where nothing is simulated."""
    return folder_of(context).path / "archive" / "catalog.json" if wanted(context) else None


def run(context: Context) -> StageFolder | None:
    """Write the archive; scenes that are there already stay."""
    from wetmap.sources.simulated import write_archive

    if not wanted(context):
        return None
    refuse_other_days(context.recipe)
    folder = folder_of(context)
    with context.workspace.lock("simulate"):
        if context.begin(folder, asked(context)):
            write_archive(
                context.aoi,
                context.recipe.simulated,
                folder.path / "archive",
                progress=lambda done, total: context.listener.progress(done, total, "scenes"),
            )
            write_json(folder.path / "manifest.json", {"stage": "simulate", "catalog": "archive/catalog.json"})
    return folder
