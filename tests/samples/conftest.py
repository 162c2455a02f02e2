"""A small grid in UTM zone 19, its area, and files of reference data on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer

from wetmap.classes import MapClass
from wetmap.geo import Aoi, Grid


@pytest.fixture
def grid() -> Grid:
    """40 x 60 px of 10 m: x 600000 to 600600, y 5099600 to 5100000."""
    return Grid("EPSG:32619", 10.0, 600000.0, 5100000.0, 40, 60)


@pytest.fixture
def aoi(grid: Grid) -> Aoi:
    """The grid but for its outermost ring of pixels."""
    return area_of(grid, inset_m=10.0)


def area_of(grid: Grid, inset_m: float = 0.0) -> Aoi:
    left, bottom, right, top = grid.bounds
    rectangle = shapely.segmentize(shapely.box(left + inset_m, bottom + inset_m, right - inset_m, top - inset_m), 10.0)
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    degrees = shapely.transform(rectangle, to_degrees.transform, interleaved=False)
    return Aoi("area", shapely.MultiPolygon([degrees]))


@pytest.fixture
def area() -> Any:
    return area_of


@pytest.fixture
def pixels(grid: Grid) -> Any:
    """A rectangle of whole pixels: rows y0 to y1 and columns x0 to x1, ends left out."""

    def rectangle(y0: float, y1: float, x0: float, x1: float) -> shapely.Polygon:
        return shapely.box(grid.left + x0 * 10, grid.top - y1 * 10, grid.left + x1 * 10, grid.top - y0 * 10)

    return rectangle


@pytest.fixture
def vector(tmp_path: Path, grid: Grid) -> Any:
    """Write features to a vector file and give its path."""

    def write(
        geometry: list[Any], values: list[Any], *, name: str = "reference.gpkg", crs: Any = "grid", **options: Any
    ) -> Path:
        frame = geopandas.GeoDataFrame(
            {"CLASS": values, "note": ["x"] * len(values)}, geometry=geometry, crs=grid.crs if crs == "grid" else None
        )
        if crs not in ("grid", None):
            frame = frame.set_crs(grid.crs).to_crs(crs)
        frame.to_file(tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.fixture
def raster(tmp_path: Path) -> Any:
    """Write an array on a grid to a GeoTIFF and give its path."""

    def write(values: Any, grid: Grid, *, name: str = "labels.tif", crs: Any = "grid", **options: Any) -> Path:
        values = np.asarray(values)
        bands = values if values.ndim == 3 else values[None]
        profile = {"driver": "GTiff", "count": len(bands), "height": grid.height, "width": grid.width}
        with rasterio.open(
            tmp_path / name,
            "w",
            **profile,
            dtype=values.dtype,
            transform=grid.transform,
            crs=grid.crs if crs == "grid" else crs,
            **options,
        ) as file:
            file.write(bands)
        return tmp_path / name

    return write


@pytest.fixture
def classes() -> tuple[MapClass, ...]:
    return (MapClass(1, "bog", "#111111"), MapClass(2, "fen", "#222222"), MapClass(9, "upland", "#333333", upland=True))
