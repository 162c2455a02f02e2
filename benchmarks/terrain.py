"""How long and how much memory it takes to run water over an area: fill, share flow, height above drainage.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/terrain.py --cells 4000000

One process, one thread. The plain way beside it takes cells from the highest to the lowest in a Python loop, on a
smaller land, and must give the same areas. The last line is one JSON object: ``seconds`` of each step,
``seconds_per_million`` cells, ``mb_per_million`` (peak memory above what was there before), ``speedup`` over the plain
way (cells per second of sharing flow).
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.drainage import height_above_drainage
from wetmap.imagery.flow import DISTANCES, EXPONENT, NEIGHBOURS, Ground, accumulation_on, fill_depressions

Floats = NDArray[np.float64]
#: Side of the land on which the plain way is timed, cells.
PLAIN_SIDE = 160
#: Cells that make drainage: 100 ha of 30 m.
DRAINAGE_CELLS = 1111
#: Wave lengths of the land, cells, and how high it swells, metres.
SWELLS = ((2000, 120.0), (500, 60.0), (120, 20.0), (30, 4.0))
#: Noise of the model from cell to cell, metres: it makes pits.
NOISE_M = 0.5


def land(side: int, seed: int = 1) -> NDArray[np.float32]:
    """A land that falls to the north, with hills of every size and a noisy model of it; decimetres make flats."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    height = 0.05 * y
    for length, swell in SWELLS:
        for _ in range(3):
            turn, phase = rng.uniform(0, 2 * np.pi, 2)
            height += swell / 3 * np.sin(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / length + phase)
    height += NOISE_M * rng.standard_normal((side, side), dtype=np.float32)
    return np.round(height, 1).astype(np.float32)


def plain(filled: Floats) -> Floats:
    """Freeman's flow accumulation, cell by cell from the highest; no flats."""
    area = np.ones(filled.shape)
    height, width = filled.shape
    for cell in np.argsort(filled, axis=None)[::-1]:
        row, col = divmod(int(cell), width)
        shares = []
        for (down, right), distance in zip(NEIGHBOURS, DISTANCES, strict=True):
            y, x = row + down, col + right
            if 0 <= y < height and 0 <= x < width and filled[y, x] < filled[row, col]:
                shares.append((y, x, ((filled[row, col] - filled[y, x]) / distance) ** EXPONENT))
        total = sum(share for _, _, share in shares)
        for y, x, share in shares:
            area[y, x] += area[row, col] * share / total
    return area


def peak_mb() -> float:
    """Peak memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def speedup_over_plain(rate: float) -> float:
    """Cells per second over the plain way's, on a land without flats."""
    rng = np.random.default_rng(2)
    steep = np.arange(PLAIN_SIDE)[:, None] * 2.0 + rng.random((PLAIN_SIDE, PLAIN_SIDE))
    begun = time.process_time()
    expected = plain(steep)
    took = time.process_time() - begun
    np.testing.assert_allclose(accumulation_on(Ground.of(steep)), expected, rtol=1e-9)
    return rate / (steep.size / took)


def main() -> None:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000, help="cells of the land")
    side = round(parser.parse_args().cells ** 0.5)
    fill_depressions(land(50))  # imports
    heights = land(side)
    before = peak_mb()
    seconds: dict[str, float] = {}
    begun = time.process_time()
    filled = fill_depressions(heights)
    seconds["fill"] = time.process_time() - begun
    begun = time.process_time()
    ground = Ground.of(filled)
    area = accumulation_on(ground)
    seconds["flow"] = time.process_time() - begun
    begun = time.process_time()
    above = height_above_drainage(ground, DRAINAGE_CELLS)
    seconds["drainage"] = time.process_time() - begun
    million = side**2 / 1e6
    result = {
        "cells": side**2,
        "raised": round(float((filled > heights).mean()), 3),
        "largest_catchment": round(float(area.max())),
        "highest_above_drainage_m": round(float(above.max()), 1),
        "seconds": {name: round(took, 2) for name, took in seconds.items()},
        "seconds_per_million": round(sum(seconds.values()) / million, 2),
        "mb_per_million": round((peak_mb() - before) / million),
        "speedup": round(speedup_over_plain(side**2 / seconds["flow"])),
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
