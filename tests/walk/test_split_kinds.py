"""Kinds of split through the front door: the published one marks what it touches, the map of the split is there."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import geopandas
import pytest
from PIL import Image

from tests.walk.conftest import RECIPE, Run, write_recipe


def manifest(folder: Path, stage: str) -> dict[str, Any]:
    """What the stage said under the key it was last worked on."""
    return json.loads((current(folder, stage) / "manifest.json").read_text())


def current(folder: Path, stage: str) -> Path:
    root = folder / "space/stages" / stage
    return root / json.loads((root / "current.json").read_text())["key"]


def table(cubes: Path) -> list[dict[str, str]]:
    """The samples of a stage's folder."""
    return [*csv.DictReader((cubes / "samples.csv").read_text(encoding="utf-8").splitlines())]


def train(source: Path, folder: Path, wetmap: Run, *more: str, **changes: Any) -> str:
    """Train in a copy of a finished workspace, so that the imagery is there."""
    if not folder.exists():
        shutil.copytree(source, folder)
    training = {**RECIPE["training"], "epochs": 1}
    return wetmap("train", "--recipe", write_recipe(folder, training=training, **changes), *more).stdout


@pytest.fixture(scope="module")
def published(small: Path, tmp_path_factory: pytest.TempPathFactory, wetmap: Run) -> tuple[Path, str, str]:
    """The small recipe with the paper's split: the folder, what was printed, and the warnings."""
    folder = tmp_path_factory.mktemp("published") / "copy"
    shutil.copytree(small, folder)
    training = {**RECIPE["training"], "epochs": 1}
    done = wetmap("run", write_recipe(folder, training=training, splits={"kind": "paper"}))
    return folder, done.stdout, done.stderr


def test_the_published_split_marks_every_figure(published: tuple[Path, str, str], wetmap: Run) -> None:
    folder, said, warned = published
    split = manifest(folder, "cubes")["split"]
    assert split["kind"] == "paper"
    assert split["leaks"] is True
    assert split["leakage"] > 0.5
    assert split["buffer_px"] == split["dropped"] == 0
    assert f"warning: splits.kind paper LEAKS: {split['leakage']:.0%} of the test windows" in warned
    scores = [
        line for line in said.splitlines() if "macro F1" in line or "forest" in line or "commonest class  " in line
    ]
    assert len(scores) == 3
    assert all(line.startswith("LEAKS: ") for line in scores)
    page = (folder / "space/map/report.html").read_text()
    assert "<strong>LEAKS</strong> — the scores on this page are too good" in page
    assert page.count("LEAKS: macro F1 of") == 4
    result = json.loads(wetmap("run", folder / "recipe.yaml", "--json").stdout)
    assert result["leaks"] is True
    assert result["leak_note"].startswith("LEAKS: ")
    assert "as published" in json.loads((folder / "space/model/model.json").read_text())["split"]


def test_an_honest_split_is_marked_nowhere(small: Path, wetmap: Run) -> None:
    said = wetmap("run", small / "recipe.yaml")
    assert "LEAKS" not in said.stdout + said.stderr
    assert "LEAKS" not in (small / "space/map/report.html").read_text()
    assert manifest(small, "cubes")["split"]["leaks"] is False
    assert json.loads(wetmap("run", small / "recipe.yaml", "--json").stdout)["leaks"] is False


def test_the_map_of_the_split_is_there_and_follows_the_fold(small: Path, tmp_path: Path, wetmap: Run) -> None:
    first = current(small, "cubes")
    with Image.open(first / "split.png") as picture:
        assert picture.width > 600
    page = (small / "space/map/report.html").read_text()
    assert 'alt="SIMULATED' not in page
    assert "Map of the reference samples by their use: " in page
    train(small, tmp_path / "other", wetmap, splits={**RECIPE["splits"], "test_fold": 1})
    second = current(tmp_path / "other", "cubes")
    assert (second / "split.png").read_bytes() != (first / "split.png").read_bytes()
    rows, others = (table(place) for place in (first, second))
    # The same samples in the same folds; only what they are used for changes.
    assert [(row["x"], row["y"]) for row in rows] == [(row["x"], row["y"]) for row in others]
    assert {row["fold"] for row in rows if row["role"] == "test"} == {"0"}
    assert {row["fold"] for row in others if row["role"] == "test"} == {"1"}
    counted = manifest(small, "cubes")["split"]["counts"]
    for role in ("train", "validation", "test", "dropped"):
        assert sum(row["role"] == role for row in rows) == sum(by_role[role] for by_role in counted.values())


def test_one_site_is_held_out_from_the_others(small: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = tmp_path / "sites"
    shutil.copytree(small, folder)
    archive = next((folder / "space/stages/simulate").glob("*/archive/reference.gpkg"))
    frame = geopandas.read_file(archive)
    x = frame.geometry.centroid.x
    frame["place"] = ["Albert" if at < x.quantile(0.4) else "Grand Bay" if at < x.quantile(0.7) else "York" for at in x]
    frame.to_file(folder / "sites.gpkg")
    reference = {"path": "sites.gpkg", "class_field": "CLASS", "site_field": "place"}
    result = json.loads(
        train(small, folder, wetmap, "--json", reference=reference, splits={"kind": "sites", "test_fold": 1})
    )
    split = result["split"]
    assert (split["test_site"], split["validation_site"]) == ("Grand Bay", "York")
    assert split["sites"] == ["Albert", "Grand Bay", "York"]
    assert split["leakage"] == 0
    rows = table(current(folder, "cubes"))
    assert {row["site"] for row in rows if row["role"] == "test"} == {"Grand Bay"}
    assert {row["site"] for row in rows if row["role"] == "train"} == {"Albert"}
    assert "Grand Bay" in json.loads((folder / "space/model/model.json").read_text())["split"]
