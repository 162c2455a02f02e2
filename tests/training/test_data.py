from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.errors import TrainingError
from wetmap.models.normalise import Normalisation
from wetmap.training.data import (
    UNSEEN_VARIANCE,
    Arrays,
    Augmentation,
    PlainBatches,
    TrainingBatches,
    balanced_order,
    band_statistics,
    check_samples,
    class_weights,
    draw_epoch,
    layers_to_hide,
    model_seed,
    turn,
)

Windows = Callable[..., Arrays]
PLAIN = Augmentation(flips=False, drop_layers=0.0, band_layer=(0, 0, 1))


def test_an_epoch_is_drawn_from_seed_and_number_alone() -> None:
    one, again, later, other = (
        draw_epoch(3, 5, 9, 2),
        draw_epoch(3, 5, 9, 2),
        draw_epoch(3, 6, 9, 2),
        draw_epoch(4, 5, 9, 2),
    )
    for name in ("order", "symmetry", "hide"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(later, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    assert sorted(one.order) == list(range(9))
    assert len({model_seed(3, epoch) for epoch in range(50)}) == 50


@given(st.integers(0, 2**32), st.lists(st.integers(0, 4), min_size=1, max_size=60))
@settings(deadline=None, max_examples=60)
def test_balanced_drawing_brings_every_class_as_often(seed: int, label: list[int]) -> None:
    labels = np.array(label)
    order = balanced_order(labels, np.random.default_rng(seed))
    assert len(order) == len(labels)
    counts = np.bincount(labels[order], minlength=5)[np.unique(labels)]
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(order, balanced_order(labels, np.random.default_rng(seed)))


def test_balanced_drawing_uses_all_of_a_class_and_turns_copies_differently(windows: Windows) -> None:
    labels = np.array([0] * 30 + [1] * 2)
    drawn = np.concatenate([balanced_order(labels, np.random.default_rng(seed)) for seed in range(8)])
    np.testing.assert_array_equal(np.unique(drawn), np.arange(32))
    arrays = windows(32)
    few = Arrays(arrays.features, arrays.observed, labels)
    batches = TrainingBatches(few, replace(PLAIN, flips=True), batch_size=32, seed=1, balanced=True)
    features, _, label = next(iter(batches))
    assert int((label == 1).sum()) == 16
    assert len({one.numpy().tobytes() for one in features[label == 1]}) > 4  # of two samples: they are turned
    np.testing.assert_allclose(class_weights(labels, 2, batches.turns), [1, 1])


def test_the_eight_symmetries_are_exact_and_all_different() -> None:
    window = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(8, 2, 1, 1)
    turned = turn(window, torch.arange(8))
    assert len({tuple(one.flatten().tolist()) for one in turned}) == 8
    assert all(sorted(one[0].flatten().tolist()) == list(range(16)) for one in turned)
    np.testing.assert_array_equal(turned[0], window[0])
    np.testing.assert_array_equal(turned[1, 0, 0], [3, 2, 1, 0])  # left-right flip
    np.testing.assert_array_equal(turned[2, 0, 0], [3, 7, 11, 15])  # a quarter turn brings the right column to the top


@given(st.integers(0, 2**32), st.floats(0, 0.99), st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_hiding_leaves_every_sample_something_it_had(seed: int, chance: float, layers: int) -> None:
    generator = np.random.default_rng(seed)
    present, draw = generator.random((40, layers)) > 0.4, generator.random((40, layers))
    hidden = layers_to_hide(present, draw, chance)
    assert not (hidden & ~present).any()
    np.testing.assert_array_equal((present & ~hidden).any(axis=1), present.any(axis=1))
    np.testing.assert_array_equal(hidden & (draw >= chance), False)


def test_hiding_hides_as_often_as_asked() -> None:
    hidden = layers_to_hide(np.ones((4000, 3), dtype=bool), np.random.default_rng(0).random((4000, 3)), 0.2)
    # 0.2 less the third of 0.2^3 that is given back: 0.1973; four standard errors of 12,000 draws are 0.0145
    assert hidden.mean() == pytest.approx(0.2 - 0.2**3 / 3, abs=0.0145)


def test_a_hidden_layer_is_neither_seen_nor_readable(windows: Windows) -> None:
    batches = TrainingBatches(windows(40), replace(PLAIN, drop_layers=0.6), batch_size=40, seed=1)
    features, observed, _ = next(iter(batches))
    gone = ~observed.flatten(2).any(dim=2)
    assert gone.any()
    assert not gone.all(dim=1).any()
    for band, layer in enumerate((0, 0, 1)):
        assert features[gone[:, layer], band].isnan().all()
    kept = ~gone[:, 0]
    assert not features[kept, 0].isnan().flatten(1).all(dim=1).any()


def test_features_and_mask_are_turned_together(windows: Windows) -> None:
    arrays = windows(30)
    batches = TrainingBatches(arrays, replace(PLAIN, flips=True), batch_size=7, seed=1)
    for features, observed, _ in batches:
        np.testing.assert_array_equal(features[:, 0].isnan(), ~observed[:, 0])
        np.testing.assert_array_equal(features[:, 2].isnan(), ~observed[:, 1])
    assert any(not np.array_equal(f, g) for (f, *_), (g, *_) in zip(batches, _epoch(batches, 1), strict=True))


def _epoch(batches: TrainingBatches, epoch: int) -> list[tuple[torch.Tensor, ...]]:
    batches.epoch = epoch
    return list(batches)


@pytest.mark.parametrize(
    ("n", "size", "expected"), [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (3, 8, [3]), (3, 1, [1, 1, 1])]
)
def test_only_a_single_leftover_sample_is_left_out(windows: Windows, n: int, size: int, expected: list[int]) -> None:
    batches = TrainingBatches(windows(n), PLAIN, batch_size=size, seed=1)
    assert [len(label) for _, _, label in batches] == expected
    assert len(batches) == len(expected)


def test_a_sample_meets_the_same_fate_whatever_the_batch_size(windows: Windows) -> None:
    arrays = windows(12)
    augmentation = Augmentation(flips=True, drop_layers=0.3, band_layer=(0, 0, 1))
    small = TrainingBatches(arrays, augmentation, batch_size=3, seed=2)
    large = TrainingBatches(arrays, augmentation, batch_size=12, seed=2)
    for one, other in zip(zip(*small, strict=True), next(iter(large)), strict=True):
        np.testing.assert_array_equal(torch.cat(one), other)


def test_training_arrays_are_not_changed(windows: Windows) -> None:
    arrays, before = windows(12), windows(12)
    list(TrainingBatches(arrays, Augmentation(flips=True, drop_layers=0.5, band_layer=(0, 0, 1)), batch_size=4, seed=2))
    np.testing.assert_array_equal(arrays.features, before.features)
    np.testing.assert_array_equal(arrays.observed, before.observed)


def test_plain_batches_keep_order_and_everything(windows: Windows) -> None:
    arrays = windows(9)
    batches = PlainBatches(arrays, batch_size=4)
    assert [len(label) for _, _, label in batches] == [4, 4, 1]
    np.testing.assert_array_equal(torch.cat([label for _, _, label in batches]), arrays.label)


def test_statistics_are_of_what_was_observed() -> None:
    features = np.array([[[[1.0, 3.0], [100.0, np.nan]]], [[[5.0, 7.0], [7.0, 7.0]]]], dtype=np.float32)
    observed = np.array([[[[True, True], [False, True]]], [[[True, False], [False, False]]]])
    mean, variance = band_statistics(Arrays(features, observed, np.array([0, 1])), (0,))
    assert mean == pytest.approx([3.0])  # of 1, 3 and 5
    assert variance == pytest.approx([8 / 3])


def test_a_band_never_observed_or_never_changing_is_harmless() -> None:
    features = np.stack([np.full((3, 2, 2), np.nan), np.full((3, 2, 2), 4.0)], axis=1).astype(np.float32)
    mean, variance = band_statistics(
        Arrays(features, np.ones((3, 1, 2, 2), dtype=bool), np.zeros(3, dtype=int)), (0, 0)
    )
    np.testing.assert_array_equal(mean, [0, 4])
    np.testing.assert_array_equal(variance, [UNSEEN_VARIANCE, 1])


def test_a_band_never_observed_in_training_says_nothing_on_the_map() -> None:
    """-20 dB where training had no radar at all must not arrive as -20 standard deviations."""
    features = np.full((3, 1, 2, 2), np.nan, dtype=np.float32)
    mean, variance = band_statistics(Arrays(features, np.zeros((3, 1, 2, 2), bool), np.zeros(3, int)), (0,))
    layer = Normalisation(1)
    layer.set(torch.from_numpy(mean), torch.from_numpy(variance))
    assert float(layer(torch.full((1, 1, 2, 2), -20.0)).abs().max()) < 1e-12


def test_class_weights_by_hand() -> None:
    weights = class_weights(np.array([0, 0, 0, 2]), 3)
    np.testing.assert_allclose(weights, [4 / (2 * 3), 0, 4 / (2 * 1)])
    assert weights[[0, 0, 0, 2]].mean() == pytest.approx(1)


def _broken(windows: Windows, **changes: object) -> Arrays:
    return replace(windows(6), **changes)  # type: ignore[arg-type]


def test_refuses_no_samples(windows: Windows) -> None:
    with pytest.raises(TrainingError, match=r"no validation samples.*splits\.folds"):
        check_samples(windows(0), "validation", classes=["a", "b", "c"], layers=2)


def test_refuses_arrays_that_do_not_belong_together(windows: Windows) -> None:
    with pytest.raises(TrainingError, match=r"features \(6, 3, 4, 4\), observed \(5, 2, 4, 4\), label \(6,\)"):
        check_samples(_broken(windows, observed=windows(5).observed), "training", classes=["a", "b", "c"], layers=2)


def test_refuses_too_few_layers(windows: Windows) -> None:
    with pytest.raises(TrainingError, match="have 2 observed layers, and the bands name 3"):
        check_samples(windows(6), "training", classes=["a", "b", "c"], layers=3)


def test_refuses_labels_outside_the_class_table(windows: Windows) -> None:
    with pytest.raises(TrainingError, match=r"labels run from 0 to 2, and the 2 classes.*255"):
        check_samples(windows(6), "training", classes=["a", "b"], layers=2)
