"""What the whole walk leaves behind, through the front door."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.walk.conftest import Run
from wetmap.cube import Cube
from wetmap.geo import Grid

PRODUCTS = [
    "areas.csv",
    "classes.qml",
    "classes.tif",
    "classes.tif.aux.xml",
    "clear_count.qml",
    "clear_count.tif",
    "confidence.qml",
    "confidence.tif",
    "entropy.qml",
    "entropy.tif",
]

#: What says what these are, made after them.
TOLD = ["map.json", "map.qgz", "report.html"]


def the_cube(folder: Path) -> Cube:
    return Cube.open(next((folder / "space/stages/fetch").glob("*/cube.zarr")))


def test_products_are_there_and_nothing_half_written(small: Path) -> None:
    names = sorted(path.name for path in (small / "space/map").iterdir())
    assert names == sorted([*PRODUCTS, *TOLD, "manifest.json"])
    leftovers = [path for path in (small / "space").rglob("*") if path.name.startswith((".tmp-", ".old-"))]
    assert leftovers == []
    assert (small / "space/model/weights.safetensors").exists()


def test_map_is_on_the_grid_and_says_what_it_is(small: Path) -> None:
    grid: Grid = the_cube(small).grid
    with rasterio.open(small / "space/map/classes.tif") as source:
        assert source.crs == rasterio.CRS.from_user_input(grid.crs)
        assert all(abs(a - b) < 1e-9 for a, b in zip(source.transform, grid.transform, strict=True))
        assert source.shape == grid.shape
        assert source.nodata == 0
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert "SIMULATED" in source.tags()
        classes = source.read(1)
    with rasterio.open(small / "space/map/confidence.tif") as source:
        confidence = source.read(1)
    assert set(np.unique(classes)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(classes == 0, confidence == 255)
    assert confidence[classes > 0].min() >= 33
    with rasterio.open(small / "space/map/entropy.tif") as source:
        entropy = source.read(1)
        assert "SIMULATED" in source.tags()
    np.testing.assert_array_equal(classes == 0, entropy == 255)
    assert entropy[confidence == 100].max() < entropy[confidence < 50].min()
    with rasterio.open(small / "space/map/clear_count.tif") as source:
        looks = source.read(1)
        assert (source.descriptions, source.nodata) == (("summer",), 65535)
    np.testing.assert_array_equal(classes == 0, looks == 65535)
    assert 1 <= looks[classes > 0].max() <= 5, "a simulated scene every 20 days of three months"


def test_every_pixel_of_the_area_is_mapped_and_no_other(small: Path) -> None:
    from wetmap.geo import read_aoi

    grid = the_cube(small).grid
    inside = read_aoi(small / "area.geojson").inside(grid)
    with rasterio.open(small / "space/map/classes.tif") as source:
        np.testing.assert_array_equal(source.read(1) > 0, inside)


def test_hectares_are_true_areas_of_the_counted_pixels(small: Path) -> None:
    grid = the_cube(small).grid
    area = grid.pixel_area_m2()
    with rasterio.open(small / "space/map/classes.tif") as source:
        classes = source.read(1)
    with (small / "space/map/areas.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["water", "wetland", "upland"]
    for row in rows:
        chosen = classes == int(row["code"])
        assert int(row["pixels"]) == chosen.sum()
        assert float(row["hectares"]) == pytest.approx(area[chosen].sum() / 1e4, abs=5e-4)
        assert row["basis"] == "SIMULATED; pixel count, not an estimate"


def test_map_agrees_with_the_truth_far_better_than_a_guess(small: Path, wetmap: Run) -> None:
    done = wetmap("run", small / "recipe.yaml", "--json")
    result = json.loads(done.stdout)
    truth = result["truth"]
    assert truth["agreement"] > truth["commonest_agreement"] + 0.1
    assert set(result["scores"]) == {"wetmapformer-window", "forest", "boosting", "commonest class"}
    assert result["simulated"] is True


def test_people_get_paths_hectares_scores_and_the_word_simulated(small: Path, wetmap: Run) -> None:
    said = wetmap("run", small / "recipe.yaml")
    for text in ("SIMULATED", "map/classes.tif", "map/report.html", "macro F1", "Agreement with the simulated truth"):
        assert text in said.stdout
    assert said.stderr.count("already done") == 8


def test_report_is_one_offline_page(small: Path) -> None:
    page = (small / "space/map/report.html").read_text()
    assert "SIMULATED" in page
    assert "data:image/png;base64," in page
    assert "<script src" not in page
    assert str(small) not in page


def test_item_describes_every_file_of_the_folder(small: Path) -> None:
    folder = small / "space/map"
    text = (folder / "map.json").read_text()
    item = json.loads(text)
    assert {asset["href"] for asset in item["assets"].values()} == {
        f"./{path.name}" for path in folder.iterdir() if path.name not in {"map.json", "manifest.json"}
    }
    assert all(asset["file:size"] == (folder / name).stat().st_size for name, asset in item["assets"].items())
    assert item["properties"]["wetmap:simulated"] is True
    assert item["properties"]["start_datetime"][:4] == "2021"
    assert str(small) not in text


def test_blocks_and_workers_change_no_byte(small: Path, tmp_path: Path, wetmap: Run) -> None:
    """64 px blocks with one worker made the map; 100 px with two and 512 px with one must make the same files."""
    import shutil

    for block_px, workers in ((100, 2), (512, 1)):
        copy = tmp_path / f"{block_px}-{workers}"
        shutil.copytree(small, copy)
        for stage in ("predict", "mosaic", "report"):
            shutil.rmtree(copy / "space/stages" / stage)
        shutil.rmtree(copy / "space/map")
        wetmap("predict", "--workspace", copy / "space", "--block-px", str(block_px), "--workers", str(workers))
        for name in [*PRODUCTS, *TOLD]:
            assert (copy / "space/map" / name).read_bytes() == (small / "space/map" / name).read_bytes(), (
                name,
                block_px,
            )


def test_cube_has_the_papers_sixteen_bands_in_their_units(small: Path) -> None:
    cube = the_cube(small)
    assert [band.name for band in cube.bands][:2] == ["summer.B02", "summer.B03"]
    assert len(cube.bands) == 16
    values, observed = cube.read_window(0, 0, *cube.grid.shape)
    reflectance = values[0][observed[0]]
    decibel = values[12][observed[1]]
    assert 0 < float(np.median(reflectance)) < 0.3
    assert -25 < float(np.median(decibel)) < 0
    assert observed.mean() > 0.95
