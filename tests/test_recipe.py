"""The recipe: defaults, refusals, round trip, precedence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wetmap.cube import bands_of, layers_of
from wetmap.errors import RecipeError
from wetmap.recipe import Part, Recipe
from wetmap.recipe_file import dump_recipe, load_recipe, plain

PIPELINES = sorted((Path(__file__).parents[1] / "pipelines").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_defaults_are_the_papers_sixteen_bands() -> None:
    bands = bands_of(Recipe())
    assert len(bands) == 16
    assert [band.name for band in bands][-6:] == [
        "summer.NDVI",
        "summer.NDWI",
        "summer.VV_ascending",
        "summer.VH_ascending",
        "summer.VV_descending",
        "summer.VH_descending",
    ]
    assert layers_of(bands) == ("summer.optical", "summer.radar_ascending", "summer.radar_descending")


def test_seasonal_repeats_per_season_and_adds_terrain() -> None:
    seasons = [
        {"name": "spring", "start": "2021-04-15", "end": "2021-05-31"},
        {"name": "summer", "start": "2021-06-01", "end": "2021-09-30"},
    ]
    recipe = Recipe.model_validate({"seasons": seasons, "features": {"preset": "seasonal"}})
    bands = bands_of(recipe)
    assert len(bands) == 2 * 16 + 4
    assert bands[-1].name == "terrain.twi"
    assert len(layers_of(bands)) == 7


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    load_recipe(path)


def test_yaml_round_trip(tmp_path: Path) -> None:
    recipe = load_recipe(PIPELINES[0])
    assert load_recipe(write(tmp_path, dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sesons: []", r"sesons is not a key of the recipe \(value \[\]\); did you mean seasons\?"),
        ("grid: {resolution: 10}", r"grid\.resolution is not a key of the recipe \(value 10\)"),
        ("grid: {res_m: 10 km}", r"grid\.res_m is '10 km': .*number"),
        ("grid: {res_m: -1}", "grid.res_m is -1: .*greater than 0"),
        ("sources: {radar: {from: rasters, files: [{path: a.tif, bands: [VV], unit: dB}]}}", "unit is 'dB'.*gamma0_db"),
        ("seasons: [{name: summer, start: 2021-09-01, end: 2021-06-01}]", "before it starts"),
        ("sources: {optical: {from: nowhere}}", "nowhere"),
        ("features: {optical: [B99]}", "B99"),
        ("splits: {test_fold: 5, folds: 5}", "test_fold is 5"),
        (
            "seasons: [{name: a, start: 2021-06-01, end: 2021-06-02}, {name: b, start: 2021-06-01, end: 2021-06-02}]",
            "paper16 takes one season",
        ),
        ("features: {preset: paper16, optical: [B02]}", "preset paper16 fixes its bands, and optical say otherwise"),
        ("[1, 2]", "not keys and values"),
        ("a: [", "not YAML"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe(tmp_path / "none.yaml")


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not YAML"):
        load_recipe(write(tmp_path, "name: !!python/object/apply:os.system ['true']"))


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "grid: {res_m: 20}\nseed: 5")
    recipe = load_recipe(path, {"seed": 7, "reference.path": tmp_path / "r.gpkg", "reference.class_field": "C"})
    assert (recipe.grid.res_m, recipe.seed, recipe.grid.block_px) == (20, 7, 512)
    assert recipe.reference is not None
    assert recipe.reference != "simulated"
    assert recipe.reference.class_field == "C"


def test_relative_paths_start_at_the_recipe(tmp_path: Path) -> None:
    file = "{path: d/x.tif, bands: [B02], unit: reflectance}"
    text = f"aoi: a.geojson\nsources: {{optical: {{from: rasters, files: [{file}]}}}}"
    (tmp_path / "inner").mkdir()
    recipe = load_recipe(write(tmp_path / "inner", text.replace("aoi: a", "aoi: ../a").replace("d/x", "../d/x")))
    assert str(recipe.aoi) == str(tmp_path / "a.geojson")
    assert plain(recipe)["sources"]["optical"]["files"][0]["path"] == str(tmp_path / "d/x.tif")


def test_every_field_is_described() -> None:
    def undescribed(part: type[Part]) -> list[str]:
        return [f"{part.__name__}.{name}" for name, field in part.model_fields.items() if not field.description]

    parts = _all_parts(Part)
    assert len(parts) > 15
    assert [name for part in parts for name in undescribed(part)] == []


def test_schema_is_json() -> None:
    schema: dict[str, Any] = json.loads(json.dumps(Recipe.model_json_schema(by_alias=True)))
    assert schema["properties"]["grid"]["description"]
    assert schema["additionalProperties"] is False


def _all_parts(part: type[Part]) -> list[type[Part]]:
    return [one for sub in part.__subclasses__() for one in (sub, *_all_parts(sub))]
