"""Rows of the comparison: scores of several folds together, with intervals over groups, and what heads the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap import models
from wetmap.report.compare_table import CompareHead, CompareRow
from wetmap.samples.splits import split_facts
from wetmap.stages.contenders import REFERENCE, Contender
from wetmap.stages.context import Context
from wetmap.stages.fits import Outcome
from wetmap.training.calibration import reliability
from wetmap.training.intervals import MIN_GROUPS, GroupScores, group_intervals, paired_difference


@dataclass(frozen=True)
class Compared:
    """One model's answers for the test samples of all folds, one after the other."""

    label: str
    """The model."""
    truth: NDArray[np.int64]
    """(n,) class index."""
    index: NDArray[np.int64]
    """(n,) predicted class index."""
    blocks: NDArray[np.int64]
    """(n,) block of the split, or reference feature where it has no blocks."""
    scores: GroupScores
    """With intervals over reference features."""
    ece: tuple[float, float]
    """Expected calibration error before and after the temperature of the fold, 0-1."""
    facts: Mapping[str, Any]
    """Mean of the folds' numbers; all of their notes."""


def compared(
    label: str, outcomes: Sequence[Outcome], names: Sequence[str], *, block_px: int | None, seed: int
) -> Compared:
    """Put the folds of one model together; every sample is tested in one fold at most.

    Args:
        label: The model.
        outcomes: One per fold.
        names: The classes' names.
        block_px: Side of the split's blocks, pixels; None: groups are reference features.
        seed: Seed of the intervals.
    """
    before = np.concatenate([row.probabilities for row in outcomes])
    after = np.concatenate([row.calibrated for row in outcomes])
    truth, polygon, row, col = (
        np.concatenate([getattr(outcome, name) for outcome in outcomes]) for name in ("label", "polygon", "row", "col")
    )
    index = np.asarray(before.argmax(axis=1), dtype=np.int64)
    return Compared(
        label=label,
        truth=truth,
        index=index,
        blocks=polygon if block_px is None else _blocks(row, col, block_px),
        scores=group_intervals(truth, index, polygon, names, seed=seed),
        ece=(reliability(before, truth).ece, reliability(after, truth).ece),
        facts=_mean_facts([outcome.facts for outcome in outcomes]),
    )


def _blocks(row: NDArray[np.int64], col: NDArray[np.int64], block_px: int) -> NDArray[np.int64]:
    down, across = row // block_px, col // block_px
    return np.asarray(down * (across.max(initial=0) + 1) + across, dtype=np.int64)


def _mean_facts(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means = {}
    for name in ("parameters", "macs_per_pixel", "training_s", "epochs", "best_epoch", "pixels_per_s"):
        values = [row[name] for row in facts if row[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    notes = list(dict.fromkeys(note for row in facts for note in row["notes"]))
    return {**means, "notes": notes}


def row_of(found: Compared, reference: Compared | None, names: Sequence[str], *, seed: int) -> CompareRow:
    """The row of a model, without what the registry knows of it.

    Args:
        found: The model.
        reference: The forest; None where it failed.
        names: The classes' names.
        seed: Seed of the intervals.
    """
    scores, facts = found.scores, found.facts
    row = CompareRow(
        model=found.label,
        answers="",
        parameters=_whole(facts["parameters"]),
        macs_per_pixel=facts["macs_per_pixel"],
        training_s=facts["training_s"],
        epochs=_whole(facts["epochs"]),
        best_epoch=None if facts["best_epoch"] is None else round(facts["best_epoch"] + 1),
        macro_f1=scores.macro_f1.value,
        macro_f1_interval=scores.macro_f1.interval,
        overall_accuracy=scores.overall_accuracy.value,
        class_f1={entry.name: entry.f1.value for entry in scores.classes},
        ece_before=found.ece[0],
        ece_after=found.ece[1],
        pixels_per_s=facts["pixels_per_s"],
        note="; ".join(facts["notes"]),
    )
    if reference is None or reference is found:
        return row
    gain = paired_difference(found.truth, found.index, reference.index, found.blocks, names, seed=seed).macro_f1
    return replace(row, difference=gain.value, difference_interval=gain.interval)


def with_model(row: CompareRow | None, contender: Contender, reason: str) -> CompareRow:
    """The row with what the registry knows of the model; for one that failed an empty row with the reason."""
    known = models.entry(contender.name)
    if row is None:
        return CompareRow(model=contender.label, answers=known.answers, note=f"could not be trained: {reason}")
    return replace(row, answers=known.answers)


def head_of(
    context: Context,
    done: Sequence[Compared],
    splits: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    side: int,
    simulated: bool,
) -> CompareHead:
    """What is true of all rows.

    Args:
        context: The run.
        done: The models that were fitted.
        splits: Summary of the split, by fold.
        names: The classes' names.
        side: Side of the windows that all models' were cut out of, pixels.
        simulated: Whether the cube is of simulated scenes.
    """
    first, recipe = done[0], context.recipe
    threads = context.workers.threads
    over = "blocks of the split" if splits[0]["kind"] == "blocks" else "reference features"
    counts = ", ".join(f"{name} {n.n:,}" for name, n in zip(names, first.scores.classes, strict=True))
    leaking = [row for row in splits if row.get("leaks")]
    return CompareHead(
        title=f"Models compared: {context.name}",
        split=_split_words(splits),
        samples=first.scores.n,
        groups=first.scores.groups,
        level=first.scores.level,
        simulated=simulated,
        leaks=str(leaking[0]["kind"]) if leaking else "",
        notes=[
            f"Every network learnt for {recipe.compare.minutes:g} min on each fold, and the epoch with the best "
            f"validation macro F1 was kept; with {threads} thread{'' if threads == 1 else 's'} and seed {recipe.seed}, "
            "from weights drawn at random, all on the same samples, each in windows of its own size cut out of windows "
            f"of {side} px.",
            f"Groups are reference features. Against {REFERENCE}: the macro F1 of both on the same samples, with an "
            f"interval over {_count(len(np.unique(first.blocks)), over)}; where it holds 0, the samples do not tell.",
            "Intervals are about other test groups like these, not about another seed or another place.",
            f"Test samples by class: {counts}.",
            "px / s: one process with as many threads, reading the cube included, measured on a few tiles.",
            *interval_notes(first, over),
            *calibration_notes(done),
        ],
    )


def interval_notes(found: Compared, over: str) -> list[str]:
    """Why there are no intervals, or what makes them shaky; the same for all models, whose samples are the same.

    Args:
        found: A model.
        over: What the groups of the difference to the forest are, in words.
    """
    notes = []
    for what, count, kind in (
        ("of the macro F1", found.scores.groups, "reference features"),
        (f"against {REFERENCE}", len(np.unique(found.blocks)), over),
    ):
        if count < MIN_GROUPS:
            notes.append(
                f"There is no interval {what}: its groups are {_count(count, kind)}, and fewer than {MIN_GROUPS} "
                "cannot show how much groups differ."
            )
    shaky = found.scores.macro_f1
    return [*notes, *([f"The interval of the macro F1 {shaky.note}."] if shaky.interval and shaky.note else [])]


def calibration_notes(done: Sequence[Compared]) -> list[str]:
    """Which models' calibration error the temperature, fitted on other samples, made larger."""
    worse = [row.label for row in done if row.ece[1] > row.ece[0]]
    return [f"Calibration made the error on the test samples larger: {', '.join(worse)}."] if worse else []


def _count(number: int, kind: str) -> str:
    """``3 reference features``, ``1 block of the split``."""
    words = kind.replace("features", "feature").replace("blocks", "block") if number == 1 else kind
    return f"{number:,} {words}"


def _split_words(splits: Sequence[Mapping[str, Any]]) -> str:
    """How the samples were divided; of several folds the largest leakage that was measured."""
    worst = max(splits, key=lambda row: row["leakage"])
    kind, *rest = split_facts(worst)
    if len(splits) > 1:
        sites = [row["test_site"] for row in splits]
        held = [str(site if site is not None else row["test_fold"]) for site, row in zip(sites, splits, strict=True)]
        what = "sites" if sites[0] is not None else "folds"
        kind = f"{kind.partition(':')[0]}: {what} {', '.join(held)} of {worst['folds']} held out in turn, pooled"
    return ". ".join([kind, *rest])


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
