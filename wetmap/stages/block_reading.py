"""What every sensor's part of a block shares: the task, the passes of a layer, and reading them onto the block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wetmap import recipe
from wetmap.cube import Band
from wetmap.errors import SourceError
from wetmap.geo import Grid
from wetmap.sources import Archive, Scene

#: Times that a scene is read before it is given up.
TRIES = 2

Values = dict[str, NDArray[np.float32]]
Value = TypeVar("Value", bound=np.generic)
#: The scenes of one overflight: an archive cuts a pass into tiles that abut or overlap.
Pass = tuple[Scene, ...]


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


@dataclass
class BlockReader:
    """Reads the scenes of one block, and keeps what could not be read."""

    task: FetchTask
    """What is wanted."""
    window: Grid
    """The block's pixels."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """Scenes that could not be read, as rows for the manifest: scene, sensor, reason."""
    _failed: set[tuple[str, str]] = field(default_factory=set)

    def bands(self, layer: str) -> list[Band]:
        """The bands that are wanted of a layer, in order."""
        return [band for band in self.task.bands if band.layer == layer]

    def passes(self, layer: str) -> list[Pass]:
        """The layer's scenes, those of one pass together."""
        passes: dict[tuple[object, ...], list[Scene]] = {}
        for scene in self.task.scenes:
            if serves(scene, layer):
                passes.setdefault(_pass_key(scene), []).append(scene)
        return [tuple(scenes) for scenes in passes.values()]

    def read(self, scenes: Pass, names: Sequence[str], margin: int) -> Values:
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


def serves(scene: Scene, layer: str) -> bool:
    """Whether a scene belongs to a layer: ``terrain``, ``<season>.optical``, ``<season>.radar_<orbit state>``."""
    if layer == "terrain":
        return scene.sensor == "terrain"
    season, _, kind = layer.partition(".")
    if season not in scene.seasons:
        return False
    sensor, _, state = kind.partition("_")
    return scene.sensor == sensor and state in ("", "any", scene.orbit_state)


def feature(band: Band) -> str:
    """``VV_ascending`` of ``summer.VV_ascending``."""
    return band.name.partition(".")[2]


def cropped(values: NDArray[Value], margin: int) -> NDArray[Value]:
    """Without its margin, (y, x)."""
    return values[margin : values.shape[0] - margin, margin : values.shape[1] - margin]


def _pass_key(scene: Scene) -> tuple[object, ...]:
    """Scenes with the same key were seen in one overflight."""
    if not scene.datetime:
        return (scene.id,)
    return scene.platform, scene.orbit_state, scene.relative_orbit, scene.datetime[:10]
