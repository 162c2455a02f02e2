"""How often 95 % intervals of area and of overall accuracy hold the truth.

The design is that of Olofsson et al. (2014), the same with proportional allocation, and one with a rarer class.

Samples are drawn from a known truth again and again; each class's interval either holds its true share or does not. The
last line is one JSON object.

    python benchmarks/coverage.py               # 2,000 samples
    python benchmarks/coverage.py --samples 200 # a quick look
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from numpy.typing import NDArray

from wetmap.assessment import Sample, estimate, intervals
from wetmap.assessment.intervals import Method

METHODS: tuple[Method | None, ...] = ("normal", "posterior", None)
#: Counts of a sample taken as the truth (rows map classes), size of each stratum, units drawn from it.
DESIGNS = {
    "Olofsson 2014": (
        [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]],
        [200_000, 150_000, 3_200_000, 6_450_000],
        [75, 75, 165, 325],
    ),
    "the same, proportional": (
        [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]],
        [200_000, 150_000, 3_200_000, 6_450_000],
        [20, 20, 205, 395],
    ),
    "a rare class": (
        [[80, 10, 10], [4, 976, 20], [1, 20, 979]],
        [10_000, 300_000, 690_000],
        [50, 150, 300],
    ),
}


def coverage(name: str, samples: int) -> dict[str, NDArray[np.float64]]:
    """Share of samples whose interval holds the truth, by method, (K + 1,): each area, and the overall accuracy."""
    counts, sizes, drawn = (np.array(part, dtype=float) for part in DESIGNS[name])
    shares = counts / counts.sum(axis=1, keepdims=True)
    truth = sizes / sizes.sum() @ shares
    right = float(sizes / sizes.sum() @ np.diag(shares))
    rng = np.random.default_rng(7)
    held = {str(method or "chosen"): np.zeros(truth.size + 1) for method in METHODS}
    for _ in range(samples):
        cells = np.stack([rng.multinomial(int(n), row) for n, row in zip(drawn, shares, strict=True)])
        units, cols = np.nonzero(cells)
        mapped, reference = np.repeat(units, cells[units, cols]), np.repeat(cols, cells[units, cols])
        sample = Sample(mapped, mapped, reference, sizes, truth.size)
        found = estimate(sample)
        for method in METHODS:
            made = intervals(sample, found, method=method)
            rows = zip((*made.area, made.overall), (*truth, right), strict=True)
            held[str(method or "chosen")] += [one.low <= value <= one.high for one, value in rows]
    return {method: count / samples for method, count in held.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    figures = {}
    print("| design | interval | each class's area, % | overall accuracy, % |\n| --- | --- | --- | --- |")
    for name in DESIGNS:
        for method, found in coverage(name, options.samples).items():
            figures[f"{name}, {method}"] = [round(100 * share, 1) for share in found]
            areas = ", ".join(f"{100 * share:.1f}" for share in found[:-1])
            print(f"| {name} | {method} | {areas} | {100 * found[-1]:.1f} |")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
