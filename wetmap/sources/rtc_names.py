"""What the name of a terrain-corrected Sentinel-1 GeoTIFF says: when, which polarisation, which orbit, which unit.

Conventions: ASF HyP3 RTC (product guide), OPERA RTC-S1 (product specification, JPL D-108758), Planetary Computer's
``sentinel-1-rtc`` (folder of the scene, ``iw-vv.rtc.tiff``), pyroSAR (file naming). Other names are read as far as they
go; the recipe says the rest.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

Stored = Literal["power", "amplitude", "decibel"]
Direction = Literal["ascending", "descending"]

WAYS = (
    "Make gamma-0 of it with ASF HyP3 (RTC on demand), pyroSAR or SNAP, or read Planetary Computer's sentinel-1-rtc "
    "through `from: stac`."
)
ASK_RASTERS = (
    "Say `stored:` and `orbit_state:` at this source, name the file as its maker does, or describe it as a file of "
    "`from: rasters`."
)
#: Files that stand beside the bands and hold no backscatter, by the end of their names.
BESIDE = re.compile(
    r"(_(inc_map|inc_map_ell|ls_map|dem|area|rgb|rgb_thumb|mask|shape|browse)\.\w+|\.(xml|kmz|png|jpe?g|txt|md|log|json|h5|"
    r"html?|pdf|dbf|prj|shp|shx|cpg|qml|ovr|aux|hdr|ini|csv|geojson|gpkg|sha256|md5|yaml|yml|safe))$",
    re.IGNORECASE,
)
#: Latitude beyond which the local time of a pass no longer tells its direction, degrees.
MOST_LATITUDE = 70.0
#: First absolute orbit of track 1, by satellite: track = (orbit - first) mod 175 + 1 (Sentinel-1A and B: ESA).
FIRST_ORBIT = {"A": 73, "B": 27}

_POLARISATION = re.compile(r"(?:^|[-_.])(VV|VH|HH|HV)(?=[-_.])", re.IGNORECASE)
_HYP3 = re.compile(
    r"(?P<scene>S1(?P<unit>[A-D])_(?P<mode>IW|EW|S\d)_(?P<time>\d{8}T\d{6})_[SD][HV][PRO]_RTC\d\d_G_"
    r"(?P<radiometry>[gs])(?P<stored>[pad])(?P<water>[uw])(?P<filtered>[nf])[ec][dm]_[0-9A-F]{4})_"
    r"(?P<pol>VV|VH|HH|HV)\.tiff?",
    re.IGNORECASE,
)
_OPERA = re.compile(
    r"(?P<scene>OPERA_L2_RTC-S1_T(?P<track>\d{3})-\d{6}-(?P<mode>IW|EW)\d_(?P<time>\d{8}T\d{6})Z_\d{8}T\d{6}Z_"
    r"S1(?P<unit>[A-D])_\d+_v[\d.]+)_(?P<pol>VV|VH|HH|HV)\.tiff?",
    re.IGNORECASE,
)
_PYROSAR = re.compile(
    r"(?P<head>S1(?P<unit>[A-D])__(?P<mode>IW|EW|S\d)_+(?P<state>[AD])_(?P<time>\d{8}T\d{6})(?:_\w+?)?)_"
    r"(?P<pol>VV|VH|HH|HV)_(?P<steps>[\w-]+)\.tiff?",
    re.IGNORECASE,
)
_GRD = re.compile(
    r"S1(?P<unit>[A-D])_(?P<mode>IW|EW|S\d)_GRD[HMF]_1S(?:DV|DH|SV|SH)_(?P<time>\d{8}T\d{6})_\d{8}T\d{6}_"
    r"(?P<orbit>\d{6})_[0-9A-F]{6}",
    re.IGNORECASE,
)
_RAW = re.compile(r"s1[a-d]-(iw\d?|ew\d?|s\d)-(grd|slc)-(vv|vh|hh|hv)-", re.IGNORECASE)


@dataclass(frozen=True)
class RtcName:
    """What a name says; None or empty where it does not."""

    scene: str
    """Name of the scene: the file's without the polarisation."""
    polarisation: str
    """``VV``, ``VH``, ``HH`` or ``HV``."""
    time: str
    """Start of the acquisition, ISO 8601, UTC; with hours where ``clock``."""
    clock: bool
    """Whether the hour is known."""
    platform: str = ""
    """``SENTINEL-1A``."""
    mode: str = "IW"
    """Mode of the instrument."""
    stored: Stored | None = None
    """What the numbers are; None where the name does not say that they are gamma-0 and on which scale."""
    orbit_state: Direction | None = None
    """Direction of flight."""
    relative_orbit: int | None = None
    """Track, 1 to 175."""
    maker: str = ""
    """Whose convention it is."""
    note: str = ""
    """What a user should know of it, as a sentence."""


def read_name(path: str) -> RtcName | str | None:
    """Read the name of a GeoTIFF.

    Args:
        path: Path inside the folder, with ``/``: Planetary Computer's files are named by their folder.

    Returns:
        What it says; or the reason why such a file cannot be used; or None if it is no name of a radar band.
    """
    name = PurePosixPath(path).name
    if _RAW.match(name):
        return f"it is ground range or slant range data without terrain correction. {WAYS}"
    for pattern, read in ((_HYP3, _hyp3), (_OPERA, _opera), (_PYROSAR, _pyrosar)):
        found = pattern.fullmatch(name)
        if found:
            return read(found)
    polarisation = _POLARISATION.search(f"{PurePosixPath(name).stem}.")
    if polarisation is None or not name.lower().endswith((".tif", ".tiff")):
        return None
    granules = [match for part in reversed(PurePosixPath(path).parts) if (match := _GRD.search(part))]
    if granules:
        return _planetary(granules[0], name, polarisation[1])
    if re.search(r"\.rtc\.tiff?$", name, re.IGNORECASE):
        return "its name does not say when it was taken: keep it in the folder of its scene (S1A_IW_GRDH_...)"
    return _other(name, polarisation)


def solar_direction(time: str, longitude: float, latitude: float) -> Direction | None:
    """Direction of a Sentinel-1 pass by the sun: northward in the evening, southward in the morning.

    Sentinel-1 flies a dawn-dusk orbit whose ascending node is crossed at 18:00 local mean solar time (ESA, Sentinel-1
    mission); up to 70 degrees of latitude every ascending pass is in the local afternoon or evening.

    Args:
        time: ISO 8601, UTC.
        longitude: Of the scene's middle, degrees.
        latitude: Of the scene's middle, degrees.

    Returns:
        The direction, or None beyond 70 degrees.
    """
    if abs(latitude) > MOST_LATITUDE:
        return None
    moment = dt.datetime.fromisoformat(time)
    hour = (moment.hour + moment.minute / 60 + longitude / 15) % 24
    return "ascending" if hour >= 12 else "descending"


def track_of(unit: str, orbit: int) -> int | None:
    """Relative orbit of an absolute one; None for satellites whose count is not known here."""
    first = FIRST_ORBIT.get(unit.upper())
    return None if first is None else (orbit - first) % 175 + 1


def _hyp3(found: re.Match[str]) -> RtcName | str:
    if found["radiometry"].lower() == "s":
        return "it is sigma-0, and wetmap's radar is gamma-0: order it again with radiometry gamma0"
    scale: dict[str, Stored] = {"p": "power", "a": "amplitude", "d": "decibel"}
    notes = []
    if found["water"].lower() == "w":
        notes.append("its water is masked out, so open water will not be observed")
    if found["filtered"].lower() == "f":
        notes.append("its speckle was filtered before; set radar.speckle to none")
    name = _base(found, found["scene"], "ASF HyP3")
    return replace(name, stored=scale[found["stored"].lower()], note="; ".join(notes))


def _opera(found: re.Match[str]) -> RtcName:
    return replace(_base(found, found["scene"], "OPERA"), stored="power", relative_orbit=int(found["track"]))


def _pyrosar(found: re.Match[str]) -> RtcName | str:
    steps = found["steps"].lower()
    tokens = set(re.split(r"[_-]", steps))
    if tokens & {"sigma0", "beta0", "elp"}:
        return f"its steps ({steps}) do not make terrain-corrected gamma-0. {WAYS}"
    name = _base(found, f"{found['head']}_{found['steps']}", "pyroSAR")
    state: Direction = "ascending" if found["state"].upper() == "A" else "descending"
    corrected = bool(tokens & {"norm", "gamma0", "tf", "rtc"})
    stored: Stored = "decibel" if "db" in tokens else "power"
    return replace(name, orbit_state=state, stored=stored if corrected else None)


def _planetary(found: re.Match[str], name: str, polarisation: str) -> RtcName | str:
    if "rtc" not in name.lower() and "_rtc" not in found.string.lower():
        return f"it is ground range data without terrain correction. {WAYS}"
    base = _base(found, f"{found[0]}_rtc", "Planetary Computer", polarisation)
    return replace(base, stored="power", relative_orbit=track_of(found["unit"], int(found["orbit"])))


def _other(name: str, polarisation: re.Match[str]) -> RtcName | str | None:
    """Any other name with a polarisation and a date: the recipe must say what it does not."""
    when = re.search(r"(?<!\d)(\d{8})(?:T(\d{6}))?(?!\d)", name)
    if when is None:
        return None
    time = _time(f"{when[1]}T{when[2] or '000000'}")
    if time is None:
        return None
    unit = re.search(r"S1([A-D])", name, re.IGNORECASE)
    stem = name.rpartition(".")[0]
    return RtcName(
        scene=stem[: polarisation.start(1)] + stem[polarisation.end(1) :].removeprefix("_"),
        polarisation=polarisation[1].upper(),
        time=time,
        clock=when[2] is not None,
        platform=f"SENTINEL-1{unit[1].upper()}" if unit else "",
    )


def _base(found: re.Match[str], scene: str, maker: str, polarisation: str = "") -> RtcName:
    time = _time(found["time"])
    return RtcName(
        scene=scene,
        polarisation=(polarisation or found["pol"]).upper(),
        time=time or "",
        clock=True,
        platform=f"SENTINEL-1{found['unit'].upper()}",
        mode=found["mode"].upper(),
        maker=maker,
    )


def _time(text: str) -> str | None:
    try:
        return dt.datetime.strptime(f"{text}+0000", "%Y%m%dT%H%M%S%z").isoformat().replace("+00:00", "Z")
    except ValueError:
        return None
