"""What every archive can do, and which archive a source of the recipe stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import SourceError
from wetmap.recipe import EarthEngineSource, FilesSource, RastersSource, Season, Sensor, SimulatedSource, StacSource
from wetmap.sources.scene import Scene, Skipped

if TYPE_CHECKING:
    from wetmap.geo import Aoi, Grid
    from wetmap.sources.earthengine import EarthEngineArchive
    from wetmap.sources.stac import StacArchive


class Archive(Protocol):
    """A place where scenes come from: addresses only, so that it can be sent to a worker, which opens files itself."""

    def search(
        self, sensor: Sensor, aoi: Aoi, seasons: Sequence[Season], *, max_cloud_percent: float
    ) -> tuple[list[Scene], list[Skipped]]:
        """Find the scenes of one sensor, once, when the run is planned.

        Args:
            sensor: The sensor.
            aoi: The area of interest; scenes that do not touch it are not returned.
            seasons: Time windows, first and last day included, UTC.
            max_cloud_percent: Optical scenes with more cloud are left out, percent.

        Returns:
            The scenes, ordered by time and name, and those left out with the reason.

        Raises:
            SourceError: The archive cannot be reached or read, or has no scene at all.
        """

    def read(self, scene: Scene, names: Sequence[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        """Read bands of one scene onto a window of the grid.

        What a pixel gets does not depend on the window that it is asked in, to the last bit.

        Args:
            scene: A scene that ``search`` returned.
            names: Bands by wetmap's names; those that the scene does not hold are left out of the answer. ``EXTENT``
                is always held: 1 where the scene's files have a pixel, observed or not, NaN beyond their edges.
                Elevation tiles may hold ``WEIGHT`` and ``SHARE``, with which ``elevation`` reaches up to one pixel of
                the tile beyond its edge (``sources.weighted``), and ``PIXEL``.
            window: The pixels wanted; they may lie outside the scene.

        Returns:
            Each band (height, width) float32, NaN where not observed. Optical bands: surface reflectance,
            dimensionless, negatives kept; radar: linear gamma-0 power; terrain: metres; SCL: the class number, NaN for
            class 0 too.

        Raises:
            SourceError: A file cannot be opened or read.
        """


def open_archive(
    source: StacSource | EarthEngineSource | SimulatedSource | RastersSource | FilesSource,
    sensor: Sensor,
    *,
    simulated_catalog: Path | None = None,
) -> Archive:
    """The archive that a source of the recipe stands for. Nothing is opened yet.

    Args:
        source: The part of the recipe that names the source.
        sensor: The sensor that is wanted from it.
        simulated_catalog: ``catalog.json`` of the simulated archive, for sources that say ``simulated``.

    Raises:
        SourceError: The source is simulated and there is no simulated archive.
    """
    if isinstance(source, EarthEngineSource):
        from wetmap.sources.earthengine import EarthEngineArchive

        return _yearly(EarthEngineArchive.of(source, sensor), sensor)
    if isinstance(source, FilesSource):
        from wetmap.sources.files import FilesArchive

        return FilesArchive.of(source, sensor)
    if isinstance(source, RastersSource):
        from wetmap.sources.rasters import RastersArchive

        return RastersArchive(tuple(source.files))
    from wetmap.sources.stac import StacArchive

    if isinstance(source, StacSource):
        return _yearly(StacArchive.of(source, sensor), sensor)
    if simulated_catalog is None:
        raise SourceError(
            f"The {sensor} source is simulated, and no simulated archive was written.",
            do="Run the recipe with `wetmap run`, which writes it first.",
        )
    return StacArchive.of(StacSource(catalog=str(simulated_catalog)), sensor, simulated=True)


def _yearly(catalogue: StacArchive | EarthEngineArchive, sensor: Sensor) -> Archive:
    """L-band is a mosaic of whole years, of which one is taken."""
    if sensor != "lband":
        return catalogue
    from wetmap.sources.lband import LbandArchive

    return LbandArchive(catalogue)


def keeping(archive: Archive, folder: Path) -> Archive:
    """The archive, made to keep the answers of its search in a folder, so that a search that was cut short goes on.

    Args:
        archive: Any archive; one that asks nobody over a network is given back as it is.
        folder: Made when there is something to keep.
    """
    from wetmap.sources.lband import LbandArchive
    from wetmap.sources.stac import StacArchive

    if isinstance(archive, LbandArchive) and isinstance(archive.catalogue, StacArchive):
        return replace(archive, catalogue=replace(archive.catalogue, saved=folder))
    return replace(archive, saved=folder) if isinstance(archive, StacArchive) else archive


def check_bands(scenes: Sequence[Scene], sensor: Sensor, names: Sequence[str]) -> None:
    """Refuse a plan in which a wanted band is in no scene at all.

    Raises:
        SourceError: Some of ``names`` are held by none of the scenes of the sensor.
    """
    held = {band for scene in scenes if scene.sensor == sensor for band in scene.bands}
    missing = [name for name in names if name not in held]
    if missing:
        raise SourceError(
            f"No {sensor} scene holds {', '.join(missing)}; the scenes hold {', '.join(sorted(held)) or 'nothing'}.",
            do=f"Take {', '.join(missing)} out of the recipe's features, or name another source for {sensor}.",
        )
