"""What differs between the archives that wetmap knows by name: one table, one row per provider, one interface.

Nothing here was asked of a live service when it was written; where each figure comes from stands in the archive's page
under ``docs/sources``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from wetmap.recipe import Sensor

#: How the links of an archive become readable: as they are; with Planetary Computer's tokens; with the keys of a
#: Copernicus Data Space account; with any S3 credentials, or none, from the environment.
Access = Literal["open", "planetary-computer", "cdse-s3"]
Names = Mapping[Sensor, Mapping[str, tuple[str, ...]]]

PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/stac/v1"
EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"
CDSE = "https://stac.dataspace.copernicus.eu/v1"

#: Names that archives give to the bands: Planetary Computer, Earth Search, Copernicus Data Space, stactools. The first
#: that an item holds is read; the finest resolution stands first.
ASSETS: Names = {
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
        "VV": ("vv", "VV", "vv-rtc", "gamma0_vv"),
        "VH": ("vh", "VH", "vh-rtc", "gamma0_vh"),
        "HH": ("hh", "HH", "hh-rtc", "gamma0_hh"),
        "HV": ("hv", "HV", "hv-rtc", "gamma0_hv"),
    },
    "terrain": {"elevation": ("data", "elevation", "dem")},
    "lband": {"HH": ("HH", "hh"), "HV": ("HV", "hv"), "mask": ("mask",)},
}
#: The usual collection of each sensor in an archive that wetmap does not know by name.
COLLECTIONS: Mapping[Sensor, str] = MappingProxyType(
    {
        "optical": "sentinel-2-l2a",
        "radar": "sentinel-1-rtc",
        "terrain": "cop-dem-glo-30",
        "lband": "alos-palsar-mosaic",
    }
)
#: Sensors whose items are not asked for by date: elevation has none, and mosaics of whole years are chosen elsewhere.
TIMELESS: frozenset[str] = frozenset({"terrain", "lband"})
#: Size of the pixels in the files, metres, where a band is not on 10 m: Sentinel-2 Products Specification Document;
#: Copernicus DEM Product Handbook (one second of arc is 31 m).
NATIVE_RES_M: Mapping[str, float] = MappingProxyType(
    {**dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12", "SCL"), 20.0), "elevation": 30.0}
)

_OVERLAP = (
    "Sentinel-2 tiles are 109.8 km wide on a grid of 100 km, so neighbours show the same 10 km twice. Items of one "
    "overflight (platform, orbit, day) are put together before anything is counted: one look per pixel and overflight."
)
_COUNTS_AS_THEY_ARE = (
    "ESA's counts as they are: from processing baseline 04.00 on, reflectance is (count - 1000) / 10000."
)


@dataclass(frozen=True)
class Provider:
    """One archive: addresses, names and rules. Holds no secret."""

    name: str
    """Name in the recipe (``catalog:``); empty for an archive that is not known by name."""
    title: str
    """Name in sentences."""
    api: str
    """URL of its STAC API; empty for an archive that is not known by name."""
    collections: Mapping[Sensor, str] = field(default_factory=lambda: COLLECTIONS)
    """Collection of each sensor that it offers in a form that can be mapped; a sensor it lacks is missing."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Collections that must not be read as a sensor's scenes: collection id to the reason, as half a sentence."""
    assets: Names = field(default_factory=lambda: ASSETS)
    """Names of a band's asset, first choice first, by sensor and wetmap's name of the band."""
    offset: str = "Per scene, from the item's metadata (see the rules)."
    """What is known about the offset of its Sentinel-2 counts, as a sentence; ``offset.py`` decides, per scene."""
    nodata: Mapping[Sensor, str] = field(default_factory=dict)
    """Stored values that mean not observed, by sensor, in words; what the item or the file says comes on top."""
    access: Access = "open"
    """How links become readable."""
    account: str = "none"
    """What a user must have, in words."""
    buckets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """GDAL's settings for the buckets of its ``s3://`` links; what the environment says goes before."""
    connections: int | None = None
    """Most connections at the same time that it allows one user; None where it publishes no figure."""
    overlap: str = _OVERLAP
    """How its tiles overlap and what is done about it."""


#: Every archive known by name. First is the default.
PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        provider.name: provider
        for provider in (
            Provider(
                name="planetary-computer",
                title="Planetary Computer",
                api=PLANETARY_COMPUTER,
                refused={"sentinel-1-grd": "holds GRD without terrain correction"},
                offset=_COUNTS_AS_THEY_ARE + " Items give no offset, so their processing baseline decides.",
                nodata={"optical": "0", "radar": "-32768 (items), and all that is not above 0", "terrain": "none"},
                access="planetary-computer",
                account="none; links are signed by a free service while they are read",
            ),
            Provider(
                name="earth-search",
                title="Earth Search",
                api=EARTH_SEARCH,
                collections={"optical": "sentinel-2-l2a", "terrain": "cop-dem-glo-30"},
                refused={"sentinel-1-grd": "holds GRD without terrain correction"},
                assets={
                    **ASSETS,
                    # items hold every band twice, as COG (blue) and as JPEG 2000 (blue-jp2): the COG is read
                    "optical": {band: (names[1], names[0]) for band, names in ASSETS["optical"].items()},
                },
                offset="In sentinel-2-l2a the archive took the offset out of most scenes and says so in "
                "earthsearch:boa_offset_applied; in sentinel-2-c1-l2a it is left in and declared in raster:bands.",
                nodata={"optical": "0", "terrain": "none"},
                account="none",
                # registry.opendata.aws/copernicus-dem: an open bucket
                buckets={"copernicus-dem-30m": {"AWS_NO_SIGN_REQUEST": "YES", "AWS_REGION": "eu-central-1"}},
            ),
            Provider(
                name="cdse",
                title="Copernicus Data Space",
                api=CDSE,
                collections={"optical": "sentinel-2-l2a", "terrain": "cop-dem-glo-30-dged-cog"},
                refused={
                    "sentinel-1-grd": "holds GRD without terrain correction",
                    "sentinel-1-global-mosaics": "holds monthly mosaics, not passes",
                    "sentinel-2-global-mosaics": "holds quarterly mosaics, not scenes",
                },
                assets={
                    **ASSETS,
                    "optical": {band: (names[2],) for band, names in ASSETS["optical"].items()},
                },
                offset=_COUNTS_AS_THEY_ARE + " Items declare it (raster:offset -0.1).",
                nodata={"optical": "0", "terrain": "none"},
                access="cdse-s3",
                account="a free account, and S3 keys made in it (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
                # documentation.dataspace.copernicus.eu/APIs/S3.html
                buckets={
                    "eodata": {
                        "AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu",
                        "AWS_VIRTUAL_HOSTING": "FALSE",
                        "AWS_HTTPS": "YES",
                        "AWS_REGION": "default",
                    }
                },
                connections=4,  # documentation.dataspace.copernicus.eu, Quotas and Limitations, general users
            ),
        )
    }
)
_UNKNOWN = Provider(name="", title="", api="")


def provider_of(catalog: str) -> Provider:
    """The provider that a recipe's ``catalog`` names, by its preset or by its URL; else one without peculiarities.

    Args:
        catalog: Preset, URL, or path.
    """
    if catalog in PROVIDERS:
        return PROVIDERS[catalog]
    wanted = _bare(catalog)
    return next((known for known in PROVIDERS.values() if _bare(known.api) == wanted), _UNKNOWN)


def address_of(catalog: str) -> str:
    """Where a recipe's ``catalog`` is: the URL of a preset, else what was given."""
    return PROVIDERS[catalog].api if catalog in PROVIDERS else catalog


def _bare(url: str) -> str:
    return url.rstrip("/").removeprefix("https://").removeprefix("http://").lower()


def joined_radar() -> str:
    """How to take radar from an archive that has it corrected, as advice."""
    return (
        "Join Planetary Computer's radar, which is terrain-corrected: "
        "`sources: {radar: {from: stac, catalog: planetary-computer}}`."
    )
