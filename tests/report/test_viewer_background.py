"""What the map lies on: means that do not depend on windows, colours that are stretched, a land that is lit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wetmap.report.viewer_background import PAPER, Means, reduced_size, shaded_relief, true_colour


def rgb(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def means_of(values, size, window):
    """Means taken window by window; the last row and column of windows may be smaller."""
    found = Means(len(values), values.shape[1:], size)
    for y0 in range(0, values.shape[1], window):
        for x0 in range(0, values.shape[2], window):
            found.add(y0, x0, values[:, y0 : y0 + window, x0 : x0 + window])
    return found.values


def test_means_are_means_of_what_was_observed():
    values = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    values[0, 0, :2] = values[0, 2:, 4:] = np.nan
    found = means_of(values, (2, 3), 4)
    assert found[0].tolist()[0] == [6.5, 5.5, 7.5]
    assert found[0, 1, 0] == 15.5
    assert np.isnan(found[0, 1, 2])


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_windows_do_not_matter_and_every_pixel_counts_once(data):
    height, width = (data.draw(st.integers(1, 60)) for _ in range(2))
    size = tuple(data.draw(st.integers(1, side)) for side in (height, width))
    values = np.random.default_rng(height).integers(0, 50, (2, height, width)).astype(np.float32)
    values[:, np.random.default_rng(width).random((height, width)) < 0.2] = np.nan
    whole = means_of(values, size, 1000)
    np.testing.assert_allclose(means_of(values, size, data.draw(st.integers(1, 30))), whole, rtol=1e-5)
    one = Means(1, (height, width), size)
    one.add(0, 0, np.ones((1, height, width), np.float32))
    assert np.isfinite(one.values).all()  # no pixel of the picture is empty
    assert int(one._counts.sum()) == height * width


@pytest.mark.parametrize(
    ("shape", "longest", "size"),
    [((100, 50), 2048, (100, 50)), ((4096, 2048), 2048, (2048, 1024)), ((1, 9000), 100, (1, 100))],
)
def test_no_side_is_longer_than_asked(shape, longest, size):
    assert reduced_size(shape, longest) == size


def test_true_colour_takes_off_haze_keeps_hues_and_leaves_out_what_is_not_seen():
    ramp = np.linspace(0.02, 0.3, 64 * 64, dtype=np.float32).reshape(64, 64)
    bands = np.stack([ramp, 0.1 + ramp, 0.2 + ramp * 0.5])  # grey but for haze, and half as much blue
    bands[:, :16, :16] = np.nan
    jpeg = true_colour(bands)
    image = rgb(jpeg)
    assert abs(image[2:14, 2:14] - PAPER).max() <= 6
    bright = image[-4:, 20:].reshape(-1, 3).mean(axis=0)
    assert bright[:2].min() > 240
    assert bright[2] == pytest.approx(255 * 0.5**0.7, abs=10)
    assert image[18, 20:].mean() < 130
    assert true_colour(bands) == jpeg
    assert true_colour(np.full((3, 5, 5), np.nan, np.float32)) is None


def test_a_land_without_contrast_is_no_error():
    assert rgb(true_colour(np.full((3, 8, 8), 0.1, np.float32))).shape == (8, 8, 3)
    jpeg, times = shaded_relief(np.full((8, 8), 12.0, np.float32), 10.0)
    assert times == 1
    assert np.ptp(rgb(jpeg)) <= 2


def test_slopes_that_face_north_west_are_bright():
    x, y = np.meshgrid(np.arange(80.0), np.arange(80.0))
    cone = (400 - 8 * np.hypot(x - 40, y - 40)).astype(np.float32)
    cone[:10] = np.nan
    jpeg, times = shaded_relief(cone, 10.0)
    grey = rgb(jpeg)[..., 0]
    assert times == 1
    assert grey[25, 25] > grey[25, 55] > grey[55, 55]
    assert grey[25, 25] > grey[55, 25] > grey[55, 55]
    assert abs(rgb(jpeg)[4, 40] - PAPER).max() <= 6
    gentle, times = shaded_relief(cone / 20, 10.0)
    assert 10 < times <= 20
    assert abs(rgb(gentle).astype(int) - rgb(jpeg)).mean() < 12  # a flat land is raised until it shows
    assert shaded_relief(np.full((5, 5), np.nan, np.float32), 10.0) is None
    assert shaded_relief(np.zeros((1, 5), np.float32), 10.0) is None
