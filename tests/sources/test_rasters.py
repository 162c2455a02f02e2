"""Your own GeoTIFFs: units, names, checks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.fakes.tiny_archive import GRID, LEFT, SEASON, TOP, aoi, write_raster
from wetmap.errors import RecipeError, SourceError, WetmapWarning
from wetmap.recipe import RasterFile, RastersSource, Sensor
from wetmap.sources import EXTENT, Archive, Scene, open_archive


def archive_of(sensor: Sensor, *files: RasterFile) -> tuple[Archive, list[Scene]]:
    archive = open_archive(RastersSource(files=list(files)), sensor)
    scenes, skipped = archive.search(sensor, aoi(), [SEASON], max_cloud_percent=80)
    assert skipped == []
    return archive, scenes


def stack(tmp_path: Path, values: Any, name: str = "s.tif", nodata: float | None = None) -> Path:
    return write_raster(tmp_path / name, np.asarray(values), Affine(10, 0, LEFT, 0, -10, TOP), nodata=nodata)


def described(path: Path, bands: list[str], unit: str, **more: Any) -> RasterFile:
    return RasterFile.model_validate({"path": path, "bands": bands, "unit": unit, **more})


def cut(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values[12 : 12 + GRID.height, 10 : 10 + GRID.width]


class TestRead:
    def test_reflectance_with_scale_offset_and_unused_bands(self, tmp_path: Path) -> None:
        counts = np.random.default_rng(0).integers(1, 5000, (3, 84, 84)).astype(np.int16)
        counts[0, 40, 40] = 0
        path = stack(tmp_path, counts)
        file = described(path, ["B02", "-", "B08"], "reflectance", scale=1e-4, offset=-0.1, nodata=0)
        archive, (scene,) = archive_of("optical", file)
        assert scene.bands == ("B02", "B08")
        assert scene.seasons == ("summer",)
        assert "The recipe says" in scene.offset_rule
        bands = archive.read(scene, ["B08", "B02", "B11"], GRID)
        assert list(bands) == ["B08", "B02"]
        np.testing.assert_array_equal(bands["B08"], cut(counts[2] * 1e-4 - 0.1).astype(np.float32))
        assert np.isnan(bands["B02"][40 - 12, 40 - 10])
        assert np.isnan(bands["B02"]).sum() == 1

    def test_decibels_become_power_before_resampling(self, tmp_path: Path) -> None:
        decibels = np.full((1, 42, 42), -10.0)
        decibels[0, :, 21:] = -20.0
        path = write_raster(tmp_path / "s1.tif", decibels, Affine(20, 0, LEFT, 0, -20, TOP))
        archive, (scene,) = archive_of("radar", described(path, ["VV"], "gamma0_db", orbit_state="ascending"))
        assert scene.orbit_state == "ascending"
        row = archive.read(scene, ["VV"], GRID)["VV"][5]
        edge = 42 - 10
        np.testing.assert_allclose(row[edge - 2 : edge + 2], [0.1, 0.0775, 0.0325, 0.01], rtol=1e-6)

    def test_zero_power_is_not_observed(self, tmp_path: Path) -> None:
        power = np.full((84, 84), 0.5)
        power[30, 30] = 0.0
        archive, (scene,) = archive_of("radar", described(stack(tmp_path, power), ["VV"], "gamma0"))
        assert np.isnan(archive.read(scene, ["VV"], GRID)["VV"]).sum() == 1

    def test_sea_level_and_below_are_elevations(self, tmp_path: Path) -> None:
        heights = np.zeros((84, 84), dtype=np.int16)
        heights[:40] = -3
        archive, (scene,) = archive_of("terrain", described(stack(tmp_path, heights), ["elevation"], "m"))
        assert scene.seasons == ()
        got = archive.read(scene, ["elevation"], GRID)["elevation"]
        np.testing.assert_array_equal(got, cut(heights))

    def test_classification_is_nearest(self, tmp_path: Path) -> None:
        scl = np.where(np.indices((42, 42)).sum(axis=0) % 2, 4, 8).astype(np.uint8)
        path = write_raster(tmp_path / "scl.tif", scl, Affine(20, 0, LEFT, 0, -20, TOP))
        archive, (scene,) = archive_of("optical", described(path, ["SCL"], "reflectance", scale=1e-4))
        assert set(np.unique(archive.read(scene, ["SCL"], GRID)["SCL"])) == {4.0, 8.0}

    def test_extent_holds_what_is_not_observed_too(self, tmp_path: Path) -> None:
        path = stack(tmp_path, np.zeros((84, 84)), nodata=0)
        archive, (scene,) = archive_of("radar", described(path, ["VV"], "gamma0"))
        bands = archive.read(scene, ["VV", EXTENT], GRID)
        assert np.isnan(bands["VV"]).all()
        assert (bands[EXTENT] == 1).all()

    def test_half_pixel_ramp(self, tmp_path: Path) -> None:
        x = np.broadcast_to(np.arange(84) + 0.5, (84, 84))
        archive, (scene,) = archive_of("terrain", described(stack(tmp_path, x), ["elevation"], "m"))
        got = archive.read(scene, ["elevation"], GRID)["elevation"]
        np.testing.assert_allclose(got, np.broadcast_to((GRID.x - LEFT) / 10, GRID.shape), atol=1e-6)

    def test_two_files_are_two_scenes_and_pickle(self, tmp_path: Path) -> None:
        one = described(stack(tmp_path, np.ones((84, 84)), "a.tif"), ["VV"], "gamma0")
        two = described(stack(tmp_path, np.ones((84, 84)), "b.tif"), ["VV"], "gamma0", season="summer")
        archive, scenes = archive_of("radar", one, two)
        assert [scene.id for scene in scenes] == ["1-a", "2-b"]
        assert pickle.loads(pickle.dumps(archive)) == archive  # noqa: S301 - made here


class TestTrouble:
    def refused(self, sensor: Sensor, file: RasterFile) -> str:
        with pytest.raises((SourceError, RecipeError)) as caught:
            archive_of(sensor, file)
        return str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        assert "none.tif does not exist" in self.refused(
            "terrain", described(tmp_path / "none.tif", ["elevation"], "m")
        )

    def test_unreadable(self, tmp_path: Path) -> None:
        path = tmp_path / "text.tif"
        path.write_text("not a raster")
        said = self.refused("terrain", described(path, ["elevation"], "m"))
        assert f"{path} cannot be read (it is no raster" in said
        assert said.count("text.tif") == 1

    def test_without_crs(self, tmp_path: Path) -> None:
        path = tmp_path / "bare.tif"
        transform = Affine(10, 0, LEFT, 0, -10, TOP)
        profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8", "transform": transform}
        with rasterio.open(path, "w", **profile) as out:
            out.write(np.ones((1, 4, 4), dtype=np.uint8))
        assert "bare.tif has no CRS" in self.refused("terrain", described(path, ["elevation"], "m"))

    @pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
    def test_without_place(self, tmp_path: Path) -> None:
        path = tmp_path / "bare.tif"
        profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8", "crs": "EPSG:32619"}
        with rasterio.open(path, "w", **profile) as out:
            out.write(np.ones((1, 4, 4), dtype=np.uint8))
        assert "no place on the ground" in self.refused("terrain", described(path, ["elevation"], "m"))

    def test_band_count(self, tmp_path: Path) -> None:
        path = stack(tmp_path, np.ones((3, 84, 84)))
        message = self.refused("radar", described(path, ["VV", "VH"], "gamma0"))
        assert "has 3 bands, and the recipe names 2 (VV, VH)" in message

    def test_elsewhere(self, tmp_path: Path) -> None:
        path = write_raster(tmp_path / "far.tif", np.ones((8, 8)), Affine(10, 0, LEFT + 90_000, 0, -10, TOP))
        message = self.refused("terrain", described(path, ["elevation"], "m"))
        assert "does not cover tiny at all: it spans 790000, 5.00992e+06" in message

    def test_in_part(self, tmp_path: Path) -> None:
        path = write_raster(tmp_path / "part.tif", np.ones((84, 38)), Affine(10, 0, LEFT, 0, -10, TOP))
        with pytest.warns(WetmapWarning, match=r"part.tif covers 4\d.\d % of tiny"):
            archive_of("terrain", described(path, ["elevation"], "m"))

    @pytest.mark.parametrize(
        ("sensor", "unit", "needs"),
        [("optical", "gamma0", "reflectance"), ("radar", "m", "gamma0 or gamma0_db"), ("terrain", "reflectance", "m")],
    )
    def test_unit_of_another_sensor(self, tmp_path: Path, sensor: Sensor, unit: str, needs: str) -> None:
        path = stack(tmp_path, np.ones((84, 84)))
        assert f"is in unit {unit}, and {sensor} needs {needs}" in self.refused(sensor, described(path, ["x"], unit))

    def test_unknown_season(self, tmp_path: Path) -> None:
        file = described(stack(tmp_path, np.ones((84, 84))), ["VV"], "gamma0", season="winter")
        assert "belongs to season winter, and the recipe has summer" in self.refused("radar", file)


class TestPlausibleValues:
    """A number that cannot be in the unit means that the unit, the scale or the offset is wrong."""

    @pytest.mark.parametrize(
        ("sensor", "band", "unit", "more", "value"),
        [
            ("optical", "B02", "reflectance", {}, 800.0),
            ("optical", "B02", "reflectance", {"scale": 1e-4, "offset": -0.1}, 400.0),
            ("radar", "VV", "gamma0", {}, -12.0),
            ("radar", "VV", "gamma0_db", {}, 300.0),
            ("terrain", "elevation", "m", {"scale": 100.0}, 120.0),
        ],
        ids=["scale left out", "offset twice", "decibels as power", "counts as decibels", "centimetres"],
    )
    def test_refused_with_the_value(
        self, tmp_path: Path, sensor: Sensor, band: str, unit: str, more: dict[str, float], value: float
    ) -> None:
        path = stack(tmp_path, np.full((84, 84), value))
        with pytest.raises(RecipeError, match=f"band {band} has a middle value of") as caught:
            archive_of(sensor, described(path, [band], unit, **more))
        assert "Mend the file's `unit`, `scale`, `offset` or `nodata`" in str(caught.value)

    def test_nodata_does_not_count(self, tmp_path: Path) -> None:
        counts = np.full((84, 84), -9999.0)
        counts[40:] = 0.1
        archive_of("optical", described(stack(tmp_path, counts), ["B02"], "reflectance", nodata=-9999))

    def test_a_band_named_twice_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="B02 is named twice"):
            described(tmp_path / "a.tif", ["B02", "B02"], "reflectance")
