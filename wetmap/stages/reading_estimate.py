"""What a fetch would read: scenes by month, bytes, hours. Nothing is read for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from wetmap.cube import bands_of
from wetmap.recipe import Recipe
from wetmap.sources import Scene, Skipped
from wetmap.sources.outlines import area_m2, on_globe, outline_of
from wetmap.sources.providers import NATIVE_RES_M
from wetmap.stages.cloud_tiles import bands_of_mask, read_more
from wetmap.stages.context import Context
from wetmap.stages.earthengine_rules import on_server
from wetmap.stages.fetch import REACH_PX
from wetmap.stages.plan import sensors_wanted, source_bands

#: Sustained reading speed that the hours assume for remote archives, MB/s.
ASSUMED_MB_PER_S = 20.0
#: Bytes per pixel of a band in the archives' files, before compression: 16-bit optical, 32-bit radar and elevation.
BYTES_PER_PIXEL = {"optical": 2, "radar": 4, "terrain": 4, "embeddings": 4, "lband": 2}
#: Size of a pixel in the archives' files, metres, where the band does not say (JAXA's L-band mosaic is on 25 m).
RES_M = {"lband": 25.0}
#: Bytes per pixel and band of a composite that the archive makes: float32, not compressed.
COMPOSITE_BYTES = 4


@dataclass(frozen=True)
class _Read:
    scene: Scene
    gb: float
    """What is read of it, GB."""


def reading(context: Context, scenes: Sequence[Scene], skipped: Sequence[Skipped]) -> dict[str, Any]:
    """What the scenes of a plan cost to read, as plain data.

    A scene costs the share of its outline that lies on the blocks to be made, times the size of its files where the
    archive gives it, else times the pixels of its bands without compression. Margins around blocks, tries after
    failures and what co-registration reads on top are not in it.

    Args:
        context: The run.
        scenes: Scenes to read.
        skipped: Scenes left out.
    """
    ground = ground_of(context)
    bands = source_bands(context.recipe)
    reads = [_Read(scene, _gb(scene, [*bands[scene.sensor], "SCL", "mask"], ground)) for scene in scenes]
    reads = [_with_composites(_with_mask(read, context, ground), reads, context, ground) for read in reads]
    total = sum(read.gb for read in reads)
    sensors = _sensors(context.recipe)
    return {
        "scenes": {sensor: sum(read.scene.sensor == sensor for read in reads) for sensor in sensors},
        "scenes_by_month": {sensor: _by_month(sensor, scenes) for sensor in sensors},
        "read_gb": round(total, 3),
        "read_gb_by_sensor": {
            sensor: round(sum(read.gb for read in reads if read.scene.sensor == sensor), 3) for sensor in sensors
        },
        "hours": round(total * 1000 / ASSUMED_MB_PER_S / 3600, 3),
        "assumed_mb_per_s": ASSUMED_MB_PER_S,
        "scene_list": [_told(read) for read in reads],
        "skipped": [row.to_json() for row in skipped],
    }


def _with_mask(read: _Read, context: Context, ground: BaseGeometry) -> _Read:
    """Where a network makes the mask, its bands are read once more, on tiles with margins."""
    bands = bands_of_mask(context.recipe)
    if read.scene.sensor != "optical" or not bands:
        return read
    return _Read(read.scene, read.gb + _gb(read.scene, bands, ground) * read_more(context.grid.res_m))


def _with_composites(read: _Read, reads: Sequence[_Read], context: Context, ground: BaseGeometry) -> _Read:
    """Where the archive makes the composites they alone are read: each scene costs its part of them."""
    sensor = read.scene.sensor
    if not on_server(context.recipe.sources.of(sensor)) or sensor not in {"optical", "radar"}:
        return read
    bands = sum(f".{sensor}" in band.layer for band in bands_of(context.recipe))
    gb = area_m2(ground) / context.grid.res_m**2 * COMPOSITE_BYTES * bands / 1e9
    return _Read(read.scene, gb / sum(other.scene.sensor == sensor for other in reads))


def lines(told: dict[str, Any]) -> list[str]:
    """The scenes by sensor and month, as lines for people."""
    out = []
    for sensor, months in told.get("scenes_by_month", {}).items():
        parts = [f"{month} {count}" if month else f"{count} without a date" for month, count in months.items()]
        gb = told["read_gb_by_sensor"][sensor]
        out.append(f"Scenes: {sensor} {told['scenes'][sensor]} ({', '.join(parts) or 'none'}), about {_size(gb)}")
    if told.get("skipped"):
        first = told["skipped"][0]
        out.append(f"        {len(told['skipped'])} left out, the first: {first['id']} ({first['reason']})")
    if "hours" in told:
        rate = f"{told['assumed_mb_per_s']:g} MB/s"
        hours = told["hours"]
        long = f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(hours * 60))} min"
        out.append(f"Read:   about {_size(told['read_gb'])}, {long} at {rate}; --json lists every scene")
    return out


def _size(gb: float) -> str:
    return f"{gb:,.1f} GB" if gb >= 1 else f"{max(1, round(gb * 1000))} MB"


def _sensors(recipe: Recipe) -> tuple[str, ...]:
    return tuple(str(sensor) for sensor in sensors_wanted(recipe))


def _told(read: _Read) -> dict[str, Any]:
    scene = read.scene
    return {
        "id": scene.id,
        "sensor": scene.sensor,
        "datetime": scene.datetime,
        "cloud_percent": scene.cloud_percent,
        "platform": scene.platform,
        "orbit_state": scene.orbit_state,
        "relative_orbit": scene.relative_orbit,
        "seasons": list(scene.seasons),
        "offset": scene.offset,
        "offset_rule": scene.offset_rule,
        "gb": round(read.gb, 6),
    }


def _by_month(sensor: str, scenes: Sequence[Scene]) -> dict[str, int]:
    months = Counter("" if sensor == "terrain" else scene.datetime[:7] for scene in scenes if scene.sensor == sensor)
    return dict(sorted(months.items()))


def ground_of(context: Context) -> BaseGeometry:
    """The blocks that would be made, in longitude and latitude."""
    grid, block_px = context.grid, context.recipe.grid.block_px
    reach = shapely.buffer(context.aoi.geometry_in(grid.crs), REACH_PX * grid.res_m)
    shapely.prepare(reach)
    windows = [grid.window(b.y0, b.x0, b.height, b.width).bounds for b in grid.blocks(block_px)]
    boxes = shapely.box(*np.array(windows).T)
    wanted = boxes[shapely.intersects(reach, boxes)]
    edge = shapely.segmentize(shapely.union_all(wanted), block_px * grid.res_m)
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    ground = shapely.transform(edge, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
    return on_globe(ground) or shapely.box(-180, -90, 180, 90)


def _gb(scene: Scene, wanted: Sequence[str], ground: BaseGeometry) -> float:
    """What is read of one scene, GB."""
    outline = outline_of(scene.item)
    part = ground if outline is None else shapely.intersection(outline, ground)
    if part.is_empty:
        return 0.0
    on_ground_m2 = area_m2(part)
    share = None if outline is None else on_ground_m2 / max(area_m2(outline), 1.0)
    total = 0.0
    for band in scene.bands:
        if band not in wanted:
            continue
        size = scene.item.get("assets", {}).get(band, {}).get("file:size")
        if size and share is not None:
            total += float(size) * min(share, 1.0)
        else:
            res = NATIVE_RES_M.get(band, RES_M.get(scene.sensor, 10.0))
            total += on_ground_m2 / res**2 * BYTES_PER_PIXEL[scene.sensor]
    return total / 1e9
