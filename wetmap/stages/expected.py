"""What a run costs before anything is known of it: without a network, without a model, without reference data.

Figures that stand in for what a search or a measurement would say are called so in words, and say what they rest on.
"""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from wetmap.budget import memory_text, parse_memory
from wetmap.errors import WetmapError
from wetmap.recipe import Recipe, Season, Sensor
from wetmap.sources.outlines import area_m2
from wetmap.sources.providers import NATIVE_RES_M
from wetmap.stages import bench
from wetmap.stages.context import Context, Silent
from wetmap.stages.lost_reads import counted
from wetmap.stages.plan import sensors_wanted, source_bands
from wetmap.stages.reading_estimate import ASSUMED_MB_PER_S, BYTES_PER_PIXEL, RES_M, ground_of

#: Length of the equator, km, for the distance of neighbouring passes.
EQUATOR_KM = 40_075.0
#: Sentinel-2 (ESA, Sentinel-2 mission guide): days after which a satellite flies the same track again, orbits in them,
#: swath in km, satellites.
OPTICAL_CYCLE = (10.0, 143, 290.0, 2)
#: Sentinel-1, IW mode (ESA, Sentinel-1 mission guide): days, orbits, swath in km. Satellites: `_radar_satellites`.
RADAR_CYCLE = (12.0, 175, 250.0)
#: Sentinel-1B failed on the first day, and Sentinel-1C's scenes are open from the second.
ONE_RADAR_SATELLITE = (dt.date(2021, 12, 23), dt.date(2025, 3, 26))
#: Bytes of memory per pixel of the whole grid while reference data becomes samples, about: class codes, ids of
#: features, masks; and what comes on top, above all the candidates for background. Measured: benchmarks/sampling.py.
SAMPLING_BYTES, SAMPLING_GB = 12, 0.3


def reading(context: Context) -> dict[str, Any]:
    """What a fetch would read, by the satellites' cycles alone, as plain data; empty where no catalogue is searched.

    Every pass counts, also those that were never acquired or that are left out for cloud, so it is an upper figure.
    """
    recipe, looks, total = context.recipe, dict[str, float](), 0.0
    ground = ground_of(context)
    square_m, latitude = area_m2(ground), float(ground.centroid.y)
    bands = source_bands(recipe)
    for sensor in sensors_wanted(recipe):
        source = recipe.sources.of(sensor)
        if source is None or source.kind != "stac":
            continue
        looks[sensor] = round(looks_of(recipe, sensor, latitude), 1)
        names = [*bands[sensor], *(["SCL"] if sensor == "optical" else [])]
        pixels = sum(square_m / NATIVE_RES_M.get(name, RES_M.get(sensor, 10.0)) ** 2 for name in names)
        total += looks[sensor] * pixels * BYTES_PER_PIXEL[sensor] / 1e9
    if not looks:
        return {}
    return {
        "typical_looks": looks,
        "typical_read_gb": round(total, 3),
        "typical_hours": round(total * 1000 / ASSUMED_MB_PER_S / 3600, 3),
    }


def looks_of(recipe: Recipe, sensor: Sensor, latitude: float) -> float:
    """How often the ground is seen in all seasons together, if every pass were acquired; 1 where seasons do not count.

    Args:
        recipe: Seasons, and orbit states of the radar.
        sensor: The sensor.
        latitude: Of the area's middle, degrees: passes lie closer to each other away from the equator.
    """
    if sensor == "optical":
        days, orbits, swath, satellites = OPTICAL_CYCLE
        return sum(passes(_days(season), days, orbits, swath, latitude) * satellites for season in recipe.seasons)
    if sensor == "radar":
        states = 1 if len(recipe.features.orbit_states) == 1 and "any" not in recipe.features.orbit_states else 2
        return sum(
            states * _radar_satellites(season) * passes(_days(season), *RADAR_CYCLE, latitude)
            for season in recipe.seasons
        )
    return 1.0


def passes(days: float, cycle_days: float, orbits: int, swath_km: float, latitude: float) -> float:
    """How often one satellite sees the ground in so many days, in one direction of flight, on average.

    The tracks of a cycle lie ``EQUATOR_KM * cos(latitude) / orbits`` apart, and each is as wide as the swath.
    """
    apart_km = EQUATOR_KM * max(math.cos(math.radians(latitude)), 0.05) / orbits
    return days / cycle_days * swath_km / apart_km


def _days(season: Season) -> int:
    return (season.end - season.start).days + 1


def _radar_satellites(season: Season) -> int:
    middle = season.start + (season.end - season.start) / 2
    return 1 if ONE_RADAR_SATELLITE[0] <= middle < ONE_RADAR_SATELLITE[1] else 2


def touched(context: Context, side_px: int, reach_px: int = 0) -> tuple[int, int]:
    """Blocks that hold something of the area, and their pixels.

    Args:
        context: The run.
        side_px: Side of the blocks, pixels.
        reach_px: Blocks this close to the area count too, pixels.
    """
    grid = context.grid
    area = shapely.buffer(context.aoi.geometry_in(grid.crs), reach_px * grid.res_m)
    shapely.prepare(area)
    blocks = list(grid.blocks(side_px))
    corners = np.array([grid.window(b.y0, b.x0, b.height, b.width).bounds for b in blocks])
    hit = np.asarray(shapely.intersects(area, shapely.box(*corners.T)), dtype=np.bool_)
    return int(hit.sum()), sum(b.height * b.width for b, here in zip(blocks, hit.tolist(), strict=True) if here)


def mapping(context: Context, pixels: int) -> dict[str, Any]:
    """Hours for the map by an untrained network of the recipe's kind, timed here and now; why not, where it cannot be.

    Args:
        context: The run.
        pixels: Pixels to map.
    """
    busy = load_words()
    try:
        told = bench.run(context.recipe, [context.recipe.model.name], None, Silent())
    except WetmapError as error:
        return {"hours": f"not known: {error}"}
    rate, workers = float(told["rows"][0]["pixels_per_s"]), int(told["workers"])
    return {
        "workers": workers,
        "pixels_per_s_per_worker": round(rate),
        "hours": round(pixels / rate / workers / 3600, 3),
        "measured_on": f"an untrained {context.recipe.model.name} and random pixels, here and now",
        **({"busy": busy} if busy else {}),
    }


def load_words() -> str:
    """What the machine does beside us, where that is more than its cores can do: a rate timed then is too low.

    Returns:
        ``load 12 on 2 cores`` (mean of the last minute); empty where the cores suffice, or the system does not tell.
    """
    if not hasattr(os, "getloadavg"):
        return ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    return f"load {load:.0f} on {counted(cores, 'core')}" if load > cores + 0.5 else ""


def sampling_gb(context: Context) -> float:
    """Memory while reference data becomes samples, GB."""
    return context.grid.height * context.grid.width * SAMPLING_BYTES / 1e9 + SAMPLING_GB


def memory(context: Context, verbs: Sequence[str]) -> list[str]:
    """What the run needs of memory, in sentences."""
    out = []
    if "train" in verbs:
        gb = sampling_gb(context)
        out.append(f"{gb:,.1f} GB to draw samples ({SAMPLING_BYTES} bytes for each pixel of the grid)")
    if "predict" in verbs:
        bound = context.recipe.cluster.memory
        words = (
            f"at most {memory_text(parse_memory(bound))} (cluster.memory)" if bound else "no bound (--memory sets one)"
        )
        out.append(f"mapping {words}")
    return out


def lines(result: dict[str, Any]) -> list[str]:
    """What stands in for a search, what is missing, and the memory, as lines for people."""
    told = result.get("fetch", {})
    out = [*_disk_line(result), *(f"Needed: {text}" for text in result.get("missing", []))]
    if "typical_looks" in told:
        looks = ", ".join(
            f"{sensor} {count:,.0f} looks" for sensor, count in told["typical_looks"].items() if count != 1
        )
        gb, hours = told["typical_read_gb"], told["typical_hours"]
        out.append(
            f"Read:   at most about {gb:,.1f} GB, {_long(hours)} at {ASSUMED_MB_PER_S:g} MB/s. Not searched: "
            f"reckoned from the satellites' cycles, {looks} of each place, none left out for cloud"
        )
    mapped = result.get("predict", {})
    if isinstance(mapped.get("hours"), int | float):
        out.append(_map_line(mapped))
    if result.get("memory"):
        out.append(f"Memory: {'; '.join(result['memory'])}")
    return out


def _map_line(mapped: dict[str, Any]) -> str:
    """How long the map takes to compute."""
    hours, on = mapped["hours"], mapped.get("measured_on", "the trained model")
    workers = counted(mapped["workers"], "worker")
    busy = f" (this machine is busy: {mapped['busy']}; idle it takes less)" if mapped.get("busy") else ""
    return f"Map:    about {_long(hours)} of inference with {workers}, measured on {on}{busy}; other machines differ"


def _long(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{max(1, round(hours * 60))} min"


def _disk_line(result: dict[str, Any]) -> list[str]:
    """What cube and map take, where their sizes are known."""
    sizes = [result.get("fetch", {}).get("write_gb"), result.get("predict", {}).get("write_gb_at_most")]
    known = [size for size in sizes if isinstance(size, int | float)]
    if len(known) < len(sizes):
        return []
    short = "" if sum(known) <= result["free_gb"] else ", which is more than is free"
    return [f"Disk:   at most about {sum(known):,.1f} GB for the cube and the map, before compression{short}"]
