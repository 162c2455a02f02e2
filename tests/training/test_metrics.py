from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from wetmap.errors import TrainingError
from wetmap.training.metrics import Scores, commonest_class_scores, scores

NAMES = ["bog", "fen", "marsh", "water"]


def test_worked_example() -> None:
    # by hand: bog 3 of 4 found and 1 false (fen); fen 1 of 2; marsh 2 of 2 with one false (bog)
    truth = [0, 0, 0, 0, 1, 1, 2, 2]
    guess = [0, 0, 0, 2, 1, 0, 2, 2]
    found = scores(truth, guess, NAMES)
    bog, fen, marsh, water = found.classes
    assert (bog.precision, bog.recall, bog.n) == (0.75, 0.75, 4)
    assert bog.f1 == pytest.approx(0.75)
    assert (fen.precision, fen.recall) == (1.0, 0.5)
    assert fen.f1 == pytest.approx(2 / 3)
    assert (marsh.precision, marsh.recall) == (pytest.approx(2 / 3), 1.0)
    assert marsh.f1 == pytest.approx(0.8)
    assert (water.n, water.precision, water.recall, water.f1) == (0, None, None, None)
    assert found.macro_f1 == pytest.approx((0.75 + 2 / 3 + 0.8) / 3)
    assert found.overall_accuracy == 0.75
    assert found.confusion == ((3, 0, 1, 0), (1, 1, 0, 0), (0, 0, 2, 0), (0, 0, 0, 0))
    assert found.n == 8


def test_a_class_that_is_never_predicted_scores_zero_and_has_no_precision() -> None:
    fen = scores([0, 1], [0, 0], ["bog", "fen"]).classes[1]
    assert (fen.precision, fen.recall, fen.f1) == (None, 0.0, 0.0)


def test_a_class_predicted_without_samples_stays_out_of_the_macro_mean() -> None:
    found = scores([0, 0], [0, 1], ["bog", "fen"])
    assert (found.classes[1].recall, found.classes[1].f1) == (None, 0.0)
    assert found.macro_f1 == pytest.approx(2 / 3)


def test_no_samples_have_no_scores() -> None:
    found = scores([], [], NAMES)
    assert (found.macro_f1, found.overall_accuracy, found.n) == (None, None, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=60)
def test_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, guess = np.array(pairs).T
    found = scores(truth, guess, NAMES)
    precision, recall, f1, n = precision_recall_fscore_support(truth, guess, labels=range(4), zero_division=np.nan)
    for index, row in enumerate(found.classes):
        assert row.n == n[index]
        for mine, theirs in ((row.precision, precision[index]), (row.recall, recall[index])):
            assert (mine is None and np.isnan(theirs)) or mine == pytest.approx(theirs)
        if row.n:
            assert row.f1 == pytest.approx(f1[index])
    assert found.macro_f1 == pytest.approx(np.mean(f1[n > 0]))
    assert found.overall_accuracy == pytest.approx(accuracy_score(truth, guess))
    np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, guess, labels=range(4)))


def test_scores_survive_json() -> None:
    found = scores([0, 1, 1], [0, 2, 1], NAMES)
    assert Scores.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_the_naive_guess_is_the_class_commonest_in_training() -> None:
    found = commonest_class_scores([1, 1, 0, 2], [0, 1, 1, 2], NAMES)
    assert found.overall_accuracy == 0.5
    assert found.classes[1].recall == 1.0
    assert found.macro_f1 == pytest.approx((2 / 3) / 3)


def test_the_naive_guess_takes_the_first_of_equals() -> None:
    assert commonest_class_scores([2, 1], [1, 1], NAMES).overall_accuracy == 1.0


def test_refuses_the_unlabelled_value() -> None:
    with pytest.raises(TrainingError, match=r"run from 0 to 255, and there are 4 classes \(0 to 3\).*255"):
        scores([0, 255], [0, 0], NAMES)


def test_refuses_unequal_lengths() -> None:
    with pytest.raises(TrainingError, match="2 true labels and 1 predictions"):
        scores([0, 1], [0], NAMES)


def test_refuses_a_naive_guess_without_training_labels() -> None:
    with pytest.raises(TrainingError, match="no training labels"):
        commonest_class_scores([], [0], NAMES)
