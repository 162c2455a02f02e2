"""The finished map in the classes of another system, where the recipe asks for it: raster, style, areas, crosswalk."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.classes import MapClass, distinct_colours
from wetmap.colour_vision import alike
from wetmap.crosswalk import Translation, translate
from wetmap.errors import PaletteWarning
from wetmap.geo import Block, Grid
from wetmap.products.areas import count_areas, write_areas_csv
from wetmap.products.geotiff import write_cog
from wetmap.products.style import write_class_style
from wetmap.recipe import Recipe, Reference
from wetmap.samples.class_table import resolve_classes, with_background
from wetmap.stages import predict
from wetmap.stages.context import Context
from wetmap.workspace import spreadsheet_cell, write_bytes

#: Raised when the same request would give other files.
REVISION = 1
#: Head of crosswalk_<system>.csv.
COLUMNS = ("code", "class", "to_code", "to_class", "rests_on", "note")
#: Pairs of colours that a warning names.
LISTED = 5

#: Gives a block of class codes.
Reader = Callable[[Block], NDArray[np.uint8]]


def check(recipe: Recipe) -> None:
    """Refuse a crosswalk that does not fit the recipe's classes, and warn of colours that are hard to tell apart.

    A recipe that lists no classes says nothing here: they are known once the reference was read.

    Raises:
        RecipeError: The classes contradict each other, or the crosswalk has no row for one of them.

    Warns:
        PaletteWarning: Two classes look alike to some kind of colour vision.
    """
    if not recipe.classes or recipe.predict.bundle is not None:
        return
    reference = recipe.reference
    background = reference.background if isinstance(reference, Reference) else None
    classes = with_background(resolve_classes(recipe.classes, []), background)
    if recipe.products.crosswalk is not None:
        _translation(recipe, classes)
    warn_of_colours(classes)


def warn_of_colours(classes: Sequence[MapClass]) -> None:
    """Warn of classes whose colours somebody can hardly tell apart.

    Warns:
        PaletteWarning: There are some; the most alike are named.
    """
    found = alike([row.colour for row in classes])
    if not found:
        return
    pairs = [
        f"{classes[pair.first].name} {classes[pair.first].colour} and {classes[pair.second].name} "
        f"{classes[pair.second].colour} ({pair.sight}: {pair.difference:.1f})"
        for pair in found[:LISTED]
    ]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    spare = distinct_colours([row.name for row in classes])
    better = "" if alike(spare) else f" These go together: {', '.join(spare)}."
    warnings.warn(
        f"Colours of these classes are hard to tell apart, by CIEDE2000: {'; '.join(pairs)}{more}. Give one of them "
        f"another `colour:`, or leave `colour:` out.{better}",
        PaletteWarning,
        stacklevel=2,
    )


def look(context: Context) -> None:
    """Refuse a crosswalk that has no row for a class of the model, before the map is computed.

    Raises:
        RecipeError: It has none.
        BundleError: There is no model.
    """
    if context.recipe.products.crosswalk is not None:
        _translation(context.recipe, predict.open_bundle(context).card.classes)


def path_in(folder: Path, recipe: Recipe) -> str | None:
    """Where the map in other classes lies in the map's folder; None where none is asked for."""
    name = recipe.products.crosswalk
    return None if name is None else str(folder / f"classes_{name}.tif")


def asked(recipe: Recipe, classes: Sequence[MapClass]) -> dict[str, Any]:
    """What the products' stage is asked of it: each class and what it becomes; empty for nothing.

    Raises:
        RecipeError: A class has no row.
    """
    if recipe.products.crosswalk is None:
        return {}
    found = _translation(recipe, classes)
    rows = [[step.before.code, step.after.to_json(), step.rests_on, step.note] for step in found.steps]
    return {"crosswalk": {"to": found.target, "rows": rows, "revision": REVISION}}


def write(
    folder: Path,
    recipe: Recipe,
    grid: Grid,
    read_classes: Reader,
    classes: Sequence[MapClass],
    *,
    tags: dict[str, str],
    simulated: bool,
) -> None:
    """Write classes_<system>.tif with its styles, areas_<system>.csv and crosswalk_<system>.csv, if they are wanted.

    Args:
        folder: Where to.
        recipe: Which system, and the recipe's own rows.
        grid: The map's grid.
        read_classes: Gives a block of the map: codes (height, width) uint8, 0 = nodata.
        classes: The map's classes.
        tags: Tags of the map.
        simulated: Whether the landscape is simulated.

    Raises:
        RecipeError: A class has no row.
        WorkspaceError: The disk is full.
    """
    if recipe.products.crosswalk is None:
        return
    found = _translation(recipe, classes)
    table, name = found.table(), found.target

    def read(block: Block) -> NDArray[np.uint8]:
        return np.asarray(table[np.asarray(read_classes(block))], dtype=np.uint8)

    write_cog(
        folder / f"classes_{name}.tif",
        grid,
        read,
        dtype="uint8",
        nodata=predict.NO_CLASS,
        overview="mode",
        colours={row.code: row.colour for row in found.classes},
        description="class",
        tags={**tags, "WETMAP_CLASSES": found.title},
    )
    write_class_style(folder / f"classes_{name}.tif", found.classes)
    rows = count_areas(grid, read, found.classes)
    write_areas_csv(folder / f"areas_{name}.csv", rows, simulated=simulated)
    write_bytes(folder / f"crosswalk_{name}.csv", _csv(found))


def _translation(recipe: Recipe, classes: Sequence[MapClass]) -> Translation:
    return translate(classes, str(recipe.products.crosswalk), recipe.products.crosswalk_rows)


def _csv(found: Translation) -> bytes:
    """The crosswalk as a spreadsheet opens it, as `write_areas_csv` does."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(COLUMNS)
    for step in found.steps:
        before, after, *words = map(spreadsheet_cell, (step.before.name, step.after.name, step.rests_on, step.note))
        table.writerow((step.before.code, before, step.after.code, after, *words))
    content = text.getvalue()
    return content.encode("ascii" if content.isascii() else "utf-8-sig")
