"""Shifts between scenes as a picture: an arrow on every tie block, a map for every group of scenes."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Arrows that agree, and those that do not: blue and vermilion of Okabe and Ito (2008), "Color Universal Design".
AGREE_COLOUR, ODD_COLOUR, QUIET_COLOUR = "#0072b2", "#d55e00", "#9aa5a0"
#: White letters on it have a contrast above 7.
WARNING_COLOUR = "#8a3a00"
#: Side of a map, room between and around maps, height of a line of text, inches; pixels per inch.
MAP_IN, GAP_IN, LINE_IN, DPI = 3.3, 0.35, 0.19, 110
#: Maps side by side; more maps than this are not drawn.
COLUMNS, MOST_MAPS = 3, 9
#: Letters that fit a line under a map.
LETTERS = 46
#: The longest arrow that agrees takes this share of the distance between neighbouring tie blocks.
REACH = 0.85


@dataclass(frozen=True)
class ShiftMap:
    """One group of scenes."""

    title: str
    """Which scenes."""
    said: str
    """What was found, as a sentence."""
    off_m: NDArray[np.float64]
    """By how much each tie block lies off, metres (tie, 2) east and north; NaN where it says nothing."""
    agrees: NDArray[np.bool_]
    """Which of them agree with the group's shift, (tie,)."""


@dataclass(frozen=True)
class Quiver:
    """What the picture shows."""

    x: NDArray[np.float64]
    """Middle of each tie block, metres east, (tie,)."""
    y: NDArray[np.float64]
    """The same, metres north, (tie,)."""
    side_m: float
    """Side of the tie blocks, metres."""
    groups: Sequence[ShiftMap]
    """A map each, in order."""
    outline: Sequence[NDArray[np.float64]] = ()
    """Rings of the area of interest, (point, 2), metres east and north."""
    simulated: bool = False
    """True if any of it was simulated: the picture then says so."""


def quiver_picture(quiver: Quiver) -> bytes:
    """Draw the shifts, north of the grid up.

    Args:
        quiver: The tie blocks and what they say.

    Returns:
        A PNG; the same shifts give the same bytes.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    target = io.BytesIO()
    with style.context("default", after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure, axes = _figure(quiver)
        FigureCanvasAgg(figure)
        longest = _longest_m(quiver)
        for place, group in zip(axes, quiver.groups, strict=False):
            _draw(place, quiver, group, _spacing_m(quiver) * REACH / longest)
        figure.savefig(target, format="png", dpi=DPI, metadata={"Software": None})
    return target.getvalue()


def quiver_words(quiver: Quiver) -> str:
    """The picture in words, for those who do not see it."""
    said = " ".join(f"{group.said}." for group in quiver.groups[:MOST_MAPS])
    return f"Maps of the tie blocks with an arrow where scenes lie off the clearest optical ones. {said}"


def _longest_m(quiver: Quiver) -> float:
    """Length of the longest arrow that agrees, metres: one scale for all maps."""
    lengths = [
        float(np.hypot(*off))
        for group in quiver.groups
        for off, agrees in zip(group.off_m, group.agrees, strict=True)
        if agrees and np.isfinite(off).all()
    ]
    return max([*lengths, 1.0])


def _spacing_m(quiver: Quiver) -> float:
    """Distance between neighbouring tie blocks: the middle of each one's distance to its nearest, metres."""
    if len(quiver.x) < 2:
        return quiver.side_m
    apart = np.hypot(quiver.x[:, np.newaxis] - quiver.x, quiver.y[:, np.newaxis] - quiver.y)
    np.fill_diagonal(apart, np.inf)
    return float(np.median(apart.min(axis=1)))


def _figure(quiver: Quiver) -> tuple[Figure, list[Axes]]:
    """The page with its title and words, and the axes of each map on it."""
    from matplotlib.figure import Figure

    shown = quiver.groups[:MOST_MAPS]
    below = [textwrap.wrap(group.said, LETTERS) for group in shown]
    cols = min(COLUMNS, max(len(shown), 2))
    rows = math.ceil(len(shown) / cols)
    lines = max((len(one) for one in below), default=0)
    cell_height = MAP_IN + LINE_IN * (lines + 1.5)
    tops = _tops(quiver)
    width = cols * MAP_IN + (cols + 1) * GAP_IN
    height = rows * cell_height + LINE_IN * 1.5 * len(tops) + GAP_IN
    figure = Figure(figsize=(width, height), facecolor="white")
    for number, (text, colour) in enumerate(tops):
        _line(figure, (GAP_IN, height - LINE_IN * 1.5 * (number + 0.7)), text, colour)
    axes = []
    for number, (group, words) in enumerate(zip(shown, below, strict=True)):
        left = GAP_IN + (number % cols) * (MAP_IN + GAP_IN)
        top = height - LINE_IN * 1.5 * len(tops) - (number // cols) * cell_height
        _say(figure, (left, top - LINE_IN * 0.8), group.title, weight="bold")
        bottom = top - LINE_IN * 1.5 - MAP_IN
        axes.append(figure.add_axes((left / width, bottom / height, MAP_IN / width, MAP_IN / height)))
        for at, text in enumerate(words):
            _say(figure, (left, bottom - LINE_IN * (at + 0.8)), text)
    return figure, axes


def _tops(quiver: Quiver) -> list[tuple[str, str]]:
    """Title and warnings, each with the colour behind it."""
    longest = _longest_m(quiver)
    title = f"How far scenes lie off (longest arrow that agrees: {longest:.1f} m; blue agrees, orange does not)"
    tops = [("SIMULATED: not a map of any real place", WARNING_COLOUR)] if quiver.simulated else []
    more = len(quiver.groups) - MOST_MAPS
    return [*tops, (title, ""), *([(f"{more} more groups are not drawn", "")] if more > 0 else [])]


def _draw(axes: Axes, quiver: Quiver, group: ShiftMap, scale: float) -> None:
    """One map: the area, the tie blocks, and an arrow on each that says something."""
    from matplotlib.patches import Rectangle

    half = quiver.side_m / 2
    for ring in quiver.outline:
        axes.plot(ring[:, 0], ring[:, 1], color="#55655f", linewidth=0.8, zorder=1)
    for x, y in zip(quiver.x, quiver.y, strict=True):
        place = (float(x) - half, float(y) - half)
        axes.add_patch(Rectangle(place, 2 * half, 2 * half, facecolor="none", edgecolor="#d3dad6", linewidth=0.6))
    seen = np.isfinite(group.off_m).all(axis=1)
    axes.scatter(quiver.x[~seen], quiver.y[~seen], s=12, marker="x", color=QUIET_COLOUR, linewidths=0.8, zorder=2)
    for colour, chosen in ((ODD_COLOUR, seen & ~group.agrees), (AGREE_COLOUR, seen & group.agrees)):
        axes.quiver(
            quiver.x[chosen],
            quiver.y[chosen],
            group.off_m[chosen, 0] * scale,
            group.off_m[chosen, 1] * scale,
            angles="xy",
            scale_units="xy",
            scale=1,
            color=colour,
            width=0.011,
            zorder=3,
        )
    _frame(axes, quiver)


def _frame(axes: Axes, quiver: Quiver) -> None:
    """A square around everything that is shown."""
    points = np.concatenate([np.column_stack([quiver.x, quiver.y]), *quiver.outline])
    low, high = points.min(axis=0) - quiver.side_m, points.max(axis=0) + quiver.side_m
    middle, reach = (low + high) / 2, float((high - low).max()) / 2
    axes.set(
        xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach), xticks=[], yticks=[]
    )
    for side in axes.spines.values():
        side.set(color="#9aa8a2", linewidth=0.8)


def _line(figure: Figure, place: tuple[float, float], text: str, colour: str) -> None:
    """A line above the maps, on a band of colour if there is one."""
    from matplotlib.patches import Rectangle

    height = figure.get_size_inches()[1]
    if colour:
        band = (0, (place[1] - LINE_IN * 0.75) / height)
        figure.add_artist(Rectangle(band, 1, LINE_IN * 1.5 / height, color=colour, linewidth=0, zorder=-1))
    _say(figure, place, text, colour="white" if colour else "#1d2b2a", weight="bold")


def _say(
    figure: Figure, place: tuple[float, float], text: str, *, colour: str = "#1d2b2a", weight: str = "normal"
) -> None:
    """Text with its left middle at a place in inches; names are shown as they are, dollars and all."""
    width, height = figure.get_size_inches()
    x, y = place[0] / width, place[1] / height
    figure.text(x, y, text, va="center", size=8.5, color=colour, weight=weight, parse_math=False)
