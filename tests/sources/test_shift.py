"""Scenes moved as they are read: by the right amount, to the right side, once, and without a trace of any window."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer

from tests.fakes.tiny_archive import GRID, SEASON, aoi, write_raster
from wetmap.geo import Grid
from wetmap.recipe import StacSource
from wetmap.sources import EXTENT, Scene, open_archive
from wetmap.sources.reader import RasterBand, extent_on, read_onto

UTM19, UTM20 = "EPSG:32619", "EPSG:32620"
LEFT, TOP = 700_000.0, 5_010_000.0
WHOLE = Grid(UTM19, 10.0, LEFT + 100, TOP - 100, 47, 53)


def raster(folder: Path, values: NDArray[np.float32], crs: str = UTM19, res: float = 10.0) -> str:
    left, top = Transformer.from_crs(UTM19, crs, always_xy=True).transform(LEFT, TOP)
    return str(write_raster(folder / "a.tif", values, Affine(res, 0, left, 0, -res, top), crs=crs))


def noise(side: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).random((side, side)).astype(np.float32)


def test_whole_pixels_are_a_copy_east_and_north(tmp_path: Path) -> None:
    """Moved 20 m east and 10 m north: what is read at a place lay 20 m west and 10 m south of it."""
    href = raster(tmp_path, noise(100))
    still = read_onto(RasterBand(href), WHOLE.window(1, -2, 47, 53))
    np.testing.assert_array_equal(read_onto(RasterBand(href, shift_m=(20.0, 10.0)), WHOLE), still)


@pytest.mark.parametrize("crs", [UTM19, UTM20])
def test_parts_of_a_pixel_on_a_ramp(tmp_path: Path, crs: str) -> None:
    """A ramp of 1 per metre east and 1000 per metre north, moved by (4, -3) m, reads lower by 4 and higher by 3000."""
    side = 120
    cols, rows = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    left, top = Transformer.from_crs(UTM19, crs, always_xy=True).transform(LEFT, TOP)
    x, y = Transformer.from_crs(crs, UTM19, always_xy=True).transform(left + cols * 10, top - rows * 10)
    ramp = ((x - LEFT) + 1000 * (y - TOP)) / 1000
    path = write_raster(tmp_path / "a.tif", ramp, Affine(10, 0, left, 0, -10, top), crs=crs)
    before, after = (read_onto(RasterBand(str(path), shift_m=move), WHOLE) for move in ((0.0, 0.0), (4.0, -3.0)))
    np.testing.assert_allclose(after - before, (-4 + 3000) / 1000, atol=2e-4)


@settings(max_examples=12, deadline=None)
@given(
    east=st.floats(-30, 30),
    north=st.floats(-30, 30),
    crs=st.sampled_from([UTM19, UTM20]),
    res=st.sampled_from([4.0, 10.0, 20.0]),
)
def test_windows_leave_no_trace(
    tmp_path_factory: pytest.TempPathFactory, east: float, north: float, crs: str, res: float
) -> None:
    values = noise(200)
    values[50:60, 20:90] = np.nan
    source = RasterBand(raster(tmp_path_factory.mktemp("any"), values, crs, res), shift_m=(east, north))
    expected, outline = read_onto(source, WHOLE), extent_on(source.href, WHOLE, source.shift_m)
    for block in WHOLE.blocks(17):
        window = WHOLE.window(block.y0, block.x0, block.height, block.width)
        np.testing.assert_array_equal(read_onto(source, window), expected[block.slices])
        np.testing.assert_array_equal(extent_on(source.href, window, source.shift_m), outline[block.slices])


def test_the_extent_moves_along(tmp_path: Path) -> None:
    href = raster(tmp_path, noise(30))
    window = Grid(UTM19, 10.0, LEFT - 50, TOP + 50, 40, 40)
    inside = np.isfinite(extent_on(href, window, (20.0, -10.0)))
    np.testing.assert_array_equal(inside, np.isfinite(read_onto(RasterBand(href, shift_m=(20.0, -10.0)), window)))
    assert (int(np.argmax(inside.any(axis=1))), int(np.argmax(inside.any(axis=0)))) == (5 + 1, 5 + 2)


def test_a_scene_of_a_catalogue_is_moved_with_all_its_bands(catalog: Path) -> None:
    archive = open_archive(StacSource(catalog=str(catalog)), "radar")
    scene = archive.search("radar", aoi(), [SEASON], max_cloud_percent=80)[0][0]
    moved = dataclasses.replace(scene, shift_m=(10.0, -20.0))
    names = [*scene.bands, EXTENT]
    there = archive.read(scene, names, GRID.window(-2, -1, GRID.height, GRID.width))
    for name, band in archive.read(moved, names, GRID).items():
        np.testing.assert_array_equal(band, there[name])


def test_a_scene_survives_json_with_its_shift_and_without() -> None:
    scene = Scene("a", "radar", "2021-06-01T00:00:00Z", shift_m=(1.25, -3.0))
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
    old = {name: value for name, value in scene.to_json().items() if name != "shift_m"}
    assert Scene.from_json(old).shift_m == (0.0, 0.0)
