"""What the report takes from beside the map: only what is of this map, and whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.report.test_page import assessment
from wetmap.geo import Grid
from wetmap.products.geotiff import write_cog
from wetmap.recipe import Recipe
from wetmap.report.compare_table import CompareHead, CompareRow, compare_json
from wetmap.stages import report_sources as sources
from wetmap.workspace import StageFolder, Workspace

GOOD = {**assessment(), "map_sha256": "this map"}


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run whose map has the checksum ``this map`` and whose cube is ``this cube``."""
    monkeypatch.setattr(sources.mosaic, "folder_of", lambda _: StageFolder("mosaic", "key", tmp_path))
    monkeypatch.setattr(sources.fetch, "identity", lambda _: "this cube")
    monkeypatch.setattr(sources, "_codes_of", lambda _: "this map")
    (tmp_path / "nb-wetmap").mkdir()
    return SimpleNamespace(workspace=Workspace(tmp_path / "nb-wetmap"), recipe=Recipe(aoi=tmp_path / "nb.geojson"))


def put(context: Any, text: str) -> None:
    folder = context.workspace.root / "assessment"
    folder.mkdir(exist_ok=True)
    (folder / "accuracy.json").write_text(text)


def test_without_an_assessment_the_page_is_asked_nothing_more(context: Any) -> None:
    assert sources.assessment_of(context) == sources.Assessment(None, "")
    assert sources.asked_of_assessment(context) == {}


def test_an_assessment_of_this_map_is_shown(context: Any) -> None:
    put(context, json.dumps(GOOD))
    found = sources.assessment_of(context)
    assert found.result == GOOD
    assert found.note == ""
    assert sources.asked_of_assessment(context) == {"assessment": hashlib.sha256(json.dumps(GOOD).encode()).hexdigest()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps({**GOOD, "map_sha256": "0" * 64}), "is of another map than this one"),
        (json.dumps(assessment()), "does not say of which map it is"),
        (json.dumps({key: GOOD[key] for key in GOOD if key != "overall"}), "lacks figures"),
        (json.dumps({**GOOD, "classes": [{}]}), "lacks figures"),
        (json.dumps({**GOOD, "basis": "agreement"}), "lacks figures"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
    ],
)
def test_another_or_a_broken_one_is_named_and_not_shown(context: Any, text: str, said: str) -> None:
    put(context, text)
    found = sources.assessment_of(context)
    assert found.result is None
    assert said in found.note
    assert "Run wetmap assess again for this map" in found.note
    asked = sources.asked_of_assessment(context)["assessment"]
    assert asked == f"{hashlib.sha256(text.encode()).hexdigest()}, not shown"


def test_a_comparison_of_this_cube_is_shown_and_one_of_another_is_not(context: Any) -> None:
    assert sources.comparison_of(context) == (None, "")
    folder = context.workspace.root / "compare"
    folder.mkdir()
    table = compare_json([CompareRow("unet", "dense", macro_f1=0.7)], CompareHead(title="Models compared"))
    (folder / "compare.json").write_text(table)
    for about, text, shown in (
        ({"cube": "this cube"}, table, True),
        ({"cube": "another"}, table, False),
        ({}, table, False),
        ({"cube": "this cube"}, "{", False),
        ({"cube": "this cube"}, json.dumps({"head": {"nothing": 1}, "rows": []}), False),
    ):
        (folder / "manifest.json").write_text(json.dumps(about))
        (folder / "compare.json").write_text(text)
        found, digest = sources.comparison_of(context)
        assert (found is not None, bool(digest)) == (shown, shown), about
        assert bool(sources.asked_of_comparison(context)) is shown


def test_the_commands_name_the_area_or_the_workspace(context: Any, tmp_path: Path) -> None:
    assert sources.assess_commands(context) == [
        "wetmap sample --aoi nb.geojson --units 600 --least 50",
        "wetmap assess --aoi nb.geojson --reference nb-wetmap/sample.gpkg",
    ]
    context.workspace = Workspace(tmp_path / "my maps")
    assert sources.assess_commands(context)[1] == (
        "wetmap assess --workspace 'my maps' --reference 'my maps/sample.gpkg'"
    )


def test_the_share_below_a_value_leaves_nodata_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "WINDOW_PX", 7)
    grid = Grid("EPSG:32620", 10.0, 300_000.0, 5_100_000.0, 10, 20)
    percent = np.full(grid.shape, 255, np.uint8)
    percent[:5] = 50
    percent[:1] = 49
    about = {"nodata": 255, "overview": "average", "colours": None, "description": "confidence", "tags": {}}
    write_cog(tmp_path / "c.tif", grid, lambda block: percent[block.slices], dtype="uint8", **about)
    assert sources.share_below(tmp_path / "c.tif", 50) == pytest.approx(20.0)
    percent[:] = 255
    write_cog(tmp_path / "d.tif", grid, lambda block: percent[block.slices], dtype="uint8", **about)
    assert sources.share_below(tmp_path / "d.tif", 50) is None
