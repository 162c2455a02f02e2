"""What a run costs before anything is known of it: passes of satellites, blocks of an area, memory of sampling."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from wetmap.cluster import Workers
from wetmap.recipe import Recipe
from wetmap.recipe_file import load_recipe
from wetmap.stages import expected
from wetmap.stages.context import Context, Silent
from wetmap.workspace import Workspace


def test_passes_of_sentinel_2_at_the_equator_and_in_new_brunswick() -> None:
    # 143 orbits of 290 km in 10 days: 1.035 looks at the equator, 1 / cos(latitude) times as many elsewhere
    assert expected.passes(10, 10.0, 143, 290.0, 0.0) == pytest.approx(143 * 290 / 40075)
    assert expected.passes(10, 10.0, 143, 290.0, 60.0) == pytest.approx(2 * 143 * 290 / 40075)


def seasons_of(year: int) -> Recipe:
    days = {"start": f"{year}-06-01", "end": f"{year}-06-30"}
    return Recipe.model_validate({"seasons": [{"name": "summer", **days}]})


def test_looks_follow_the_days_the_satellites_and_the_orbit_states() -> None:
    assert expected.looks_of(seasons_of(2021), "optical", 46.5) == pytest.approx(2 * 3 * 1.503, rel=0.01)
    both = expected.looks_of(seasons_of(2021), "radar", 46.5)
    assert both == pytest.approx(2 * 2 * 30 / 12 * 1.586, rel=0.01)
    assert expected.looks_of(seasons_of(2023), "radar", 46.5) == pytest.approx(both / 2), "one satellite"
    one = seasons_of(2021)
    one = one.model_copy(update={"features": one.features.model_copy(update={"orbit_states": ["ascending"]})})
    assert expected.looks_of(one, "radar", 46.5) == pytest.approx(both / 2)
    assert expected.looks_of(seasons_of(2021), "terrain", 46.5) == 1.0
    assert expected.ONE_RADAR_SATELLITE[0] < dt.date(2023, 6, 15) < expected.ONE_RADAR_SATELLITE[1]


def context_of(folder: Path, **changes: Any) -> Context:
    ring = [[-66.0, 45.0], [-65.9, 45.0], [-65.95, 45.1], [-66.0, 45.0]]
    (folder / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    recipe = load_recipe(None, {"aoi": str(folder / "area.geojson"), "grid.crs": "EPSG:2953", **changes})
    return Context(recipe, recipe, Workspace(folder / "space"), Workers(recipe.cluster, folder), Silent())


def test_only_blocks_that_hold_something_of_the_area_count(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    blocks, pixels = expected.touched(context, 128)
    whole = list(context.grid.blocks(128))
    assert 0.4 * len(whole) < blocks < 0.8 * len(whole)
    triangle = context.aoi.area_ha * 100
    assert triangle < pixels < 1.6 * triangle
    assert expected.touched(context, 10_000) == (1, context.grid.height * context.grid.width)
    assert expected.touched(context, 128, reach_px=200)[0] > blocks


def test_what_is_read_follows_the_pixels_of_the_bands(tmp_path: Path) -> None:
    features = {"features.preset": "custom", "features.optical": ["B02", "B11"], "features.indices": []}
    context = context_of(tmp_path, **features, **{"features.radar": [], "sources.radar": None})
    told = expected.reading(context)
    (looks,) = told["typical_looks"].values()
    _, pixels = expected.touched(context, context.recipe.grid.block_px, 32)
    # B02 on 10 m, B11 and the scene classification on 20 m, two bytes each
    assert told["typical_read_gb"] == pytest.approx(looks * pixels * 2 * 1.5 / 1e9, rel=0.02, abs=1e-3)
    simulated = {"sources.optical": {"from": "simulated"}, "features.radar": []}
    assert expected.reading(context_of(tmp_path, **features, **simulated)) == {}


def test_a_busy_machine_is_named_beside_the_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr("os.getloadavg", lambda: (12.1, 1.0, 1.0), raising=False)
    assert expected.load_words() == "load 12 on 2 cores"
    mapped = {"hours": 22.0, "workers": 2, "busy": expected.load_words()}
    line = expected.lines({"predict": mapped, "free_gb": 1.0})[-1]
    assert "22.0 hours of inference" in line
    assert "(this machine is busy: load 12 on 2 cores; idle it takes less); other machines differ" in line
    monkeypatch.setattr("os.getloadavg", lambda: (2.0, 9.0, 9.0), raising=False)
    assert expected.load_words() == ""
    assert "busy" not in expected.lines({"predict": {"hours": 1.0, "workers": 2}, "free_gb": 1.0})[-1]
