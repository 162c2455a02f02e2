"""Speckle filters on made-up ground: looks gained, level kept, edges and lines kept, time. Prints a Markdown table.

    OMP_NUM_THREADS=1 python benchmarks/speckle.py [--side 512]

Even ground, a step of 6 dB and a bright line of one pixel, under gamma speckle of 4.4 looks: independent from pixel to
pixel, and correlated as Sentinel-1's is (a complex signal smoothed over three pixels, 4 looks). Quegan's filter gets
ten passes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.speckle import boxcar, gamma_map, lee, quegan
from wetmap.imagery.speckle_edges import STRONG_PERCENTILE, lee_sigma, refined_lee

Floats = NDArray[np.float64]
#: Looks of the independent and of the correlated speckle; passes that Quegan's filter gets.
LOOKS, CORRELATED_LOOKS, PASSES = 4.4, 4, 10
#: Contrast of the step and of the line, dB; pixels at the rim that count in nothing.
STEP_DB, LINE_DB, RIM = 6.0, 10.0, 12

Filter = Callable[[Floats, float, float], Floats]
#: Label, window, and the filter of (pass, y, x), looks, strong power.
FILTERS: list[tuple[str, int, Filter]] = [
    ("none", 1, lambda stack, _looks, _strong: stack[0]),
    ("boxcar", 5, lambda stack, _looks, _strong: boxcar(stack[0], 5)),
    ("boxcar", 7, lambda stack, _looks, _strong: boxcar(stack[0], 7)),
    ("lee", 5, lambda stack, looks, _strong: lee(stack[0], 5, looks)),
    ("lee", 7, lambda stack, looks, _strong: lee(stack[0], 7, looks)),
    ("refined-lee", 7, lambda stack, looks, _strong: refined_lee(stack[0], looks)),
    ("gamma-map", 5, lambda stack, looks, _strong: gamma_map(stack[0], 5, looks)),
    ("gamma-map", 7, lambda stack, looks, _strong: gamma_map(stack[0], 7, looks)),
    ("lee-sigma", 9, lambda stack, looks, strong: lee_sigma(stack[0], 9, looks, strong=strong)),
    ("quegan", 7, lambda stack, _looks, _strong: quegan(stack, 7)[0]),
]


def independent(rng: np.random.Generator, side: int) -> Floats:
    """Speckle of mean 1, (pass, y, x)."""
    return rng.gamma(LOOKS, 1 / LOOKS, (PASSES, side, side))


def correlated(rng: np.random.Generator, side: int) -> Floats:
    """Speckle of mean 1 with neighbours alike, (pass, y, x): the mean of four powers of a smooth complex signal."""
    total = np.zeros((PASSES, side, side))
    for _ in range(CORRELATED_LOOKS):
        signal = rng.normal(size=(PASSES, side + 2, side + 2)) + 1j * rng.normal(size=(PASSES, side + 2, side + 2))
        signal = 0.5 * signal[:, :-2] + signal[:, 1:-1] + 0.5 * signal[:, 2:]
        signal = 0.5 * signal[:, :, :-2] + signal[:, :, 1:-1] + 0.5 * signal[:, :, 2:]
        total += np.abs(signal) ** 2
    return total / total.mean()


def inner(values: Floats) -> Floats:
    """Without the rim."""
    return values[RIM:-RIM, RIM:-RIM]


def looks_of(values: Floats) -> float:
    """Equivalent number of looks of even ground."""
    return float(inner(values).mean() ** 2 / inner(values).var())


def step_kept(smooth: Floats, middle: int) -> float:
    """Share of the step's dB that lies between its two neighbouring columns."""
    dark, bright = (smooth[RIM:-RIM, column].mean() for column in (middle - 1, middle))
    return float(10 * math.log10(bright / dark) / STEP_DB)


def looks_at_step(smooth: Floats, middle: int) -> float:
    """Looks along the step's two neighbouring columns, the mean of both."""
    columns = [smooth[RIM:-RIM, column] for column in (middle - 1, middle)]
    return float(np.mean([column.mean() ** 2 / column.var() for column in columns]))


def line_kept(smooth: Floats, middle: int) -> float:
    """Share of the line's dB over the ground beside it."""
    line = smooth[RIM:-RIM, middle].mean()
    ground = smooth[RIM:-RIM, middle + 20 : -RIM].mean()
    return float(10 * math.log10(line / ground) / LINE_DB)


def row(label: str, window: int, apply: Filter, scenes: dict[str, Floats]) -> dict[str, float | str | int]:
    """Everything that is measured of one filter."""
    middle = scenes["even"].shape[-1] // 2
    strong = {name: float(np.percentile(stack[0], STRONG_PERCENTILE)) for name, stack in scenes.items()}
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        even = apply(scenes["even"], LOOKS, strong["even"])
        seconds.append(time.perf_counter() - begin)
    alike = apply(scenes["correlated"], CORRELATED_LOOKS, strong["correlated"])
    step = apply(scenes["step"], LOOKS, strong["step"])
    return {
        "filter": label,
        "window": window,
        "gain": looks_of(even) / looks_of(scenes["even"][0]),
        "gain_correlated": looks_of(alike) / looks_of(scenes["correlated"][0]),
        "bias_db": 10 * math.log10(inner(even).mean() / inner(scenes["even"][0]).mean()),
        "step": step_kept(step, middle),
        "gain_step": looks_at_step(step, middle) / looks_at_step(scenes["step"][0], middle),
        "line": line_kept(apply(scenes["line"], LOOKS, strong["line"]), middle),
        "seconds": min(seconds) / (even.size / 1e6) / (PASSES if label == "quegan" else 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="side of the scenes, pixels")
    side = parser.parse_args().side
    rng = np.random.default_rng(5)
    across = np.arange(side)
    scenes = {
        "even": independent(rng, side),
        "correlated": correlated(rng, side),
        "step": independent(rng, side) * np.where(across < side // 2, 1.0, 10 ** (STEP_DB / 10)),
        "line": independent(rng, side) * np.where(across == side // 2, 10 ** (LINE_DB / 10), 1.0),
    }
    rows = [row(label, window, apply, scenes) for label, window, apply in FILTERS]
    unit = next(float(one["seconds"]) for one in rows if (one["filter"], one["window"]) == ("boxcar", 5))
    print(
        "| filter | window, px | looks gained | on correlated speckle | beside the step | level | step kept "
        "| line kept | time |"
    )
    print("| --- " * 9 + "|")
    for one in rows:
        gains = " | ".join(f"{one[name]:.1f}" for name in ("gain", "gain_correlated", "gain_step"))
        kept = " | ".join(f"{100 * float(one[name]):.0f} %" for name in ("step", "line"))
        shown = "-" if one["filter"] == "none" else f"{float(one['seconds']) / unit:.1f}"
        print(f"| `{one['filter']}` | {one['window']} | {gains} | {one['bias_db']:+.2f} dB | {kept} | {shown} |")
    print(json.dumps({"side": side, "boxcar_s_per_megapixel": round(unit, 3), "rows": rows}))


if __name__ == "__main__":
    main()
