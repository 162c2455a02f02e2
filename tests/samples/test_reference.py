"""Reference data on the grid: what is labelled, what is left out, and what is said about it."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wetmap.errors import ReferenceDataError, ReferenceWarning, UsageError
from wetmap.geo import Grid
from wetmap.recipe import Background, ClassSpec, Reference
from wetmap.samples import UNLABELLED, read_reference
from wetmap.samples.vector import far_from, paint

NO_UPLAND = "ignore:No class of the reference is dry land"
quiet = pytest.mark.filterwarnings(NO_UPLAND)


def reference(path, **options):
    return Reference(path=path, **{"class_field": "CLASS", **options})


def read(path, grid, aoi, classes=(), **options):
    return read_reference(reference(path, **options), list(classes), grid, aoi)


def place(labels, name):
    code = next(row.code for row in labels.classes if row.name == name)
    rows, cols = np.nonzero(labels.codes == code)
    return (rows.min(), rows.max() + 1, cols.min(), cols.max() + 1) if len(rows) else None


@quiet
def test_a_rectangle_of_whole_pixels_labels_exactly_these_pixels(grid, aoi, pixels, vector):
    labels = read(vector([pixels(5, 8, 10, 14), pixels(20, 25, 30, 31)], ["bog", "fen"]), grid, aoi)
    assert place(labels, "bog") == (5, 8, 10, 14)
    assert place(labels, "fen") == (20, 25, 30, 31)
    assert labels.report["pixels"] == {"bog": 12, "fen": 5}
    assert set(np.unique(labels.codes)) == {1, 2, UNLABELLED}
    assert labels.background is None


@quiet
def test_a_pixel_is_labelled_when_its_centre_is_inside(grid, aoi, pixels, vector):
    almost, just = pixels(5.6, 8.4, 10.6, 14.4), pixels(20.4, 22.6, 30.4, 32.6)
    labels = read(vector([almost, just], ["bog", "fen"]), grid, aoi)
    assert place(labels, "bog") == (6, 8, 11, 14)
    assert place(labels, "fen") == (20, 23, 30, 33)


@quiet
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2953", "EPSG:32620"])
@pytest.mark.parametrize("name", ["reference.gpkg", "reference.shp"])
def test_any_crs_and_format_lands_on_the_same_pixels(grid, aoi, pixels, vector, crs, name):
    # Edges lie a quarter pixel inside, so that a rounding of the projection cannot move a centre across.
    labels = read(vector([pixels(4.75, 8.25, 9.75, 14.25)], ["bog"], crs=crs, name=name), grid, aoi)
    assert place(labels, "bog") == (5, 8, 10, 14)


@quiet
def test_geojson_in_degrees(grid, aoi, pixels, vector):
    path = vector([pixels(4.75, 8.25, 9.75, 14.25)], ["bog"], crs="EPSG:4326", name="reference.geojson")
    assert place(read(path, grid, aoi), "bog") == (5, 8, 10, 14)


@quiet
def test_points_label_the_pixel_they_are_in_and_have_ids(grid, aoi, vector):
    points = [shapely.Point(grid.left + x * 10, grid.top - y * 10) for y, x in ((3.1, 7.9), (30.5, 40.5))]
    labels = read(vector(points, ["bog", "fen"]), grid, aoi)
    assert [tuple(at) for at in np.argwhere(labels.codes != UNLABELLED)] == [(3, 7), (30, 40)]
    assert labels.polygon[3, 7] != labels.polygon[30, 40]
    assert (labels.polygon >= 0).sum() == 2


@quiet
def test_ids_are_the_features_own_and_holes_stay_empty(grid, aoi, pixels, vector):
    ring = pixels(5, 15, 5, 15).difference(pixels(8, 12, 8, 12))
    labels = read(vector([ring, pixels(20, 22, 20, 22)], ["bog", "bog"]), grid, aoi)
    assert (labels.codes[8:12, 8:12] == UNLABELLED).all()
    assert labels.polygon[5, 5] != labels.polygon[20, 20]
    assert ((labels.polygon == -1) == (labels.codes == UNLABELLED)).all()


@quiet
def test_outside_the_area_nothing_is_labelled(grid, aoi, pixels, vector):
    labels = read(vector([pixels(-20, 60, -20, 80), pixels(500, 510, 5, 10)], ["bog", "bog"]), grid, aoi)
    assert (labels.codes[1:-1, 1:-1] == 1).all()
    assert (labels.codes[0] == UNLABELLED).all()
    assert (labels.codes[:, -1] == UNLABELLED).all()
    assert labels.report["features"] == 2
    assert labels.report["features_outside"] == 1
    assert labels.report["features_used"] == 1


@quiet
def test_overlap_of_classes_is_unlabelled_and_overlap_within_a_class_is_not(grid, aoi, pixels, vector):
    path = vector([pixels(5, 10, 5, 10), pixels(8, 13, 8, 13), pixels(5, 7, 9, 12)], ["bog", "fen", "bog"])
    with pytest.warns(ReferenceWarning, match="In 4 pixels features of different classes overlap"):
        labels = read(path, grid, aoi)
    assert (labels.codes[8:10, 8:10] == UNLABELLED).all()
    assert (labels.polygon[8:10, 8:10] == -1).all()
    assert (labels.codes[5:7, 9] == 1).all()
    assert labels.polygon[5, 9] == labels.polygon[5, 5]  # the lowest id
    assert labels.report["overlapping_pixels"] == 4
    assert labels.report["pixels"] == {"bog": 25 - 4 + 4, "fen": 21}


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.floats(0, 38), st.floats(0, 58), st.floats(0.1, 20), st.floats(0.1, 20)),
        min_size=1,
        max_size=8,
    )
)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_painting_is_point_in_polygon_at_the_centres(features):
    grid = Grid("EPSG:32619", 10.0, 600000.0, 5100000.0, 40, 60)
    boxes = [
        shapely.box(grid.left + x * 10, grid.top - (y + h) * 10, grid.left + (x + w) * 10, grid.top - y * 10)
        for _, y, x, h, w in features
    ]
    # A centre on an edge may fall to either side: keep edges off the centres.
    if any(abs(edge / 10 - 0.5 - round(edge / 10 - 0.5)) < 1e-6 for one in boxes for edge in one.bounds):
        return
    codes = np.array([code for code, *_ in features])
    ids = np.arange(len(codes), dtype=np.int32)
    inside = np.ones(grid.shape, dtype=bool)
    painted, polygon, overlapping = paint(np.array(boxes, dtype=object), ids, codes, grid, inside)
    x, y = np.meshgrid(grid.x, grid.y)
    within = np.array([shapely.contains_xy(box, x, y) for box in boxes])
    held = np.array([[(within[codes == code]).any(axis=0)] for code in (1, 2, 3)])[:, 0]
    alone = held.sum(axis=0) == 1
    assert (painted == np.where(alone, held.argmax(axis=0) + 1, UNLABELLED)).all()
    assert overlapping == (held.sum(axis=0) > 1).sum()
    assert (polygon == np.where(alone, within.argmax(axis=0), -1)).all()
    order = np.random.default_rng(0).permutation(len(codes))
    again = paint(np.array(boxes, dtype=object)[order], ids[order], codes[order], grid, inside)
    assert (again[0] == painted).all()
    assert (again[1] == polygon).all()


@quiet
def test_invalid_polygons_are_repaired_and_said(grid, aoi, vector, pixels):
    x, y = grid.left, grid.top
    bow_tie = shapely.Polygon([(x + 50, y - 50), (x + 150, y - 150), (x + 150, y - 50), (x + 50, y - 150)])
    with pytest.warns(ReferenceWarning, match=r"1 reference features.*invalid geometry.*Self-intersection"):
        labels = read(vector([bow_tie, pixels(20, 22, 20, 22)], ["bog", "fen"]), grid, aoi)
    assert labels.report["features_repaired"] == 1
    assert labels.report["pixels"]["bog"] > 20


@quiet
def test_lines_and_missing_geometry_are_left_out_and_said(grid, aoi, vector, pixels):
    line = shapely.LineString([(grid.left, grid.top), (grid.left + 300, grid.top - 300)])
    path = vector(
        [line, None, pixels(20, 22, 20, 22)], ["bog", "bog", "fen"], name="reference.geojson", crs="EPSG:4326"
    )
    with pytest.warns(ReferenceWarning, match="neither polygon nor point"):
        labels = read(path, grid, aoi)
    assert labels.report["pixels"] == {"fen": 4}


@quiet
def test_empty_and_unknown_values_are_counted_and_said(grid, aoi, pixels, vector):
    shapes = [pixels(y, y + 2, 5, 7) for y in (3, 6, 9, 12, 15)]
    path = vector(shapes, ["BO", None, "XX", "XX", "  "])
    with pytest.warns(ReferenceWarning) as caught:
        labels = read(path, grid, aoi, [ClassSpec(name="bog", reference=["bo"])])
    said = [str(one.message) for one in caught]
    assert any("2 of 5 reference features in the area have an empty class field" in text for text in said)
    assert any("2 reference features have a value that no class" in text and "'XX' (2)" in text for text in said)
    assert labels.report["unmatched_values"] == {"XX": 2}
    assert labels.report["features_without_class"] == 2
    assert labels.report["features_used"] == 1
    assert len(labels.report["warnings"]) == 3


@quiet
def test_a_number_field_names_classes(grid, aoi, pixels, vector):
    labels = read(vector([pixels(3, 5, 3, 5), pixels(9, 11, 3, 5)], [12, 40]), grid, aoi)
    assert [(row.code, row.name) for row in labels.classes] == [(12, "12"), (40, "40")]
    assert labels.codes[3, 3] == 12


def test_without_dry_land_it_warns_what_will_happen_and_what_to_do(grid, aoi, pixels, vector):
    path = vector([pixels(5, 8, 5, 8), pixels(15, 18, 5, 8)], ["bog", "fen"])
    with pytest.warns(
        ReferenceWarning, match=r"\(bog, fen\): everything would become one of these\. Add `background:`"
    ):
        read(path, grid, aoi)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(path, grid, aoi, background=Background(buffer_m=0))
        read(path, grid, aoi, [ClassSpec(name="bog"), ClassSpec(name="fen", upland=True)])


def test_background_lies_beyond_the_buffer_of_every_feature_known_or_not(grid, aoi, pixels, vector):
    shapes = [pixels(5, 10, 5, 10), pixels(20, 25, 40, 45)]
    with pytest.warns(ReferenceWarning, match="no class of the recipe"):
        labels = read(
            vector(shapes, ["bog", "XX"]), grid, aoi, [ClassSpec(name="bog")], background=Background(buffer_m=55)
        )
    x, y = np.meshgrid(grid.x, grid.y)
    distance = np.min([shapely.distance(shape, shapely.points(x, y)) for shape in shapes], axis=0)
    inside = aoi.inside(grid)
    assert labels.background is not None
    assert not labels.background[(distance <= 55) | ~inside].any()
    assert labels.background[(distance > 55.2) & inside].all()
    assert labels.report["background_candidates"] == labels.background.sum()
    assert (labels.codes[labels.background] == UNLABELLED).all()
    assert labels.polygon[labels.background].min() > labels.polygon[5, 5]
    assert [(row.name, row.upland) for row in labels.classes] == [("bog", False), ("upland", True)]


def test_a_pixel_exactly_at_the_buffer_is_not_beyond_it(grid):
    point = np.array([shapely.Point(grid.x[30], grid.y[20])], dtype=object)
    for row, col in ((0, 5), (1, 7), (2, 5), (3, 4), (5, 5), (7, 2), (9, 4), (1, 12)):
        distance = 10 * np.hypot(row, col)
        assert not far_from(point, distance, grid)[20 + row, 30 + col]
        assert far_from(point, distance / 1.003, grid)[20 + row, 30 + col]


def test_background_without_buffer_leaves_out_pixels_that_a_feature_touches(grid):
    point = np.array([shapely.Point(grid.left + 15, grid.top - 15)], dtype=object)
    assert np.argwhere(~far_from(point, 0.0, grid)).tolist() == [[1, 1]]


# Label rasters


@quiet
def test_a_label_raster_on_the_grid_is_copied(grid, aoi, raster):
    values = np.zeros(grid.shape, dtype=np.uint8)
    values[5:8, 10:14], values[20:25, 30] = 3, 7
    labels = read(raster(values, grid, nodata=0), grid, aoi, class_field=None)
    assert [(row.code, row.name) for row in labels.classes] == [(3, "3"), (7, "7")]
    assert place(labels, "3") == (5, 8, 10, 14)
    assert place(labels, "7") == (20, 25, 30, 31)
    assert labels.report["pixels"] == {"3": 12, "7": 5}


@quiet
def test_a_label_raster_of_another_grid_is_sampled_at_the_centres(grid, aoi, raster):
    fine = Grid(grid.crs, 2.5, grid.left - 30, grid.top + 20, 200, 300)
    x, _ = np.meshgrid(fine.x, fine.y)
    values = np.where((x - fine.left) % 7 < 3.5, 1, 200).astype(np.uint8)  # stripes that interpolation would blend
    labels = read(raster(values, fine), grid, aoi, class_field=None)
    column = np.floor((grid.x - fine.left) / 2.5 + 1e-6).astype(int)
    expected = values[0, column]
    assert (labels.codes[10, 1:-1] == expected[1:-1]).all()
    assert set(np.unique(labels.codes)) <= {1, 200, UNLABELLED}


@quiet
def test_a_label_raster_of_another_crs_holds_the_class_at_the_centre(grid, aoi, raster):
    other = Grid("EPSG:32620", 10.0, 134000.0, 5112000.0, 400, 400)
    values = np.arange(160000).reshape(400, 400) % 5
    labels = read(raster(values.astype(np.int16), other, nodata=0), grid, aoi, class_field=None)
    from pyproj import Transformer

    to_other = Transformer.from_crs(grid.crs, other.crs, always_xy=True)
    for row, col in ((5, 5), (20, 33), (37, 50)):
        x, y = to_other.transform(grid.x[col], grid.y[row])
        expected = values[int((other.top - y) // 10), int((x - other.left) // 10)]
        assert labels.codes[row, col] == (expected or UNLABELLED)


@quiet
def test_blocks_of_sampling_do_not_show(grid, aoi, raster, monkeypatch):
    values = np.random.default_rng(1).integers(1, 6, grid.shape).astype(np.float32)
    values[3:9, 3:9] = np.nan
    path = raster(values, grid)
    whole = read(path, grid, aoi, class_field=None)
    monkeypatch.setattr("wetmap.samples.label_raster.SAMPLE_PX", 7)
    assert (read(path, grid, aoi, class_field=None).codes == whole.codes).all()
    assert (whole.codes[3:9, 3:9] == UNLABELLED).all()


@quiet
def test_regions_of_a_label_raster_are_squares_whatever_the_class(area, raster):
    grid = Grid("EPSG:32619", 10.0, 600000.0, 5100000.0, 70, 130)
    values = np.random.default_rng(1).integers(1, 3, grid.shape).astype(np.uint8)
    labels = read(raster(values, grid), grid, area(grid), class_field=None)
    assert np.unique(labels.polygon).tolist() == [0, 1, 2, 3, 4, 5]
    assert (labels.polygon[:64, 64:128] == 1).all()


@quiet
def test_255_is_unlabelled_in_a_raster_of_bytes_unless_a_class_claims_it(grid, aoi, raster):
    values = np.full(grid.shape, 255, dtype=np.uint8)
    values[5:9, 5:9] = 1
    path = raster(values, grid)
    assert read(path, grid, aoi, class_field=None).report["pixels"] == {"1": 16}
    specs = [ClassSpec(name="bog", reference=[1]), ClassSpec(name="upland", reference=[255])]
    labels = read(path, grid, aoi, specs, class_field=None)
    assert labels.report["pixels"] == {"bog": 16, "upland": 38 * 58 - 16}


@quiet
def test_raster_values_of_no_class_are_counted(grid, aoi, raster):
    values = np.full(grid.shape, 4, dtype=np.uint8)
    values[5:9, 5:9] = 1
    with pytest.warns(ReferenceWarning, match=rf"{38 * 58 - 16} reference pixels have a value .* '4'"):
        labels = read(raster(values, grid), grid, aoi, [ClassSpec(name="bog", reference=[1])], class_field=None)
    assert labels.report["unmatched_values"] == {"4": 38 * 58 - 16}


def test_background_of_a_sparse_label_raster(grid, aoi, raster):
    values = np.zeros(grid.shape, dtype=np.uint8)
    values[20, 30] = 1
    values[0, 0] = 1  # outside the area, and yet no background beside it
    labels = read(raster(values, grid, nodata=0), grid, aoi, class_field=None, background=Background(buffer_m=30))
    row, col = np.mgrid[: grid.height, : grid.width]
    far = (np.hypot(row - 20, col - 30) > 3) & (np.hypot(row, col) > 3) & aoi.inside(grid)
    assert (labels.background == far).all()


# What bad input gets


def test_missing_file(grid, aoi, tmp_path):
    with pytest.raises(UsageError, match=r"nowhere.gpkg, which does not exist. Give its path with --reference"):
        read(tmp_path / "nowhere.gpkg", grid, aoi)


def test_unreadable_file(grid, aoi, tmp_path):
    (tmp_path / "broken.gpkg").write_bytes(b"not a database")
    with pytest.raises(ReferenceDataError, match=r"broken.gpkg is neither a vector file nor a raster .*QGIS"):
        read(tmp_path / "broken.gpkg", grid, aoi)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_no_crs(grid, aoi, pixels, vector):
    path = vector([pixels(5, 8, 10, 14)], ["bog"], crs=None, name="reference.shp")
    with pytest.raises(ReferenceDataError, match=r"has no CRS\. Set its CRS in QGIS"):
        read(path, grid, aoi)


def test_no_class_field_lists_the_fields(grid, aoi, pixels, vector):
    path = vector([pixels(5, 8, 10, 14)], ["bog"])
    with pytest.raises(UsageError, match=r"No class field is named .*fields: CLASS, note\."):
        read(path, grid, aoi, class_field=None)
    with pytest.raises(UsageError, match=r"No field 'class' in .*fields: CLASS, note\."):
        read(path, grid, aoi, class_field="class")


def test_unknown_layer_lists_the_layers(grid, aoi, pixels, vector):
    path = vector([pixels(5, 8, 10, 14)], ["bog"], layer="wetlands")
    vector([pixels(5, 8, 10, 14)], ["bog"], layer="roads", mode="a")
    with pytest.raises(UsageError, match=r"no layer 'wetland'\. Choose one of its layers: wetlands, roads\."):
        read(path, grid, aoi, layer="wetland")


def test_a_table_without_geometry(grid, aoi, tmp_path):
    (tmp_path / "table.csv").write_text("CLASS,x\nbog,1\n")
    with pytest.raises(ReferenceDataError, match="holds no geometry"):
        read(tmp_path / "table.csv", grid, aoi)


def test_nothing_in_the_area_says_where_both_lie(grid, aoi, pixels, vector):
    path = vector([pixels(900, 910, 900, 910)], ["bog"])
    with pytest.raises(ReferenceDataError, match=r"None of the 1 features .* lies in area: .*x 609000 to 609100.*5.09"):
        read(path, grid, aoi)


def test_on_the_grid_but_not_in_the_area(grid, aoi, pixels, vector):
    with pytest.raises(ReferenceDataError, match="lies in area"):
        read(vector([pixels(0, 1, 0, 1).buffer(-2)], ["bog"]), grid, aoi)


def test_no_class_of_the_recipe(grid, aoi, pixels, vector):
    path = vector([pixels(5, 8, 10, 14)], ["BO"])
    with (
        pytest.warns(ReferenceWarning, match="no class of the recipe"),
        pytest.raises(ReferenceDataError, match=r"CLASS holds 'BO', and the recipe names bog\. List these values"),
    ):
        read(path, grid, aoi, [ClassSpec(name="bog")])


def test_smaller_than_a_pixel(grid, aoi, pixels, vector):
    with pytest.raises(ReferenceDataError, match="labels no pixel of the area"):
        read(vector([pixels(5.1, 5.3, 10.1, 10.3)], ["bog"]), grid, aoi)


def test_raster_without_crs(grid, aoi, raster):
    with pytest.raises(ReferenceDataError, match=r"label raster .* has no CRS"):
        read(raster(np.ones(grid.shape, np.uint8), grid, crs=None), grid, aoi, class_field=None)


def test_raster_of_bands(grid, aoi, raster):
    with pytest.raises(ReferenceDataError, match="has 2 bands, and classes are one band"):
        read(raster(np.ones((2, *grid.shape), np.uint8), grid), grid, aoi, class_field=None)


def test_raster_elsewhere(grid, aoi, raster):
    far = replace(grid, left=grid.left + 1e5)
    with pytest.raises(ReferenceDataError, match="labels no pixel of the area"):
        read(raster(np.ones(grid.shape, np.uint8), far), grid, aoi, class_field=None)


def test_raster_of_measurements(grid, aoi, raster, monkeypatch):
    monkeypatch.setattr("wetmap.samples.label_raster.LARGEST_LEGEND", 100)
    values = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    with pytest.raises(ReferenceDataError, match="more than 100 distinct values"):
        read(raster(values, grid), grid, aoi, class_field=None)


def test_raster_of_no_class_of_the_recipe(grid, aoi, raster):
    path = raster(np.full(grid.shape, 4, np.uint8), grid)
    with pytest.raises(ReferenceDataError, match=r"it holds 4, and the recipe names bog"):
        read(path, grid, aoi, [ClassSpec(name="bog", reference=[1])], class_field=None)


@quiet
def test_a_class_field_of_a_raster_is_said_to_be_unused(grid, aoi, raster):
    with pytest.warns(ReferenceWarning, match="the class field 'CLASS' is not used"):
        read(raster(np.ones(grid.shape, np.uint8), grid), grid, aoi)
