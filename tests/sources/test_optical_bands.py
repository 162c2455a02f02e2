"""Optical bands onto the map: 20 m to 10 m in place, dark and negative pixels kept, no data and only that left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry import box

from tests.fakes import tiny_archive
from tests.fakes.tiny_archive import CRS, LEFT, SEASON, TOP
from wetmap.geo import Grid
from wetmap.imagery.masks import clear_mask
from wetmap.recipe import StacSource
from wetmap.sources import Archive, Scene, open_archive


def an_archive(folder: Path, bands: dict[str, NDArray[Any]], res: dict[str, float]) -> tuple[Archive, Scene]:
    """One scene of baseline 05.09 (stored with 1000 counts added) whose upper left corner is (LEFT, TOP)."""
    assets = {}
    for name, counts in bands.items():
        place = Affine(res[name], 0, LEFT, 0, -res[name], TOP)
        path = tiny_archive.write_raster(folder / f"{name}.tif", counts, place, crs=CRS, nodata=0)
        assets[name] = tiny_archive.asset(path, folder)
    properties = {"s2:processing_baseline": "05.09", "eo:cloud_cover": 0.0}
    outline = box(LEFT, TOP - 900, LEFT + 900, TOP)
    item = tiny_archive.item("one", "sentinel-2-l2a", "2021-07-01T15:00:00Z", properties, assets, outline)
    catalog = tiny_archive.write_catalog(folder, [item])
    archive = open_archive(StacSource(catalog=str(catalog)), "optical")
    scenes, _ = archive.search("optical", tiny_archive.aoi(), [SEASON], max_cloud_percent=100)
    return archive, scenes[0]


def test_a_ramp_of_20_m_lies_at_the_centres_of_10_m(tmp_path: Path) -> None:
    """Counts that grow by 40 per 20 m to the east and 80 to the south: exactly 20 and 40 per 10 m pixel.

    The centre of the first 20 m pixel is 10 m from the corner, that of the first 10 m pixel 5 m: a quarter of a 20 m
    pixel before it.
    """
    rows, cols = np.mgrid[0:30, 0:30]
    counts = (2000 + 80 * rows + 40 * cols).astype(np.uint16)
    fine_rows, fine_cols = np.mgrid[0:60, 0:60]
    fine = (2000 + 80 * (fine_rows / 2 - 0.25) + 40 * (fine_cols / 2 - 0.25)).astype(np.float64)
    scl = np.full((30, 30), 4, dtype=np.uint8)
    archive, scene = an_archive(tmp_path, {"B11": counts, "SCL": scl}, {"B11": 20, "SCL": 20})
    inside = slice(1, -1), slice(1, -1)  # beyond the outermost centres the outermost value holds
    got = archive.read(scene, ["B11"], Grid(CRS, 10.0, LEFT, TOP, 60, 60))["B11"]
    np.testing.assert_allclose(got[inside], (fine * 1e-4 - 0.1)[inside], rtol=0, atol=2e-8)


def test_classes_of_20_m_cover_their_four_pixels_of_10_m(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    scl = draw.integers(1, 12, (30, 30)).astype(np.uint8)
    counts = np.full((30, 30), 2000, dtype=np.uint16)
    archive, scene = an_archive(tmp_path, {"B11": counts, "SCL": scl}, {"B11": 20, "SCL": 20})
    got = archive.read(scene, ["SCL"], Grid(CRS, 10.0, LEFT, TOP, 60, 60))["SCL"]
    np.testing.assert_array_equal(got, scl.repeat(2, axis=0).repeat(2, axis=1))
    clear = clear_mask(got, res_m=10, dilate_m=0)
    np.testing.assert_array_equal(clear, np.isin(got, (2, 4, 5, 6, 7)))


@pytest.mark.parametrize("res", [10.0, 20.0])
def test_dark_and_negative_pixels_are_values_and_only_a_stored_0_is_none(tmp_path: Path, res: float) -> None:
    """Counts 1 to 1000 are reflectance -0.0999 to 0.0; neighbours of a gap keep their own values."""
    counts = np.full((20, 20), 1500, dtype=np.uint16)
    counts[4:8, 4:8], counts[8:12, 4:8], counts[12:16, 4:8] = 1, 999, 1000
    counts[6:10, 12:16] = 0
    scl = np.full((20, 20), 6, dtype=np.uint8)
    archive, scene = an_archive(tmp_path, {"B03": counts, "SCL": scl}, {"B03": res, "SCL": res})
    got = archive.read(scene, ["B03"], Grid(CRS, res, LEFT, TOP, 20, 20))["B03"]
    np.testing.assert_array_equal(np.isnan(got), counts == 0)
    seen = counts > 0
    np.testing.assert_allclose(got[seen], (counts[seen].astype(np.float64) - 1000) * 1e-4, rtol=0, atol=1e-8)
    fine = archive.read(scene, ["B03"], Grid(CRS, res / 2, LEFT, TOP, 40, 40))["B03"]
    np.testing.assert_array_equal(np.isnan(fine), (counts == 0).repeat(2, axis=0).repeat(2, axis=1))
    assert np.nanmin(fine) == np.float32(-0.0999)
    assert np.nanmax(fine) == np.float32(0.05), "what is stored as 0 must not darken its neighbours"
