"""Gain, loss and net change: the worked example in print, the covariance by hand, and what the intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.change_coverage import coverage
from tests.assessment.test_estimate import by_class
from wetmap.assessment import Sample, change, estimate, intervals
from wetmap.assessment.change import ClassChange, class_changes, transition_areas

#: Table 8 of Olofsson et al. (2014): deforestation, forest gain, stable forest, stable non-forest; pixels of 0.09 ha.
COUNTS = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
SIZES = [200_000.0, 150_000, 3_200_000, 6_450_000]
HECTARES = sum(SIZES) * 0.09
#: What the transitions are, of the classes forest (0) and other land (1).
BEFORE, AFTER = np.array([0, 1, 0, 1]), np.array([1, 0, 0, 1])


def olofsson() -> tuple[Sample, tuple[ClassChange, ...]]:
    sample = by_class(COUNTS, SIZES)
    return sample, class_changes(sample, BEFORE[sample.reference], AFTER[sample.reference], 2, method="normal")


def test_olofsson_2014_is_a_map_of_change() -> None:
    """Section 5 of the paper: 21,158 +- 6,158 ha lost and 11,686 +- 3,756 ha gained, to the printed digits."""
    sample, (forest, other) = olofsson()
    assert forest.loss.estimate.value * HECTARES == pytest.approx(21_158, abs=1)
    assert forest.gain.estimate.value * HECTARES == pytest.approx(11_686, abs=1)
    # the paper leaves out the finite population correction, at most two in ten thousand here
    for figure, margin in ((forest.loss, 6_158), (forest.gain, 3_756)):
        half = (figure.interval.high - figure.interval.low) / 2 * HECTARES
        assert half == pytest.approx(margin, rel=5e-4)
    assert forest.gain == other.loss
    assert forest.loss == other.gain
    # the transitions themselves, by the estimators of any map
    found = estimate(sample)
    assert [one.value * HECTARES for one in found.area] == pytest.approx([21_158, 11_686, 285_770, 581_386], abs=1)


def test_net_change_by_hand() -> None:
    """Variances and covariance of the two indicators in each stratum, written out; W 0.02, 0.015, 0.32, 0.645."""
    _, (forest, other) = olofsson()
    share = np.array(SIZES) / sum(SIZES)
    counts = np.array(COUNTS, dtype=float)
    n = counts.sum(axis=1)
    gained, lost = counts[:, 1] / n, counts[:, 0] / n
    bessel = n / (n - 1)
    variance = bessel * (gained * (1 - gained) + lost * (1 - lost) + 2 * gained * lost)  # covariance -gained * lost
    left = 1 - n / np.array(SIZES)
    se = np.sqrt(np.sum(share**2 * left * variance / n))
    net = float(share @ (gained - lost))
    assert forest.net.estimate.value == pytest.approx(net)
    assert forest.net.estimate.se == pytest.approx(se)
    assert other.net.estimate.value == pytest.approx(-net)
    assert net * HECTARES == pytest.approx(11_686 - 21_158, abs=1)
    # gain and loss that were estimated from two separate samples would have no covariance
    apart = np.hypot(forest.gain.estimate.se, forest.loss.estimate.se)
    assert forest.net.estimate.se == pytest.approx(apart, rel=0.02)
    # but areas before and after share nearly all of their doubt, which cancels
    two_samples = np.hypot(forest.before.estimate.se, forest.after.estimate.se)
    assert two_samples / forest.net.estimate.se == pytest.approx(3.1, abs=0.05), "said in docs/how-to/change.md"


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=12, max_size=60),
    st.booleans(),
)
def test_what_one_class_gains_others_lose(units: list[tuple[int, int, int]], poststratified: bool) -> None:
    rows = np.array([*units, *[(h, 0, 1) for h in range(3) for _ in range(2)]])
    sizes = np.array([1000.0, 300, 5000])
    sample = Sample(rows[:, 0], rows[:, 0], rows[:, 1], sizes, 3, poststratified)
    for method in (None, "normal", "posterior"):
        found = class_changes(sample, rows[:, 1], rows[:, 2], 3, method=method)  # type: ignore[arg-type]
        assert sum(one.net.estimate.value for one in found) == pytest.approx(0, abs=1e-12)
        assert sum(one.before.estimate.value for one in found) == pytest.approx(1)
        for one in found:
            assert one.net.estimate.value == pytest.approx(one.after.estimate.value - one.before.estimate.value)
            assert one.net.estimate.value == pytest.approx(one.gain.estimate.value - one.loss.estimate.value)
            for figure in (one.before, one.after, one.gain, one.loss, one.net):
                assert figure.interval.low <= figure.estimate.value <= figure.interval.high


def test_no_change_seen_is_not_no_doubt() -> None:
    sample = by_class([[50, 0], [0, 200]], [1000.0, 90_000.0])
    stayed = sample.reference
    for one in class_changes(sample, stayed, stayed, 2):
        assert one.net.estimate.value == 0
        assert one.net.interval.low < -0.001
        assert one.net.interval.high > 0.001
        assert one.gain.interval.low == 0
        assert 0.001 < one.gain.interval.high < 0.03


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for a coverage in percent, and ten times as fast."""
    monkeypatch.setattr(change, "DRAWS", 400)


@pytest.mark.usefixtures("few_draws")
def test_net_change_is_covered_as_promised() -> None:
    """In 500 samples, of which 19 in 20 hold it; by chance alone such a share is 0.93 to 0.97."""
    gain, loss, net = coverage("common change", 500, (None,))["chosen"][:3]
    assert np.abs(net - 0.95).max() <= 0.02, net
    assert np.abs(gain - 0.95).max() <= 0.03, gain
    assert np.abs(loss - 0.95).max() <= 0.03, loss


@pytest.mark.usefixtures("few_draws")
def test_rare_change_is_covered_where_the_textbook_fails() -> None:
    found = coverage("rare change", 250, (None, "normal"))
    assert found["chosen"][:3].min() >= 0.93, found
    assert np.nanmin(found["chosen"][3:]) >= 0.86, "with few draws; with all of them 0.937 of 1,000 samples"
    assert np.nanmin(found["normal"][:3]) < 0.90, found
    assert np.nanmin(found["normal"][3:]) < 0.70, "of transitions too"


def test_the_same_sample_has_the_same_intervals() -> None:
    sample = by_class(COUNTS, SIZES)
    args = sample, BEFORE[sample.reference], AFTER[sample.reference], 2
    assert class_changes(*args) == class_changes(*args)


def test_transitions_have_intervals_of_their_own() -> None:
    sample = by_class(COUNTS, SIZES)
    areas, found = transition_areas(sample), estimate(sample)
    assert [one.estimate for one in areas] == [pytest.approx(one) for one in found.area]
    loss = class_changes(sample, BEFORE[sample.reference], AFTER[sample.reference], 2)[0].loss
    assert areas[0] == loss, "of two classes there is one way to lose one"
    made = intervals(sample, found).area[0]
    assert (loss.interval.low, loss.interval.high) == pytest.approx((made.low, made.high), rel=0.15)


def test_what_is_rare_in_a_stratum_decides_how_its_interval_is_made() -> None:
    """A class that all but three units of a large stratum keep has many units and little to tell its variance by."""
    sample = by_class([[597, 3], [2, 148]], [9_000_000.0, 100_000])
    assert [one.interval.method for one in transition_areas(sample)] == ["posterior", "posterior"]
    sample = by_class([[400, 200], [50, 100]], [9_000_000.0, 5_000_000])
    assert [one.interval.method for one in transition_areas(sample)] == ["normal", "normal"]
