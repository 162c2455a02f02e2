"""Pictures of one training: confusion, learning curves, reliability, F1 of each class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wetmap.report.chart import Chart
from wetmap.report.charts import class_f1_chart, confusion_chart, learning_chart, reliability_chart
from wetmap.stages.fitting import Fitted, Roles
from wetmap.training.calibration import reliability
from wetmap.training.intervals import GroupScores
from wetmap.training.metrics import Scores
from wetmap.workspace import write_bytes


def write_charts(
    folder: Path,
    fitted: Fitted,
    table: Mapping[str, Scores],
    intervals: Mapping[str, GroupScores],
    roles: Roles,
    *,
    mark: str | None,
) -> None:
    """Draw the model's test-fold confusion, its curves, its reliability, and F1 by class beside the baselines.

    Args:
        folder: Where the PNG files go.
        fitted: The model.
        table: Scores by name of the model.
        intervals: The same with intervals.
        roles: The samples.
        mark: What a reader must know first.
    """
    own, truth = table[fitted.name], roles.test.label
    before = reliability(fitted.test, truth)
    after = reliability(fitted.calibration.apply(fitted.test), truth)
    charts: dict[str, Chart] = {
        "confusion": confusion_chart(own.confusion, [row.name for row in own.classes], mark=mark),
        "reliability": reliability_chart(before, after, temperature=fitted.calibration.temperature, mark=mark),
        "class-f1": class_f1_chart({name: found.classes for name, found in intervals.items()}, mark=mark),
    }
    if fitted.epochs:
        charts["learning"] = learning_chart(fitted.epochs, best_epoch=fitted.history.best_epoch, mark=mark)
    folder.mkdir(parents=True, exist_ok=True)
    for name, chart in charts.items():
        write_bytes(folder / f"{name}.png", chart.png)
