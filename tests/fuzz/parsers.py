"""What reads files that others made, each as a function of bytes; everything but a WetmapError is a finding.

The hypothesis tests and the coverage-guided run (``atheris_parsers.py``) call the same functions.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wetmap.bundle import load_applicability, load_bundle, load_predictor
from wetmap.errors import WetmapError
from wetmap.geo import Aoi, Grid, make_grid, read_aoi
from wetmap.recipe import Recipe, Season, StacSource
from wetmap.recipe_file import dump_recipe, load_recipe
from wetmap.sources import Scene, Skipped, open_archive
from wetmap.sources.providers import ASSETS, provider_of
from wetmap.sources.s3_text import Keys, http_url, keys_of, signed_headers
from wetmap.sources.stac_item import decide, is_item, slim, tidy

SEASONS = (Season(name="summer", start=dt.date(2021, 6, 1), end=dt.date(2021, 9, 30)),)
LONGEST_MESSAGE = 4000


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Warnings of libraries are not looked at: they are lines on standard error, and no end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def refused(error: WetmapError) -> str:
    """The message of a refusal, which must be one that a person can read."""
    text = str(error)
    assert text.strip()
    assert len(text) < LONGEST_MESSAGE, f"{len(text)} characters: {text[:200]}"
    return text


def recipe(data: bytes, folder: Path) -> Recipe | str:
    """Read a recipe; gives it, or why it was refused."""
    path = folder / "recipe.yaml"
    path.write_bytes(data)
    try:
        found = load_recipe(path)
    except WetmapError as error:
        return refused(error)
    path.write_text(dump_recipe(found), encoding="utf-8")
    assert load_recipe(path) == found
    return found


def area(data: bytes, folder: Path) -> Grid | str:
    """Read an area of interest and make its grid."""
    path = folder / "area.geojson"
    path.write_bytes(data)
    with quiet():
        try:
            aoi = read_aoi(path)
            grid = make_grid(aoi)
        except WetmapError as error:
            return refused(error)
    assert aoi.area_ha >= 0
    assert grid.height > 0 < grid.width
    return grid


def item(data: Any) -> list[Scene | Skipped]:
    """What every sensor makes of an item that an API handed out; an item that is none is none."""
    saved(slim(data, "optical", provider_of("")))
    clean = tidy(data)
    if not is_item(clean):
        return []
    found = []
    for sensor in ASSETS:
        one = decide(clean, sensor, SEASONS, provider_of(""))
        assert isinstance(one, Scene | Skipped)
        assert isinstance(one, Scene) or one.reason
        saved(one.to_json() if isinstance(one, Scene) else {"id": one.id, "reason": one.reason})
        found.append(one)
    return found


def saved(data: Any) -> None:
    """It can be written as plain JSON in UTF-8."""
    json.dumps(data, ensure_ascii=False, allow_nan=False).encode()


def item_text(data: bytes, folder: Path) -> None:  # noqa: ARG001 - all of them are called alike
    """The same of the text of an item."""
    with contextlib.suppress(ValueError, RecursionError):
        item(json.loads(data))


def catalogue(path: Path, sensor: Any, collection: str, aoi: Aoi) -> tuple[list[Scene], list[Skipped]] | str:
    """Search a static catalogue."""
    archive = open_archive(StacSource(catalog=str(path), collection=collection), sensor)
    with quiet():
        try:
            return archive.search(sensor, aoi, list(SEASONS), max_cloud_percent=80.0)
        except WetmapError as error:
            return refused(error)


def bundle(folder: Path) -> str:
    """Load a model with everything that belongs to it; gives the refusal, empty where there was none."""
    with quiet():
        try:
            found = load_bundle(folder)
            load_predictor(found)
            load_applicability(found)
        except WetmapError as error:
            return refused(error)
    return ""


def card(data: bytes, folder: Path) -> str:
    """Read the card of a model."""
    (folder / "model.json").write_bytes(data)
    with quiet():
        try:
            load_bundle(folder)
        except WetmapError as error:
            return refused(error)
    return ""


def s3(data: bytes, folder: Path) -> None:
    """Make and sign the address of an object, and read a file of credentials."""
    text = data.decode("utf-8", errors="surrogateescape")
    url, _, rest = text.partition("\n")
    endpoint, _, keys = rest.partition("\n")
    address = http_url(f"s3://{url.encode('utf-8', 'replace').decode()}", "x", {"AWS_S3_ENDPOINT": endpoint})
    if address.isascii() and "[" not in address and "]" not in address:
        signed_headers(address, "x", Keys("A", "B"), dt.datetime(2021, 1, 1, tzinfo=dt.UTC), {})
    file = folder / "credentials"
    file.write_bytes(os.fsencode(keys))
    keys_of({"AWS_SHARED_CREDENTIALS_FILE": str(file)})
