from __future__ import annotations

import datetime as dt
import errno
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wetmap import models
from wetmap.bundle import (
    Bundle,
    CardCalibration,
    CardHistory,
    CardSeason,
    ModelCard,
    Payload,
    check_fits,
    load_bundle,
    load_predictor,
    network_payload,
    pixel_payload,
    save_bundle,
)
from wetmap.classes import MapClass
from wetmap.cube import Band
from wetmap.errors import BundleError, UsageError, WorkspaceError
from wetmap.models.contract import Geometry
from wetmap.models.forest import ForestSettings, fit_forest
from wetmap.models.pixels import PixelModel, PixelSamples, fit_pixel_model
from wetmap.training.metrics import scores

BANDS = (
    Band("summer.B08", "reflectance", "1", "summer.optical"),
    Band("summer.NDVI", "index", "1", "summer.optical"),
    Band("summer.VV_ascending", "gamma0_db", "dB", "summer.radar_ascending"),
)
LAYERS = ("summer.optical", "summer.radar_ascending")
CLASSES = (MapClass(2, "bog", "#aa5533"), MapClass(7, "tourbière", "#0d3783"), MapClass(9, "upland", "#888888", True))
WINDOW_MODEL = "wetmapformer-window"


def _card(payload: Payload, model: str, geometry: Geometry, **changes: Any) -> ModelCard:
    values: dict[str, Any] = {
        "model": model,
        "options": models.option_defaults(model),
        "bands": BANDS,
        "layers": LAYERS,
        "classes": CLASSES,
        "window": 8,
        "geometry": geometry,
        "res_m": 10.0,
        "seasons": (CardSeason(name="summer", start=dt.date(2021, 6, 1), end=dt.date(2021, 9, 30)),),
        "scores": {model: scores([0, 1, 2, 2], [0, 1, 2, 1], [item.name for item in CLASSES])},
        "split": "blocks of 640 m, 5 folds, fold 0 held out",
        "history": CardHistory(epochs=4, best_epoch=2, best_validation_macro_f1=0.7),
        "simulated": True,
        "versions": {"wetmap": "0.1.0"},
        "weights": payload.file,
    }
    return ModelCard(**(values | changes))


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = models.create(WINDOW_MODEL, 3, 3, layers=2, band_layer=(0, 0, 1))
    model.set_normalisation(torch.tensor([0.2, 0.5, -12.0]), torch.tensor([0.01, 0.04, 9.0]))
    return model.eval()


@pytest.fixture(scope="module")
def payload(network: torch.nn.Module) -> Payload:
    return network_payload(network.state_dict())


@pytest.fixture
def saved(tmp_path: Path, network: torch.nn.Module, payload: Payload) -> Bundle:
    return save_bundle(tmp_path / "model", _card(payload, WINDOW_MODEL, network.geometry), payload)


def _tile(geometry: Geometry, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    observed = generator.random((2, 2, geometry.side, geometry.side)) > 0.1
    features = generator.standard_normal((2, 3, geometry.side, geometry.side)).astype(np.float32)
    return np.where(observed[:, [0, 0, 1]], features, np.float32(np.nan)), observed


def _edit(saved: Bundle, change: Callable[[dict[str, Any]], Any]) -> None:
    path = saved.folder / "model.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_a_network_comes_back_whole(saved: Bundle, network: torch.nn.Module) -> None:
    found = load_bundle(saved.folder)
    assert found == saved
    assert sorted(path.name for path in saved.folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert found.card.band_layer == (0, 0, 1)
    assert found.card.class_names == ("bog", "tourbière", "upland")
    assert found.card.classes == CLASSES
    assert found.card.scores[WINDOW_MODEL].overall_accuracy == 0.75
    predictor = load_predictor(found)
    assert predictor.geometry == network.geometry
    features, observed = _tile(predictor.geometry)
    probabilities = predictor.tile_probabilities(features, observed)
    assert probabilities.shape == (2, 3, predictor.geometry.tile, predictor.geometry.tile)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    mine = network.tile_probabilities(torch.from_numpy(features), torch.from_numpy(observed)).numpy()
    np.testing.assert_allclose(probabilities, mine, atol=1e-6)


def test_a_forest_comes_back_whole(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((60, 3)).astype(np.float32), np.arange(60) % 3
    settings = ForestSettings(layers=2, band_layer=(0, 0, 1))
    forest = fit_forest(x, y, classes=3, trees=5, seed=1, threads=1, settings=settings)
    payload = pixel_payload(forest)
    save_bundle(tmp_path / "forest", _card(payload, "forest", forest.geometry, window=1), payload)
    predictor = load_predictor(load_bundle(tmp_path / "forest"))
    features, observed = _tile(predictor.geometry)
    probabilities = predictor.tile_probabilities(features, observed)
    assert probabilities.dtype == np.float32
    mine = forest.tile_probabilities(torch.from_numpy(features), torch.from_numpy(observed)).numpy()
    np.testing.assert_array_equal(probabilities, mine)


def test_the_cards_temperature_divides_the_logits(
    tmp_path: Path, network: torch.nn.Module, payload: Payload, saved: Bundle
) -> None:
    features, observed = _tile(network.geometry)
    plain = load_predictor(saved).tile_probabilities(features, observed)
    answers: dict[float, np.ndarray] = {}
    for temperature in (1.0, 2.0):
        calibration = CardCalibration(temperature=temperature, n=40, bins=15, ece_before=0.2, ece_after=0.1)
        card = _card(payload, WINDOW_MODEL, network.geometry, calibration=calibration)
        save_bundle(tmp_path / "warm", card, payload)
        bundle = load_bundle(tmp_path / "warm")
        assert bundle.card.calibration == calibration
        answers[temperature] = load_predictor(bundle).tile_probabilities(features, observed)
    assert answers[1.0].tobytes() == plain.tobytes()
    expected = torch.from_numpy(plain).double().log().div(2).softmax(1).float().numpy()
    np.testing.assert_allclose(answers[2.0], expected, rtol=1e-6)
    assert (answers[2.0].max(axis=1) < plain.max(axis=1)).all()
    np.testing.assert_array_equal(answers[2.0].argmax(axis=1), plain.argmax(axis=1))


def test_a_card_from_before_temperatures_still_loads(saved: Bundle) -> None:
    _edit(saved, lambda data: data.pop("calibration"))
    assert load_bundle(saved.folder).card == saved.card


def _boosting(classes: int = 3) -> PixelModel:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((90, 3)).astype(np.float32), np.arange(90) % 3
    samples = PixelSamples(x + y[:, None].astype(np.float32), y, classes, 2, (0, 0, 1))
    return fit_pixel_model("boosting", samples, options={"trees": 4}, seed=1, threads=1)


def test_boosting_comes_back_whole(tmp_path: Path) -> None:
    boosting = _boosting()
    payload = pixel_payload(boosting)
    save_bundle(tmp_path / "boosting", _card(payload, "boosting", boosting.geometry, window=1), payload)
    assert sorted(path.name for path in (tmp_path / "boosting").iterdir()) == ["boosting.safetensors", "model.json"]
    bundle = load_bundle(tmp_path / "boosting")
    assert bundle.card.options == {"trees": 100, "learning_rate": 0.1, "leaves": 31, "class_weight": "balanced"}
    predictor = load_predictor(bundle, threads=2)
    features, observed = _tile(predictor.geometry)
    probabilities = predictor.tile_probabilities(features, observed)
    assert probabilities.dtype == np.float32
    mine = boosting.tile_probabilities(torch.from_numpy(features), torch.from_numpy(observed)).numpy()
    np.testing.assert_array_equal(probabilities, mine)


def test_boosting_of_other_classes_is_refused(tmp_path: Path) -> None:
    boosting = _boosting(classes=4)
    payload = pixel_payload(boosting)
    saved = save_bundle(tmp_path / "boosting", _card(payload, "boosting", boosting.geometry), payload)
    with pytest.raises(BundleError, match="model boosting is of 3 bands, 2 layers and 4 classes, and its card of 3, 2"):
        load_predictor(saved)


@pytest.mark.parametrize("name", ["forest.skops", "boosting.safetensors"])
def test_a_network_under_the_name_of_trees_is_refused(tmp_path: Path, payload: Payload, name: Any) -> None:
    other = Payload(name, payload.data)
    saved = save_bundle(tmp_path / "model", _card(other, "forest", Geometry(64, 0, 1)), other)
    with pytest.raises(BundleError):
        load_predictor(saved)


def test_a_forest_of_other_bands_is_refused(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32), np.arange(20) % 2
    forest = fit_forest(x, y, classes=2, trees=2, seed=1, threads=1)
    payload = pixel_payload(forest)
    saved = save_bundle(tmp_path / "forest", _card(payload, "forest", forest.geometry), payload)
    with pytest.raises(BundleError, match="of 3 bands, 1 layers and 2 classes, and its card of 3, 2 and 3"):
        load_predictor(saved)


def test_the_same_model_gives_the_same_bytes(
    tmp_path: Path, saved: Bundle, network: torch.nn.Module, payload: Payload
) -> None:
    other = dict(reversed(list(network.state_dict().items())))
    again = save_bundle(tmp_path / "again", _card(payload, WINDOW_MODEL, network.geometry), network_payload(other))
    for name in ("model.json", "weights.safetensors"):
        assert (again.folder / name).read_bytes() == (saved.folder / name).read_bytes()


def test_the_card_is_sorted_json_that_people_can_read(saved: Bundle) -> None:
    text = (saved.folder / "model.json").read_text(encoding="utf-8")
    data = json.loads(text)
    assert text == json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert "tourbière" in text
    assert data["bands"][2] == {
        "kind": "gamma0_db",
        "layer": "summer.radar_ascending",
        "name": "summer.VV_ascending",
        "unit": "dB",
    }
    assert data["options"] == {"size": "small", "window": 8, "stem_stride": 4}
    assert data["seasons"] == [{"name": "summer", "start": "2021-06-01", "end": "2021-09-30"}]


def test_a_bundle_replaces_the_one_before_and_what_a_kill_left(saved: Bundle, network: torch.nn.Module) -> None:
    leftover = saved.folder.with_name(".tmp-model")
    leftover.mkdir()
    (leftover / "weights.safetensors").write_bytes(b"half")
    (saved.folder / "stray.txt").write_text("old")
    state = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    payload = network_payload(state)
    save_bundle(saved.folder, _card(payload, WINDOW_MODEL, network.geometry), payload)
    assert load_bundle(saved.folder).payload == payload
    assert [path.name for path in saved.folder.parent.iterdir()] == ["model"]
    assert not (saved.folder / "stray.txt").exists()


def test_a_full_disk_loses_nothing(
    saved: Bundle, network: torch.nn.Module, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:  # noqa: ARG001
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkspaceError, match="disk is full"):
        save_bundle(saved.folder, _card(payload, WINDOW_MODEL, network.geometry), payload)
    assert load_bundle(saved.folder) == saved
    assert [path.name for path in saved.folder.parent.iterdir()] == ["model"]


def test_the_old_model_stays_when_the_new_one_cannot_take_its_place(
    saved: Bundle, network: torch.nn.Module, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.replace

    def refused(self: Path, target: Path) -> Path:
        if self.name == ".tmp-model":
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(BundleError, match="Permission denied"):
        save_bundle(saved.folder, _card(payload, WINDOW_MODEL, network.geometry), payload)
    assert load_bundle(saved.folder) == saved
    assert [path.name for path in saved.folder.parent.iterdir()] == ["model"]


def test_refuses_to_write_where_it_may_not(
    tmp_path: Path, network: torch.nn.Module, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(BundleError, match=r"could not be written to .*Permission denied.*permissions"):
        save_bundle(tmp_path / "model", _card(payload, WINDOW_MODEL, network.geometry), payload)


def test_refuses_a_card_of_other_weights(tmp_path: Path, network: torch.nn.Module, payload: Payload) -> None:
    other = Payload(payload.name, payload.data + b"x")
    with pytest.raises(BundleError, match="about other weights"):
        save_bundle(tmp_path / "model", _card(other, WINDOW_MODEL, network.geometry), payload)


def test_refuses_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"No model in .*nowhere\. Give the folder of a model.*wetmap train first"):
        load_bundle(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="No model in"):
        load_bundle(tmp_path / "file")


def test_refuses_missing_weights(saved: Bundle) -> None:
    (saved.folder / "weights.safetensors").unlink()
    with pytest.raises(BundleError, match=r"has no weights\.safetensors.*wetmap train"):
        load_bundle(saved.folder)


def test_refuses_weights_cut_short(saved: Bundle) -> None:
    path = saved.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    size = saved.card.weights.bytes
    with pytest.raises(BundleError, match=f"has {size - 7} bytes, and its card says {size}"):
        load_bundle(saved.folder)


def test_refuses_altered_weights(saved: Bundle) -> None:
    path = saved.folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=f"was altered.*card says {saved.card.weights.sha256[:12]}"):
        load_bundle(saved.folder)


def test_never_opens_a_pickle(saved: Bundle, tmp_path: Path) -> None:
    """A pickle in place of the weights, with a card that vouches for it, is refused without being run."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    payload = Payload("weights.safetensors", pickle.dumps(Bomb()))
    card = saved.card.model_copy(update={"weights": payload.file})
    with pytest.raises(BundleError, match="weights are of another network"):
        load_predictor(save_bundle(saved.folder, card, payload))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("text", ["{", "\udcff", ""])
def test_refuses_what_is_not_json(saved: Bundle, text: str) -> None:
    (saved.folder / "model.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(saved.folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format_version": "1"}', '{"format_version": true}'])
def test_refuses_foreign_json(saved: Bundle, text: str) -> None:
    (saved.folder / "model.json").write_text(text)
    with pytest.raises(BundleError, match="not the card of a wetmap model"):
        load_bundle(saved.folder)


def test_refuses_a_newer_layout(saved: Bundle) -> None:
    _edit(saved, lambda data: data.update(format_version=2, news="unknown"))
    with pytest.raises(BundleError, match=r"layout 2, and this wetmap reads up to 1\. Install a newer"):
        load_bundle(saved.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda data: data.pop("bands"), "bands: Field required"),
        (lambda data: data.update(res_m=-1), "res_m: Input should be greater than 0"),
        (lambda data: data["bands"][0].update(layer="winter.optical"), "layers that are not listed: winter.optical"),
        (lambda data: data["bands"][0].update(name="summer.NDVI"), "two bands have the same name"),
        (lambda data: data["weights"].update(name="../weights.pt"), "weights.name"),
        (lambda data: data["classes"][0].update(code=0), "'bog' has code 0"),
    ],
)
def test_refuses_a_card_that_makes_no_sense(
    saved: Bundle, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    _edit(saved, change)
    with pytest.raises(BundleError, match=f"not a valid card: .*{message}"):
        load_bundle(saved.folder)


def test_refuses_a_model_the_registry_does_not_know(saved: Bundle) -> None:
    _edit(saved, lambda data: data.update(model="swine"))
    with pytest.raises(BundleError, match="swine cannot be made: There is no model called 'swine'"):
        load_predictor(load_bundle(saved.folder))


def test_refuses_weights_of_another_network(saved: Bundle) -> None:
    _edit(saved, lambda data: data["classes"].pop())
    with pytest.raises(BundleError, match="weights are of another network"):
        load_predictor(load_bundle(saved.folder))


def test_refuses_another_geometry(saved: Bundle) -> None:
    geometry = saved.card.geometry
    _edit(saved, lambda data: data["geometry"].update(margin=9))
    with pytest.raises(BundleError, match=f"stride {geometry.tile}, 9, 1, and the model has {geometry.tile}, 4, 1"):
        load_predictor(load_bundle(saved.folder))


@pytest.mark.parametrize("name", ["wetmapformer", "vvt-micro-dense"])
def test_a_card_of_an_older_version_gets_the_tiles_of_this_one(tmp_path: Path, name: str) -> None:
    network = models.create(name, 3, 3, layers=2, band_layer=(0, 0, 1)).eval()
    payload = network_payload(network.state_dict())
    saved = save_bundle(tmp_path / "model", _card(payload, name, network.geometry), payload)
    _edit(saved, lambda data: data.update(geometry={"tile": 16, "margin": 8, "stride": 4}))
    bundle = load_bundle(saved.folder)
    assert bundle.card.geometry == network.geometry == load_predictor(bundle).geometry
    assert network.geometry.beyond == "nearest"


def test_predicting_leaves_threads_and_generator_alone(saved: Bundle) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state().tolist()
    predictor = load_predictor(saved, threads=threads + 1)
    predictor.tile_probabilities(*_tile(predictor.geometry))
    assert torch.get_num_threads() == threads
    assert torch.get_rng_state().tolist() == state


def test_a_tile_of_other_bands_is_refused(saved: Bundle) -> None:
    predictor = load_predictor(saved)
    features, observed = _tile(predictor.geometry)
    with pytest.raises(UsageError, match="for a model of 3 bands"):
        predictor.tile_probabilities(features[:, :2], observed)


def test_importing_costs_no_torch() -> None:
    code = "import sys, wetmap.bundle; assert not {'torch', 'lightning', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_cube_it_was_trained_on_fits(saved: Bundle) -> None:
    check_fits(saved.card, bands=BANDS, layers=LAYERS, res_m=10.0)
    check_fits(saved.card, bands=BANDS, layers=LAYERS, res_m=10.0 + 1e-12)


B08, NDVI, VV = BANDS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": (B08, VV)}, "the cube lacks band summer.NDVI"),
        ({"bands": ()}, "the cube lacks bands summer.B08, summer.NDVI, summer.VV_ascending"),
        (
            {"bands": (*BANDS, *(replace(B08, name=f"summer.B{n}") for n in range(4)))},
            "has bands summer.B0, summer.B1, summer.B2 and 1 more that the model does not know",
        ),
        ({"bands": (NDVI, B08, VV)}, "band 1 is summer.NDVI in the cube and summer.B08 in the model: another order"),
        (
            {"bands": (B08, NDVI, replace(VV, unit="1"))},
            "band summer.VV_ascending has unit 1 in the cube and dB in the model",
        ),
        (
            {"bands": (replace(B08, kind="index"), NDVI, VV)},
            "band summer.B08 has kind index in the cube and reflectance in the model",
        ),
        (
            {"bands": (B08, NDVI, replace(VV, layer="summer.radar_any"))},
            "summer.VV_ascending has layer summer.radar_any in the cube and summer.radar_ascending in the model",
        ),
        (
            {"layers": LAYERS[::-1]},
            "observed layers are summer.radar_ascending, summer.optical in the cube and summer.optical, summer.radar",
        ),
        ({"layers": ()}, "observed layers are none in the cube"),
        ({"res_m": 20.0}, "the pixel is 20 m in the cube and 10 m in the model"),
        ({"res_m": 10.0001}, "the pixel is 10.0001 m in the cube"),
    ],
)
def test_refuses_a_cube_that_differs(saved: Bundle, changes: dict[str, Any], message: str) -> None:
    cube: dict[str, Any] = {"bands": BANDS, "layers": LAYERS, "res_m": 10.0} | changes
    with pytest.raises(BundleError, match=f"{WINDOW_MODEL} does not fit the cube: .*{message}.*Fetch with the recipe"):
        check_fits(saved.card, **cube)
