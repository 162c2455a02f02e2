"""Steps after the model, through the front door: what they change, what they leave alone, and what a kill leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from tests.walk.conftest import Run, write_recipe
from wetmap.cluster import Workers, handfuls, local
from wetmap.errors import WetmapError
from wetmap.ledger import Ledger
from wetmap.mapping.patches import number_patches
from wetmap.recipe_file import load_recipe
from wetmap.stages import map_steps, masks, mosaic, postprocess, predict, sieving
from wetmap.stages.check import check_recipe
from wetmap.stages.context import Context, Silent
from wetmap.workspace import Workspace, key_of

STEPS: dict[str, Any] = {
    "masks": [{"path": "ponds.gpkg", "write": "Water"}, {"path": "roads.geojson", "write": "nodata", "buffer_m": 15}],
    "majority_px": 3,
    "minimum_mapping_unit_ha": 0.2,
    "polygons": True,
}
#: Smaller than the minimum mapping unit, 20 px: no other step may undo a mask.
POND = (slice(80, 84), slice(80, 84))


def add_masks(folder: Path, small: Path) -> None:
    """A pond of 4 x 4 px in the middle of the map, in longitude and latitude, and a road along a line of points."""
    with rasterio.open(small / "space/map/classes.tif") as raster:
        left, _, right, top = raster.bounds
        crs = raster.crs
    pond = geopandas.GeoDataFrame(geometry=[shapely.box(left + 799, top - 841, left + 841, top - 799)], crs=crs)
    pond.to_crs(4326).to_file(folder / "ponds.gpkg")
    road = geopandas.GeoDataFrame(geometry=[shapely.LineString([(left, top - 1105), (right, top - 1105)])], crs=crs)
    road.to_crs(4326).to_file(folder / "roads.geojson")


def read(folder: Path, name: str) -> np.ndarray:
    with rasterio.open(folder / f"space/map/{name}.tif") as raster:
        return raster.read(1)


@pytest.fixture
def folder(small: Path, tmp_path: Path) -> Path:
    path = tmp_path / "steps"
    shutil.copytree(small, path)
    add_masks(path, small)
    return path


@pytest.fixture
def context(folder: Path) -> Iterator[Context]:
    """The run of the recipe with all steps, in blocks of 64 px."""
    recipe = load_recipe(write_recipe(folder, postprocess=STEPS))
    workspace = Workspace(folder / "space").open()
    with Workers(recipe.cluster, workspace.root / ".dask") as workers:
        yield Context(recipe, recipe, workspace, workers, Silent())


def test_a_map_with_all_steps(small: Path, folder: Path, wetmap: Run) -> None:
    before, percent = read(small, "classes"), read(small, "confidence")
    done = wetmap("run", write_recipe(folder, postprocess=STEPS), "--json")
    assert "predict: already done" in done.stderr
    assert "postprocess: begins" in done.stderr
    assert "mosaic: made new, because of polygons" in done.stderr
    told = json.loads(done.stdout)
    after = read(folder, "classes")
    assert not (after[before == 0]).any(), "nodata stays"
    assert (after[POND] == 1).all()
    assert (before[POND] != 1).any()
    road = (after == 0) & (before != 0)
    assert road.any(axis=0).sum() > 0.9 * (before != 0).any(axis=0).sum()
    assert road.sum(axis=0).max() == 3  # 30 m, by pixel centres
    patches = number_patches(after, 4)
    sizes = np.bincount(patches[patches >= 0])
    shown = read(folder, "confidence")
    np.testing.assert_array_equal(shown, np.where(before == after, percent, 255))
    frame = geopandas.read_file(folder / "space/map/polygons.gpkg", layer="polygons")
    assert sorted(frame.pixels) == sorted(sizes.tolist())
    for row in told["areas"]:
        assert frame.hectares[frame.code == row["code"]].sum() == pytest.approx(row["hectares"], abs=1e-2)
    steps = [line.partition(" changed")[0] for line in told["postprocess"] if "changed" in line]
    assert steps == [
        "Majority of 3 x 3 px",
        "Minimum mapping unit",
        "Mask ponds.gpkg (Water)",
        "Mask roads.geojson (nodata)",
    ]
    assert "before the steps below" in wetmap("run", folder / "recipe.yaml").stdout
    page = (folder / "space/map/report.html").read_text()
    assert all(line in page for line in told["postprocess"])
    assert "before these steps" in page
    assert str(folder) not in page
    # and back: the map without steps is the one there was, byte for byte
    said = wetmap("run", write_recipe(folder)).stderr
    assert "begins" not in said
    assert "made new" not in said
    assert (folder / "space/map/classes.tif").read_bytes() == (small / "space/map/classes.tif").read_bytes()
    assert not (folder / "space/map/polygons.gpkg").exists()


def test_without_steps_the_keys_are_those_of_before(folder: Path) -> None:
    recipe = load_recipe(write_recipe(folder))
    workspace = Workspace(folder / "space")
    with Workers(recipe.cluster, workspace.root / ".dask") as workers:
        context = Context(recipe, recipe, workspace, workers, Silent())
        asked = mosaic.asked(context)
        assert set(asked) == {"revision", "predict", "classes", "name", "layers", "clear_count"}
        assert mosaic.folder_of(context).key == key_of(asked)
        assert mosaic.folder_of(context).complete, "as made without knowing of steps"
        assert postprocess.final(context).path == predict.folder_of(context).path
        postprocess.run(context)
    assert not (folder / "space/stages/postprocess").exists()


def test_with_a_bound_on_memory_steps_start_no_processes(
    folder: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker process needs for them, nobody has measured."""
    recipe = load_recipe(folder / "recipe.yaml", {"cluster.workers": 2, "cluster.memory": "2GiB"})
    monkeypatch.setattr(local, "start", lambda *_: pytest.fail("worker processes were started"))
    with Workers(recipe.cluster, folder / "dask") as workers:
        postprocess.run(replace(context, workers=workers))
    assert postprocess.folder_of(context).complete


class KilledError(BaseException):
    """Not an error that anything would handle."""


def test_killed_anywhere_the_bytes_are_the_same(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole map in one block first; then in blocks of 64 px, killed again and again."""
    postprocess.run(context)
    folder = postprocess.folder_of(context)
    whole = postprocess.reader(folder)
    grid = context.grid
    (block,) = grid.blocks(4096)
    undisturbed, told = whole(block), folder.manifest
    shutil.rmtree(folder.path)
    for module in (map_steps, sieving):
        monkeypatch.setattr(module, "BLOCK_PX", 64)
    monkeypatch.setattr(handfuls, "MOST", 1)  # each block is written down by itself
    add, kills = Ledger.add, 0
    for steps in (1, 3, 9, 14, 30):
        count = 0

        def dies(self: Ledger, entries: Any, limit: int = steps) -> None:
            nonlocal count
            count += 1
            if count > limit:
                raise KilledError
            add(self, entries)

        monkeypatch.setattr(Ledger, "add", dies)
        try:
            postprocess.run(context)
        except KilledError:
            kills += 1
            assert folder.manifest is None
    monkeypatch.setattr(Ledger, "add", add)
    postprocess.run(context)
    assert kills >= 4
    np.testing.assert_array_equal(postprocess.reader(folder)(block), undisturbed)
    assert folder.manifest == told
    assert sorted(path.name for path in folder.path.iterdir()) == ["asked.json", "manifest.json", "map.zarr"]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"masks": [{"path": "none.gpkg", "write": "water"}]}, r"masks\.0 names .*none\.gpkg, which does not exist"),
        ({"masks": [{"path": "ponds.gpkg", "write": "lake"}]}, "masks.0.write names 'lake', .* water, wetland, upland"),
        ({"masks": [{"path": "ponds.gpkg", "write": "water", "layer": "x"}]}, "no layer 'x'"),
        ({"masks": [{"path": "ponds.gpkg", "write": "water", "values": [1]}]}, "has values, and .* vector file"),
        ({"masks": [{"path": "roads.geojson", "write": "nodata"}]}, "holds no polygons .*LineString"),
        ({"masks": [{"path": "recipe.yaml", "write": "water"}]}, "neither a vector file nor a raster"),
        ({"unit_of_class_ha": {"lake": 1}}, "unit_of_class_ha names 'lake'"),
        ({"unit_of_class_ha": {"water": 1, "Water ": 2}}, "names a class twice"),
        ({"majority_px": 4}, "majority_px is 4, and a window around a pixel is odd"),
        ({"sieve": 1}, "postprocess.sieve is not a key of the recipe"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work(
    small: Path, tmp_path: Path, part: dict[str, Any], message: str
) -> None:
    add_masks(tmp_path, small)
    with pytest.raises(WetmapError, match=message):
        check_recipe(load_recipe(write_recipe(tmp_path, postprocess=part)))


def test_a_raster_masks_its_values_and_what_is_near(context: Context) -> None:
    """A raster of 20 m pixels on another corner, with one pixel of value 7."""
    grid = context.grid
    path = context.workspace.root / "mask.tif"
    transform = Affine(20, 0, grid.left + 200, 0, -20, grid.top - 200)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 5, "width": 5, "nodata": 9}
    with rasterio.open(path, "w", crs=grid.crs, transform=transform, **profile) as raster:
        raster.write(np.array([[9] * 5, [0, 7, 0, 0, 0], [0] * 5, [0, 0, 0, 3, 0], [0] * 5], dtype=np.uint8), 1)
    (block,) = grid.blocks(4096)

    def covered(**options: Any) -> list[tuple[int, int]]:
        mask = postprocess.Mask(path=path, write="water", **options)
        return list(zip(*(index.tolist() for index in np.nonzero(masks.covered(mask, grid, block))), strict=True))

    seven, three = [(22, 22), (22, 23), (23, 22), (23, 23)], [(26, 26), (26, 27), (27, 26), (27, 27)]
    assert covered() == seven + three
    assert covered(values=[7]) == seven
    near = covered(values=[7], buffer_m=10)
    assert len(near) == 12
    assert set(seven) <= set(near)
