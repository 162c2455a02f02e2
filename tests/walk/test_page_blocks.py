"""Every block of code in the pages, run as a reader would: page by page, in order, in one folder.

The folder holds what the pages talk about: ``nb.geojson``, ``wetlands.gpkg``, and ``nb-wetmap``, the workspace of a
small simulated map whose recipe the commands without ``--recipe`` go by. See docs/contributing.md, "Pages".
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import torch
import yaml
from filelock import FileLock
from rasterio.features import rasterize

from tests.docs_output import same_keys, unknown_lines
from tests.docs_pages import PAGES, ROOT, TERMINAL, Fence, fences
from tests.docs_props import provide, write_area
from tests.docs_shell import Shell
from tests.exchange.test_importing import released
from tests.walk.conftest import RECIPE, Run, copy_of_fetched, run_here
from tests.walk.test_operating_point import save_model
from wetmap import models
from wetmap.cube import Cube
from wetmap.products.class_map import open_class_map
from wetmap.products.sample_file import read_design

#: What the workspace of the pages has in place of the small recipe: its classes have numbers too, for label rasters.
SCENES: dict[str, Any] = {key: RECIPE[key] for key in ("sources", "simulated", "grid", "seasons")}
WORK: dict[str, Any] = {
    **SCENES,
    **{key: RECIPE[key] for key in ("samples", "splits", "predict", "cluster")},
    "model": {"name": "unet", "options": {"window": 8, "width": 8}},  # trained, mapped and exported in no time
    "training": {**RECIPE["training"], "epochs": 2, "warmup_epochs": 1},
    "classes": [
        {**item, "reference": [*item.get("reference", ["upland"]), code]}
        for code, item in enumerate(RECIPE["classes"], 1)
    ],
}
REFERENCE = {"path": "wetlands.gpkg", "class_field": "CLASS"}

TUTORIAL = ROOT / "docs/tutorial.md"
RUN = [page for page in PAGES if page != TUTORIAL and any(fences(page))]
SAMPLE = ROOT / "sample-wetmap"


def recipe_of(folder: Path) -> str:
    """The recipe of the pages' workspace."""
    return yaml.safe_dump(
        {**WORK, "aoi": str(folder / "nb.geojson"), "reference": {**REFERENCE, "path": str(folder / "wetlands.gpkg")}}
    )


def write_labels(folder: Path, grid: Path) -> None:
    """The reference as a raster of the numbers of its classes."""
    reference = geopandas.read_file(folder / "wetlands.gpkg")
    code = {
        name: number for number, item in enumerate(RECIPE["classes"], 1) for name in item.get("reference", ["upland"])
    }
    with rasterio.open(grid) as raster:
        shapes = zip(reference.to_crs(raster.crs).geometry, reference["CLASS"].map(code), strict=True)
        labels = rasterize(shapes, out_shape=raster.shape, transform=raster.transform, fill=255, dtype="uint8")
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "crs": raster.crs}
        size = {"width": raster.width, "height": raster.height, "transform": raster.transform}
    with rasterio.open(folder / "labels.tif", "w", **profile, **size) as raster:
        raster.write(labels, 1)


@pytest.fixture(scope="session")
def desk(small: Path, wetmap: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it after a first map. Pages work on copies of it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "desk"
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            folder.mkdir(exist_ok=True)
            copy_of_fetched(small, folder / "copy")
            (folder / "copy/space").rename(folder / "nb-wetmap")
            for name in ("nb", "area", "my_area"):
                write_area(folder / f"{name}.geojson")
            shutil.copy(
                next((small / "space/stages/simulate").glob("*/archive/reference.gpkg")), folder / "wetlands.gpkg"
            )
            write_labels(folder, small / "space/map/classes.tif")
            (folder / "nb-wetmap/recipe.yaml").write_text(recipe_of(folder))
            wetmap("train", "--aoi", "nb.geojson", cwd=folder)
            wetmap("predict", "--aoi", "nb.geojson", cwd=folder)
            (folder / "map").symlink_to("nb-wetmap/map")  # pages about its files begin there
            (folder / "made").touch()
    return folder


def call(words: list[str], folder: Path) -> Any:
    return run_here(words, folder)


def fill_samples(folder: Path) -> None:
    """Interpret every sample that was drawn, as somebody who agrees with the map but for every tenth point."""
    for file in {*folder.glob("*.gpkg"), *folder.glob("*/sample.gpkg")}:
        design = read_design(file)
        if design is None or "reference" not in pyogrio.read_info(file, layer="sample")["fields"]:
            continue
        names = {item.code: item.name for item in design.classes}
        rows = [
            (design.classes[0].name if unit % 10 == 0 else names[code], unit)
            for unit, code in enumerate(design.codes, start=1)
        ]
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f"DROP TRIGGER {trigger}")  # they call functions that only QGIS has
            database.executemany("UPDATE sample SET reference = ? WHERE unit = ?", rows)


def fill_changes(folder: Path) -> None:
    """Interpret samples of a change, or for one: both dates in fields of their own, nothing has changed."""
    for file, fields in (
        (folder / "nb-change/sample.gpkg", ("before", "after")),
        (folder / "points.gpkg", ("reference", "now")),
    ):
        if not file.exists():
            continue
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f"DROP TRIGGER {trigger}")
            known = {row[1] for row in database.execute("PRAGMA table_info(sample)")}
            for name in set(fields) - known:
                database.execute(f"ALTER TABLE sample ADD COLUMN {name} TEXT")
            names = [item["name"] for item in WORK["classes"]]
            rows = [(names[unit % 3], names[(unit + unit % 7 // 6) % 3], unit) for unit in range(1, 1000)]
            database.executemany(f"UPDATE sample SET {fields[0]} = ?, {fields[1]} = ? WHERE unit = ?", rows)  # noqa: S608


def edit_recipe(folder: Path) -> None:
    """What a reader does with a recipe that was begun: name the own data; here the small simulated ones."""
    for file in folder.glob("my_map.yaml"):
        begun = yaml.safe_load(file.read_text())
        reference = REFERENCE if begun["aoi"] == "nb.geojson" else "simulated"
        file.write_text(yaml.safe_dump({**begun, **WORK, "reference": reference, "features": {"preset": "paper16"}}))


#: Done where a line of a page holds the words.
HANDS: dict[str, Callable[[Path], None]] = {
    "wetmap sample": fill_samples,
    "fill `before` and `after`": fill_changes,
    "add a text field `now`": fill_changes,
    "wetmap recipe init": edit_recipe,
}


def public_weights() -> dict[str, Any]:
    """A model of the reader's own, in PyTorch and in Keras: what the page saves of it."""
    weight = SimpleNamespace(name="dense/kernel:0", numpy=lambda: np.zeros((2, 3), np.float32))
    return {"torch": torch, "model": SimpleNamespace(state_dict=dict, weights=[weight])}


def supervit() -> dict[str, Any]:
    """A training loop about to begin: one batch of four windows."""
    model = models.create("supervit-micro", 3, 4, window=16)
    batch = (torch.zeros(4, 3, 16, 16), torch.ones(4, 1, 16, 16, dtype=torch.bool), torch.arange(4))
    return {
        "np": np,
        "seed": 1,
        "model": model.train(),
        "batches": [batch],
        "criterion": torch.nn.functional.cross_entropy,
        "optimiser": torch.optim.SGD(model.parameters(), 1e-3),
    }


def public_checkpoints(folder: Path) -> None:
    """Checkpoints as the public code of the two models writes them, with weights at random."""
    for file, model in (("vvt_tiny.pth", "vvt-tiny"), ("super_deit_s.pth", "supervit-small")):
        _, weights = released(model)
        torch.save(weights, folder / file)


def a_supervit(folder: Path) -> None:
    """A SuperViT that fits the workspace's cube."""
    save_model(folder / "supervit", Cube.open(next(folder.glob("nb-wetmap/stages/fetch/*/cube.zarr"))))


def elsewhere(folder: Path) -> None:
    """A model of another workspace."""
    shutil.copytree(folder / "nb-wetmap/model", folder / "elsewhere-wetmap/model")


def my_map(folder: Path) -> None:
    """A recipe, and a workspace that is called like it."""
    (folder / "my_map.yaml").write_text(recipe_of(folder))
    shutil.copytree(folder / "nb-wetmap", folder / "my_map")


def the_sample(folder: Path) -> None:
    """A workspace that is called as that of `make sample`."""
    shutil.copytree(folder / "nb-wetmap", folder / "sample-wetmap")


def pilot_area(folder: Path) -> None:
    """The recipes and areas of the project; the scenes of one are simulated, so that no archive is asked for them."""
    for name in ("pipelines", "aoi"):
        shutil.copytree(ROOT / name, folder / name)
    file = folder / "pipelines/grand_bay_westfield.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "sources": RECIPE["sources"]}))


def my_rasters(folder: Path) -> None:
    """The recipe of the page, saved with other classes and less work, beside rasters like those that it names."""
    recipe = yaml.safe_load((ROOT / "pipelines/my_rasters.yaml").read_text())
    small = {key: WORK[key] for key in ("classes", "samples", "splits", "training", "predict", "cluster")}
    changed = {**recipe, **small, "model": {"name": "forest"}, "aoi": "nb.geojson"}
    provide(changed, folder, folder / "nb-wetmap/model")
    (folder / "my_rasters.yaml").write_text(yaml.safe_dump({**changed, "reference": REFERENCE}))


def nb_yaml(folder: Path) -> None:
    """The recipe of the workspace, as a file of its own."""
    (folder / "nb.yaml").write_text(recipe_of(folder) + "workspace: nb-wetmap\n")


def two_years(folder: Path) -> None:
    """Maps of two years: in the second some wetland is under water, and a pixel here and there differs."""
    for year in (2019, 2023):
        shutil.copytree(folder / "nb-wetmap", folder / f"nb-{year}-wetmap")
    file = folder / "nb-2023-wetmap/map/classes.tif"
    with rasterio.open(file) as raster:
        codes, profile = raster.read(1), {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 0}
        profile |= {key: raster.profile[key] for key in ("crs", "transform", "width", "height")}
    names = {item.name: item.code for item in open_class_map(file).classes}
    wetland = np.flatnonzero(codes == names["wetland"])
    codes.flat[wetland[:400]] = names["water"]
    mapped = np.flatnonzero(codes)
    codes.flat[np.random.default_rng(1).choice(mapped, len(mapped) // 50, replace=False)] = names["wetland"]
    file.unlink()
    with rasterio.open(file, "w", **profile) as raster:
        raster.write(codes, 1)


#: What a reader of a page has in the folder besides.
PROPS: dict[str, Callable[[Path], None]] = {
    "docs/how-to/cluster.md": nb_yaml,
    "docs/how-to/look-at-the-map.md": the_sample,
    "docs/how-to/new-brunswick.md": pilot_area,
    "docs/how-to/change.md": two_years,
    "docs/how-to/how-long.md": elsewhere,
    "docs/how-to/my-own-rasters.md": my_rasters,
    "docs/how-to/public-weights.md": public_checkpoints,
    "docs/how-to/slurm.md": nb_yaml,
    "docs/models/supervit.md": a_supervit,
    "docs/reference/workspace.md": my_map,
    "docs/sources/cdse.md": my_map,
    "docs/sources/planetary-computer.md": my_map,
}

#: Names that the Python of a page takes for granted, because its reader has them.
NAMES: dict[str, Callable[[], dict[str, Any]]] = {
    "docs/how-to/public-weights.md": public_weights,
    "docs/models/supervit.md": supervit,
}


@pytest.fixture
def shell(desk: Path, tmp_path: Path) -> Shell:
    """A reader in a folder of his own."""
    folder = tmp_path / "desk"
    shutil.copytree(desk, folder, symlinks=True)
    (folder / "nb-wetmap/recipe.yaml").write_text(recipe_of(folder))
    return Shell(folder, call, HANDS)


def check_recipe(fence: Fence, shell: Shell) -> None:
    """Check a page's recipe as `wetmap recipe check` does, with the files that it names."""
    folder = shell.folder / f"line{fence.line}"
    folder.mkdir()
    (folder / "nb-wetmap").symlink_to("../nb-wetmap")
    whole = provide(yaml.safe_load(fence.text), folder, shell.folder / "nb-wetmap/model")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole))
    done = call(["recipe", "check", "recipe.yaml"], folder)
    assert done.returncode == 0, f"{fence.name}: {done.stderr}"
    sources = whole.get("sources", {})
    if {"optical", "radar", "terrain"} <= set(sources) and all(
        (row or {}).get("from") == "simulated" for row in sources.values()
    ):
        done = call(["run", "recipe.yaml", "--dry-run"], folder)
        assert done.returncode == 0, f"{fence.name}: {done.stderr}"


def go_through(page: Path, shell: Shell) -> None:
    """Run every block of a page."""
    for fence in fences(page):
        if fence.not_run is not None:
            continue
        if fence.save_as is not None:
            (shell.folder / fence.save_as).write_text(fence.text)
        if fence.language in TERMINAL:
            shell.run(fence)
        elif fence.language == "python":
            shell.run_python(fence)
        elif fence.language == "yaml":
            check_recipe(fence, shell)
        elif fence.language == "json":
            assert same_keys(fence.text, "\n".join(shell.said)), fence.name
        else:
            assert fence.language == "text", f"{fence.name}: no test can run {fence.language}"
            assert unknown_lines(fence.text, "\n".join(shell.said)) == [], fence.name


@pytest.mark.parametrize("page", RUN, ids=[str(page.relative_to(ROOT)) for page in RUN])
def test_every_block_of_the_page_runs(page: Path, shell: Shell) -> None:
    name = str(page.relative_to(ROOT))
    shell.names |= NAMES.get(name, dict)()
    if name in PROPS:
        PROPS[name](shell.folder)
    go_through(page, shell)


def test_every_block_of_the_tutorial_runs(shell: Shell) -> None:
    """On the result of `make sample`, which CI makes before the tests."""
    if not (SAMPLE / "map/classes.tif").exists():
        reason = "there is no sample-wetmap here; `make sample` makes it in about a minute"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    for part in ("pipelines", "aoi"):
        shutil.copytree(ROOT / part, shell.folder / part)
    shutil.copytree(SAMPLE, shell.folder / SAMPLE.name)
    go_through(TUTORIAL, shell)
