"""Intervals over groups: right numbers, honest silence, and coverage near what they promise."""

from __future__ import annotations

import doctest
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from wetmap.errors import TrainingError, UsageError
from wetmap.training import intervals
from wetmap.training.intervals import GroupScores, expanded_level, group_intervals, paired_difference
from wetmap.training.metrics import scores

NAMES = ["bog", "fen", "marsh"]
#: Simulated landscape: shares of the classes, and the chance that a sample of each is predicted right, over all groups.
SHARES, RIGHT = np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.8, 0.7])


def clustered(generator, groups, size=60, spread=4.0, shift=0.0):
    """Samples in groups that hold several classes; how well a class goes differs from group to group."""
    truth, guess, group = [], [], []
    for number in range(groups):
        labels = generator.choice(3, size, p=generator.dirichlet(3 * SHARES))
        right = generator.beta(spread * (RIGHT - shift), spread * (1 - RIGHT + shift))[labels]
        missed = (labels + generator.integers(1, 3, size)) % 3
        truth.append(labels)
        guess.append(np.where(generator.random(size) < right, labels, missed))
        group.append(np.full(size, number))
    return tuple(np.concatenate(part) for part in (truth, guess, group))


def test_the_modules_examples_hold():
    assert doctest.testmod(intervals).failed == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=40)
def test_scores_are_those_of_the_metrics_and_intervals_hold_them(rows):
    truth, guess, group = (np.array(part) for part in zip(*rows, strict=True))
    found, plain = group_intervals(truth, guess, group, NAMES, draws=200, seed=1), scores(truth, guess, NAMES)
    assert (found.n, found.groups) == (len(rows), len(set(group)))
    assert found.macro_f1.value == pytest.approx(plain.macro_f1)
    assert found.overall_accuracy.value == pytest.approx(plain.overall_accuracy)
    for mine, theirs in zip(found.classes, plain.classes, strict=True):
        assert (mine.name, mine.n) == (theirs.name, theirs.n)
        assert mine.f1.groups == len(set(group[truth == NAMES.index(mine.name)]))
        assert mine.f1.value == (pytest.approx(theirs.f1) if theirs.n else None)
    for one in (*(row.f1 for row in found.classes), found.macro_f1, found.overall_accuracy):
        assert (one.interval is None) == (one.groups < 5)
        assert one.interval is not None or one.note
        if one.interval:
            assert 0 <= one.low <= one.high <= 1


@given(st.integers(0, 2**32), st.permutations(range(120)))
@settings(deadline=None, max_examples=10)
def test_neither_the_order_of_samples_nor_the_names_of_groups_matter(seed, order):
    truth, guess, group = clustered(np.random.default_rng(5), 8, size=15)
    order = list(order)
    found = group_intervals(truth, guess, group, NAMES, draws=50, seed=seed)
    assert found == group_intervals(truth, guess, group, NAMES, draws=50, seed=seed)
    assert found == group_intervals(truth[order], guess[order], 7 * group[order] - 3, NAMES, draws=50, seed=seed)


def test_it_is_the_bootstrap_written_out(monkeypatch):
    truth, guess, group = clustered(np.random.default_rng(3), 7, size=9)
    found = group_intervals(truth, guess, group, NAMES, draws=40, seed=11)
    chosen = np.random.Generator(np.random.PCG64(11)).integers(0, 7, (40, 7))
    drawn = []
    for row in chosen:
        at = np.concatenate([np.flatnonzero(group == number) for number in row])
        drawn.append(scores(truth[at], guess[at], NAMES).macro_f1)
    tail = expanded_level(0.95, 7)
    assert found.macro_f1.interval == pytest.approx(tuple(np.quantile(drawn, [tail, 1 - tail])))
    monkeypatch.setattr(intervals, "WEIGHTS_AT_ONCE", 25)  # piece by piece, the same
    assert group_intervals(truth, guess, group, NAMES, draws=40, seed=11) == found


def test_levels_are_those_of_students_t():
    """With normal scores of standard error s sqrt((n - 1) / n), the widened percentile is t's bound."""
    for n in (5, 12, 40):
        z = -np.sqrt(n / (n - 1)) * student.ppf(0.975, n - 1)
        draws = np.random.default_rng(0).standard_normal(400_000)
        assert np.quantile(draws, expanded_level(0.95, n)) == pytest.approx(z, abs=0.12)
    assert expanded_level(0.95, 10**6) == pytest.approx(0.025, abs=1e-5)


def test_a_class_in_too_few_groups_has_no_interval_and_says_so():
    truth = np.array([0] * 60 + [1] * 4)
    group = np.array([*np.repeat(np.arange(6), 10), 0, 1, 2, 3])
    guess = np.where(np.arange(64) % 7 == 0, 1 - truth, truth)
    found = group_intervals(truth, guess, group, NAMES, seed=0)
    bog, fen, marsh = (row.f1 for row in found.classes)
    assert bog.interval is not None
    assert fen.interval is None
    assert fen.note == "in 4 groups of this class: too few for an interval (at least 5)"
    assert (marsh.value, marsh.interval, marsh.note) == (None, None, "no samples")
    assert found.macro_f1.interval is not None
    assert found.macro_f1.note == "leans on classes in few groups, so it is likely too narrow: fen (4)"
    one = group_intervals(truth, guess, np.zeros(64, int), NAMES, seed=0).macro_f1
    assert (one.interval, one.note) == (None, "in 1 group: too few for an interval (at least 5)")
    assert paired_difference(truth, guess, guess, np.zeros(64, int), NAMES, seed=0).share_above_zero is None


def test_no_samples_no_scores():
    found = group_intervals([], [], [], NAMES, draws=10, seed=0)
    assert (found.n, found.groups, found.macro_f1.value, found.macro_f1.note) == (0, 0, None, "no samples")


def test_scores_survive_json():
    found = group_intervals(*clustered(np.random.default_rng(1), 6, size=8), NAMES, draws=30, seed=0)
    assert GroupScores.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_groups_cover_near_what_they_promise_and_pixels_far_less():
    """Why groups: 95 % intervals over 20 groups hold the truth some nine times in ten, intervals over pixels half."""
    generator = np.random.default_rng(20)
    truth = group_intervals(*clustered(generator, 4000), NAMES, draws=1, seed=0)
    aims = (truth.macro_f1.value, truth.overall_accuracy.value)
    held = np.zeros((2, 2))
    repeats = 120
    for number in range(repeats):
        labels, guess, group = clustered(generator, 20)
        for row, groups in enumerate((group, np.arange(len(group)))):
            found = group_intervals(labels, guess, groups, NAMES, draws=200, seed=number)
            for column, one in enumerate((found.macro_f1, found.overall_accuracy)):
                held[row, column] += one.low <= aims[column] <= one.high
    over_groups, over_pixels = held / repeats
    assert (over_groups >= 0.88).all(), over_groups
    assert (over_pixels <= 0.70).all(), over_pixels


def test_a_paired_difference_is_sharper_than_two_intervals_and_has_its_sign():
    truth, guess, group = clustered(np.random.default_rng(2), 25)
    spoilt = np.random.default_rng(3).random(len(truth)) < 0.06
    worse = np.where(spoilt, (guess + 1) % 3, guess)
    found = paired_difference(truth, guess, worse, group, NAMES, seed=1)
    back = paired_difference(truth, worse, guess, group, NAMES, seed=1)
    alone = [group_intervals(truth, one, group, NAMES, seed=1).macro_f1 for one in (guess, worse)]
    assert found.macro_f1.value == pytest.approx(alone[0].value - alone[1].value)
    assert found.macro_f1.low > 0
    assert found.share_above_zero > 0.99
    assert found.macro_f1.high - found.macro_f1.low < 0.5 * (alone[0].high - alone[0].low)
    assert back.macro_f1.value == pytest.approx(-found.macro_f1.value)
    assert back.macro_f1.interval == pytest.approx((-found.macro_f1.high, -found.macro_f1.low))
    assert back.share_above_zero == pytest.approx(1 - found.share_above_zero)
    assert json.loads(json.dumps(found.to_json()))["groups"] == 25


def test_a_model_is_as_good_as_itself():
    truth, guess, group = clustered(np.random.default_rng(2), 10)
    found = paired_difference(truth, guess, guess, group, NAMES, draws=50, seed=1)
    assert (found.macro_f1.value, found.macro_f1.interval, found.share_above_zero) == (0, (0, 0), 0.5)


def test_equal_models_differ_significantly_about_one_time_in_twenty():
    generator = np.random.default_rng(8)
    false = 0
    for number in range(120):
        truth, one, group = clustered(generator, 20)
        keep = np.repeat(generator.random(20), 60) < 0.5  # in each group one of two equally good models is right
        wrong = (truth + 1) % 3
        a, b = np.where(keep, one, wrong), np.where(keep, wrong, one)
        low, high = paired_difference(truth, a, b, group, NAMES, draws=200, seed=number).macro_f1.interval
        false += not low <= 0 <= high
    assert false <= 14, false


def test_a_hundred_thousand_samples_take_no_time():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 9, 100_000)
    guess = np.where(generator.random(100_000) < 0.8, truth, generator.integers(0, 9, 100_000))
    start = time.perf_counter()
    found = group_intervals(truth, guess, generator.integers(0, 400, 100_000), [*map(str, range(9))], seed=0)
    assert found.macro_f1.interval is not None
    assert time.perf_counter() - start < 5


def test_refuses_what_does_not_fit():
    with pytest.raises(TrainingError, match=r"2 groups and 3 samples"):
        group_intervals([0, 1, 1], [0, 1, 1], [0, 1], NAMES, seed=0)
    with pytest.raises(TrainingError, match=r"run from 0 to 255"):
        group_intervals([0, 255], [0, 1], [0, 1], NAMES, seed=0)
    with pytest.raises(TrainingError, match=r"2 true labels and 1 predictions"):
        paired_difference([0, 1], [0, 1], [0], [0, 1], NAMES, seed=0)
    for bad in ({"draws": 0}, {"level": 1.0}, {"level": float("nan")}):
        with pytest.raises(UsageError, match="make no interval"):
            group_intervals([0], [0], [0], NAMES, seed=0, **bad)
