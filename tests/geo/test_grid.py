"""The grid: snapped, exact, pixel centres, true areas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer
from shapely.geometry import MultiPolygon, Polygon, box

from wetmap.errors import UsageError
from wetmap.geo import Aoi, Grid, make_grid, read_aoi

GRID = Grid(crs="EPSG:32620", res_m=10.0, left=388000.0, top=5084000.0, height=213, width=337)


def area(west: float, south: float, east: float, north: float) -> Aoi:
    return Aoi("area", MultiPolygon([box(west, south, east, north)]))


@settings(deadline=None, max_examples=30)
@given(
    west=st.floats(-179, 178),
    south=st.floats(-70, 70),
    size=st.floats(0.001, 0.05),
    res_m=st.sampled_from([5.0, 10.0, 20.0, 30.0]),
)
def test_grid_is_snapped_and_holds_the_area(west: float, south: float, size: float, res_m: float) -> None:
    aoi = area(west, south, west + size, south + size)
    grid = make_grid(aoi, res_m=res_m)
    left, bottom, right, top = grid.bounds
    assert grid.left % res_m == 0
    assert grid.top % res_m == 0
    inner = aoi.bounds_in(grid.crs)
    assert left <= inner[0] + 2e-3 * grid.res_m
    assert bottom <= inner[1] + 2e-3 * grid.res_m
    assert right >= inner[2] - 2e-3 * grid.res_m
    assert top >= inner[3] - 2e-3 * grid.res_m
    assert right - inner[2] < res_m * 1.002
    assert bottom > inner[1] - res_m * 1.002


def test_transform_round_trips_through_gdal(tmp_path: Path) -> None:
    path = tmp_path / "grid.tif"
    grid = Grid("EPSG:2953", 10.0, 2488010.0, 7437650.0, 3, 5)
    profile = {"driver": "GTiff", "height": 3, "width": 5, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=grid.crs, transform=grid.transform, **profile) as target:
        target.write(np.zeros((1, 3, 5), dtype=np.uint8))
    with rasterio.open(path) as source:
        assert all(abs(a - b) < 1e-9 for a, b in zip(source.transform, grid.transform, strict=True))
        assert source.xy(0, 0) == (grid.x[0], grid.y[0])
        assert source.xy(2, 4) == (grid.x[4], grid.y[2])
    assert Grid.from_json(grid.to_json()) == grid


def test_window_keeps_the_raster() -> None:
    window = GRID.window(-5, 7, 20, 30)
    assert window.x[0] == GRID.x[7]
    assert window.y[5] == GRID.y[0]


@settings(deadline=None, max_examples=30)
@given(block_px=st.integers(32, 400), height=st.integers(1, 700), width=st.integers(1, 700))
def test_blocks_cover_every_pixel_once(block_px: int, height: int, width: int) -> None:
    grid = Grid("EPSG:32620", 10.0, 0.0, 0.0, height, width)
    seen = np.zeros(grid.shape, dtype=int)
    for block in grid.blocks(block_px):
        seen[block.slices] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("crs", "left", "top"),
    [("EPSG:32620", 388000.0, 5084000.0), ("EPSG:32619", 833000.0, 5100000.0), ("EPSG:2953", 2600000.0, 7400000.0)],
)
def test_pixel_area_is_the_geodesic_area(crs: str, left: float, top: float) -> None:
    grid = Grid(crs, 10.0, left, top, 200, 300)
    to_lonlat = Transformer.from_crs(crs, CRS(crs).geodetic_crs, always_xy=True)
    geod = CRS(crs).get_geod()
    assert isinstance(geod, Geod)
    areas = grid.pixel_area_m2()
    for row, col in ((0, 0), (199, 299), (67, 130)):
        x0, y0 = left + col * 10, top - row * 10
        corners = [(x0, y0), (x0 + 10, y0), (x0 + 10, y0 - 10), (x0, y0 - 10)]
        lon, lat = to_lonlat.transform([c[0] for c in corners], [c[1] for c in corners])
        true = abs(geod.polygon_area_perimeter(lon, lat)[0])
        assert areas[row, col] == pytest.approx(true, rel=2e-6)


def test_utm_inflates_and_the_area_says_so() -> None:
    """At the edge of a zone a UTM pixel of 10 m covers less ground than 100 m2; at the central meridian more."""
    edge = Grid("EPSG:32619", 10.0, 833000.0, 5100000.0, 2, 2)
    middle = Grid("EPSG:32619", 10.0, 500000.0, 5100000.0, 2, 2)
    assert edge.pixel_area_m2().mean() < 99.9
    assert middle.pixel_area_m2().mean() == pytest.approx(100 / 0.9996**2, rel=1e-6)


def test_area_does_not_depend_on_blocks() -> None:
    whole = GRID.pixel_area_m2()
    for block in GRID.blocks(50):
        np.testing.assert_array_equal(GRID.pixel_area_m2(block), whole[block.slices])


@pytest.mark.parametrize(
    ("crs", "message"),
    [("EPSG:4326", "degree"), ("EPSG:2263", "foot"), ("EPSG:999999", "not a CRS"), ("nonsense", "not a CRS")],
)
def test_crs_that_cannot_be_a_grid_is_refused(crs: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_grid(area(-64.42, 45.89, -64.40, 45.90), crs=crs)


def test_crs_override(write_area: Callable[..., Path]) -> None:
    grid = make_grid(read_aoi(write_area()), crs="EPSG:2953")
    assert grid.crs == "EPSG:2953"
    assert math.isclose(grid.width * 10, 1550, rel_tol=0.05)


def raster(path: Path, left: float, top: float, res_m: float = 10.0, crs: str | None = "EPSG:32620") -> Path:
    transform = rasterio.Affine(res_m, 0, left, 0, -res_m, top)
    profile = {"driver": "GTiff", "height": 200, "width": 200, "count": 1, "dtype": "uint8", "transform": transform}
    with rasterio.open(path, "w", crs=crs, **profile) as target:
        target.write(np.zeros((1, 200, 200), dtype=np.uint8))
    return path


@settings(deadline=None, max_examples=20)
@given(x=st.floats(0, 9.99), y=st.floats(0, 9.99))
def test_grid_takes_over_a_rasters_pixel_edges(tmp_path_factory: pytest.TempPathFactory, x: float, y: float) -> None:
    path = raster(tmp_path_factory.mktemp("align") / "own.tif", 388000 + x, 5084000 + y)
    aoi = area(-64.43, 45.885, -64.42, 45.89)
    grid = make_grid(aoi, align=path)
    assert grid.crs == "EPSG:32620"
    with rasterio.open(path) as source:
        columns = (grid.left - source.transform.c) / 10
        rows = (source.transform.f - grid.top) / 10
    assert columns == pytest.approx(round(columns), abs=1e-6)
    assert rows == pytest.approx(round(rows), abs=1e-6)
    inner, outer = aoi.bounds_in(grid.crs), grid.bounds
    assert outer[0] <= inner[0] + 2e-3 * grid.res_m
    assert outer[3] >= inner[3] - 2e-3 * grid.res_m
    assert inner[0] - outer[0] < 10.02


@pytest.mark.parametrize(
    ("made", "crs", "message"),
    [
        ({"res_m": 20.0}, "auto", "pixels of 20 x 20 m, and grid.res_m is 10"),
        ({}, "EPSG:2953", "is in EPSG:32620, and grid.crs is EPSG:2953"),
        ({"crs": None}, "auto", "has no CRS"),
        (None, "auto", "cannot be read"),
    ],
)
def test_raster_that_a_grid_cannot_align_with(
    tmp_path: Path, made: dict[str, object] | None, crs: str, message: str
) -> None:
    path = tmp_path / "own.tif"
    if made is not None:
        raster(path, 388000, 5084000, **made)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        make_grid(area(-64.43, 45.885, -64.42, 45.89), align=path, crs=crs)


def test_a_rasters_own_footprint_gives_its_own_shape(tmp_path: Path) -> None:
    """Longitudes and latitudes of eight decimals, a millimetre, as GeoJSON writers round them."""
    path = raster(tmp_path / "own.tif", 388006.04, 5084009.25)
    to_lonlat = Transformer.from_crs("EPSG:32620", "EPSG:4326", always_xy=True)
    edge = shapely.segmentize(box(388006.04, 5082009.25, 390006.04, 5084009.25), 10)
    ring = [(round(lon, 8), round(lat, 8)) for lon, lat in (to_lonlat.transform(x, y) for x, y in edge.exterior.coords)]
    assert make_grid(Aoi("own", MultiPolygon([Polygon(ring)])), align=path).shape == (200, 200)
