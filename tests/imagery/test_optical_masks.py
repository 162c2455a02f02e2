"""Masks: what a recipe masks, how far it grows, and shadows that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from wetmap.imagery.masks import MASKABLE, clear_mask, distance_m, grown_by, obstructed, standing_shadow
from wetmap.imagery.windows import disc
from wetmap.recipe import Optical
from wetmap.recipe_imagery import MASKED

#: Classes behind each name of the recipe.
CLASSES = {"cloud": (8, 9), "cirrus": (10,), "shadow": (3,), "snow": (11,), "saturated": (1,)}


def scl(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


def pixels(*classes: int) -> list[np.ndarray]:
    """Looks at one pixel."""
    return [np.full((1, 1), number, dtype=np.uint8) for number in classes]


class TestChoice:
    def test_the_recipe_masks_everything_that_there_is_to_mask(self) -> None:
        assert Optical().mask == MASKED == list(MASKABLE) == list(CLASSES)

    @pytest.mark.parametrize("left_out", MASKED)
    def test_each_can_be_left_in(self, left_out: str) -> None:
        mask = [name for name in MASKED if name != left_out]
        kept = {2, 4, 5, 6, 7, *CLASSES[left_out]}
        for number in range(12):
            clear = clear_mask(np.full((5, 5), number, dtype=np.uint8), res_m=10, dilate_m=20, mask=mask)
            assert clear.all() == (number in kept)
            assert clear.any() == (number in kept)

    def test_what_is_left_in_does_not_grow(self) -> None:
        one = scl([4, 4, 4], [4, 10, 4], [4, 4, 4])
        assert clear_mask(one, res_m=10, dilate_m=10, mask=["cloud"]).all()
        assert clear_mask(one, res_m=10, dilate_m=10).sum() == 4

    def test_no_data_is_always_masked(self) -> None:
        assert not clear_mask(scl([0]), res_m=10, dilate_m=0, mask=[]).any()

    def test_whole_numbers_and_floats_say_the_same(self) -> None:
        draw = np.random.default_rng(1)
        whole = draw.integers(0, 12, (30, 40)).astype(np.uint8)
        real = np.where(whole == 0, np.float32(np.nan), whole).astype(np.float32)
        np.testing.assert_array_equal(clear_mask(whole, res_m=10, dilate_m=20), clear_mask(real, res_m=10, dilate_m=20))


class TestGrowing:
    @settings(max_examples=40, deadline=None)
    @given(arrays(bool, (11, 13), elements=st.booleans() | st.just(False)), st.integers(1, 7))
    def test_agrees_with_scipy(self, mask: np.ndarray, radius: int) -> None:
        np.testing.assert_array_equal(grown_by(mask, radius), ndimage.binary_dilation(mask, structure=disc(radius)))

    def test_distance_by_hand(self) -> None:
        found = np.zeros((5, 5), dtype=bool)
        found[2, 2] = True
        far = distance_m(found, res_m=20, most_m=50)
        assert far[2, 2] == 0
        assert far[2, 4] == 40
        assert far[1, 1] == pytest.approx(np.sqrt(2) * 20)
        assert far[0, 0] == 50


class TestStandingShadow:
    @pytest.mark.parametrize(
        ("looks", "standing"),
        [
            ((3,), False),  # one look: nothing tells a lake from a cloud's shadow
            ((3, 3), False),
            ((3, 3, 3), True),  # shadow every time: clouds move
            ((6, 3), True),  # water once, never land
            ((6, 6, 4, 3), True),
            ((6, 4, 3), False),  # as often land as water
            ((4, 4, 3, 3, 3), True),
            ((4, 4, 4, 3, 3, 3), False),
            ((6, 3, 3, 3, 9, 8, 0), True),
            ((6, 6, 4, 4, 3, 3, 3), False),  # shadow in fewer than half
            ((4, 3, 9, 9), False),
            ((9, 9, 0, 11, 1), False),
            ((5, 4, 4, 6, 2, 3), False),
        ],
    )
    def test_one_pixel(self, looks: tuple[int, ...], standing: bool) -> None:
        found = standing_shadow(pixels(*looks))
        assert found is not None
        assert found.item() == standing

    def test_no_looks(self) -> None:
        assert standing_shadow([]) is None

    def test_a_lake_labelled_shadow_is_kept_and_a_clouds_shadow_on_land_is_not(self) -> None:
        """Four looks: a lake (columns 10 to 20) that is 6, 3, 3, 6, and in the last a shadow on land and lake."""
        looks = [np.full((9, 31), 4, dtype=np.uint8) for _ in range(4)]
        for look, label in zip(looks, (6, 3, 3, 6), strict=True):
            look[:, 10:21] = label
        looks[3][:, 15:28] = 3
        standing = standing_shadow(looks)
        masks = [clear_mask(look, res_m=10, dilate_m=20, standing=standing) for look in looks]
        assert all(mask.all() for mask in masks[:3])
        clear = masks[3][4]
        # Land under the shadow, columns 21 to 27, and its rim of two pixels.
        np.testing.assert_array_equal(np.flatnonzero(~clear), np.arange(19, 30))
        without = clear_mask(looks[1], res_m=10, dilate_m=20)
        assert not without[:, 10:21].any()

    def test_a_cloud_over_a_lake_is_masked_all_the_same(self) -> None:
        standing = np.ones((1, 3), dtype=bool)
        np.testing.assert_array_equal(obstructed(scl([3, 9, 6]), MASKED, standing), [[False, True, False]])
