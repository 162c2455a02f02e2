"""The simulated archive: what a real one would hold, written to disk as a static STAC catalogue of GeoTIFF scenes.

The archive is a function of the area and the settings. It is written scene by scene; a scene's folder appears whole or
not at all, the items and the catalogue come last, and continuing after a kill gives the same bytes.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from pystac.stac_io import DefaultStacIO
from rasterio.io import MemoryFile
from shapely.geometry import Polygon, box

from wetmap.errors import RecipeError
from wetmap.geo.aoi import Aoi
from wetmap.geo.grid import Grid
from wetmap.recipe import Simulated
from wetmap.sources.landscape import COVERS, make_landscape
from wetmap.sources.noise import fractal, hash_key
from wetmap.sources.simulated_ground import Ground, block_mean, make_ground
from wetmap.sources.simulated_items import (
    OPTICAL,
    RADAR,
    SIMULATED_NOTE,
    TERRAIN,
    catalog_of,
    optical_item,
    radar_item,
    terrain_item,
)
from wetmap.sources.simulated_optical import BANDS, OpticalPass, optical_scene, swath
from wetmap.sources.simulated_passes import ORBIT_STATES, archive_grid, centre, optical_passes, radar_passes
from wetmap.sources.simulated_radar import NODATA, POLARISATIONS, RadarPass, footprint, radar_scene
from wetmap.sources.simulated_reference import draw_reference, geopackage
from wetmap.workspace import disk_full, write_bytes

#: Side of a tile, pixels of 10 m, a multiple of 6: larger areas have several items per pass, and memory stays bounded.
TILE_PX = 1536
#: Side of the GeoTIFFs' internal tiles, pixels; larger files have overviews.
BLOCK_PX = 256
#: Error of the elevation model, metres, standard deviation, with a pattern of about 150 m.
ELEVATION_ERROR_M = 0.4
#: Fewest reference polygons.
FEWEST_POLYGONS = 60

Progress = Callable[[int, int], None]


def write_archive(aoi: Aoi, settings: Simulated, folder: Path, *, progress: Progress | None = None) -> Path:
    """Write the archive, or what is missing of it.

    Args:
        aoi: The area of interest.
        settings: Seed, dates, clouds, speckle, geolocation error, reference polygons.
        folder: Where it is written; made if need be. One archive per folder: the caller keeps others apart.
        progress: Called with (scenes done, scenes in all) after every scene.

    Returns:
        The path of ``catalog.json``; ``truth.tif`` and ``reference.gpkg`` lie beside it.

    Raises:
        RecipeError: The simulated time ends before it starts.
        AoiError: The area has no UTM zone.
        WorkspaceError: The disk is full.
    """
    if settings.end < settings.start:
        raise RecipeError(
            f"simulated.end ({settings.end}) is before simulated.start ({settings.start}).",
            do="Swap them in the recipe.",
        )
    archive = _Archive(aoi, settings, folder)
    try:
        return archive.write(progress)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(folder) from error
        raise


@dataclass(frozen=True)
class _Scene:
    """One scene of one tile: what will lie in a folder of its own."""

    collection: str
    """Collection id."""
    id: str
    """Item id and folder name."""
    tile: Grid
    """The tile on 10 m."""
    when: OpticalPass | RadarPass | None
    """The pass; None for elevation."""
    footprint: Polygon
    """Where it has data, in the archive's CRS."""


class _Grounds:
    """The ground of one tile as the orbits see it, made when the first scene needs it."""

    def __init__(self, tile: Grid, settings: Simulated) -> None:
        self._tile, self._settings = tile, settings

    @cached_property
    def true(self) -> Ground:
        """As it lies."""
        return make_ground(self._tile, self._settings.seed)

    @cached_property
    def shifted(self) -> Ground:
        """As the descending orbit sees it."""
        return make_ground(self._tile, self._settings.seed, shift_px=self._settings.shift_px)


class _Archive:
    """Writes one archive."""

    def __init__(self, aoi: Aoi, settings: Simulated, folder: Path) -> None:
        self.aoi, self.settings, self.folder = aoi, settings, folder
        self.extent = archive_grid(aoi)
        self.southern = centre(aoi)[1] < 0

    def write(self, progress: Progress | None) -> Path:
        """Truth and reference, scenes, items, catalogue: in this order."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clear_leftovers()
        self._write_truth()
        by_tile = [(tile, list(self._scenes(name, tile))) for name, tile in self._tiles()]
        total, done = sum(len(scenes) for _, scenes in by_tile), 0
        for tile, scenes in by_tile:
            grounds = _Grounds(tile, self.settings)
            for scene in scenes:
                self._write_scene(scene, grounds)
                done += 1
                if progress is not None:
                    progress(done, total)
        return self._write_catalog([scene for _, scenes in by_tile for scene in scenes])

    def _clear_leftovers(self) -> None:
        """Remove what a killed run left unfinished."""
        for pattern in (".tmp-*", "*/.tmp-*", "*/*/.tmp-*"):
            for path in sorted(self.folder.glob(pattern)):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _tiles(self) -> Iterator[tuple[str, Grid]]:
        """Name and grid of each tile."""
        for block in self.extent.blocks(TILE_PX):
            yield (
                f"r{block.row:02d}c{block.col:02d}",
                self.extent.window(block.y0, block.x0, block.height, block.width),
            )

    def _scenes(self, name: str, tile: Grid) -> Iterator[_Scene]:
        """The scenes of one tile; those whose footprint does not reach it do not exist."""
        yield _Scene(TERRAIN, f"SIMULATED_DEM_{name}", tile, None, box(*tile.bounds))
        for optical in optical_passes(self.aoi, self.settings):
            seen = Polygon(swath(self.extent)) if optical.swath_edge else box(*self.extent.bounds)
            item_id = f"{optical.platform}_SIMULATED_{optical.when:%Y%m%dT%H%M%S}_{name}"
            yield from _clipped(OPTICAL, item_id, tile, optical, seen)
        for orbit_state in ORBIT_STATES:
            for radar in radar_passes(self.aoi, self.settings, orbit_state):
                item_id = f"S1A_SIMULATED_{radar.when:%Y%m%dT%H%M%S}_{orbit_state}_{name}_rtc"
                yield from _clipped(RADAR, item_id, tile, radar, Polygon(footprint(self.extent, radar)))

    def _write_scene(self, scene: _Scene, grounds: _Grounds) -> None:
        """Write a scene's files, unless all are there; the folder appears in one step."""
        folder = self.folder / scene.collection / scene.id
        if all((folder / name).exists() for name in _file_names(scene)):
            return
        temporary = folder.with_name(f".tmp-{scene.id}")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, (array, res_m, nodata) in self._render(scene, grounds).items():
            grid = Grid(scene.tile.crs, res_m, scene.tile.left, scene.tile.top, *array.shape)
            (temporary / name).write_bytes(_geotiff(array, grid, nodata))
        temporary.replace(folder)

    def _render(self, scene: _Scene, grounds: _Grounds) -> dict[str, tuple[NDArray[Any], float, float | None]]:
        """File name to (pixels, pixel side in metres, nodata)."""
        if isinstance(scene.when, OpticalPass):
            seen = optical_scene(grounds.true, self.extent, scene.when, southern=self.southern)
            layers: dict[str, NDArray[Any]] = {**seen.bands, "SCL": seen.scl}
            return {
                f"{band}.tif": (array, 10.0 * scene.tile.width / array.shape[1], 0.0) for band, array in layers.items()
            }
        if isinstance(scene.when, RadarPass):
            ground = grounds.true if scene.when.orbit_state == "ascending" else grounds.shifted
            bands = radar_scene(ground, self.extent, scene.when, southern=self.southern)
            return {f"{band.lower()}.tif": (array, 10.0, NODATA) for band, array in bands.items()}
        return {"data.tif": (elevation_model(scene.tile, self.settings.seed), 30.0, None)}

    def _write_truth(self) -> None:
        """Write the truth raster and the reference polygons, if they are not there."""
        truth, reference = self.folder / "truth.tif", self.folder / "reference.gpkg"
        if truth.exists() and reference.exists():
            return
        cover = np.empty(self.extent.shape, np.uint8)
        for block in self.extent.blocks(TILE_PX):
            tile = self.extent.window(block.y0, block.x0, block.height, block.width)
            cover[block.slices] = make_landscape(tile, self.settings.seed).cover
        write_bytes(truth, _geotiff(cover, self.extent, 0.0, covers=True))
        wanted = round(self.settings.reference_polygons * self.aoi.area_ha / 1e4)  # 100 km2 are 10 000 ha
        polygons = draw_reference(
            cover,
            self.aoi.inside(self.extent),
            self.extent,
            count=max(FEWEST_POLYGONS, wanted),
            noise=self.settings.label_noise,
            seed=self.settings.seed,
        )
        write_bytes(reference, geopackage(polygons, self.extent.crs, SIMULATED_NOTE))

    def _write_catalog(self, scenes: list[_Scene]) -> Path:
        """Write items, collections and, last of all, the catalogue."""
        items: dict[str, list[pystac.Item]] = {OPTICAL: [], RADAR: [], TERRAIN: []}
        for scene in scenes:
            items[scene.collection].append(self._item(scene))
        catalog = catalog_of(items)
        catalog.normalize_hrefs(str(self.folder))
        catalog.save(catalog_type=pystac.CatalogType.SELF_CONTAINED, stac_io=_AtomicIO())
        return self.folder / "catalog.json"

    def _item(self, scene: _Scene) -> pystac.Item:
        if isinstance(scene.when, OpticalPass):
            percents = _percents(self.folder / scene.collection / scene.id / "SCL.tif")
            return optical_item(scene.id, scene.tile, scene.footprint, scene.when, percents)
        if isinstance(scene.when, RadarPass):
            return radar_item(scene.id, scene.tile, scene.footprint, scene.when)
        tile = scene.tile
        grid = Grid(tile.crs, 30.0, tile.left, tile.top, tile.height // 3, tile.width // 3)
        return terrain_item(scene.id, grid, scene.footprint)


def elevation_model(tile: Grid, seed: int) -> NDArray[np.float32]:
    """Elevation of a 10 m tile on 30 m, (height / 3, width / 3), metres, with the errors of a satellite's model.

    Water surfaces are level, as they are in the Copernicus model, which flattens them.
    """
    land = make_landscape(tile, seed)
    error = ELEVATION_ERROR_M * fractal(tile.x[None, :], tile.y[:, None], 150.0, hash_key(seed, "elevation error"))
    dry = land.cover > 1
    return block_mean((land.elevation + error * dry).astype(np.float32), 3)


class _AtomicIO(DefaultStacIO):
    """Writes each JSON file in one step."""

    def write_text_to_href(self, href: str, txt: str) -> None:
        """Write one file."""
        Path(href).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(Path(href), txt.encode())


def _clipped(
    collection: str, item_id: str, tile: Grid, when: OpticalPass | RadarPass, seen: Polygon
) -> Iterator[_Scene]:
    part = seen.intersection(box(*tile.bounds))
    if isinstance(part, Polygon) and not part.is_empty:
        yield _Scene(collection, item_id, tile, when, part)


def _file_names(scene: _Scene) -> list[str]:
    if scene.collection == OPTICAL:
        return [f"{band}.tif" for band in (*BANDS, "SCL")]
    if scene.collection == RADAR:
        return [f"{name.lower()}.tif" for name in POLARISATIONS]
    return ["data.tif"]


def _percents(scl: Path) -> dict[str, float]:
    """Measured shares of a scene, percent: cloud (8, 9, 10) and others of what has data, and what has none."""
    with rasterio.open(scl) as file:
        count = np.bincount(file.read(1).ravel(), minlength=12)
    valid = max(int(count[1:].sum()), 1)

    def percent(*codes: int) -> float:
        return round(100.0 * float(count[list(codes)].sum()) / valid, 4)

    return {
        "eo:cloud_cover": percent(8, 9, 10),
        "s2:nodata_pixel_percentage": round(100.0 * float(count[0]) / float(count.sum()), 4),
        "s2:cloud_shadow_percentage": percent(3),
        "s2:vegetation_percentage": percent(4),
        "s2:not_vegetated_percentage": percent(5),
        "s2:water_percentage": percent(6),
        "s2:medium_proba_clouds_percentage": percent(8),
        "s2:high_proba_clouds_percentage": percent(9),
        "s2:thin_cirrus_percentage": percent(10),
    }


def _geotiff(array: NDArray[Any], grid: Grid, nodata: float | None, *, covers: bool = False) -> bytes:
    """A Cloud-Optimized GeoTIFF of one band, as bytes, so that a full disk is noticed and the file appears whole."""
    profile = {
        "driver": "COG",
        "height": grid.height,
        "width": grid.width,
        "count": 1,
        "dtype": array.dtype,
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": nodata,
        "compress": "DEFLATE",
        "level": 1,
        "blocksize": BLOCK_PX,
        "overview_resampling": "MODE" if array.dtype == np.uint8 else "AVERAGE",
        "num_threads": 1,
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(array, 1)
            file.update_tags(SIMULATED="YES", TIFFTAG_IMAGEDESCRIPTION=SIMULATED_NOTE, TIFFTAG_SOFTWARE="wetmap")
            if covers:
                file.update_tags(1, **{f"CLASS_{kind.code}": kind.name for kind in COVERS})
                file.write_colormap(1, {kind.code: _rgb(kind.colour) for kind in COVERS})
        return bytes(memory.read())


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
