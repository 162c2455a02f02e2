"""How much memory mapping a block takes at most, from sizes alone: what ``--memory`` decides the block's side by."""

from __future__ import annotations

import math

from wetmap.mapping.blocks import TileGeometry, whole_tiles
from wetmap.mapping.layers import Keep

#: Bytes of a feature as the engine holds it (float32) and as the cube stores it (int16).
HELD_BYTES, STORED_BYTES = 4, 2
#: Bytes per pixel of a block's own arrays: class index 1, probability 4, validity, area and what was observed 1 each.
BLOCK_PIXEL_BYTES = 8
#: Bytes per pixel and class of a tile's answers: the model's in float32, and twice in float64 and once more in float32
#: while the temperature is applied.
ANSWER_BYTES = 4 + 2 * 8 + 4
#: Stored chunks that the cube's library decodes at once, at most (``async.concurrency`` of zarr).
CHUNKS_AT_ONCE = 10


def block_bytes(
    bands: int,
    layers: int,
    classes: int,
    block_px: int,
    geometry: TileGeometry,
    *,
    chunk_px: int = 0,
    allowance: int = 0,
) -> int:
    """Upper estimate of what ``map_block`` holds at its peak, bytes; it does not depend on the size of the map.

    With s the block's side with margins, t a tile's, T without, C bands, L layers and K classes: while reading
    ``s^2 (6 C + 2 L + 1)`` and the chunks being decoded, packed and unpacked; afterwards ``s^2 (4 C + L)``, one tile
    with its answers ``t^2 (4 C + L) + 24 K T^2``, and the model's own; in both 8 bytes for each of the block's pixels.
    What is kept of the answer beside its class is not in it: see `kept_bytes`.

    Args:
        bands: Bands of the cube.
        layers: Observed layers of the cube.
        classes: Classes of the model.
        block_px: Side of the block, pixels; rounded up to whole tiles.
        geometry: Tile and margin of the model.
        chunk_px: Side of the cube's stored chunks, pixels; 0: not counted.
        allowance: What the model itself takes for one tile beside its input and answers, bytes.
    """
    block = whole_tiles(block_px, geometry.tile)
    side, tile_side = block + 2 * geometry.margin, geometry.tile + 2 * geometry.margin
    pixel = bands * HELD_BYTES + layers
    chunks = min((math.ceil((side - 1) / chunk_px) + 1) ** 2, CHUNKS_AT_ONCE) if chunk_px else 0
    decoding = 2 * chunks * chunk_px**2 * (bands * STORED_BYTES + layers)
    reading = side**2 * (pixel + bands * STORED_BYTES + layers + 1) + decoding
    tile = tile_side**2 * pixel + geometry.tile**2 * classes * ANSWER_BYTES
    return block**2 * BLOCK_PIXEL_BYTES + max(reading, side**2 * pixel + tile + allowance)


def kept_bytes(keep: Keep, classes: int, block_px: int, geometry: TileGeometry) -> int:
    """What the layers that are kept beside the class add to `block_bytes`, bytes: nothing where none is asked for.

    The arrays of the block, in 8 bits. What they take of a tile while they are made, 24 bytes per pixel, is less than
    the answer's own roundabout through float64 took before it, which is counted (`ANSWER_BYTES`).
    """
    return whole_tiles(block_px, geometry.tile) ** 2 * keep.pixel_bytes(classes)
