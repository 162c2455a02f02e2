"""map.json: the map as a STAC item, so that catalogues and programs know what lies in its folder.

STAC 1.1.0 with the extensions projection 2.0.0, raster 1.1.0, classification 2.0.0, processing 1.1.0 and file 2.1.0.
Paths are relative, and the item carries no date of its own: the same map gives the same bytes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from pyproj import CRS, Transformer

from wetmap.classes import MapClass, class_table
from wetmap.geo import Grid
from wetmap.products.layers import map_layers
from wetmap.workspace import write_json

STAC_VERSION = "1.1.0"
EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/v{version}/schema.json"
    for name, version in (
        ("projection", "2.0.0"),
        ("raster", "1.1.0"),
        ("classification", "2.0.0"),
        ("processing", "1.1.0"),
        ("file", "2.1.0"),
    )
)
#: Head of a multihash: SHA-256, 32 bytes (multiformats' table, and the file extension's README).
SHA256_MULTIHASH = "1220"
#: Pieces of each side of the grid whose ends are projected: the outline bends in longitude and latitude.
PIECES = 8
#: Digits of longitude and latitude: about 1 cm.
DIGITS = 7
#: Media type, role, and what it is, by the end of a file's name, the longest first.
KINDS: tuple[tuple[str, str, str, str], ...] = (
    (".tif.aux.xml", "application/xml", "metadata", "Names and colours for GDAL"),
    (".tif", "image/tiff; application=geotiff; profile=cloud-optimized", "data", ""),
    (".gpkg", "application/geopackage+sqlite3", "data", ""),
    (".qml", "application/xml", "style", "Style for QGIS"),
    (".qgz", "application/zip", "style", "Project for QGIS"),
    ("crosswalk_cwcs.csv", "text/csv", "metadata", "What each class is in the Canadian Wetland Classification System"),
    ("crosswalk_cnwi.csv", "text/csv", "metadata", "What each class is in the Canadian National Wetlands Inventory"),
    (".csv", "text/csv", "metadata", "Areas of the classes"),
    (".html", "text/html", "overview", "Report"),
    ("", "application/octet-stream", "metadata", ""),
)
SIMULATED = "SIMULATED: made from a simulated landscape, not a map of any real place."


@dataclass(frozen=True)
class MapFacts:
    """What is said about a map."""

    name: str
    """Name of the map."""
    grid: Grid
    """Its grid."""
    classes: Sequence[MapClass]
    """Its classes, in the order of the legend."""
    days: tuple[dt.date, dt.date]
    """First and last day of its seasons, UTC, both included."""
    software: Mapping[str, str]
    """Versions of what made it, by name."""
    lineage: str
    """How it was made, one sentence."""
    simulated: bool = False
    """Whether it is a map of a simulated landscape."""


def write_item(path: Path, facts: MapFacts, files: Mapping[str, Path]) -> None:
    """Write map.json.

    Args:
        path: The file.
        facts: What is said about the map.
        files: Where the files of the map's folder are now, by their names in it. They lie beside the item, and are
            given as they are: checksums, sizes and bands are read from them.

    Raises:
        WorkspaceError: The disk is full.
    """
    outline = _outline(facts.grid)
    titles = {layer.file: layer.title for layer in map_layers(files)}
    item = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": re.sub(r"[^0-9A-Za-z_-]+", "-", facts.name).strip("-") or "map",
        "geometry": {"type": "Polygon", "coordinates": [outline]},
        "bbox": [fold(point[axis] for point in outline) for fold in (min, max) for axis in (0, 1)],
        "properties": _properties(facts),
        "links": [],
        "assets": {name: _asset(name, files[name], facts, titles.get(name)) for name in sorted(files)},
    }
    write_json(path, item)


def _properties(facts: MapFacts) -> dict[str, Any]:
    first, last = facts.days
    crs = CRS.from_user_input(facts.grid.crs)
    code = crs.to_epsg()
    where = {"proj:code": f"EPSG:{code}"} if code is not None else {"proj:code": None, "proj:wkt2": crs.to_wkt()}
    title = f"{facts.name} (SIMULATED)" if facts.simulated else facts.name
    words = [SIMULATED] if facts.simulated else []
    return {
        "title": title,
        "description": " ".join([*words, f"Map of {len(facts.classes)} classes. {facts.lineage}"]),
        "datetime": None,
        "start_datetime": f"{first.isoformat()}T00:00:00Z",
        "end_datetime": f"{last.isoformat()}T23:59:59Z",
        "gsd": facts.grid.res_m,
        **where,
        "proj:shape": list(facts.grid.shape),
        "proj:transform": list(facts.grid.transform[:6]),
        "proj:bbox": list(facts.grid.bounds),
        "processing:level": "L4",
        "processing:lineage": facts.lineage,
        "processing:software": dict(facts.software),
        "wetmap:simulated": facts.simulated,
    }


def _asset(name: str, path: Path, facts: MapFacts, title: str | None) -> dict[str, Any]:
    _, media, role, what = next(kind for kind in KINDS if name.endswith(kind[0]))
    asset: dict[str, Any] = {
        "href": f"./{name}",
        "title": title or what or name,
        "type": media,
        "roles": [role],
        "file:size": path.stat().st_size,
        "file:checksum": _checksum(path),
    }
    if name.endswith(".tif"):
        asset.update(_bands(path))
    if name == "classes.tif":
        asset["roles"] = ["data", "classification"]
        asset["classification:classes"] = [_class(row) for row in facts.classes]
    if name.startswith("classes_") and name.endswith(".tif"):
        asset["roles"] = ["data", "classification"]
        asset["classification:classes"] = [_class(row) for row in class_table(name[len("classes_") : -len(".tif")])]
    return asset


def _class(row: MapClass) -> dict[str, Any]:
    """A class: the short name is for machines, and the extension gives it letters, digits, ``-`` and ``_`` only."""
    short = re.sub(r"[^0-9A-Za-z_-]+", "-", row.name).strip("-").lower()
    return {
        "value": row.code,
        "name": short or f"class-{row.code}",
        "title": row.name,
        "description": row.name,
        "color_hint": row.colour[1:].upper(),
    }


def _bands(path: Path) -> dict[str, Any]:
    """The bands of a raster twice over: in STAC 1.1's own words, and in those of the raster extension."""
    common, measured = [], []
    with rasterio.open(path) as raster:
        for at in range(raster.count):
            about: dict[str, Any] = {"data_type": raster.dtypes[at]}
            if raster.nodatavals[at] is not None:
                about["nodata"] = _number(raster.nodatavals[at])
            unit = raster.units[at] or raster.tags().get("units")
            if unit:
                about["unit"] = unit
            words = raster.descriptions[at]
            common.append({"name": f"b{at + 1}", **({"description": words} if words else {}), **about})
            scaling = {"scale": raster.scales[at], "offset": raster.offsets[at]}
            changed = scaling if (raster.scales[at], raster.offsets[at]) != (1.0, 0.0) else {}
            measured.append({"spatial_resolution": raster.res[0], "sampling": "area", **about, **changed})
    return {"bands": common, "raster:bands": measured}


def _number(value: float) -> float | int | str:
    """A value that means nothing, as JSON can say it."""
    if math.isnan(value):
        return "nan"
    return int(value) if float(value).is_integer() else value


def _outline(grid: Grid) -> list[list[float]]:
    """The grid's outline in longitude and latitude, counter-clockwise and closed (RFC 7946, section 3.1.6)."""
    left, bottom, right, top = grid.bounds
    to, back = np.linspace(0, 1, PIECES, endpoint=False), np.linspace(1, 0, PIECES, endpoint=False)
    x = np.concatenate([left + to * (right - left), np.full(PIECES, right), left + back * (right - left)])
    x = np.concatenate([x, np.full(PIECES, left)])
    y = np.concatenate([np.full(PIECES, bottom), bottom + to * (top - bottom), np.full(PIECES, top)])
    y = np.concatenate([y, bottom + back * (top - bottom)])
    lon, lat = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True).transform(x, y)
    points = [[round(float(a), DIGITS), round(float(b), DIGITS)] for a, b in zip(lon, lat, strict=True)]
    return [*points, points[0]]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return SHA256_MULTIHASH + hashlib.file_digest(file, "sha256").hexdigest()
