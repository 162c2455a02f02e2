"""Temperatures: the right one is found, the class never changes, and the errors add up."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from wetmap.errors import TrainingError
from wetmap.training import calibration
from wetmap.training.calibration import COLDEST, HOTTEST, calibrate, fit_temperature, reliability, tempered


def softmax(logits):
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def sampled(seed, n=20_000, classes=5, spread=2.0):
    """Logits, and labels drawn from their own probabilities: calibrated by construction."""
    generator = np.random.default_rng(seed)
    logits = spread * generator.standard_normal((n, classes))
    labels = (softmax(logits).cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    return logits, labels


def loss(logits, labels, temperature):
    divided = logits / temperature
    return (logsumexp(divided, axis=1) - divided[np.arange(len(labels)), labels]).mean()


def test_the_modules_examples_hold():
    assert doctest.testmod(calibration).failed == 0


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_finds_the_temperature_that_was_lost(temperature):
    logits, labels = sampled(1)
    found = fit_temperature(temperature * logits, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    assert found == pytest.approx(fit_temperature(np.log(softmax(temperature * logits)), labels), rel=1e-9)
    assert found == fit_temperature(temperature * logits, labels)


@given(st.integers(0, 2**32), st.floats(0.3, 6))
@settings(deadline=None, max_examples=25)
def test_no_other_temperature_is_likelier(seed, scale):
    logits, labels = sampled(seed, n=60, classes=3)
    best = fit_temperature(scale * logits, labels)
    for other in np.geomspace(COLDEST, HOTTEST, 60):
        assert loss(scale * logits, labels, best) <= loss(scale * logits, labels, other) + 1e-9


def test_calibrates_what_was_too_sure_and_leaves_what_was_right():
    logits, labels = sampled(2)
    sure = calibrate(softmax(3 * logits), labels)
    assert sure.before.ece > 0.1
    assert sure.after.ece < 0.02
    assert (sure.note, sure.before.n) == ("", 20_000)
    fresh, truth = sampled(3)
    assert reliability(sure.apply(softmax(3 * fresh)), truth).ece < 0.02
    assert calibrate(softmax(logits), labels).temperature == pytest.approx(1, abs=0.03)
    assert sure.card() == json.loads(json.dumps(sure.card()))


def test_works_with_what_underflowed():
    """float32 answers of a network that is wrong and certain: 0 for the true class, and still a temperature."""
    logits, labels = sampled(4, n=500)
    answers = softmax(3 * logits).astype(np.float32)
    answers[0] = np.eye(5, dtype=np.float32)[(labels[0] + 1) % 5]
    found = calibrate(answers, labels)
    assert 3 < found.temperature < HOTTEST
    assert np.isfinite(found.apply(answers)).all()


def test_a_forests_missing_votes_count_half_a_vote():
    """One true class without a vote must not blow up the temperature."""
    votes = np.array([[90, 10, 0]] * 50 + [[10, 85, 5]] * 50) / 100
    labels = np.array([0] * 45 + [1] * 4 + [2] + [1] * 46 + [0] * 4)
    found = calibrate(votes, labels, floor=1 / 200)
    assert found.temperature < calibrate(votes, labels).temperature / 2
    assert found.temperature == pytest.approx(1, abs=0.35)
    assert found.apply(votes)[0, 2] > 0


def test_says_when_no_temperature_can_be_told():
    perfect = calibrate([[0.8, 0.2], [0.3, 0.7]], [0, 1])
    assert (perfect.temperature, perfect.note) == (1, "every sample is right, so no temperature can be told")
    hopeless = calibrate([[0.8, 0.2], [0.3, 0.7]] * 3, [1, 0] * 3)
    assert hopeless.temperature == HOTTEST
    assert "beyond 0.05 to 20" in hopeless.note


@given(st.integers(0, 2**32), st.floats(COLDEST, HOTTEST))
@settings(deadline=None, max_examples=40)
def test_tempering_is_softmax_of_the_divided_logits_and_keeps_the_class(seed, temperature):
    logits = np.random.default_rng(seed).normal(0, 3, (30, 4, 2))
    answers = softmax(logits)
    found = tempered(answers, temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(logits / temperature), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), answers.argmax(axis=1))


def test_the_class_survives_rounding_and_ties():
    half = np.float32(0.5)
    close = np.array([[half, np.nextafter(half, np.float32(1)), 0], [half, half, 0], [0, half, half]], np.float32)
    for temperature in (COLDEST, 7.0, HOTTEST):
        np.testing.assert_array_equal(tempered(close, temperature).argmax(axis=1), [1, 0, 1])
        np.testing.assert_array_equal(tempered(close, temperature, floor=0.01).argmax(axis=1), [1, 0, 1])


def test_temperature_one_changes_no_byte():
    answers = softmax(np.random.default_rng(0).normal(0, 30, (50, 6))).astype(np.float32)
    assert tempered(answers, 1.0, floor=0.1).tobytes() == answers.tobytes()


def test_each_position_depends_on_itself_alone():
    answers = softmax(np.random.default_rng(0).normal(0, 3, (3, 9, 7, 5))).astype(np.float32)
    whole = tempered(answers, 1.7)
    for tile in range(3):
        for row in range(7):
            alone = tempered(np.ascontiguousarray(answers[tile : tile + 1, :, row : row + 1]), 1.7)
            np.testing.assert_array_equal(alone, whole[tile : tile + 1, :, row : row + 1])


def test_reliability_worked_example():
    answers = [[0.95, 0.05], [0.85, 0.15], [0.35, 0.65], [1.0, 0.0]]
    found = reliability(answers, [0, 1, 1, 0], bins=5)
    assert [row.n for row in found.bins] == [0, 0, 0, 1, 3]
    last = found.bins[-1]
    assert (last.low, last.high) == (0.8, 1.0)
    assert (last.confidence, last.accuracy) == (pytest.approx(2.8 / 3), pytest.approx(2 / 3))
    assert (found.bins[0].confidence, found.bins[0].accuracy) == (None, None)
    assert found.ece == pytest.approx((3 * abs(2.8 / 3 - 2 / 3) + abs(1 - 0.65)) / 4)
    assert found.n == 4


def test_a_bound_belongs_to_the_bin_below():
    answers = [[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]]
    assert [row.n for row in reliability(answers, [0, 0], bins=4).bins] == [0, 1, 1, 0]


def test_refuses_what_is_not_an_answer():
    with pytest.raises(TrainingError, match=r"these are \(0, 3\) and 0"):
        calibrate(np.zeros((0, 3)), [])
    with pytest.raises(TrainingError, match=r"these are \(1, 2\) and 2"):
        fit_temperature([[1.0, 2.0]], [0, 1])
    with pytest.raises(TrainingError, match="not a number"):
        calibrate([[np.nan, 1.0]], [0])
    with pytest.raises(TrainingError, match=r"labels run from 255 to 255, and the model answers 2 classes.*255"):
        calibrate([[0.5, 0.5]], [255])
    with pytest.raises(TrainingError, match="Apply the softmax"):
        reliability([[2.0, -1.0]], [0])
