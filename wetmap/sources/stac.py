"""Scenes from a STAC catalogue: an API by name or URL, or a static catalogue on disk, over HTTP or on S3."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import SceneSkippedWarning, SourceError, WetmapWarning
from wetmap.geo import Aoi, Grid
from wetmap.recipe import Season, Sensor, StacSource
from wetmap.sources.decode import decoded
from wetmap.sources.duplicates import newest
from wetmap.sources.offset import band_metadata
from wetmap.sources.outlines import near, touches
from wetmap.sources.providers import (
    ASSETS,
    COLLECTIONS,
    PLANETARY_COMPUTER,
    TIMELESS,
    Provider,
    address_of,
    joined_radar,
    provider_of,
)
from wetmap.sources.reader import Floats, RasterBand, extent_on, read_onto, read_tile
from wetmap.sources.scene import EXTENT, PIXEL, WEIGHT, Scene, Skipped
from wetmap.sources.signing import SignerName
from wetmap.sources.stac_item import decide, in_season, is_item, slim, tidy, time_of
from wetmap.sources.stac_search import BROKEN, Api, Kept, Question, is_remote, is_static, read_static

__all__ = ["ASSETS", "COLLECTIONS", "PLANETARY_COMPUTER", "StacArchive"]

#: How links begin that lead to no file of this machine. GDAL's own ways into the network are not among them: some take
#: ``file://`` too.
ELSEWHERE = ("http://", "https://", "s3://")
#: Why something that a catalogue lists is not used.
NO_ITEM = "it is no STAC item: its id, its properties or its assets are missing"
#: A reason that more scenes share than this is told once, with their number.
TOLD_ONE_BY_ONE = 3


@dataclass(frozen=True)
class StacArchive:
    """A STAC catalogue and one of its collections. Holds addresses only."""

    catalog: str
    """URL of an API, or path of a static catalogue."""
    collection: str
    """Collection id."""
    simulated: bool = False
    """Whether it holds the simulated landscape."""
    saved: Path | None = None
    """Folder in which answers of a search are kept, month by month; None: they are not."""
    given: tuple[dict[str, Any], ...] | None = None
    """The items themselves, where nothing is to be asked for them."""
    moves_scenes: ClassVar[bool] = True
    """``read`` honours a scene's ``shift_m``: co-registration may correct."""

    @classmethod
    def of(cls, source: StacSource, sensor: Sensor, *, simulated: bool = False) -> StacArchive:
        """The archive that a recipe's source names."""
        provider = provider_of(source.catalog)
        return cls(
            catalog=address_of(source.catalog),
            collection=source.collection or provider.collections.get(sensor, ""),
            simulated=simulated,
        )

    @property
    def provider(self) -> Provider:
        """The archive's row in the table of providers."""
        return provider_of(self.catalog)

    def search(
        self, sensor: Sensor, aoi: Aoi, seasons: Sequence[Season], *, max_cloud_percent: float
    ) -> tuple[list[Scene], list[Skipped]]:
        """Find the scenes of one sensor; see ``Archive.search``."""
        self.refuse_collection(sensor)
        found = list(self._items(sensor, aoi, seasons))
        items = {str(item["id"]): item for item in found if is_item(item) and touches(item, aoi)}
        decided = [
            decide(item, sensor, seasons, self.provider, simulated=self.simulated)
            for item in sorted(items.values(), key=lambda item: (time_of(item), str(item["id"])))
        ]
        decided = [self._elsewhere(one) for one in decided]
        unfit = [one for one in decided if isinstance(one, Skipped)]
        unfit += [
            Skipped(str(item.get("id")), sensor, str(item.get(BROKEN, NO_ITEM))) for item in found if not is_item(item)
        ]
        scenes, old = newest([one for one in decided if isinstance(one, Scene)])
        clear, cloudy = _by_cloud(scenes, max_cloud_percent)
        self._warn(unfit)
        skipped = [*unfit, *old, *cloudy]
        self._refuse_none(clear, skipped, sensor, aoi, seasons)
        return clear, skipped

    def refuse_collection(self, sensor: Sensor) -> None:
        """Refuse a collection that is known not to hold a sensor's scenes; nothing is asked for it.

        Raises:
            SourceError: The archive has none for the sensor, or the one that is named cannot be used.
        """
        provider = self.provider
        wanted = provider.refused.get(self.collection)
        if self.collection and wanted is None:
            return
        what = f"{self.collection} of {provider.title} {wanted}" if wanted else f"{provider.title} has none"
        can = ", ".join(f"{name}: {held}" for name, held in provider.collections.items())
        other = joined_radar() if sensor == "radar" else f"Name another catalogue, or one of its own ({can})."
        raise SourceError(f"No {sensor} scenes can be taken from {provider.title}: {what}.", do=other)

    def read(self, scene: Scene, names: Sequence[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        """Read bands of one scene onto a window; see ``Archive.read``."""
        if scene.sensor == "terrain" and (PIXEL in names or (WEIGHT in names and near(scene.item, window))):
            return read_tile(*self._source(scene, "elevation"), names, window)
        held = [name for name in names if name in scene.bands or name == EXTENT]
        if not near(scene.item, window):
            return {name: np.full(window.shape, np.nan, dtype=np.float32) for name in held}
        return {name: self._read_band(scene, name, window) for name in held}

    def _read_band(self, scene: Scene, name: str, window: Grid) -> NDArray[np.float32]:
        if name == EXTENT:
            return extent_on(str(scene.item["assets"][scene.bands[0]]["href"]), window, scene.shift_m, self._signer)
        source, convert = self._source(scene, name)
        return read_onto(source, window, None if source.resampling == "nearest" else convert)

    def _source(self, scene: Scene, name: str) -> tuple[RasterBand, Callable[[Floats], Floats]]:
        """The file of a scene's band, and what makes its numbers the sensor's."""
        asset = scene.item["assets"][name]
        categorical = name == "SCL"
        nodata = band_metadata(asset).get("nodata")
        if scene.sensor == "optical":
            nodata = 0.0  # In L2A products a stored 0 is "no data", for reflectance and for SCL alike.
        source = RasterBand(
            href=str(asset["href"]),
            nodata=None if nodata is None else float(nodata),
            resampling="nearest" if categorical else "bilinear",
            shift_m=scene.shift_m,
            signer=self._signer,
        )
        scale, offset = scene.scale, scene.offset

        def convert(stored: Floats) -> Floats:
            values = stored * scale + offset
            # Border fill and calibration residue become NaN: power is positive.
            return decoded(values, asset) if scene.sensor in {"radar", "lband"} else values

        return source, convert

    def _elsewhere(self, one: Scene | Skipped) -> Scene | Skipped:
        """A scene, unless a catalogue of the network sends its reader to files of this machine."""
        if isinstance(one, Skipped) or not is_remote(self.catalog):
            return one
        links = [str(asset["href"]) for asset in one.item["assets"].values()]
        here = [link for link in links if not link.startswith(ELSEWHERE)]
        return Skipped(one.id, one.sensor, f"the catalogue is of the network, and {here[0]} is not") if here else one

    @property
    def _signer(self) -> SignerName:
        """Who signs its links, at the moment of reading: tokens last less than an hour, and none is written down."""
        return "planetary-computer" if self.catalog == PLANETARY_COMPUTER else ""

    def _items(self, sensor: Sensor, aoi: Aoi, seasons: Sequence[Season]) -> Iterator[dict[str, Any]]:
        wanted: Sequence[Season] = () if sensor in TIMELESS else seasons
        if self.given is not None or is_static(self.catalog):
            for item in self._static(sensor, aoi):
                time = time_of(item) if is_item(item) else ""
                if sensor in TIMELESS or not time or any(in_season(time, season) for season in seasons):
                    yield item
            return
        api = Api(self.catalog)
        for question in Question.each(self.catalog, self.collection, aoi, wanted):
            yield from self._answer(question, sensor, api.ask)

    def _static(self, sensor: Sensor, aoi: Aoi) -> Iterable[dict[str, Any]]:
        if self.given is not None:
            return self.given
        if not is_remote(self.catalog):
            return map(tidy, read_static(self.catalog, self.collection))
        whole = Question(self.catalog, self.collection, aoi.geometry.bounds, None)
        return self._answer(whole, sensor, lambda asked: list(read_static(asked.catalog, asked.collection)))

    def _answer(
        self, question: Question, sensor: Sensor, ask: Callable[[Question], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """The answer that was kept, or else a new one, kept the moment it is there."""
        kept = None if self.saved is None else Kept(self.saved, sensor)
        before = None if kept is None else kept.of(question)
        if before is not None:
            return before
        items = [slim(item, sensor, self.provider) for item in ask(question)]
        if kept is not None:
            kept.keep(question, items)
        return items

    @staticmethod
    def _warn(unfit: Sequence[Skipped]) -> None:
        """Say which scenes cannot be used and why; a reason that many share is said once."""
        by_reason: dict[str, list[Skipped]] = {}
        for row in unfit:
            by_reason.setdefault(row.reason, []).append(row)
        for reason, rows in by_reason.items():
            first = rows[0]
            texts = [f"{row.sensor} scene {row.id} is not used: {reason}." for row in rows]
            if len(rows) > TOLD_ONE_BY_ONE:
                texts = [f"{len(rows)} {first.sensor} scenes are not used, the first is {first.id}: {reason}."]
            for text in texts:
                warnings.warn(text, SceneSkippedWarning, stacklevel=4)

    def _refuse_none(
        self, scenes: Sequence[Scene], skipped: Sequence[Skipped], sensor: Sensor, aoi: Aoi, seasons: Sequence[Season]
    ) -> None:
        dates = "" if sensor in TIMELESS else f" between {_dates(seasons)}"
        if not scenes:
            left_out = f"; {len(skipped)} were left out, the first because of {skipped[0].reason}" if skipped else ""
            raise SourceError(
                f"No {sensor} scenes of {self.collection} in {self.catalog} cover {aoi.name}{dates}{left_out}.",
                do=_advice(sensor),
            )
        for season in seasons if sensor not in TIMELESS else ():
            if not any(season.name in scene.seasons for scene in scenes):
                warnings.warn(
                    f"No {sensor} scene covers {aoi.name} in season {season.name} ({season.start} to {season.end}): "
                    "it will be marked as not observed.",
                    WetmapWarning,
                    stacklevel=3,
                )


def _advice(sensor: Sensor) -> str:
    return {
        "optical": "Widen the season's dates, or raise optical.max_cloud_percent.",
        "radar": f"Widen the season's dates, or name another catalogue or collection for radar. {joined_radar()}",
        "terrain": "Name another catalogue or collection for terrain, or leave terrain features out.",
        "lband": "Name another catalogue or collection for lband, or leave features.lband out.",
    }[sensor]


def _dates(seasons: Sequence[Season]) -> str:
    return ", ".join(f"{season.start} and {season.end}" for season in seasons)


def _by_cloud(scenes: Sequence[Scene], most: float) -> tuple[list[Scene], list[Skipped]]:
    """Scenes with no more cloud than that, percent, and the others."""
    clear, cloudy = [], []
    for scene in scenes:
        cloud = scene.cloud_percent
        if cloud is None or cloud <= most:
            clear.append(scene)
        else:
            cloudy.append(Skipped(scene.id, scene.sensor, f"{cloud:.1f} % cloud, more than {most:g} %"))
    return clear, cloudy
