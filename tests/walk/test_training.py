"""What a training leaves behind, and the dense model from recipe to map, through the front door."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.walk.conftest import Run, write_recipe

CHARTS = ("class-f1.png", "confusion.png", "learning.png", "reliability.png")


def manifest(folder: Path) -> dict:
    return json.loads(next((folder / "space/stages/train").glob("*/manifest.json")).read_text())


def test_the_model_comes_with_its_charts(small: Path) -> None:
    for name in CHARTS:
        with Image.open(small / "space/model" / name) as picture:
            assert min(picture.size) > 300, name


def test_scores_have_intervals_over_reference_features_and_two_baselines(small: Path) -> None:
    made = manifest(small)
    assert set(made["intervals"]) == {"wetmapformer-window", "forest", "boosting"}
    for name, found in made["intervals"].items():
        macro = found["macro_f1"]
        assert macro["low"] < macro["value"] < macro["high"]
        assert macro["value"] == pytest.approx(made["scores"][name]["macro_f1"])
        assert 5 < found["groups"] < found["n"], "groups are polygons, not pixels"
        assert [row["name"] for row in found["classes"]] == ["water", "wetland", "upland"]


def test_the_bundle_is_calibrated_on_the_validation_fold(small: Path) -> None:
    card = json.loads((small / "space/model/model.json").read_text())
    found = card["calibration"]
    assert 0.05 < found["temperature"] < 20
    assert found["samples"] == "validation"
    assert found["ece_after"] <= found["ece_before"] + 0.02
    assert 0 <= found["test_ece_after"] <= 1
    assert card["intervals"]["forest"]["macro_f1"]["low"] is not None


@pytest.fixture(scope="module")
def dense(small: Path, tmp_path_factory: pytest.TempPathFactory, wetmap: Run) -> Path:
    """The same cube, mapped by the dense model."""
    folder = tmp_path_factory.mktemp("dense") / "walk"
    shutil.copytree(small, folder)
    write_recipe(folder, model={"name": "wetmapformer", "options": {"window": 8}})
    wetmap("run", folder / "recipe.yaml")
    return folder


def test_the_dense_model_learns_from_the_same_samples_and_maps(small: Path, dense: Path) -> None:
    card = json.loads((dense / "space/model/model.json").read_text())
    assert (card["model"], card["window"], card["geometry"]["margin"]) == ("wetmapformer", 8, 28)
    ours = json.loads(next((dense / "space/stages/report").glob("*/manifest.json")).read_text())
    assert ours["truth"]["agreement"] > ours["truth"]["commonest_agreement"] + 0.1
    before, after = (
        json.loads((folder / "space/model/model.json").read_text())["scores"]["forest"] for folder in (small, dense)
    )
    assert before == after, "the forest beside it saw the same samples"


def test_blocks_change_no_byte_of_a_dense_map(dense: Path, tmp_path: Path, wetmap: Run) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dense, copy)
    for stage in ("predict", "mosaic", "report"):
        shutil.rmtree(copy / "space/stages" / stage)
    shutil.rmtree(copy / "space/map")
    wetmap("predict", "--workspace", copy / "space", "--block-px", "512")
    for name in ("classes.tif", "confidence.tif", "areas.csv"):
        assert (copy / "space/map" / name).read_bytes() == (dense / "space/map" / name).read_bytes(), name


def test_the_default_model_is_the_dense_one(tmp_path: Path, wetmap: Run) -> None:
    path = write_recipe(tmp_path)
    recipe = yaml.safe_load(path.read_text())
    del recipe["model"]
    path.write_text(yaml.safe_dump(recipe))
    shown = yaml.safe_load(wetmap("recipe", "show", path).stdout)
    assert shown["model"]["name"] == "wetmapformer"
