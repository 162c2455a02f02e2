"""How well each of the networks in one set of weights does: what a choice among them goes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wetmap.models.points import many_networks, points_of, set_point
from wetmap.training.metrics import scores

if TYPE_CHECKING:
    from torch import nn

    from wetmap.training.fit import SampleSet


@dataclass(frozen=True)
class PointScore:
    """The accuracy of one operating point."""

    tokens: int
    """Tokens a side."""
    keep: float
    """Share of the tokens that each pruning block keeps, above 0 to 1."""
    validation_macro_f1: float | None
    """Macro F1 on the validation fold, 0-1; None without samples of any class."""
    n: int
    """Samples it was measured on."""


def score_points(
    network: nn.Module, validation: SampleSet, classes: Sequence[str], *, batch: int = 256, threads: int = 1
) -> list[PointScore]:
    """Score a trained network at each of its operating points.

    Args:
        network: Of windows or of tiles; its default point is put back afterwards.
        validation: The samples that chose the epoch, never the test fold: a point is chosen by these scores.
        classes: Names of the classes.
        batch: Windows per step.
        threads: Threads of PyTorch.

    Returns:
        One row per point, the fewest tokens first; none for a network that is a single one.
    """
    from wetmap.training.fit import predict_logits

    several = many_networks(network)
    if several is None:
        return []
    before, rows = several.default_point, []
    try:
        for point in points_of(several):
            set_point(network, point)
            guess = predict_logits(network, validation, batch, threads=threads).argmax(axis=1)
            found = scores(validation.label, guess, classes)
            rows.append(PointScore(point.tokens, point.keep, found.macro_f1, found.n))
    finally:
        several.default_point = before
    return rows
