"""Which pixels of an optical scene show the ground.

From the scene classification (SCL) of Sentinel-2 L2A. Which of its classes are masked is the recipe's choice; how far
clouds are grown is given in metres. A season's looks together say where a shadow is no cloud's shadow but dark water.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetmap.imagery.windows import shifted

Bools = NDArray[np.bool_]
Classes = NDArray[np.uint8]

#: Classes of the scene classification of Sentinel-2 L2A (Sentinel-2 Level-2A Algorithm Theoretical Basis Document).
NO_DATA, SATURATED, DARK, CLOUD_SHADOW, WATER, CIRRUS, SNOW = 0, 1, 2, 3, 6, 10, 11
#: Medium and high cloud probability.
CLOUDS = (8, 9)
#: Classes that show the ground and are not water: dark, vegetation, bare, unclassified.
LAND = (DARK, 4, 5, 7)
#: What a recipe can mask, and the classes behind each name.
MASKABLE: Mapping[str, tuple[int, ...]] = {
    "cloud": CLOUDS,
    "cirrus": (CIRRUS,),
    "shadow": (CLOUD_SHADOW,),
    "snow": (SNOW,),
    "saturated": (SATURATED,),
}
#: Masked and grown: the rims of clouds and shadows are the pixels that the classification misses most.
GROWN = ("cloud", "cirrus", "shadow")
#: Looks labelled shadow from which on a pixel that is mostly labelled so is taken for dark ground: see
#: ``standing_shadow``.
STANDING_LOOKS = 3


def dilate_px(dilate_m: float, res_m: float) -> int:
    """Pixels that reach at least ``dilate_m`` metres."""
    return math.ceil(dilate_m / res_m - 1e-9)


def classes_of(scl: NDArray[np.float32] | Classes) -> Classes:
    """Scene classification as whole numbers, (y, x) uint8; 0, no data, where it is NaN."""
    return np.nan_to_num(scl, nan=NO_DATA).astype(np.uint8, copy=False)


def clear_mask(
    scl: NDArray[np.float32] | Classes,
    *,
    res_m: float,
    dilate_m: float,
    mask: Sequence[str] = tuple(MASKABLE),
    standing: Bools | None = None,
) -> Bools:
    """Pixels that show the ground.

    Clouds, cirrus and cloud shadows are masked and grown; snow and saturated pixels are masked as they are; pixels
    without data always. Water (6), dark areas (2) and unclassified pixels (7) are kept whatever they look like: dark
    water is a wetland map's subject, and a mask that takes it for shadow would punch holes into every lake. (A pixel
    of water near a cloud goes with the cloud's rim.)

    Args:
        scl: Scene classification, (y, x), float32 with NaN or uint8 with 0 where there is none. A rim of
            ``dilate_px`` pixels around the pixels of interest must be part of it.
        res_m: Pixel side, metres.
        dilate_m: How far clouds and shadows are grown, metres.
        mask: What is masked, names of ``MASKABLE``.
        standing: Where a shadow is no cloud's shadow, (y, x) bool, from ``standing_shadow``; None: nowhere.

    Returns:
        (y, x) bool, True where clear.
    """
    classes = classes_of(scl)
    plain = [number for name in mask if name not in GROWN for number in MASKABLE[name]]
    bad = _among(classes, (NO_DATA, *plain)) | (classes > SNOW)  # there is no class 12; lossy copies have one
    grown = obstructed(classes, mask, standing)
    radius = dilate_px(dilate_m, res_m)
    if radius and grown.any():
        grown = grown_by(grown, radius)
    return np.asarray(~(bad | grown), dtype=np.bool_)


def obstructed(classes: Classes, mask: Sequence[str], standing: Bools | None = None) -> Bools:
    """Pixels under a cloud, cirrus or a cloud's shadow, before growing, (y, x) bool; arguments as ``clear_mask``."""
    found = _among(classes, [number for name in mask if name in GROWN for number in MASKABLE[name]])
    if standing is not None:
        found &= ~((classes == CLOUD_SHADOW) & standing)
    return found


def standing_shadow(looks: Iterable[Classes]) -> Bools | None:
    """Where the label "cloud shadow" means dark ground: water, or the shade of a slope.

    The classification labels dark water as cloud shadow in some looks or in all. Clouds move and a lake does not, so
    a season's looks tell them apart without any threshold on reflectance. A shadow is not believed where, of the
    looks that are neither cloud, snow, saturated nor empty,

    1. more say water (6) than land (2, 4, 5, 7); or
    2. at least ``STANDING_LOOKS`` say shadow, and more say shadow than anything else: a cloud's shadow falls on the
       same pixel in one look of ten, so in three looks of five by chance in fewer than one pixel of a hundred.

    Args:
        looks: Scene classification of each look of a season, (y, x) uint8 each.

    Returns:
        (y, x) bool; None without looks.
    """
    balance: NDArray[np.int16] | None = None
    for classes in looks:
        if balance is None:
            balance = np.zeros((3, *classes.shape), dtype=np.int16)
        balance[0] += classes == WATER
        balance[1] += _among(classes, LAND)
        balance[2] += classes == CLOUD_SHADOW
    if balance is None:
        return None
    water, land, shadow = balance
    return np.asarray((water > land) | ((shadow >= STANDING_LOOKS) & (shadow > water + land)))


def grown_by(mask: Bools, radius: int) -> Bools:
    """Pixels within ``radius`` pixels of a True one, centre to centre, (y, x); nothing lies beyond the array.

    The disc's rows have few different widths; each is grown from the one before.
    """
    half_widths = [math.isqrt(radius**2 - row**2) for row in range(radius + 1)]
    found = np.zeros_like(mask)
    run = mask.copy()
    for half in range(radius + 1):
        if half:
            run |= shifted(mask, 0, half, False) | shifted(mask, 0, -half, False)
        for row in (row for row in range(radius + 1) if half_widths[row] == half):
            found |= shifted(run, row, 0, False)
            if row:
                found |= shifted(run, -row, 0, False)
    return found


def distance_m(found: Bools, *, res_m: float, most_m: float) -> NDArray[np.float64]:
    """Distance of each pixel to the nearest True one, metres, ``most_m`` where none is nearer, (y, x) float64.

    A rim of ``dilate_px(most_m, res_m)`` pixels around the pixels of interest must be part of ``found``.
    """
    if not found.any():
        return np.full(found.shape, float(most_m))
    return np.minimum(ndimage.distance_transform_edt(~found) * res_m, most_m)


def _among(classes: Classes, wanted: Sequence[int]) -> Bools:
    table = np.zeros(256, dtype=np.bool_)
    table[list(wanted)] = True
    return table[classes]
