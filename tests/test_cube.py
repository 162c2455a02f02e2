"""The cube: half a step, masks apart from values, windows beyond the grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.cube import KINDS, Band, Cube, bands_of, pack, unpack
from wetmap.errors import WorkspaceError
from wetmap.geo import Grid
from wetmap.recipe import Recipe

GRID = Grid("EPSG:32620", 10.0, 388000.0, 5084000.0, 50, 70)


@settings(deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), share=st.floats(-0.999, 0.999))
def test_at_rest_a_value_moves_by_half_a_step_at_most(kind: str, share: float) -> None:
    low, high = KINDS[kind].span
    value = (low + high) / 2 + share * (high - low) / 2
    band = Band("x", kind, KINDS[kind].unit, "l")
    values = np.array([[[value, np.nan, 0.0]]], dtype=np.float32)
    back = unpack(pack(values, [band]), [band])
    assert abs(float(back[0, 0, 0]) - value) <= KINDS[kind].step * 0.5 + abs(value) * 1e-6
    assert np.isnan(back[0, 0, 1])
    assert abs(float(back[0, 0, 2])) <= KINDS[kind].step / 2


def test_values_beyond_the_span_are_clipped_and_never_become_unobserved() -> None:
    band = Band("x", "reflectance", "1", "l")
    back = unpack(pack(np.array([[[-99.0, 99.0]]], dtype=np.float32), [band]), [band])
    np.testing.assert_allclose(back[0, 0], [-3.2767, 3.2767], rtol=1e-6)


def make(path: Path) -> tuple[Cube, np.ndarray, np.ndarray]:
    bands = bands_of(Recipe())
    cube = Cube.create(path, GRID, bands, ["summer"], block_px=32, simulated=True)
    rng = np.random.default_rng(1)
    features = rng.uniform(-0.5, 0.5, (16, *GRID.shape)).astype(np.float32)
    features[:, 10:20, 10:20] = np.nan
    observed = rng.random((3, *GRID.shape)) > 0.5
    for block in GRID.blocks(32):
        rows, cols = block.slices
        count = np.full((1, block.height, block.width), 3, dtype=np.uint16)
        cube.write_block(block, features[:, rows, cols], observed[:, rows, cols], count)
    return cube, features, observed


def test_windows_inside_and_beyond(tmp_path: Path) -> None:
    _, features, observed = make(tmp_path / "cube.zarr")
    cube = Cube.open(tmp_path / "cube.zarr")
    assert cube.simulated
    assert cube.grid == GRID
    values, seen = cube.read_window(-5, 60, 20, 30)
    assert values.shape == (16, 20, 30)
    assert np.isnan(values[:, :5]).all()
    assert np.isnan(values[:, :, 10:]).all()
    assert not seen[:, :5].any()
    np.testing.assert_array_equal(seen[:, 5:, :10], observed[:, :15, 60:])
    np.testing.assert_allclose(values[:12, 5:, :10], features[:12, :15, 60:], atol=5.1e-5)
    far, nothing = cube.read_window(500, 500, 4, 4)
    assert np.isnan(far).all()
    assert not nothing.any()


def test_same_blocks_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr")
    make(tmp_path / "b.zarr")
    for path in sorted((tmp_path / "a.zarr").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b.zarr" / path.relative_to(tmp_path / "a.zarr")).read_bytes()


def test_create_continues_and_open_refuses_what_is_not_a_cube(tmp_path: Path) -> None:
    cube, *_ = make(tmp_path / "cube.zarr")
    again = Cube.create(tmp_path / "cube.zarr", GRID, cube.bands, ["summer"], block_px=32, simulated=True)
    values, _ = again.read_window(0, 0, 4, 4)
    assert np.isfinite(values).all()
    with pytest.raises(WorkspaceError, match="not a feature cube"):
        Cube.open(tmp_path / "none.zarr")
