"""What radar needs settled for the whole area: the tracks to use, and what filters must know of the speckle.

The number of looks and the power of strong targets are measured once, on samples that depend on the plan alone. Were
they measured in each block, a pixel would depend on its block.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap import recipe
from wetmap.errors import SceneSkippedWarning, SourceError
from wetmap.geo import Grid
from wetmap.imagery.looks import equivalent_looks
from wetmap.imagery.speckle_edges import STRONG_PERCENTILE
from wetmap.recipe import Sensor
from wetmap.sources import Archive, Scene, Skipped
from wetmap.stages.block_reading import passes_of

#: Scenes that are sampled at most, spread evenly over the list, and samples per side of the area.
SAMPLE_SCENES, SAMPLES_PER_SIDE = 8, 3
#: Side of a sample, pixels.
SAMPLE_PX = 128


@dataclass(frozen=True)
class RadarSamples:
    """What was measured on samples of the radar scenes."""

    looks: float | None
    """Equivalent number of looks, the median over scenes and polarisations; None where none was wanted."""
    strong_power: dict[str, float] = field(default_factory=dict)
    """Power above which a pixel may be a strong target, linear, by polarisation; empty where none was wanted."""
    scenes: tuple[dict[str, Any], ...] = ()
    """What each sampled scene gave, as rows: scene, looks by polarisation, or why it could not be read."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back unchanged."""
        return {"looks": self.looks, "strong_power": self.strong_power, "scenes": list(self.scenes)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RadarSamples:
        """Rebuild what ``to_json`` gave."""
        return cls(looks=data["looks"], strong_power=data["strong_power"], scenes=tuple(data["scenes"]))

    def lost(self) -> list[dict[str, str]]:
        """Scenes that could not be sampled, as rows for the manifest: block, scene, sensor, bands, reason."""
        return [
            {"block": "samples", "scene": row["scene"], "sensor": "radar", "bands": "", "reason": row["reason"]}
            for row in self.scenes
            if "reason" in row
        ]

    def settle(self, settings: recipe.Radar) -> recipe.Radar:
        """The recipe's settings with the estimated number of looks in place of the word."""
        return settings if self.looks is None else settings.model_copy(update={"looks": self.looks})

    def describe(self) -> str:
        """In one line."""
        parts = []
        if self.looks is not None:
            found = [value for row in self.scenes for value in row.get("looks", {}).values()]
            parts.append(f"{self.looks:g} looks ({min(found):g} to {max(found):g} over {len(found)} samples)")
        if self.strong_power:
            levels = (f"{name} {10 * np.log10(power):.1f} dB" for name, power in self.strong_power.items())
            parts.append(f"strong targets above {', '.join(levels)}")
        return f"radar: {'; '.join(parts)}"


def samples_wanted(settings: recipe.Radar, names: Sequence[str]) -> dict[str, Any]:
    """What has to be measured, for the key of the stage; empty where nothing has."""
    wanted: dict[str, Any] = {}
    if settings.looks == "estimate":
        wanted["looks"] = True
    if settings.speckle == "lee-sigma":
        wanted["strong"] = True
    return {**wanted, "bands": list(names)} if wanted else {}


def keep_tracks(sensor: Sensor, scenes: Sequence[Scene], settings: recipe.Radar) -> tuple[list[Scene], list[Skipped]]:
    """Leave out the radar scenes whose relative orbit the recipe does not name.

    Args:
        sensor: The sensor that the scenes are of; others than radar are kept as they are.
        scenes: What was found.
        settings: The recipe's radar part; an empty list of relative orbits keeps all.

    Raises:
        SourceError: None of the tracks that were found is named.
    """
    tracks = settings.relative_orbits
    if sensor != "radar" or not tracks:
        return list(scenes), []
    kept = [scene for scene in scenes if scene.relative_orbit in tracks]
    if not kept:
        found = sorted({scene.relative_orbit for scene in scenes if scene.relative_orbit is not None})
        raise SourceError(
            f"No radar scene is of relative orbit {', '.join(map(str, tracks))} (radar.relative_orbits); the "
            f"{len(scenes)} found are of {', '.join(map(str, found)) or 'none that the archive names'}.",
            do="Name tracks that see the area, or leave radar.relative_orbits out.",
        )
    left_out = [
        Skipped(scene.id, sensor, f"relative orbit {scene.relative_orbit} is not in radar.relative_orbits")
        for scene in scenes
        if scene.relative_orbit not in tracks
    ]
    return kept, left_out


def tracks_of(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    """Rows for the manifest: season, orbit state, relative orbit, platform; with the numbers of passes and scenes."""
    groups: dict[tuple[str, str, int, str], list[Scene]] = {}
    for scene in scenes:
        if scene.sensor == "radar":
            for season in scene.seasons:
                key = (season, scene.orbit_state, scene.relative_orbit or 0, scene.platform)
                groups.setdefault(key, []).append(scene)
    return [
        {
            "season": season,
            "orbit_state": state,
            "relative_orbit": track or None,
            "platform": platform,
            "passes": len(passes_of(members)),
            "scenes": len(members),
        }
        for (season, state, track, platform), members in sorted(groups.items())
    ]


def measure(archive: Archive, scenes: Sequence[Scene], grid: Grid, wanted: dict[str, Any]) -> RadarSamples | None:
    """Measure on samples what ``samples_wanted`` names.

    Args:
        archive: The archive of radar.
        scenes: Its scenes in the plan's order.
        grid: The map's grid; samples are squares of ``SAMPLE_PX`` spread evenly over it.
        wanted: What ``samples_wanted`` gave.

    Returns:
        What was found; None where nothing was wanted.

    Raises:
        SourceError: No sampled scene could be read, or none is even enough to say.
    """
    if not wanted:
        return None
    rows: list[dict[str, Any]] = []
    power: dict[str, list[NDArray[np.float64]]] = {name: [] for name in wanted["bands"]}
    for scene in _spread(scenes):
        try:
            pieces = _pieces(archive, scene, grid, wanted["bands"])
        except SourceError as error:
            warnings.warn(f"{scene.id} was not sampled: {error.what}", SceneSkippedWarning, stacklevel=2)
            rows.append({"scene": scene.id, "reason": error.what})
            continue
        looks = {}
        for name, cut in pieces.items():
            power[name] += [piece[np.isfinite(piece)] for piece in cut]
            found = equivalent_looks(cut)
            if found is not None:
                looks[name] = round(found, 2)
        rows.append({"scene": scene.id, "looks": looks})
    return RadarSamples(
        looks=_median_looks(rows) if "looks" in wanted else None,
        strong_power=_strong(power) if "strong" in wanted else {},
        scenes=tuple(rows),
    )


def _spread(scenes: Sequence[Scene]) -> list[Scene]:
    """At most ``SAMPLE_SCENES`` scenes, evenly from first to last."""
    if len(scenes) <= SAMPLE_SCENES:
        return list(scenes)
    step = (len(scenes) - 1) / (SAMPLE_SCENES - 1)
    return [scenes[round(number * step)] for number in range(SAMPLE_SCENES)]


def _pieces(archive: Archive, scene: Scene, grid: Grid, names: Sequence[str]) -> dict[str, list[NDArray[np.float64]]]:
    """The samples of one scene by polarisation, linear power, NaN where not observed or not above 0."""
    pieces: dict[str, list[NDArray[np.float64]]] = {}
    for y0 in _starts(grid.height):
        for x0 in _starts(grid.width):
            window = grid.window(y0, x0, min(SAMPLE_PX, grid.height), min(SAMPLE_PX, grid.width))
            for name, band in archive.read(scene, names, window).items():
                power = band.astype(np.float64)
                with np.errstate(invalid="ignore"):
                    power[~(power > 0)] = np.nan
                pieces.setdefault(name, []).append(power)
    return pieces


def _starts(size: int) -> list[int]:
    """First pixels of the samples along one side: evenly from end to end, fewer where they would overlap."""
    count = max(1, min(SAMPLES_PER_SIDE, size // SAMPLE_PX))
    last = max(size - SAMPLE_PX, 0)
    return [last // 2] if count == 1 else [round(number * last / (count - 1)) for number in range(count)]


def _median_looks(rows: Sequence[dict[str, Any]]) -> float:
    found = [value for row in rows for value in row.get("looks", {}).values()]
    if not found:
        raise SourceError(
            f"The number of looks cannot be estimated: none of {len(rows)} sampled radar scenes has enough pixels in "
            "the area.",
            do="Give radar.looks as a number: 4.4 for Sentinel-1 IW ground-range products.",
        )
    return round(float(statistics.median(found)), 2)


def _strong(power: dict[str, list[NDArray[np.float64]]]) -> dict[str, float]:
    """The percentile of the samples above which a pixel may be a strong target, by polarisation."""
    values = {name: np.concatenate(cut) for name, cut in power.items() if cut}
    found = {name: float(np.percentile(cut, STRONG_PERCENTILE)) for name, cut in values.items() if len(cut)}
    if not found:
        raise SourceError(
            "No sampled radar scene sees the area, and the lee-sigma filter must know what is bright there.",
            do="Check the radar source, or use another filter (radar.speckle: refined-lee).",
        )
    return found
