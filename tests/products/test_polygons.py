"""polygons.gpkg: one polygon per patch, whole across blocks, with true hectares, its style inside, always the same."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyogrio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyproj import CRS

from wetmap.classes import MapClass
from wetmap.errors import WorkspaceError
from wetmap.geo import Grid
from wetmap.mapping.patches import number_patches
from wetmap.products import polygons as product
from wetmap.products.areas import count_areas
from wetmap.products.polygons import LAYER, polygon_style
from wetmap.stages.polygons import MapReaders, make_polygons

CLASSES = [
    MapClass(1, "bog <b>&\"é'", "#75130e"),
    MapClass(2, "fen", "#f6d127"),
    MapClass(9, "upland", "#ede9e4", upland=True),
]
#: Near the edge of its UTM zone, where a pixel of 100 m2 is 0.04 % smaller on the ground.
CORNER = {"crs": "EPSG:32620", "res_m": 10.0, "left": 280_000.0, "top": 5_100_000.0}


def write(path: Path, codes, confidence=None, connectivity=4, side=64, **options) -> Grid:
    grid = Grid(**CORNER, height=codes.shape[0], width=codes.shape[1])
    percent = np.full(codes.shape, 80, dtype=np.uint8) if confidence is None else confidence
    readers = MapReaders(grid, lambda block: codes[block.slices], lambda block: percent[block.slices])
    make_polygons(path, readers, CLASSES, connectivity, simulated=False, block_px=side, **options)
    return grid


MAPS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 9]))


@settings(deadline=None, max_examples=6)
@given(codes=MAPS, connectivity=st.sampled_from([4, 8]), side=st.integers(1, 5))
def test_every_patch_is_one_valid_polygon_and_bytes_do_not_depend_on_blocks(
    tmp_path_factory, codes, connectivity, side
) -> None:
    folder = tmp_path_factory.mktemp("polygons")
    grid = write(folder / "whole.gpkg", codes, connectivity=connectivity)
    write(folder / "cut.gpkg", codes, connectivity=connectivity, side=side)
    assert (folder / "whole.gpkg").read_bytes() == (folder / "cut.gpkg").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["cut.gpkg", "whole.gpkg"]
    frame = geopandas.read_file(folder / "cut.gpkg", layer=LAYER)
    patches = number_patches(codes, connectivity)
    assert len(frame) == patches.max() + 1
    if not len(frame):
        return
    assert frame.geometry.is_valid.all()
    np.testing.assert_allclose(frame.area, frame.pixels * 100)
    order = np.unique(patches[patches >= 0])
    assert frame.pixels.tolist() == np.bincount(patches[patches >= 0]).tolist()
    assert frame.code.tolist() == [int(codes[patches == patch][0]) for patch in order]
    for row in count_areas(grid, lambda block: codes[block.slices], CLASSES):
        mine = frame.hectares[frame.code == row.code]
        assert mine.sum() == pytest.approx(row.hectares, abs=5e-5 * (len(mine) + 1))
    touching = frame.geometry.union_all()
    assert touching.area == pytest.approx((codes > 0).sum() * 100), "no overlap, no sliver"


def test_fields_by_hand(tmp_path: Path) -> None:
    codes = np.array([[1, 1, 0, 2], [1, 2, 0, 2], [0, 0, 0, 0], [9, 9, 9, 9]], dtype=np.uint8)
    percent = np.array([[90, 80, 255, 50], [255, 30, 255, 51], [255] * 4, [255] * 4], dtype=np.uint8)
    grid = write(tmp_path / "polygons.gpkg", codes, percent, side=2)
    frame = geopandas.read_file(tmp_path / "polygons.gpkg", layer=LAYER)
    assert frame.columns.tolist() == ["code", "class", "hectares", "confidence", "pixels", "geometry"]
    assert frame["class"].tolist() == ["bog <b>&\"é'", "fen", "fen", "upland"]
    # the mean leaves out the pixel whose class is not the model's; the last patch has no other
    assert frame.confidence.tolist()[:3] == [85.0, 50.5, 30.0]
    assert np.isnan(frame.confidence[3])
    area = grid.pixel_area_m2()
    assert frame.hectares[0] == round((area[0, 0] + area[0, 1] + area[1, 0]) / 1e4, 4)
    assert frame.crs.to_epsg() == 32620
    assert frame.geometry[0].bounds == (280_000.0, 5_099_980.0, 280_020.0, 5_100_000.0)


def test_hectares_are_those_on_the_ground(tmp_path: Path) -> None:
    """100 x 100 pixels of 100 m2 are 100 ha on the map and 99.96 ha on the ellipsoid here."""
    grid = write(tmp_path / "polygons.gpkg", np.ones((100, 100), dtype=np.uint8), side=30)
    frame = geopandas.read_file(tmp_path / "polygons.gpkg", layer=LAYER)
    geodesic = (
        CRS.from_user_input(grid.crs)
        .get_geod()
        .geometry_area_perimeter(frame.geometry.segmentize(10).to_crs(4326)[0])[0]
    )
    assert frame.hectares[0] == pytest.approx(abs(geodesic) / 1e4, abs=2e-4)
    assert abs(frame.hectares[0] - 100) > 0.03


def test_the_file_is_a_geopackage_that_gis_and_sqlite_find_sound(tmp_path: Path) -> None:
    path = tmp_path / "polygons.gpkg"
    write(path, np.array([[1, 2], [9, 9]], dtype=np.uint8))
    assert [row[0] for row in pyogrio.list_layers(path)] == [LAYER, "layer_styles"]
    info = pyogrio.read_info(path, layer=LAYER)
    assert (info["geometry_type"], info["features"]) == ("MultiPolygon", 3)
    assert info["capabilities"]["fast_spatial_filter"], "GDAL found the spatial index"
    few = pyogrio.read_dataframe(path, layer=LAYER, bbox=(280_001.0, 5_099_995.0, 280_002.0, 5_099_996.0))
    assert few["class"].tolist() == [CLASSES[0].name]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute(
            "SELECT count(*) FROM gpkg_contents WHERE last_change != ?", (product.DATE,)
        ).fetchone() == (0,)
        style, default, geometry = connection.execute(
            "SELECT styleQML, useAsDefault, f_geometry_column FROM layer_styles WHERE f_table_name = ?", (LAYER,)
        ).fetchone()
    connection.close()
    assert (default, geometry) == (1, "geom")
    assert style == polygon_style(CLASSES)
    # what an editor does goes to the index as well
    pyogrio.write_dataframe(few, path, layer=LAYER, append=True)
    twice = pyogrio.read_dataframe(path, layer=LAYER, bbox=(280_001.0, 5_099_995.0, 280_002.0, 5_099_996.0))
    assert len(twice) == 2


def test_style_has_exactly_the_classes() -> None:
    root = ElementTree.fromstring(polygon_style(CLASSES))  # noqa: S314 - our own
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "code")
    shown = {row.get("value"): (row.get("label"), row.get("symbol")) for row in renderer.iter("category")}
    assert {code: label for code, (label, _) in shown.items()} == {str(row.code): row.name for row in CLASSES}
    for symbol in renderer.iter("symbol"):
        code = next(code for code, (_, name) in shown.items() if name == symbol.get("name"))
        rgb = ",".join(map(str, next(row for row in CLASSES if str(row.code) == code).rgb))
        (option,) = (row.get("value") for row in symbol.iter("Option") if row.get("name") == "color")
        assert option == f"{rgb},255"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "polygons.gpkg"
    write(path, np.ones((2, 2), dtype=np.uint8))
    old = path.read_bytes()

    def broken(_block):
        raise WorkspaceError("No more.", do="Stop.")

    grid = Grid(**CORNER, height=2, width=2)
    with pytest.raises(WorkspaceError, match="No more"):
        make_polygons(path, MapReaders(grid, broken, broken), CLASSES, 4, simulated=False)
    with pytest.raises(WorkspaceError, match=r"could not be written"):
        write(tmp_path / "none" / "polygons.gpkg", np.ones((2, 2), dtype=np.uint8))
    assert path.read_bytes() == old
    assert [row.name for row in tmp_path.iterdir()] == ["polygons.gpkg"]
