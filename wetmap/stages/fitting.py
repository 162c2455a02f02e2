"""Fit one model on the folds and score it on held-out ground: what `train` does once and `compare` for many."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wetmap import models
from wetmap.bundle import CardCalibration, CardHistory, Payload, network_payload, pixel_payload
from wetmap.cube import Cube
from wetmap.recipe import Training
from wetmap.samples import PatchCubes
from wetmap.samples.patches import Patches
from wetmap.stages import fetch
from wetmap.stages.context import Context
from wetmap.training.calibration import Calibration, calibrate, reliability
from wetmap.training.fit import FitRun, fit_network, predict_logits, reproducible
from wetmap.training.metrics import Scores, scores
from wetmap.training.pixels import centre_pixels, fit_pixels
from wetmap.training.start import StartReport, apply_start

#: Models that are always fitted beside the one that was asked for.
BASELINES = ("forest", "boosting")
#: Window of a model that has no such option, pixels: the smallest that a sample is stored in.
LEAST_WINDOW_PX = 8


@dataclass(frozen=True)
class Roles:
    """The samples of each role, in windows of one size."""

    train: Patches
    """What is learnt from."""
    validation: Patches
    """What chooses the epoch and the temperature."""
    test: Patches
    """What is scored."""

    @classmethod
    def of(cls, cubes: PatchCubes) -> Roles:
        """All samples of the patch cubes."""
        return cls(*(cubes.select(role) for role in ("train", "validation", "test")))

    def crop(self, window_px: int) -> Roles:
        """The same samples in smaller windows."""
        return Roles(self.train.crop(window_px), self.validation.crop(window_px), self.test.crop(window_px))


@dataclass(frozen=True)
class Job:
    """What is to be fitted, and how."""

    name: str
    """A registered model."""
    options: Mapping[str, Any]
    """All of its options."""
    training: Training
    """The recipe's training part."""
    run: FitRun
    """Classes, layers, seed, threads, and where the state lives."""

    @property
    def window_px(self) -> int:
        """Side of the windows that the model learns from, pixels."""
        return window_of(self.options)


@dataclass(frozen=True)
class Fitted:
    """A fitted model before it is a bundle."""

    name: str
    """Its name."""
    options: dict[str, Any]
    """All of its options."""
    payload: Payload
    """Its weights."""
    geometry: models.Geometry
    """Tile, margin and stride."""
    window_px: int
    """Side of the training windows, pixels."""
    parameters: int | None
    """Numbers that were trained; None for trees."""
    seconds: float
    """Time the fit took, seconds, that of runs that were stopped included."""
    history: CardHistory
    """Summary of the training."""
    epochs: list[dict[str, Any]]
    """One row per epoch."""
    test: NDArray[np.float32]
    """(n, K) probabilities of the test samples, before calibration."""
    calibration: Calibration
    """Temperature, fitted to the validation samples."""
    model: Any
    """The network or the pixel model, in evaluation mode."""
    warnings: tuple[str, ...] = ()
    """What was odd about the samples."""
    start: StartReport | None = None
    """What became of the weights that training began from."""

    @property
    def index(self) -> NDArray[np.int64]:
        """(n,) predicted class of the test samples."""
        return np.asarray(self.test.argmax(axis=1), dtype=np.int64)

    def scores(self, roles: Roles, classes: tuple[str, ...]) -> Scores:
        """Scores on the test samples."""
        return scores(roles.test.label, self.index, classes)

    def card_calibration(self, roles: Roles) -> CardCalibration:
        """What the bundle says about its probabilities, the error on the test samples with it."""
        truth = roles.test.label
        return CardCalibration(
            **self.calibration.card(),
            test_ece_before=reliability(self.test, truth).ece,
            test_ece_after=reliability(self.calibration.apply(self.test), truth).ece,
        )


def fit_run(context: Context, classes: tuple[str, ...], *, key: str, folder: Path) -> FitRun:
    """What a fit on this workspace's cube is called, and where its state lives."""
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    return FitRun(
        classes=classes,
        band_layer=tuple(cube.layers.index(band.layer) for band in cube.bands),
        seed=context.recipe.seed,
        key=key,
        folder=folder,
        threads=context.workers.threads,
        bands=tuple(band.name for band in cube.bands),
    )


def window_of(options: Mapping[str, Any]) -> int:
    """Side of the windows that a model with these options learns from, pixels."""
    return int(options.get("window", LEAST_WINDOW_PX))


def baseline_options(name: str, training: Training) -> dict[str, Any]:
    """Options of a model that is fitted for comparison: those of the recipe that apply to it."""
    asked: dict[str, object] = {"class_weight": "balanced" if training.class_weights == "inverse" else "none"}
    if name == "forest":
        asked["trees"] = training.forest_trees
    return dict(models.resolve_options(name, asked))


def fit_one(job: Job, roles: Roles, *, progress: Callable[[dict[str, Any]], None] | None = None) -> Fitted:
    """Fit a model to the training samples, calibrate it on the validation samples, and answer the test samples.

    Args:
        job: What and how.
        roles: Samples in windows of at least ``job.window_px``.
        progress: Called after every epoch of a network.

    Raises:
        TrainingError: The samples teach nothing, or the loss is not a number.
    """
    roles = roles.crop(job.window_px)
    if models.entry(job.name).family == "pixel":
        return _fit_pixels(job, roles)
    return _fit_network(job, roles, progress)


def _fit_network(job: Job, roles: Roles, progress: Callable[[dict[str, Any]], None] | None) -> Fitted:
    layers = roles.train.observed.shape[1]
    with reproducible(seed=job.run.seed, threads=job.run.threads):
        network = models.create(
            job.name,
            len(job.run.band_layer),
            len(job.run.classes),
            layers=layers,
            band_layer=job.run.band_layer,
            **job.options,
        )
        start = None if job.training.start is None else apply_start(network, job.training.start, bands=job.run.bands)
    result = fit_network(network, roles.train, roles.validation, job.training, run=job.run, progress=progress)
    validation, test = (
        _softmax(predict_logits(network, part, threads=job.run.threads)) for part in (roles.validation, roles.test)
    )
    return Fitted(
        name=job.name,
        options=dict(job.options),
        payload=network_payload(result.state),
        geometry=cast("models.MapModel", network).geometry,
        window_px=job.window_px,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        seconds=sum(row["seconds"] for row in result.history),
        history=CardHistory(
            epochs=len(result.history),
            best_epoch=result.best_epoch,
            best_validation_macro_f1=result.history[result.best_epoch]["validation_macro_f1"],
        ),
        epochs=result.history,
        test=test,
        calibration=calibrate(validation, roles.validation.label),
        model=network,
        warnings=result.warnings,
        start=start,
    )


def _fit_pixels(job: Job, roles: Roles) -> Fitted:
    begun = time.perf_counter()
    model = fit_pixels(job.name, roles.train, roles.validation, job.options, run=job.run)
    seconds = time.perf_counter() - begun
    held = centre_pixels(roles.validation, job.run.band_layer)
    # a class without a vote is not impossible: half a vote, see wetmap.training.calibration
    floor = 0.5 / int(job.options["trees"]) if job.name == "forest" else 0.0
    return Fitted(
        name=job.name,
        options=dict(job.options),
        payload=pixel_payload(model),
        geometry=model.geometry,
        window_px=job.window_px,
        parameters=None,
        seconds=seconds,
        history=CardHistory(epochs=0, best_epoch=0),
        epochs=[],
        test=model.pixel_probabilities(centre_pixels(roles.test, job.run.band_layer)),
        calibration=calibrate(model.pixel_probabilities(held), roles.validation.label, floor=floor),
        model=model,
    )


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float32)
