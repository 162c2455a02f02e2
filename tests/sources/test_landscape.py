"""The simulated landscape: wetlands where wetlands lie, and the same ground in every window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from wetmap.geo import Grid
from wetmap.sources.landscape import (
    BOG,
    COASTAL_MARSH,
    COVERS,
    FEN,
    FOREST,
    MARSH,
    OPEN,
    SHRUB,
    SWAMP,
    WATER,
    Landscape,
    make_landscape,
)
from wetmap.sources.noise import fractal, hash_key


def grid(height: int = 300, width: int = 300, left: float = 350_000.0, top: float = 5_090_000.0) -> Grid:
    return Grid("EPSG:32620", 10.0, left, top, height, width)


@pytest.fixture(scope="module")
def land() -> Landscape:
    return make_landscape(grid(), seed=1)


@pytest.mark.parametrize("seed", range(6))
def test_every_cover_has_at_least_one_percent(seed: int) -> None:
    place = grid(left=300_000.0 + 13_370 * seed, top=5_200_000.0 - 21_130 * seed)
    share = np.bincount(make_landscape(place, seed).cover.ravel(), minlength=len(COVERS) + 1) / 90_000
    assert share[0] == 0
    assert share[1:].min() >= 0.01, dict(zip([cover.name for cover in COVERS], share[1:], strict=True))
    assert 0.25 < share[FOREST] + share[OPEN] < 0.6


@settings(deadline=None, max_examples=12)
@given(
    y0=st.integers(-300, 300),
    x0=st.integers(-300, 300),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    seed=st.integers(0, 9),
)
def test_a_window_is_the_landscape_of_the_window(y0: int, x0: int, height: int, width: int, seed: int) -> None:
    outer = grid(20, 20).window(y0 - 9, x0 - 17, height + 30, width + 31)
    whole = make_landscape(outer, seed)
    part = make_landscape(outer.window(9, 17, height, width), seed)
    cut = (slice(9, 9 + height), slice(17, 17 + width))
    for name in ("elevation", "cover", "height_above_drainage", "wetness"):
        np.testing.assert_array_equal(getattr(whole, name)[cut], getattr(part, name), err_msg=name)


def test_another_seed_is_another_country(land: Landscape) -> None:
    other = make_landscape(grid(), seed=2)
    assert (other.cover == land.cover).mean() < 0.5


def test_types_and_ranges(land: Landscape) -> None:
    assert land.elevation.dtype == np.float32
    assert land.cover.dtype == np.uint8
    assert land.elevation.shape == land.cover.shape == land.wetness.shape == (300, 300)
    assert np.isfinite(land.elevation).all()
    assert land.elevation.min() >= -1.5
    assert land.elevation.max() < 150
    assert land.height_above_drainage.min() >= 0
    assert land.wetness.min() >= 0
    assert land.wetness.max() <= 1


def test_terrain_decides_where_wetlands_lie(land: Landscape) -> None:
    def median(layer: np.ndarray, code: int) -> float:
        return float(np.median(layer[land.cover == code]))

    assert np.quantile(land.elevation[land.cover == COASTAL_MARSH], 0.95) < 2.0
    drainage = land.height_above_drainage
    assert median(drainage, MARSH) < median(drainage, SWAMP) < median(drainage, FEN) < median(drainage, FOREST)
    assert median(drainage, SHRUB) < 1.3
    assert median(drainage, BOG) > median(drainage, SHRUB) + 2
    slope = np.hypot(*np.gradient(land.elevation, 10.0))
    assert median(slope, WATER) < 0.001
    assert median(slope, BOG) < median(slope, FEN) < 0.1
    assert median(land.wetness, FOREST) < 0.5 < median(land.wetness, MARSH)


def test_patches_hang_together(land: Landscape) -> None:
    small, wet_sizes_ha = 0, []
    for cover in COVERS:
        parts, _ = label(land.cover == cover.code)
        sizes = np.bincount(parts.ravel())[1:]
        small += int(sizes[sizes < 10].sum())  # a tenth of a hectare
        if not cover.upland and cover.code != WATER:
            wet_sizes_ha.append(np.repeat(sizes, sizes) * 0.01)
    assert small / land.cover.size < 0.01
    assert 1.0 < float(np.median(np.concatenate(wet_sizes_ha))) < 20.0


def test_noise_is_normalised_and_smooth() -> None:
    at = np.arange(500) * 31.0
    field = fractal(at[None, :], at[:, None], 60.0, hash_key("any"), octaves=2)
    assert abs(float(field.mean())) < 0.05
    assert float(field.std()) == pytest.approx(1.0, abs=0.05)
    near = fractal(at[None, :] + 0.01, at[:, None], 60.0, hash_key("any"), octaves=2)
    assert float(np.abs(near - field).max()) < 0.01


def test_codes_and_names_are_unique() -> None:
    assert [cover.code for cover in COVERS] == list(range(1, 11))
    assert len({cover.name for cover in COVERS}) == len({cover.colour for cover in COVERS}) == 10
    assert len({cover.reference_class for cover in COVERS}) == 9
