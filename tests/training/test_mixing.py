from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wetmap.models.normalise import Normalisation
from wetmap.recipe import Training
from wetmap.training.data import Arrays, Augmentation, Batch, TrainingBatches, band_statistics
from wetmap.training.mixing import Bands, MixedBatches, Mixing, before, box, cutmix, mixup, with_noise
from wetmap.training.tiles import IGNORE, TileBatches

LAYER = (0, 0, 1)
BANDS = Bands(torch.tensor([1.0, -2.0, 5.0]), torch.tensor([2.0, 0.5, 3.0]), LAYER, 3)
#: As the cubes give them: nothing is changed.
AS_IS = Augmentation(flips=False, drop_layers=0.0, band_layer=LAYER)


def batch_of(seed: int, *, dense: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    observed = torch.rand(6, 2, 4, 4, generator=generator) > 0.3
    features = torch.randn(6, 3, 4, 4, generator=generator) * 3
    features = features.masked_fill(~observed[:, list(LAYER)], torch.nan)
    features[0, 1, 0] = torch.nan  # a value missing where the layer was seen
    target = torch.randint(0, 3, (6, 4, 4) if dense else (6,), generator=generator)
    if dense:
        target[torch.rand(6, 4, 4, generator=generator) < 0.4] = IGNORE
    return features, observed, target


def normalised(batch: Batch) -> Tensor:
    layer = Normalisation(3, LAYER)
    layer.set(BANDS.mean, BANDS.deviation**2)
    answer: Tensor = layer(batch[0], batch[1])
    return answer


@given(st.integers(0, 10**6), st.floats(0.01, 0.99), st.booleans())
@settings(deadline=None, max_examples=40)
def test_the_normalised_blend_is_the_blend_of_the_normalised(seed: int, share: float, dense: bool) -> None:
    batch = batch_of(seed, dense=dense)
    mixed = mixup(batch, share, BANDS)
    own = normalised(batch)
    torch.testing.assert_close(normalised(mixed), share * own + (1 - share) * own.roll(1, 0), rtol=1e-4, atol=1e-5)
    missing = batch[0].isnan()
    torch.testing.assert_close(mixed[0].isnan(), missing & missing.roll(1, 0))
    torch.testing.assert_close(mixed[1], batch[1] | batch[1].roll(1, 0))


def test_mixup_by_hand() -> None:
    features = torch.tensor([[[[4.0]]], [[[8.0]]]])
    bands = Bands(torch.tensor([0.0]), torch.tensor([1.0]), (0,), 2)
    observed = torch.ones(2, 1, 1, 1, dtype=torch.bool)
    mixed = mixup((features, observed, torch.tensor([0, 1])), 0.75, bands)
    assert mixed[0].flatten().tolist() == [5.0, 7.0]
    assert mixed[2].tolist() == [[0.75, 0.25], [0.25, 0.75]]
    tiles = mixup((features, observed, torch.tensor([[[IGNORE]], [[1]]])), 0.75, bands)
    assert tiles[2].flatten(1).tolist() == [[0.0, 0.25], [0.0, 0.75]]  # unlabelled: only the other's share


@given(st.integers(1, 16), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=80)
def test_the_box_is_inside_and_as_large_as_asked(side: int, share: float, row: float, col: float) -> None:
    rows, columns = box(side, share, (row, col))
    assert all(0 <= part.start <= part.stop <= side for part in (rows, columns))
    size = round(side * (1 - share) ** 0.5)
    assert max(part.stop - part.start for part in (rows, columns)) <= size
    assert all(part.stop - part.start == size for part in box(side, share, (0.5, 0.5)))


def test_cutmix_by_hand() -> None:
    features = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    observed = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    observed[1, 0, 0, 0] = False
    where = (slice(0, 2), slice(0, 2))
    mixed = cutmix((features, observed, torch.tensor([0, 2])), where, 3)
    assert mixed[0][0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert mixed[2].tolist() == [[0.75, 0, 0.25], [0.25, 0, 0.75]]
    assert not mixed[1][0, 0, 0, 0]  # what is pasted brings its mask
    assert mixed[1][1, 0, 0, 0]


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_of_tiles_a_pixel_keeps_its_own_label(seed: int) -> None:
    """Every pixel of a pasted tile has the values, the mask and the label of one place of one of the two."""
    batch = batch_of(seed, dense=True)
    where = box(4, 0.5, (0.3, 0.6))
    mixed = cutmix(batch, where, 3)
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[where] = True
    for found, own in zip(mixed, batch, strict=True):
        expected = torch.where(inside, before(own), own)
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_noise_is_as_strong_as_asked_and_only_where_something_was_seen(windows: Callable[..., Arrays]) -> None:
    features = torch.zeros(4000, 2, 2, 2)
    features[0, 0, 0, 0] = torch.nan
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal(features.shape, np.float32))
    noisy = with_noise(features, drawn, torch.tensor([0.2, 3.0]))
    assert noisy[0, 0, 0, 0].isnan()
    assert int(noisy.isnan().sum()) == 1
    # sixteen thousand draws a band: a standard error of 0.6 %
    assert noisy[1:].transpose(0, 1).flatten(1).std(1).tolist() == pytest.approx([0.2, 3.0], rel=0.025)
    arrays = windows(30)
    plain = TrainingBatches(arrays, AS_IS, batch_size=30, seed=1)
    mean, variance = (torch.from_numpy(values).float() for values in band_statistics(arrays, LAYER))
    bands = Bands(mean, variance.sqrt(), LAYER, 3)
    noisy, seen, label = next(iter(MixedBatches(plain, Mixing(noise=0.1), bands, seed=1)))
    before_, seen_before, label_before = next(iter(plain))
    torch.testing.assert_close(noisy.isnan(), before_.isnan())
    torch.testing.assert_close((seen, label), (seen_before, label_before))
    ratio = (noisy - before_).transpose(0, 1).flatten(1)
    assert [float(one[~one.isnan()].std()) for one in ratio] == pytest.approx((0.1 * bands.deviation).tolist(), rel=0.2)


def _epochs(batches: MixedBatches, *epochs: int) -> Iterator[list[Batch]]:
    for epoch in epochs:
        batches.epoch = epoch
        yield list(batches)


@pytest.mark.parametrize("mixing", [Mixing(noise=0.3), Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(0.1, 0.4, 1.0)])
@pytest.mark.parametrize("dense", [False, True])
def test_an_epoch_is_drawn_from_seed_and_number_alone(
    windows: Callable[..., Arrays], tiles: Callable[..., Arrays], mixing: Mixing, dense: bool
) -> None:
    arrays, kind = (tiles(40), TileBatches) if dense else (windows(40), TrainingBatches)
    copy = arrays.features.copy()
    batches = MixedBatches(kind(arrays, AS_IS, batch_size=12, seed=3), mixing, BANDS, seed=3)  # type: ignore[arg-type]
    one, later, again = _epochs(batches, 2, 3, 2)
    assert len(one) == len(batches) > 1
    for first, second in zip(one, again, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(one[0][0].nan_to_num(), later[0][0].nan_to_num())
    np.testing.assert_array_equal(arrays.features, copy)
    assert not any(torch.isinf(features).any() for features, _, _ in one)


class SameBatches:
    """The same two batches in every epoch."""

    epoch = 0

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Batch]:
        return iter([batch_of(1), batch_of(1)])


@pytest.mark.parametrize("mixing", [Mixing(noise=0.3), Mixing(mixup=0.4), Mixing(cutmix=1.0)])
def test_batches_and_epochs_are_mixed_each_in_its_own_way(mixing: Mixing) -> None:
    found = [
        features.nan_to_num().numpy().tobytes()
        for epoch in _epochs(MixedBatches(SameBatches(), mixing, BANDS, seed=3), 0, 1)
        for features, _, _ in epoch
    ]
    assert len(set(found)) == 4


def test_both_kinds_of_mixing_take_turns_and_shares_are_as_drawn(windows: Callable[..., Arrays]) -> None:
    arrays = windows(60)
    flat = Arrays(
        np.repeat(arrays.label, 48).reshape(60, 3, 4, 4).astype(np.float32), arrays.observed | True, arrays.label
    )
    batches = MixedBatches(TrainingBatches(flat, AS_IS, batch_size=6, seed=1), Mixing(0, 5.0, 5.0), BANDS, seed=1)
    kinds = []
    for features, _, target in (batch for epoch in _epochs(batches, 0, 1, 2) for batch in epoch):
        torch.testing.assert_close(target.sum(1), torch.ones(6))
        # the mean of a window of its class's number is the mean class of its mixed label, whichever way it was mixed
        torch.testing.assert_close(features.mean((1, 2, 3)), target @ torch.arange(3.0), rtol=1e-4, atol=1e-5)
        inner = features.flatten(1)
        kinds.append(bool((inner == inner.round()).all()))  # pasted, not blended
    assert 5 < sum(kinds) < 25


def test_off_by_default_and_as_the_recipe_says() -> None:
    assert not Mixing.of(Training())
    assert Mixing.of(Training(noise=0.1, mixup=0.2, cutmix=1.0)) == Mixing(0.1, 0.2, 1.0)
