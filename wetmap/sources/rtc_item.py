"""One scene of terrain-corrected Sentinel-1 GeoTIFFs as a STAC item."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from wetmap.errors import WetmapWarning
from wetmap.recipe import FilesSource
from wetmap.sources.decode import STORED
from wetmap.sources.folders import Store
from wetmap.sources.providers import COLLECTIONS
from wetmap.sources.rtc_names import ASK_RASTERS, WAYS, RtcName, solar_direction
from wetmap.sources.safe import Json, MetadataError, bounds_outline

#: Where a file of this scale may have its middle value: gamma-0 from calm water to a city, see ``rasters.PLAUSIBLE``.
LIKELY: Mapping[str, tuple[float, float]] = {"power": (1e-4, 10.0), "amplitude": (1e-2, 3.2), "decibel": (-40.0, 10.0)}
#: Values said to be dB that lie above 0, nearly all, and have a middle below this, dB, are power or amplitude: gamma-0
#: of land lies between -25 and -3 dB, and where it comes near 0, speckle alone (4.4 looks: 2 dB) takes some below.
MOST_DECIBEL = 3.0
#: Share of the values that may lie below, for noise and rims.
LOWEST_SHARE = 0.01
#: Side of the piece in the middle of a file that is looked at, pixels.
LOOK_PX = 64


def rtc_item(store: Store, members: Mapping[str, tuple[str, RtcName]], source: FilesSource) -> Json:
    """One radar scene as a STAC item.

    Args:
        store: Where its files are.
        members: Path and name of the file of each polarisation.
        source: What the recipe says of files whose names do not.

    Raises:
        MetadataError: Scale, date or direction are not known, or a file is not what it should be.
        OSError: A file cannot be read.
        RasterioError: A file cannot be opened.
    """
    name = next(iter(members.values()))[1]
    stored = name.stored or source.stored
    if stored is None:
        raise MetadataError(
            f"its name does not say that it is terrain-corrected gamma-0 and on which scale. {ASK_RASTERS}"
        )
    if not name.time:
        raise MetadataError("its name holds no valid date")
    looks = {pol: _look(store, path) for pol, (path, _) in members.items()}
    for pol, look in looks.items():
        _refuse_unlikely(pol, look, stored)
    outline = next(iter(looks.values())).outline
    state, why = _direction(name, source, outline)
    if name.note:
        warnings.warn(f"radar: {name.scene}: {name.note}.", WetmapWarning, stacklevel=5)
    said = f"the name ({name.maker})" if name.stored else "the recipe"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name.scene,
        "collection": COLLECTIONS["radar"],
        "geometry": outline,
        "properties": {
            "datetime": name.time,
            "platform": name.platform,
            "constellation": "sentinel-1",
            "sar:instrument_mode": name.mode,
            "sat:orbit_state": state,
            "sat:relative_orbit": name.relative_orbit,
            "wetmap:offset_rule": f"Stored as gamma-0 {stored}, as {said} says; {why}.",
        },
        "assets": {
            pol.lower(): {
                "href": store.href(path),
                "type": "image/tiff; application=geotiff",
                "roles": ["data"],
                STORED: stored,
            }
            for pol, (path, _) in sorted(members.items())
        },
        "links": [],
    }


def _direction(name: RtcName, source: FilesSource, outline: Json) -> tuple[str, str]:
    """Direction of flight, and where it is known from."""
    if name.orbit_state is not None:
        return name.orbit_state, f"{name.orbit_state}, as the name says"
    if source.orbit_state is not None:
        return source.orbit_state, f"{source.orbit_state}, as the recipe says"
    points = _points(outline["coordinates"])
    lon, lat = (float(value) for value in np.mean(points, axis=0))
    state = solar_direction(name.time, lon, lat) if name.clock else None
    if state is None:
        raise MetadataError(f"its name does not say in which direction the satellite flew. {ASK_RASTERS}")
    return state, f"{state}, by the local time of the pass"


def _points(coordinates: Any) -> list[list[float]]:
    """Every (longitude, latitude) of a GeoJSON geometry of any depth, of its first polygon."""
    while isinstance(coordinates[0][0], list):
        coordinates = coordinates[0]
    return [list(map(float, point[:2])) for point in coordinates]


@dataclass(frozen=True)
class _Look:
    outline: Json
    """Where the file lies, GeoJSON."""
    middle: float
    """Median of a piece in its middle, stored values; NaN where nothing was observed."""
    low: float
    """What nearly all values of the piece lie above, stored values; NaN where nothing was observed."""


def _look(store: Store, name: str) -> _Look:
    """Open a GeoTIFF's header and look at its middle; raises MetadataError where it cannot be used."""
    if not store.is_image(name):
        raise MetadataError("it is no TIFF")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said below, in words
        with rasterio.open(store.href(name)) as dataset:
            if dataset.crs is None or dataset.transform.is_identity:
                raise MetadataError(f"it has no CRS or no place on the ground: it is not terrain-corrected. {WAYS}")
            if dataset.count != 1:
                raise MetadataError(f"it has {dataset.count} bands, not one: describe it as a file of `from: rasters`")
            side = min(LOOK_PX, dataset.width), min(LOOK_PX, dataset.height)
            window = Window((dataset.width - side[0]) // 2, (dataset.height - side[1]) // 2, *side)
            piece = dataset.read(1, window=window, masked=True).astype(np.float64).filled(np.nan)
            seen = piece[np.isfinite(piece) & (piece != 0)]
            return _Look(
                bounds_outline(dataset.crs.to_wkt(), tuple(dataset.bounds)),
                float(np.median(seen)) if seen.size else float("nan"),
                float(np.quantile(seen, LOWEST_SHARE)) if seen.size else float("nan"),
            )


def _refuse_unlikely(pol: str, look: _Look, stored: str) -> None:
    middle = look.middle
    low, high = LIKELY[stored]
    if stored == "decibel" and look.low > 0 and middle < MOST_DECIBEL:
        raise MetadataError(
            f"its {pol} has a middle value of {middle:.4g} and none below 0, and gamma-0 of land in decibels is mostly "
            "negative: it looks like linear power or amplitude. Mend `stored:` at this source"
        )
    if np.isfinite(middle) and not low <= middle <= high:
        raise MetadataError(
            f"its {pol} has a middle value of {middle:.4g}, and gamma-0 {stored} lies between {low:g} and {high:g}: "
            "the scale is another. Say `stored:` at this source for files whose names do not"
        )
