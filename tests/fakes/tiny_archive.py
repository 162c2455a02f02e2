"""A tiny archive of Sentinel-like scenes with traps, as files and STAC items for an API or a static catalogue.

About 0.8 x 0.8 km in UTM 19N. Traps: an offset in one baseline and not in another, a cloud with its shadow, the swath's
edge, a dark pixel, radar borders with noise, a radar pass cut into two items, elevation in degrees.
"""

from __future__ import annotations

import copy
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import MultiPolygon, box, mapping

from wetmap.geo import Aoi, Grid
from wetmap.recipe import Season

CRS = "EPSG:32619"
LEFT, TOP, SIDE = 700000.0, 5010000.0, 84
#: The map: inside the scenes, so that margins have something to read.
GRID = Grid(CRS, 10.0, LEFT + 100, TOP - 120, 61, 57)
SEASON = Season(name="summer", start=dt.date(2021, 6, 1), end=dt.date(2021, 9, 30))
FINE, COARSE = ("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12")
Json = dict[str, Any]


def aoi() -> Aoi:
    """The grid's rectangle, drawn in by a few metres so that the grid made from it is GRID's."""
    left, bottom, right, top = GRID.bounds
    return Aoi("tiny", MultiPolygon([lonlat(left + 3, bottom + 3, right - 3, top - 3)]))


def lonlat(left: float, bottom: float, right: float, top: float) -> Any:
    to_degrees = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    ring = [to_degrees.transform(x, y) for x, y in ((left, bottom), (right, bottom), (right, top), (left, top))]
    from shapely.geometry import Polygon

    return Polygon(ring)


def write_raster(
    path: Path, bands: NDArray[Any], transform: Affine, *, crs: str = CRS, nodata: float | None = None
) -> Path:
    """A small tiled GeoTIFF of (band, y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = bands if bands.ndim == 3 else bands[np.newaxis]
    profile = {
        "driver": "GTiff",
        "count": layers.shape[0],
        "height": layers.shape[1],
        "width": layers.shape[2],
        "dtype": str(layers.dtype),
        "crs": crs,
        "transform": transform,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": 16,
        "blockysize": 16,
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(layers)
    return path


def write_files(folder: Path) -> list[Json]:
    """Write the scenes; gives their STAC items, asset links relative to ``folder``."""
    items = [
        optical(folder, "S2A_20210610", "2021-06-10T15:10:00Z", "05.00", seed=1),
        optical(folder, "S2B_20210715", "2021-07-15T15:10:00Z", "03.01", seed=2),
        optical(folder, "S2A_20210820", "2021-08-20T15:10:00Z", "05.09", seed=3),
        optical(folder, "S2A_20210901", "2021-09-01T15:10:00Z", "05.09", seed=4, cloud_percent=95.0),
        optical(folder, "S2A_20211020", "2021-10-20T15:10:00Z", "05.09", seed=5),
        terrain(folder),
    ]
    for number, (day, state, track) in enumerate(
        [("06-12", "ascending", 62), ("07-06", "ascending", 62), ("06-15", "descending", 171)]
    ):
        items += radar(folder, f"2021-{day}", state, track, seed=10 + number, cut=number == 0)
    return items


def optical(folder: Path, name: str, when: str, baseline: str, *, seed: int, cloud_percent: float = 20.0) -> Json:
    rng = np.random.default_rng(seed)
    added = 1000 if float(baseline) >= 4 else 0
    ground = reflectance()
    assets = {}
    for band in (*FINE, *COARSE):
        res = 10 if band in FINE else 20
        truth = ground[band][:: res // 10, :: res // 10] + rng.normal(0, 0.002, (SIDE * 10 // res,) * 2)
        counts = np.clip(np.rint(truth * 10000 + added), 1, 65535).astype(np.uint16)
        if seed == 2:
            counts[:, -70 // (res // 10) :][:, : 20 // (res // 10)] = 0  # a gap: no data
        assets[band] = asset(write_raster(folder / name / f"{band}.tif", counts, at(res)), folder)
    scl = np.full((SIDE // 2, SIDE // 2), 4, dtype=np.uint8)
    scl[30:34, 4:9], scl[35:38, 8:12] = 9, 3
    if seed == 1:
        scl[12:15, 12:15] = 6
    if seed == 2:
        scl[:, 7:17] = 0
    assets["SCL"] = asset(write_raster(folder / name / "SCL.tif", scl, at(20)), folder)
    properties = {
        "platform": f"Sentinel-{name[1:3]}",
        "eo:cloud_cover": cloud_percent,
        "s2:processing_baseline": baseline,
        "sat:orbit_state": "descending",
        "sat:relative_orbit": 11,
    }
    return item(name, "sentinel-2-l2a", when, properties, assets, box(LEFT, TOP - 840, LEFT + 840, TOP))


def reflectance() -> dict[str, NDArray[np.float64]]:
    """What the optical scenes show, before noise: smooth, with one very dark pond."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    bands = {}
    for number, band in enumerate((*FINE, *COARSE)):
        value = 0.05 + 0.02 * number + 0.02 * np.sin(x / 7 + number) * np.cos(y / 9)
        value[20:30, 40:52] = 0.003 if band != "B02" else -0.004
        bands[band] = value
    return bands


def radar(folder: Path, day: str, state: str, track: int, *, seed: int, cut: bool) -> list[Json]:
    rng = np.random.default_rng(seed)
    powers = {}
    for name, mean in (("vv", 0.1), ("vh", 0.02)):
        power = (mean * rng.gamma(4.4, 1 / 4.4, (SIDE, SIDE))).astype(np.float32)
        if state == "descending":
            power[:, :14] = np.float32(1e-5)  # border noise: looks like backscatter, is none
            power[:, :12] = 0.0
        power[50, 50] = -32768.0
        powers[name] = power
    pieces = [slice(0, 40), slice(40, SIDE)] if cut else [slice(0, SIDE)]
    items = []
    for number, rows in enumerate(pieces):
        item_id = f"S1A_{day}_{state}_{number}"
        transform = Affine(10, 0, LEFT, 0, -10, TOP - 10 * rows.start)
        assets = {
            name: asset(
                write_raster(folder / item_id / f"{name}.tif", power[rows], transform, nodata=-32768.0),
                folder,
                {"raster:bands": [{"nodata": -32768, "data_type": "float32"}]},
            )
            for name, power in powers.items()
        }
        properties = {
            "platform": "SENTINEL-1A",
            "sat:orbit_state": state,
            "sat:relative_orbit": track,
            "sar:instrument_mode": "IW",
        }
        footprint = box(LEFT, TOP - 10 * rows.stop, LEFT + 840, TOP - 10 * rows.start)
        items.append(item(item_id, "sentinel-1-rtc", f"{day}T22:30:{number:02d}Z", properties, assets, footprint))
    return items


def terrain(folder: Path) -> Json:
    """Degrees, one second: a plane that rises to the east, with a bump."""
    west, south, east, north = lonlat(LEFT - 4000, TOP - 4900, LEFT + 4900, TOP + 4000).bounds
    step = 1 / 3600
    height, width = int((north - south) / step), int((east - west) / step)
    y, x = np.mgrid[0:height, 0:width]
    elevation = 20 + 0.3 * x + 5 * np.exp(-((x - width / 2) ** 2 + (y - height / 2) ** 2) / 200)
    transform = Affine(step, 0, west, 0, -step, north)
    path = write_raster(folder / "dem" / "dem.tif", elevation.astype(np.float32), transform, crs="EPSG:4326")
    assets = {"data": asset(path, folder)}
    footprint = box(LEFT - 4000, TOP - 4900, LEFT + 4900, TOP + 4000)
    return item("dem_1", "cop-dem-glo-30", "2021-04-22T00:00:00Z", {"platform": "TanDEM-X"}, assets, footprint)


def at(res: float) -> Affine:
    return Affine(res, 0, LEFT, 0, -res, TOP)


def asset(path: Path, folder: Path, extra: Json | None = None) -> Json:
    kind = "image/tiff; application=geotiff; profile=cloud-optimized"
    return {"href": path.relative_to(folder).as_posix(), "type": kind, "roles": ["data"], **(extra or {})}


def item(name: str, collection: str, when: str, properties: Json, assets: Json, footprint: Any) -> Json:
    geometry = lonlat(*footprint.bounds)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": collection,
        "geometry": mapping(geometry),
        "bbox": list(geometry.bounds),
        "properties": {"datetime": when, **properties},
        "assets": assets,
        "links": [],
    }


def collections(items: list[Json]) -> list[Json]:
    """The items' collections."""
    return [
        {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "other",
            "extent": {
                "spatial": {"bbox": [[-180, -90, 180, 90]]},
                "temporal": {"interval": [["2015-01-01T00:00:00Z", None]]},
            },
            "links": [],
        }
        for name in sorted({item["collection"] for item in items})
    ]


def link_to(items: list[Json], base: str) -> list[Json]:
    """The items with every link put behind ``base``."""
    linked = copy.deepcopy(items)
    for one in linked:
        for body in one["assets"].values():
            body["href"] = f"{base}/{body['href']}"
    return linked


def write_catalog(folder: Path, items: list[Json]) -> Path:
    """A static catalogue of the items under ``folder``, where their files lie; gives the path of its catalog.json."""
    root = pystac.Catalog("tiny", "tiny scenes")
    members = {body["id"]: pystac.Collection.from_dict(body) for body in collections(items)}
    for one in link_to(items, str(folder)):
        members[one["collection"]].add_item(pystac.Item.from_dict(one))
    root.add_children(members.values())
    root.normalize_hrefs(str(folder / "stac"))
    root.make_all_asset_hrefs_relative()
    root.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return folder / "stac" / "catalog.json"
