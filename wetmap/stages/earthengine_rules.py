"""What a recipe may ask of Earth Engine, and what of its source counts as a change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, get_args

from wetmap.errors import RecipeError
from wetmap.recipe import EarthEngineSource, Recipe, Season, Sensor
from wetmap.stages.cloud_tiles import refuse_unusable

#: How a source is reached; another way gives the same pixels.
HOW_REACHED = frozenset({"project", "credentials", "url", "requests"})
#: Speckle filters and composites that can be computed by the service. The others are of this program alone, or need
#: every look at once.
SERVER_SPECKLE = frozenset({"none", "boxcar", "lee"})
SERVER_COMPOSITES = frozenset({"median", "percentile"})


def what_counts(source: dict[str, Any]) -> dict[str, Any]:
    """The part of a source that changes what is fetched."""
    if source.get("kind", source.get("from")) != "earth-engine":
        return source
    return {key: value for key, value in source.items() if key not in HOW_REACHED}


def refuse_unrunnable(recipe: Recipe) -> None:
    """Refuse what Earth Engine cannot do, before anything is asked of it.

    Raises:
        RecipeError: An option needs the scenes themselves and the source makes composites; sources differ in how
            Earth Engine is reached; embeddings are wanted and there is no source for them.
    """
    _refuse_two_ways(recipe)
    if recipe.features.embeddings and recipe.sources.embeddings is None:
        raise RecipeError(
            "features.embeddings is set, and sources.embeddings is not.",
            do="Write `embeddings: {from: earth-engine}` under sources; no other source has them.",
        )
    optical, radar = recipe.sources.optical, recipe.sources.radar
    if on_server(optical) and recipe.optical.composite not in SERVER_COMPOSITES:
        raise _refused("optical.composite", recipe.optical.composite, sorted(SERVER_COMPOSITES), "optical")
    if on_server(optical) and recipe.optical.mask_from != "scl":
        raise _refused("optical.mask_from", recipe.optical.mask_from, ["scl"], "optical")
    refuse_unusable(recipe)
    if on_server(radar) and recipe.radar.speckle not in SERVER_SPECKLE:
        raise _refused("radar.speckle", recipe.radar.speckle, sorted(SERVER_SPECKLE), "radar")


def backscatter(recipe: Recipe) -> str | None:
    """What the radar features are of: ``gamma0``, ``sigma0`` where they come from Earth Engine; None without radar."""
    source = recipe.sources.radar
    if source is None or not recipe.features.radar:
        return None
    return "sigma0" if source.kind == "earth-engine" else "gamma0"


def on_server(source: Any) -> bool:
    """Whether a source's composites are computed by Earth Engine."""
    return isinstance(source, EarthEngineSource) and source.mode == "server"


def _refused(key: str, value: str, possible: Sequence[str], sensor: Sensor) -> RecipeError:
    return RecipeError(
        f"{key} is {value}, which cannot be computed by Earth Engine.",
        do=f"Choose {' or '.join(possible)}, or set `mode: scenes` in sources.{sensor} (every scene is then read and "
        f"{value} is computed here; slower), or take {sensor} from a STAC archive.",
    )


def _refuse_two_ways(recipe: Recipe) -> None:
    """The client has one connection per process."""
    ways = {
        sensor: (source.project, source.credentials, source.url, source.requests)
        for sensor in get_args(Sensor)
        if isinstance(source := recipe.sources.of(sensor), EarthEngineSource)
    }
    if len(set(ways.values())) > 1:
        raise RecipeError(
            f"sources.{', sources.'.join(ways)} reach Earth Engine in different ways.",
            do="Give them all the same project, credentials, url and requests.",
        )


def embeddings_year(recipe: Recipe) -> int:
    """The year of the embeddings that a recipe asks for.

    Raises:
        RecipeError: It says `true`, and its seasons are of several years.
    """
    wanted = recipe.features.embeddings
    if wanted is not True:
        return int(wanted)
    years = sorted({day.year for season in recipe.seasons for day in (season.start, season.end)})
    if len(years) > 1:
        raise RecipeError(
            f"features.embeddings is true, and the seasons are of {' and '.join(map(str, years))}.",
            do=f"Say which year: `embeddings: {years[-1]}`.",
        )
    return years[0]


def seasons_of(recipe: Recipe, sensor: Sensor) -> Sequence[Season]:
    """The days that a sensor's scenes are searched in: the recipe's seasons; for embeddings their year."""
    if sensor != "embeddings":
        return recipe.seasons
    year = embeddings_year(recipe)
    return [Season(name="embedding", start=dt.date(year, 1, 1), end=dt.date(year, 12, 31))]
