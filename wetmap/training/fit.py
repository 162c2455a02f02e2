"""Fit a network, or the forest beside it, on training windows.

On the CPU, the same samples, settings, seed and number of threads give the same bytes, stopped and resumed or not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wetmap.allocator import keep_freed_memory
from wetmap.errors import TrainingError
from wetmap.recipe import Training
from wetmap.training.checkpoint import FitState, load_state, save_state
from wetmap.training.data import (
    ArraySet,
    Augmentation,
    PlainBatches,
    TrainingBatches,
    band_statistics,
    check_samples,
    class_weights,
)

if TYPE_CHECKING:
    from wetmap.models.forest import ForestModel
    from wetmap.training.module import ModulePlan

Progress = Callable[[dict[str, Any]], None]

#: Share of batch normalisation's running statistics that may stem from before the latest epoch.
OLD_STATISTICS = 0.02

#: What Lightning itself causes to be warned of in a correct run, by exact message: nothing a user could act on.
LIGHTNING_WARNINGS = (
    # Lightning 2.6 still makes a LeafSpec of a PyTorch that replaces it by TreeSpec.
    "`isinstance(treespec, LeafSpec)` is deprecated, "
    "use `isinstance(treespec, TreeSpec) and treespec.is_leaf()` instead.",
)
#: Loggers on which Lightning announces devices and tips.
LIGHTNING_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")


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


@dataclass(frozen=True)
class FitResult:
    """A trained network."""

    best_epoch: int
    """The epoch whose weights were kept, from 0."""
    history: list[dict[str, Any]]
    """Per epoch: epoch, learning_rate (of its last step), loss, validation_loss, validation_macro_f1,
    validation_accuracy."""
    state: dict[str, Tensor]
    """The network's state after the best epoch, on the CPU."""


def fit_network(
    model: nn.Module,
    train: ArraySet,
    validation: ArraySet,
    settings: Training,
    *,
    run: FitRun,
    progress: Progress | None = None,
) -> FitResult:
    """Train a network and keep its best epoch.

    The bands are normalised by the training windows. AdamW with warm-up and cosine, cross-entropy with label
    smoothing and class weights, flips, quarter turns and hidden layers, gradients clipped to norm 1; the best epoch is
    the first with the highest validation macro F1. After every epoch the state is saved in ``run.folder``; the same
    call goes on from there.

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
        TrainingError: Too few samples, one class only, or a loss that is not a number.
        WorkspaceError: The disk is full.
    """
    _check(train, validation, settings, run)
    keep_freed_memory()
    with reproducible(seed=run.seed, threads=run.threads):
        _normalise(model, train, run)
        state = load_state(run.folder, run.key, model.state_dict())
        if state is None or not state.exhausted(settings.epochs, settings.patience):
            state = _train(model, train, validation, settings, run=run, start=state, progress=progress)
        model.to("cpu").load_state_dict(state.best)
        model.eval()
    return FitResult(best_epoch=state.best_epoch, history=state.history, state=state.best)


def fit_baseline_forest(train: ArraySet, settings: Training, *, run: FitRun) -> ForestModel:
    """Fit the random forest that every model is compared with, on the windows' labelled pixels alone.

    Args:
        train: Training windows: the training role only, so that the validation fold stays unseen here too.
        settings: For the number of trees and the class weights.
        run: Classes, layers of the bands, seed and threads; the forest does not depend on the threads.

    Raises:
        TrainingError: Fewer than two samples, or one class only.
    """
    from wetmap.models.forest import ForestSettings, fit_forest

    _check_role(train, "training", run)
    _check_classes(train, run.classes)
    return fit_forest(
        centre_pixels(train, run.band_layer),
        np.asarray(train.label, dtype=np.int64),
        classes=len(run.classes),
        trees=settings.forest_trees,
        seed=run.seed,
        threads=run.threads,
        settings=ForestSettings(
            class_weight="balanced" if settings.class_weights == "inverse" else "none",
            layers=train.observed.shape[1],
            band_layer=run.band_layer,
        ),
    )


def centre_pixels(arrays: ArraySet, band_layer: Sequence[int]) -> NDArray[np.float32]:
    """The labelled pixel of each window, (n, C) float32 with NaN where not observed.

    It is at row and column w // 2, which is (4, 4) of an 8 x 8 window.
    """
    centre = arrays.features.shape[-1] // 2
    seen = arrays.observed[:, list(band_layer), centre, centre]
    return np.where(seen, arrays.features[:, :, centre, centre], np.float32(np.nan))


def predict_windows(model: nn.Module, arrays: ArraySet, batch: int = 256, *, threads: int = 1) -> NDArray[np.float32]:
    """Class probabilities of windows.

    Args:
        model: A trained network.
        arrays: The windows.
        batch: Windows per step.
        threads: Threads of PyTorch.

    Returns:
        (n, K) float32, rows sum to 1.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    was_training = model.training
    found = []
    with reproducible(seed=0, threads=threads), torch.inference_mode():
        model.eval()
        for features, observed, _ in PlainBatches(arrays, batch_size=batch):
            logits = model(features.to(device), observed.to(device))
            found.append(torch.softmax(logits.float(), dim=1).cpu().numpy())
    model.train(was_training)
    if not found:
        raise TrainingError("There are no samples to predict.", do="Add reference data.")
    return np.concatenate(found)


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
    with torch.random.fork_rng():
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


def _normalise(model: nn.Module, train: ArraySet, run: FitRun) -> None:
    mean, variance = band_statistics(train, run.band_layer)
    cast(Normalised, model).set_normalisation(torch.from_numpy(mean), torch.from_numpy(variance))


def _train(
    model: nn.Module,
    train: ArraySet,
    validation: ArraySet,
    settings: Training,
    *,
    run: FitRun,
    start: FitState | None,
    progress: Progress | None,
) -> FitState:
    """Train from ``start`` to the end, saving every epoch."""
    last: list[FitState] = []

    def keep(state: FitState) -> None:
        last[:] = [state]
        save_state(run.folder, run.key, state)
        if progress is not None:
            progress({**state.history[-1], "epochs": settings.epochs, "best_epoch": state.best_epoch})

    augmentation = Augmentation(settings.flips, settings.drop_layers, run.band_layer)
    batches = TrainingBatches(train, augmentation, batch_size=settings.batch_size, seed=run.seed)
    inverse = settings.class_weights == "inverse"
    weights = torch.from_numpy(class_weights(train.label, len(run.classes))) if inverse else None
    if start is not None:
        model.load_state_dict(start.model)
    with _quiet_lightning():
        from wetmap.training.module import ModulePlan

        plan = ModulePlan(settings, run.classes, weights, run.seed, start, keep)
        with fresh_statistics(model, len(batches)):
            _run_lightning(model, batches, PlainBatches(validation, batch_size=settings.batch_size), plan, run.folder)
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


def _run_lightning(
    model: nn.Module, batches: TrainingBatches, validation: PlainBatches, plan: ModulePlan, folder: Path
) -> None:
    import lightning
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from wetmap.training.module import GRADIENT_NORM, FitModule

    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        # One process on one device: a Slurm job's variables are not for this trainer.
        plugins=[LightningEnvironment()],
        max_epochs=plan.settings.epochs - (0 if plan.start is None else plan.start.epochs_done),
        gradient_clip_val=GRADIENT_NORM,
        default_root_dir=folder,
        enable_checkpointing=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    try:
        trainer.fit(FitModule(model, batches, plan), train_dataloaders=batches, val_dataloaders=validation)
    except SIGTERMException as stop:
        # Lightning's exception would end the process with status 0.
        raise SystemExit(128 + signal.SIGTERM) from stop
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            # Lightning turns Ctrl-C into exit status 1; the command line decides what it means.
            raise KeyboardInterrupt from stop
        raise


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Import and run Lightning without its announcements, and without what its import does to the process."""
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS]
    formatter = warnings.formatwarning
    with warnings.catch_warnings():
        import lightning.fabric  # sets levels, warning filters and the format of warnings
        import lightning.pytorch  # noqa: F401

        for message in LIGHTNING_WARNINGS:
            warnings.filterwarnings("ignore", message=f"^{re.escape(message)}$", category=FutureWarning)
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            warnings.formatwarning = formatter


def _check(train: ArraySet, validation: ArraySet, settings: Training, run: FitRun) -> None:
    _check_role(train, "training", run)
    _check_role(validation, "validation", run)
    _check_classes(train, run.classes)
    if settings.batch_size == 1:
        raise TrainingError(
            "training.batch_size is 1, and batch normalisation learns nothing from a single sample.",
            do="Set it to 2 or more.",
        )


def _check_role(arrays: ArraySet, role: str, run: FitRun) -> None:
    check_samples(arrays, role, classes=run.classes, layers=max(run.band_layer, default=-1) + 1)
    if arrays.features.shape[1] != len(run.band_layer):
        raise TrainingError(
            f"The {role} windows have {arrays.features.shape[1]} bands, and {len(run.band_layer)} were expected.",
            do="Delete the patch cubes and run wetmap train again.",
        )


def _check_classes(train: ArraySet, classes: Sequence[str]) -> None:
    n = len(train.label)
    if n < 2:
        raise TrainingError(f"There is only {n} training sample.", do="Add reference data.")
    present = np.unique(train.label)
    if len(present) < 2:
        raise TrainingError(
            f"All {n} training samples are of one class ({classes[int(present[0])]}).",
            do="Add reference data of another class, or background samples (reference.background).",
        )
