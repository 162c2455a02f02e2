"""Stage cubes: reference data becomes labelled windows, divided into folds in space; and a map of the division."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.errors import ReferenceDataError, ReferenceWarning, SplitError
from wetmap.geo import Grid
from wetmap.products.areas import count_areas
from wetmap.recipe import Reference
from wetmap.recipe_file import plain
from wetmap.report.split_picture import split_picture, split_words
from wetmap.samples import Labels, Samples, Split, draw_samples, read_reference, split_samples, write_patch_cubes
from wetmap.samples.files import named, need_files
from wetmap.samples.splits import with_window
from wetmap.stages import fetch, simulate
from wetmap.stages.context import Context
from wetmap.stages.split_map import samples_table, split_map
from wetmap.workspace import StageFolder, write_bytes, write_json

#: Raised when the same request would give other samples.
REVISION = 4

#: Files that belong to a Shapefile besides the .shp itself.
SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg")


@dataclass(frozen=True)
class _Reference:
    reference: Reference
    identity: Any


def reference_of(context: Context) -> _Reference:
    """The reference data of the recipe, and what identifies its content.

    Raises:
        ReferenceDataError: The recipe names none.
        UsageError: The file is missing.
    """
    wanted = context.recipe.reference
    if wanted is None:
        raise ReferenceDataError(
            "There is no reference data to train on.",
            do="Give --reference with a vector file and --class-field with its class field, or with a label raster.",
        )
    if wanted == "simulated":
        folder = simulate.folder_of(context)
        path = folder.path / "archive" / "reference.gpkg"
        return _Reference(Reference(path=path, class_field="CLASS"), {"simulate": folder.key})
    need_files(wanted)
    if context.recipe.splits.kind != "sites":
        wanted = wanted.model_copy(update={"site_field": None})  # features without a site are of use to other kinds
    return _Reference(wanted, {**named(wanted), "sha256": _digest(wanted.path), **_more(wanted)})


def _more(reference: Reference) -> dict[str, Any]:
    """What identifies the content of the other files; nothing where there are none."""
    return {"also_sha256": [_digest(more.path) for more in reference.also]} if reference.also else {}


def window_px(context: Context) -> int:
    """Side of the window that the recipe's model looks at, pixels."""
    from wetmap.models import option_defaults

    options = {**option_defaults(context.recipe.model.name), **context.recipe.model.options}
    return int(options.get("window", 8))


def asked(context: Context, side_px: int | None = None) -> dict[str, Any]:
    """What the stage is asked: the cube, the reference's content, the classes, the drawing, the split, the window.

    Args:
        context: The run.
        side_px: Side of the windows, pixels; None: that of the recipe's model.
    """
    recipe = context.recipe
    return {
        "revision": REVISION,
        "fetch": fetch.identity(context),
        "reference": reference_of(context).identity,
        "classes": [{k: v for k, v in plain(spec).items() if k != "colour"} for spec in recipe.classes],
        "samples": plain(recipe.samples),
        "splits": plain(recipe.splits),
        "window_px": side_px or window_px(context),
        "seed": recipe.seed,
    }


def folder_of(context: Context, side_px: int | None = None) -> StageFolder:
    """The stage's folder, for the recipe's model or for windows of another side, pixels."""
    return context.workspace.stage("cubes", asked(context, side_px))


def run(context: Context, side_px: int | None = None) -> StageFolder:
    """Read the reference, draw, split, and cut the windows: for the recipe's model, or of another side, pixels."""
    folder, side = folder_of(context, side_px), side_px or window_px(context)
    with context.workspace.lock("cubes"):
        if not context.begin(folder, asked(context, side_px)):
            return folder
        recipe, cube = context.recipe, Cube.open(fetch.cube_path(fetch.folder_of(context)))
        reference = reference_of(context).reference
        # Colours are not part of what this stage is asked; the products take them from the recipe.
        specs = [spec.model_copy(update={"colour": None}) for spec in recipe.classes]
        labels = read_reference(reference, specs, cube.grid, context.aoi)
        samples = draw_samples(
            labels,
            per_class=recipe.samples.per_class,
            min_per_class=recipe.samples.min_per_class,
            background=reference.background,
            seed=recipe.seed,
        )
        split = split_of(context, samples, cube.grid, labels.classes, side_px)
        shown = split_map(split, samples, cube, context.aoi)
        write_bytes(folder.path / "split.png", split_picture(shown))
        write_bytes(folder.path / "samples.csv", samples_table(split, samples, cube.grid, labels.classes))
        thin = _warn_of_thin_classes(split.counts, recipe.samples.min_per_class)
        patches = write_patch_cubes(cube, labels, samples, split, window_px=side, path=folder.path / "patches.zarr")
        write_json(
            folder.path / "manifest.json",
            {
                "stage": "cubes",
                "classes": [row.to_json() for row in labels.classes],
                "reference": {**labels.report, "warnings": [*labels.report["warnings"], *thin]},
                "labelled_ha": _labelled_ha(cube.grid, labels),
                "split": split.summary,
                "split_picture": split_words(shown),
                "samples": patches.summary,
            },
        )
    return folder


def split_of(context: Context, samples: Samples, grid: Grid, classes: Sequence[MapClass], side_px: int | None) -> Split:
    """Divide the samples as the recipe says.

    Args:
        context: The run.
        samples: What was drawn.
        grid: The grid.
        classes: The class table.
        side_px: Side of the windows, pixels; None: that of the recipe's model, which a refusal then names.

    Raises:
        SplitError: As ``split_samples``.
    """
    recipe = context.recipe
    try:
        return split_samples(
            samples,
            recipe.splits,
            window_px=side_px or window_px(context),
            res_m=grid.res_m,
            grid_shape=grid.shape,
            classes=classes,
            seed=recipe.seed,
            per_class=recipe.samples.per_class,
        )
    except SplitError as error:
        if side_px is not None or recipe.splits.kind == "paper":
            raise
        name, side = recipe.model.name, window_px(context)
        raise with_window(error, side, name, _smaller_window(name, side)) from error


def _smaller_window(name: str, side: int) -> str:
    """What makes the window of a model smaller."""
    from wetmap.models import entry

    option = entry(name).options.get("window")
    smaller = [str(value) for value in option.allowed if int(value) < side] if option is not None else []
    if not smaller:
        return "Or choose another model; this one has no smaller window."
    return f"Or choose a smaller window in the recipe, model.options.window: {', '.join(smaller)}."


def _warn_of_thin_classes(counts: dict[str, dict[str, int]], least: int) -> list[str]:
    """Classes that the buffer between folds leaves with few training samples: their scores mean little."""
    notes = [
        f"Class {name} has only {by_role['train']} training samples after the buffer between folds: its scores mean "
        "little. Draw more reference for it, or use smaller blocks or another splits.test_fold."
        for name, by_role in counts.items()
        if by_role["train"] < least
    ]
    for note in notes:
        warnings.warn(note, ReferenceWarning, stacklevel=2)
    return notes


def _labelled_ha(grid: Grid, labels: Labels) -> dict[str, float]:
    """Hectares labelled, by class: counted as a map's are, window by window."""
    rows = count_areas(grid, lambda block: labels.codes[block.slices], labels.classes)
    return {row.name: round(row.hectares, 4) for row in rows}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for part in (path, *(path.with_suffix(suffix) for suffix in SHAPEFILE_PARTS)):
        if part != path and path.suffix.lower() != ".shp":
            continue
        if part.exists():
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()
