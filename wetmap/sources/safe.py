"""What the metadata of a Sentinel-2 L2A product in SAFE format say: time, orbit, outline, cloud, scale and offset.

Tags and their meaning: Sentinel-2 Products Specification Document (ESA, S2-PDGS-TAS-DI-PSD), User Product Level-2A.
Everything here works on bytes; nothing is opened.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
import shapely
from pyproj import Transformer
from pyproj.exceptions import ProjError
from shapely import Polygon

from wetmap.sources.outlines import on_globe

#: Band of each ``band_id`` of the product's metadata.
BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
#: Bands by the folder in which they are sharpest.
FINEST: Mapping[str, str] = {
    **dict.fromkeys(("B02", "B03", "B04", "B08"), "10m"),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12", "SCL"), "20m"),
}
#: Metadata larger than this are not read, bytes: real ones have up to 1 MB.
MOST_XML_BYTES = 64 * 2**20

Json = dict[str, Any]


class MetadataError(ValueError):
    """The metadata cannot be used; the message says why, as the end of a sentence."""


@dataclass(frozen=True)
class Product:
    """What ``MTD_MSIL2A.xml`` says."""

    uri: str
    """The product's name, without ``.SAFE``."""
    baseline: str
    """Processing baseline, ``05.09``."""
    time: str
    """Start of sensing, ISO 8601, UTC."""
    platform: str
    """``Sentinel-2A``."""
    orbit_state: str
    """``ascending`` or ``descending``; empty if not given."""
    relative_orbit: int | None
    """Track, 1 to 143."""
    datatake: str
    """Name of the datatake."""
    datastrip: str
    """Name of the data strip."""
    made: str
    """When the product was made, as it says."""
    quantification: float
    """Counts per unit of reflectance."""
    added: Mapping[str, float] | None
    """BOA_ADD_OFFSET by band, counts; None where the metadata have none."""
    outline: Json | None
    """Footprint as GeoJSON in longitude and latitude, cut at the antimeridian; None if not given."""
    cloud_percent: float | None
    """Cloud over the product, percent."""

    def scale_and_offset(self, band: str) -> tuple[float, float]:
        """Reflectance per count, and reflectance of a stored 0: (count + BOA_ADD_OFFSET) / QUANTIFICATION_VALUE."""
        return 1 / self.quantification, (self.added or {}).get(band, 0.0) / self.quantification

    @property
    def why(self) -> str:
        """Where scale and offset are known from, as a sentence."""
        base = f"MTD_MSIL2A.xml (baseline {self.baseline}): QUANTIFICATION_VALUE {self.quantification:g}"
        if self.added is None:
            return f"{base}, and no BOA_ADD_OFFSET."
        return f"{base}, BOA_ADD_OFFSET {', '.join(f'{value:g}' for value in sorted(set(self.added.values())))}."


@dataclass(frozen=True)
class Tile:
    """What ``MTD_TL.xml`` says."""

    epsg: str
    """CRS of the images, ``EPSG:32619``."""
    bounds: tuple[float, float, float, float]
    """Left, bottom, right, top of the images, metres."""
    cloud_percent: float | None
    """Cloud over the tile, percent."""

    def outline(self) -> Json:
        """The images' rectangle as GeoJSON in longitude and latitude, cut at the antimeridian.

        Raises:
            MetadataError: It has no place on the globe.
        """
        return bounds_outline(self.epsg, self.bounds)


def parse_xml(data: bytes) -> Element:
    """Parse metadata whose origin is not known: what defines entities or a document type is refused.

    Args:
        data: The file.

    Returns:
        The root; tags are without namespace.

    Raises:
        MetadataError: It is too large, no XML, or defines a document type (ESA's metadata never do; entities can grow
            without bound or name files of this machine).
    """
    if len(data) > MOST_XML_BYTES:
        raise MetadataError(f"its metadata are larger than {MOST_XML_BYTES // 2**20} MB")
    builder = TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise MetadataError("its metadata define a document type or entities, which real ones never do")

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = lambda tag, attributes: builder.start(tag.rpartition(":")[2], attributes)
    parser.EndElementHandler = lambda tag: builder.end(tag.rpartition(":")[2])
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, MetadataError):
            raise
        raise MetadataError(f"its metadata are not XML ({error})") from None
    return builder.close()


def product_of(data: bytes) -> Product:
    """Read ``MTD_MSIL2A.xml``.

    Raises:
        MetadataError: It cannot be read, is not of Level-2A, or lacks the time or the quantification value.
    """
    root = parse_xml(data)
    level = _text(root, "PROCESSING_LEVEL") or _text(root, "PRODUCT_TYPE")
    if "2A" not in level:
        raise MetadataError(f"its level is {level or 'not given'}, not Level-2A")
    quantification = _number(root, "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    if quantification is None or not quantification > 0:
        raise MetadataError("its metadata give no BOA_QUANTIFICATION_VALUE")
    orbit = _number(root, "SENSING_ORBIT_NUMBER")
    direction = _text(root, "SENSING_ORBIT_DIRECTION").lower()
    return Product(
        uri=(_text(root, "PRODUCT_URI") or _text(root, "PRODUCT_URI_2A")).removesuffix(".SAFE"),
        baseline=_text(root, "PROCESSING_BASELINE"),
        time=_time(_text(root, "PRODUCT_START_TIME") or _text(root, "DATATAKE_SENSING_START")),
        platform=_text(root, "SPACECRAFT_NAME"),
        orbit_state=direction if direction in {"ascending", "descending"} else "",
        relative_orbit=None if orbit is None else int(orbit),
        datatake=_attribute(root, "Datatake", "datatakeIdentifier"),
        datastrip=_attribute(root, "Granule", "datastripIdentifier"),
        made=_text(root, "GENERATION_TIME"),
        quantification=quantification,
        added=_added(root),
        outline=_outline(_text(root, "EXT_POS_LIST")),
        cloud_percent=_number(root, "Cloud_Coverage_Assessment"),
    )


def tile_of(data: bytes) -> Tile:
    """Read ``MTD_TL.xml`` of the granule.

    Raises:
        MetadataError: It cannot be read or does not say where the images lie.
    """
    root = parse_xml(data)
    epsg = _text(root, "HORIZONTAL_CS_CODE")
    corner = [_number(root, tag) for tag in ("ULX", "ULY", "XDIM", "YDIM", "NCOLS", "NROWS")]
    if not re.fullmatch(r"EPSG:\d{4,6}", epsg) or any(value is None for value in corner):
        raise MetadataError("the metadata of its granule do not say where the images lie")
    left, top, width, height, cols, rows = (float(value) for value in corner if value is not None)
    bounds = (left, top + height * rows, left + width * cols, top)
    return Tile(epsg, bounds, _number(root, "CLOUDY_PIXEL_PERCENTAGE"))


def outline_of(lonlat: list[list[float]]) -> Json | None:
    """A ring of (longitude, latitude), degrees, as GeoJSON, cut at the antimeridian; None where it is none."""
    found = on_globe(Polygon(lonlat))
    return None if found is None else json.loads(shapely.to_geojson(found))


def bounds_outline(crs: str, bounds: tuple[float, float, float, float]) -> Json:
    """A rectangle of any CRS (left, bottom, right, top) as GeoJSON in longitude and latitude.

    Raises:
        MetadataError: It has no place in longitude and latitude.
    """
    left, bottom, right, top = bounds
    edge = shapely.segmentize(shapely.box(*bounds), max(right - left, top - bottom) / 8)
    try:
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        lonlat = np.column_stack(to_degrees.transform(*shapely.get_coordinates(edge).T))
    except ProjError as error:
        raise MetadataError(f"its place on the ground cannot be found ({error})") from None
    outline = outline_of(lonlat.tolist()) if np.isfinite(lonlat).all() else None
    if outline is None:
        raise MetadataError("its corners have no longitude and latitude")
    return outline


def _added(root: Element) -> dict[str, float] | None:
    found: dict[str, float] = {}
    for element in root.iter("BOA_ADD_OFFSET"):
        number = element.get("band_id", "")
        if number.isdigit() and int(number) < len(BAND_IDS):
            found[BAND_IDS[int(number)]] = _as_number("BOA_ADD_OFFSET", element.text or "")
    return found or None


def _outline(text: str) -> Json | None:
    """EXT_POS_LIST: latitude, longitude, and so on."""
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        return None
    points = [[lon, lat] for lat, lon in zip(numbers[::2], numbers[1::2], strict=False)]
    return outline_of(points) if len(points) >= 4 and np.isfinite(points).all() else None


def _time(text: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise MetadataError(f"its time of sensing is {text!r}") from None
    moment = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _text(root: Element, tag: str) -> str:
    found = next(root.iter(tag), None)
    return "" if found is None else (found.text or "").strip()


def _attribute(root: Element, tag: str, name: str) -> str:
    found = next(root.iter(tag), None)
    return "" if found is None else found.get(name, "")


def _number(root: Element, *tags: str) -> float | None:
    text = next((text for tag in tags if (text := _text(root, tag))), "")
    return _as_number(tags[0], text) if text else None


def _as_number(tag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise MetadataError(f"{tag} of its metadata is {text!r}") from None
    if not np.isfinite(value):
        raise MetadataError(f"{tag} of its metadata is {text!r}")
    return value
