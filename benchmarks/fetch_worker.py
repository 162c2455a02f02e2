"""What one worker of `wetmap fetch` holds: its task, and the most memory for one block read over HTTP.

Scenes are written once and served on loopback. A fresh process then loads what a worker loads, takes the task as it
travels, and makes one block of 512 px. A plan of so many scenes more, elsewhere, must not show. The last line is one
JSON object.

    python benchmarks/fetch_worker.py                     # 30 scenes of the block, 5,000 in the plan
    python benchmarks/fetch_worker.py --scenes 10 --plan 10
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
SIDE = 2048
BLOCK_PX = 512


def make_task(folder: Path, catalog: Path, url: str, elsewhere: int) -> dict[str, Any]:
    """Plan a season, and write what a worker is given; gives its size in bytes."""
    import datetime as dt
    import pickle

    from fetch import BANDS, CRS, LEFT, RES_M, TOP
    from shapely.geometry import MultiPolygon, box

    from wetmap.cube import Cube, bands_of
    from wetmap.geo import Aoi, Block, Grid
    from wetmap.recipe import Features, Network, Recipe, Season, StacSource
    from wetmap.sources import Scene, open_archive
    from wetmap.stages.block_reading import FetchTask
    from wetmap.stages.context import BlockTask
    from wetmap.stages.fetch_block import Work
    from wetmap.stages.scene_table import write_table

    season = Season(name="summer", start=dt.date(2021, 1, 1), end=dt.date(2021, 12, 31))
    features = Features(preset="custom", optical=list(BANDS), indices=["NDVI", "NDWI"], radar=[], terrain=[])
    recipe = Recipe(features=features, seasons=[season])
    archive = open_archive(StacSource(catalog=str(catalog)), "optical")
    everywhere = Aoi("all", MultiPolygon([box(-180, -80, 180, 80)]))
    found = archive.search("optical", everywhere, [season], max_cloud_percent=100)[0]
    scenes = [
        Scene.from_json(json.loads(json.dumps(one.to_json()).replace(str(folder), f"{url}/files"))) for one in found
    ]
    far = json.loads(json.dumps(scenes[0].to_json()))
    far["item"] |= {"geometry": None, "bbox": [10, 10, 11, 11]}
    scenes += [Scene.from_json({**far, "id": f"far {number}"}) for number in range(elsewhere)]
    grid = Grid(CRS, RES_M, LEFT, TOP, SIDE, SIDE)
    task = FetchTask(grid, bands_of(recipe), ("summer",), (), {"optical": archive}, recipe.optical, recipe.radar)
    Cube.create(folder / "cube.zarr", grid, bands_of(recipe), ("summer",), block_px=BLOCK_PX, simulated=True)
    import numpy as np
    import zarr

    inside = zarr.create_array(str(folder / "inside.zarr"), shape=grid.shape, chunks=(512, 512), dtype="uint8")
    inside[:] = np.uint8(1)
    work = Work(
        task=replace(task, run="benchmark"),
        scenes=write_table(folder / "table", scenes),
        cube=folder / "cube.zarr",
        inside=folder / "inside.zarr",
        ledger=folder / "ledger",
        network=Network(),
        max_failed=0.0,
    )
    data = pickle.dumps(BlockTask(Block(1, 1, BLOCK_PX, BLOCK_PX, BLOCK_PX, BLOCK_PX), work))
    (folder / "task").write_bytes(data)
    return {"scenes": len(scenes), "task_bytes": len(data)}


def work(folder: Path) -> None:
    """Be a worker: make the block, say what it took."""
    import pickle

    from wetmap.stages.fetch_block import make_block

    task = pickle.loads((folder / "task").read_bytes())  # noqa: S301 - made by this script
    before = most_mb()
    start = time.perf_counter()
    entry = make_block(task)
    assert entry.status == "done", entry
    print(json.dumps({"seconds": round(time.perf_counter() - start, 1), "rss_mb_before": before, "rss_mb": most_mb()}))


def most_mb() -> int:
    """Most memory that this process ever held, MB (``ru_maxrss`` would count what its parent held before it)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def main() -> None:
    """Make the scenes, serve them, be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=30, help="scenes that the block sees")
    parser.add_argument("--plan", type=int, default=5000, help="scenes of the plan")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.work)
        return
    from fetch import write_scenes

    from tests.fakes.stac_api import make_app, serve

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalog = write_scenes(folder, options.scenes, SIDE)
        with serve(make_app([], [], folder, Counter())) as url:
            told = make_task(folder, catalog, url, max(0, options.plan - options.scenes))
            command = [sys.executable, __file__, "--work", str(folder)]
            threads = dict.fromkeys(("OMP_NUM_THREADS", "GDAL_NUM_THREADS"), "1")
            done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
            if done.returncode:
                sys.exit(done.stderr)
    print(json.dumps({**told, **json.loads(done.stdout.splitlines()[-1])}))


if __name__ == "__main__":
    main()
