"""Map one block with any model.

Tiles have one fixed shape and start at multiples of ``tile`` from the grid's origin; a block is a union of tiles and
only schedules the work. So a pixel's answer depends on the grid and the model alone, never on how the map was cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wetmap.geo.grid import Block


class TileGeometry(Protocol):
    """The geometry a model declares."""

    @property
    def tile(self) -> int:
        """Side of the tile it answers for, pixels."""

    @property
    def margin(self) -> int:
        """Context it needs on each side, pixels."""


class Predictor(Protocol):
    """Anything that turns tiles of features into class probabilities."""

    @property
    def geometry(self) -> TileGeometry:
        """Tile and margin."""

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Features (B, C, T+2m, T+2m), NaN where not observed; observed (B, L, T+2m, T+2m); answers (B, K, T, T)."""


class WindowReader(Protocol):
    """Anything that reads windows of features, such as the cube."""

    def read_window(self, y0: int, x0: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features (C, height, width) and observed (L, height, width); unobserved outside the grid."""


@dataclass(frozen=True)
class BlockMap:
    """The map of one block."""

    index: NDArray[np.uint8]
    """Class index (height, width); meaningless where not valid."""
    probability: NDArray[np.float32]
    """Probability of that class (height, width), 0-1."""
    valid: NDArray[np.bool_]
    """Pixels in the area that any sensor observed (height, width)."""


def whole_tiles(block_px: int, tile: int) -> int:
    """The smallest whole number of tiles that holds ``block_px``, pixels."""
    return math.ceil(block_px / tile) * tile


def map_block(reader: WindowReader, predictor: Predictor, block: Block, inside: NDArray[np.bool_]) -> BlockMap:
    """Map a block.

    Args:
        reader: Gives features and observed masks of any window.
        predictor: The model.
        block: Its origin is a multiple of the model's tile.
        inside: Pixels of the block that lie in the area, (height, width).

    Returns:
        Class index, probability of that class, and validity, each (height, width). Of equal probabilities the first
        class wins.
    """
    tile, margin = predictor.geometry.tile, predictor.geometry.margin
    rows, cols = math.ceil(block.height / tile), math.ceil(block.width / tile)
    features, observed = reader.read_window(
        block.y0 - margin, block.x0 - margin, rows * tile + 2 * margin, cols * tile + 2 * margin
    )
    seen = observed[:, margin : margin + block.height, margin : margin + block.width].any(axis=0)
    valid = inside & seen
    index = np.zeros((rows * tile, cols * tile), dtype=np.uint8)
    probability = np.zeros((rows * tile, cols * tile), dtype=np.float32)
    for y in range(0, rows * tile, tile):
        for x in range(0, cols * tile, tile):
            if not valid[y : y + tile, x : x + tile].any():
                continue
            around = (slice(None), slice(y, y + tile + 2 * margin), slice(x, x + tile + 2 * margin))
            answer = predictor.tile_probabilities(
                np.ascontiguousarray(features[around])[None], np.ascontiguousarray(observed[around])[None]
            )[0]
            index[y : y + tile, x : x + tile] = answer.argmax(axis=0)
            probability[y : y + tile, x : x + tile] = answer.max(axis=0)
    cut = (slice(0, block.height), slice(0, block.width))
    return BlockMap(index[cut], probability[cut], valid)
