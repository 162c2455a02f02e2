"""Masks beside the scene classification: how they are named, refused, tried, and written over it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wetmap.errors import RecipeError, UsageError
from wetmap.imagery import cloud_masks
from wetmap.imagery.cloud_masks import CLEAR, MASKS, SHADOW, THICK, THIN, UNSEEN, CloudMask, combined, parts_of, try_out

SCL = np.array([[0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]], dtype=np.uint8)


def over(found: int, *, trust_scl: bool) -> list[int]:
    return combined(SCL, np.full_like(SCL, found), trust_scl=trust_scl)[0].tolist()


class TestNames:
    def test_what_a_recipe_can_say(self) -> None:
        assert parts_of("scl") == (True, None)
        assert parts_of("omnicloudmask") == (False, "omnicloudmask")
        assert parts_of("scl+omnicloudmask") == (True, "omnicloudmask")

    @pytest.mark.parametrize("wrong", ["sen2cor", "scl+scl", "omnicloudmask+omnicloudmask", "scl+omnicloud"])
    def test_others_are_refused_with_the_names(self, wrong: str) -> None:
        with pytest.raises(RecipeError, match=r"Choose one of: scl, omnicloudmask, scl\+omnicloudmask"):
            parts_of(wrong)


class TestCombined:
    """SCL: no data, saturated, dark, shadow, vegetation, water, unclassified, cloud, cloud, cirrus, snow."""

    def test_a_clear_look_drops_the_clouds_of_scl_or_keeps_them(self) -> None:
        assert over(CLEAR, trust_scl=True) == SCL[0].tolist()
        assert over(CLEAR, trust_scl=False) == [0, 1, 2, 2, 4, 6, 7, 7, 7, 7, 11]

    @pytest.mark.parametrize("trust_scl", [True, False])
    def test_no_data_stays_no_data_and_thick_cloud_covers_all_else(self, trust_scl: bool) -> None:
        assert over(THICK, trust_scl=trust_scl) == [0, *[9] * 10]

    def test_thin_cloud_and_shadow_cover_what_is_less(self) -> None:
        assert over(THIN, trust_scl=True) == [0, 10, 10, 10, 10, 10, 10, 8, 9, 10, 10]
        assert over(THIN, trust_scl=False) == [0, *[10] * 10]
        assert over(SHADOW, trust_scl=True) == [0, 3, 3, 3, 3, 3, 3, 8, 9, 10, 3]
        assert over(SHADOW, trust_scl=False) == [0, *[3] * 10]

    @pytest.mark.parametrize("trust_scl", [True, False])
    def test_where_it_saw_nothing_scl_counts_alone(self, trust_scl: bool) -> None:
        assert over(UNSEEN, trust_scl=trust_scl) == SCL[0].tolist()

    def test_both_mask_at_least_what_each_masks(self) -> None:
        for found in (CLEAR, THICK, THIN, SHADOW):
            both, own = over(found, trust_scl=True), over(found, trust_scl=False)
            masked = {3, 8, 9, 10}
            for scl, one, other in zip(SCL[0].tolist(), both, own, strict=True):
                assert (one in masked) == (scl in masked or other in masked)


class TestPackage:
    def test_a_missing_package_is_named_with_the_way_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gone = CloudMask(MASKS["omnicloudmask"].classify, package="no_such_package", install="Install it with `x`")
        monkeypatch.setattr(cloud_masks, "MASKS", {"omnicloudmask": gone})
        with pytest.raises(UsageError, match=r"no_such_package is not installed. Install it with `x`, or write"):
            cloud_masks.refuse_missing("omnicloudmask")
        assert cloud_masks.version_of("omnicloudmask") == ""

    def test_what_the_package_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its own patches are off, no data is 0, and a real 0 is not."""
        given: list[tuple[NDArray[np.float32], dict[str, Any]]] = []

        def predict(array: NDArray[np.float32], **options: Any) -> NDArray[np.uint8]:
            given.append((array, options))
            return np.full((1, *array.shape[1:]), THIN, dtype=np.uint8)

        module = ModuleType("omnicloudmask")
        module.predict_from_array = predict  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "omnicloudmask", module)
        red, green, nir = np.full((3, 40, 40), 0.1, dtype=np.float32)
        red[0, 0], green[3, 3] = np.nan, 0.0
        observed = np.isfinite(red)
        assert (MASKS["omnicloudmask"].classify(red, green, nir, observed) == THIN).all()
        ((array, options),) = given
        assert array.dtype == np.float32
        assert (array[:, 0, 0] == 0).all()
        assert 0 < array[1, 3, 3] < 1e-4
        assert options == {"patch_size": 40, "patch_overlap": 0, "no_data_value": 0}

    @pytest.mark.parametrize("error", [ImportError("no torchvision"), OSError("no route"), RuntimeError("shapes")])
    def test_what_fails_fails_before_anything_is_read(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: Any) -> Any:
            raise error

        monkeypatch.setattr(cloud_masks, "MASKS", {"broken": CloudMask(fails)})
        with pytest.raises(UsageError, match=rf"broken cannot be run \({error}\). The first run downloads its weights"):
            try_out("broken", 64)

    def test_answers_of_another_kind_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def logits(red: Any, *_: Any) -> Any:
            return np.full(red.shape, 200, dtype=np.uint8)

        monkeypatch.setattr(cloud_masks, "MASKS", {"odd": CloudMask(logits)})
        with pytest.raises(UsageError, match="gives classes up to 200"):
            try_out("odd", 64)
