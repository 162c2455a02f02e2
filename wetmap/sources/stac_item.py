"""What a STAC item says about itself, and what wetmap decides from it: pure functions of the item alone.

Archives fill in the same fields differently and sometimes against the facts. What is believed, in order:

* Terrain-corrected radar: the product type, else the collection's name, else the names of the files. Titles and
  descriptions are never believed: Planetary Computer's GRD items are described as terrain-corrected and are not, and
  its RTC items keep ``sar:product_type`` GRD of the product that they were made from.
* The offset of Sentinel-2: ``offset.py``. Dates decide nothing.
* Where pixels lie: the file. ``proj:transform`` of an item is not used; it is stale in some archives.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit, urlunsplit

from wetmap.recipe import OrbitState, Season, Sensor
from wetmap.sources.offset import PRODUCT_KEYS, Rule, band_metadata, reflectance_rule
from wetmap.sources.providers import ASSETS, TIMELESS, Provider
from wetmap.sources.scene import Scene, Skipped

#: Product types of terrain-corrected backscatter: as stactools, Earth Search and the CEOS-ARD products name them.
CORRECTED = ("RTC", "NRB")
#: Name of a Sentinel-2 product: platform, datatake, baseline (not in Planetary Computer's ids), track, tile, and a time
#: that tells products of one datatake apart.
PRODUCT_NAME = re.compile(r"(S2[A-Z])_MSIL\w\w_(\d{8}T\d{6})_(?:N(\d{4})_)?R(\d{3})_T(\d{2}[A-Z]{3})_(\d{8}T\d{6})")
#: Bands that hold classes, not measurements.
CLASSES = frozenset({"SCL", "mask"})
#: Most levels of an item, and its longest link, characters (Linux's longest path, and most servers' longest URL).
MOST_LEVELS, LONGEST_LINK = 40, 4096
#: What a sensor's scenes are, in sentences.
WORDS: Mapping[str, str] = {"optical": "Sentinel-2", "radar": "Sentinel-1", "terrain": "an elevation model"}
#: Parts of a link's query that are a signature or a key.
_SECRETS = re.compile(
    r"sig|signature|token|access_token|key|api_?key|expires|key-pair-id|awsaccesskeyid|x-(amz|goog)-.*"
)
_KEPT_OF_ASSET = (
    "href", "alternate", "type", "roles", "raster:bands", "bands", "nodata", "data_type", "raster:scale",
    "raster:offset", "file:size", "storage:refs", "auth:refs", "wetmap:stored",
)  # fmt: skip


def decide(
    item: Mapping[str, Any], sensor: Sensor, seasons: Sequence[Season], provider: Provider, *, simulated: bool = False
) -> Scene | Skipped:
    """Decide whether an item can be a sensor's scene, and how its stored values are to be understood.

    Args:
        item: STAC item of any version, asset links absolute.
        sensor: What it is wanted for.
        seasons: Seasons of the recipe; the scene belongs to each whose days hold it.
        provider: The archive's row in the table.
        simulated: Whether the archive holds the simulated landscape.

    Returns:
        The scene, or why it is not used. Clouds are not looked at here.
    """
    properties = item["properties"]
    name, assets, time = str(item["id"]), assets_of(item, sensor, provider), time_of(item)
    try:
        rule = _rule(item, sensor, assets)
        rule = rule if isinstance(rule, str) else _refuse_values(rule, assets) or rule
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        rule = f"its metadata cannot be read ({type(error).__name__}: {str(error)[:80]})"
    if isinstance(rule, Rule) and not time and sensor not in TIMELESS:
        rule = "its time is not given, or cannot be read"
    if isinstance(rule, str):
        return Skipped(name, sensor, rule)
    cloud = properties.get("eo:cloud_cover") if sensor == "optical" else None
    return Scene(
        id=name,
        sensor=sensor,
        datetime=time,
        platform=str(properties.get("platform") or ""),
        orbit_state=orbit_of(properties),
        relative_orbit=relative_orbit_of(item),
        seasons=() if sensor in TIMELESS else tuple(s.name for s in seasons if in_season(time, s)),
        bands=tuple(assets),
        scale=rule.scale,
        offset=rule.offset,
        offset_rule=str(properties.get("wetmap:offset_rule") or rule.why),
        cloud_percent=_number(cloud),
        simulated=simulated or bool(properties.get("wetmap:simulated")),
        item=_trimmed(item, assets),
    )


def sensor_of(item: Mapping[str, Any]) -> Sensor | None:
    """Which sensor an item belongs to by what it says of itself; None where it says nothing that is known."""
    properties = item.get("properties", {})
    said = " ".join(str(part) for part in (properties.get("platform"), properties.get("constellation"))).lower()
    about = f"{item.get('collection') or ''} {item.get('id') or ''}".lower()
    c_band = _has(properties, "sar:") and properties.get("sar:frequency_band", "C") == "C"
    if c_band or re.search(r"sentinel.?1", said):
        return "radar"
    if re.search(r"sentinel.?2", said) or _has(properties, "s2:") or re.search(r"sentinel.?2|\bs2[a-d]_", about):
        return "optical"
    if "tandem" in said or re.search(r"(?<![a-z])(dem|dsm|dtm)(?![a-z])", about.replace("_", " ")):
        return "terrain"
    return None


def assets_of(item: Mapping[str, Any], sensor: Sensor, provider: Provider) -> dict[str, dict[str, Any]]:
    """Asset by wetmap's name of the band, for the bands that the item holds: the provider's names first."""
    held = {name: dict(asset) for name, asset in (item.get("assets") or {}).items() if isinstance(asset, Mapping)}
    found = {}
    for band, aliases in ASSETS[sensor].items():
        known = provider.assets.get(sensor, {}).get(band, ())
        alias = next((alias for alias in (*known, *aliases) if alias in held), None)
        if alias is not None:
            found[band] = held[alias]
    return found


def time_of(item: Mapping[str, Any]) -> str:
    """Time of acquisition, ISO 8601 in UTC with microseconds, so that text order is time order; empty if not given."""
    properties = item["properties"]
    return _utc(properties.get("datetime") or properties.get("start_datetime"))


def in_season(time: str, season: Season) -> bool:
    """Whether a time lies in a season; first and last day are included, UTC."""
    return bool(time) and season.start <= dt.datetime.fromisoformat(time).date() <= season.end


def orbit_of(properties: Mapping[str, Any]) -> OrbitState:
    """Flight direction, ``any`` where it is not given."""
    state = str(properties.get("sat:orbit_state") or "").lower()
    return "ascending" if state == "ascending" else "descending" if state == "descending" else "any"


def relative_orbit_of(item: Mapping[str, Any]) -> int | None:
    """Track number, as the item gives it or as the product's name does (``_R079_``)."""
    given = item["properties"].get("sat:relative_orbit")
    if given is not None and re.fullmatch(r"\d{1,3}(\.0)?", str(given)):
        return int(float(given))
    name = product_name(item)
    return int(name[4]) if name else None


def product_name(item: Mapping[str, Any]) -> re.Match[str] | None:
    """The parts of a Sentinel-2 product's name, from wherever the item gives it."""
    texts = [str(item.get("properties", {}).get(key) or "") for key in PRODUCT_KEYS] + [str(item.get("id", ""))]
    return next((match for text in texts if (match := PRODUCT_NAME.search(text))), None)


def is_item(data: Mapping[str, Any]) -> bool:
    """Whether data have the parts that every STAC item has."""
    return (
        isinstance(data.get("id"), str | int)
        and bool(data["id"])
        and all(isinstance(data.get(part), Mapping) for part in ("properties", "assets"))
    )


def tidy(data: Any, levels: int = MOST_LEVELS) -> Any:
    """What an archive sent as data that can be saved again.

    Values that JSON does not have (NaN, infinities), numbers beyond 64 bits and what lies deeper than any item become
    None, halves of characters become question marks. An item that is no mapping becomes an empty one.
    """
    if levels == MOST_LEVELS and not isinstance(data, Mapping):
        return {}
    if isinstance(data, Mapping):
        return {tidy(str(key), 1): tidy(value, levels - 1) for key, value in data.items()} if levels else None
    if isinstance(data, list | tuple):
        return [tidy(value, levels - 1) for value in data] if levels else None
    if isinstance(data, str):
        return data.encode("utf-8", "replace").decode("utf-8")
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return data if data is None or isinstance(data, bool) or (isinstance(data, int) and abs(data) < 2**63) else None


def absolute(item: Any) -> dict[str, Any]:
    """An item whose asset links are absolute: relative ones are taken from where the item itself is."""
    if not isinstance(item, dict):
        return {}
    links, assets = item.get("links"), item.get("assets")
    held = [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
    base = next((str(link.get("href")) for link in held if link.get("rel") == "self"), "")
    for asset in assets.values() if isinstance(assets, dict) and base else ():
        if isinstance(asset, dict) and isinstance(asset.get("href"), str) and "://" not in asset["href"]:
            with contextlib.suppress(ValueError):  # of what is no link; the item is refused for it later
                asset["href"] = urljoin(base, asset["href"])
    return item


def slim(item: Any, sensor: Sensor, provider: Provider) -> dict[str, Any]:
    """An item as it is kept between search and decision: tidy, only the sensor's assets, no links, no secrets."""
    clean: dict[str, Any] = tidy(item)
    aliases = {
        alias for names in (ASSETS, provider.assets) for group in names.get(sensor, {}).values() for alias in group
    }
    assets = clean.get("assets")
    held = {
        name: _without_secrets(asset)
        for name, asset in (assets if isinstance(assets, Mapping) else {}).items()
        if name in aliases and isinstance(asset, Mapping)
    }
    return {**{key: value for key, value in clean.items() if key not in {"links", "assets"}}, "assets": held}


def unsigned(href: str) -> str:
    """A link without its query, where the query holds a signature or a key; else as it is."""
    try:
        parts = urlsplit(href)
    except ValueError:  # no link at all
        return href.partition("?")[0]
    if not any(_SECRETS.fullmatch(name.lower()) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return href
    return urlunsplit(parts._replace(query=""))


def _rule(item: Mapping[str, Any], sensor: Sensor, assets: Mapping[str, Mapping[str, Any]]) -> Rule | str:
    """Scale and offset, or the reason why the item cannot be used."""
    measured = [asset for name, asset in assets.items() if name not in CLASSES]
    refused = _refuse_other(item, sensor) or _refuse_level(item)
    if refused is None and not measured:
        refused = f"it has no asset for any of {', '.join(name for name in ASSETS[sensor] if name not in CLASSES)}"
    if refused is not None:
        return refused
    if sensor == "optical":
        if "SCL" not in assets:
            return "it has no scene classification (SCL), so its clouds are not known"
        return reflectance_rule(item, measured)
    if sensor == "lband":
        return _declared([asset for name, asset in assets.items() if name != "mask"] or measured, "digital numbers")
    if sensor == "radar":
        return _rule_of_radar(item, measured)
    return _rule_of_terrain(measured) if sensor == "terrain" else _declared(measured, "counts")


def _refuse_values(rule: Rule, assets: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why the files of an item cannot be opened or their values not be understood, if so."""
    for name, asset in assets.items():
        if not _is_link(asset.get("href")):
            return f"the link of its asset {name} cannot be read"
        nodata = band_metadata(asset).get("nodata")
        float(0 if nodata is None else nodata)  # what is no number is told as all that cannot be read
    if not (math.isfinite(rule.scale) and math.isfinite(rule.offset) and rule.scale):
        return f"its scale ({rule.scale:g}) or offset ({rule.offset:g}) cannot be"
    return None


def _is_link(href: Any) -> bool:
    """Whether this can be a link: a text, not longer than any, without control characters, that can be taken apart."""
    if not isinstance(href, str) or not 0 < len(href) <= LONGEST_LINK or not href.isprintable():
        return False
    try:
        return bool(urlsplit(href))
    except ValueError:
        return False


def _refuse_other(item: Mapping[str, Any], sensor: Sensor) -> str | None:
    """Why an item is another sensor's, if it says that it is."""
    said = sensor_of(item)
    return None if said in {None, sensor} or sensor not in WORDS else f"it is {WORDS[str(said)]}, not {WORDS[sensor]}"


def _rule_of_radar(item: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> Rule | str:
    corrected = _corrected(item, measured)
    refused = _refuse_pass(item["properties"], corrected)
    return refused or _declared(measured, f"linear gamma-0 power, terrain-corrected ({corrected})")


def _rule_of_terrain(measured: Sequence[Mapping[str, Any]]) -> Rule | str:
    if any("file:values" in asset or "classification:classes" in asset for asset in measured):
        return "its values are classes, not metres"
    return _declared(measured, "metres")


def _declared(measured: Sequence[Mapping[str, Any]], stored: str) -> Rule | str:
    declared = [band_metadata(asset) for asset in measured]
    pairs = {(float(band.get("scale", 1.0)), float(band.get("offset", 0.0))) for band in declared}
    if len(pairs) > 1:
        return "its bands differ in scale or offset"
    ((scale, offset),) = pairs
    return Rule(scale, offset, f"Stored as {stored}, with the scale and offset of the item's metadata, if any.")


def _refuse_level(item: Mapping[str, Any]) -> str | None:
    """Why an item is not one acquisition at the level that is wanted, if it is not."""
    properties = item["properties"]
    kind = str(properties.get("s2:product_type") or properties.get("product:type") or "")
    about = f"{item.get('collection') or ''} {item.get('id') or ''}"
    if kind == "S2MSI1C" or re.search(r"(?i)msil1c|l1c\b", about):
        return "it is L1C (top-of-atmosphere reflectance), not L2A (surface reflectance)"
    if str(properties.get("processing:level") or "").upper() == "L3" or "_L3_" in kind:
        return "it is a mosaic of many dates (L3), not one acquisition"
    return None


def _corrected(item: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str | None:
    """How it is known that radar is terrain-corrected; None where its product type says otherwise."""
    kind = str(item["properties"].get("sar:product_type") or item["properties"].get("product:type") or "").upper()
    if any(word in re.split(r"[^A-Z0-9]", kind) for word in CORRECTED):
        return f"its product type is {kind}"
    if re.search(r"(?i)(?<![a-z])rtc(?![a-z])", str(item.get("collection") or "")):
        return f"its collection is {item['collection']}"
    files = [str(asset["href"]).partition("?")[0].rpartition("/")[2].lower() for asset in measured]
    if all(re.search(r"rtc|gamma0", file) for file in files):
        return f"its files are named so: {files[0]}"
    return None if kind else "its collection was named for it; the item does not say"


def _refuse_pass(properties: Mapping[str, Any], corrected: str | None) -> str | None:
    """Why a radar pass cannot be used, if it cannot."""
    if corrected is None:
        kind = properties.get("sar:product_type") or properties.get("product:type")
        return f"it is {kind} without terrain correction: neither its collection nor its files are RTC"
    mode = properties.get("sar:instrument_mode") or "IW"
    if mode != "IW":
        return f"its mode is {mode}, not IW"
    return "its orbit state (sat:orbit_state) is not given" if orbit_of(properties) == "any" else None


def _trimmed(item: Mapping[str, Any], assets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What reading needs and what explains the decisions, and no more: plans hold thousands of items."""
    kept = {name: {k: asset[k] for k in _KEPT_OF_ASSET if k in asset} for name, asset in assets.items()}
    return {
        "type": "Feature",
        "stac_version": item.get("stac_version", "1.0.0"),
        "id": item["id"],
        "collection": item.get("collection"),
        "geometry": item.get("geometry"),
        "bbox": item.get("bbox"),
        "properties": dict(item["properties"]),
        "assets": {name: _without_secrets(asset) for name, asset in kept.items()},
    }


def _without_secrets(asset: Mapping[str, Any]) -> dict[str, Any]:
    """An asset whose links carry no signature."""
    clean = {**asset, "href": unsigned(str(asset["href"]))} if "href" in asset else dict(asset)
    other = asset.get("alternate")
    if isinstance(other, Mapping):
        clean["alternate"] = {
            name: {**link, "href": unsigned(str(link["href"]))}
            for name, link in other.items()
            if isinstance(link, Mapping) and "href" in link
        }
    return clean


def _number(value: Any) -> float | None:
    """A number as it is; anything else, also one beyond all, is none."""
    return float(value) if isinstance(value, int | float) and abs(value) < 2**63 else None


def _has(properties: Mapping[str, Any], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in properties)


def _utc(value: Any) -> str:
    if not value:
        return ""
    try:
        moment = dt.datetime.fromisoformat(str(value))
        moment = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return ""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
