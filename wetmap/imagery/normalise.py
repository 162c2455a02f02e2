"""Do the scenes of a season agree with each other? A wrong offset, haze or shadow makes one stand out.

Each scene's clear pixels are compared with the median of all scenes at the same pixels, on a sample; and its darkest
pixels with what the ground can be. Nothing is corrected: scenes are named, and a person decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.composite import median_composite

#: Looks at a pixel from which on their median outvotes one wrong look.
LEAST_LOOKS = 3
#: Sampled pixels from which on a scene is judged.
LEAST_SAMPLES = 30
#: What a scene is off by when the 1000 counts of baseline 04.00 are left in or taken out twice (Sentinel-2 Products
#: Specification Document: BOA_ADD_OFFSET -1000, QUANTIFICATION_VALUE 10000), reflectance.
OFFSET = 0.1
#: How near every band must come to ``OFFSET``, and how near to each other, reflectance: seasons, sun and haze move
#: single bands by more than this, but not all of them alike.
OFFSET_TOLERANCE = 0.03
#: Difference from the other scenes in visible light that is worth a look, reflectance; surface reflectance of L2A is
#: meant to be good to 0.05 * reflectance + 0.005 (Sentinel-2 L2A Data Quality Reports).
HAZE = 0.03
#: Bands of visible light, where clouds, haze and shadow show most and seasons least.
VISIBLE = ("B02", "B03", "B04")
#: Reflectance below which a value is no noise over dark water, and the share of such pixels that is too many.
NEGATIVE, MOST_NEGATIVE = -0.03, 0.1
#: Somewhere an area of some size is dark (water, shade, dense vegetation in visible light, water in infrared): when the
#: darkest percent of every band stays above this, reflectance, 1000 counts may have been left in.
DARK = 0.07


@dataclass(frozen=True)
class BandStats:
    """One band of one scene beside the other scenes of its season."""

    clear: int
    """Sampled pixels that are clear."""
    negative: int
    """Those of them below ``NEGATIVE``."""
    dark: float
    """First percentile of the clear ones, reflectance; NaN without any."""
    common: int
    """Sampled pixels with at least ``LEAST_LOOKS`` looks."""
    difference: float
    """Median difference from the median of all looks at those pixels, reflectance; NaN without any."""
    spread: float
    """Median absolute deviation of these differences, reflectance; NaN without any."""


@dataclass(frozen=True)
class Verdict:
    """What a scene looks like."""

    code: str
    """``offset-missing``, ``offset-twice``, ``bright``, ``dark``; empty: nothing stands out; ``few``: not judged."""
    why: str = ""
    """As a sentence, for the first four."""


def compare_scenes(samples: NDArray[np.float32]) -> list[list[BandStats]]:
    """Compare the scenes of a season on a sample of pixels.

    Args:
        samples: Reflectance, (scene, band, pixel) float32, NaN where a scene is not clear.

    Returns:
        For each scene, its bands in order.
    """
    middle, count = median_composite(samples)
    middle = np.where(count >= LEAST_LOOKS, middle, np.float32(np.nan))
    return [[_stats(values, others) for values, others in zip(scene, middle, strict=True)] for scene in samples]


def _stats(values: NDArray[np.float32], others: NDArray[np.float32]) -> BandStats:
    clear = values[np.isfinite(values)].astype(np.float64)
    differences = values.astype(np.float64) - others
    differences = differences[np.isfinite(differences)]
    difference = float(np.median(differences)) if differences.size else float("nan")
    return BandStats(
        clear=clear.size,
        negative=int((clear < NEGATIVE).sum()),
        dark=float(np.percentile(clear, 1)) if clear.size else float("nan"),
        common=differences.size,
        difference=difference,
        spread=float(np.median(np.abs(differences - difference))) if differences.size else float("nan"),
    )


def combine(parts: Sequence[BandStats]) -> BandStats:
    """One band of one scene over the blocks of an area.

    Counts add up. Differences and spreads are the blocks' medians weighted by their pixels, whatever their order. The
    darkest block counts: an area is as dark as its lakes.
    """
    weights = [part.common for part in parts]
    darks = [part.dark for part in parts if part.clear]
    return BandStats(
        clear=sum(part.clear for part in parts),
        negative=sum(part.negative for part in parts),
        dark=min(darks) if darks else float("nan"),
        common=sum(weights),
        difference=_weighted_median([part.difference for part in parts], weights),
        spread=_weighted_median([part.spread for part in parts], weights),
    )


def _weighted_median(values: Sequence[float], weights: Sequence[int]) -> float:
    """The least value that, with all below it, holds half of the weight; NaN without weight."""
    pairs = sorted((value, weight) for value, weight in zip(values, weights, strict=True) if weight)
    half, so_far = sum(weights) / 2, 0
    for value, weight in pairs:
        so_far += weight
        if so_far >= half:
            return value
    return float("nan")


def judge(bands: Mapping[str, BandStats]) -> Verdict:
    """What one scene looks like beside the others of its season, and by its darkest pixels.

    Args:
        bands: Statistics by Sentinel-2 band.
    """
    compared = {name: row.difference for name, row in bands.items() if row.common >= LEAST_SAMPLES}
    clear = {name: row for name, row in bands.items() if row.clear >= LEAST_SAMPLES}
    if not clear:
        return Verdict("few")
    return _offset(compared) or _negative(clear) or _nowhere_dark(clear) or _bright_or_dark(compared) or Verdict("")


def _offset(differences: Mapping[str, float]) -> Verdict | None:
    if len(differences) < 2:
        return None
    low, high = min(differences.values()), max(differences.values())
    if high - low > 2 * OFFSET_TOLERANCE:
        return None
    amount = f"{_signed(low)} to {_signed(high)} beside the other scenes in every band"
    if low >= OFFSET - OFFSET_TOLERANCE and high <= OFFSET + OFFSET_TOLERANCE:
        return Verdict("offset-missing", f"{amount}: the offset of -0.1 may not have been applied")
    if low >= -OFFSET - OFFSET_TOLERANCE and high <= -OFFSET + OFFSET_TOLERANCE:
        return Verdict("offset-twice", f"{amount}: the offset of -0.1 may have been applied twice")
    return None


def _negative(clear: Mapping[str, BandStats]) -> Verdict | None:
    shares = {name: row.negative / row.clear for name, row in clear.items()}
    worst = max(shares, key=lambda name: shares[name])
    if shares[worst] <= MOST_NEGATIVE:
        return None
    return Verdict(
        "offset-twice",
        f"{shares[worst]:.0%} of the clear pixels of {worst} are below {NEGATIVE}: the offset of -0.1 may have been "
        "applied twice",
    )


def _nowhere_dark(clear: Mapping[str, BandStats]) -> Verdict | None:
    least = min(row.dark for row in clear.values())
    if not set(VISIBLE) & set(clear) or least <= DARK:
        return None
    return Verdict(
        "offset-missing",
        f"no band is darker than {least:.2f} in its darkest percent: the offset of -0.1 may not have been applied",
    )


def _bright_or_dark(differences: Mapping[str, float]) -> Verdict | None:
    visible = {name: differences[name] for name in VISIBLE if name in differences}
    if not visible:
        return None
    listed = ", ".join(f"{name} {_signed(value)}" for name, value in visible.items())
    if min(visible.values()) >= HAZE:
        return Verdict("bright", f"brighter than the other scenes ({listed}): haze, thin cloud or snow may be left in")
    if max(visible.values()) <= -HAZE:
        return Verdict("dark", f"darker than the other scenes ({listed}): shadow may be left in")
    return None


def _signed(value: float) -> str:
    return f"{value:+.2f}"
