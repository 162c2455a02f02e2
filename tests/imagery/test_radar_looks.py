"""The number of looks measured on an image."""

from __future__ import annotations

import numpy as np
import pytest

from wetmap.imagery.looks import LEAST_WINDOWS, equivalent_looks, local_spread


def speckle(looks: float, shape: tuple[int, int] = (420, 420), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape)


@pytest.mark.parametrize(("looks", "off"), [(1.0, 0.12), (2.0, 0.1), (4.4, 0.08), (10.0, 0.08)])
@pytest.mark.parametrize("seed", [0, 1])
def test_even_ground(looks: float, off: float, seed: int) -> None:
    assert equivalent_looks([0.1 * speckle(looks, seed=seed)]) == pytest.approx(looks, rel=off)


def test_expected_spread_is_corrected_for_the_size_of_the_window() -> None:
    """E[s^2 / m^2] = (1 / L) / (1 + 1 / (n L)), by many windows of 4 pixels and 1 look: 0.8, not 1."""
    assert local_spread(speckle(1.0, (600, 600)), 2).mean() == pytest.approx(0.8, rel=0.02)


def test_by_hand() -> None:
    """Windows all alike, 3 x 3 with one pixel of 2.5 among ones: m = 10.5 / 9, s^2 = 0.25, L = m^2 / s^2 - 1 / 9."""
    pattern = np.ones((3, 3))
    pattern[1, 1] = 2.5
    found = equivalent_looks([np.tile(pattern, (20, 20))], 3)
    assert found == pytest.approx((10.5 / 9) ** 2 / 0.25 - 1 / 9, rel=1e-9)


def test_half_the_scene_may_be_rough() -> None:
    """Fields, edges and texture on half of the ground, each part of its own brightness."""
    rng = np.random.default_rng(2)
    ground = np.kron(rng.uniform(0.02, 0.3, (10, 10)), np.ones((42, 42)))
    ground[:, :210] *= np.exp(rng.normal(0, 0.8, (420, 210)))
    assert equivalent_looks([ground * speckle(4.4, seed=3)]) == pytest.approx(4.4, rel=0.12)


def test_what_is_not_observed_does_not_count() -> None:
    power = speckle(4.4)
    holes = power.copy()
    holes[::70] = np.nan
    assert equivalent_looks([holes]) == pytest.approx(4.4, rel=0.1)
    assert len(local_spread(holes)) < len(local_spread(power))
    assert equivalent_looks([np.full((100, 100), np.nan)]) is None
    assert equivalent_looks([]) is None


def test_too_little_ground_gives_no_estimate() -> None:
    few = 7 * (int(np.sqrt(LEAST_WINDOWS)) - 1)
    assert equivalent_looks([speckle(4.4, (few, few))]) is None
    assert equivalent_looks([np.ones((400, 400))]) is None, "ground without speckle says nothing"


def test_pieces_count_together_whatever_their_brightness() -> None:
    pieces = [speckle(4.4, (140, 140), seed=k) * 10.0**-k for k in range(6)]
    assert equivalent_looks(pieces) == pytest.approx(4.4, rel=0.1)
    assert equivalent_looks(pieces) == equivalent_looks(pieces[::-1]), "their order says nothing"
