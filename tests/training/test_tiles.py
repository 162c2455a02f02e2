from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wetmap.training.data import Augmentation, Batch, class_weights
from wetmap.training.tiles import (
    IGNORE,
    PlainTiles,
    TileBatches,
    cell_weights,
    cells,
    centres,
    draw_balanced,
    targets,
)

AS_IS = Augmentation(flips=False, drop_layers=0.0, band_layer=(0, 0, 1))
TURNED = replace(AS_IS, flips=True)
Tiles = Callable[..., Any]

places = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=60)


def at(found: list[tuple[int, int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    row, col = np.array(found, dtype=np.int32).T
    return row, col


def epoch_of(batches: TileBatches, epoch: int = 0) -> list[Batch]:
    batches.epoch = epoch
    return list(batches)


@given(places, st.integers(1, 40), st.tuples(st.integers(0, 39), st.integers(0, 39)))
@settings(deadline=None, max_examples=60)
def test_samples_share_a_cell_where_the_same_square_holds_them(
    found: list[tuple[int, int]], side: int, origin: tuple[int, int]
) -> None:
    row, col = at(found)
    cell = cells(row, col, side, origin)
    square = [((r + origin[0]) // side, (c + origin[1]) // side) for r, c in found]
    assert sorted(set(cell.tolist())) == list(range(len(set(square))))
    same_cell, same_square = cell[:, None] == cell, [[one == other for other in square] for one in square]
    np.testing.assert_array_equal(same_cell, same_square)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=40), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_the_middle_of_a_cell_is_the_sample_whose_turn_is_first(numbers: list[int], seed: int) -> None:
    _, cell = np.unique(numbers, return_inverse=True)
    turns = np.random.default_rng(seed).random(len(cell))
    found = centres(cell, turns)
    for number in range(cell.max() + 1):
        assert cell[found[number]] == number
        assert turns[found[number]] == turns[cell == number].min()


def test_unlabelled_is_ignored() -> None:
    assert targets(np.array([[[0, 255], [254, 1]]], dtype=np.uint8)).tolist() == [[[0, IGNORE], [254, 1]]]


@given(st.integers(0, 10**4), st.integers(1, 80), st.sampled_from([4, 6, 8, 12]))
@settings(deadline=None, max_examples=30)
def test_plain_tiles_answer_for_every_sample_once_and_with_context(seed: int, n: int, width: int) -> None:
    from tests.training.conftest import make_tiles

    arrays = make_tiles(n, seed, width=width)
    plain = PlainTiles(arrays, batch_size=7)
    found = list(plain)
    assert len(found) == len(plain)
    features, _, target = (torch.cat(parts) for parts in zip(*found, strict=True))
    assert int((target != IGNORE).sum()) == n
    np.testing.assert_array_equal(target[plain.tile, plain.down, plain.across], arrays.label)
    # what is answered for is the sample's own pixel
    own = arrays.features[:, :, width // 2, width // 2]
    np.testing.assert_array_equal(features[plain.tile, :, plain.down, plain.across], own)
    least = width // 2 - max(width // 4, 1) + 1
    assert min(plain.down.min(), plain.across.min()) >= least
    assert max(plain.down.max(), plain.across.max()) <= width - 1 - (least - 1)


@pytest.mark.parametrize("balanced", [False, True])
def test_targets_turn_with_their_features(tiles: Tiles, balanced: bool) -> None:
    """Band 0 is made to be the class number, so that each pixel says what its target must be."""
    arrays = tiles(80)
    features = arrays.features.copy()
    features[:, 0] = np.where(arrays.label_window == 255, np.nan, arrays.label_window)
    arrays = replace(arrays, features=features, observed=np.ones_like(arrays.observed))
    batches = TileBatches(arrays, TURNED, batch_size=30, seed=1, balanced=balanced)
    turned = plain = 0
    for (features, _, target), (straight, *_) in zip(
        epoch_of(batches), epoch_of(TileBatches(arrays, AS_IS, batch_size=30, seed=1, balanced=balanced)), strict=True
    ):
        known = target != IGNORE
        torch.testing.assert_close(features[:, 0].isnan(), ~known)
        torch.testing.assert_close(features[:, 0][known], target[known].float())
        different = (features.nan_to_num() != straight.nan_to_num()).flatten(1).any(1)
        turned, plain = turned + int(different.sum()), plain + int((~different).sum())
    assert turned > 4 * plain > 0  # one in eight stays as it is


def test_a_hidden_layer_is_hidden_in_the_whole_tile(tiles: Tiles) -> None:
    batches = TileBatches(tiles(60), replace(AS_IS, drop_layers=0.6), batch_size=60, seed=1)
    features, observed = (torch.cat([batch[part] for batch in epoch_of(batches)]) for part in (0, 1))
    gone = ~observed.flatten(2).any(dim=2)
    assert gone.any()
    assert not gone.all(dim=1).any()
    for band, layer in enumerate((0, 0, 1)):
        assert features[gone[:, layer], band].isnan().all()


@pytest.mark.parametrize("balanced", [False, True])
def test_epochs_are_as_long_drawn_anew_and_from_seed_and_number_alone(tiles: Tiles, balanced: bool) -> None:
    def made(seed: int) -> TileBatches:
        return TileBatches(tiles(70), TURNED, batch_size=20, seed=seed, balanced=balanced)

    batches = made(3)
    sizes = {tuple(len(target) for _, _, target in epoch_of(batches, epoch)) for epoch in range(6)}
    assert len(sizes) == 1
    assert len(next(iter(sizes))) == len(batches) > 1
    first, later, again, other = epoch_of(batches, 4), epoch_of(batches, 5), epoch_of(made(3), 4), epoch_of(made(8), 4)
    for one, two in zip(first, again, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
    for different in (later, other):
        assert not all(torch.equal(one[2], two[2]) for one, two in zip(first, different, strict=True))


def test_over_some_epochs_every_sample_is_learnt_from(tiles: Tiles) -> None:
    arrays = tiles(70)
    features = arrays.features.copy()
    centre = features.shape[-1] // 2
    number = np.full((48, 48), np.nan, dtype=np.float32)
    number[arrays.row, arrays.col] = np.arange(70)
    wide = np.pad(number, centre, constant_values=np.nan)
    features[:, 0] = [wide[r : r + 8, c : c + 8] for r, c in zip(arrays.row, arrays.col, strict=True)]
    arrays = replace(arrays, features=features)
    for balanced in (False, True):
        batches = TileBatches(arrays, TURNED, batch_size=20, seed=1, balanced=balanced)
        seen = set()
        for epoch in range(8):
            for values, _, target in epoch_of(batches, epoch):
                seen |= set(values[:, 0][(target != IGNORE) & ~values[:, 0].isnan()].int().tolist())
        assert len(seen) == 70


def test_tiles_hold_only_the_labels_that_were_given(tiles: Tiles) -> None:
    """What other roles know of the same ground is not in the label windows, and so in no tile."""
    arrays = tiles(90)
    own = np.arange(90) % 2 == 0
    labels = np.full((56, 56), 255, dtype=np.uint8)
    labels[arrays.row[own] + 4, arrays.col[own] + 4] = arrays.label[own]
    windows = np.stack([labels[r : r + 8, c : c + 8] for r, c in zip(arrays.row[own], arrays.col[own], strict=True)])
    train = type(arrays)(
        arrays.features[own], arrays.observed[own], arrays.label[own], windows, arrays.row[own], arrays.col[own]
    )
    given_ = {tile.tobytes() for tile in targets(windows).numpy()}
    for epoch in range(4):
        for _, _, target in epoch_of(TileBatches(train, AS_IS, batch_size=30, seed=1), epoch):
            assert {tile.tobytes() for tile in target.numpy()} <= given_
    assert int((torch.cat([t for *_, t in PlainTiles(train)]) != IGNORE).sum()) == own.sum()


def test_batches_are_of_about_as_many_labels_as_asked(tiles: Tiles) -> None:
    batches = TileBatches(tiles(600), AS_IS, batch_size=100, seed=1)
    labelled = [int((target != IGNORE).sum()) for _, _, target in epoch_of(batches)][:-1]
    assert len(labelled) > 3
    assert 60 < np.mean(labelled) < 160


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_samples_in_one_cell_make_two_tiles(tiles: Tiles, n: int) -> None:
    """From a single tile the deepest batch normalisation of a network might have one value per channel."""
    arrays = tiles(3)
    near = np.arange(3, dtype=np.int32)
    arrays = replace(arrays, row=near, col=near)
    few = type(arrays)(*(getattr(arrays, name)[:n] for name in arrays.__dataclass_fields__))
    for balanced in (False, True):
        batches = TileBatches(few, TURNED, batch_size=256, seed=1, balanced=balanced)
        assert [len(target) for _, _, target in epoch_of(batches)] == [2]


def test_cell_weights_by_hand() -> None:
    """Class 0 has 6 samples, class 1 two, class 2 one: cells 0 and 1 stand for 0, cell 2 for 1, cell 3 for 2."""
    cell = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3])
    label = np.array([0, 0, 0, 0, 0, 1, 0, 2, 1])
    np.testing.assert_allclose(cell_weights(cell, label), [1 / 6, 1 / 6, 1 / 3, 1 / 3])
    drawn = draw_balanced(cell, label, 6000, np.random.default_rng(0))
    shares = np.bincount(drawn, minlength=9) / 6000
    # each sample of a cell is as likely; four standard errors are 0.02
    np.testing.assert_allclose(shares, [1 / 12] * 4 + [1 / 9] * 3 + [1 / 6] * 2, atol=0.02)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=50))
@settings(deadline=None, max_examples=60)
def test_cell_weights_are_chances_and_each_rarest_class_has_as_much(pairs: list[tuple[int, int]]) -> None:
    _, cell = np.unique([one for one, _ in pairs], return_inverse=True)
    label = np.array([one for _, one in pairs])
    weights = cell_weights(cell, label)
    assert weights.sum() == pytest.approx(1)
    counts = np.bincount(label)
    rarest = [min(set(label[cell == one]), key=lambda k: (counts[k], k)) for one in range(cell.max() + 1)]
    of_class = [weights[np.array(rarest) == k].sum() for k in set(rarest)]
    np.testing.assert_allclose(of_class, 1 / len(of_class))


def test_what_balancing_evens_is_not_weighted_again(tiles: Tiles) -> None:
    arrays = tiles(200)
    rows = np.flatnonzero((arrays.label != 1) | (np.arange(200) < 12))
    arrays = type(arrays)(*(getattr(arrays, name)[rows] for name in arrays.__dataclass_fields__))
    as_drawn, even = (
        class_weights(arrays.label, 3, TileBatches(arrays, AS_IS, batch_size=30, seed=1, balanced=balanced).turns)
        for balanced in (False, True)
    )
    assert as_drawn.max() / as_drawn.min() > 2 * even.max() / even.min()
