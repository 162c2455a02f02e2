"""Images of Earth Engine as scenes: which are taken, which are left out and why."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from wetmap.recipe import OrbitState, Season, Sensor
from wetmap.sources.earthengine_images import REFLECTANCE_PER_COUNT, SENTINEL2
from wetmap.sources.scene import Scene, Skipped

#: The collection of each sensor. Radar in linear power: COPERNICUS/S1_GRD holds the same in decibels.
COLLECTIONS: Mapping[Sensor, str] = {
    "optical": "COPERNICUS/S2_SR_HARMONIZED",
    "radar": "COPERNICUS/S1_GRD_FLOAT",
    "terrain": "COPERNICUS/DEM/GLO30",
    "embeddings": "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL",
    "lband": "JAXA/ALOS/PALSAR/YEARLY/SAR_EPOCH",
}
#: Cloud Score+ of the Sentinel-2 images of the same name.
CLOUD_SCORE = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
#: Bands of the yearly embeddings.
EMBEDDING_BANDS = tuple(f"A{number:02d}" for number in range(64))
#: Properties that are kept with a scene, of the many that an image has.
KEPT = (
    "PROCESSING_BASELINE",
    "MGRS_TILE",
    "PRODUCT_ID",
    "instrumentMode",
    "transmitterReceiverPolarisation",
    "sliceNumber",
)
_OPTICAL_RULE = (
    "Counts of the harmonised collection: Earth Engine has taken the offset of baseline 04.00 out, and reflectance "
    "below 0 has no place in its unsigned counts."
)
_RADAR_RULE = (
    "Linear sigma-0 power of ground-range scenes, corrected for thermal noise and terrain displacement, not flattened "
    "for slopes."
)


def decide(
    asset: Mapping[str, Any],
    sensor: Sensor,
    seasons: Sequence[Season],
    *,
    max_cloud_percent: float,
    scores: Mapping[str, str] | None,
) -> Scene | Skipped:
    """What becomes of an image of the list.

    Args:
        asset: Its row of the list: name, id, startTime, geometry, properties.
        sensor: The sensor it was listed for.
        seasons: The recipe's seasons.
        max_cloud_percent: Optical images with more cloud are left out, percent.
        scores: Asset of Cloud Score+ by image name; None: they are not wanted.
    """
    properties = asset.get("properties", {})
    asset_id = str(asset.get("id") or str(asset["name"]).partition("/assets/")[2])
    name = asset_id.rpartition("/")[2]
    time = _time(asset)
    held = tuple(season.name for season in seasons if _in_season(time, season))
    if sensor != "terrain" and not held:
        return Skipped(name, sensor, "it begins outside the seasons")
    item = {
        "asset": asset_id,
        "geometry": _surface(asset.get("geometry")),
        "properties": {key: properties[key] for key in KEPT if key in properties},
    }
    if sensor == "optical":
        return _optical(name, time, held, item, properties, max_cloud_percent, scores)
    if sensor == "radar":
        return _radar(name, time, held, item, properties)
    if sensor == "terrain":
        return Scene(name, sensor, "", bands=("elevation",), offset_rule="Metres, as stored.", item=item)
    if sensor == "lband":  # "assets" and "mask" are what LbandArchive looks for
        return Scene(name, sensor, time, seasons=held, bands=("HH", "HV", "mask"), item={**item, "assets": {}})
    return Scene(
        name, sensor, time, seasons=held, bands=EMBEDDING_BANDS, offset_rule="Unit vectors, as stored.", item=item
    )


def _optical(
    name: str,
    time: str,
    held: tuple[str, ...],
    item: dict[str, Any],
    properties: Mapping[str, Any],
    max_cloud_percent: float,
    scores: Mapping[str, str] | None,
) -> Scene | Skipped:
    cloud = properties.get("CLOUDY_PIXEL_PERCENTAGE")
    if cloud is not None and cloud > max_cloud_percent:
        return Skipped(name, "optical", f"{cloud:.1f} % cloud, more than {max_cloud_percent:g} %")
    if scores is not None:
        if name not in scores:
            return Skipped(name, "optical", "it has no Cloud Score+")
        item["cloud_score"] = scores[name]
    return Scene(
        id=name,
        sensor="optical",
        datetime=time,
        platform=str(properties.get("SPACECRAFT_NAME", "")),
        orbit_state=_orbit(properties.get("SENSING_ORBIT_DIRECTION")),
        relative_orbit=_whole(properties.get("SENSING_ORBIT_NUMBER")),
        seasons=held,
        bands=tuple(SENTINEL2),
        scale=REFLECTANCE_PER_COUNT,
        offset_rule=_OPTICAL_RULE,
        cloud_percent=None if cloud is None else float(cloud),
        item=item,
    )


def _radar(
    name: str, time: str, held: tuple[str, ...], item: dict[str, Any], properties: Mapping[str, Any]
) -> Scene | Skipped:
    state = _orbit(properties.get("orbitProperties_pass"))
    mode = properties.get("instrumentMode", "IW")
    polarisations = properties.get("transmitterReceiverPolarisation", [])
    bands = tuple(name for name in ("VV", "VH", "HH", "HV") if name in polarisations)
    if mode != "IW":
        return Skipped(name, "radar", f"its mode is {mode}, not IW")
    if state == "any":
        return Skipped(name, "radar", "its orbit state (orbitProperties_pass) is not given")
    if not bands:
        return Skipped(name, "radar", "its polarisations are not given")
    return Scene(
        id=name,
        sensor="radar",
        datetime=time,
        platform=f"Sentinel-1{properties.get('platform_number', '')}",
        orbit_state=state,
        relative_orbit=_whole(properties.get("relativeOrbitNumber_start")),
        seasons=held,
        bands=bands,
        offset_rule=_RADAR_RULE,
        item={**item, "backscatter": "sigma0"},
    )


def _surface(geometry: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """An outline as a polygon; Earth Engine gives some as the closed line around it."""
    if geometry is not None and geometry.get("type") in {"LinearRing", "LineString"}:
        return {"type": "Polygon", "coordinates": [geometry["coordinates"]]}
    return geometry


def _orbit(value: Any) -> OrbitState:
    text = str(value or "").lower()
    return "ascending" if text == "ascending" else "descending" if text == "descending" else "any"


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _time(asset: Mapping[str, Any]) -> str:
    """First moment of the image, ISO 8601 in UTC with microseconds, so that text order is time order."""
    text = asset.get("startTime")
    if not text:
        return ""
    moment = dt.datetime.fromisoformat(str(text))
    moment = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _in_season(time: str, season: Season) -> bool:
    """First and last day are included, UTC."""
    return bool(time) and season.start <= dt.datetime.fromisoformat(time).date() <= season.end
