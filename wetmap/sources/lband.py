"""The yearly L-band mosaic of ALOS PALSAR and PALSAR-2 (JAXA), from whatever archive: one year, its mask applied."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import WetmapWarning
from wetmap.geo import Aoi, Grid
from wetmap.recipe import Season, Sensor
from wetmap.sources.decode import PALSAR_CF_DB, STORED
from wetmap.sources.earthengine import EarthEngineArchive
from wetmap.sources.scene import Scene, Skipped
from wetmap.sources.stac import StacArchive

#: Name of the mosaic's mask among a scene's bands.
MASK = "mask"
#: Days within which any year's mosaic lies.
EVER = (dt.date(1990, 1, 1), dt.date(2100, 12, 31))


@dataclass(frozen=True)
class LbandArchive:
    """A catalogue of yearly mosaics. Holds addresses only."""

    catalogue: StacArchive | EarthEngineArchive
    """Where its tiles are searched and read."""

    def search(
        self, sensor: Sensor, aoi: Aoi, seasons: Sequence[Season], *, max_cloud_percent: float
    ) -> tuple[list[Scene], list[Skipped]]:
        """The tiles of the mosaic of one year, the one nearest the seasons; see ``Archive.search``.

        The years that are further away are not listed as left out. A warning says so where the year is no season's.
        """
        ever = Season(name="lband", start=EVER[0], end=EVER[1])
        found, skipped = self.catalogue.search(sensor, aoi, [ever], max_cloud_percent=max_cloud_percent)
        year, years = nearest_year(found, seasons)
        wanted = sorted({day.year for season in seasons for day in (season.start, season.end)})
        if year not in wanted:
            warnings.warn(
                f"L-band is of {year}: the mosaics over {aoi.name} are of {_listed(years)}, and the seasons of "
                f"{_listed(wanted)}.",
                WetmapWarning,
                stacklevel=2,
            )
        why = (
            f"Mosaic of {year}, the nearest to the seasons ({_listed(wanted)}) of {_listed(years)}. gamma-0 = "
            f"10 log10(DN^2) {PALSAR_CF_DB:g} dB; layover and shadow of its mask are out."
        )
        return [_described(scene, year, why) for scene in found if year_of(scene) == year], skipped

    def read(self, scene: Scene, names: Sequence[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        """Read polarisations as linear power; NaN where a pixel leans on layover or shadow; see ``Archive.read``."""
        masked = MASK in scene.bands
        values = self.catalogue.read(scene, [*names, MASK] if masked and MASK not in names else names, window)
        if not masked:
            return values
        good = values[MASK] == 1
        return {name: np.where(good, values[name], np.float32(np.nan)) for name in names if name in values}


def nearest_year(scenes: Sequence[Scene], seasons: Sequence[Season]) -> tuple[int, list[int]]:
    """The year whose middle is nearest the seasons' mean middle, of those with the most tiles; the earlier of two.

    Args:
        scenes: Tiles of any year.
        seasons: Seasons of the recipe.

    Returns:
        The year, and all years that are there.
    """
    tiles: dict[int, int] = {}
    for scene in scenes:
        tiles[year_of(scene)] = tiles.get(year_of(scene), 0) + 1
    middles = [(season.start.toordinal() + season.end.toordinal()) / 2 for season in seasons]
    aim = sum(middles) / len(middles)
    whole = [year for year, count in tiles.items() if count == max(tiles.values())]
    return min(whole, key=lambda year: (abs(dt.date(year, 7, 2).toordinal() - aim), year)), sorted(tiles)


def year_of(scene: Scene) -> int:
    """The mosaic's year. ``datetime`` of Planetary Computer's items may be the day on which the item was made."""
    return int(str(scene.item["properties"].get("start_datetime") or scene.datetime)[:4])


def _described(scene: Scene, year: int, why: str) -> Scene:
    kinds = {"HH": "palsar", "HV": "palsar", MASK: "palsar-mask"}
    assets: dict[str, Mapping[str, Any]] = {
        name: {**asset, STORED: kinds[name]} for name, asset in scene.item["assets"].items()
    }
    item = {**scene.item, "assets": assets}
    return replace(scene, datetime=f"{year}-01-01T00:00:00.000000Z", seasons=(), offset_rule=why, item=item)


def _listed(years: Sequence[int]) -> str:
    """``2007 to 2010, 2015``."""
    parts: list[str] = []
    for year in years:
        if parts and int(parts[-1].rpartition(" ")[2]) == year - 1:
            parts[-1] = f"{parts[-1].partition(' ')[0]} to {year}"
        else:
            parts.append(str(year))
    return ", ".join(parts)
