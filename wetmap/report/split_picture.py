"""The split as a map: where the samples for training, for choosing the epoch and for testing lie."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetmap.report.picture import scale_bar_m

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour and name of each role, in the order of the legend. Blue, orange and black of Okabe and Ito (2008), "Color
#: Universal Design": apart in every kind of colour vision, and in grey print by their brightness.
ROLE_COLOURS = {
    "train": ("#0072b2", "training"),
    "validation": ("#e69f00", "validation (chooses the epoch)"),
    "test": ("#111111", "test (held out)"),
    "dropped": ("#9aa5a0", "dropped (too near another role)"),
}
#: Ground of a block by the role of its samples: the roles' colours, pale.
BLOCK_COLOURS = {"train": "#dbeaf4", "validation": "#fcefd2", "test": "#e3e5e4"}
#: Colour of a warning: white letters on it have a contrast above 7.
WARNING_COLOUR = "#8a3a00"
#: Longer side of the map, and least width of the picture for the legend's lines, inches; pixels per inch.
MAP_IN, LEAST_WIDTH_IN, DPI = 7.6, 7.2, 110
#: Height of a line above the map, inches.
TOP_LINE_IN = 0.29
#: Margin around the map, height of a line of text, inches.
MARGIN_IN, LINE_IN = 0.3, 0.21
#: Lines left free between the map and the legend (for the scale bar), and between the legend and the facts.
SCALE_LINES, GAP_LINES = 1.9, 0.4
#: Letters that fit a line of the narrowest page.
LINE_LETTERS = 86
#: Side of a sample's mark, pixels of the picture, smallest and largest: to be seen, and not to hide its neighbours.
MARK_PX = (2.6, 9.0)
#: Block lines nearer than this many pixels of the picture are left out: they would be all that is seen.
LEAST_BLOCK_PX = 7
#: Names of more sites than this hide the map; then only the sites that are tested and that choose the epoch are named.
MOST_NAMES = 12
#: Share of the map's height that a name needs above its site.
NAME_ROOM = 0.05
#: Longest name of a site on the map, letters.
NAME_LETTERS = 28


@dataclass(frozen=True)
class SplitMap:
    """What the picture shows."""

    row: NDArray[np.int32]
    """Pixel row of each sample, (sample,)."""
    col: NDArray[np.int32]
    """Pixel column of each sample, (sample,)."""
    role: NDArray[np.str_]
    """``train``, ``validation``, ``test`` or ``dropped``, (sample,)."""
    grid_shape: tuple[int, int]
    """(height, width) of the grid, pixels."""
    res_m: float
    """Pixel side, metres."""
    facts: Sequence[str]
    """How the samples were divided and what was measured, a line each."""
    block_px: int | None = None
    """Side of the blocks, pixels; None where there are none."""
    site: NDArray[np.int16] | None = None
    """Place in ``site_names`` of each sample, (sample,)."""
    site_names: tuple[str, ...] = ()
    """Names of the sites."""
    outline: Sequence[NDArray[np.float64]] = ()
    """Rings of the area of interest, (point, 2) as column and row in pixels."""
    banner: str = ""
    """A warning across the top; empty for none."""
    simulated: bool = False
    """True if any of it was simulated: the picture then says so."""


def split_picture(split: SplitMap) -> bytes:
    """Draw the split, north of the grid up.

    Args:
        split: The samples with their roles, and what is said about them.

    Returns:
        A PNG; the same split gives the same bytes.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    target = io.BytesIO()
    # The defaults of matplotlib, whatever the user's own settings are; a letter that its font lacks becomes a box.
    with style.context("default", after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure, axes = _figure(split)
        FigureCanvasAgg(figure)
        _draw_blocks(axes, split)
        for ring in split.outline:
            axes.plot(ring[:, 0], ring[:, 1], color="#55655f", linewidth=0.8, zorder=2)
        _draw_samples(axes, split)
        _draw_sites(axes, split)
        figure.savefig(target, format="png", dpi=DPI, metadata={"Software": None})
    return target.getvalue()


def split_words(split: SplitMap) -> str:
    """The picture in words, for those who do not see it."""
    counts = ", ".join(f"{_count(split, role):,} {role}" for role in ROLE_COLOURS)
    said = [split.banner] if split.banner else []
    return " ".join([*said, f"Map of the reference samples by their use: {counts}.", *(f"{x}." for x in split.facts)])


def _figure(split: SplitMap) -> tuple[Figure, Axes]:
    """The page with its title, legend and scale bar, and the axes of the map on it."""
    from matplotlib.figure import Figure

    height, width = split.grid_shape
    map_width, map_height = MAP_IN * width / max(height, width), MAP_IN * height / max(height, width)
    page_width = max(map_width, LEAST_WIDTH_IN) + 2 * MARGIN_IN
    tops = _tops(split)
    below = [*_legend_lines(split), *((line, "") for fact in split.facts for line in textwrap.wrap(fact, LINE_LETTERS))]
    top_in = TOP_LINE_IN * (len(tops) + 0.1)
    page_height = top_in + map_height + LINE_IN * (SCALE_LINES + GAP_LINES + len(below) - 0.5) + MARGIN_IN / 2
    figure = Figure(figsize=(page_width, page_height), facecolor="white")
    for number, (text, colour) in enumerate(tops):
        y = page_height - TOP_LINE_IN * (number + 0.5)
        _band(figure, y, colour)
        _say(figure, MARGIN_IN, y, text, color="white" if colour else "#1d2b2a", weight="bold")
    left = (page_width - map_width) / 2
    bottom = page_height - top_in - map_height
    axes = figure.add_axes((left / page_width, bottom / page_height, map_width / page_width, map_height / page_height))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color="#9aa8a2", linewidth=0.8)
    _draw_scale_bar(figure, left, bottom - LINE_IN * 0.6, map_width, width * split.res_m)
    y = bottom - LINE_IN * SCALE_LINES
    for text, colour in below:
        if colour:
            _mark(figure, MARGIN_IN + 0.07, y, colour)
        _say(figure, MARGIN_IN + (0.22 if colour else 0.0), y, text)
        y -= LINE_IN * (1 + GAP_LINES * (colour == ROLE_COLOURS["dropped"][0]))
    return figure, axes


def _tops(split: SplitMap) -> list[tuple[str, str]]:
    """Title and warnings, each with the colour behind it."""
    tops = [(line, WARNING_COLOUR) for line in textwrap.wrap(split.banner, LINE_LETTERS)]
    tops += [("SIMULATED: not a map of any real place", WARNING_COLOUR)] if split.simulated else []
    return [*tops, ("Where training and test samples lie", "")]


def _legend_lines(split: SplitMap) -> list[tuple[str, str]]:
    """Roles with their counts, each with its colour."""
    total = max(len(split.row), 1)
    lines = []
    for role, (colour, name) in ROLE_COLOURS.items():
        count = _count(split, role)
        lines.append((f"{name}: {count:,} samples ({count / total:.0%})", colour))
    return lines


def _draw_blocks(axes: Axes, split: SplitMap) -> None:
    """Blocks that hold samples, pale in the colour of their role, and the lines between blocks."""
    from matplotlib.patches import Rectangle

    side = split.block_px
    if side is None:
        return
    height, width = split.grid_shape
    for role, colour in BLOCK_COLOURS.items():
        of_role = split.role == role
        blocks = np.unique(np.stack([split.row[of_role] // side, split.col[of_role] // side], axis=1), axis=0)
        for row, col in blocks:
            axes.add_patch(Rectangle((col * side, row * side), side, side, color=colour, linewidth=0, zorder=0))
    if side * MAP_IN * DPI / max(height, width) >= LEAST_BLOCK_PX:
        lines: dict[str, Any] = {"color": "#b9c4bf", "linewidth": 0.6, "zorder": 1}
        axes.vlines(np.arange(side, width, side), 0, height, **lines)
        axes.hlines(np.arange(side, height, side), 0, width, **lines)


def _draw_samples(axes: Axes, split: SplitMap) -> None:
    pixel = MAP_IN * DPI / max(split.grid_shape)
    side_points = float(np.clip(pixel, *MARK_PX)) * 72 / DPI
    for order, role in enumerate(("dropped", "train", "validation", "test")):
        of_role = split.role == role
        axes.scatter(
            split.col[of_role] + 0.5,
            split.row[of_role] + 0.5,
            s=side_points**2,
            c=ROLE_COLOURS[role][0],
            marker="s",
            linewidths=0,
            zorder=3 + order,
        )


def _draw_sites(axes: Axes, split: SplitMap) -> None:
    """Names of the sites in their middle."""
    from matplotlib.patheffects import withStroke

    if split.site is None:
        return
    for number, name in enumerate(split.site_names):
        members = split.site == number
        roles = set(split.role[members].tolist())
        if not roles or (len(split.site_names) > MOST_NAMES and roles <= {"train", "dropped"}):
            continue
        shown = name if len(name) <= NAME_LETTERS else f"{name[: NAME_LETTERS - 1]}…"
        middle = float((split.col[members].min() + split.col[members].max() + 1) / 2)
        axes.annotate(
            shown,
            (middle, max(float(split.row[members].min()), NAME_ROOM * split.grid_shape[0])),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            size=11,
            weight="bold" if "test" in roles else "normal",
            parse_math=False,
            zorder=9,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )


def _draw_scale_bar(figure: Figure, x: float, y: float, map_width: float, ground_m: float) -> None:
    """A bar under the map, with its length on the ground, and where up is."""
    from matplotlib.lines import Line2D

    length = scale_bar_m(ground_m)
    page_width, page_height = figure.get_size_inches()
    end = x + map_width * length / ground_m
    tick = 0.05
    corners = [(x, y + tick), (x, y), (end, y), (end, y + tick)]
    figure.add_artist(
        Line2D(
            [corner[0] / page_width for corner in corners],
            [corner[1] / page_height for corner in corners],
            color="#1d2b2a",
            linewidth=1.4,
        )
    )
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    _say(figure, end + 0.08, y, f"{text}; up is north of the grid", size=9)


def _band(figure: Figure, y: float, colour: str) -> None:
    """A band of colour behind a line above the map."""
    from matplotlib.patches import Rectangle

    if colour:
        page_height = figure.get_size_inches()[1]
        place = (0, (y - TOP_LINE_IN / 2) / page_height)
        figure.add_artist(Rectangle(place, 1, TOP_LINE_IN / page_height, color=colour, linewidth=0, zorder=-1))


def _mark(figure: Figure, x: float, y: float, colour: str) -> None:
    from matplotlib.lines import Line2D

    page_width, page_height = figure.get_size_inches()
    figure.add_artist(
        Line2D([x / page_width], [y / page_height], marker="s", markersize=8, color=colour, markeredgewidth=0)
    )


def _say(figure: Figure, x: float, y: float, text: str, *, size: float = 10, **options: Any) -> None:
    """Text with its left middle at a place in inches; names are shown as they are, dollars and all."""
    page_width, page_height = figure.get_size_inches()
    figure.text(x / page_width, y / page_height, text, va="center", size=size, parse_math=False, **options)


def _count(split: SplitMap, role: str) -> int:
    return int((split.role == role).sum())
