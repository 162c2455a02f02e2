"""The finished map in other classes, on the small map of test_predict: files, codes, areas; and the colours."""

from __future__ import annotations

import csv
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.stages.test_predict import folder, open_context
from wetmap.classes import MapClass
from wetmap.crosswalk import Step, Translation, translate
from wetmap.errors import PaletteWarning, RecipeError
from wetmap.products.class_map import open_class_map
from wetmap.recipe import Recipe
from wetmap.recipe_file import load_recipe
from wetmap.stages import mosaic, other_classes, predict
from wetmap.stages.context import Context

__all__ = ["folder"]  # a fixture

CLASSES = [{"name": "bog"}, {"name": "shrub wetland"}, {"name": "upland", "upland": True}]


def context_of(folder: Path, **changes: Any) -> Context:
    return replace(open_context(folder), recipe=load_recipe(folder / "recipe.yaml", changes))


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def rows_for(context: Context) -> dict[str, str]:
    """A row for each class of the model, whatever it is called."""
    names = [row.name for row in predict.open_bundle(context).card.classes]
    return dict(zip(names, ["bog", "fen", "bog"], strict=False))


def test_raster_style_areas_and_crosswalk_lie_beside_the_map(folder: Path) -> None:
    rows = rows_for(context_of(folder))
    context = context_of(folder, **{"products.crosswalk": "cwcs", "products.crosswalk_rows": rows})
    predict.run(context)
    made = mosaic.run(context).path
    before, after = open_class_map(made / "classes.tif"), open_class_map(made / "classes_cwcs.tif")
    assert [(row.code, row.name) for row in after.classes] == [(1, "bog"), (2, "fen")]
    assert after.grid == before.grid
    table = translate(before.classes, "cwcs", rows).table()
    for (_, codes), (_, new) in zip(before.strips(), after.strips(), strict=True):
        np.testing.assert_array_equal(new, table[codes])
        assert (new > 0).any()
    with rasterio.open(made / "classes_cwcs.tif") as raster:
        assert raster.nodata == 0
        assert raster.tags()["WETMAP_CLASSES"] == "Canadian Wetland Classification System"
    assert "fen" in (made / "classes_cwcs.qml").read_text()
    areas, whole = table_of(made / "areas_cwcs.csv"), table_of(made / "areas.csv")
    assert sum(int(row["pixels"]) for row in areas) == sum(int(row["pixels"]) for row in whole)
    listed = table_of(made / "crosswalk_cwcs.csv")
    assert [row["to_class"] for row in listed] == [rows[row["class"]] for row in listed]
    assert all(row["rests_on"] for row in listed)


def test_another_crosswalk_makes_other_products_and_none_leaves_them_alone(folder: Path) -> None:
    rows = rows_for(context_of(folder))
    plain, cwcs, cnwi = (
        mosaic.asked(context_of(folder, **changes))
        for changes in (
            {},
            {"products.crosswalk": "cwcs", "products.crosswalk_rows": rows},
            {"products.crosswalk": "cnwi", "products.crosswalk_rows": rows},
        )
    )
    assert "crosswalk" not in plain
    assert cwcs["crosswalk"] != cnwi["crosswalk"]


def test_a_class_without_a_row_is_refused_before_the_map_is_computed(folder: Path) -> None:
    context = context_of(folder, **{"products.crosswalk": "cwcs"})
    with pytest.raises(RecipeError, match=r"no row for"):
        other_classes.look(context)


def recipe_of(**changes: Any) -> Recipe:
    return Recipe.model_validate({"classes": CLASSES, **changes})


def test_rows_without_a_crosswalk_are_refused() -> None:
    with pytest.raises(ValueError, match="crosswalk does not say to which system"):
        recipe_of(products={"crosswalk_rows": {"bog": "bog"}})


def test_the_recipes_classes_are_checked_against_the_crosswalk() -> None:
    other_classes.check(recipe_of(products={"crosswalk": "cwcs"}))
    heath = [*CLASSES, {"name": "heath"}]
    with pytest.raises(RecipeError, match="no row for 'heath'"):
        other_classes.check(recipe_of(classes=heath, products={"crosswalk": "cwcs"}))
    rows = {"heath": "bog"}
    other_classes.check(recipe_of(classes=heath, products={"crosswalk": "cwcs", "crosswalk_rows": rows}))


def test_colours_that_somebody_cannot_tell_apart_are_warned_of() -> None:
    bad = [{"name": "bog", "colour": "#b35d0d"}, {"name": "fen", "colour": "#7d7200"}]
    with pytest.warns(PaletteWarning, match=r"bog #b35d0d and fen #7d7200 \((prot|deuter)anopia: [0-9.]+\)") as caught:
        other_classes.check(recipe_of(classes=bad))
    assert "These go together: #75130e, #f6d127." in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other_classes.check(recipe_of())
        other_classes.check(Recipe())


def test_no_cell_of_the_crosswalk_is_a_formula() -> None:
    odd = MapClass(1, "=1+1", "#112233")
    step = Step(odd, MapClass(2, "+fen", "#445566"), "@me", "\tnote")
    cells = next(csv.reader(other_classes._csv(Translation("cwcs", (step,))).decode().splitlines()[1:]))
    assert cells == ["1", "'=1+1", "2", "'+fen", "'@me", "'\tnote"]
