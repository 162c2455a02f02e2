"""Scenes beside each other: what makes one stand out, and what must not."""

from __future__ import annotations

import numpy as np
import pytest

from wetmap.imagery.normalise import BandStats, combine, compare_scenes, judge

BANDS = ("B02", "B03", "B04", "B08", "B11")
#: A wetland's reflectance by band: water, marsh, forest.
GROUND = np.array([[0.03, 0.03, 0.02], [0.04, 0.07, 0.03], [0.02, 0.06, 0.02], [0.01, 0.30, 0.25], [0.00, 0.18, 0.10]])


def season(scenes: int = 5, size: int = 300) -> np.ndarray:
    """Looks (scene, band, pixel) that agree but for noise and a green-up in infrared."""
    draw = np.random.default_rng(scenes)
    cover = draw.integers(0, 3, size)
    looks = GROUND[:, cover] + draw.normal(0, 0.006, (scenes, len(BANDS), size))
    looks[:, 3] += np.linspace(-0.06, 0.06, scenes)[:, np.newaxis] * (cover > 0)
    return looks.astype(np.float32)


def verdicts(samples: np.ndarray) -> list[str]:
    return [judge(dict(zip(BANDS, stats, strict=True))).code for stats in compare_scenes(samples)]


def test_scenes_that_agree_are_left_in_peace() -> None:
    assert verdicts(season()) == [""] * 5


def test_figures_by_hand() -> None:
    """Three looks 0.1, 0.2, 0.4 at one pixel and two at another: the second pixel is not compared."""
    samples = np.array([[[0.1, 0.1]], [[0.2, np.nan]], [[0.4, -0.05]]], dtype=np.float32)
    rows = compare_scenes(samples)
    assert [scene[0].difference for scene in rows] == pytest.approx([-0.1, 0.0, 0.2])
    assert [scene[0].common for scene in rows] == [1, 1, 1]
    assert [scene[0].clear for scene in rows] == [2, 1, 2]
    assert [scene[0].negative for scene in rows] == [0, 0, 1]
    assert rows[1][0].dark == pytest.approx(0.2)


@pytest.mark.parametrize("offset", [0.1, -0.1])
def test_a_wrong_offset_of_one_scene_is_named(offset: float) -> None:
    samples = season()
    samples[2] += np.float32(offset)
    code = "offset-missing" if offset > 0 else "offset-twice"
    assert verdicts(samples) == ["", "", code, "", ""]
    why = judge(dict(zip(BANDS, compare_scenes(samples)[2], strict=True))).why
    assert "the offset of -0.1 may" in why
    assert ("+0.10" if offset > 0 else "-0.10") in why


def test_haze_and_shadow_are_told_from_the_season() -> None:
    samples = season()
    samples[1, :3] += np.float32([[0.07], [0.05], [0.04]])
    samples[3, :3] -= np.float32(0.035)
    assert verdicts(samples) == ["", "bright", "", "dark", ""]


def test_an_offset_that_every_scene_has_shows_in_the_dark_pixels() -> None:
    """Beside each other such scenes agree; lakes of reflectance 0.1 and forests below -0.03 give them away."""
    assert set(verdicts(season() + np.float32(0.1))) == {"offset-missing"}
    assert set(verdicts(season() - np.float32(0.1))) == {"offset-twice"}


def test_two_looks_compare_nothing_and_few_pixels_say_nothing() -> None:
    samples = season(2)
    samples[0] += np.float32(0.05)
    assert verdicts(samples) == ["", ""]
    assert verdicts(season()[:, :, :20]) == ["few"] * 5


def test_a_scene_with_a_gap_is_judged_by_the_rest() -> None:
    samples = season()
    samples[2] += np.float32(0.1)
    samples[2, :, :200] = np.nan
    samples[4] = np.nan
    assert verdicts(samples) == ["", "", "offset-missing", "", "few"]


def test_noise_over_dark_water_is_no_offset() -> None:
    """Atmospheric correction leaves -0.02 over clear lakes."""
    samples = season()
    samples[:, 4] = np.random.default_rng(0).normal(-0.008, 0.006, samples[:, 4].shape)
    assert verdicts(samples) == [""] * 5


def test_blocks_are_combined_by_weight_whatever_their_order() -> None:
    parts = [
        BandStats(100, 0, 0.04, 100, 0.10, 0.01),
        BandStats(10, 9, 0.20, 10, -0.5, 0.30),
        BandStats(60, 1, 0.02, 60, 0.11, 0.02),
        BandStats(0, 0, np.nan, 0, np.nan, np.nan),
    ]
    found = combine(parts)
    assert found == BandStats(170, 10, 0.02, 170, 0.10, 0.01)
    assert combine(parts[::-1]) == found
    empty = combine(parts[3:])
    assert (empty.clear, empty.common) == (0, 0)
    assert np.isnan([empty.difference, empty.spread, empty.dark]).all()
