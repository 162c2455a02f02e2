"""Majority smoothing, and outlines of patches that are whole, valid, and the same however the map is cut."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import shapes

from wetmap.mapping.outlines import find_corners, trace
from wetmap.mapping.patches import number_patches
from wetmap.mapping.postprocess import majority

MAPS = arrays(np.uint8, st.tuples(st.integers(1, 10), st.integers(1, 10)), elements=st.integers(0, 3))


def smoothed(codes, window):
    return majority(np.pad(codes, window // 2), window)


def by_hand(codes, window):
    """The rule, pixel by pixel."""
    out, reach = codes.copy(), window // 2
    for row, col in zip(*np.nonzero(codes), strict=True):
        around = codes[max(row - reach, 0) : row + reach + 1, max(col - reach, 0) : col + reach + 1]
        classes, counts = np.unique(around[around > 0], return_counts=True)
        best = classes[counts == counts.max()]
        out[row, col] = best[0] if len(best) == 1 else codes[row, col]
    return out


def test_majority_by_hand() -> None:
    before = np.array([[1, 1, 1, 2], [1, 2, 1, 2], [0, 1, 2, 2], [3, 0, 2, 3]], dtype=np.uint8)
    # (1, 1) has six 1 around it; (1, 2) five 2 and four 1, itself one; (3, 3) three 2; the corners above right (two and
    # two) and below left (one and one) are ties and stay
    after = np.array([[1, 1, 1, 2], [1, 1, 2, 2], [0, 1, 2, 2], [3, 0, 2, 2]], dtype=np.uint8)
    np.testing.assert_array_equal(smoothed(before, 3), after)


@settings(deadline=None, max_examples=30)
@given(codes=MAPS, window=st.sampled_from([3, 5, 7]))
def test_majority_is_the_rule_at_every_pixel(codes, window) -> None:
    out = smoothed(codes, window)
    np.testing.assert_array_equal(out, by_hand(codes, window))
    np.testing.assert_array_equal(out == 0, codes == 0)


def polygons(patches):
    outlines = trace(find_corners(np.pad(patches, 1, constant_values=-1), 0, 0))
    return outlines.part, shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, outlines.corners.astype(float), (outlines.rings, outlines.parts)
    )


@settings(deadline=None, max_examples=40)
@given(codes=MAPS)
def test_outlines_are_valid_and_those_of_gdal(codes) -> None:
    patches = number_patches(codes, 4)
    part, made = polygons(patches)
    np.testing.assert_array_equal(part, np.arange(patches.max() + 1))
    assert shapely.is_valid(made).all()
    np.testing.assert_array_equal(shapely.area(made), np.bincount(patches[patches >= 0]))
    others = {int(v): shapely.geometry.shape(s) for s, v in shapes(patches.astype("int32"), patches >= 0, 4)}
    assert all(shapely.equals(shape, others[number]) for number, shape in enumerate(made))
    # columns run right and rows down: counter-clockwise on the ground is clockwise here
    assert not shapely.is_ccw(shapely.get_exterior_ring(made)).any()


@pytest.mark.parametrize(
    ("drawn", "rings"),
    [("### #.# ###", 2), ("##. #.# ###", 2), ("####. #.##. ##.## .####", 3), ("#", 1)],
    ids=["hole", "gap that opens by a corner", "two holes that meet in a corner", "one pixel"],
)
def test_rings(drawn: str, rings: int) -> None:
    mask = np.array([[letter == "#" for letter in row] for row in drawn.split()])
    _, (shape,) = polygons(number_patches(mask.astype(np.uint8), 4))
    assert shape.is_valid
    assert 1 + len(shape.interiors) == rings
    assert shape.area == mask.sum()


def test_corners_alone_are_kept() -> None:
    """Straight sides have no vertices in between."""
    _, (shape,) = polygons(np.zeros((7, 900), dtype=np.int64))
    assert shapely.get_num_coordinates(shape) == 5
