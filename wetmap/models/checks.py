"""What every model refuses: shapes that are not its own, and maps asked of a model in training mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wetmap.errors import UsageError


def check_maps(features: Tensor, observed: Tensor | None, *, bands: int, layers: int) -> None:
    """Refuse features or an observation mask of other shapes than (N, bands, h, w) and bool (N, layers, h, w).

    Raises:
        UsageError: The shapes or the mask's dtype do not fit.
    """
    if features.ndim != 4 or features.shape[1] != bands:
        raise UsageError(
            f"Features of shape {tuple(features.shape)} for a model of {bands} bands.",
            do="Give (batch, bands, rows, columns).",
        )
    wanted = (features.shape[0], layers, *features.shape[2:])
    if observed is not None and (tuple(observed.shape) != wanted or observed.dtype != torch.bool):
        raise UsageError(
            f"The observation mask is {observed.dtype} of shape {tuple(observed.shape)}, not bool of {wanted}.",
            do="Give one layer per season, sensor and orbit state, in the order of the cube.",
        )


def check_evaluating(model: nn.Module) -> None:
    """Refuse a model in training mode, where an answer would depend on the batch.

    Raises:
        UsageError: It is in training mode.
    """
    if model.training:
        raise UsageError("The model is in training mode, where answers depend on the batch.", do="Call eval() first.")
