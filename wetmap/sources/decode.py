"""Stored radar values to linear gamma-0 power, before anything is interpolated or averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.radar import from_db

Floats = NDArray[np.float64]

#: Key of an asset that says how its values are stored: ``power`` (or no key), ``amplitude``, ``decibel``, ``palsar``,
#: ``palsar-mask``.
STORED = "wetmap:stored"
#: gamma-0 in dB = 10 log10(DN^2) + this: JAXA, Global 25 m PALSAR-2/PALSAR mosaic, dataset description (calibration
#: factor of all years).
PALSAR_CF_DB = -83.0
#: Values of the mosaic's mask (same description): 0 no data, 50 water, 100 layover, 150 shadow, 255 land.
PALSAR_MASK_NODATA, PALSAR_MASK_GOOD = 0, (50, 255)


def decoded(values: Floats, asset: Mapping[str, Any]) -> Floats:
    """Make stored values linear power.

    Args:
        values: As stored, with the item's scale and offset; NaN where not observed.
        asset: The STAC asset that they are of; its ``wetmap:stored`` says what they are.

    Returns:
        Linear gamma-0 power, NaN where it is not above 0; of ``palsar-mask`` 1 where the mosaic's mask says land or
        water, 0 where it says layover, shadow or anything else, NaN where there are no data.
    """
    kind = asset.get(STORED, "power")
    if kind == "palsar-mask":
        good = np.where(np.isin(values, PALSAR_MASK_GOOD), 1.0, 0.0)
        return np.where(np.isnan(values) | (values == PALSAR_MASK_NODATA), np.nan, good)
    if kind == "decibel":
        power = from_db(values)
    elif kind == "amplitude":
        power = np.where(values > 0, values * values, np.nan)
    elif kind == "palsar":
        power = values * values * 10 ** (PALSAR_CF_DB / 10)
    else:
        power = values
    return np.where(power > 0, power, np.nan)
