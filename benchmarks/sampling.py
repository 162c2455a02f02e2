"""Memory while reference data becomes samples: bytes for each pixel of the grid, and what comes on top.

    python benchmarks/sampling.py                # 4,000 and 8,000 pixels a side, a process each; about half a minute

The last line is one JSON object: ``bytes_per_px`` and ``fixed_mb``, a straight line through the two sizes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import geopandas
import shapely
from pyproj import Transformer

from wetmap.geo import Aoi, Grid
from wetmap.recipe import Background, ClassSpec, Reference
from wetmap.samples import draw_samples, read_reference

#: Sides of the grids, pixels.
SIDES = (4000, 8000)
#: Polygons of the reference, 40 x 40 px each: too few to count.
POLYGONS = 20


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def grow(side: int) -> int:
    """What labelling and drawing on a grid of so many pixels a side adds to the process, bytes at the peak."""
    grid = Grid("EPSG:2953", 10.0, 2_500_000.0, 7_450_000.0, side, side)
    box = shapely.segmentize(shapely.box(*grid.bounds), 1000.0)
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    aoi = Aoi("area", shapely.MultiPolygon([shapely.transform(box, to_degrees.transform, interleaved=False)]))
    left, top = grid.left + 1000, grid.top - 1000
    boxes = [shapely.box(left + 900 * n, top - 400, left + 900 * n + 400, top) for n in range(POLYGONS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.gpkg"
        classes = ["bog", "fen"] * (POLYGONS // 2)
        geopandas.GeoDataFrame({"CLASS": classes}, geometry=boxes, crs=grid.crs).to_file(path)
        background = Background(buffer_m=100)
        reference = Reference(path=path, class_field="CLASS", background=background)
        before = peak_bytes()
        labels = read_reference(reference, [ClassSpec(name="bog"), ClassSpec(name="fen")], grid, aoi)
        draw_samples(labels, per_class=100, min_per_class=10, background=background, seed=1)
    return peak_bytes() - before


def main() -> None:
    """Measure each size in a process of its own."""
    parser = argparse.ArgumentParser(description="Memory of drawing samples.")
    parser.add_argument("--side", type=int, help="measure one size here, pixels a side")
    side = parser.parse_args().side
    if side is not None:
        sys.stdout.write(f"{grow(side)}\n")
        return
    found = []
    for each in SIDES:
        done = subprocess.run(
            [sys.executable, __file__, "--side", str(each)], capture_output=True, text=True, check=True
        )
        found.append(int(done.stdout))
        sys.stdout.write(f"{each} x {each} px: {found[-1] / 1e6:,.0f} MB\n")
    small, large = (each**2 for each in SIDES)
    slope = (found[1] - found[0]) / (large - small)
    told = {"bytes_per_px": round(slope, 2), "fixed_mb": round((found[0] - slope * small) / 1e6)}
    sys.stdout.write(f"{json.dumps(told)}\n")


if __name__ == "__main__":
    main()
