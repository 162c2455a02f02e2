from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.budget import EXAMPLES, Budget, memory_text, parse_budget, parse_memory
from wetmap.cli.options import resolve_recipe
from wetmap.errors import RecipeError
from wetmap.recipe_file import load_recipe


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20m", 1200), ("1h30m", 5400), ("90m", 5400), ("2d", 172_800), ("45s", 45), ("1.5h", 5400), ("1d1h1m1s", 90_061)],
)
def test_times(text, seconds):
    assert parse_budget(text) == Budget(seconds, None)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("50k-px-per-s", 50_000), ("2M-px-per-s", 2_000_000), ("800-px-per-s", 800), ("1.5k-px-per-s", 1500)],
)
def test_rates(text, rate):
    assert parse_budget(text) == Budget(None, rate)


@pytest.mark.parametrize(
    "text",
    ["", "20", "m", "20 m", "30m1h", "20M", "-20m", "1e3s", "20min", "0m", "0h0m", "50k", "50K-px-per-s", "k-px-per-s",
     "0-px-per-s", "50k-px-per-h", "50kpx/s", "1h30", "20m\n", "٢m"],
)  # fmt: skip
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(ValueError, match="1h30m") as caught:
        parse_budget(text)
    assert EXAMPLES in str(caught.value)


@settings(deadline=None, max_examples=50)
@given(hours=st.integers(0, 400), minutes=st.integers(0, 500), seconds=st.integers(1, 500))
def test_parts_add_up(hours, minutes, seconds):
    assert parse_budget(f"{hours}h{minutes}m{seconds}s").seconds == 3600 * hours + 60 * minutes + seconds


def test_what_fits():
    time, rate = parse_budget("1m"), parse_budget("1k-px-per-s")
    assert time.fits(pixels_per_s=1, seconds=60)
    assert not time.fits(pixels_per_s=1e9, seconds=60.1)
    assert rate.fits(pixels_per_s=1000, seconds=1e9)
    assert not rate.fits(pixels_per_s=999, seconds=1)
    assert parse_budget("60m").to_json() == parse_budget("1h").to_json() == {"seconds": 3600.0}


def test_a_recipe_has_one_way_to_choose():
    assert load_recipe(None, {"predict.budget": "20m"}).predict.budget == "20m"
    with pytest.raises(RecipeError, match="neither a time nor a rate"):
        load_recipe(None, {"predict.budget": "20 minutes"})
    for other in ({"predict.tokens": 6}, {"predict.keep": 0.7}):
        with pytest.raises(RecipeError, match="use one of the two"):
            load_recipe(None, {"predict.budget": "20m", **other})
    for wrong in ({"predict.tokens": 0}, {"predict.keep": 0.0}, {"predict.keep": 1.1}, {"predict.budget": 20}):
        with pytest.raises(RecipeError):
            load_recipe(None, wrong)


def test_a_flag_puts_aside_how_the_recipe_chooses_and_is_not_remembered(tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("predict: {budget: 20m}\n")
    resolved = resolve_recipe(recipe, tmp_path, {"predict.tokens": 6, "predict.keep": None, "predict.budget": None})
    assert (resolved.recipe.predict.tokens, resolved.recipe.predict.budget) == (6, None)
    assert (resolved.kept.predict.tokens, resolved.kept.predict.budget) == (None, "20m")
    plain = resolve_recipe(recipe, tmp_path, {"predict.tokens": None, "predict.keep": None, "predict.budget": None})
    assert plain.recipe.predict.budget == "20m"
    with pytest.raises(RecipeError, match="use one of the two"):
        resolve_recipe(recipe, tmp_path, {"predict.tokens": 6, "predict.budget": "5m"})


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 * 2**30), ("1500MB", 1_500_000_000), ("0.5GB", 500_000_000), ("64 KiB", 65536), ("1TB", 10**12)],
)
def test_amounts_of_memory(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "2", "2G", "GB", "0MB", "-1GB", "1,5GB", "2gb"])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(ValueError, match="write it like 2GiB"):
        parse_memory(text)


def test_memory_for_people_is_rounded_up():
    assert [memory_text(size) for size in (1, 2**30, 2**30 + 1, 20 * 2**30 + 1)] == [
        "1 MiB",
        "1,024 MiB",
        "1,025 MiB",
        "20.1 GiB",
    ]
