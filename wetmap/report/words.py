"""How the report writes numbers, and how it holds pictures."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

from PIL import Image

#: Longer side of a picture on the page, in the page's letter sizes: a tall map still fits a screen.
TALLEST_REM = 44
#: Stands where there is no figure.
DASH = "–"  # noqa: RUF001


def score(value: float | None) -> str:
    """A score with two decimals; a dash where there is none."""
    return DASH if value is None or math.isnan(value) else f"{value:.2f}"


def bounds(pair: tuple[float, float] | None) -> str:
    """An interval of a score, ``0.71 to 0.85``; empty where there is none."""
    return "" if pair is None else f"{score(pair[0])} to {score(pair[1])}"


def bar(value: float | None) -> str:
    """Length of a score's bar, percent."""
    return "0" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def number(value: float, decimals: int = 0) -> str:
    """A number with thousands apart by a narrow no-break space, so that no country reads it as a decimal point."""
    return f"{value:,.{decimals}f}".replace(",", "\u202f")


def hectares(value: float) -> str:
    """Hectares with as many decimals as say something: none from 1,000 on, one from 10 on, else two."""
    return number(value, 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2)


def tick(value: float) -> str:
    """A round number on an axis, with no more digits than it has."""
    return number(value) if value == round(value) else f"{value:g}"


def percent(value: float) -> str:
    """A share with one decimal; what is there but too small to show is not shown as nothing."""
    return "< 0.1" if 0 < value < 0.05 else f"{value:.1f}"


def plural(count: int, one: str, many: str) -> str:
    """``1 scene``, ``12 scenes``."""
    return f"{number(count)} {one if count == 1 else many}"


def file_size(count: int) -> str:
    """Bytes in words."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def embedded(png: bytes) -> dict[str, Any]:
    """A picture as the templates show it: its source inside the page, its size, and how wide it may grow."""
    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
    return {
        "source": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        "width": width,
        "height": height,
        "longest_rem": f"{TALLEST_REM * min(1.0, width / height):.2f}",
    }


def nice_ticks(top: float, most: int = 5) -> list[float]:
    """Round numbers from 0 to at least ``top`` (> 0), at most ``most`` steps of 1, 2, 2.5 or 5 times a power of ten.

    Example:
        >>> nice_ticks(1830)
        [0.0, 500.0, 1000.0, 1500.0, 2000.0]
    """
    rough = top / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [number * step for number in range(math.ceil(top / step - 1e-9) + 1)]
