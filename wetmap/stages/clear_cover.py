"""How much of the area was seen how often in clear optical looks: hectares per season, and a warning where too few."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import FewLooksWarning

#: Hectares are told apart for 0, 1, ... looks up to this many; the last stands for "or more".
MOST_LOOKS = 10
#: Looks from which on a median outvotes one wrong look; the warning says how much has fewer.
ENOUGH_LOOKS = 3
#: Areas are told to this much, hectares.
HA_STEP = 0.1


def clear_hectares(count: NDArray[np.uint16], inside: NDArray[np.bool_], area_m2: NDArray[np.float64]) -> list[float]:
    """Hectares by number of clear looks.

    Args:
        count: Clear looks, (y, x).
        inside: Which pixels count, (y, x).
        area_m2: True area of each pixel, (y, x), m2.

    Returns:
        Hectares with 0, 1, ... and at least ``MOST_LOOKS`` looks; sums are correctly rounded.
    """
    looks = np.minimum(count, MOST_LOOKS)
    return [math.fsum(area_m2[inside & (looks == number)].tolist()) / 1e4 for number in range(MOST_LOOKS + 1)]


def told(parts: Iterable[Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """Add up the blocks' hectares by season, for the manifest.

    Args:
        parts: Of each block, ``clear_hectares`` by season.

    Returns:
        A row per season in order of their first block: season, hectares by looks (0, 1, ..., the last "or more"), and
        their sum.
    """
    seasons: dict[str, list[list[float]]] = {}
    for part in parts:
        for season, hectares in part.items():
            seasons.setdefault(season, [[] for _ in range(MOST_LOOKS + 1)])
            for number, value in enumerate(hectares):
                seasons[season][number].append(value)
    rows = []
    for season, columns in seasons.items():
        hectares = [round(math.fsum(column), 4) for column in columns]
        rows.append({"season": season, "hectares_by_looks": hectares, "hectares": round(math.fsum(hectares), 4)})
    return rows


def fewer_than(row: Mapping[str, Any], looks: int) -> float:
    """Hectares with fewer clear looks than so many, at most ``MOST_LOOKS``."""
    return math.fsum(row["hectares_by_looks"][: min(looks, MOST_LOOKS)])


def is_few(row: Mapping[str, Any], least: int) -> bool:
    """Whether some of the area has fewer looks than what ``sentence`` speaks of."""
    return fewer_than(row, max(least, ENOUGH_LOOKS)) > 0


def sentence(row: Mapping[str, Any], least: int) -> str:
    """``summer: 123.4 ha (4 %) of the area have no clear look, 456.7 ha (15 %) fewer than 3``."""
    enough = max(least, ENOUGH_LOOKS)
    if fewer_than(row, 1) == 0:
        return (
            f"{row['season']}: {_amount(row, fewer_than(row, enough))} of the area have fewer than {enough} clear looks"
        )
    return (
        f"{row['season']}: {_amount(row, fewer_than(row, 1))} of the area have no clear look, "
        f"{_amount(row, fewer_than(row, enough))} fewer than {enough}"
    )


def _amount(row: Mapping[str, Any], hectares: float) -> str:
    share = 100 * hectares / row["hectares"] if row["hectares"] else 0.0
    percent = f"{share:.0f} %" if share >= 1 or share == 0 else "less than 1 %"
    amount = f"{hectares:,.1f} ha" if hectares >= HA_STEP or hectares == 0 else f"less than {HA_STEP} ha"
    return f"{amount} ({percent})"


def warn_of_few_looks(rows: Sequence[Mapping[str, Any]], least: int) -> None:
    """Warn of each season in which some of the area has fewer clear looks than ``least``."""
    for row in rows:
        if fewer_than(row, least) > 0:
            warnings.warn(
                f"{sentence(row, least)}. What has none is marked as not observed; widen the season or allow more "
                "cloud (optical.max_cloud_percent).",
                FewLooksWarning,
                stacklevel=2,
            )
