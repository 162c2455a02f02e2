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
