"""Stage background: what the report's map lies on, made once from the cube; and what that map shows.

Every chunk of the cube is decoded once, for a handful of its bands: minutes for a province, in memory that does not
depend on its size. So it is a stage of its own, and a page that says something new does not pay again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from wetmap.assessment.applicability import LAYER_THRESHOLD
from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.geo import Block
from wetmap.products.layers import map_layers
from wetmap.recipe import Season
from wetmap.report.viewer import Background, MeasureLayer, ViewerData
from wetmap.report.viewer_background import Means, reduced_size, shaded_relief, true_colour
from wetmap.stages import fetch, mosaic
from wetmap.stages.context import Context
from wetmap.workspace import StageFolder, write_bytes, write_json

#: Raised when the same request would give other pictures; the report's is then raised too, for they are in it.
REVISION = 1
#: Side of the windows that are read, pixels: whole chunks of the cube.
WINDOW_PX = 512
#: Windows looked at to choose a season, at most.
PROBES = 64
#: Longer side of the pictures, pixels, at most: nothing is measured on them, and the page stays small.
PICTURE_PX = 1280
#: Sentinel-2's red, green and blue; and the band of heights.
RGB, HEIGHT = ("B04", "B03", "B02"), "terrain.elevation"
#: Full leaf north of the equator: most wetlands show best, and no snow hides them. Six months later south of it.
LEAF_MONTH, LEAF_DAY = 7, 20


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the cube."""
    return {"revision": REVISION, "fetch": fetch.folder_of(context).key}


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("background", asked(context))


def run(context: Context) -> StageFolder:
    """Draw the pictures that the cube allows: true colour of one season, the shape of the land, or none."""
    folder = folder_of(context)
    with context.workspace.lock("background"):
        if not context.begin(folder, asked(context)):
            return folder
        cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
        season = best_season(cube, context.recipe.seasons, southern=_southern(context))
        pictures = []
        for number, picture in enumerate(_pictures(context, cube, season)):
            name = f"background-{number}.jpg"
            write_bytes(folder.path / name, picture.jpeg)
            pictures.append({"file": name, "title": picture.title})
        write_json(folder.path / "manifest.json", {"stage": "background", "season": season, "pictures": pictures})
    return folder


def viewer_data(context: Context, classes: Sequence[MapClass]) -> ViewerData:
    """What the report's map shows: the finished map, its measures, and the pictures below.

    Args:
        context: The run, with a complete mosaic.
        classes: The map's classes.
    """
    made, drawn = mosaic.folder_of(context), run(context)
    pictures = [
        Background(row["title"], (drawn.path / row["file"]).read_bytes())
        for row in (drawn.manifest or {"pictures": []})["pictures"]
    ]
    measures = _measures(context, {path.name for path in made.path.iterdir()})
    return ViewerData(context.name, made.path / "classes.tif", classes, measures, pictures)


def _measures(context: Context, there: set[str]) -> list[MeasureLayer]:
    """The measures of the map's folder, in the order in which a GIS shows them; one per season of clear looks."""
    folder = mosaic.folder_of(context).path
    outside = f"Above {LAYER_THRESHOLD} %: outside the area of applicability."
    known: dict[str, dict[str, Any]] = {
        "confidence.tif": {"title": "Confidence", "note": "The model's probability of the class it chose."},
        "entropy.tif": {"title": "Entropy", "note": "How even the probabilities of the classes are."},
        "applicability.tif": {"title": "Unlike the training samples", "high": 2.0 * LAYER_THRESHOLD, "note": outside},
    }
    found: list[MeasureLayer] = []
    for layer in map_layers(there):
        if layer.file in known:
            found.append(MeasureLayer(folder / layer.file, unit="\u202f%", **known[layer.file]))
        elif layer.file == "clear_count.tif":
            found += [
                MeasureLayer(folder / layer.file, f"Clear looks, {season.name}", high=None, band=number)
                for number, season in enumerate(context.recipe.seasons, 1)
            ]
    return found


def best_season(cube: Cube, seasons: Sequence[Season], *, southern: bool = False) -> str | None:
    """The season whose true colour is shown: seen nearly everywhere, and nearest to full leaf.

    Args:
        cube: The cube.
        seasons: The recipe's seasons.
        southern: Whether the area is south of the equator.

    Returns:
        Its name; None where no season has red, green and blue.
    """
    names = {band.name: band.layer for band in cube.bands}
    layers = {row.name: names[f"{row.name}.{RGB[0]}"] for row in seasons if _rgb(row.name) <= names.keys()}
    if not layers:
        return None
    seen = dict.fromkeys(layers, 0)
    for block in _probes(cube):
        observed = cube.read_observed(block.y0, block.x0, block.height, block.width)
        for name, layer in layers.items():
            seen[name] += int(observed[cube.layers.index(layer)].sum())
    most = max(seen.values())
    nearly = [row for row in seasons if row.name in seen and seen[row.name] >= 0.95 * most]
    return min(nearly, key=lambda row: _days_to_leaf(row, southern=southern)).name


def _rgb(season: str) -> set[str]:
    return {f"{season}.{name}" for name in RGB}


def _days_to_leaf(season: Season, *, southern: bool) -> int:
    """Days from the middle of a season to full leaf, of whichever year is nearest."""
    middle = season.start + (season.end - season.start) / 2
    month = (LEAF_MONTH + 5) % 12 + 1 if southern else LEAF_MONTH
    return min(abs((middle - dt.date(middle.year + year, month, LEAF_DAY)).days) for year in (-1, 0, 1))


def _southern(context: Context) -> bool:
    _, south, _, north = context.aoi.bounds_in("EPSG:4326")
    return south + north < 0


def _probes(cube: Cube) -> list[Block]:
    """Windows spread evenly over the cube."""
    blocks = list(cube.grid.blocks(WINDOW_PX))
    step = max(1, -(-len(blocks) // PROBES))
    return blocks[::step]


def _pictures(context: Context, cube: Cube, season: str | None) -> list[Background]:
    """One pass over the cube, window by window."""
    names = [band.name for band in cube.bands]
    colours = [] if season is None else [names.index(f"{season}.{name}") for name in RGB]
    heights = [names.index(HEIGHT)] if HEIGHT in names else []
    if not colours and not heights:
        return []
    size = reduced_size(cube.shape, PICTURE_PX)
    colour_means, height_means = (Means(len(bands), cube.shape, size) for bands in (colours, heights))
    blocks = list(cube.grid.blocks(WINDOW_PX))
    for done, block in enumerate(blocks):
        context.listener.progress(done, len(blocks), "windows")
        values = cube.read_bands(block, colours + heights)
        colour_means.add(block.y0, block.x0, values[: len(colours)])
        height_means.add(block.y0, block.x0, values[len(colours) :])
    context.listener.progress(len(blocks), len(blocks), "windows")
    found = []
    jpeg = true_colour(colour_means.values) if colours else None
    del colour_means  # tens of MB that the relief can have
    if jpeg is not None:
        found.append(Background(f"True colour, {season}", jpeg))
    pixel_m = cube.grid.res_m * cube.grid.width / size[1]
    shaded = shaded_relief(height_means.values[0], pixel_m) if heights else None
    if shaded is not None:
        times = f" (heights \u00d7\u202f{shaded[1]})" if shaded[1] > 1 else ""
        found.append(Background(f"Shaded relief{times}", shaded[0]))
    return found
