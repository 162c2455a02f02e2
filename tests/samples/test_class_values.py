"""A class that no reference feature is of: refused before anything is fetched, with the value that was meant."""

from __future__ import annotations

import numpy as np
import pytest

from wetmap.errors import ReferenceDataError, ReferenceWarning
from wetmap.recipe import Background, ClassSpec, MoreReference, Reference
from wetmap.samples import check_reference
from wetmap.samples.class_values import refuse_unfound, refuse_unknown_values

BOG, DRY = ClassSpec(name="bog"), ClassSpec(name="dry land", reference=["uplnd"])


def test_the_class_the_values_of_the_field_and_the_nearest_are_named() -> None:
    with pytest.raises(ReferenceDataError) as caught:
        refuse_unfound([BOG, DRY], ["bog", "Upland", "Upland", None], None, where="in the area", field="CLASS")
    assert caught.value.what == (
        "Class without any reference feature in the area: dry land (reference: 'uplnd'). "
        "CLASS holds 'Upland' (2), 'bog' (1)."
    )
    assert caught.value.do is not None
    assert caught.value.do.startswith("Did you mean 'Upland'? ")


def test_a_value_that_another_class_claims_is_not_offered() -> None:
    with pytest.raises(ReferenceDataError) as caught:
        refuse_unfound([BOG, ClassSpec(name="bogs")], ["bog"], None, where="in the area")
    assert caught.value.do is not None
    assert "Did you mean" not in caught.value.do


def test_classes_of_the_background_of_several_values_and_of_any_case_pass() -> None:
    specs = [ClassSpec(name="wet", reference=["BOG ", "fen"]), ClassSpec(name="Dry")]
    refuse_unfound(specs, ["bog", None], Background(name="dry"), where="in the area")
    refuse_unfound([], ["bog"], None, where="in the area")
    refuse_unfound([ClassSpec(name="x", reference=[3])], [3.0], None, where="in the area")


def test_a_typing_error_is_found_without_the_geometry(vector, pixels, raster, grid) -> None:  # type: ignore[no-untyped-def]
    path = vector([pixels(2, 9, 2, 9), pixels(20, 25, 10, 20)], ["bog", "upland"])
    one = Reference(path=path, class_field="CLASS")
    with pytest.raises(ReferenceDataError, match=r"in the whole of its file: dry land .*Did you mean 'upland'"):
        refuse_unknown_values(one, [BOG, DRY])
    lakes = vector([pixels(30, 35, 10, 20)], ["x"], name="lakes.gpkg")
    more = Reference(path=path, class_field="CLASS", also=[MoreReference(path=lakes, value="uplnd")])
    refuse_unknown_values(more, [BOG, DRY])
    labels = raster(np.ones(grid.shape, dtype=np.uint8), grid)
    for silent in (Reference(path=labels), Reference(path=path, class_field="KIND"), Reference(path=path.parent / "n")):
        refuse_unknown_values(silent, [BOG, DRY])


def test_a_class_without_a_feature_in_the_area_is_refused_by_the_check(vector, pixels, grid, area) -> None:  # type: ignore[no-untyped-def]
    path = vector([pixels(2, 9, 2, 9), pixels(20, 25, 10, 20)], ["bog", "upland"])
    reference = Reference(path=path, class_field="CLASS")
    with (
        pytest.warns(ReferenceWarning, match="upland"),
        pytest.raises(ReferenceDataError, match=r"in area: dry land .*'bog' \(1\), 'upland' \(1\)"),
    ):
        check_reference(reference, [BOG, DRY], grid, area(grid))
    check_reference(reference, [BOG, ClassSpec(name="upland")], grid, area(grid))
