"""Terrain through blocks: elevation models of every resolution, in tiles or whole, at coasts, on any blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from tests.fakes.tiny_archive import write_raster
from wetmap.cube import KINDS, bands_of
from wetmap.errors import SourceError
from wetmap.geo import Block, Grid
from wetmap.recipe import Features, RasterFile, RastersSource, Recipe, Sources, Terrain
from wetmap.sources import Archive, Scene
from wetmap.sources.rasters import RastersArchive
from wetmap.stages import terrain_plan
from wetmap.stages.block_features import BlockResult, block_features
from wetmap.stages.block_reading import FetchTask
from wetmap.stages.terrain_plan import lattice_step

ALL = ("elevation", "slope", "aspect", "tpi", "tpi_wide", "twi", "hand")
CRS = "EPSG:32619"
#: A map whose corner is on no multiple of the lattice's 30 m.
GRID = Grid(CRS, 10.0, 700_010.0, 5_010_020.0, 64, 70)
#: Land that holds the map and the margin around it.
LEFT, TOP, SIDE_M = 696_000.0, 5_014_000.0, 9_000

Surface = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def hills(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A rolling land in metres, x east and y north."""
    return 80 + 0.01 * (x - LEFT) + 9 * np.sin(x / 170) * np.cos(y / 230) + 3 * np.sin((x + y) / 57)


def write(
    folder: Path, name: str, surface: Surface, res: float = 30.0, *, box: Sequence[float] = (), **how: float
) -> Path:
    """A surface as a GeoTIFF in the map's CRS; ``box`` is left, top, width, height, metres."""
    left, top, width, height = box or (LEFT, TOP, SIDE_M, SIDE_M)
    cols, rows = round(width / res), round(height / res)
    x, y = np.meshgrid(left + (np.arange(cols) + 0.5) * res, top - (np.arange(rows) + 0.5) * res)
    return write_raster(
        folder / f"{name}.tif", surface(x, y).astype(np.float32), Affine(res, 0, left, 0, -res, top), crs=CRS, **how
    )


def write_degrees(folder: Path, rows: slice, cols: slice, seconds_east: float = 1.0, name: str = "") -> Path:
    """Part of the hills in seconds of a degree, as Copernicus DEM has them; rows and columns in seconds."""
    west, north = -66.535, 45.255
    step = seconds_east / 3600
    lon = west + (np.arange(cols.start, cols.stop) + 0.5) * step
    lat = north - (np.arange(rows.start, rows.stop) + 0.5) / 3600
    x, y = Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(*np.meshgrid(lon, lat))
    transform = Affine(step, 0, west + cols.start * step, 0, -1 / 3600, north - rows.start / 3600)
    name = name or f"t{rows.start}-{rows.stop}-{cols.start}-{cols.stop}-{seconds_east:g}"
    return write_raster(folder / f"{name}.tif", hills(x, y).astype(np.float32), transform, crs="EPSG:4326")


def scenes_of(files: Sequence[Path]) -> tuple[RastersArchive, tuple[Scene, ...]]:
    """The files as tiles; ``search`` would refuse those that lie beside the area."""
    rows = tuple(RasterFile(path=path, bands=["elevation"], unit="m") for path in files)
    scenes = tuple(
        Scene(
            id=f"{number}",
            sensor="terrain",
            datetime="",
            bands=("elevation",),
            item={"path": str(row.path), "bands": ["elevation"], "unit": "m", "nodata": None},
        )
        for number, row in enumerate(rows)
    )
    return RastersArchive(rows), scenes


def task_of(
    folder: Path,
    files: Sequence[Path],
    *,
    layers: Sequence[str] = ALL,
    grid: Grid = GRID,
    terrain: Terrain | None = None,
    archive: Archive | None = None,
) -> FetchTask:
    """Plan terrain as the plan does."""
    own, scenes = scenes_of(files)
    archive = archive or own
    recipe = Recipe(
        sources=Sources(optical=None, radar=None, terrain=RastersSource(files=list(own.files))),
        features=Features(preset="custom", optical=[], indices=[], radar=[], terrain=list(layers)),
        terrain=terrain or Terrain(drainage_ha=10),
    )
    folder.mkdir(exist_ok=True)
    settled = terrain_plan.settle(archive, scenes, grid, recipe, folder)
    return FetchTask(
        grid=grid,
        bands=bands_of(recipe),
        seasons=(),
        scenes=scenes,
        archives={"terrain": archive},
        optical=recipe.optical,
        radar=recipe.radar,
        accumulation=None if settled.flow_m is None else folder / "accumulation.tif",
        terrain=settled,
    )


def whole(task: FetchTask) -> BlockResult:
    return block_features(task, Block(0, 0, 0, 0, task.grid.height, task.grid.width))


def by_name(task: FetchTask, result: BlockResult | None = None) -> dict[str, NDArray[np.float64]]:
    rows = (result or whole(task)).features.astype(np.float64)
    return {band.name.removeprefix("terrain."): row for band, row in zip(task.bands, rows, strict=True)}


def settled_of(task: FetchTask) -> terrain_plan.TerrainPlan:
    assert task.terrain is not None
    return task.terrain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dem")


@pytest.fixture(scope="module")
def degrees(folder: Path) -> FetchTask:
    """The hills in one file of one second of a degree, about 21.8 x 30.9 m."""
    return task_of(folder / "degrees", [write_degrees(folder, slice(0, 330), slice(0, 430))])


class TestBlocks:
    @pytest.mark.parametrize("side", [64, 23, 9])
    def test_features_are_the_same_bits_whatever_the_blocks(self, degrees: FetchTask, side: int) -> None:
        expected = whole(degrees)
        assert expected.observed.all()
        for block in degrees.grid.blocks(side):
            got = block_features(degrees, block)
            np.testing.assert_array_equal(got.features, expected.features[(slice(None), *block.slices)])

    def test_on_a_grid_with_edges_on_no_multiple(self, folder: Path) -> None:
        grid = dataclasses.replace(GRID, left=GRID.left + 3.25, top=GRID.top - 4.5)
        task = task_of(folder / "phase", [folder / "t0-330-0-430-1.tif"], grid=grid)
        expected = whole(task)
        assert expected.observed.all()
        for block in grid.blocks(17):
            got = block_features(task, block)
            np.testing.assert_array_equal(got.features, expected.features[(slice(None), *block.slices)])

    def test_a_larger_map_gives_the_same_pixels(self, degrees: FetchTask, folder: Path) -> None:
        """What is taken between cells does not depend on where the map begins (flow does: it knows other land)."""
        grid = GRID.window(-7, -4, 40, 40)
        local = [name for name in ALL if name not in {"twi", "hand"}]
        task = task_of(folder / "larger", [folder / "t0-330-0-430-1.tif"], grid=grid, layers=local)
        small, large = by_name(degrees), by_name(task)
        for name in ("elevation", "slope", "aspect_north", "aspect_east", "tpi", "tpi_wide"):
            np.testing.assert_array_equal(large[name][7:, 4:], small[name][:33, :36], err_msg=name)


class TestResolution:
    def test_of_the_files(self, degrees: FetchTask) -> None:
        """A second of latitude is 30.9 m; the lattice is three pixels of the map, and flow has the same cells."""
        settled = settled_of(degrees)
        assert settled.native_m == pytest.approx(30.87, abs=0.05)
        assert (settled.step, settled.lattice_m, settled.flow_m) == (3, 30.0, 30.0)

    @pytest.mark.parametrize(
        ("native", "res", "step"), [(30.9, 10, 3), (1, 10, 1), (10, 10, 1), (12.4, 10, 1), (25, 10, 3), (30.9, 100, 1)]
    )
    def test_lattice(self, native: float, res: float, step: int) -> None:
        assert lattice_step(native, res) == step

    @pytest.mark.parametrize("res", [1.0, 5.0, 10.0, 30.0, 60.0])
    def test_plane_is_exact_at_every_resolution(self, folder: Path, res: float) -> None:
        """0.06 down per m to the east and 0.08 to the north: 0.1, so 5.71 degrees, facing 36.9 degrees."""

        def plane(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            return 900 - 0.06 * (x - LEFT) - 0.08 * (y - TOP + SIDE_M)

        box = (GRID.left - 1200, GRID.top + 1200, 3120, 3120)
        path = write(folder, f"plane{res}", plane, res, box=box)
        task = task_of(folder / f"plane{res}", [path], layers=("elevation", "slope", "aspect", "tpi"))
        assert settled_of(task).native_m == res
        got = by_name(task)
        x, y = np.meshgrid(GRID.x, GRID.y)
        np.testing.assert_allclose(got["elevation"], plane(x, y), atol=2e-4)
        np.testing.assert_allclose(got["slope"], np.degrees(np.arctan(0.1)), atol=1e-3)
        np.testing.assert_allclose(got["aspect_north"], 0.8, atol=1e-4)
        np.testing.assert_allclose(got["aspect_east"], 0.6, atol=1e-4)
        np.testing.assert_allclose(got["tpi"], 0.0, atol=1e-3)

    def test_no_facets_of_interpolation(self, folder: Path) -> None:
        """A bowl, whose slope grows evenly: between interpolated pixels it grows in steps, one for each cell."""

        def bowl(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            return 2e-5 * ((x - LEFT) ** 2 + (y - TOP) ** 2)

        task = task_of(folder / "facets", [write(folder, "facets", bowl)], layers=("slope",))
        smooth = np.tan(np.radians(by_name(task)["slope"]))
        facets = np.tan(np.radians(by_name(dataclasses.replace(task, terrain=None))["slope"]))
        x, y = np.meshgrid(GRID.x, GRID.y)
        true = 4e-5 * np.hypot(x - LEFT, y - TOP)
        assert float(np.abs(smooth - true).max()) < 1e-5
        assert float(np.abs(facets - true).max()) > 2e-4

    def test_finer_than_the_map_is_averaged_first(self, folder: Path) -> None:
        """A furrowed field of 1 m pixels: level at 10 m, whatever its furrows."""

        def furrows(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            return 20 + np.where((x - 0.5) % 2 < 1, 0.3, 0.0) + 0.0 * y

        box = (GRID.left - 400, GRID.top + 400, 1500, 1500)
        task = task_of(folder / "furrows", [write(folder, "furrows", furrows, 1.0, box=box)], layers=("slope", "tpi"))
        assert settled_of(task).step == 1
        got = by_name(task)
        np.testing.assert_allclose(got["slope"], 0.0, atol=1e-4)
        np.testing.assert_allclose(got["tpi"], 0.0, atol=1e-4)

    def test_stated_where_files_are_finer_than_what_was_measured(self, folder: Path) -> None:
        path = write(folder, "fine", hills, 10.0)
        task = task_of(folder / "stated", [path], layers=("slope",), terrain=Terrain(resolution_m=30))
        assert (settled_of(task).native_m, settled_of(task).step) == (30.0, 3)

    def test_the_coarsest_tile_counts(self, folder: Path) -> None:
        fine = write(folder, "fine-part", hills, 10.0, box=(LEFT, TOP, 3000, 3000))
        coarse = write(folder, "coarse-part", hills, 60.0)
        assert settled_of(task_of(folder / "mixed", [coarse, fine], layers=("slope",))).native_m == 60.0


class TestTiles:
    def test_cut_and_whole_are_the_same(self, folder: Path, degrees: FetchTask) -> None:
        """Four tiles that meet inside the map and share no pixel: what one file gives."""
        cut_row, cut_col = 154, 312
        tiles = [
            write_degrees(folder, rows, cols)
            for rows in (slice(0, cut_row), slice(cut_row, 330))
            for cols in (slice(0, cut_col), slice(cut_col, 430))
        ]
        task = task_of(folder / "tiles", tiles)
        with rasterio.open(tiles[3]) as dataset:
            corner = Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(
                dataset.transform.c, dataset.transform.f
            )
        left, bottom, right, top = GRID.bounds
        assert left + 50 < corner[0] < right - 50
        assert bottom + 50 < corner[1] < top - 50
        one, four = by_name(degrees), by_name(task)
        for name, values in one.items():
            assert np.isfinite(four[name]).all(), name
            np.testing.assert_allclose(four[name], values, rtol=0, atol=2e-3, err_msg=name)
        np.testing.assert_allclose(four["elevation"], one["elevation"], rtol=0, atol=3e-5)

    def test_blocks_at_the_cut(self, folder: Path) -> None:
        tiles = [write_degrees(folder, slice(0, 330), cols) for cols in (slice(0, 312), slice(312, 430))]
        task = task_of(folder / "two", tiles)
        expected = whole(task)
        for block in GRID.blocks(19):
            got = block_features(task, block)
            np.testing.assert_array_equal(got.features, expected.features[(slice(None), *block.slices)])

    def test_columns_at_the_cut(self, folder: Path) -> None:
        """Also where a column of pixels lies wholly in the last half pixel of one tile, beyond the other's edge."""
        tiles = [write_degrees(folder, slice(0, 330), cols) for cols in (slice(0, 312), slice(312, 430))]
        task = task_of(folder / "columns", tiles, layers=("elevation",))
        expected = whole(task).features
        for x0 in range(GRID.width):
            got = block_features(task, Block(0, 0, 0, x0, GRID.height, 1))
            np.testing.assert_array_equal(got.features, expected[:, :, x0 : x0 + 1])

    def test_tiles_of_other_pixels(self, folder: Path, degrees: FetchTask) -> None:
        """At 50 degrees north the tiles of Copernicus DEM change from 1 to 1.5 seconds eastwards: here, in the map."""
        north = write_degrees(folder, slice(0, 154), slice(0, 286), 1.5)
        south = write_degrees(folder, slice(154, 330), slice(0, 430))
        task = task_of(folder / "latitude", [north, south], layers=("elevation", "slope"))
        one, two = by_name(degrees), by_name(task)
        assert np.isfinite(two["elevation"]).all()
        assert float(np.abs(two["elevation"] - one["elevation"]).max()) < 0.8
        step = np.abs(np.diff(two["elevation"], axis=0)).max() / np.abs(np.diff(one["elevation"], axis=0)).max()
        assert step < 1.15

    def test_where_tiles_overlap_the_last_counts(self, folder: Path) -> None:
        low = write(folder, "low", lambda x, _: np.full_like(x, 10.0))
        middle = (GRID.left + 210, TOP, 3000, SIDE_M)
        high = write(folder, "high", lambda x, _: np.full_like(x, 20.0), box=middle)
        got = by_name(task_of(folder / "overlap", [low, high], layers=("elevation",)))["elevation"]
        np.testing.assert_array_equal(got[:, :19], 10.0)
        np.testing.assert_array_equal(got[:, 23:], 20.0)

    def test_a_tile_that_cannot_be_read_is_named(self, folder: Path) -> None:
        tiles = [write_degrees(folder, slice(0, 330), cols) for cols in (slice(0, 312), slice(312, 430))]
        task = task_of(folder / "broken", tiles, layers=("slope",))
        bad = dataclasses.replace(task.scenes[1], item={**task.scenes[1].item, "path": str(folder / "gone.tif")})
        result = whole(dataclasses.replace(task, scenes=(task.scenes[0], bad)))
        assert {row["scene"] for row in result.failures} == {"1"}
        seen = result.observed[0]
        assert seen[:, :20].all()
        assert not seen[:, -20:].any()


class TestCoast:
    @pytest.mark.parametrize("res", [10.0, 30.0])
    def test_land_has_every_feature_up_to_its_shore(self, folder: Path, res: float) -> None:
        """The sea is nodata; flow is computed on coarser cells, half of which lie over the shore."""

        def coast(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            land = x + 0.4 * (y - GRID.top) < GRID.left + 300
            return np.where(land, hills(x, y) - 60, -9999.0)

        path = write(folder, f"coast{res}", coast, res, nodata=-9999.0)
        task = task_of(folder / f"coast{res}", [path], terrain=Terrain(flow_cells=15_000, resolution_m=30))
        assert settled_of(task).flow_m is not None
        assert settled_of(task).flow_m > 45
        got = by_name(task)
        alone = by_name(task_of(folder / f"height{res}", [path], layers=("elevation",)))["elevation"]
        assert 0.3 < np.isfinite(alone).mean() < 0.8
        for name, values in got.items():
            np.testing.assert_array_equal(np.isfinite(values), np.isfinite(alone), err_msg=name)

    def test_sea_without_tiles(self, folder: Path) -> None:
        """Copernicus DEM has no tiles of the open sea: not observed, unless the recipe gives it a height."""
        shore = GRID.left + 300
        box = (LEFT, TOP, shore - LEFT, SIDE_M)
        path = write(folder, "shore", lambda x, _: (shore - x) * 0.02, 10.0, box=box)
        dark = by_name(task_of(folder / "dark", [path], terrain=Terrain(flow_cells=100_000)))
        assert np.isfinite(dark["elevation"][:, :30]).all()
        assert np.isnan(dark["elevation"][:, 30:]).all()
        task = task_of(folder / "sea", [path], terrain=Terrain(sea_m=0.0, flow_cells=100_000))
        lit = by_name(task)
        for name, values in lit.items():
            assert np.isfinite(values).all(), name
        np.testing.assert_array_equal(lit["elevation"][:, 31:], 0.0)
        np.testing.assert_array_equal(lit["elevation"][:, :29], dark["elevation"][:, :29])
        # The shore stands above the sea beside it, which the model without sea does not know.
        assert lit["tpi"][32, 20] > dark["tpi"][32, 20] + 1
        expected = whole(task)
        for block in GRID.blocks(23):
            got = block_features(task, block)
            np.testing.assert_array_equal(got.features, expected.features[(slice(None), *block.slices)])

    def test_a_tile_that_cannot_be_read_is_not_the_sea(self, folder: Path) -> None:
        path = write(folder, "land", hills)
        task = task_of(folder / "sea-or-not", [path], layers=("elevation",), terrain=Terrain(sea_m=0.0))
        bad = dataclasses.replace(task.scenes[0], item={**task.scenes[0].item, "path": str(folder / "gone.tif")})
        assert not whole(dataclasses.replace(task, scenes=(bad,))).observed.any()

    def test_a_hole_in_a_tile_is_not_the_sea(self, folder: Path) -> None:
        def hole(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            inside = (abs(x - GRID.left - 300) < 100) & (abs(y - GRID.top + 300) < 100)
            return np.where(inside, -9999.0, hills(x, y))

        path = write(folder, "hole", hole, nodata=-9999.0)
        got = by_name(task_of(folder / "hole", [path], layers=("elevation",), terrain=Terrain(sea_m=0.0)))
        assert np.isnan(got["elevation"]).sum() > 300


class TestWholeArea:
    def test_valley(self, folder: Path) -> None:
        """A straight valley that falls to the south: height above its stream is the height of the bank."""
        axis = GRID.left + 350

        def valley(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            return 100 + 0.05 * np.abs(x - axis) + 0.001 * (y - TOP)

        path = write(folder, "valley", valley, 30.0)
        task = task_of(folder / "valley", [path], layers=("hand", "twi"), terrain=Terrain(drainage_ha=100))
        got = by_name(task)
        bank = np.broadcast_to(0.05 * np.abs(GRID.x - axis), GRID.shape)
        # The stream's cells are 30 m: the middle of its bed lies 5 m beside the valley's lowest line, 0.25 m above it.
        np.testing.assert_allclose(got["hand"], bank, atol=0.3)
        side, bed = np.abs(GRID.x - axis) > 250, np.abs(GRID.x - axis) < 10
        assert float(got["twi"][:, bed].mean()) > float(got["twi"][:, side].mean()) + 3
        steeper = np.diff(got["hand"][:, GRID.x > axis + 45], axis=1)
        assert (steeper > 0).all()

    def test_wide_position_of_a_bowl(self, folder: Path) -> None:
        """z = c r2 lies everywhere c R2 / 2 below the mean of the disc of R = 2 km."""
        c = 4e-6
        x0, y0 = GRID.left + 350, GRID.top - 320

        def bowl(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            return c * ((x - x0) ** 2 + (y - y0) ** 2)

        task = task_of(folder / "bowl", [write(folder, "bowl", bowl, 30.0)], layers=("tpi_wide",))
        got = by_name(task)["tpi_wide"]
        np.testing.assert_allclose(got, -c * 2000**2 / 2, rtol=0.03)
        assert float(np.ptp(got)) < 0.1  # c x (200 m)2 / 2: the mean is bilinear between its cells

    def test_a_coarse_model_is_not_called_fine(self, folder: Path) -> None:
        path = write(folder, "notes", hills)
        fine = settled_of(task_of(folder / "fine", [path], layers=("hand",)))
        coarse = settled_of(task_of(folder / "coarse", [path], layers=("hand",), terrain=Terrain(flow_cells=10_000)))
        assert fine.flow_m == 30.0
        assert coarse.flow_m is not None
        assert coarse.flow_m > 60
        assert not any("coarser" in note for note in fine.notes)
        assert any(f"cells of {coarse.flow_m:g} m" in note for note in coarse.notes)
        assert any("canopy" in note for note in fine.notes)
        assert settled_of(task_of(folder / "plain", [path], layers=("elevation",))).notes == ()

    def test_surface_model_is_named(self, folder: Path) -> None:
        _, scenes = scenes_of([folder / "notes.tif"])
        copernicus = dataclasses.replace(scenes[0], item={**scenes[0].item, "collection": "cop-dem-glo-30"})
        assert terrain_plan.notes_on([copernicus], {"twi"}, 30, 30)[0].startswith(
            "The elevation model is a surface model"
        )
        assert terrain_plan.notes_on(scenes, {"slope"}, 30, None)[0].startswith("If the elevation model holds the tree")

    def test_strips_leave_no_trace(self, folder: Path, degrees: FetchTask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terrain_plan, "STRIP_ROWS", 7)
        monkeypatch.setattr(terrain_plan, "PIECE_PX", 50)
        again = task_of(folder / "strips", [folder / "t0-330-0-430-1.tif"])
        np.testing.assert_array_equal(whole(again).features, whole(degrees).features)

    def test_plan_survives_the_file(self, degrees: FetchTask, tmp_path: Path) -> None:
        settled = settled_of(degrees)
        again = terrain_plan.TerrainPlan.from_json(settled.to_json(), tmp_path / "wide.tif")
        assert again == dataclasses.replace(settled, wide=str(tmp_path / "wide.tif"))

    def test_no_elevation_in_the_area(self, folder: Path) -> None:
        far = write(folder, "far", hills, box=(LEFT - 50_000, TOP, 3000, 3000))
        for layer in ("hand", "tpi_wide"):
            with pytest.raises(SourceError, match="hold no elevation"):
                task_of(folder / "far", [far], layers=(layer,))

    def test_what_is_asked(self) -> None:
        """Settings that a recipe's features do not use make no plan new."""

        def asked(layers: list[str], **settings: float) -> object:
            features = Features(preset="custom", optical=[], indices=[], radar=[], terrain=layers)  # type: ignore[arg-type]
            return terrain_plan.asked(Recipe(features=features, terrain=Terrain(**settings)))  # type: ignore[arg-type]

        assert asked(["slope"]) == asked(["slope"], drainage_ha=7, flow_cells=99_999)
        assert asked(["twi"]) == asked(["twi"], drainage_ha=7)
        assert asked(["hand"]) != asked(["hand"], drainage_ha=7)
        assert asked(["twi"]) != asked(["twi"], flow_cells=99_999)
        assert asked(["slope"]) != asked(["slope"], sea_m=0)
        assert asked(["tpi"]) != asked(["tpi_wide"])


def test_bands_of_aspect_are_two() -> None:
    features = Features(preset="custom", optical=[], indices=[], radar=[], terrain=["aspect", "tpi_wide", "hand"])
    bands = [band for band in bands_of(Recipe(features=features)) if band.layer == "terrain"]
    assert [band.name for band in bands] == [
        "terrain.aspect_north",
        "terrain.aspect_east",
        "terrain.tpi_wide",
        "terrain.hand",
    ]
    assert [band.unit for band in bands] == ["1", "1", "m", "m"]
    assert KINDS["aspect"].span[1] > 1
