"""A trained bundle as ONNX, and its card in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from wetmap import models
from wetmap.bundle import (
    Bundle,
    CardCalibration,
    CardHistory,
    ModelCard,
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
from wetmap.training.intervals import group_intervals
from wetmap.training.metrics import scores
from wetmap.training.points import PointScore

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


def test_an_operating_point_is_chosen_and_named(tmp_path: Path) -> None:
    bundle = trained(tmp_path / "model", "supervit-micro", window=8)
    report = export_onnx(bundle, tmp_path / "model.onnx", tokens=4, keep=0.5)
    assert report.point == "4 tokens a side, keep 0.5"
    words = {row.key: row.value for row in onnx.load(report.path).metadata_props}
    assert words["wetmap.operating_point"] == report.point


def test_the_usual_operating_point_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed at it is looked at for every model, in tests/models/test_export.py."""
    points = []

    def stand_in(network: Any, _: int) -> bytes:
        points.append(network.default_point)
        row = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "one", [row], [row])
        graph.output[0].name = "y"
        return onnx.helper.make_model(graph).SerializeToString()

    monkeypatch.setattr(onnx_file, "as_onnx", stand_in)
    monkeypatch.setattr(onnx_file, "largest_difference", lambda *_: 0.0)
    bundle = trained(tmp_path / "model", "supervit-micro", window=8)
    report = export_onnx(bundle, tmp_path / "model.onnx")
    assert report.point.endswith("tokens a side, keep 1")
    assert [point.keep for point in points] == [1]
    words = {row.key: row.value for row in onnx.load(report.path).metadata_props}
    assert words["wetmap.operating_point"] == report.point


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
        "temperature: 1.5, fitted on 40 samples of the validation fold; calibration error on the validation fold 0.200 "
        "without, 0.100 with it"
    )
    assert describe_card(card)[-1].endswith(f"SHA-256 {card.weights.sha256}")


def test_the_calibration_error_is_the_test_folds_and_worse_is_called_worse(tmp_path: Path) -> None:
    values = {"temperature": 0.8, "n": 40, "bins": 15, "ece_before": 0.2, "ece_after": 0.1}
    card = trained(tmp_path / "model", "hybridsn").card
    said = {}
    for after in (0.15, 0.31):
        calibration = CardCalibration(**values, test_ece_before=0.3, test_ece_after=after)
        said[after] = "\n".join(describe_card(card.model_copy(update={"calibration": calibration})))
    assert "calibration error on the test fold 0.300 without, 0.150 with it\n" in said[0.15]
    assert "calibration error on the test fold 0.300 without, 0.310 with it: here it did not help\n" in said[0.31]
    assert "0.200" not in said[0.15]


def test_intervals_groups_and_operating_points_are_told(tmp_path: Path) -> None:
    truth, groups = np.array([0, 1, 2, 2] * 6), np.repeat(np.arange(6), 4)
    groups[truth == 0] = 0
    names = [item.name for item in CLASSES]
    found = group_intervals(truth, truth, groups, names, seed=1)
    points = (PointScore(4, 0.5, 0.61, 300), PointScore(8, 1.0, None, 300))
    bundle = trained(tmp_path / "model", "hybridsn")
    changes = {"scores": {"hybridsn": scores(truth, truth, names)}, "intervals": {"hybridsn": found}, "points": points}
    text = "\n".join(describe_card(bundle.card.model_copy(update=changes)))
    assert "macro F1 1.000 [1.000, 1.000], accuracy 1.000 [1.000, 1.000], 24 held-out samples in 6 groups" in text
    assert "F1 by class: bog 1.000 (n 6 in 1 group), tourbière 1.000 [1.000, 1.000] (n 6 in 6 groups)" in text
    assert "intervals: [95%], over groups, which are reference features; none for fewer than 5" in text
    assert "macro F1 on the validation fold: 4 tokens a side, keep 0.5: 0.610, 8 tokens a side, keep 1: none" in text
