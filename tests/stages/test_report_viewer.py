"""What the report's map lies on, from a cube on disk."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from wetmap.cube import Band, Cube
from wetmap.geo import Grid
from wetmap.recipe import Season
from wetmap.stages import report_viewer
from wetmap.stages.context import Silent

SPRING = Season(name="spring", start=dt.date(2021, 4, 1), end=dt.date(2021, 5, 31))
SUMMER = Season(name="summer", start=dt.date(2021, 6, 15), end=dt.date(2021, 8, 31))
WINTER = Season(name="winter", start=dt.date(2021, 12, 1), end=dt.date(2022, 2, 28))
SIDE = 96


def bands(seasons: list[str], colours: tuple[str, ...] = ("B02", "B03", "B04", "B08"), *, heights: bool) -> list[Band]:
    found = [Band(f"{s}.{name}", "reflectance", "1", f"{s}.optical") for s in seasons for name in colours]
    return found + ([Band("terrain.elevation", "elevation", "m", "terrain")] if heights else [])


def cube_of(path: Path, rows: list[Band], seen: dict[str, float], shape: tuple[int, int] = (SIDE, SIDE)) -> Cube:
    """A cube: reflectance grows to the east, the land rises to the south; of each layer the upper share is seen."""
    grid = Grid("EPSG:32620", 10.0, 400_000.0, 5_100_000.0, *shape)
    seasons = [name.removesuffix(".optical") for name in seen if name.endswith(".optical")]
    cube = Cube.create(path, grid, rows, seasons, block_px=64, simulated=True)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    for block in grid.blocks(64):
        at = block.slices
        values = np.stack([y[at] / 4 if row.kind == "elevation" else x[at] / 500 for row in rows])
        observed = np.stack([y[at] < shape[0] * seen[layer] for layer in cube.layers])
        for number, row in enumerate(rows):
            values[number][~observed[cube.layers.index(row.layer)]] = np.nan
        cube.write_block(block, values, observed, np.ones((len(seasons), *values.shape[1:]), np.uint16))
    return cube


def season_of(path: Path, seen: dict[str, float], *seasons: Season, southern: bool = False) -> str | None:
    rows = bands([season.name for season in seasons], heights=False)
    return report_viewer.best_season(cube_of(path, rows, seen), seasons, southern=southern)


def test_the_season_is_the_one_in_leaf_if_it_was_seen(tmp_path: Path) -> None:
    both = {"spring.optical": 1.0, "summer.optical": 0.97}
    assert season_of(tmp_path / "a", both, SPRING, SUMMER) == "summer"
    assert season_of(tmp_path / "b", {**both, "summer.optical": 0.6}, SPRING, SUMMER) == "spring"
    three = {**both, "winter.optical": 1.0}
    assert season_of(tmp_path / "c", three, SPRING, SUMMER, WINTER) == "summer"
    assert season_of(tmp_path / "d", three, SPRING, SUMMER, WINTER, southern=True) == "winter"


def test_without_red_green_and_blue_there_is_no_true_colour(tmp_path: Path) -> None:
    rows = bands(["summer"], ("B04", "B08"), heights=False)
    cube = cube_of(tmp_path / "a", rows, {"summer.optical": 1.0})
    assert report_viewer.best_season(cube, [SUMMER]) is None
    assert report_viewer._pictures(SimpleNamespace(listener=Silent()), cube, None) == []


def test_pictures_show_the_cube_whatever_the_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = bands(["summer"], heights=True)
    cube = cube_of(tmp_path / "a", rows, {"summer.optical": 0.5, "terrain": 1.0})
    context = SimpleNamespace(listener=Silent())
    whole = report_viewer._pictures(context, cube, "summer")
    # the land rises 1 m in 40: 35 degrees want heights 28 times as high, and 20 is the most
    assert [row.title for row in whole] == ["True colour, summer", "Shaded relief (heights \u00d7\u202f20)"]
    colour, relief = (np.asarray(Image.open(io.BytesIO(row.jpeg)).convert("RGB")).astype(int) for row in whole)
    assert colour.shape == relief.shape == (SIDE, SIDE, 3)
    assert (np.diff(colour[10, ::8].mean(axis=1)) > 5).sum() >= 10  # brighter to the east
    assert abs(colour[60:] - (238, 241, 239)).max() < 8  # not seen
    monkeypatch.setattr(report_viewer, "WINDOW_PX", 32)
    assert report_viewer._pictures(context, cube, "summer") == whole
    monkeypatch.setattr(report_viewer, "PICTURE_PX", 24)
    small = report_viewer._pictures(context, cube, "summer")
    assert Image.open(io.BytesIO(small[0].jpeg)).size == (24, 24)


def test_a_part_of_the_bands_is_what_the_whole_has(tmp_path: Path) -> None:
    rows = bands(["summer"], heights=True)
    cube = cube_of(tmp_path / "a", rows, {"summer.optical": 0.5, "terrain": 1.0}, (70, 100))
    for block in cube.grid.blocks(50):
        every = cube.read_features(block.y0, block.x0, block.height, block.width)
        np.testing.assert_array_equal(cube.read_bands(block, [4, 2, 0]), every[[4, 2, 0]])
