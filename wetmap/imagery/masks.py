"""Which pixels of an optical scene show the ground."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetmap.imagery.windows import disc

#: Classes of the scene classification of Sentinel-2 L2A (Sentinel-2 Level-2A Algorithm Theoretical Basis Document).
NO_DATA, SATURATED, CLOUD_SHADOW, WATER, SNOW = 0, 1, 3, 6, 11
#: Medium and high cloud probability, thin cirrus.
CLOUDS = (8, 9, 10)
#: Masked, and grown: the rims of clouds and shadows are the pixels that the classification misses most.
GROWN = (CLOUD_SHADOW, *CLOUDS)
#: Masked as they are.
MASKED = (NO_DATA, SATURATED, SNOW)


def dilate_px(dilate_m: float, res_m: float) -> int:
    """Pixels that reach at least ``dilate_m`` metres."""
    return math.ceil(dilate_m / res_m - 1e-9)


def clear_mask(scl: NDArray[np.float32], *, res_m: float, dilate_m: float) -> NDArray[np.bool_]:
    """Pixels that show the ground.

    Clouds (8, 9, 10) and cloud shadow (3) are masked and grown; no data (0), saturated (1) and snow (11) are masked as
    they are. Water (6) and dark areas (2) are kept whatever they look like: dark water is a wetland map's subject, and
    a mask that takes it for shadow would punch holes into every lake. (A pixel of water near a cloud goes with the
    cloud's rim.)

    Args:
        scl: Scene classification, (y, x) float32, NaN where there is none. A rim of ``dilate_px`` pixels around the
            pixels of interest must be part of it.
        res_m: Pixel side, metres.
        dilate_m: How far clouds and shadows are grown, metres.

    Returns:
        (y, x) bool, True where clear.
    """
    bad = np.isnan(scl) | np.isin(scl, MASKED)
    grown = np.isin(scl, GROWN)
    radius = dilate_px(dilate_m, res_m)
    if radius and grown.any():
        grown = ndimage.binary_dilation(grown, structure=disc(radius))
    return np.asarray(~(bad | grown), dtype=np.bool_)
