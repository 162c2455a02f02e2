"""Downloaded files read the same as the archive that they came from; what cannot be used is named."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.conftest import SHARED
from tests.fakes import tiny_archive
from tests.fakes.downloads import download, product_xml, safe_name, write_rtc, write_safe, zipped
from tests.fakes.tiny_archive import GRID, LEFT, SEASON, TOP, Json, aoi, write_raster
from wetmap.errors import SceneSkippedWarning, SourceError, WetmapWarning
from wetmap.recipe import FilesSource, Sensor, StacSource
from wetmap.sources import EXTENT, Archive, Scene, open_archive
from wetmap.sources.files import Found, items_of
from wetmap.sources.folders import stamps_of

REAL = SHARED / "data/safe_metadata"
HYP3 = "S1A_IW_20210612T223000_DVP_RTC10_G_g{}uned_1A2B_{}.tif"
POWER = np.full((84, 84), 0.05, dtype=np.float32)


def source(folder: Path, **more: Any) -> FilesSource:
    return FilesSource.model_validate({"folder": folder, **more})


def searched(archive: Archive, sensor: Sensor) -> list[Scene]:
    return archive.search(sensor, aoi(), [SEASON], max_cloud_percent=80)[0]


def quietly(folder: Path, sensor: Sensor, **more: Any) -> Found:
    """What is found, without the warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WetmapWarning)
        return items_of(source(folder, **more), sensor)


def reasons(found: Found) -> dict[str, str]:
    return {row.id: row.reason for row in found.skipped}


def radar_file(folder: Path, name: str, values: Any = POWER, **more: Any) -> Path:
    return write_raster(folder / name, np.asarray(values), Affine(10, 0, LEFT, 0, -10, TOP), **more)


@pytest.fixture(scope="session")
def optical_item(items: list[Json]) -> Json:
    return next(item for item in items if item["id"] == "S2A_20210610")


@pytest.fixture(scope="session")
def downloads(archive_folder: Path, items: list[Json], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny archive as SAFE folders and as zips, with the radar beside."""
    root = tmp_path_factory.mktemp("downloads")
    return {
        "folders": download(root / "folders", archive_folder, items),
        "zips": download(root / "zips" / "some where", archive_folder, items, zips=True).parent,
    }


@pytest.fixture
def product(tmp_path: Path, archive_folder: Path, optical_item: Json) -> Path:
    """One SAFE folder, alone in ``tmp_path / "d"``."""
    return write_safe(tmp_path / "d", archive_folder, optical_item)


class TestTheSameAsTheArchive:
    @pytest.mark.parametrize("kind", ["folders", "zips"])
    @pytest.mark.parametrize("sensor", ["optical", "radar"])
    def test_every_band_has_the_same_bits(
        self, downloads: dict[str, Path], catalog: Path, kind: str, sensor: Sensor
    ) -> None:
        ours = open_archive(source(downloads[kind]), sensor)
        theirs = open_archive(StacSource(catalog=str(catalog)), sensor)
        ours = pickle.loads(pickle.dumps(ours))  # noqa: S301 - what a worker gets
        mine, scenes = searched(ours, sensor), searched(theirs, sensor)
        assert len(mine) == len(scenes) > 2
        for one, other in zip(mine, scenes, strict=True):
            assert (one.datetime[:19], one.orbit_state, one.platform) == (
                other.datetime[:19],
                other.orbit_state,
                other.platform,
            )
            assert set(one.bands) == set(other.bands)
            names = [*one.bands, EXTENT]
            got, expected = ours.read(one, names, GRID), theirs.read(other, names, GRID)
            for name in names:
                np.testing.assert_array_equal(got[name], expected[name], err_msg=f"{one.id} {name}")
                assert kind == "folders" or np.isfinite(got[name]).any()

    def test_the_offset_is_decided_by_the_products_own_metadata(self, downloads: dict[str, Path]) -> None:
        scenes = searched(open_archive(source(downloads["folders"]), "optical"), "optical")
        assert [(scene.offset, scene.datetime[:10]) for scene in scenes] == [
            (-0.1, "2021-06-10"),
            (0.0, "2021-07-15"),
            (-0.1, "2021-08-20"),
        ]
        assert "BOA_ADD_OFFSET -1000" in scenes[0].offset_rule
        assert "no BOA_ADD_OFFSET" in scenes[1].offset_rule
        assert scenes[0].relative_orbit == 11
        assert scenes[0].cloud_percent == 20.0

    def test_clouds_and_dates_are_the_searchs_business(self, downloads: dict[str, Path]) -> None:
        archive = open_archive(source(downloads["folders"]), "optical")
        scenes, skipped = archive.search("optical", aoi(), [SEASON], max_cloud_percent=80)
        assert [row.reason[:14] for row in skipped] == ["95.0 % cloud, "]
        assert all(scene.seasons == ("summer",) for scene in scenes)

    def test_a_zip_is_read_in_place(self, downloads: dict[str, Path]) -> None:
        before = sorted(downloads["zips"].rglob("*"))
        found = quietly(downloads["zips"], "optical")
        assert all("/vsizip/" in item["assets"]["B02"]["href"] for item in found.items.values())
        assert sorted(downloads["zips"].rglob("*")) == before


class TestOptical:
    def test_a_single_product_as_the_folder_itself(self, product: Path) -> None:
        found = items_of(source(product), "optical")
        assert list(found.items) == [product.stem]
        assert found.skipped == []

    def test_a_renamed_folder_is_known_by_its_metadata(self, product: Path) -> None:
        product.rename(product.with_name("my summer"))
        assert list(items_of(source(product.parent), "optical").items) == [product.stem]

    def test_a_missing_band_leaves_the_product_out(self, product: Path) -> None:
        next(product.rglob("*_B11_20m.jp2")).unlink()
        with pytest.warns(SceneSkippedWarning, match="B11 are missing"):
            found = items_of(source(product.parent), "optical")
        assert found.items == {}
        assert "download it again" in reasons(found)[product.name]
        with pytest.warns(SceneSkippedWarning), pytest.raises(SourceError, match="no Sentinel-2 L2A products"):
            searched(open_archive(source(product.parent), "optical"), "optical")

    def test_a_file_that_is_no_image_leaves_the_product_out(self, product: Path) -> None:
        """A VRT, say, which GDAL would follow to any file or address."""
        next(product.rglob("*_B08_10m.jp2")).write_text("<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>")
        assert "B08 are no JPEG 2000" in reasons(quietly(product.parent, "optical"))[product.name]

    def test_level_1c_is_refused_with_advice(self, product: Path) -> None:
        (product / "MTD_MSIL2A.xml").rename(product / "MTD_MSIL1C.xml")
        found = quietly(product.parent, "optical")
        assert "Sen2Cor" in reasons(found)[product.name]
        other = product.parent / "S2A_MSIL1C_20210610T151000_N0500_R011_T19TGK_20210610T170000.SAFE"
        other.mkdir()
        (other / "manifest.safe").write_text("")
        assert "Level-1C" in reasons(quietly(product.parent, "optical"))[other.name]

    def test_no_metadata_no_granule_two_granules(self, product: Path) -> None:
        granule = next(product.glob("GRANULE/*"))
        text = (granule / "MTD_TL.xml").read_text()
        (granule.parent / "second").mkdir()
        (granule.parent / "second" / "MTD_TL.xml").write_text(text)
        assert "2 granules" in reasons(quietly(product.parent, "optical"))[product.name]
        for path in product.rglob("MTD_TL.xml"):
            path.unlink()
        assert "0 granules" in reasons(quietly(product.parent, "optical"))[product.name]
        (product / "MTD_MSIL2A.xml").unlink()
        assert "no MTD_MSIL2A.xml" in reasons(quietly(product.parent, "optical"))[product.name]

    def test_a_product_twice_counts_once(self, product: Path, tmp_path: Path) -> None:
        archive = tmp_path / "d" / "a.zip"
        with zipfile.ZipFile(archive, "w") as made:
            for file in product.rglob("*"):
                made.write(file, file.relative_to(product.parent).as_posix())
        found = quietly(product.parent, "optical")
        assert len(found.items) == 1
        assert [row.reason for row in found.skipped] == [f"{product.stem} is there twice"]

    def test_an_xml_bomb_leaves_the_product_out(self, product: Path) -> None:
        text = product_xml("x", time="2021-06-10T15:10:00Z", baseline="05.00")
        bomb = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
        (product / "MTD_MSIL2A.xml").write_text(text.replace("?>", f"?>{bomb}", 1).replace("Level-2A<", "&b;<"))
        assert "document type" in reasons(quietly(product.parent, "optical"))[product.name]

    def test_an_outline_that_is_missing_is_the_tiles(self, product: Path) -> None:
        text = (product / "MTD_MSIL2A.xml").read_text()
        (product / "MTD_MSIL2A.xml").write_text(text.replace("EXT_POS_LIST", "OTHER"))
        (item,) = items_of(source(product), "optical").items.values()
        (whole,) = tiny_archive.lonlat(LEFT, TOP - 840, LEFT + 840, TOP).bounds[:1]
        longitudes = [point[0] for point in item["geometry"]["coordinates"][0]]
        assert min(longitudes) == pytest.approx(whole, abs=1e-4)

    @pytest.mark.real
    @pytest.mark.skipif(not REAL.is_dir(), reason="the real metadata are not beside the checkout")
    def test_real_products_whose_images_are_missing_are_named(self) -> None:
        found = quietly(REAL, "optical")
        assert found.items == {}
        assert [row.id[:19] for row in found.skipped] == ["S2A_MSIL2A_20190212", "S2A_MSIL2A_20230821"]
        assert all("B02, B03, B04, B08, B05" in row.reason for row in found.skipped)


class TestHarm:
    def test_a_link_out_of_the_folder_is_not_followed(self, product: Path, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        product.rename(secret)
        (tmp_path / "d" / product.name).symlink_to(secret)
        found = quietly(tmp_path / "d", "optical")
        assert found.items == {}
        assert "leads out of the folder" in reasons(found)[product.name]
        assert stamps_of(tmp_path / "d") == {}

    def test_a_band_that_is_a_link_out_is_missing(self, product: Path, tmp_path: Path) -> None:
        band = next(product.rglob("*_B04_10m.jp2"))
        band.rename(tmp_path / "elsewhere.jp2")
        band.symlink_to(tmp_path / "elsewhere.jp2")
        found = quietly(product.parent, "optical")
        assert found.items == {}
        assert any("B04 are missing" in reason for reason in reasons(found).values())

    def test_links_inside_and_the_folder_as_a_link_are_fine(self, product: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "d")
        (tmp_path / "d" / "again").symlink_to(product)
        (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
        found = items_of(source(tmp_path / "link"), "optical")
        assert list(found.items) == [product.stem]
        assert found.skipped == []

    @pytest.mark.parametrize("name", ["../evil.tif", "/evil.tif", "a/../../evil.tif", "..\\evil.tif", "C:/evil.tif"])
    def test_a_zip_whose_names_lead_out_is_refused(self, product: Path, name: str) -> None:
        path = zipped(product)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(name), "x")
        found = quietly(path.parent, "optical")
        assert found.items == {}
        assert "leads out of it" in reasons(found)[path.name]

    def test_zips_that_are_cut_encrypted_or_double_are_refused(self, product: Path) -> None:
        path = zipped(product)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert "no whole zip" in reasons(quietly(path.parent, "optical"))[path.name]
        path.write_bytes(whole)
        with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(archive.namelist()[-1], "x")
        assert "two members" in reasons(quietly(path.parent, "optical"))[path.name]
        flagged = bytearray(whole)
        at = flagged.rindex(b"PK\x01\x02")
        flagged[at + 8] |= 1
        path.write_bytes(bytes(flagged))
        assert "encrypted" in reasons(quietly(path.parent, "optical"))[path.name]

    def test_a_damaged_member_leaves_the_product_out(self, product: Path) -> None:
        path = zipped(product)
        data = bytearray(path.read_bytes())
        at = data.index(b"MTD_MSIL2A.xml") + 30
        data[at : at + 60] = bytes(60)
        path.write_bytes(bytes(data))
        found = quietly(path.parent, "optical")
        assert found.items == {}
        assert len(found.skipped) == 1

    def test_a_folder_that_cannot_be_listed_is_named(self, product: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (product.parent / "closed").mkdir()
        listed = os.scandir

        def refused(folder: Any) -> Any:  # as for anybody but root, who may list everything
            if Path(folder).name == "closed":
                raise PermissionError(13, "Permission denied", str(folder))
            return listed(folder)

        monkeypatch.setattr(os, "scandir", refused)
        assert "cannot be listed" in reasons(quietly(product.parent, "optical"))["closed"]


class TestRadar:
    @pytest.mark.parametrize(("letter", "stored"), [("p", POWER), ("a", np.sqrt(POWER)), ("d", 10 * np.log10(POWER))])
    def test_every_scale_becomes_power_before_anything_else(self, tmp_path: Path, letter: str, stored: Any) -> None:
        """Half the file is another value: on a grid that lies between its pixels the mean is taken in power."""
        values = np.array(stored)
        values[:, 42:] = {"p": 0.005, "a": np.sqrt(0.005), "d": 10 * np.log10(0.005)}[letter]
        transform = Affine(10, 0, LEFT + 5, 0, -10, TOP)
        for pol in ("VV", "VH"):
            write_raster(tmp_path / HYP3.format(letter, pol), values.astype(np.float32), transform)
        archive = open_archive(source(tmp_path), "radar")
        (scene,) = searched(archive, "radar")
        assert scene.bands == ("VV", "VH")
        assert scene.orbit_state == "ascending"
        assert "by the local time" in scene.offset_rule
        row = archive.read(scene, ["VV"], GRID)["VV"][30]
        np.testing.assert_allclose(row[[0, 32, 50]], [0.05, (0.05 + 0.005) / 2, 0.005], rtol=1e-5)

    def test_no_data_is_the_files_own(self, tmp_path: Path) -> None:
        values = np.array(10 * np.log10(POWER))
        values[20:24, 20:24] = 0.0
        radar_file(tmp_path, HYP3.format("d", "VV"), values, nodata=0.0)
        archive = open_archive(source(tmp_path), "radar")
        (scene,) = searched(archive, "radar")
        got = archive.read(scene, ["VV"], GRID)["VV"]
        assert np.isnan(got).sum() == 16

    def test_names_that_say_too_little_need_the_recipe(self, tmp_path: Path) -> None:
        radar_file(tmp_path, "s1_20210612_VV.tif", 10 * np.log10(POWER))
        assert "from: rasters" in reasons(quietly(tmp_path, "radar"))["s1_20210612_VV.tif"]
        found = quietly(tmp_path, "radar", stored="decibel")
        assert "in which direction" in reasons(found)["s1_20210612_VV.tif"]
        (item,) = items_of(source(tmp_path, stored="decibel", orbit_state="descending"), "radar").items.values()
        assert item["properties"]["sat:orbit_state"] == "descending"
        assert "as the recipe says" in item["properties"]["wetmap:offset_rule"]

    def test_a_scale_that_cannot_be_is_refused(self, tmp_path: Path) -> None:
        radar_file(tmp_path, "S1A_20210612T223000_VV.tif", 10 * np.log10(POWER))
        found = quietly(tmp_path, "radar", stored="power")
        assert "the scale is another" in reasons(found)["S1A_20210612T223000_VV.tif"]

    def test_the_name_goes_before_the_recipe(self, tmp_path: Path) -> None:
        radar_file(tmp_path, "S1A__IW___A_20210612T223000_VV_gamma0-rtc.tif")
        (item,) = items_of(source(tmp_path, stored="decibel", orbit_state="descending"), "radar").items.values()
        assert item["assets"]["vv"]["wetmap:stored"] == "power"
        assert item["properties"]["sat:orbit_state"] == "ascending"

    def test_ground_range_products_are_refused_with_ways_out(self, tmp_path: Path) -> None:
        safe = tmp_path / "S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13_6FF8.SAFE"
        (safe / "measurement").mkdir(parents=True)
        (safe / "measurement/s1a-iw-grd-vv-20210809t173953-20210809t174018-039156-049f13-001.tiff").write_bytes(
            b"II*\0"
        )
        with pytest.warns(SceneSkippedWarning, match="GRD data without terrain correction"):
            found = items_of(source(tmp_path), "radar")
        assert all(word in reasons(found)[safe.name] for word in ("HyP3", "pyroSAR", "SNAP", "sentinel-1-rtc"))
        zipped(safe)
        assert next(iter(reasons(quietly(tmp_path, "radar")))).endswith(".SAFE")
        with pytest.warns(SceneSkippedWarning), pytest.raises(SourceError, match="GRD data without terrain"):
            searched(open_archive(source(tmp_path), "radar"), "radar")

    def test_files_without_a_place_or_with_two_bands(self, tmp_path: Path) -> None:
        path = tmp_path / HYP3.format("p", "VV")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path, "w", driver="GTiff", count=1, height=9, width=9, dtype="float32") as dataset:
                dataset.write(POWER[:9, :9], 1)
        assert "not terrain-corrected" in reasons(quietly(tmp_path, "radar"))[path.name]
        radar_file(tmp_path, path.name, np.stack([POWER, POWER]))
        assert "2 bands" in reasons(quietly(tmp_path, "radar"))[path.name]
        path.write_text("<VRTDataset/>")
        assert "no TIFF" in reasons(quietly(tmp_path, "radar"))[path.name]

    def test_a_water_mask_is_told(self, tmp_path: Path) -> None:
        radar_file(tmp_path, HYP3.format("p", "VV").replace("gpuned", "gpwned"))
        with pytest.warns(WetmapWarning, match="open water will not be observed"):
            items_of(source(tmp_path), "radar")

    def test_a_hyp3_zip_with_its_files_beside(self, tmp_path: Path) -> None:
        folder = tmp_path / "S1A_IW_20210612T223000_DVP_RTC10_G_gpuned_1A2B"
        for pol in ("VV", "VH"):
            radar_file(folder, HYP3.format("p", pol))
        radar_file(folder, f"{folder.name}_ls_map.tif")
        (folder / f"{folder.name}.README.md.txt").write_text("hello")
        path = zipped(folder)
        found = items_of(source(tmp_path), "radar")
        assert list(found.items) == [folder.name]
        assert found.skipped == []
        archive = open_archive(source(tmp_path), "radar")
        (scene,) = searched(archive, "radar")
        assert path.name in scene.item["assets"]["VV"]["href"]
        assert (archive.read(scene, ["VV"], GRID)["VV"] == np.float32(0.05)).all()

    @pytest.mark.real
    @pytest.mark.skipif(not REAL.is_dir(), reason="the real file is not beside the checkout")
    def test_the_real_pyrosar_file(self) -> None:
        found = quietly(REAL, "radar")
        (item,) = found.items.values()
        assert item["properties"]["sat:orbit_state"] == "ascending"
        assert item["properties"]["datetime"] == "2015-03-09T17:30:17Z"
        assert item["assets"]["vv"]["wetmap:stored"] == "decibel"
        assert any("GRD data" in reason for reason in reasons(found).values())
        archive = open_archive(source(REAL), "radar")
        path = REAL / "S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif"
        with rasterio.open(path) as dataset:
            stored = dataset.read(1)
        scene = Scene("x", "radar", "", bands=("VV",), item={**item, "assets": {"VV": item["assets"]["vv"]}})
        window = tiny_archive.Grid("EPSG:32631", 20.0, 620048.241204 + 20 * 50, 4830114.70107 - 20 * 40, 60, 70)
        got = archive.read(scene, ["VV"], window)["VV"]
        np.testing.assert_allclose(10 * np.log10(got), stored[40:100, 50:120], atol=1e-4)


class TestFolder:
    def test_what_is_not_understood_is_counted_and_named(self, product: Path) -> None:
        for number in range(7):
            (product.parent / f"notes{number}.docx").write_text("x")
        with pytest.warns(WetmapWarning, match="7 files are not understood in .*notes0.docx.* and 2 more"):
            found = items_of(source(product.parent), "optical")
        assert len(found.items) == 1
        assert sorted(reasons(found)) == [f"notes{number}.docx" for number in range(7)]

    def test_the_other_sensors_files_are_no_strangers(self, downloads: dict[str, Path]) -> None:
        for sensor in ("optical", "radar"):
            assert items_of(source(downloads["folders"]), sensor).skipped == []  # type: ignore[arg-type]

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="does not exist"):
            items_of(source(tmp_path / "none"), "optical")
        assert stamps_of(tmp_path / "none") == {}

    @pytest.mark.parametrize("sensor", ["terrain", "lband"])
    def test_other_sensors_are_refused_with_advice(self, tmp_path: Path, sensor: Sensor) -> None:
        with pytest.raises(SourceError, match="from: rasters"):
            open_archive(source(tmp_path), sensor)

    def test_a_changed_file_is_another_folder(self, product: Path) -> None:
        before = stamps_of(product.parent)
        assert stamps_of(product.parent) == before
        band = next(product.rglob("*_B04_10m.jp2"))
        os.utime(band, ns=(1, 1))
        after = stamps_of(product.parent)
        assert list(after) == list(before) == [product.name]
        assert after != before
        assert before[product.name].startswith("13 files, "), "what is never read does not count"

    def test_names_of_the_products(self, product: Path, optical_item: Json) -> None:
        assert safe_name(optical_item) == product.stem


def test_radar_and_optical_in_one_folder(tmp_path: Path, archive_folder: Path, items: list[Json]) -> None:
    for item in items[:1]:
        write_safe(tmp_path, archive_folder, item)
    write_rtc(tmp_path, archive_folder, next(item for item in items if item["collection"] == "sentinel-1-rtc"))
    assert len(items_of(source(tmp_path), "optical").items) == 1
    assert len(items_of(source(tmp_path), "radar").items) == 1


class TestTheOthersFiles:
    RADAR = HYP3.format("p", "VV")[:-4].removesuffix("_VV") + ".zip"
    OPTICAL = "S2A_MSIL2A_20210610T151011_N0500_R011_T20TLS_20210610T201210.zip"

    @pytest.fixture
    def shared(self, tmp_path: Path) -> Path:
        for name in (self.RADAR, self.OPTICAL, "unnamed.zip"):
            (tmp_path / name).write_text("no zip")
        return tmp_path

    @pytest.mark.parametrize(("sensor", "own", "other"), [("optical", OPTICAL, RADAR), ("radar", RADAR, OPTICAL)])
    def test_only_files_that_may_be_of_the_sensor_are_named(
        self, shared: Path, sensor: Sensor, own: str, other: str
    ) -> None:
        with pytest.warns(SceneSkippedWarning) as told:
            found = items_of(source(shared), sensor)
        assert sorted(reasons(found)) == sorted([own, "unnamed.zip"])
        assert not any(other in str(one.message) for one in told)

    @pytest.mark.filterwarnings("ignore::wetmap.errors.SceneSkippedWarning")
    @pytest.mark.parametrize(("sensor", "own"), [("optical", OPTICAL), ("radar", RADAR)])
    def test_the_error_quotes_a_file_of_the_sensor(self, shared: Path, sensor: Sensor, own: str) -> None:
        (shared / "0.zip").write_text("no zip")  # comes first by name
        with pytest.raises(SourceError, match=rf"3 files and products were left out; {own}: it is no whole zip"):
            searched(open_archive(source(shared), sensor), sensor)


class TestDecibelsThatAreNone:
    def look(self, folder: Path, values: Any) -> dict[str, str]:
        radar_file(folder, "my_20210809T223000_VV.tif", np.asarray(values, dtype=np.float32))
        return reasons(quietly(folder, "radar", stored="decibel"))

    @pytest.mark.parametrize("mean", [0.005, 0.07, 0.3])
    def test_linear_values_are_refused(self, tmp_path: Path, mean: float) -> None:
        power = mean * np.random.default_rng(1).gamma(4.4, 1 / 4.4, (84, 84))
        for values in (power, np.sqrt(power)):
            (reason,) = self.look(tmp_path, values).values()
            assert "none below 0" in reason
            assert "linear power or amplitude" in reason

    @pytest.mark.parametrize("mean", [0.005, 0.07, 0.3, 1.0, 1.5])
    def test_decibels_pass_even_of_very_bright_ground(self, tmp_path: Path, mean: float) -> None:
        power = mean * np.random.default_rng(1).gamma(4.4, 1 / 4.4, (84, 84))
        assert self.look(tmp_path, 10 * np.log10(power)) == {}
