"""Terrain features: slope, topographic position, and what flow accumulation needs.

Copernicus DEM is a surface model: canopy lifts it, so that all of these are biased under forest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.windows import disc_sum, shifted

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Smallest tan(slope) of the wetness index: flat ground has no finite index. A drop of 1 m in 1 km.
LEAST_TAN_SLOPE = 1e-3


def slope_degrees(elevation: Floats, res_m: float) -> Floats:
    """Slope by the third-order finite difference of Horn (1981), Proceedings of the IEEE 69(1), 14-47.

    Args:
        elevation: (y, x) float64, metres, NaN where not observed. One pixel around the pixels of interest must be
            there.
        res_m: Pixel side, metres.

    Returns:
        (y, x) float64, degrees, NaN where the pixel itself is not observed. A neighbour that is not observed counts as
        level with the pixel.
    """
    east, south = _gradient(elevation, res_m)
    return np.where(np.isnan(elevation), np.nan, np.degrees(np.arctan(np.hypot(east, south))))


def _gradient(elevation: Floats, res_m: float) -> tuple[Floats, Floats]:
    """Rise per metre to the east and to the south."""

    def at(down: int, right: int) -> Floats:
        moved = shifted(elevation, down, right, np.nan)
        return np.where(np.isnan(moved), elevation, moved)

    east = (at(-1, 1) + 2 * at(0, 1) + at(1, 1)) - (at(-1, -1) + 2 * at(0, -1) + at(1, -1))
    south = (at(1, -1) + 2 * at(1, 0) + at(1, 1)) - (at(-1, -1) + 2 * at(-1, 0) + at(-1, 1))
    return east / (8 * res_m), south / (8 * res_m)


def tpi(elevation: Floats, radius_px: int) -> Floats:
    """Topographic position: height above the mean of the disc around the pixel (Weiss 2001).

    Args:
        elevation: (y, x) float64, metres, NaN where not observed. ``radius_px`` around the pixels of interest must be
            there.
        radius_px: Radius of the disc, pixels.

    Returns:
        (y, x) float64, metres: negative in hollows, positive on rises; NaN where the pixel itself is not observed.
    """
    seen = np.isfinite(elevation)
    count = disc_sum(seen.astype(np.float64), radius_px)
    total = disc_sum(np.where(seen, elevation, 0.0), radius_px)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(seen, elevation - total / count, np.nan)


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
