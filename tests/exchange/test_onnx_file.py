"""A trained bundle as ONNX, and its card in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from wetmap import models
from wetmap.bundle import (
    Bundle,
    CardCalibration,
    CardHistory,
    ModelCard,
    load_predictor,
    network_payload,
    pixel_payload,
    save_bundle,
)
from wetmap.classes import MapClass
from wetmap.cube import Band
from wetmap.errors import BundleError, UsageError
from wetmap.exchange import onnx_file
from wetmap.exchange.onnx_file import export_onnx
from wetmap.exchange.words import describe_card
from wetmap.models.forest import fit_forest
from wetmap.training.metrics import scores

BANDS = (
    Band("summer.B08", "reflectance", "1", "summer.optical"),
    Band("summer.VV_ascending", "gamma0_db", "dB", "summer.radar_ascending"),
)
LAYERS = ("summer.optical", "summer.radar_ascending")
CLASSES = (MapClass(2, "bog", "#aa5533"), MapClass(7, "tourbière", "#0d3783"), MapClass(9, "upland", "#888888", True))


def bundle_of(folder: Path, name: str, payload: Any, geometry: Any, **changes: Any) -> Bundle:
    values: dict[str, Any] = {
        "model": name,
        "options": models.option_defaults(name),
        "bands": BANDS,
        "layers": LAYERS,
        "classes": CLASSES,
        "window": 8,
        "geometry": geometry,
        "res_m": 10.0,
        "scores": {name: scores([0, 1, 2, 2], [0, 1, 2, 1], [item.name for item in CLASSES])},
        "split": "blocks of 640 m, fold 0 held out",
        "simulated": True,
        "weights": payload.file,
    }
    return save_bundle(folder, ModelCard(**(values | changes)), payload)


def trained(folder: Path, name: str, **options: Any) -> Bundle:
    torch.manual_seed(1)
    chosen = models.resolve_options(name, options)
    network: Any = models.create(name, 2, 3, layers=2, band_layer=(0, 1), **chosen)
    network.set_normalisation(torch.tensor([0.2, -12.0]), torch.tensor([0.01, 9.0]))
    return bundle_of(folder, name, network_payload(network.state_dict()), network.geometry, options=chosen)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return trained(tmp_path / "model", "hybridsn")


def test_the_file_answers_as_the_model_and_says_what_it_is(bundle: Bundle, tmp_path: Path) -> None:
    report = export_onnx(bundle, tmp_path / "out" / "model.onnx")
    assert (report.side, report.answers, report.point) == (8, "window", "")
    assert report.difference <= onnx_file.TOLERANCE
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]
    words = {row.key: row.value for row in onnx.load(report.path).metadata_props}
    assert json.loads(words["wetmap.bands"]) == ["summer.B08", "summer.VV_ascending"]
    assert json.loads(words["wetmap.units"]) == ["1", "dB"]
    assert json.loads(words["wetmap.classes"]) == ["bog", "tourbière", "upland"]
    assert json.loads(words["wetmap.codes"]) == [2, 7, 9]
    assert (words["wetmap.side_px"], words["wetmap.answers"], words["wetmap.temperature"]) == ("8", "window", "1")
    card = (bundle.folder / "model.json").read_bytes()
    assert words["wetmap.bundle_sha256"] == hashlib.sha256(card).hexdigest()
    assert words["wetmap.weights_sha256"] == bundle.card.weights.sha256
    assert json.loads(words["wetmap.card"]) == json.loads(card)


def test_a_map_can_be_made_from_it(bundle: Bundle, tmp_path: Path) -> None:
    """Window by window, as many at once as wanted, the file gives what ``wetmap predict`` maps with."""
    export_onnx(bundle, tmp_path / "model.onnx")
    predictor = load_predictor(bundle)
    side, window = predictor.geometry.side, 8
    draw = np.random.default_rng(0)
    features = draw.standard_normal((1, 2, side, side)).astype(np.float32)
    observed = draw.random((1, 2, side, side)) > 0.1
    features = np.where(observed, features, np.float32(np.nan))
    mapped = predictor.tile_probabilities(features, observed)[0]
    places = [(0, 0), (5, 40), (63, 63), (12, 7), (30, 2)]
    windows = [
        np.stack([part[0, :, r : r + window, c : c + window] for r, c in places]) for part in (features, observed)
    ]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (logits,) = session.run(None, {"features": windows[0], "observed": windows[1]})
    found = torch.from_numpy(logits).softmax(1).numpy()
    expected = np.stack([mapped[:, r, c] for r, c in places])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("tokens", "keep", "point"), [(4, 0.5, "4 tokens a side, keep 0.5"), (None, None, "keep 1")])
def test_an_operating_point_is_chosen_and_named(
    tmp_path: Path, tokens: int | None, keep: float | None, point: str
) -> None:
    bundle = trained(tmp_path / "model", "supervit-micro", window=8)
    report = export_onnx(bundle, tmp_path / "model.onnx", tokens=tokens, keep=keep)
    assert report.point.endswith(point)
    words = {row.key: row.value for row in onnx.load(report.path).metadata_props}
    assert words["wetmap.operating_point"] == report.point


def test_a_dense_network_takes_tiles(tmp_path: Path) -> None:
    bundle = trained(tmp_path / "model", "vvt-micro-dense", window=16)
    report = export_onnx(bundle, tmp_path / "model.onnx")
    assert (report.side, report.answers) == (16, "dense")
    (inner, mask) = (np.zeros((2, 2, 16, 16), dtype) for dtype in (np.float32, np.bool_))
    (logits,) = onnxruntime.InferenceSession(report.path).run(None, {"features": inner, "observed": mask})
    assert logits.shape == (2, 3, 16, 16)


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32), np.arange(20) % 3
    forest = fit_forest(x, y, classes=3, trees=2, seed=1, threads=1)
    trees = bundle_of(tmp_path / "forest", "forest", pixel_payload(forest), forest.geometry)
    target = tmp_path / "model.onnx"
    with pytest.raises(UsageError, match="forest cannot be written as ONNX: it is not a network"):
        export_onnx(trees, target)
    with pytest.raises(UsageError, match="no operating points"):
        export_onnx(bundle, target, keep=0.5)
    with pytest.raises(UsageError, match="no size of 5 tokens"):
        export_onnx(trained(tmp_path / "vit", "supervit-micro", window=8), target, tokens=5)
    with monkeypatch.context() as patch:
        patch.setattr(onnx_file, "missing_packages", lambda: ("onnxruntime",))
        with pytest.raises(
            UsageError, match=r"needs onnxruntime, which is not installed\. pip install 'wetmap\[onnx\]'"
        ):
            export_onnx(bundle, target)
    for wrong in (1e-3, float("nan")):
        monkeypatch.setattr(onnx_file, "largest_difference", lambda *_, wrong=wrong: wrong)
        with pytest.raises(BundleError, match=r"differs from PyTorch.*nothing was written"):
            export_onnx(bundle, target)
    assert not target.exists()


def test_what_is_missing_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert onnx_file.missing_packages() == ()
    monkeypatch.setattr(onnx_file, "EXTRA", ("onnx", "a_package_that_is_not_there"))
    assert onnx_file.missing_packages() == ("a_package_that_is_not_there",)


def test_the_card_is_told_in_plain_words(tmp_path: Path) -> None:
    bundle = trained(tmp_path / "model", "hybridsn")
    calibration = CardCalibration(temperature=1.5, n=40, bins=15, ece_before=0.2, ece_after=0.1)
    history = CardHistory(epochs=4, best_epoch=2, best_validation_macro_f1=0.7)
    card = bundle.card.model_copy(update={"calibration": calibration, "history": history})
    assert "\n".join(describe_card(card)[:-1]) == (
        "model: hybridsn (window 8, dropout 0.4), trained on SIMULATED data\n"
        "bands (2): summer.optical: summer.B08; summer.radar_ascending: summer.VV_ascending [dB]\n"
        "classes (3): 2 bog, 7 tourbière, 9 upland\n"
        "window: 8 x 8 pixels of 10 m; maps in tiles of 64 pixels with 4 around\n"
        "score of hybridsn: macro F1 0.778, accuracy 0.750, 4 held-out samples\n"
        "F1 by class: bog 1.000 (n 1), tourbière 0.667 (n 1), upland 0.667 (n 2)\n"
        "split: blocks of 640 m, fold 0 held out\n"
        "training: 4 epochs, the best was epoch 3\n"
        "temperature: 1.5; calibration error 0.200 without, 0.100 with it"
    )
    assert describe_card(card)[-1].endswith(f"SHA-256 {card.weights.sha256}")
