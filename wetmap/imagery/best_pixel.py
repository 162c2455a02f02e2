"""The best look of each pixel, by a score; all bands of a pixel come from that look.

After the pixel-based compositing of Griffiths et al. 2013 (doi:10.1109/JSTARS.2012.2228167) and White et al. 2014
(doi:10.1080/07038992.2014.945827), who add scores of the distance to clouds, of the day and of the scene.
"""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.masks import Bools, distance_m

Floats = NDArray[np.float32]

#: Distance to a cloud or its shadow from which on a pixel is as good as any, metres. Griffiths et al. ask for 50
#: Landsat pixels (1.5 km); brightening beside clouds fades within some hundred metres, and every metre must be read.
CLEAR_DISTANCE_M = 500.0
#: Score of the share of clear ground of a scene whose metadata do not give it.
UNKNOWN_CLEARNESS = 0.5


def day_score(day: dt.date, first: dt.date, last: dt.date) -> float:
    """Nearness of a look to the middle of its season, 0 to 1.

    A Gaussian, as in Griffiths et al., with a quarter of the season as standard deviation: 1 in the middle, 0.14 on
    the first and the last day.
    """
    middle = (first.toordinal() + last.toordinal()) / 2
    sigma = max((last.toordinal() - first.toordinal()) / 4, 1.0)
    return math.exp(-0.5 * ((day.toordinal() - middle) / sigma) ** 2)


def scene_score(cloud_percent: float | None) -> float:
    """Share of a scene that is free of cloud by its metadata, 0 to 1."""
    return UNKNOWN_CLEARNESS if cloud_percent is None else 1 - min(max(cloud_percent, 0.0), 100.0) / 100


def cloud_score(obstructed: Bools, *, res_m: float) -> NDArray[np.float64]:
    """Distance to the nearest cloud or shadow as a share of ``CLEAR_DISTANCE_M``, (y, x) float64, 0 to 1.

    Linear, where Griffiths et al. take a logistic curve: plain arithmetic has the same bits in every window.

    Args:
        obstructed: Clouds and shadows with a rim of ``CLEAR_DISTANCE_M``, (y, x) bool.
        res_m: Pixel side, metres.
    """
    return distance_m(obstructed, res_m=res_m, most_m=CLEAR_DISTANCE_M) / CLEAR_DISTANCE_M


class BestPixel:
    """Keeps the best look of each pixel while looks come one by one: memory does not grow with their number.

    Args:
        bands: Number of bands.
        shape: (y, x).
    """

    def __init__(self, bands: int, shape: tuple[int, int]) -> None:
        self.composite: Floats = np.full((bands, *shape), np.nan, dtype=np.float32)
        """(band, y, x) float32, NaN where no look counted."""
        self.count: NDArray[np.uint16] = np.zeros(shape, dtype=np.uint16)
        """Looks that counted, (y, x)."""
        self._score = np.full(shape, -np.inf)

    def offer(self, look: Floats, score: NDArray[np.float64] | float) -> None:
        """Take a look's pixels where its score is higher than that of every look before: of equals the first stays.

        Args:
            look: (band, y, x) float32, NaN where not clear. It counts at a pixel only with all its bands.
            score: (y, x), or one for all pixels; higher is better.
        """
        counts = np.isfinite(look).all(axis=0)
        self.count += counts
        better = counts & (score > self._score)
        self._score = np.where(better, score, self._score)
        np.copyto(self.composite, look, where=better)
