"""Height above the nearest drainage, and how flow behaves on surfaces whose answer is known."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.imagery.drainage import cells_above, downstream_of, height_above_drainage
from wetmap.imagery.flow import Ground, fill_depressions, flow_accumulation


def rough(seed: int, shape: tuple[int, int] = (18, 21), holes: bool = True) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = np.round(10 * rng.random(shape) + 0.3 * np.arange(shape[0])[:, None], 1)
    if holes:
        z[rng.random(shape) < 0.04] = np.nan
    return z


def hand(z: np.ndarray, cells: float) -> np.ndarray:
    return height_above_drainage(Ground.of(fill_depressions(z)), cells)


def above(z: np.ndarray) -> np.ndarray:
    ground = Ground.of(fill_depressions(z))
    return np.asarray(ground.inner(cells_above(downstream_of(ground))))


class TestHeightAboveDrainage:
    def test_worked_example(self) -> None:
        """A gutter that falls by 1 m per cell to the east, between walls: cells 3 and on have water of 3 or more."""
        z = np.array([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
        np.testing.assert_array_equal(above(z), [[1, 2, 3, 4, 5, 6]])
        np.testing.assert_array_equal(hand(z, 3), [[2.0, 1.0, 0.0, 0.0, 0.0, 0.0]])

    @pytest.mark.parametrize("steep", [0.5, 3.0])
    def test_valley(self, steep: float) -> None:
        """Beside a channel, in a V-shaped valley: the height of the bank over the channel, to the last bit."""
        across = np.abs(np.arange(-12, 13))[:, None] * steep
        z = 50 + across - 0.01 * np.arange(60)[None, :]
        got = hand(z, 60)
        bank = np.broadcast_to(across, z.shape)
        inner = (slice(1, -1), slice(10, 59))
        np.testing.assert_allclose(got[inner], bank[inner], atol=1e-9)
        np.testing.assert_array_equal(got[12, 10:], 0.0)

    def test_above_the_first_drainage_the_way_down_the_channel_counts(self) -> None:
        across = np.abs(np.arange(-3, 4))[:, None] * 1.0
        z = 50 + across - 0.25 * np.arange(12)[None, :]
        got = hand(z, 7 * 5)
        channel = got[3]
        first = int(np.flatnonzero(channel == 0)[0])
        assert first > 0
        np.testing.assert_allclose(channel[:first], 0.25 * (first - np.arange(first)))

    def test_without_drainage_it_is_the_height_over_where_water_leaves(self) -> None:
        """A coast: the hill's water reaches the shore before any stream."""
        z = np.array([[9.0, 6.0, 2.0, np.nan], [9.0, 6.0, 1.0, np.nan]])
        z = np.pad(z, ((1, 1), (1, 0)), constant_values=99.0)
        z[:, -1] = np.nan
        got = hand(z, 1000)
        assert got[1, 1] == pytest.approx(9.0 - 1.0)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(z))

    def test_closed_hollow_counts_at_its_way_out(self) -> None:
        z = np.array([[9.0] * 7, [9.0, 3.0, 2.0, 5.0, 4.0, 1.0, 0.0], [9.0] * 7])
        np.testing.assert_allclose(hand(z, 100)[1], [9, 5, 5, 5, 4, 1, 0])

    def test_ground_that_is_level_throughout(self) -> None:
        np.testing.assert_array_equal(hand(np.full((9, 11), 7.0), 5), 0.0)

    def test_nothing_observed(self) -> None:
        assert np.isnan(hand(np.full((4, 4), np.nan), 5)).all()

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), cells=st.sampled_from([2, 5, 20]))
    def test_never_negative_and_zero_in_drainage(self, seed: int, cells: int) -> None:
        z = rough(seed)
        got = hand(z, cells)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(z))
        seen = np.isfinite(z)
        assert (got[seen] >= 0).all()
        np.testing.assert_array_equal(got[seen & (above(z) >= cells)], 0.0)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_more_drainage_is_never_farther_below(self, seed: int) -> None:
        z = rough(seed)
        dense, thin = hand(z, 4), hand(z, 16)
        assert (dense[np.isfinite(z)] <= thin[np.isfinite(z)]).all()

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 1000), lift=st.sampled_from([-300.0, 128.0]))
    def test_lifting_the_land_changes_nothing(self, seed: int, lift: float) -> None:
        z = np.round(rough(seed) * 4) / 4
        np.testing.assert_array_equal(hand(z + lift, 8), hand(z, 8))

    def test_half_the_precision_gives_the_same(self) -> None:
        z = np.round(rough(3, (40, 40)) * 4) / 4
        np.testing.assert_array_equal(hand(z.astype(np.float32), 8), hand(z, 8))


class TestOneWay:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_goes_down_and_all_water_leaves(self, seed: int) -> None:
        ground = Ground.of(fill_depressions(rough(seed)))
        down = downstream_of(ground)
        heights, seen = ground.heights, ground.seen
        assert (heights[down][seen] <= heights[seen]).all()
        ends = seen & (down == np.arange(down.size))
        assert cells_above(down)[ends].sum() == seen.sum()

    def test_the_steepest_neighbour(self) -> None:
        """1 m beside (1.00 per cell) is steeper than 1.4 m across (0.99); 1.5 m across (1.06) is steeper than it."""
        z = np.full((3, 3), 9.0)
        z[1, 1], z[1, 2], z[2, 2] = 5.0, 4.0, 3.6
        ground = Ground.of(z)
        centre = 2 * 5 + 2
        assert downstream_of(ground)[centre] == centre + 1
        z[2, 2] = 3.5
        assert downstream_of(Ground.of(z))[centre] == centre + 5 + 1


class TestKnownSurfaces:
    def test_cone(self) -> None:
        """On a cone water spreads evenly: through a ring at r runs pi r2, over 2 pi r, so r / 2 per cell of contour."""
        y, x = np.mgrid[-40:41, -40:41].astype(float)
        r = np.hypot(x, y)
        got = flow_accumulation(100 - r)
        for radius in (10, 20, 30):
            ring = np.abs(r - radius) < 1.5
            assert float(got[ring].mean()) == pytest.approx(radius / 2, rel=0.2)
        np.testing.assert_allclose(got, got[::-1], rtol=1e-9)
        np.testing.assert_allclose(got, got.T, rtol=1e-9)

    def test_funnel(self) -> None:
        """All water of a funnel comes through the four cells beside the hole."""
        y, x = np.mgrid[-20:21, -20:21].astype(float)
        z = np.hypot(x, y)
        z[20, 20] = np.nan
        z = np.pad(z, 1, constant_values=1e3)
        got = flow_accumulation(z)
        beside = got[20, 21] + got[22, 21] + got[21, 20] + got[21, 22]
        assert beside == pytest.approx(43 * 43 - 1, rel=1e-9)

    def test_plane_that_falls_to_a_side(self) -> None:
        """Row by row between walls, as exact as sums are."""
        z = 100 - np.broadcast_to(np.arange(8.0)[:, None], (8, 6)).copy()
        z[:, [0, -1]] = np.nan
        np.testing.assert_allclose(flow_accumulation(z)[:, 1:-1].sum(axis=1), 4.0 * np.arange(1, 9), rtol=1e-12)

    def test_water_leaves_a_large_lake_in_seconds(self) -> None:
        """700 x 700 level cells with one way out: every cell is visited once, however far its way."""
        z = np.pad(np.full((700, 700), 5.0), 1, constant_values=9.0)
        z[350, 0] = 5.0
        begun = time.process_time()
        ground = Ground.of(fill_depressions(z))
        area = flow_accumulation(z)
        above_it = height_above_drainage(ground, 1000)
        assert time.process_time() - begun < 10
        assert area[350, 0] > 0.9 * 700 * 700
        assert float(above_it[1:-1, 1:-1].max()) == 0.0

    def test_a_way_as_long_as_the_land(self) -> None:
        """A channel that winds through all of the land, 20,000 cells long."""
        side = 201
        z = np.full((side, side), 1e6)
        order = np.full((side, side), -1)
        length = 0
        for row in range(0, side, 2):
            cols = np.arange(side) if (row // 2) % 2 == 0 else np.arange(side)[::-1]
            order[row, cols] = length + np.arange(side)
            length += side
            if row + 1 < side:
                order[row + 1, cols[-1]] = length
                length += 1
        winding = order >= 0
        z[winding] = 1e5 - order[winding]
        z = np.where(winding, z, np.nan)
        closed = np.pad(z, 1, constant_values=np.nan)
        begun = time.process_time()
        count = above_closed(closed)
        assert time.process_time() - begun < 10
        assert int(count.max()) == length


def above_closed(z: np.ndarray) -> np.ndarray:
    """Upstream cells without filling: every cell but the last has a lower neighbour."""
    ground = Ground.of(z)
    return cells_above(downstream_of(ground))
