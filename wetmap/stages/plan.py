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

from wetmap.cube import EMBEDDINGS, bands_of
from wetmap.errors import BlockFailedWarning, SourceError
from wetmap.geo import Block, Grid
from wetmap.imagery.indices import index_bands
from wetmap.recipe import Recipe, Sensor
from wetmap.recipe_file import plain
from wetmap.sources import Archive, Scene, Skipped, check_bands, keeping, open_archive
from wetmap.sources.folders import stamps_of
from wetmap.sources.network import using
from wetmap.stages import coregister, simulate, terrain_plan
from wetmap.stages.block_features import unserved_layers
from wetmap.stages.cloud_tiles import bands_of_mask
from wetmap.stages.context import Context
from wetmap.stages.earthengine_rules import backscatter, embeddings_year, refuse_unrunnable, seasons_of, what_counts
from wetmap.stages.lost_reads import counted, lacks, scenes_of
from wetmap.stages.radar_plan import RadarSamples, keep_tracks, measure, samples_wanted, tracks_of
from wetmap.workspace import StageFolder, key_of, read_json, write_json

#: Raised when the same request would be planned differently.
REVISION = 2

#: Folder in the stage's folder with the answers of the archives, month by month.
SEARCH = "search"
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
    coregistration: dict[str, Any]
    """Shifts of radar tracks and optical passes: what ``coregister.run`` reports."""
    accumulation: Path | None
    """Where water runs in the whole area, where the recipe asks for wetness or height above drainage."""
    radar: RadarSamples | None = None
    """What was measured of the speckle, where the recipe's filter must know it."""
    terrain: terrain_plan.TerrainPlan | None = None
    """What was settled about terrain, where the recipe asks for it."""


def sensors_wanted(recipe: Recipe) -> tuple[Sensor, ...]:
    """The sensors that the recipe's features need."""
    prefixes: dict[Sensor, str] = {
        "optical": ".optical",
        "radar": ".radar",
        "terrain": "terrain",
        "embeddings": "embedding",
        "lband": "lband",
    }
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
        "sources": {sensor: what_counts(plain(source)) for sensor, source in sources.items()},
        "files": {
            sensor: _stamps(context, source)
            for sensor, source in sources.items()
            if source.kind in {"rasters", "files"}
        },
        "max_cloud_percent": recipe.optical.max_cloud_percent,
    }
    if "terrain" in sources:
        data["terrain"] = terrain_plan.asked(recipe)
    if "radar" in sources and recipe.radar.relative_orbits:
        data["relative_orbits"] = recipe.radar.relative_orbits
    if "radar" in sources and (wanted := samples_wanted(recipe.radar, recipe.features.radar)):
        data["radar_samples"] = wanted
    if "embeddings" in sources:
        data["embeddings"] = embeddings_year(recipe)
    if any(source.kind == "simulated" for source in sources.values()):
        data["simulate"] = simulate.folder_of(context).key
    if (shifts := coregister.asked(recipe.coregistration, sensors)) is not None:
        data["coregistration"] = shifts
    return data


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("plan", asked(context))


def identity(context: Context) -> str:
    """What identifies the plan for fetch: its key, and what it measured for the whole area, where that counts.

    Scenes that cannot be read while shifts and speckle are measured may be there in the next run, under the same key;
    where they change what was settled, the cube is another one.
    """
    folder = folder_of(context)
    settled = (folder.manifest or {}).get("settled")
    return f"{folder.key} settled {settled}" if settled else folder.key


def _settled(shifts: dict[str, Any], radar: RadarSamples | None) -> str | None:
    """Short name of what was measured and changes features; None where nothing does."""
    moves = coregister.moves_of(shifts)
    speckle = None if radar is None else [radar.looks, radar.strong_power]
    return key_of({"moves": moves, "radar": speckle}) if moves or speckle else None


def _open_again(context: Context, folder: StageFolder) -> None:
    """What could not be read while shifts and speckle were measured is tried again by the next run."""
    missing = lacks(folder.manifest or {}, "failed_tie_blocks")
    if missing:
        context.listener.say("plan: scenes could not be read while it was measured; what is missing is tried again")
        (folder.path / "manifest.json").unlink()


def archives(context: Context) -> dict[Sensor, Archive]:
    """The archive of each sensor; small objects that open nothing until a worker reads."""
    catalog = simulate.catalog_of(context)
    opened: dict[Sensor, Archive] = {}
    for sensor in sensors_wanted(context.recipe):
        source = context.recipe.sources.of(sensor)
        if source is not None:
            opened[sensor] = open_archive(source, sensor, simulated_catalog=catalog)
    return opened


def search(context: Context, kept: Path | None = None) -> tuple[list[Scene], list[Skipped]]:
    """Ask every archive for its scenes, and refuse now what no block could make later.

    Args:
        context: The run.
        kept: Folder in which answers are kept the moment they are there; None: nothing is written.

    Raises:
        RecipeError: An index is unknown or needs bands that Sentinel-2 does not give, or a season has no day of the
            simulated archive.
        SourceError: A sensor has no scene, no scene holds a band, or a layer (a season, an orbit state) has no scene.
    """
    refuse_unrunnable(context.recipe)
    simulate.refuse_other_days(context.recipe)
    wanted = source_bands(context.recipe)
    scenes: list[Scene] = []
    skipped: list[Skipped] = []
    for sensor, opened in archives(context).items():
        archive = opened if kept is None else keeping(opened, kept)
        found, left_out = archive.search(
            sensor,
            context.aoi,
            seasons_of(context.recipe, sensor),
            max_cloud_percent=context.recipe.optical.max_cloud_percent,
        )
        check_bands(found, sensor, wanted[sensor])
        found, other_tracks = keep_tracks(sensor, found, context.recipe.radar)
        scenes += found
        skipped += left_out + other_tracks
    refuse_empty_layers(context, scenes)
    return scenes, skipped


def refuse_empty_layers(context: Context, scenes: Sequence[Scene]) -> None:
    """Refuse a layer (a season, an orbit state) that no scene can fill; also for a plan that is there already.

    Raises:
        SourceError: Some layer has no scene.
    """
    empty = unserved_layers(bands_of(context.recipe), scenes)
    if empty:
        radar = any(".radar" in layer for layer in empty) and context.recipe.radar.relative_orbits
        tracks = f"Add a track of that orbit state to radar.relative_orbits ({radar}), or empty it. " if radar else ""
        raise SourceError(
            f"No scene serves {', '.join(empty)} ({len(scenes)} scenes were found over {context.aoi.name}).",
            do=f"{tracks}Widen that season, take it or the orbit state out of the recipe (features.orbit_states: [any] "
            "puts all passes together), or name another source.",
        )


def source_bands(recipe: Recipe) -> dict[Sensor, list[str]]:
    """The bands that each sensor's scenes must hold."""
    features = recipe.features
    optical = [*features.optical, *(band for name in features.indices for band in index_bands(name))]
    optical += bands_of_mask(recipe)
    return {
        "optical": list(dict.fromkeys(optical)),
        "radar": list(features.radar),
        "terrain": ["elevation"],
        "embeddings": [f"A{number:02d}" for number in range(EMBEDDINGS)],
        "lband": list(features.lband),
    }


def run(context: Context) -> StageFolder:
    """Search, decide, freeze."""
    folder = folder_of(context)
    with context.workspace.lock("plan"), using(context.recipe.network):
        _open_again(context, folder)
        if not context.begin(folder, asked(context)):
            return folder
        context.listener.say(f"Grid: {context.grid.describe()}; area {context.aoi.area_ha:,.0f} ha")
        scenes, skipped = search(context, folder.path / SEARCH)
        _write_inside(context, folder.path / "inside.zarr")
        scenes, shifts = coregister.run(context, folder, folder.path / "inside.zarr", archives(context), scenes)
        terrain = _settle_terrain(context, scenes, folder.path)
        radar = _measure_radar(context, scenes)
        lost = [*shifts.get("failed_reads", []), *(radar.lost() if radar is not None else [])]
        write_json(
            folder.path / "plan.json",
            {
                "grid": context.grid.to_json(),
                "scenes": [scene.to_json() for scene in scenes],
                "skipped": [row.to_json() for row in skipped],
                "coregistration": shifts,
                "terrain": terrain.to_json() if terrain is not None else None,
                "radar": radar.to_json() if radar is not None else None,
            },
        )
        write_json(
            folder.path / "manifest.json",
            {
                "stage": "plan",
                "scenes": len(scenes),
                "skipped": len(skipped),
                "radar_tracks": tracks_of(scenes),
                "backscatter": backscatter(context.recipe),
                "coregistration": coregister.brief(shifts),
                "failed_tie_blocks": shifts.get("failed_blocks", []),
                "failed_reads": lost,
                "settled": _settled(shifts, radar),
            },
        )
        if lost:
            context.listener.say(
                f"{counted(len(lost), 'read')} of {counted(len(scenes_of(lost)), 'scene')} failed while shifts and "
                f"speckle were measured; they are named in {folder.path / 'manifest.json'}, and the same command tries "
                "them again"
            )
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
    terrain = data.get("terrain") and terrain_plan.TerrainPlan.from_json(data["terrain"], folder.path / "wide.tif")
    return Plan(
        grid=Grid.from_json(data["grid"]),
        scenes=tuple(Scene.from_json(scene) for scene in data["scenes"]),
        skipped=tuple(Skipped.from_json(row) for row in data["skipped"]),
        inside=folder.path / "inside.zarr",
        coregistration=data["coregistration"],
        accumulation=folder.path / "accumulation.tif" if terrain and terrain.flow_m is not None else None,
        terrain=terrain,
        radar=RadarSamples.from_json(data["radar"]) if data.get("radar") else None,
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


def _settle_terrain(context: Context, scenes: Sequence[Scene], folder: Path) -> terrain_plan.TerrainPlan | None:
    if "terrain" not in sensors_wanted(context.recipe):
        return None
    tiles = [scene for scene in scenes if scene.sensor == "terrain"]
    settled = terrain_plan.settle(archives(context)["terrain"], tiles, context.grid, context.recipe, folder)
    context.listener.say(settled.describe())
    return settled


def _measure_radar(context: Context, scenes: Sequence[Scene]) -> RadarSamples | None:
    if "radar" not in sensors_wanted(context.recipe):
        return None
    wanted = samples_wanted(context.recipe.radar, context.recipe.features.radar)
    found = [scene for scene in scenes if scene.sensor == "radar"]
    measured = measure(archives(context)["radar"], found, context.grid, wanted)
    if measured is not None:
        context.listener.say(measured.describe())
    return measured


def _stamps(context: Context, source: Any) -> Any:
    """Size and modification time of the user's own files: a changed file makes the plan new."""
    if source.kind == "files":
        if source.folder not in context.folders:
            context.folders[source.folder] = stamps_of(source.folder)
        return context.folders[source.folder]
    rows = []
    for file in source.files:
        stat = file.path.stat() if file.path.exists() else None
        rows.append([file.path.name, stat.st_size if stat else None, stat.st_mtime_ns if stat else None])
    return rows
