"""What ``benchmarks/mapping.py`` measures through the front door: whole ``wetmap predict`` runs on rasters on disk."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import psutil
import rasterio
import shapely
import torch
import yaml
from rasterio.windows import Window
from shapely.geometry import box

from wetmap import models
from wetmap.allocator import keep_freed_memory
from wetmap.bundle import ModelCard, Payload, load_bundle, load_predictor, network_payload, pixel_payload, save_bundle
from wetmap.classes import MapClass
from wetmap.cube import Cube, bands_of, layers_of
from wetmap.models.contract import Geometry
from wetmap.models.pixels import PixelSamples, fit_pixel_model
from wetmap.recipe_file import load_recipe

CRS, LEFT, TOP, RES_M = "EPSG:32620", 400_000, 5_300_000, 10
CLASSES = 7
OPTICAL = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
#: Rows of a raster that are made at a time, and side of the tiles in the file, pixels.
ROWS_PX, FILE_TILE_PX = 512, 512
#: Side of the blocks of a large map, pixels, where nothing else is asked.
BLOCK_PX = 512
#: Seconds between looks at memory.
LOOK_EVERY_S = 0.1
#: Stages of a map that are made anew for another run on the same cube.
MAP_STAGES = ("predict", "postprocess", "masks", "mosaic", "report")


@dataclass(frozen=True)
class Run:
    """One command."""

    seconds: float
    """Wall time, start-up included."""
    peak_mb: float
    """Most memory of the process and its children together, MB; what they share is counted once."""


@dataclass(frozen=True)
class Area:
    """A workspace with a cube, and what is left out of its pixels."""

    recipe: Path
    """The recipe."""
    workspace: Path
    """The workspace."""
    side: int
    """Side of the area, pixels."""

    @property
    def cube(self) -> Path:
        """Its cube."""
        return next((self.workspace / "stages" / "fetch").glob("*/cube.zarr"))


def make_area(folder: Path, side: int, *, bands: str) -> Area:
    """Write rasters of a square, and make a cube of them with ``wetmap fetch``.

    Args:
        folder: Where.
        side: Side of the square, pixels of 10 m.
        bands: ``few``: two optical bands that compress well, for large areas; ``usual``: ten optical bands, two indices
            and radar of both passes, 16 in all, noisy as imagery is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    few = bands == "few"
    names = OPTICAL[:2] if few else OPTICAL
    write_raster(folder / "optical.tif", side, len(names), smooth=few)
    optical = {"path": "optical.tif", "bands": list(names), "unit": "reflectance", "scale": 1e-4, "nodata": 0}
    sources: dict[str, Any] = {"optical": {"from": "rasters", "files": [optical]}, "radar": None, "terrain": None}
    features: dict[str, Any] = {"preset": "custom", "optical": list(names), "indices": [], "radar": [], "terrain": []}
    if not few:
        files = []
        for state in ("ascending", "descending"):
            write_raster(folder / f"{state}.tif", side, 2, smooth=False)
            radar = {"bands": ["VV", "VH"], "unit": "gamma0", "scale": 1e-5, "nodata": 0, "orbit_state": state}
            files.append({"path": f"{state}.tif", **radar})
        sources["radar"] = {"from": "rasters", "files": files}
        features |= {"indices": ["NDVI", "NDWI"], "radar": ["VV", "VH"], "orbit_states": ["ascending", "descending"]}
    recipe = folder / "recipe.yaml"
    edge = side * RES_M
    # a metre inside, and a corner every kilometre: no row more, also after two changes of CRS
    square = shapely.segmentize(box(LEFT + 1, TOP - edge + 1, LEFT + edge - 1, TOP - 1), 1000)
    gpd.GeoSeries([square], crs=CRS).to_file(folder / "area.gpkg")
    content = {
        "name": f"{side} px",
        "aoi": "area.gpkg",
        "workspace": "space",
        "grid": {"crs": CRS, "res_m": RES_M},
        "seasons": [{"name": "summer", "start": "2021-06-01", "end": "2021-08-31"}],
        "sources": sources,
        "features": features,
    }
    recipe.write_text(yaml.safe_dump(content))
    area = Area(recipe, folder / "space", side)
    wetmap("fetch", "--recipe", recipe)
    return area


def write_raster(path: Path, side: int, bands: int, *, smooth: bool) -> None:
    """Write a GeoTIFF of counts around 500 to 4,000, row of tiles by row of tiles.

    Args:
        path: The file.
        side: Side, pixels.
        bands: Bands.
        smooth: Slow waves that compress well, instead of those with noise on them.
    """
    profile = {
        "driver": "GTiff",
        "width": side,
        "height": side,
        "count": bands,
        "dtype": "uint16",
        "nodata": 0,
        "crs": CRS,
        "transform": rasterio.Affine(RES_M, 0, LEFT, 0, -RES_M, TOP),
        "tiled": True,
        "blockxsize": FILE_TILE_PX,
        "blockysize": FILE_TILE_PX,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }
    draw = np.random.default_rng(7)
    across = np.sin(np.arange(side) // 16 / 9)
    with rasterio.open(path, "w", **profile) as target:
        for row in range(0, side, ROWS_PX):
            count = min(ROWS_PX, side - row)
            down = np.cos(np.arange(row, row + count) // 16 / 7)
            for band in range(bands):
                counts = 2000 + 200 * band + 900 * down[:, None] * across
                if not smooth:
                    counts = counts + draw.normal(0, 150, counts.shape)
                target.write(counts.clip(1, 60_000).astype(np.uint16), band + 1, window=Window(0, row, side, count))


def make_bundle(folder: Path, area: Area, name: str) -> Path:
    """An untrained network, or a forest of one tree, as a bundle for an area's cube."""
    recipe = load_recipe(area.recipe)
    bands = bands_of(recipe)
    layers = layers_of(bands)
    place = tuple(layers.index(band.layer) for band in bands)
    if name == "forest":
        draw = np.random.default_rng(0)
        x = draw.normal(0.2, 0.1, (500, len(bands))).astype(np.float32)
        samples = PixelSamples(x, draw.integers(0, CLASSES, 500), CLASSES, len(layers), place)
        forest = fit_pixel_model(name, samples, options={"trees": 1}, seed=0, threads=1)
        geometry, payload, options = forest.geometry, pixel_payload(forest), {"trees": 1}
    else:
        torch.manual_seed(0)
        network: Any = models.create(name, len(bands), CLASSES, layers=len(layers), band_layer=place)
        geometry, payload, options = network.geometry, network_payload(network.state_dict()), {}
    card = _card(name, recipe, payload, geometry, options)
    save_bundle(folder / name, card, payload)
    return folder / name


def _card(name: str, recipe: Any, payload: Payload, geometry: Geometry, options: dict[str, Any]) -> ModelCard:
    bands = bands_of(recipe)
    return ModelCard(
        model=name,
        options={**models.option_defaults(name), **options},
        bands=bands,
        layers=layers_of(bands),
        classes=tuple(MapClass(code, f"class {code}", f"#{30 * code:02x}8080") for code in range(1, CLASSES + 1)),
        window=int(models.option_defaults(name).get("window", 1)),
        geometry=geometry,
        res_m=RES_M,
        simulated=True,
        weights=payload.file,
    )


def predict(area: Area, bundle: Path, *options: str | int, watched: bool = True) -> Run:
    """Make the whole map with ``wetmap predict``; one that is there is made anew, the cube is not."""
    for stage in MAP_STAGES:
        shutil.rmtree(area.workspace / "stages" / stage, ignore_errors=True)
    shutil.rmtree(area.workspace / "map", ignore_errors=True)
    done = wetmap("predict", "--recipe", area.recipe, "--bundle", bundle, *options, watched=watched)
    with rasterio.open(area.workspace / "map" / "classes.tif") as made:
        if made.shape != (area.side, area.side):
            raise RuntimeError(f"The map is of {made.shape} pixels, and the area of {area.side} a side.")
    return done


def wetmap(*arguments: str | Path | int, watched: bool = True) -> Run:
    """Run the command line as a user does; watching its memory takes a tenth of the time of both cores."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-m", "wetmap", *map(str, arguments)]
    start = time.perf_counter()
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=-1
    )
    with _Peak(child.pid if watched else None) as peak:
        said, _ = child.communicate()
    seconds = time.perf_counter() - start
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} left with {child.returncode}:\n{said[-2000:]}")
    return Run(seconds, peak.bytes / 2**20)


class _Peak:
    """The most memory of a process and its children, looked at now and then.

    Args:
        pid: The process; None: nobody looks.
    """

    def __init__(self, pid: int | None) -> None:
        self.bytes = 0
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while self._pid is not None and not self._over.wait(LOOK_EVERY_S):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(self._pid)
                self.bytes = max(self.bytes, sum(map(held_bytes, [process, *process.children(recursive=True)])))


def held_bytes(process: psutil.Process) -> int:
    """Memory of a process: its share of what it shares (Linux), or else all that is resident; 0 if it is gone."""
    try:
        with Path(f"/proc/{process.pid}/smaps_rollup").open() as rows:
            return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) * 1024
    except (OSError, StopIteration):
        with contextlib.suppress(psutil.Error):
            return int(process.memory_info().rss)
        return 0


def memory(folder: Path, small: int, large: int, workers: int, options: tuple[str, ...]) -> dict[str, Any]:
    """Peak memory of mapping a large and a small square with a forest of one tree, by the same command.

    That command cuts the small square smaller, so that no worker waits at its end; it is mapped once more in blocks of
    the side that the large one has.
    """
    equal = ("--block-px", BLOCK_PX)
    runs: list[Run] = []
    rows: dict[str, Any] = {}
    for side, ways in ((small, ((), equal)), (large, ((),))):
        area = make_area(folder / f"memory-{side}", side, bands="few")
        bundle = make_bundle(folder, area, "forest")
        for way in ways:
            runs.append(predict(area, bundle, "--workers", workers, *way, *options))
            name = " ".join([f"{side} px", *map(str, way)])
            rows[name] = {"peak_mb": round(runs[-1].peak_mb), "seconds": round(runs[-1].seconds, 1)}
        shutil.rmtree(folder / f"memory-{side}")
    alike, finer, most = runs[1].peak_mb, runs[0].peak_mb, runs[2].peak_mb
    return {"rows": rows, "figures": {"memory_growth": most / finer, "memory_growth_equal_blocks": most / alike}}


def pipeline(
    folder: Path, side: int, cores: int, parts: tuple[str, ...], names: tuple[str, ...], turns: int
) -> dict[str, Any]:
    """Whole predict runs against the bare model in as many processes, and against one worker.

    What is compared takes turns, since a machine that others use too is faster and slower from one quarter of an hour
    to the next; the best turn of each counts.

    Args:
        folder: Where.
        side: Side of the map, pixels.
        cores: Workers, one thread each, and bare processes.
        parts: Of ``pipeline`` (bare and predict) and ``workers`` (predict with one worker and with two).
        names: Models; the first one's figures are the headline.
        turns: How often each is run.

    Returns:
        ``rows``: pixels per second of every run, in the order of the turns; ``figures``: the ratios.
    """
    area = make_area(folder / "pipeline", side, bands="usual")
    rows: dict[str, list[float]] = {}
    figures: dict[str, float] = {}
    for number, name in enumerate(names):
        bundle, suffix = make_bundle(folder, area, name), "" if number == 0 else f"_{name}"
        whole: dict[int, list[float]] = {count: [] for count in _worker_counts(cores, parts)}
        bare: list[float] = []
        for _ in range(turns):
            for count, rates in whole.items():
                rates.append(side**2 / predict(area, bundle, "--workers", count, watched=False).seconds)
            if "pipeline" in parts:
                bare.append(bare_rate(area, bundle, cores))
        rows |= {f"{name}, predict, {count} workers": rates for count, rates in whole.items()}
        if "pipeline" in parts:
            rows[f"{name}, bare, {cores} processes"] = bare
            figures[f"pipeline_efficiency{suffix}"] = max(whole[cores]) / max(bare)
        if "workers" in parts:
            figures[f"two_worker_share{suffix}"] = max(whole[1]) / max(whole[2])
    shutil.rmtree(folder / "pipeline")
    return {"rows": rows, "figures": figures}


def _worker_counts(cores: int, parts: tuple[str, ...]) -> list[int]:
    return sorted({*((cores,) if "pipeline" in parts else ()), *((1, 2) if "workers" in parts else ())})


def bare_rate(area: Area, bundle: Path, cores: int) -> float:
    """Pixels per second of the model alone on the area's pixels in memory, in as many processes of one thread each."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(cores + 1)
    done: Any = context.Queue()
    starts = np.linspace(0, area.side, cores + 1).astype(int)
    processes = [
        context.Process(target=_bare, args=(area.cube, bundle, int(top), int(bottom), ready, done))
        for top, bottom in itertools.pairwise(starts)
    ]
    for process in processes:
        process.start()
    ready.wait()
    start = time.perf_counter()
    pixels = sum(done.get() for _ in processes)
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    return float(pixels) / seconds


def _bare(path: Path, bundle: Path, top: int, bottom: int, ready: Any, done: Any) -> None:
    """Map the tiles that begin in a band of rows; says how many pixels of the area they hold."""
    keep_freed_memory()
    cube, predictor = Cube.open(path), load_predictor(load_bundle(bundle), threads=1)
    tile, margin = predictor.geometry.tile, predictor.geometry.margin
    height, width = cube.grid.shape
    first = -(-top // tile) * tile
    last = min(-(-bottom // tile) * tile, -(-height // tile) * tile)
    across = -(-width // tile) * tile
    window = (first - margin, -margin, last - first + 2 * margin, across + 2 * margin)
    features, observed = cube.read_window(*window)
    for part in _tiles(1, 1, tile, margin):  # the first one pays for start-up
        predictor.tile_probabilities(features[part][None], observed[part][None])
    ready.wait()
    for part in _tiles((last - first) // tile, across // tile, tile, margin):
        predictor.tile_probabilities(features[part][None], observed[part][None])
    done.put((min(last, height) - first) * width)


def _tiles(rows: int, cols: int, tile: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    for y in range(0, rows * tile, tile):
        for x in range(0, cols * tile, tile):
            yield slice(None), slice(y, y + tile + 2 * margin), slice(x, x + tile + 2 * margin)
