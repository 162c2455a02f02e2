"""Slope, aspect and position on surfaces whose answer is known, and interpolation between coarse cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.imagery.nodes import between_nodes, grown
from wetmap.imagery.terrain import LEAST_TAN_SLOPE, aspect_of, disc_mean, gradient, slope_of, tpi
from wetmap.imagery.windows import disc


class TestAspect:
    @pytest.mark.parametrize("bearing", [0, 45, 90, 135, 180, 225, 270, 315, 17])
    def test_plane_that_faces_somewhere(self, bearing: float) -> None:
        """A plane falls 2 m per 10 m towards the bearing; rows run south."""
        north, east = np.cos(np.radians(bearing)), np.sin(np.radians(bearing))
        y, x = np.mgrid[0:7, 0:8].astype(float)
        z = 100 - 2 * (east * x - north * y)
        rise = gradient(z, 10.0)
        found = aspect_of(*rise)
        inner = (slice(1, -1), slice(1, -1))
        np.testing.assert_allclose(found[0][inner], north, atol=1e-12)
        np.testing.assert_allclose(found[1][inner], east, atol=1e-12)
        np.testing.assert_allclose(slope_of(*rise)[inner], np.degrees(np.arctan(0.2)), rtol=1e-12)

    def test_level_ground_faces_nowhere(self) -> None:
        for rise in (0.0, -0.0, 0.99 * LEAST_TAN_SLOPE):
            north, east = aspect_of(np.array([[rise]]), np.array([[0.0]]))
            assert (north[0, 0], east[0, 0]) == (0.0, 0.0)
            assert not np.signbit(north[0, 0])

    def test_no_negative_zero(self) -> None:
        """East-facing and west-facing ground have the same zero to the north."""
        north, _ = aspect_of(np.array([[0.1, -0.1]]), np.array([[-0.0, 0.0]]))
        assert not np.signbit(north).any()

    def test_not_observed(self) -> None:
        z = np.arange(25.0).reshape(5, 5)
        z[2, 2] = np.nan
        for part in (*aspect_of(*gradient(z, 10.0)), slope_of(*gradient(z, 10.0))):
            np.testing.assert_array_equal(np.isnan(part), np.isnan(z))

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_length_is_one_or_nothing(self, seed: int) -> None:
        rise = gradient(np.random.default_rng(seed).random((6, 6)).round(1), 100.0)
        north, east = aspect_of(*rise)
        length = np.hypot(north, east)
        steep = np.hypot(*rise) >= LEAST_TAN_SLOPE
        np.testing.assert_allclose(length, steep, atol=1e-12)


class TestPosition:
    @pytest.mark.parametrize("radius", [1, 4, 9])
    def test_bowl(self, radius: int) -> None:
        """z = c r2 lies everywhere c * mean(dx2 + dy2) below the mean of its disc; for large radii that is c R2 / 2."""
        c = 0.02
        y, x = np.mgrid[-20:21, -20:21].astype(float)
        down, right = np.nonzero(disc(radius))
        expected = -c * float(np.mean((down - radius) ** 2 + (right - radius) ** 2))
        got = tpi(c * (x**2 + y**2), radius)[radius:-radius, radius:-radius]
        np.testing.assert_allclose(got, expected, atol=1e-10)
        if radius == 9:
            assert expected == pytest.approx(-c * radius**2 / 2, rel=0.03)

    def test_mean_reaches_where_nothing_is_observed(self) -> None:
        z = np.full((9, 9), np.nan)
        z[4, 4] = 7.0
        got = disc_mean(z, 2)
        assert got[4, 6] == got[4, 4] == 7.0
        assert np.isnan(got[4, 7])


class TestBetweenNodes:
    @pytest.mark.parametrize("step", [1, 2, 3, 5])
    def test_plane_is_exact(self, step: int) -> None:
        """Pixels of 10 m between cells of step x 10 m."""
        y, x = (np.arange(8) + 0.5) * step, (np.arange(9) + 0.5) * step
        nodes = 3 + 0.7 * y[:, None] - 0.2 * x[None, :]
        rows, cols = np.arange(step, 6 * step) + 0.5, np.arange(step + 1, 7 * step) + 0.5
        got = between_nodes(nodes, step, (step, step + 1), (rows.size, cols.size))
        np.testing.assert_allclose(got, 3 + 0.7 * rows[:, None] - 0.2 * cols[None, :], rtol=1e-12)

    def test_worked_example(self) -> None:
        """Between 0 and 6, three pixels apart: a third of the way per pixel."""
        got = between_nodes(np.tile([0.0, 6.0, 9.0], (2, 1)), 3, (1, 1), (1, 4))
        np.testing.assert_allclose(got, [[0.0, 2.0, 4.0, 6.0]])

    @settings(max_examples=30, deadline=None)
    @given(step=st.integers(1, 5), y0=st.integers(0, 11), x0=st.integers(0, 11), seed=st.integers(0, 99))
    def test_windows_have_the_same_bits(self, step: int, y0: int, x0: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        nodes = rng.normal(100, 30, (16, 16))
        nodes[rng.random(nodes.shape) < 0.2] = np.nan
        whole = between_nodes(nodes, step, (step, step), (12 * step, 12 * step))
        first = step + y0, step + x0
        skip_y, skip_x = first[0] // step - 1, first[1] // step - 1
        part = between_nodes(
            nodes[skip_y:, skip_x:], step, (first[0] - skip_y * step, first[1] - skip_x * step), (step, step)
        )
        np.testing.assert_array_equal(part, whole[y0 : y0 + step, x0 : x0 + step])

    def test_what_is_not_known_has_no_weight(self) -> None:
        nodes = np.tile([1.0, np.nan, np.nan, np.nan], (3, 1))
        got = between_nodes(nodes, 2, (1, 1), (3, 5))
        np.testing.assert_array_equal(got, np.tile([1.0, 1.0, np.nan, np.nan, np.nan], (3, 1)))

    def test_grown_by_one_ring(self) -> None:
        z = np.full((5, 5), np.nan)
        z[2, 2], z[2, 3] = 4.0, 8.0
        got = grown(z)
        assert (got[2, 2], got[2, 3]) == (4.0, 8.0)
        assert (got[1, 1], got[1, 2], got[2, 4]) == (4.0, 6.0, 8.0)
        assert np.isnan(got[:, 0]).all()
