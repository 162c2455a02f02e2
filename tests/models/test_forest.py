from __future__ import annotations

import copy
import hashlib
import io
import itertools
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import skops.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline

from wetmap.errors import BundleError, TrainingError, UsageError
from wetmap.models import forest_file
from wetmap.models.contract import Geometry, MapModel
from wetmap.models.forest import ForestModel, ForestSettings, fit_forest

#: Fits a small forest and prints what its bytes are, for a process of its own.
SCRIPT = """
import hashlib, sys
import numpy as np
from wetmap.models.forest import fit_forest
draw = np.random.default_rng(0)
x = draw.normal(size=(200, 4)).astype("float32")
y = (x[:, 0] > 0).astype(int) + 2 * (x[:, 1] > 0.7)
print(hashlib.sha256(fit_forest(x, y, classes=5, trees=6, seed=2, threads=int(sys.argv[1])).to_bytes()).hexdigest())
"""


def samples(count: int = 200, bands: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(count, bands)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64) + 2 * (x[:, 1] > 0.7)


@pytest.fixture(scope="module")
def model() -> ForestModel:
    x, y = samples()
    return fit_forest(x, y, classes=5, trees=6, seed=2, threads=1)


def test_it_keeps_the_contract(model):
    as_contract: MapModel = model
    assert as_contract.geometry == Geometry(tile=256, margin=0, stride=1)
    x, y = samples()
    features = torch.from_numpy(x.T.reshape(1, 4, 20, 10).copy())
    answers = as_contract.tile_probabilities(features)
    assert answers.shape == (1, 5, 20, 10)
    assert answers.dtype == torch.float32
    torch.testing.assert_close(answers.sum(1), torch.ones(1, 20, 10))
    # the training pixels, in their places: rows and columns are not swapped
    assert float((answers.argmax(1).flatten().numpy() == y).mean()) > 0.95
    np.testing.assert_array_equal(answers[0].flatten(1).T.numpy(), model.pixel_probabilities(x))


def test_it_is_what_scikit_learn_says_in_any_cut_and_with_any_threads(model, monkeypatch):
    x, _ = samples(9000)
    x[::7, 2] = np.nan
    filled = np.where(np.isfinite(x), x, model.fill)
    truth = np.zeros((len(x), 5), np.float32)
    truth[:, model.known] = model.forest.predict_proba(filled)
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        np.testing.assert_array_equal(model.pixel_probabilities(x), truth)
    cuts = [0, 1, 2, 700, 701, 9000]
    parts = [model.pixel_probabilities(x[start:end]) for start, end in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), truth)
    assert model.pixel_probabilities(x[:0]).shape == (0, 5)


def test_a_class_absent_from_training_keeps_its_column():
    x, y = samples()
    kept = y != 1
    model = fit_forest(x[kept], y[kept], classes=6, trees=3, seed=0, threads=1)
    answers = model.pixel_probabilities(x)
    assert answers.shape == (200, 6)
    assert bool((answers[:, [1, 4, 5]] == 0).all())
    assert bool((answers[:, [0, 2, 3]].sum(0) > 0).all())


def test_one_class_alone_is_certain():
    x, _ = samples(5)
    model = fit_forest(x, np.full(5, 2), classes=3, trees=2, seed=0, threads=1)
    assert model.pixel_probabilities(x).tolist() == [[0, 0, 1]] * 5
    assert ForestModel.from_bytes(model.to_bytes()).pixel_probabilities(x).tolist() == [[0, 0, 1]] * 5


def test_a_missing_value_is_the_mean_of_the_observed_ones():
    x, y = samples()
    x[::3, 1] = np.nan
    x[1, 1] = np.inf
    x[:, 3] = np.nan
    model = fit_forest(x, y, classes=4, trees=3, seed=0, threads=1)
    seen = x[np.isfinite(x[:, 1]), 1]
    np.testing.assert_allclose(model.fill[[1, 3]], [seen.mean(dtype=np.float64), 0], rtol=1e-6)
    filled = x.copy()
    filled[~np.isfinite(x)] = np.broadcast_to(model.fill, x.shape)[~np.isfinite(x)]
    np.testing.assert_array_equal(model.pixel_probabilities(x), model.pixel_probabilities(filled))


def test_a_pixel_answers_for_itself_and_its_own_layers():
    x, y = samples()
    layers = ForestSettings(layers=2, band_layer=(0, 1, 0, 1))
    model = fit_forest(x, y, classes=4, trees=5, seed=0, threads=1, settings=layers)
    features = torch.from_numpy(x.T.reshape(1, 4, 20, 10).copy())
    observed = torch.ones(1, 2, 20, 10, dtype=torch.bool)
    observed[0, 0, 3, 4] = False
    before, after = model.tile_probabilities(features), model.tile_probabilities(features, observed)
    changed = (before != after).any(1)[0].nonzero().tolist()
    assert changed == [[3, 4]]
    poked = features.clone()
    poked[0, [0, 2], 3, 4] = torch.nan
    assert torch.equal(after, model.tile_probabilities(poked))


def test_the_forest_does_not_depend_on_threads_and_its_seed_matters():
    x, y = samples()
    one, two, other = (fit_forest(x, y, classes=4, trees=8, seed=s, threads=t) for s, t in ((1, 1), (1, 2), (2, 1)))
    assert one.to_bytes() == two.to_bytes()
    assert one.to_bytes() != other.to_bytes()


def test_balanced_weights_find_the_rare_class():
    draw = np.random.default_rng(1)
    x = draw.normal(size=(400, 2)).astype(np.float32)
    y = (draw.random(400) < 0.05).astype(np.int64)
    x[y == 1] += 0.8
    shares = {
        weight: fit_forest(
            x, y, classes=2, trees=20, seed=0, threads=1, settings=ForestSettings(weight, min_samples_leaf=20)
        )
        .pixel_probabilities(x)[:, 1]
        .mean()
        for weight in ("balanced", "none")
    }
    assert shares["balanced"] > 3 * shares["none"]


def test_two_processes_write_the_same_bytes_and_a_round_trip_keeps_them(model):
    # two threads, other text hashes and dirty memory: none of it may show
    other = subprocess.run(
        [sys.executable, "-c", SCRIPT, "2"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "2", "MALLOC_PERTURB_": "165", "OMP_NUM_THREADS": "1"},
    )
    assert other.stdout.strip() == hashlib.sha256(model.to_bytes()).hexdigest()
    again = ForestModel.from_bytes(model.to_bytes())
    assert again.to_bytes() == model.to_bytes()
    x, _ = samples()
    np.testing.assert_array_equal(again.pixel_probabilities(x), model.pixel_probabilities(x))
    assert (again.classes, again.layers, again.band_layer.tolist()) == (5, 1, [0, 0, 0, 0])


def test_the_archive_holds_no_pickle_no_address_and_no_time(model):
    with zipfile.ZipFile(io.BytesIO(model.to_bytes())) as archive:
        names = archive.namelist()
        assert all(name == "schema.json" or name.endswith(".npy") for name in names)
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        numbers = [int(name.removesuffix(".npy")) for name in names if name.endswith(".npy")]
        assert max(numbers) < 5000
        for name in names:
            if name.endswith(".npy"):
                np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
        assert json.loads(archive.read("schema.json"))["__loader__"] == "DictNode"


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_damaged_bytes_are_refused_or_mean_the_same(model, data):
    whole = model.to_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        broken = whole[:cut]
    else:
        broken = whole[:cut] + bytes([whole[cut] ^ data.draw(st.integers(1, 255))]) + whole[cut + 1 :]
    try:
        read = ForestModel.from_bytes(broken)
    except BundleError:
        return
    # a bit that says nothing, such as a member's time
    x, _ = samples()
    np.testing.assert_array_equal(read.pixel_probabilities(x), model.pixel_probabilities(x))


def content(model: ForestModel) -> dict:
    return {
        "forest": model.forest,
        "fill": model.fill,
        "classes": model.classes,
        "layers": model.layers,
        "band_layer": model.band_layer,
    }


@pytest.mark.parametrize("foreign", [Pipeline([("a", None)]), np.random.default_rng(0), skops.io.dumps])
def test_types_a_forest_has_no_need_of_are_refused(model, foreign):
    with pytest.raises(BundleError, match="no need of"):
        ForestModel.from_bytes(skops.io.dumps({**content(model), "more": foreign}))


@pytest.mark.parametrize(
    "change",
    [
        {"fill": np.zeros(3, np.float32)},
        {"forest": "treeless"},
        {"fill": np.full(4, np.nan, np.float32)},
        {"classes": 2},
        {"band_layer": np.array([0, 0, 0, 1])},
        {"classes": "many"},
    ],
)
def test_parts_that_do_not_fit_are_refused(model, change):
    parts = {**content(model), **change}
    if parts["forest"] == "treeless":
        parts["forest"] = copy.copy(model.forest)
        parts["forest"].estimators_ = []
    with pytest.raises(BundleError):
        ForestModel.from_bytes(forest_file.dumps(parts))


def test_a_missing_part_is_refused(model):
    parts = content(model)
    del parts["fill"]
    with pytest.raises(BundleError, match="fill"):
        ForestModel.from_bytes(forest_file.dumps(parts))
    with pytest.raises(BundleError, match="holds a list"):
        ForestModel.from_bytes(skops.io.dumps([1]))


@pytest.mark.parametrize(
    ("field", "value"), [("left_child", 10**6), ("right_child", 0), ("left_child", -7), ("feature", 4), ("feature", -2)]
)
def test_a_tree_that_points_outside_itself_is_refused(field, value):
    x, y = samples()
    model = fit_forest(x, y, classes=5, trees=2, seed=0, threads=1)
    tree = model.forest.estimators_[1].tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    tree.__setstate__(state)
    data = model.to_bytes()
    with pytest.raises(BundleError, match="outside itself"):
        ForestModel.from_bytes(data)


@pytest.mark.parametrize(
    ("x", "y", "trees"),
    [
        (np.zeros((0, 3), np.float32), np.zeros(0, np.int64), 3),
        (np.zeros((4, 3), np.float32), np.zeros(3, np.int64), 3),
        (np.zeros((2, 3), np.float32), np.array([0, 7]), 3),
        (np.zeros((2, 3), np.float32), np.array([-1, 0]), 3),
        (np.zeros((2, 3), np.float32), np.array([0.0, 1.0]), 3),
        (np.zeros((2, 3), np.float32), np.array([0, 1]), 0),
    ],
)
def test_samples_that_cannot_be_used_are_refused(x, y, trees):
    with pytest.raises(TrainingError):
        fit_forest(x, y, classes=7, trees=trees, seed=0, threads=1)


def test_layers_that_do_not_fit_are_refused(model):
    x, y = samples()
    for layers, band_layer in ((1, (0, 0, 0, 1)), (2, (0, 1))):
        with pytest.raises(TrainingError, match="band_layer"):
            fit_forest(
                x, y, classes=5, trees=1, seed=0, threads=1, settings=ForestSettings("none", 1, layers, band_layer)
            )
    with pytest.raises(UsageError, match="4 bands"):
        model.tile_probabilities(torch.zeros(1, 3, 2, 2))
    with pytest.raises(UsageError, match="observation mask"):
        model.tile_probabilities(torch.zeros(1, 4, 2, 2), torch.ones(1, 2, 2, 2, dtype=torch.bool))
