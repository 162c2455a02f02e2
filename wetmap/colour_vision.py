"""How alike two colours look, also to people whose eyes lack a kind of cone.

A colour is taken to linear RGB, to what such an eye makes of it (Machado, Oliveira and Fernandes 2009), to CIELAB, and
two of them are compared by CIEDE2000. About 1 is the least that is seen side by side in good light; small patches of a
map, far from the legend, need much more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Red, green and blue in linear light, 0-1, or CIELAB.
Triple = tuple[float, float, float]
Matrix = tuple[Triple, Triple, Triple]

#: What each kind of colour vision makes of linear RGB: Machado, Oliveira and Fernandes (2009), "A physiologically-based
#: model for simulation of color vision deficiency", IEEE TVCG 15:1291-1298, their matrices of severity 1.0.
SIGHTS: dict[str, Matrix] = {
    "normal sight": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
#: Two classes of a legend that differ by less, by CIEDE2000, count as hard to tell apart. A choice of this project: the
#: seven colours of Okabe and Ito, made for all kinds of colour vision, keep 8 in each of the simulated ones.
LEAST_DIFFERENCE = 8.0
#: Linear sRGB to XYZ, and the white of both, D65: IEC 61966-2-1.
TO_XYZ: Matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE: Triple = (0.9505, 1.0, 1.089)


@dataclass(frozen=True)
class Alike:
    """Two colours of a legend that somebody can hardly tell apart."""

    first: int
    """Place of one of them in the legend, from 0."""
    second: int
    """Place of the other."""
    sight: str
    """The kind of colour vision that sees the least difference."""
    difference: float
    """That difference, CIEDE2000."""


def alike(colours: Sequence[str], least: float = LEAST_DIFFERENCE) -> list[Alike]:
    """The pairs of colours that some kind of colour vision can hardly tell apart, the most alike first.

    Args:
        colours: ``#rrggbb`` each.
        least: Differences below this count, CIEDE2000.
    """
    labs = {sight: [seen(colour, sight) for colour in colours] for sight in SIGHTS}
    found = []
    for first, second in itertools.combinations(range(len(colours)), 2):
        difference, sight = min((ciede2000(lab[first], lab[second]), sight) for sight, lab in labs.items())
        if difference < least:
            found.append(Alike(first, second, sight, difference))
    return sorted(found, key=lambda pair: (pair.difference, pair.first, pair.second))


def seen(colour: str, sight: str) -> Triple:
    """CIELAB (D65) of a colour as somebody with this sight sees it.

    Args:
        colour: ``#rrggbb``.
        sight: A key of ``SIGHTS``.

    Returns:
        L* (0 to 100), a*, b*.
    """
    red, green, blue = (_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    light = _times(SIGHTS[sight], (red, green, blue))
    x, y, z = _times(TO_XYZ, (_kept(light[0]), _kept(light[1]), _kept(light[2])))
    fx, fy, fz = (_cube_root(value / white) for value, white in zip((x, y, z), WHITE, strict=True))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def ciede2000(one: Triple, other: Triple) -> float:
    """Difference of two colours by CIEDE2000 with all weights 1: Sharma, Wu and Dalal (2005), eq. 2 to 22.

    Args:
        one: L*, a*, b*.
        other: Likewise.
    """
    (light1, a1, b1), (light2, a2, b2) = one, other
    grey = _saturated((math.hypot(a1, b1) + math.hypot(a2, b2)) / 2)
    stretch = 1 + 0.5 * (1 - grey)
    a1, a2 = a1 * stretch, a2 * stretch
    chroma1, chroma2 = math.hypot(a1, b1), math.hypot(a2, b2)
    hue1, hue2 = math.degrees(math.atan2(b1, a1)) % 360, math.degrees(math.atan2(b2, a2)) % 360
    turn, hue = _hues(hue1, hue2, grey_pair=chroma1 * chroma2 == 0)
    lightness, chroma = (light1 + light2) / 2, (chroma1 + chroma2) / 2
    d_light = (light2 - light1) / (1 + 0.015 * (lightness - 50) ** 2 / math.sqrt(20 + (lightness - 50) ** 2))
    d_chroma = (chroma2 - chroma1) / (1 + 0.045 * chroma)
    d_hue = 2 * math.sqrt(chroma1 * chroma2) * _sin(turn / 2) / (1 + 0.015 * chroma * _hue_weight(hue))
    rotation = -_sin(60 * math.exp(-(((hue - 275) / 25) ** 2))) * 2 * _saturated(chroma)
    return math.sqrt(max(0.0, d_light**2 + d_chroma**2 + d_hue**2 + rotation * d_chroma * d_hue))


def _hues(hue1: float, hue2: float, *, grey_pair: bool) -> tuple[float, float]:
    """Turn from one hue to the other and the hue between them, degrees (eq. 10 and 14): by the shorter way round."""
    if grey_pair:
        return 0.0, hue1 + hue2
    turn, between = hue2 - hue1, (hue1 + hue2) / 2
    if abs(turn) <= 180:
        return turn, between
    return turn - math.copysign(360, turn), between + (180 if hue1 + hue2 < 360 else -180)


def _hue_weight(hue: float) -> float:
    """T of eq. 15."""
    return 1 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue) + 0.32 * _cos(3 * hue + 6) - 0.20 * _cos(4 * hue - 63)


def _saturated(chroma: float) -> float:
    return math.sqrt(chroma**7 / (chroma**7 + 25.0**7))


def _sin(degrees: float) -> float:
    return math.sin(math.radians(degrees))


def _cos(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def _linear(value: float) -> float:
    """Linear light of an sRGB value, both 0-1 (IEC 61966-2-1)."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _kept(value: float) -> float:
    """What a screen can show of a linear value."""
    return min(max(value, 0.0), 1.0)


def _cube_root(value: float) -> float:
    """F of CIELAB (CIE 15:2004)."""
    return math.cbrt(value) if value > (6 / 29) ** 3 else value / (3 * (6 / 29) ** 2) + 4 / 29


def _times(matrix: Matrix, vector: Triple) -> Triple:
    first, second, third = (sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)
    return first, second, third
