"""The operating point of a SuperViT, through the front door: named, or measured and chosen, and then frozen."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from tests.walk.conftest import Run, command, copy_of_fetched, write_recipe
from wetmap import models
from wetmap.bundle import ModelCard, network_payload, save_bundle
from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.training.points import PointScore

MODEL = "supervit-micro-dense"
#: Accuracies as a card would have them: the middle one is the best.
ACCURACY = {(4, 0.5): 0.40, (6, 0.7): 0.80, (8, 1.0): 0.70}


def save_model(folder: Path, cube: Cube, *, points: bool = True) -> Path:
    """An untrained SuperViT that fits the cube; its points answer differently."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        bands, layers = len(cube.bands), len(cube.layers)
        band_layer = [cube.layers.index(band.layer) for band in cube.bands]
        model = models.create(MODEL, bands, 3, layers=layers, band_layer=band_layer, window=16)
    with torch.no_grad():
        for block in model.trunk.blocks:
            block.mlp[2].weight.mul_(20)
        model.head.weight.mul_(20)
    payload = network_payload(model.state_dict())
    card = ModelCard(
        model=MODEL,
        options=models.resolve_options(MODEL, {"window": 16}),
        bands=cube.bands,
        layers=cube.layers,
        classes=tuple(MapClass(code, name, "#336699") for code, name in ((1, "water"), (2, "wetland"), (3, "upland"))),
        window=16,
        geometry=model.geometry,
        res_m=cube.grid.res_m,
        points=tuple(PointScore(t, k, f1, 300) for (t, k), f1 in ACCURACY.items()) if points else (),
        simulated=True,
        weights=payload.file,
    )
    save_bundle(folder, card, payload)
    return folder


@pytest.fixture(scope="module")
def fetched(small: Path, tmp_path_factory: pytest.TempPathFactory, wetmap: Run) -> Path:
    """A folder with a cube and two models, one of which does not know how accurate its points are."""
    folder = copy_of_fetched(small, tmp_path_factory.mktemp("points"))
    wetmap("fetch", "--recipe", write_recipe(folder, reference=None))
    cube = Cube.open(next((folder / "space/stages/fetch").glob("*/*.zarr")))
    save_model(folder / "model", cube)
    save_model(folder / "silent", cube, points=False)
    return folder


@pytest.fixture
def ready(fetched: Path, tmp_path: Path) -> Path:
    shutil.copytree(fetched, tmp_path / "run")
    return tmp_path / "run"


def arguments(folder: Path, *more: str) -> list[str | Path]:
    return ["predict", "--recipe", folder / "recipe.yaml", "--bundle", folder / "model", *more]


def raster(folder: Path, name: str) -> np.ndarray:
    with rasterio.open(folder / f"space/map/{name}.tif") as made:
        found: np.ndarray = made.read(1)
        return found


def classes(folder: Path) -> np.ndarray:
    return raster(folder, "classes")


def choices(folder: Path) -> list[Path]:
    return sorted((folder / "space/stages/predict").glob("*/operating_point.json"))


def test_named_and_chosen_points_make_the_same_map_and_others_another(ready: Path, wetmap: Run) -> None:
    whole = wetmap(*arguments(ready))
    assert "Point:" not in whole.stdout
    by_default = raster(ready, "confidence")
    assert "Point:  6 tokens a side, keep 0.7" in wetmap(*arguments(ready, "--tokens", "6", "--keep", "0.7")).stdout
    assert "computed at the operating point 6 tokens" in (ready / "space/map/report.html").read_text()
    named = classes(ready)
    assert not np.array_equal(raster(ready, "confidence"), by_default)
    # every point keeps to an hour, and the most accurate is not the slowest
    done = wetmap(*arguments(ready, "--budget", "1h"))
    assert np.array_equal(classes(ready), named)
    told = done.stderr
    assert f"Measuring 3 operating points of {MODEL}" in told
    assert re.search(r"\n +6 +0\.7 +0\.800 +[\d,]+ +\S+ (s|min) +<- chosen\n", told)
    assert len(re.findall(r"\n +[468] +(0\.5|0\.7|1) +0\.\d{3} ", told)) == 3
    # asked again in other words, it is there already
    again = wetmap(*arguments(ready, "--budget", "60m", "--json"))
    assert "Measuring" not in again.stderr
    assert len(choices(ready)) == 2
    assert json.loads(again.stdout)["operating_point"] == {"tokens": 6, "keep": 0.7}


def test_a_killed_map_goes_on_at_the_point_it_was_begun_with(ready: Path, wetmap: Run) -> None:
    asked = arguments(ready, "--budget", "1-px-per-s")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command(*asked), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not choices(ready) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    (path,) = choices(ready)
    chosen = json.loads(path.read_text())
    assert (chosen["tokens"], chosen["keep"], chosen["budget"]) == (6, 0.7, "1-px-per-s")
    assert len(chosen["measured"]) == 3
    assert not (path.parent / "manifest.json").exists()
    # as if the machine had been slower when the map was begun
    path.write_text(json.dumps({**chosen, "tokens": 4, "keep": 0.5}))
    done = wetmap(*asked)
    assert "it was begun with: 4 tokens a side, keep 0.5" in done.stderr
    assert "Measuring" not in done.stderr
    begun = classes(ready)
    wetmap(*arguments(ready, "--tokens", "4", "--keep", "0.5"))
    assert np.array_equal(classes(ready), begun)


def test_what_cannot_be_is_refused_and_leaves_nothing(ready: Path, wetmap: Run) -> None:
    slow = wetmap(*arguments(ready, "--budget", "900M-px-per-s"), expect=2).stderr
    assert "No operating point keeps to the budget 900M-px-per-s: the fastest, " in slow
    assert "Give a larger budget" in slow
    assert "Choose one of 4, 6, 8" in wetmap(*arguments(ready, "--tokens", "5"), expect=2).stderr
    assert "1h30m" in wetmap(*arguments(ready, "--budget", "20 minutes"), expect=2).stderr
    assert "use one of the two" in wetmap(*arguments(ready, "--budget", "1h", "--keep", "0.5"), expect=2).stderr
    silent = arguments(ready, "--budget", "1h")
    silent[silent.index(ready / "model")] = ready / "silent"
    assert "does not say how accurate" in wetmap(*silent, expect=2).stderr
    assert not (ready / "space/stages/predict").exists()


def test_a_model_that_is_a_single_network_is_refused_before_anything_is_fetched(tmp_path: Path, wetmap: Run) -> None:
    recipe = write_recipe(tmp_path)
    assert "has no operating points" in wetmap("run", recipe, "--budget", "20m", expect=2).stderr
    assert not (tmp_path / "space").exists()


def test_a_dry_run_measures_and_keeps_nothing(ready: Path, wetmap: Run) -> None:
    done = wetmap(*arguments(ready, "--budget", "1h", "--dry-run"))
    assert "<- chosen" in done.stderr
    assert "operating point 6 tokens a side, keep 0.7" in done.stdout
    assert not (ready / "space/stages/predict").exists()
