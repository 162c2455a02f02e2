"""What the report's map lies on: a picture in true colour, or the shape of the land, made from means of pixels.

Pure: pixels come in as arrays, window by window, so that memory does not depend on the size of the map.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Colour of what was not observed, and of the page around the map: a light grey.
PAPER = (238, 241, 239)
#: Ends of the stretch, percentiles of what was observed: a cloud that was missed or a lake does not darken the rest.
STRETCH_PERCENT = (2.0, 98.0)
#: Exponent of the stretched reflectance: forests are dark, and a map lies over them.
BRIGHTEN = 0.7
#: Quality of the JPEG (0 to 95), about 2 bits a pixel: nobody measures on it.
JPEG_QUALITY = 80
#: The light of the relief, degrees: from the north-west, halfway up, as on printed maps (Horn 1981, "Hill shading and
#: the reflectance map", Proceedings of the IEEE 69).
AZIMUTH_DEG, ALTITUDE_DEG = 315.0, 45.0
#: Heights are multiplied until the slope of this percentile is as steep as this, degrees; at most so much.
STEEP_PERCENT, STEEP_DEG, MOST_EXAGGERATION = 98.0, 35.0, 20
#: Grey of the darkest slope and of the brightest: the colours of a map over it must stay apart.
RELIEF_GREYS = (70.0, 250.0)


@dataclass
class Means:
    """Means of the pixels of a large raster in the pixels of a small one, taken window by window."""

    bands: int
    """Bands of the raster, which are observed together."""
    shape: tuple[int, int]
    """Rows and columns of the raster."""
    size: tuple[int, int]
    """Rows and columns of the small one, no more than of the raster."""
    _sums: NDArray[np.float32] = field(init=False, repr=False)
    _counts: NDArray[np.uint32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._sums = np.zeros((self.bands, *self.size), dtype=np.float32)
        self._counts = np.zeros(self.size, dtype=np.uint32)

    def add(self, y0: int, x0: int, values: NDArray[np.float32]) -> None:
        """Add a window: values (band, height, width), NaN where not observed, whose first pixel is (y0, x0)."""
        seen: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=0))
        rows = _bins(y0, values.shape[1], self.shape[0], self.size[0])
        cols = _bins(x0, values.shape[2], self.shape[1], self.size[1])
        for band in range(self.bands):
            _add(self._sums[band], rows, cols, np.where(seen, values[band], np.float32(0)))
        _add(self._counts, rows, cols, seen.astype(np.uint32))

    @property
    def values(self) -> NDArray[np.float32]:
        """The means, (band, rows, columns), NaN where nothing was observed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self._sums / self._counts.astype(np.float32), dtype=np.float32)


_Bins = tuple[slice, NDArray[np.intp]]


def _add(total: NDArray[Any], rows: _Bins, cols: _Bins, values: NDArray[Any]) -> None:
    across = np.add.reduceat(values, cols[1], axis=1)
    total[rows[0], cols[0]] += np.add.reduceat(across, rows[1], axis=0)


def _bins(first: int, count: int, source: int, target: int) -> _Bins:
    """Where pixels of one axis fall: the small raster's pixels, and at which of these ``count`` each of them starts.

    A pixel belongs to where its centre lies, in whole numbers, so that no rounding moves it.
    """
    centre = 2 * np.arange(first, first + count, dtype=np.int64) + 1
    place = centre * target // (2 * source)
    starts = np.flatnonzero(np.diff(place, prepend=place[0] - 1))
    return slice(int(place[0]), int(place[-1]) + 1), starts


def reduced_size(shape: tuple[int, int], longest_px: int) -> tuple[int, int]:
    """Rows and columns of a picture of a raster: its own, or fewer, so that no side is longer than ``longest_px``."""
    shrink = min(1.0, longest_px / max(shape))
    return max(1, round(shape[0] * shrink)), max(1, round(shape[1] * shrink))


def true_colour(reflectance: NDArray[np.float32]) -> bytes | None:
    """Draw red, green and blue reflectance as people see it: haze taken off each, all stretched alike.

    Black is the low percentile of each band, which takes off what the air adds; one gain serves all three, that of the
    band with the widest span, so that hues stay what they are.

    Args:
        reflectance: (3, y, x), surface reflectance 0-1 nominal, NaN where not observed.

    Returns:
        A JPEG; None where nothing was observed.
    """
    seen = np.isfinite(reflectance).all(axis=0)
    if not seen.any():
        return None
    image = np.empty((*seen.shape, 3), dtype=np.uint8)
    ends = [np.percentile(values[seen], STRETCH_PERCENT) for values in reflectance]
    span = max(1e-6, *(high - low for low, high in ends))
    for band, (low, _) in enumerate(ends):
        share = np.clip((reflectance[band] - low) / span, 0, 1) ** BRIGHTEN
        image[..., band] = np.where(seen, np.rint(255 * np.nan_to_num(share)), PAPER[band]).astype(np.uint8)
    return _jpeg(image)


def shaded_relief(elevation: NDArray[np.float32], pixel_m: float) -> tuple[bytes, int] | None:
    """Draw the shape of the land as if a low sun shone from the north-west.

    The light on a slope is ``cos(z) cos(s) + sin(z) sin(s) cos(a - b)`` for the sun's zenith angle ``z`` and azimuth
    ``a`` and a slope ``s`` that faces ``b`` (Horn 1981); slopes are central differences.

    Args:
        elevation: (y, x), metres, north up, NaN where not known.
        pixel_m: Side of a pixel, metres.

    Returns:
        A JPEG, and by how much heights were multiplied; None where fewer than two rows or columns are known.
    """
    seen = np.isfinite(elevation)
    if min(elevation.shape) < 2 or not seen.any():
        return None
    # float32 throughout: a picture of millions of pixels
    down, east = (np.asarray(rise) for rise in np.gradient(elevation, np.float32(pixel_m)))
    unknown = ~(np.isfinite(down) & np.isfinite(east))
    np.copyto(down, 0, where=unknown)
    np.copyto(east, 0, where=unknown)
    steep = float(np.percentile(np.hypot(down, east)[seen], STEEP_PERCENT))
    wanted = math.tan(math.radians(STEEP_DEG)) / steep if steep > 0 else 1.0
    times = int(min(max(round(wanted), 1), MOST_EXAGGERATION))
    zenith, azimuth = math.radians(90.0 - ALTITUDE_DEG), math.radians(AZIMUTH_DEG)
    toward_sun = east * math.sin(azimuth) - down * math.cos(azimuth)  # rise toward the sun; rows grow to the south
    light = (math.cos(zenith) - math.sin(zenith) * times * toward_sun) / np.sqrt(1 + times**2 * (down**2 + east**2))
    dark, bright = RELIEF_GREYS
    grey = np.rint(dark + (bright - dark) * np.clip(light, 0, 1)).astype(np.uint8)
    return _jpeg(np.where(seen[..., None], grey[..., None], np.array(PAPER, dtype=np.uint8))), times


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    target = io.BytesIO()
    Image.fromarray(image).save(target, "jpeg", quality=JPEG_QUALITY, optimize=True, progressive=True)
    return target.getvalue()
