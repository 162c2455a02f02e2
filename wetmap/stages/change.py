"""What changed between two finished maps on one grid: a map of transitions, and their pixels and hectares.

Everything is read and written window by window, so memory does not depend on the size of the maps.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from wetmap.classes import MapClass
from wetmap.errors import PartialCoverWarning, SourceError, UsageError
from wetmap.gdal_cache import bound_gdal_cache
from wetmap.geo import Block, Grid
from wetmap.products.change_table import (
    NO_CHANGE,
    OTHER_CHANGE,
    OTHER_STABLE,
    TAG,
    ChangeTable,
    Shown,
    change_table_of,
    pair_name,
    tag_text,
)
from wetmap.products.class_map import NO_CLASS, ClassMap, open_class_map
from wetmap.products.geotiff import TILE_PX, write_cog
from wetmap.products.style import write_class_style
from wetmap.stages.change_colours import colours_of

Pair = tuple[int, int]
Codes = NDArray[np.uint8]
Stable = Literal["by-class", "one"]

#: Codes that a map of classes has room for: 0 is nodata, and 255 is kept free, as in classes.tif.
MOST_CODES = 254
#: Stable classes keep at least so many codes for themselves, however many transitions there are.
STABLE_CODES = 127
#: A group has at least so many pixels, if there are others to take in: a variance needs two units.
LEAST_PX = 2
#: What the figures are, in every row of every table.
BASIS = "pixel count, not an estimate: the errors of both maps show as change"


@dataclass(frozen=True)
class Wish:
    """What map of change is wanted."""

    least_ha: float = 1.0
    """Transitions, and classes that stayed, with less than this are shown in a group, hectares; 0: all by themselves,
    as far as there are codes."""
    stable: Stable = "by-class"
    """What did not change: one class of the map for each, or one for all."""


@dataclass(frozen=True)
class Counts:
    """How much two maps have of every pair of classes."""

    pixels: Mapping[Pair, int]
    """Pixels by codes (before, after), both with a class; pairs that do not occur are left out."""
    hectares: Mapping[Pair, float]
    """Their true area."""
    only_before_ha: float
    """Area with a class in the first map alone, hectares."""
    only_after_ha: float
    """Area with a class in the second alone."""


@dataclass(frozen=True)
class Change:
    """A finished comparison."""

    table: ChangeTable
    """The maps, their classes, and the codes of the map of change."""
    counts: Counts
    """Pixels and hectares of every pair."""
    grid: Grid
    """The grid of all three maps."""
    simulated: bool
    """Whether one of the maps is of a simulated landscape."""

    @property
    def legend(self) -> tuple[MapClass, ...]:
        """The classes of the map of change, with their colours."""
        return colours_of(self.table)


def map_in(path: Path) -> Path:
    """The map of classes that a path means: itself, or ``classes.tif`` in a map's folder or a workspace.

    Raises:
        UsageError: There is none.
    """
    for found in (path, path / "classes.tif", path / "map" / "classes.tif"):
        if found.is_file():
            return found
    raise UsageError(
        f"{path} is no map: there is no such file, and no classes.tif in such a folder.",
        do="Give the classes.tif of a finished map, its folder, or its workspace.",
    )


def compare_maps(before: Path, after: Path, wish: Wish) -> Change:
    """Count every transition, and settle what the map of change shows.

    Args:
        before: The first map: a file, a map's folder or a workspace.
        after: The second.
        wish: What is wanted.

    Raises:
        UsageError: A map is missing, is itself a map of change, or the two differ in grid or classes.
        SourceError: A map cannot be read, or the two have no pixel with a class in common.
    """
    files = map_in(before), map_in(after)
    first, second = (open_class_map(file) for file in files)
    for file in files:
        if change_table_of(file) is not None:
            raise UsageError(f"{file} is itself a map of change.", do="Give the two maps that it was made from.")
    _refuse_other_grid(first, second)
    classes = _common_classes(first, second)
    counts = count_pairs(first, second)
    if not counts.pixels:
        raise SourceError(
            f"No pixel has a class in both {first.path} and {second.path}.", do="Compare maps of the same area."
        )
    for left_out, one, other in (
        (counts.only_before_ha, first, second),
        (counts.only_after_ha, second, first),
    ):
        if left_out:
            warnings.warn(
                f"{left_out:,.1f} ha have a class in {one.path} and none in {other.path}: nothing is known of their "
                "change, and they are left out.",
                PartialCoverWarning,
                stacklevel=2,
            )
    names = _labels(*files)
    shown = shown_codes(classes, counts, wish)
    table = ChangeTable(*names, first.sha256, second.sha256, classes, shown)
    return Change(table, counts, first.grid, first.simulated or second.simulated)


def count_pairs(before: ClassMap, after: ClassMap) -> Counts:
    """Pixels and true hectares of every pair of classes; sums do not depend on the order of the windows."""
    pixels: Counter[Pair] = Counter()
    parts: dict[Pair, list[float]] = {}
    for block, pairs in _windows(before, after):
        area = before.grid.pixel_area_m2(block).ravel() / 1e4
        many = np.bincount(pairs.ravel())
        hectares = np.bincount(pairs.ravel(), weights=area)
        for index in np.flatnonzero(many).tolist():
            pair = divmod(index, 256)
            pixels[pair] += int(many[index])
            parts.setdefault(pair, []).append(float(hectares[index]))
    sums = {pair: math.fsum(values) for pair, values in sorted(parts.items())}
    both = [pair for pair in sums if NO_CLASS not in pair]
    return Counts(
        pixels={pair: pixels[pair] for pair in both},
        hectares={pair: sums[pair] for pair in both},
        only_before_ha=math.fsum(ha for (b, a), ha in sums.items() if b != NO_CLASS and a == NO_CLASS),
        only_after_ha=math.fsum(ha for (b, a), ha in sums.items() if b == NO_CLASS and a != NO_CLASS),
    )


def shown_codes(classes: Sequence[MapClass], counts: Counts, wish: Wish) -> tuple[Shown, ...]:
    """The codes of the map of change: what stayed, in order of class, then transitions, then the group of the small.

    Raises:
        UsageError: The names of the classes are such that two codes would have the same name.
    """
    names = {item.code: item.name for item in classes}
    stayed = [pair for pair in counts.pixels if pair[0] == pair[1]]
    changed = [pair for pair in counts.pixels if pair[0] != pair[1]]
    rows: list[tuple[str, tuple[Pair, ...]]] = []
    if wish.stable == "one":
        rows += [(NO_CHANGE, tuple(stayed))] if stayed else []
    else:
        room = max(STABLE_CODES, MOST_CODES - len(changed))
        rows += _grouped(stayed, counts, wish.least_ha, room, OTHER_STABLE, names)
    rows += _grouped(changed, counts, wish.least_ha, MOST_CODES - len(rows), OTHER_CHANGE, names)
    twice = [name for name, many in Counter(name for name, _ in rows).items() if many > 1]
    if twice:
        raise UsageError(
            f"Two entries of the legend would be called {twice[0]!r}.",
            do="Rename the class whose name looks like a transition or a group.",
        )
    return tuple(Shown(code, name, pairs) for code, (name, pairs) in enumerate(rows, start=1))


def write_change_map(path: Path, change: Change, before: Path, after: Path) -> None:
    """Write change.tif and its style.

    Args:
        path: The file.
        change: What ``compare_maps`` said of the two maps.
        before: The first map, as it was given there.
        after: The second.

    Raises:
        WorkspaceError: The disk is full.
    """
    first, second = (open_class_map(map_in(one)) for one in (before, after))
    code_of = np.zeros(256 * 256, dtype=np.uint8)
    for row in change.table.shown:
        for b, a in row.pairs:
            code_of[256 * b + a] = row.code
    tags = {TAG: tag_text(change.table), "WETMAP_BASIS": BASIS}
    if change.simulated:
        tags["SIMULATED"] = "Made from a simulated landscape. Not a map of any real place."
    with _opened(first, second) as read:
        write_cog(
            path,
            change.grid,
            lambda block: code_of[read(block)],
            dtype="uint8",
            nodata=NO_CLASS,
            overview="mode",
            colours={item.code: item.colour for item in change.legend},
            description="change",
            tags=tags,
        )
    write_class_style(path, change.legend)


def _grouped(
    pairs: Sequence[Pair], counts: Counts, least_ha: float, room: int, group: str, names: Mapping[int, str]
) -> list[tuple[str, tuple[Pair, ...]]]:
    """Names and pairs of the codes for some pairs, the small ones in a group at the end."""
    by_size = sorted(pairs, key=lambda pair: (counts.hectares[pair], pair))
    small = [pair for pair in by_size if counts.hectares[pair] < least_ha]
    if len(pairs) - len(small) + bool(small) > room:
        small = by_size[: len(pairs) - room + 1]
    while small and len(small) < len(pairs) and sum(counts.pixels[pair] for pair in small) < LEAST_PX:
        small = by_size[: len(small) + 1]
    if len(small) == 1 and counts.pixels[small[0]] >= LEAST_PX:
        small = []  # a group of one says less than its name
    apart = set(small)
    rows: list[tuple[str, tuple[Pair, ...]]] = [
        (pair_name(names[b], names[a]), ((b, a),)) for b, a in pairs if (b, a) not in apart
    ]
    return [*rows, (group, tuple(sorted(small)))] if small else rows


def _windows(before: ClassMap, after: ClassMap) -> Iterator[tuple[Block, NDArray[np.uint16]]]:
    """Windows of the grid and their pairs, 256 * before + after, (height, width)."""
    with _opened(before, after) as read:
        for block in before.grid.blocks(TILE_PX):
            yield block, read(block)


class _Reader:
    """Reads the pairs of a window of two maps."""

    def __init__(self, before: rasterio.DatasetReader, after: rasterio.DatasetReader) -> None:
        self._maps = before, after

    def __call__(self, block: Block) -> NDArray[np.uint16]:
        window = Window(block.x0, block.y0, block.width, block.height)
        try:
            b, a = (raster.read(1, window=window).astype(np.uint16) for raster in self._maps)
        except RasterioError as error:
            raise SourceError(
                f"{self._maps[0].name} or {self._maps[1].name} cannot be read ({error}).",
                do="Copy the map anew: the file is damaged.",
            ) from error
        return np.asarray(256 * b + a, dtype=np.uint16)


@contextlib.contextmanager
def _opened(before: ClassMap, after: ClassMap) -> Iterator[_Reader]:
    bound_gdal_cache()
    with rasterio.open(before.path) as first, rasterio.open(after.path) as second:
        yield _Reader(first, second)


def _refuse_other_grid(before: ClassMap, after: ClassMap) -> None:
    if before.grid == after.grid:
        return
    raise UsageError(
        f"The maps lie on different grids: {before.path} on {_place(before.grid)}; {after.path} on "
        f"{_place(after.grid)}.",
        do="Make both maps with the same aoi and the same grid (res_m and crs; or `grid: {align: ...}` with the other "
        "map's classes.tif) in their recipes.",
    )


def _place(grid: Grid) -> str:
    return f"{grid.describe()} from x {grid.left:g}, y {grid.top:g}"


def _common_classes(before: ClassMap, after: ClassMap) -> tuple[MapClass, ...]:
    """The classes of both maps, in the second's colours.

    Raises:
        UsageError: The two say different things with the same code, or one has a class that the other does not know.
    """
    first, second = ({item.code: item for item in one.classes} for one in (before, after))
    for code in sorted(set(first) | set(second)):
        one, other = first.get(code), second.get(code)
        missing = (one is None or other is None) and (_named(before) or _named(after))
        if missing or (one is not None and other is not None and one.name != other.name):
            told = [f"{item.name!r}" if item else "not there" for item in (one, other)]
            raise UsageError(
                f"The maps have different classes: code {code} is {told[0]} in {before.path} and {told[1]} in "
                f"{after.path}.",
                do="Train both with the same classes in the recipe (the same names in the same order), or map both "
                "years with one model (predict --bundle).",
            )
    return tuple(item for _, item in sorted({**first, **second}.items()))


def _named(one: ClassMap) -> bool:
    """Whether a map has a table of its classes; if not, only those that occur are known."""
    return one.path.with_name(f"{one.path.name}.aux.xml").exists()


def _labels(before: Path, after: Path) -> tuple[str, str]:
    """Short names that tell two maps apart: the last part of their paths that differs."""
    pairs = zip(reversed(before.absolute().parts), reversed(after.absolute().parts), strict=False)
    first, second = next(((b, a) for b, a in pairs if b != a), (before.name, after.name))
    return first, second
