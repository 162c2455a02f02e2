"""The training step of SuperViT: four of its networks on one batch, their gradients added.

For every batch: the largest size with all tokens, the same size pruned, a smaller size with all tokens, that size
pruned. Networks with all tokens learn from the labels; a pruned one learns to answer as the network with all tokens of
its own size does. Lin and others (2023), "Super Vision Transformer", arXiv:2205.11397, as the released code does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wetmap.errors import TrainingError
from wetmap.models.supervit import KEEP_RATES, SuperVit, SuperVitDense
from wetmap.training.data import Batch
from wetmap.training.losses import in_full

#: From logits and target to the mean loss.
Criterion = Callable[[Tensor, Tensor], Tensor]

#: What a SeedSequence is for, beside (seed, epoch, step); the streams 0 to 2 and 4 are those of the samples.
CHOICE_STREAM = 3


@dataclass(frozen=True)
class Choices:
    """Which pruned networks and which smaller size one step trains."""

    largest_keep: float
    """Keeping rate of the pruned network of the largest size, below 1."""
    smaller: int
    """Index of the smaller size."""
    smaller_keep: float
    """Keeping rate of the pruned network of the smaller size, below 1."""


class StepLosses(NamedTuple):
    """The four losses of a step, scalars without a graph, in the order they were computed."""

    largest: Tensor
    """Loss on the labels of the largest size with all tokens."""
    largest_pruned: Tensor
    """Divergence of the pruned largest size from it."""
    smaller: Tensor
    """Loss on the labels of the smaller size with all tokens."""
    smaller_pruned: Tensor
    """Divergence of the pruned smaller size from it."""


def choices_of_step(sizes: int, seed: int, epoch: int, step: int) -> Choices:
    """What a step of a run trains: from (seed, epoch, step) alone, so that a stopped run goes on with the same draws.

    Args:
        sizes: Number of sizes of the model.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        step: Number of the step in the epoch, from 0.
    """
    stream = np.random.SeedSequence([seed, epoch, step, CHOICE_STREAM])
    return draw_choices(sizes, np.random.Generator(np.random.PCG64(stream)))


def draw_choices(sizes: int, generator: np.random.Generator, keep_rates: Sequence[float] = KEEP_RATES) -> Choices:
    """Draw what a step trains: the largest size's rate, the smaller size, the smaller size's rate, in this order.

    Args:
        sizes: Number of sizes of the model.
        generator: Of nothing but these draws, so that they do not depend on what else is random.
        keep_rates: Rates to draw from; 1 is never drawn.

    Raises:
        TrainingError: There is no smaller size, or no rate below 1.
    """
    rates = [rate for rate in keep_rates if rate < 1]
    if sizes < 2 or not rates:
        raise TrainingError(
            f"There is nothing to draw from {sizes} sizes and keeping rates {list(keep_rates)}.",
            do="Give a model of at least two sizes and a rate below 1.",
        )
    return Choices(
        largest_keep=rates[int(generator.integers(len(rates)))],
        smaller=int(generator.integers(sizes - 1)),
        smaller_keep=rates[int(generator.integers(len(rates)))],
    )


def super_step(
    model: SuperVit | SuperVitDense,
    batch: Batch,
    criterion: Criterion,
    choices: Choices,
    backward: Callable[[Tensor], None] = torch.Tensor.backward,
) -> StepLosses:
    """Add the gradients of four networks to those that are there.

    Set the gradients to zero before and take one step of the optimiser after. The position table of a size that was not
    drawn gets no gradient. The losses have no weights and the divergence no temperature.

    Args:
        model: In training mode.
        batch: Features, observed, and what ``criterion`` compares the logits with.
        criterion: For the networks with all tokens.
        choices: From ``draw_choices``.
        backward: Adds a loss's gradients; Lightning has its own.
    """
    features, observed, target = batch
    losses: list[Tensor] = []
    drawn = ((len(model.shape.tokens) - 1, choices.largest_keep), (choices.smaller, choices.smaller_keep))
    for size, keep in drawn:
        logits = in_full(model(features, observed, model.operating_point(size_index=size, keep=1.0)))
        loss = criterion(logits, target)
        backward(loss)
        pruned = in_full(model(features, observed, model.operating_point(size_index=size, keep=keep)))
        distance = divergence(pruned, logits.detach())
        backward(distance)
        losses += [loss.detach(), distance.detach()]
    return StepLosses(*losses)


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's probabilities from the teacher's, mean over samples and pixels.

    Args:
        logits: (N, K) or (N, K, h, w) of the student.
        teacher: Of the teacher, alike; no gradient is to flow there, so detach it.
    """
    each = F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="none").sum(1)
    return each.mean()
