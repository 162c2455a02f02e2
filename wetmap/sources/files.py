"""Scenes from a folder of downloaded files: Sentinel-2 L2A products (SAFE folders or zips), Sentinel-1 RTC GeoTIFFs.

They are turned into STAC items and read by the code that reads catalogues. What cannot be used is named with its
reason; nothing is unpacked, and nothing outside the folder is opened.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from wetmap.errors import SceneSkippedWarning, SourceError, WetmapWarning
from wetmap.geo import Aoi, Grid
from wetmap.recipe import FilesSource, Season, Sensor
from wetmap.sources.folders import Store, stores_of
from wetmap.sources.rtc_item import rtc_item
from wetmap.sources.rtc_names import BESIDE, WAYS, RtcName, read_name
from wetmap.sources.safe import Json, MetadataError
from wetmap.sources.safe_item import product_item
from wetmap.sources.scene import Scene, Skipped
from wetmap.sources.stac import COLLECTIONS, StacArchive

#: Files that are named in one warning, at most.
MOST_NAMED = 5

#: How the names of a sensor's files begin, in capitals: a folder may hold those of both.
BEGINS: Mapping[str, str] = {"optical": r"S2[A-D]?_", "radar": r"S1[A-D]?_|OPERA_L2_RTC-S1|IW-"}

_RAW_S1 = f"it is Sentinel-1 {{}} data without terrain correction. {WAYS}"


@dataclass(frozen=True)
class FilesArchive:
    """A folder of downloaded files. Holds its path only."""

    source: FilesSource
    """The folder, and what its files' names do not say."""
    moves_scenes: ClassVar[bool] = True
    """``read`` honours a scene's ``shift_m``: co-registration may correct."""

    @classmethod
    def of(cls, source: FilesSource, sensor: Sensor) -> FilesArchive:
        """The archive that a recipe's source names.

        Raises:
            SourceError: The sensor is neither ``optical`` nor ``radar``.
        """
        if sensor not in {"optical", "radar"}:
            raise SourceError(
                f"sources.{sensor} is `from: files`, which reads Sentinel-2 and Sentinel-1 downloads.",
                do=f"Describe your own {sensor} files under `from: rasters`.",
            )
        return cls(source)

    def search(
        self, sensor: Sensor, aoi: Aoi, seasons: Sequence[Season], *, max_cloud_percent: float
    ) -> tuple[list[Scene], list[Skipped]]:
        """Find the scenes of one sensor; see ``Archive.search``.

        Raises:
            SourceError: The folder does not exist, holds nothing that can be used, or nothing over the area in time.
        """
        found = items_of(self.source, sensor)
        if not found.items:
            raise self._nothing(found, sensor)
        archive = StacArchive(str(self.source.folder), COLLECTIONS[sensor], given=tuple(found.items.values()))
        scenes, skipped = archive.search(sensor, aoi, seasons, max_cloud_percent=max_cloud_percent)
        return scenes, [*found.skipped, *skipped]

    def read(self, scene: Scene, names: Sequence[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        """Read bands of one scene onto a window; see ``Archive.read``."""
        return StacArchive(str(self.source.folder), COLLECTIONS[scene.sensor]).read(scene, names, window)

    def _nothing(self, found: Found, sensor: Sensor) -> SourceError:
        wanted = {"optical": "Sentinel-2 L2A products", "radar": "Sentinel-1 RTC GeoTIFFs"}.get(sensor, sensor)
        named = [row for row in found.skipped if re.match(BEGINS[sensor], PurePosixPath(row.id).name.upper())]
        first = next((f"; {row.id}: {row.reason}" for row in (*named, *found.skipped)), "")
        count = len(found.skipped)
        left_out = "1 file or product was" if count == 1 else f"{count} files and products were"
        return SourceError(
            f"The folder {self.source.folder} holds no {wanted} that can be used ({left_out} left out{first}).",
            do="See docs/sources/files.md for what can be read.",
        )


@dataclass
class Found:
    """What a folder holds for one sensor."""

    items: dict[str, Json] = field(default_factory=dict)
    """STAC items by id."""
    skipped: list[Skipped] = field(default_factory=list)
    """What was left out, and why."""


def items_of(source: FilesSource, sensor: Sensor) -> Found:
    """Turn the files of a folder into STAC items.

    Args:
        source: The folder, and what its files' names do not say.
        sensor: ``optical`` for Sentinel-2 products, ``radar`` for Sentinel-1 RTC; others find nothing.

    Returns:
        Items whose assets GDAL can open, and what was left out. A warning names each product that was left out, and
        one counts the files that are not understood.

    Raises:
        SourceError: The folder does not exist.
    """
    stores, left_out = stores_of(source.folder)
    found = Found()
    for name, reason in left_out:
        if _may_be(name, sensor):
            _leave_out(found, sensor, name, reason)
    unknown: list[str] = []
    for store in stores:
        roots = _roots(store.names)
        if sensor == "optical":
            for root, names in roots.items():
                _add_product(found, store, root, names)
        loose = [name for name in store.names if _under(name, roots) is None]
        if sensor == "radar":
            for root in roots:
                _refuse_raw(found, store, root)
            unknown += _add_rtc(found, store, loose, source)
        else:
            unknown += [store.shown(name) for name in loose if not BESIDE.search(name) and read_name(name) is None]
    _name_unknown(found, [name for name in unknown if _may_be(name, sensor)], sensor, source)
    return found


def _may_be(name: str, sensor: Sensor) -> bool:
    """Whether a file may be of a sensor, by its name alone; one that does not say may be of any."""
    last = PurePosixPath(name).name.upper()
    return not any(re.match(begins, last) for other, begins in BEGINS.items() if other != sensor)


def _roots(names: Sequence[str]) -> dict[str, list[str]]:
    """The products in SAFE format, by their folder (empty: all of it), and the files in each."""
    roots: set[str] = set()
    for name in names:
        path = PurePosixPath(name)
        safe = next((parent for parent in path.parents if parent.suffix.lower() == ".safe"), None)
        if safe is not None and not re.search(r"\.rtc\.tiff?$", name, re.IGNORECASE):
            roots.add(safe.as_posix())
        elif path.name in {"MTD_MSIL2A.xml", "MTD_MSIL1C.xml"}:
            roots.add("" if path.parent == PurePosixPath() else path.parent.as_posix())
    found: dict[str, list[str]] = {root: [] for root in sorted(roots)}
    for name in names:
        root = _under(name, found)
        if root is not None:
            found[root].append(name)
    return found


def _under(name: str, roots: Mapping[str, object]) -> str | None:
    """The product that a file belongs to."""
    return next((root for root in _folders(name) if root in roots), None)


def _folders(name: str) -> Iterator[str]:
    for parent in PurePosixPath(name).parents:
        yield "" if parent == PurePosixPath() else parent.as_posix()


def _leave_out(found: Found, sensor: Sensor, name: str, reason: str) -> None:
    warnings.warn(f"{sensor}: {name} is not used: {reason}.".replace("..", "."), SceneSkippedWarning, stacklevel=4)
    found.skipped.append(Skipped(name, sensor, reason))


def _name_unknown(found: Found, unknown: Sequence[str], sensor: Sensor, source: FilesSource) -> None:
    found.skipped += [Skipped(name, sensor, "it is no file that wetmap understands") for name in unknown]
    if unknown:
        rest = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        plural = "file is" if len(unknown) == 1 else "files are"
        warnings.warn(
            f"{len(unknown)} {plural} not understood in {source.folder}: {', '.join(unknown[:MOST_NAMED])}{rest}.",
            WetmapWarning,
            stacklevel=3,
        )


def _keep(found: Found, sensor: Sensor, item: Json, where: str) -> None:
    """Add an item, once: a product may lie there as a folder and as a zip."""
    if item["id"] in found.items:
        _leave_out(found, sensor, where, f"{item['id']} is there twice")
    else:
        found.items[item["id"]] = item


# Sentinel-2


def _add_product(found: Found, store: Store, root: str, names: Sequence[str]) -> None:
    where = store.shown(root) or store.path.name
    if PurePosixPath(where).name.upper().startswith("S1"):
        return
    try:
        _keep(found, "optical", product_item(store, root, names), where)
    except (MetadataError, OSError) as error:
        _leave_out(found, "optical", where, str(error))


# Sentinel-1


def _refuse_raw(found: Found, store: Store, root: str) -> None:
    where = store.shown(root) or store.path.name
    name = PurePosixPath(where).name.upper()
    if name.startswith("S1"):
        kind = next((kind for kind in ("GRD", "SLC", "OCN", "RAW") if f"_{kind}" in name), "level-1")
        _leave_out(found, "radar", where, _RAW_S1.format(kind))


def _add_rtc(found: Found, store: Store, names: Sequence[str], source: FilesSource) -> list[str]:
    """Add the GeoTIFFs of Sentinel-1, polarisations of one scene together; gives the names not understood."""
    unknown: list[str] = []
    scenes: dict[tuple[str, str], dict[str, tuple[str, RtcName]]] = {}
    for name in names:
        read = None if BESIDE.search(name) else read_name(f"{store.path.name}/{name}")
        if isinstance(read, RtcName):
            key = (PurePosixPath(name).parent.as_posix(), read.scene)
            scenes.setdefault(key, {})[read.polarisation] = (name, read)
        elif read is not None:
            _leave_out(found, "radar", store.shown(name), read)
        elif not BESIDE.search(name):
            unknown.append(store.shown(name))
    for members in scenes.values():
        first = next(iter(members.values()))[0]
        try:
            item = rtc_item(store, members, source)
        except (MetadataError, OSError, RasterioError) as error:
            _leave_out(found, "radar", store.shown(first), str(error))
        else:
            _keep(found, "radar", item, store.shown(first))
    return unknown
