"""Small areas are not rounded away."""

from __future__ import annotations

import pytest

from wetmap.stages.hectares_text import decimals, hectares_text


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (9.96, "10.0"), (3.21, "3.2"), (0.3, "0.30"), (0.04, "0.040"), (0, "0")]
)
def test_two_digits_at_least(value: float, text: str) -> None:
    assert hectares_text(value) == text


def test_the_smallest_settles_a_column_and_zero_does_not() -> None:
    assert decimals([120.0, 0.05, 0.0], least=1) == 3
    assert decimals([0.0], least=1) == 1
    assert decimals([1e-9]) == 3
