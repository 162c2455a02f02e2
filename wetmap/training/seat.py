"""The place of a process among those that train one network together, and what these tell each other.

Every process holds all samples and draws the same epochs. Of every batch it takes its own part, and gradients are
averaged, so that all take the same step. A process that trains alone is the first of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wetmap.training.data import Batch, Batches, EpochBatches
from wetmap.training.losses import Criterion, labelled_count
from wetmap.training.tiles import IGNORE

#: Samples in a part of a batch, at least: batch normalisation learns nothing from a single one.
LEAST_PART = 2


@dataclass(frozen=True)
class Seat:
    """The place of a process among all, and among those of its machine (node)."""

    rank: int = 0
    """Number among all processes, from 0; that one leads: it alone writes files."""
    ranks: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Number among the processes of the machine, from 0: also that of its GPU."""
    local_ranks: int = 1
    """Number of processes of the machine, the same on each."""

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    @property
    def node(self) -> int:
        """Number of the machine, from 0."""
        return self.rank // self.local_ranks

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.ranks // self.local_ranks

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value added up over the processes, in float64; every process must ask at the same point."""
        if self.ranks == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def joined(self, values: Tensor) -> Tensor:
        """The values of all processes on the CPU, along the first axis, in the order of the processes."""
        if self.ranks == 1:
            return values
        parts: list[Tensor] = [values] * self.ranks
        dist.all_gather_object(parts, values.cpu())
        return torch.cat(parts)

    def level(self, network: nn.Module) -> None:
        """Set running statistics of batch normalisation to their mean over the processes, where these differ."""
        if self.ranks == 1:
            return
        # SyncBatchNorm, which is none of these, keeps its own the same
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)]
        statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
        if statistics:
            flat = torch.cat([value.detach().double() for value in statistics])
            dist.all_reduce(flat)
            parts = torch.split(flat / self.ranks, [len(value) for value in statistics])
            for value, part in zip(statistics, parts, strict=True):
                value.copy_(part)


#: A process that trains by itself.
ALONE = Seat()


class Step(NamedTuple):
    """What the processes agree on about a step before they take it."""

    elapsed_s: float = 0.0
    """Time since the epoch began, seconds, by the clock of the process that leads."""
    labelled: float = 0.0
    """Labelled samples or pixels of the whole batch."""
    loss_share: float = 1.0
    """Factor of this process's mean over what is labelled."""
    sample_share: float = 1.0
    """Factor of this process's mean over samples."""


def agree(seat: Seat, criterion: Criterion, target: Tensor, elapsed_s: float) -> Step:
    """Agree on a step; every process must ask at the same point.

    The factors make the mean of the processes' losses that of the whole batch, though their parts of it may hold
    different numbers of labels, or labels of other weight.

    Args:
        seat: Of this process.
        criterion: The loss, which knows what labels weigh.
        target: Of this process's part of the batch.
        elapsed_s: Time since the epoch began; that of the process that leads holds.
    """
    labelled = labelled_count(target)
    if seat.ranks == 1:
        return Step(elapsed_s, labelled)
    own = [float(criterion.mass(target)), float(labelled_samples(target))]
    mass, samples, count, elapsed = seat.sums([*own, labelled, elapsed_s if seat.leads else 0.0])
    return Step(elapsed, count, loss_share(own[0], mass, seat.ranks), loss_share(own[1], samples, seat.ranks))


class TrainingPart:
    """The part of every training batch that belongs to one process: its samples by turns, as cards are dealt.

    A part with too few samples for batch normalisation is filled up with unlabelled ones, which count for nothing in
    the loss. So several processes take the same batches as one.
    """

    def __init__(self, batches: EpochBatches, seat: Seat) -> None:
        self._batches, self._seat = batches, seat

    @property
    def epoch(self) -> int:
        """The epoch that is drawn, from 0."""
        return self._batches.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._batches.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield part_of(batch, self._seat)


class ValidationPart:
    """The part of the validation samples that belongs to one process.

    Where a process would have none, every process takes all: scores and mean losses are the same if each sample counts
    as many times.
    """

    def __init__(self, batches: Batches, seat: Seat) -> None:
        self._batches, self._seat = batches, seat
        sizes = [len(target) for _, _, target in batches]
        self._all = sizes[0] < seat.ranks
        self._count = len(sizes) if self._all else sum(size > seat.rank for size in sizes)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            if self._all:
                yield batch
            elif len(batch[2]) > self._seat.rank:
                yield _strided(batch, self._seat)


def part_of(batch: Batch, seat: Seat) -> Batch:
    """A process's part of a training batch, filled up to ``LEAST_PART`` samples with unlabelled ones.

    Args:
        batch: Features, observed and target, of at least one sample.
        seat: Whose part.
    """
    size = len(batch[2])
    own = list(range(seat.rank, size, seat.ranks))
    if len(own) >= min(LEAST_PART, size):
        return _strided(batch, seat)
    index = torch.tensor([*own, *(number % size for number in range(LEAST_PART - len(own)))])
    features, observed, target = (values[index] for values in batch)
    target[len(own) :] = 0.0 if target.is_floating_point() else IGNORE
    return features, observed, target


def labelled_samples(target: Tensor) -> int:
    """How many samples of a batch are labelled anywhere."""
    labelled = target > 0 if target.is_floating_point() else target != IGNORE
    return int(labelled.flatten(1).any(1).sum()) if target.ndim > 1 else int(labelled.sum())


def loss_share(own: float, total: float, ranks: int) -> float:
    """Factor of a process's mean loss, so that the mean over the processes is that of the whole batch.

    Args:
        own: Weight of what the mean is over, in this process.
        total: The same of all processes.
        ranks: Number of processes.

    Example:
        >>> loss_share(30.0, 40.0, 2)
        1.5
    """
    return ranks * own / total if math.isfinite(total) and total > 0 else 1.0


def _strided(batch: Batch, seat: Seat) -> Batch:
    features, observed, target = (values[seat.rank :: seat.ranks].contiguous() for values in batch)
    return features, observed, target
