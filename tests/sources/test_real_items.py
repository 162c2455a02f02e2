"""Every real item is understood, and the page that says how is true."""

from __future__ import annotations

import importlib.util

import pytest

from tests.sources import real_items
from wetmap.sources import Scene
from wetmap.sources.duplicates import newest
from wetmap.sources.providers import PROVIDERS
from wetmap.sources.stac_item import decide, sensor_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not real_items.ITEMS.is_dir(), reason="the real STAC items lie beside the checkout only here"),
]
HERE = real_items.files() if real_items.ITEMS.is_dir() else []
needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="parquet needs pyarrow")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[needs_pyarrow] if name.endswith("parquet") else []) for name in HERE]
)
def test_the_page_says_what_is_made_of_every_item(name: str) -> None:
    """On purpose to the letter: a change of a decision shows in the docs. See ``real_items`` for how to write it."""
    page = real_items.sections_of(real_items.PAGE.read_text(encoding="utf-8"))
    assert page[name] == real_items.section(name)


def test_the_page_has_every_file_and_no_other() -> None:
    assert sorted(real_items.sections_of(real_items.PAGE.read_text(encoding="utf-8"))) == sorted(HERE)


def test_hundred_items_are_a_hundred_scenes_of_which_two_are_two_pieces_of_one_datatake() -> None:
    """Read from the page, so that it is looked at without pyarrow, too."""
    rows = [
        row
        for row in real_items.sections_of(real_items.PAGE.read_text(encoding="utf-8"))[real_items.PARQUET].splitlines()
        if row.startswith("| S2")
    ]
    assert len(rows) == 100
    assert all("| optical |" in row and "| -0.1: s2:processing_baseline" in row for row in rows)
    assert sum("_20240530T174909_R141_T13TDE_" in row for row in rows) == 2


@needs_pyarrow
def test_pieces_of_a_datatake_are_no_duplicates() -> None:
    items = real_items._from_parquet(real_items.ITEMS / real_items.PARQUET)
    scenes = [decide(item, "optical", [], PROVIDERS["planetary-computer"]) for item in items]
    found = [scene for scene in scenes if isinstance(scene, Scene)]
    assert len(found) == 100
    assert newest(found) == (found, [])


def test_what_titles_say_is_not_believed() -> None:
    """Planetary Computer's GRD items are described as terrain-corrected; its RTC items say product type GRD."""
    grd = next(real_items._from_json(real_items.ITEMS / "planetary_computer/sentinel-1-grd_3items.json"))
    assert "terrain correction applied" in grd["assets"]["vv"]["description"]
    refused = decide(grd, "radar", [], PROVIDERS["planetary-computer"])
    assert not isinstance(refused, Scene)
    assert "GRD without terrain correction" in refused.reason
    rtc = next(real_items._from_json(real_items.ITEMS / "planetary_computer/sentinel-1-rtc_4items.json"))
    assert rtc["properties"]["sar:product_type"] == "GRD"
    scene = decide(rtc, "radar", [], PROVIDERS["planetary-computer"])
    assert isinstance(scene, Scene)
    assert (scene.orbit_state, scene.relative_orbit, scene.platform) == ("descending", 51, "SENTINEL-1A")


@pytest.mark.parametrize("sensor", real_items.SENSORS)
def test_no_item_is_taken_for_another_sensors(sensor: str) -> None:
    """Every item offered as every sensor: it is a scene of its own sensor or of none."""
    for name in HERE:
        if name.endswith(".json") and name not in real_items.NO_ITEMS:
            for item in real_items._from_json(real_items.ITEMS / name):
                for provider in PROVIDERS.values():
                    decided = decide(item, sensor, [], provider)  # type: ignore[arg-type]
                    assert not isinstance(decided, Scene) or sensor_of(item) == sensor, item["id"]
