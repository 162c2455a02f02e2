"""Composites against slow plain numpy, by hand, and what must not change them."""

from __future__ import annotations

import datetime as dt
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wetmap.imagery import composite as module
from wetmap.imagery.best_pixel import CLEAR_DISTANCE_M, BestPixel, cloud_score, day_score, scene_score
from wetmap.imagery.composite import median_composite, medoid_composite, percentile_composite

NAN = np.nan
#: Whole counts of Sentinel-2 as reflectance, with gaps: equal values and negatives are common.
COUNTS = st.one_of(st.just(NAN), st.integers(-20, 60).map(lambda count: float(np.float32(count * 1e-3))))
STACKS = st.integers(1, 9).flatmap(lambda looks: arrays(np.float32, (looks, 2, 3), elements=COUNTS))
SPECTRA = st.integers(1, 6).flatmap(lambda looks: arrays(np.float32, (looks, 3, 2, 2), elements=COUNTS))
few = settings(max_examples=60, deadline=None)
quiet = pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning")  # numpy's own, which ours must not give


class TestOrderStatistics:
    @quiet
    @pytest.mark.parametrize("looks", [1, 2, 3, 10, 16, 17, 60])
    def test_median_is_numpys_to_the_last_bit(self, looks: int) -> None:
        draw = np.random.default_rng(looks)
        stack = draw.normal(0.1, 0.2, (looks, 40, 50)).astype(np.float32)
        stack[draw.random(stack.shape) < 0.4] = NAN
        composite, count = median_composite(stack)
        np.testing.assert_array_equal(composite, np.nanmedian(stack, axis=0))
        np.testing.assert_array_equal(count, np.isfinite(stack).sum(axis=0))
        assert composite.dtype == np.float32

    @quiet
    @few
    @given(STACKS, st.sampled_from([0.0, 10.0, 25.0, 33.3, 50.0, 90.0, 100.0]))
    def test_percentile_is_numpys(self, stack: np.ndarray, percent: float) -> None:
        expected = np.nanpercentile(stack.astype(np.float64), percent, axis=0)
        composite, count = percentile_composite(stack, percent)
        np.testing.assert_allclose(composite, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(count, np.isfinite(stack).sum(axis=0))

    def test_percentile_by_hand(self) -> None:
        stack = np.array([4, NAN, 1, 3, 2, NAN], dtype=np.float32).reshape(6, 1, 1)
        assert percentile_composite(stack, 0)[0].item() == 1
        assert percentile_composite(stack, 25)[0].item() == 1.75
        assert percentile_composite(stack, 100)[0].item() == 4

    def test_the_stack_is_left_as_it_was(self) -> None:
        stack = np.random.default_rng(0).random((5, 3, 4)).astype(np.float32)
        before = stack.copy()
        median_composite(stack)
        medoid_composite(stack[:, np.newaxis])
        np.testing.assert_array_equal(stack, before)

    @few
    @given(STACKS, st.randoms(use_true_random=False))
    def test_order_of_looks_does_not_matter(self, stack: np.ndarray, random: object) -> None:
        mixed = stack[random.sample(range(len(stack)), len(stack))]  # type: ignore[attr-defined]
        for percent in (50.0, 20.0):
            np.testing.assert_array_equal(
                percentile_composite(stack, percent)[0], percentile_composite(mixed, percent)[0]
            )

    def test_chunks_leave_no_trace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        draw = np.random.default_rng(3)
        stack = draw.normal(0, 1, (7, 3, 20, 30)).astype(np.float32)
        stack[draw.random(stack.shape) < 0.2] = NAN
        whole = median_composite(stack), medoid_composite(stack)
        monkeypatch.setattr(module, "CHUNK_PX", 7)
        monkeypatch.setattr(module, "MEDOID_CHUNK_PX", 11)
        for (value, count), (other, other_count) in zip(
            whole, (median_composite(stack), medoid_composite(stack)), strict=True
        ):
            assert value.tobytes() == other.tobytes()
            np.testing.assert_array_equal(count, other_count)

    @pytest.mark.parametrize("size", range(1, 9))
    def test_network_sorts_every_pattern(self, size: int) -> None:
        """A network that sorts all zeros and ones sorts everything (Knuth 5.3.4, theorem Z)."""
        for bits in itertools.product([0, 1], repeat=size):
            values = list(bits)
            for one, other in module._network(size):
                if values[one] > values[other]:
                    values[one], values[other] = values[other], values[one]
            assert values == sorted(bits)


def slow_medoid(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel, from the definition in the docs."""
    _, bands, height, width = stack.shape
    found = np.full((bands, height, width), NAN, dtype=np.float32)
    count = np.zeros((height, width), dtype=int)
    for y, x in np.ndindex(height, width):
        looks = [look.astype(np.float64) for look in stack[:, :, y, x] if np.isfinite(look).all()]
        count[y, x] = len(looks)
        if looks:
            middle = np.median(looks, axis=0)
            keys = [(float(((look - middle) ** 2).sum()), float(look.sum())) for look in looks]
            found[:, y, x] = looks[keys.index(min(keys))]
    return found, count


class TestMedoid:
    def test_by_hand(self) -> None:
        """Medians of the bands are 2 and 5, from different looks; the look (3, 5) is nearest and real."""
        looks = np.array([[1, 9], [2, 1], [3, 5]], dtype=np.float32).reshape(3, 2, 1, 1)
        composite, count = medoid_composite(looks)
        np.testing.assert_array_equal(composite[:, 0, 0], [3, 5])
        assert count.item() == 3

    def test_of_two_looks_the_darker(self) -> None:
        looks = np.array([[0.30, 0.20], [0.10, 0.25]], dtype=np.float32).reshape(2, 2, 1, 1)
        for order in (looks, looks[::-1]):
            np.testing.assert_array_equal(medoid_composite(order)[0][:, 0, 0], looks[1, :, 0, 0])

    def test_of_equally_dark_ones_the_earlier(self) -> None:
        looks = np.array([[0.25, 0.5], [0.5, 0.25]], dtype=np.float32).reshape(2, 2, 1, 1)
        np.testing.assert_array_equal(medoid_composite(looks)[0][:, 0, 0], looks[0, :, 0, 0])

    @few
    @given(SPECTRA)
    def test_agrees_with_the_definition(self, stack: np.ndarray) -> None:
        composite, count = medoid_composite(stack)
        expected, looks = slow_medoid(stack)
        np.testing.assert_array_equal(count, looks)
        np.testing.assert_array_equal(np.isfinite(composite).all(axis=0), looks > 0)
        # Sums in another order may break ties another way: as near is what counts.
        for y, x in np.argwhere(looks > 0):
            here = [look for look in stack[:, :, y, x] if np.isfinite(look).all()]
            middle = np.median(np.array(here, dtype=np.float64), axis=0)
            mine, theirs = (((one[:, y, x] - middle) ** 2).sum() for one in (composite, expected))
            assert mine == pytest.approx(theirs, abs=1e-12)
            assert any((composite[:, y, x] == look).all() for look in here)

    def test_order_of_looks_does_not_matter(self) -> None:
        draw = np.random.default_rng(8)
        stack = draw.random((7, 4, 12, 12)).astype(np.float32)
        stack[draw.random((7, 1, 12, 12)).repeat(4, axis=1) < 0.5] = NAN
        expected = medoid_composite(stack)[0]
        for _ in range(3):
            np.testing.assert_array_equal(medoid_composite(draw.permutation(stack))[0], expected)

    def test_a_look_without_one_band_does_not_count(self) -> None:
        looks = np.array([[0.1, 0.1], [0.2, NAN], [0.9, 0.9]], dtype=np.float32).reshape(3, 2, 1, 1)
        composite, count = medoid_composite(looks)
        assert count.item() == 2
        np.testing.assert_array_equal(composite[:, 0, 0], np.float32([0.1, 0.1]))

    def test_no_look(self) -> None:
        composite, count = medoid_composite(np.empty((0, 3, 2, 2), dtype=np.float32))
        assert composite.shape == (3, 2, 2)
        assert np.isnan(composite).all()
        assert count.sum() == 0


class TestBestPixel:
    def test_by_hand(self) -> None:
        """Scores 1, 3, 2: the second look wins where it is whole, else the third; a look of equal score comes late."""
        best = BestPixel(2, (1, 3))
        best.offer(np.full((2, 1, 3), 0.1, np.float32), 1.0)
        second = np.full((2, 1, 3), 0.2, np.float32)
        second[1, 0, 1] = NAN
        best.offer(second, 3.0)
        best.offer(np.full((2, 1, 3), 0.3, np.float32), np.array([[2.0, 2.0, 3.0]]))
        np.testing.assert_array_equal(best.composite, np.float32([[[0.2, 0.3, 0.2]]] * 2))
        np.testing.assert_array_equal(best.count, [[3, 2, 3]])

    @few
    @given(SPECTRA, st.data())
    def test_agrees_with_argmax(self, stack: np.ndarray, data: st.DataObject) -> None:
        scores = data.draw(arrays(np.float64, (len(stack), 2, 2), elements=st.sampled_from([0.5, 1.0, 2.0])))
        best = BestPixel(3, (2, 2))
        for look, score in zip(stack, scores, strict=True):
            best.offer(look, score)
        whole = np.isfinite(stack).all(axis=1)
        chosen = np.where(whole, scores, -1.0).argmax(axis=0)
        expected = np.take_along_axis(stack, chosen[np.newaxis, np.newaxis], axis=0)[0]
        np.testing.assert_array_equal(best.composite, np.where(whole.any(axis=0), expected, NAN))
        np.testing.assert_array_equal(best.count, whole.sum(axis=0))

    def test_order_of_looks_does_not_matter_where_scores_differ(self) -> None:
        draw = np.random.default_rng(4)
        stack, scores = draw.random((5, 2, 3, 3)).astype(np.float32), draw.random((5, 3, 3))
        found = []
        for order in (range(5), [3, 1, 4, 0, 2]):
            best = BestPixel(2, (3, 3))
            for number in order:
                best.offer(stack[number], scores[number])
            found.append(best.composite)
        np.testing.assert_array_equal(*found)

    def test_scores(self) -> None:
        first, last = dt.date(2021, 6, 1), dt.date(2021, 9, 29)
        assert day_score(dt.date(2021, 7, 31), first, last) == 1
        assert day_score(first, first, last) == pytest.approx(np.exp(-2))
        assert day_score(first, first, last) == day_score(last, first, last)
        assert day_score(first, first, first) == 1
        assert [scene_score(share) for share in (0.0, 25.0, None)] == [1.0, 0.75, 0.5]

    def test_distance_to_clouds_by_hand(self) -> None:
        cloud = np.zeros((3, 120), dtype=bool)
        cloud[1, 0] = True
        score = cloud_score(cloud, res_m=10)
        assert score[1, 0] == 0
        assert score[1, 25] == 250 / CLEAR_DISTANCE_M
        assert score[0, 1] == pytest.approx(np.sqrt(200) / CLEAR_DISTANCE_M)
        assert (score[:, 60:] == 1).all()
        assert (cloud_score(np.zeros((2, 2), dtype=bool), res_m=10) == 1).all()
