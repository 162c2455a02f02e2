"""A finished map of classes, read back from its GeoTIFF: its grid, its classes, and a checksum of them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from wetmap.classes import MapClass, palette_colour
from wetmap.errors import SourceError
from wetmap.geo import Block, Grid

#: Value of pixels without a class.
NO_CLASS = 0
#: Classes without a name that a map may have, at most: more are a measure, not classes.
MOST_UNNAMED = 60
#: Rows that are read at a time, pixels.
STRIP_PX = 512


@dataclass(frozen=True)
class ClassMap:
    """A GeoTIFF of class codes, 0 where there is none. Opened anew for every read."""

    path: Path
    """The file."""
    grid: Grid
    """Its grid."""
    classes: tuple[MapClass, ...]
    """Its classes, from the table beside it, or one per code that occurs."""
    simulated: bool = False
    """Whether it is a map of a simulated landscape."""
    words: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The class that a value of its reference data stands for, by value, where that is known."""

    @functools.cached_property
    def sha256(self) -> str:
        """Checksum of the class codes, row after row: the same for the same map, however it is compressed."""
        digest = hashlib.sha256(repr((self.grid.crs, self.grid.transform[:6], self.grid.shape)).encode())
        for _, codes in self.strips():
            digest.update(codes.tobytes())
        return digest.hexdigest()

    def strips(self) -> Iterator[tuple[Block, NDArray[np.uint8]]]:
        """The map from top to bottom: blocks as wide as the map, and their codes (height, width)."""
        with _opened(self.path) as raster:
            for number, y0 in enumerate(range(0, self.grid.height, STRIP_PX)):
                height = min(STRIP_PX, self.grid.height - y0)
                block = Block(number, 0, y0, 0, height, self.grid.width)
                yield block, raster.read(1, window=Window(0, y0, self.grid.width, height))

    def codes_at(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Codes of single pixels, (n,); 0 outside the map."""
        found = np.zeros(rows.shape, dtype=np.uint8)
        within = (rows >= 0) & (rows < self.grid.height) & (cols >= 0) & (cols < self.grid.width)
        for block, codes in self.strips():
            here = within & (rows >= block.y0) & (rows < block.y0 + block.height)
            found[here] = codes[rows[here] - block.y0, cols[here]]
        return found


def open_class_map(path: Path) -> ClassMap:
    """Open a map of classes.

    Raises:
        SourceError: It cannot be read, is not a raster of 8-bit codes on square pixels, or its table is damaged.
    """
    with _opened(path) as raster:
        a = raster.transform
        if (
            raster.count != 1
            or raster.dtypes[0] != "uint8"
            or raster.crs is None
            or a.b
            or a.d
            or abs(a.a + a.e) > 1e-9 * a.a
        ):
            raise SourceError(
                f"{path} is not a map of classes: one band of 8-bit codes, a CRS and square pixels with north up are "
                "needed.",
                do="Give the classes.tif of a finished map.",
            )
        code, simulated = raster.crs.to_epsg(), "SIMULATED" in raster.tags()
        crs = f"EPSG:{code}" if code is not None else raster.crs.to_wkt()
        grid = Grid(crs, float(a.a), float(a.c), float(a.f), raster.height, raster.width)
    bare = ClassMap(path, grid, ())
    named = _table(path)
    occurring = {int(c) for _, codes in bare.strips() for c in np.unique(codes)} - {NO_CLASS}
    missing = sorted(occurring - {row.code for row in named})
    if 255 in missing or len(missing) > MOST_UNNAMED:
        raise SourceError(
            f"{path} is not a map of classes: it holds {len(occurring)} values, {len(missing)} of them without a name.",
            do="Give the classes.tif of a finished map.",
        )
    others = tuple(MapClass(code, f"class {code}", palette_colour(f"class {code}", code)) for code in missing)
    return ClassMap(path, grid, (*named, *others), simulated)


def _opened(path: Path) -> rasterio.DatasetReader:
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise SourceError(
            f"{path} cannot be read ({error}).", do="Give the classes.tif of a finished map (wetmap predict makes it)."
        ) from error


def _table(path: Path) -> tuple[MapClass, ...]:
    """Names and colours from the raster attribute table in NAME.tif.aux.xml; none where there is no such file."""
    beside = path.with_name(f"{path.name}.aux.xml")
    if not beside.exists():
        return ()
    try:
        rows = _parsed(beside.read_text(encoding="utf-8")).findall(".//GDALRasterAttributeTable/Row")
        cells = [[cell.text or "" for cell in row.findall("F")] for row in rows]
        return tuple(
            MapClass(int(code), name, "#{:02x}{:02x}{:02x}".format(*map(int, rgb))) for code, name, *rgb in cells
        )
    except (ElementTree.ParseError, ValueError, IndexError) as error:
        raise SourceError(
            f"The class names in {beside} cannot be read ({error}).",
            do="Delete that file, or run the same wetmap predict again, which writes it anew.",
        ) from error


def _parsed(text: str) -> ElementTree.Element:
    if "<!" in text:  # no entities and no external files: nobody writes them here for good
        raise ValueError("it holds a document type declaration")
    return ElementTree.fromstring(text)  # noqa: S314 - see above
