"""GeoTIFFs: layout, pixels, places, colours, bytes; and what a full disk gets."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.errors import WorkspaceError
from wetmap.geo import Grid
from wetmap.products.geotiff import write_cog

COLOURS = {1: "#67d0f7", 2: "#75130e", 9: "#ede9e4"}


def grid_of(height, width, crs="EPSG:32620", left=300_000.0, top=5_100_000.0, res_m=10.0):
    return Grid(crs, res_m, left, top, height, width)


def patches(height, width, codes=(0, 1, 2, 9), seed=0):
    """Class codes in patches of 7 px."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array(codes, dtype=np.uint8), (height // 7 + 1, width // 7 + 1))
    return np.kron(coarse, np.ones((7, 7), dtype=np.uint8))[:height, :width]


def write_classes(path, pixels, grid=None, **changes):
    layer = {
        "dtype": "uint8",
        "nodata": 0,
        "overview": "mode",
        "colours": COLOURS,
        "description": "class",
        "tags": {"SIMULATED": "yes"},
    }
    write_cog(path, grid or grid_of(*pixels.shape), lambda block: pixels[block.slices], **{**layer, **changes})


def write_measure(path, pixels, grid=None):
    write_cog(
        path,
        grid or grid_of(*pixels.shape),
        lambda block: pixels[block.slices],
        dtype="float32",
        nodata=float("nan"),
        overview="average",
        colours=None,
        description="confidence",
        tags={},
    )


def test_the_file_is_cloud_optimized(tmp_path):
    pixels = patches(1300, 1111)
    write_classes(tmp_path / "classes.tif", pixels)
    with rasterio.open(tmp_path / "classes.tif") as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert source.block_shapes == [(512, 512)]
        assert source.overviews(1) == [2, 4]
        assert source.nodata == 0
        assert source.descriptions == ("class",)
        assert source.tags()["SIMULATED"] == "yes"
        assert source.tags()["AREA_OR_POINT"] == "Area"
        np.testing.assert_array_equal(source.read(1), pixels)
        colours = source.colormap(1)
    assert colours[1] == (0x67, 0xD0, 0xF7, 255)
    assert colours[9] == (0xED, 0xE9, 0xE4, 255)


def test_overviews_by_mode_invent_no_class_and_by_average_mean_what_is_known(tmp_path):
    pixels = patches(1040, 1040, codes=(1, 9))
    pixels[:, 700:] = 0
    write_classes(tmp_path / "classes.tif", pixels)
    with rasterio.open(tmp_path / "classes.tif", overview_level=0) as half:
        assert half.shape == (520, 520)
        coarse = half.read(1)
    assert set(np.unique(coarse)) == {0, 1, 9}
    quads = pixels.reshape(520, 2, 520, 2).transpose(0, 2, 1, 3).reshape(520, 520, 4)
    whole = (quads == quads[..., :1]).all(axis=-1)
    np.testing.assert_array_equal(coarse[whole], quads[..., 0][whole])

    measure = np.where(np.arange(1040) % 2 == 0, 0.25, 0.75) * np.ones((1040, 1), dtype=np.float32)
    measure = measure.astype(np.float32)
    measure[::2, ::2] = np.nan
    write_measure(tmp_path / "confidence.tif", measure)
    with rasterio.open(tmp_path / "confidence.tif", overview_level=0) as half:
        np.testing.assert_allclose(half.read(1), (0.25 + 0.75 * 2) / 3, rtol=1e-6)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.integers(1, 1100), st.booleans())
def test_any_size_comes_back_pixel_for_pixel(tmp_path_factory, short, long, upright):
    shape = (long, short) if upright else (short, long)
    path = tmp_path_factory.mktemp("sizes") / "map.tif"
    pixels = patches(*shape, seed=long)
    write_classes(path, pixels)
    measure = np.random.default_rng(long).normal(size=shape).astype(np.float32)
    measure[0, 0] = np.nan
    write_measure(path.with_name("measure.tif"), measure)
    with rasterio.open(path) as classes, rasterio.open(path.with_name("measure.tif")) as measured:
        np.testing.assert_array_equal(classes.read(1), pixels)
        np.testing.assert_array_equal(measured.read(1), measure)
    assert sorted(item.name for item in path.parent.iterdir()) == ["map.tif", "measure.tif"]


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from([("EPSG:32620", 300_000.0, 5_100_000.0), ("EPSG:2953", 2_400_000.0, 7_500_000.0)]),
    st.sampled_from([0.5, 10.0, 20.0, 30.0, 12.3]),
    st.integers(-9999, 9999),
)
def test_place_comes_back_to_a_billionth(tmp_path_factory, place, res_m, steps):
    crs, left, top = place
    grid = grid_of(5, 7, crs, left + steps * res_m, top + steps * res_m, res_m)
    path = tmp_path_factory.mktemp("places") / "map.tif"
    write_classes(path, patches(5, 7), grid)
    with rasterio.open(path) as source:
        assert source.crs.to_epsg() == int(crs.split(":")[1])
        np.testing.assert_allclose(source.transform[:6], grid.transform[:6], rtol=0, atol=1e-9)
        x, y = source.xy(2, 3)
    assert (x, y) == pytest.approx((grid.x[3], grid.y[2]), abs=1e-9)


def test_same_pixels_same_bytes(tmp_path):
    pixels = patches(700, 1300)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_classes(tmp_path / name / "classes.tif", pixels, tags={"b": "é <&>", "a": "1"})
    write_classes(tmp_path / "two" / "classes.tif", pixels, tags={"a": "1", "b": "é <&>"})
    one, two = ((tmp_path / name / "classes.tif").read_bytes() for name in ("one", "two"))
    assert one == two
    with rasterio.open(tmp_path / "one" / "classes.tif") as source:
        assert source.tags()["b"] == "é <&>"


def test_windows_come_in_order_and_once(tmp_path):
    grid, seen = grid_of(1030, 600), []

    def read(block):
        seen.append((block.y0, block.x0, block.height, block.width))
        return np.ones((block.height, block.width), dtype=np.uint8)

    write_cog(
        tmp_path / "a.tif", grid, read, dtype="uint8", nodata=0, overview="mode", colours=None, description="", tags={}
    )
    rows, cols = ((0, 512), (512, 512), (1024, 6)), ((0, 512), (512, 88))
    assert seen == [(y, x, height, width) for (y, height), (x, width) in itertools.product(rows, cols)]


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 3), dtype=np.uint8), np.zeros((4, 4)), np.zeros((1, 4, 4), dtype=np.uint8)]
)
def test_pixels_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path, wrong):
    with pytest.raises(ValueError, match="r00000c00000"):
        write_cog(
            tmp_path / "a.tif",
            grid_of(4, 4),
            lambda _: wrong,
            dtype="uint8",
            nodata=0,
            overview="mode",
            colours=None,
            description="",
            tags={},
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError("the cube is gone"), KeyboardInterrupt("stop"), ValueError("odd")])
def test_what_reading_raises_comes_through_and_the_old_file_stays(tmp_path, error):
    path = tmp_path / "classes.tif"
    pixels = patches(600, 600)
    write_classes(path, pixels)
    before = path.read_bytes()

    def read(block):
        if block.row == 1:
            raise error
        return pixels[block.slices]

    with pytest.raises(type(error), match=str(error)):
        write_cog(
            path,
            grid_of(600, 600),
            read,
            dtype="uint8",
            nodata=0,
            overview="mode",
            colours=None,
            description="",
            tags={},
        )
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["classes.tif"]


def test_leftovers_of_a_kill_do_no_harm_and_go_away(tmp_path):
    for name in (".tmp-classes.tif", ".tmp-classes.tif.ovr.tmp", ".tmp-tiles-classes.tif"):
        (tmp_path / name).write_bytes(b"half a file")
    (tmp_path / ".tmp-other.tif").write_bytes(b"somebody else's")
    pixels = patches(20, 30)
    write_classes(tmp_path / "classes.tif", pixels)
    assert sorted(item.name for item in tmp_path.iterdir()) == [".tmp-other.tif", "classes.tif"]


def test_brackets_in_a_file_name_are_no_pattern(tmp_path):
    (tmp_path / ".tmp-a.tif").write_bytes(b"somebody else's")
    write_classes(tmp_path / "[ab].tif", patches(3, 3))
    assert sorted(item.name for item in tmp_path.iterdir()) == [".tmp-a.tif", "[ab].tif"]


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(WorkspaceError, match=r"nowhere.classes\.tif could not be written"):
        write_classes(tmp_path / "nowhere" / "classes.tif", patches(3, 3))


def test_a_silently_wrong_file_is_not_published(tmp_path, monkeypatch):
    """GDAL can lose a tile without a word; a file that does not read back as written gets no name."""
    copy = rasterio.shutil.copy

    def lossy(source, target, **options):
        with rasterio.open(source, "r+") as tiles:
            tiles.write(np.full((16, 16), 9, dtype=np.uint8), 1, window=((0, 16), (0, 16)))
        copy(source, target, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", lossy)
    with pytest.raises(WorkspaceError, match="not what is read back"):
        write_classes(tmp_path / "classes.tif", patches(600, 600, codes=(1, 2)))
    assert not list(tmp_path.iterdir())


WRITER = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from wetmap.errors import WorkspaceError
    from wetmap.geo import Grid
    from wetmap.products.geotiff import write_cog

    limit = int(sys.argv[2])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    noise = np.random.default_rng(0).integers(1, 255, (1000, 1000), dtype=np.uint8)
    try:
        write_cog(
            Path(sys.argv[1]), Grid("EPSG:32620", 10.0, 3e5, 5.1e6, 1000, 1000), lambda block: noise[block.slices],
            dtype="uint8", nodata=0, overview="mode", colours=None, description="", tags={},
        )
    except WorkspaceError as error:
        sys.exit(f"refused: {error}")
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes here")
@pytest.mark.parametrize("limit", [1000, 600_000, 1_020_000, 1_200_000])
def test_a_disk_that_takes_no_more_is_said_with_the_space_left(tmp_path, limit):
    """A limit on file sizes stands for the full disk: writes fail in the tiles, at their end, in the copy."""
    path = tmp_path / "classes.tif"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"refused: {path} could not be written (")
    assert "MB free" in last
    assert not list(tmp_path.iterdir())


def test_no_space_left_is_called_a_full_disk(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rasterio.shutil, "copy", full)
    with pytest.raises(WorkspaceError, match=r"The disk is full: .*classes\.tif.*MB free.*Free some space"):
        write_classes(tmp_path / "classes.tif", patches(9, 9))


@pytest.mark.slow
def test_python_memory_does_not_grow_with_the_raster(tmp_path):
    peaks = []
    for side in (1024, 4096):
        tracemalloc.start()
        write_cog(
            tmp_path / "a.tif",
            grid_of(side, side),
            lambda block: np.full((block.height, block.width), 1, dtype=np.uint8),
            dtype="uint8",
            nodata=0,
            overview="mode",
            colours=None,
            description="",
            tags={},
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2 + 1e5


def write_bands(path, pixels, names, dtype="uint8", nodata=255):
    write_cog(
        path,
        grid_of(*pixels.shape[1:]),
        lambda block: pixels[(..., *block.slices)],
        dtype=dtype,
        nodata=nodata,
        overview="average",
        colours=None,
        description=names,
        tags={"units": "percent"},
    )


@pytest.mark.parametrize("names", [("bog",), ("bog", "fen <&>", "tourbière"), ("a", "b", "c", "d"), tuple("abcdefgh")])
def test_several_bands_are_named_and_none_is_a_colour_or_a_mask(tmp_path, names):
    path = tmp_path / "probabilities.tif"
    pixels = np.random.default_rng(len(names)).integers(0, 101, (len(names), 1030, 700), dtype=np.uint8)
    pixels[:, :, 600:] = 255
    write_bands(path, pixels, names)
    with rasterio.open(path) as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.descriptions == names
        assert source.nodatavals == (255,) * len(names)
        assert {kind.name for kind in source.colorinterp} <= {"gray", "undefined"}
        assert {flag.name for flags in source.mask_flag_enums for flag in flags} == {"nodata"}
        assert all(source.overviews(band) == [2, 4] for band in source.indexes)
        assert source.tags()["units"] == "percent"
        np.testing.assert_array_equal(source.read(), pixels)
    with rasterio.open(path, overview_level=0) as half:
        coarse = half.read()
    quads = pixels.reshape(len(names), 515, 2, 350, 2).mean(axis=(2, 4))
    known = np.arange(350) < 300
    assert np.abs(coarse[..., known] - quads[..., known]).max() <= 0.5
    assert (coarse[..., ~known] == 255).all()


def test_bands_that_do_not_fit_their_names_are_refused(tmp_path):
    pixels = np.zeros((2, 4, 4), dtype=np.uint8)
    for names in (("a",), ("a", "b", "c"), "one"):
        with pytest.raises(ValueError, match="r00000c00000"):
            write_bands(tmp_path / "a.tif", pixels, names)
    with pytest.raises(ValueError, match="uint16"):
        write_bands(tmp_path / "a.tif", pixels.astype(np.float32), ("a", "b"), dtype="uint16", nodata=65535)
    assert not list(tmp_path.iterdir())
