"""Pictures of maps: the right colours at the right places."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wetmap.classes import MEASURE_RAMP, MapClass
from wetmap.geo import Grid
from wetmap.products.geotiff import write_cog
from wetmap.report.picture import class_picture, measure_picture, scale_bar_m

BOG, FEN = MapClass(3, "bog", "#75130e"), MapClass(250, "fen", "#f6d127")


def write(path, pixels, dtype, nodata, overview):
    grid = Grid("EPSG:32620", 10.0, 300_000.0, 5_100_000.0, *pixels.shape)
    write_cog(
        path,
        grid,
        lambda block: pixels[block.slices],
        dtype=dtype,
        nodata=nodata,
        overview=overview,
        colours=None,
        description="",
        tags={},
    )
    return path


def rgba(picture):
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGBA"))


def test_classes_have_their_colours_and_everything_else_is_transparent(tmp_path):
    codes = np.array([[3, 250, 0], [7, 3, 250]], dtype=np.uint8)
    picture = class_picture(write(tmp_path / "c.tif", codes, "uint8", 0, "mode"), [BOG, FEN])
    assert (picture.width, picture.height, picture.ground_width_m, picture.ground_height_m) == (3, 2, 30, 20)
    image = rgba(picture)
    assert image[0, 0].tolist() == [0x75, 0x13, 0x0E, 255]
    assert image[1, 2].tolist() == [0xF6, 0xD1, 0x27, 255]
    assert image[..., 3].tolist() == [[255, 255, 0], [0, 255, 255]]


def test_a_large_map_is_reduced_without_inventing_colours(tmp_path):
    codes = np.repeat(np.repeat(np.array([[3, 250], [250, 3]], dtype=np.uint8), 700, axis=0), 600, axis=1)
    picture = class_picture(write(tmp_path / "c.tif", codes, "uint8", 0, "mode"), [BOG, FEN], longest_px=140)
    assert (picture.height, picture.width) == (140, 120)
    image = rgba(picture)
    assert {tuple(pixel) for pixel in image.reshape(-1, 4).tolist()} == {
        (0x75, 0x13, 0x0E, 255),
        (0xF6, 0xD1, 0x27, 255),
    }
    assert image[10, 10].tolist() == image[130, 110].tolist() != image[10, 110].tolist()


def test_mixed_pixels_show_a_class_that_is_there(tmp_path):
    """400 px have no overviews, so the picture itself has to choose; 280 of each 400 pixels are bog."""
    codes = np.where(np.arange(160_000).reshape(400, 400) % 10 < 7, 3, 250).astype(np.uint8)
    image = rgba(class_picture(write(tmp_path / "c.tif", codes, "uint8", 0, "mode"), [BOG, FEN], longest_px=40))
    assert (image == [0x75, 0x13, 0x0E, 255]).all()


@pytest.mark.parametrize(("dtype", "nodata", "high"), [("float32", float("nan"), 1.0), ("uint8", 255, 100)])
def test_a_measure_runs_along_the_ramp(tmp_path, dtype, nodata, high):
    values = np.array([[0, high / 2, high, nodata]]).astype(dtype)
    image = rgba(measure_picture(write(tmp_path / "m.tif", values, dtype, nodata, "average"), 0, high))
    colours = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue, _ in image[0].tolist()]
    assert colours[:3] == [MEASURE_RAMP[0], MEASURE_RAMP[2], MEASURE_RAMP[-1]]
    assert image[0, :, 3].tolist() == [255, 255, 255, 0]


def test_values_beyond_the_ends_are_drawn_as_the_ends(tmp_path):
    values = np.array([[-5, 7]], dtype=np.float32)
    image = rgba(measure_picture(write(tmp_path / "m.tif", values, "float32", float("nan"), "average"), 0, 1))
    assert image[0, 0, :3].tolist() == [0x44, 0x01, 0x54]
    assert image[0, 1, :3].tolist() == [0xFD, 0xE7, 0x25]


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 5), st.integers(1, 1500))
def test_any_size(tmp_path_factory, short, long):
    codes = np.full((long, short), 3, dtype=np.uint8)
    picture = class_picture(
        write(tmp_path_factory.mktemp("p") / "c.tif", codes, "uint8", 0, "mode"), [BOG], longest_px=300
    )
    assert 1 <= picture.width <= picture.height <= 300 or long < short
    assert (rgba(picture) == [0x75, 0x13, 0x0E, 255]).all()


@settings(deadline=None, max_examples=50)
@given(st.floats(0.5, 1e7))
def test_a_scale_bar_is_a_round_length_within_a_quarter_of_the_map(width_m):
    bar = scale_bar_m(width_m)
    assert width_m / 10 <= bar * 1.0000001
    assert bar <= width_m / 4
    assert f"{bar:.0e}"[0] in "125"
