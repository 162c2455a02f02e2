from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier

from wetmap.errors import BundleError, RecipeError, TrainingError, UsageError
from wetmap.models.boosting import LEAF_PIXELS, BoostingModel, fit_boosting
from wetmap.models.contract import Geometry, MapModel
from wetmap.models.forest import ForestModel
from wetmap.models.pixels import PixelSamples, fit_pixel_model, pixel_class

#: Fits a small model and prints what its bytes are, for a process of its own.
SCRIPT = """
import hashlib, sys
import numpy as np
from wetmap.models.boosting import fit_boosting
from wetmap.models.pixels import PixelSamples
draw = np.random.default_rng(0)
x = draw.normal(size=(400, 4)).astype("float32")
y = (x[:, 0] > 0).astype(int) + 2 * (x[:, 1] > 0.7)
x[::7, 2] = np.nan
model = fit_boosting(PixelSamples(x, y, 5), trees=6, seed=2, threads=int(sys.argv[1]))
print(hashlib.sha256(model.to_bytes()).hexdigest())
"""


def pixels(count: int = 400, bands: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(count, bands)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) + 2 * (x[:, 1] > 0.7)
    x[::7, 2] = np.nan
    return x, y


def fitted(x: np.ndarray, y: np.ndarray, *, classes: int = 5, trees: int = 6, **options: Any) -> BoostingModel:
    return fit_boosting(PixelSamples(x, y, classes), trees=trees, **{"seed": 2, "threads": 1, **options})


def as_scikit_learn_does(x: np.ndarray, y: np.ndarray, trees: int = 6) -> np.ndarray:
    model = HistGradientBoostingClassifier(max_iter=trees, class_weight="balanced", early_stopping=False)
    return model.fit(x, y).predict_proba(x).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> BoostingModel:
    return fitted(*pixels())


def test_it_keeps_the_contract_and_learns(model):
    as_contract: MapModel = model
    assert as_contract.geometry == Geometry(tile=256, margin=0, stride=1)
    x, y = pixels()
    features = torch.from_numpy(x.T.reshape(1, 4, 20, 20).copy())
    answers = as_contract.tile_probabilities(features)
    assert answers.shape == (1, 5, 20, 20)
    assert answers.dtype == torch.float32
    torch.testing.assert_close(answers.sum(1), torch.ones(1, 20, 20))
    # the training pixels, in their places: rows and columns are not swapped
    assert float((answers.argmax(1).flatten().numpy() == y).mean()) > 0.95
    np.testing.assert_array_equal(answers[0].flatten(1).T.numpy(), model.pixel_probabilities(x))


@pytest.mark.parametrize("classes", [2, 4, 11])
def test_a_tile_is_its_pixels_one_by_one_and_what_scikit_learn_says(classes):
    x, _ = pixels(600)
    y = np.digitize(x[:, 0], np.quantile(x[:, 0], np.arange(1, classes) / classes)).astype(np.int64)
    model = fitted(x, y, classes=classes)
    together = model.pixel_probabilities(x)
    np.testing.assert_array_equal(together, as_scikit_learn_does(x, y))
    np.testing.assert_array_equal(together, np.concatenate([model.pixel_probabilities(row[None]) for row in x]))
    assert model.pixel_probabilities(x[:0]).shape == (0, classes)


def test_threads_change_no_bit(model, monkeypatch):
    x, _ = pixels(9000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = model.pixel_probabilities(x)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    np.testing.assert_array_equal(model.pixel_probabilities(x), alone)


def test_a_class_absent_from_training_keeps_its_column():
    x, y = pixels()
    kept = y != 1
    answers = fitted(x[kept], y[kept], classes=6).pixel_probabilities(x)
    assert answers.shape == (400, 6)
    assert bool((answers[:, [1, 4, 5]] == 0).all())
    np.testing.assert_array_equal(answers[kept][:, [0, 2, 3]], as_scikit_learn_does(x[kept], y[kept]))


def test_one_class_alone_is_certain():
    x, _ = pixels(5)
    model = fitted(x, np.full(5, 2), classes=3)
    for known in (model, BoostingModel.from_bytes(model.to_bytes())):
        assert known.pixel_probabilities(x).tolist() == [[0, 0, 1]] * 5


def test_a_missing_value_says_something_of_its_own():
    draw = np.random.default_rng(3)
    x = draw.normal(size=(300, 3)).astype(np.float32)
    y = (draw.random(300) < 0.5).astype(np.int64)
    x[y == 1, 1] = np.nan  # never seen where the class is 1: no filled-in mean could tell
    x[:, 2] = np.nan
    x[5, 0] = np.inf
    model = fitted(x, y, classes=2, trees=20)
    assert float((model.pixel_probabilities(x).argmax(1) == y).mean()) == 1
    # no number is not observed, and a band that never was has no say even where it now is
    other = x.copy()
    other[5, 0] = np.nan
    other[:, 2] = draw.normal(size=300)
    np.testing.assert_array_equal(model.pixel_probabilities(other), model.pixel_probabilities(x))
    again = BoostingModel.from_bytes(model.to_bytes())
    np.testing.assert_array_equal(again.pixel_probabilities(x), model.pixel_probabilities(x))


def test_an_infinite_value_is_not_observed(model):
    x, _ = pixels()
    for missing in (np.inf, -np.inf):
        unseen, infinite = x.copy(), x.copy()
        unseen[:, 0], infinite[:, 0] = np.nan, missing
        np.testing.assert_array_equal(model.pixel_probabilities(infinite), model.pixel_probabilities(unseen))


def test_nothing_observed_anywhere_is_answered_by_the_class_weights():
    x = np.full((40, 2), np.nan, np.float32)
    y = np.repeat([0, 1], [30, 10])
    np.testing.assert_allclose(fitted(x, y, classes=2).pixel_probabilities(x), 0.5, atol=1e-6)
    plain = fitted(x, y, classes=2, class_weight="none").pixel_probabilities(x)
    np.testing.assert_allclose(plain, [[0.75, 0.25]] * 40, atol=1e-6)


def test_a_pixel_answers_for_itself_and_its_own_layers():
    x, y = pixels()
    model = fit_boosting(PixelSamples(x, y, 4, 2, (0, 1, 0, 1)), trees=5, seed=0, threads=1)
    features = torch.from_numpy(x.T.reshape(1, 4, 20, 20).copy())
    observed = torch.ones(1, 2, 20, 20, dtype=torch.bool)
    observed[0, 0, 3, 4] = False
    before, after = model.tile_probabilities(features), model.tile_probabilities(features, observed)
    assert (before != after).any(1)[0].nonzero().tolist() == [[3, 4]]
    poked = features.clone()
    poked[0, [0, 2], 3, 4] = torch.nan
    assert torch.equal(after, model.tile_probabilities(poked))


def test_two_processes_write_the_same_bytes_and_a_round_trip_keeps_them(model):
    # two threads, other text hashes and dirty memory: none of it may show
    other = subprocess.run(
        [sys.executable, "-c", SCRIPT, "2"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "2", "MALLOC_PERTURB_": "165", "OMP_NUM_THREADS": "2"},
    )
    assert other.stdout.strip() == hashlib.sha256(model.to_bytes()).hexdigest()
    again = BoostingModel.from_bytes(model.to_bytes())
    assert again.to_bytes() == model.to_bytes()
    x, _ = pixels()
    np.testing.assert_array_equal(again.pixel_probabilities(x), model.pixel_probabilities(x))
    assert (again.classes, again.layers, again.band_layer.tolist()) == (5, 1, [0, 0, 0, 0])
    assert again.rounds == model.rounds == 6


def test_threads_are_used_and_do_not_matter(monkeypatch):
    from wetmap.models import boosting

    asked, limits = [], boosting.threadpool_limits
    monkeypatch.setattr(boosting, "threadpool_limits", lambda n, **more: asked.append(n) or limits(n, **more))
    one, three = (fitted(*pixels(), threads=threads).to_bytes() for threads in (1, 3))
    assert asked == [1, 3]
    assert one == three


def test_options_matter():
    x, y = pixels()
    plain = fitted(x, y).to_bytes()
    changes: list[dict[str, Any]] = [{"trees": 7}, {"learning_rate": 0.2}, {"leaves": 4}, {"class_weight": "none"}]
    assert len({plain, *(fitted(x, y, **change).to_bytes() for change in changes)}) == 5
    trees = fitted(x, y, leaves=4).trees
    ends = np.cumsum(trees.nodes)
    leaves = [int((trees.left[end - n : end] == -1).sum()) for n, end in zip(trees.nodes, ends, strict=True)]
    assert len(leaves) == 6 * 4
    assert max(leaves) == 4


def test_balanced_weights_find_the_rare_class():
    draw = np.random.default_rng(1)
    x = draw.normal(size=(800, 2)).astype(np.float32)
    y = (draw.random(800) < 0.06).astype(np.int64)
    x[y == 1] += 0.8
    shares = {
        weight: fitted(x, y, classes=2, class_weight=weight).pixel_probabilities(x)[:, 1].mean()
        for weight in ("balanced", "none")
    }
    assert shares["balanced"] > 3 * shares["none"]
    assert (y == 1).sum() > LEAF_PIXELS


def macro_loss(model: BoostingModel, x: np.ndarray, y: np.ndarray) -> float:
    loss = -np.log(model.pixel_probabilities(x)[np.arange(len(y)), y].astype(np.float64))
    return float(np.mean([loss[y == k].mean() for k in np.unique(y)]))


def test_other_pixels_choose_the_number_of_rounds():
    draw = np.random.default_rng(5)
    x = draw.normal(size=(700, 3)).astype(np.float32)
    y = ((x[:, 0] + draw.normal(size=700)) > 0.8).astype(np.int64) + 2 * (x[:, 1] > 1)
    train, held = slice(0, 350), slice(350, 700)
    whole = fitted(x[train], y[train], classes=4, trees=9, learning_rate=0.5)
    before = whole.to_bytes()
    tuned = whole.tuned(PixelSamples(x[held], y[held], 4))
    shorter = [fitted(x[train], y[train], classes=4, trees=count, learning_rate=0.5) for count in range(1, 10)]
    best = int(np.argmin([macro_loss(model, x[held], y[held]) for model in shorter])) + 1
    assert 1 < best < 9
    assert tuned.to_bytes() == shorter[best - 1].to_bytes()
    assert tuned.rounds == best
    assert whole.to_bytes() == before
    # a pixel of a class that the model does not know says nothing, and alone it changes nothing
    stranger = PixelSamples(np.append(x[held], x[:1], axis=0), np.append(y[held], 4), 6)
    wider = fitted(x[train], y[train], classes=6, trees=9, learning_rate=0.5)
    assert wider.tuned(stranger).rounds == best
    assert wider.tuned(PixelSamples(x[:1], np.array([5]), 6)) is wider


@pytest.mark.parametrize(("name", "kind"), [("forest", ForestModel), ("boosting", BoostingModel)])
def test_both_pixel_models_are_fitted_by_one_call(name, kind):
    x, y = pixels()
    samples = PixelSamples(x, y, 5, 2, (0, 0, 1, 1))
    model = fit_pixel_model(name, samples, options={"trees": 3, "class_weight": "none"}, seed=1, threads=2)
    assert type(model) is kind is pixel_class(name)
    assert model.kind == name
    assert (model.classes, model.layers, model.band_layer.tolist(), model.bands) == (5, 2, [0, 0, 1, 1], 4)
    assert model.known.tolist() == [0, 1, 2, 3]
    assert float((model.pixel_probabilities(x).argmax(1) == y).mean()) > 0.9
    weighted = fit_pixel_model(name, samples, options={"trees": 3}, seed=1, threads=1)
    assert weighted.to_bytes() != model.to_bytes()
    with pytest.raises(RecipeError, match="no option depth"):
        fit_pixel_model(name, samples, options={"depth": 3}, seed=1, threads=1)


def test_validation_pixels_shorten_boosting_and_leave_the_forest_alone():
    x, y = pixels()
    samples = PixelSamples(x[:200], y[:200], 5)
    wrong = PixelSamples(x[200:], (y[200:] + 1) % 4, 5)
    options = {"trees": 5}
    boosting, forest = (
        fit_pixel_model(name, samples, options=options, seed=1, threads=1, validation=wrong)
        for name in ("boosting", "forest")
    )
    assert isinstance(boosting, BoostingModel)
    assert boosting.rounds == 1
    alone = fit_pixel_model("forest", samples, options=options, seed=1, threads=1)
    assert forest.to_bytes() == alone.to_bytes()


def test_a_network_is_no_pixel_model():
    with pytest.raises(RecipeError, match="is a network"):
        pixel_class("wetmapformer-window")


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_damaged_bytes_are_refused_or_are_still_trees(model, data):
    whole = model.to_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        with pytest.raises(BundleError):
            BoostingModel.from_bytes(whole[:cut])
        return
    broken = whole[:cut] + bytes([whole[cut] ^ data.draw(st.integers(1, 255))]) + whole[cut + 1 :]
    try:
        read = BoostingModel.from_bytes(broken)
    except BundleError:
        return
    # another threshold or leaf: the bundle's SHA-256 is what notices
    answers = read.pixel_probabilities(pixels()[0])
    assert answers.shape == (400, read.classes)


def content(model: BoostingModel) -> dict[str, np.ndarray]:
    return safetensors.numpy.load(model.to_bytes())


def changed(name: str, place: int, value: float) -> Any:
    def change(parts: dict[str, np.ndarray]) -> None:
        parts[name] = parts[name].copy()
        parts[name][place] = value

    return change


INNER, LEAF = 0, 4


def test_the_places_that_are_damaged_below_are_an_inner_node_and_a_leaf(model):
    parts = content(model)
    assert parts["left"][INNER] > 0
    assert parts["left"][LEAF] == parts["right"][LEAF] == -1


@pytest.mark.parametrize(
    "change",
    [
        changed("left", INNER, 10**6),
        changed("left", INNER, 0),
        changed("left", INNER, -1),
        changed("left", INNER, -7),
        changed("right", INNER, -1),
        changed("right", INNER, 2**31 - 1),
        changed("left", LEAF, 2),
        changed("right", LEAF, 0),
        changed("feature", INNER, 4),
        changed("feature", INNER, -1),
        changed("missing_left", INNER, 2),
        changed("threshold", INNER, np.nan),
        changed("value", LEAF, np.nan),
        changed("value", LEAF, np.inf),
        changed("nodes", 0, 0),
        changed("nodes", 0, -1),
        changed("nodes", 0, 2**62),
        changed("start", 0, np.inf),
        changed("known", 0, -1),
        changed("known", 0, 1),
        changed("known", 3, 5),
        changed("band_layer", 1, 1),
        changed("band_layer", 1, -1),
        # one past the end of its tree is the root of the next
        lambda parts: changed("right", INNER, parts["nodes"][0])(parts),
        lambda parts: parts.update(nodes=parts["nodes"][:-1]),
        lambda parts: parts.update(nodes=np.append(parts["nodes"][:-1], [1, parts["nodes"][-1] - 1])),
        lambda parts: parts.update(feature=parts["feature"][:-1]),
        lambda parts: parts.update(start=parts["start"][:-1]),
        lambda parts: parts.update(start=parts["start"][:, None]),
        lambda parts: parts.update(known=parts["known"][:-1]),
        lambda parts: parts.update(known=parts["known"][:0], start=parts["start"][:1]),
        lambda parts: parts.update(band_layer=parts["band_layer"][:2]),
        lambda parts: parts.update(classes=np.array(3)),
        lambda parts: parts.update(classes=np.array([5])),
        lambda parts: parts.update(value=parts["value"].astype(np.float32)),
        lambda parts: parts.update(more=parts["value"]),
        lambda parts: parts.pop("value"),
    ],
)
def test_parts_that_do_not_fit_are_refused(model, change):
    parts = content(model)
    assert BoostingModel.from_bytes(safetensors.numpy.save(parts)).to_bytes() == model.to_bytes()
    change(parts)
    with pytest.raises(BundleError):
        BoostingModel.from_bytes(safetensors.numpy.save(parts))


@pytest.mark.parametrize("data", [b"", b"PK", b"\x80\x04N.", b"\xff" * 64, safetensors.numpy.save({})])
def test_foreign_files_are_refused(data):
    with pytest.raises(BundleError, match="boosting model"):
        BoostingModel.from_bytes(data)


@pytest.mark.parametrize("options", [{"trees": 0}, {"leaves": 1}, {"learning_rate": 0.0}, {"learning_rate": np.nan}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(TrainingError, match="Give at least 1 round"):
        fitted(*pixels(), **options)


def test_a_tile_that_does_not_fit_is_refused(model):
    with pytest.raises(UsageError, match="4 bands"):
        model.tile_probabilities(torch.zeros(1, 3, 2, 2))
    with pytest.raises(UsageError, match="observation mask"):
        model.tile_probabilities(torch.zeros(1, 4, 2, 2), torch.ones(1, 2, 2, 2, dtype=torch.bool))
