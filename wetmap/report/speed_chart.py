"""The plot of ``wetmap compare``: how good each model is against how fast it maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wetmap.errors import UsageError
from wetmap.report.chart import COLOURS, MARKERS, QUIET, Chart, finish, look, new_figure, plain, quiet_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wetmap.report.compare_table import CompareRow

#: A box on the chart, pixels: left, bottom, right, top.
Box = tuple[float, float, float, float]
#: Where a label may go around its point, the best place first: towards right, left, above, below, and between.
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
#: Distances from the point that are tried, in heights of a label.
DISTANCES = (0.7, 1.6, 2.6, 3.8, 5.2, 7.0)
#: Letters of a label, points.
LABEL_SIZE = 8
#: What each model answers for, as the legend says it.
ANSWERS = {"window": "a window's centre", "dense": "every pixel of a tile", "pixel": "a pixel on its own"}


def accuracy_against_speed(
    rows: Sequence[CompareRow],
    *,
    title: str = "Accuracy against speed",
    mark: str | None = None,
) -> Chart:
    """Draw macro F1, with its interval, against pixels mapped per second (logarithmic).

    Args:
        rows: The models; those without macro F1 or speed are left out, and named below the chart.
        title: What it shows.
        mark: What a reader must know first, ``CompareHead.mark``.

    Raises:
        UsageError: No row has both.
    """
    shown = _points(rows)
    if not shown:
        raise UsageError("No model has both a macro F1 and a speed.", do="Compare at least one model to its end.")
    with look():
        figure = new_figure(8, 5.4, title=title, mark=mark)
        axes = figure.add_subplot()
        _draw_models(axes, shown)
        drawn = {point.name for point in shown}
        left_out = [name for name in (plain(row.model, 32) for row in rows) if name not in drawn]
        missing = f"\nnot shown, for want of a speed or a score: {', '.join(left_out)}" if left_out else ""
        axes.set_xlabel(f"pixels mapped per second{missing}")
        axes.set_ylabel("macro F1 on the test fold; bars: 95 % over groups")
        quiet_axes(axes, "both")
        figure.legend(loc="outside lower right", ncols=4, title="answers for", alignment="left")
        _label(figure, axes, shown)
        best, fast = max(shown, key=lambda one: one.score), max(shown, key=lambda one: one.speed)
        alt = f"Macro F1 against speed of {len(shown)} models; best: {best.name}, fastest: {fast.name}."
        return finish(figure, alt, mark)


def place_labels(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], taken: Sequence[Box], inside: Box
) -> list[Box]:
    """Places for labels beside their points that overlap as little as can be, one after the other.

    Args:
        points: The points, pixels.
        sizes: Width and height of each point's label, pixels.
        taken: Boxes to keep clear of, such as points and bars.
        inside: Where labels must lie.

    Returns:
        A box per point, in order. The same input gives the same places.
    """
    placed: list[Box] = []
    for point, size in zip(points, sizes, strict=True):
        choices = [_beside(point, size, direction, far) for far in DISTANCES for direction in DIRECTIONS]
        costs = [
            4 * sum(_overlap(box, other) for other in placed)
            + 2 * sum(_overlap(box, other) for other in taken)
            + 0.2 * size[0] * size[1] * sum(_overlap(box, other) > 0 for other in (*placed, *taken))
            + 8 * (size[0] * size[1] - _overlap(box, inside))
            + 0.02 * size[0] * size[1] * number  # of equally free places the nearer
            for number, box in enumerate(choices)
        ]
        placed.append(choices[costs.index(min(costs))])
    return placed


def _beside(point: tuple[float, float], size: tuple[float, float], direction: tuple[int, int], far: float) -> Box:
    width, height = size
    gap = far * height / math.hypot(*direction)
    x = point[0] + direction[0] * (gap + width / 2)
    y = point[1] + direction[1] * (gap + height / 2)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


@dataclass(frozen=True)
class _Point:
    name: str
    answers: str
    speed: float
    score: float
    interval: tuple[float, float] | None


def _points(rows: Sequence[CompareRow]) -> list[_Point]:
    return [
        _Point(plain(row.model, 32), row.answers, row.pixels_per_s, row.macro_f1, row.macro_f1_interval)
        for row in rows
        if row.macro_f1 is not None and row.pixels_per_s is not None and row.pixels_per_s > 0
    ]


def _draw_models(axes: Axes, points: Sequence[_Point]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    kinds = ANSWERS | {point.answers: plain(point.answers) for point in points if point.answers not in ANSWERS}
    for number, (answers, meaning) in enumerate(kinds.items()):
        of_kind = [point for point in points if point.answers == answers]
        for point in of_kind:
            if point.interval is not None:
                axes.vlines(
                    point.speed, *point.interval, color=COLOURS[number % len(COLOURS)], linewidth=1.4, alpha=0.55
                )
        axes.plot(
            [point.speed for point in of_kind],
            [point.score for point in of_kind],
            linestyle="none",
            marker=MARKERS[number % len(MARKERS)],
            markersize=6.5,
            color=COLOURS[number % len(COLOURS)],
            markeredgecolor="white",
            label=meaning,
            zorder=3,
        )
    axes.margins(x=0.12, y=0.08)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _label(figure: Figure, axes: Axes, points: Sequence[_Point]) -> None:
    """Write the names where they overlap least; a thin line leads to a name that had to go far."""
    figure.draw_without_rendering()  # the layout settles, so that pixels are known
    scale = figure.dpi / 72
    at = [_pixels(axes, point.speed, point.score) for point in points]
    sizes = [_size(figure, point.name) for point in points]
    taken: list[Box] = [(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in at]
    for point, (x, _) in zip(points, at, strict=True):
        if point.interval is not None:
            low, high = (_pixels(axes, point.speed, bound)[1] for bound in point.interval)
            taken.append((x - 2 * scale, low, x + 2 * scale, high))
    bounds = axes.get_window_extent()
    boxes = place_labels(at, sizes, taken, (bounds.x0, bounds.y0, bounds.x1, bounds.y1))
    for point, (x, y), box in zip(points, at, boxes, strict=True):
        near = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
        leader = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            point.name,
            (point.speed, point.score),
            ((box[0] - x) / scale, (box[1] - y) / scale),
            textcoords="offset points",
            size=LABEL_SIZE,
            va="bottom",
            arrowprops=leader if math.dist((x, y), near) > 1.2 * (box[3] - box[1]) else None,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.75, "edgecolor": "none"},
            zorder=4,
        ).set_in_layout(False)


def _pixels(axes: Axes, speed: float, score: float) -> tuple[float, float]:
    x, y = axes.transData.transform((speed, score))
    return float(x), float(y)


def _size(figure: Figure, text: str) -> tuple[float, float]:
    """Width and height of a label, pixels."""
    trial = figure.text(0, 0, text, size=LABEL_SIZE)
    box = trial.get_window_extent()
    trial.remove()
    return box.width, box.height
