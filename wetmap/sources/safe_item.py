"""One Sentinel-2 L2A product in SAFE format as a STAC item."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from wetmap.sources.folders import Store
from wetmap.sources.providers import COLLECTIONS
from wetmap.sources.safe import FINEST, MOST_XML_BYTES, Json, MetadataError, product_of, tile_of

_IMAGE = re.compile(r"IMG_DATA/R(?P<res>10|20)m/[^/]*_(?P<band>B\d[\dA]|SCL)_(?P=res)m\.(jp2|tiff?)$")
_L1C = "it is Level-1C, the top of the atmosphere: download the Level-2A product, or make it with Sen2Cor"


def product_item(store: Store, root: str, names: Sequence[str]) -> Json:
    """One product as a STAC item.

    Args:
        store: Where its files are.
        root: Its folder in the store; empty for all of it.
        names: Paths of its files in the store.

    Raises:
        MetadataError: It is not of Level-2A, its metadata cannot be used, or a band is missing.
        OSError: A file cannot be read.
    """
    inside = f"{root}/" if root else ""
    if f"{inside}MTD_MSIL1C.xml" in names or "_MSIL1C_" in root:
        raise MetadataError(_L1C)
    if f"{inside}MTD_MSIL2A.xml" not in names:
        raise MetadataError("it has no MTD_MSIL2A.xml: download it again, whole")
    product = product_of(store.read(f"{inside}MTD_MSIL2A.xml", MOST_XML_BYTES + 1))
    granules = [name for name in names if re.search(r"/GRANULE/[^/]+/MTD_TL\.xml$", f"/{name}")]
    if len(granules) != 1:
        raise MetadataError(f"it has {len(granules)} granules with MTD_TL.xml, and a product of one tile has one")
    tile = tile_of(store.read(granules[0], MOST_XML_BYTES + 1))
    name = product.uri if re.fullmatch(r"[\w.-]+", product.uri) else PurePosixPath(root).stem
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": COLLECTIONS["optical"],
        "geometry": product.outline or tile.outline(),
        "properties": {
            "datetime": product.time,
            "platform": product.platform,
            "constellation": "sentinel-2",
            "eo:cloud_cover": product.cloud_percent if tile.cloud_percent is None else tile.cloud_percent,
            "s2:processing_baseline": product.baseline,
            "s2:product_uri": f"{product.uri}.SAFE",
            "s2:datatake_id": product.datatake,
            "s2:datastrip_id": product.datastrip,
            "s2:generation_time": product.made,
            "sat:orbit_state": product.orbit_state,
            "sat:relative_orbit": product.relative_orbit,
            "proj:epsg": int(tile.epsg.removeprefix("EPSG:")),
            "wetmap:offset_rule": product.why,
        },
        "assets": {
            band: {
                "href": store.href(path),
                "type": "image/jp2" if path.endswith(".jp2") else "image/tiff; application=geotiff",
                "roles": ["data"],
                **({} if band == "SCL" else {"raster:bands": [_declared(*product.scale_and_offset(band))]}),
            }
            for band, path in _images(store, names).items()
        },
        "links": [],
    }


def _declared(scale: float, offset: float) -> Json:
    return {"nodata": 0, "data_type": "uint16", "scale": scale, "offset": offset}


def _images(store: Store, names: Sequence[str]) -> dict[str, str]:
    """The file of each band where it is sharpest; refuses a product that lacks one."""
    found: dict[str, str] = {}
    for name in names:
        match = _IMAGE.search(name)
        if match and FINEST.get(match["band"]) == f"{match['res']}m":
            found[match["band"]] = name
    missing = [band for band in FINEST if band not in found]
    if missing:
        raise MetadataError(f"its files of {', '.join(missing)} are missing: download it again, whole")
    odd = [band for band, name in found.items() if not store.is_image(name)]
    if odd:
        raise MetadataError(f"its files of {', '.join(odd)} are no JPEG 2000 or TIFF: download it again")
    return found
