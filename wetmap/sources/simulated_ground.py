"""What a sensor sees of the simulated landscape: shares of covers in each pixel, and how plants vary within a cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from wetmap.geo.grid import Grid
from wetmap.sources.landscape import COVERS, make_landscape
from wetmap.sources.noise import fractal, hash_key, smooth_step

Float32 = NDArray[np.float32]

#: Point spread of the sensors, standard deviation in pixels of 10 m: pixels at borders are mixed.
POINT_SPREAD_PX = 0.6
#: At most this share of a stand is made of the plants of its look-alike cover.
LOOKALIKE_SHARE = 0.32
#: Code of the cover that each cover most resembles, in the order of ``COVERS``: a stand is never pure.
LOOKALIKE = (1, 1, 4, 7, 6, 3, 9, 3, 7, 6)
#: How much of each cover stands under water when the water is highest, 0-1, in the order of ``COVERS``.
FLOODABLE = (0.0, 0.0, 0.9, 0.8, 0.3, 0.45, 0.9, 0.0, 0.0, 0.0)
#: The same for the tide.
TIDAL = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8, 0.0, 0.0)
#: Share of the water under each cover that is seen from above through the leaves, 0-1.
OPENNESS = (1.0, 1.0, 0.8, 0.5, 0.8, 0.8, 0.25, 0.9, 0.2, 1.0)


@dataclass(frozen=True)
class Ground:
    """What lies in each pixel of a grid; arrays are (height, width), float32, dimensionless."""

    grid: Grid
    """Where it lies."""
    fractions: Float32
    """Share of each cover, (cover, height, width), in the order of ``COVERS``; the shares of a pixel sum to 1."""
    vigour: Float32
    """How green the plants are compared with their kind, mean 0, standard deviation 1."""
    brightness: Float32
    """How bright the ground is compared with its kind, mean 0, standard deviation 1."""
    roughness: Float32
    """How rough the ground is compared with its kind, mean 0, standard deviation 1."""
    flood: Float32
    """Share under water when fresh water is highest, 0-1."""
    flood_seen: Float32
    """The part of ``flood`` that is seen through the leaves, 0-1."""
    tide: Float32
    """Share under water at the highest tide, 0-1."""


def make_ground(grid: Grid, seed: int, *, shift_px: tuple[float, float] = (0.0, 0.0)) -> Ground:
    """What a sensor sees in the pixels of a grid when its geolocation is off by a shift.

    The landscape has a value at every coordinate, so a shifted view is made by evaluating it at the displaced
    coordinates: nothing is interpolated, and the shift is exact to any fraction of a pixel.

    Args:
        grid: Grid of 10 m pixels.
        seed: Seed of the landscape.
        shift_px: (rows, columns), pixels. What lies at (row, column) on the ground appears at
            (row + shift_px[0], column + shift_px[1]): positive rows move the picture south, positive columns east.

    Returns:
        The ground of the grid's pixels, as seen.
    """
    rows, columns = shift_px
    pad = 4  # beyond the reach of the point spread
    seen = Grid(
        crs=grid.crs,
        res_m=grid.res_m,
        left=grid.left - (pad + columns) * grid.res_m,
        top=grid.top + (pad + rows) * grid.res_m,
        height=grid.height + 2 * pad,
        width=grid.width + 2 * pad,
    )
    land = make_landscape(seen, seed)
    x, y = seen.x[None, :], seen.y[:, None]
    fractions = _mixed_stands(_fractions(land.cover), x, y, seed)
    wet = 0.35 + 0.65 * land.wetness

    def crop(array: NDArray[np.float64] | Float32) -> Float32:
        return np.ascontiguousarray(array[..., pad:-pad, pad:-pad], dtype=np.float32)

    def texture(name: str) -> Float32:
        coarse = fractal(x, y, 260.0, hash_key(seed, name), octaves=3)
        fine = fractal(x, y, 24.0, hash_key(seed, name, "fine"), octaves=2)
        return crop((coarse + 0.7 * fine) / np.sqrt(1.49))

    return Ground(
        grid=grid,
        fractions=crop(fractions),
        vigour=texture("vigour"),
        brightness=texture("brightness"),
        roughness=texture("roughness"),
        flood=crop(wet * weighted(fractions, FLOODABLE)),
        flood_seen=crop(wet * weighted(fractions, np.multiply(FLOODABLE, OPENNESS))),
        tide=crop(wet * weighted(fractions, TIDAL)),
    )


def weighted(fractions: Float32, values: NDArray[np.float64] | tuple[float, ...]) -> Float32:
    """Sum of the covers' shares (cover, height, width) times one value per cover, (height, width), float32."""
    total = np.zeros(fractions.shape[1:], np.float32)
    for share, value in zip(fractions, values, strict=True):
        if value:
            total += share * np.float32(value)
    return total


def block_mean(array: Float32, factor: int) -> Float32:
    """Mean of factor x factor blocks over the last two axes, whose lengths are multiples of ``factor``."""
    *front, height, width = array.shape
    blocks = array.reshape(*front, height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(-3, -1), dtype=np.float32))


def _fractions(cover: NDArray[np.uint8]) -> Float32:
    """Share of each cover in each pixel, (cover, height, width): the truth seen through the point spread."""
    shares = np.stack([cover == kind.code for kind in COVERS]).astype(np.float32)
    for axis in (1, 2):
        shares = gaussian_filter1d(shares, POINT_SPREAD_PX, axis=axis, mode="nearest", truncate=4.0)
    return np.asarray(shares / shares.sum(axis=0))


def _mixed_stands(fractions: Float32, x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> Float32:
    """Put some plants of the look-alike cover into every stand, more in some places than in others."""
    share = LOOKALIKE_SHARE * smooth_step(fractal(x, y, 220.0, hash_key(seed, "mixture")), -0.8, 2.2)
    mixed = fractions * (1 - share).astype(np.float32)
    for index, like in enumerate(LOOKALIKE):
        mixed[like - 1] += fractions[index] * share.astype(np.float32)
    return mixed
