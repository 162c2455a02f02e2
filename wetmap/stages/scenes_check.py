"""How the scenes of each season compare: sampled while blocks are made, judged when all are done.

Every block samples each scene's clear pixels on a lattice that is fixed on the grid, and keeps a few figures per scene
and band in the ledger; together they say which scenes stand out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import SceneCheckWarning
from wetmap.geo import Grid
from wetmap.imagery.normalise import BandStats, combine, compare_scenes, judge

#: One scene of one season in one block, plain data: season, scene, and per band the figures of ``BandStats`` in their
#: order, reflectance in steps of ``STEP``, null where there is none.
CheckRow = dict[str, Any]

#: Every so many rows and columns of the grid are sampled, pixels: 1024 of a block of 512 px.
EVERY_PX = 16
#: Steps of reflectance in the ledger, those of Sentinel-2's products.
STEP = 1e-4


class SceneSamples:
    """Clear pixels of each scene of one season of a block, on a lattice.

    Args:
        window: The block's pixels.
        names: Bands.
    """

    def __init__(self, window: Grid, names: Sequence[str]) -> None:
        row0, col0 = round(-window.top / window.res_m), round(window.left / window.res_m)
        self._at = slice(-row0 % EVERY_PX, None, EVERY_PX), slice(-col0 % EVERY_PX, None, EVERY_PX)
        self._names = list(names)
        self._found: dict[str, dict[str, NDArray[np.float32]]] = {}

    def add(self, scene: str, name: str, band: NDArray[np.float32], taken: NDArray[np.bool_]) -> None:
        """Sample a band (y, x) of a scene where it counts, (y, x)."""
        values = np.where(taken[self._at], band[self._at], np.float32(np.nan)).ravel()
        if np.isfinite(values).any():
            self._found.setdefault(scene, {})[name] = values

    def rows(self, season: str) -> tuple[CheckRow, ...]:
        """The scenes that were seen, in their order of reading."""
        if not self._found:
            return ()
        size = next(iter(next(iter(self._found.values())).values())).size
        nothing = np.full(size, np.nan, dtype=np.float32)
        samples = np.array([[bands.get(name, nothing) for name in self._names] for bands in self._found.values()])
        return tuple(
            {"season": season, "scene": scene, "bands": dict(zip(self._names, map(_packed, stats), strict=True))}
            for scene, stats in zip(self._found, compare_scenes(samples), strict=True)
        )


def _packed(stats: BandStats) -> list[int | None]:
    return [
        value if isinstance(value, int) else None if math.isnan(value) else round(value / STEP)
        for value in astuple(stats)
    ]


def _unpacked(values: Sequence[int | None]) -> BandStats:
    clear, negative, dark, common, difference, spread = values
    return BandStats(
        int(clear or 0), int(negative or 0), _real(dark), int(common or 0), _real(difference), _real(spread)
    )


def _real(steps: int | None) -> float:
    return float("nan") if steps is None else steps * STEP


def check_scenes(rows: Iterable[CheckRow]) -> list[dict[str, Any]]:
    """What the blocks' rows say of each scene, for the manifest: in order of season and scene.

    Returns:
        Rows with season, scene, verdict (as ``Verdict.code``), why, and per band the sampled pixels, the difference
        and its spread, the first percentile and the share of clearly negative pixels.
    """
    parts: dict[tuple[str, str], dict[str, list[BandStats]]] = {}
    for row in rows:
        bands = parts.setdefault((row["season"], row["scene"]), {})
        for name, values in row["bands"].items():
            bands.setdefault(name, []).append(_unpacked(values))
    checked = []
    for (season, scene), bands in sorted(parts.items()):
        stats = {name: combine(found) for name, found in bands.items()}
        verdict = judge(stats)
        checked.append(
            {
                "season": season,
                "scene": scene,
                "verdict": verdict.code,
                "why": verdict.why,
                "bands": {name: _told(band) for name, band in stats.items()},
            }
        )
    return checked


def _told(stats: BandStats) -> dict[str, Any]:
    return {
        "clear_samples": stats.clear,
        "common_samples": stats.common,
        "difference": _rounded(stats.difference),
        "spread": _rounded(stats.spread),
        "first_percentile": _rounded(stats.dark),
        "negative_share": round(stats.negative / stats.clear, 4) if stats.clear else None,
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def suspects(checked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of scenes that stand out."""
    return [row for row in checked if row["why"]]


def warn_of_suspects(checked: Sequence[dict[str, Any]]) -> None:
    """Warn of each scene that stands out, once."""
    for row in suspects(checked):
        warnings.warn(
            f"{row['season']}: scene {row['scene']} is {row['why']}. It was used; leave it out or check its archive.",
            SceneCheckWarning,
            stacklevel=2,
        )
