"""Public weights to a start, and the start into a network that is to be trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wetmap import models
from wetmap.bundle import ModelCard, network_payload, save_bundle
from wetmap.classes import MapClass
from wetmap.cube import Band
from wetmap.errors import BundleError, RecipeError, TrainingError, UsageError
from wetmap.exchange.importing import Wanted, describe_start, import_weights
from wetmap.models import create, load_reference
from wetmap.models.reference import key_map
from wetmap.training.start import apply_start, check_start, read_start, start_digest

WANTED = Wanted("vvt-micro", {"window": 16}, bands=4)


def released(name: str, bands: int = 3, classes: int = 10, **options: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model as its public code would have trained it, and its weights by the names there."""
    torch.manual_seed(5)
    model = create(name, bands=bands, classes=classes, **options)
    state = model.state_dict()
    return model, {w.name: state[w.target].clone() for w in key_map(model).weights if w.target is not None}


def save_keras(path: Path, model: Any, first_number: int = 0) -> None:
    """Weights as a Keras session would save them, its layers counted from ``first_number``."""
    state, arrays = model.state_dict(), {}
    for weight in key_map(model).weights:
        layer, _, rest = weight.name.rpartition("/")
        kind, _, number = layer.rpartition("_")
        if layer and layer != "predictions":
            layer = f"{kind}_{int(number) + first_number}" if number.isdigit() else f"{layer}_{first_number}"
        name = f"{layer}/{rest}:0" if layer else f"{rest}:0"
        if weight.target is None:
            arrays[name] = np.zeros(() if rest == "count" else (4, 0), dtype=np.float32)
            continue
        value = state[weight.target]
        if weight.axes is not None:
            value = value.unsqueeze(2) if len(weight.axes) == 5 else value
            value = value.permute([weight.axes.index(axis) for axis in range(len(weight.axes))])
        arrays[name] = value.numpy()
    np.savez(path, **arrays)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A start for VVT of 4 bands, of a checkpoint of 3 bands and 10 classes."""
    _, weights = released("vvt-micro", window=16)
    torch.save({"model": weights}, tmp_path / "vvt.pth")
    import_weights(tmp_path / "vvt.pth", WANTED, tmp_path / "out" / "start.safetensors")
    return tmp_path / "out" / "start.safetensors"


def test_the_start_says_what_was_taken_adapted_and_left_out(start: Path) -> None:
    card, state = read_start(start)
    source = start.parents[1] / "vvt.pth"
    assert card.source.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (card.source.name, card.source.kind, card.source.bytes) == ("vvt.pth", "torch", source.stat().st_size)
    assert (card.model, card.bands, card.options["window"]) == ("vvt-micro", 4, 16)
    assert card.adapted == {
        "trunk.stages.0.embedding.conv.weight": "the mean over its 3 inputs times 3/4, for each of 4"
    }
    assert set(card.left_out) == {"head.weight", "head.bias"} == set(card.fresh)
    assert set(card.taken) | set(card.adapted) == set(state)
    assert json.loads(start.with_suffix(".json").read_text())["format"] == "wetmap start"
    text = "\n".join(describe_start(card, start))
    assert "left out: head.bias, head.weight: the classes are not known to be the same" in text
    assert sorted(path.name for path in start.parent.iterdir()) == ["start.json", "start.safetensors"]


def test_a_network_begins_from_it_and_keeps_what_was_drawn_elsewhere(start: Path) -> None:
    model, _ = released("vvt-micro", window=16)
    fresh = create("vvt-micro", bands=4, classes=3, window=16)
    fresh.set_normalisation(torch.full((4,), 2.0), torch.full((4,), 3.0))
    head, drawn = fresh.head.weight.clone(), torch.get_rng_state()
    report = apply_start(fresh, start)
    assert torch.equal(torch.get_rng_state(), drawn)
    ours, theirs = fresh.state_dict(), model.state_dict()
    assert report.fresh == ("head.weight", "head.bias")
    assert torch.equal(fresh.head.weight, head)
    assert torch.equal(ours["normalisation.mean"], torch.full((4,), 2.0))
    first = "trunk.stages.0.embedding.conv.weight"
    torch.testing.assert_close(ours[first], theirs[first].mean(1, keepdim=True).expand(-1, 4, -1, -1) * 3 / 4)
    same = {key for key in report.taken if key != first}
    assert {key for key in ours if key.startswith("trunk.") and key != first} == same
    assert all(torch.equal(ours[key], theirs[key]) for key in same)
    assert "begins from vvt.pth" in report.line
    assert "1 of them adapted" in report.line
    assert "2 are drawn at random: head.weight, head.bias" in report.line


def test_it_is_a_function_of_its_inputs_alone(start: Path, tmp_path: Path) -> None:
    import_weights(tmp_path / "vvt.pth", WANTED, tmp_path / "again.safetensors")
    for ending in (".safetensors", ".json"):
        assert (tmp_path / f"again{ending}").read_bytes() == start.with_suffix(ending).read_bytes()
    assert start_digest(start) == start_digest(tmp_path / "again.safetensors")
    import_weights(tmp_path / "vvt.pth", Wanted("vvt-micro", {"window": 16}, bands=5), tmp_path / "other.safetensors")
    assert start_digest(start) != start_digest(tmp_path / "other.safetensors")


@pytest.mark.parametrize("classes", [10, 4])
def test_the_classes_layer_is_kept_where_asked_and_as_many(tmp_path: Path, classes: int) -> None:
    model, weights = released("supervit-micro")
    torch.save(weights, tmp_path / "supervit.pth")
    target = tmp_path / "start.safetensors"
    card = import_weights(tmp_path / "supervit.pth", Wanted("supervit-micro", {}, bands=3, classes=classes), target)
    fresh = create("supervit-micro", bands=3, classes=classes)
    report = apply_start(fresh, target)
    assert bool(report.fresh) is bool(card.fresh) is (classes == 4)
    assert torch.equal(fresh.head.bias, model.head.bias) if classes == 10 else "4" in str(card.left_out.values())
    # kept, and then trained on another number of classes after all
    report = apply_start(create("supervit-micro", bands=3, classes=7), target)
    assert report.fresh == ("head.weight", "head.bias")


def test_keras_weights_saved_late_in_a_session_give_the_same_answers(tmp_path: Path) -> None:
    model, _ = released("wetmapformer-published", bands=3, classes=4)
    save_keras(tmp_path / "keras.npz", model, first_number=7)
    target = tmp_path / "start.safetensors"
    card = import_weights(tmp_path / "keras.npz", Wanted("wetmapformer-published", {}, bands=3, classes=4), target)
    assert card.source.kind == "npz"
    assert {"mean", "variance", "count"} <= set(card.left_out)
    assert not card.fresh
    fresh = create("wetmapformer-published", bands=3, classes=4)
    apply_start(fresh, target)
    features = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(features), model.eval()(features))


def test_the_golden_file_can_be_imported_as_it_is(tmp_path: Path) -> None:
    """A safetensors file with inputs and activations beside the weights, which are under ``param/``."""
    golden = Path(__file__).parents[1] / "golden/vvt/native_init.safetensors"
    with pytest.raises(BundleError, match=r"has the shape \(16, 16, 7, 7\)"):  # narrower than any registered size
        import_weights(golden, Wanted("vvt-micro", {}, bands=16), tmp_path / "start.safetensors")
    assert any(key.startswith("param/") for key in load_file(golden))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_begin_from_public_weights_is_refused_and_nothing_is_written(tmp_path: Path, start: Path) -> None:
    source, target = tmp_path / "vvt.pth", tmp_path / "new.safetensors"
    refused: list[tuple[Wanted, type[Exception], str]] = [
        (Wanted("forest", {}, bands=3), UsageError, "does not begin from weights"),
        (Wanted("unet", {}, bands=3), BundleError, "no published counterpart"),
        (Wanted("vvt-tiny", {}, bands=3), BundleError, "missing or left over"),
        (Wanted("supervit-micro", {}, bands=3), BundleError, "missing or left over"),
        (Wanted("vvt-micro", {"window": 17}, bands=3), RecipeError, "window"),
        (Wanted("nobody", {}, bands=3), RecipeError, "no model called"),
    ]
    for wanted, kind, message in refused:
        with pytest.raises(kind, match=message):
            import_weights(source, wanted, target)
    with pytest.raises(UsageError, match=r"does not end in \.safetensors"):
        import_weights(source, WANTED, tmp_path / "new.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "vvt.pth"]
    assert start.exists()


def refusals(start: Path, model: nn.Module, message: str, kind: type[Exception] = TrainingError) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(kind, match=message):
        apply_start(model, start)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_start_that_does_not_fit_is_refused_and_fills_nothing(start: Path) -> None:
    refusals(start, create("vvt-micro", bands=5, classes=3), "made for 4 bands, and the cube has 5")
    refusals(start, create("supervit-micro", bands=4, classes=3), "is of vvt-micro with 4 bands.*another network")
    refusals(start, create("unet", bands=4, classes=3), "another network than the one to train")
    # its window changes no weight
    assert apply_start(create("vvt-micro", bands=4, classes=3, window=24), start).fresh


def test_an_option_that_changes_a_shape_is_named(tmp_path: Path) -> None:
    _, weights = released("supervit-micro", window=16)
    torch.save(weights, tmp_path / "supervit.pth")
    target = tmp_path / "start.safetensors"
    import_weights(tmp_path / "supervit.pth", Wanted("supervit-micro", {"window": 16}, bands=3), target)
    wide = create("supervit-micro", bands=3, classes=2, window=32)
    refusals(target, wide, r"trunk\.embeddings\.0\.weight is .*It was made with 3 bands, .*window 16")


def test_a_damaged_start_is_refused(start: Path) -> None:
    model = create("vvt-micro", bands=4, classes=3, window=16)
    card, data = start.with_suffix(".json"), start.read_bytes()
    start.write_bytes(data[:-9])
    refusals(start, model, "cut short or altered")
    start.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refusals(start, model, "cut short or altered")
    start.unlink()
    refusals(start, model, "cannot be read", UsageError)
    start.write_bytes(data)
    text = card.read_text()
    card.write_text(text[:50])
    refusals(start, model, "cannot be read")
    card.write_text("[]")
    refusals(start, model, "not the card of a start")
    card.write_text(text.replace('"fresh"', '"stale"'))
    refusals(start, model, "not the card of a start: .*stale|fresh")
    card.unlink()
    refusals(start, model, r"start\.json is not beside it", UsageError)
    refusals(start.with_name("none.safetensors"), model, "There is no ", UsageError)
    refusals(start.with_name("vvt.pth"), model, "does not end in", UsageError)


def test_a_filled_classifier_equals_the_reference(tmp_path: Path) -> None:
    """The long way round, by a file, gives what ``load_reference`` gives."""
    _, weights = released("vvt-micro", window=16)
    torch.save(weights, tmp_path / "vvt.pth")
    target = tmp_path / "start.safetensors"
    import_weights(tmp_path / "vvt.pth", Wanted("vvt-micro", {"window": 16}, bands=3, classes=10), target)
    short, long = (create("vvt-micro", bands=3, classes=10, window=16) for _ in range(2))
    load_reference(short, weights)
    apply_start(long, target)
    assert all(torch.equal(a, b) for a, b in zip(short.parameters(), long.parameters(), strict=True))


def test_what_is_left_over_is_listed_before_what_is_missing_some_of_each(tmp_path: Path) -> None:
    _, weights = released("supervit-micro")
    given = {("pos_embed" if key.startswith("pos_embed") else key): value for key, value in weights.items()}
    given |= {f"z{number}": torch.zeros(1) for number in range(10)}
    torch.save({key: value for key, value in given.items() if not key.startswith("blocks.0")}, tmp_path / "deit.pth")
    with pytest.raises(BundleError) as caught:
        import_weights(tmp_path / "deit.pth", Wanted("supervit-micro", {}, bands=3), tmp_path / "start.safetensors")
    text = str(caught.value)
    assert "26 weights are missing or left over: pos_embed (left over), z0 (left over), z1 (left over)" in text
    assert "z6 (left over) and 3 more (left over); blocks.0.attn.proj.bias (missing), " in text
    assert "and 7 more (missing)" in text


def own_model(folder: Path, name: str = "unet", classes: int = 3, **options: Any) -> nn.Module:
    """A network as ``wetmap train`` leaves it, and its folder."""
    torch.manual_seed(7)
    network: Any = create(name, bands=2, classes=classes, layers=1, band_layer=(0, 0), **options)
    network.set_normalisation(torch.tensor([0.5, 9.0]), torch.tensor([2.0, 3.0]))
    payload = network_payload(network.state_dict())
    bands = tuple(Band(f"summer.{name}", "reflectance", "1", "summer.optical") for name in ("B02", "B03"))
    table = tuple(MapClass(code + 1, f"class {code}", "#aabbcc") for code in range(classes))
    chosen = models.resolve_options(name, options)
    card = ModelCard(
        model=name, options=chosen, bands=bands, layers=("summer.optical",), classes=table, window=16,
        geometry=network.geometry, res_m=10.0, simulated=False, weights=payload.file,
    )  # fmt: skip
    save_bundle(folder, card, payload)
    return network


BANDS_OF_OWN = ("summer.B02", "summer.B03")


@pytest.mark.parametrize("file", ["", "weights.safetensors"])
def test_an_earlier_model_is_a_start_but_for_its_normalisation(tmp_path: Path, file: str) -> None:
    old = own_model(tmp_path / "model")
    fresh: Any = create("unet", bands=2, classes=3)
    report = apply_start(fresh, tmp_path / "model" / file, bands=BANDS_OF_OWN)
    assert "begins from model/weights.safetensors" in report.line
    assert report.fresh == ()
    for (name, value), mine in zip(old.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(value, mine), name
    assert fresh.normalisation.mean.tolist() == [0.0, 0.0]
    assert start_digest(tmp_path / "model") == start_digest(tmp_path / "model/weights.safetensors")


def test_an_earlier_model_of_other_classes_lends_all_but_their_layer(tmp_path: Path) -> None:
    own_model(tmp_path / "model")
    fresh = create("unet", bands=2, classes=5)
    before = {name: value.clone() for name, value in fresh.named_parameters()}
    report = apply_start(fresh, tmp_path / "model")
    assert 0 < len(report.fresh) <= 2
    assert all(
        before[name].shape[0] == 5 and torch.equal(before[name], fresh.get_parameter(name)) for name in report.fresh
    )


def test_an_earlier_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    own_model(tmp_path / "model")
    folder = tmp_path / "model"
    refusals(folder, create("unet", bands=4, classes=3), "made for 2 bands, and the cube has 4")
    refusals(folder, create("resnet", bands=2, classes=3), "is of unet with 2 bands.*another network")
    with pytest.raises(TrainingError, match=r"band 1 is summer\.B02 there and summer\.B03 in the cube"):
        apply_start(create("unet", bands=2, classes=3), folder, bands=BANDS_OF_OWN[::-1])
    with torch.device("meta"):
        network = create("unet", bands=2, classes=2)
    check_start(network, folder, bands=BANDS_OF_OWN)
    with torch.device("meta"), pytest.raises(TrainingError, match="another network"):
        check_start(create("vit", bands=2, classes=2), folder)
    card = json.loads((folder / "model.json").read_text())
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[:-1])
    refusals(folder, create("unet", bands=2, classes=3), r"cut short or altered.*Copy the whole folder")
    card["weights"]["name"] = "forest.skops"
    (folder / "model.json").write_text(json.dumps(card))
    refusals(folder, create("unet", bands=2, classes=3), "is not a network: nothing can begin from it")
    (folder / "model.json").unlink()
    refusals(folder, create("unet", bands=2, classes=3), "not the card of a trained model")
