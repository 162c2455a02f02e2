"""Earth Engine: the real client against a local service. What is asked, what comes back, and what goes wrong."""

from __future__ import annotations

import datetime as dt
import json
import logging
import pickle
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon

from tests.fakes import earth_engine_archive
from tests.fakes.earth_engine import FakeEarthEngine
from tests.fakes.tiny_archive import lonlat
from wetmap.errors import SourceError
from wetmap.geo import Aoi, Grid
from wetmap.recipe import EarthEngineSource, Season, Sensor
from wetmap.sources import EXTENT, Scene, earthengine_client, open_archive
from wetmap.sources.earthengine import EarthEngineArchive
from wetmap.sources.earthengine_client import MOST_BYTES, pieces
from wetmap.sources.earthengine_images import Clearing

CRS, LEFT, TOP = "EPSG:32619", 700_000.0, 5_010_000.0
AT = Affine(10, 0, LEFT, 0, -10, TOP)
WINDOW = Grid(CRS, 10.0, LEFT + 50, TOP - 30, 6, 9)
SUMMER = Season(name="summer", start=dt.date(2021, 6, 1), end=dt.date(2021, 8, 31))
CLEARING = Clearing(mask=("cloud", "shadow"), dilate_m=0, res_m=10, standing=False)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client and wetmap wait between tries; here they do not."""
    clock = types.SimpleNamespace(sleep=lambda _: None)
    monkeypatch.setattr("googleapiclient.http.time", clock)
    monkeypatch.setattr(earthengine_client, "time", clock)
    for name in earthengine_client.PROJECT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    logging.getLogger("googleapiclient.http").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def service() -> Iterator[FakeEarthEngine]:
    with FakeEarthEngine() as service:
        yield service
        earthengine_client.disconnect()


@pytest.fixture
def fake(service: FakeEarthEngine) -> FakeEarthEngine:
    """The service, with nothing in it."""
    service.clear()
    return service


@pytest.fixture
def aoi() -> Aoi:
    return Aoi("here", MultiPolygon([lonlat(LEFT + 20, TOP - 180, LEFT + 180, TOP - 20)]))


def archive_of(fake: FakeEarthEngine, sensor: Sensor = "optical", **words: Any) -> EarthEngineArchive:
    archive = open_archive(EarthEngineSource(url=fake.url, **{"project": fake.project, **words}), sensor)
    assert isinstance(archive, EarthEngineArchive)
    return archive


def ramp(offset: float = 0.0) -> np.ndarray:
    """20 x 20 counts that say where they are."""
    rows, cols = np.mgrid[0:20, 0:20]
    return 1000.0 + 100 * rows + cols + offset


def add_optical(fake: FakeEarthEngine, name: str, day: str, values: np.ndarray, scl: np.ndarray | int = 4) -> None:
    classes = np.broadcast_to(np.asarray(scl, dtype=float), values.shape)
    fake.add_image(
        f"COPERNICUS/S2_SR_HARMONIZED/{name}",
        {"B4": values, "B8": values * 2, "SCL": classes.copy()},
        CRS,
        AT,
        start=f"{day}T15:10:00Z",
        nodata=-1.0,
        properties={
            "CLOUDY_PIXEL_PERCENTAGE": 12.5,
            "SPACECRAFT_NAME": "Sentinel-2A",
            "SENSING_ORBIT_DIRECTION": "DESCENDING",
            "SENSING_ORBIT_NUMBER": 11,
        },
    )


def search(archive: EarthEngineArchive, sensor: Sensor, aoi: Aoi, *seasons: Season) -> list[Scene]:
    return archive.search(sensor, aoi, seasons or (SUMMER,), max_cloud_percent=80)[0]


class TestSearch:
    def test_scenes_with_what_the_archive_knows_of_them(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        for day in (3, 13, 23):
            add_optical(fake, f"s{day}", f"2021-07-{day:02d}", ramp())
        add_optical(fake, "late", "2021-09-01", ramp())
        scenes = search(archive_of(fake), "optical", aoi)
        assert [scene.id for scene in scenes] == ["s3", "s13", "s23"], "in order of time, over two pages"
        first = scenes[0]
        assert (first.platform, first.orbit_state, first.relative_orbit) == ("Sentinel-2A", "descending", 11)
        assert (first.datetime, first.seasons) == ("2021-07-03T15:10:00.000000Z", ("summer",))
        assert first.cloud_percent == 12.5
        assert first.item["asset"] == "COPERNICUS/S2_SR_HARMONIZED/s3"
        assert Scene.from_json(json.loads(json.dumps(first.to_json()))) == first

    def test_the_last_day_counts_and_the_next_does_not(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        add_optical(fake, "last", "2021-08-31", ramp())
        add_optical(fake, "next", "2021-09-01", ramp())
        assert [scene.id for scene in search(archive_of(fake), "optical", aoi)] == ["last"]

    def test_radar_that_cannot_be_used_is_left_out_with_a_reason(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        good = {
            "instrumentMode": "IW",
            "orbitProperties_pass": "ASCENDING",
            "relativeOrbitNumber_start": 62,
            "platform_number": "A",
            "transmitterReceiverPolarisation": ["VV", "VH"],
        }
        for name, change in {
            "good": {},
            "mode": {"instrumentMode": "EW"},
            "state": {"orbitProperties_pass": None},
            "none": {"transmitterReceiverPolarisation": []},
        }.items():
            fake.add_image(
                f"COPERNICUS/S1_GRD_FLOAT/{name}",
                {"VV": ramp(), "VH": ramp()},
                CRS,
                AT,
                start="2021-07-01T22:00:00Z",
                properties={**good, **change},
            )
        scenes, skipped = archive_of(fake, "radar").search("radar", aoi, [SUMMER], max_cloud_percent=80)
        assert [scene.id for scene in scenes] == ["good"]
        assert scenes[0].item["backscatter"] == "sigma0"
        assert "sigma-0" in scenes[0].offset_rule
        assert [row.id for row in skipped] == ["mode", "none", "state"]
        assert "EW" in skipped[0].reason

    def test_no_images_at_all(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        with pytest.raises(SourceError, match="No optical images of COPERNICUS/S2_SR_HARMONIZED cover here"):
            search(archive_of(fake), "optical", aoi)

    def test_elsewhere(self, fake: FakeEarthEngine) -> None:
        add_optical(fake, "here", "2021-07-03", ramp())
        away = Aoi("away", MultiPolygon([lonlat(LEFT + 5000, TOP - 180, LEFT + 5180, TOP - 20)]))
        with pytest.raises(SourceError, match="cover away"):
            search(archive_of(fake), "optical", away)


class TestPixels:
    def test_the_window_gets_its_own_pixels(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        values = archive.read(scene, ["B04", "B08", "SCL", "B12x", EXTENT], WINDOW)
        expected = (ramp()[3:9, 5:14] * 1e-4).astype(np.float32)
        np.testing.assert_allclose(values["B04"], expected, rtol=1e-7)
        np.testing.assert_allclose(values["B08"], expected * 2, rtol=1e-7)
        assert (values["SCL"] == 4).all()
        assert sorted(values) == ["B04", "B08", "SCL", EXTENT]
        (asked,) = fake.asked(":computePixels")
        assert asked["grid"] == {
            "dimensions": {"width": 9, "height": 6},
            "affineTransform": {
                "scaleX": 10,
                "shearX": 0,
                "translateX": LEFT + 50,
                "shearY": 0,
                "scaleY": -10,
                "translateY": TOP - 30,
            },
            "crsCode": CRS,
        }

    def test_zero_is_a_value_and_masked_is_not(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        values = ramp()
        values[4, 6], values[5, 7] = 0.0, -1.0  # dark water whose reflectance was below 0; no data
        add_optical(fake, "a", "2021-07-03", values)
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        read = archive.read(scene, ["B04"], WINDOW)["B04"]
        assert read[1, 1] == 0.0
        assert np.isnan(read[2, 2])
        assert np.isfinite(read).sum() == read.size - 1

    def test_beyond_the_image_is_masked(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        read = archive.read(scene, ["B04"], WINDOW.window(-5, -8, 10, 10))["B04"]
        assert np.isnan(read[:2]).all()
        assert np.isnan(read[:, :3]).all()
        assert np.isfinite(read[2:, 3:]).all()

    def test_a_scene_far_away_is_not_asked_for(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        read = archive.read(scene, ["B04", EXTENT], WINDOW.window(0, 5000, 4, 4))
        assert np.isnan(read["B04"]).all()
        assert np.isnan(read[EXTENT]).all()
        assert not fake.asked(":computePixels")

    def test_a_shift_moves_the_grid_that_is_asked_for(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        moved = Scene.from_json({**scene.to_json(), "shift_m": [20.0, -10.0]})  # two pixels east, one south
        read = archive.read(moved, ["B04"], WINDOW)["B04"]
        np.testing.assert_allclose(read, (ramp()[2:8, 3:12] * 1e-4).astype(np.float32), rtol=1e-7)
        assert archive.moves_scenes
        assert not archive_of(fake).moves_scenes, "composites of the service are made of scenes as they lie"

    def test_terrain_in_metres(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        fake.add_image("COPERNICUS/DEM/GLO30/tile", {"DEM": ramp() / 100}, CRS, AT)
        archive = archive_of(fake, "terrain")
        (scene,) = search(archive, "terrain", aoi)
        read = archive.read(scene, ["elevation"], WINDOW)["elevation"]
        np.testing.assert_allclose(read, ramp()[3:9, 5:14] / 100, rtol=1e-6)

    def test_yearly_l_band(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        counts, qa = ramp(4000), np.full((20, 20), 255.0)
        qa[4, 6] = 100  # layover
        for year in (2019, 2021):
            bands = {"HH": counts + year - 2021, "HV": counts / 2, "qa": qa}
            fake.add_image(f"JAXA/ALOS/PALSAR/YEARLY/SAR_EPOCH/{year}", bands, CRS, AT, start=f"{year}-01-01T00:00:00Z")
        archive = open_archive(EarthEngineSource(url=fake.url, project=fake.project), "lband")
        scenes, _ = archive.search("lband", aoi, [SUMMER], max_cloud_percent=80)
        assert [scene.id for scene in scenes] == ["2021"]
        read = archive.read(scenes[0], ["HH", "HV"], WINDOW)
        decibels = 10 * np.log10(counts[3:9, 5:14] ** 2) - 83.0
        expected = np.where(qa[3:9, 5:14] == 255, decibels, np.nan)
        np.testing.assert_allclose(10 * np.log10(read["HH"]), expected, atol=1e-4)


class TestComposites:
    def test_median_of_the_frozen_images_with_a_cloud_left_out(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        scl = np.full((20, 20), 4)
        scl[6, 8] = 9
        for number, (day, classes) in enumerate([("07-03", 4), ("07-13", scl), ("07-23", 4)]):
            add_optical(fake, f"s{number}", f"2021-{day}", ramp(10.0 * number), classes)
        archive = archive_of(fake)
        scenes = search(archive, "optical", aoi)
        add_optical(fake, "new", "2021-07-28", ramp(500.0))  # came after the plan
        values, count = archive.optical_composite([(scene,) for scene in scenes], ["B04"], WINDOW, CLEARING, 50)
        expected = ramp(10.0)[3:9, 5:14] * 1e-4
        expected[3, 3] = ramp(10.0)[6, 8] * 1e-4  # the mean of looks 0 and 2, which is look 1 without its cloud
        np.testing.assert_allclose(values["B04"], expected.astype(np.float32), rtol=1e-6)
        assert count[3, 3] == 2
        assert (np.delete(count.ravel(), 3 * 9 + 3) == 3).all()
        assert "new" not in json.dumps(fake.asked(":computePixels")[-1])

    @pytest.mark.parametrize(("standing", "clear"), [(True, 3), (False, 0)])
    def test_dark_water_is_no_shadow(self, fake: FakeEarthEngine, aoi: Aoi, standing: bool, clear: int) -> None:
        """A pixel that all looks call a cloud's shadow: clouds move, and a lake does not."""
        scl = np.full((20, 20), 4)
        scl[6, 8] = 3
        for number in range(3):
            add_optical(fake, f"s{number}", f"2021-07-{number + 1:02d}", ramp(), scl)
        archive = archive_of(fake)
        passes = [(scene,) for scene in search(archive, "optical", aoi)]
        _, count = archive.optical_composite(passes, ["B04"], WINDOW, replace(CLEARING, standing=standing), 50)
        assert count[3, 3] == clear
        assert (count[:3] == 3).all()

    def test_nothing_clear_is_not_observed(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        add_optical(fake, "a", "2021-07-03", ramp(), 9)
        archive = archive_of(fake)
        scenes = search(archive, "optical", aoi)
        values, count = archive.optical_composite([tuple(scenes)], ["B04"], WINDOW, CLEARING, 50)
        assert np.isnan(values["B04"]).all()
        assert (count == 0).all()

    def test_many_looks_are_sorted_and_not_estimated(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        for number in range(70):
            day = dt.date(2021, 6, 1) + dt.timedelta(days=number)
            add_optical(fake, f"s{number:02d}", str(day), ramp(float(number)))
        archive = archive_of(fake)
        scenes = search(archive, "optical", aoi)
        values, count = archive.optical_composite([(scene,) for scene in scenes], ["B04"], WINDOW, CLEARING, 50)
        assert (count == 70).all()
        np.testing.assert_allclose(values["B04"], (ramp(34.5)[3:9, 5:14] * 1e-4).astype(np.float32), rtol=1e-6)

    @pytest.mark.parametrize(("mask", "clear"), [("scl", 2), ("cloud-score", 2), ("both", 1)])
    def test_cloud_score(self, fake: FakeEarthEngine, aoi: Aoi, mask: str, clear: int) -> None:
        """One look is cloudy by its classification, the other by its score."""
        scl, score = np.full((20, 20), 4), np.full((20, 20), 0.9)
        scl[6, 8], score[6, 9] = 9, 0.2
        add_optical(fake, "a", "2021-07-03", ramp(), scl)
        add_optical(fake, "b", "2021-07-13", ramp())
        for name, values in (("a", score), ("b", np.full((20, 20), 0.9))):
            fake.add_image(
                f"GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED/{name}",
                {"cs_cdf": values},
                CRS,
                AT,
                start="2021-07-03T15:10:00Z",
            )
        archive = archive_of(fake, cloud_mask=mask)
        passes = [(scene,) for scene in search(archive, "optical", aoi)]
        _, count = archive.optical_composite(passes, ["B04"], WINDOW, CLEARING, 50)
        by_class, by_score = int(count[3, 3]), int(count[3, 4])
        assert (by_class, by_score) == {"scl": (1, 2), "cloud-score": (2, 1), "both": (1, 1)}[mask]
        assert max(by_class, by_score) == clear
        assert count[0, 0] == 2

    def test_images_without_a_score_are_left_out(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        add_optical(fake, "a", "2021-07-03", ramp())
        with pytest.raises(SourceError, match="it has no Cloud Score"):
            search(archive_of(fake, cloud_mask="both"), "optical", aoi)


class TestRequests:
    @given(height=st.integers(1, 5000), width=st.integers(1, 5000), bands=st.integers(1, 64))
    @settings(deadline=None, max_examples=60)
    def test_pieces_cover_the_window_and_stay_below_the_limit(self, height: int, width: int, bands: int) -> None:
        found = list(pieces(height, width, bands))
        assert sum(piece[2] * piece[3] for piece in found) == height * width
        assert all(piece[2] * piece[3] * bands * 4 <= MOST_BYTES for piece in found)
        assert len(found) <= max(1, 4 * height * width * bands * 4 // MOST_BYTES), "no more than needed, by far"
        corners = {(y0, x0) for y0, x0, _, _ in found}
        assert len(corners) == len(found)
        assert max(y0 + h for y0, _, h, _ in found) == height
        assert max(x0 + w for _, x0, _, w in found) == width

    def test_worked_example(self) -> None:
        """64 bands of 512 x 512 are 64 MiB: two halves have 32 MiB each, and 12 bands of it 12 MiB."""
        assert MOST_BYTES == 33_554_432
        assert list(pieces(512, 512, 64)) == [(0, 0, 256, 512), (256, 0, 256, 512)]
        assert list(pieces(512, 512, 12)) == [(0, 0, 512, 512)]

    def test_a_large_window_is_put_together(
        self, fake: FakeEarthEngine, aoi: Aoi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(earthengine_client, "MOST_BYTES", 4 * 20)
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        read = archive.read(scene, ["B04"], WINDOW)["B04"]
        np.testing.assert_allclose(read, (ramp()[3:9, 5:14] * 1e-4).astype(np.float32), rtol=1e-7)
        assert len(fake.asked(":computePixels")) == 4

    def test_what_is_too_much_for_the_service_is_halved(
        self, fake: FakeEarthEngine, aoi: Aoi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(earthengine_client, "LEAST_SIDE_PX", 2)
        fake.too_much = 14
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        read = archive.read(scene, ["B04"], WINDOW)["B04"]
        np.testing.assert_allclose(read, (ramp()[3:9, 5:14] * 1e-4).astype(np.float32), rtol=1e-7)
        fake.too_much = 0
        with pytest.raises(SourceError, match=r"cannot compute image a at once .*memory limit.*block_px"):
            archive.read(scene, ["B04"], WINDOW)

    @pytest.mark.parametrize("fail", [[429, 503], [503] * 8, [500, (429, "Quota exceeded")] * 5])
    def test_busy_answers_are_survived(self, fake: FakeEarthEngine, aoi: Aoi, fail: list[Any]) -> None:
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        fake.fail = list(fail)
        read = archive.read(scene, ["B04"], WINDOW)["B04"]
        np.testing.assert_allclose(read, (ramp()[3:9, 5:14] * 1e-4).astype(np.float32), rtol=1e-7)
        assert len(fake.asked(":computePixels")) == len(fail) + 1

    def test_an_answer_cut_short_is_asked_for_again(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        fake.garble = 1
        assert np.isfinite(archive.read(scene, ["B04"], WINDOW)["B04"]).all()

    def test_a_service_that_says_nothing_is_asked_again(
        self, fake: FakeEarthEngine, aoi: Aoi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(earthengine_client, "DEADLINE_S", 0.25)
        earthengine_client.disconnect()
        add_optical(fake, "a", "2021-07-03", ramp())
        fake.stall_s = [0.6, 0.0, 0.0, 0.6]  # while it is opened, and while the images are listed
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        fake.stall_s = [0.6]
        assert np.isfinite(archive.read(scene, ["B04"], WINDOW)["B04"]).all()
        earthengine_client.disconnect()

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ((429, "Too Many Requests"), r"quota is used up.*429.*requests"),
            ((403, "Permission denied"), r"does not let this account.*403: Permission denied"),
            ((400, "Image.load: no such band"), r"does not give image a \(400: Image.load: no such band\)"),
        ],
    )
    def test_what_is_refused_is_said_with_advice(
        self, fake: FakeEarthEngine, aoi: Aoi, answer: tuple[int, str], said: str
    ) -> None:
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        fake.fail = [answer] * 60
        with pytest.raises(SourceError, match=said):
            archive.read(scene, ["B04"], WINDOW)
        assert len(fake.asked(":computePixels")) == (24 if answer[0] == 429 else 1), "no is no, and busy is asked again"


class TestSigningIn:
    def test_the_archive_travels_and_holds_no_secret(self, fake: FakeEarthEngine) -> None:
        archive = archive_of(fake, credentials="/somewhere/key.json")
        assert len(pickle.dumps(archive)) < 1000
        assert pickle.loads(pickle.dumps(archive)) == archive  # noqa: S301  # written one line above

    def test_once_per_process(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        add_optical(fake, "a", "2021-07-03", ramp())
        earthengine_client.disconnect()
        archive = archive_of(fake, mode="scenes")
        (scene,) = search(archive, "optical", aoi)
        for _ in range(3):
            archive.read(scene, ["B04"], WINDOW)
        assert sum(path.endswith("/algorithms") for _, path, _ in fake.log) == 1

    def test_project_from_the_environment(self, fake: FakeEarthEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "second")
        assert archive_of(fake, project=None).connection.project == "second"
        monkeypatch.setenv("EE_PROJECT_ID", "first")
        assert archive_of(fake, project=None).connection.project == "first"
        assert archive_of(fake, project="recipe").connection.project == "recipe"

    def test_no_project(self, fake: FakeEarthEngine, aoi: Aoi) -> None:
        with pytest.raises(SourceError, match="No Google Cloud project is known") as caught:
            search(archive_of(fake, project=None), "optical", aoi)
        assert "EE_PROJECT_ID" in caught.value.do

    def test_a_service_account_signs_in_and_its_key_stays_secret(
        self, fake: FakeEarthEngine, aoi: Aoi, tmp_path: Path
    ) -> None:
        path = tmp_path / "key.json"
        secret = earth_engine_archive.write_key(path, fake)
        add_optical(fake, "a", "2021-07-03", ramp())
        archive = archive_of(fake, credentials=path, project=None)
        (scene,) = search(archive, "optical", aoi)
        assert len(fake.tokens) == 1
        # beside the questions of this test, one of an earlier client may still arrive
        assert "Bearer secret-token" in [headers.get("authorization") for headers in fake.headers]
        fake.fail = [(403, "Permission denied")] * 60
        with pytest.raises(SourceError) as caught:
            archive.read(scene, ["B04"], WINDOW)
        for written in (str(caught.value), json.dumps(scene.to_json()), pickle.dumps(archive).decode("latin-1")):
            assert "secret-token" not in written
            assert secret not in written

    @pytest.mark.parametrize("content", [None, "not json", '{"private_key": "-----BEGIN SECRET"}'])
    def test_a_wrong_key_file_is_named_and_not_quoted(
        self, fake: FakeEarthEngine, aoi: Aoi, tmp_path: Path, content: str | None
    ) -> None:
        path = tmp_path / "key.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(SourceError, match=r"key\.json is not the key file of a service account") as caught:
            search(archive_of(fake, credentials=path), "optical", aoi)
        assert "SECRET" not in str(caught.value)

    def test_no_credentials_on_this_machine(
        self, fake: FakeEarthEngine, aoi: Aoi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError

        def none() -> None:
            raise DefaultCredentialsError("none")

        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr(google.auth, "default", none)
        monkeypatch.setattr(earthengine_client.Connection, "local", False)
        with pytest.raises(SourceError, match="no Earth Engine credentials") as caught:
            search(archive_of(fake), "optical", aoi)
        assert "earthengine authenticate" in caught.value.do

    def test_nobody_there(self, aoi: Aoi) -> None:
        archive = open_archive(EarthEngineSource(url="http://127.0.0.1:9", project="x"), "optical")
        with pytest.raises(SourceError, match=r"Earth Engine at http://127\.0\.0\.1:9 cannot be opened"):
            archive.search("optical", aoi, [SUMMER], max_cloud_percent=80)
