"""Map one block with any model.

Tiles have one fixed shape and start at multiples of ``tile`` from the grid's origin; a block is a union of tiles and
only schedules the work. So a pixel's answer depends on the grid and the model alone, never on how the map was cut.
What lies beyond the grid is either unobserved, or a copy of the nearest pixel of the grid's edge: the model says which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import UsageError
from wetmap.geo.grid import Block
from wetmap.mapping.layers import NOTHING, Keep, Layers


class TileGeometry(Protocol):
    """The geometry a model declares."""

    @property
    def tile(self) -> int:
        """Side of the tile it answers for, pixels."""

    @property
    def margin(self) -> int:
        """Context it needs on each side, pixels."""

    @property
    def beyond(self) -> Literal["unobserved", "nearest"]:
        """What it sees beyond the grid: nothing, or the nearest pixel of the edge, its features and what was seen."""


class Predictor(Protocol):
    """Anything that turns tiles of features into class probabilities."""

    @property
    def geometry(self) -> TileGeometry:
        """Tile and margin."""

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Features (B, C, T+2m, T+2m), NaN where not observed; observed (B, L, T+2m, T+2m); answers (B, K, T, T)."""


class WindowReader(Protocol):
    """Anything that reads windows of features."""

    def read_window(self, y0: int, x0: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features (C, height, width) and observed (L, height, width); unobserved outside the grid."""


@runtime_checkable
class GridReader(WindowReader, Protocol):
    """A reader that knows where its grid ends and can be asked first what was observed, such as the cube."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid, pixels."""

    def read_features(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.float32]:
        """Features (C, height, width), NaN where not observed and outside the grid."""

    def read_observed(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.bool_]:
        """Observed (L, height, width), False outside the grid."""


@dataclass(frozen=True)
class BlockMap:
    """The map of one block."""

    index: NDArray[np.uint8]
    """Class index (height, width); meaningless where not valid."""
    probability: NDArray[np.float32]
    """Probability of that class (height, width), 0-1."""
    valid: NDArray[np.bool_]
    """Pixels in the area that any sensor observed (height, width)."""
    probabilities: NDArray[np.uint8] | None = None
    """Of all classes, (K, height, width), percent, 255 where not valid; None if not asked for, or nothing is valid."""
    entropy: NDArray[np.uint8] | None = None
    """Their normalised entropy, (height, width), percent of the most, 255 where not valid; None as above."""


@dataclass(frozen=True)
class BlockInput:
    """What was read of a block: all that a model sees of it."""

    features: NDArray[np.float32]
    """(C, h, w) of the block and its margin, or of that part of it which lies on the grid."""
    observed: NDArray[np.bool_]
    """(L, h, w), the same window."""
    y0: int
    """Row of the grid at which these arrays begin."""
    x0: int
    """Column of the grid at which these arrays begin."""

    def cut(self, y: int, x: int, side: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A square of the grid, (1, C, side, side) and (1, L, side, side), contiguous.

        Beyond the arrays their edge is repeated: they end there only where the grid does.
        """
        height, width = self.features.shape[1:]
        rows = np.clip(np.arange(y - self.y0, y - self.y0 + side), 0, height - 1)
        cols = np.clip(np.arange(x - self.x0, x - self.x0 + side), 0, width - 1)
        if rows[-1] - rows[0] == cols[-1] - cols[0] == side - 1:
            inner = (slice(None), slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
            return np.ascontiguousarray(self.features[inner])[None], np.ascontiguousarray(self.observed[inner])[None]
        return (
            self.features.take(rows, axis=1).take(cols, axis=2)[None],
            self.observed.take(rows, axis=1).take(cols, axis=2)[None],
        )


def whole_tiles(block_px: int, tile: int) -> int:
    """The smallest whole number of tiles that holds ``block_px``, pixels."""
    return math.ceil(block_px / tile) * tile


def map_block(
    reader: WindowReader,
    predictor: Predictor,
    block: Block,
    inside: NDArray[np.bool_],
    *,
    turn: AbstractContextManager[object] | None = None,
    keep: Keep = NOTHING,
) -> BlockMap:
    """Map a block.

    Args:
        reader: Gives features and observed masks of any window. One that is a ``GridReader`` is first asked what was
            observed, and for features only where a pixel of the area was.
        predictor: The model.
        block: Its origin is a multiple of the model's tile.
        inside: Pixels of the block that lie in the area, (height, width).
        turn: Held while the model works, and not while reading: with a lock, one block is read while another is
            inferred. None: nothing is waited for.
        keep: What is kept of the answer beside that.

    Returns:
        Class index, probability of that class, and validity, each (height, width), and what ``keep`` asks for. Of equal
        probabilities the first class wins.

    Raises:
        UsageError: The model repeats the edge beyond the grid, and the reader does not know where the grid ends.
    """
    index = np.zeros((block.height, block.width), dtype=np.uint8)
    probability = np.zeros((block.height, block.width), dtype=np.float32)
    held, valid = read_block(reader, predictor.geometry, block, inside)
    if held is None:
        return BlockMap(index, probability, valid)
    tile, margin = predictor.geometry.tile, predictor.geometry.margin
    layers = Layers(keep, valid)
    with nullcontext() if turn is None else turn:
        for y, x in _tiles(valid, tile):
            around = held.cut(block.y0 + y - margin, block.x0 + x - margin, tile + 2 * margin)
            whole = predictor.tile_probabilities(*around)[0]
            answer = whole[:, : block.height - y, : block.width - x]
            index[y : y + tile, x : x + tile] = answer.argmax(axis=0)
            probability[y : y + tile, x : x + tile] = answer.max(axis=0)
            layers.add(whole, y, x)
    return BlockMap(index, probability, valid, layers.probabilities, layers.entropy)


def read_block(
    reader: WindowReader, geometry: TileGeometry, block: Block, inside: NDArray[np.bool_]
) -> tuple[BlockInput | None, NDArray[np.bool_]]:
    """Read what a model needs to map a block, and no more.

    Args:
        reader: As for ``map_block``.
        geometry: Tile and margin of the model, and what it sees beyond the grid.
        block: Its origin is a multiple of the tile.
        inside: Pixels of the block that lie in the area, (height, width).

    Returns:
        What was read, or None where no pixel is valid; and the valid pixels (height, width): in the area, and observed
        by any sensor.

    Raises:
        UsageError: As for ``map_block``.
    """
    if not inside.any():
        return None, np.zeros((block.height, block.width), dtype=np.bool_)
    tile, margin = geometry.tile, geometry.margin
    top, left = block.y0 - margin, block.x0 - margin
    bottom, right = (
        start + whole_tiles(size, tile) + margin for start, size in ((block.y0, block.height), (block.x0, block.width))
    )
    if geometry.beyond == "nearest":
        if not isinstance(reader, GridReader):
            raise UsageError(
                f"The model repeats the edge of the grid, and {type(reader).__name__} does not say where that is.",
                do="Give a reader with shape, read_features and read_observed, such as the cube.",
            )
        top, left = max(top, 0), max(left, 0)
        bottom, right = min(bottom, reader.shape[0]), min(right, reader.shape[1])
    window = (top, left, bottom - top, right - left)
    if not isinstance(reader, GridReader):
        features, observed = reader.read_window(*window)
        return BlockInput(features, observed, top, left), inside & _seen(observed, block, top, left)
    observed = reader.read_observed(*window)
    valid = inside & _seen(observed, block, top, left)
    if not valid.any():
        return None, valid
    return BlockInput(reader.read_features(*window), observed, top, left), valid


def _seen(observed: NDArray[np.bool_], block: Block, top: int, left: int) -> NDArray[np.bool_]:
    """Pixels of a block that any sensor observed; those beyond what was read were not."""
    here = observed[:, block.y0 - top :, block.x0 - left :][:, : block.height, : block.width].any(axis=0)
    seen = np.zeros((block.height, block.width), dtype=np.bool_)
    seen[: here.shape[0], : here.shape[1]] = here
    return seen


def _tiles(valid: NDArray[np.bool_], tile: int) -> Iterator[tuple[int, int]]:
    """Corners of the tiles that hold a valid pixel, from the block's, row by row."""
    for y in range(0, valid.shape[0], tile):
        for x in range(0, valid.shape[1], tile):
            if valid[y : y + tile, x : x + tile].any():
                yield y, x
