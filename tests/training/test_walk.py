"""The real network through the whole of training, the bundle and the map's contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from torch import nn

from wetmap import models
from wetmap.bundle import ModelCard, load_bundle, load_predictor, network_payload, save_bundle
from wetmap.classes import MapClass
from wetmap.cube import Band
from wetmap.recipe import Training
from wetmap.training.data import Arrays
from wetmap.training.fit import FitRun, fit_network, predict_logits, reproducible

MODEL = "wetmapformer-window"
WIDTH = 8
LAYERS = ("summer.optical", "summer.radar_any")
BANDS = (
    Band("summer.B08", "reflectance", "1", LAYERS[0]),
    Band("summer.NDVI", "index", "1", LAYERS[0]),
    Band("summer.VV_any", "gamma0_db", "dB", LAYERS[1]),
)
CLASSES = tuple(MapClass(code, name, "#123456") for code, name in enumerate(("bog", "fen", "water"), 1))


class StopHereError(Exception):
    """A stand-in for a kill."""


def _new() -> nn.Module:
    with reproducible(seed=3, threads=1):
        return models.create(MODEL, 3, 3, layers=2, band_layer=(0, 0, 1))


def _card(model: Any, **rest: Any) -> ModelCard:
    return ModelCard(
        model=MODEL,
        options=models.option_defaults(MODEL),
        bands=BANDS,
        layers=LAYERS,
        classes=CLASSES,
        window=WIDTH,
        geometry=model.geometry,
        res_m=10.0,
        simulated=True,
        **rest,
    )


def test_from_windows_to_the_map(
    windows: Callable[..., Arrays], quick: Training, fit_run: FitRun, tmp_path: Path
) -> None:
    settings = quick.model_copy(update={"epochs": 2})
    data = windows(36, width=WIDTH), windows(12, seed=1, width=WIDTH)

    def stop(row: dict[str, Any]) -> None:
        raise StopHereError(row)

    with pytest.raises(StopHereError):
        fit_network(_new(), *data, settings, run=fit_run, progress=stop)
    resumed, model = fit_network(_new(), *data, settings, run=fit_run), _new()
    whole = fit_network(model, *data, settings, run=replace(fit_run, folder=tmp_path / "whole"))
    payload = network_payload(whole.state)
    assert network_payload(resumed.state) == payload

    save_bundle(tmp_path / "model", _card(model, weights=payload.file), payload)
    predictor = load_predictor(load_bundle(tmp_path / "model"))
    geometry = predictor.geometry
    tile = windows(1, seed=4, width=geometry.side)
    tile.features.setflags(write=False)
    answer = predictor.tile_probabilities(tile.features, tile.observed)
    for row, col in ((0, 0), (5, 17), (geometry.tile - 1, geometry.tile - 1)):
        # the window of a pixel begins WIDTH // 2 before it, and the tile begins `margin` pixels into the array
        top, left = (place + geometry.margin - WIDTH // 2 for place in (row, col))
        window = (..., slice(top, top + WIDTH), slice(left, left + WIDTH))
        alone = predict_logits(model, Arrays(tile.features[window], tile.observed[window], np.zeros(1, dtype=int)))
        np.testing.assert_allclose(answer[0, :, row, col], softmax(alone[0]), atol=1e-5)
