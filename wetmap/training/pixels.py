"""Models of single pixels, fitted to the labelled pixels of the windows that networks learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wetmap.models.pixels import PixelModel, PixelSamples, fit_pixel_model
from wetmap.training.data import ArraySet
from wetmap.training.fit import FitRun, check_classes, check_role


def fit_pixels(
    name: str, train: ArraySet, validation: ArraySet, options: Mapping[str, object], *, run: FitRun
) -> PixelModel:
    """Fit a model of single pixels to the windows' labelled pixels alone.

    Args:
        name: A registered model of the family ``pixel``.
        train: Training windows.
        validation: Windows that choose how far boosting goes; never the test fold.
        options: All of the model's options.
        run: Classes, layers of the bands, seed and threads; the model does not depend on the threads.

    Raises:
        TrainingError: Fewer than two samples, or one class only.
    """
    check_role(train, "training", run)
    check_role(validation, "validation", run)
    check_classes(train, run.classes)
    learnt, held = (pixel_samples(part, run) for part in (train, validation))
    return fit_pixel_model(name, learnt, options=options, seed=run.seed, threads=run.threads, validation=held)


def pixel_samples(arrays: ArraySet, run: FitRun) -> PixelSamples:
    """The labelled pixels of windows, as models of pixels take them."""
    return PixelSamples(
        x=centre_pixels(arrays, run.band_layer),
        y=np.asarray(arrays.label, dtype=np.int64),
        classes=len(run.classes),
        layers=arrays.observed.shape[1],
        band_layer=run.band_layer,
    )


def centre_pixels(arrays: ArraySet, band_layer: Sequence[int]) -> NDArray[np.float32]:
    """The labelled pixel of each window, (n, C) float32 with NaN where not observed.

    It is at row and column w // 2, which is (4, 4) of an 8 x 8 window.
    """
    centre = arrays.features.shape[-1] // 2
    seen = arrays.observed[:, list(band_layer), centre, centre]
    return np.where(seen, arrays.features[:, :, centre, centre], np.float32(np.nan))
