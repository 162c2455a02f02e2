"""Areas of interest: what is read, and what is refused with which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from shapely.geometry import MultiPolygon, Point, Polygon, box

from wetmap.errors import AoiError
from wetmap.geo import Aoi, Grid, make_grid, read_aoi

WITH_HOLE = Polygon(box(-64.42, 45.88, -64.40, 45.90).exterior, [box(-64.414, 45.886, -64.406, 45.894).exterior])


def write(path: Path, geometries: list[object], crs: str | None = "EPSG:4326") -> Path:
    geopandas.GeoDataFrame({"id": range(len(geometries))}, geometry=geometries, crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
def test_any_vector_file_gives_the_same_area(tmp_path: Path, suffix: str) -> None:
    aoi = read_aoi(write(tmp_path / f"area{suffix}", [WITH_HOLE, box(-64.39, 45.88, -64.38, 45.89)]))
    assert len(aoi.geometry.geoms) == 2
    assert aoi.area_ha == pytest.approx(
        sum(abs(_geodesic(g)) for g in (WITH_HOLE, box(-64.39, 45.88, -64.38, 45.89))) / 1e4, rel=1e-6
    )


def test_any_crs_gives_the_same_area(tmp_path: Path) -> None:
    plain = read_aoi(write(tmp_path / "a.gpkg", [WITH_HOLE]))
    frame = geopandas.GeoDataFrame(geometry=[WITH_HOLE], crs="EPSG:4326").to_crs("EPSG:2953")
    frame.to_file(tmp_path / "b.gpkg")
    assert read_aoi(tmp_path / "b.gpkg").area_ha == pytest.approx(plain.area_ha, rel=1e-5)


def test_a_straight_edge_of_a_projected_file_stays_straight_there(tmp_path: Path) -> None:
    """The corners alone of 200 km of a UTM zone, joined again in degrees, would bulge by hundreds of metres."""
    square = box(400_000, 5_000_000, 600_000, 5_200_000)
    found = read_aoi(write(tmp_path / "square.gpkg", [square], crs="EPSG:32620")).bounds_in("EPSG:32620")
    np.testing.assert_allclose(found, square.bounds, atol=0.1)


def test_hole_is_not_inside(tmp_path: Path) -> None:
    aoi = read_aoi(write(tmp_path / "a.gpkg", [WITH_HOLE]))
    grid = make_grid(aoi)
    inside = aoi.inside(grid)
    assert not inside[grid.height // 2, grid.width // 2]
    assert inside.sum() * 100 == pytest.approx(aoi.area_ha * 1e4, rel=0.01)


def test_zone_is_the_one_with_most_of_the_area() -> None:
    mostly_west = Aoi("a", MultiPolygon([box(-66.5, 46, -65.9, 46.1)]))
    mostly_east = Aoi("a", MultiPolygon([box(-66.1, 46, -65.5, 46.1)]))
    south = Aoi("a", MultiPolygon([box(-66.1, -1.0, -66.05, 0.1)]))
    assert mostly_west.utm_crs() == "EPSG:32619"
    assert mostly_east.utm_crs() == "EPSG:32620"
    assert south.utm_crs() == "EPSG:32719"


def test_single_polygon_projects() -> None:
    """shapely.segmentize turns a MultiPolygon of one part into a Polygon."""
    assert isinstance(Aoi("a", MultiPolygon([box(-64.4, 45, -64.3, 45.1)])).geometry_in("EPSG:32620"), MultiPolygon)


def test_inside_does_not_depend_on_strips() -> None:
    aoi = Aoi("a", MultiPolygon([WITH_HOLE]))
    grid = make_grid(aoi)
    whole = aoi.inside(grid)
    for y0 in range(0, grid.height, 64):
        height = min(64, grid.height - y0)
        strip: Grid = grid.window(y0, 0, height, grid.width)
        np.testing.assert_array_equal(aoi.inside(strip), whole[y0 : y0 + height])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AoiError, match="does not exist"):
        read_aoi(tmp_path / "none.geojson")


@pytest.mark.parametrize("content", ["not json", "{}", '{"type": "FeatureCollection", "features": []}'])
def test_unreadable_or_empty_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.geojson"
    path.write_text(content)
    with pytest.raises(AoiError, match=r"cannot be read|no geometry"):
        read_aoi(path)


@pytest.mark.parametrize(
    ("geometries", "message"),
    [
        ([Polygon()], "no geometry"),
        ([Polygon([(-64.4, 45), (-64.3, 45.1), (-64.3, 45), (-64.4, 45.1)])], "Self-intersection"),
        ([Point(-64, 45)], "Point, not only polygons"),
        ([box(-64.4, 45, -64.3, 45.1), Point(-64, 45)], "Point, not only polygons"),
        ([MultiPolygon([box(179, 10, 180, 11), box(-180, 10, -179, 11)])], "antimeridian"),
        ([box(179, 10, 181, 11)], "antimeridian"),
    ],
)
def test_geometry_that_cannot_be_an_area(tmp_path: Path, geometries: list[object], message: str) -> None:
    with pytest.raises(AoiError, match=message):
        read_aoi(write(tmp_path / "bad.gpkg", geometries))


def test_no_crs(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="crs"):
        path = write(tmp_path / "bad.shp", [box(0, 0, 1, 1)], crs=None)
    with pytest.raises(AoiError, match="no CRS"):
        read_aoi(path)


def test_beyond_utm(write_area: Callable[..., Path]) -> None:
    with pytest.raises(AoiError, match="beyond the UTM zones"):
        make_grid(read_aoi(write_area(south=84.5, north=84.6)))


def test_identity_follows_the_geometry_not_the_file(tmp_path: Path) -> None:
    first = read_aoi(write(tmp_path / "a.gpkg", [WITH_HOLE]))
    second = read_aoi(write(tmp_path / "b.geojson", [shapely.reverse(WITH_HOLE)]))
    assert first.sha256 == second.sha256
    assert json.dumps(first.sha256)


def _geodesic(geometry: Polygon) -> float:
    from pyproj import Geod

    return float(Geod(ellps="WGS84").geometry_area_perimeter(shapely.orient_polygons(geometry))[0])


def test_what_gdal_advises_programmers_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("# not a map", encoding="utf-8")
    with pytest.raises(AoiError, match=r"supported file format\)\. Open it in QGIS") as caught:
        read_aoi(path)
    assert "driver" not in str(caught.value)
