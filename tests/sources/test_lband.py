"""The yearly L-band mosaic: which year, what the numbers are, and what its mask takes out."""

from __future__ import annotations

import datetime as dt
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import tiny_archive
from tests.fakes.downloads import mosaic
from tests.fakes.tiny_archive import GRID, LEFT, SEASON, SIDE, TOP, aoi
from wetmap.errors import SourceError, WetmapWarning
from wetmap.recipe import RasterFile, RastersSource, Season, StacSource
from wetmap.sources import Archive, Scene, open_archive
from wetmap.sources.decode import decoded
from wetmap.sources.lband import nearest_year


def season(year: int, month: int = 7) -> Season:
    return Season(name="summer", start=dt.date(year, month, 1), end=dt.date(year, month, 28))


def tile(year: int) -> Scene:
    return Scene("x", "lband", "", item={"properties": {"start_datetime": f"{year}-01-01T00:00:00Z"}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lband")


@pytest.fixture(scope="module")
def archive(folder: Path) -> Archive:
    items = [mosaic(folder, year) for year in (2010, 2015, 2020)]
    return open_archive(StacSource(catalog=str(tiny_archive.write_catalog(folder, items))), "lband")


def found(archive: Archive, *seasons: Season) -> list[Scene]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WetmapWarning)
        return archive.search("lband", aoi(), seasons, max_cloud_percent=80)[0]


class TestYear:
    def test_the_year_nearest_the_season_and_it_is_said(self, archive: Archive) -> None:
        """``datetime`` of every item is the day on which it was made, as in real ones."""
        (scene,) = found(archive, season(2016))
        assert scene.datetime[:4] == "2015"
        assert scene.seasons == ()
        assert "Mosaic of 2015" in scene.offset_rule
        assert "2010, 2015, 2020" in scene.offset_rule
        assert scene.item["properties"]["start_datetime"][:4] == "2015"

    def test_another_year_than_the_seasons_is_a_warning(self, archive: Archive) -> None:
        with pytest.warns(WetmapWarning, match="L-band is of 2020: .* the seasons of 2021"):
            archive.search("lband", aoi(), [SEASON], max_cloud_percent=80)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            archive.search("lband", aoi(), [season(2015)], max_cloud_percent=80)

    def test_of_two_years_as_near_the_earlier(self) -> None:
        whole = Season(name="year", start=dt.date(2010, 1, 1), end=dt.date(2010, 12, 31))
        assert nearest_year([tile(2011), tile(2009)], [whole])[0] == 2009
        assert nearest_year([tile(2010), tile(2015)], [season(2012, 6), season(2013, 6)])[0] == 2010

    def test_a_year_with_fewer_tiles_is_not_taken(self) -> None:
        assert nearest_year([tile(2015), tile(2015), tile(2020)], [season(2021)]) == (2015, [2015, 2020])

    @settings(deadline=None, max_examples=30)
    @given(st.sets(st.integers(2007, 2025), min_size=1), st.integers(2014, 2026))
    def test_no_other_year_is_nearer(self, years: set[int], wanted: int) -> None:
        year, listed = nearest_year([tile(one) for one in years], [season(wanted)])
        assert listed == sorted(years)
        assert abs(year - wanted) == min(abs(one - wanted) for one in years)

    def test_no_mosaic_is_an_error_with_advice(self, tmp_path: Path) -> None:
        far = {**mosaic(tmp_path, 2020), "geometry": {"type": "Point", "coordinates": [0, 0]}, "bbox": [0, 0, 0, 0]}
        catalog = tiny_archive.write_catalog(tmp_path, [far])
        with pytest.raises(SourceError, match=r"features\.lband"):
            open_archive(StacSource(catalog=str(catalog)), "lband").search(
                "lband", aoi(), [SEASON], max_cloud_percent=80
            )
        with pytest.raises(SourceError, match="Earth Search"):
            open_archive(StacSource(catalog="earth-search"), "lband").search(
                "lband", aoi(), [SEASON], max_cloud_percent=80
            )


class TestValues:
    def test_worked_example(self) -> None:
        """DN 7079.46 is 10 log10(7079.46^2) - 83 = -6 dB; 1000 is -23 dB."""
        power = decoded(np.array([7079.457843, 1000.0, 0.0, np.nan]), {"wetmap:stored": "palsar"})
        np.testing.assert_allclose(10 * np.log10(power[:2]), [-6.0, -23.0], atol=1e-8)
        assert np.isnan(power[2:]).all()

    def test_mask_values(self) -> None:
        good = decoded(np.array([0.0, 50.0, 100.0, 150.0, 255.0, 7.0]), {"wetmap:stored": "palsar-mask"})
        np.testing.assert_array_equal(good, [np.nan, 1, 0, 0, 1, 0])

    def test_power_on_the_map_and_nothing_of_layover_or_shadow(self, archive: Archive, folder: Path) -> None:
        (scene,) = found(archive, season(2020))
        got = archive.read(scene, ["HV", "HH"], GRID)
        assert set(got) == {"HH", "HV"}
        decibels = 10 * np.log10(got["HH"])
        seen = np.isfinite(decibels)
        with (
            rasterio.open(folder / "lband/N46W067_2020/HH.tif") as dataset,
            rasterio.open(folder / "lband/N46W067_2020/mask.tif") as mask,
        ):
            stored, kept = dataset.read(1).astype(float), np.isin(mask.read(1), (50, 255))
        expected = 20 * np.log10(stored[kept]) - 83.0
        assert expected.min() <= decibels[seen].min() < decibels[seen].max() <= expected.max()
        assert decibels[seen].max() < 20 * np.log10(59999) - 83, "no pixel leans on layover"
        assert 0.85 < seen.mean() < 0.99
        assert (np.isfinite(got["HV"]) == seen).all()

    def test_water_is_kept(self, archive: Archive, folder: Path) -> None:
        (scene,) = found(archive, season(2020))
        with rasterio.open(folder / "lband/N46W067_2020/mask.tif") as mask:
            rows, cols = np.nonzero(mask.read(1) == 50)
            lon, lat = mask.xy(int(np.median(rows)), int(np.median(cols)))
        from pyproj import Transformer

        x, y = Transformer.from_crs("EPSG:4326", GRID.crs, always_xy=True).transform(lon, lat)
        window = GRID.window(int((GRID.top - y) // 10), int((x - GRID.left) // 10), 2, 2)
        assert np.isfinite(archive.read(scene, ["HH"], window)["HH"]).all()

    def test_a_window_gives_the_bits_of_the_whole(self, archive: Archive) -> None:
        (scene,) = found(archive, season(2020))
        whole = archive.read(scene, ["HH"], GRID)["HH"]
        for block in GRID.blocks(17):
            part = archive.read(scene, ["HH"], GRID.window(block.y0, block.x0, block.height, block.width))["HH"]
            np.testing.assert_array_equal(part, whole[block.slices])


def test_own_rasters_of_l_band(tmp_path: Path) -> None:
    """Two files of one polarisation each, in decibels."""
    from affine import Affine

    files = []
    for pol, value in (("HH", -8.0), ("HV", -15.0)):
        path = tmp_path / f"{pol}.tif"
        values = np.full((SIDE, SIDE), value, dtype=np.float32)
        tiny_archive.write_raster(path, values, Affine(10, 0, LEFT, 0, -10, TOP))
        files.append(RasterFile.model_validate({"path": path, "bands": [pol], "unit": "gamma0_db"}))
    archive = open_archive(RastersSource(files=files), "lband")
    scenes, _ = archive.search("lband", aoi(), [SEASON], max_cloud_percent=80)
    assert [scene.seasons for scene in scenes] == [(), ()]
    power = archive.read(scenes[0], ["HH"], GRID)["HH"]
    np.testing.assert_allclose(10 * np.log10(power), -8.0, rtol=1e-5)
