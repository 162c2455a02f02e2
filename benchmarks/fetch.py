"""Our season composite against the plain way: odc.stac.load and xarray's median on Dask, on the same local scenes.

Scenes of four 10 m bands and a classification are written once, as tiled and deflated GeoTIFFs with a static STAC
catalogue. Then, each in a fresh process on the same number of cores, the season's composite is made by ``wetmap``'s own
blocks and by the plain way; both keep all of it in memory at the end. Wall time and the most memory of the process and
its children are measured. The last line is one JSON object.

    python benchmarks/fetch.py                       # 10 and 60 scenes of 2,048 px
    python benchmarks/fetch.py --side 1024 --many 20 # a quick look
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

CRS, LEFT, TOP, RES_M = "EPSG:32620", 400_000.0, 5_100_000.0, 10.0
BANDS = ("B02", "B03", "B04", "B08")
BLOCK_PX, DILATE_M = 512, 0.0
#: Classes that both ways mask: no data, saturated, cloud shadow, clouds, cirrus, snow.
MASKED = (0, 1, 3, 8, 9, 10, 11)
LOOK_EVERY_S = 0.05


def write_scenes(folder: Path, count: int, side: int) -> Path:
    """Write the archive; gives the path of its catalogue."""
    import pystac
    from pyproj import Transformer
    from shapely.geometry import box, mapping

    edge = side * RES_M
    lonlat = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform_bounds(LEFT, TOP - edge, LEFT + edge, TOP)
    footprint = box(*lonlat)
    catalog = pystac.Catalog("scenes", "scenes for a benchmark")
    extent = pystac.Extent(pystac.SpatialExtent([list(lonlat)]), pystac.TemporalExtent([[None, None]]))
    collection = pystac.Collection("sentinel-2-l2a", "Sentinel-2", extent)
    for number in range(count):
        when = dt.datetime(2021, 6, 1, 15, tzinfo=dt.UTC) + dt.timedelta(days=1 + number)
        properties = {"s2:processing_baseline": "05.09", "eo:cloud_cover": 20.0, "sat:orbit_state": "descending"}
        item = pystac.Item(f"S2_{number:03d}", mapping(footprint), list(lonlat), when, properties)
        for band, path in _write_scene(folder / item.id, side, number).items():
            nodata = {"nodata": 0, "data_type": "uint8" if band == "SCL" else "uint16"}
            shape = [side // 2 if band == "SCL" else side] * 2
            res = RES_M * (2 if band == "SCL" else 1)
            projection = {"proj:shape": shape, "proj:transform": [res, 0, LEFT, 0, -res, TOP], "proj:code": CRS}
            item.add_asset(
                band,
                pystac.Asset(str(path), media_type="image/tiff", extra_fields={"raster:bands": [nodata], **projection}),
            )
        collection.add_item(item)
    catalog.add_child(collection)
    catalog.normalize_hrefs(str(folder / "stac"))
    catalog.save(catalog_type=pystac.CatalogType.ABSOLUTE_PUBLISHED)
    return folder / "stac" / "catalog.json"


def _write_scene(folder: Path, side: int, seed: int) -> dict[str, Path]:
    import rasterio
    from affine import Affine

    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    down, across = np.mgrid[0:side, 0:side].astype(np.float32)
    made = {}
    for number, band in enumerate((*BANDS, "SCL")):
        size, res = (side // 2, 2 * RES_M) if band == "SCL" else (side, RES_M)
        if band == "SCL":
            counts = np.full((size, size), 4, np.uint8)
            for _ in range(max(1, size // 64)):
                y, x = draw.integers(0, size, 2)
                counts[y : y + 80, x : x + 100] = 9
        else:
            wave = 2000 + 300 * number + 700 * np.sin(down / 90 + number) * np.cos(across / 70)
            counts = (wave + draw.normal(0, 120, wave.shape)).clip(1, 60_000).astype(np.uint16)
        made[band] = folder / f"{band}.tif"
        profile = {"driver": "GTiff", "count": 1, "height": size, "width": size, "dtype": counts.dtype, "crs": CRS}
        layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
        with rasterio.open(
            made[band], "w", **profile, **layout, nodata=0, transform=Affine(res, 0, LEFT, 0, -res, TOP)
        ) as out:
            out.write(counts, 1)
    return made


def _grid(side: int) -> Any:
    from wetmap.geo import Grid

    return Grid(CRS, RES_M, LEFT, TOP, side, side)


def ours(catalog: Path, side: int, workers: int) -> np.ndarray:
    """The composite, (band, y, x) float32, made block by block in worker processes as ``wetmap fetch`` does."""
    from shapely.geometry import MultiPolygon, box

    from wetmap.cluster import Workers
    from wetmap.cube import bands_of
    from wetmap.geo import Aoi
    from wetmap.recipe import Cluster, Features, Optical, Recipe, Season, Sources, StacSource
    from wetmap.sources import open_archive
    from wetmap.stages.block_reading import FetchTask

    grid = _grid(side)
    features = Features(preset="custom", optical=list(BANDS), indices=[], radar=[], terrain=[])
    season = Season(name="summer", start=dt.date(2021, 6, 1), end=dt.date(2021, 12, 31))
    source = StacSource(catalog=str(catalog))
    recipe = Recipe(
        features=features,
        seasons=[season],
        sources=Sources(optical=source, radar=None, terrain=None),
        optical=Optical(dilate_m=DILATE_M),
    )
    archive = open_archive(source, "optical")
    aoi = Aoi("square", MultiPolygon([box(-180, -80, 180, 80)]))
    scenes, _ = archive.search("optical", aoi, recipe.seasons, max_cloud_percent=100)
    task = FetchTask(
        grid, bands_of(recipe), ("summer",), tuple(scenes), {"optical": archive}, recipe.optical, recipe.radar
    )
    out = np.empty((len(BANDS), side, side), np.float32)
    blocks = [(task, block) for block in grid.blocks(BLOCK_PX)]
    with Workers(Cluster(workers=1), Path(tempfile.mkdtemp())) as pool:
        for (_, block), values in pool.stream(_block, blocks, at_once=workers):
            if isinstance(values, BaseException):
                raise values
            out[(slice(None), *block.slices)] = values
    return out


def _block(work: Any) -> np.ndarray:
    from wetmap.stages.block_features import block_features

    return block_features(*work).features


def plain(catalog: Path, side: int, workers: int) -> np.ndarray:
    """The same by odc.stac.load and xarray's median, on Dask's threads."""
    import dask
    import odc.stac
    import pystac
    import xarray as xr
    from affine import Affine
    from odc.geo.geobox import GeoBox

    items = list(pystac.Catalog.from_file(str(catalog)).get_items(recursive=True))
    geobox = GeoBox((side, side), Affine(RES_M, 0, LEFT, 0, -RES_M, TOP), CRS)
    chunks = {"x": BLOCK_PX, "y": BLOCK_PX}
    loaded = odc.stac.load(items, bands=[*BANDS, "SCL"], geobox=geobox, chunks=chunks, resampling="nearest")
    clear = ~loaded["SCL"].isin(MASKED)
    counts = loaded[list(BANDS)]
    seen = counts.where(clear & (counts != 0)).astype("float32") * np.float32(1e-4) + np.float32(-0.1)
    seen = seen.chunk({"time": -1})
    with dask.config.set(scheduler="threads", num_workers=workers):
        made: xr.Dataset = seen.median("time", skipna=True).compute()
    return np.stack([made[band].to_numpy() for band in BANDS])


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[float]]:
    """The most memory of a process and its children, MB, as the list's only entry."""
    peak, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_EVERY_S):
            with contextlib.suppress(psutil.Error, OSError):
                process = psutil.Process(pid)
                held = [_held(p) for p in [process, *process.children(recursive=True)]]
                peak[0] = max(peak[0], sum(held) / 2**20)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _held(process: psutil.Process) -> int:
    """Memory of a process; what processes share is counted once (Linux)."""
    with Path(f"/proc/{process.pid}/smaps_rollup").open() as rows:
        return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) * 1024


def measure(way: str, catalog: Path, side: int, workers: int, out: Path) -> tuple[float, float]:
    """Seconds (imports not counted) and peak MB of one way in a process of its own."""
    command = [sys.executable, __file__, "--run", way, "--catalog", catalog, "--side", side, "--workers", workers]
    child = subprocess.Popen(
        [*map(str, command), "--out", str(out)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with _watched(child.pid) as peak:
        said, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"{way} left with {child.returncode}")
    return float(said.strip().splitlines()[-1]), peak[0]


def run_one(options: argparse.Namespace) -> None:
    """One way, in this process; the composite is written, and the seconds are printed."""
    way = ours if options.run == "ours" else plain
    # imports are not timed, of either way
    for name in (
        ("odc.stac", "xarray") if options.run == "plain" else ("wetmap.stages.block_features", "wetmap.cluster")
    ):
        importlib.import_module(name)
    start = time.perf_counter()
    made = way(options.catalog, options.side, options.workers)
    seconds = time.perf_counter() - start
    np.save(options.out, made)
    print(seconds)


def main() -> None:
    """Write the scenes, run both ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048, help="side of the square, pixels")
    parser.add_argument("--few", type=int, default=10, help="scenes of the first run")
    parser.add_argument("--many", type=int, default=60, help="scenes of the second run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--catalog", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_one(options)
        return
    rows: dict[str, dict[int, tuple[float, float]]] = {"ours": {}, "plain": {}}
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        for count in (options.few, options.many):
            catalog = write_scenes(Path(name) / str(count), count, options.side)
            made = {}
            for way, found in rows.items():
                out = Path(name) / f"{way}.npy"
                found[count] = measure(way, catalog, options.side, options.workers, out)
                made[way] = np.load(out)
            if (np.isnan(made["ours"]) != np.isnan(made["plain"])).any():
                raise SystemExit("the two ways observe different pixels")
            worst = max(worst, float(np.nanmax(np.abs(made["ours"] - made["plain"]))))
    print("| scenes | way | seconds | peak MB |\n| --- | --- | --- | --- |")
    for way, found in rows.items():
        for count, (seconds, peak) in found.items():
            print(f"| {count} | {way} | {seconds:.1f} | {peak:.0f} |")
    print(f"largest difference of reflectance: {worst:.2g}")
    few, many = options.few, options.many
    figures = {
        "speedup": round(rows["plain"][many][0] / rows["ours"][many][0], 3),
        "speedup_few": round(rows["plain"][few][0] / rows["ours"][few][0], 3),
        "memory_ratio": round(rows["ours"][many][1] / rows["plain"][many][1], 3),
        "memory_ratio_few": round(rows["ours"][few][1] / rows["plain"][few][1], 3),
        f"rss_mb_{few}_scenes": round(rows["ours"][few][1]),
        f"rss_mb_{many}_scenes": round(rows["ours"][many][1]),
        "largest_difference": worst,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
