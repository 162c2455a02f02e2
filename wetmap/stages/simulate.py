"""The stage before the first, for recipes that ask for it: write the simulated archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wetmap.recipe_file import plain
from wetmap.stages.context import Context
from wetmap.workspace import StageFolder, write_json

#: Raised when the simulation gives other bytes for the same request.
REVISION = 1


def wanted(context: Context) -> bool:
    """Whether anything in the recipe is simulated."""
    recipe = context.recipe
    sources = (recipe.sources.optical, recipe.sources.radar, recipe.sources.terrain)
    return recipe.reference == "simulated" or any(s is not None and s.kind == "simulated" for s in sources)


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
