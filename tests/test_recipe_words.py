"""Who is to blame for what a recipe cannot say: the file, or a flag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wetmap.cli.main import app
from wetmap.errors import RecipeError
from wetmap.recipe_file import load_recipe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text("seed: 5")
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"predict.keep": 0.0}, "--keep: predict.keep is 0.0: "),
        ({"compare.minutes": 0.0, "predict.keep": None}, "--minutes: compare.minutes is 0.0: "),
        ({"compare.window_px": 3}, "--window: compare.window_px is 3: "),
        ({"compare.folds": [0, 0]}, "--folds: compare.folds: a fold is named twice"),
        ({"reference.path": 3, "reference.class_field": "C"}, "--reference: reference"),
        ({"predict.budget": "5"}, "--budget: predict: '5' is neither a time nor a rate; write it like 90s, 20m"),
        ({"predict.budget": "5m", "predict.tokens": 4}, "--budget and --tokens: predict: budget chooses"),
    ],
)
def test_a_flag_that_is_refused_is_named(path: Path, overrides: dict[str, Any], told: str) -> None:
    for file in (path, None):
        with pytest.raises(RecipeError) as caught:
            load_recipe(file, overrides)
        assert str(caught.value).startswith(told)


def test_what_the_file_says_is_the_files(path: Path) -> None:
    path.write_text("predict: {keep: 0}")
    with pytest.raises(RecipeError, match=r"recipe\.yaml: predict\.keep is 0"):
        load_recipe(path, {"compare.minutes": 3.0})


def test_a_model_of_a_comparison_that_is_misspelt(path: Path) -> None:
    path.write_text("compare: {models: [unet, {nme: unet}]}")
    with pytest.raises(
        RecipeError, match=r"compare\.models\.1\.nme is not a key .*\(value 'unet'\); did you mean name\?"
    ):
        load_recipe(path)
    path.write_text("compare: {models: [3]}")
    with pytest.raises(RecipeError, match=r"compare\.models\.0 is 3: "):
        load_recipe(path)


@pytest.mark.parametrize(("verb", "told"), [("predict", "0<=x<=1"), ("compare", "x>=0")])
def test_the_help_has_the_range(verb: str, told: str) -> None:
    assert told in CliRunner().invoke(app, [verb, "--help"]).stdout


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("radar: {looks: many}", "radar.looks is 'many': it should be a number or 'estimate'."),
        ("radar: {relative_orbits: 62}", "radar.relative_orbits is 62: it should be a list, [62]."),
        ("features: {embeddings: x}", "features.embeddings is 'x': it should be true or false or a whole number."),
        (
            "sources: {optical: {from: rasters, files: [{path: a.tif, bands: [B02], unit: x}]}}",
            "sources.optical.files.0.unit is 'x': input should be 'reflectance', ",
        ),
        ("sources: {optical: {from: rasters}}", "sources.optical.files is missing."),
        (
            "sources: {radar: {from: files, folder: d, files: 3}}",
            "sources.radar.files is not a key of the recipe (value 3)",
        ),
        ("sources: {radar: {from: files}}", "sources.radar.folder is missing."),
        ("sources: {optical: {catalog: x}}", "sources.optical does not say `from:`, the kind of source."),
        ("reference: 3", "reference is 3: it should be keys and values or 'simulated'."),
        (
            "radar: {speckle: refined-lee, window_px: 9}",
            "radar: window_px is 9, and speckle refined-lee always takes 7; leave window_px out.",
        ),
        (
            "radar: {speckle: lee-sigma, window_px: 3}",
            "radar: window_px is 3, and speckle lee-sigma needs at least 5; 9 is usual.",
        ),
        (
            "coregistration: {radar: on}",
            "coregistration.radar: `on` (true) does not say what is done; write measure or correct.",
        ),
        ("coregistration: on", "coregistration: `on` (true) does not say"),
    ],
)
def test_what_is_refused_is_said_in_the_recipes_words(path: Path, data: str, told: str) -> None:
    path.write_text(data)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert f"recipe.yaml: {told}" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "radar", "optical"),
    [
        ("{radar: off}", "off", "off"),
        ("{radar: 'off'}", "off", "off"),
        ("{optical: off}", "correct", "off"),
        ("off", "off", "off"),
        ("'off'", "off", "off"),
        ("{optical: measure}", "correct", "measure"),
    ],
)
def test_a_bare_off_is_off_although_yaml_reads_false(path: Path, written: str, radar: str, optical: str) -> None:
    path.write_text(f"coregistration: {written}")
    part = load_recipe(path).coregistration
    assert (part.radar, part.optical) == (radar, optical)


@pytest.mark.parametrize("written", ["{speckle: refined-lee}", "{speckle: refined-lee, window_px: 7}"])
def test_a_window_that_the_filter_takes_passes(path: Path, written: str) -> None:
    path.write_text(f"radar: {written}")
    assert load_recipe(path).radar.speckle == "refined-lee"
