"""Sentinel-2-like scenes of the simulated landscape: spectra, seasons, clouds with shadows, scene classification.

The spectra are chosen by hand in the range of published ones so that covers differ as they do in nature: in how green
they are, when, and how wet. They are not measurements.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from wetmap.geo.grid import Grid
from wetmap.sources.noise import fractal, generator, hash_key, smooth_step
from wetmap.sources.simulated_ground import Float32, Ground, block_mean, weighted

#: Bands in the order of the tables below.
BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
#: Bands of 10 m; the others have 20 m.
FINE_BANDS = ("B02", "B03", "B04", "B08")
#: Surface reflectance of each cover with bare stems or dead leaves, (cover, band), dimensionless.
DORMANT = np.array([
    [0.036, 0.034, 0.024, 0.021, 0.016, 0.014, 0.013, 0.012, 0.008, 0.006],
    [0.036, 0.038, 0.028, 0.028, 0.024, 0.022, 0.022, 0.021, 0.013, 0.009],
    [0.045, 0.065, 0.075, 0.105, 0.140, 0.160, 0.175, 0.190, 0.210, 0.140],
    [0.035, 0.050, 0.055, 0.085, 0.130, 0.150, 0.165, 0.180, 0.180, 0.110],
    [0.040, 0.060, 0.070, 0.105, 0.150, 0.165, 0.175, 0.190, 0.215, 0.130],
    [0.045, 0.070, 0.080, 0.115, 0.155, 0.175, 0.190, 0.205, 0.240, 0.155],
    [0.022, 0.035, 0.031, 0.060, 0.122, 0.142, 0.154, 0.168, 0.105, 0.055],
    [0.050, 0.075, 0.085, 0.115, 0.140, 0.155, 0.165, 0.175, 0.200, 0.130],
    [0.022, 0.036, 0.031, 0.062, 0.135, 0.160, 0.174, 0.186, 0.130, 0.066],
    [0.055, 0.080, 0.095, 0.130, 0.165, 0.185, 0.205, 0.220, 0.280, 0.200],
])  # fmt: skip
#: Surface reflectance of each cover in full leaf, (cover, band), dimensionless.
GREEN = np.array([
    [0.038, 0.040, 0.026, 0.023, 0.018, 0.016, 0.015, 0.014, 0.009, 0.007],
    [0.031, 0.052, 0.033, 0.062, 0.125, 0.148, 0.158, 0.162, 0.072, 0.032],
    [0.028, 0.060, 0.038, 0.095, 0.235, 0.290, 0.310, 0.325, 0.165, 0.075],
    [0.023, 0.049, 0.028, 0.082, 0.250, 0.315, 0.335, 0.350, 0.160, 0.071],
    [0.033, 0.060, 0.053, 0.100, 0.188, 0.215, 0.230, 0.245, 0.200, 0.105],
    [0.030, 0.063, 0.044, 0.100, 0.230, 0.275, 0.295, 0.310, 0.195, 0.093],
    [0.019, 0.038, 0.022, 0.063, 0.196, 0.245, 0.264, 0.278, 0.117, 0.049],
    [0.035, 0.062, 0.048, 0.092, 0.180, 0.215, 0.235, 0.245, 0.150, 0.080],
    [0.018, 0.040, 0.021, 0.067, 0.231, 0.296, 0.317, 0.332, 0.150, 0.064],
    [0.035, 0.075, 0.045, 0.115, 0.270, 0.330, 0.355, 0.370, 0.240, 0.130],
])  # fmt: skip
#: Days of the year on which each cover is half green, in spring and in autumn, northern hemisphere.
SEASON = (
    (160, 270), (178, 262), (152, 266), (145, 272), (148, 276),
    (150, 260), (140, 279), (162, 257), (138, 283), (126, 296),
)  # fmt: skip
#: Days from a quarter green to three quarters, about.
SEASON_WIDTH = 9.0
#: Relative spread of greenness within each cover.
VIGOUR = (0.06, 0.24, 0.13, 0.12, 0.12, 0.13, 0.10, 0.14, 0.10, 0.15)
#: How each band answers to greener plants, to brighter ground and to standing water, dimensionless.
BY_VIGOUR = (-0.3, -0.1, -0.5, -0.1, 0.6, 0.8, 0.9, 0.9, -0.1, -0.3)
BY_BRIGHTNESS = (0.08, 0.08, 0.08, 0.07, 0.06, 0.06, 0.06, 0.06, 0.08, 0.09)
BY_WATER = (0.05, 0.08, 0.12, 0.20, 0.40, 0.45, 0.48, 0.50, 0.70, 0.75)
#: Reflectance of a thick cloud.
CLOUD = (0.62, 0.62, 0.63, 0.64, 0.65, 0.66, 0.67, 0.67, 0.45, 0.35)
#: Height of the clouds above ground, metres; share of light that a full shadow takes.
CLOUD_HEIGHT_M = 1100.0
SHADOW = 0.62
#: Opacity above which the scene classification sees cloud of medium and of high probability, and shadow.
SEEN_MEDIUM, SEEN_HIGH, SEEN_SHADOW = 0.12, 0.5, 0.3
#: Where ``smooth_step`` reaches ``SEEN_MEDIUM``, as a share of its ramp.
_RAMP_AT_SEEN = 0.2131
#: Width of a cloud's soft rim, standard deviations of the cloud noise.
CLOUD_RIM = 0.5
#: Where the edge of the swath meets the extent's top and bottom, as a share of its width from the left.
SWATH_EDGE = (0.62, 0.92)
#: Error left by the atmospheric correction, one value per pass, reflectance: dark water comes out below zero at times,
#: which counts without an offset cannot store.
LEAST_RESIDUE, MOST_RESIDUE = -0.010, 0.006
#: Sensor noise, reflectance: constant part, and share of the signal.
NOISE, RELATIVE_NOISE = 0.0012, 0.012
#: Concentration of the beta distribution of cloud cover: below 2, clear and overcast days are commoner than half-half.
CLOUD_CONCENTRATION = 1.4


@dataclass(frozen=True)
class OpticalPass:
    """One overpass of the optical satellite."""

    when: dt.datetime
    """Time of the picture, UTC."""
    cloud: float
    """Share of the archive's extent under cloud, 0-1."""
    cirrus: bool
    """Whether the outer part of the clouds is thin cirrus."""
    offset: bool
    """Whether stored counts carry the offset of processing baseline 04.00 and later."""
    swath_edge: bool
    """Whether the edge of the swath crosses the extent."""
    sun_elevation: float
    """Degrees above the horizon."""
    sun_azimuth: float
    """Degrees from north, clockwise."""
    key: int
    """Seed of everything that is this pass's own."""

    @property
    def platform(self) -> str:
        """Satellite, S2A or S2B."""
        return "S2A" if self.key % 2 else "S2B"

    @property
    def day(self) -> int:
        """Day of the year."""
        return self.when.timetuple().tm_yday


@dataclass(frozen=True)
class OpticalScene:
    """Stored values of one scene."""

    bands: dict[str, NDArray[np.uint16]]
    """Counts by band, on 10 m or 20 m; 0 is nodata and nothing else."""
    scl: NDArray[np.uint8]
    """Scene classification on 20 m, codes of Sen2Cor."""


def cloud_share(mean: float, seed: int, day: dt.date) -> float:
    """Cloud cover of a day, 0-1: beta distributed around the mean, spread evenly over any run of days.

    The golden ratio times the day number runs through 0-1 with little clumping (a Weyl sequence), so that even a few
    scenes come close to the mean, and the value is the day's own, whatever other days are simulated.
    """
    if mean <= 0.0:
        return 0.0
    turn = (day.toordinal() * 0.6180339887498949 + (hash_key(seed, "clouds") & 0xFFFF) / 65536) % 1.0
    return float(betaincinv(mean * CLOUD_CONCENTRATION, (1 - mean) * CLOUD_CONCENTRATION, turn))


def sun(latitude: float, day: int, solar_hour: float) -> tuple[float, float]:
    """(elevation, azimuth) of the sun, degrees, from latitude, day of the year and local solar hour.

    Declination after P. I. Cooper, Solar Energy 12 (1969): 23.45 degrees * sin(360 * (284 + day) / 365).
    """
    declination = math.radians(23.45 * math.sin(2 * math.pi * (284 + day) / 365))
    hour, phi = math.radians(15 * (solar_hour - 12)), math.radians(latitude)
    up = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(hour)
    east = -math.cos(declination) * math.sin(hour)
    north = math.cos(phi) * math.sin(declination) - math.sin(phi) * math.cos(declination) * math.cos(hour)
    return math.degrees(math.asin(up)), math.degrees(math.atan2(east, north)) % 360


def greenness(day: int, *, southern: bool = False) -> NDArray[np.float64]:
    """Share of full leaf of each cover on a day, (cover,), 0-1: a logistic rise and fall."""
    shifted = (day + 182) % 365 if southern else day
    rise, fall = np.array(SEASON, dtype=np.float64).T
    up = 1 / (1 + np.exp(-(shifted - rise) / SEASON_WIDTH))
    return np.asarray(up / (1 + np.exp(-(fall - shifted) / SEASON_WIDTH)))


def high_water(day: int, key: int, *, southern: bool = False) -> float:
    """Level of fresh water on a day, 0-1: the melt in spring, and rain."""
    shifted = (day + 182) % 365 if southern else day
    melt = 0.75 * math.exp(-(((shifted - 118) / 32) ** 2))
    return min(1.0, melt + 0.25 * float(generator(key, "rain").random()))


def reflectance(ground: Ground, when: OpticalPass, *, southern: bool = False) -> Float32:
    """Surface reflectance under a clear sky, (band, height, width) on 10 m, float32, dimensionless."""
    green = greenness(when.day, southern=southern)[:, None]
    spectra = DORMANT * (1 - green) + GREEN * green
    vigour = weighted(ground.fractions, VIGOUR) * ground.vigour * np.float32(0.4 + 0.6 * green.mean())
    tide = np.float32(generator(when.key, "tide").random())
    water = ground.flood_seen * np.float32(high_water(when.day, when.key, southern=southern)) + ground.tide * tide
    seen = np.empty((len(BANDS), *ground.grid.shape), np.float32)
    for index in range(len(BANDS)):
        clear = weighted(ground.fractions, spectra[:, index])
        clear *= 1 + np.float32(BY_VIGOUR[index]) * vigour
        clear *= 1 + np.float32(BY_BRIGHTNESS[index]) * ground.brightness
        seen[index] = clear * (1 - np.float32(BY_WATER[index]) * water)
    return np.maximum(seen, np.float32(0.001))


def clouds(grid: Grid, extent: Grid, when: OpticalPass) -> tuple[Float32, Float32, NDArray[np.bool_]]:
    """Opacity of clouds, strength of their shadows, and where the clouds are thin cirrus; each (height, width).

    The threshold is a quantile over the whole extent of the archive, so that the share under cloud is as asked and the
    clouds run on from tile to tile.
    """
    if when.cloud <= 0.0:
        nothing = np.zeros(grid.shape, np.float32)
        return nothing, nothing, np.zeros(grid.shape, np.bool_)
    key = hash_key(when.key, "clouds")

    def noise(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return fractal(x, y, 1900.0, key, octaves=5, gain=0.55)

    step = max(1, max(extent.shape) // 200)
    sample = np.sort(noise(extent.x[None, ::step], extent.y[::step, None]), axis=None)
    seen_from = sample[min(int((1 - when.cloud) * sample.size), sample.size - 1)]
    thick_from = sample[min(int((1 - 0.6 * when.cloud) * sample.size), sample.size - 1)] if when.cirrus else seen_from
    field = noise(grid.x[None, :], grid.y[:, None])
    low = thick_from - _RAMP_AT_SEEN * CLOUD_RIM
    opacity = smooth_step(field, low, low + CLOUD_RIM)
    cirrus = (field > seen_from) & (opacity < SEEN_MEDIUM)
    opacity = np.maximum(opacity, 0.10 * smooth_step(field, seen_from - 0.1, seen_from + 0.1) * when.cirrus)
    away = CLOUD_HEIGHT_M / math.tan(math.radians(max(when.sun_elevation, 10.0)))
    azimuth = math.radians(when.sun_azimuth)
    toward_sun = noise(grid.x[None, :] + away * math.sin(azimuth), grid.y[:, None] + away * math.cos(azimuth))
    shadow = smooth_step(toward_sun, low, low + CLOUD_RIM) * (1 - opacity)
    return opacity.astype(np.float32), shadow.astype(np.float32), cirrus


def optical_scene(ground: Ground, extent: Grid, when: OpticalPass, *, southern: bool = False) -> OpticalScene:
    """Render one scene.

    Args:
        ground: The ground of a tile, whose height and width are even.
        extent: The whole archive's grid, of which the tile is a part.
        when: The pass.
        southern: True south of the equator, where the seasons are the other way round.

    Returns:
        Stored counts and scene classification of the tile.
    """
    tile = (when.key, ground.grid.left, ground.grid.top)
    clear = reflectance(ground, when, southern=southern)
    opacity, shadow, cirrus = clouds(ground.grid, extent, when)
    haze = np.float32(1 + 0.03 * generator(when.key, "calibration").standard_normal())
    seen = clear * (1 - np.float32(SHADOW) * shadow) * haze
    seen += np.float32(generator(when.key, "residue").uniform(LEAST_RESIDUE, MOST_RESIDUE))
    seen += opacity * (np.array(CLOUD, np.float32)[:, None, None] - seen)
    missing = _beyond_swath(ground.grid, extent) if when.swath_edge else np.zeros(ground.grid.shape, np.bool_)
    missing20 = block_mean(missing.astype(np.float32), 2) > 0
    missing = np.repeat(np.repeat(missing20, 2, axis=0), 2, axis=1)
    random = generator(*tile, "noise")
    bands = {}
    for index, name in enumerate(BANDS):
        fine = name in FINE_BANDS
        signal = seen[index] if fine else block_mean(seen[index], 2)
        spread = np.float32(NOISE) + np.float32(RELATIVE_NOISE) * signal
        noisy = signal + spread * random.standard_normal(signal.shape, dtype=np.float32)
        bands[name] = counts(noisy, missing if fine else missing20, offset=when.offset)
    scl = _classify(clear, ground, block_mean(opacity, 2), block_mean(shadow, 2), cirrus)
    return OpticalScene(bands, np.where(missing20, np.uint8(0), scl))


def counts(reflectance_: Float32, missing: NDArray[np.bool_], *, offset: bool) -> NDArray[np.uint16]:
    """Stored counts of reflectance: 10000 per unit, plus 1000 from baseline 04.00 on; valid pixels are at least 1.

    Source of the rule: ESA, Sentinel-2 Products Specification Document 14.9, BOA_ADD_OFFSET = -1000.
    """
    stored = np.rint(reflectance_ * np.float32(10000)) + (1000 if offset else 0)
    return np.where(missing, 0, np.clip(stored, 1, 65535)).astype(np.uint16)


def swath(extent: Grid) -> list[tuple[float, float]]:
    """Corners of the part of the extent that a pass with ``swath_edge`` sees, from the top left clockwise, metres."""
    left, bottom, right, top = extent.bounds
    at_top, at_bottom = (left + share * (right - left) for share in SWATH_EDGE)
    return [(left, top), (at_top, top), (at_bottom, bottom), (left, bottom)]


def _beyond_swath(grid: Grid, extent: Grid) -> NDArray[np.bool_]:
    """Pixels east of the slanted edge of the swath, (height, width)."""
    left, bottom, right, top = extent.bounds
    at_top, at_bottom = (left + share * (right - left) for share in SWATH_EDGE)
    edge = at_top + (at_bottom - at_top) * (top - grid.y) / (top - bottom)
    return np.asarray(grid.x[None, :] > edge[:, None])


def _classify(
    clear: Float32, ground: Ground, opacity: Float32, shadow: Float32, cirrus: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Classify the scene on 20 m.

    The rules, of which the last that fits wins:

    1. 4 vegetation; 5 bare where the vegetation index is below 0.3; 6 where water fills more than half.
    2. 3 cloud shadow.
    3. 10 thin cirrus.
    4. 8 cloud of medium probability, then 9 of high.
    """
    red, infrared = block_mean(clear[BANDS.index("B04")], 2), block_mean(clear[BANDS.index("B08")], 2)
    scl = np.where((infrared - red) / (infrared + red) < 0.3, 5, 4)
    scl = np.where(block_mean(ground.fractions[0], 2) > 0.5, 6, scl)
    scl = np.where(shadow > SEEN_SHADOW, 3, scl)
    scl = np.where(block_mean(cirrus.astype(np.float32), 2) > 0.5, 10, scl)
    scl = np.where(opacity > SEEN_MEDIUM, 8, scl)
    return np.where(opacity > SEEN_HIGH, 9, scl).astype(np.uint8)
