"""Scenes from a STAC catalogue: an API by URL, or a static catalogue on disk."""

from __future__ import annotations

import datetime as dt
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import Polygon, shape

from wetmap.errors import SceneSkippedWarning, SourceError, WetmapWarning
from wetmap.geo import Aoi, Grid
from wetmap.recipe import OrbitState, Season, Sensor, StacSource
from wetmap.sources.offset import Rule, band_metadata, reflectance_rule
from wetmap.sources.reader import RasterBand, extent_on, read_onto
from wetmap.sources.scene import EXTENT, Scene, Skipped

PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/stac/v1"
#: Catalogues by name.
PRESETS: Mapping[str, str] = {"planetary-computer": PLANETARY_COMPUTER}
#: The usual collection of each sensor.
COLLECTIONS: Mapping[Sensor, str] = {
    "optical": "sentinel-2-l2a",
    "radar": "sentinel-1-rtc",
    "terrain": "cop-dem-glo-30",
}

#: Names that archives give to the bands: Planetary Computer, Earth Search, Copernicus Data Space, stactools.
ASSETS: Mapping[Sensor, Mapping[str, tuple[str, ...]]] = {
    "optical": {
        "B02": ("B02", "blue", "B02_10m"),
        "B03": ("B03", "green", "B03_10m"),
        "B04": ("B04", "red", "B04_10m"),
        "B05": ("B05", "rededge1", "B05_20m"),
        "B06": ("B06", "rededge2", "B06_20m"),
        "B07": ("B07", "rededge3", "B07_20m"),
        "B08": ("B08", "nir", "B08_10m"),
        "B8A": ("B8A", "nir08", "B8A_20m"),
        "B11": ("B11", "swir16", "B11_20m"),
        "B12": ("B12", "swir22", "B12_20m"),
        "SCL": ("SCL", "scl", "SCL_20m"),
    },
    "radar": {
        "VV": ("vv", "VV", "vv-rtc"),
        "VH": ("vh", "VH", "vh-rtc"),
        "HH": ("hh", "HH", "hh-rtc"),
        "HV": ("hv", "HV", "hv-rtc"),
    },
    "terrain": {"elevation": ("data", "elevation", "dem")},
}

#: Seconds to wait for a connection, and for an answer.
TIMEOUT = (10.0, 60.0)
#: Tries after the first for a search that fails, and the first wait between them, seconds (it doubles).
RETRIES, FIRST_WAIT = 3, 0.5
#: Outlines of scenes are trusted to this much, degrees (about 2 km).
NEAR_DEG = 0.02
#: Items per page of a search.
PAGE = 100


@dataclass(frozen=True)
class StacArchive:
    """A STAC catalogue and one of its collections. Holds addresses only."""

    catalog: str
    """URL of an API, or path of a static catalogue."""
    collection: str
    """Collection id."""
    simulated: bool = False
    """Whether it holds the simulated landscape."""

    @classmethod
    def of(cls, source: StacSource, sensor: Sensor, *, simulated: bool = False) -> StacArchive:
        """The archive that a recipe's source names."""
        return cls(
            catalog=PRESETS.get(source.catalog, source.catalog),
            collection=source.collection or COLLECTIONS[sensor],
            simulated=simulated,
        )

    def search(
        self, sensor: Sensor, aoi: Aoi, seasons: Sequence[Season], *, max_cloud_percent: float
    ) -> tuple[list[Scene], list[Skipped]]:
        """Find the scenes of one sensor; see ``Archive.search``."""
        items = {str(item["id"]): item for item in self._items(sensor, aoi, seasons) if _touches(item, aoi)}
        scenes: list[Scene] = []
        skipped: list[Skipped] = []
        for item in sorted(items.values(), key=lambda item: (_time(item), str(item["id"]))):
            decided = self._decide(item, sensor, seasons, max_cloud_percent)
            if isinstance(decided, Scene):
                scenes.append(decided)
            else:
                skipped.append(decided)
        self._refuse_none(scenes, skipped, sensor, aoi, seasons)
        return scenes, skipped

    def read(self, scene: Scene, names: Sequence[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        """Read bands of one scene onto a window; see ``Archive.read``."""
        held = [name for name in names if name in scene.bands or name == EXTENT]
        if not _near(scene.item.get("geometry"), window):
            return {name: np.full(window.shape, np.nan, dtype=np.float32) for name in held}
        return {name: self._read_band(scene, name, window) for name in held}

    def _read_band(self, scene: Scene, name: str, window: Grid) -> NDArray[np.float32]:
        if name == EXTENT:
            return extent_on(self._signed(str(scene.item["assets"][scene.bands[0]]["href"])), window)
        asset = scene.item["assets"][name]
        categorical = name == "SCL"
        nodata = band_metadata(asset).get("nodata")
        if scene.sensor == "optical":
            nodata = 0.0  # In L2A products a stored 0 is "no data", for reflectance and for SCL alike.
        source = RasterBand(
            href=self._signed(str(asset["href"])),
            nodata=None if nodata is None else float(nodata),
            resampling="nearest" if categorical else "bilinear",
        )
        scale, offset = scene.scale, scene.offset

        def convert(stored: NDArray[np.float64]) -> NDArray[np.float64]:
            values = stored * scale + offset
            if scene.sensor == "radar":
                values[~(values > 0)] = np.nan  # Border fill and calibration residue: power is positive.
            return values

        return read_onto(source, window, None if categorical else convert)

    def _signed(self, href: str) -> str:
        """Sign at the moment of reading: tokens last less than an hour, and none must reach a manifest."""
        if self.catalog != PLANETARY_COMPUTER:
            return href
        import planetary_computer
        from requests.exceptions import RequestException

        try:
            return str(planetary_computer.sign_url(href))
        except RequestException as error:
            raise SourceError(
                f"Planetary Computer gives no token for {href} ({type(error).__name__}).",
                do="Check the network; then run the same command again.",
            ) from None

    def _decide(
        self, item: Mapping[str, Any], sensor: Sensor, seasons: Sequence[Season], max_cloud_percent: float
    ) -> Scene | Skipped:
        properties = item["properties"]
        assets = _assets(item, sensor)
        cloud = properties.get("eo:cloud_cover") if sensor == "optical" else None
        if cloud is not None and cloud > max_cloud_percent:
            return Skipped(str(item["id"]), sensor, f"{cloud:.1f} % cloud, more than {max_cloud_percent:g} %")
        rule = _rule(item, sensor, assets)
        if isinstance(rule, str):
            warnings.warn(f"{sensor} scene {item['id']} is not used: {rule}.", SceneSkippedWarning, stacklevel=4)
            return Skipped(str(item["id"]), sensor, rule)
        return Scene(
            id=str(item["id"]),
            sensor=sensor,
            datetime=_time(item),
            platform=str(properties.get("platform", "")),
            orbit_state=_orbit(properties),
            relative_orbit=properties.get("sat:relative_orbit"),
            seasons=() if sensor == "terrain" else tuple(s.name for s in seasons if _in_season(_time(item), s)),
            bands=tuple(assets),
            scale=rule.scale,
            offset=rule.offset,
            offset_rule=rule.why,
            cloud_percent=cloud,
            simulated=self.simulated or bool(properties.get("wetmap:simulated")),
            item=_trimmed(item, assets),
        )

    def _items(self, sensor: Sensor, aoi: Aoi, seasons: Sequence[Season]) -> Iterator[dict[str, Any]]:
        windows = [None] if sensor == "terrain" else list(seasons)
        if self.catalog.startswith(("http://", "https://")):
            for season in windows:
                yield from self._search_api(aoi, season)
            return
        for item in self._read_static():
            if sensor == "terrain" or any(_in_season(_time(item), season) for season in seasons):
                yield item

    def _search_api(self, aoi: Aoi, season: Season | None) -> Iterator[dict[str, Any]]:
        import pystac_client
        from pystac.errors import STACError, STACTypeError
        from pystac_client.exceptions import APIError
        from pystac_client.stac_api_io import StacApiIO
        from requests.exceptions import RequestException
        from urllib3 import Retry

        retry = Retry(RETRIES, backoff_factor=FIRST_WAIT, status_forcelist=(429, 502, 503, 504), allowed_methods=None)
        days = None if season is None else f"{season.start}T00:00:00Z/{season.end}T23:59:59.999999Z"
        try:
            client = pystac_client.Client.open(self.catalog, stac_io=StacApiIO(max_retries=retry, timeout=TIMEOUT))
            search = client.search(collections=[self.collection], bbox=aoi.geometry.bounds, datetime=days, limit=PAGE)
            for item in search.items():
                item.make_asset_hrefs_absolute()
                yield item.to_dict(include_self_link=False, transform_hrefs=False)
        except (APIError, RequestException, STACError, STACTypeError) as error:
            raise SourceError(
                f"The STAC API {self.catalog} cannot be searched ({_brief(error)}).",
                do="Check the URL and the network; a static catalogue on disk (`catalog:` a path) needs none.",
            ) from error

    def _read_static(self) -> Iterator[dict[str, Any]]:
        import pystac
        from pystac.errors import STACError, STACTypeError

        path = Path(self.catalog)
        if not path.is_file():
            raise SourceError(
                f"The STAC catalogue {path} does not exist.",
                do="Give `planetary-computer`, the URL of a STAC API, or the path of a catalog.json.",
            )
        try:
            root = pystac.Catalog.from_file(str(path))
            known = {root.id: root, **{child.id: child for child in root.get_children()}}
            if self.collection not in known:
                raise SourceError(
                    f"{path} has no collection {self.collection}; it has {', '.join(sorted(known)) or 'none'}.",
                    do="Name one of them as `collection:` of the source.",
                )
            for item in known[self.collection].get_items(recursive=True):
                item.make_asset_hrefs_absolute()
                yield item.to_dict(include_self_link=False, transform_hrefs=False)
        except (STACError, STACTypeError, OSError, ValueError, KeyError) as error:
            raise SourceError(
                f"The STAC catalogue {path} cannot be read ({_brief(error)}).",
                do="Check its files against the STAC specification (https://stacspec.org).",
            ) from error

    def _refuse_none(
        self, scenes: Sequence[Scene], skipped: Sequence[Skipped], sensor: Sensor, aoi: Aoi, seasons: Sequence[Season]
    ) -> None:
        dates = "" if sensor == "terrain" else f" between {_dates(seasons)}"
        if not scenes:
            left_out = f"; {len(skipped)} were left out, the first because of {skipped[0].reason}" if skipped else ""
            raise SourceError(
                f"No {sensor} scenes of {self.collection} in {self.catalog} cover {aoi.name}{dates}{left_out}.",
                do=_advice(sensor),
            )
        for season in seasons if sensor != "terrain" else ():
            if not any(season.name in scene.seasons for scene in scenes):
                warnings.warn(
                    f"No {sensor} scene covers {aoi.name} in season {season.name} ({season.start} to {season.end}): "
                    "it will be marked as not observed.",
                    WetmapWarning,
                    stacklevel=3,
                )


def _advice(sensor: Sensor) -> str:
    return {
        "optical": "Widen the season's dates, or raise optical.max_cloud_percent.",
        "radar": "Widen the season's dates, or name another catalogue or collection for radar.",
        "terrain": "Name another catalogue or collection for terrain, or leave terrain features out.",
    }[sensor]


def _dates(seasons: Sequence[Season]) -> str:
    return ", ".join(f"{season.start} and {season.end}" for season in seasons)


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _time(item: Mapping[str, Any]) -> str:
    """Time of acquisition, ISO 8601 in UTC with microseconds, so that text order is time order."""
    properties = item["properties"]
    text = properties.get("datetime") or properties.get("start_datetime")
    if not text:
        return ""
    moment = dt.datetime.fromisoformat(str(text))
    moment = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _in_season(time: str, season: Season) -> bool:
    """First and last day are included, UTC."""
    return bool(time) and season.start <= dt.datetime.fromisoformat(time).date() <= season.end


def _touches(item: Mapping[str, Any], aoi: Aoi) -> bool:
    geometry = item.get("geometry")
    return geometry is None or bool(shapely.intersects(shape(geometry), aoi.geometry))


def _near(geometry: Mapping[str, Any] | None, window: Grid) -> bool:
    """Whether a scene's outline comes near a window: most scenes of a province lie far from most blocks."""
    return geometry is None or bool(shapely.intersects(shape(dict(geometry)), _outline(window)))


@functools.lru_cache(maxsize=64)
def _outline(window: Grid) -> Polygon:
    """A window and ``NEAR_DEG`` around it, in longitude and latitude."""
    edge: Polygon = shapely.segmentize(shapely.box(*window.bounds), window.res_m * max(window.shape) / 8)
    to_degrees = Transformer.from_crs(window.crs, "EPSG:4326", always_xy=True)
    outline = shapely.transform(edge, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
    return shapely.buffer(outline, NEAR_DEG)


def _orbit(properties: Mapping[str, Any]) -> OrbitState:
    state = str(properties.get("sat:orbit_state", "")).lower()
    return "ascending" if state == "ascending" else "descending" if state == "descending" else "any"


def _assets(item: Mapping[str, Any], sensor: Sensor) -> dict[str, dict[str, Any]]:
    """Asset by wetmap's name of the band, for the bands that the item holds."""
    held = item.get("assets", {})
    found = {}
    for name, aliases in ASSETS[sensor].items():
        alias = next((alias for alias in aliases if alias in held), None)
        if alias is not None:
            found[name] = held[alias]
    return found


def _rule(item: Mapping[str, Any], sensor: Sensor, assets: Mapping[str, Mapping[str, Any]]) -> Rule | str:
    """Scale and offset, or the reason why the item cannot be used."""
    properties = item["properties"]
    measured = [asset for name, asset in assets.items() if name != "SCL"]
    if not measured:
        return f"it has no asset for any of {', '.join(name for name in ASSETS[sensor] if name != 'SCL')}"
    if sensor == "optical":
        if "SCL" not in assets:
            return "it has no scene classification (SCL), so its clouds are not known"
        return reflectance_rule(item, measured)
    refused = _refuse_pass(properties) if sensor == "radar" else None
    if refused is not None:
        return refused
    declared = [band_metadata(asset) for asset in measured]
    pairs = {(float(band.get("scale", 1.0)), float(band.get("offset", 0.0))) for band in declared}
    if len(pairs) > 1:
        return "its bands differ in scale or offset"
    ((scale, offset),) = pairs
    stored = "linear gamma-0 power" if sensor == "radar" else "metres"
    return Rule(scale, offset, f"Stored as {stored}, with the scale and offset of the item's metadata, if any.")


def _refuse_pass(properties: Mapping[str, Any]) -> str | None:
    """Why a radar pass cannot be used, if it cannot."""
    if _orbit(properties) == "any":
        return "its orbit state (sat:orbit_state) is not given"
    mode = properties.get("sar:instrument_mode", "IW")
    return None if mode == "IW" else f"its mode is {mode}, not IW"


def _trimmed(item: Mapping[str, Any], assets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What reading needs and what explains the decisions, and no more: plans hold thousands of items."""
    kept = ("href", "type", "roles", "raster:bands", "bands", "nodata", "data_type", "raster:scale", "raster:offset")
    return {
        "type": "Feature",
        "stac_version": item.get("stac_version", "1.0.0"),
        "id": item["id"],
        "collection": item.get("collection"),
        "geometry": item.get("geometry"),
        "bbox": item.get("bbox"),
        "properties": dict(item["properties"]),
        "assets": {name: {k: asset[k] for k in kept if k in asset} for name, asset in assets.items()},
    }
