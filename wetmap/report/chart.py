"""What all charts share: one look, a title, a mark that cannot be overlooked, and files of reproducible bytes.

matplotlib is imported when a chart is drawn, never its ``pyplot``: no window system, no figures kept alive. The look is
set for the drawing alone, whatever a person's own matplotlib settings say.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito (2008), "Color Universal Design", in the order of use; the yellow is left out, too light for lines.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
#: Shapes that go with the colours, so that none is told by its colour alone.
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
#: Colour of what is said aside.
QUIET: Final = "#595959"
#: Colour of lines that only help to read.
FAINT: Final = "#d9d9d9"
#: Ground of a mark: Okabe and Ito's vermilion, darker, so that white letters on it have a contrast of 5.6 to 1.
MARK_COLOUR: Final = "#b34700"
#: Pixels per inch of the PNG: sharp on a page of the report.
DPI = 144
#: Characters of a title line, of a name on one line, and of a name at all.
TITLE_WIDTH, NAME_WIDTH, NAME_LONGEST = 88, 24, 60
#: Height of a line of the title and of the mark, inches.
TITLE_LINE, MARK_LINE, EDGE = 0.24, 0.32, 0.1

_LOOK: Final = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,  # a dollar in a class name is a dollar
    "svg.fonttype": "path",  # looks the same where the font is not installed
    "svg.hashsalt": "wetmap",
}


@dataclass(frozen=True)
class Chart:
    """A drawn chart: the same data give the same bytes."""

    png: bytes
    """Picture."""
    svg: bytes
    """Drawing."""
    alt: str
    """What it shows, in words, for those who do not see it."""


@contextlib.contextmanager
def look() -> Iterator[None]:
    """Draw with the charts' own settings; the person's are back afterwards."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(cast("Any", _LOOK))  # typed by a literal of every setting
        yield


def new_figure(width: float, height: float, *, title: str, mark: str | None) -> Figure:
    """An empty figure with its title, and the mark above it.

    Args:
        width: Inches.
        height: Inches below the title; the title and the mark add to it.
        title: What it shows, one sentence.
        mark: What a reader must know first, such as ``LEAKS: paper split`` or ``SIMULATED``; None: nothing.
    """
    from matplotlib.figure import Figure

    lines = textwrap.wrap(plain(title, 4 * TITLE_WIDTH), round(TITLE_WIDTH * width / 7)) or [""]
    band = EDGE + TITLE_LINE * len(lines) + (MARK_LINE if mark else 0)
    total = height + band
    figure = Figure((width, total), dpi=DPI, layout="constrained")
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, 0, 1, height / total))  # type: ignore[call-arg]  # the constrained layout has it
    if mark:
        figure.text(
            EDGE / width,
            1 - (EDGE + MARK_LINE / 2 - 0.05) / total,
            plain(mark, round(TITLE_WIDTH * width / 7)),
            color="white",
            weight="bold",
            size=9.5,
            va="center",
            bbox={"boxstyle": "square,pad=0.35", "facecolor": MARK_COLOUR, "edgecolor": "none"},
        )
    figure.text(EDGE / width, height / total, "\n".join(lines), va="bottom", weight="bold", size=10.5)
    return figure


def finish(figure: Figure, alt: str, mark: str | None) -> Chart:
    """Draw the files; within ``look``."""
    said = f"{plain(mark, 200)}. {alt}" if mark else alt
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, here as in any programme.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from font")
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Chart(png.getvalue(), svg.getvalue(), said)


def plain(text: str, longest: int = NAME_LONGEST) -> str:
    """Text on one line that any file can hold, without control characters and lone surrogates, and not longer."""
    known = "".join(one if one.isprintable() else " " for one in text)
    line = " ".join(known.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def wrapped(name: str, width: int = NAME_WIDTH) -> str:
    """A name on lines of at most ``width`` characters."""
    return "\n".join(textwrap.wrap(plain(name), width)) or "?"


def quiet_axes(axes: Axes, which: str) -> None:
    """Helping lines along ``which`` axis (``x``, ``y`` or ``both``), and no ticks to trip over."""
    axes.grid(visible=True, axis=which)  # type: ignore[arg-type]  # a choice of three words
    axes.tick_params(length=0, colors=QUIET, labelcolor="black")
