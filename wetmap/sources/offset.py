"""Which offset the stored counts of a Sentinel-2 scene carry: read from the scene's metadata, never from its date.

Since processing baseline 04.00 ESA adds 1000 counts to L2A reflectance, so that noise over dark targets need not be cut
off at zero (Sentinel-2 Products Specification Document, BOA_ADD_OFFSET = -1000). Archives pass this on in four ways,
some of them contradicting themselves; Collection 1 carries it on scenes of any year, which is why a date decides
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Reflectance per count: QUANTIFICATION_VALUE 10000 (Sentinel-2 Products Specification Document).
SCALE = 1e-4
#: Reflectance of a stored 0 in baselines from 04.00 on: BOA_ADD_OFFSET / QUANTIFICATION_VALUE.
OFFSET_0400 = -0.1
#: First baseline that carries the offset.
FIRST_WITH_OFFSET = 4.0

#: Earth Search says here whether it took the offset out of the pixels; version 0 of its items used the second name.
APPLIED_KEYS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
#: Where items give the processing baseline: Planetary Computer and Earth Search; Copernicus Data Space.
BASELINE_KEYS = ("s2:processing_baseline", "processing:version")
#: Where items give the product's name, of which _N0509_ is baseline 05.09.
PRODUCT_KEYS = ("s2:product_uri", "s2:product_id", "sentinel:product_id")


@dataclass(frozen=True)
class Rule:
    """stored * scale + offset = surface reflectance."""

    scale: float
    """Reflectance per count."""
    offset: float
    """Reflectance of a stored 0."""
    why: str
    """Where that is known from, as a sentence."""


def reflectance_rule(item: Mapping[str, Any], assets: Sequence[Mapping[str, Any]]) -> Rule | str:
    """Decide scale and offset of one Sentinel-2 L2A item.

    Rules, first that applies:

    1. The item says that the archive has taken the offset out of the pixels: none is left, whatever else it says
       (Earth Search items say so and keep ``raster:bands`` offset -0.1 all the same).
    2. Every band's metadata give an offset: that one, whatever the baseline (archives that harmonise declare 0).
    3. The processing baseline is known: -0.1 from 04.00 on, else 0 (Planetary Computer stores ESA's counts unchanged).
    4. The product's name holds the baseline: as 3.

    Where a fact that is not followed says something else, the sentence says so.

    Args:
        item: STAC item.
        assets: The assets of the reflectance bands that will be read.

    Returns:
        The rule, or a sentence that says why none can be found.
    """
    properties = item.get("properties", {})
    declared = [band_metadata(asset) for asset in assets]
    scales = {float(band.get("scale", SCALE)) for band in declared}
    offsets = {float(band["offset"]) for band in declared if band.get("offset") is not None}
    if len(scales) > 1 or len(offsets) > 1:
        return f"its bands differ in scale ({_listed(scales)}) or offset ({_listed(offsets)})"
    scale = scales.pop() if scales else SCALE
    applied = next((key for key in APPLIED_KEYS if properties.get(key) is True), None)
    if applied is not None:
        against = f" (The bands' metadata give {_listed(offsets)}; not followed.)" if offsets - {0.0} else ""
        return Rule(scale, 0.0, f"{applied} is true: the archive has taken the offset out of the pixels.{against}")
    baseline = baseline_of(item)
    usual = _usual(baseline[0]) if baseline else None
    if offsets and all(band.get("offset") is not None for band in declared):
        offset = offsets.pop()
        against = "" if baseline is None or usual == offset else f" ({baseline[1]}, which usually has {usual:g}.)"
        return Rule(scale, offset, f"The bands' metadata give offset {offset:g}.{against}")
    if baseline is None or usual is None:
        return "neither its bands' offset nor its processing baseline is given"
    stored = "from 04.00 on are stored with 1000 counts added" if usual else "before 04.00 are stored without an offset"
    return Rule(scale, usual, f"{baseline[1]}: baselines {stored}.")


def _usual(baseline: float) -> float:
    """Reflectance of a stored 0 in ESA's products of a baseline."""
    return OFFSET_0400 if baseline >= FIRST_WITH_OFFSET else 0.0


def band_metadata(asset: Mapping[str, Any]) -> dict[str, Any]:
    """Scale, offset and nodata of an asset's first band, in the spelling of any version of STAC.

    ``raster:bands`` of STAC 1.0, ``bands`` of STAC 1.1, or on the asset itself, with or without the prefix ``raster:``.
    """
    found: dict[str, Any] = {}
    places = [asset, *(asset.get("bands") or [])[:1], *(asset.get("raster:bands") or [])[:1]]
    for place in places:
        for name in ("scale", "offset", "nodata"):
            for key in (f"raster:{name}", name):
                if place.get(key) is not None:
                    found[name] = place[key]
    return found


def baseline_of(item: Mapping[str, Any]) -> tuple[float, str] | None:
    """Processing baseline of a Sentinel-2 item and where it is known from; None where it is not given."""
    properties = item.get("properties", {})
    for key in BASELINE_KEYS:
        text = str(properties.get(key, ""))
        if re.fullmatch(r"\d{1,2}\.\d{1,2}", text):
            return float(text), f"{key} is {text}"
    for key in (*PRODUCT_KEYS, ""):
        text = str(properties.get(key, "")) if key else str(item.get("id", ""))
        match = re.search(r"_N(\d{2})(\d{2})_", text)
        if match:
            return float(f"{match[1]}.{match[2]}"), f"The product's name says baseline {match[1]}.{match[2]}"
    return None


def _listed(values: set[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values)) or "none"
