"""What a stage says when more failed than is allowed, and when a layer has no scene."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wetmap.cube import bands_of
from wetmap.errors import SourceError, TooManyFailuresError
from wetmap.ledger import Entry
from wetmap.recipe import Recipe
from wetmap.recipe_file import load_recipe
from wetmap.sources import Scene
from wetmap.stages.context import _refuse_failures
from wetmap.stages.fetch_block import _entry
from wetmap.stages.plan import refuse_empty_layers


def lost(count: int) -> list[dict[str, str]]:
    return [{"scene": f"S{number}", "sensor": "optical", "bands": "B02", "reason": "gone."} for number in range(count)]


@pytest.mark.parametrize(
    ("count", "of", "allowed", "told"),
    [
        (
            2,
            31,
            0.05,
            "2 of 31 scenes near it could not be read (6.5 %), more than the 5 % allowed, the first is S0: gone.",
        ),
        (
            1,
            1,
            0.0,
            "1 of 1 scene near it could not be read (100 %), more than the 0 % allowed, the first is S0: gone.",
        ),
        (
            1,
            3,
            0.02,
            "1 of 3 scenes near it could not be read (33.4 %), more than the 2 % allowed, the first is S0: gone.",
        ),
    ],
)
def test_a_block_says_the_share_of_scenes_that_decided(count: int, of: int, allowed: float, told: str) -> None:
    entry = _entry("b", lost(count), of, allowed, {})
    assert (entry.status, entry.reason) == ("failed", told)
    enough = float(told.partition("(")[2].partition(" %")[0]) / 100
    assert _entry("b", lost(count), of, enough, {}).status == "done", "what is printed is enough"


@pytest.mark.parametrize(
    ("blocks", "told"),
    [(1, "1 of 1 block of fetch failed, more than the 2.5 % that are allowed;"), (2, "1 of 2 blocks of fetch")],
)
def test_the_stage_says_how_many_blocks(blocks: int, told: str) -> None:
    entries = [Entry("a", "failed", "why"), *(Entry(str(number), "done") for number in range(blocks - 1))]
    with pytest.raises(TooManyFailuresError) as caught:
        _refuse_failures(entries, 0.025, "fetch")
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(("tracks", "named"), [([62], True), ([], False)])
def test_a_layer_without_a_scene_names_the_tracks_that_were_asked_for(tracks: list[int], named: bool) -> None:
    recipe = Recipe.model_validate({"radar": {"relative_orbits": tracks}})
    context: Any = SimpleNamespace(recipe=recipe, aoi=SimpleNamespace(name="area"))
    scene = Scene("x", "radar", "", orbit_state="ascending", seasons=("summer",), bands=("VV", "VH"))
    assert any("radar_descending" in band.layer for band in bands_of(recipe))
    with pytest.raises(SourceError, match=r"radar_descending") as caught:
        refuse_empty_layers(context, [scene])
    assert ("radar.relative_orbits ([62])" in caught.value.do) is named


def test_a_catalogue_that_is_a_folder_beside_the_recipe(tmp_path: Path) -> None:
    for name in ("arch", "cdse"):
        (tmp_path / name).mkdir()
    (tmp_path / "r.yaml").write_text(
        "sources: {optical: {from: stac, catalog: arch}, radar: {from: stac, catalog: cdse}}"
    )
    sources = load_recipe(tmp_path / "r.yaml").sources
    assert sources.optical is not None
    assert sources.optical.catalog == str(tmp_path / "arch")  # type: ignore[union-attr]
    assert sources.radar.catalog == "cdse"  # type: ignore[union-attr]
