"""Where the time of one `wetmap predict` goes, from samples that py-spy took of it.

    pip install py-spy
    py-spy record --rate 100 --format raw --output predict.raw -- wetmap predict --aoi area.geojson --workers 1
    python benchmarks/predict_profile.py predict.raw

A sample is one thread that was running; two threads that run at the same time are two samples.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

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
    parser.add_argument("--functions", type=int, default=12, help="rows of the second table")
    chosen = parser.parse_args()
    parts: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for frames, count in read(chosen.raw):
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
