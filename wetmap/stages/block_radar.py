"""The radar part of a block: read, take the rim off, filter and average in linear power, then decibels.

Memory holds one pass and the sums of one track and of all tracks, whatever the number of passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wetmap import recipe
from wetmap.cube import layers_of
from wetmap.errors import RecipeError
from wetmap.imagery.radar import erode_footprint, footprint_reach_px, to_db
from wetmap.imagery.speckle import boxcar, gamma_map, lee, ratio_to_mean
from wetmap.imagery.speckle_edges import REFINED_PX, lee_sigma, refined_lee
from wetmap.sources import EXTENT
from wetmap.stages.block_reading import BlockReader, Pass, Values, cropped, feature

Floats = NDArray[np.float64]
_NOTHING = np.empty((0, 0), dtype=np.float32)


def radar_features(reader: BlockReader, season: str) -> Values:
    """What the passes of one season say for each orbit state wanted, by name (y, x).

    Mean backscatter in dB (``VV_ascending``), its standard deviation from pass to pass in dB (``VV_std_ascending``),
    the ratio of the mean powers (``VV_VH_ratio_ascending``).
    """
    values: Values = {}
    prefix = f"{season}.radar_"
    for layer in layers_of(reader.task.bands):
        if layer.startswith(prefix):
            end = f"_{layer.removeprefix(prefix)}"
            stems = {band.name: feature(band).removesuffix(end) for band in reader.bands(layer)}
            wanted = _Wanted(
                spread=any(stem.endswith("_std") for stem in stems.values()),
                detail=reader.task.radar.speckle == "quegan",
                weight=reader.task.radar.weight,
            )
            sums = _sum_passes(reader, layer, _polarisations(stems.values()), wanted)
            values |= {name: _statistic(stem, sums, wanted).astype(np.float32) for name, stem in stems.items()}
    return values


def radar_reach_px(settings: recipe.Radar, res_m: float) -> int:
    """How far from a pixel its radar features look, pixels."""
    rim = _rim_px(settings, res_m)
    half = settings.window_px // 2
    reach = {"none": 0, "refined-lee": REFINED_PX // 2, "lee-sigma": half + 2}.get(settings.speckle, half)
    return reach + (footprint_reach_px(rim) if rim else 0)


def _rim_px(settings: recipe.Radar, res_m: float) -> int:
    return math.ceil(settings.border_m / res_m - 1e-9)


@dataclass(frozen=True)
class _Wanted:
    """Which sums are kept."""

    spread: bool
    """Whether a standard deviation is wanted."""
    detail: bool
    """Whether Quegan's filter shares the detail of all passes."""
    weight: str
    """``passes`` or ``tracks``."""


@dataclass
class _Sums:
    """What is summed over passes for one polarisation, (y, x) each; those not wanted stay untouched zeros."""

    passes: Floats
    """Passes that saw the pixel."""
    power: Floats
    """Sum of the filtered linear power, by weight."""
    weight: Floats
    """Sum of the weights."""
    detail: Floats
    """Sum of the pixel over its local mean."""
    level: Floats
    """Sum of the dB values; of a track only."""
    square: Floats
    """Of a track: sum of the dB values squared; of all tracks: of squared deviations from each track's mean."""

    @classmethod
    def zeros(cls, shape: tuple[int, int]) -> _Sums:
        return cls(*(np.zeros(shape) for _ in range(6)))

    def add_pass(self, power: Floats, detail: Floats | None, wanted: _Wanted) -> None:
        seen = np.isfinite(power)
        self.passes += seen
        self.power += np.where(seen, power, 0.0)
        if detail is not None:
            self.detail += np.where(seen, detail, 0.0)
        if wanted.spread:
            level = np.where(seen, to_db(power), 0.0)
            self.level += level
            self.square += level * level

    def add_track(self, track: _Sums, wanted: _Wanted) -> None:
        """Add the sums of one track.

        Deviations count from the track's own mean: tracks see a place at different angles, which is no change of it.
        """
        seen = track.passes > 0
        self.passes += track.passes
        with np.errstate(invalid="ignore", divide="ignore"):
            if wanted.weight == "tracks":
                self.power += np.where(seen, track.power / track.passes, 0.0)
                self.weight += seen
            else:
                self.power += track.power
                self.weight += track.passes
            if wanted.spread:
                deviation = track.square - track.level * track.level / track.passes
                self.square += np.where(seen, np.maximum(deviation, 0.0), 0.0)
        if wanted.detail:
            self.detail += track.detail

    def mean(self, wanted: _Wanted) -> Floats:
        """Mean linear power; NaN where no pass saw the pixel."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(self.passes > 0, self.power / self.weight, np.nan)
            return mean * (self.detail / self.passes) if wanted.detail else mean

    def deviation(self) -> Floats:
        """Standard deviation over the passes, dB, N in the denominator; NaN where no pass saw the pixel."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.passes > 0, np.sqrt(self.square / self.passes), np.nan)


def _sum_passes(reader: BlockReader, layer: str, names: Sequence[str], wanted: _Wanted) -> dict[str, _Sums]:
    """Sums over the layer's passes, track after track, of each polarisation.

    Quegan's filter needs all passes at once and is yet made in one go: filtered passes are ``m_k D`` with the same
    ``D = (1 / N) sum_i I_i / m_i`` for all. So their mean is D times the mean of the local means m_k, and in dB D moves
    them all alike and leaves their deviation.
    """
    total = {name: _Sums.zeros(reader.window.shape) for name in names}
    tracks: dict[int | None, list[Pass]] = {}
    for scenes in reader.passes(layer):
        tracks.setdefault(scenes[0].relative_orbit, []).append(scenes)
    for passes in tracks.values():
        track = {name: _Sums.zeros(reader.window.shape) for name in names}
        for scenes in passes:
            for name, (power, detail) in _filtered(reader, scenes, names).items():
                track[name].add_pass(power, detail, wanted)
        for name in names:
            total[name].add_track(track[name], wanted)
    return total


def _filtered(reader: BlockReader, scenes: Pass, names: Sequence[str]) -> dict[str, tuple[Floats, Floats | None]]:
    """One pass without its rim and with its speckle filtered, by polarisation; nothing where it saw nothing."""
    settings = reader.task.radar
    margin = radar_reach_px(settings, reader.window.res_m)
    bands = reader.read(scenes, [*names, EXTENT], margin)
    inside = np.isfinite(bands.pop(EXTENT, _NOTHING))
    if not bands:
        return {}
    with np.errstate(invalid="ignore"):
        valid = np.logical_and.reduce([np.isfinite(power) & (power > 0) for power in bands.values()])
    if not valid.any():
        return {}
    kept = erode_footprint(valid, inside, _rim_px(settings, reader.window.res_m))
    out: dict[str, tuple[Floats, Floats | None]] = {}
    for name, band in bands.items():
        power = np.where(kept, band, np.nan).astype(np.float64)
        smooth, detail = _despeckled(power, settings, reader.task.strong_power.get(name, math.inf))
        out[name] = cropped(smooth, margin), None if detail is None else cropped(detail, margin)
    return out


def _despeckled(power: Floats, settings: recipe.Radar, strong: float) -> tuple[Floats, Floats | None]:
    """Filtered power; for Quegan's filter the local mean, and the pixel's ratio to it."""
    kind, side, looks = settings.speckle, settings.window_px, _looks(settings)
    if kind == "none":
        return power, None
    if kind == "quegan":
        return ratio_to_mean(power, side)
    filters: dict[str, Callable[[Floats], Floats]] = {
        "boxcar": partial(boxcar, window_px=side),
        "lee": partial(lee, window_px=side, looks=looks),
        "refined-lee": partial(refined_lee, looks=looks),
        "gamma-map": partial(gamma_map, window_px=side, looks=looks),
        "lee-sigma": partial(lee_sigma, window_px=side, looks=looks, strong=strong),
    }
    return filters[kind](power), None


def _looks(settings: recipe.Radar) -> float:
    if isinstance(settings.looks, str):
        raise RecipeError(
            "radar.looks is `estimate`, and the plan holds no estimate.", do="Give a number, or run wetmap fetch again."
        )
    return settings.looks


def _polarisations(stems: Iterable[str]) -> list[str]:
    """The polarisations that features are made of: VV of VV and VV_std, VV and VH of VV_VH_ratio."""
    return list(dict.fromkeys(part for stem in stems for part in stem.split("_") if part not in ("std", "ratio")))


def _statistic(stem: str, sums: Mapping[str, _Sums], wanted: _Wanted) -> Floats:
    """One feature, (y, x): dB, or dimensionless for a ratio."""
    names = _polarisations([stem])
    if stem.endswith("_ratio"):
        return sums[names[0]].mean(wanted) / sums[names[1]].mean(wanted)
    if stem.endswith("_std"):
        return sums[names[0]].deviation()
    return to_db(sums[names[0]].mean(wanted))
