"""The table of real STAC items in the docs. ``python -m tests.sources.real_items`` writes it.

The items lie beside the checkout, in ``shared/data/stac_items``; the parquet file needs pyarrow.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import mapping

from tests.conftest import SHARED
from wetmap.recipe import Sensor
from wetmap.sources import Scene, Skipped
from wetmap.sources.duplicates import newest
from wetmap.sources.outlines import area_m2, outline_of
from wetmap.sources.providers import PROVIDERS, Provider, provider_of
from wetmap.sources.stac_item import decide, sensor_of

ITEMS = SHARED / "data" / "stac_items"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "sources" / "real-items.md"
PARQUET = "planetary_computer/100-sentinel-2-items.parquet"
#: Which archive the items of a folder come from; the others were made from SAFE products or by older archives.
ARCHIVES = {"planetary_computer": "planetary-computer", "earthsearch_v1": "earth-search", "cdse": "cdse"}
#: Files that hold no items.
NO_ITEMS = {
    "cdse/landing_page.json": "the landing page of the API",
    "cdse/search_request.json": "a question to the API",
}
SENSORS: tuple[Sensor, ...] = ("optical", "radar", "terrain")
HEAD = """# Real items, and what is made of them

STAC items as archives publish them, put through the code that plans a run. The table is made by a test
(`tests/sources/test_real_items.py`) from items that lie beside the checkout; `python -m tests.sources.real_items`
writes it again. Clouds are not looked at here. "reads" names the asset of each band; "offset" is what is added to
`stored * scale`, and why.

What the archives get wrong, and what decides instead:

- Planetary Computer's GRD items are *described* as terrain-corrected, and are not; its RTC items say
  `sar:product_type: GRD`. The collection and the names of the files decide.
- Earth Search items say that the offset was taken out of the pixels, and declare it all the same. The flag decides.
- One RTC item has its outline in metres of UTM instead of degrees: it is read wherever the map is.
- Two of the hundred items at the end are of one tile, one datatake and one baseline, and are no duplicates: the
  datatake came down in two pieces.
- Tiles at 180 degrees have an outline in several parts.
"""
HEADS = ("item", "used as", "acquired, UTC", "satellite, orbit", "reads", "offset, and why", "outline")
COLUMNS = f"| {' | '.join(HEADS)} |\n|{' --- |' * len(HEADS)}"


def files() -> list[str]:
    """The files, in order."""
    return [*sorted(str(path.relative_to(ITEMS)) for path in ITEMS.rglob("*.json")), PARQUET]


def section(name: str) -> str:
    """The part of the page that is about one file."""
    if name in NO_ITEMS:
        return f"## {name}\n\nNo items: {NO_ITEMS[name]}.\n"
    provider = provider_of(ARCHIVES.get(name.partition("/")[0], ""))
    items = list(_from_parquet(ITEMS / name) if name.endswith(".parquet") else _from_json(ITEMS / name))
    rows = [_row(item, decided) for item, decided in _decided(items, provider)]
    return "\n".join([f"## {name}", "", COLUMNS, *rows]) + "\n"


def sections_of(page: str) -> dict[str, str]:
    """A page's parts by file."""
    parts = re.split(r"(?m)^(?=## )", page)[1:]
    return {part.partition("\n")[0].removeprefix("## "): part.strip() + "\n" for part in parts}


def _from_json(path: Path) -> Iterator[dict[str, Any]]:
    data = json.loads(path.read_text(encoding="utf-8"))
    yield from data if isinstance(data, list) else data.get("features", [data])


def _from_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Items as stac-geoparquet keeps them: properties as columns, geometry as WKB."""
    import pyarrow.parquet

    own = {"type", "stac_version", "stac_extensions", "id", "links", "assets", "collection", "bbox", "geometry"}
    for row in pyarrow.parquet.read_table(path).to_pylist():
        properties = {name: value for name, value in row.items() if name not in own and value is not None}
        yield {
            **{name: row[name] for name in ("type", "stac_version", "id", "collection")},
            "geometry": mapping(shapely.from_wkb(row["geometry"])),
            "properties": {**properties, "datetime": row["datetime"].isoformat()},
            "assets": {name: _plain(asset) for name, asset in row["assets"].items() if asset},
        }


def _plain(asset: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asset.items() if value is not None}


def _decided(items: list[dict[str, Any]], provider: Provider) -> Iterator[tuple[dict[str, Any], Scene | Skipped]]:
    decided = {str(item["id"]): _decide(item, provider) for item in items}
    for sensor in SENSORS:
        scenes = [one for one in decided.values() if isinstance(one, Scene) and one.sensor == sensor]
        decided |= {row.id: row for row in newest(scenes)[1]}
    for item in items:
        yield item, decided[str(item["id"])]


def _decide(item: dict[str, Any], provider: Provider) -> Scene | Skipped:
    """As the sensor that it is; one that is none is offered as each, and must be refused as each."""
    sensor = sensor_of(item)
    if sensor is not None:
        return decide(item, sensor, [], provider)
    found = [decide(item, each, [], provider) for each in SENSORS]
    scene = next((one for one in found if isinstance(one, Scene)), None)
    if scene is not None:
        return scene
    reasons = [row for row in found if isinstance(row, Skipped) and "has no asset" not in row.reason]
    first = (reasons or found)[0]
    assert isinstance(first, Skipped)
    return Skipped(first.id, first.sensor, f"no Sentinel item; as {first.sensor}: {first.reason}")


def _row(item: dict[str, Any], decided: Scene | Skipped) -> str:
    if isinstance(decided, Skipped):
        cells = [f"not used: {decided.reason}", "", "", "", "", _outline(item)]
    else:
        cells = [
            decided.sensor,
            decided.datetime[:16].replace("T", " "),
            _orbit(decided),
            _reads(item, decided),
            f"{decided.offset:g}: {decided.offset_rule}",
            _outline(item),
        ]
    return "| " + " | ".join([str(item["id"]), *cells]).replace("  ", " ") + " |"


def _orbit(scene: Scene) -> str:
    if scene.sensor == "terrain":
        return scene.platform
    state = scene.orbit_state if scene.orbit_state != "any" else "orbit state not given"
    track = "" if scene.relative_orbit is None else f", track {scene.relative_orbit}"
    return f"{scene.platform}, {state}{track}"


def _reads(item: dict[str, Any], scene: Scene) -> str:
    """Bands and the names of their assets; those of Sentinel-2 in short."""
    links = {str(asset.get("href")): name for name, asset in reversed(item["assets"].items())}
    names = {band: links[scene.item["assets"][band]["href"]] for band in scene.bands}
    if len(names) > 4:
        names = {band: names[band] for band in ("B02", "B8A", "SCL") if band in names}
    told = ", ".join(band if band == name else f"{band} = {name}" for band, name in names.items())
    return told if len(scene.bands) <= 4 else f"{len(scene.bands)} bands: {told}, ..."


def _outline(item: dict[str, Any]) -> str:
    outline = outline_of(item)
    if outline is None:
        return "not in degrees: not used"
    parts = shapely.get_num_geometries(outline)
    centre = shapely.get_parts(outline)[0].centroid
    place = f"{abs(centre.y):.1f} {'N' if centre.y >= 0 else 'S'} {abs(centre.x):.1f} {'E' if centre.x >= 0 else 'W'}"
    return f"{area_m2(outline) / 1e6:,.0f} km2 at {place}" + (f", {parts} parts" if parts > 1 else "")


def main() -> None:
    """Write the page; a part that cannot be made here (the parquet file, without pyarrow) stays as it was."""
    before = sections_of(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    parts = []
    for name in files():
        try:
            parts.append(section(name))
        except ImportError:
            parts.append(before[name])
    PAGE.write_text("\n".join([HEAD, *parts]), encoding="utf-8")


if __name__ == "__main__":
    assert set(ARCHIVES.values()) == set(PROVIDERS)
    sys.exit(main())
