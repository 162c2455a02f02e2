"""Reading onto the grid: where pixels lie, what becomes of nodata, and that no window leaves a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

from tests.fakes.tiny_archive import write_raster
from wetmap.errors import SourceError
from wetmap.geo import Grid
from wetmap.sources.reader import RasterBand, read_onto

UTM19, UTM20, DOUBLE_STEREOGRAPHIC = "EPSG:32619", "EPSG:32620", "EPSG:2953"
LEFT, TOP = 700_000.0, 5_010_000.0


def noise(side: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((side, side)).astype(np.float32)


def utm(folder: Path, values: NDArray[Any], res: float, name: str = "a.tif", nodata: float | None = None) -> RasterBand:
    path = write_raster(folder / name, values, Affine(res, 0, LEFT, 0, -res, TOP), crs=UTM19, nodata=nodata)
    return RasterBand(str(path))


def grid(res: float, height: int, width: int, *, x0: float = 0.0, y0: float = 0.0) -> Grid:
    return Grid(UTM19, res, LEFT + x0, TOP - y0, height, width)


def stitched(source: RasterBand, whole: Grid, side: int) -> NDArray[np.float32]:
    out = np.full(whole.shape, -1, dtype=np.float32)
    for block in whole.blocks(side):
        out[block.slices] = read_onto(source, whole.window(block.y0, block.x0, block.height, block.width))
    return out


class TestPlace:
    @pytest.mark.parametrize("res", [10.0, 20.0, 30.0, 5.0])
    def test_ramp_of_coordinates_gives_the_grids_own_x_and_y(self, tmp_path: Path, res: float) -> None:
        """Half-pixel test: pixel values are the source's pixel-centre coordinates, in pixels of the grid."""
        side = int(960 / res)
        centres = (np.arange(side) + 0.5) * res / 10
        x, y = np.meshgrid(centres, centres)
        across, down = utm(tmp_path, x, res, "x.tif"), utm(tmp_path, y, res, "y.tif")
        window = grid(10, 40, 50, x0=100, y0=200)
        expected_x = (window.x - LEFT) / 10
        expected_y = (TOP - window.y) / 10
        np.testing.assert_allclose(read_onto(across, window), np.broadcast_to(expected_x, window.shape), atol=1e-6)
        np.testing.assert_allclose(
            read_onto(down, window), np.broadcast_to(expected_y[:, None], window.shape), atol=1e-6
        )

    @pytest.mark.parametrize("crs", [UTM20, DOUBLE_STEREOGRAPHIC, "EPSG:4326"])
    def test_ramp_in_another_crs(self, tmp_path: Path, crs: str) -> None:
        """The ramp holds the grid's x at the source's pixel centres: reading it back must give x, to a hundredth."""
        to = Transformer.from_crs(UTM19, crs, always_xy=True)
        window = grid(10, 60, 60)
        corners = to.transform(
            [LEFT - 300, LEFT + 900, LEFT - 300, LEFT + 900], [TOP + 300, TOP + 300, TOP - 900, TOP - 900]
        )
        step = 10.0 if crs != "EPSG:4326" else 10 / 111_320
        left, top = min(corners[0]), max(corners[1])
        width, height = int((max(corners[0]) - left) / step), int((top - min(corners[1])) / step)
        x, y = np.meshgrid(left + (np.arange(width) + 0.5) * step, top - (np.arange(height) + 0.5) * step)
        east, north = to.transform(x, y, direction="INVERSE")
        source = Affine(step, 0, left, 0, -step, top)
        columns = RasterBand(str(write_raster(tmp_path / "x.tif", (east - LEFT) / 10, source, crs=crs)))
        rows = RasterBand(str(write_raster(tmp_path / "y.tif", (TOP - north) / 10, source, crs=crs)))
        across, down = np.meshgrid(np.arange(60) + 0.5, np.arange(60) + 0.5)
        np.testing.assert_allclose(read_onto(columns, window), across, atol=0.001)
        np.testing.assert_allclose(read_onto(rows, window), down, atol=0.001)

    def test_same_lattice_is_a_copy(self, tmp_path: Path) -> None:
        values = noise(50)
        got = read_onto(utm(tmp_path, values, 10), grid(10, 20, 30, x0=70, y0=120))
        np.testing.assert_array_equal(got, values[12:32, 7:37])

    def test_twenty_metres_to_ten_by_hand(self, tmp_path: Path) -> None:
        values = np.array([[0.0, 8.0], [16.0, 32.0]])
        got = read_onto(utm(tmp_path, values, 20), grid(10, 4, 4))
        # Between centres 3/4 + 1/4; beyond the outermost centres the outermost value.
        np.testing.assert_array_equal(got[0], [0, 2, 6, 8])
        assert got[1, 1] == 0.75 * 2 + 0.25 * (0.75 * 16 + 0.25 * 32)

    def test_close_to_gdals_bilinear(self, tmp_path: Path) -> None:
        smooth = np.sin(np.arange(80)[:, None] / 6) * np.cos(np.arange(80)[None, :] / 5)
        source = utm(tmp_path, smooth.astype(np.float32), 10)
        window = Grid(DOUBLE_STEREOGRAPHIC, 10.0, 0, 0, 40, 40)
        x, y = Transformer.from_crs(UTM19, DOUBLE_STEREOGRAPHIC, always_xy=True).transform(LEFT + 200, TOP - 200)
        window = Grid(DOUBLE_STEREOGRAPHIC, 10.0, round(x, -1), round(y, -1), 40, 40)
        theirs = np.full(window.shape, np.nan, dtype=np.float32)
        with rasterio.open(source.href) as dataset:
            reproject(
                rasterio.band(dataset, 1),
                theirs,
                dst_transform=window.transform,
                dst_crs=window.crs,
                dst_nodata=np.nan,
                resampling=Resampling.bilinear,
                tolerance=0.0,
            )
        np.testing.assert_allclose(read_onto(source, window), theirs, atol=2e-3)


class TestCoarser:
    def test_nested_lattice_is_the_plain_mean(self, tmp_path: Path) -> None:
        values = noise(60)
        got = read_onto(utm(tmp_path, values, 10), grid(30, 20, 20))
        np.testing.assert_allclose(got, values.reshape(20, 3, 20, 3).mean(axis=(1, 3)), rtol=1e-6)

    def test_mean_leaves_out_what_is_not_observed(self, tmp_path: Path) -> None:
        values = np.array([[1, 3, 5, 255], [255, 3, 255, 255]], dtype=np.uint8)
        got = read_onto(utm(tmp_path, values, 10, nodata=255), grid(20, 1, 2))
        assert got[0, 0] == pytest.approx(7 / 3)
        assert np.isnan(got[0, 1])

    def test_classes_are_never_averaged(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).choice(np.array([3, 9], dtype=np.uint8), (60, 60))
        band = utm(tmp_path, values, 10)
        nearest = RasterBand(band.href, resampling="nearest")
        for res in (10.0, 20.0, 30.0, 5.0):
            got = read_onto(nearest, grid(res, int(400 / res), int(400 / res), x0=60, y0=60))
            assert set(np.unique(got)) == {3.0, 9.0}


class TestNodata:
    def test_footprint_neither_grows_nor_shrinks_and_nothing_bleeds(self, tmp_path: Path) -> None:
        values = np.full((20, 20), 500, dtype=np.int16)
        values[5:10, 8] = -9999
        got = read_onto(utm(tmp_path, values, 20, nodata=-9999), grid(10, 40, 40))
        expected = np.full((40, 40), 500.0)
        expected[10:20, 16:18] = np.nan
        np.testing.assert_array_equal(got, expected)

    def test_zero_is_a_value(self, tmp_path: Path) -> None:
        got = read_onto(utm(tmp_path, np.zeros((8, 8), dtype=np.int16), 10), grid(10, 8, 8))
        assert (got == 0).all()

    def test_declared_nodata_and_what_convert_makes_nan(self, tmp_path: Path) -> None:
        band = utm(tmp_path, np.array([[1.0, 2.0, 3.0, np.nan]]), 10)
        got = read_onto(RasterBand(band.href, nodata=2.0), grid(10, 1, 4), lambda v: np.where(v == 3, np.nan, v * 10))
        np.testing.assert_array_equal(got, [[10, np.nan, np.nan, np.nan]])

    def test_outside_is_nan(self, tmp_path: Path) -> None:
        band = utm(tmp_path, np.ones((4, 4)), 10)
        got = read_onto(band, grid(10, 8, 8, x0=-20, y0=-20))
        expected = np.full((8, 8), np.nan)
        expected[2:6, 2:6] = 1
        np.testing.assert_array_equal(got, expected)
        assert np.isnan(read_onto(band, grid(10, 8, 8, x0=500))).all()


class TestNoTrace:
    """The same pixel gets the same bits in every window."""

    @pytest.mark.parametrize(
        ("source_crs", "source_res", "res"),
        [
            (UTM19, 20.0, 10.0),
            (UTM19, 7.3, 10.0),
            (UTM19, 10.0, 30.0),
            (UTM20, 10.0, 10.0),
            (UTM20, 4.0, 10.0),
            (UTM19, 10.0, 3.3),
        ],
    )
    def test_windows(self, tmp_path: Path, source_crs: str, source_res: float, res: float) -> None:
        left, top = Transformer.from_crs(UTM19, source_crs, always_xy=True).transform(LEFT, TOP)
        values = noise(200)
        values[50:60, 20:90] = np.nan
        path = write_raster(
            tmp_path / "a.tif", values, Affine(source_res, 0, left, 0, -source_res, top), crs=source_crs
        )
        source = RasterBand(str(path))
        col, row = round(LEFT / res), round(TOP / res)
        whole = Grid(UTM19, res, col * res, row * res, 53, 61)
        expected = read_onto(source, whole)
        assert np.isfinite(expected).sum() > 500
        for side in (64, 17, 7):
            np.testing.assert_array_equal(stitched(source, whole, side), expected)

    def test_strips(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = utm(tmp_path, noise(120), 10)
        window = grid(30, 30, 30, x0=30, y0=60)
        expected = read_onto(source, window)
        monkeypatch.setattr("wetmap.sources.reader.STRIP_PIXELS", 700)
        np.testing.assert_array_equal(read_onto(source, window), expected)

    @settings(max_examples=15, deadline=None)
    @given(
        y0=st.integers(0, 30),
        x0=st.integers(0, 30),
        height=st.integers(1, 30),
        width=st.integers(1, 30),
        seed=st.integers(0, 9),
    )
    def test_any_window_in_another_crs(
        self, tmp_path_factory: pytest.TempPathFactory, y0: int, x0: int, height: int, width: int, seed: int
    ) -> None:
        left, top = Transformer.from_crs(UTM19, UTM20, always_xy=True).transform(LEFT, TOP)
        folder = tmp_path_factory.mktemp("any")
        path = write_raster(folder / "a.tif", noise(90, seed), Affine(10, 0, left, 0, -10, top), crs=UTM20)
        whole = grid(10, 60, 60, x0=100, y0=100)
        expected = read_onto(RasterBand(str(path)), whole)[y0 : y0 + height, x0 : x0 + width]
        np.testing.assert_array_equal(read_onto(RasterBand(str(path)), whole.window(y0, x0, height, width)), expected)


class TestTrouble:
    def test_file_without_crs(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8", transform=Affine(1, 0, 5, 0, -1, 5)
        ) as out:
            out.write(np.ones((1, 2, 2), dtype=np.uint8))
        with pytest.raises(SourceError, match="has no CRS"):
            read_onto(RasterBand(str(path)), grid(10, 2, 2))

    def test_band_that_is_not_there(self, tmp_path: Path) -> None:
        band = utm(tmp_path, np.ones((2, 2)), 10)
        with pytest.raises(SourceError, match="has 1 band, and band 3"):
            read_onto(RasterBand(band.href, band=3), grid(10, 2, 2))

    def test_damaged_file(self, tmp_path: Path) -> None:
        band = utm(tmp_path, noise(64), 10)
        data = Path(band.href).read_bytes()
        Path(band.href).write_bytes(data[: len(data) // 2])
        with pytest.raises(
            SourceError, match=r"a\.tif cannot be read \(not all of it arrived, or it is damaged: "
        ) as caught:
            read_onto(band, grid(10, 64, 64))
        said = str(caught.value)
        assert said.count(band.href) == 1
        assert "previous exception" not in said

    @pytest.mark.parametrize(("text", "told"), [(None, "it is not there"), ("x", "it is no raster that can be read")])
    def test_a_file_that_is_none_is_named_once(self, tmp_path: Path, text: str | None, told: str) -> None:
        path = tmp_path / "none.tif"
        if text is not None:
            path.write_text(text)
        with pytest.raises(SourceError) as caught:
            read_onto(RasterBand(str(path)), grid(10, 4, 4))
        assert f"{path} cannot be read ({told}" in str(caught.value)
        assert str(caught.value).count(str(path)) == 1
