"""A trained model's card in plain words."""

from __future__ import annotations

from itertools import groupby

from wetmap.model_card import ModelCard
from wetmap.training.metrics import Scores


def describe_card(card: ModelCard) -> list[str]:
    """What a model expects, what it answers, and how well, one thing per line."""
    options = ", ".join(f"{name} {value}" for name, value in card.options.items())
    margin = card.geometry.margin
    lines = [
        f"model: {card.model}{f' ({options})' if options else ''}{', trained on SIMULATED data' * card.simulated}",
        f"bands ({len(card.bands)}): {'; '.join(_bands(card))}",
        f"classes ({len(card.classes)}): {', '.join(f'{row.code} {row.name}' for row in card.classes)}",
        f"window: {card.window} x {card.window} pixels of {card.res_m:.12g} m; maps in tiles of {card.geometry.tile} "
        f"pixels with {margin} around",
    ]
    if card.seasons:
        seasons = ", ".join(f"{season.name} {season.start} to {season.end}" for season in card.seasons)
        lines.append(f"seasons: {seasons}")
    lines += [f"score of {name}: {_score(score)}" for name, score in card.scores.items()]
    own = card.scores.get(card.model)
    if own is not None:
        lines.append(f"F1 by class: {', '.join(f'{row.name} {_share(row.f1)} (n {row.n})' for row in own.classes)}")
    lines.append(f"split: {card.split or 'not said'}")
    if card.history is not None and card.history.epochs:
        lines.append(f"training: {card.history.epochs} epochs, the best was epoch {card.history.best_epoch + 1}")
    if card.calibration is not None:
        error = card.calibration
        lines.append(
            f"temperature: {error.temperature:.3g}; calibration error {error.ece_before:.3f} without, "
            f"{error.ece_after:.3f} with it"
        )
    return [*lines, f"weights: {card.weights.name}, {card.weights.bytes / 1e6:.1f} MB, SHA-256 {card.weights.sha256}"]


def _bands(card: ModelCard) -> list[str]:
    """Bands by the layer that says where they were observed, with units where there are any."""
    return [
        f"{layer}: " + ", ".join(f"{band.name}{f' [{band.unit}]' * (band.unit != '1')}" for band in bands)
        for layer, bands in groupby(card.bands, key=lambda band: band.layer)
    ]


def _score(score: Scores) -> str:
    return f"macro F1 {_share(score.macro_f1)}, accuracy {_share(score.overall_accuracy)}, {score.n} held-out samples"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
