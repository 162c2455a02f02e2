"""Speckle filters: mean kept, variance as theory has it, edges, nodata, and the same bits whatever the array."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import gamma

from wetmap.imagery.speckle import boxcar, gamma_map, lee, quegan, ratio_to_mean
from wetmap.imagery.speckle_edges import lee_sigma, refined_lee, sigma_range, strong_targets

LOOKS = 4.4
Floats = NDArray[np.float64]
Filter = Callable[[Floats], Floats]


def filters(window: int = 7, looks: float = LOOKS) -> dict[str, Filter]:
    """Every filter of one image at one window and number of looks."""
    return {
        "boxcar": lambda power: boxcar(power, window),
        "lee": lambda power: lee(power, window, looks),
        "refined-lee": lambda power: refined_lee(power, looks),
        "gamma-map": lambda power: gamma_map(power, window, looks),
        "lee-sigma": lambda power: lee_sigma(power, window, looks, strong=0.5),
    }


NAMES = sorted(filters())
each_filter = pytest.mark.parametrize("name", NAMES)


def speckled(side: int = 240, mean: float = 0.1, seed: int = 0, looks: float = LOOKS) -> Floats:
    """Even ground."""
    return mean * np.random.default_rng(seed).gamma(looks, 1 / looks, (side, side))


def gain(smooth: Floats, looks: float = LOOKS) -> float:
    """How many times the looks an even area has after filtering."""
    inner = smooth[..., 10:-10, 10:-10]
    return float(inner.mean() ** 2 / inner.var() / looks)


class TestMean:
    @each_filter
    @pytest.mark.parametrize("looks", [1.0, 2.0, 4.4, 10.0])
    def test_even_ground_keeps_its_mean(self, name: str, looks: float) -> None:
        """Within 1 %; but filters that choose lose a little at few looks, gamma-MAP most (a mode, not a mean)."""
        lost = {"gamma-map": 0.045, "refined-lee": 0.02, "lee-sigma": 0.025}.get(name, 0.0)
        power = speckled(looks=looks)
        smooth = filters(looks=looks)[name](power)
        bias = smooth[10:-10, 10:-10].mean() / power[10:-10, 10:-10].mean() - 1
        assert -lost / looks - 0.01 < bias < 0.01

    @each_filter
    @settings(max_examples=15, deadline=None)
    @given(value=st.floats(1e-4, 50.0))
    def test_a_constant_stays(self, name: str, value: float) -> None:
        even = np.full((12, 12), value)
        np.testing.assert_allclose(filters()[name](even), even, rtol=1e-12)

    @each_filter
    def test_scale_does_not_matter(self, name: str) -> None:
        """Speckle multiplies, so a filter of the power times 8 gives 8 times the filtered power, bit for bit."""
        power = speckled(40, mean=0.01)
        if name == "lee-sigma":
            one, other = (lee_sigma(power * k, 7, LOOKS, strong=0.02 * k) for k in (1, 8))
        else:
            one, other = (filters()[name](power * k) for k in (1, 8))
        np.testing.assert_array_equal(one * 8, other)


class TestVariance:
    @pytest.mark.parametrize("window", [3, 5, 7])
    @pytest.mark.parametrize("looks", [1.0, 4.4])
    def test_boxcar_of_independent_speckle_has_n_times_the_looks(self, window: int, looks: float) -> None:
        assert gain(boxcar(speckled(300, looks=looks), window), looks) == pytest.approx(window**2, rel=0.1)

    @each_filter
    @pytest.mark.parametrize("looks", [1.0, 4.4, 10.0])
    def test_looks_gained_in_even_areas(self, name: str, looks: float) -> None:
        """At most those of the pixels that count (49, or 28 of a half-window), and at least a good part of them."""
        most = {"refined-lee": 28}.get(name, 49)
        least = {"refined-lee": 13, "lee-sigma": 14, "gamma-map": 20}.get(name, 27)
        assert least < gain(filters(looks=looks)[name](speckled(looks=looks)), looks) < most * 1.1

    def test_lee_comes_near_the_boxcar_where_it_knows_of_more_speckle(self) -> None:
        power = speckled()
        np.testing.assert_allclose(lee(power, 7, LOOKS / 4), boxcar(power, 7), rtol=1e-12)

    @pytest.mark.parametrize("passes", [1, 3, 10])
    @pytest.mark.parametrize("window", [3, 7])
    def test_quegan_as_its_formula_has_it(self, passes: int, window: int) -> None:
        """L n N / (N + n - 1), on passes of different brightness."""
        looks, n = 10.0, window**2
        stack = np.stack([speckled(200, 0.02 * (k + 1), seed=k, looks=looks) for k in range(passes)])
        smooth = quegan(stack, window)
        expected = n * passes / (passes + n - 1)
        for number, one in enumerate(smooth):
            assert gain(one, looks) == pytest.approx(expected, rel=0.12)
            assert one[10:-10, 10:-10].mean() == pytest.approx(0.02 * (number + 1), rel=0.02)

    def test_quegan_of_one_look_keeps_the_mean(self) -> None:
        stack = np.stack([speckled(200, seed=k, looks=1.0) for k in range(8)])
        assert quegan(stack, 7)[:, 10:-10, 10:-10].mean() == pytest.approx(0.1, rel=0.02)


def step_scene(angle: str) -> tuple[Floats, Floats]:
    """A step of 6 dB, upright, level or aslant, and the same with speckle."""
    y, x = np.mgrid[0:160, 0:160]
    far = {"upright": x - 79.5, "level": y - 79.5, "aslant": (x + y) - 159.5}[angle] > 0
    truth = np.where(far, 0.2, 0.2 / 10**0.6)
    return truth, truth * speckled(160, 1.0, seed=4)


def edge_error(smooth: Floats, truth: Floats) -> float:
    """Mean relative bias of the pixels on the brink: how far the edge has spread."""
    brink = np.zeros(truth.shape, dtype=bool)
    brink[:, 1:] |= truth[:, 1:] != truth[:, :-1]
    brink[:, :-1] |= truth[:, 1:] != truth[:, :-1]
    brink[1:] |= truth[1:] != truth[:-1]
    brink[:-1] |= truth[1:] != truth[:-1]
    brink[:10] = brink[-10:] = brink[:, :10] = brink[:, -10:] = False
    sides = [brink & (truth == value) for value in np.unique(truth)]
    return float(np.mean([abs(smooth[side].mean() / truth[side].mean() - 1) for side in sides]))


class TestEdges:
    @pytest.mark.parametrize("angle", ["upright", "level", "aslant"])
    @pytest.mark.parametrize("name", ["lee", "refined-lee", "gamma-map", "lee-sigma"])
    def test_a_step_of_6_db_is_sharper_than_after_the_boxcar(self, name: str, angle: str) -> None:
        truth, seen = step_scene(angle)
        most = {"refined-lee": 0.45, "lee-sigma": 0.55, "lee": 0.85, "gamma-map": 0.75}[name]
        assert edge_error(filters()[name](seen), truth) < most * edge_error(boxcar(seen, 7), truth)

    @pytest.mark.parametrize("side", [0, 1])
    def test_refined_lee_smooths_beside_the_edge_too(self, side: int) -> None:
        """What plain Lee leaves speckled along an edge, the half-window smooths."""
        truth, seen = step_scene("upright")
        column = (slice(10, -10), 78 + 3 * side)
        left = {name: float((filters()[name](seen) / truth)[column].var()) for name in ("lee", "refined-lee")}
        assert left["refined-lee"] < 0.6 * left["lee"]

    def test_quegan_keeps_what_all_passes_share(self) -> None:
        """A line of one pixel in every pass: five passes make it even while its contrast stays."""
        truth = np.full((120, 120), 0.05)
        truth[:, 60] = 0.5
        stack = np.stack([truth * speckled(120, 1.0, seed=k) for k in range(12)])
        smooth = quegan(stack, 7)[0]
        assert smooth[10:-10, 60].mean() == pytest.approx(0.5, rel=0.05)
        assert boxcar(stack[0], 7)[10:-10, 60].mean() < 0.15
        assert smooth[10:-10, 60].var() < 0.4 * stack[0][10:-10, 60].var()

    def test_a_cluster_of_strong_targets_stays_as_it_is(self) -> None:
        power = speckled(60, 0.05)
        power[30:33, 30:32] = [[3.0, 4.0], [5.0, 3.5], [2.5, 6.0]]
        power[10, 10] = 4.0
        smooth = lee_sigma(power, 9, LOOKS, strong=1.0)
        np.testing.assert_array_equal(smooth[30:33, 30:32], power[30:33, 30:32])
        np.testing.assert_array_equal(np.argwhere(strong_targets(power, 1.0)).min(axis=0), [30, 30])

    def test_strong_targets_count_in_no_window(self) -> None:
        """The ground near them is as if they were not there, although speckle alone could be as bright."""
        power = 0.7 + 0.01 * np.random.default_rng(0).random((40, 40))
        power[20:23, 20:23] = 1.2
        without = power.copy()
        without[20:23, 20:23] = np.nan
        away = np.ones(power.shape, dtype=bool)
        away[19:24, 19:24] = False  # next to them the first estimate, from 3 x 3, is another
        smooth = lee_sigma(power, 9, LOOKS, strong=1.0)
        np.testing.assert_array_equal(smooth[away], lee_sigma(without, 9, LOOKS, strong=1.0)[away])
        assert np.abs(smooth - lee_sigma(power, 9, LOOKS))[away].max() > 0.01


class TestByHand:
    def test_lee(self) -> None:
        power = np.full((3, 3), 0.1)
        power[1, 1] = 1.0
        # mean 0.2, variance (8 x 0.01 + 1) / 9 - 0.04 = 0.08; speckle of 4 looks 0.04 / 4 = 0.01;
        # Q = 0.07 / 1.25 = 0.056, k = 0.056 / 0.066.
        assert lee(power, 3, 4.0)[1, 1] == pytest.approx(0.2 + 0.056 / 0.066 * 0.8, rel=1e-12)

    def test_gamma_map(self) -> None:
        power = np.full((3, 3), 1.0)
        power[1, 1] = 2.8
        # mean 1.2, variance (8 + 7.84) / 9 - 1.44 = 0.32, spread 0.32 / 1.44 = 2 / 9. With 6 looks, 1/6 < 2/9 < 2/6:
        # a = (7/6) / (2/9 - 1/6) = 21, and the root of 21 R^2 - 14 x 1.2 R - 6 x 2.8 x 1.2 = 0 is
        # (16.8 + sqrt(282.24 + 1693.44)) / 42.
        expected = (16.8 + np.sqrt(282.24 + 4 * 21 * 20.16)) / 42
        assert gamma_map(power, 3, 6.0)[1, 1] == pytest.approx(expected, rel=1e-12)
        assert gamma_map(power, 3, 4.0)[1, 1] == pytest.approx(1.2, rel=1e-12)  # 2/9 is less than 1/4: even ground
        assert gamma_map(power, 3, 9.5)[1, 1] == 2.8  # 2/9 is more than 2/9.5: an edge

    def test_quegan(self) -> None:
        first = np.array([[[1.0, 2.0, 3.0]], [[10.0, 10.0, 40.0]]])
        # At the middle: means 2 and 20, ratios 1 and 0.5, their mean 0.75.
        np.testing.assert_allclose(quegan(first, 3)[:, 0, 1], [1.5, 15.0], rtol=1e-12)

    def test_refined_lee_takes_the_pixel_s_own_side(self) -> None:
        """Bright from the fourth column on: a pixel of that column has 28 bright pixels, and is bright."""
        power = np.tile(np.where(np.arange(20) >= 8, 1.0, 0.1), (20, 1))
        smooth = refined_lee(power, LOOKS)
        np.testing.assert_allclose(smooth[4:-4, 4:-4], power[4:-4, 4:-4], rtol=1e-9)


class TestSigmaRange:
    @pytest.mark.parametrize("looks", [0.7, 1.0, 3.0, 4.4, 10.0, 60.0])
    @pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
    def test_holds_its_share_and_mean_1(self, looks: float, share: float) -> None:
        """Against the density, summed up by small steps."""
        found = sigma_range(looks, share)
        x = np.linspace(found.lower, found.upper, 200_001)
        middle = (x[1:] + x[:-1]) / 2
        mass = gamma.pdf(middle, looks, scale=1 / looks) * (x[1] - x[0])
        assert mass.sum() == pytest.approx(share, rel=1e-5)
        assert (mass * middle).sum() / share == pytest.approx(1.0, rel=1e-5)
        assert (mass * (middle - 1) ** 2).sum() / share == pytest.approx(found.variance, rel=1e-4)

    def test_one_look_as_solved_by_hand(self) -> None:
        """Of exp(-x) from a to b: exp(-a) - exp(-b) = 0.9 and (1 + a) exp(-a) - (1 + b) exp(-b) = 0.9."""
        found = sigma_range(1.0)
        a, b = found.lower, found.upper
        assert np.exp(-a) - np.exp(-b) == pytest.approx(0.9, abs=1e-9)
        assert (1 + a) * np.exp(-a) - (1 + b) * np.exp(-b) == pytest.approx(0.9, abs=1e-9)
        assert (a, b) == pytest.approx((0.084, 3.93), abs=0.005)


def plain(name: str, power: Floats, window: int) -> Floats:
    """The filters pixel by pixel, as their papers say, without any array tricks."""
    out = np.full_like(power, np.nan)
    for y, x in np.argwhere(np.isfinite(power)):
        out[y, x] = PLAIN[name](power, int(y), int(x), window)
    return out


def around(power: Floats, y: int, x: int, window: int) -> Floats:
    half = window // 2
    padded = np.pad(power, half, constant_values=np.nan)
    return padded[y : y + window, x : x + window]


def least_square(z: float, values: Floats, noise: float) -> float:
    mean, variance = values.mean(), values.var()
    signal = max((variance - mean**2 * noise) / (1 + noise), 0.0)
    return float(mean + (signal / variance if signal > 0 else 0.0) * (z - mean))


def plain_lee(power: Floats, y: int, x: int, window: int) -> float:
    values = around(power, y, x, window)
    values = values[np.isfinite(values)]
    mean, variance = values.mean(), values.var()
    signal = max((variance - mean**2 / LOOKS) / (1 + 1 / LOOKS), 0.0)
    return float(mean + signal / (signal + mean**2 / LOOKS) * (power[y, x] - mean))


def plain_refined(power: Floats, y: int, x: int, _window: int) -> float:
    values = around(power, y, x, 7)
    means = np.array([[np.nanmean(values[r : r + 3, c : c + 3]) if np.isfinite(values[r : r + 3, c : c + 3]).any() else
                       np.nan for c in (0, 2, 4)] for r in (0, 2, 4)])  # fmt: skip
    means[np.isnan(means)] = means[1, 1]
    rows, cols = np.mgrid[-3:4, -3:4]
    best: tuple[float, float, float] | None = None
    for down, right in ((0, 1), (-1, 1), (-1, 0), (-1, -1)):
        r, c = np.mgrid[-1:2, -1:2]
        toward = r * down + c * right
        steep = abs(means[toward > 0].sum() - means[toward < 0].sum())
        if best is None or steep > best[0] * (1 + 1e-12):
            best = (steep, down, right)
    _, down, right = best
    a, b = means[1 + down, 1 + right], means[1 - down, 1 - right]
    if abs(b - means[1, 1]) < abs(a - means[1, 1]):
        down, right = -down, -right
    own = values[(rows * down + cols * right >= 0) & np.isfinite(values)]
    return least_square(power[y, x], own, 1 / LOOKS)


def plain_sigma(power: Floats, y: int, x: int, window: int) -> float:
    found = sigma_range(LOOKS)
    first = plain_lee(power, y, x, 3)
    values = around(power, y, x, window)
    values = values[(values >= found.lower * first) & (values <= found.upper * first)]
    return least_square(power[y, x], values, found.variance) if len(values) else first


PLAIN = {"lee": plain_lee, "refined-lee": plain_refined, "lee-sigma": plain_sigma}


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_the_same_as_pixel_by_pixel(name: str) -> None:
    """On a scene with a step, a bright spot and holes."""
    power = step_scene("aslant")[1][64:96, 64:98]
    power[5, 6] = 0.45
    power[10:13, 20:26] = np.nan
    power[25, ::3] = np.nan
    np.testing.assert_allclose(filters(5)[name](power), plain(name, power, 5), rtol=1e-9)


class TestNodata:
    @each_filter
    def test_neither_spreads_nor_fills(self, name: str) -> None:
        power = speckled(40)
        power[10:14, 10] = power[20:30, 20:30] = np.nan
        smooth = filters()[name](power)
        np.testing.assert_array_equal(np.isnan(smooth), np.isnan(power))
        assert (smooth[np.isfinite(power)] > 0.02).all()

    @each_filter
    def test_ground_beside_nothing_keeps_its_mean(self, name: str) -> None:
        power = speckled(240)
        power[:, ::4] = np.nan
        seen = np.isfinite(power)
        assert filters()[name](power)[seen].mean() == pytest.approx(power[seen].mean(), rel=0.02)

    @each_filter
    def test_a_pixel_alone_stays(self, name: str) -> None:
        power = np.full((9, 9), np.nan)
        power[4, 4] = 0.123
        smooth = filters()[name](power)
        assert smooth[4, 4] == pytest.approx(0.123, rel=1e-12)
        assert np.isfinite(smooth).sum() == 1

    @each_filter
    @pytest.mark.parametrize("shape", [(1, 1), (1, 8), (5, 2), (9, 9)])
    def test_nothing_seen_and_small_arrays(self, name: str, shape: tuple[int, int]) -> None:
        assert np.isnan(filters()[name](np.full(shape, np.nan))).all()
        np.testing.assert_allclose(filters()[name](np.full(shape, 0.2)), 0.2, rtol=1e-12)

    def test_quegan_counts_the_passes_that_saw_the_pixel(self) -> None:
        stack = np.stack([speckled(30, seed=k) for k in range(3)])
        stack[1, 5:12, 5:12] = np.nan
        stack[:, 20, 20] = np.nan
        smooth = quegan(stack, 5)
        np.testing.assert_array_equal(np.isnan(smooth), np.isnan(stack))
        both = quegan(stack[[0, 2]], 5)
        np.testing.assert_allclose(smooth[[0, 2], 8, 8], both[:, 8, 8], rtol=1e-12)

    def test_quegan_of_no_pass_and_of_one(self) -> None:
        assert quegan(np.empty((0, 4, 4)), 3).shape == (0, 4, 4)
        one = speckled(20)[np.newaxis]
        np.testing.assert_allclose(quegan(one, 5), one, rtol=1e-12)

    def test_ratio_to_mean(self) -> None:
        power = speckled(20)
        mean, ratio = ratio_to_mean(power, 5)
        np.testing.assert_allclose(mean * ratio, power, rtol=1e-12)


class TestBits:
    @each_filter
    @settings(max_examples=8, deadline=None)
    @given(y0=st.integers(0, 12), x0=st.integers(0, 12), window=st.sampled_from([3, 5, 9]))
    def test_the_same_wherever_the_array_begins(self, name: str, y0: int, x0: int, window: int) -> None:
        power = np.kron(speckled(12, 0.3, seed=8), np.ones((4, 4))) * speckled(48, 1.0, seed=3)
        power[20:25, 30] = np.nan
        reach = max({"refined-lee": 3, "lee-sigma": window // 2 + 2}.get(name, window // 2), 1)
        piece = power[y0 : y0 + 32, x0 : x0 + 34]
        whole = filters(window)[name](power)[y0 : y0 + 32, x0 : x0 + 34]
        part = filters(window)[name](piece)
        np.testing.assert_array_equal(part[reach:-reach, reach:-reach], whole[reach:-reach, reach:-reach])

    def test_the_order_of_passes_does_not_matter(self) -> None:
        stack = np.stack([speckled(40, seed=k) for k in range(6)])
        order = np.random.default_rng(1).permutation(6)
        np.testing.assert_allclose(quegan(stack[order], 5), quegan(stack, 5)[order], rtol=1e-12)

    @each_filter
    def test_a_turned_scene_gives_the_turned_answer(self, name: str) -> None:
        power = step_scene("aslant")[1][40:120, 40:120]
        for turn in (np.fliplr, np.flipud, np.transpose):
            # In the array's corners directions tie, and the first counts.
            was, now = turn(filters()[name](power)), filters()[name](turn(power))
            np.testing.assert_allclose(was[3:-3, 3:-3], now[3:-3, 3:-3], rtol=1e-9)
