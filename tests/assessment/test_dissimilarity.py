"""The area of applicability: by hand, against a slow plain implementation, and properties."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.assessment import applicability as aoa
from wetmap.assessment.applicability import Applicability, Known, Neighbours, measure, thin, upper_whisker
from wetmap.assessment.applicability_file import dumps, loads
from wetmap.errors import AssessmentError, BundleError

NAN = np.nan


def known(features: list[list[float]] | np.ndarray, fold: list[int], stratum: list[int] | None = None) -> Known:
    table = np.asarray(features, dtype=np.float32)
    labels = np.zeros(len(table)) if stratum is None else np.asarray(stratum)
    place = np.arange(len(table), dtype=np.int64)[:, None]
    return Known(table, np.asarray(fold, dtype=np.int16), labels.astype(np.uint8), place)


def drawn(seed: int, count: int, bands: int, holes: float = 0.2) -> np.ndarray:
    draw = np.random.default_rng(seed)
    values = draw.normal(0, 1, (count, bands)).astype(np.float32)
    values[draw.random((count, bands)) < holes] = NAN
    return values


def plain_distance(point: np.ndarray, sample: np.ndarray, weight: np.ndarray) -> float:
    """The definition in words, one feature after the other."""
    total = own = everything = 0.0
    for x, y, w in zip(point.tolist(), sample.tolist(), weight.tolist(), strict=True):
        everything += w * w
        if math.isnan(x):
            continue
        own += w * w
        total += 2 * w * w if math.isnan(y) else (w * (x - y)) ** 2
    return math.sqrt(total * everything / own) if own else NAN


def test_four_samples_by_hand() -> None:
    # One feature: 0, 2, 4, 10 has mean 4 and variance (16 + 4 + 0 + 36) / 4 = 14. Distances between the six pairs are
    # 2 + 4 + 10 + 2 + 8 + 6 = 32, in standard deviations, so that their mean is 16/3 / sqrt(14). Folds are {0, 2} and
    # {4, 10}: distances to the other fold are 4, 2, 2, 8, so DI are 3/4, 3/8, 3/8, 3/2. Their quartiles are 3/8 and
    # 15/16, the whisker reaches to 15/16 + 3/2 * 9/16 = 1.78, and the largest below it is 3/2.
    made = measure(known([[0], [2], [4], [10]], [0, 0, 1, 1]))
    assert made is not None
    assert made.mean_distance == pytest.approx(16 / 3 / math.sqrt(14), rel=1e-6)
    assert made.threshold == pytest.approx(1.5, rel=1e-6)
    index = made.index(np.array([[2], [3], [18], [NAN]], dtype=np.float32))
    np.testing.assert_allclose(index, [0, 1 / (16 / 3), 8 / (16 / 3), NAN], rtol=1e-6)
    assert index[0] == 0
    # 3: 100 * (3/16) / (3/2) = 12.5, rounded up; 18: exactly the threshold, or a rounding error beside it
    assert made.layer(index)[[0, 1, 3]].tolist() == [0, 13, 255]


def test_an_outlier_does_not_raise_the_threshold() -> None:
    assert upper_whisker(np.array([1.0, 2.0, 3.0, 4.0, 100.0])) == 4.0  # quartiles 2 and 4, whisker to 7
    assert upper_whisker(np.array([1.0, 2.0, 3.0, 4.0, 7.0])) == 7.0
    assert upper_whisker(np.array([1.0, 2.0, 3.0, 4.0, 7.1])) == 4.0
    assert upper_whisker(np.array([5.0])) == 5.0


def test_missing_features_by_hand() -> None:
    weight = np.ones(3)
    nearest = Neighbours(np.array([[0, 0, 0], [3, NAN, 1]], dtype=np.float32), weight)
    points = np.array([[3, 4, NAN], [3, NAN, 1], [NAN, NAN, 1], [NAN] * 3], dtype=np.float32)
    # the first pixel has two of three features: to the samples 3/2 (9 + 16) and 3/2 (0 + 2), the second lacks a feature
    np.testing.assert_allclose(nearest.distance(points), [math.sqrt(3), 0, 0, NAN])


def test_a_sample_is_not_near_because_little_of_it_was_seen() -> None:
    full = [[0.5, 0.5, 0.5, 0.5]]
    bare = [[0, NAN, NAN, NAN]]
    pixel = np.zeros((1, 4), dtype=np.float32)
    near = Neighbours(np.array(full + bare, dtype=np.float32), np.ones(4))
    assert near.distance(pixel)[0] == 1.0  # the whole sample; the bare one is sqrt(6) away, not 0


def test_weights_stretch_a_feature_and_zero_takes_it_out() -> None:
    samples = np.array([[0, 0]], dtype=np.float32)
    pixel = np.array([[1, 1]], dtype=np.float32)
    assert Neighbours(samples, np.array([2.0, 0.0])).distance(pixel)[0] == 2.0
    assert Neighbours(samples, np.array([3.0, 4.0])).distance(pixel)[0] == 5.0
    table = drawn(1, 30, 2, 0)
    made = measure(known(table, [0, 1] * 15), importance=[0, 2])
    other = table.copy()
    other[:, 0] += 100
    assert made is not None
    assert made.index(other).max() == 0


@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_the_same_as_a_slow_plain_implementation(holes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aoa, "BATCH", 16)  # several batches and chunks of both
    monkeypatch.setattr(aoa, "CHUNK", 8)
    weight = np.array([1.0, 0.5, 2.0, 0.25])
    samples, points = drawn(3, 37, 4, holes), drawn(4, 45, 4, holes)
    expected = [min(plain_distance(point, sample, weight) for sample in samples) for point in points]
    np.testing.assert_allclose(Neighbours(samples, weight).distance(points), expected, rtol=1e-12)
    pairs = [
        plain_distance(one, other, weight) for i, one in enumerate(samples) for j, other in enumerate(samples) if i != j
    ]
    assert Neighbours(samples, weight).mean_distance() == pytest.approx(np.nanmean(pairs), rel=1e-12)
    fold, points_fold = np.arange(37, dtype=np.int16) % 3, np.arange(45, dtype=np.int16) % 4
    apart = [
        min(plain_distance(point, s, weight) for s, f in zip(samples, fold, strict=True) if f != own)
        for point, own in zip(points, points_fold, strict=True)
    ]
    found = aoa.other_fold_distances(points, points_fold, samples, fold, weight)
    np.testing.assert_allclose(found, apart, rtol=1e-12)


@given(seed=st.integers(0, 999), cut=st.integers(1, 5000), holes=st.sampled_from([0.0, 0.4]))
@settings(deadline=None, max_examples=8)
def test_a_pixel_has_the_same_bits_whatever_is_asked_beside_it(seed: int, cut: int, holes: float) -> None:
    near = Neighbours(drawn(seed, 50, 5, holes), np.ones(5))
    points = drawn(seed + 1, 5001, 5, holes)
    whole = near.distance(points)
    parts = np.concatenate([near.distance(points[:cut]), near.distance(points[cut:])])
    np.testing.assert_array_equal(whole, parts)
    order = np.random.default_rng(seed).permutation(len(points))
    np.testing.assert_array_equal(near.distance(points[order]), whole[order])


@given(seed=st.integers(0, 999))
@settings(deadline=None, max_examples=8)
def test_units_do_not_matter_and_training_samples_have_index_0(seed: int) -> None:
    table = drawn(seed, 40, 3, 0)
    fold = (np.arange(40) % 3).tolist()
    one, other = measure(known(table, fold)), measure(known(table * np.float32(1024), fold))
    assert one is not None
    assert other is not None
    assert one.threshold == pytest.approx(other.threshold, rel=1e-5)
    np.testing.assert_array_equal(one.index(table), np.zeros(40))
    nearer = one.index(np.vstack([table, table.mean(axis=0, keepdims=True) + 50]).astype(np.float32))
    assert nearer[-1] > one.threshold


def test_held_samples_move_the_threshold_and_nothing_else() -> None:
    table = drawn(5, 60, 3, 0)
    training = known(table, [1] * 60)
    assert measure(training) is None, "no sample of another fold"
    near = measure(training, known(table[:20] + 0.01, [2] * 20))
    far = measure(training, known(table[:20] + 3, [2] * 20))
    assert near is not None
    assert far is not None
    assert near.threshold < 0.05 < far.threshold
    assert near.mean_distance == far.mean_distance


def test_no_index_where_it_has_no_meaning() -> None:
    assert measure(known([[1, 2]] * 4, [0, 1, 0, 1])) is None  # nothing varies
    assert measure(known([[NAN]] * 4, [0, 1, 0, 1])) is None
    assert measure(known([[1], [1], [2], [2]], [0, 1, 0, 1])) is None  # twins in the other fold: a threshold of 0
    constant = measure(known([[7, 1], [7, 2], [7, 4], [7, 8]], [0, 0, 1, 1]))
    assert constant is not None
    assert constant.weight.tolist() == [0, 1], "a feature that does not vary takes no part"


def test_bad_input_is_refused() -> None:
    made = measure(known([[0], [2], [4], [10]], [0, 0, 1, 1]))
    assert made is not None
    with pytest.raises(AssessmentError, match="1 features"):
        made.index(np.zeros((3, 2), dtype=np.float32))
    for importance in ([1.0, 1.0], [-1.0], [0.0], [NAN]):
        with pytest.raises(AssessmentError, match="importance"):
            measure(known([[0], [2], [4], [10]], [0, 0, 1, 1]), importance=importance)


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=5), most=st.integers(5, 100), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_thinning_keeps_rare_classes_and_does_not_depend_on_order(counts: list[int], most: int, seed: int) -> None:
    stratum = np.repeat(np.arange(len(counts)), counts).astype(np.uint8)
    place = np.arange(len(stratum), dtype=np.int64)[:, None]
    kept = thin(stratum, place, most)
    assert len(kept) == min(most, len(stratum))
    assert len(set(kept.tolist())) == len(kept)
    for value, count in enumerate(counts):
        assert (stratum[kept] == value).sum() >= min(count, most // len(counts))
    order = np.random.default_rng(seed).permutation(len(stratum))
    again = thin(stratum[order], place[order], most)
    assert set(order[again].tolist()) == set(kept.tolist())


def test_thinning_takes_even_steps() -> None:
    assert thin(np.zeros(10, dtype=np.uint8), np.arange(10)[::-1, None], 3).tolist() == [1, 4, 8]


def test_the_layer_shows_the_threshold_as_100_and_never_hides_a_pixel_outside() -> None:
    made = Applicability(np.zeros(1), np.ones(1), np.ones(1), np.zeros((1, 1), np.float32), 1.0, 0.3)
    above = np.nextafter(0.3, 1)
    index = np.array([0, 0.003, 0.15, 0.3, above, 0.31, 0.75, 99.0, np.inf, NAN])
    assert made.layer(index).tolist() == [0, 1, 50, 100, 101, 104, 250, 254, 254, 255]
    for threshold in np.random.default_rng(1).random(200):
        edge = np.array([np.nextafter(threshold, 0), threshold, np.nextafter(threshold, 1)])
        assert replace(made, threshold=threshold).layer(edge).tolist() == [100, 100, 101]


def test_the_file_gives_back_every_bit_and_is_small() -> None:
    bands = [f"summer.B{number:02d}" for number in range(90)]
    training = known(drawn(8, 4000, 90, 0.1), (np.arange(4000) % 3).tolist(), (np.arange(4000) % 5).tolist())
    mean, scale, weight = np.arange(90.0), np.ones(90), np.ones(90)
    made = Applicability(mean, scale, weight, training.thinned(aoa.MOST_SAMPLES).features, 1.5, 0.25)
    data = dumps(made, bands)
    assert len(data) < 5_000_000
    assert data == dumps(made, bands)
    again = loads(data, bands)
    assert dumps(again, bands) == data
    np.testing.assert_array_equal(again.samples, made.samples)


def test_a_damaged_or_foreign_file_is_refused() -> None:
    made = measure(known([[0], [2], [4], [10]], [0, 0, 1, 1]))
    assert made is not None
    data = dumps(made, ["a"])
    for bad in (b"", data[:-3], b"\x80\x04pickle"):
        with pytest.raises(BundleError):
            loads(bad, ["a"])
    with pytest.raises(BundleError, match="other bands"):
        loads(data, ["b"])
    for wrong in (
        replace(made, threshold=0.0),
        replace(made, mean_distance=NAN),
        replace(made, scale=np.zeros(1)),
        replace(made, samples=np.full((1, 1), np.inf, np.float32)),
        replace(made, weight=np.zeros(1)),
        replace(made, mean=np.zeros(2)),
    ):
        with pytest.raises(BundleError, match="cannot be"):
            loads(dumps(wrong, ["a"]), ["a"])
