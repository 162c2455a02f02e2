"""All models of a laptop's size on the same folds and minutes: a simulated landscape and two real scenes.

    python benchmarks/compare_models.py simulated --minutes 1.5 --folder /tmp/compare
    python benchmarks/compare_models.py coast --minutes 1 --folds 0,1,2 --folder /tmp/compare
    python benchmarks/compare_models.py valley --minutes 1 --folds 0,1,2 --folder /tmp/compare

Writes the recipe, fetches, and runs ``wetmap compare`` on one core (Linux), so that two can run side by side on two
cores without taking each other's time. Stopped and started again with the same folder it goes on. The table is in
``<folder>/<data>/space/compare``; it is printed at the end, and a JSON object as the last line.

- ``simulated``: 1,024 x 1,024 pixels of 10 m, nine classes, 16 bands.
- ``coast`` (282D) and ``valley`` (433D): Sentinel-2, Sentinel-1 and elevation, 224 x 224 pixels, labels of an annual
  land cover map made by a machine; where the scenes lie beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import yaml
from shapely.geometry import box

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: What the real scenes are called in their files, and how their folds are cut: blocks of 48 pixels, 16 between folds.
SCENES = {"coast": "282D_485L_3_3", "valley": "433D_629L_3_1"}
SPLITS = {"kind": "blocks", "folds": 5, "block_m": 480, "buffer_m": 160}
#: Samples of each class, at most.
PER_CLASS = 1500
#: The simulated square: side in pixels, and lower left corner in UTM zone 20 north, metres.
SIDE_PX, LEFT, BOTTOM = 1024, 260_000, 5_070_000


def simulated_recipe(folder: Path) -> Path:
    """Write the recipe of the simulated landscape."""
    folder.mkdir(parents=True, exist_ok=True)
    square = box(LEFT + 1, BOTTOM + 1, LEFT + 10 * SIDE_PX - 1, BOTTOM + 10 * SIDE_PX - 1)
    gpd.GeoSeries([square], crs="EPSG:32620").to_file(folder / "area.gpkg")
    content: dict[str, Any] = {
        "name": "simulated",
        "aoi": "area.gpkg",
        "workspace": "space",
        "seed": 1,
        "grid": {"crs": "EPSG:32620"},
        "sources": {name: {"from": "simulated"} for name in ("optical", "radar", "terrain")},
        "simulated": {"seed": 7, "reference_polygons": 1500},
        "seasons": [{"name": "summer", "start": "2021-06-01", "end": "2021-09-30"}],
        "features": {"preset": "paper16"},
        "reference": "simulated",
        "samples": {"per_class": PER_CLASS},
        "splits": {"kind": "blocks", "folds": 5},
        "cluster": {"workers": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def real_recipe(folder: Path, name: str) -> Path:
    """Write the recipe of a real scene.

    Raises:
        SystemExit: The scenes are not beside the checkout.
    """
    from tests.walk import test_real_scenes as real

    if not real.SCENES.is_dir():
        raise SystemExit(f"The real scenes are not beside the checkout ({real.SCENES}).")
    return real.write_real_recipe(folder, SCENES[name], samples={"per_class": PER_CLASS}, splits=SPLITS)


def wetmap(*words: str | Path) -> None:
    """Run the command line on one core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "wetmap", *map(str, words)], env=environment, check=True)


def main() -> None:
    """Make, compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("simulated", *SCENES))
    parser.add_argument("--minutes", type=float, default=1.5, help="training of each network on each fold")
    parser.add_argument("--folds", default="0", help="folds that are tested on, with commas")
    parser.add_argument("--models", default="laptop", help="models, with commas")
    parser.add_argument("--core", type=int, help="the core to keep to [default: the first that there is]")
    parser.add_argument("--folder", type=Path, required=True, help="where recipe and workspace are made")
    chosen = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0)) if chosen.core is None else chosen.core})
    folder = chosen.folder / chosen.data
    recipe = simulated_recipe(folder) if chosen.data == "simulated" else real_recipe(folder, chosen.data)
    wetmap("fetch", "--recipe", recipe)
    how = ("--models", chosen.models, "--minutes", chosen.minutes, "--folds", chosen.folds, "--window", 16)
    wetmap("compare", "--recipe", recipe, *map(str, how))
    table = folder / "space" / "compare"
    print((table / "compare.md").read_text(encoding="utf-8"))
    found = json.loads((table / "compare.json").read_text(encoding="utf-8"))
    print(json.dumps({"data": chosen.data, "minutes": chosen.minutes, "folds": chosen.folds, **found}))


if __name__ == "__main__":
    main()
