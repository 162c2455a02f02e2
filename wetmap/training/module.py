"""The Lightning module: one epoch of training, its validation, and what is kept of it.

Import it late: Lightning takes seconds to import.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from wetmap.errors import SlowTrainingWarning, TrainingError
from wetmap.models.supervit import SuperVit, SuperVitDense
from wetmap.recipe import Training
from wetmap.training.averaging import WeightAverage
from wetmap.training.checkpoint import FitState, Tensors, copied
from wetmap.training.data import Batch, EpochBatches, model_seed
from wetmap.training.losses import make_criterion
from wetmap.training.metrics import scores
from wetmap.training.seat import ALONE, Seat, Step, agree
from wetmap.training.subnetworks import choices_of_step, super_step
from wetmap.training.tiles import IGNORE
from wetmap.training.trainer import end_at_once, slow_batch_words

#: Share of a limited training time in which the warm-up is over, however few epochs fit in.
WARMUP_TIME = 0.1


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
    seat: Seat = ALONE
    """The place of this process among those that train."""
    clock: Callable[[], float] = time.perf_counter
    """Seconds from any beginning."""


def learning_rate(settings: Training, step: int, steps_per_epoch: int, time_share: float = 0.0) -> float:
    """The learning rate of a step: linear warm-up to the peak, then half a cosine down towards 0.

    A pure function of the step, so that it needs no state. Where the warm-up is as long as the whole training, it is
    cut to leave one epoch for the cosine. Where the training time is limited, the cosine is as far as the steps or the
    time are, whichever is further.

    Args:
        settings: Peak, epochs and warm-up epochs.
        step: Number of the step over all epochs, from 0.
        steps_per_epoch: Steps in an epoch.
        time_share: How much of the training time has passed, 0-1; more is taken for 1.
    """
    total = settings.epochs * steps_per_epoch
    warmup = min(settings.warmup_epochs, settings.epochs - 1) * steps_per_epoch
    risen = 1.0 if step >= warmup else min(max((step + 1) / warmup, time_share / WARMUP_TIME), 1.0)
    passed = min(max((step - warmup) / (total - warmup), time_share, 0.0), 1.0)
    # Loshchilov and Hutter (2017), "SGDR", equation 5, with a smallest rate of 0 and no restart.
    return settings.learning_rate * risen * 0.5 * (1 + math.cos(math.pi * passed))


def make_optimiser(model: nn.Module, settings: Training) -> AdamW:
    """AdamW that decays weight matrices and kernels, and leaves one-dimensional parameters (norms, biases) alone."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=settings.learning_rate)


class FitModule(lightning.LightningModule):
    """Trains a network and keeps, after every epoch, all that is needed to go on from there.

    The steps are taken here and not by Lightning, since one of SuperViT's has four losses with a gradient each.
    """

    def __init__(self, network: nn.Module, batches: EpochBatches, plan: ModulePlan) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.batches = batches
        self.plan = plan
        start = plan.start
        self.history: list[dict[str, Any]] = [] if start is None else [*start.history]
        self.best_epoch = 0 if start is None else start.best_epoch
        self.best: Tensors = {} if start is None else start.best
        self.criterion = make_criterion(plan.settings, plan.weights)
        self.average: WeightAverage | None = None
        self._validating = contextlib.ExitStack()
        self._loss_sums: dict[str, float] = {}
        self._samples = 0.0
        self._began, self._spent_s, self._step = 0.0, 0.0 if start is None else start.seconds, Step()
        self._elapsed_s, self._slow_batch = 0.0, False
        self._validation_loss, self._validation_mass = 0.0, 0.0
        self._truth, self._guess = [torch.empty(0)], [torch.empty(0)]

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

    def on_fit_start(self) -> None:
        """Begin the average of the weights where they now are, or go on with that of an earlier run."""
        if self.plan.settings.ema:
            average = None if self.plan.start is None else self.plan.start.average
            self.average = WeightAverage(self.network, self.plan.settings.ema, average)

    def on_train_start(self) -> None:
        """Let SIGTERM end the process; Lightning puts back what was there before."""
        if self.plan.seat.ranks > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end_at_once)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch's draws; each process has a dropout of its own."""
        self._began = self.plan.clock()
        self.batches.epoch = self.epoch
        torch.manual_seed(model_seed(self.plan.seed, self.epoch) + self.plan.seat.rank)
        self._loss_sums, self._samples, self._elapsed_s = {}, 0.0, 0.0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Agree on the step with the other processes, and set its learning rate."""
        self._step = agree(self.plan.seat, self.criterion, batch[2], self._elapsed_s)
        rate = self._rate(batch_idx)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take a step.

        Raises:
            TrainingError: A loss is not a number.
        """
        optimiser = cast(Optimizer, self.optimizers())
        optimiser.zero_grad()
        losses = self._of_all(self._add_gradients(batch, batch_idx))
        self.plan.seat.level(self.network)
        for name, value in losses.items():
            if not math.isfinite(value):
                raise self._diverged("training", value, batch_idx)
            self._loss_sums[name] = self._loss_sums.get(name, 0.0) + value * self._step.labelled
        self._samples += self._step.labelled
        if self.plan.settings.gradient_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.settings.gradient_norm)
        optimiser.step()
        if self.average is not None:
            self.average.update(self.network, self.epoch * len(self.batches) + batch_idx)
        if self._time_share >= 1:
            self.trainer.should_stop = True  # this epoch is validated and kept as it is
            self._note_slow_batch(batch_idx)

    def on_validation_epoch_start(self) -> None:
        """Begin counting; what is scored is the average of the weights, where one is kept."""
        self._validation_loss, self._validation_mass = 0.0, 0.0
        self._truth, self._guess = [], []
        if self.average is not None:
            self._validating.enter_context(self.average.instead(self.network))

    def on_validation_epoch_end(self) -> None:
        """Go on with the weights themselves."""
        self._validating.close()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Note the predictions of a batch.

        Raises:
            TrainingError: The loss is not a number.
        """
        features, observed, target = batch
        logits = self.network(features, observed)
        value = float(self.criterion(logits, target))
        if not math.isfinite(value):
            raise self._diverged("validation", value, batch_idx)
        labelled, mass = target != IGNORE, float(self.criterion.mass(target))
        self._validation_loss += value * mass
        self._validation_mass += mass
        self._truth.append(target[labelled].cpu())
        self._guess.append(logits.argmax(dim=1)[labelled].cpu())

    def on_train_epoch_end(self) -> None:
        """Score the epoch, keep its weights if it is the best so far, and hand the state over."""
        seat = self.plan.seat
        truth, guess = seat.joined(torch.cat(self._truth)), seat.joined(torch.cat(self._guess))
        found = scores(truth.numpy(), guess.numpy(), self.plan.classes)
        seconds = self.plan.clock() - self._began
        own = [self._validation_loss, self._validation_mass, seconds if seat.leads else 0.0]
        validation_loss, validation_mass, seconds = seat.sums(own)
        self._spent_s += seconds
        row = {
            "epoch": self.epoch,
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            **{name: total / self._samples for name, total in self._loss_sums.items()},
            "validation_loss": validation_loss / validation_mass if validation_mass else 0.0,
            "validation_macro_f1": found.macro_f1,
            "validation_accuracy": found.overall_accuracy,
            "seconds": seconds,
        }
        if self._slow_batch:
            row["batches"] = 1
        weights = copied(self.network.state_dict())
        average = {} if self.average is None else copied(self.average.state)
        if not self.best or found.macro_f1 > self.history[self.best_epoch]["validation_macro_f1"]:
            self.best_epoch, self.best = self.epoch, average or weights
        self.history.append(row)
        state = FitState(self.history, self.best_epoch, weights, self.best, self._moments(), average)
        if state.exhausted(self.plan.settings.epochs, self.plan.settings.patience, self.plan.settings.minutes):
            self.trainer.should_stop = True
        self.plan.on_epoch(state)

    def _add_gradients(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Gradients of a batch's loss or, of a SuperViT, of its four losses, which are returned by their names."""
        shares = itertools.cycle((self._step.loss_share, self._step.sample_share))

        def backward(loss: Tensor) -> None:
            share = next(shares)
            self.manual_backward(loss if share == 1 else loss * share)

        if isinstance(self.network, SuperVit | SuperVitDense):
            choices = choices_of_step(len(self.network.shape.tokens), self.plan.seed, self.epoch, batch_idx)
            losses = super_step(self.network, batch, self.criterion, choices, backward)
            names = ("loss", "loss_largest_pruned", "loss_smaller", "loss_smaller_pruned")
            return dict(zip(names, losses, strict=True))
        features, observed, target = batch
        loss: Tensor = self.criterion(self.network(features, observed), target)
        backward(loss)
        return {"loss": loss.detach()}

    def _of_all(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """The losses of the whole batch, from those of this process's part and of the others'."""
        step, ranks = self._step, self.plan.seat.ranks
        # the divergence of a pruned network is a mean over samples, whatever their labels
        parts = [
            float(loss) * (step.sample_share if name.endswith("pruned") else step.loss_share) / ranks
            for name, loss in losses.items()
        ]
        # the time goes with them: all processes must stop after the same step
        elapsed = self.plan.clock() - self._began if self.plan.seat.leads else 0.0
        *sums, self._elapsed_s = self.plan.seat.sums([*parts, elapsed])
        return dict(zip(losses, sums, strict=True))

    @property
    def _time_share(self) -> float:
        """How much of the training time had passed after the latest step's gradients, 0 where it is not limited."""
        minutes = self.plan.settings.minutes
        return 0.0 if minutes is None else (self._spent_s + self._elapsed_s) / (minutes * 60)

    def _note_slow_batch(self, batch_idx: int) -> None:
        """Warn where the first batch of all took all the time that there was."""
        self._slow_batch = not self.history and batch_idx == 0
        if self._slow_batch and self.plan.seat.leads:
            warnings.warn(slow_batch_words(self.plan.settings, self._elapsed_s), SlowTrainingWarning, stacklevel=2)

    def _rate(self, batch_idx: int) -> float:
        steps = len(self.batches)
        return learning_rate(self.plan.settings, self.epoch * steps + batch_idx, steps, self._time_share)

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
