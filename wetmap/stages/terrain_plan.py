"""What the terrain features need from the whole area, computed once, when the run is planned.

The resolution of the elevation model and the lattice on which slopes are taken; where water runs (wetness, height
above drainage); and the wide mean of the land, above which positions are measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from wetmap.errors import SourceError
from wetmap.gdal_cache import bound_gdal_cache
from wetmap.geo import Grid
from wetmap.imagery.drainage import height_above_drainage
from wetmap.imagery.flow import Ground, accumulation_on, fill_depressions
from wetmap.imagery.nodes import grown
from wetmap.imagery.terrain import disc_mean, slope_degrees, twi
from wetmap.recipe import Recipe, Terrain
from wetmap.sources import Archive, Scene
from wetmap.sources.scene import PIXEL
from wetmap.stages.terrain_mosaic import mosaic

Float32 = NDArray[np.float32]

#: Raised when the same request would give other rasters.
REVISION = 2
#: Resolution taken for an archive that does not tell its own: Copernicus DEM GLO-30, metres.
FINEST_M = 30.0
#: Land around the area whose water runs into it: what lies farther is not counted. Metres.
MARGIN_M = 3000.0
#: A lattice step is a whole number of the map's pixels, and may be finer than the model by this share of a pixel:
#: 30.9 m, a second of latitude, becomes 30 m on a map of 10 m.
SLACK = 0.25
#: Radius of the wide position, metres (Weiss 2001 used 300 m and 2000 m), and the side of the cells whose mean it
#: takes, metres: a tenth of the radius.
WIDE_RADIUS_M, WIDE_CELL_M = 2000.0, 200.0
#: Side of the pieces in which elevation is read, cells.
PIECE_PX = 1024
#: Rows of the strips in which slope is taken over the whole area.
STRIP_ROWS = 512
#: Bands of the raster that ``plan_terrain`` writes.
AREA_BAND, TWI_BAND, HAND_BAND = 1, 2, 3
DESCRIPTIONS = ("specific catchment area, m", "topographic wetness index, ln(m)", "height above nearest drainage, m")
#: Collections whose heights are those of canopies and roofs.
SURFACE_MODELS = re.compile(r"cop-dem|copernicus/dem|alos-dem|aw3d|nasadem|srtm", re.IGNORECASE)
#: Features that need to know where water runs.
FLOW_FEATURES = ("twi", "hand")
#: Features that are the land's own height and no neighbourhood's.
PLAIN_FEATURES = ("elevation",)


@dataclass(frozen=True)
class TerrainPlan:
    """What was settled about terrain before any block was touched."""

    native_m: float
    """Resolution of the elevation model, metres: of its coarsest tile, or as the recipe states it."""
    step: int
    """Side of the cells on which slope, aspect and position are taken, in pixels of the map."""
    lattice_m: float
    """The same in metres."""
    sea_m: float | None = None
    """Height of ground beyond all tiles, metres; None for not observed."""
    flow_m: float | None = None
    """Side of the cells on which flow was computed, metres, where the recipe asks for wetness or drainage."""
    wide: str | None = None
    """Path of what ``plan_wide`` wrote, where the recipe asks for it."""
    notes: tuple[str, ...] = ()
    """What a user must know of these features, as sentences."""

    def describe(self) -> str:
        """One line for people: which resolution is behind the features."""
        flow = "" if self.flow_m is None else f", water run on cells of {self.flow_m:g} m"
        return f"Terrain: elevation model of {self.native_m:g} m, slopes between cells of {self.lattice_m:g} m{flow}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back, but for the path, which a plan knows itself."""
        return {**asdict(self), "notes": list(self.notes), "wide": self.wide is not None}

    @classmethod
    def from_json(cls, data: dict[str, Any], wide: Path) -> TerrainPlan:
        """Rebuild a plan written by ``to_json``; ``wide`` is where its raster lies, if there is one."""
        return cls(**{**data, "notes": tuple(data["notes"]), "wide": str(wide) if data["wide"] else None})


def asked(recipe: Recipe) -> dict[str, Any]:
    """What of the recipe decides the plan's terrain."""
    features, settings = set(recipe.features.terrain), recipe.terrain
    data: dict[str, Any] = {"revision": REVISION, "resolution_m": settings.resolution_m, "sea_m": settings.sea_m}
    data["wide"] = "tpi_wide" in features
    if features & set(FLOW_FEATURES):
        data["flow_cells"] = settings.flow_cells
        data["drainage_ha"] = settings.drainage_ha if "hand" in features else None
    return data


def settle(archive: Archive, scenes: Sequence[Scene], grid: Grid, recipe: Recipe, folder: Path) -> TerrainPlan:
    """Settle terrain for the whole area, and write ``accumulation.tif`` and ``wide.tif`` where they are asked for.

    Args:
        archive: The archive of the elevation model.
        scenes: Its tiles.
        grid: The map's grid.
        recipe: The recipe.
        folder: Where the rasters go.

    Raises:
        SourceError: A tile cannot be read, or no tile holds an elevation in the area.
    """
    features: set[str] = set(recipe.features.terrain)
    settings = recipe.terrain
    native = settings.resolution_m or native_m(archive, scenes, grid)
    step = lattice_step(native, grid.res_m)
    flow_m = wide = None
    if features & set(FLOW_FEATURES):
        flow_m = plan_terrain(archive, scenes, grid, folder / "accumulation.tif", settings, finest_m=step * grid.res_m)
    if "tpi_wide" in features:
        wide = str(plan_wide(archive, scenes, grid, folder / "wide.tif", step=step, sea_m=settings.sea_m))
    notes = notes_on(scenes, features, native, flow_m)
    return TerrainPlan(native, step, step * grid.res_m, settings.sea_m, flow_m, wide, notes)


def native_m(archive: Archive, scenes: Sequence[Scene], grid: Grid) -> float:
    """Resolution of the elevation model: the longest pixel side of all tiles, metres to the centimetre.

    The coarsest tile counts, so that nowhere a slope is taken between heights that were interpolated.
    """
    corner = grid.window(0, 0, 1, 1)
    sides = [float(found[PIXEL][0, 0]) for scene in scenes if PIXEL in (found := archive.read(scene, (PIXEL,), corner))]
    known = [side for side in sides if math.isfinite(side)]
    return round(max(known), 2) if known else FINEST_M


def lattice_step(native: float, res_m: float) -> int:
    """Map pixels per side of a cell that is not finer than the elevation model; 1 where the map is the coarser."""
    return max(1, math.ceil(native / res_m - SLACK))


def notes_on(scenes: Sequence[Scene], features: set[str], native: float, flow_m: float | None) -> tuple[str, ...]:
    """What a user must know of these features, as sentences."""
    notes = []
    if features - set(PLAIN_FEATURES) and not any(scene.simulated for scene in scenes):
        surface = any(SURFACE_MODELS.search(f"{scene.id} {scene.item.get('collection')}") for scene in scenes)
        what = "The elevation model is a surface model: it holds" if surface else "If the elevation model holds"
        of = "slope, position, wetness and height above drainage" if flow_m is not None else "slope and position"
        notes.append(f"{what} the tree canopy, {'so' if surface else 'then'} {of} are biased in and beside forest.")
    if flow_m is not None and flow_m > 1.5 * native:
        notes.append(
            f"Wetness and height above drainage were computed on cells of {flow_m:g} m, coarser than the elevation "
            f"model ({native:g} m), and are smooth between them; terrain.flow_cells sets how many cells there may be."
        )
    return tuple(notes)


def coarse_grid(grid: Grid, finest_m: float = FINEST_M, most_cells: int | None = None) -> Grid:
    """The grid on which flow is computed: the area and a margin, in cells as fine as they may be."""
    height_m = grid.height * grid.res_m + 2 * MARGIN_M
    width_m = grid.width * grid.res_m + 2 * MARGIN_M
    most = Terrain().flow_cells if most_cells is None else most_cells
    return _grid_around(grid, max(grid.res_m, finest_m, math.ceil(math.sqrt(height_m * width_m / most))))


def _grid_around(grid: Grid, res: float) -> Grid:
    """The area and a margin in cells of ``res`` metres, whose edges lie on the map's own pixel edges where they can."""
    phase_x, phase_y = round(grid.left % grid.res_m, 6), round(grid.top % grid.res_m, 6)
    left = math.floor((grid.left - phase_x - MARGIN_M) / res)
    top = math.ceil((grid.top - phase_y + MARGIN_M) / res)
    return Grid(
        crs=grid.crs,
        res_m=res,
        left=left * res + phase_x,
        top=top * res + phase_y,
        height=math.ceil((grid.height * grid.res_m + 2 * MARGIN_M) / res) + 1,
        width=math.ceil((grid.width * grid.res_m + 2 * MARGIN_M) / res) + 1,
    )


def plan_terrain(
    archive: Archive,
    scenes: Sequence[Scene],
    grid: Grid,
    path: Path,
    settings: Terrain | None = None,
    *,
    finest_m: float = FINEST_M,
) -> float:
    """Run water over the whole area: catchment area, wetness, height above the nearest drainage.

    Args:
        archive: The archive of the elevation model.
        scenes: Its tiles.
        grid: The map's grid.
        path: GeoTIFF to write, float32: band 1 specific catchment area, m2 per m of contour; band 2 topographic
            wetness index, ln(m); band 3 height above the nearest drainage, m. NaN where elevation is not known; bands
            2 and 3 reach one cell beyond, so that a coast has values up to its shore.
        settings: How.
        finest_m: Cells are not smaller, metres.

    Returns:
        Side of the cells, metres.

    Raises:
        SourceError: A tile cannot be read, or no tile holds an elevation in the area.
    """
    settings = settings or Terrain()
    coarse = coarse_grid(grid, finest_m, settings.flow_cells)
    elevation = _elevation(archive, scenes, coarse, settings.sea_m)
    ground = Ground.of(fill_depressions(elevation))
    area = (accumulation_on(ground) * coarse.res_m).astype(np.float32)
    above = height_above_drainage(ground, settings.drainage_ha * 1e4 / coarse.res_m**2).astype(np.float32)
    del ground

    def bands(rows: slice) -> tuple[Float32, ...]:
        slope = slope_degrees(elevation[rows].astype(np.float64), coarse.res_m)
        wetness = grown(twi(area[rows].astype(np.float64), slope))
        return area[rows], wetness.astype(np.float32), grown(above[rows].astype(np.float64)).astype(np.float32)

    with _writing(path, coarse, DESCRIPTIONS) as dataset:
        _write_strips(dataset, coarse, bands)
    return coarse.res_m


def plan_wide(
    archive: Archive, scenes: Sequence[Scene], grid: Grid, path: Path, *, step: int, sea_m: float | None
) -> Path:
    """Write the mean elevation of the disc of ``WIDE_RADIUS_M`` around every place, from cells of ``WIDE_CELL_M``.

    Args:
        archive: The archive of the elevation model.
        scenes: Its tiles.
        grid: The map's grid.
        path: GeoTIFF to write, float32, metres, NaN where nothing in the disc is observed.
        step: Cells are not smaller than so many pixels of the map.
        sea_m: Height of ground beyond all tiles, metres; None for not observed.

    Raises:
        SourceError: As ``plan_terrain``.
    """
    coarse = _grid_around(grid, grid.res_m * max(step, round(WIDE_CELL_M / grid.res_m)))
    elevation = _elevation(archive, scenes, coarse, sea_m).astype(np.float64)
    mean = disc_mean(elevation, max(1, round(WIDE_RADIUS_M / coarse.res_m))).astype(np.float32)
    with _writing(path, coarse, (f"mean elevation within {WIDE_RADIUS_M:g} m, m",)) as dataset:
        dataset.write(mean, 1)
    return path


def _elevation(archive: Archive, scenes: Sequence[Scene], grid: Grid, sea_m: float | None) -> Float32:
    elevation = np.full(grid.shape, np.nan, dtype=np.float32)
    for block in grid.blocks(PIECE_PX):
        window = grid.window(block.y0, block.x0, block.height, block.width)
        elevation[block.slices] = mosaic(archive.read, scenes, window)
    if not np.isfinite(elevation).any():
        raise SourceError(
            f"The {len(scenes)} elevation tiles hold no elevation in the area.",
            do="Check the terrain source, or leave twi, hand and tpi_wide out of features.terrain.",
        )
    if sea_m is not None:
        _fill_sea(archive, scenes, grid, elevation, sea_m)
    return elevation


def _fill_sea(archive: Archive, scenes: Sequence[Scene], grid: Grid, elevation: Float32, sea_m: float) -> None:
    for block in grid.blocks(PIECE_PX):
        if np.isnan(elevation[block.slices]).any():
            window = grid.window(block.y0, block.x0, block.height, block.width)
            elevation[block.slices] = mosaic(archive.read, scenes, window, sea_m)


@contextmanager
def _writing(path: Path, grid: Grid, descriptions: Sequence[str]) -> Iterator[Any]:
    """A float32 GeoTIFF that appears when it is whole."""
    temporary = path.with_name(f".tmp-{path.name}")
    bound_gdal_cache()
    with rasterio.open(
        temporary,
        "w",
        driver="GTiff",
        width=grid.width,
        height=grid.height,
        count=len(descriptions),
        dtype="float32",
        crs=grid.crs,
        transform=grid.transform,
        nodata=float("nan"),
        tiled=True,
        compress="deflate",
        predictor=3,
        interleave="band",
    ) as dataset:
        for number, text in enumerate(descriptions, start=1):
            dataset.set_band_description(number, text)
        yield dataset
    temporary.replace(path)


def _write_strips(dataset: Any, grid: Grid, bands: Callable[[slice], tuple[Float32, ...]]) -> None:
    """Write bands strip by strip, each computed with the two rows above and below that its neighbourhoods need."""
    for y0 in range(0, grid.height, STRIP_ROWS):
        y1 = min(y0 + STRIP_ROWS, grid.height)
        above, below = max(y0 - 2, 0), min(y1 + 2, grid.height)
        window = rasterio.windows.Window(0, y0, grid.width, y1 - y0)
        for number, values in enumerate(bands(slice(above, below)), start=1):
            dataset.write(values[y0 - above : y1 - above], number, window=window)
