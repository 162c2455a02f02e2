"""Estimates against the worked examples in print."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.assessment import Estimate, Sample, disagreement, estimate
from wetmap.errors import AssessmentError


def by_class(matrix: list[list[int]], sizes: list[float], *, poststratified: bool = False) -> Sample:
    """A sample whose strata are the map's classes, from its counts (rows map, columns reference)."""
    counts = np.array(matrix)
    rows, cols = np.nonzero(counts)
    mapped = np.repeat(rows, counts[rows, cols])
    reference = np.repeat(cols, counts[rows, cols])
    return Sample(mapped, mapped, reference, np.array(sizes, dtype=float), len(matrix), poststratified)


def stehman() -> Sample:
    """The sample of table 2 of Stehman (2014): four strata of ten units, four classes."""
    runs = {
        "stratum": "A10 B10 C10 D10",
        "mapped": "A7 B3 A1 B11 C6 B2 D10",
        "reference": "A5 C1 B1 A1 B1 C1 A1 B5 A2 B2 C5 D2 B2 A1 D7 C2 B1",
    }
    columns = {
        name: np.array([ord(run[0]) - ord("A") for run in text.split() for _ in range(int(run[1:]))])
        for name, text in runs.items()
    }
    return Sample(**columns, sizes=np.array([40_000.0, 30_000, 20_000, 10_000]), classes=4)


def test_stehman_2014() -> None:
    """Pages 4932 to 4937 of the paper."""
    found = estimate(stehman())
    assert round(found.area[0].value, 2) == 0.35
    assert round(found.area[2].value, 2) == 0.20
    assert round(found.overall.value, 2) == 0.63
    assert round(found.users[1].value, 3) == 0.574
    assert round(found.producers[1].value, 3) == 0.794
    assert round(found.matrix[1, 2], 2) == 0.08
    assert round(found.area[0].se, 3) == 0.082
    assert round(found.area[2].se, 3) == 0.064
    assert round(found.overall.se, 3) == 0.085
    assert round(found.users[1].se, 3) == 0.125
    assert round(found.producers[1].se, 3) == 0.117


def test_olofsson_2014() -> None:
    """Table 8 and section 5 of the paper: change between forest and other land, pixels of 0.09 ha."""
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    sizes = [200_000.0, 150_000, 3_200_000, 6_450_000]
    found = estimate(by_class(counts, sizes))

    def half(one: Estimate) -> float:
        return 1.96 * one.se

    assert (round(found.overall.value, 3), round(half(found.overall), 3)) == (0.947, 0.018)
    assert [round(one.value, 2) for one in found.users] == [0.88, 0.73, 0.93, 0.96]
    assert [round(half(one), 2) for one in found.users] == [0.07, 0.10, 0.04, 0.02]
    assert [round(one.value, 2) for one in found.producers] == [0.75, 0.85, 0.93, 0.96]
    assert [round(half(one), 2) for one in found.producers] == [0.21, 0.25, 0.03, 0.02]
    hectares = np.array([one.value for one in found.area]) * sum(sizes) * 0.09
    assert hectares == pytest.approx([21_158, 11_686, 285_770, 581_386], abs=1)
    margins = np.array([half(one) for one in found.area]) * sum(sizes) * 0.09
    # the paper leaves out the finite population correction, at most two in ten thousand here
    assert margins == pytest.approx([6_158, 3_756, 15_510, 16_282], rel=5e-4)


def test_olofsson_2013() -> None:
    """Section 4.1 of the paper: 30 m pixels, deforestation, forest, other."""
    sizes = [22_353.0, 1_122_543, 610_228]
    found = estimate(by_class([[97, 0, 3], [3, 279, 18], [2, 1, 97]], sizes))
    assert found.area[0].value * sum(sizes) == pytest.approx(45_112, abs=1)
    assert found.area[0].se * sum(sizes) == pytest.approx(10_751, rel=5e-4)
    assert (round(found.users[0].value, 2), round(found.producers[0].value, 2)) == (0.97, 0.48)
    assert round(found.overall.value, 3) == 0.944


def test_a_census_has_no_error() -> None:
    found = estimate(by_class([[4, 1], [2, 3]], [5.0, 5.0]))
    assert found.overall.value == pytest.approx(0.7)
    assert found.overall.se == 0
    assert [one.se for one in found.area] == [0, 0]


def test_poststratified_by_hand() -> None:
    """Cochran's equation 5A.42: n 10 of N 1000; W 0.4 and 0.6; s2 of correct 0.3 (3 of 5) and 0.2 (4 of 5)."""
    found = estimate(by_class([[3, 2], [1, 4]], [400.0, 600.0], poststratified=True))
    expected = (1 - 10 / 1000) / 10 * (0.4 * 0.3 + 0.6 * 0.2) + (0.6 * 0.3 + 0.4 * 0.2) / 100
    assert found.overall.se**2 == pytest.approx(expected)
    assert found.overall.value == pytest.approx(0.4 * 0.6 + 0.6 * 0.8)


def test_a_class_that_is_nowhere_has_no_accuracy() -> None:
    found = estimate(by_class([[5, 0, 0], [1, 4, 0], [0, 0, 0]], [50.0, 50.0, 0.0]))
    assert np.isnan(found.users[2].value)
    assert np.isnan(found.producers[2].value)
    assert found.area[2].value == 0


def test_too_few_units_are_explained() -> None:
    with pytest.raises(AssessmentError, match="stratum 1 has 1"):
        estimate(by_class([[5, 0], [0, 1]], [50.0, 50.0]))
    with pytest.raises(AssessmentError, match="stratum 0 has 5 units of 4"):
        estimate(by_class([[5, 0], [0, 3]], [4.0, 50.0]))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(1, 30), min_size=3, max_size=3), min_size=3, max_size=3))
def test_the_matrix_holds_all_shares(counts: list[list[int]]) -> None:
    sizes = [1000.0, 5000.0, 300.0]
    found = estimate(by_class(counts, sizes))
    assert found.matrix.sum() == pytest.approx(1)
    assert found.matrix.sum(axis=1) == pytest.approx(np.array(sizes) / sum(sizes))
    assert [one.value for one in found.area] == pytest.approx(found.matrix.sum(axis=0))
    split = disagreement(found.matrix)
    assert split.quantity + split.allocation == pytest.approx(1 - found.overall.value)


def test_quantity_and_allocation_by_hand() -> None:
    # mapped 0.6 and 0.4, seen 0.5 and 0.5: 0.1 too much; of 0.3 disagreement the rest are swaps
    found = disagreement(np.array([[0.4, 0.2], [0.1, 0.3]]))
    assert (found.quantity, found.allocation) == pytest.approx((0.1, 0.2))
    assert found.kappa == pytest.approx((0.7 - 0.5) / 0.5)
    assert np.isnan(disagreement(np.array([[1.0, 0], [0, 0]])).kappa)
