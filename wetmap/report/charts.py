"""Charts about one training or a few: confusion, learning curves, reliability, F1 by class.

Each gives PNG and SVG of reproducible bytes. ``mark`` is printed on the chart itself, because pictures travel without
the page they were made for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from wetmap.errors import UsageError
from wetmap.report.chart import (
    COLOURS,
    FAINT,
    MARKERS,
    QUIET,
    Chart,
    finish,
    look,
    new_figure,
    plain,
    quiet_axes,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Classes above which counts are no longer printed into the cells of a confusion matrix.
MOST_COUNTS = 24
#: Models that can be told apart beside each other, by colour and shape.
MOST_SIDE_BY_SIDE = len(COLOURS)


class EstimateLike(Protocol):
    """A score and its interval."""

    @property
    def value(self) -> float | None:
        """The score, 0-1."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its bounds."""


class ClassEstimateLike(Protocol):
    """F1 of one class."""

    @property
    def name(self) -> str:
        """Name of the class."""

    @property
    def n(self) -> int:
        """Samples of the class."""

    @property
    def f1(self) -> EstimateLike:
        """Its F1."""


class BinLike(Protocol):
    """A bin of a reliability diagram."""

    @property
    def n(self) -> int:
        """Samples."""

    @property
    def confidence(self) -> float | None:
        """Mean probability of the predicted class."""

    @property
    def accuracy(self) -> float | None:
        """Share predicted right."""


class ReliabilityLike(Protocol):
    """Bins and their error."""

    @property
    def ece(self) -> float:
        """Expected calibration error."""

    @property
    def bins(self) -> Sequence[BinLike]:
        """Bins of equal width from 0 to 1."""


def confusion_chart(
    counts: ArrayLike, class_names: Sequence[str], *, title: str = "Confusion of classes", mark: str | None = None
) -> Chart:
    """Draw a confusion matrix: shade is the share of the row (the true class), the number is the count.

    Args:
        counts: (K, K) samples; rows are the true class, columns the predicted one.
        class_names: The K classes' names.
        title: What it shows.
        mark: What a reader must know first.

    Raises:
        UsageError: The counts are not K x K.
    """
    table = np.asarray(counts, dtype=np.int64)
    k = len(class_names)
    if table.shape != (k, k) or not k:
        raise UsageError(f"A confusion matrix of {table.shape} is not of {k} classes.", do="Give K x K counts.")
    n = table.sum(axis=1)
    share = np.divide(table, n[:, None], out=np.zeros((k, k)), where=n[:, None] > 0)
    side = max(3.2, 0.56 * k) if k <= MOST_COUNTS else 12.0
    with look():
        figure = new_figure(side + 3.0, side + 1.5, title=title, mark=mark)
        axes = figure.add_subplot()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        if k <= MOST_COUNTS:
            _print_counts(axes, table, share)
        axes.set_xticks(
            range(k), [wrapped(name) for name in class_names], rotation=45, ha="right", rotation_mode="anchor", size=8.5
        )
        axes.set_yticks(
            range(k), [f"{wrapped(name)}\nn = {count:,}" for name, count in zip(class_names, n, strict=True)]
        )
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(-0.5, k), minor=True)
        axes.set_yticks(np.arange(-0.5, k), minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=[0, 0.5, 1], label="share of the true class")
        bar.outline.set_visible(False)
        right, total = int(np.trace(table)), int(table.sum())
        alt = f"Confusion matrix of {k} classes: {right:,} of {total:,} samples on the diagonal."
        return finish(figure, alt, mark)


def learning_chart(
    history: Sequence[Mapping[str, Any]],
    *,
    best_epoch: int | None = None,
    title: str = "How the training went",
    mark: str | None = None,
) -> Chart:
    """Draw loss, validation macro F1 and learning rate over the epochs, with the epoch that was kept, counted from 1.

    Args:
        history: Rows with ``epoch`` (from 0) and any of ``loss``, ``validation_loss``, ``validation_macro_f1``,
            ``validation_accuracy`` and ``learning_rate``. Of two rows of one epoch, as a resumed run may leave, the
            later counts.
        best_epoch: The epoch whose weights were kept, from 0.
        title: What it shows.
        mark: What a reader must know first.

    Raises:
        UsageError: There are no rows.
    """
    rows = [row for _, row in sorted({int(row["epoch"]): row for row in history}.items())]
    if not rows:
        raise UsageError("There is no history to draw.", do="Train for at least one epoch.")
    panels = (
        ("loss", (("loss", "training"), ("validation_loss", "validation"))),
        ("validation score", (("validation_macro_f1", "macro F1"), ("validation_accuracy", "overall accuracy"))),
        ("learning rate", (("learning_rate", "learning rate"),)),
    )
    best = next((row.get("validation_macro_f1") for row in rows if int(row["epoch"]) == best_epoch), None)
    from matplotlib.ticker import MaxNLocator

    with look():
        figure = new_figure(7, 6, title=title, mark=mark)
        for axes, (name, lines) in zip(
            figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 2)), panels, strict=True
        ):
            _draw_curves(axes, rows, lines)
            axes.set_ylabel(name)
            quiet_axes(axes, "y")
            if best_epoch is not None:
                axes.axvline(1 + best_epoch, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        figure.axes[0].set_ylim(bottom=0)
        figure.axes[2].set_ylim(bottom=0)
        figure.axes[2].set_xlabel("epoch")
        figure.axes[2].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if best_epoch is not None:
            said = f"kept: epoch {1 + best_epoch}" + ("" if best is None else f", validation macro F1 {best:.3f}")
            if best is not None:
                figure.axes[1].plot(1 + best_epoch, best, "o", markersize=11, fillstyle="none", color="black", zorder=4)
            figure.axes[0].set_title(said, loc="left", color=QUIET)
        alt = f"Learning curves over {len(rows)} epochs" + (
            "." if best_epoch is None else f"; epoch {1 + best_epoch} was kept."
        )
        return finish(figure, alt, mark)


def reliability_chart(
    before: ReliabilityLike,
    after: ReliabilityLike | None = None,
    *,
    temperature: float | None = None,
    title: str = "Do the probabilities mean what they say?",
    mark: str | None = None,
) -> Chart:
    """Draw a reliability diagram, before and after calibration: below the diagonal a model is too sure.

    Args:
        before: Bins without the temperature.
        after: Bins with it; None: one panel.
        temperature: The temperature, for the panel's title.
        title: What it shows.
        mark: What a reader must know first.
    """
    warm = "" if temperature is None else f", temperature {temperature:.2f}"
    panels = [("before calibration", before)] + ([] if after is None else [(f"after{warm}", after)])
    with look():
        figure = new_figure(3.7 * len(panels) + 0.4, 4.4, title=title, mark=mark)
        grid = figure.subplots(2, len(panels), sharex=True, sharey="row", height_ratios=(4, 1), squeeze=False)
        for column, (name, found) in enumerate(panels):
            _draw_reliability(grid[0, column], found)
            _draw_confidences(grid[1, column], found)
            grid[0, column].set_title(f"{name}\nexpected calibration error {found.ece:.3f}", loc="left")
            grid[1, column].set_xlabel("probability of the predicted class")
        grid[0, 0].set_ylabel("share that is right")
        grid[1, 0].set_ylabel("samples")
        said = "; ".join(f"{name}: expected calibration error {found.ece:.3f}" for name, found in panels)
        return finish(figure, f"Reliability diagram. {said}.", mark)


def class_f1_chart(
    models: Mapping[str, Sequence[ClassEstimateLike]],
    *,
    title: str = "F1 of each class, with 95 % intervals over groups",
    mark: str | None = None,
) -> Chart:
    """Draw the F1 of each class with its interval, several models side by side.

    Args:
        models: Per model, in the order of drawing, its classes in one and the same order. A class without interval is a
            hollow point, one without F1 is left out.
        title: What it shows; say the level there.
        mark: What a reader must know first.

    Raises:
        UsageError: There is no model, more than can be told apart, or models of different classes.
    """
    listed = list(models.values())
    names = [[row.name for row in rows] for rows in listed]
    if not listed or len(listed) > MOST_SIDE_BY_SIDE or any(other != names[0] for other in names) or not names[0]:
        raise UsageError(
            f"{len(listed)} models cannot be drawn side by side.",
            do=f"Give 1 to {MOST_SIDE_BY_SIDE} models of the same classes.",
        )
    step = 0.8 / len(listed)
    with look():
        height = 0.9 + len(names[0]) * max(0.42, 0.17 * len(listed) + 0.12) + 0.25 * math.ceil(len(listed) / 3)
        figure = new_figure(7, height, title=title, mark=mark)
        axes = figure.add_subplot()
        for number, (model, rows) in enumerate(models.items()):
            offset = -0.4 + step * (number + 0.5)
            _draw_points(axes, rows, offset, COLOURS[number], MARKERS[number])
            axes.plot([], [], color=COLOURS[number], marker=MARKERS[number], linewidth=1.6, label=plain(model))
        for edge in np.arange(0.5, len(names[0]) - 1):
            axes.axhline(edge, color=FAINT, linewidth=0.6)
        axes.set_yticks(range(len(names[0])), [f"{wrapped(row.name, 32)}\nn = {row.n:,}" for row in listed[0]])
        axes.set_ylim(len(names[0]) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("F1; a hollow point is of a class in too few groups for an interval")
        quiet_axes(axes, "x")
        if len(listed) > 1:
            figure.legend(loc="outside lower left", ncols=3)
        alt = f"F1 of {len(names[0])} classes for {', '.join(plain(model) for model in models)}."
        return finish(figure, alt, mark)


def _print_counts(axes: Axes, table: np.ndarray[Any, Any], share: np.ndarray[Any, Any]) -> None:
    for row, column in np.ndindex(table.shape):
        count, dark = int(table[row, column]), share[row, column] > 0.55
        colour = "white" if dark else "black" if count else "#8c8c8c"
        size = 8.5 if count < 10_000 else 7 if count < 1_000_000 else 6
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, size=size)


def _draw_curves(axes: Axes, rows: Sequence[Mapping[str, Any]], lines: Sequence[tuple[str, str]]) -> None:
    for number, (key, label) in enumerate(lines):
        if all(row.get(key) is None for row in rows):
            continue
        values = [math.nan if row.get(key) is None else float(row[key]) for row in rows]
        shape = MARKERS[number] if len(rows) <= 60 else None
        at = [1 + int(row["epoch"]) for row in rows]
        axes.plot(at, values, color=COLOURS[number], marker=shape, markersize=3, linewidth=1.4, label=label)
    if len(lines) > 1 and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, ncols=2)


def _draw_reliability(axes: Axes, found: ReliabilityLike) -> None:
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
    known = [row for row in found.bins if row.n and row.confidence is not None and row.accuracy is not None]
    total = sum(row.n for row in known)
    sure, right = [row.confidence for row in known], [row.accuracy for row in known]
    axes.vlines(sure, sure, right, color=COLOURS[1], linewidth=1.4)  # type: ignore[arg-type]  # None was left out
    axes.scatter(
        sure,  # type: ignore[arg-type]  # None was left out
        right,  # type: ignore[arg-type]  # None was left out
        s=[18 + 260 * row.n / total for row in known],
        color=COLOURS[0],
        edgecolor="white",
        linewidth=0.8,
        zorder=3,
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    quiet_axes(axes, "both")


def _draw_confidences(axes: Axes, found: ReliabilityLike) -> None:
    width = 1 / len(found.bins)
    axes.bar(
        [(at + 0.5) * width for at in range(len(found.bins))],
        [row.n for row in found.bins],
        0.9 * width,
        color=COLOURS[0],
    )
    axes.yaxis.set_major_formatter("{x:,.0f}")
    quiet_axes(axes, "y")


def _draw_points(axes: Axes, rows: Sequence[ClassEstimateLike], offset: float, colour: str, marker: str) -> None:
    for place, row in enumerate(rows):
        if row.f1.value is None:
            continue
        bounds = row.f1.interval
        if bounds is not None:
            axes.hlines(place + offset, *bounds, color=colour, linewidth=1.6)
        axes.plot(
            row.f1.value,
            place + offset,
            marker=marker,
            markersize=5.5,
            color=colour,
            markerfacecolor="white" if bounds is None else colour,
            clip_on=False,
            zorder=3,
        )
