"""A made-up landscape in which wetlands lie where wetlands lie: a terrain model decides.

The land is a drowned coastal plain. Tidal inlets cross it, valleys drain it, hollows in the valley floors hold ponds,
flat ground above the valleys carries raised bogs, and springs at the foot of slopes feed fens. Elevation, distance to
the sea, height above drainage and depth of water decide the cover of every pixel; noise decides only where two covers
of similar ground meet (shrub or trees, forest or fields).

Everything is a function of absolute coordinates and the seed, with thresholds that are fixed in units of the noise's
own distribution: a window of a larger landscape is the landscape of the window, bit for bit, as long as both lie on
the same lattice of pixels. The one neighbourhood operator (rounding of outlines) is finite and runs with a margin.

The forms and figures are chosen by hand to look plausible for Atlantic Canada; they describe no real place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from wetmap.geo.grid import Grid
from wetmap.sources.noise import fractal, hash_key, smooth_step

Array = NDArray[np.float64]

#: Spacing of the tidal inlets, metres: every square of 3 km is crossed by one.
INLET_SPACING_M = 3000.0
#: Outlines are rounded by a Gaussian of this standard deviation, metres: no salt and pepper.
ROUNDING_M = 15.0
#: The Gaussian is cut at this many standard deviations, which makes it finite and the windows consistent.
ROUNDING_CUT = 3.0


@dataclass(frozen=True)
class Cover:
    """One kind of ground in the truth raster."""

    code: int
    """Value in the truth raster, 1..10; 0 is nodata."""
    name: str
    """Name."""
    upland: bool
    """True for dry land."""
    colour: str
    """Legend colour, #rrggbb."""

    @property
    def reference_class(self) -> str:
        """Value of CLASS in the reference polygons: uplands are one class there."""
        return "upland" if self.upland else self.name


#: The ten covers of the truth raster, in the order of their codes.
COVERS: tuple[Cover, ...] = (
    Cover(1, "open water", upland=False, colour="#2b6cb0"),
    Cover(2, "aquatic bed", upland=False, colour="#56b4d3"),
    Cover(3, "freshwater marsh", upland=False, colour="#c7b42c"),
    Cover(4, "shrub wetland", upland=False, colour="#e08a3c"),
    Cover(5, "bog", upland=False, colour="#a14f8c"),
    Cover(6, "fen", upland=False, colour="#d98fb8"),
    Cover(7, "forested wetland", upland=False, colour="#1d7f74"),
    Cover(8, "coastal marsh", upland=False, colour="#7fd0a8"),
    Cover(9, "upland forest", upland=True, colour="#3f6b35"),
    Cover(10, "upland open", upland=True, colour="#d9d3b4"),
)
WATER, AQUATIC_BED, MARSH, SHRUB, BOG, FEN, SWAMP, COASTAL_MARSH, FOREST, OPEN = (cover.code for cover in COVERS)


@dataclass(frozen=True)
class Landscape:
    """The ground of one grid; every array is (height, width) of the grid."""

    grid: Grid
    """Where it lies."""
    elevation: NDArray[np.float32]
    """Height of the ground or water surface above mean sea level, metres."""
    cover: NDArray[np.uint8]
    """Codes of ``COVERS``."""
    height_above_drainage: NDArray[np.float32]
    """Height above the nearest valley floor, metres; 0 on it and in the sea."""
    wetness: NDArray[np.float32]
    """How wet the ground is in a normal summer, 0 (dry) to 1 (under water), dimensionless."""


@dataclass(frozen=True)
class _Terrain:
    """What decides the cover, before it is decided; arrays of the padded window."""

    shore: Array
    """Distance to the sea, metres, negative in the sea."""
    marsh_width: Array
    """Width of the terrace of coastal marsh here, metres; 0 where there is none."""
    drainage: Array
    """Height above drainage, metres."""
    relief: Array
    """|valley noise|, 0 on the valley line, in standard deviations."""
    depth: Array
    """Depth of standing fresh water, metres; negative above it."""
    dome: Array
    """Weight of the raised, perched flats, 0-1."""
    elevation: Array
    """Metres above mean sea level."""


def make_landscape(grid: Grid, seed: int) -> Landscape:
    """Make the landscape of a grid.

    Args:
        grid: Any projected grid in metres. Landscapes of two grids agree where the grids share CRS and pixels.
        seed: Another seed is another country.

    Returns:
        Elevation, cover and the physics that the scenes need.
    """
    margin = math.ceil(ROUNDING_CUT * ROUNDING_M / grid.res_m)
    padded = grid.window(-margin, -margin, grid.height + 2 * margin, grid.width + 2 * margin)
    x, y = padded.x[None, :], padded.y[:, None]
    terrain = _terrain(x, y, seed)
    cover = _round_outlines(_decide(terrain, x, y, seed), ROUNDING_M / grid.res_m, margin)
    inside = (slice(margin, margin + grid.height), slice(margin, margin + grid.width))
    drainage = terrain.drainage[inside]
    damp = fractal(grid.x[None, :], grid.y[:, None], 240.0, hash_key(seed, "damp"))
    return Landscape(
        grid=grid,
        elevation=terrain.elevation[inside].astype(np.float32),
        cover=cover[inside],
        height_above_drainage=drainage.astype(np.float32),
        wetness=_wetness(cover[inside], drainage, damp).astype(np.float32),
    )


def _terrain(x: Array, y: Array, seed: int) -> _Terrain:
    """Build the ground from the sea upward: inlets, coastal plain, valleys, perched flats, hollows."""

    def noise(name: str, wavelength_m: float, octaves: int = 3) -> Array:
        return fractal(warped_x, warped_y, wavelength_m, hash_key(seed, name), octaves=octaves)

    warped_x = x + 60.0 * fractal(x, y, 480.0, hash_key(seed, "warp x"))
    warped_y = y + 60.0 * fractal(x, y, 480.0, hash_key(seed, "warp y"))
    shore = _distance_to_sea(x, y, seed)
    marsh_width = 115.0 * np.clip(0.75 + 0.6 * noise("coastal marsh", 700.0, 2), 0.0, 1.8)
    relief = np.abs(noise("valley", 780.0))
    behind = shore - marsh_width
    inland = smooth_step(behind, 0.0, 300.0)
    height_m = 11.0 * np.clip(1.0 + 0.35 * noise("hills", 2500.0, 2), 0.3, 2.0)
    drainage = height_m * np.maximum(relief - 0.24, 0.0) ** 1.2 * inland + 0.8 * np.minimum(relief / 0.24, 1.0) * inland
    perched = noise("perched", 820.0, 2)
    dome = smooth_step(perched, 0.55, 0.95) * smooth_step(relief, 0.40, 0.75) * smooth_step(behind, 100.0, 250.0)
    plateau = 0.45 * height_m + 1.8 * smooth_step(perched, 0.75, 1.7)
    drainage += dome * (plateau - drainage)
    hollow = 2.0 * (noise("hollow", 560.0, 2) - 0.55) - 0.9 * np.maximum(drainage - 0.5, 0.0)
    depth = np.where(shore > 150.0, hollow, -9.0)
    plain = _plain(shore, marsh_width)
    rough = 0.25 * noise("rough", 90.0, 2) * smooth_step(behind, -50.0, 150.0)
    land = plain + drainage + rough * smooth_step(-depth, 0.0, 0.6)
    elevation = np.where(shore <= 0.0, 0.0, np.where(depth > 0.0, plain, land))
    return _Terrain(shore, marsh_width, drainage, relief, depth, dome, elevation)


def _distance_to_sea(x: Array, y: Array, seed: int) -> Array:
    """Signed distance to the nearest tidal inlet, metres: parallel, winding arms, one every ``INLET_SPACING_M``."""
    angle = (hash_key(seed, "coast") & 0xFFFF) / 65536 * math.pi
    across = x * math.cos(angle) + y * math.sin(angle)
    winding = 330.0 * fractal(x, y, 1500.0, hash_key(seed, "winding"), octaves=4, gain=0.4)
    phase = (across + winding) / INLET_SPACING_M + (hash_key(seed, "inlets") & 0xFFFF) / 65536
    from_axis = np.abs(phase - np.floor(phase) - 0.5) * INLET_SPACING_M
    half_width = 125.0 * np.clip(1.0 + 0.4 * fractal(x, y, 900.0, hash_key(seed, "inlet width")), 0.35, 2.0)
    return np.asarray(from_axis - half_width)


def _plain(shore: Array, marsh_width: Array) -> Array:
    """Height of the plain, metres: a marsh terrace below 1.1 m at the sea, then terraces that rise inland."""
    terrace = 0.2 + 0.9 * np.clip(shore / np.maximum(marsh_width, 1.0), 0.0, 1.0)
    behind = np.maximum(shore - marsh_width, 0.0)
    steps = behind / 380.0
    whole = np.floor(steps)
    return np.asarray(
        terrace + 2.6 * (whole + smooth_step(steps - whole, 0.72, 1.0)) + 0.6 * smooth_step(behind, 0.0, 60.0)
    )


def _decide(terrain: _Terrain, x: Array, y: Array, seed: int) -> NDArray[np.uint8]:
    """Decide the cover of each pixel.

    The rules, of which the last that fits wins:

    1. Dry land is forest or open, by land use.
    2. Foot of slopes (1.3 to 4.5 m above drainage) where springs are: fen.
    3. Valley floors (below 1.3 m): trees or shrubs by age, marsh where lowest.
    4. Raised, perched flats: bog.
    5. Hollows: marsh up to 0.5 m above the water, aquatic bed down to about 0.75 m below, open water beyond.
    6. The terrace at the sea: coastal marsh; below the sea's level: open water.
    """

    def noise(name: str, wavelength_m: float) -> Array:
        return fractal(x, y, wavelength_m, hash_key(seed, name), gain=0.42)

    drainage, depth = terrain.drainage, terrain.depth
    cover = np.where(noise("land use", 520.0) > 0.30, OPEN, FOREST)
    springs = noise("springs", 420.0) > 0.10
    cover = np.where(springs & (drainage > 1.3) & (drainage < 4.5) & (terrain.relief < 0.9), FEN, cover)
    age = noise("age", 520.0)
    floor = np.where(age > 0.0, SWAMP, SHRUB)
    low = drainage + 0.35 * noise("flooding", 300.0) < 0.22
    cover = np.where(drainage <= 1.3, np.where(low & (age < 0.9), MARSH, floor), cover)
    cover = np.where(terrain.dome > 0.5, BOG, cover)
    sheltered = 0.75 + 0.3 * noise("shelter", 260.0)
    cover = np.where(depth > -0.5, MARSH, cover)
    cover = np.where(depth > 0.0, AQUATIC_BED, cover)
    cover = np.where(depth > np.maximum(sheltered, 0.1), WATER, cover)
    cover = np.where(terrain.shore < terrain.marsh_width, COASTAL_MARSH, cover)
    return np.where(terrain.shore <= 0.0, WATER, cover).astype(np.uint8)


def _wetness(cover: NDArray[np.uint8], drainage: Array, damp: Array) -> Array:
    """Soil moisture, 0-1: by cover, wetter toward the drainage, with its own pattern."""
    by_cover = np.array([0, 1.0, 1.0, 0.75, 0.6, 0.7, 0.65, 0.55, 0.7, 0.25, 0.2])
    return np.asarray(np.clip(by_cover[cover] + 0.2 * np.exp(-drainage / 1.5) - 0.1 + 0.12 * damp, 0.0, 1.0))


def _round_outlines(cover: NDArray[np.uint8], sigma_px: float, reach: int) -> NDArray[np.uint8]:
    """Give each pixel the cover that weighs most around it, by a Gaussian of finite reach."""
    at = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (at / sigma_px) ** 2).astype(np.float32)
    best = np.zeros(cover.shape, np.float32)
    rounded = cover.copy()
    for code in np.unique(cover):
        weight = correlate1d((cover == code).astype(np.float32), kernel, axis=0, mode="constant")
        weight = correlate1d(weight, kernel, axis=1, mode="constant")
        rounded[weight > best] = code
        best = np.maximum(best, weight)
    return rounded
