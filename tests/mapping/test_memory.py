"""What a block takes: the estimate holds, and is not far off."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wetmap.cube import Band, Cube
from wetmap.geo import Block, Grid
from wetmap.mapping import block_bytes, map_block
from wetmap.models.contract import Geometry
from wetmap.training.calibration import tempered

CLASSES = 7


class Flat:
    """A model that takes no memory of its own beside its answers, and their temperature."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        assert features.shape[2:] == observed.shape[2:]
        tile = self.geometry.tile
        return tempered(np.full((1, CLASSES, tile, tile), 1 / CLASSES, np.float32), 1.5)


@pytest.mark.parametrize(
    ("geometry", "block_px", "shard_px"),
    [
        (Geometry(tile=64, margin=8, stride=1), 256, 256),
        (Geometry(tile=128, margin=24, stride=4, beyond="nearest"), 256, 128),
        (Geometry(tile=256, margin=24, stride=4, beyond="nearest"), 256, 512),
    ],
)
def test_a_block_takes_no_more_than_was_said(tmp_path: Path, geometry: Geometry, block_px: int, shard_px: int) -> None:
    bands = tuple(Band(f"b{i}", "reflectance", "1", f"layer {i % 3}") for i in range(9))
    grid = Grid("EPSG:32620", 10.0, 0.0, 0.0, 600, 600)
    cube = Cube.create(tmp_path / "cube", grid, bands, ("summer",), block_px=shard_px, simulated=True)
    for block in grid.blocks(shard_px):
        shape = (block.height, block.width)
        features = np.random.default_rng(block.row).random((9, *shape), dtype=np.float32)
        cube.write_block(block, features, np.ones((3, *shape), np.bool_), np.ones((1, *shape), np.uint16))
    inside = np.ones((block_px, block_px), np.bool_)

    def mapped() -> None:
        map_block(cube, Flat(geometry), Block(1, 1, block_px, block_px, block_px, block_px), inside)

    mapped()
    tracemalloc.start()
    mapped()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    said = block_bytes(9, 3, CLASSES, block_px, geometry, chunk_px=cube.chunk_px)
    # how many chunks are decoded at the same time is Zarr's affair: from one to all that the block touches
    # (and a little of its bookkeeping comes on top)
    assert 0.2 * said < peak <= 1.02 * said


def test_the_formula_by_hand() -> None:
    geometry = Geometry(tile=8, margin=2, stride=1)
    # 10 px are two tiles, 20 px with margins: while the model works 20^2 (4 * 3 + 2), one tile, and its answers
    working = 20**2 * 14 + 12**2 * 14 + 8**2 * 5 * 24
    assert block_bytes(3, 2, 5, 10, geometry) == 16**2 * 8 + working
    assert block_bytes(3, 2, 5, 10, geometry, allowance=10**6) == 16**2 * 8 + working + 10**6
    # of chunks of 64 px 2 x 2 are touched at most, and decoding them is the peak: 20^2 (6 * 3 + 2 * 2 + 1) beside them
    assert block_bytes(3, 2, 5, 10, geometry, chunk_px=64) == 16**2 * 8 + 20**2 * 23 + 2 * 4 * 64**2 * 8
