"""Speed of the steps after the model, on one core: majority smoothing, minimum mapping unit, polygons.

    python benchmarks/postprocess.py [SIDE] [NOISE]

The map is made up: SIDE x SIDE pixels (4096) of six classes, smooth but for NOISE (0.3), which makes specks. Time is
that of the processor, so that other work on the machine matters less. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from wetmap.classes import MapClass
from wetmap.geo import Grid
from wetmap.mapping.patches import RimTable, number_patches, survey
from wetmap.mapping.postprocess import majority, rule_of
from wetmap.mapping.sieve import graph_of, sieve
from wetmap.stages.map_steps import BLOCK_PX
from wetmap.stages.polygons import MapReaders, make_polygons
from wetmap.stages.sieving import Graphs

CLASSES = [MapClass(code, f"class {code}", "#75130e", upland=code > 4) for code in range(1, 7)]


def made_up(side: int, noise: float) -> np.ndarray:
    """Codes, (side, side)."""
    draw = np.random.default_rng(0)
    best, codes = np.full((side, side), -np.inf, dtype=np.float32), np.zeros((side, side), dtype=np.uint8)
    for row in CLASSES:
        coarse = ndimage.gaussian_filter(draw.standard_normal((side // 8 + 8,) * 2, dtype=np.float32), 6)
        score = ndimage.zoom(coarse / coarse.std(), 8, order=1)[:side, :side]
        score += noise * draw.standard_normal(score.shape, dtype=np.float32)
        codes[score > best] = row.code
        np.maximum(best, score, out=best)
    return codes


def smoothed(grid: Grid, codes: np.ndarray) -> None:
    """Smooth all blocks, for the time alone."""
    around = np.pad(codes, 1)
    for block in grid.blocks(BLOCK_PX):
        majority(around[block.y0 : block.y0 + block.height + 2, block.x0 : block.x0 + block.width + 2], 3)


def sieved(grid: Grid, codes: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
    """The map after the sieve, and the number of patches before."""
    blocks, table, out, patches = list(grid.blocks(BLOCK_PX)), RimTable(4), np.zeros_like(codes), 0
    for block in blocks:
        found = survey(codes[block.slices], block, grid.width, 4)
        table.add(block, found)
        patches += len(found.code)
    rims, graphs = table.close(), Graphs(folder, blocks)
    for key, block in enumerate(blocks):  # as the stage, which reads its surveys from the disk
        graphs[key] = graph_of(survey(codes[block.slices], block, grid.width, 4), rims.of_block[key])
    sieve(graphs, rims, rule_of(CLASSES, 1.0, {}, grid.res_m))
    for key, block in enumerate(blocks):
        final = np.append(graphs[key].final, 0).astype(np.uint8)
        out[block.slices] = final[number_patches(codes[block.slices], 4)]
    return out, patches


def main(side: int = 4096, noise: float = 0.3) -> None:
    """Measure and print."""
    codes = made_up(side, noise)
    grid = Grid(crs="EPSG:32620", res_m=10.0, left=400_000.0, top=5_100_000.0, height=side, width=side)
    figures: dict[str, float] = {}

    def rate(name: str, began: float) -> None:
        figures[name] = round(side * side / (time.process_time() - began) / 1e6, 2)
        print(f"{name:<24} {figures[name]:8.2f} million px/s")

    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        smoothed(grid, codes)
        rate("majority 3 x 3", began)
        began = time.process_time()
        clean, patches = sieved(grid, codes, Path(folder))
        rate("minimum mapping unit", began)
        readers = MapReaders(grid, lambda block: clean[block.slices], lambda block: clean[block.slices])
        began = time.process_time()
        make_polygons(Path(folder) / "polygons.gpkg", readers, CLASSES, 4, simulated=True)
        rate("polygons after it", began)
    print(f"{patches:,} patches in {side * side:,} px; {(clean != codes).mean():.1%} of the pixels changed")
    print(json.dumps({**figures, "patches": patches, "side": side, "noise": noise}))


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, float), sys.argv[1:], strict=False)))
