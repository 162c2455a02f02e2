"""Shifts between pictures of different contrast: recovered where there are edges, not claimed where there are none."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from tests.conftest import SHARED
from wetmap.imagery.coregister import Tie, _fault, edges_of, measure, silent
from wetmap.imagery.coregister_combine import combine, differ

Floats = NDArray[np.float64]
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def ground(side: int, seed: int) -> Floats:
    """Patches with straight and crooked borders, smooth enough to be shifted by Fourier, and periodic."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.standard_normal((side, side)), 6, mode="wrap")
    levels = np.digitize(noise, np.quantile(noise, [0.25, 0.5, 0.75]))
    return ndimage.gaussian_filter(random.uniform(0, 1, 4)[levels], 1.0, mode="wrap")


def moved(picture: Floats, rows: float, cols: float) -> Floats:
    """What was at (y, x) comes to (y + rows, x + cols), exact for a periodic, smooth picture."""
    return np.asarray(np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(picture), (rows, cols))).real)


def tie_of(first: Floats, second: Floats, *, power: bool = False) -> Tie:
    return measure(edges_of(first[np.newaxis], power=False), edges_of(second[np.newaxis], power=power))


class TestOneBlock:
    @settings(max_examples=12, deadline=None)
    @given(rows=st.floats(-4, 4), cols=st.floats(-4, 4), seed=st.integers(0, 99))
    def test_any_shift_of_the_same_picture(self, rows: float, cols: float, seed: int) -> None:
        still = ground(128, seed)
        tie = tie_of(still, moved(still, rows, cols))
        assert tie.fault == ""
        assert tie.shift_px == pytest.approx((rows, cols), abs=0.06)

    def test_whole_pixels_and_their_sign(self) -> None:
        """South and east are positive: the picture's features lie two rows lower and three columns to the left."""
        still = ground(128, 1)
        assert tie_of(still, np.roll(still, (2, -3), axis=(0, 1))).shift_px == pytest.approx((2, -3), abs=0.06)

    def test_contrast_may_turn_round(self) -> None:
        still = ground(128, 2)
        tie = tie_of(still, moved(np.exp(-3 * still), 0.7, -1.2), power=True)
        assert tie.shift_px == pytest.approx((0.7, -1.2), abs=0.06)

    def test_radar_brightness_as_a_whole_does_not_matter(self) -> None:
        still = ground(128, 3)
        speckle = np.random.default_rng(1).standard_gamma(4.4, still.shape) / 4.4
        power = (0.05 + moved(still, 0.3, 0.4)) * speckle
        assert tie_of(still, power, power=True).shift_px == pytest.approx(
            tie_of(still, 1000 * power, power=True).shift_px, abs=1e-6
        )

    def test_gaps_are_not_edges(self) -> None:
        """A gap in the same place of both pictures would pull the shift to zero, were its border an edge."""
        still = ground(160, 4)
        picture = moved(still, 1.5, -0.6)
        for one in (still, picture):
            for at in range(10, 160, 40):
                one[at : at + 12, at // 2 : at // 2 + 70] = np.nan
        tie = tie_of(still, picture)
        assert tie.fault == ""
        assert tie.shift_px == pytest.approx((1.5, -0.6), abs=0.02)

    def test_stated_error_is_about_right(self) -> None:
        """Over many noisy blocks the errors are of the size that is stated."""
        random = np.random.default_rng(5)
        ratios = []
        for seed in range(24):
            still = ground(128, seed)
            power = (0.1 + moved(still, 0.8, 0.2)) * random.standard_gamma(2, still.shape) / 2
            tie = tie_of(still, power, power=True)
            if not tie.fault:
                ratios.append(math.hypot(tie.shift_px[0] - 0.8, tie.shift_px[1] - 0.2) / tie.error_px)
        assert len(ratios) > 12
        assert 0.3 < float(np.median(ratios)) < 1.8

    def test_one_straight_bank_leaves_a_direction_open(self) -> None:
        bank = np.where(np.arange(128)[np.newaxis, :] < 60 + np.zeros((128, 1)), 0.1, 0.4)
        noise = np.random.default_rng(0).normal(0, 0.01, (2, 128, 128))
        assert tie_of(bank + noise[0], bank + noise[1]).fault != ""
        assert _fault(Tie((0.0, 0.0), (1.0, 0.0, 0.01), 12.0, 2.0, 0.1)) == "its edges leave one direction open"
        assert _fault(Tie((0.0, 0.0), (0.01, 0.0, 0.01), 12.0, 2.0, 2.0)) == "its two halves disagree"

    def test_noise_and_emptiness_say_nothing(self) -> None:
        random = np.random.default_rng(0)
        for seed in range(10):
            first, second = random.standard_normal((2, 128, 128)) + 20
            assert tie_of(first, second, power=bool(seed % 2)).fault != ""
        assert tie_of(np.ones((96, 96)), np.ones((96, 96))).fault != ""
        assert tie_of(np.full((96, 96), np.nan), ground(96, 1)).fault == "too little of it is seen by both"

    def test_a_shift_beyond_the_search_is_not_claimed(self) -> None:
        still = ground(128, 6)
        assert tie_of(still, moved(still, 20, 0)).fault != ""


def tie(rows: float, cols: float, error: float = 0.15) -> Tie:
    return Tie((rows, cols), (error**2, 0.0, error**2), 12.0, 1.8, 0.1)


class TestManyBlocks:
    def test_odd_blocks_change_nothing(self) -> None:
        """Five blocks around (1.0, -0.5) and two elsewhere."""
        ties = [tie(1 + off, -0.5 - off) for off in (-0.1, -0.05, 0.0, 0.05, 0.1)]
        shift = combine([tie(-4, 3), *ties, silent("a bay"), tie(5, 5, 0.4)])
        assert shift.confident
        assert shift.shift_px == pytest.approx((1, -0.5), abs=0.02)
        assert (shift.used, shift.agreeing) == (7, (1, 2, 3, 4, 5))
        assert shift.spread_px == pytest.approx((1.4826 * 0.05, 1.4826 * 0.05), abs=1e-9)

    def test_better_blocks_count_for_more(self) -> None:
        shift = combine([tie(0, 0, 0.05), tie(0, 0, 0.05), tie(0.4, 0, 0.4), tie(0, 0, 0.05)])
        assert 0 < shift.shift_px[0] < 0.03

    def test_thin_evidence_is_said(self) -> None:
        nothing = combine([silent("a bay")] * 12)
        assert not nothing.confident
        assert "none of the 12 tie blocks" in nothing.doubt
        assert "only 2 of 12" in combine([tie(1, 1), tie(1, 1), *[silent("forest")] * 10]).doubt
        split = combine([tie(1, 1), tie(1, 1), tie(1, 1), tie(-3, 2), tie(-3, 2), tie(4, -4)])
        assert "only 3 of the 6" in split.doubt
        assert "standard error" in combine([tie(1, 1, 0.45)] * 3).doubt

    @settings(max_examples=20, deadline=None)
    @given(rows=st.floats(-3, 3), cols=st.floats(-3, 3), seed=st.integers(0, 99))
    def test_moves_with_its_blocks(self, rows: float, cols: float, seed: int) -> None:
        """The same blocks, all moved by the same amount, give the same answer, moved by that amount."""
        random = np.random.default_rng(seed)
        places = random.normal(0, 0.3, (9, 2))
        first = combine([tie(y, x) for y, x in places])
        second = combine([tie(y + rows, x + cols) for y, x in places])
        assert second.agreeing == first.agreeing
        assert differ(first, second) == pytest.approx(math.hypot(rows, cols), abs=1e-9)


def test_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reduced form of benchmarks/coregistration.py: known shifts, 1 to 10 looks, empty ground."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import coregistration

    try:
        outcomes = [coregistration.run(case, blocks=3, block_px=96) for case in coregistration.cases(40, seed=3)]
    finally:
        sys.modules.pop("coregistration", None)
    found = coregistration.summary(outcomes)
    assert found["cases"] == 40
    assert found["false_claims"] == 0
    assert found["claimed"] >= 0.65 * found["with_edges"]
    assert found["median_error_px"] < 0.15
    assert found["worst_error_px"] < 0.6


SCENES = SHARED / "data/terramesh_terramind"


@pytest.mark.real
@pytest.mark.skipif(not SCENES.is_dir(), reason="the real scenes are not beside the checkout")
class TestRealScenes:
    """Sentinel-1 RTC, one pass, against Sentinel-2, 224 x 224 px of 10 m; how far they truly lie apart nobody knows."""

    @staticmethod
    def tie(name: str, rows: float = 0.0, cols: float = 0.0) -> Tie:
        with rasterio.open(SCENES / "S1RTC" / f"{name}.tif") as file:
            power = 10 ** (file.read().astype(np.float64) / 10)
        with rasterio.open(SCENES / "S2L2A" / f"{name}.tif") as file:
            optical = file.read([8, 4]).astype(np.float64)
        power = np.stack([np.abs(moved(band, rows, cols)) for band in power])
        return measure(edges_of(optical, power=False), edges_of(power, power=True))

    @pytest.mark.parametrize("name", ["38D_378R_2_3", "433D_629L_3_1", "609U_541L_3_0", "637U_59R_1_3"])
    def test_a_shift_put_in_is_found_on_top_of_what_was_there(self, name: str) -> None:
        before, after = self.tie(name), self.tie(name, 1.3, -0.7)
        assert before.fault == after.fault == ""
        assert np.subtract(after.shift_px, before.shift_px) == pytest.approx((1.3, -0.7), abs=0.1)

    def test_a_coast_of_water_and_forest_is_not_claimed(self) -> None:
        assert "chance" in self.tie("282D_485L_3_3").fault
