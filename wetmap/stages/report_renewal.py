"""Make the report of a finished map new when what it shows from beside the map is: an assessment, a comparison."""

from __future__ import annotations

from pathlib import Path

from wetmap.errors import WetmapError
from wetmap.stages.context import Listener
from wetmap.workspace import read_json

#: The recipe of a report, beside it in the stage's folder.
RECIPE_FILE = "recipe.yaml"


def renew_report(root: Path, listener: Listener) -> Path | None:
    """Make the page of the workspace's map new, and nothing else: no pixel is computed, no other file changes.

    The work that called this is done already. So what stands in the way here is said, and is no error.

    Args:
        root: The workspace.
        listener: Who is told.

    Returns:
        The page; None where the workspace holds no map of its own, or it cannot be made new.
    """
    try:
        shown = read_json(root / "map" / "manifest.json") or {}
        file = root / "stages" / "report" / str(shown.get("key")) / RECIPE_FILE
        return _renewed(root, file, str(shown.get("mosaic")), listener) if file.exists() else None
    except (WetmapError, OSError) as error:  # a stage's folder may have been deleted to free the disk
        listener.say(f"The report is not made new: {error}")
        return None


def _renewed(root: Path, recipe_file: Path, key: str, listener: Listener) -> Path | None:
    from wetmap.cluster import Workers
    from wetmap.recipe_file import load_recipe
    from wetmap.stages import mosaic, report
    from wetmap.stages.context import Context
    from wetmap.workspace import Workspace

    recipe = load_recipe(recipe_file)
    with Workers(recipe.cluster, root / ".dask") as workers:
        context = Context(recipe, recipe, Workspace(root), workers, listener)
        made = mosaic.folder_of(context)
        if made.key != key or not made.complete:
            listener.say(
                "The report is not made new: what the map was made from has changed. Run wetmap predict to make both "
                "new."
            )
            return None
        report.run(context)
    return root / "map" / "report.html"
