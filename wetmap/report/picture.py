"""Pictures of rasters for the report, as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from wetmap.classes import MEASURE_RAMP, MapClass
from wetmap.errors import WorkspaceError

#: Longer side of a picture, pixels, at most: sharp on a page, and small in a file that is sent by mail.
PICTURE_PX = 1100
#: Palette place of pixels where nothing is known; transparent.
NOTHING = 0
#: Colours of a measure in a picture; with `NOTHING` they fit the 256 of a palette.
STEPS = 255


@dataclass(frozen=True)
class Picture:
    """A picture of a raster, north (of the raster's grid) up."""

    png: bytes
    """The picture."""
    width: int
    """Pixels of the picture."""
    height: int
    """Pixels of the picture."""
    ground_width_m: float
    """Width of the raster on the ground, metres of its CRS."""
    ground_height_m: float
    """Height of the raster on the ground, metres of its CRS."""


def class_picture(tif: Path, classes: Sequence[MapClass], *, longest_px: int = PICTURE_PX) -> Picture:
    """Draw a map of classes in its colours; coarser pixels show the commonest class.

    Args:
        tif: The map, one band of class codes.
        classes: The classes; codes of no class are transparent.
        longest_px: Longer side of the picture, pixels, at most.

    Raises:
        WorkspaceError: The map cannot be read.
    """
    codes, ground = read_reduced(tif, longest_px, Resampling.mode)
    palette = np.zeros((256, 3), dtype=np.uint8)
    place = np.zeros(256, dtype=np.uint8)
    for item in classes:
        palette[item.code] = item.rgb
        place[item.code] = item.code
    known = ~np.ma.getmaskarray(codes)
    indices = np.where(known, place[np.clip(codes.filled(0), 0, 255).astype(np.uint8)], NOTHING).astype(np.uint8)
    return _picture(indices, palette, ground)


def measure_picture(tif: Path, low: float, high: float, *, longest_px: int = PICTURE_PX) -> Picture:
    """Draw a measure, such as confidence, from ``low`` (dark) to ``high`` (bright); beyond, as the ends.

    Args:
        tif: The raster, one band; nodata is transparent.
        low: Value of the darkest colour, in the raster's unit.
        high: Value of the brightest colour, in the raster's unit.
        longest_px: Longer side of the picture, pixels, at most.

    Raises:
        WorkspaceError: The raster cannot be read.
    """
    values, ground = read_reduced(tif, longest_px, Resampling.average)
    known = ~np.ma.getmaskarray(values) & np.isfinite(values.filled(np.nan))
    share = (np.where(known, values.filled(low), low) - low) / (high - low)
    indices = np.where(known, 1 + np.rint(np.clip(share, 0, 1) * (STEPS - 1)), NOTHING).astype(np.uint8)
    return _picture(indices, _ramp(), ground)


def read_reduced(
    tif: Path, longest_px: int, resampling: Resampling, *, band: int = 1
) -> tuple[np.ma.MaskedArray, tuple[float, float]]:
    """Read a raster reduced to the size of a picture, from its overviews where it has them.

    Args:
        tif: The raster.
        longest_px: Longer side of the picture, pixels, at most.
        resampling: How coarser pixels are made.
        band: The band, from 1.

    Returns:
        Pixels (y, x), nodata masked, means as floats; and the raster's width and height on the ground, metres of its
        CRS.

    Raises:
        WorkspaceError: The raster cannot be read.
    """
    try:
        with rasterio.open(tif) as source:
            shrink = min(1.0, longest_px / max(source.height, source.width))
            shape = (max(1, round(source.height * shrink)), max(1, round(source.width * shrink)))
            pixels = source.read(band, out_shape=shape, resampling=resampling, masked=True)
            ground = (abs(source.transform.a) * source.width, abs(source.transform.e) * source.height)
    except RasterioError as error:
        raise WorkspaceError(f"{tif} cannot be read ({error}).", do="Run `wetmap predict` again.") from error
    if np.issubdtype(pixels.dtype, np.integer) and resampling is Resampling.average:
        pixels = pixels.astype(np.float64)
    return pixels, ground


def _ramp() -> NDArray[np.uint8]:
    """Palette of a measure: the ramp's stops, linearly interpolated in sRGB, after the place of `NOTHING`."""
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in MEASURE_RAMP], dtype=np.float64)
    at = np.linspace(0, len(stops) - 1, STEPS)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.vstack([np.zeros((1, 3)), np.rint(np.stack(channels, axis=1))]).astype(np.uint8)


def _picture(indices: NDArray[np.uint8], palette: NDArray[np.uint8], ground: tuple[float, float]) -> Picture:
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    target = io.BytesIO()
    image.save(target, "png", transparency=NOTHING, compress_level=9)
    return Picture(target.getvalue(), image.width, image.height, *ground)


def scale_bar_m(ground_width_m: float) -> float:
    """Length of a scale bar: the largest of 1, 2 or 5 times a power of ten within a quarter of the width, metres."""
    limit = ground_width_m / 4
    power = 10.0 ** math.floor(math.log10(limit))
    return next(step * power for step in (5, 2, 1) if step * power <= limit)
