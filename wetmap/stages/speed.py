"""How fast a model maps: a few tiles of the real cube through the mapping engine, or random pixels in memory."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

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
#: Side of the part of a tile that warms a network up, pixels: whole batches of every window.
WARM_PX = 16
#: A tile that takes longer, seconds, is not mapped once more just to warm up.
PATIENCE_S = 5.0
#: In memory parts of a tile are timed from this side on, pixels.
LEAST_PART_PX = 4
#: A part that takes this share of the time there is decides: the next, of twice the side, takes four times as long.
LARGE_SHARE = 0.2


class Mapper(Protocol):
    """A model as the engine wants it, with the phase that it must keep."""

    @property
    def geometry(self) -> Geometry:
        """The tile it works on."""

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Probabilities (B, K, T, T) of tiles (B, C, T + 2m, T + 2m)."""


@dataclass(frozen=True)
class ModelMapper:
    """A model as the engine wants it: a network in evaluation mode on the CPU, or a fitted pixel model."""

    model: MapModel
    """The model."""
    calibration: Calibration | None = None
    """Its temperature."""

    @property
    def geometry(self) -> Geometry:
        """The tile it works on."""
        return self.model.geometry

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Probabilities (B, K, T, T) of tiles (B, C, T + 2m, T + 2m), with the temperature where there is one."""
        with torch.inference_mode():
            found = self.model.tile_probabilities(torch.from_numpy(features), torch.from_numpy(observed))
        answers = np.asarray(found.float().numpy(), dtype=np.float32)
        return answers if self.calibration is None else self.calibration.apply(answers)


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
    mapper, tile = ModelMapper(model, calibration), model.geometry.tile
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


def pixels_per_second_in_memory(
    mapper: Mapper, bands: int, layers: int, *, threads: int, seconds: float = LEAST_SECONDS
) -> float:
    """Measure how fast one process maps random pixels that are in memory: no reading, no writing.

    Parts of a tile are timed, each of twice the side of the one before, up to the whole tile or until a part takes a
    good share of the time. From the last two the time of the whole tile follows: its square root is linear in the
    side, because a network works on ``(a * side + b)^2`` pixels, windows or tokens, margins among them.

    Args:
        mapper: The model.
        bands: Its bands.
        layers: Its observation layers; everything is observed.
        threads: Threads of PyTorch.
        seconds: About how long it may take; a model whose smallest part takes longer takes longer.

    Returns:
        Pixels per second on whole tiles.
    """
    geometry, draw = mapper.geometry, np.random.default_rng(0)
    known: list[tuple[int, float]] = []
    with _threads(threads):
        for part in part_sides(geometry.tile, geometry.stride):
            side = part + 2 * geometry.margin
            features = draw.standard_normal((1, bands, side, side), dtype=np.float32)
            observed = np.ones((1, layers, side, side), dtype=np.bool_)
            whole = part == geometry.tile
            known.append((part, _best(mapper, features, observed, seconds=seconds if whole else 0.0)))
            if known[-1][1] > LARGE_SHARE * seconds:
                break
    return geometry.tile**2 / tile_seconds(known, geometry.tile)


def part_sides(tile: int, stride: int) -> list[int]:
    """Sides of the parts of a tile that are timed, pixels: multiples of the stride, doubled up to the tile."""
    sides = [math.ceil(LEAST_PART_PX / stride) * stride]
    while 2 * sides[-1] < tile:
        sides.append(2 * sides[-1])
    return [side for side in sides if side < tile] + [tile]


def tile_seconds(known: Sequence[tuple[int, float]], tile: int) -> float:
    """Time of a whole tile, from those of its parts.

    Args:
        known: (side in pixels, seconds) of each part, ascending, at least one.
        tile: Side of the tile, pixels.
    """
    side, root = known[-1][0], math.sqrt(max(known[-1][1], 1e-9))
    slope = root / side  # at most: no part of the time is for the margin
    if len(known) > 1:
        before, smaller = known[-2][0], math.sqrt(known[-2][1])
        slope = min(slope, max(0.0, (root - smaller) / (side - before)))
    return (root + slope * (tile - side)) ** 2


def _best(mapper: Mapper, features: NDArray[np.float32], observed: NDArray[np.bool_], *, seconds: float) -> float:
    """The quickest of two or more passes, seconds; the first pays for start-up."""
    best, begun = math.inf, time.perf_counter()
    for count in itertools.count(1):
        start = time.perf_counter()
        mapper.tile_probabilities(features, observed)
        end = time.perf_counter()
        best = min(best, end - start)
        if (count > 1 or best > PATIENCE_S) and end - begun >= seconds:
            break
    return best


def _warm(mapper: ModelMapper, cube: Cube, corner: tuple[int, int]) -> float:
    """Run a part of a tile twice where that is possible; the time that a whole one may take, seconds."""
    geometry = mapper.geometry
    if geometry.margin == 0:
        return 0.0  # trees have nothing to warm up
    part = min(math.ceil(WARM_PX / geometry.stride) * geometry.stride, geometry.tile)
    side = part + 2 * geometry.margin
    features, observed = cube.read_window(corner[0] - geometry.margin, corner[1] - geometry.margin, side, side)
    elapsed = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        mapper.tile_probabilities(features[None], observed[None])
        elapsed = time.perf_counter() - begun
    return elapsed * (geometry.side / side) ** 2


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(max(count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
