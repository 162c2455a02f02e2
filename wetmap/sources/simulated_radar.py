"""Sentinel-1-like scenes of the simulated landscape: gamma-0 by cover, season and water, speckle, border noise.

The backscatter is chosen by hand in the range of published C-band values, so that flooded trees and shrubs are bright
in VV (double bounce) and water is dark unless the wind blows. It is not a measurement.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wetmap.geo.grid import Grid
from wetmap.sources.noise import generator
from wetmap.sources.simulated_ground import Float32, Ground, weighted
from wetmap.sources.simulated_optical import greenness, high_water

#: Stored value of what was not observed.
NODATA = -32768.0
#: Polarisations in the order of the tables below.
POLARISATIONS = ("VV", "VH")
#: Gamma-0 of each cover in summer without standing water, (cover, polarisation), dB.
DRY_DB = np.array([
    [-20.0, -27.5], [-16.0, -23.0], [-10.2, -16.8], [-9.3, -14.9], [-10.6, -17.3],
    [-10.4, -16.9], [-7.9, -13.2], [-11.2, -18.4], [-8.0, -13.3], [-11.3, -17.8],
])  # fmt: skip
#: Added where water stands under the plants, dB: double bounce between water and stems.
FLOOD_DB = np.array([
    [0.0, 0.0], [0.0, 0.0], [2.0, -0.3], [2.6, 0.7], [0.8, 0.0],
    [1.2, 0.0], [3.0, 0.6], [-2.0, -2.0], [0.0, 0.0], [0.0, 0.0],
])  # fmt: skip
#: Added in full leaf, dB, relative to bare stems.
LEAF_DB = np.array([
    [0.0, 0.0], [1.5, 2.0], [-0.4, 1.2], [-0.3, 1.0], [0.2, 0.6],
    [0.0, 1.0], [-0.5, 0.5], [-0.3, 1.0], [-0.5, 0.5], [0.3, 1.6],
])  # fmt: skip
#: Spread of backscatter within each cover, dB.
SPREAD_DB = (0.6, 1.0, 1.0, 0.9, 0.8, 0.9, 0.8, 1.0, 0.8, 1.1)
#: Open water in a strong wind is brighter by this, dB.
WIND_DB = (7.0, 3.5)
#: Difference across the extent, from near to far range, dB: gamma-0 falls a little with the angle of incidence.
RANGE_DB = 0.5
#: Thermal noise, linear power (Sentinel-1 IW: -22 dB at most by specification, several dB better in fact).
NOISE_FLOOR = 10 ** (-29.0 / 10)
#: Width of the rim of border noise inside the footprint, pixels, and its largest value, linear power.
RIM_PX = 6
RIM_VALUE = 1e-5
#: Where the slanted edge of the footprint meets the extent's top and bottom, metres from its side.
EDGE_M = (120.0, 420.0)
#: The same on every third pass, when the footprint reaches less far and its edge crosses the area.
SHORT_EDGE_M = (250.0, 1100.0)


@dataclass(frozen=True)
class RadarPass:
    """One overpass of the radar satellite."""

    when: dt.datetime
    """Time of the picture, UTC."""
    orbit_state: Literal["ascending", "descending"]
    """Direction of flight."""
    relative_orbit: int
    """Track."""
    short: bool
    """Whether the footprint's edge crosses the area."""
    looks: float
    """Equivalent number of looks of the speckle."""
    key: int
    """Seed of everything that is this pass's own."""

    @property
    def day(self) -> int:
        """Day of the year."""
        return self.when.timetuple().tm_yday


def backscatter(ground: Ground, extent: Grid, when: RadarPass, *, southern: bool = False) -> Float32:
    """Gamma-0 without speckle, (polarisation, height, width), float32, linear power."""
    leaf = greenness(when.day, southern=southern)
    random = generator(when.key, "weather")
    windy, tide = random.random() < 0.3, np.float32(random.random())
    rain_db = 0.4 * random.standard_normal()
    level = np.float32(high_water(when.day, when.key, southern=southern))
    water = ground.flood * level + ground.tide * tide
    spread_db = weighted(ground.fractions, SPREAD_DB) * ground.roughness
    spread_db += _range_db(ground.grid, extent, when.orbit_state).astype(np.float32)
    texture = np.power(np.float32(10), spread_db / np.float32(10))
    power = np.empty((2, *ground.grid.shape), np.float32)
    for index in range(2):
        dry_db = DRY_DB[:, index] + (leaf - 1) * LEAF_DB[:, index] + rain_db
        dry_db[0] += WIND_DB[index] * windy * random.uniform(0.5, 1.0)
        dry, flooded = 10 ** (dry_db / 10), 10 ** ((dry_db + FLOOD_DB[:, index]) / 10)
        field = weighted(ground.fractions, dry) + water * weighted(ground.fractions, flooded - dry)
        power[index] = field * texture + np.float32(NOISE_FLOOR)
    return power


def radar_scene(ground: Ground, extent: Grid, when: RadarPass, *, southern: bool = False) -> dict[str, Float32]:
    """Render one scene.

    Args:
        ground: The ground of a tile as this orbit sees it (with the orbit's geolocation error).
        extent: The whole archive's grid, of which the tile is a part.
        when: The pass.
        southern: True south of the equator.

    Returns:
        Gamma-0 by polarisation, (height, width), float32, linear power. Speckle is gamma distributed with mean 1 and
        variance 1 / looks, independent from pixel to pixel (real speckle is correlated over a pixel or two).
        ``NODATA`` beyond the footprint; a rim of border noise just inside it.
    """
    clean = backscatter(ground, extent, when, southern=southern)
    inside = from_edge_m(ground.grid, extent, when)
    rim = (inside >= 0) & (inside < RIM_PX * ground.grid.res_m)
    random = generator(when.key, ground.grid.left, ground.grid.top, "speckle")
    bands = {}
    for index, name in enumerate(POLARISATIONS):
        looks = np.float32(when.looks)
        seen = clean[index] * (random.standard_gamma(looks, clean[index].shape, dtype=np.float32) / looks)
        border = np.maximum(random.uniform(-RIM_VALUE, RIM_VALUE, seen.shape), 0.0).astype(np.float32)
        seen = np.where(rim, border, seen)
        bands[name] = np.where(inside < 0, np.float32(NODATA), seen)
    return bands


def from_edge_m(grid: Grid, extent: Grid, when: RadarPass) -> NDArray[np.float64]:
    """Distance of pixel centres from the footprint's slanted edge along the row, metres, negative beyond it."""
    first, last = SHORT_EDGE_M if when.short else EDGE_M
    left, bottom, right, top = extent.bounds
    inset = (first + (last - first) * (top - grid.y) / (top - bottom))[:, None]
    return np.asarray(grid.x - left - inset if when.orbit_state == "ascending" else right - inset - grid.x)


def footprint(extent: Grid, when: RadarPass) -> list[tuple[float, float]]:
    """Corners of the part of the extent that a pass sees, from the top left clockwise, metres in the extent's CRS."""
    first, last = SHORT_EDGE_M if when.short else EDGE_M
    left, bottom, right, top = extent.bounds
    if when.orbit_state == "ascending":
        return [(left + first, top), (right, top), (right, bottom), (left + last, bottom)]
    return [(left, top), (right - first, top), (right - last, bottom), (left, bottom)]


def _range_db(grid: Grid, extent: Grid, orbit_state: str) -> NDArray[np.float64]:
    """Change of gamma-0 over the swath, (width,), dB: the radar looks to the right, so ascending passes look east."""
    left, _, right, _ = extent.bounds
    across = (grid.x - left) / (right - left)
    return np.asarray(RANGE_DB * (0.5 - across if orbit_state == "ascending" else across - 0.5))
