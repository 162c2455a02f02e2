"""Decibels, footprints, windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.imagery.radar import erode_footprint, footprint_reach_px, from_db, to_db
from wetmap.imagery.windows import box_sum, disc, disc_sum, shifted


def eroded(valid: np.ndarray, rim: int) -> np.ndarray:
    """As it is inside one file."""
    return erode_footprint(valid, np.ones_like(valid), rim)


class TestDecibels:
    def test_by_hand_and_back(self) -> None:
        np.testing.assert_allclose(to_db(np.array([1.0, 0.1, 0.01])), [0, -10, -20])
        np.testing.assert_allclose(from_db(to_db(np.array([0.3, 0.02]))), [0.3, 0.02])

    def test_what_is_not_positive_is_not_observed(self) -> None:
        assert np.isnan(to_db(np.array([0.0, -1.0, np.nan]))).all()


class TestFootprint:
    def test_rim_is_taken_off(self) -> None:
        valid = np.zeros((40, 60), dtype=bool)
        valid[:, 20:] = True
        kept = eroded(valid, 5)
        np.testing.assert_array_equal(kept[20], np.arange(60) >= 25)

    def test_edge_of_the_array_is_no_rim(self) -> None:
        valid = np.ones((20, 20), dtype=bool)
        assert eroded(valid, 5).all()

    def test_edge_of_the_file_is_no_rim_but_nodata_beside_it_is(self) -> None:
        inside = np.zeros((30, 40), dtype=bool)
        inside[:, 10:] = True
        np.testing.assert_array_equal(erode_footprint(inside, inside, 5), inside)
        valid = inside.copy()
        valid[:, 10:12] = False  # two columns of zeros at the file's edge: the footprint ends there
        np.testing.assert_array_equal(erode_footprint(valid, inside, 5)[15], np.arange(40) >= 17)

    @pytest.mark.parametrize("width", [1, 2, 4])
    def test_small_holes_do_not_eat_their_neighbours(self, width: int) -> None:
        valid = np.ones((40, 40), dtype=bool)
        valid[20 : 20 + width, 10:30] = False
        np.testing.assert_array_equal(eroded(valid, 5), valid)

    def test_large_gaps_are_outside(self) -> None:
        valid = np.ones((40, 40), dtype=bool)
        valid[15:25, 15:25] = False
        assert (eroded(valid, 3) & ~valid).sum() == 0
        assert not eroded(valid, 3)[20, 12]

    def test_no_rim_asked(self) -> None:
        valid = np.random.default_rng(0).random((9, 9)) > 0.5
        np.testing.assert_array_equal(eroded(valid, 0), valid)

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 1000), rim=st.integers(1, 6))
    def test_reach_is_honest(self, seed: int, rim: int) -> None:
        """What lies farther than the reach changes nothing."""
        rng = np.random.default_rng(seed)
        valid = np.kron(rng.random((12, 12)) > 0.3, np.ones((6, 6), dtype=bool)).astype(bool)
        margin = footprint_reach_px(rim)
        piece = valid[8 : 8 + 20 + 2 * margin, 5 : 5 + 20 + 2 * margin]
        inner = eroded(piece, rim)[margin:-margin, margin:-margin]
        np.testing.assert_array_equal(
            inner, eroded(valid, rim)[8 + margin :, 5 + margin :][: inner.shape[0], : inner.shape[1]]
        )


class TestWindows:
    def test_shifted(self) -> None:
        values = np.arange(6).reshape(2, 3)
        np.testing.assert_array_equal(shifted(values, 0, 1, -1), [[1, 2, -1], [4, 5, -1]])
        np.testing.assert_array_equal(shifted(values, -1, 0, -1), [[-1, -1, -1], [0, 1, 2]])
        np.testing.assert_array_equal(shifted(values, 5, 0, -1), np.full((2, 3), -1))

    @pytest.mark.parametrize("radius", [1, 2, 5])
    def test_sums_against_plain_loops(self, radius: int) -> None:
        values = np.random.default_rng(1).random((17, 19))
        padded = np.pad(values, radius)
        boxes, discs = np.zeros_like(values), np.zeros_like(values)
        for y in range(17):
            for x in range(19):
                piece = padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
                boxes[y, x], discs[y, x] = piece.sum(), piece[disc(radius)].sum()
        np.testing.assert_allclose(box_sum(values, radius), boxes)
        np.testing.assert_allclose(disc_sum(values, radius), discs)
