"""A trained model's card in plain words."""

from __future__ import annotations

from itertools import groupby

from wetmap.model_card import CardCalibration, ModelCard
from wetmap.models.points import Point
from wetmap.training.intervals import MIN_GROUPS, Estimate, GroupScores
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
    lines += [f"score of {name}: {_score(score, card.intervals.get(name))}" for name, score in card.scores.items()]
    lines += _by_class(card)
    lines.append(f"split: {card.split or 'not said'}")
    if card.history is not None and card.history.epochs:
        lines.append(f"training: {card.history.epochs} epochs, the best was epoch {card.history.best_epoch + 1}")
    if card.calibration is not None:
        lines.append(_calibration(card.calibration))
    if card.points:
        points = ", ".join(f"{Point(row.tokens, row.keep)}: {_share(row.validation_macro_f1)}" for row in card.points)
        lines.append(f"operating points, with macro F1 on the validation fold: {points}")
    return [*lines, f"weights: {card.weights.name}, {card.weights.bytes / 1e6:.1f} MB, SHA-256 {card.weights.sha256}"]


def _bands(card: ModelCard) -> list[str]:
    """Bands by the layer that says where they were observed, with units where there are any."""
    return [
        f"{layer}: " + ", ".join(f"{band.name}{f' [{band.unit}]' * (band.unit != '1')}" for band in bands)
        for layer, bands in groupby(card.bands, key=lambda band: band.layer)
    ]


def _score(score: Scores, sure: GroupScores | None) -> str:
    if sure is None:
        f1, accuracy, groups = _share(score.macro_f1), _share(score.overall_accuracy), ""
    else:
        f1 = _with_bounds(score.macro_f1, sure.macro_f1)
        accuracy = _with_bounds(score.overall_accuracy, sure.overall_accuracy)
        groups = f" in {_groups(sure.groups)}"
    return f"macro F1 {f1}, accuracy {accuracy}, {score.n} held-out samples{groups}"


def _by_class(card: ModelCard) -> list[str]:
    """F1 of each class of the model, and what its intervals are."""
    own, sure = card.scores.get(card.model), card.intervals.get(card.model)
    if own is None:
        return []
    if sure is None:
        return [f"F1 by class: {', '.join(f'{row.name} {_share(row.f1)} (n {row.n})' for row in own.classes)}"]
    rows = [
        f"{row.name} {_with_bounds(row.f1, found.f1)} (n {row.n} in {_groups(found.f1.groups)})"
        for row, found in zip(own.classes, sure.classes, strict=True)
    ]
    return [
        f"F1 by class: {', '.join(rows)}",
        f"intervals: [{sure.level:.0%}], over groups, which are reference features; none for fewer than {MIN_GROUPS}",
    ]


def _groups(count: int) -> str:
    return f"{count} group{'' if count == 1 else 's'}"


def _with_bounds(value: float | None, found: Estimate) -> str:
    bounds = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return _share(value) + bounds


def _calibration(found: CardCalibration) -> str:
    """The temperature and the calibration error, of the test fold where it is known: the other one chose it."""
    before, after = found.test_ece_before, found.test_ece_after
    fold = "test"
    if before is None or after is None:
        before, after, fold = found.ece_before, found.ece_after, "validation"
    worse = ": here it did not help" if after > before else ""
    return (
        f"temperature: {found.temperature:.3g}, fitted on {found.n} samples of the validation fold; calibration error "
        f"on the {fold} fold {before:.3f} without, {after:.3f} with it{worse}"
    )


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
