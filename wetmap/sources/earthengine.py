"""Scenes of Google Earth Engine, read one by one or composited there.

The plan freezes the scenes by asset id, and every composite is made of exactly these images: no filter is run again.
Differences to a STAC archive are in docs/sources/earth-engine.md.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import box, mapping

from wetmap.errors import SourceError, WetmapWarning
from wetmap.recipe import EarthEngineSource, Season, Sensor
from wetmap.sources import earthengine_images as images
from wetmap.sources.earthengine_client import Connection, list_images, pixels
from wetmap.sources.earthengine_images import Clearing, CloudRule, Pass, Smoothing
from wetmap.sources.earthengine_scenes import CLOUD_SCORE, COLLECTIONS, decide
from wetmap.sources.outlines import near, touches
from wetmap.sources.scene import EXTENT, Scene, Skipped

if TYPE_CHECKING:
    from wetmap.geo import Aoi, Grid

Values = dict[str, NDArray[np.float32]]
Counts = NDArray[np.uint16]

#: The elevation band of the Copernicus DEM.
ELEVATION = {"elevation": "DEM"}
#: Days beyond a season's end that the list is asked for: what an image's end is, is not the same in all collections.
#: Which images belong to the season is decided here, by their first moment.
AFTER_DAYS = 2


@dataclass(frozen=True)
class EarthEngineArchive:
    """Earth Engine and one of its collections. Holds addresses only."""

    connection: Connection
    """How to reach it."""
    collection: str
    """Asset id of the collection."""
    composites: bool
    """Whether composites are made there (``mode: server``)."""
    clouds: CloudRule = field(default_factory=CloudRule)
    """What optical pixels are masked by."""

    @property
    def moves_scenes(self) -> bool:
        """Whether co-registration may correct: composites of the service are made of scenes as they lie."""
        return not self.composites

    @classmethod
    def of(cls, source: EarthEngineSource, sensor: Sensor) -> EarthEngineArchive:
        """The archive that a recipe's source names."""
        return cls(
            connection=Connection.of(source),
            collection=COLLECTIONS[sensor],
            composites=source.mode == "server" and sensor in {"optical", "radar"},
            clouds=CloudRule(source.cloud_mask, source.least_clear),
        )

    def search(
        self, sensor: Sensor, aoi: Aoi, seasons: Sequence[Season], *, max_cloud_percent: float
    ) -> tuple[list[Scene], list[Skipped]]:
        """Find the scenes of one sensor; see ``Archive.search``."""
        scores = self._scores(aoi, seasons) if sensor == "optical" and self.clouds.mask != "scl" else None
        assets = {str(asset["name"]): asset for asset in self._listed(self.collection, sensor, aoi, seasons)}
        decided = [
            decide(asset, sensor, seasons, max_cloud_percent=max_cloud_percent, scores=scores)
            for asset in assets.values()
        ]
        scenes = [row for row in decided if isinstance(row, Scene) and touches(row.item, aoi)]
        skipped = [row for row in decided if isinstance(row, Skipped) and not row.reason.startswith("it begins")]
        self._refuse_none(scenes, skipped, sensor, aoi, seasons)
        return sorted(scenes, key=lambda scene: (scene.datetime, scene.id)), sorted(skipped, key=lambda row: row.id)

    def _scores(self, aoi: Aoi, seasons: Sequence[Season]) -> dict[str, str]:
        """Asset of Cloud Score+ by image name."""
        assets = [str(asset["name"]) for asset in self._listed(CLOUD_SCORE, "optical", aoi, seasons)]
        ids = [name.partition("/assets/")[2] for name in assets]
        return {asset.rpartition("/")[2]: asset for asset in ids}

    def _listed(self, collection: str, sensor: Sensor, aoi: Aoi, seasons: Sequence[Season]) -> list[dict[str, Any]]:
        region = mapping(box(*aoi.geometry.bounds))
        if sensor == "terrain":
            return list_images(self.connection, collection, region, "", "")
        found = []
        for season in seasons:
            after = season.end + dt.timedelta(days=AFTER_DAYS)
            found += list_images(self.connection, collection, region, f"{season.start}T00:00:00Z", f"{after}T00:00:00Z")
        return found

    def _refuse_none(
        self, scenes: Sequence[Scene], skipped: Sequence[Skipped], sensor: Sensor, aoi: Aoi, seasons: Sequence[Season]
    ) -> None:
        if not scenes:
            left_out = f"; {len(skipped)} were left out, the first because of {skipped[0].reason}" if skipped else ""
            dates = ", ".join(f"{season.start} to {season.end}" for season in seasons) if sensor != "terrain" else ""
            raise SourceError(
                f"No {sensor} images of {self.collection} cover {aoi.name}{f' ({dates})' if dates else ''}{left_out}.",
                do="Widen the season's dates, or name another source.",
            )
        for season in seasons if sensor in {"optical", "radar"} else ():
            if not any(season.name in scene.seasons for scene in scenes):
                warnings.warn(
                    f"No {sensor} scene covers {aoi.name} in season {season.name} ({season.start} to {season.end}): "
                    "it will be marked as not observed.",
                    WetmapWarning,
                    stacklevel=3,
                )

    def read(self, scene: Scene, names: Sequence[str], window: Grid) -> Values:
        """Read bands of one scene onto a window; see ``Archive.read``.

        Where an image ends cannot be told from where it has no data, so ``EXTENT`` is everywhere: the rim of a radar
        footprint is taken off at the ends of a data take too. (Slices of one take are put together before.)
        """
        held = [name for name in names if name in scene.bands]
        if not near(scene.item, window):
            return {name: np.full(window.shape, np.nan, dtype=np.float32) for name in names if name in (*held, EXTENT)}
        values: Values = {}
        if held:
            east, north = scene.shift_m
            moved = replace(window, left=window.left - east, top=window.top - north)
            values = pixels(self.connection, lambda: self._image(scene, held), held, moved, f"image {scene.id}")
        if EXTENT in names:
            values[EXTENT] = np.ones(window.shape, dtype=np.float32)
        return values

    def _image(self, scene: Scene, names: Sequence[str]) -> Any:
        if scene.sensor == "optical":
            return images.optical_image(scene, names, self.clouds)
        if scene.sensor == "radar":
            return images.radar_image(scene, names)
        if scene.sensor == "terrain":
            return images.plain_image(scene, ELEVATION, bilinear=True)
        if scene.sensor == "lband":
            return images.lband_image(scene, names)
        # A mean of unit vectors is none: each pixel gets the vector of the nearest.
        return images.plain_image(scene, {name: name for name in names}, bilinear=False)

    def optical_composite(
        self, passes: Sequence[Pass], names: Sequence[str], window: Grid, clearing: Clearing, percent: float
    ) -> tuple[Values, Counts]:
        """Composite of a season, made by the service.

        Args:
            passes: The season's overflights.
            names: Bands wanted, by wetmap's names.
            window: The pixels wanted.
            clearing: What is masked, and how far it is grown.
            percent: Percentile of the clear looks; 50 is the median.

        Returns:
            Each band (height, width) float32, surface reflectance, NaN where no look is clear; and the least number of
            clear looks behind any of them, (height, width) uint16.

        Raises:
            SourceError: The service does not compute it.
        """
        close = _close(passes, window)
        if not close:
            nothing = np.full(window.shape, np.nan, dtype=np.float32)
            return dict.fromkeys(names, nothing), np.zeros(window.shape, dtype=np.uint16)
        values = pixels(
            self.connection,
            lambda: images.optical_composite(close, names, self.clouds, clearing, percent),
            [*names, "clear_count"],
            window,
            f"the optical composite of {len(close)} passes",
        )
        count = np.nan_to_num(values.pop("clear_count"), nan=0.0)
        return values, count.astype(np.uint16)

    def radar_statistics(
        self,
        passes: Sequence[Pass],
        names: Sequence[str],
        window: Grid,
        smoothing: Smoothing,
        *,
        by_track: bool,
        spread: bool,
    ) -> Values:
        """Mean power of a season and its spread, computed by the service.

        Args:
            passes: The season's overflights of one orbit state.
            names: Polarisations wanted.
            window: The pixels wanted.
            smoothing: Rim and speckle filter.
            by_track: Whether every track counts the same in the mean; else every pass.
            spread: Whether the standard deviation is wanted too.

        Returns:
            By polarisation the mean sigma-0, linear power, and as ``<name>_std`` the standard deviation in dB;
            (height, width) float32, NaN where no pass saw the pixel.

        Raises:
            SourceError: The service does not compute it.
        """
        wanted = [*names, *(f"{name}_std" for name in names if spread)]
        tracks: dict[int | None, list[Pass]] = {}
        for scenes in _close(passes, window):
            tracks.setdefault(scenes[0].relative_orbit, []).append(scenes)
        if not tracks:
            return dict.fromkeys(wanted, np.full(window.shape, np.nan, dtype=np.float32))
        return pixels(
            self.connection,
            lambda: images.radar_statistics(list(tracks.values()), names, smoothing, by_track=by_track, spread=spread),
            wanted,
            window,
            f"the radar composite of {sum(len(group) for group in tracks.values())} passes",
        )


def _close(passes: Sequence[Pass], window: Grid) -> list[Pass]:
    """The passes with a scene near the window, without their scenes that are not."""
    kept = [tuple(scene for scene in scenes if near(scene.item, window)) for scenes in passes]
    return [scenes for scenes in kept if scenes]
