"""A changed recipe makes exactly the affected stages new, says so, and never mixes old and new."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.walk.conftest import RECIPE, Run, write_recipe

STAGES = ("simulate", "plan", "fetch", "background", "cubes", "train", "predict", "mosaic", "report")
CLASSES: list[dict[str, Any]] = RECIPE["classes"]


def states(said: str) -> dict[str, str]:
    """What the run said of every stage."""
    return {
        stage: match[1] for stage in STAGES if (match := re.search(rf"^{stage}: (already|made new|begins)", said, re.M))
    }


@pytest.mark.parametrize(
    ("changes", "first_new", "because"),
    [
        (
            {"seasons": [{"name": "summer", "start": "2021-06-10", "end": "2021-08-31"}]},
            "plan",
            "2021-06-01 -> 2021-06-10",
        ),
        ({"features": {"preset": "custom", "optical": ["B03", "B08"], "indices": ["NDWI"]}}, "fetch", "bands"),
        ({"classes": [CLASSES[0], {**CLASSES[1], "name": "marshland"}, CLASSES[2]]}, "cubes", "wetland -> marshland"),
        ({"classes": [{**CLASSES[0], "colour": "#0000ff"}, *CLASSES[1:]]}, "mosaic", "#0000ff"),
        ({"training": {**RECIPE["training"], "epochs": 1}}, "train", "epochs: 4 -> 1"),
    ],
    ids=["date", "band", "class", "colour", "epochs"],
)
def test_exactly_the_affected_stages_are_made_new(
    small: Path, tmp_path: Path, wetmap: Run, changes: dict[str, Any], first_new: str, because: str
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(small, folder)
    write_recipe(folder, **changes)
    before = {path.name for path in (folder / "space/stages").glob("*/*") if path.is_dir()}
    said = wetmap("run", folder / "recipe.yaml").stderr
    number = STAGES.index(first_new)
    assert states(said) == {stage: "already" if place < number else "made new" for place, stage in enumerate(STAGES)}, (
        said
    )
    assert because in said
    after = [path for path in (folder / "space/stages").glob("*/*") if path.is_dir() and path.name not in before]
    assert sorted(path.parent.name for path in after) == sorted(STAGES[number:])
    assert "already done" in wetmap("run", folder / "recipe.yaml").stderr


def test_going_back_finds_the_old_work_and_publishes_the_old_map(small: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "back"
    shutil.copytree(small, folder)
    old = (folder / "space/map/classes.tif").read_bytes()
    write_recipe(folder, seed=2)
    wetmap("run", folder / "recipe.yaml")
    write_recipe(folder)
    assert set(states(wetmap("run", folder / "recipe.yaml").stderr).values()) == {"already"}
    assert (folder / "space/map/classes.tif").read_bytes() == old


def test_changed_recipe_needs_a_fetch_before_train(small: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "stale"
    shutil.copytree(small, folder)
    write_recipe(folder, features={"preset": "custom", "optical": ["B03"], "indices": []})
    said = wetmap("train", "--recipe", folder / "recipe.yaml", expect=1).stderr
    assert "no finished cube for this area and recipe (changed since the last fetch: " in said
    assert "Run wetmap fetch" in said
