"""Spectral indices by their name in the Awesome Spectral Indices catalogue (spyndex)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import RecipeError

#: spyndex's name of a band to Sentinel-2's (spyndex.bands[...].sentinel2a), for the bands of 10 and 20 m.
SENTINEL2: Mapping[str, str] = {
    "B": "B02",
    "G": "B03",
    "R": "B04",
    "RE1": "B05",
    "RE2": "B06",
    "RE3": "B07",
    "N": "B08",
    "N2": "B8A",
    "S1": "B11",
    "S2": "B12",
}
#: Reflectance is taken as at least one count of Sentinel-2 (1 / 10000) inside an index: ratios of negative
#: reflectances, which atmospheric correction leaves over dark water, mean nothing and explode where they cross zero.
FLOOR = 1e-4


def index_bands(name: str) -> tuple[str, ...]:
    """The Sentinel-2 bands that an index needs.

    Args:
        name: Name in the catalogue, such as NDVI.

    Raises:
        RecipeError: There is no such index, or it needs what Sentinel-2's 10 and 20 m bands do not give.
    """
    return tuple(SENTINEL2[symbol] for symbol in _symbols(name) if symbol in SENTINEL2)


def spectral_index(name: str, bands: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Compute an index.

    Args:
        name: Name in the catalogue, such as NDVI.
        bands: Surface reflectance by Sentinel-2 band, (y, x) float32, NaN where not observed; at least ``index_bands``.

    Returns:
        (y, x) float32, dimensionless, NaN where a band is not observed or the formula has no value.

    Raises:
        RecipeError: As ``index_bands``.
    """
    import spyndex

    values: dict[str, Any] = {}
    for symbol in _symbols(name):
        if symbol in SENTINEL2:
            values[symbol] = np.maximum(bands[SENTINEL2[symbol]].astype(np.float64), FLOOR)  # NaN stays NaN
        else:
            values[symbol] = float(spyndex.constants[symbol].default)
    with np.errstate(all="ignore"):
        result = np.asarray(spyndex.computeIndex(name, values), dtype=np.float32)
    return np.where(np.isfinite(result), result, np.float32(np.nan))


@functools.lru_cache(maxsize=256)
def _symbols(name: str) -> tuple[str, ...]:
    """Bands and constants of an index's formula, in the catalogue's own names."""
    import spyndex

    if name not in spyndex.indices:
        close = [known for known in spyndex.indices if known.lower() == name.lower()]
        raise RecipeError(
            f"{name} is not a spectral index that spyndex {spyndex.__version__} knows.",
            do=f"Write {close[0]}."
            if close
            else "Choose a name from https://awesome-ee-spectral-indices.readthedocs.io.",
        )
    symbols = tuple(str(symbol) for symbol in spyndex.indices[name].bands)
    missing = [s for s in symbols if s not in SENTINEL2 and getattr(spyndex.constants.get(s), "default", None) is None]
    if missing:
        raise RecipeError(
            f"The index {name} needs {', '.join(missing)}, which Sentinel-2's 10 and 20 m bands do not give.",
            do="Leave it out of features.indices.",
        )
    return symbols
