"""What every sensor's part of a block shares: the task, the passes of a layer, and reading them onto the block."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wetmap import recipe
from wetmap.cube import Band
from wetmap.errors import SourceError, UnusableFileError
from wetmap.geo import Grid
from wetmap.sources import Archive, Scene
from wetmap.sources.secrets import without_secrets
from wetmap.stages.terrain_plan import TerrainPlan

#: Pixels around a block that its features may need, metres: scenes that lie farther are not looked at.
REACH_M = 10_000.0

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
    """The scenes to read: those of the plan, or such as come near the block."""
    archives: Mapping[str, Archive]
    """The archive of each sensor."""
    optical: recipe.Optical
    """How optical scenes are cleaned."""
    radar: recipe.Radar
    """How radar scenes are cleaned."""
    accumulation: Path | None = None
    """What ``plan_terrain`` wrote, where wetness or height above drainage is wanted."""
    terrain: TerrainPlan | None = None
    """What was settled about terrain; None for slopes between the map's own pixels."""
    days: Mapping[str, tuple[dt.date, dt.date]] = field(default_factory=dict)
    """First and last day of each season, for composites that weigh days."""
    strong_power: Mapping[str, float] = field(default_factory=dict)
    """Power above which a radar pixel may be a strong target, linear, by polarisation: see ``lee_sigma``."""
    run: str = ""
    """Name of the run, within which files that are lost for good are not asked for again; empty: they are."""
    masks: Path | None = None
    """Folder in which masks that networks make are kept from block to block; None: they are made for each block."""


@dataclass
class BlockReader:
    """Reads the scenes of one block, and keeps what could not be read."""

    task: FetchTask
    """What is wanted."""
    window: Grid
    """The block's pixels."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """Scenes that could not be read, as rows for the manifest: scene, sensor, bands, reason."""
    _failed: set[tuple[str, str]] = field(default_factory=set)

    def bands(self, layer: str) -> list[Band]:
        """The bands that are wanted of a layer, in order."""
        return [band for band in self.task.bands if band.layer == layer]

    def passes(self, layer: str) -> list[Pass]:
        """The layer's scenes, those of one pass together."""
        return passes_of([scene for scene in self.task.scenes if serves(scene, layer)])

    def read(self, scenes: Pass, names: Sequence[str], margin: int) -> Values:
        """Read the scenes of a pass onto the block and a margin; where they overlap the last in the list counts.

        (That is the latest processing, where an archive holds a Sentinel-2 scene twice.) Bands that
        nobody holds are left out.
        """
        if margin * self.window.res_m > REACH_M:
            raise ValueError(f"a margin of {margin} pixels reaches farther than {REACH_M:g} m")
        wide = self.window.window(-margin, -margin, self.window.height + 2 * margin, self.window.width + 2 * margin)
        values: Values = {}
        for scene in reversed(scenes):
            for name, band in self._read_scene(scene, names, wide).items():
                before = values.get(name)
                values[name] = band if before is None else np.where(np.isnan(before), band, before)
        return values

    def read_scene(self, scene: Scene, names: Sequence[str], window: Grid) -> Values:
        """One scene on any window of the block's CRS; nothing where it cannot be read, which is kept in mind."""
        return self._read_scene(scene, names, window)

    def _read_scene(self, scene: Scene, names: Sequence[str], window: Grid) -> Values:
        """Read one scene; nothing where that failed before: of the block, or for good in this run."""
        key = (scene.sensor, scene.id)
        if key in self._failed:
            return {}
        lost = _lost(self.task.run)
        if key in lost:
            self._give_up(scene, names, lost[key])
            return {}
        try:
            return self.task.archives[scene.sensor].read(scene, names, window)
        except UnusableFileError as error:
            if self.task.run:
                lost[key] = error.what
            self._give_up(scene, names, error.what)
        except SourceError as error:
            self._give_up(scene, names, error.what)
        return {}

    def _give_up(self, scene: Scene, names: Sequence[str], reason: str) -> None:
        self._failed.add((scene.sensor, scene.id))
        self.failures.append(
            {"scene": scene.id, "sensor": scene.sensor, "bands": " ".join(names), "reason": without_secrets(reason)}
        )


@functools.lru_cache(maxsize=1)
def _lost(run: str) -> dict[tuple[str, str], str]:  # noqa: ARG001 - every run has its own
    """Scenes that this process found to be lost for good in this run, and why: no block asks for them again."""
    return {}


def serves(scene: Scene, layer: str) -> bool:
    """Whether a scene belongs to a layer: ``terrain``, ``<season>.optical``, ``<season>.radar_<orbit state>``."""
    if layer in {"terrain", "lband"}:
        return scene.sensor == layer
    if layer == "embedding":
        return scene.sensor == "embeddings"
    season, _, kind = layer.partition(".")
    if season not in scene.seasons:
        return False
    sensor, _, state = kind.partition("_")
    return scene.sensor == sensor and state in ("", "any", scene.orbit_state)


def passes_of(scenes: Sequence[Scene]) -> list[Pass]:
    """Scenes by the overflight that they were seen in, each where its first scene is."""
    passes: dict[tuple[object, ...], list[Scene]] = {}
    for scene in scenes:
        passes.setdefault(_pass_key(scene), []).append(scene)
    return [tuple(members) for members in passes.values()]


def pass_name(scenes: Pass) -> str:
    """Short name of a pass: the same for all blocks, whichever of its scenes are near them."""
    return hashlib.sha256(repr(_pass_key(scenes[0])).encode()).hexdigest()[:16]


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
