"""Files that the pages talk about and readers have: an area, reference data, rasters, masks, a catalogue."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine

#: About 1.5 km near Sackville, as in ``tests/walk/conftest.py``: longitude, latitude.
RING = [[-64.411, 45.897], [-64.392, 45.898], [-64.391, 45.911], [-64.412, 45.910], [-64.411, 45.897]]
CRS = "EPSG:32620"
#: Upper left corner and side of the rasters, metres: they cover the ring with room around it.
LEFT, TOP, SIDE_M = 389_000.0, 5_086_000.0, 4_000.0
#: Values that are usual in each unit.
VALUES = {"reflectance": (0.02, 0.4), "gamma0": (0.01, 0.3), "gamma0_db": (-22.0, -6.0), "m": (5.0, 60.0)}
#: Values of a field where a page's recipe names no classes.
USUAL = ["bog", "fen", "upland"]


def write_area(path: Path) -> Path:
    """The area, as GeoJSON."""
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [RING]}))
    return path


def provide(recipe: dict[str, Any], folder: Path, bundle: Path) -> dict[str, Any]:
    """Put into a folder what a recipe names, made up, and give the recipe with an area.

    Args:
        recipe: Part of a recipe, as a page has it; its paths start at the folder.
        folder: Where the recipe is to be saved.
        bundle: A trained model, for recipes that name one.
    """
    area = write_area(folder / "nb.geojson")
    whole = {"aoi": area.name, **recipe}
    if not (folder / whole["aoi"]).exists():
        whole["aoi"] = area.name
    _reference(whole, folder)
    for number, mask in enumerate(whole.get("postprocess", {}).get("masks", [])):
        _vector(folder / mask["path"], [{"number": number}])
    if "align" in whole.get("grid", {}):
        _raster(folder / whole["grid"]["align"], np.zeros((1, 400, 400), np.uint8))
    if whole.get("predict", {}).get("bundle"):
        shutil.copytree(bundle, folder / whole["predict"]["bundle"])
    for source in whole.get("sources", {}).values():
        if source is not None:
            _source(source, folder)
    return whole


def _reference(recipe: dict[str, Any], folder: Path) -> None:
    """Reference data whose field holds every value that the recipe's classes name."""
    part = recipe.get("reference")
    if not isinstance(part, dict):
        return
    values = [value for item in recipe.get("classes", []) for value in item.get("reference", [item["name"]])] or USUAL
    if part["path"].endswith(".tif"):
        _raster(folder / part["path"], np.resize(np.arange(1, 4, dtype=np.uint8), (1, 400, 400)))
        return
    rows = [
        {part.get("class_field") or "CLASS": value, **({part["site_field"]: "north"} if "site_field" in part else {})}
        for value in values
    ]
    _vector(folder / part["path"], rows, layer=part.get("layer"))
    for more in part.get("also", []):
        _vector(folder / more["path"], [{more.get("class_field") or "CLASS": more.get("value", values[0])}])
    for more in part.get("also", []):
        _vector(folder / more["path"], [{more.get("class_field") or "NAME": more.get("value", values[0])}])


def _vector(path: Path, rows: list[dict[str, Any]], layer: str | None = None) -> None:
    """Squares in the area, one per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    west, south = -64.406, 45.900
    squares = [
        shapely.box(west + 0.001 * at, south, west + 0.001 * at + 0.0008, south + 0.006) for at in range(len(rows))
    ]
    frame = geopandas.GeoDataFrame(rows, geometry=squares, crs=4326)
    frame.to_file(path, **({"layer": layer} if layer else {}))


def _raster(path: Path, bands: np.ndarray, nodata: float | None = None) -> None:
    """A GeoTIFF that covers the area."""
    path.parent.mkdir(parents=True, exist_ok=True)
    res = SIDE_M / bands.shape[-1]
    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    transform = Affine(res, 0, LEFT, 0, -res, TOP)
    with rasterio.open(
        path, "w", **profile, dtype=bands.dtype, crs=CRS, transform=transform, nodata=nodata, compress="deflate"
    ) as raster:
        raster.write(bands)


def _source(source: dict[str, Any], folder: Path) -> None:
    for file in source.get("files", []):
        if not (folder / file["path"]).exists():
            low, high = VALUES[file["unit"]]
            values = np.linspace(low, high, 40 * 40, dtype=np.float32).reshape(1, 40, 40)
            stored = (values - file.get("offset", 0)) / file.get("scale", 1)
            _raster(folder / file["path"], np.repeat(stored, len(file["bands"]), axis=0))
    if source.get("from") == "files":
        (folder / source["folder"]).mkdir(parents=True, exist_ok=True)
    if str(source.get("catalog", "")).endswith(".json"):
        path = folder / source["catalog"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"type": "Catalog", "id": "mine", "stac_version": "1.0.0", "description": "", "links": []})
        )
