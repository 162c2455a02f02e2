"""The simulated archive has scenes of some days only: a season on other days is refused with these days."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from wetmap.errors import RecipeError
from wetmap.recipe import Recipe
from wetmap.stages.simulate import refuse_other_days

SUMMER = {"name": "summer", "start": "2021-06-01", "end": "2021-08-31"}
LATER = {"name": "later", "start": "2023-06-01", "end": "2023-08-31"}
SIMULATED = {"optical": {"from": "simulated"}, "radar": {"from": "simulated"}, "terrain": None}


def recipe(*seasons: dict[str, str], **changes: object) -> Recipe:
    return Recipe.model_validate(
        {
            "aoi": Path("nb.geojson"),
            "seasons": seasons,
            "sources": SIMULATED,
            "features": {"preset": "seasonal"},
            **changes,
        }
    )


def test_a_season_on_other_days_is_refused_with_the_days_that_there_are() -> None:
    with pytest.raises(RecipeError) as caught:
        refuse_other_days(recipe(SUMMER, LATER))
    assert "2021-05-01 to 2021-10-31" in str(caught.value)
    assert "later (2023-06-01 to 2023-08-31)" in str(caught.value)
    assert "simulated.start" in str(caught.value)
    assert "summer" not in str(caught.value)


@pytest.mark.parametrize(
    "fine",
    [
        recipe(SUMMER),
        recipe({**SUMMER, "start": "2021-10-31", "end": "2021-12-01"}),
        recipe(LATER, simulated={"start": dt.date(2023, 1, 1), "end": dt.date(2023, 7, 1)}),
        recipe(LATER, sources={"optical": {"from": "earth-engine"}, "radar": None, "terrain": None}),
    ],
)
def test_a_season_that_the_archive_reaches_passes(fine: Recipe) -> None:
    refuse_other_days(fine)
