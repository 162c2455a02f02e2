"""Scenes from your own GeoTIFFs: on any grid, in any CRS, with the units that the recipe states."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from wetmap.errors import MissingSourceError, PartialCoverWarning, RecipeError, SourceError
from wetmap.geo import Aoi, Grid
from wetmap.imagery.radar import from_db
from wetmap.recipe import RasterFile, Season, Sensor
from wetmap.sources.reader import RasterBand, extent_on, read_onto, read_tile
from wetmap.sources.scene import EXTENT, PIXEL, WEIGHT, Scene, Skipped
from wetmap.sources.trouble import local_trouble

#: Units in which a file of each sensor may be.
UNITS: Mapping[Sensor, tuple[str, ...]] = {
    "optical": ("reflectance",),
    "radar": ("gamma0", "gamma0_db"),
    "terrain": ("m",),
    "lband": ("gamma0", "gamma0_db"),
}
#: Where the middle value of a band lies in any real scene, in its unit: surface reflectance from open water at noise
#: level to fresh snow, backscatter from calm water to a city, land from the Dead Sea to Everest. Beyond, the unit,
#: scale or offset is wrong.
PLAUSIBLE: Mapping[str, tuple[float, float]] = {
    "reflectance": (-0.03, 1.5),
    "gamma0": (1e-4, 10.0),
    "gamma0_db": (-40.0, 10.0),
    "m": (-450.0, 8900.0),
}
#: A share left out that prints as "covers 100.0 %" is the rounding of coordinates, not a gap.
WHOLE = 5e-4
#: Side to which a band is thinned for that look, pixels.
LOOK_PX = 256
#: Bands that hold classes: nearest neighbour, no scale.
CATEGORICAL = ("SCL",)
#: Name of a band that is not used.
UNUSED = "-"


@dataclass(frozen=True)
class RastersArchive:
    """The user's own files of one sensor. Holds paths only."""

    files: tuple[RasterFile, ...]
    """The files, as the recipe describes them."""

    def search(
        self,
        sensor: Sensor,
        aoi: Aoi,
        seasons: Sequence[Season],
        *,
        max_cloud_percent: float,  # noqa: ARG002 - part of the protocol; a file does not say how cloudy it is
    ) -> tuple[list[Scene], list[Skipped]]:
        """One scene per file; see ``Archive.search``.

        Raises:
            SourceError: A file is missing or unreadable, has no CRS, another number of bands than named, or does not
                cover the area at all.
            RecipeError: A file's unit is not one of its sensor's, its values cannot be in that unit, or its season is
                not one of the recipe's.
        """
        names = [season.name for season in seasons]
        scenes = []
        for number, file in enumerate(self.files):
            _refuse_unit(file, sensor)
            if file.season is not None and file.season not in names:
                raise RecipeError(
                    f"{file.path} belongs to season {file.season}, and the recipe has {', '.join(names)}.",
                    do="Mend the file's `season`, or leave it out for every season.",
                )
            _check_file(file, aoi)
            scenes.append(_scene(file, number, sensor, names))
        return scenes, []

    def read(self, scene: Scene, names: Sequence[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        """Read bands of one file onto a window; see ``Archive.read``."""
        item = scene.item
        if scene.sensor == "terrain" and (WEIGHT in names or PIXEL in names):
            tile = RasterBand(item["path"], band=item["bands"].index("elevation") + 1, nodata=item["nodata"])
            return read_tile(tile, _converter(scene), names, window)
        bands = {}
        for name in names:
            if name == EXTENT:
                bands[name] = extent_on(item["path"], window)
            elif name in scene.bands:
                categorical = name in CATEGORICAL
                source = RasterBand(
                    href=item["path"],
                    band=item["bands"].index(name) + 1,
                    nodata=0.0 if categorical else item["nodata"],
                    resampling="nearest" if categorical else "bilinear",
                )
                bands[name] = read_onto(source, window, None if categorical else _converter(scene))
        return bands


def _converter(scene: Scene) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    unit = scene.item["unit"]

    def convert(stored: NDArray[np.float64]) -> NDArray[np.float64]:
        values = stored * scene.scale + scene.offset
        if unit == "gamma0_db":
            values = from_db(values)
        if scene.sensor in {"radar", "lband"}:
            values[~(values > 0)] = np.nan
        return values

    return convert


def _scene(file: RasterFile, number: int, sensor: Sensor, seasons: Sequence[str]) -> Scene:
    used = tuple(band for band in file.bands if band != UNUSED)
    which = tuple(seasons) if file.season is None else (file.season,)
    return Scene(
        id=f"{number + 1}-{file.path.stem}",
        sensor=sensor,
        datetime="",
        orbit_state=file.orbit_state,
        seasons=() if sensor in {"terrain", "lband"} else which,
        bands=used,
        scale=file.scale,
        offset=file.offset,
        offset_rule=f"The recipe says scale {file.scale:g}, offset {file.offset:g}, unit {file.unit}.",
        item={"path": str(file.path), "bands": list(file.bands), "unit": file.unit, "nodata": file.nodata},
    )


def _refuse_unit(file: RasterFile, sensor: Sensor) -> None:
    if file.unit not in UNITS[sensor]:
        raise RecipeError(
            f"{file.path} is in unit {file.unit}, and {sensor} needs {' or '.join(UNITS[sensor])}.",
            do="Mend the file's `unit`, or put it under the sensor that it belongs to.",
        )


def _check_file(file: RasterFile, aoi: Aoi) -> None:
    if not file.path.is_file():
        raise MissingSourceError(f"The raster {file.path} does not exist.", do="Mend its `path` in the recipe.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said below, in words
            with rasterio.open(file.path) as dataset:
                _check_dataset(dataset, file)
                _check_cover(dataset, file, aoi)
                _check_values(dataset, file)
    except (RasterioError, OSError) as error:
        raise SourceError(
            f"The raster {file.path} cannot be read ({local_trouble(error, str(file.path))}).",
            do="Open it in QGIS and export it as GeoTIFF.",
        ) from error


def _check_dataset(dataset: Any, file: RasterFile) -> None:
    if dataset.crs is None or dataset.transform.is_identity:
        what = "CRS" if dataset.crs is None else "place on the ground (no transform)"
        raise SourceError(
            f"The raster {file.path} has no {what}.",
            do="Set it in QGIS (Layer > Set CRS, or Georeferencer) and save it.",
        )
    if dataset.count != len(file.bands):
        plural = "band" if dataset.count == 1 else "bands"
        raise SourceError(
            f"The raster {file.path} has {dataset.count} {plural}, and the recipe names {len(file.bands)} "
            f"({', '.join(file.bands)}).",
            do="Name every band in file order, with `-` for those that are not used.",
        )


def _check_values(dataset: Any, file: RasterFile) -> None:
    """Refuse a band whose values cannot be in the unit that the recipe states: a scale or an offset left out."""
    low, high = PLAUSIBLE[file.unit]
    shape = min(dataset.height, LOOK_PX), min(dataset.width, LOOK_PX)
    for number, name in enumerate(file.bands, start=1):
        if name == UNUSED or name in CATEGORICAL:
            continue
        stored = dataset.read(number, out_shape=shape, masked=True).astype(np.float64).filled(np.nan)
        seen = stored[np.isfinite(stored) & (stored != (np.nan if file.nodata is None else file.nodata))]
        if not seen.size:
            continue
        middle = float(np.median(seen)) * file.scale + file.offset
        if not low <= middle <= high:
            raise RecipeError(
                f"{file.path} band {name} has a middle value of {middle:.4g} in {file.unit} (scale {file.scale:g}, "
                f"offset {file.offset:g}), and in real scenes that lies between {low:g} and {high:g}.",
                do="Mend the file's `unit`, `scale`, `offset` or `nodata`.",
            )


def _check_cover(dataset: Any, file: RasterFile, aoi: Aoi) -> None:
    corners = ((0, 0), (dataset.width, 0), (dataset.width, dataset.height), (0, dataset.height))
    a = dataset.transform
    footprint = shapely.Polygon([(a.a * col + a.b * row + a.c, a.d * col + a.e * row + a.f) for col, row in corners])
    area = aoi.geometry_in(dataset.crs.to_wkt())
    covered = shapely.intersection(area, footprint).area
    if covered == 0:
        left, bottom, right, top = dataset.bounds
        raise SourceError(
            f"The raster {file.path} does not cover {aoi.name} at all: it spans {left:g}, {bottom:g} to {right:g}, "
            f"{top:g} in {dataset.crs.to_string()[:60]}.",
            do="Check its CRS, and that it is the right file.",
        )
    if covered < area.area * (1 - WHOLE):
        warnings.warn(
            f"{file.path} covers {100 * covered / area.area:.1f} % of {aoi.name}: the rest is not observed by it.",
            PartialCoverWarning,
            stacklevel=4,
        )
