"""Fractal noise on a hashed lattice: the same value at the same place, whatever window is asked for.

Gradient noise after K. Perlin, "Improving noise" (SIGGRAPH 2002): random unit gradients at lattice points, blended by
a quintic. The gradients come from a hash of the lattice point and a key, so nothing is stored and no window has edges.
Every operation is elementwise, so a window of a larger raster has bit for bit the same values.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Standard deviation of one octave of this noise (unit gradients, quintic blend), measured over 4e6 points.
OCTAVE_STD = 0.2158
#: Each octave is turned by this angle, radians, and moved, so that lattice points of two octaves never coincide.
OCTAVE_TURN = 0.9


def hash_key(*parts: object) -> int:
    """A 64-bit key from any parts with a stable text form: same parts, same key, on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*parts: object) -> np.random.Generator:
    """A random generator of its own for every combination of parts."""
    return np.random.Generator(np.random.PCG64(hash_key(*parts)))


def fractal(x: Array, y: Array, wavelength_m: float, key: int, *, octaves: int = 3, gain: float = 0.5) -> Array:
    """Sum octaves of gradient noise, scaled to mean 0 and standard deviation 1.

    Args:
        x: Coordinates, metres, any shape that broadcasts against ``y``.
        y: Coordinates, metres.
        wavelength_m: Lattice spacing of the coarsest octave, metres.
        key: From ``hash_key``: another key is another, unrelated field.
        octaves: Number of octaves; each halves the spacing.
        gain: Amplitude of an octave relative to the one before.

    Returns:
        Noise of the broadcast shape, float64, dimensionless, approximately normal.
    """
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    power = 0.0
    for octave in range(octaves):
        octave_key = hash_key(key, octave)
        amplitude, spacing = gain**octave, wavelength_m / 2**octave
        cos, sin = math.cos(OCTAVE_TURN * octave), math.sin(OCTAVE_TURN * octave)
        u = (cos * x - sin * y) / spacing + (octave_key & 0xFFFF) / 65536
        v = (sin * x + cos * y) / spacing + (octave_key >> 16 & 0xFFFF) / 65536
        total += amplitude * _octave(u, v, octave_key)
        power += amplitude**2
    return np.asarray(total / (OCTAVE_STD * math.sqrt(power)))


def _octave(u: Array, v: Array, key: int) -> Array:
    """One octave of gradient noise at lattice coordinates."""
    column, row = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    left, top = int(column.min()), int(row.min())
    width, height = int(column.max()) - left + 2, int(row.max()) - top + 2
    gradient_u, gradient_v = _gradients(left, top, height, width, key)
    du, dv = u - column, v - row
    index = (row - top) * width + (column - left)
    corner = [
        gradient_u.take(index + shift) * (du - across) + gradient_v.take(index + shift) * (dv - down)
        for shift, across, down in ((0, 0, 0), (1, 1, 0), (width, 0, 1), (width + 1, 1, 1))
    ]
    blend_u, blend_v = _quintic(du), _quintic(dv)
    upper = corner[0] + blend_u * (corner[1] - corner[0])
    lower = corner[2] + blend_u * (corner[3] - corner[2])
    return np.asarray(upper + blend_v * (lower - upper))


def _quintic(t: Array) -> Array:
    """6t^5 - 15t^4 + 10t^3 (Perlin 2002): first and second derivative are zero at both ends."""
    return np.asarray(t * t * t * (t * (t * 6 - 15) + 10))


def _gradients(left: int, top: int, height: int, width: int, key: int) -> tuple[Array, Array]:
    """Unit gradients at the lattice points, each (height * width,)."""
    columns = np.arange(left, left + width, dtype=np.int64).astype(np.uint64)
    rows = np.arange(top, top + height, dtype=np.int64).astype(np.uint64)
    mixed = _mix(_mix(columns ^ np.uint64(key))[None, :] ^ rows[:, None])
    angle = (mixed >> np.uint64(11)).astype(np.float64) * (2 * math.pi / 2**53)
    return np.cos(angle).ravel(), np.sin(angle).ravel()


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every input bit reaches every output bit."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def smooth_step(value: Array, low: float, high: float) -> Array:
    """0 below ``low``, 1 above ``high``, a cubic between (3t^2 - 2t^3)."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t))
