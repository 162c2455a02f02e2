"""Slope, position, wetness, and where water runs."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.imagery.flow import fill_depressions, flow_accumulation
from wetmap.imagery.terrain import LEAST_TAN_SLOPE, slope_degrees, tpi, twi


def plane(height: int, width: int, *, east: float = 0.0, south: float = 0.0) -> np.ndarray:
    return 100 + east * np.arange(width)[None, :] + south * np.arange(height)[:, None]


class TestSlope:
    @pytest.mark.parametrize(("east", "south"), [(1.0, 0.0), (0.0, -2.0), (3.0, 4.0)])
    def test_plane(self, east: float, south: float) -> None:
        got = slope_degrees(plane(9, 9, east=east, south=south), 10.0)[1:-1, 1:-1]
        np.testing.assert_allclose(got, np.degrees(np.arctan(np.hypot(east, south) / 10)), rtol=1e-12)

    def test_horn_weights_by_hand(self) -> None:
        z = np.zeros((3, 3))
        z[0, 2], z[1, 2], z[2, 0] = 8.0, 4.0, 2.0
        east = ((8 + 2 * 4 + 0) - (0 + 0 + 2)) / 80
        south = ((2 + 0 + 0) - (0 + 0 + 8)) / 80
        assert slope_degrees(z, 10.0)[1, 1] == pytest.approx(np.degrees(np.arctan(np.hypot(east, south))))

    def test_not_observed(self) -> None:
        z = plane(5, 5)
        z[2, 2] = np.nan
        got = slope_degrees(z, 10.0)
        assert np.isnan(got).sum() == 1
        np.testing.assert_array_equal(got[~np.isnan(got)], 0.0)


class TestPosition:
    def test_plane_is_level_and_a_hollow_is_negative(self) -> None:
        z = plane(41, 41, east=0.5, south=0.2)
        np.testing.assert_allclose(tpi(z, 5)[5:-5, 5:-5], 0.0, atol=1e-10)
        z[20, 20] -= 8.1
        assert tpi(z, 5)[20, 20] == pytest.approx(-8.1 * (1 - 1 / 81))  # a disc of radius 5 has 81 pixels

    def test_not_observed(self) -> None:
        z = plane(11, 11)
        z[:, :5] = np.nan
        got = tpi(z, 3)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(z))
        np.testing.assert_array_equal(got[:, 5:], 0.0)


class TestWetness:
    def test_by_hand(self) -> None:
        got = twi(np.array([[1000.0]]), np.array([[45.0]]))
        assert got[0, 0] == pytest.approx(np.log(1000.0))

    def test_flat_ground_has_an_end(self) -> None:
        got = twi(np.array([[30.0]]), np.array([[0.0]]))
        assert got[0, 0] == pytest.approx(np.log(30.0 / LEAST_TAN_SLOPE))


class TestFill:
    def test_pit_is_raised_to_its_lowest_way_out(self) -> None:
        z = np.full((7, 7), 10.0)
        z[3, 3], z[0, 3] = 1.0, 5.0
        z[1, 3] = z[2, 3] = 6.0
        filled = fill_depressions(z)
        assert filled[3, 3] == 6.0
        np.testing.assert_array_equal(np.delete(filled.ravel(), 24), np.delete(z.ravel(), 24))

    def test_what_is_not_observed_is_a_way_out(self) -> None:
        z = np.full((7, 7), 10.0)
        z[3, 3], z[3, 4] = 1.0, np.nan
        assert fill_depressions(z)[3, 3] == 1.0

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_never_lower_and_no_pit_left(self, seed: int) -> None:
        z = np.random.default_rng(seed).random((12, 14)).round(2)
        filled = fill_depressions(z)
        assert (filled >= z).all()
        np.testing.assert_array_equal(fill_depressions(filled), filled)


class TestFlow:
    def test_down_a_slope(self) -> None:
        """On a plane that falls to the south, with walls, each row gets all rows above it."""
        z = plane(6, 5, south=-1.0)
        z[:, [0, -1]] = np.nan
        got = flow_accumulation(z)[:, 1:-1]
        np.testing.assert_allclose(got.sum(axis=1), 3.0 * np.arange(1, 7), rtol=1e-6)
        np.testing.assert_allclose(got[:, 0], got[:, -1], rtol=1e-6)

    def test_shares_by_hand(self) -> None:
        """Freeman: shares go with slope ** 1.1. From the centre, 2 m down to the east, 1 m over the diagonal."""
        z = np.full((3, 3), np.nan)
        z[1, 1], z[1, 2], z[0, 0] = 8.0, 6.0, 7.0
        east, diagonal = 2.0**1.1, (1 / np.sqrt(2)) ** 1.1
        got = flow_accumulation(z)
        assert got[1, 1] == 1.0
        assert got[1, 2] == pytest.approx(1 + east / (east + diagonal), rel=1e-6)
        assert got[0, 0] == pytest.approx(1 + diagonal / (east + diagonal), rel=1e-6)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000), flat=st.booleans())
    def test_all_water_leaves_and_none_is_lost(self, seed: int, flat: bool) -> None:
        rng = np.random.default_rng(seed)
        z = rng.random((15, 17)).round(1 if flat else 6) * 10
        z[rng.random(z.shape) < 0.05] = np.nan
        filled = fill_depressions(z)
        got = flow_accumulation(filled)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(z))
        assert (got[np.isfinite(z)] >= 1).all()
        padded = np.pad(filled, 1, constant_values=np.nan)
        leaving = 0.0
        for y, x in zip(*np.nonzero(np.isfinite(z)), strict=True):
            near = padded[y : y + 3, x : x + 3]
            if np.isnan(near).any() and not (near < filled[y, x]).any():
                leaving += got[y, x]
        assert leaving == pytest.approx(np.isfinite(z).sum(), rel=1e-5)

    def test_water_crosses_a_lake(self) -> None:
        """A bowl, filled: its catchment must come out at the one gap of the rim, through the flat."""
        y, x = np.mgrid[-15:16, -15:16]
        z = np.minimum(np.hypot(x, y), 14.0)
        z[np.hypot(x, y) > 14] = np.nan
        z[15, 27:] = 5.0
        z[np.isnan(z)] = 30.0
        z[0, :] = z[-1, :] = z[:, 0] = 30.0
        z[:, -1] = 30.0
        z[15, -1] = 4.0
        got = flow_accumulation(fill_depressions(z))
        assert got[15, -1] > 500

    def test_direction_of_the_array_does_not_matter(self) -> None:
        z = fill_depressions(np.random.default_rng(5).random((20, 20)))
        expected = flow_accumulation(z)
        np.testing.assert_allclose(flow_accumulation(z[::-1])[::-1], expected, rtol=1e-5)
        np.testing.assert_allclose(flow_accumulation(z.T).T, expected, rtol=1e-5)

    def test_a_quarter_of_a_million_cells_in_seconds(self) -> None:
        rng = np.random.default_rng(0)
        coarse = rng.random((17, 17)).cumsum(axis=0).cumsum(axis=1)
        z = np.kron(coarse, np.ones((32, 32)))[:512, :512] + rng.random((512, 512)) * 0.3
        begun = time.process_time()
        flow_accumulation(fill_depressions(z))
        assert time.process_time() - begun < 10
