"""Real scenes through the front door: a coast in Brazil (282D) is mapped in small, a valley in Chile (433D) fetched.

Sentinel-2 L2A, Sentinel-1 RTC, elevation and an annual land cover map as labels, each 224 x 224 px of 10 m. Their
pixels do not lie on multiples of 10 m, so the map's grid is not theirs. Tests that look at scores ask only for what
any working chain must reach: the labels are themselves a map made by a machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.windows import Window
from scipy import ndimage

from tests.conftest import SHARED
from tests.walk.conftest import Run
from wetmap.cube import Cube
from wetmap.geo import Grid
from wetmap.samples import UNLABELLED, PatchCubes

SCENES = SHARED / "data/terramesh_terramind"
COAST, VALLEY = "282D_485L_3_3", "433D_629L_3_1"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SCENES.is_dir(), reason="the real scenes are not beside the checkout"),
]

#: Bands of the Sentinel-2 files in file order; 60 m bands are not used.
STORED = ["-", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "-", "B11", "B12"]
#: Added to reflectance: the valley's file carries the +1000 of processing baseline 04.00, the coast's does not.
OFFSET = {COAST: 0.0, VALLEY: -0.1}
#: Day of the Sentinel-2 scene.
DAY = {COAST: "2021-07-23", VALLEY: "2020-04-08"}
#: Label values: water 1, trees 2, flooded vegetation 3, crops 4, built 5, bare 6, rangeland 9.
CLASSES: dict[str, list[dict[str, Any]]] = {
    COAST: [
        {"name": "water", "code": 1, "reference": [1]},
        {"name": "trees", "code": 2, "reference": [2], "upland": True},
        {"name": "bare", "code": 6, "reference": [6], "upland": True},
        {"name": "rangeland", "code": 9, "reference": [9], "upland": True},
    ],
    VALLEY: [
        {"name": "water and flooded vegetation", "code": 1, "reference": [1, 3]},
        {"name": "trees", "code": 2, "reference": [2], "upland": True},
        {"name": "crops", "code": 4, "reference": [4], "upland": True},
        {"name": "built", "code": 5, "reference": [5], "upland": True},
        {"name": "rangeland", "code": 9, "reference": [9], "upland": True},
    ],
}
#: Half a step of the cube and float32's last digits: reflectance, decibels, metres.
HALF_STEP = {"reflectance": 0.5001e-4, "gamma0_db": 0.00501, "elevation": 0.12501}


def write_real_recipe(
    folder: Path, scene: str, *, files: Path = SCENES, window: Window | None = None, **changes: Any
) -> Path:
    """Write the recipe that maps a scene, and its area: the footprint of the scene or of a window of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "area.geojson").write_text(json.dumps(footprint(files / "S2L2A" / f"{scene}.tif", window)))
    recipe: dict[str, Any] = {
        "name": scene,
        "aoi": "area.geojson",
        "workspace": "space",
        "seasons": [{"name": "scene", "start": DAY[scene], "end": DAY[scene]}],
        "sources": {
            "optical": own(
                files / "S2L2A" / f"{scene}.tif", STORED, unit="reflectance", scale=1e-4, offset=OFFSET[scene]
            ),
            "radar": own(files / "S1RTC" / f"{scene}.tif", ["VV", "VH"], unit="gamma0_db"),
            "terrain": own(files / "DEM" / f"{scene}.tif", ["elevation"], unit="m"),
        },
        "features": {"preset": "custom", "orbit_states": ["any"], "terrain": ["elevation", "slope", "tpi"]},
        "reference": {"path": str(files / "LULC" / f"{scene}.tif")},
        "classes": CLASSES[scene],
        "model": {"name": "wetmapformer-window"},
        "cluster": {"workers": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, **changes}))
    return path


def own(path: Path, bands: Sequence[str], **how: Any) -> dict[str, Any]:
    """A source of one GeoTIFF."""
    return {"from": "rasters", "files": [{"path": str(path), "bands": list(bands), **how}]}


def corner(transform: rasterio.Affine, col: float, row: float) -> tuple[float, float]:
    """Upper left corner of a pixel in the raster's CRS."""
    return transform.a * col + transform.c, transform.e * row + transform.f


def footprint(path: Path, window: Window | None, inset_m: float = 1.0) -> dict[str, Any]:
    """Outline of a raster or a window of it in longitude and latitude, a metre inside its edges, as GeoJSON."""
    with rasterio.open(path) as source:
        at = Window(0, 0, source.width, source.height) if window is None else window
        left, top = corner(source.transform, at.col_off, at.row_off)
        right, bottom = corner(source.transform, at.col_off + at.width, at.row_off + at.height)
        to_degrees = Transformer.from_crs(source.crs, "EPSG:4326", always_xy=True)
    left, bottom, right, top = left + inset_m, bottom + inset_m, right - inset_m, top - inset_m
    corners = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    return {"type": "Polygon", "coordinates": [[list(to_degrees.transform(x, y)) for x, y in corners]]}


@pytest.fixture(scope="module")
def coast(tmp_path_factory: pytest.TempPathFactory, wetmap: Run) -> Path:
    """The middle of the coast, mapped with little training, in a folder of its own."""
    folder = tmp_path_factory.mktemp("coast")
    water, trees, bare, _ = CLASSES[COAST]
    recipe = write_real_recipe(
        folder,
        COAST,
        window=Window(48, 48, 128, 128),
        classes=[water, trees, {**bare, "name": "open land", "reference": [6, 9]}],
        samples={"per_class": 150},
        splits={"folds": 3, "block_m": 240},
        training={"epochs": 2, "warmup_epochs": 1, "forest_trees": 50, "batch_size": 64},
    )
    done = wetmap("run", recipe)
    assert "%" not in done.stderr, "a file is said not to cover the area, and all do"
    return folder


@pytest.fixture(scope="module")
def valley(tmp_path_factory: pytest.TempPathFactory, wetmap: Run) -> Path:
    """The valley fetched without a speckle filter, from copies whose pixels lie on multiples of 10 m."""
    folder = tmp_path_factory.mktemp("valley")
    for kind in ("S2L2A", "S1RTC", "DEM", "LULC"):
        moved_copy(SCENES / kind / f"{VALLEY}.tif", folder / kind / f"{VALLEY}.tif")
    wetmap("fetch", "--recipe", write_real_recipe(folder, VALLEY, files=folder, radar={"speckle": "none"}))
    return folder


def moved_copy(path: Path, target: Path) -> None:
    """Copy a raster, moved by less than a pixel to the next multiples of 10 m."""
    target.parent.mkdir()
    with rasterio.open(path) as source:
        a = source.transform
        at = rasterio.Affine(a.a, a.b, round(a.c, -1), a.d, a.e, round(a.f, -1))
        with rasterio.open(target, "w", **{**source.profile, "transform": at}) as copy:
            copy.write(source.read())


def the_cube(folder: Path) -> Cube:
    return Cube.open(next((folder / "space/stages/fetch").glob("*/cube.zarr")))


def the_patches(folder: Path) -> PatchCubes:
    return PatchCubes.open(next((folder / "space/stages/cubes").glob("*/patches.zarr")))


def manifest(folder: Path, stage: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(next((folder / "space/stages" / stage).glob("*/manifest.json")).read_text())
    return data


def positions(grid: Grid, source: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns in a raster of the grid's pixel centres, both (height, width), counted between centres."""
    x, y = np.meshgrid(grid.x, grid.y)
    a = source.transform
    return (y - a.f) / a.e - 0.5, (x - a.c) / a.a - 0.5


def by_name(cube: Cube) -> Mapping[str, NDArray[np.float32]]:
    values, _ = cube.read_window(0, 0, *cube.grid.shape)
    return {band.name: row for band, row in zip(cube.bands, values, strict=True)}


def test_values_on_the_grids_own_lattice_come_through_unchanged(valley: Path) -> None:
    """Bands 2 to 8A, 11 and 12, backscatter and elevation: what the file holds, to half a step, at every pixel."""
    cube = the_cube(valley)
    assert cube.grid.shape == (224, 224)
    values = by_name(cube)
    with rasterio.open(valley / "S2L2A" / f"{VALLEY}.tif") as source:
        assert all(abs(a - b) < 1e-9 for a, b in zip(source.transform, cube.grid.transform, strict=True))
        for name, band in zip(STORED, source.read().astype(np.float64), strict=True):
            if name != "-":
                found = values[f"scene.{name}"]
                np.testing.assert_allclose(found, band * 1e-4 - 0.1, rtol=0, atol=HALF_STEP["reflectance"])
    with rasterio.open(valley / "S1RTC" / f"{VALLEY}.tif") as source:
        for name, band in zip(("VV", "VH"), source.read(), strict=True):
            np.testing.assert_allclose(values[f"scene.{name}_any"], band, rtol=0, atol=HALF_STEP["gamma0_db"])
    with rasterio.open(valley / "DEM" / f"{VALLEY}.tif") as source:
        np.testing.assert_array_equal(values["terrain.elevation"], source.read(1))


def test_offset_makes_vegetation_plausible_and_dark_pixels_are_kept(valley: Path) -> None:
    """Forest has NDVI about 0.8 and is dark in blue; with +1000 left in it would have 0.5. Below 0 is a value, too."""
    values = by_name(the_cube(valley))
    with rasterio.open(valley / "LULC" / f"{VALLEY}.tif") as source:
        trees = source.read(1) == 2
    assert 0.75 < float(np.median(values["scene.NDVI"][trees])) < 0.9
    assert 0.0 < float(np.median(values["scene.B02"][trees])) < 0.04
    red, infrared = values["scene.B04"] + 0.1, values["scene.B08"] + 0.1
    assert float(np.median(((infrared - red) / (infrared + red))[trees])) < 0.5
    assert np.isfinite(values["scene.B07"]).all()
    assert float(values["scene.B07"].min()) == pytest.approx(969e-4 - 0.1, abs=HALF_STEP["reflectance"])


def test_map_is_on_the_grid_that_the_area_gives(coast: Path) -> None:
    """The scene's UTM zone, multiples of 10 m, every pixel of the area mapped.

    The scene's lattice is 6.04 m and 9.25 m past multiples of 10 m; 128 pixels less a metre on each side touch 129
    columns and 128 rows of the grid.
    """
    grid = the_cube(coast).grid
    with rasterio.open(SCENES / "S2L2A" / f"{COAST}.tif") as source:
        left, top = corner(source.transform, 48, 48)
        assert rasterio.CRS.from_user_input(grid.crs) == source.crs
    assert (grid.left, grid.top) == (np.floor(left / 10) * 10, np.ceil(top / 10) * 10)
    assert grid.shape == (128, 129)
    with rasterio.open(coast / "space/map/classes.tif") as source:
        assert all(abs(a - b) < 1e-9 for a, b in zip(source.transform, grid.transform, strict=True))
        assert source.shape == grid.shape
        classes = source.read(1)
    assert set(np.unique(classes)) <= {0, 1, 2, 6}
    assert (classes[1:-1, 1:-1] > 0).all()


def test_values_off_the_grids_lattice_are_bilinear_and_not_shifted(coast: Path) -> None:
    """Against scipy's own interpolation at the pixel centres, computed here from the file's transform."""
    cube = the_cube(coast)
    values = by_name(cube)
    with rasterio.open(SCENES / "S2L2A" / f"{COAST}.tif") as source:
        at = positions(cube.grid, source)
        for name in ("B02", "B08", "B12"):
            stored = source.read(STORED.index(name) + 1).astype(np.float64)
            expected = ndimage.map_coordinates(stored * 1e-4, at, order=1)
            np.testing.assert_allclose(values[f"scene.{name}"], expected, rtol=0, atol=HALF_STEP["reflectance"])
    with rasterio.open(SCENES / "DEM" / f"{COAST}.tif") as source:
        expected = ndimage.map_coordinates(source.read(1).astype(np.float64), at, order=1)
    np.testing.assert_allclose(values["terrain.elevation"], expected, rtol=0, atol=HALF_STEP["elevation"])


def test_labels_are_the_files_codes_at_the_nearest_pixel(coast: Path) -> None:
    patches = the_patches(coast)
    grid = the_cube(coast).grid
    codes = np.array([row.code for row in patches.classes])
    with rasterio.open(SCENES / "LULC" / f"{COAST}.tif") as source:
        rows, cols = positions(grid, source)
        stored = source.read(1)[np.rint(rows).astype(int), np.rint(cols).astype(int)]
    expected = np.pad(np.where(stored == 9, 6, stored), 4, constant_values=UNLABELLED)
    seen = 0
    for role in ("train", "validation", "test"):
        for row, col, label, window in zip(*fields(patches, role), strict=True):
            assert codes[label] == expected[row + 4, col + 4]
            found = window != UNLABELLED
            np.testing.assert_array_equal(codes[window[found]], expected[row : row + 8, col : col + 8][found])
            seen += int(found.sum())
    assert seen > 1_000


def fields(patches: PatchCubes, role: str) -> tuple[Any, ...]:
    some = patches.select(role)
    return some.row, some.col, some.label, some.label_window


def test_held_out_ground_is_apart_and_the_forest_beats_the_guess(coast: Path) -> None:
    made = manifest(coast, "train")
    assert made["split"]["leakage"] == 0
    assert made["split"]["buffer_px"] >= 8
    score = {name: found["macro_f1"] for name, found in made["scores"].items()}
    assert score["forest"] > score["commonest class"] + 0.4
    assert score["forest"] > 0.7
    assert made["scores"]["forest"]["overall_accuracy"] > 0.7
    assert set(score) == {"wetmapformer-window", "forest", "boosting", "commonest class"}


def test_map_of_the_coast_is_a_coast(coast: Path) -> None:
    """Sea in the south-east, forest in the north-west, as in the label."""
    grid = the_cube(coast).grid
    with rasterio.open(SCENES / "S2L2A" / f"{COAST}.tif") as source:
        at = positions(grid, source)
        reflectance = ndimage.map_coordinates(source.read(8).astype(np.float64) * 1e-4, at, order=1)
    with rasterio.open(coast / "space/map/classes.tif") as source:
        classes = source.read(1)
    assert (classes[-40:, -40:] == 1).mean() > 0.8
    assert (classes[5:45, 5:20] == 2).mean() > 0.8
    assert np.median(reflectance[classes == 1]) < 0.1 < np.median(reflectance[classes == 2])
    assert "282D_485L_3_3" in (coast / "space/map/report.html").read_text()
