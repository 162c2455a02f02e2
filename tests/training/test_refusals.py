"""Training sets that nothing, or less than hoped for, can be learnt from: explained, or simply trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from wetmap.classes import MapClass
from wetmap.errors import SplitError, TrainingError, TrainingWarning
from wetmap.recipe import Splits, Training
from wetmap.samples import Samples, split_samples
from wetmap.training.fit import FitRun, fit_network

Make = Callable[..., Any]


@pytest.fixture
def brief(quick: Training) -> Training:
    return quick.model_copy(update={"epochs": 1, "batch_size": 256})


def subset(arrays: Any, rows: np.ndarray) -> Any:
    return type(arrays)(*(getattr(arrays, name)[rows] for name in arrays.__dataclass_fields__))


def test_one_class_in_tiles(tiles: Make, dense: Make, brief: Training, fit_run: FitRun) -> None:
    arrays = tiles(60)
    water = subset(arrays, np.flatnonzero(arrays.label == 2))
    with pytest.raises(TrainingError, match=r"All \d+ training samples are of one class \(water\)\..*reference data"):
        fit_network(dense(), water, tiles(20, seed=1), brief, run=fit_run)


def unseen(arrays: Any, bands: list[int]) -> Any:
    features = arrays.features.copy()
    features[:, bands] = np.nan
    return replace(arrays, features=features)


def test_a_band_that_was_never_observed_is_said(learner: Any, brief: Training, fit_run: FitRun) -> None:
    model, make = learner
    run = replace(fit_run, bands=("summer.B08", "summer.NDVI", "summer.VV_any"))
    with pytest.warns(
        TrainingWarning, match=r"Band summer\.VV_any was observed in none of the 30 .* without it"
    ) as told:
        result = fit_network(model, unseen(make(30), [2]), make(20, seed=1), brief, run=run)
    assert result.warnings == (str(told[0].message),)
    assert all(torch.isfinite(value).all() for value in result.state.values())
    assert np.isfinite(result.history[0]["validation_loss"])


def test_bands_without_names_are_numbered_and_a_mask_counts(
    windows: Make, network: Make, brief: Training, fit_run: FitRun
) -> None:
    masked = windows(30)
    masked.observed[:, 0] = False  # the values of bands 1 and 2 are there, and the mask says that they mean nothing
    with pytest.warns(TrainingWarning, match="Bands number 1, number 2 were observed in none"):
        fit_network(network(), masked, windows(20, seed=1), brief, run=fit_run)


def test_nothing_observed_at_all(windows: Make, network: Make, brief: Training, fit_run: FitRun) -> None:
    with pytest.raises(TrainingError, match=r"None of the 3 bands was observed in any of the 30 .*seasons"):
        fit_network(network(), unseen(windows(30), [0, 1, 2]), windows(20, seed=1), brief, run=fit_run)


def test_some_missing_values_are_nothing_special(
    windows: Make, network: Make, brief: Training, fit_run: FitRun
) -> None:
    arrays = windows(30)
    arrays.features[::2, :, 1] = np.nan
    arrays.features[5] = np.nan  # a sample of which nothing is known
    assert fit_network(network(), arrays, windows(20, seed=1), brief, run=fit_run).warnings == ()


@pytest.mark.parametrize("kind", ["blocks", "polygons"])
def test_all_labels_in_one_block(kind: str) -> None:
    """Refused before anything is trained: held-out ground would have no labels."""
    row, col = (part.ravel().astype(np.int32) for part in np.indices((12, 12)))
    polygon = np.zeros(144, dtype=np.int32)
    samples = Samples(row + 40, col + 40, ((row + col) % 2).astype(np.uint8), polygon)
    spec = Splits(kind=kind, folds=3, block_m=600.0 if kind == "blocks" else None)
    classes = (MapClass(1, "bog", "#111111"), MapClass(2, "fen", "#222222"))
    with pytest.raises(SplitError, match=r"Class bog is not in every one of the 3 folds.*reference in other places"):
        split_samples(samples, spec, window_px=8, res_m=10.0, grid_shape=(200, 200), classes=classes, seed=1)


def test_all_labels_in_one_cell_are_trained_on(tiles: Make, dense: Make, brief: Training, fit_run: FitRun) -> None:
    arrays = tiles(900)
    near = subset(arrays, np.flatnonzero((arrays.row // 4 == 1) & (arrays.col // 4 == 3)))
    assert len(set(near.label.tolist())) == 2
    result = fit_network(dense(), near, tiles(20, seed=1), brief, run=fit_run)
    assert np.isfinite(result.history[0]["loss"])


@pytest.mark.parametrize("options", [{}, {"mixup": 0.4, "cutmix": 1.0, "sampling": "balanced", "ema": 0.9}])
@pytest.mark.parametrize("n", [2, 3, 9])
def test_fewer_samples_than_the_batch_are_trained_on(
    learner: Any, brief: Training, fit_run: FitRun, n: int, options: dict[str, Any]
) -> None:
    model, make = learner
    settings = brief.model_copy(update=options)
    result = fit_network(model, make(n, seed=2), make(20, seed=1), settings, run=fit_run)
    assert np.isfinite(result.history[0]["loss"])
    assert np.isfinite(result.history[0]["validation_loss"])
