from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wetmap.errors import TrainingError
from wetmap.recipe import Training
from wetmap.training.data import Augmentation, Batch, PlainBatches, TrainingBatches
from wetmap.training.fit import FitRun
from wetmap.training.losses import Criterion
from wetmap.training.ranks import FitJob, process_count, together, torchrun_seat
from wetmap.training.seat import (
    ALONE,
    Seat,
    TrainingPart,
    ValidationPart,
    agree,
    labelled_samples,
    loss_share,
    part_of,
)
from wetmap.training.tiles import IGNORE


def _batch(size: int, *, mixed: bool = False) -> Batch:
    number = torch.arange(size, dtype=torch.float32)
    target = torch.eye(3)[torch.arange(size) % 3] if mixed else torch.arange(size) % 3
    return number.view(-1, 1, 1, 1).expand(-1, 2, 4, 4), torch.ones(size, 2, 4, 4, dtype=torch.bool), target


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 40), ranks=st.integers(2, 8), mixed=st.booleans())
def test_every_sample_is_labelled_in_one_part(size: int, ranks: int, mixed: bool) -> None:
    seen = []
    for rank in range(ranks):
        features, observed, target = part_of(_batch(size, mixed=mixed), Seat(rank, ranks, rank, ranks))
        assert len(features) == len(observed) == len(target) >= min(2, size)
        labelled = target.sum(1) > 0 if mixed else target != IGNORE
        assert labelled_samples(target) == int(labelled.sum())
        number = features[:, 0, 0, 0]
        expected = _batch(size, mixed=mixed)[2][number.long()]
        torch.testing.assert_close(target[labelled], expected[labelled], rtol=0, atol=0)
        seen += number[labelled].tolist()
    assert sorted(seen) == list(range(size))


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_shares_make_the_mean_that_of_the_whole(ranks: int) -> None:
    criterion = Criterion(torch.tensor([0.2, 1.0, 3.0]), smoothing=0.1)
    logits = torch.randn(11, 3, generator=torch.Generator().manual_seed(1))
    target = torch.arange(11) % 3
    parts = [slice(rank, None, ranks) for rank in range(ranks)]
    total = float(criterion.mass(target))
    mean = (
        sum(
            float(criterion(logits[part], target[part])) * loss_share(float(criterion.mass(target[part])), total, ranks)
            for part in parts
        )
        / ranks
    )
    assert mean == pytest.approx(float(criterion(logits, target)))


def test_alone_nothing_is_shared() -> None:
    assert agree(ALONE, Criterion(), torch.tensor([0, 1, IGNORE]), 7.0) == (7.0, 2, 1.0, 1.0)
    assert ALONE.sums([1.0, 2.0]) == [1.0, 2.0]
    values = torch.arange(3)
    assert ALONE.joined(values) is values
    ALONE.level(nn.BatchNorm2d(2))


def test_a_part_of_training_follows_the_epoch(windows) -> None:
    batches = TrainingBatches(windows(20), Augmentation(True, 0.2, (0, 0, 1)), batch_size=8, seed=3)
    part = TrainingPart(batches, Seat(1, 2, 1, 2))
    part.epoch = 4
    assert batches.epoch == part.epoch == 4
    assert len(part) == len(batches) == 3
    for whole, own in zip(batches, part, strict=True):
        torch.testing.assert_close(own[0], whole[0][1::2], equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(("samples", "ranks"), [(10, 3), (9, 4), (4, 4), (3, 4), (1, 2)])
def test_parts_of_validation_hold_every_sample_as_often(windows, samples: int, ranks: int) -> None:
    arrays = windows(samples)
    counts = np.zeros(samples)
    for rank in range(ranks):
        part = ValidationPart(PlainBatches(arrays, batch_size=4), Seat(rank, ranks, rank, ranks))
        batches = list(part)
        assert len(batches) == len(part) > 0
        for features, _, _ in batches:
            own = (features.numpy()[:, None] == arrays.features[None]) | np.isnan(arrays.features[None])
            counts += own.all(axis=(2, 3, 4)).sum(axis=0)
    assert set(counts) == {1.0 if samples >= ranks else float(ranks)}


def test_as_many_processes_as_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [process_count(devices) for devices in (0, 1, 3)] == [1, 1, 3]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [process_count(devices) for devices in (0, 1, 2)] == [2, 1, 2]
    with pytest.raises(TrainingError, match=r"training.devices is 3, and this machine has 2 GPUs\. Give at most"):
        process_count(3)


def test_the_seat_that_torchrun_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name in given:
        monkeypatch.delenv(name, raising=False)
    # other schedulers set some of these
    monkeypatch.setenv("RANK", "3")
    assert torchrun_seat() is None
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    seat = torchrun_seat()
    assert seat == Seat(rank=5, ranks=8, local_rank=1, local_ranks=4)
    assert (seat.leads, seat.node, seat.nodes) == (False, 1, 2)


def test_one_device_starts_no_process(windows, fit_run: FitRun) -> None:
    before = dict(os.environ)
    data = windows(6)
    with together(FitJob(nn.Linear(1, 1), data, data, Training(), fit_run, None)) as seat:
        assert seat == ALONE
        assert not torch.distributed.is_initialized()
    assert dict(os.environ) == before
