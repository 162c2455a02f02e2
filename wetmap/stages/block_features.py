"""Scenes to features, for one block: read, harmonise, mask, composite; filter, average, decibels; terrain.

Every step that looks at neighbours is given a margin, so that a pixel's features do not depend on the blocking.
Memory holds one radar scene at a time, and for the optical median the looks of one band.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wetmap import recipe
from wetmap.cube import Band, layers_of
from wetmap.errors import SourceError
from wetmap.geo import Block, Grid
from wetmap.imagery.composite import median_composite
from wetmap.imagery.indices import index_bands, spectral_index
from wetmap.imagery.masks import clear_mask, dilate_px
from wetmap.imagery.radar import boxcar, erode_footprint, footprint_reach_px, lee, to_db
from wetmap.imagery.terrain import slope_degrees, tpi
from wetmap.sources import EXTENT, Archive, Scene
from wetmap.sources.reader import RasterBand, read_onto
from wetmap.stages.terrain_plan import TWI_BAND, plan_terrain

__all__ = ["BlockResult", "FetchTask", "block_features", "plan_terrain", "unserved_layers"]

#: Radius of the disc of topographic position, metres: hillslope scale (Weiss 2001 used 300 m and 2000 m).
TPI_RADIUS_M = 300.0
#: Times that a scene is read before it is given up.
TRIES = 2

Values = dict[str, NDArray[np.float32]]
Value = TypeVar("Value", bound=np.generic)
_Pass = tuple[Scene, ...]
_NOTHING = np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class FetchTask:
    """What a worker needs to make any block: small, and it pickles."""

    grid: Grid
    """The map's grid."""
    bands: tuple[Band, ...]
    """Bands wanted, in order."""
    seasons: tuple[str, ...]
    """Names of the seasons, in order."""
    scenes: tuple[Scene, ...]
    """Every scene of the plan."""
    archives: Mapping[str, Archive]
    """The archive of each sensor."""
    optical: recipe.Optical
    """How optical scenes are cleaned."""
    radar: recipe.Radar
    """How radar scenes are cleaned."""
    accumulation: Path | None = None
    """What ``plan_terrain`` wrote, where wetness is wanted."""


@dataclass(frozen=True)
class BlockResult:
    """The features of one block."""

    features: NDArray[np.float32]
    """(band, y, x), NaN where the band's layer was not observed."""
    observed: NDArray[np.bool_]
    """(layer, y, x)."""
    clear_count: NDArray[np.uint16]
    """Clear optical looks, (season, y, x)."""
    failures: tuple[dict[str, str], ...] = ()
    """Scenes that could not be read, as rows for the manifest: scene, sensor, reason."""


def unserved_layers(bands: Sequence[Band], scenes: Sequence[Scene]) -> tuple[str, ...]:
    """Layers that no scene can fill, whatever the block, in order."""
    return tuple(layer for layer in layers_of(bands) if not any(_serves(scene, layer) for scene in scenes))


def block_features(task: FetchTask, block: Block) -> BlockResult:
    """Make the features of one block.

    Args:
        task: What is wanted, from which scenes.
        block: A block of the task's grid.

    Returns:
        Features, where they were observed, and the scenes that failed. A scene that cannot be read twice is left out,
        with a row in ``failures``.
    """
    work = _Work(task, task.grid.window(block.y0, block.x0, block.height, block.width))
    values: Values = {}
    clear = np.zeros((len(task.seasons), block.height, block.width), dtype=np.uint16)
    for number, season in enumerate(task.seasons):
        found, clear[number] = work.optical(season)
        values |= found
        values |= work.radar(season)
    values |= work.terrain()
    nothing = np.full((block.height, block.width), np.nan, dtype=np.float32)
    features = np.stack([values.get(band.name, nothing) for band in task.bands])
    observed = _mark_observed(task.bands, features)
    return BlockResult(features, observed, clear, tuple(work.failures))


def _mark_observed(bands: Sequence[Band], features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """A layer is observed where all its bands are; elsewhere its bands are made NaN together, in place."""
    layers = layers_of(bands)
    observed = np.empty((len(layers), *features.shape[1:]), dtype=np.bool_)
    for number, layer in enumerate(layers):
        members = [index for index, band in enumerate(bands) if band.layer == layer]
        observed[number] = np.isfinite(features[members]).all(axis=0)
        for index in members:
            features[index][~observed[number]] = np.nan
    return observed


def _serves(scene: Scene, layer: str) -> bool:
    """Whether a scene belongs to a layer: ``terrain``, ``<season>.optical``, ``<season>.radar_<orbit state>``."""
    if layer == "terrain":
        return scene.sensor == "terrain"
    season, _, kind = layer.partition(".")
    if season not in scene.seasons:
        return False
    sensor, _, state = kind.partition("_")
    return scene.sensor == sensor and state in ("", "any", scene.orbit_state)


@dataclass
class _Work:
    """One block being made."""

    task: FetchTask
    window: Grid
    failures: list[dict[str, str]] = field(default_factory=list)
    _failed: set[tuple[str, str]] = field(default_factory=set)

    def optical(self, season: str) -> tuple[Values, NDArray[np.uint16]]:
        """Composites and indices of one season, and the clear looks behind them."""
        layer = f"{season}.optical"
        wanted = [band for band in self.task.bands if band.layer == layer]
        names = [_feature(band) for band in wanted if band.kind == "reflectance"]
        indices = [_feature(band) for band in wanted if band.kind == "index"]
        needed = list(dict.fromkeys([*names, *(name for index in indices for name in index_bands(index))]))
        while True:
            failed = len(self.failures)
            composites, count = self._composites(self._clear(layer) if wanted else [], needed)
            if len(self.failures) == failed:
                break  # Else a scene failed half way, and again without it: no band may keep it.
        values = {f"{season}.{name}": composites[name] for name in names}
        values |= {f"{season}.{index}": spectral_index(index, composites) for index in indices}
        return values, count

    def _clear(self, layer: str) -> list[tuple[_Pass, NDArray[np.bool_] | None]]:
        """The layer's passes that show any ground of the block, and where; None where there is no classification."""
        margin = dilate_px(self.task.optical.dilate_m, self.task.grid.res_m)
        found: list[tuple[_Pass, NDArray[np.bool_] | None]] = []
        for scenes in self._passes(layer):
            if any("SCL" not in scene.bands for scene in scenes):
                found.append((scenes, None))
                continue
            scl = self._read(scenes, ["SCL"], margin).get("SCL")
            if scl is None or np.isnan(scl).all():
                continue
            mask = clear_mask(scl, res_m=self.task.grid.res_m, dilate_m=self.task.optical.dilate_m)
            mask = _cropped(mask, margin)
            if mask.any():
                found.append((scenes, mask))
        return found

    def _composites(
        self, clear: Sequence[tuple[_Pass, NDArray[np.bool_] | None]], names: Sequence[str]
    ) -> tuple[Values, NDArray[np.uint16]]:
        """Median of each band, and the least number of looks behind any of them."""
        composites: Values = {}
        least: NDArray[np.uint16] | None = None
        for name in names:
            stack = np.full((len(clear), *self.window.shape), np.nan, dtype=np.float32)
            for number, (scenes, mask) in enumerate(clear):
                values = self._read(scenes, [name], 0).get(name)
                if values is not None:
                    stack[number] = values if mask is None else np.where(mask, values, np.nan)
            composites[name], count = median_composite(stack)
            least = count if least is None else np.minimum(least, count)
        return composites, np.zeros(self.window.shape, dtype=np.uint16) if least is None else least

    def radar(self, season: str) -> Values:
        """Mean backscatter of one season for each orbit state wanted, dB."""
        values: Values = {}
        prefix = f"{season}.radar_"
        for layer in layers_of(self.task.bands):
            if layer.startswith(prefix):
                state = layer.removeprefix(prefix)
                names = [_feature(band).removesuffix(f"_{state}") for band in self.task.bands if band.layer == layer]
                for name, mean in self._mean_power(layer, names).items():
                    values[f"{season}.{name}_{state}"] = to_db(mean).astype(np.float32)
        return values

    def _mean_power(self, layer: str, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Mean over the passes of the filtered linear power; NaN where no pass saw the pixel."""
        settings, res_m = self.task.radar, self.task.grid.res_m
        rim = math.ceil(settings.border_m / res_m - 1e-9)
        filter_reach = 0 if settings.speckle == "none" else settings.window_px // 2
        margin = filter_reach + (footprint_reach_px(rim) if rim else 0)
        total = {name: np.zeros(self.window.shape) for name in names}
        count = {name: np.zeros(self.window.shape) for name in names}
        for scenes in self._passes(layer):
            bands = self._read(scenes, [*names, EXTENT], margin)
            inside = np.isfinite(bands.pop(EXTENT, _NOTHING))
            if not bands:
                continue
            valid = np.logical_and.reduce([np.isfinite(power) for power in bands.values()])
            if not valid.any():
                continue
            kept = erode_footprint(valid, inside, rim)
            for name, power in bands.items():
                smooth = _cropped(_despeckle(np.where(kept, power, np.nan).astype(np.float64), settings), margin)
                seen = np.isfinite(smooth)
                total[name] += np.where(seen, smooth, 0.0)
                count[name] += seen
        with np.errstate(invalid="ignore", divide="ignore"):
            return {name: np.where(count[name] > 0, total[name] / count[name], np.nan) for name in names}

    def terrain(self) -> Values:
        """Elevation, slope, topographic position and wetness, where they are wanted."""
        wanted = [_feature(band) for band in self.task.bands if band.layer == "terrain"]
        if not wanted:
            return {}
        res_m = self.task.grid.res_m
        radius = max(1, round(TPI_RADIUS_M / res_m))
        margin = radius if "tpi" in wanted else 1
        elevation = self._elevation(margin)
        values: Values = {}
        if "elevation" in wanted:
            values["terrain.elevation"] = _cropped(elevation, margin).astype(np.float32)
        if "slope" in wanted:
            values["terrain.slope"] = _cropped(slope_degrees(elevation, res_m), margin).astype(np.float32)
        if "tpi" in wanted:
            values["terrain.tpi"] = _cropped(tpi(elevation, radius), margin).astype(np.float32)
        if "twi" in wanted and self.task.accumulation is not None:
            values["terrain.twi"] = read_onto(RasterBand(str(self.task.accumulation), band=TWI_BAND), self.window)
        return values

    def _elevation(self, margin: int) -> NDArray[np.float64]:
        tiles = tuple(scene for scene in self.task.scenes if _serves(scene, "terrain"))
        elevation = self._read(tiles, ["elevation"], margin).get("elevation")
        shape = (self.window.height + 2 * margin, self.window.width + 2 * margin)
        return np.full(shape, np.nan) if elevation is None else elevation.astype(np.float64)

    def _passes(self, layer: str) -> list[_Pass]:
        """The layer's scenes, those of one pass together: an archive cuts a pass into tiles that abut or overlap."""
        passes: dict[tuple[object, ...], list[Scene]] = {}
        for scene in self.task.scenes:
            if _serves(scene, layer):
                passes.setdefault(_pass_key(scene), []).append(scene)
        return [tuple(scenes) for scenes in passes.values()]

    def _read(self, scenes: _Pass, names: Sequence[str], margin: int) -> Values:
        """Read the scenes of a pass onto the block and a margin; where they overlap the last in the list counts.

        (That is the latest processing, where an archive holds a Sentinel-2 scene twice.) Bands that
        nobody holds are left out.
        """
        wide = self.window.window(-margin, -margin, self.window.height + 2 * margin, self.window.width + 2 * margin)
        values: Values = {}
        for scene in reversed(scenes):
            for name, band in self._read_scene(scene, names, wide).items():
                before = values.get(name)
                values[name] = band if before is None else np.where(np.isnan(before), band, before)
        return values

    def _read_scene(self, scene: Scene, names: Sequence[str], window: Grid) -> Values:
        """Read one scene; nothing when that fails twice, now or before."""
        if (scene.sensor, scene.id) in self._failed:
            return {}
        for remaining in reversed(range(TRIES)):
            try:
                return self.task.archives[scene.sensor].read(scene, names, window)
            except SourceError as error:
                if remaining == 0:
                    self._give_up(scene, error)
        return {}

    def _give_up(self, scene: Scene, error: SourceError) -> None:
        self._failed.add((scene.sensor, scene.id))
        self.failures.append({"scene": scene.id, "sensor": scene.sensor, "reason": error.what})


def _pass_key(scene: Scene) -> tuple[object, ...]:
    """Scenes with the same key were seen in one overflight."""
    if not scene.datetime:
        return (scene.id,)
    return scene.platform, scene.orbit_state, scene.relative_orbit, scene.datetime[:10]


def _feature(band: Band) -> str:
    """``VV_ascending`` of ``summer.VV_ascending``."""
    return band.name.partition(".")[2]


def _cropped(values: NDArray[Value], margin: int) -> NDArray[Value]:
    """Without its margin, (y, x)."""
    return values[margin : values.shape[0] - margin, margin : values.shape[1] - margin]


def _despeckle(power: NDArray[np.float64], settings: recipe.Radar) -> NDArray[np.float64]:
    if settings.speckle == "boxcar":
        return boxcar(power, settings.window_px)
    if settings.speckle == "lee":
        return lee(power, settings.window_px, settings.looks)
    return power
