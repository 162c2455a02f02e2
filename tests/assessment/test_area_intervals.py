"""Intervals: what they cover, and that none is dishonest."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import coverage
from tests.assessment.test_estimate import by_class
from wetmap.assessment import estimate, intervals
from wetmap.assessment.intervals import effective_count

COUNTS = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
SIZES = [200_000.0, 150_000, 3_200_000, 6_450_000]


def test_coverage_of_rare_and_common_classes() -> None:
    """In 200 samples; the benchmark's 2,000 are in the docs."""
    found = coverage("a rare class", 200)
    assert found["normal"][0] < 0.75, "the textbook interval fails a rare class"
    assert found["chosen"].min() > 0.90
    assert found["posterior"][-1] < found["chosen"][-1], "the prior pulls the overall accuracy down"


def test_no_errors_do_not_mean_no_doubt() -> None:
    sample = by_class([[50, 0], [0, 50]], [1000.0, 9000.0])
    found = intervals(sample, estimate(sample))
    assert found.overall.method == "score"
    assert found.overall.high == 1
    assert 0.9 < found.overall.low < 0.99
    for one in (*found.users, *found.producers, *found.area):
        assert one.high > one.low
    assert found.area[0].low <= 0.1 <= found.area[0].high


def test_a_class_never_seen_may_still_be_there() -> None:
    sample = by_class([[50, 0, 0], [1, 49, 0], [0, 0, 0]], [1000.0, 9000.0, 0.0])
    found = intervals(sample, estimate(sample))
    assert found.area[2].low == 0
    assert 0 < found.area[2].high < 0.1
    assert np.isnan(found.users[2].low)


def test_the_textbook_interval_where_there_is_enough() -> None:
    sample = by_class(COUNTS, SIZES)
    found, made = intervals(sample, estimate(sample)), estimate(sample)
    assert [one.method for one in found.area] == ["posterior", "posterior", "normal", "normal"]
    assert (found.area[3].low, found.area[3].high) == pytest.approx(made.area[3].interval)
    # of the class whose interval covers 89 % by the book
    low, high = made.area[0].interval
    assert found.area[0].high - found.area[0].low > high - low


def test_effective_count_by_hand() -> None:
    sample = by_class([[2, 2], [0, 4]], [40.0, 60.0])
    # class 1: two units of weight 0.1 and four of 0.15
    assert effective_count(sample, sample.reference == 1) == pytest.approx(0.8**2 / (2 * 0.01 + 4 * 0.0225))
    assert effective_count(sample, sample.reference == 7) == 0


def test_the_same_sample_has_the_same_intervals() -> None:
    sample = by_class(COUNTS, SIZES)
    assert intervals(sample, estimate(sample)) == intervals(sample, estimate(sample))
