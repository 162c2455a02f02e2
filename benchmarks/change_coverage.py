"""How often 95 % intervals of a class's gain, loss and net change, and of each transition, hold the truth.

Samples of a map of change are drawn from known truths again and again; each interval either holds the true share or
does not. The last line is one JSON object.

    python benchmarks/change_coverage.py               # 2,000 samples
    python benchmarks/change_coverage.py --samples 200 # a quick look
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from numpy.typing import NDArray

from wetmap.assessment import Sample
from wetmap.assessment.change import class_changes, transition_areas
from wetmap.assessment.intervals import Method

METHODS: tuple[Method | None, ...] = ("normal", None)
FIGURES = ("gain", "loss", "net")
#: Shares of the area of each stratum, units drawn from it, and in each the chance of every pair of three classes,
#: before * 3 + after.
TRUTHS = {
    "common change": (
        [0.30, 0.40, 0.20, 0.10],
        [150, 150, 150, 150],
        [
            [0.90, 0.06, 0.00, 0.02, 0.02, 0.00, 0.00, 0.00, 0.00],
            [0.01, 0.02, 0.00, 0.04, 0.90, 0.03, 0.00, 0.00, 0.00],
            [0.00, 0.00, 0.05, 0.00, 0.00, 0.10, 0.00, 0.05, 0.80],
            [0.10, 0.70, 0.00, 0.00, 0.20, 0.00, 0.00, 0.00, 0.00],
        ],
    ),
    "rare change": (
        [0.48, 0.48, 0.02, 0.02],
        [200, 200, 75, 75],
        [
            [0.990, 0.005, 0.000, 0.000, 0.005, 0.000, 0.000, 0.000, 0.000],
            [0.000, 0.000, 0.000, 0.008, 0.987, 0.005, 0.000, 0.000, 0.000],
            [0.100, 0.850, 0.000, 0.000, 0.050, 0.000, 0.000, 0.000, 0.000],
            [0.000, 0.000, 0.000, 0.800, 0.150, 0.050, 0.000, 0.000, 0.000],
        ],
    ),
    "change that the map missed nowhere": (
        [0.48, 0.48, 0.02, 0.02],
        [200, 200, 75, 75],
        [
            [1.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00],
            [0.00, 0.00, 0.00, 0.00, 1.00, 0.00, 0.00, 0.00, 0.00],
            [0.10, 0.85, 0.00, 0.00, 0.05, 0.00, 0.00, 0.00, 0.00],
            [0.00, 0.00, 0.00, 0.80, 0.15, 0.05, 0.00, 0.00, 0.00],
        ],
    ),
    "seven strata": (
        [0.31, 0.31, 0.32, 0.02, 0.02, 0.01, 0.01],
        [120, 120, 120, 40, 40, 40, 40],
        [
            [0.980, 0.008, 0.003, 0.001, 0.003, 0.000, 0.005, 0.000, 0.000],
            [0.005, 0.003, 0.000, 0.002, 0.990, 0.000, 0.000, 0.000, 0.000],
            [0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 1.000],
            [0.150, 0.800, 0.000, 0.000, 0.050, 0.000, 0.000, 0.000, 0.000],
            [0.150, 0.000, 0.800, 0.000, 0.000, 0.000, 0.000, 0.000, 0.050],
            [0.000, 0.000, 0.000, 0.700, 0.300, 0.000, 0.000, 0.000, 0.000],
            [0.100, 0.000, 0.000, 0.000, 0.000, 0.000, 0.700, 0.000, 0.200],
        ],
    ),
}
#: Pixels of the area: so many that the finite population correction is nothing.
PIXELS = 1e7


def coverage(name: str, samples: int, methods: tuple[Method | None, ...] = METHODS) -> dict[str, NDArray[np.float64]]:
    """Share of samples whose interval holds the truth, by method, (figure, class): see ``FIGURES``, then transitions.

    The last rows are those of the nine pairs of classes, before by after; NaN for pairs that do not occur.
    """
    share, drawn, chances = (np.array(part) for part in TRUTHS[name])
    pairs = (share @ chances).reshape(3, 3)
    gain, loss = pairs.sum(axis=0) - np.diag(pairs), pairs.sum(axis=1) - np.diag(pairs)
    truth = np.concatenate([np.stack([gain, loss, gain - loss]), np.where(pairs > 0, pairs, np.nan)])
    rng = np.random.default_rng(11)
    stratum = np.repeat(np.arange(len(drawn)), drawn.astype(int))
    held = {str(method or "chosen"): np.zeros(truth.shape) for method in methods}
    for _ in range(samples):
        seen = np.concatenate([rng.choice(9, size=int(n), p=row) for n, row in zip(drawn, chances, strict=True)])
        sample = Sample(stratum, stratum, seen, share * PIXELS, 9)
        for method in methods:
            found = class_changes(sample, seen // 3, seen % 3, 3, method=method)
            ends = [[getattr(one, figure).interval for one in found] for figure in FIGURES]
            areas = [one.interval for one in transition_areas(sample, method=method)]
            ends += [areas[:3], areas[3:6], areas[6:]]
            low, high = (np.array([[getattr(one, end) for one in row] for row in ends]) for end in ("low", "high"))
            held[str(method or "chosen")] += (low <= truth + 1e-12) & (truth <= high + 1e-12)
    return {method: np.where(np.isnan(truth), np.nan, count / samples) for method, count in held.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    figures = {}
    print("| truth | interval | gain of each class, % | loss, % | net change, % | each pair of classes, % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in TRUTHS:
        for method, found in coverage(name, options.samples).items():
            rows = [*found[:3], found[3:][~np.isnan(found[3:])]]
            figures[f"{name}, {method}"] = [np.round(100 * row, 1).tolist() for row in rows]
            cells = [", ".join(f"{100 * one:.1f}" for one in row) for row in rows]
            print(f"| {name} | {method} | {' | '.join(cells)} |", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
