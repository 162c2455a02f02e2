"""Stage plan: search once, and freeze what is settled for the whole area before any block is touched."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import zarr
from numpy.typing import NDArray

from wetmap.cube import bands_of
from wetmap.errors import BlockFailedWarning, SourceError
from wetmap.geo import Block, Grid
from wetmap.imagery.indices import index_bands
from wetmap.recipe import Recipe, Sensor
from wetmap.recipe_file import plain
from wetmap.sources import Archive, Scene, Skipped, check_bands, open_archive
from wetmap.stages import simulate
from wetmap.stages.block_features import unserved_layers
from wetmap.stages.context import Context
from wetmap.stages.terrain_plan import plan_terrain
from wetmap.workspace import StageFolder, read_json, write_json

#: Raised when the same request would be planned differently.
REVISION = 1

#: Side of the chunks of the raster that says what is inside the area, pixels.
INSIDE_CHUNK_PX = 512


@dataclass(frozen=True)
class Plan:
    """What every later stage reads and none decides again."""

    grid: Grid
    """The grid."""
    scenes: tuple[Scene, ...]
    """Scenes to read, each with what was decided about it and why."""
    skipped: tuple[Skipped, ...]
    """Scenes left out, and why."""
    inside: Path
    """Zarr array (y, x) uint8: 1 where the pixel's centre is in the area."""
    accumulation: Path | None
    """Flow accumulation of the whole area, where the recipe asks for wetness."""


def sensors_wanted(recipe: Recipe) -> tuple[Sensor, ...]:
    """The sensors that the recipe's features need."""
    prefixes: dict[Sensor, str] = {"optical": ".optical", "radar": ".radar", "terrain": "terrain"}
    layers = {band.layer for band in bands_of(recipe)}
    return tuple(sensor for sensor in get_args(Sensor) if any(prefixes[sensor] in layer for layer in layers))


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the grid, the seasons, and each sensor's archive."""
    recipe = context.recipe
    sensors = sensors_wanted(recipe)
    sources = {sensor: source for sensor in sensors if (source := recipe.sources.of(sensor)) is not None}
    data: dict[str, Any] = {
        "revision": REVISION,
        "aoi": context.aoi.sha256,
        "grid": context.grid.to_json(),
        "seasons": [plain(season) for season in recipe.seasons],
        "sources": {sensor: plain(source) for sensor, source in sources.items()},
        "files": {sensor: _stamps(source) for sensor, source in sources.items() if source.kind == "rasters"},
        "max_cloud_percent": recipe.optical.max_cloud_percent,
        "wetness": "twi" in recipe.features.terrain,
    }
    if any(source.kind == "simulated" for source in sources.values()):
        data["simulate"] = simulate.folder_of(context).key
    return data


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("plan", asked(context))


def archives(context: Context) -> dict[Sensor, Archive]:
    """The archive of each sensor; small objects that open nothing until a worker reads."""
    catalog = simulate.catalog_of(context)
    opened: dict[Sensor, Archive] = {}
    for sensor in sensors_wanted(context.recipe):
        source = context.recipe.sources.of(sensor)
        if source is not None:
            opened[sensor] = open_archive(source, sensor, simulated_catalog=catalog)
    return opened


def search(context: Context) -> tuple[list[Scene], list[Skipped]]:
    """Ask every archive for its scenes, and refuse now what no block could make later.

    Raises:
        RecipeError: An index is unknown or needs bands that Sentinel-2 does not give.
        SourceError: A sensor has no scene, no scene holds a band, or a layer (a season, an orbit state) has no scene.
    """
    wanted = source_bands(context.recipe)
    scenes: list[Scene] = []
    skipped: list[Skipped] = []
    for sensor, archive in archives(context).items():
        found, left_out = archive.search(
            sensor, context.aoi, context.recipe.seasons, max_cloud_percent=context.recipe.optical.max_cloud_percent
        )
        check_bands(found, sensor, wanted[sensor])
        scenes += found
        skipped += left_out
    refuse_empty_layers(context, scenes)
    return scenes, skipped


def refuse_empty_layers(context: Context, scenes: Sequence[Scene]) -> None:
    """Refuse a layer (a season, an orbit state) that no scene can fill; also for a plan that is there already.

    Raises:
        SourceError: Some layer has no scene.
    """
    empty = unserved_layers(bands_of(context.recipe), scenes)
    if empty:
        raise SourceError(
            f"No scene serves {', '.join(empty)} ({len(scenes)} scenes were found over {context.aoi.name}).",
            do="Widen that season, take it or the orbit state out of the recipe (features.orbit_states: [any] puts all "
            "passes together), or name another source.",
        )


def source_bands(recipe: Recipe) -> dict[Sensor, list[str]]:
    """The bands that each sensor's scenes must hold."""
    features = recipe.features
    optical = [*features.optical, *(band for name in features.indices for band in index_bands(name))]
    return {"optical": list(dict.fromkeys(optical)), "radar": list(features.radar), "terrain": ["elevation"]}


def run(context: Context) -> StageFolder:
    """Search, decide, freeze."""
    folder = folder_of(context)
    with context.workspace.lock("plan"):
        if not context.begin(folder, asked(context)):
            return folder
        context.listener.say(f"Grid: {context.grid.describe()}; area {context.aoi.area_ha:,.0f} ha")
        scenes, skipped = search(context)
        _write_inside(context, folder.path / "inside.zarr")
        if "twi" in context.recipe.features.terrain:
            _accumulate(context, scenes, folder.path / "accumulation.tif")
        write_json(
            folder.path / "plan.json",
            {
                "grid": context.grid.to_json(),
                "scenes": [scene.to_json() for scene in scenes],
                "skipped": [row.to_json() for row in skipped],
                "wetness": "twi" in context.recipe.features.terrain,
            },
        )
        write_json(folder.path / "manifest.json", {"stage": "plan", "scenes": len(scenes), "skipped": len(skipped)})
    for sensor in archives(context):
        count = sum(scene.sensor == sensor for scene in scenes)
        context.listener.say(f"{sensor}: {count} scene{'' if count == 1 else 's'}")
    if skipped:
        plural = "" if len(skipped) == 1 else "s"
        context.listener.say(f"{len(skipped)} scene{plural} left out, the first: {skipped[0].id} ({skipped[0].reason})")
    return folder


def load(folder: StageFolder) -> Plan:
    """Read a finished plan."""
    data = read_json(folder.path / "plan.json")
    if data is None:
        raise SourceError(f"{folder.path} holds no plan.", do="Run wetmap fetch.")
    return Plan(
        grid=Grid.from_json(data["grid"]),
        scenes=tuple(Scene.from_json(scene) for scene in data["scenes"]),
        skipped=tuple(Skipped.from_json(row) for row in data["skipped"]),
        inside=folder.path / "inside.zarr",
        accumulation=folder.path / "accumulation.tif" if data["wetness"] else None,
    )


def read_inside(path: Path, block: Block) -> NDArray[np.bool_]:
    """Which pixels of a block are in the area, (height, width)."""
    rows, cols = block.slices
    return np.asarray(_opened(path, (path / "zarr.json").stat().st_mtime_ns)[rows, cols], dtype=np.bool_)


@functools.lru_cache(maxsize=2)
def _opened(path: Path, _made: int) -> Any:
    return zarr.open_array(str(path), mode="r")


def _write_inside(context: Context, path: Path) -> None:
    """Rasterise the area once, on fixed strips, so that no later block decides again where its edge runs."""
    grid = context.grid
    array = zarr.create_array(
        str(path),
        shape=grid.shape,
        chunks=(min(INSIDE_CHUNK_PX, grid.height), min(INSIDE_CHUNK_PX, grid.width)),
        dtype="uint8",
        fill_value=0,
        overwrite=True,
    )
    total = 0
    for y0 in range(0, grid.height, INSIDE_CHUNK_PX):
        height = min(INSIDE_CHUNK_PX, grid.height - y0)
        strip = context.aoi.inside(grid.window(y0, 0, height, grid.width))
        total += int(strip.sum())
        array[y0 : y0 + height] = strip.astype(np.uint8)
    if total == 0:
        warnings.warn(
            f"No pixel centre of the {grid.res_m:g} m grid lies in {context.aoi.name}: the map will be empty.",
            BlockFailedWarning,
            stacklevel=2,
        )


def _accumulate(context: Context, scenes: list[Scene], path: Path) -> None:
    archive = archives(context)["terrain"]
    plan_terrain(archive, [scene for scene in scenes if scene.sensor == "terrain"], context.grid, path)


def _stamps(source: Any) -> list[list[Any]]:
    """Size and modification time of the user's own files: a changed file makes the plan new."""
    rows = []
    for file in source.files:
        stat = file.path.stat() if file.path.exists() else None
        rows.append([file.path.name, stat.st_size if stat else None, stat.st_mtime_ns if stat else None])
    return rows
