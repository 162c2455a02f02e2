"""Terrain features of an elevation model: gradient, slope, aspect, topographic position, wetness.

Copernicus DEM is a surface model: canopy lifts it, so that all of these are biased under forest and at its edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.windows import disc_sum, shifted

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Smallest tan(slope) that counts as a slope, a drop of 1 m in 1 km: flatter ground has no finite wetness index, and
#: faces nowhere.
LEAST_TAN_SLOPE = 1e-3


def gradient(elevation: Floats, res_m: float) -> tuple[Floats, Floats]:
    """Rise per metre by the third-order finite difference of Horn (1981), Proceedings of the IEEE 69(1), 14-47.

    Args:
        elevation: (y, x) float64, metres, NaN where not observed. One pixel around the pixels of interest must be
            there.
        res_m: Pixel side, metres.

    Returns:
        Rise to the east and rise to the south, each (y, x) float64, m per m, NaN where the pixel itself is not
        observed. A neighbour that is not observed counts as level with the pixel.
    """

    def at(down: int, right: int) -> Floats:
        moved = shifted(elevation, down, right, np.nan)
        return np.where(np.isnan(moved), elevation, moved)

    east = (at(-1, 1) + 2 * at(0, 1) + at(1, 1)) - (at(-1, -1) + 2 * at(0, -1) + at(1, -1))
    south = (at(1, -1) + 2 * at(1, 0) + at(1, 1)) - (at(-1, -1) + 2 * at(-1, 0) + at(-1, 1))
    unseen = np.isnan(elevation)
    return np.where(unseen, np.nan, east / (8 * res_m)), np.where(unseen, np.nan, south / (8 * res_m))


def slope_of(east: Floats, south: Floats) -> Floats:
    """Slope of a gradient, (y, x) float64, degrees from 0 (level) to 90; NaN where the gradient is."""
    return np.degrees(np.arctan(np.hypot(east, south)))


def aspect_of(east: Floats, south: Floats) -> tuple[Floats, Floats]:
    """The way the ground faces, as two numbers.

    A bearing jumps from 360 to 0 degrees, and a model would take north-north-west and north-north-east for opposites.
    Its cosine and sine do not jump.

    Args:
        east: Rise to the east, (y, x) float64, m per m, NaN where not observed.
        south: Rise to the south, likewise.

    Returns:
        Cosine and sine of the downhill bearing from the grid's north, each (y, x) float64, -1 to 1: (1, 0) faces
        north, (0, 1) faces east. (0, 0) where the slope is below ``LEAST_TAN_SLOPE``; NaN where not observed.
    """
    steep = np.hypot(east, south)
    with np.errstate(invalid="ignore", divide="ignore"):
        level = steep < LEAST_TAN_SLOPE
        # Added 0.0 turns a negative zero into zero.
        return np.where(level, 0.0, south / steep + 0.0), np.where(level, 0.0, -east / steep + 0.0)


def slope_degrees(elevation: Floats, res_m: float) -> Floats:
    """Slope after Horn; arguments and what is not observed as in ``gradient``.

    Returns:
        (y, x) float64, degrees, NaN where the pixel itself is not observed.
    """
    return slope_of(*gradient(elevation, res_m))


def disc_mean(elevation: Floats, radius_px: int) -> Floats:
    """Mean elevation of what is observed in the disc around each pixel.

    Args:
        elevation: (y, x) float64, metres, NaN where not observed. ``radius_px`` around the pixels of interest must be
            there.
        radius_px: Radius of the disc, pixels.

    Returns:
        (y, x) float64, metres; NaN where nothing in the disc is observed.
    """
    seen = np.isfinite(elevation)
    count = disc_sum(seen.astype(np.float64), radius_px)
    total = disc_sum(np.where(seen, elevation, 0.0), radius_px)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)


def tpi(elevation: Floats, radius_px: int) -> Floats:
    """Topographic position: height above the mean of the disc around the pixel (Weiss 2001).

    Args:
        elevation: As in ``disc_mean``.
        radius_px: Radius of the disc, pixels.

    Returns:
        (y, x) float64, metres: negative in hollows, positive on rises; NaN where the pixel itself is not observed.
    """
    return elevation - disc_mean(elevation, radius_px)


def twi(area_m: Floats, slope_deg: Floats) -> Floats:
    """Topographic wetness index ln(a / tan b), Beven and Kirkby (1979), Hydrological Sciences Bulletin 24(1), 43-69.

    Args:
        area_m: Specific catchment area, m2 per m of contour, (y, x) float64, NaN where not known.
        slope_deg: Slope, degrees.

    Returns:
        (y, x) float64, ln(m). Slopes below ``LEAST_TAN_SLOPE`` count as that.
    """
    tangent = np.maximum(np.tan(np.radians(slope_deg)), LEAST_TAN_SLOPE)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.log(area_m / tangent), dtype=np.float64)
