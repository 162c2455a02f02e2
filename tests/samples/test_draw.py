"""Drawing samples: how many, from where, and always the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.classes import MapClass
from wetmap.errors import ReferenceDataError
from wetmap.recipe import Background
from wetmap.samples import Labels, draw_samples
from wetmap.samples.draw import thinned

BOG, FEN = MapClass(5, "bog", "#111111"), MapClass(3, "fen", "#222222")
UPLAND = MapClass(8, "upland", "#333333", upland=True)


def labels_of(codes, polygon=None, classes=(BOG, FEN), background=None):
    codes = np.asarray(codes, dtype=np.uint8)
    if polygon is None:
        polygon = np.where(codes == 255, -1, codes)
    return Labels(codes, np.asarray(polygon, dtype=np.int32), tuple(classes), {}, background)


def draw(labels, *, per_class=20, least=1, background=None, seed=1):
    return draw_samples(labels, per_class=per_class, min_per_class=least, background=background, seed=seed)


def patchwork(seed=0, shape=(30, 40)):
    codes = np.random.default_rng(seed).choice([5, 3, 255], shape)
    return labels_of(codes, np.where(codes == 255, -1, np.arange(codes.size).reshape(shape) // 37))


def pixels_of(samples, label=None):
    keep = slice(None) if label is None else samples.label == label
    return set(zip(samples.row[keep].tolist(), samples.col[keep].tolist(), strict=True))


@given(st.integers(0, 2**32), st.integers(1, 500), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_a_sample_is_a_labelled_pixel_with_its_class_index_and_occurs_once(seed, per_class, layout):
    labels = patchwork(layout)
    samples = draw(labels, per_class=per_class, seed=seed)
    assert len(pixels_of(samples)) == len(samples)
    codes = labels.codes[samples.row, samples.col]
    assert (np.array([5, 3])[samples.label] == codes).all()
    assert (labels.polygon[samples.row, samples.col] == samples.polygon).all()
    for index, code in enumerate((5, 3)):
        assert (samples.label == index).sum() == min(per_class, (labels.codes == code).sum())
    order = samples.row.astype(int) * 40 + samples.col
    assert (np.diff(order) > 0).all()
    assert (samples.row.dtype, samples.label.dtype, samples.polygon.dtype) == (np.int32, np.uint8, np.int32)


def test_polygons_take_turns_and_the_large_one_does_not_speak_for_its_class():
    codes, polygon = np.full((50, 50), 255), np.full((50, 50), -1)
    codes[:40], polygon[:40] = 5, 0  # 2000 pixels
    for number in range(1, 10):
        codes[45, 5 * number : 5 * number + 3], polygon[45, 5 * number : 5 * number + 3] = 5, number
    samples = draw(labels_of(codes, polygon, [BOG]), per_class=40)
    counts = np.bincount(samples.polygon, minlength=10)
    # 3 pixels of each of 9 small polygons are 27; the large one gives the other 13.
    assert counts.tolist() == [13] + [3] * 9


def test_within_a_polygon_pixels_are_drawn_at_random():
    samples = draw(labels_of(np.full((100, 100), 5), classes=[BOG]), per_class=400)
    # The mean of 400 of the rows 0 to 99 is 49.5 +- 1.4 (one standard error).
    assert abs(samples.row.mean() - 49.5) < 6
    assert abs(samples.col.mean() - 49.5) < 6


@given(st.integers(1, 60))
@settings(deadline=None, max_examples=20)
def test_no_polygon_gets_two_more_than_another_that_has_pixels_left(per_class):
    labels = patchwork(3)
    samples = draw(labels, per_class=per_class)
    for index, code in enumerate((5, 3)):
        has = np.bincount(labels.polygon[labels.codes == code], minlength=40)
        got = np.bincount(samples.polygon[samples.label == index], minlength=40)
        left = got < has
        assert not left.any() or got.max() - got[left].min() <= 1


def test_same_seed_same_samples_and_another_seed_others():
    labels = patchwork()
    assert pixels_of(draw(labels)) == pixels_of(draw(labels))
    assert pixels_of(draw(labels)) != pixels_of(draw(labels, seed=2))


def test_the_order_of_features_and_of_classes_does_not_matter():
    labels = patchwork()
    number = labels.polygon.max() + 1
    shuffled = np.random.default_rng(0).permutation(number)[labels.polygon]
    other = labels_of(labels.codes, np.where(labels.polygon < 0, -1, shuffled), (FEN, BOG))
    assert pixels_of(draw(labels), 0) == pixels_of(draw(other), 1)
    assert pixels_of(draw(labels), 1) == pixels_of(draw(other), 0)


def test_a_class_does_not_depend_on_what_else_there_is():
    labels = patchwork()
    alone = labels_of(np.where(labels.codes == 5, 5, 255), labels.polygon, [BOG])
    assert pixels_of(draw(labels), 0) == pixels_of(draw(alone))


def test_a_thin_class_is_refused_with_its_count():
    codes = np.full((20, 20), 5)
    codes[0, :4] = 3
    with pytest.raises(
        ReferenceDataError, match=r"Class fen has 4 labelled pixels .*min_per_class = 5\. Add reference"
    ):
        draw(labels_of(codes), least=5)
    assert (draw(labels_of(codes), least=4).label == 1).sum() == 4


def test_background_is_a_multiple_of_all_others_and_spread():
    codes = np.full((128, 128), 255)
    codes[:10, :10], codes[:10, 20:30] = 5, 3
    free = codes == 255
    polygon = np.where(free, 100 + np.arange(128)[:, None] // 64 * 2 + np.arange(128)[None] // 64, 0)
    labels = labels_of(codes, polygon, (BOG, FEN, UPLAND), free)
    samples = draw(labels, per_class=80, background=Background(share=0.5))
    assert np.bincount(samples.label).tolist() == [80, 80, 80]
    assert free[samples.row[samples.label == 2], samples.col[samples.label == 2]].all()
    assert np.bincount(samples.polygon[samples.label == 2])[100:].tolist() == [20, 20, 20, 20]


def test_background_adds_to_reference_of_its_own_class():
    codes = np.full((20, 20), 255)
    codes[:5], codes[5:10] = 5, 8
    labels = labels_of(codes, np.zeros((20, 20)), (BOG, UPLAND), codes == 255)
    samples = draw(labels, per_class=30, background=Background(share=1))
    assert (samples.label == 1).sum() == 30 + 60
    assert len(pixels_of(samples)) == len(samples) == 120


def test_no_room_for_background_is_refused():
    codes = np.full((20, 20), 5)
    labels = labels_of(codes, codes, (BOG, UPLAND), np.zeros((20, 20), bool))
    with pytest.raises(ReferenceDataError, match=r"upland has 0 pixels farther than 100 m .*Lower background.buffer_m"):
        draw(labels, background=Background())


def test_many_candidates_are_thinned_to_a_random_part_whatever_the_strips(monkeypatch):
    mask = np.random.default_rng(5).random((90, 70)) < 0.6
    few = thinned(mask, (1, 2), most=500)
    assert len(few) == len(np.unique(few)) == 500
    assert mask.ravel()[few].all()
    assert (np.diff(few) > 0).all()
    monkeypatch.setattr("wetmap.samples.draw.STRIP_PX", 7)
    np.testing.assert_array_equal(thinned(mask, (1, 2), most=500), few)
    assert not np.array_equal(thinned(mask, (1, 3), most=500), few)
    np.testing.assert_array_equal(thinned(mask, (1, 2)), np.flatnonzero(mask.ravel()))


def test_every_candidate_has_the_same_chance():
    mask = np.ones((40, 30), dtype=bool)
    counts = np.zeros(mask.size)
    for seed in range(400):
        counts[thinned(mask, (seed,), most=300)] += 1
    # binomial with n = 400 and p = 1/4: 100 on average, standard deviation 8.7
    assert abs(counts.mean() - 100) < 1e-9
    assert 7.5 < counts.std() < 10
