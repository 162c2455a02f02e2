"""The Lightning module: one epoch of training, its validation, and what is kept of it.

Import it late: Lightning takes seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from wetmap.errors import TrainingError
from wetmap.recipe import Training
from wetmap.training.checkpoint import FitState, Tensors, copied
from wetmap.training.data import Batch, TrainingBatches, model_seed
from wetmap.training.metrics import scores

#: Gradients are scaled down to this norm; VVT's and our own transformers train with it.
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class ModulePlan:
    """What the module is to do."""

    settings: Training
    """The recipe's training part."""
    classes: tuple[str, ...]
    """Names of the classes, in order."""
    weights: Tensor | None
    """Loss weight of each class, (K,) float32; None for equal ones."""
    seed: int
    """Seed of the run."""
    start: FitState | None
    """Where an earlier run stopped; None to begin."""
    on_epoch: Callable[[FitState], None]
    """Called after every epoch with the state to keep."""


def learning_rate(settings: Training, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step: linear warm-up to the peak, then half a cosine down towards 0.

    A pure function of the step, so that it needs no state. Where the warm-up is as long as the whole training, it is
    cut to leave one epoch for the cosine.

    Args:
        settings: Peak, epochs and warm-up epochs.
        step: Number of the step over all epochs, from 0.
        steps_per_epoch: Steps in an epoch.
    """
    total = settings.epochs * steps_per_epoch
    warmup = min(settings.warmup_epochs, settings.epochs - 1) * steps_per_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    # Loshchilov and Hutter (2017), "SGDR", equation 5, with a smallest rate of 0 and no restart.
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def make_optimiser(model: nn.Module, settings: Training) -> AdamW:
    """AdamW that decays weight matrices and kernels, and leaves one-dimensional parameters (norms, biases) alone."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=settings.learning_rate)


class FitModule(lightning.LightningModule):
    """Trains a network and keeps, after every epoch, all that is needed to go on from there."""

    def __init__(self, network: nn.Module, batches: TrainingBatches, plan: ModulePlan) -> None:
        super().__init__()
        self.network = network
        self.batches = batches
        self.plan = plan
        start = plan.start
        self.history: list[dict[str, Any]] = [] if start is None else [*start.history]
        self.best_epoch = 0 if start is None else start.best_epoch
        self.best: Tensors = {} if start is None else start.best
        self.register_buffer("class_weight", plan.weights, persistent=False)
        self._loss_sum, self._samples = 0.0, 0
        self._validation_loss, self._truth, self._guess = 0.0, [torch.empty(0)], [torch.empty(0)]

    @property
    def epoch(self) -> int:
        """The epoch that is being trained, from 0, counting those of the run that was stopped."""
        return len(self.history)

    def configure_optimizers(self) -> Optimizer:
        """Make the optimiser, with the moments that an earlier run left."""
        optimiser = make_optimiser(self.network, self.plan.settings)
        moments = {} if self.plan.start is None else self.plan.start.optimiser
        for name, parameter in self.network.named_parameters():
            for moment, value in moments.get(name, {}).items():
                # AdamW keeps its step counters on the CPU, its averages beside the parameter.
                device = torch.device("cpu") if moment == "step" else parameter.device
                optimiser.state[parameter][moment] = value.to(device, copy=True)
        return optimiser

    def on_train_epoch_start(self) -> None:
        """Seed the epoch's draws."""
        self.batches.epoch = self.epoch
        torch.manual_seed(model_seed(self.plan.seed, self.epoch))
        self._loss_sum, self._samples = 0.0, 0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 (Lightning's signature)
        """Set the learning rate of the step."""
        rate = self._rate(batch_idx)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Raises:
            TrainingError: It is not a number.
        """
        loss = self._loss(batch)[0]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged("training", value, batch_idx)
        self._loss_sum += value * len(batch[2])
        self._samples += len(batch[2])
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin counting."""
        self._validation_loss, self._truth, self._guess = 0.0, [], []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Note the predictions of a batch.

        Raises:
            TrainingError: The loss is not a number.
        """
        loss, logits = self._loss(batch)
        value = float(loss)
        if not math.isfinite(value):
            raise self._diverged("validation", value, batch_idx)
        self._validation_loss += value * len(batch[2])
        self._truth.append(batch[2].cpu())
        self._guess.append(logits.argmax(dim=1).cpu())

    def on_train_epoch_end(self) -> None:
        """Score the epoch, keep its weights if it is the best so far, and hand the state over."""
        truth = torch.cat(self._truth)
        found = scores(truth.numpy(), torch.cat(self._guess).numpy(), self.plan.classes)
        row = {
            "epoch": self.epoch,
            "learning_rate": self._rate(len(self.batches) - 1),
            "loss": self._loss_sum / self._samples,
            "validation_loss": self._validation_loss / len(truth),
            "validation_macro_f1": found.macro_f1,
            "validation_accuracy": found.overall_accuracy,
        }
        weights = copied(self.network.state_dict())
        if not self.best or found.macro_f1 > self.history[self.best_epoch]["validation_macro_f1"]:
            self.best_epoch, self.best = self.epoch, weights
        self.history.append(row)
        state = FitState(self.history, self.best_epoch, weights, self.best, self._moments())
        if state.exhausted(self.plan.settings.epochs, self.plan.settings.patience):
            self.trainer.should_stop = True
        self.plan.on_epoch(state)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        features, observed, label = batch
        logits = self.network(features, observed)
        weight = self.class_weight if isinstance(self.class_weight, Tensor) else None
        smoothing = self.plan.settings.label_smoothing
        return F.cross_entropy(logits, label, weight=weight, label_smoothing=smoothing), logits

    def _rate(self, batch_idx: int) -> float:
        steps = len(self.batches)
        return learning_rate(self.plan.settings, self.epoch * steps + batch_idx, steps)

    def _moments(self) -> dict[str, Tensors]:
        optimiser = self.trainer.optimizers[0]
        return {
            name: copied(optimiser.state[parameter])
            for name, parameter in self.network.named_parameters()
            if parameter in optimiser.state
        }

    def _diverged(self, what: str, value: float, batch_idx: int) -> TrainingError:
        rate = self._rate(min(batch_idx, len(self.batches) - 1))
        return TrainingError(
            f"The {what} loss became {value} in epoch {self.epoch + 1} of {self.plan.settings.epochs}, "
            f"batch {batch_idx + 1}, at learning rate {rate:.3g}.",
            do="Lower training.learning_rate, or look for absurd values in the features.",
        )
