"""How fast a fitted model maps: a few tiles of the real cube, through the mapping engine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wetmap.cube import Cube
from wetmap.geo import Block
from wetmap.mapping import map_block
from wetmap.models.contract import Geometry, MapModel
from wetmap.training.calibration import Calibration

#: Tiles are mapped until this much time has passed, seconds, but no more of them than this.
LEAST_SECONDS, MOST_TILES = 1.0, 12
#: Side of the part of a tile that warms a classifier of windows up, pixels: whole batches of every window.
WARM_PX = 16
#: A tile that takes longer, seconds, is not mapped once more just to warm up.
PATIENCE_S = 5.0


@dataclass(frozen=True)
class _Mapper:
    """A fitted model as the engine wants it."""

    model: MapModel
    calibration: Calibration

    @property
    def geometry(self) -> Geometry:
        return self.model.geometry

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found = self.model.tile_probabilities(torch.from_numpy(features), torch.from_numpy(observed))
        return self.calibration.apply(np.asarray(found.float().numpy(), dtype=np.float32))


def pixels_per_second(
    model: MapModel, calibration: Calibration, cube: Cube, places: Sequence[tuple[int, int]], *, threads: int
) -> float:
    """Measure how fast one process maps, reading the cube included.

    Args:
        model: A network in evaluation mode on the CPU, or a fitted pixel model.
        calibration: Its temperature.
        cube: The cube.
        places: (row, column) of pixels, whose tiles are mapped in turn; something observed each of them.
        threads: Threads of PyTorch.

    Returns:
        Pixels per second, whole tiles counted.
    """
    mapper, tile = _Mapper(model, calibration), model.geometry.tile
    corners = sorted({(row // tile * tile, col // tile * tile) for row, col in places})
    spread = [corners[at] for at in np.linspace(0, len(corners) - 1, min(len(corners), MOST_TILES)).astype(int)]
    inside = np.ones((tile, tile), dtype=np.bool_)

    def timed(corner: tuple[int, int]) -> float:
        begun = time.perf_counter()
        map_block(cube, mapper, Block(0, 0, *corner, tile, tile), inside)
        return time.perf_counter() - begun

    with _threads(threads):
        if _warm(mapper, cube, spread[0]) < PATIENCE_S:
            timed(spread[0])
        count, elapsed = 0, 0.0
        for corner in itertools.islice(itertools.cycle(spread), MOST_TILES):
            count, elapsed = count + 1, elapsed + timed(corner)
            if elapsed >= LEAST_SECONDS:
                break
    return count * tile**2 / max(elapsed, 1e-9)


def _warm(mapper: _Mapper, cube: Cube, corner: tuple[int, int]) -> float:
    """Run a part of a tile twice where that is possible; the time that a whole one may take, seconds."""
    tile, margin = mapper.geometry.tile, mapper.geometry.margin
    if margin == 0 or mapper.geometry.stride != 1:
        return 0.0  # trees and dense networks are fast enough to be warmed up by a whole tile
    part = min(WARM_PX, tile)
    side = part + 2 * margin
    features, observed = cube.read_window(corner[0] - margin, corner[1] - margin, side, side)
    elapsed = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        mapper.tile_probabilities(features[None], observed[None])
        elapsed = time.perf_counter() - begun
    return elapsed * (tile / part) ** 2


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(max(count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
