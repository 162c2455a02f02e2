"""STAC items of the simulated archive, modelled on those of Planetary Computer."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pystac
import shapely
from pyproj import CRS, Transformer
from shapely.geometry import Polygon, mapping

from wetmap.geo.grid import Grid
from wetmap.sources.simulated_optical import BANDS, FINE_BANDS, OpticalPass
from wetmap.sources.simulated_radar import NODATA, POLARISATIONS, RadarPass

#: Said in every item, file and layer of the archive.
SIMULATED_NOTE = "SIMULATED by wetmap: a made-up landscape, no observation of any real place."
OPTICAL, RADAR, TERRAIN = "sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30"
TITLES = {
    OPTICAL: "Sentinel-2-like surface reflectance (simulated)",
    RADAR: "Sentinel-1-like terrain-corrected gamma-0 (simulated)",
    TERRAIN: "Elevation model (simulated)",
}
EXTENSION = "https://stac-extensions.github.io"
EXTENSIONS = {
    OPTICAL: [
        f"{EXTENSION}/{name}/schema.json" for name in ("eo/v1.1.0", "sat/v1.0.0", "projection/v1.1.0", "raster/v1.1.0")
    ],
    RADAR: [
        f"{EXTENSION}/{name}/schema.json" for name in ("sar/v1.0.0", "sat/v1.0.0", "projection/v1.1.0", "raster/v1.1.0")
    ],
    TERRAIN: [f"{EXTENSION}/{name}/schema.json" for name in ("projection/v1.1.0", "raster/v1.1.0")],
}
#: Scale of the counts, and the offset of scenes that have one: told by each band's metadata.
SCALE, OFFSET = 0.0001, -0.1
#: Processing baselines that the scenes name: the first has the offset, the second has not.
BASELINES = ("05.00", "03.01")


def optical_item(
    item_id: str, grid: Grid, footprint: Polygon, when: OpticalPass, percents: dict[str, float]
) -> pystac.Item:
    """Item of an optical scene.

    Args:
        item_id: Id.
        grid: The scene's grid of 10 m; bands of 20 m cover the same.
        footprint: Where it has data, in the grid's CRS.
        when: The pass.
        percents: Measured shares for the properties (``eo:cloud_cover`` and others), percent.
    """
    baseline = BASELINES[0 if when.offset else 1]
    properties = {
        "platform": f"Sentinel-{when.platform[1:]}",
        "constellation": "Sentinel 2",
        "instruments": ["msi"],
        "sat:orbit_state": "descending",
        "sat:relative_orbit": 11,
        "s2:processing_baseline": baseline,
        "s2:product_type": "S2MSI2A",
        "s2:mean_solar_zenith": round(90 - when.sun_elevation, 6),
        "s2:mean_solar_azimuth": round(when.sun_azimuth, 6),
        **percents,
    }
    item = _item(item_id, OPTICAL, grid, footprint, when.when, properties)
    for band in BANDS:
        res_m = 10.0 if band in FINE_BANDS else 20.0
        extra = {
            "gsd": res_m,
            "eo:bands": [{"name": band}],
            "raster:bands": [
                {
                    "data_type": "uint16",
                    "nodata": 0,
                    "scale": SCALE,
                    "offset": OFFSET if when.offset else 0,
                    "spatial_resolution": res_m,
                }
            ],
        }
        _add_asset(item, band, f"{band}.tif", f"Band {band}, {res_m:g} m", _resampled(grid, res_m), extra)
    scl = {"gsd": 20.0, "raster:bands": [{"data_type": "uint8", "nodata": 0, "spatial_resolution": 20.0}]}
    _add_asset(item, "SCL", "SCL.tif", "Scene classification map (SCL)", _resampled(grid, 20.0), scl)
    return item


def radar_item(item_id: str, grid: Grid, footprint: Polygon, when: RadarPass) -> pystac.Item:
    """Item of a radar scene: id, the scene's grid, where it has data (in the grid's CRS), the pass."""
    properties = {
        "platform": "SENTINEL-1A",
        "constellation": "Sentinel-1",
        "sar:instrument_mode": "IW",
        "sar:frequency_band": "C",
        "sar:center_frequency": 5.405,
        "sar:product_type": "GRD",
        "sar:polarizations": list(POLARISATIONS),
        "sar:looks_equivalent_number": when.looks,
        "sar:observation_direction": "right",
        "sat:orbit_state": when.orbit_state,
        "sat:relative_orbit": when.relative_orbit,
    }
    item = _item(item_id, RADAR, grid, footprint, when.when, properties)
    for name in POLARISATIONS:
        extra = {"raster:bands": [{"data_type": "float32", "nodata": NODATA, "spatial_resolution": 10.0}]}
        title = f"{name}: gamma-0, linear power"
        _add_asset(item, name.lower(), f"{name.lower()}.tif", title, grid, extra)
    return item


def terrain_item(item_id: str, grid: Grid, footprint: Polygon) -> pystac.Item:
    """Item of a piece of the elevation model: id, its grid of 30 m, where it has data (in the grid's CRS)."""
    when = dt.datetime(2021, 4, 22, tzinfo=dt.UTC)  # the date that Planetary Computer gives its elevation model
    item = _item(item_id, TERRAIN, grid, footprint, when, {"platform": "TanDEM-X", "gsd": 30})
    extra = {"raster:bands": [{"data_type": "float32", "unit": "metre", "spatial_resolution": 30.0}]}
    _add_asset(item, "data", "data.tif", "Elevation, metres above sea level", grid, extra)
    return item


def catalog_of(items: dict[str, list[pystac.Item]]) -> pystac.Catalog:
    """Catalogue with a collection per sensor, of items by collection id."""
    catalog = pystac.Catalog("wetmap-simulated", SIMULATED_NOTE, title="SIMULATED archive")
    for name, members in items.items():
        times = sorted(item.datetime for item in members if item.datetime is not None)
        boxes = [item.bbox for item in members if item.bbox is not None]
        west, south, east, north = zip(*boxes, strict=True)
        extent = pystac.Extent(
            pystac.SpatialExtent([[min(west), min(south), max(east), max(north)]]),
            pystac.TemporalExtent([[times[0], times[-1]]]),
        )
        collection = pystac.Collection(
            name,
            SIMULATED_NOTE,
            extent,
            title=TITLES[name],
            license="other",
            extra_fields={"wetmap:simulated": True},
        )
        collection.add_items(members)
        catalog.add_child(collection)
    return catalog


def _item(
    item_id: str, collection: str, grid: Grid, footprint: Polygon, when: dt.datetime, properties: dict[str, Any]
) -> pystac.Item:
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    outline = shapely.segmentize(footprint, 2000.0)  # a straight line in UTM is a curve in degrees
    lon, lat = to_degrees.transform(*shapely.get_coordinates(outline).T)
    geometry = Polygon(np.round(np.column_stack([lon, lat]), 8))
    return pystac.Item(
        id=item_id,
        geometry=mapping(geometry),
        bbox=[round(value, 8) for value in geometry.bounds],
        datetime=when,
        properties={
            "description": SIMULATED_NOTE,
            "wetmap:simulated": True,
            "proj:epsg": CRS.from_user_input(grid.crs).to_epsg(),
            **_projection(grid),
            **properties,
        },
        stac_extensions=list(EXTENSIONS[collection]),
        collection=collection,
    )


def _projection(grid: Grid) -> dict[str, Any]:
    return {
        "proj:shape": list(grid.shape),
        "proj:transform": [grid.res_m, 0.0, grid.left, 0.0, -grid.res_m, grid.top],
        "proj:bbox": list(grid.bounds),
    }


def _add_asset(item: pystac.Item, key: str, href: str, title: str, grid: Grid, extra: dict[str, Any]) -> None:
    item.add_asset(
        key,
        pystac.Asset(
            href=f"./{href}",
            title=title,
            description=SIMULATED_NOTE,
            media_type=pystac.MediaType.COG,
            roles=["data"],
            extra_fields={**_projection(grid), **extra},
        ),
    )


def _resampled(grid: Grid, res_m: float) -> Grid:
    """The same ground in other pixels; the grid's sides are multiples of ``res_m``."""
    factor = round(res_m / grid.res_m)
    return Grid(grid.crs, res_m, grid.left, grid.top, grid.height // factor, grid.width // factor)
