"""A search through the front door: what a dry run lists, and a plan that failed half way goes on where it stopped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from shapely.geometry import mapping

from tests.fakes import tiny_archive
from tests.fakes.stac_api import make_app, serve
from tests.walk.conftest import Run

MONTHS = ("2021-06", "2021-07", "2021-08", "2021-09")


class Door:
    """Stands before the API: notes each search, and refuses those of a month with 500."""

    def __init__(self, app: Any) -> None:
        self.app, self.asked, self.refused = app, Counter[str](), ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/search":
            await self.app(scope, receive, send)
            return
        message = await receive()
        asked = json.loads(message["body"])
        name = f"{asked['collections'][0]} {str(asked.get('datetime') or 'all')[:7]}"
        self.asked[name] += 1
        if self.refused and name.endswith(self.refused):
            await send({"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"not now"})
            return
        waiting = [message]

        async def again() -> Any:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, again, send)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[Door, str]]:
    items = tiny_archive.write_files(tmp_path / "archive")
    served = tiny_archive.link_to(items, "")
    door = Door(make_app(tiny_archive.collections(items), served, tmp_path / "archive", Counter()))
    with serve(door) as url:  # type: ignore[arg-type]
        for one in served:
            for body in one["assets"].values():
                body["href"] = f"{url}/files{body['href']}?sig=SECRET"
        yield door, url


def recipe_at(folder: Path, url: str, **changes: Any) -> Path:
    (folder / "area.geojson").write_text(json.dumps(mapping(tiny_archive.aoi().geometry)))
    source = {"from": "stac", "catalog": url}
    recipe: dict[str, Any] = {
        "aoi": "area.geojson",
        "workspace": "space",
        "seasons": [{"name": "summer", "start": "2021-06-01", "end": "2021-09-30"}],
        "sources": {"optical": source, "radar": source, "terrain": source},
        "features": {"preset": "custom", "optical": ["B02", "B11"], "indices": [], "terrain": ["elevation"]},
        "cluster": {"workers": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, **changes}))
    return path


def test_a_dry_run_lists_every_scene(door: tuple[Door, str], tmp_path: Path, wetmap: Run) -> None:
    recipe = recipe_at(tmp_path, door[1])
    before = sorted(path for path in tmp_path.rglob("*"))
    result = json.loads(wetmap("fetch", "--recipe", recipe, "--dry-run", "--json").stdout)["fetch"]
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert result["scenes"] == {"optical": 3, "radar": 4, "terrain": 1}
    assert result["scenes_by_month"]["optical"] == {"2021-06": 1, "2021-07": 1, "2021-08": 1}
    assert result["scenes_by_month"]["terrain"] == {"": 1}
    listed = {row["id"]: row for row in result["scene_list"]}
    assert len(listed) == 8
    first = listed["S2A_20210610"]
    assert (first["datetime"][:10], first["cloud_percent"], first["relative_orbit"]) == ("2021-06-10", 20.0, 11)
    assert listed["S1A_2021-06-15_descending_0"]["orbit_state"] == "descending"
    assert [row["id"] for row in result["skipped"]] == ["S2A_20210901"]
    # 57 x 61 px of 10 m: B02 on 10 m, B11 and SCL on 20 m, 2 bytes each. The rim of the area is no whole number.
    pixels = 57 * 61
    assert first["gb"] == pytest.approx((pixels * 2 + 2 * pixels / 4 * 2) / 1e9, rel=0.1)
    assert result["hours"] == pytest.approx(result["read_gb"] * 1000 / result["assumed_mb_per_s"] / 3600, abs=1e-3)
    said = wetmap("fetch", "--recipe", recipe, "--dry-run").stdout
    assert "Scenes: optical 3 (2021-06 1, 2021-07 1, 2021-08 1), about 1 MB" in said
    assert "at 20 MB/s" in said
    assert "1 left out, the first: S2A_20210901 (95.0 % cloud" in said
    assert "scene list" not in said


def test_a_dry_run_without_a_network_says_so(tmp_path: Path, wetmap: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wetmap.sources.stac_search.FIRST_WAIT", 0.0)
    recipe = recipe_at(tmp_path, "http://127.0.0.1:9")
    said = wetmap("fetch", "--recipe", recipe, "--dry-run").stdout
    assert "not known: The STAC API http://127.0.0.1:9 cannot be searched" in said
    assert "Check the URL and the network" in said, "the advice too"
    assert "Grid:" in said


@pytest.mark.parametrize("verb", [("recipe", "check"), ("fetch", "--dry-run", "--recipe"), ("fetch", "--recipe")])
def test_radar_of_an_archive_that_has_none_is_refused_at_once(
    verb: tuple[str, ...], tmp_path: Path, wetmap: Run
) -> None:
    source = {"from": "stac", "catalog": "earth-search"}
    features = {"preset": "custom", "optical": [], "indices": [], "radar": ["VV"]}
    recipe = recipe_at(tmp_path, "", sources={"optical": None, "radar": source, "terrain": None}, features=features)
    said = wetmap(*verb, recipe, expect=1).stderr
    assert "No radar scenes can be taken from Earth Search" in said
    assert "radar: {from: stac, catalog: planetary-computer}" in said


def test_a_plan_that_failed_goes_on_where_it_stopped(door: tuple[Door, str], tmp_path: Path, wetmap: Run) -> None:
    front, url = door
    recipe = recipe_at(tmp_path, url)
    front.refused = "2021-08"
    said = wetmap("fetch", "--recipe", recipe, expect=1).stderr
    assert "for 2021-08-01 to 2021-08-31 (HTTP 400: not now)" in said
    assert front.asked == {f"sentinel-2-l2a {month}": 1 for month in MONTHS[:3]}
    front.refused = ""
    front.asked.clear()
    wetmap("fetch", "--recipe", recipe)
    optical, radar = "sentinel-2-l2a", "sentinel-1-rtc"
    once = [
        *(f"{optical} {month}" for month in MONTHS[2:]),
        *(f"{radar} {month}" for month in MONTHS),
        "cop-dem-glo-30 all",
    ]
    assert front.asked == dict.fromkeys(once, 1), "June and July of the optical scenes were kept"
    plan = next((tmp_path / "space/stages/plan").glob("*/plan.json"))
    assert len(json.loads(plan.read_text())["scenes"]) == 8
    assert len(list((plan.parent / "search").iterdir())) == 9
    for path in (tmp_path / "space").rglob("*.json*"):
        assert "SECRET" not in path.read_text(), path
