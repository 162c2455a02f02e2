"""Scenes to features: the values, the masks, and that no block leaves a trace."""

from __future__ import annotations

import dataclasses
import datetime as dt
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from pyproj import Transformer

from tests.fakes import tiny_archive
from tests.fakes.tiny_archive import GRID, LEFT, SEASON, TOP, aoi
from wetmap.cube import bands_of, layers_of
from wetmap.errors import SourceError
from wetmap.geo import Block, Grid
from wetmap.recipe import Features, Optical, Radar, Recipe, Season, Sensor, StacSource
from wetmap.sources import Archive, Scene, open_archive
from wetmap.stages.block_features import BlockResult, block_features, unserved_layers
from wetmap.stages.block_reading import FetchTask
from wetmap.stages.terrain_plan import coarse_grid, plan_terrain

SPRING = Season(name="spring", start=dt.date(2021, 6, 1), end=dt.date(2021, 6, 30))
WHOLE = Block(0, 0, 0, 0, GRID.height, GRID.width)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archive")


@pytest.fixture(scope="module")
def task(folder: Path) -> FetchTask:
    """Everything that a recipe can ask for, in two seasons."""
    catalog = tiny_archive.write_catalog(folder, tiny_archive.write_files(folder))
    features = Features(
        preset="custom",
        indices=["NDVI", "NDMI"],
        orbit_states=["ascending", "descending", "any"],
        terrain=["elevation", "slope", "tpi", "twi"],
    )
    seasons = [SPRING, SEASON]
    recipe = Recipe(features=features, seasons=seasons, optical=Optical(dilate_m=40), radar=Radar(border_m=30))
    archives: dict[str, Archive] = {}
    scenes: list[Scene] = []
    sensors: tuple[Sensor, ...] = ("optical", "radar", "terrain")
    for sensor in sensors:
        archives[sensor] = open_archive(StacSource(catalog=str(catalog)), sensor)
        scenes += archives[sensor].search(sensor, aoi(), seasons, max_cloud_percent=80)[0]
    accumulation = folder / "accumulation.tif"
    plan_terrain(archives["terrain"], [s for s in scenes if s.sensor == "terrain"], GRID, accumulation)
    return FetchTask(
        grid=GRID,
        bands=bands_of(recipe),
        seasons=("spring", "summer"),
        scenes=tuple(scenes),
        archives=archives,
        optical=recipe.optical,
        radar=recipe.radar,
        accumulation=accumulation,
    )


@pytest.fixture(scope="module")
def whole(task: FetchTask) -> BlockResult:
    return block_features(task, WHOLE)


def band(task: FetchTask, result: BlockResult, name: str) -> NDArray[np.float32]:
    return np.asarray(result.features[[band.name for band in task.bands].index(name)])


def layer(task: FetchTask, result: BlockResult, name: str) -> NDArray[np.bool_]:
    return np.asarray(result.observed[layers_of(task.bands).index(name)])


class TestBlocks:
    @pytest.mark.parametrize("side", [64, 32, 23])
    @pytest.mark.parametrize("speckle", ["lee", "boxcar"])
    def test_features_are_the_same_bits_whatever_the_blocks(self, task: FetchTask, side: int, speckle: str) -> None:
        task = dataclasses.replace(task, radar=task.radar.model_copy(update={"speckle": speckle}))
        expected = block_features(task, WHOLE)
        for block in GRID.blocks(side):
            got = block_features(task, block)
            for mine, all_of_it in (
                (got.features, expected.features),
                (got.observed, expected.observed),
                (got.clear_count, expected.clear_count),
            ):
                np.testing.assert_array_equal(mine, all_of_it[(slice(None), *block.slices)])

    @pytest.mark.parametrize("x0", [0, 3, 4, 5, 6, 9, 13])
    @pytest.mark.parametrize("y0", [24, 28, 44])
    def test_blocks_beside_borders_and_clouds(self, task: FetchTask, whole: BlockResult, x0: int, y0: int) -> None:
        """The radar's border is at columns 4 and 5, the cloud at rows 48 to 56, the cut of the pass at row 28."""
        block = Block(0, 0, y0, x0, 5, 4)
        got = block_features(task, block)
        np.testing.assert_array_equal(got.features, whole.features[(slice(None), *block.slices)])
        np.testing.assert_array_equal(got.clear_count, whole.clear_count[(slice(None), *block.slices)])

    def test_on_a_grid_in_another_crs(self, task: FetchTask) -> None:
        x, y = Transformer.from_crs(GRID.crs, "EPSG:2953", always_xy=True).transform(LEFT + 200, TOP - 200)
        grid = Grid("EPSG:2953", 10.0, round(x, -1), round(y, -1), 40, 40)
        task = dataclasses.replace(task, grid=grid, accumulation=None)
        expected = block_features(task, Block(0, 0, 0, 0, 40, 40))
        assert expected.observed[0].mean() > 0.9
        for block in grid.blocks(17):
            np.testing.assert_array_equal(
                block_features(task, block).features, expected.features[(slice(None), *block.slices)]
            )

    def test_task_is_small_and_pickles(self, task: FetchTask, whole: BlockResult) -> None:
        data = pickle.dumps(task)
        assert len(data) < 100_000
        again = block_features(pickle.loads(data), Block(0, 0, 8, 8, 16, 16))  # noqa: S301 - made here
        np.testing.assert_array_equal(again.features, whole.features[:, 8:24, 8:24])

    def test_shapes_and_kinds(self, task: FetchTask, whole: BlockResult) -> None:
        assert whole.features.shape == (len(task.bands), *GRID.shape)
        assert whole.observed.shape == (len(layers_of(task.bands)), *GRID.shape)
        assert whole.clear_count.shape == (2, *GRID.shape)
        dtypes = [str(array.dtype) for array in (whole.features, whole.observed, whole.clear_count)]
        assert dtypes == ["float32", "bool", "uint16"]
        assert whole.failures == ()

    def test_a_band_is_seen_exactly_where_its_layer_is(self, task: FetchTask, whole: BlockResult) -> None:
        for index, one in enumerate(task.bands):
            np.testing.assert_array_equal(np.isfinite(whole.features[index]), layer(task, whole, one.layer), one.name)


class TestOptical:
    def test_median_of_the_scenes_near_the_truth(self, task: FetchTask, whole: BlockResult) -> None:
        truth = tiny_archive.reflectance()["B03"][12:73, 10:67]
        clear = whole.clear_count[1] == 3
        error = band(task, whole, "summer.B03")[clear] - truth[clear]
        assert abs(float(error.mean())) < 0.0005
        assert float(np.abs(error).max()) < 0.01

    def test_clear_looks_are_counted(self, whole: BlockResult) -> None:
        count = whole.clear_count[1]
        # Three scenes; one has a gap of 10 columns of 20 m, all have the same cloud with its shadow.
        assert count[5, 50] == 3
        assert count[5, 10] == 2
        assert whole.clear_count[0][5, 50] == 1
        cloud_row, cloud_col = 60 + 2 - 12, 12 - 10
        assert count[cloud_row, cloud_col] == 0

    def test_under_the_cloud_and_its_rim_nothing_is_seen(self, task: FetchTask, whole: BlockResult) -> None:
        seen = layer(task, whole, "summer.optical")
        assert not seen[60 - 12, 8 - 10 + 4]
        assert not seen[60 - 12 - 4, 10 - 10 + 4]
        assert seen[60 - 12 - 6, 10]

    def test_dark_and_negative_pixels_are_seen(self, task: FetchTask, whole: BlockResult) -> None:
        pond = (slice(22 - 12, 28 - 12), slice(42 - 10, 50 - 10))
        assert layer(task, whole, "summer.optical")[pond].all()
        assert float(np.nanmin(band(task, whole, "spring.B02")[pond])) < 0

    def test_index_of_the_composite(self, task: FetchTask, whole: BlockResult) -> None:
        red, near = band(task, whole, "summer.B04").astype(float), band(task, whole, "summer.B08").astype(float)
        index = band(task, whole, "summer.NDVI")
        bright = (red > 0.01) & (near > 0.01)
        np.testing.assert_allclose(index[bright], ((near - red) / (near + red))[bright], rtol=1e-5)

    def test_index_alone_reads_only_its_bands(self, task: FetchTask) -> None:
        kept = tuple(one for one in task.bands if one.name == "summer.NDVI")
        asked: list[str] = []

        class Watching:
            def read(self, scene: Scene, names: list[str], window: Grid) -> object:
                asked.extend(names)
                return task.archives["optical"].read(scene, names, window)

        result = block_features(dataclasses.replace(task, bands=kept, archives={"optical": Watching()}), WHOLE)  # type: ignore[dict-item]
        assert set(asked) == {"SCL", "B04", "B08"}
        assert result.features.shape[0] == 1


class TestRadar:
    def test_mean_power_in_decibels(self, task: FetchTask, whole: BlockResult) -> None:
        ascending = band(task, whole, "summer.VV_ascending")
        assert float(np.nanmean(ascending)) == pytest.approx(-10.2, abs=0.4)
        assert float(np.nanmean(band(task, whole, "summer.VH_ascending"))) == pytest.approx(-17.2, abs=0.4)

    def test_border_is_taken_off(self, task: FetchTask, whole: BlockResult) -> None:
        """Zeros to column 12, noise to 14; the rim of 30 m takes the noise."""
        seen = layer(task, whole, "summer.radar_descending")
        np.testing.assert_array_equal(seen[20], np.arange(57) >= 12 + 3 - 10)
        assert float(np.nanmin(band(task, whole, "summer.VV_descending"))) > -16

    def test_a_pass_cut_into_two_items_has_no_seam(self, task: FetchTask, whole: BlockResult) -> None:
        assert layer(task, whole, "spring.radar_ascending").mean() > 0.999
        assert [s.id for s in task.scenes if "ascending" in s.id and "06-12" in s.id] == [
            "S1A_2021-06-12_ascending_0",
            "S1A_2021-06-12_ascending_1",
        ]

    def test_any_puts_all_passes_together(self, task: FetchTask, whole: BlockResult) -> None:
        seen = layer(task, whole, "spring.radar_any")
        up, down = layer(task, whole, "spring.radar_ascending"), layer(task, whole, "spring.radar_descending")
        np.testing.assert_array_equal(seen, up | down)
        both = up & down
        power = {
            n: 10 ** (band(task, whole, f"spring.VV_{n}").astype(float) / 10)
            for n in ("ascending", "descending", "any")
        }
        mean = (power["ascending"] + power["descending"]) / 2
        np.testing.assert_allclose(power["any"][both], mean[both], rtol=1e-5)

    def test_no_filter(self, task: FetchTask, folder: Path) -> None:
        plain = dataclasses.replace(task, radar=task.radar.model_copy(update={"speckle": "none", "border_m": 0}))
        got = band(task, block_features(plain, WHOLE), "spring.VV_descending")
        with rasterio.open(folder / "S1A_2021-06-15_descending_0" / "vv.tif") as dataset:
            stored = dataset.read(1)[12:73, 10:67].astype(np.float64)
        expected = np.where(stored > 0, 10 * np.log10(np.maximum(stored, 1e-30)), np.nan).astype(np.float32)
        np.testing.assert_array_equal(got, expected)


class TestTerrain:
    def test_elevation_and_slope_of_the_plane(self, task: FetchTask, whole: BlockResult) -> None:
        elevation = band(task, whole, "terrain.elevation")
        assert layer(task, whole, "terrain").all()
        assert 20 < float(elevation.min()) < float(elevation.max()) < 200
        # 0.3 m per second of longitude, which is about 21.7 m here.
        expected = np.degrees(np.arctan(0.3 / (30.92 * np.cos(np.radians(45.2)))))
        assert float(np.median(band(task, whole, "terrain.slope"))) == pytest.approx(expected, abs=0.6)

    def test_wetness_file(self, task: FetchTask, whole: BlockResult) -> None:
        assert task.accumulation is not None
        with rasterio.open(task.accumulation) as dataset:
            area = dataset.read(1)
            assert dataset.res == (30.0, 30.0)
        assert float(np.nanmin(area)) >= 30.0
        assert 4 < float(np.nanmedian(band(task, whole, "terrain.twi"))) < 12

    def test_same_request_same_bytes(self, task: FetchTask, tmp_path: Path) -> None:
        assert task.accumulation is not None
        plan_terrain(
            task.archives["terrain"], [s for s in task.scenes if s.sensor == "terrain"], GRID, tmp_path / "again.tif"
        )
        assert (tmp_path / "again.tif").read_bytes() == task.accumulation.read_bytes()
        assert list(tmp_path.iterdir()) == [tmp_path / "again.tif"]

    def test_a_province_gets_coarser_cells(self) -> None:
        grid = coarse_grid(Grid("EPSG:2953", 10.0, 2_300_000, 7_700_000, 38_000, 40_000), most_cells=8_000_000)
        assert grid.height * grid.width < 9_000_000
        assert grid.left <= 2_300_000 - 3000
        assert grid.bounds[1] <= 7_700_000 - 380_000 - 3000

    def test_no_elevation_in_the_area(self, task: FetchTask, tmp_path: Path) -> None:
        far = Grid(GRID.crs, 10.0, LEFT + 50_000, TOP, 30, 30)
        tiles = [scene for scene in task.scenes if scene.sensor == "terrain"]
        with pytest.raises(SourceError, match="hold no elevation"):
            plan_terrain(task.archives["terrain"], tiles, far, tmp_path / "none.tif")


class TestFailures:
    def test_a_scene_that_fails_is_left_out_of_every_band_and_reported(
        self, task: FetchTask, folder: Path, tmp_path: Path
    ) -> None:
        """B08 of one scene is gone: the bands read before it must not keep the scene."""
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        catalog = copy / "stac" / "catalog.json"
        archive = open_archive(StacSource(catalog=str(catalog)), "optical")
        scenes = tuple(archive.search("optical", aoi(), [SPRING, SEASON], max_cloud_percent=80)[0])
        (copy / "S2A_20210820" / "B08.tif").unlink()
        optical_only = tuple(one for one in task.bands if one.layer.endswith(".optical"))
        broken = dataclasses.replace(task, archives={"optical": archive}, scenes=scenes, bands=optical_only)
        result = block_features(broken, WHOLE)
        assert "B08.tif cannot be read" in result.failures[0]["reason"]
        assert [(row["scene"], row["sensor"]) for row in result.failures] == [("S2A_20210820", "optical")]
        without = dataclasses.replace(broken, scenes=tuple(s for s in scenes if s.id != "S2A_20210820"))
        np.testing.assert_array_equal(result.features, block_features(without, WHOLE).features)
        assert result.clear_count[1].max() == 2

    def test_an_archive_is_asked_once_for_it_has_its_own_patience(self, task: FetchTask) -> None:
        class Broken:
            def __init__(self) -> None:
                self.asked: list[str] = []

            def read(self, scene: Scene, *_: object) -> object:
                self.asked.append(scene.id)
                raise SourceError("The line broke.", do="Try again.")

        broken = Broken()
        again = dataclasses.replace(task, archives=dict.fromkeys(task.archives, broken))  # type: ignore[arg-type]
        result = block_features(again, WHOLE)
        assert sorted(broken.asked) == sorted(one.id for one in task.scenes if one.seasons or one.sensor == "terrain")
        assert {row["reason"] for row in result.failures} == {"The line broke."}
        assert not result.observed.any()

    def test_layers_that_nothing_can_fill(self, task: FetchTask) -> None:
        assert unserved_layers(task.bands, task.scenes) == ()
        up = [scene for scene in task.scenes if scene.orbit_state != "descending"]
        assert unserved_layers(task.bands, up) == (
            "spring.optical",
            "spring.radar_descending",
            "summer.optical",
            "summer.radar_descending",
        )
        result = block_features(dataclasses.replace(task, scenes=tuple(up)), Block(0, 0, 0, 0, 8, 8))
        assert not result.observed[layers_of(task.bands).index("summer.optical")].any()
