"""STAC items that no archive means: a scene, or left out with the reason; never the end of a search."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import tiny_archive
from tests.fuzz import parsers
from tests.fuzz.fuzzing import ODD_TEXTS, ODD_VALUES, fuzzed, mutate, mutations
from wetmap.errors import WetmapError
from wetmap.recipe import StacSource
from wetmap.sources import Scene, Skipped, open_archive, stac
from wetmap.sources.secrets import without_secrets
from wetmap.sources.stac_item import absolute, unsigned

COLLECTIONS = {"optical": "sentinel-2-l2a", "radar": "sentinel-1-rtc", "terrain": "cop-dem-glo-30"}


@pytest.fixture(scope="module")
def archive_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed-archive")


@pytest.fixture(scope="module")
def items(archive_folder: Path) -> list[tiny_archive.Json]:
    return tiny_archive.link_to(tiny_archive.write_files(archive_folder), "https://x.org/files")


@fuzzed(150)
@given(rng=st.randoms(use_true_random=False), number=st.integers(0, 9))
def test_changed_items(rng: Any, number: int, items: list[tiny_archive.Json]) -> None:
    parsers.item(mutate(rng, items[number % len(items)]))


@pytest.mark.parametrize("odd", ODD_VALUES, ids=lambda odd: repr(odd)[:30])
def test_an_odd_value_anywhere(odd: Any, items: list[tiny_archive.Json]) -> None:
    """Each place of an optical, a radar and a terrain item, one after the other."""
    for base in (items[0], items[5], items[6]):
        for path in places(base):
            parsers.item(changed(base, path, odd))


def places(data: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data, as keys from the top."""
    keys = list(data) if isinstance(data, dict) else list(range(min(2, len(data)))) if isinstance(data, list) else []
    return [before, *(found for key in keys for found in places(data[key], (*before, key)))]


def changed(base: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    data = copy.deepcopy(base)
    here = data
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({("properties", "datetime"): "0001-01-01T00:00:00+23:00"}, "time"),
        ({("properties", "eo:cloud_cover"): 10**400}, ""),
        ({("assets", "SCL"): None}, "SCL"),
        ({("assets", "B02", "href"): 5}, "link"),
        ({("assets", "B02", "href"): ""}, "link"),
        ({("assets", "B02", "href"): "http://["}, "link"),
        ({("assets", "B02", "href"): "https://x.org/a\x00.tif"}, "link"),
        ({("assets", "B02", "raster:bands"): [{"scale": "nan"}]}, "scale"),
        ({("assets", "B02", "raster:bands"): [{"nodata": "none"}]}, "cannot be read"),
    ],
)
def test_traps(change: dict[tuple[str, ...], Any], reason: str, items: list[tiny_archive.Json]) -> None:
    data = items[0]
    for path, value in change.items():
        data = changed(data, path, value)
    one = parsers.item(data)[0]
    assert reason in (one.reason if isinstance(one, Skipped) else "")


@fuzzed(100)
@given(text=st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=60), st.text("htp:/[]?@=&#sig%", max_size=30)))
def test_any_link(text: str) -> None:
    assert isinstance(unsigned(text), str)
    assert isinstance(without_secrets("a " + text, text), str)


@fuzzed(25)
@given(rng=st.randoms(use_true_random=False), sensor=st.sampled_from(sorted(COLLECTIONS)))
def test_a_catalogue_with_a_changed_item(rng: Any, sensor: str, inside: Path, items: list[tiny_archive.Json]) -> None:
    """The others are found all the same, and nothing is written."""
    mine = [one for one in items if one["collection"] == COLLECTIONS[sensor]]
    bad = mutate(rng, mine[0])
    folder = inside / "stac"
    write(folder, COLLECTIONS[sensor], [bad, *mine[1:]])
    found = parsers.catalogue(folder / "catalog.json", sensor, COLLECTIONS[sensor], tiny_archive.aoi())
    if isinstance(found, str):
        assert sensor == "terrain" or "catalog" in found
        return
    scenes, _ = found
    good = {scene.id for scene in scenes}
    expected = {one["id"] for one in mine[1:] if one["properties"].get("eo:cloud_cover", 0) <= 80}
    in_season = {one["id"] for one in mine[1:] if "2021-06" <= one["properties"]["datetime"] < "2021-10"}
    assert (expected & in_season) - {str(bad.get("id")) if isinstance(bad, dict) else ""} <= good


def write(folder: Path, collection: str, items: list[Any]) -> None:
    """A static catalogue, written by hand: pystac would refuse."""
    folder.mkdir(exist_ok=True)
    head = {"type": "Catalog", "stac_version": "1.0.0", "description": "x", "id": "root"}
    member = {**tiny_archive.collections([{"collection": collection}])[0]}
    member["links"] = [{"rel": "item", "href": f"./{number}.json"} for number in range(len(items))]
    (folder / "catalog.json").write_text(json.dumps({**head, "links": [{"rel": "child", "href": "./collection.json"}]}))
    (folder / "collection.json").write_text(json.dumps(member))
    for number, one in enumerate(items):
        (folder / f"{number}.json").write_bytes(json.dumps(one).encode("utf-8", "surrogatepass"))


@fuzzed(25)
@given(rng=st.randoms(use_true_random=False))
def test_an_answer_of_an_api_with_a_changed_item(rng: Any, items: list[tiny_archive.Json], inside: Path) -> None:
    """As an API hands it out: the other scenes are found, and what is kept lies where it should."""
    mine = [one for one in items if one["collection"] == "sentinel-2-l2a"]
    answer = [mutate(rng, mine[0]), *mine[1:]]
    archive = open_archive(StacSource(catalog="https://x.org/stac", collection="sentinel-2-l2a"), "optical")
    archive = replace(archive, saved=inside / "kept")
    with parsers.quiet(), mock.patch.object(stac.Api, "ask", return_value=[absolute(one) for one in answer]):
        try:
            scenes, _ = archive.search("optical", tiny_archive.aoi(), list(parsers.SEASONS), max_cloud_percent=80.0)
        except WetmapError as error:
            parsers.refused(error)
            return
    assert all(isinstance(scene, Scene) and math.isfinite(scene.scale) for scene in scenes)
    assert {path.name for path in (inside / "kept").iterdir()} == {
        f"optical-2021-{month:02d}-01_2021-{month:02d}-{days}.json"
        for month, days in ((6, 30), (7, 31), (8, 31), (9, 30))
    }


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a\x00b", "x" * 5000, "a\nb", "\ud800", "..", "."])
def test_names_of_scenes_are_no_paths(name: str, items: list[tiny_archive.Json], inside: Path) -> None:
    mine = [{**one, "id": name} for one in items if one["collection"] == "sentinel-2-l2a"][:1]
    write(inside / "stac", "sentinel-2-l2a", mine)
    found = parsers.catalogue(inside / "stac" / "catalog.json", "optical", "sentinel-2-l2a", tiny_archive.aoi())
    assert isinstance(found, str) or len(found[0]) == 1
    assert {path.name for path in inside.rglob("*")} == {"stac", "catalog.json", "collection.json", "0.json"}


@fuzzed(60)
@given(data=st.one_of(st.binary(max_size=80), st.text("[]=:#;% \n\\awskey", max_size=60).map(str.encode)))
def test_any_address_and_credentials_of_an_object_store(data: bytes, inside: Path) -> None:
    parsers.s3(data, inside)


@fuzzed(20)
@given(data=mutations({"a": [1, {"b": "c"}], "d": "e"}))
def test_the_changer_changes(data: Any) -> None:
    json.dumps(data)
