"""Sample designs: the published example, and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.assessment.design import allocate, draw_ranks, sample_size, smallest_sample, systematic_step
from wetmap.errors import AssessmentError

SIZES = [200_000.0, 150_000, 3_200_000, 6_450_000]
USERS = [0.70, 0.60, 0.90, 0.95]


def test_the_published_size_and_allocations() -> None:
    """Olofsson et al. (2014), section 5.1.1 and table 5: 641 units; equal 160 each, proportional 13, 10, 205, 413."""
    units = sample_size(SIZES, USERS, 0.01)
    assert units == 641
    assert list(allocate(641, SIZES, "proportional")) == [13, 10, 205, 413]
    assert sorted(allocate(641, SIZES, "equal")) == [160, 160, 160, 161]
    # 75 each for the two rare strata, what is left in proportion
    assert list(allocate(641, SIZES, "proportional", least=75)) == [75, 75, 163, 328]


def test_other_allocations_need_more_units_for_the_same_certainty() -> None:
    assert smallest_sample(SIZES, USERS, 0.01, "neyman") in range(641, 645)
    assert smallest_sample([100.0], [0.9], 0.03, "proportional") == 100  # sqrt(0.09 / 100) = 0.03
    each = allocate(units := smallest_sample(SIZES, USERS, 0.01, "equal"), SIZES, "equal")
    share, right = np.array(SIZES) / sum(SIZES), np.array(USERS)
    assert np.sqrt(np.sum(share**2 * right * (1 - right) / each)) <= 0.01
    assert units > 1000


def test_neyman_by_hand() -> None:
    # W S: 0.5 * 0.3 and 0.5 * 0.4
    assert list(allocate(70, [100.0, 100.0], "neyman", users=[0.9, 0.8])) == [30, 40]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 0),
    st.sampled_from(["proportional", "equal", "neyman"]),
    st.integers(0, 20),
    st.integers(12, 400),
)
def test_allocations_add_up_and_fit(sizes: list[int], kind: str, least: int, units: int) -> None:
    users = [0.6 + 0.05 * number for number in range(len(sizes))]
    try:
        found = allocate(units, sizes, kind, users=users, least=least)  # type: ignore[arg-type]
    except AssessmentError:
        assert sum(min(size, max(least, 2)) for size in sizes) > units
        return
    assert found.sum() == min(units, sum(sizes))
    assert (found <= sizes).all()
    assert (found >= np.minimum(np.where(np.array(sizes) > 0, max(least, 2), 0), sizes)).all()


def test_every_pixel_is_as_likely_as_any_other() -> None:
    hits = np.zeros(10)
    for seed in range(2000):
        (ranks,) = draw_ranks([3], [10], seed)
        assert len(set(ranks.tolist())) == 3
        hits[ranks] += 1
    assert hits.min() > 520  # of 600 expected, standard deviation 20
    assert hits.max() < 680


def test_a_stratum_is_drawn_by_itself() -> None:
    first, second = draw_ranks([5, 7], [100, 1_000_000_000], seed=3)
    assert (first == draw_ranks([5], [100], seed=3)[0]).all()
    assert second.max() < 1_000_000_000
    assert (np.diff(second) > 0).all()


def test_a_grid_of_about_so_many() -> None:
    assert systematic_step(100, 10_000) == 10
    assert systematic_step(1, 5) == 2
    with pytest.raises(AssessmentError, match="6 units are wanted of 5 pixels"):
        systematic_step(6, 5)


def test_bad_designs_are_explained() -> None:
    with pytest.raises(AssessmentError, match="standard error wanted is 0"):
        sample_size(SIZES, USERS, 0)
    with pytest.raises(AssessmentError, match="of 4 strata are given as 2"):
        sample_size(SIZES, [2.0], 0.01)
    with pytest.raises(AssessmentError, match="3 units are too few for 2 strata"):
        allocate(3, [10.0, 10.0], "equal")
