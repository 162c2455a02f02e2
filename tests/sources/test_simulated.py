"""The simulated archive: deterministic, restartable, and wrong only where it says so."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.features import geometry_mask
from shapely.geometry import shape
from skimage.registration import phase_cross_correlation

from wetmap.errors import RecipeError
from wetmap.geo import Aoi, Grid
from wetmap.recipe import Simulated
from wetmap.sources import simulated
from wetmap.sources.landscape import COVERS, make_landscape
from wetmap.sources.simulated import elevation_model, write_archive
from wetmap.sources.simulated_ground import make_ground
from wetmap.sources.simulated_items import SIMULATED_NOTE
from wetmap.sources.simulated_optical import cloud_share, counts, greenness, optical_scene, sun
from wetmap.sources.simulated_passes import archive_grid, optical_passes, radar_passes
from wetmap.sources.simulated_radar import NODATA, RIM_VALUE, backscatter, from_edge_m, radar_scene

SETTINGS = Simulated(
    start=dt.date(2021, 6, 1),
    end=dt.date(2021, 7, 1),
    optical_every_days=10,
    radar_every_days=14,
    label_noise=0.1,
)


def square(side_px: int, *, left: float = 350_000.0, top: float = 5_090_000.0) -> Aoi:
    edge = shapely.segmentize(shapely.box(left, top - side_px * 10, left + side_px * 10, top), 500.0)
    to_degrees = Transformer.from_crs("EPSG:32620", "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*shapely.get_coordinates(edge).T)
    return Aoi("square", shapely.MultiPolygon([shapely.Polygon(np.column_stack([lon, lat]))]))


AOI = square(160)
SMALL = square(60)


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(path: Path) -> NDArray[np.generic]:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def items(folder: Path, collection: str) -> list[pystac.Item]:
    catalog = pystac.Catalog.from_file(str(folder / "catalog.json"))
    found = [item for item in catalog.get_items(recursive=True) if item.collection_id == collection]
    return sorted(found, key=lambda item: str(item.datetime))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(AOI, SETTINGS, tmp_path_factory.mktemp("archive")).parent


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(SMALL, SETTINGS, tmp_path_factory.mktemp("small")).parent


@pytest.fixture(scope="module")
def before(small: Path) -> dict[str, str]:
    return tree(small)


def test_same_settings_same_bytes_even_after_a_stop(before: dict[str, str], tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == 1 + 4 + 3 + 2
        if done == 7:
            raise StopError

    with pytest.raises(StopError):
        write_archive(SMALL, SETTINGS, tmp_path, progress=stop)
    assert not (tmp_path / "catalog.json").exists()
    calls: list[tuple[int, int]] = []
    write_archive(SMALL, SETTINGS, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 10) for done in range(1, 11)]
    assert tree(tmp_path) == before


def test_what_was_lost_comes_back_the_same(small: Path, before: dict[str, str], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(small, damaged)
    first, second = sorted((damaged / "sentinel-2-l2a").glob("S2*"))[:2]
    radar = sorted((damaged / "sentinel-1-rtc").glob("S1*"))[0]
    shutil.rmtree(first)
    (second / "B08.tif").unlink()
    (damaged / "reference.gpkg").unlink()
    (damaged / "catalog.json").unlink()
    for leftover in (first.with_name(f".tmp-{first.name}"), radar.with_name(f".tmp-{radar.name}")):
        leftover.mkdir()
        (leftover / "B02.tif").write_bytes(b"half a file")
    (damaged / ".tmp-truth.tif").write_bytes(b"half a file")
    write_archive(SMALL, SETTINGS, damaged)
    after = tree(damaged)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if ".tmp-" in name]


def test_more_scenes_leave_the_others_as_they_are(before: dict[str, str], tmp_path: Path) -> None:
    longer = SETTINGS.model_copy(update={"end": dt.date(2021, 7, 11)})
    write_archive(SMALL, longer, tmp_path)
    after = tree(tmp_path)
    assert len(after) > len(before)
    same = [name for name in before if name.endswith((".tif", ".gpkg"))]
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_another_seed_changes_every_raster(before: dict[str, str], tmp_path: Path) -> None:
    write_archive(SMALL, SETTINGS.model_copy(update={"seed": 2, "end": dt.date(2021, 6, 10)}), tmp_path)
    other = set(tree(tmp_path).values())
    assert not other & {digest for name, digest in before.items() if name.endswith((".tif", ".gpkg"))}


def test_stac_structure(archive: Path) -> None:
    catalog = pystac.Catalog.from_file(str(archive / "catalog.json"))
    counts = {child.id: len(list(child.get_items())) for child in catalog.get_children()}
    assert counts == {"sentinel-2-l2a": 4, "sentinel-1-rtc": 5, "cop-dem-glo-30": 1}
    for item in catalog.get_items(recursive=True):
        assert item.properties["wetmap:simulated"] is True
        assert "SIMULATED" in item.properties["description"]
        assert "SIMULATED" in item.id
        assert item.bbox is not None
        for asset in item.assets.values():
            path = asset.get_absolute_href()
            assert path is not None
            with rasterio.open(path) as file:
                assert list(file.shape) == asset.extra_fields["proj:shape"]
                assert list(file.transform)[:6] == asset.extra_fields["proj:transform"]
                assert file.crs.to_string() == "EPSG:32620"
                assert file.tags()["SIMULATED"] == "YES"
                assert file.tags()["TIFFTAG_IMAGEDESCRIPTION"] == SIMULATED_NOTE
    for path in archive.rglob("*.json"):
        text = path.read_text()
        assert str(archive) not in text
        assert all(not link["href"].startswith("/") for link in json.loads(text)["links"])


def test_properties_are_those_of_real_items(archive: Path) -> None:
    optical = items(archive, "sentinel-2-l2a")[1]
    assert list(optical.assets) == ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "SCL"]
    assert {"platform", "eo:cloud_cover", "s2:processing_baseline", "sat:relative_orbit"} <= set(optical.properties)
    ascending, descending = (
        [item for item in items(archive, "sentinel-1-rtc") if item.properties["sat:orbit_state"] == state]
        for state in ("ascending", "descending")
    )
    assert (len(ascending), len(descending)) == (3, 2)
    assert {item.properties["sat:relative_orbit"] for item in ascending} == {62}
    assert {item.properties["sat:relative_orbit"] for item in descending} == {171}
    raw = json.loads(Path(ascending[0].self_href).read_text())
    assert raw["properties"]["sar:polarizations"] == ["VV", "VH"]
    assert raw["properties"]["proj:epsg"] == 32620
    assert raw["assets"]["vh"]["raster:bands"][0]["nodata"] == -32768


def test_files_are_cloud_optimized(archive: Path) -> None:
    optical = items(archive, "sentinel-2-l2a")[0]
    for name, size, overviews in (("B02", 10.0, [2]), ("B05", 20.0, []), ("SCL", 20.0, [])):
        with rasterio.open(optical.assets[name].get_absolute_href()) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.block_shapes == [(256, 256)]
            assert file.overviews(1) == overviews
            assert file.res == (size, size)
            assert file.nodata == 0
            assert file.bounds.left % 20 == file.bounds.top % 20 == 0


def test_archive_covers_the_area_and_a_margin() -> None:
    extent = archive_grid(AOI)
    left, bottom, right, top = AOI.bounds_in(extent.crs)
    inner = (extent.bounds[0] + 500, extent.bounds[1] + 500, extent.bounds[2] - 500, extent.bounds[3] - 500)
    assert inner[0] <= left < inner[0] + 60
    assert inner[1] <= bottom < inner[1] + 60
    assert inner[2] - 60 < right <= inner[2]
    assert inner[3] - 60 < top <= inner[3]
    assert extent.height % 6 == extent.width % 6 == 0


def test_zero_is_nodata_and_nothing_else(archive: Path) -> None:
    wedges = 0
    for item in items(archive, "sentinel-2-l2a"):
        folder = Path(item.self_href).parent
        missing = read(folder / "SCL.tif") == 0
        wedges += bool(missing.any())
        for band in ("B02", "B08", "B12"):
            values = read(folder / f"{band}.tif")
            factor = values.shape[0] // missing.shape[0]
            np.testing.assert_array_equal(values == 0, np.kron(missing, np.ones((factor, factor), bool)))
    assert wedges == 1


def test_cloud_cover_is_the_true_share(archive: Path) -> None:
    for item in items(archive, "sentinel-2-l2a"):
        scl = read(Path(item.self_href).parent / "SCL.tif")
        share = np.isin(scl, (8, 9, 10)).sum() / (scl > 0).sum()
        assert item.properties["eo:cloud_cover"] == pytest.approx(100 * share, abs=1e-3)


def test_clouds_have_the_asked_mean_and_are_white() -> None:
    days = [dt.date(2021, 5, 1) + dt.timedelta(days=10 * number) for number in range(18)]
    for seed in (1, 2, 3):
        assert np.mean([cloud_share(0.25, seed, day) for day in days]) == pytest.approx(0.25, abs=0.06)
    assert cloud_share(0.0, 1, days[0]) == 0
    extent = Grid("EPSG:32620", 10.0, 350_000.0, 5_090_000.0, 240, 240)
    ground = make_ground(extent, 1)
    for seen in optical_passes(AOI, SETTINGS):
        share = dataclasses.replace(seen, cloud=0.4, swath_edge=False, offset=False)
        scene = optical_scene(ground, extent, share)
        assert np.isin(scene.scl, (8, 9, 10)).mean() == pytest.approx(0.4, abs=0.04)
        blue = scene.bands["B02"].reshape(120, 2, 120, 2).mean(axis=(1, 3))
        assert blue[scene.scl == 9].min() > 2000
        assert np.median(blue[scene.scl == 3]) < np.median(blue[np.isin(scene.scl, (4, 5))])


def test_shadows_lie_away_from_the_sun() -> None:
    elevation, azimuth = sun(46.0, 172, 10.5)
    assert 55 < elevation < 68
    assert 115 < azimuth < 145  # before noon, northern hemisphere: in the south-east
    assert sun(46.0, 172, 12.0)[1] == pytest.approx(180.0)
    assert sun(46.0, 80, 12.0)[0] == pytest.approx(44.0, abs=1.0)  # equinox: 90 - latitude
    extent = Grid("EPSG:32620", 10.0, 350_000.0, 5_090_000.0, 300, 300)
    seen = dataclasses.replace(optical_passes(AOI, SETTINGS)[0], cloud=0.1, swath_edge=False, cirrus=False)
    scene = optical_scene(make_ground(extent, 1), extent, seen)
    cloud, shadow = np.isin(scene.scl, (8, 9)), scene.scl == 3
    assert shadow.any()
    away = 1100.0 / np.tan(np.radians(seen.sun_elevation)) / 20.0
    rows = round(away * np.cos(np.radians(seen.sun_azimuth)))  # the sun in the south throws shadows north: fewer rows
    columns = round(-away * np.sin(np.radians(seen.sun_azimuth)))
    moved = np.zeros_like(cloud)
    moved[: rows or None, : columns or None] = cloud[-rows:, -columns:]
    assert (shadow & moved).sum() / shadow[: rows or None, : columns or None].sum() > 0.8


def test_offset_is_told_by_metadata_and_not_by_date(archive: Path) -> None:
    forest = make_landscape(archive_grid(AOI), SETTINGS.seed).cover == 9
    medians, offsets = [], []
    for item in items(archive, "sentinel-2-l2a"):
        folder = Path(item.self_href).parent
        raw = json.loads(Path(item.self_href).read_text())["assets"]["B08"]["raster:bands"][0]
        clear = np.kron(read(folder / "SCL.tif") == 4, np.ones((2, 2), bool)) & forest
        if clear.sum() > 500:
            medians.append(float(np.median(read(folder / "B08.tif")[clear]) * raw["scale"] + raw["offset"]))
            offsets.append(raw["offset"])
        assert (item.properties["s2:processing_baseline"] == "05.00") == (raw["offset"] == -0.1)
    assert set(offsets) == {0, -0.1}
    assert max(medians) - min(medians) < 0.06


def test_counts_with_and_without_offset_are_the_same_reflectance() -> None:
    extent = Grid("EPSG:32620", 10.0, 350_000.0, 5_090_000.0, 60, 60)
    ground = make_ground(extent, 1)
    seen = dataclasses.replace(optical_passes(AOI, SETTINGS)[0], swath_edge=False)
    plain = optical_scene(ground, extent, dataclasses.replace(seen, offset=False)).bands
    moved = optical_scene(ground, extent, dataclasses.replace(seen, offset=True)).bands
    for name, values in plain.items():
        kept = values > 1  # a count of 1 may stand for less, down to below zero
        np.testing.assert_array_equal(values[kept].astype(int) + 1000, moved[name][kept].astype(int))
        assert values.min() >= 1


def test_dark_valid_pixels_are_stored_as_one_and_never_as_nodata(archive: Path) -> None:
    seen = np.array([[-0.2, -0.01, 0.0, 0.05, 0.05]], np.float32)
    missing = np.array([[False, False, False, False, True]])
    assert counts(seen, missing, offset=False).tolist() == [[1, 1, 1, 500, 0]]
    assert counts(seen, missing, offset=True).tolist() == [[1, 900, 1000, 1500, 0]]
    lowest = {
        offset: min(
            int(values[values > 0].min())
            for item in items(archive, "sentinel-2-l2a")
            if (item.properties["s2:processing_baseline"] == "05.00") == offset
            for values in [read(Path(item.self_href).parent / "B12.tif")]
        )
        for offset in (False, True)
    }
    assert lowest[False] == 1  # the trap is there: clipped dark water without the offset,
    assert 1 < lowest[True] < 1000  # negative reflectance kept with it


def test_speckle_has_the_stated_looks() -> None:
    extent = Grid("EPSG:32620", 10.0, 350_000.0, 5_090_000.0, 240, 240)
    ground = make_ground(extent, 1)
    for looks in (1.0, 4.4):
        seen = radar_passes(AOI, SETTINGS.model_copy(update={"looks": looks}), "ascending")[0]
        inside = from_edge_m(extent, extent, seen) > 100
        clean = backscatter(ground, extent, seen)
        for index, values in enumerate(radar_scene(ground, extent, seen).values()):
            ratio = (values / clean[index])[inside]
            assert ratio.mean() == pytest.approx(1.0, abs=0.01)
            assert 1 / ratio.var() == pytest.approx(looks, rel=0.05)
            rows = (values / clean[index])[:, 60:]
            assert abs(np.corrcoef(rows[:, 1:].ravel(), rows[:, :-1].ravel())[0, 1]) < 0.02


def test_backscatter_follows_cover_and_water() -> None:
    extent = Grid("EPSG:32620", 10.0, 350_000.0, 5_090_000.0, 300, 300)
    ground = make_ground(extent, 1)
    cover = make_landscape(extent, 1).cover
    seen = radar_passes(AOI, SETTINGS, "ascending")[1]
    spring = dataclasses.replace(seen, when=dt.datetime(2021, 4, 28, 22, tzinfo=dt.UTC))
    summer_db, spring_db = (10 * np.log10(backscatter(ground, extent, when)[0]) for when in (seen, spring))
    median = {kind.name: float(np.median(summer_db[cover == kind.code])) for kind in COVERS}
    assert median["open water"] < median["aquatic bed"] < median["coastal marsh"] < median["upland forest"]
    rise = {kind.name: float(np.median((spring_db - summer_db)[cover == kind.code])) for kind in COVERS}
    assert rise["forested wetland"] > rise["upland forest"] + 0.4  # double bounce over standing water


@pytest.mark.parametrize("shift", [(0.4, -0.3), (-0.7, 1.2)])
def test_shift_of_the_descending_orbit_can_be_found_again(shift: tuple[float, float]) -> None:
    extent = Grid("EPSG:32620", 10.0, 350_000.0, 5_090_000.0, 256, 400)
    moved = SETTINGS.model_copy(update={"end": dt.date(2021, 10, 31), "radar_every_days": 8})
    means = []
    for orbit, ground in (
        ("ascending", make_ground(extent, 1)),
        ("descending", make_ground(extent, 1, shift_px=shift)),
    ):
        scenes = [radar_scene(ground, extent, seen)["VH"] for seen in radar_passes(AOI, moved, orbit)]
        means.append(np.log(np.mean(scenes, axis=0)[:, 120:-120]))  # what every footprint holds
    fixed, seen_moved = means
    found, _, _ = phase_cross_correlation(fixed, seen_moved, upsample_factor=50, normalization=None)
    assert -found == pytest.approx(np.array(shift), abs=0.15)


def test_shift_by_whole_pixels_is_exact() -> None:
    extent = Grid("EPSG:32620", 10.0, 350_000.0, 5_090_000.0, 60, 60)
    still, moved = make_ground(extent, 1), make_ground(extent, 1, shift_px=(2, -3))
    # what lies at (row, column) appears at (row + 2, column - 3)
    np.testing.assert_array_equal(moved.fractions[:, 2:, :-3], still.fractions[:, :-2, 3:])
    np.testing.assert_array_equal(moved.roughness[2:, :-3], still.roughness[:-2, 3:])


def test_border_noise_and_nodata_lie_where_the_footprint_ends(archive: Path) -> None:
    inside_area = AOI.inside(archive_grid(AOI))
    crosses = []
    for item in items(archive, "sentinel-1-rtc"):
        folder = Path(item.self_href).parent
        vv, vh = read(folder / "vv.tif"), read(folder / "vh.tif")
        beyond = vv == NODATA
        np.testing.assert_array_equal(beyond, vh == NODATA)
        rim = (vv >= 0) & (vv <= RIM_VALUE)
        assert 5.5 < rim.sum(axis=1).mean() < 6.5
        assert (vv[rim] == 0).any()
        assert (vv[rim] > 0).any()
        crosses.append(bool((inside_area & (beyond | rim)).any()))
        footprint = shapely.transform(
            shape(item.geometry),
            Transformer.from_crs("EPSG:4326", "EPSG:32620", always_xy=True).transform,
            interleaved=False,
        )
        with rasterio.open(folder / "vv.tif") as file:
            outside = geometry_mask([footprint], file.shape, file.transform)
        assert (outside != beyond).mean() < 0.001
    assert any(crosses)
    assert not all(crosses)


def test_truth_and_elevation_are_the_landscape(archive: Path) -> None:
    extent = archive_grid(AOI)
    land = make_landscape(extent, SETTINGS.seed)
    with rasterio.open(archive / "truth.tif") as file:
        np.testing.assert_array_equal(file.read(1), land.cover)
        assert file.colormap(1)[8][:3] == (0x7F, 0xD0, 0xA8)
        assert file.tags(1)["CLASS_8"] == "coastal marsh"
        assert file.nodata == 0
        assert file.transform == extent.transform
    dem = items(archive, "cop-dem-glo-30")[0].assets["data"].get_absolute_href()
    with rasterio.open(dem) as file:
        assert file.res == (30.0, 30.0)
        assert file.bounds == rasterio.coords.BoundingBox(*extent.bounds)
        height, width = file.shape
        mean = land.elevation.reshape(height, 3, width, 3).mean(axis=(1, 3))
        difference = file.read(1) - mean
    assert abs(difference).max() < 2.0
    assert 0.2 < difference[mean > 3].std() < 0.6
    np.testing.assert_array_equal(elevation_model(extent, SETTINGS.seed).shape, mean.shape)


def test_reference_is_the_truth_but_for_known_noise(archive: Path) -> None:
    frame = geopandas.read_file(archive / "reference.gpkg", layer="wetlands")
    assert len(frame) == 60
    assert frame["noisy"].sum() == 6
    assert ((frame["CLASS"] != frame["true_class"]) == frame["noisy"]).all()
    assert set(frame["true_class"]) == {cover.reference_class for cover in COVERS}
    assert frame["simulated"].all()
    assert frame.crs == "EPSG:32620"
    assert frame.geometry.is_valid.all()
    assert (frame.geom_type == "Polygon").all()
    area = shapely.buffer(AOI.geometry_in("EPSG:32620"), 1.0)
    assert frame.within(area).all()
    with rasterio.open(archive / "truth.tif") as file:
        cover = file.read(1)
        for row in frame.itertuples():
            codes = [kind.code for kind in COVERS if kind.reference_class == row.true_class]
            assert np.isin(cover[~geometry_mask([row.geometry], file.shape, file.transform)], codes).all()
    overlaps = frame.sjoin(frame, predicate="intersects").query("id_left < id_right")
    assert overlaps.empty


def test_reference_grows_with_the_area_and_says_simulated(tmp_path: Path) -> None:
    import sqlite3

    write_archive(AOI, SETTINGS.model_copy(update={"reference_polygons": 3000, "end": SETTINGS.start}), tmp_path)
    assert len(geopandas.read_file(tmp_path / "reference.gpkg")) == pytest.approx(77, abs=1)  # of 2.56 km2
    with sqlite3.connect(tmp_path / "reference.gpkg") as base:
        assert "SIMULATED" in str(base.execute("select metadata from gpkg_metadata").fetchall())
    base.close()


def test_tiles_run_on_into_each_other(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "TILE_PX", 90)
    write_archive(SMALL, SETTINGS.model_copy(update={"end": dt.date(2021, 6, 1)}), tmp_path)
    assert tree(tmp_path)["truth.tif"] == tree(small)["truth.tif"]
    tiles = items(tmp_path, "sentinel-2-l2a")
    assert len(tiles) == 4
    whole = read(Path(items(small, "sentinel-2-l2a")[0].self_href).parent / "SCL.tif")
    joined = np.zeros_like(whole)
    for item in tiles:
        part = read(Path(item.self_href).parent / "SCL.tif")
        row, column = int(item.id[-5:-3]) * 45, int(item.id[-2:]) * 45
        joined[row : row + part.shape[0], column : column + part.shape[1]] = part
    assert (joined == whole).mean() > 0.99


def test_seasons_turn_round_south_of_the_equator() -> None:
    assert greenness(200).min() > 0.8
    assert greenness(20).max() < 0.1
    np.testing.assert_allclose(greenness(20, southern=True), greenness(202))


def test_time_must_run_forward(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"2021-05-01.*before.*2021-10-01"):
        write_archive(AOI, Simulated(start=dt.date(2021, 10, 1), end=dt.date(2021, 5, 1)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_dates_are_those_of_the_settings() -> None:
    assert [seen.when.date().isoformat() for seen in optical_passes(AOI, SETTINGS)] == [
        "2021-06-01",
        "2021-06-11",
        "2021-06-21",
        "2021-07-01",
    ]
    assert [seen.when.date().isoformat() for seen in radar_passes(AOI, SETTINGS, "descending")] == [
        "2021-06-08",
        "2021-06-22",
    ]
