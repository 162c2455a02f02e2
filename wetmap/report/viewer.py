"""The map on the page that can be moved: what it is made from, and the parts of the page it needs.

The page stays one file that asks no host for anything. Rasters travel in it as their own bytes, deflated and in base64,
and not as pictures: a browser may change the colours of a picture (colour management, protection against
fingerprinting), and codes of classes must arrive as they are. A large map is shown coarser than it is, and the page
says so.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from markupsafe import Markup
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from wetmap.classes import MEASURE_RAMP, MapClass
from wetmap.errors import WorkspaceError
from wetmap.report.picture import read_reduced

#: Longer side of the map of classes and of the first measure in the page, pixels, at most; and of further measures.
LONGEST_PX, FURTHER_PX = 2048, 1024
#: What the rasters and pictures of one page take at most, bytes in the page. A map that needs more is shown coarser.
MOST_BYTES = 16_000_000
#: Coarser than this nothing is made, whatever it takes: 16 such layers of noise are 6 MB.
LEAST_PX = 512
#: Stored value of a measure where nothing is known; the largest value stands for itself and all above it.
NOTHING, LARGEST = 255, 254
#: Opacity of the classes at first, percent. With less a class would have another colour on the map than in the legend,
#: and one for each ground below it; the background shows around the map and under classes that are switched off.
OPACITY = 100
#: Between the nodes of latitude and longitude positions are interpolated. The error is at most this share of a pixel of
#: the map, or this many metres where pixels are finer; nodes on a side at most.
LATTICE_SHARE, LATTICE_M, MOST_NODES = 0.2, 1.0, 65


@dataclass(frozen=True)
class MeasureLayer:
    """A measure that can be laid over the map, and is read at a click."""

    tif: Path
    """The raster, on the grid of the map."""
    title: str
    """What it is called."""
    unit: str = ""
    """Written after its values, with the space that belongs between."""
    low: float = 0.0
    """Value of the darkest colour, and the least there is."""
    high: float | None = 100.0
    """Value of the brightest colour; None: the largest there is."""
    band: int = 1
    """Band of the raster, from 1."""
    note: str = ""
    """What to know when looking at it, one sentence."""


@dataclass(frozen=True)
class Background:
    """A picture that the map lies on; it shows the whole grid."""

    title: str
    """What it is called."""
    jpeg: bytes
    """The picture."""


@dataclass(frozen=True)
class ViewerData:
    """Everything that the map on the page shows."""

    title: str
    """Name of the map."""
    classes_tif: Path
    """The map of classes."""
    classes: Sequence[MapClass]
    """Its classes, in the order of the legend."""
    measures: Sequence[MeasureLayer] = ()
    """Measures, the most important first."""
    backgrounds: Sequence[Background] = ()
    """Pictures below the map, the one that is shown at first first."""
    longest_px: int = LONGEST_PX
    """Longer side of the map in the page, pixels, at most."""


def viewer_view(data: ViewerData, *, simulated: bool = False) -> dict[str, Any]:
    """What ``viewer.html`` and the page around it show.

    Args:
        data: The map.
        simulated: True if any of it was made from simulated scenes: the map then says so itself, for it is what people
            take pictures of.

    Returns:
        For the page: ``css``, and ``script_hash`` for its Content-Security-Policy. For ``viewer.html``: the rest.

    Raises:
        WorkspaceError: A raster cannot be read.
    """
    script = _packaged("viewer_raster.js") + _packaged("viewer.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    frame, packed = _packed(data)
    raster = packed["raster"]
    pixel_m = frame.width * frame.res_m / raster["width"]
    return {
        "css": Markup(_packaged("viewer.css")),  # noqa: S704 - ours, and so is the script
        "script": Markup(script),  # noqa: S704
        "script_hash": f"sha256-{digest}",
        "data": as_script(packed),
        "label": f"Map of {data.title}{' (SIMULATED)' if simulated else ''}",
        "simulated": simulated,
        "classes": [{"code": row.code, "name": row.name, "colour": row.colour} for row in data.classes],
        "measures": [
            {**shown, "note": layer.note} for shown, layer in zip(packed["measures"], data.measures, strict=True)
        ],
        "backgrounds": packed["backgrounds"],
        "ramp": ", ".join(MEASURE_RAMP),
        "opacity": OPACITY,
        "fineness": _fineness(pixel_m, frame.res_m),
    }


def as_script(data: Any) -> Markup:
    """Data as JSON that may stand inside a script element: nothing in it ends the element or begins another."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


@dataclass(frozen=True)
class _Frame:
    """Where the map lies."""

    crs: CRS
    left: float
    top: float
    res_m: float
    height: int
    width: int

    @property
    def ground(self) -> dict[str, float]:
        """The same for the script, metres."""
        size = {"width": self.width * self.res_m, "height": self.height * self.res_m}
        return {"left": self.left, "top": self.top, **size}

    @property
    def crs_name(self) -> str:
        """The CRS, as short as can be."""
        code = self.crs.to_epsg()
        return f"EPSG:{code}" if code is not None else self.crs.name


def _frame(tif: Path) -> _Frame:
    try:
        with rasterio.open(tif) as raster:
            at = raster.transform
            crs = CRS.from_wkt(raster.crs.to_wkt())
            return _Frame(crs, float(at.c), float(at.f), float(at.a), raster.height, raster.width)
    except RasterioError as error:
        raise WorkspaceError(f"{tif} cannot be read ({error}).", do="Run `wetmap predict` again.") from error


def _packed(data: ViewerData) -> tuple[_Frame, dict[str, Any]]:
    """What the script is given, as fine as `MOST_BYTES` allow."""
    frame = _frame(data.classes_tif)
    backgrounds = [
        {"id": f"background-{number}", "title": row.title, "source": _data_url(row.jpeg)}
        for number, row in enumerate(data.backgrounds)
    ]
    left = MOST_BYTES - sum(len(row["source"]) for row in backgrounds)
    longest = min(data.longest_px, max(frame.height, frame.width))
    while True:
        raster = _raster(data, longest)
        measures = [
            _measure(layer, number, longest if number == 0 else min(longest, FURTHER_PX))
            for number, layer in enumerate(data.measures)
        ]
        taken = sum(len(row["codes"]) for row in (raster, *measures))
        if taken <= left or longest <= LEAST_PX:
            break
        longest = max(longest // 2, LEAST_PX)
    return frame, {
        "ground": frame.ground,
        "map_pixel_m": frame.res_m,
        "crs": frame.crs_name,
        "lattice": _lattice(frame),
        "ramp": MEASURE_RAMP,
        "classes": [{"code": row.code, "name": row.name, "colour": row.colour} for row in data.classes],
        "raster": raster,
        "measures": measures,
        "backgrounds": backgrounds,
    }


def _raster(data: ViewerData, longest_px: int) -> dict[str, Any]:
    """The map of classes: codes, 0 where there is none; a coarser pixel has its commonest class."""
    pixels, _ = read_reduced(data.classes_tif, longest_px, Resampling.mode)
    known = np.zeros(256, dtype=np.bool_)
    known[[row.code for row in data.classes]] = True
    codes = pixels.filled(0).astype(np.uint8)
    return _deflated(np.where(known[codes], codes, np.uint8(0)))


def _measure(layer: MeasureLayer, number: int, longest_px: int) -> dict[str, Any]:
    """A measure in 255 steps, or in its own where it has no more."""
    pixels, _ = read_reduced(layer.tif, longest_px, Resampling.average, band=layer.band)
    known = ~np.ma.getmaskarray(pixels) & np.isfinite(pixels.filled(np.nan))
    values = np.where(known, pixels.filled(layer.low), layer.low).astype(np.float64)
    most = float(values.max(initial=layer.low))
    high = max(most, layer.low + 1.0) if layer.high is None else layer.high
    step = 1.0 if high - layer.low <= LARGEST else (high - layer.low) / LARGEST
    if high - layer.low < 10:  # a share, or a few looks: whole steps are too coarse
        step = (high - layer.low) / 200
    codes = np.clip(np.rint((values - layer.low) / step), 0, LARGEST)
    return {
        "id": f"measure-{number}",
        "title": layer.title,
        "unit": layer.unit,
        "low": layer.low,
        "high": high,
        "offset": layer.low,
        "step": step,
        "decimals": max(0, math.ceil(-math.log10(step))),
        "clipped": bool(most > layer.low + LARGEST * step),
        **_deflated(np.where(known, codes, NOTHING).astype(np.uint8)),
    }


def _deflated(codes: NDArray[np.uint8]) -> dict[str, Any]:
    """A raster (y, x), row after row, deflated (RFC 1950) and in base64."""
    # one step below the strongest: half the time for four percent more
    text = base64.b64encode(zlib.compress(np.ascontiguousarray(codes).tobytes(), 8)).decode("ascii")
    return {"width": codes.shape[1], "height": codes.shape[0], "codes": text}


def _data_url(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _lattice(frame: _Frame) -> dict[str, Any] | None:
    """Longitude and latitude (WGS 84) at nodes over the map, as many as interpolation needs; None where it has none."""
    limit_m = max(LATTICE_M, LATTICE_SHARE * frame.res_m)
    nodes = 3
    while True:
        lon, lat = _degrees(frame, nodes)
        finer = _degrees(frame, 2 * nodes - 1)
        if not np.isfinite(finer).all():
            return None
        if nodes >= MOST_NODES or _off_m((lon, lat), finer) <= limit_m:
            break
        nodes = 2 * nodes - 1
    # seven decimals of a degree are a centimetre
    listed = [np.round(values, 7).ravel().tolist() for values in (lon, lat)]
    return {"rows": nodes, "cols": nodes, "lon": listed[0], "lat": listed[1]}


def _degrees(frame: _Frame, nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude, (nodes, nodes) each, from the upper left corner of the map to the lower right."""
    ground, share = frame.ground, np.linspace(0, 1, nodes)
    x, y = np.meshgrid(ground["left"] + share * ground["width"], ground["top"] - share * ground["height"])
    lon, lat = Transformer.from_crs(frame.crs, "EPSG:4326", always_xy=True).transform(x, y)
    # across the date line longitudes go on growing; the script brings them back
    return np.unwrap(np.unwrap(lon, period=360, axis=0), period=360, axis=1), np.asarray(lat)


def _off_m(
    coarse: tuple[NDArray[np.float64], NDArray[np.float64]], finer: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> float:
    """How far interpolation halfway between nodes misses, metres, at most; a degree is 111 320 m at the equator."""
    worst = 0.0
    for values, truth in zip(coarse, finer, strict=True):
        between = np.empty_like(truth)
        between[::2, ::2] = values
        between[1::2, ::2] = (values[:-1] + values[1:]) / 2
        between[:, 1::2] = (between[:, :-1:2] + between[:, 2::2]) / 2
        worst = max(worst, float(np.abs(between - truth).max()))
    return worst * 111_320


def _fineness(pixel_m: float, res_m: float) -> str:
    """How fine the map on the page is, in words."""
    if pixel_m <= res_m * 1.001:
        return f"Every pixel of the map is here ({res_m:g} m)."
    shown = f"{pixel_m:.0f}" if pixel_m >= 10 else f"{pixel_m:.1f}"
    return (
        f"This picture is coarser than the map: one of its pixels is {shown} m wide, one of the map is {res_m:g} m. It "
        "shows the commonest class and the mean of a measure."
    )


def _packaged(name: str) -> str:
    return (files("wetmap") / "report" / name).read_text(encoding="utf-8")
