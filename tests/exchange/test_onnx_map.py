"""Maps from an ONNX file by the lines of docs/how-to/public-weights.md, which know nothing but the file and a cube."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from tests.exchange.test_onnx_file import bundle_of
from wetmap import models
from wetmap.bundle import Bundle, CardCalibration, load_predictor, network_payload
from wetmap.cube import Cube
from wetmap.exchange.onnx_file import OnnxReport, export_onnx

PAGE = Path(__file__).parents[2] / "docs/how-to/public-weights.md"
#: Height and width of the grid; no multiple of a step or of a tile.
SHAPE = (30, 26)

MapPart = Callable[..., tuple[NDArray[np.int64], NDArray[np.float64]]]


@dataclass
class Grid:
    """A cube of two bands and two layers, a tenth of it unobserved."""

    features: NDArray[np.float32]
    observed: NDArray[np.bool_]

    @property
    def grid(self) -> Any:
        height, width = self.features.shape[1:]
        return SimpleNamespace(height=height, width=width, shape=(height, width))

    def read_window(self, y0: int, x0: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        whole = self.padded(40)
        return tuple(part[:, 40 + y0 : 40 + y0 + height, 40 + x0 : 40 + x0 + width] for part in whole)  # type: ignore[return-value]

    def padded(self, by: int, **how: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        around = ((0, 0), (by, by), (by, by))
        if how:
            return np.pad(self.features, around, **how), np.pad(self.observed, around, **how)
        return np.pad(self.features, around, constant_values=np.nan), np.pad(self.observed, around)


@pytest.fixture(scope="module")
def cube() -> Grid:
    draw = np.random.default_rng(3)
    observed = draw.random((2, *SHAPE)) > 0.1
    features = draw.standard_normal((2, *SHAPE)).astype(np.float32)
    return Grid(np.where(observed, features, np.float32(np.nan)), observed)


@pytest.fixture(scope="module")
def map_part() -> MapPart:
    """The function of the page."""
    (text,) = (fence for fence in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "def map_part" in fence)
    names: dict[str, Any] = {}
    exec(compile(text.partition("\nsession = ")[0], str(PAGE), "exec"), names)  # noqa: S102 - of our own page
    assert names["Cube"] is Cube
    found: MapPart = names["map_part"]
    return found


def exported(folder: Path, name: str, **options: Any) -> tuple[Bundle, OnnxReport]:
    """A network whose answers depend much on what is around a pixel, with a temperature, and its ONNX file."""
    torch.manual_seed(1)
    chosen = models.resolve_options(name, options)
    network: Any = models.create(name, 2, 3, layers=2, band_layer=(0, 1), **chosen)
    network.set_normalisation(torch.tensor([0.1, -0.2]), torch.tensor([1.0, 0.5]))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    calibration = CardCalibration(temperature=1.7, n=9, bins=15, ece_before=0.2, ece_after=0.1)
    payload = network_payload(network.state_dict())
    bundle = bundle_of(folder / "model", name, payload, network.geometry, options=chosen, calibration=calibration)
    return bundle, export_onnx(bundle, folder / "model.onnx")


def mapped(bundle: Bundle, cube: Grid) -> NDArray[np.float32]:
    """What ``wetmap predict`` would map: probabilities (K, height, width) of the whole grid."""
    predictor = load_predictor(bundle)
    tile, margin = predictor.geometry.tile, predictor.geometry.margin
    assert max(SHAPE) <= tile
    features, observed = cube.padded(tile, mode="edge") if predictor.geometry.beyond == "nearest" else cube.padded(tile)
    part = slice(tile - margin, 2 * tile + margin)
    found = predictor.tile_probabilities(features[None, :, part, part], observed[None, :, part, part])
    return found[0, :, : SHAPE[0], : SHAPE[1]]


def test_windows_that_overlap_are_blended_by_what_the_file_says(tmp_path: Path, cube: Grid, map_part: MapPart) -> None:
    bundle, report = exported(tmp_path, "vvt-micro-dense", window=16)
    assert (report.side, report.answers, report.placing.step, report.placing.first) == (16, "dense", 12, 0)
    assert "tiles begin every 12 px and overlap, and their probabilities are blended" in report.lines[1]
    expected = mapped(bundle, cube)
    session = onnxruntime.InferenceSession(report.path)
    codes, probabilities = map_part(session, cube, 0, 0, *SHAPE)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert np.array_equal(codes, np.array([2, 7, 9])[expected.argmax(axis=0)])
    part = map_part(session, cube, 5, 9, 7, 4)[1]
    np.testing.assert_allclose(part, probabilities[:, 5:12, 9:13], atol=1e-6)


def test_windows_answer_for_their_labelled_pixel(tmp_path: Path, cube: Grid, map_part: MapPart) -> None:
    bundle, report = exported(tmp_path, "hybridsn")
    assert (report.placing.step, report.placing.first, report.placing.labelled) == (1, -4, 4)
    assert "row and column 4 of it" in report.lines[1]
    session = onnxruntime.InferenceSession(report.path)
    np.testing.assert_allclose(map_part(session, cube, 0, 0, 9, 26)[1], mapped(bundle, cube)[:, :9], atol=1e-4)


def test_tiles_side_by_side_keep_what_their_margin_leaves() -> None:
    from wetmap.exchange.onnx_file import placing

    network: Any = models.create("unet", 2, 3, layers=2, band_layer=(0, 1))
    tile, margin = network.geometry.tile, network.geometry.margin
    placed = placing(network, network.geometry.side, "dense")
    assert (placed.step, placed.first, placed.labelled, placed.beyond) == (tile, -margin, None, "nearest")
    assert placed.weights == (0.0,) * margin + (1.0,) * tile + (0.0,) * margin
    assert not placed.overlaps
    assert str(placed) == f"tiles begin every {tile} px"
