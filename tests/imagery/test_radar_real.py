"""Looks and filters on five real Sentinel-1 RTC scenes of 224 x 224 px: coast, steppe, farmland, bog in winter."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tests.conftest import SHARED
from wetmap.imagery.looks import equivalent_looks
from wetmap.imagery.radar import from_db
from wetmap.imagery.speckle import boxcar, gamma_map, lee
from wetmap.imagery.speckle_edges import lee_sigma, refined_lee

SCENES = SHARED / "data/terramesh_terramind/S1RTC"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SCENES.is_dir(), reason="the real scenes are not beside the checkout"),
]


@pytest.fixture(scope="module")
def powers() -> list[NDArray[np.float64]]:
    """VV and VH of every scene, linear power."""
    found = []
    for path in sorted(SCENES.glob("*.tif")):
        with rasterio.open(path) as dataset:
            found += [from_db(band.astype(np.float64)) for band in dataset.read()]
    return found


def test_looks(powers: list[NDArray[np.float64]]) -> None:
    """Somewhat above the nominal 4.4, as neighbours are alike; the valley near Temuco is rough, and comes out lower."""
    looks = [equivalent_looks([power]) for power in powers]
    assert len(looks) == 10
    assert all(found is not None and 3 < found < 9 for found in looks)
    assert 4.4 < np.median([found for found in looks if found is not None]) < 7


def test_filters_keep_the_level_and_gain_looks(powers: list[NDArray[np.float64]]) -> None:
    for power in powers:
        filtered = {
            "boxcar": boxcar(power, 5),
            "lee": lee(power, 5, 5.9),
            "refined-lee": refined_lee(power, 5.9),
            "gamma-map": gamma_map(power, 5, 5.9),
            "lee-sigma": lee_sigma(power, 9, 5.9, strong=float(np.percentile(power, 98))),
        }
        before = equivalent_looks([power])
        for name, smooth in filtered.items():
            assert 10 * np.log10(smooth.mean() / power.mean()) == pytest.approx(0.0, abs=0.3), name
            after = equivalent_looks([smooth])
            assert before is not None
            assert after is not None
            assert after > 1.5 * before, name
