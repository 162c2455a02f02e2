"""When the simulated satellites pass, and over what: dates, orbits, clouds of the day, extent of the archive."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from typing import Literal

from wetmap.geo.aoi import Aoi
from wetmap.geo.grid import Grid
from wetmap.recipe import Simulated
from wetmap.sources.noise import hash_key
from wetmap.sources.simulated_optical import OpticalPass, cloud_share, sun
from wetmap.sources.simulated_radar import RadarPass

#: Ground beyond the area that the archive covers, metres.
MARGIN_M = 500.0
#: The archive's edges are multiples of this, metres, so that pixels of 10, 20 and 30 m share them.
SNAP_M = 60.0
#: Local solar time of the passes, hours: Sentinel-2, Sentinel-1 ascending, descending.
SOLAR_HOUR = {"optical": 10.5, "ascending": 18.0, "descending": 6.0}
#: Tracks of the two orbit states.
RELATIVE_ORBIT = {"ascending": 62, "descending": 171}

OrbitState = Literal["ascending", "descending"]
ORBIT_STATES: tuple[OrbitState, ...] = ("ascending", "descending")


def archive_grid(aoi: Aoi) -> Grid:
    """The 10 m grid that the archive of an area covers: the area's UTM zone, a margin, edges on multiples of 60 m."""
    crs = aoi.utm_crs()
    left, bottom, right, top = aoi.bounds_in(crs)
    west, south = (math.floor((edge - MARGIN_M) / SNAP_M) for edge in (left, bottom))
    east, north = (math.ceil((edge + MARGIN_M) / SNAP_M) for edge in (right, top))
    per_snap = round(SNAP_M / 10)
    return Grid(crs, 10.0, west * SNAP_M, north * SNAP_M, (north - south) * per_snap, (east - west) * per_snap)


def optical_passes(aoi: Aoi, settings: Simulated) -> tuple[OpticalPass, ...]:
    """The optical overpasses, in order of time.

    What a pass looks like comes from the seed and its date. Which processing baseline it has (every second pass has
    the offset) and which passes the edge of the swath cuts (one in seven) go by its place in the list.
    """
    lon, lat = centre(aoi)
    passes = []
    for number, day in enumerate(_days(settings, 0, settings.optical_every_days)):
        when = _moment(day, SOLAR_HOUR["optical"], lon)
        elevation, azimuth = sun(lat, day.timetuple().tm_yday, SOLAR_HOUR["optical"])
        key = hash_key(settings.seed, "optical", day)
        passes.append(
            OpticalPass(
                when=when,
                cloud=cloud_share(settings.cloud_fraction, settings.seed, day),
                cirrus=key % 3 == 0,
                offset=number % 2 == 1,
                swath_edge=number % 7 == 2,
                sun_elevation=elevation,
                sun_azimuth=azimuth,
                key=key,
            )
        )
    return tuple(passes)


def radar_passes(aoi: Aoi, settings: Simulated, orbit_state: OrbitState) -> tuple[RadarPass, ...]:
    """The radar overpasses of one orbit state, in order of time; descending ones half a cycle after ascending ones."""
    lon, _ = centre(aoi)
    first = 0 if orbit_state == "ascending" else settings.radar_every_days // 2
    return tuple(
        RadarPass(
            when=_moment(day, SOLAR_HOUR[orbit_state], lon),
            orbit_state=orbit_state,
            relative_orbit=RELATIVE_ORBIT[orbit_state],
            short=number % 3 == 1,
            looks=settings.looks,
            key=hash_key(settings.seed, "radar", orbit_state, day),
        )
        for number, day in enumerate(_days(settings, first, settings.radar_every_days))
    )


def _days(settings: Simulated, first: int, every: int) -> Iterator[dt.date]:
    day = settings.start + dt.timedelta(days=first)
    while day <= settings.end:
        yield day
        day += dt.timedelta(days=every)


def _moment(day: dt.date, solar_hour: float, lon: float) -> dt.datetime:
    """UTC of a local solar time, whole seconds, on the same day UTC, so that dates are what the settings say."""
    hour = (solar_hour - lon / 15) % 24
    return dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(seconds=round(hour * 3600))


def centre(aoi: Aoi) -> tuple[float, float]:
    """(longitude, latitude) of the middle of the area's bounds, degrees."""
    west, south, east, north = aoi.geometry.bounds
    return (west + east) / 2, (south + north) / 2
