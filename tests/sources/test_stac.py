"""STAC catalogues: what is found, what is decided about it, and what is read."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pytest
from affine import Affine
from pyproj import Transformer

from tests.fakes import tiny_archive
from tests.fakes.tiny_archive import GRID, LEFT, SEASON, TOP, Json, aoi
from wetmap.errors import SceneSkippedWarning, SourceError, WetmapWarning
from wetmap.geo import Grid
from wetmap.recipe import Season, Sensor, SimulatedSource, StacSource
from wetmap.sources import EXTENT, Archive, Scene, Skipped, check_bands, open_archive, signing
from wetmap.sources.stac import PLANETARY_COMPUTER, StacArchive

SENSORS: tuple[Sensor, ...] = ("optical", "radar", "terrain")


def find(catalog: object, sensor: Sensor, season: Season = SEASON) -> tuple[Archive, list[Scene], list[Skipped]]:
    archive = open_archive(StacSource(catalog=str(catalog)), sensor)
    scenes, skipped = archive.search(sensor, aoi(), [season], max_cloud_percent=80.0)
    return archive, scenes, skipped


class TestSearch:
    def test_scenes_of_the_season_in_order(self, catalog: Path) -> None:
        _, scenes, skipped = find(catalog, "optical")
        assert [scene.id for scene in scenes] == ["S2A_20210610", "S2B_20210715", "S2A_20210820"]
        assert [(row.id, row.reason) for row in skipped] == [("S2A_20210901", "95.0 % cloud, more than 80 %")]
        assert scenes[0].datetime == "2021-06-10T15:10:00.000000Z"
        assert scenes[0].seasons == ("summer",)
        assert scenes[0].bands[:2] == ("B02", "B03")
        assert not scenes[0].simulated

    @pytest.mark.parametrize("sensor", SENSORS)
    def test_api_and_static_catalogue_find_and_read_the_same(self, sensor: Sensor, catalog: Path, api: str) -> None:
        there, scenes, skipped = find(api, sensor)
        here, static_scenes, static_skipped = find(catalog, sensor)
        assert [s.id for s in scenes] == [s.id for s in static_scenes]
        assert skipped == static_skipped
        for remote, local in zip(scenes, static_scenes, strict=True):
            assert (remote.offset, remote.orbit_state, remote.datetime) == (
                local.offset,
                local.orbit_state,
                local.datetime,
            )
            names = remote.bands
            a, b = there.read(remote, names, GRID), here.read(local, names, GRID)
            assert list(a) == list(b) == list(names)
            assert all(np.array_equal(a[name], b[name], equal_nan=True) for name in names)

    def test_pages_of_a_search_are_followed(
        self, api: str, monkeypatch: pytest.MonkeyPatch, requests: Counter[str]
    ) -> None:
        monkeypatch.setattr("wetmap.sources.stac_search.PAGE", 1)
        _, scenes, _ = find(api, "optical")
        assert len(scenes) == 3
        assert requests["/search 200"] == 4

    @pytest.mark.parametrize(
        ("start", "end", "found"),
        [("2021-06-10", "2021-06-10", 1), ("2021-06-11", "2021-07-14", 0), ("2021-06-11", "2021-07-15", 1)],
    )
    def test_first_and_last_day_are_included(self, start: str, end: str, found: int, catalog: Path, api: str) -> None:
        season = Season(name="s", start=dt.date.fromisoformat(start), end=dt.date.fromisoformat(end))
        for where in (catalog, api):
            if found:
                assert len(find(where, "optical", season)[1]) == found
            else:
                with pytest.raises(SourceError, match=f"optical scenes .* cover tiny between {start} and {end}"):
                    find(where, "optical", season)

    def test_a_scene_of_two_seasons_belongs_to_both(self, catalog: Path) -> None:
        whole = Season(name="year", start=dt.date(2021, 1, 1), end=dt.date(2021, 12, 31))
        archive = open_archive(StacSource(catalog=str(catalog)), "optical")
        scenes, _ = archive.search("optical", aoi(), [SEASON, whole], max_cloud_percent=100)
        assert {scene.id: scene.seasons for scene in scenes}["S2A_20210610"] == ("summer", "year")
        assert {scene.id: scene.seasons for scene in scenes}["S2A_20211020"] == ("year",)

    def test_a_season_without_scenes_is_said(self, catalog: Path) -> None:
        winter = Season(name="winter", start=dt.date(2021, 1, 1), end=dt.date(2021, 2, 1))
        archive = open_archive(StacSource(catalog=str(catalog)), "radar")
        with pytest.warns(WetmapWarning, match="No radar scene covers tiny in season winter"):
            archive.search("radar", aoi(), [SEASON, winter], max_cloud_percent=100)

    def test_scenes_elsewhere_are_not_returned(self, tmp_path: Path, items: list[Json], archive_folder: Path) -> None:
        moved = tiny_archive.link_to(items, str(archive_folder))
        away = next(one for one in moved if one["id"] == "S2A_20210610")
        away["geometry"] = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
        scenes = StacArchiveOf(tmp_path, moved).optical()
        assert "S2A_20210610" not in [scene.id for scene in scenes]
        assert len(scenes) == 2


class StacArchiveOf:
    """A static catalogue of changed items."""

    def __init__(self, folder: Path, items: list[Json]) -> None:
        self.path = folder / "stac" / "catalog.json"
        root = pystac.Catalog("changed", "changed items")
        members = {body["id"]: pystac.Collection.from_dict(body) for body in tiny_archive.collections(items)}
        for one in items:
            members[one["collection"]].add_item(pystac.Item.from_dict(one))
        root.add_children(members.values())
        root.normalize_and_save(str(folder / "stac"), pystac.CatalogType.SELF_CONTAINED)

    def optical(self) -> list[Scene]:
        return find(self.path, "optical")[1]


class TestLeftOut:
    def skipped(
        self, tmp_path: Path, items: list[Json], folder: Path, item_id: str, change: str
    ) -> tuple[Skipped, str]:
        changed = tiny_archive.link_to(items, str(folder))
        one = next(item for item in changed if item["id"] == item_id)
        changes: dict[str, Callable[[], object]] = {
            "no orbit": lambda: one["properties"].pop("sat:orbit_state"),
            "extra wide": lambda: one["properties"].update({"sar:instrument_mode": "EW"}),
            "no asset": lambda: one.update(assets={}),
            "no classes": lambda: one["assets"].pop("SCL"),
            "no baseline": lambda: one["properties"].pop("s2:processing_baseline"),
        }
        changes[change]()
        sensor: Sensor = "radar" if item_id.startswith("S1") else "optical"
        with pytest.warns(SceneSkippedWarning, match=item_id) as caught:
            _, scenes, skipped = find(StacArchiveOf(tmp_path, changed).path, sensor)
        assert item_id not in [scene.id for scene in scenes]
        return next(row for row in skipped if row.id == item_id), str(caught[0].message)

    @pytest.mark.parametrize(
        ("item_id", "change", "reason"),
        [
            ("S1A_2021-06-15_descending_0", "no orbit", "orbit state"),
            ("S1A_2021-06-15_descending_0", "extra wide", "mode is EW"),
            ("S1A_2021-06-15_descending_0", "no asset", "no asset for any of VV, VH"),
            ("S2A_20210610", "no classes", "no scene classification"),
            ("S2A_20210610", "no baseline", "processing baseline"),
        ],
    )
    def test_item_is_left_out_with_its_reason(
        self, item_id: str, change: str, reason: str, tmp_path: Path, items: list[Json], archive_folder: Path
    ) -> None:
        row, warned = self.skipped(tmp_path, items, archive_folder, item_id, change)
        assert reason in row.reason
        assert row.reason in warned

    def test_all_left_out_is_an_error_that_says_why(
        self, tmp_path: Path, items: list[Json], archive_folder: Path
    ) -> None:
        changed = tiny_archive.link_to(items, str(archive_folder))
        for one in changed:
            one["properties"]["eo:cloud_cover"] = 99.0
        with pytest.raises(SourceError, match=r"4 were left out, .*99.0 % cloud.* Widen the season's dates"):
            find(StacArchiveOf(tmp_path, changed).path, "optical")


class TestRead:
    def test_stored_counts_come_back_exactly(self, catalog: Path, archive_folder: Path) -> None:
        import rasterio

        archive, scenes, _ = find(catalog, "optical")
        for scene in scenes:
            band = archive.read(scene, ["B03"], GRID)["B03"]
            with rasterio.open(archive_folder / scene.id / "B03.tif") as dataset:
                stored = dataset.read(1)[12 : 12 + 61, 10 : 10 + 57].astype(np.float64)
            expected = np.where(stored == 0, np.nan, stored * 1e-4 + scene.offset).astype(np.float32)
            np.testing.assert_array_equal(band, expected)

    def test_offsets_make_the_scenes_agree_and_negatives_stay(self, catalog: Path) -> None:
        archive, scenes, _ = find(catalog, "optical")
        assert [scene.offset for scene in scenes] == [-0.1, 0.0, -0.1]
        pond = Grid(GRID.crs, 10.0, LEFT + 420, TOP - 220, 6, 6)
        means = [float(np.nanmean(archive.read(scene, ["B02"], pond)["B02"])) for scene in scenes]
        # Baseline 03.01 cannot store what is below zero: it holds 1 count there. The others keep -0.004.
        assert means[0] == pytest.approx(-0.004, abs=0.001)
        assert means[2] == pytest.approx(-0.004, abs=0.001)
        assert 0 < means[1] < 0.001
        assert not np.isnan(archive.read(scenes[0], ["B02"], pond)["B02"]).any()

    def test_no_data_and_swath_edge_are_nan_and_do_not_bleed(self, catalog: Path) -> None:
        archive, scenes, _ = find(catalog, "optical")
        bands = archive.read(scenes[1], ["B02", "B11", "SCL"], GRID)
        gap = np.zeros(GRID.shape, dtype=bool)
        gap[:, 4:24] = True
        for band in bands.values():
            np.testing.assert_array_equal(np.isnan(band), gap)
        assert bands["B11"][:, [3, 24]].min() > 0.15  # beside the gap, where bilinear would have mixed in zeros

    def test_window_outside_the_scene_is_nan(self, catalog: Path) -> None:
        archive, scenes, _ = find(catalog, "optical")
        for distance in (-3000.0, 100_000.0):
            window = Grid(GRID.crs, 10.0, LEFT + distance, TOP, 8, 8)
            assert np.isnan(archive.read(scenes[0], ["B02"], window)["B02"]).all()

    def test_extent_is_where_the_files_have_a_pixel(self, catalog: Path) -> None:
        archive, scenes, _ = find(catalog, "radar")
        window = Grid(GRID.crs, 10.0, LEFT - 30, TOP - 100, 4, 20)
        for scene in scenes[2:]:  # those that are not cut
            extent = archive.read(scene, [EXTENT], window)[EXTENT]
            np.testing.assert_array_equal(np.isfinite(extent[0]), np.arange(20) >= 3)

    def test_radar_is_linear_power_and_never_zero_or_less(self, catalog: Path) -> None:
        archive, scenes, _ = find(catalog, "radar")
        descending = next(scene for scene in scenes if scene.orbit_state == "descending")
        power = archive.read(descending, ["VV", "VH"], GRID)
        assert np.isnan(power["VV"][:, :2]).all()
        assert np.isnan(power["VV"][50 - 12, 50 - 10])
        assert float(np.nanmin(power["VV"])) > 0
        assert float(np.nanmedian(power["VV"])) == pytest.approx(0.093, abs=0.01)

    def test_bands_that_a_scene_lacks_are_left_out(self, catalog: Path) -> None:
        archive, scenes, _ = find(catalog, "radar")
        assert list(archive.read(scenes[0], ["HH", "VV"], GRID)) == ["VV"]

    @pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # odc-geo 0.5.3 with affine 3.1
    @pytest.mark.filterwarnings(
        "ignore:The 'shapely.ops.transform:DeprecationWarning"
    )  # odc-geo 0.5.3 with shapely 2.2
    def test_agrees_with_odc_stac(self, items: list[Json], archive_folder: Path, catalog: Path) -> None:
        """An independent reader: equal on the bands' own lattice, close where both resample."""
        archive, scenes, _ = find(catalog, "optical")
        linked = tiny_archive.link_to(items, str(archive_folder))
        item = pystac.Item.from_dict(next(one for one in linked if one["id"] == scenes[0].id))
        loaded = odc.stac.load(
            [item],
            bands=["B04", "B12", "SCL"],
            geobox=GRID.geobox,
            resampling={"*": "bilinear", "SCL": "nearest"},
            dtype="float32",
            nodata=0,
        )
        mine = archive.read(scenes[0], ["B04", "B12", "SCL"], GRID)
        np.testing.assert_array_equal(mine["SCL"], loaded["SCL"].values[0])
        np.testing.assert_allclose(mine["B04"], loaded["B04"].values[0] * 1e-4 - 0.1, atol=1e-7)
        np.testing.assert_allclose(mine["B12"], loaded["B12"].values[0] * 1e-4 - 0.1, atol=1e-6)


class TestTravel:
    def test_scene_survives_json_and_archive_survives_pickling(self, catalog: Path) -> None:
        archive, scenes, skipped = find(catalog, "optical")
        again = [Scene.from_json(json.loads(json.dumps(scene.to_json()))) for scene in scenes]
        assert again == scenes
        assert [Skipped.from_json(json.loads(json.dumps(row.to_json()))) for row in skipped] == skipped
        assert pickle.loads(pickle.dumps(archive)) == archive  # noqa: S301 - made here
        assert len(pickle.dumps(archive)) < 1000

    def test_preset_names_planetary_computer(self) -> None:
        archive = StacArchive.of(StacSource(), "radar")
        assert (archive.catalog, archive.collection) == (PLANETARY_COMPUTER, "sentinel-1-rtc")

    def test_check_bands_names_what_nobody_holds(self, catalog: Path) -> None:
        _, scenes, _ = find(catalog, "radar")
        check_bands(scenes, "radar", ["VV"])
        with pytest.raises(SourceError, match="No radar scene holds HH; the scenes hold VH, VV"):
            check_bands(scenes, "radar", ["VV", "HH"])


class TestTrouble:
    def test_unreachable_api_is_said_with_its_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wetmap.sources.stac_search.FIRST_WAIT", 0.0)
        with (
            pytest.warns(WetmapWarning, match=r"127.0.0.1:9: no answer yet \(the connection fails\), trying again"),
            pytest.raises(SourceError, match=r"http://127.0.0.1:9 cannot be searched .* Check the URL and the network"),
        ):
            find("http://127.0.0.1:9", "optical")

    def test_url_that_is_no_stac_api(self, api: str) -> None:
        with pytest.raises(SourceError, match="cannot be searched"):
            find(f"{api}/files/dem/dem.tif", "optical")

    def test_missing_catalogue(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="does not exist"):
            find(tmp_path / "catalog.json", "optical")

    def test_catalogue_that_is_not_one(self, tmp_path: Path) -> None:
        (tmp_path / "catalog.json").write_text("{")
        with pytest.raises(SourceError, match="cannot be read"):
            find(tmp_path / "catalog.json", "optical")

    def test_missing_collection_names_those_there_are(self, catalog: Path) -> None:
        archive = open_archive(StacSource(catalog=str(catalog), collection="sentinel-9"), "optical")
        with pytest.raises(
            SourceError, match="no collection sentinel-9; it has cop-dem-glo-30, sentinel-1-rtc, sentinel-2-l2a"
        ):
            archive.search("optical", aoi(), [SEASON], max_cloud_percent=80)

    def test_missing_file_is_said_without_the_secrets_of_its_link(self, api: str) -> None:
        archive, scenes, _ = find(api, "terrain")
        broken = Scene.from_json(json.loads(json.dumps(scenes[0].to_json())))
        broken.item["assets"]["elevation"]["href"] = f"{api}/files/dem/none.tif?sig=SECRET"
        with pytest.raises(SourceError, match=r"files/dem/none.tif cannot be read") as caught:
            archive.read(broken, ["elevation"], GRID)
        assert "SECRET" not in str(caught.value)

    def test_simulated_source_needs_its_archive(self, catalog: Path) -> None:
        with pytest.raises(SourceError, match="no simulated archive"):
            open_archive(SimulatedSource(), "optical")
        archive = open_archive(SimulatedSource(), "optical", simulated_catalog=catalog)
        scenes, _ = archive.search("optical", aoi(), [SEASON], max_cloud_percent=80)
        assert all(scene.simulated for scene in scenes)


def test_links_are_signed_when_they_are_read_and_never_before(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, scenes, _ = find(api, "terrain")
    archive = StacArchive(PLANETARY_COMPUTER, "cop-dem-glo-30")
    asked: list[str] = []

    class Watching:
        def sign(self, href: str) -> str:
            asked.append(href)
            return f"{href}?sig=SECRET"

        def renew(self, href: str) -> None:
            raise AssertionError(href)

    monkeypatch.setitem(signing.SIGNERS, "planetary-computer", Watching())
    for _ in range(2):
        archive.read(scenes[0], ["elevation"], GRID)
    href = scenes[0].item["assets"]["elevation"]["href"]
    assert asked == [href, href]
    assert "SECRET" not in json.dumps(scenes[0].to_json())


def test_an_items_own_transform_is_not_believed(catalog: Path) -> None:
    """Some archives give a stale one: pixels lie where their file says, on the grid that the map says."""
    archive, scenes, _ = find(catalog, "optical")
    stale = Scene.from_json(json.loads(json.dumps(scenes[0].to_json())))
    for asset in stale.item["assets"].values():
        asset |= {"proj:transform": [10, 0, LEFT + 500, 0, -10, TOP - 500], "proj:epsg": 32620}
    there, here = archive.read(stale, ["B04"], GRID), archive.read(scenes[0], ["B04"], GRID)
    np.testing.assert_array_equal(there["B04"], here["B04"])


def test_a_scene_of_the_next_zone_lands_on_the_one_grid(
    tmp_path: Path, archive_folder: Path, items: list[Json]
) -> None:
    """A file in zone 20 whose counts say where on zone 19's map each pixel lies: read back, they say so."""
    changed = tiny_archive.link_to(items, str(archive_folder))
    to_20 = Transformer.from_crs(GRID.crs, "EPSG:32620", always_xy=True)
    left, bottom, right, top = to_20.transform_bounds(LEFT, TOP - 840, LEFT + 840, TOP)
    transform = Affine(10, 0, np.floor(left / 10) * 10, 0, -10, np.ceil(top / 10) * 10)
    height, width = int((top - bottom) / 10) + 2, int((right - left) / 10) + 2
    x, y = np.meshgrid(transform.c + 10 * (np.arange(width) + 0.5), transform.f - 10 * (np.arange(height) + 0.5))
    east, north = to_20.transform(x, y, direction="INVERSE")
    names = {"B04": east - LEFT + 2000, "B08": TOP - north + 2000}
    for name, metres in names.items():
        path = tiny_archive.write_raster(
            tmp_path / f"{name}.tif", np.rint(metres).astype(np.uint16), transform, crs="EPSG:32620"
        )
        next(one for one in changed if one["id"] == "S2A_20210610")["assets"][name]["href"] = str(path)
    archive, scenes, _ = find(StacArchiveOf(tmp_path, changed).path, "optical")
    read = archive.read(next(scene for scene in scenes if scene.id == "S2A_20210610"), list(names), GRID)
    across, down = np.meshgrid(GRID.x - LEFT + 2000, TOP - GRID.y + 2000)
    np.testing.assert_allclose((read["B04"] + 0.1) * 1e4, across, atol=0.8)  # metres; counts are rounded
    np.testing.assert_allclose((read["B08"] + 0.1) * 1e4, down, atol=0.8)


def test_a_reason_that_many_items_share_is_said_once(tmp_path: Path, items: list[Json], archive_folder: Path) -> None:
    changed = tiny_archive.link_to(items, str(archive_folder))
    for one in changed:
        one["properties"].pop("s2:processing_baseline", None)
    with pytest.warns(SceneSkippedWarning) as caught, pytest.raises(SourceError, match="4 were left out"):
        find(StacArchiveOf(tmp_path, changed).path, "optical")
    assert [str(one.message) for one in caught] == [
        "4 optical scenes are not used, the first is S2A_20210610: neither its bands' offset nor its processing "
        "baseline is given."
    ]


def test_a_product_that_was_processed_again_is_left_out(
    tmp_path: Path, items: list[Json], archive_folder: Path
) -> None:
    changed = tiny_archive.link_to(items, str(archive_folder))
    old = next(one for one in changed if one["id"] == "S2A_20210610")
    old["properties"] |= {"s2:datatake_id": "GS2A_20210610T151000_000001_N05.00", "grid:code": "MGRS-19TGK"}
    new = json.loads(json.dumps(old)) | {"id": "S2A_20210610_again"}
    new["properties"] |= {"s2:processing_baseline": "05.10", "eo:cloud_cover": 99.0}
    _, scenes, skipped = find(StacArchiveOf(tmp_path, [*changed, new]).path, "optical")
    assert "S2A_20210610" not in [scene.id for scene in scenes]
    reasons = {row.id: row.reason for row in skipped}
    assert "S2A_20210610_again is newer (baseline 05.10" in reasons["S2A_20210610"]
    assert "99.0 % cloud" in reasons["S2A_20210610_again"], "the newer one's clouds count"
