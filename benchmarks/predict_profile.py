"""Where the time of one `wetmap predict` goes, from samples that py-spy took of it.

    pip install py-spy
    py-spy record --rate 100 --format raw --output predict.raw -- wetmap predict --aoi area.geojson --workers 1
    python benchmarks/predict_profile.py predict.raw --plot profile.svg

A sample is one thread that was running; two threads that run at the same time are two samples. The picture shows which
function called which, the outermost at the top, each as wide as its share of the samples; of the frames of libraries
only the innermost one is drawn.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Frames that the picture shows of a stack: ours.
OURS = "wetmap/"
#: Narrower than this share of all samples nothing is drawn, and from the second share on it is named.
DRAWN, NAMED = 0.002, 0.03
#: A part of the work, and a function below which a sample belongs to it; the first that is found decides.
PARTS = (
    ("import of libraries", "_find_and_load ("),
    ("model", "Predictor.tile_probabilities ("),
    ("reading and unpacking the cube", "read_block ("),
    ("cutting tiles, choosing classes", "map_block ("),
    ("writing blocks", "_map_block ("),
    ("loading the model", "load_predictor ("),
    ("GeoTIFFs", "write_cog ("),
    ("hectares", "count_areas ("),
    ("report and its pictures", "(wetmap/report/"),
    ("settling and checking", "(wetmap/stages"),
    ("decoding and encoding chunks", "(zarr/"),
)


def read(path: Path) -> list[tuple[list[str], int]]:
    """Stacks, outermost function first, and how often each was seen."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        rows.append((frames, int(count)))
    return rows


@dataclass
class Frame:
    """A function below the functions that called it."""

    count: int = 0
    """Samples in it and in what it called."""
    calls: dict[str, Frame] = field(default_factory=dict)
    """What it called, by name."""

    def add(self, names: list[str], count: int) -> None:
        """Add samples of a stack."""
        self.count += count
        if names:
            self.calls.setdefault(names[0], Frame()).add(names[1:], count)


def shown(frames: list[str]) -> list[str]:
    """The names of a stack that the picture shows: ours with their module, and the innermost of a library."""
    ours = [frame for frame in frames if OURS in frame]
    names = [_our_name(frame) for frame in ours]
    return names if ours and frames[-1] == ours[-1] else [*names, frames[-1].partition(" (")[0]]


def _our_name(frame: str) -> str:
    name, _, file = frame.partition(" (")
    return f"{Path(file.rstrip(')')).stem}: {name}"


def picture(path: Path, rows: list[tuple[list[str], int]]) -> None:
    """Draw the stacks, the outermost function at the top."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    root = Frame()
    for frames, count in rows:
        root.add(shown(frames), count)
    figure, axes = plt.subplots(figsize=(11, 6), layout="constrained")
    depth = _draw(axes, root, 0.0, 0, root.count)
    axes.set(xlim=(0, 1), ylim=(depth, 0), yticks=[], xlabel="share of the samples")
    axes.spines[["left", "top", "right"]].set_visible(False)
    figure.savefig(path)


def _draw(axes: Any, frame: Frame, left: float, depth: int, total: int) -> int:
    """Draw what a function called, and give how deep that goes."""
    deepest = depth
    for name, call in sorted(frame.calls.items(), key=lambda item: -item[1].count):
        width = call.count / total
        if width >= DRAWN:
            colour = "#3b7a8c" if ":" in name else "#b08a2e"
            axes.barh(depth + 0.5, width, left=left, height=0.94, align="center", color=colour, edgecolor="white")
            if width >= NAMED:
                room = int(150 * width)
                text = name if len(name) <= room else name.rpartition(": ")[2][:room]
                axes.text(left + 0.003, depth + 0.5, text, va="center", fontsize=7, color="white")
            deepest = max(deepest, _draw(axes, call, left, depth + 1, total))
        left += width
    return max(deepest, depth)


def part_of(frames: list[str]) -> str:
    """The part of the work that a stack belongs to."""
    for name, mark in PARTS:
        if any(frame.startswith(mark) or (mark.startswith("(") and mark in frame) for frame in frames):
            return name
    return "waiting, and the rest"


def main() -> None:
    """Print two tables: parts of the work, and functions by their own time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="what py-spy wrote with --format raw")
    parser.add_argument("--plot", type=Path, help="draw which function called which here (SVG or PNG)")
    parser.add_argument("--functions", type=int, default=12, help="rows of the second table")
    chosen = parser.parse_args()
    parts: Counter[str] = Counter()
    own: Counter[str] = Counter()
    rows = read(chosen.raw)
    if chosen.plot:
        picture(chosen.plot, rows)
    for frames, count in rows:
        parts[part_of(frames)] += count
        own[frames[-1]] += count
    total = sum(parts.values())
    print(f"{total} samples")
    for name, count in parts.most_common():
        print(f"| {name} | {100 * count / total:.1f} % |")
    print()
    for name, count in own.most_common(chosen.functions):
        print(f"| `{name}` | {100 * count / total:.1f} % |")


if __name__ == "__main__":
    main()
