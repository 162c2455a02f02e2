"""Known shifts, put into simulated radar and measured again: what co-registration claims, and how right it is.

    OMP_NUM_THREADS=1 python benchmarks/coregistration.py [--cases 200]

A case is a piece of ground seen twice: by an optical sensor, and by a radar whose picture lies off by a known shift of
0.1 to 3 px and carries speckle of 1, 2, 4.4 or 10 looks (one pass alone: in a run several are averaged). Half of the
ground is made here, of straight-edged fields and a winding river drawn on pixels four times finer and averaged over
the sensor's pixels, so that a shift is exact to any fraction; brightness in the two sensors is drawn apart, so that
contrast turns round from edge to edge. The other half is wetmap's simulated landscape, evaluated at displaced
coordinates. Further cases have nothing to hold on to: a bay, a forest, an optical and a radar picture of two different
places, stripes that run one way. There any claim is a false one.

Prints the tables of docs/explanation/co-registration.md and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetmap.geo import Grid
from wetmap.imagery.coregister import Tie, edges_of, measure
from wetmap.imagery.coregister_combine import Shift, combine
from wetmap.sources.simulated_ground import make_ground, weighted

Floats = NDArray[np.float64]

#: Looks of the speckle.
LOOKS = (1.0, 2.0, 4.4, 10.0)
#: Shortest and longest shift, pixels.
SHIFT_PX = (0.1, 3.0)
#: Ground with something to hold on to, and without.
SHOWING = ("fields", "landscape")
EMPTY = ("bay", "forest", "elsewhere", "stripes")
#: Fine pixels per pixel.
FINE = 4
#: Ground around the picture, pixels: more than the longest shift and the point spread.
AROUND_PX = 6


@dataclass(frozen=True)
class Case:
    """One simulated pair and what is known about it."""

    ground: str
    """Kind of ground."""
    looks: float
    """Looks of the speckle."""
    shift_px: tuple[float, float]
    """The radar's shift, (rows, columns)."""
    seed: int
    """Seed of everything in it."""


@dataclass(frozen=True)
class Outcome:
    """What was measured."""

    case: Case
    """The case."""
    ties: Sequence[Tie]
    """Each tie block."""
    shift: Shift
    """All together."""

    @property
    def error_px(self) -> float:
        """Distance of the common shift from the truth, pixels."""
        return _distance(self.shift.shift_px, self.case.shift_px)


def cases(count: int, seed: int = 1) -> Iterator[Case]:
    """As many cases with something to hold on to, half of each kind, and half as many of the others."""
    random = np.random.default_rng(seed)
    kinds = [*(SHOWING * math.ceil(count / 3))[: 2 * count // 3], *(EMPTY * count)[: count - 2 * count // 3]]
    for number, ground in enumerate(kinds):
        length = SHIFT_PX[0] + (SHIFT_PX[1] - SHIFT_PX[0]) * random.random()
        angle = 2 * np.pi * random.random()
        shift = float(length * np.sin(angle)), float(length * np.cos(angle))
        yield Case(ground, LOOKS[(number // 2) % len(LOOKS)], shift, int(random.integers(2**31)))


def run(case: Case, blocks: int = 3, block_px: int = 128) -> Outcome:
    """Make a case's pictures and measure their shift on blocks x blocks tie blocks."""
    optical, radar = pictures(case, blocks * block_px)
    ties = []
    for row in range(blocks):
        for col in range(blocks):
            part = np.s_[:, row * block_px : (row + 1) * block_px, col * block_px : (col + 1) * block_px]
            ties.append(measure(edges_of(optical[part], power=False), edges_of(radar[part], power=True)))
    return Outcome(case, ties, combine(ties))


def pictures(case: Case, side: int) -> tuple[Floats, Floats]:
    """Optical reflectance and linear radar power, (band, side, side)."""
    random = np.random.default_rng(case.seed)
    if case.ground == "landscape":
        return _landscape(case, side, random)
    if case.ground in {"bay", "forest"}:
        return _even(case, side, random)
    optical_shares = _fields(random, side, stripes=case.ground == "stripes")
    other = _fields(random, side, stripes=False) if case.ground == "elsewhere" else optical_shares
    fields = int(max(optical_shares.max(), other.max())) + 1
    reflectance = random.uniform(0.02, 0.4, (2, fields))
    power = 10 ** (random.uniform(-15, -6, (1, fields)) / 10)
    optical = np.stack([_seen(values[optical_shares], (0.0, 0.0), side) for values in reflectance])
    radar = np.stack([_seen(values[other], case.shift_px, side) for values in power])
    optical += 0.01 * random.standard_normal(optical.shape)
    radar *= np.exp(0.1 * _smooth_noise(random, (side, side), 3.0))
    return optical, _speckled(radar, case.looks, random)


def _fields(random: np.random.Generator, side: int, *, stripes: bool) -> NDArray[np.int64]:
    """Numbers of fields on the fine pixels; a river runs through them as field 0."""
    size = (side + 2 * AROUND_PX) * FINE
    rows, cols = np.mgrid[0:size, 0:size] / FINE
    if stripes:
        return np.asarray(1 + (cols + 0.2 * rows) // random.uniform(17, 60), dtype=np.int64)
    fields = 1 + _parcels(random, rows, cols)
    middle = side * (0.5 + 0.25 * np.sin(rows / side * random.uniform(3, 8) + 6 * random.random()))
    fields[np.abs(cols - middle) < random.uniform(2, 7)] = 0
    return fields


def _parcels(random: np.random.Generator, rows: Floats, cols: Floats) -> NDArray[np.int64]:
    """Numbers of fields: strips of different widths, each cut across at its own places, all turned and bent."""
    angle, size = 2 * np.pi * random.random(), float(rows.max())
    along = rows * np.cos(angle) + cols * np.sin(angle)
    across = cols * np.cos(angle) - rows * np.sin(angle) + random.uniform(2, 8) * np.sin(along / random.uniform(30, 80))
    strips = np.searchsorted(np.cumsum(random.uniform(12, 50, 200)) - 2 * size, across)
    cut = along / random.uniform(25, 70, 201)[strips] + 10 * random.random(201)[strips]
    return np.asarray(strips * 200 + np.floor(cut) + 100, dtype=np.int64)


def _seen(fine: Floats, shift_px: tuple[float, float], side: int) -> Floats:
    """Means over the sensor's pixels of ground that is displaced by a shift: exact for ground of fine pixels."""
    for axis in (0, 1):
        start = (AROUND_PX - shift_px[axis]) * FINE
        whole = math.floor(start)
        first, second = (np.take(fine, np.arange(side * FINE) + whole + step, axis=axis) for step in (0, 1))
        fine = first * (1 - (start - whole)) + second * (start - whole)
        shape = (side, FINE, -1) if axis == 0 else (side, side, FINE)
        fine = fine.reshape(shape).mean(axis=1 if axis == 0 else 2)
    return np.asarray(ndimage.gaussian_filter(fine, 0.5), dtype=np.float64)


def _even(case: Case, side: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Ground of one kind: each sensor sees its own texture."""
    grain, optical_contrast, radar_contrast = (3.0, 0.1, 0.2) if case.ground == "bay" else (1.2, 0.25, 0.15)
    optical = 0.04 * np.exp(optical_contrast * _smooth_noise(random, (2, side, side), grain))
    radar = 0.02 * np.exp(radar_contrast * _smooth_noise(random, (1, side, side), 2 * grain))
    return optical, _speckled(radar, case.looks, random)


def _landscape(case: Case, side: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """The simulated landscape; the brightness of its covers drawn anew, apart in the two sensors."""
    grid = Grid("EPSG:32620", 10.0, 500_000.0 + 60_000.0 * (case.seed % 1000), 5_000_000.0, side, side)
    still = make_ground(grid, case.seed % 10_000)
    moved = make_ground(grid, case.seed % 10_000, shift_px=case.shift_px)
    reflectance = random.uniform(0.02, 0.4, (2, 10))
    power = 10 ** (random.uniform(-15, -6, 10) / 10)
    optical = [weighted(still.fractions, values) * (1 + 0.06 * still.brightness) for values in reflectance]
    radar = weighted(moved.fractions, power) * 10 ** (0.08 * moved.roughness)
    return np.stack(optical).astype(np.float64), _speckled(radar[np.newaxis].astype(np.float64), case.looks, random)


def _smooth_noise(random: np.random.Generator, shape: tuple[int, ...], sigma_px: float) -> Floats:
    """Smooth noise of mean 0 and standard deviation 1."""
    noise = ndimage.gaussian_filter(random.standard_normal(shape), (*[0] * (len(shape) - 2), sigma_px, sigma_px))
    return np.asarray(noise / noise.std(), dtype=np.float64)


def _speckled(power: Floats, looks: float, random: np.random.Generator) -> Floats:
    """Gamma-distributed speckle of mean 1 and variance 1 / looks, independent from pixel to pixel."""
    return np.asarray(power * random.standard_gamma(looks, power.shape) / looks, dtype=np.float64)


def _distance(first: tuple[float, float], second: tuple[float, float]) -> float:
    return math.hypot(first[0] - second[0], first[1] - second[1])


def summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The figures that the tests hold to."""
    showing = [one for one in outcomes if one.case.ground in SHOWING]
    claimed = [one for one in showing if one.shift.confident]
    empty = [one for one in outcomes if one.case.ground in EMPTY]
    errors = np.array([one.error_px for one in claimed])
    return {
        "cases": len(outcomes),
        "with_edges": len(showing),
        "claimed": len(claimed),
        "median_error_px": round(float(np.median(errors)), 3),
        "p95_error_px": round(float(np.quantile(errors, 0.95)), 3),
        "worst_error_px": round(float(errors.max()), 3),
        "without_edges": len(empty),
        "false_claims": sum(one.shift.confident for one in empty),
    }


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Claims and errors by ground and looks, as Markdown."""
    lines = [
        "| Ground | Looks | Cases | Claimed | Median error, px | 95 % below, px | Error ÷ stated error, median |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for ground in (*SHOWING, *EMPTY):
        for looks in LOOKS if ground in SHOWING else (None,):
            rows = [one for one in outcomes if one.case.ground == ground and looks in (None, one.case.looks)]
            claimed = [one for one in rows if one.shift.confident]
            if ground in SHOWING and claimed:
                errors = [one.error_px for one in claimed]
                ratio = np.median([one.error_px / one.shift.error_px for one in claimed])
                figures = f"{np.median(errors):.3f} | {np.quantile(errors, 0.95):.3f} | {ratio:.2f}"
            else:
                figures = "- | - | -"
            said = "1 to 10" if looks is None else f"{looks:g}"
            lines.append(f"| {ground} | {said} | {len(rows)} | {len(claimed)} | {figures} |")
    return lines


def block_table(outcomes: Sequence[Outcome]) -> list[str]:
    """The single tie blocks, as Markdown."""
    lines = [
        "| Tie blocks | Looks | Blocks | Trusted | Median error, px | Error within 2 stated errors |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for looks in LOOKS:
        pairs = [(one, tie) for one in outcomes for tie in one.ties]
        pairs = [(one, tie) for one, tie in pairs if one.case.looks == looks and one.case.ground in SHOWING]
        good = [(_distance(tie.shift_px, one.case.shift_px), tie.error_px) for one, tie in pairs if not tie.fault]
        errors, stated = np.array(good).T
        within = np.mean(errors <= 2 * np.hypot(stated, 0.1))
        lines.append(
            f"| with edges | {looks:g} | {len(pairs)} | {len(good)} | {np.median(errors):.3f} | {within:.0%} |"
        )
    empty = [tie for one in outcomes if one.case.ground in EMPTY for tie in one.ties]
    lines.append(f"| without | 1 to 10 | {len(empty)} | {sum(not tie.fault for tie in empty)} | - | - |")
    return lines


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=4, help="tie blocks a side")
    parser.add_argument("--block-px", type=int, default=128, help="side of a tie block, pixels")
    chosen = parser.parse_args()
    outcomes = [run(case, chosen.blocks, chosen.block_px) for case in cases(chosen.cases)]
    print("\n".join([*table(outcomes), "", *block_table(outcomes), ""]))
    print(json.dumps(summary(outcomes)))


if __name__ == "__main__":
    main()
