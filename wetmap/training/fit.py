"""Fit a network, or the forest beside it, on training windows.

On the CPU, the same samples, settings, seed and number of threads give the same bytes, stopped and resumed or not.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wetmap.allocator import keep_freed_memory
from wetmap.errors import TrainingError, TrainingWarning
from wetmap.models.tiles import TileNetwork
from wetmap.recipe import Training
from wetmap.training.checkpoint import FitState, load_state, save_state
from wetmap.training.data import (
    ArraySet,
    Augmentation,
    Batches,
    EpochBatches,
    PlainBatches,
    TrainingBatches,
    band_statistics,
    check_samples,
    class_weights,
)
from wetmap.training.logs import epoch_log
from wetmap.training.mixing import Bands, MixedBatches, Mixing
from wetmap.training.ranks import FitJob, together
from wetmap.training.seat import Seat
from wetmap.training.tiles import PlainTiles, TileBatches, TileSet
from wetmap.training.trainer import quiet_lightning, run_lightning

Progress = Callable[[dict[str, Any]], None]
#: Samples; a dense network needs to know where they lie and what lies around them.
SampleSet = TileSet

#: Share of batch normalisation's running statistics that may stem from before the latest epoch.
OLD_STATISTICS = 0.02


class Normalised(Protocol):
    """What a network must offer to be trained, beside ``forward(features, observed) -> logits``."""

    def set_normalisation(self, mean: Tensor, variance: Tensor) -> None:
        """Take the bands' mean (C,) and variance (C,)."""


@dataclass(frozen=True)
class FitRun:
    """One fit: what it is called, what is random about it, and where its state lives."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of their index."""
    band_layer: tuple[int, ...]
    """Index of the observed layer of each band."""
    seed: int
    """Seed of everything drawn in training."""
    key: str
    """Digest of what was asked: a state that an earlier run left under another key is ignored."""
    folder: Path
    """Where the state is kept after every epoch."""
    threads: int = 1
    """Threads of PyTorch; part of the numerics."""
    bands: tuple[str, ...] = ()
    """Names of the bands, for messages; empty: they are numbered."""
    clock: Callable[[], float] = time.perf_counter
    """Seconds from any beginning, by which training time is measured."""


@dataclass(frozen=True)
class FitResult:
    """A trained network."""

    best_epoch: int
    """The epoch whose weights were kept, from 0."""
    history: list[dict[str, Any]]
    """Per epoch: epoch, learning_rate (of its last step), loss, validation_loss, validation_macro_f1,
    validation_accuracy, and seconds, its training and validation time; of a SuperViT also loss_largest_pruned,
    loss_smaller and loss_smaller_pruned."""
    state: dict[str, Tensor]
    """The network's state after the best epoch, on the CPU; the average of the weights where one is kept."""
    warnings: tuple[str, ...] = ()
    """What was warned of, for the manifest."""


def fit_network(
    model: nn.Module,
    train: SampleSet,
    validation: SampleSet,
    settings: Training,
    *,
    run: FitRun,
    progress: Progress | None = None,
) -> FitResult:
    """Train a network and keep its best epoch.

    The bands are normalised by the training windows. AdamW with warm-up and cosine; loss, sampling, augmentation,
    mixing, clipping and averaging as ``settings`` say; SuperViT learns by its four networks. The best epoch is the
    first with the highest validation macro F1. After every epoch the state is saved in ``run.folder``, beside what
    TensorBoard shows of it; the same call goes on from there. Where several processes train together, this one leads.

    Args:
        model: A network as ``wetmap.models.create`` makes it, made inside ``reproducible``. It is trained in place and
            ends on the CPU with the best weights.
        train: Training windows.
        validation: Windows that choose the epoch; never the test fold.
        settings: The recipe's training part.
        run: Classes, seed, threads, and where the state lives.
        progress: Called after every epoch with its row of the history and ``epochs`` and ``best_epoch``.

    Returns:
        The best epoch, the history, and the weights.

    Raises:
        TrainingError: Too few samples, one class only, nothing observed, a loss that is not a number, or another
            process of this training failed.
        WorkspaceError: The disk is full.

    Warns:
        TrainingWarning: A band was observed in no training window.
    """
    _check(train, validation, settings, run)
    notes = _warn_of_unseen_bands(train, run)
    keep_freed_memory()
    with reproducible(seed=run.seed, threads=run.threads):
        state = load_state(run.folder, run.key, model.state_dict())
        if state is None or not state.exhausted(settings.epochs, settings.patience, settings.minutes):
            job = FitJob(model, train, validation, settings, run, state)
            with together(job) as seat:
                state = _train(job, seat, progress)
        model.to("cpu").load_state_dict(state.best)
        model.eval()
    return FitResult(best_epoch=state.best_epoch, history=state.history, state=state.best, warnings=notes)


def plain_batches(model: nn.Module, arrays: SampleSet, batch_size: int = 256) -> Batches:
    """The samples as they are, as windows or as tiles, whichever the network takes."""
    if isinstance(model, TileNetwork):
        return PlainTiles(arrays)
    return PlainBatches(arrays, batch_size=batch_size)


def predict_logits(model: nn.Module, arrays: SampleSet, batch: int = 256, *, threads: int = 1) -> NDArray[np.float32]:
    """Logits of samples.

    Args:
        model: A trained network, of windows or of tiles.
        arrays: The samples.
        batch: Windows per step.
        threads: Threads of PyTorch.

    Returns:
        (n, K) float32.
    """
    if not len(arrays.label):
        raise TrainingError("There are no samples to predict.", do="Add reference data.")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    was_training = model.training
    batches = plain_batches(model, arrays, batch)
    with reproducible(seed=0, threads=threads), torch.inference_mode():
        model.eval()
        found = [model(features.to(device), observed.to(device)).float().cpu() for features, observed, _ in batches]
    model.train(was_training)
    logits = torch.cat(found).numpy()
    if isinstance(batches, PlainTiles):
        return np.ascontiguousarray(logits[batches.tile, :, batches.down, batches.across])
    return logits


@contextlib.contextmanager
def reproducible(*, seed: int, threads: int) -> Iterator[None]:
    """Seed PyTorch, fix its threads and, on the CPU, its algorithms; everything is as before afterwards.

    Make a network inside it, so that its first weights follow from the seed.
    """
    threads_before = torch.get_num_threads()
    strict_before = torch.are_deterministic_algorithms_enabled()
    warn_before = torch.is_deterministic_algorithms_warn_only_enabled()
    # cuBLAS is deterministic only with an environment variable, which is the user's to set.
    on_gpu = torch.cuda.is_available()
    environment = set(os.environ)
    with torch.random.fork_rng([torch.cuda.current_device()] if on_gpu else []):
        try:
            torch.set_num_threads(max(threads, 1))
            torch.use_deterministic_algorithms(not on_gpu)
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(threads_before)
            torch.use_deterministic_algorithms(strict_before, warn_only=warn_before)
            # PyTorch and Lightning note their own settings there when parts of them are first imported.
            for name in set(os.environ) - environment:
                del os.environ[name]


def _normalise(model: nn.Module, train: ArraySet, run: FitRun) -> Bands:
    mean, variance = (torch.from_numpy(values) for values in band_statistics(train, run.band_layer))
    cast(Normalised, model).set_normalisation(mean, variance)
    return Bands(mean.float(), variance.sqrt().float(), run.band_layer, len(run.classes))


class _TrainingData(NamedTuple):
    batches: EpochBatches
    weights: Tensor | None


def _training_data(model: nn.Module, train: SampleSet, bands: Bands, settings: Training, run: FitRun) -> _TrainingData:
    """The batches that a network learns from, and the weight of each class in the loss."""
    kind = TileBatches if isinstance(model, TileNetwork) else TrainingBatches
    batches: TileBatches | TrainingBatches = kind(
        train,
        Augmentation(settings.flips, settings.drop_layers, run.band_layer),
        batch_size=settings.batch_size,
        seed=run.seed,
        balanced=settings.sampling == "balanced",
    )
    weights = None
    if settings.class_weights == "inverse":
        # what balanced sampling has made even already is not weighted a second time
        weights = torch.from_numpy(class_weights(train.label, len(run.classes), batches.turns))
    mixing = Mixing.of(settings)
    return _TrainingData(MixedBatches(batches, mixing, bands, seed=run.seed) if mixing else batches, weights)


def take_part(job: FitJob, seat: Seat) -> None:
    """Train along in a process that does not lead; nothing is written."""
    keep_freed_memory()
    with reproducible(seed=job.run.seed, threads=job.run.threads):
        _train(job, seat, None)


def _train(job: FitJob, seat: Seat, progress: Progress | None) -> FitState:
    """Train from where the job begins to the end; the process that leads saves every epoch."""
    model, settings, run, start = job.model, job.settings, job.run, job.start
    data = _training_data(model, job.train, _normalise(model, job.train, run), settings, run)
    validation = plain_batches(model, job.validation, settings.batch_size)
    last: list[FitState] = []
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(epoch_log(run.folder, [] if start is None else start.history)) if seat.leads else None

        def keep(state: FitState) -> None:
            last[:] = [state]
            if log is not None:
                save_state(run.folder, run.key, state)
                log(state.history[-1])
            if progress is not None:
                progress({**state.history[-1], "epochs": settings.epochs, "best_epoch": state.best_epoch})

        if start is not None:
            model.load_state_dict(start.model)
        stack.enter_context(quiet_lightning())
        from wetmap.training.module import ModulePlan

        plan = ModulePlan(settings, run.classes, data.weights, run.seed, start, keep, seat, run.clock)
        with fresh_statistics(model, len(data.batches)):
            run_lightning(model, data.batches, validation, plan, run.folder)
    return last[0]


@contextlib.contextmanager
def fresh_statistics(model: nn.Module, steps: int) -> Iterator[None]:
    """Let batch normalisation forget what is older than an epoch, however few steps an epoch has.

    With Keras' momentum of 0.99 and ten steps an epoch, the running statistics would still be of the untrained network
    after dozens of epochs, and validation would score noise. A larger momentum of the model's own stays.

    Args:
        model: The network; its momenta are as before afterwards.
        steps: Steps in an epoch.
    """
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))]
    before = [norm.momentum for norm in norms]
    # after `steps` steps of momentum m (PyTorch's: the weight of the newest), (1 - m)^steps is left of what was
    least = 1 - OLD_STATISTICS ** (1 / max(steps, 1))
    try:
        for norm in norms:
            norm.momentum = None if norm.momentum is None else max(norm.momentum, least)
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def _check(train: ArraySet, validation: ArraySet, settings: Training, run: FitRun) -> None:
    check_role(train, "training", run)
    check_role(validation, "validation", run)
    check_classes(train, run.classes)
    if settings.batch_size == 1:
        raise TrainingError(
            "training.batch_size is 1, and batch normalisation learns nothing from a single sample.",
            do="Set it to 2 or more.",
        )


def check_role(arrays: ArraySet, role: str, run: FitRun) -> None:
    """Refuse windows of a role that do not have the run's bands, layers and classes."""
    check_samples(arrays, role, classes=run.classes, layers=max(run.band_layer, default=-1) + 1)
    if arrays.features.shape[1] != len(run.band_layer):
        raise TrainingError(
            f"The {role} windows have {arrays.features.shape[1]} bands, and {len(run.band_layer)} were expected.",
            do="Delete the patch cubes and run wetmap train again.",
        )


def _warn_of_unseen_bands(train: ArraySet, run: FitRun) -> tuple[str, ...]:
    """Say which bands were observed in no training window; a model of none of them is refused."""
    n = len(train.label)
    names = run.bands or tuple(f"number {number}" for number in range(1, len(run.band_layer) + 1))
    unseen = [
        name
        for band, (name, layer) in enumerate(zip(names, run.band_layer, strict=True))
        if not (np.isfinite(train.features[:, band]) & train.observed[:, layer]).any()
    ]
    if len(unseen) == len(names):
        raise TrainingError(
            f"None of the {len(names)} bands was observed in any of the {n} training windows.",
            do="Widen the seasons or allow more cloud (optical.max_cloud_percent), or add reference data elsewhere.",
        )
    if not unseen:
        return ()
    several = len(unseen) > 1
    note = (
        f"Band{'s' if several else ''} {', '.join(unseen)} {'were' if several else 'was'} observed in none of the {n} "
        f"training windows: the model is trained without {'them' if several else 'it'}, and maps do not use "
        f"{'them' if several else 'it'} either. Widen the season, or leave the sensor out of the recipe."
    )
    warnings.warn(note, TrainingWarning, stacklevel=3)
    return (note,)


def check_classes(train: ArraySet, classes: Sequence[str]) -> None:
    """Refuse fewer than two training samples, or samples of one class."""
    n = len(train.label)
    if n < 2:
        raise TrainingError(f"There is only {n} training sample.", do="Add reference data.")
    present = np.unique(train.label)
    if len(present) < 2:
        raise TrainingError(
            f"All {n} training samples are of one class ({classes[int(present[0])]}).",
            do="Add reference data of another class, or background samples (reference.background).",
        )
