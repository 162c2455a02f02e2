"""Hectares: true areas on the ellipsoid, exactly summed, and called what they are."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from wetmap.classes import MapClass
from wetmap.geo import Grid
from wetmap.products.areas import BASIS, AreaRow, count_areas, write_areas_csv
from wetmap.workspace import spreadsheet_cell

BOG, FEN, UPLAND = (
    MapClass(1, "bog", "#75130e"),
    MapClass(2, "fen", "#f6d127"),
    MapClass(9, "upland", "#ede9e4", upland=True),
)

PLACES = [
    ("EPSG:32620", 300_000.0, 5_100_000.0),  # near the edge of zone 20, New Brunswick
    ("EPSG:32619", 500_000.0, 5_050_000.0),  # the central meridian of zone 19: scale 0.9996
    ("EPSG:2953", 2_600_000.0, 7_450_000.0),  # New Brunswick Double Stereographic
    ("EPSG:32718", 690_000.0, 5_700_000.0),  # southern hemisphere
]


def geodesic_ha(grid, row, col):
    """Area of one pixel as a polygon of short geodesics, hectares: independent of PROJ's areal scale."""
    left, top, side = grid.left + col * grid.res_m, grid.top - row * grid.res_m, grid.res_m
    edge = np.linspace(0, 1, 5)[:-1]
    along = np.concatenate([edge, np.ones(4), 1 - edge, np.zeros(4)])
    down = np.concatenate([np.zeros(4), edge, np.ones(4), 1 - edge])
    crs = CRS.from_user_input(grid.crs)
    lon, lat = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(
        left + along * side, top - down * side
    )
    area, _ = Geod(a=crs.ellipsoid.semi_major_metre, rf=crs.ellipsoid.inverse_flattening).polygon_area_perimeter(
        lon, lat
    )
    return abs(area) / 1e4


@pytest.mark.parametrize(("crs", "left", "top"), PLACES)
def test_hectares_are_the_geodesic_area_of_the_pixels(crs, left, top):
    grid = Grid(crs, 30.0, left, top, 13, 17)
    codes = np.random.default_rng(4).choice(np.array([0, 1, 2, 9], dtype=np.uint8), grid.shape)
    rows = count_areas(grid, lambda block: codes[block.slices], [BOG, FEN, UPLAND])
    for row in rows:
        expected = sum(geodesic_ha(grid, y, x) for y, x in np.argwhere(codes == row.code))
        assert row.hectares == pytest.approx(expected, rel=1e-6)
        assert row.pixels == int((codes == row.code).sum())
    assert sum(row.share_percent for row in rows) == pytest.approx(100)


def test_a_pixel_at_the_edge_of_its_zone_is_not_counted_as_900_square_metres():
    grid = Grid("EPSG:32620", 30.0, 166_000.0, 5_100_000.0, 1, 1)
    (row,) = count_areas(grid, lambda _: np.ones((1, 1), dtype=np.uint8), [BOG])
    assert row.hectares == pytest.approx(0.09 / 1.00196, rel=1e-4)


def test_hectares_do_not_depend_on_where_the_pixels_lie_in_the_reading_windows():
    codes = np.random.default_rng(0).integers(1, 3, (700, 900), dtype=np.uint8)
    grid = Grid("EPSG:32620", 10.0, 300_000.0, 5_100_000.0, 700, 900)
    whole = count_areas(grid, lambda block: codes[block.slices], [BOG, FEN])
    area = grid.pixel_area_m2()
    assert whole[0].hectares == pytest.approx(area[codes == 1].sum() / 1e4, rel=1e-12)
    assert whole[1].pixels == int((codes == 2).sum())


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30), st.integers(1, 700))
def test_any_size(height, width):
    grid = Grid("EPSG:2953", 10.0, 2_500_000.0, 7_500_000.0, height, width)
    rows = count_areas(grid, lambda block: np.full((block.height, block.width), 2, np.uint8), [BOG, FEN])
    assert [row.pixels for row in rows] == [0, height * width]
    assert [row.share_percent for row in rows] == [0, 100]
    assert rows[1].hectares == pytest.approx(height * width / 100, rel=2e-3)


def test_nothing_mapped_is_no_division_by_zero():
    grid = Grid("EPSG:32620", 10.0, 300_000.0, 5_100_000.0, 3, 3)
    rows = count_areas(grid, lambda _: np.zeros((3, 3), dtype=np.uint8), [UPLAND, BOG])
    assert rows == (AreaRow(9, "upland", 0, 0.0, 0.0), AreaRow(1, "bog", 0, 0.0, 0.0))


def test_the_table_opens_in_a_spreadsheet_and_says_what_it_is(tmp_path):
    path = tmp_path / "areas.csv"
    write_areas_csv(path, [AreaRow(1, 'bog, "raised"', 12, 0.119876543, 25.0), AreaRow(2, "fen", 36, 0.36, 75.0)])
    assert path.read_bytes().splitlines()[0] == b"code,class,pixels,hectares,share_percent,basis"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "code": "1",
        "class": 'bog, "raised"',
        "pixels": "12",
        "hectares": "0.1199",
        "share_percent": "25.0000",
        "basis": BASIS,
    }
    assert BASIS == "pixel count, not an estimate"


@settings(deadline=None, max_examples=30)
@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\x00"), min_size=1))
def test_any_name_comes_back_equal(tmp_path_factory, name):
    path = tmp_path_factory.mktemp("names") / "areas.csv"
    write_areas_csv(path, [AreaRow(1, name, 1, 0.01, 100.0)])
    with path.open(newline="", encoding="utf-8-sig") as file:
        assert next(csv.DictReader(file))["class"] == spreadsheet_cell(name)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf") is not name.isascii()


def test_same_rows_same_bytes(tmp_path):
    rows = [AreaRow(1, "tourbière", 1, 0.01, 100.0)]
    for name in ("a.csv", "b.csv"):
        write_areas_csv(tmp_path / name, rows)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
