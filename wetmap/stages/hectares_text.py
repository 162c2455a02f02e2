"""Hectares in print: with so many decimals that small areas are not rounded away."""

from __future__ import annotations

import math
from collections.abc import Iterable

#: Decimals at most: 0.001 ha are 10 m2, less than a pixel of any map.
MOST = 3


def decimals(sizes: Iterable[float], *, least: int = 0) -> int:
    """Decimals with which the smallest of some areas shows two significant digits.

    Args:
        sizes: Areas, hectares; zeros do not count.
        least: Decimals at least.
    """
    known = [abs(size) for size in sizes if size and math.isfinite(size)]
    return max(least, min(MOST, 1 - math.floor(math.log10(min(known))))) if known else least


def hectares_text(value: float, *, least: int = 0) -> str:
    """``1,234``, ``3.2`` or ``0.041``."""
    return f"{value:,.{decimals([value], least=least)}f}"
