"""Masks, composites and indices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wetmap.errors import RecipeError
from wetmap.imagery.composite import median_composite
from wetmap.imagery.indices import index_bands, spectral_index
from wetmap.imagery.masks import clear_mask, dilate_px


class TestClearMask:
    @pytest.mark.parametrize(
        ("scl", "clear"),
        [(number, number in (2, 4, 5, 6, 7)) for number in range(12)],
    )
    def test_each_class(self, scl: float, clear: bool) -> None:
        mask = clear_mask(np.full((3, 3), scl, dtype=np.float32), res_m=10, dilate_m=0)
        assert mask.all() == clear
        assert mask.any() == clear

    @pytest.mark.parametrize("grown", [3, 8, 9, 10])
    def test_clouds_and_shadows_grow_by_metres(self, grown: int) -> None:
        scl = np.full((21, 21), 4, dtype=np.float32)
        scl[10, 10] = grown
        # A disc of 30 m: 3 px of 10 m (29 pixels in all), 2 px of 20 m, which reach at least as far (13).
        for res_m, expected in ((10.0, 29), (20.0, 13)):
            masked = ~clear_mask(scl, res_m=res_m, dilate_m=30)
            assert masked.sum() == expected
            assert masked[10, 10 + dilate_px(30, res_m)]

    @pytest.mark.parametrize("kept", [0, 1, 11])
    def test_snow_saturation_and_gaps_do_not_grow(self, kept: int) -> None:
        scl = np.full((9, 9), 4, dtype=np.float32)
        scl[4, 4] = kept
        assert (~clear_mask(scl, res_m=10, dilate_m=40)).sum() == 1

    def test_outside_is_not_clear(self) -> None:
        assert not clear_mask(np.full((3, 3), np.nan, dtype=np.float32), res_m=10, dilate_m=0).any()

    def test_water_is_kept(self) -> None:
        assert clear_mask(np.full((9, 9), 6, dtype=np.float32), res_m=10, dilate_m=40).all()


class TestMedian:
    def test_by_hand(self) -> None:
        nan = np.nan
        stack = np.array([[[1, 4, nan, nan]], [[9, 2, nan, 5]], [[2, nan, nan, nan]]], dtype=np.float32)
        composite, count = median_composite(stack)
        np.testing.assert_array_equal(composite, np.array([[2, 3, nan, 5]], dtype=np.float32))
        np.testing.assert_array_equal(count, [[3, 2, 0, 1]])
        assert [str(composite.dtype), str(count.dtype)] == ["float32", "uint16"]

    def test_no_look_at_all(self) -> None:
        composite, count = median_composite(np.empty((0, 2, 3), dtype=np.float32))
        assert np.isnan(composite).all()
        assert count.sum() == 0

    @settings(max_examples=40, deadline=None)
    @given(arrays(np.float32, (5, 3, 2), elements=st.one_of(st.just(np.nan), st.floats(-1, 2, width=32))))
    @pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning")  # numpy's own, which ours must not give
    def test_agrees_with_numpy(self, stack: np.ndarray) -> None:
        expected = np.nanmedian(stack, axis=0)
        composite, count = median_composite(stack.copy())
        np.testing.assert_allclose(composite, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(count, np.isfinite(stack).sum(axis=0))

    def test_order_of_looks_does_not_matter(self) -> None:
        stack = np.random.default_rng(0).random((6, 4, 4)).astype(np.float32)
        np.testing.assert_array_equal(median_composite(stack.copy())[0], median_composite(stack[::-1].copy())[0])


class TestIndices:
    def test_by_hand(self) -> None:
        bands = {"B03": np.array([[0.2]], "f4"), "B04": np.array([[0.1]], "f4"), "B08": np.array([[0.5]], "f4")}
        assert spectral_index("NDVI", bands)[0, 0] == pytest.approx(0.4 / 0.6)
        assert spectral_index("NDWI", bands)[0, 0] == pytest.approx(-0.3 / 0.7)

    def test_constants_come_from_the_catalogue(self) -> None:
        bands = {"B02": np.array([[0.05]], "f4"), "B04": np.array([[0.1]], "f4"), "B08": np.array([[0.5]], "f4")}
        expected = 2.5 * 0.4 / (0.5 + 6 * 0.1 - 7.5 * 0.05 + 1)
        assert spectral_index("EVI", bands)[0, 0] == pytest.approx(expected, rel=1e-5)

    def test_bands_that_are_needed(self) -> None:
        assert set(index_bands("NDVI")) == {"B08", "B04"}
        assert set(index_bands("EVI")) == {"B02", "B04", "B08"}
        assert set(index_bands("NDMI")) == {"B08", "B11"}

    def test_negative_reflectance_does_not_explode(self) -> None:
        bands = {"B04": np.array([[-0.01, 0.0101]], "f4"), "B08": np.array([[0.01, -0.01]], "f4")}
        ndvi = spectral_index("NDVI", bands)
        assert np.isfinite(ndvi).all()
        assert (np.abs(ndvi) <= 1).all()

    def test_not_observed_stays_so(self) -> None:
        bands = {"B04": np.array([[np.nan, 0.1]], "f4"), "B08": np.array([[0.4, 0.3]], "f4")}
        np.testing.assert_array_equal(np.isnan(spectral_index("NDVI", bands)), [[True, False]])

    @pytest.mark.parametrize(("name", "says"), [("NDXX", "not a spectral index"), ("ndvi", "Write NDVI"), ("LST", "")])
    def test_unknown(self, name: str, says: str) -> None:
        with pytest.raises(RecipeError, match=says or "LST"):
            index_bands(name)

    def test_other_sensors_bands(self) -> None:
        with pytest.raises(RecipeError, match="which Sentinel-2's 10 and 20 m bands do not give"):
            index_bands("DpRVIVV")
