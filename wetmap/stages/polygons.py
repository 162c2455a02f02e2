"""polygons.gpkg from the final map: one polygon per patch, whole across blocks.

Two passes over the map in blocks. The first joins what is known of the patches on the blocks' rims. The second traces
outlines: of patches inside a block at once, of all others when their corners are together; in between these lie in a
temporary database. In memory are one block, the table of patches on rims, and the outline that is being traced: the
longest one of the map, or some hundred thousand corners.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wetmap.classes import MapClass
from wetmap.geo import Block, Grid
from wetmap.mapping.outlines import CORNER_COLUMNS, PART, find_corners, trace
from wetmap.mapping.patches import NONE, Connectivity, Ints, Rims, RimTable, Survey, number_patches, survey
from wetmap.mapping.postprocess import CM2_PER_HA, area_cm2
from wetmap.products.polygons import Polygon, new_database, write_polygons
from wetmap.stages.map_steps import BLOCK_PX
from wetmap.stages.predict import NO_CONFIDENCE

#: Corners of patches on rims that are traced together.
BATCH_CORNERS = 200_000

Reader = Callable[[Block], NDArray[np.uint8]]


@dataclass(frozen=True)
class MapReaders:
    """The map to make polygons of."""

    grid: Grid
    """Its grid."""
    classes: Reader
    """Codes of a block, (height, width), 0 = nodata."""
    confidence: Reader
    """Percent, 255 = unknown."""


@dataclass(frozen=True)
class _Found:
    """The patches of a block: the number of each pixel's part and patch, and what is summed over patches."""

    parts: Ints
    patches: Ints
    part_survey: Survey
    patch_survey: Survey


def make_polygons(
    path: Path,
    source: MapReaders,
    classes: Sequence[MapClass],
    connectivity: Connectivity,
    *,
    simulated: bool,
    block_px: int = BLOCK_PX,
) -> None:
    """Write polygons.gpkg.

    Args:
        path: The file.
        source: The map.
        classes: Its classes.
        connectivity: What makes a patch.
        simulated: Whether the map is of a simulated landscape.
        block_px: Side of the blocks, pixels; changes nothing in the file.

    Raises:
        WorkspaceError: The disk is full or the file cannot be written.
    """
    blocks = list(source.grid.blocks(block_px))
    part_table, patch_table = RimTable(4), RimTable(connectivity)
    for block in blocks:
        found = _find(source, block, connectivity)
        part_table.add(block, found.part_survey)
        patch_table.add(block, found.patch_survey)
    patch_rims = patch_table.close()
    with new_database(path.with_name(f".tmp-spool-{path.name}"), path) as connection:
        spool = _Spool(connection, source.grid)
        _Tracer(source, connectivity, part_table.close(), patch_rims, spool).run(blocks)
        spool.finish(patch_rims)
        write_polygons(path, spool.polygons(), classes, source.grid, simulated=simulated)


def _find(source: MapReaders, block: Block, connectivity: Connectivity) -> _Found:
    codes, percent = source.classes(block), source.confidence(block).astype(np.int64)
    known = percent != NO_CONFIDENCE
    measures = (area_cm2(source.grid, block), np.where(known, percent, 0), known.astype(np.int64))
    patches = survey(codes, block, source.grid.width, connectivity, measures)
    parts = patches if connectivity == 4 else survey(codes, block, source.grid.width, 4)
    numbers = number_patches(codes, 4)
    return _Found(numbers, numbers if connectivity == 4 else number_patches(codes, connectivity), parts, patches)


class _Tracer:
    """The second pass: names every pixel's part and patch by their first pixels, and finds the corners between them."""

    def __init__(
        self, source: MapReaders, connectivity: Connectivity, part_rims: Rims, patch_rims: Rims, spool: _Spool
    ) -> None:
        self.source, self.connectivity, self.spool = source, connectivity, spool
        self.part_rims, self.patch_rims = part_rims, patch_rims
        width = source.grid.width
        # (2, width + 1): part and patch of the last row of the blocks above, beginning left of the map
        self.above = np.full((2, width + 1), NONE, dtype=np.int64)
        self.below = self.above.copy()

    def run(self, blocks: Sequence[Block]) -> None:
        left: Ints | None = None
        for place, block in enumerate(blocks):
            if block.col == 0:
                self.above, self.below, left = self.below, np.full_like(self.below, NONE), None
            names = self._block(place, block, left)
            left = names[:, :, -1]
            self.below[:, block.x0 + 1 : block.x0 + 1 + block.width] = names[:, -1]

    def _block(self, place: int, block: Block, left: Ints | None) -> Ints:
        """Trace what lies inside a block and spool the rest; gives each pixel's part and patch, (2, height, width)."""
        found = _find(self.source, block, self.connectivity)
        part_names = _names(found.part_survey, self.part_rims, place)
        patch_names = _names(found.patch_survey, self.patch_rims, place)
        names = np.stack([part_names[found.parts], patch_names[found.patches]])
        grid = self.source.grid
        far = (block.y0 + block.height == grid.height, block.x0 + block.width == grid.width)
        window = np.full((2, block.height + 1 + far[0], block.width + 1 + far[1]), NONE, dtype=np.int64)
        window[:, 0, : block.width + 1] = self.above[:, block.x0 : block.x0 + block.width + 1]
        if left is not None:
            window[:, 1 : block.height + 1, 0] = left
        window[:, 1 : block.height + 1, 1 : block.width + 1] = names
        corners = find_corners(window[0], block.y0, block.x0)
        part, at = np.unique(window[0], return_index=True)
        patch_of = window[1].ravel()[at]
        patch = patch_of[np.searchsorted(part, corners[:, PART])]
        on_rim = np.unique(np.concatenate([patch_names[found.patch_survey.rim], window[1, 0], window[1, :, 0]]))
        waiting = np.isin(patch, on_rim)
        self.spool.add_pieces(corners[waiting], patch[waiting])
        inside = ~np.isin(patch_names[:-1], on_rim)
        own = found.patch_survey
        self.spool.add_patches(
            _Patches(own.first[inside], own.code[inside], own.sums[inside]), corners[~waiting], patch[~waiting]
        )
        return names


@dataclass(frozen=True)
class _Patches:
    """Whole patches."""

    first: Ints
    """(patch,), first pixel, ascending."""
    code: NDArray[np.uint8]
    """(patch,)."""
    sums: Ints
    """(patch, 4): pixels, cm2, percent, pixels with a percentage."""


class _Spool:
    """Patches and pieces of outlines in a temporary database, in the order of their first pixels."""

    def __init__(self, connection: sqlite3.Connection, grid: Grid) -> None:
        self.connection, self.grid = connection, grid
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE patch (first INTEGER PRIMARY KEY, code, pixels, cm2, percent, known, wkb, x0, y0, x1, y1)",
            "CREATE TABLE piece (patch INTEGER, corners BLOB)",
            "BEGIN",
        ):
            connection.execute(statement)

    def add_pieces(self, corners: Ints, patch: Ints) -> None:
        """Keep corners of patches that are not whole yet."""
        order = np.argsort(patch, kind="stable")
        names, starts = np.unique(patch[order], return_index=True)
        pieces = np.split(corners[order], starts[1:])
        rows = ((name, piece.tobytes()) for name, piece in zip(names.tolist(), pieces, strict=False))
        self.connection.executemany("INSERT INTO piece VALUES (?, ?)", rows)

    def add_patches(self, patches: _Patches, corners: Ints, patch: Ints) -> None:
        """Trace whole patches and keep them.

        Args:
            patches: The patches.
            corners: All their corners.
            patch: The patch of each corner, (corner,).
        """
        if not len(patches.first):
            return
        outlines = trace(corners)
        lattice = outlines.corners.astype(np.float64)
        xy = np.stack(
            [self.grid.left + lattice[:, 0] * self.grid.res_m, self.grid.top - lattice[:, 1] * self.grid.res_m], axis=1
        )
        shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (outlines.rings, outlines.parts))
        part, at = np.unique(corners[:, PART], return_index=True)
        of_patch = np.searchsorted(patches.first, patch[at][np.searchsorted(part, outlines.part)])
        order = np.argsort(of_patch, kind="stable")
        whole = shapely.multipolygons(shapes[order], indices=of_patch[order])
        wkb: Any = shapely.to_wkb(whole, byte_order=1, flavor="iso")
        columns = [patches.first.tolist(), patches.code.tolist(), *patches.sums.T.tolist(), wkb.tolist()]
        rows = zip(*columns, *shapely.bounds(whole).T.tolist(), strict=True)
        self.connection.executemany("INSERT INTO patch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def finish(self, rims: Rims) -> None:
        """Trace the patches on rims, whose pieces are together now."""
        self.connection.execute("CREATE INDEX piece_patch ON piece (patch)")
        order = np.argsort(rims.first)
        patches = _Patches(rims.first[order], rims.code[order], rims.sums[order])
        begun, corners, names = 0, [], []
        for place, name in enumerate(patches.first.tolist()):
            pieces = self.connection.execute("SELECT corners FROM piece WHERE patch = ? ORDER BY rowid", (name,))
            own = np.concatenate([np.frombuffer(row[0], dtype=np.int64) for row in pieces]).reshape(-1, CORNER_COLUMNS)
            corners.append(own)
            names.append(np.full(len(own), name))
            if sum(map(len, corners)) >= BATCH_CORNERS or place == len(patches.first) - 1:
                some = slice(begun, place + 1)
                batch = _Patches(patches.first[some], patches.code[some], patches.sums[some])
                self.add_patches(batch, np.concatenate(corners), np.concatenate(names))
                begun, corners, names = place + 1, [], []

    def polygons(self) -> Iterator[Polygon]:
        """Every patch, in the order of the first pixels."""
        for _, code, pixels, cm2, percent, known, wkb, *box in self.connection.execute(
            "SELECT * FROM patch ORDER BY first"
        ):
            confidence = percent / known if known else None
            yield Polygon(code, pixels, cm2 / CM2_PER_HA, confidence, wkb, (box[0], box[1], box[2], box[3]))


def _names(found: Survey, rims: Rims, place: int) -> Ints:
    """First pixel of each part or patch of a block, over the whole map; the last entry, for -1, is none."""
    names = np.append(found.first, NONE)
    names[found.rim] = rims.first[rims.of_block[place]]
    return names
