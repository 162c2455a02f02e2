"""Cloud-Optimized GeoTIFFs, written window by window.

The raster is streamed into a temporary tiled GeoTIFF, from which GDAL's COG driver makes the file with its overviews.
What was written is read back and compared before the file gets its name: GDAL does not report every failed write.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import ArrayLike, NDArray
from rasterio._err import CPLE_BaseError  # what failed writes raise; rasterio has no public name for it
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from wetmap.errors import WorkspaceError
from wetmap.gdal_cache import bound_gdal_cache
from wetmap.geo import Block, Grid
from wetmap.workspace import disk_full

#: Side of the windows that are read and of the tiles in the file, pixels: a multiple of 16 (TIFF 6.0, section 15).
TILE_PX = 512
#: A disk with less left than this, after a failed write, was full. Bytes.
FULL_BELOW = 1_000_000
#: What a failed read or write of a raster raises; rasterio raises SystemError where GDAL fails without saying why.
DISK_ERRORS = (OSError, RasterioError, CPLE_BaseError, SystemError)

Overview: TypeAlias = Literal["mode", "average", "nearest"]
"""How coarser pixels are made: the commonest class, the mean, or the upper-left pixel."""


class Layer(TypedDict):
    """What kind of raster is written."""

    dtype: str
    """Data type of the pixels, as numpy and GDAL name it (``uint8``, ``float32``)."""
    nodata: float | None
    """Value that means nothing is known there; None where there is none. NaN is allowed."""
    overview: Overview
    """How coarser pixels are made; nodata takes no part."""
    colours: Mapping[int, str] | None
    """``#rrggbb`` by pixel value, for ``uint8`` classes; None for no colour table."""
    description: str | tuple[str, ...]
    """Name of the band in a GIS; or the names of several, one each."""
    tags: Mapping[str, str]
    """Metadata of the file, by name."""


def write_cog(path: Path, grid: Grid, read: Callable[[Block], ArrayLike], **layer: Unpack[Layer]) -> None:
    """Write a raster as a Cloud-Optimized GeoTIFF.

    Memory does not depend on the size of the raster, and the same pixels give the same bytes.

    Args:
        path: The file; an old one is replaced in one step at the end, and stays if anything fails.
        grid: The raster's grid.
        read: Pixels of a block of the grid, (height, width), or (band, height, width) where ``description`` is a tuple,
            of a type that fits ``dtype``; called once per window of 512 px, row by row from the grid's origin.
        layer: What kind of raster it is, by keyword: see `Layer`.

    Raises:
        WorkspaceError: The disk is full or the file cannot be written; what ``read`` raises comes through unchanged.
        ValueError: ``read`` returns pixels of another shape or of a type that does not fit.
    """
    tiles, fresh = path.with_name(f".tmp-tiles-{path.name}"), path.with_name(f".tmp-{path.name}")
    _remove(tiles, fresh)
    bound_gdal_cache()
    try:
        # One thread and no side files: bytes depend on nothing but the pixels.
        with rasterio.Env(GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO"):
            checksum = _write_tiles(tiles, path, grid, read, layer)
            with _disk_errors(path):
                rasterio.shutil.copy(tiles, fresh, **_cog_options(layer))
                if _checksum(fresh, grid, _bands(layer)) != checksum:
                    raise OSError(errno.EIO, "what was written is not what is read back")
        with _disk_errors(path):
            fresh.replace(path)
    finally:
        _remove(tiles, fresh)


def _write_tiles(tiles: Path, product: Path, grid: Grid, read: Callable[[Block], ArrayLike], layer: Layer) -> int:
    """Stream the raster into a tiled GeoTIFF, on the way to ``product``; returns the checksum of its pixels."""
    bands, names = _bands(layer), _names(layer)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": layer["dtype"],
        "count": len(names),
        "height": grid.height,
        "width": grid.width,
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": layer["nodata"],
        "tiled": True,
        "blockxsize": TILE_PX,
        "blockysize": TILE_PX,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }
    if len(names) > 1:  # three bands are no picture, and the fourth is no transparency
        profile |= {"photometric": "minisblack", "alpha": "no"}
    checksum = 0
    with contextlib.ExitStack() as stack:
        with _disk_errors(product):
            target = rasterio.open(tiles, "w", **profile)
            stack.callback(_abandon, target)
            _describe(target, layer)
        for block in grid.blocks(TILE_PX):
            pixels = _fitting(read(block), block, layer)
            checksum = zlib.crc32(pixels.data, checksum)
            with _disk_errors(product):
                target.write(pixels, bands, window=_window(block))
        with _disk_errors(product):
            target.close()
    return checksum


def _abandon(target: Any) -> None:
    """Close a file for good: if something else went wrong first, that is what matters, and not this file's end."""
    with contextlib.suppress(*DISK_ERRORS):
        target.close()


def _describe(target: Any, layer: Layer) -> None:
    """Give the file its colours, names and tags; the colour table has to come before the first pixel."""
    colours = layer["colours"]
    if colours is not None:
        target.write_colormap(1, {value: (*_rgb(colour), 255) for value, colour in sorted(colours.items())})
        target.colorinterp = [ColorInterp.palette]
    for number, name in enumerate(_names(layer), start=1):
        target.set_band_description(number, name)
    target.update_tags(**layer["tags"])


def _names(layer: Layer) -> tuple[str, ...]:
    description = layer["description"]
    return (description,) if isinstance(description, str) else description


def _bands(layer: Layer) -> int | list[int]:
    """What rasterio calls the bands: one number for pixels without a band axis, else a list."""
    description = layer["description"]
    return 1 if isinstance(description, str) else list(range(1, len(description) + 1))


def _cog_options(layer: Layer) -> dict[str, str]:
    """Options of GDAL's COG driver. The predictor is by kind of value: it helps measurements and hurts class codes."""
    if np.issubdtype(np.dtype(layer["dtype"]), np.floating):
        predictor = "FLOATING_POINT"
    else:
        predictor = "STANDARD" if layer["overview"] == "average" else "NO"
    return {
        "driver": "COG",
        "compress": "DEFLATE",
        "predictor": predictor,
        "blocksize": str(TILE_PX),
        "overview_resampling": layer["overview"].upper(),
        "bigtiff": "IF_SAFER",
        "num_threads": "1",
    }


def _fitting(pixels: ArrayLike, block: Block, layer: Layer) -> NDArray[Any]:
    array, dtype, bands = np.asarray(pixels), layer["dtype"], _bands(layer)
    shape = (*(() if isinstance(bands, int) else (len(bands),)), block.height, block.width)
    if array.shape != shape or not np.can_cast(array.dtype, np.dtype(dtype), casting="same_kind"):
        raise ValueError(f"block {block.name} is {array.dtype} {array.shape}, and should be {dtype} {shape}")
    return np.ascontiguousarray(array, dtype=dtype)


def _checksum(path: Path, grid: Grid, bands: int | list[int]) -> int:
    checksum = 0
    with rasterio.open(path) as source:
        for block in grid.blocks(TILE_PX):
            checksum = zlib.crc32(source.read(bands, window=_window(block)).data, checksum)
    return checksum


def _window(block: Block) -> Window:
    return Window(block.x0, block.y0, block.width, block.height)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _remove(*paths: Path) -> None:
    """Remove temporary files, and those that GDAL made beside them and left when it was killed."""
    for path in paths:
        for leftover in path.parent.glob(f"{_glob_escaped(path.name)}*"):
            leftover.unlink(missing_ok=True)


def _glob_escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system and GDAL say of a failed write into words a user can act on."""
    try:
        yield
    except DISK_ERRORS as error:
        free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
        if getattr(error, "errno", None) == errno.ENOSPC or (path.parent.exists() and free < FULL_BELOW):
            raise disk_full(path) from error
        raise WorkspaceError(
            f"{path} could not be written ({_first_line(error)}; {free / 1e6:.1f} MB free).",
            do="Check the folder, its permissions and the space left, and run the same command again.",
        ) from error


def _first_line(error: BaseException) -> str:
    """What GDAL said first: rasterio's own words are often "see previous exception"."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [] if isinstance(error, SystemError) else str(error).strip().splitlines()
    return lines[0] if lines else "GDAL gives no reason"
