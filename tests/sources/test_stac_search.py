"""Asking a catalogue: month by month, patiently, keeping each answer; static catalogues on disk and over HTTP."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import tiny_archive
from tests.fakes.stac_api import make_app, serve
from tests.fakes.tiny_archive import GRID, SEASON, Json, aoi
from wetmap.errors import MissingSourceError, SceneSkippedWarning, SourceError, WetmapWarning
from wetmap.recipe import Season, StacSource
from wetmap.recipe_sources import CATALOGS
from wetmap.sources import Archive, Scene, keeping, open_archive
from wetmap.sources import stac_search as asking
from wetmap.sources.providers import PROVIDERS
from wetmap.sources.stac_search import Question, brief, is_static, months_of

YEAR = Season(name="year", start=dt.date(2021, 5, 20), end=dt.date(2021, 10, 31))
Answer = tuple[int, dict[str, str], bytes]


class Front:
    """Stands before the API: answers some searches itself, and remembers what was asked."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.instead: Callable[[str], Answer | None] = lambda _: None
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/search":
            await self.app(scope, receive, send)
            return
        message = await receive()
        body = json.loads(message["body"] or b"{}")
        days = str(body.get("datetime") or "")[:10]
        self.asked.append(days)
        answer = self.instead(days)
        if answer is None:
            told = [message]
            await self.app(scope, _replay(told, receive), send)
            return
        status, headers, text = answer
        raw = [(name.encode(), value.encode()) for name, value in {"content-type": "text/html", **headers}.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": text})


def _replay(told: list[Any], receive: Any) -> Any:
    async def again() -> Any:
        return told.pop() if told else await receive()

    return again


@pytest.fixture
def front(archive_folder: Path, items: list[Json]) -> Iterator[tuple[Front, str]]:
    served = tiny_archive.link_to(items, "")
    front = Front(make_app(tiny_archive.collections(items), served, archive_folder, Counter()))
    with serve(front) as url:  # type: ignore[arg-type]
        for one in served:
            for body in one["assets"].values():
                body["href"] = f"{url}/files{body['href']}?sv=2021&sig=SECRET"
        yield front, url


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.0)


def search(archive: Archive, season: Season = YEAR) -> list[Scene]:
    return archive.search("optical", aoi(), [season], max_cloud_percent=80.0)[0]


def archive_at(where: str | Path) -> Archive:
    return open_archive(StacSource(catalog=str(where)), "optical")


MONTHS = ["2021-05-20", *(f"2021-{month:02d}-01" for month in range(6, 11))]


class TestMonths:
    @settings(deadline=None, max_examples=60)
    @given(start=st.dates(dt.date(2015, 1, 1), dt.date(2030, 1, 1)), days=st.integers(0, 800))
    def test_the_months_of_a_season_are_the_season(self, start: dt.date, days: int) -> None:
        season = Season(name="s", start=start, end=start + dt.timedelta(days=days))
        months = months_of(season)
        assert months[0][0] == season.start
        assert months[-1][1] == season.end
        assert all(first.month == last.month and first <= last for first, last in months)
        assert all(following[0] - before[1] == dt.timedelta(days=1) for before, following in itertools.pairwise(months))

    def test_one_question_a_month(self, front: tuple[Front, str]) -> None:
        scenes = search(archive_at(front[1]))
        assert [scene.id for scene in scenes] == ["S2A_20210610", "S2B_20210715", "S2A_20210820", "S2A_20211020"]
        assert front[0].asked == MONTHS

    def test_seasons_that_overlap_do_not_ask_twice(self) -> None:
        summer = Season(name="summer", start=dt.date(2021, 6, 1), end=dt.date(2021, 8, 31))
        again = Season(name="again", start=dt.date(2021, 7, 1), end=dt.date(2021, 9, 30))
        asked = Question.each("url", "c", aoi(), [summer, again])
        assert [question.name[:7] for question in asked] == ["2021-06", "2021-07", "2021-08", "2021-09"]
        assert asked[0].interval == "2021-06-01T00:00:00Z/2021-06-30T23:59:59.999999Z"

    def test_elevation_is_asked_for_once_and_without_dates(self, front: tuple[Front, str]) -> None:
        archive = open_archive(StacSource(catalog=front[1]), "terrain")
        assert archive.search("terrain", aoi(), [YEAR], max_cloud_percent=80.0)[0]
        assert front[0].asked == [""]


class TestKept:
    def test_a_search_that_failed_goes_on_where_it_stopped(self, front: tuple[Front, str], tmp_path: Path) -> None:
        door, url = front
        archive = keeping(archive_at(url), tmp_path / "search")
        door.instead = lambda days: (500, {}, b"") if days == "2021-07-01" else None
        with pytest.raises(SourceError, match="for 2021-07-01 to 2021-07-31") as caught:
            search(archive)
        assert "months that were answered are not asked for again" in str(caught.value)
        assert door.asked == MONTHS[:2] + ["2021-07-01"] * asking.RETRIES + ["2021-07-01"], "the one that failed, last"
        door.instead, door.asked = lambda _: None, []
        scenes = search(archive)
        assert door.asked == MONTHS[2:]
        assert scenes == search(archive_at(url)), "the same as a search that never failed"
        door.asked = []
        assert search(archive) == scenes
        assert door.asked == [], "all is kept"

    def test_no_signature_is_kept_and_none_is_planned(self, front: tuple[Front, str], tmp_path: Path) -> None:
        scenes = search(keeping(archive_at(front[1]), tmp_path))
        assert "SECRET" not in json.dumps([scene.to_json() for scene in scenes])
        kept = sorted(tmp_path.iterdir())
        assert len(kept) == len(MONTHS)
        assert kept[0].name == "optical-2021-05-20_2021-05-31.json"
        assert all("SECRET" not in path.read_text() and "links" not in path.read_text() for path in kept)

    def test_an_answer_to_another_question_or_half_a_file_is_asked_again(
        self, front: tuple[Front, str], tmp_path: Path
    ) -> None:
        door, url = front
        archive = keeping(archive_at(url), tmp_path)
        before = search(archive)
        (tmp_path / "optical-2021-06-01_2021-06-30.json").write_text('{"asked": ')
        other = json.loads((tmp_path / "optical-2021-07-01_2021-07-31.json").read_text())
        other["asked"]["collection"] = "another"
        (tmp_path / "optical-2021-07-01_2021-07-31.json").write_text(json.dumps(other))
        door.asked = []
        assert search(archive) == before
        assert door.asked == ["2021-06-01", "2021-07-01"]

    def test_nothing_is_written_unless_it_is_asked_for(self, front: tuple[Front, str], tmp_path: Path) -> None:
        search(archive_at(front[1]))
        assert not list(tmp_path.iterdir())


def once(door: Front, answer: Answer) -> Callable[[str], Answer | None]:
    """The first search alone is answered so."""
    return lambda _: answer if len(door.asked) == 1 else None


class TestTrouble:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_a_passing_failure_passes(self, status: int, front: tuple[Front, str]) -> None:
        front[0].instead = once(front[0], (status, {}, b""))
        assert len(search(archive_at(front[1]))) == 4

    @pytest.mark.parametrize("status", [429, 503])
    def test_the_server_is_not_asked_again_before_it_wants(self, status: int, front: tuple[Front, str]) -> None:
        front[0].instead = once(front[0], (status, {"retry-after": "1"}, b""))
        start = time.monotonic()
        search(archive_at(front[1]), SEASON)
        assert time.monotonic() - start >= 1.0

    def test_a_long_pause_is_said_and_not_waited_for(self, front: tuple[Front, str]) -> None:
        front[0].instead = lambda _: (429, {"retry-after": "3600"}, b"")
        with pytest.raises(SourceError, match="HTTP 429: the server asks to come back in 60 minutes"):
            search(archive_at(front[1]))
        assert len(front[0].asked) == 1

    def test_a_pause_that_cannot_be_read_is_no_pause(self, front: tuple[Front, str]) -> None:
        front[0].instead = once(front[0], (503, {"retry-after": "soon"}, b""))
        assert len(search(archive_at(front[1]))) == 4

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ((500, {}, b"<html>" + b"oops " * 500), "HTTP 500, 5 times"),
            ((400, {}, b"<html><body><h1>Bad request</h1>" + b"x" * 5000), "HTTP 400: Bad request"),
            ((200, {}, b"<html>We will be back soon</html>"), r"\(\w+: "),
            ((200, {"content-type": "application/json"}, b'{"code": "x"}'), "the answer holds no items and is no STAC"),
        ],
        ids=["500", "400", "html", "no features"],
    )
    def test_an_error_is_short_and_names_the_url(self, answer: Answer, said: str, front: tuple[Front, str]) -> None:
        front[0].instead = lambda _: answer
        with pytest.raises(SourceError, match=said) as caught:
            search(archive_at(front[1]))
        text = str(caught.value)
        assert front[1] in text
        assert len(text) < 600
        assert "<" not in text
        assert "Traceback" not in text

    def test_what_is_no_item_is_named_and_the_rest_is_used(self, front: tuple[Front, str]) -> None:
        odd = {"type": "FeatureCollection", "features": [{"id": "odd", "properties": None}, {"type": "Feature"}]}
        front[0].instead = lambda _: (200, {}, json.dumps(odd).encode()) if len(front[0].asked) == 1 else None
        with pytest.warns(SceneSkippedWarning, match="is no STAC item"):
            scenes, skipped = archive_at(front[1]).search("optical", aoi(), [YEAR], max_cloud_percent=80.0)
        assert len(scenes) == 4
        assert {row.id for row in skipped} == {"odd", "None", "S2A_20210901"}

    def test_waits_double_and_have_chance_in_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asking, "FIRST_WAIT", 0.5)
        waits = set()
        for _ in range(20):
            retry = asking.patient_retry()
            for expected in (0.5, 1.0, 2.0, 4.0):
                retry = retry.increment("POST", "/search")
                wait = retry.get_backoff_time()
                assert expected <= wait <= expected + asking.JITTER
            waits.add(round(wait, 3))
        assert len(waits) > 5

    def test_what_is_said_has_no_query(self) -> None:
        text = brief(RuntimeError("cannot read https://x.org/a?sig=SECRET&b=1 now"))
        assert "SECRET" not in text


class TestStatic:
    @pytest.mark.parametrize(
        ("catalog", "static"),
        [
            ("https://a.org/stac/v1", False),
            ("https://a.org/catalog.json", True),
            ("https://a.org/catalog.json?x=1", True),
            ("s3://bucket/catalog.json", True),
            ("folder/catalog.json", True),
        ],
    )
    def test_which_is_static(self, catalog: str, static: bool) -> None:
        assert is_static(catalog) is static

    def test_over_http_as_on_disk(self, catalog: Path, archive_folder: Path, tmp_path: Path) -> None:
        counts: Counter[str] = Counter()
        with serve(make_app([], [], archive_folder, counts)) as url:
            archive = keeping(archive_at(f"{url}/files/stac/catalog.json"), tmp_path)
            scenes = search(archive)
            assert [scene.id for scene in scenes] == [scene.id for scene in search(archive_at(catalog))]
            assert scenes[0].item["assets"]["B02"]["href"] == f"{url}/files/S2A_20210610/B02.tif"
            there, here = archive.read(scenes[0], ["B02"], GRID), archive_at(catalog).read(scenes[0], ["B02"], GRID)
            assert (there["B02"] == here["B02"]).all()
            before = counts.total()
            assert search(archive) == scenes
            assert counts.total() == before, "the items are kept"

    def test_one_that_is_not_there(self, archive_folder: Path) -> None:
        with (
            serve(make_app([], [], archive_folder, Counter())) as url,
            pytest.raises(SourceError, match=r"/files/none.json cannot be read \(HTTPError: 404"),
        ):
            search(archive_at(f"{url}/files/none.json"))


class TestOnDisk:
    """Static catalogues of this machine whose files are missing or broken."""

    @pytest.fixture
    def own(self, catalog: Path, tmp_path: Path) -> Path:
        """A copy of the catalogue that may be broken; gives its folder."""
        shutil.copytree(catalog.parent, tmp_path / "stac")
        return tmp_path / "stac"

    def optical(self, folder: Path) -> list[Path]:
        return sorted(path for path in (folder / "sentinel-2-l2a").rglob("*.json") if path.stem.startswith("S2"))

    @pytest.mark.parametrize(
        ("broken", "reason"),
        [
            (None, "its file is not there"),
            ("{", "its file is not JSON, or cut short"),
            ("[]", "its file is no STAC that can be read: "),
            ('{"type": "Feature", "id": "x"}', "its file is no STAC that can be read: "),
        ],
    )
    def test_one_item_that_is_none_is_left_out_by_name(self, own: Path, broken: str | None, reason: str) -> None:
        path = self.optical(own)[0]
        path.unlink() if broken is None else path.write_text(broken)
        with pytest.warns(SceneSkippedWarning, match=path.name):
            scenes, skipped = archive_at(own / "catalog.json").search("optical", aoi(), [YEAR], max_cloud_percent=80.0)
        assert len(scenes) == 3
        (row,) = (row for row in skipped if "cloud" not in row.reason)
        assert row.id == str(path)
        assert row.reason.startswith(reason)

    def test_no_item_left(self, own: Path) -> None:
        for path in self.optical(own):
            path.unlink()
        with (
            pytest.warns(SceneSkippedWarning, match="5 optical scenes are not used"),
            pytest.raises(SourceError, match="5 were left out, the first because of its file is not there"),
        ):
            search(archive_at(own / "catalog.json"))

    @pytest.mark.parametrize(("broken", "reason"), [(None, "is not there"), ("{", "is not JSON")])
    @pytest.mark.parametrize("name", ["sentinel-2-l2a/collection.json", "catalog.json"])
    def test_a_broken_catalogue_is_named_without_a_word_of_the_network(
        self, own: Path, name: str, broken: str | None, reason: str
    ) -> None:
        path = own / name
        path.unlink() if broken is None else path.write_text(broken)
        with pytest.raises(SourceError) as caught:
            search(archive_at(own / "catalog.json"))
        said = str(caught.value)
        assert str(path) in said
        assert reason in said or (name == "catalog.json" and "does not exist" in said)
        assert "network" not in said

    def test_a_missing_collection_does_not_count_the_catalogue_itself(self, catalog: Path) -> None:
        archive = open_archive(StacSource(catalog=str(catalog), collection="sentinel-9"), "optical")
        with pytest.raises(SourceError, match=r"it has cop-dem-glo-30, sentinel-1-rtc, sentinel-2-l2a\."):
            archive.search("optical", aoi(), [SEASON], max_cloud_percent=80)

    @pytest.mark.parametrize(
        ("named", "told"),
        [
            ("planetary_computer", r"planetary_computer does not exist\. Did you mean planetary-computer\?"),
            ("Earth Search", r"Did you mean earth-search\?"),
            ("nowhere", r"nowhere does not exist\. Give planetary-computer, earth-search, cdse, the URL"),
            ("stac", r"stac is a folder, not a catalogue\. Name the file in it: stac/catalog\.json"),
            ("empty", r"empty is a folder, not a catalogue\. Give the path of its catalog\.json"),
        ],
    )
    def test_what_was_meant(self, own: Path, monkeypatch: pytest.MonkeyPatch, named: str, told: str) -> None:
        monkeypatch.chdir(own.parent)
        (own.parent / "empty").mkdir()
        with pytest.raises(MissingSourceError, match=told) as caught:
            search(archive_at(named))
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize("named", [*CATALOGS, "https://a.org/stac", "s3://bucket/catalog.json"])
    def test_what_is_not_on_disk_passes(self, named: str) -> None:
        asking.refuse_missing(named)

    def test_the_names_are_those_of_the_table(self) -> None:
        assert tuple(PROVIDERS) == CATALOGS


class TestNoNetwork:
    def test_a_name_that_cannot_be_resolved_is_tried_twice_and_told_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tries = []

        def unknown(*_: object, **__: object) -> None:
            tries.append(1)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with (
            pytest.warns(
                WetmapWarning, match=r"http://stac\.example: no answer yet \(its name cannot be resolved"
            ) as told,
            pytest.raises(SourceError, match=r"\(its name cannot be resolved: is there a network\?, 2 times\)"),
        ):
            search(archive_at("http://stac.example"))
        assert len(tries) == asking.NAME_TRIES == 2
        assert len(told) == 1
