"""A province is thousands of tasks: each is small, and a worker holds the scenes of its block and no more."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from shapely.geometry import box, mapping

from tests.fakes import tiny_archive
from tests.fakes.tiny_archive import GRID, SEASON, aoi
from wetmap.cube import Band, bands_of
from wetmap.errors import SourceError, UnusableFileError
from wetmap.geo import Block, Grid
from wetmap.ledger import Entry, Ledger
from wetmap.recipe import Features, Network, Recipe, StacSource
from wetmap.sources import Archive, Scene, open_archive
from wetmap.stages import fetch
from wetmap.stages.block_features import block_features
from wetmap.stages.block_reading import REACH_M, BlockReader, FetchTask
from wetmap.stages.context import BlockTask
from wetmap.stages.fetch_block import Work, still_lost
from wetmap.stages.scene_table import INDEX, LINES, open_table, write_table
from wetmap.workspace import StageFolder

#: A province: 400 x 400 km of 10 m.
PROVINCE = Grid("EPSG:32619", 10.0, 500_000.0, 5_200_000.0, 40_000, 40_000)


def scene(number: int, west: float, south: float) -> Scene:
    """A scene of 1.4 x 1 degrees with about as much metadata as a real one."""
    properties = {f"property:{key}": "x" * 40 for key in range(60)}
    assets = {
        name: {"href": f"https://archive.org/{number}/{name}.tif", "type": "image/tiff"} for name in "ABCDEFGHIJK"
    }
    geometry = mapping(box(west, south, west + 1.4, south + 1.0))
    item = {"id": f"S2_{number}", "geometry": geometry, "properties": properties, "assets": assets}
    return Scene(f"S2_{number}", "optical", "2021-06-10T00:00:00Z", seasons=("summer",), bands=("B03",), item=item)


def province() -> list[Scene]:
    """5,000 scenes over the province and beyond."""
    rng = np.random.default_rng(3)
    return [scene(n, *place) for n, place in enumerate(rng.uniform((-70.0, 42.0), (-62.0, 48.0), (5000, 2)))]


def task_of(scenes: tuple[Scene, ...], archives: dict[str, Archive] | None = None) -> FetchTask:
    recipe = Recipe(features=Features(preset="seasonal"), seasons=[SEASON])
    return FetchTask(
        grid=PROVINCE,
        bands=bands_of(recipe),
        seasons=("summer",),
        scenes=scenes,
        archives=archives or {"optical": open_archive(StacSource(), "optical")},
        optical=recipe.optical,
        radar=recipe.radar,
        run="a" * 32,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The province's scenes, written once."""
    return write_table(tmp_path_factory.mktemp("fetch"), province())


class TestTable:
    def test_a_task_is_a_few_kilobytes_whatever_the_scenes(self, table: Path) -> None:
        folder = table.parent
        work = Work(task_of(()), table, folder / "cube", folder / "inside", folder / "ledger", Network(), 0.0)
        assert len(pickle.dumps(BlockTask(Block(0, 0, 0, 0, 512, 512), work))) < 6_000
        assert len(pickle.dumps(task_of(tuple(province()[:1000])))) > 1_000_000, "which is what it was"
        assert (folder / LINES).stat().st_size > 15_000_000

    def test_a_worker_holds_places_and_no_metadata(self, table: Path) -> None:
        opened = open_table(table)
        assert opened.bounds.nbytes + opened.starts.nbytes < 300_000
        assert open_table(table) is opened

    @pytest.mark.parametrize(("y0", "x0"), [(0, 0), (20_000, 20_000), (39_488, 39_488)])
    def test_scenes_of_a_block_are_those_near_it_in_the_order_of_the_plan(self, table: Path, y0: int, x0: int) -> None:
        window = PROVINCE.window(y0, x0, 512, 512)
        found = open_table(table).near(window)
        assert 5 < len(found) < 400
        assert all(isinstance(one, Scene) and one.bands == ("B03",) for one in found)
        numbers = [int(one.id.removeprefix("S2_")) for one in found]
        assert numbers == sorted(numbers)
        west, south, east, north = _degrees(window)
        inside = {one.id for one in province() if box(*_bounds(one)).intersects(box(west, south, east, north))}
        assert inside <= {one.id for one in found}

    def test_scenes_whose_place_is_not_known_are_near_everything(self, tmp_path: Path) -> None:
        lost = dataclasses.replace(scene(1, 0, 0), item={"id": "x"})
        table = write_table(tmp_path, [scene(0, 10.0, 10.0), lost])
        assert [one.id for one in open_table(table).near(PROVINCE.window(0, 0, 8, 8))] == ["S2_1"]
        assert open_table(write_table(tmp_path / "none", [])).near(PROVINCE.window(0, 0, 8, 8)) == ()

    def test_a_new_table_is_read_anew(self, tmp_path: Path) -> None:
        window = PROVINCE.window(0, 0, 8, 8)
        here = _degrees(window)[:2]
        assert len(open_table(write_table(tmp_path, [scene(0, *here)])).near(window)) == 1
        (tmp_path / INDEX).touch()
        assert len(open_table(write_table(tmp_path, [scene(0, *here), scene(1, *here)])).near(window)) == 2


class TestReaching:
    def test_scenes_near_a_block_are_all_that_its_features_need(self, tmp_path: Path) -> None:
        catalog = tiny_archive.write_catalog(tmp_path, tiny_archive.write_files(tmp_path))
        archive = open_archive(StacSource(catalog=str(catalog)), "optical")
        scenes = tuple(archive.search("optical", aoi(), [SEASON], max_cloud_percent=80)[0])
        task = dataclasses.replace(
            task_of(scenes, {"optical": archive}),
            grid=GRID,
            bands=(Band("summer.B03", "reflectance", "1", "summer.optical"),),
        )
        near = open_table(write_table(tmp_path / "table", scenes)).near(GRID.window(0, 0, 16, 16))
        block = Block(0, 0, 0, 0, 16, 16)
        all_of_them = block_features(task, block)
        some = block_features(dataclasses.replace(task, scenes=near), block)
        np.testing.assert_array_equal(some.features, all_of_them.features)

    def test_a_margin_beyond_the_reach_is_a_mistake(self) -> None:
        reader = BlockReader(task_of(()), PROVINCE.window(0, 0, 8, 8))
        assert reader.read((), ["B03"], int(REACH_M / 10)) == {}
        with pytest.raises(ValueError, match="reaches farther than 10000 m"):
            reader.read((), ["B03"], int(REACH_M / 10) + 1)


class Broken:
    """An archive whose scenes cannot be read."""

    def __init__(self, error: type[SourceError] = SourceError) -> None:
        self.error, self.asked, self.well = error, 0, False

    def read(self, one: Scene, names: list[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        self.asked += 1
        if self.well:
            return {name: np.zeros(window.shape, dtype=np.float32) for name in names}
        raise self.error(f"https://x.org/{one.id}.tif?sig=SECRET cannot be read (404).", do="Wait.")


class TestLost:
    WINDOW = PROVINCE.window(0, 0, 8, 8)

    def read(self, archive: Broken, run: str) -> BlockReader:
        task = dataclasses.replace(task_of(()), archives={"optical": archive}, run=run)  # type: ignore[dict-item]
        reader = BlockReader(task, self.WINDOW)
        reader.read((scene(1, 0, 0),), ["B03", "SCL"], 0)
        return reader

    def test_a_failure_is_a_row_without_secrets(self) -> None:
        (row,) = self.read(Broken(), "one").failures
        assert row == {
            "scene": "S2_1",
            "sensor": "optical",
            "bands": "B03 SCL",
            "reason": "https://x.org/S2_1.tif cannot be read (404).",
        }

    def test_what_is_lost_for_good_is_not_asked_for_again_in_the_run(self) -> None:
        archive = Broken(UnusableFileError)
        rows = [self.read(archive, "two").failures for _ in range(3)]
        assert archive.asked == 1
        assert rows[0] == rows[1] == rows[2]
        self.read(archive, "three")
        assert archive.asked == 2
        for _ in range(2):
            self.read(archive, "")
        assert archive.asked == 4

    def test_what_may_come_back_is_asked_for_again_in_the_next_block(self) -> None:
        archive = Broken()
        for _ in range(3):
            self.read(archive, "four")
        assert archive.asked == 3

    def test_a_block_is_made_again_when_one_of_its_scenes_can_be_read(self) -> None:
        archive, scenes = Broken(), (scene(1, 0, 0),)
        before = self.read(archive, "five").failures
        task = dataclasses.replace(task_of(scenes), archives={"optical": archive}, run="six")  # type: ignore[dict-item]
        again = still_lost(task, self.WINDOW, before)
        assert again is not None
        assert list(again) == before
        archive.well = True
        assert still_lost(task, self.WINDOW, before) is None
        assert still_lost(dataclasses.replace(task, scenes=()), self.WINDOW, before) is None, (
            "it is not wanted any more"
        )


def test_blocks_that_lack_something_are_not_settled(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add([Entry("a", "done"), Entry("b", "done", detail=({"scene": "x"},)), Entry("c", "failed", "no")])
    assert ledger.settled() == {"a", "b"}
    assert ledger.settled(whole=True) == {"a"}


def _bounds(one: Scene) -> tuple[float, float, float, float]:
    ring = json.loads(json.dumps(one.item["geometry"]))["coordinates"][0]
    longitudes, latitudes = zip(*ring, strict=True)
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


def _degrees(window: Grid) -> tuple[float, float, float, float]:
    from pyproj import Transformer

    return Transformer.from_crs(window.crs, "EPSG:4326", always_xy=True).transform_bounds(*window.bounds)


def test_what_the_cube_lacks_is_part_of_what_identifies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "folder_of", lambda _: StageFolder("fetch", "abc", tmp_path))

    def identity(**manifest: object) -> str:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        return fetch.identity(None)  # type: ignore[arg-type]

    row = {"block": "b_0_1", "sensor": "optical", "scene": "S2_1", "reason": "503"}
    whole, hole = identity(failed=[], failed_reads=[]), identity(failed=[], failed_reads=[row])
    assert whole == "abc"
    assert hole.startswith("abc without ")
    assert hole == identity(failed=[], failed_reads=[{**row, "reason": "another day, another reason"}])
    assert len({whole, hole, identity(failed=["b_0_1"], failed_reads=[row])}) == 3
