"""A probability sample of a finished map, drawn strip by strip and written as a file to fill in QGIS."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.features import rasterize

from wetmap.assessment.design import Allocation, allocate, draw_ranks, smallest_sample, systematic_step
from wetmap.errors import AssessmentError, ReferenceWarning, UsageError
from wetmap.geo import Block, Grid
from wetmap.products.class_map import NO_CLASS, ClassMap
from wetmap.products.sample_file import Design, Stratum

Kind = Literal["stratified", "simple", "systematic"]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: User's accuracy that is expected of a class of which nothing is said: honest figures of wetland types lie between
#: 0.55 and 0.85.
EXPECTED = 0.75
#: Streams of their own: the order in which units are numbered, so that numbers say nothing of strata, and which points
#: of a grid are left out.
SHUFFLE, THINNING = 91, 92
#: What to do where a map of change has too many transitions for a sample.
FEWER_STRATA = "Or make the map of change with fewer entries: wetmap change with a larger --least-ha, or --stable one."


@dataclass(frozen=True)
class Wish:
    """What sample is wanted."""

    kind: Kind = "stratified"
    """By classes of the map, of all pixels alike, or on a square grid with a random start."""
    units: int | None = None
    """Units in all."""
    target_se: float | None = None
    """Standard error wanted of the overall accuracy, 0-1, instead of ``units``."""
    allocation: Allocation = "proportional"
    """How units are divided among classes; for ``stratified``."""
    expected: Mapping[str, float] = field(default_factory=dict)
    """User's accuracy expected by class, 0-1; ``EXPECTED`` where nothing is said."""
    least: int = 0
    """Fewest units of a class; for ``stratified``."""
    seed: int = 1
    """Seed of the draw."""
    away_from: Path | None = None
    """Vector file from which distance is kept, or None."""
    away_m: float = 0.0
    """That distance, metres."""
    of_change: bool = False
    """Whether the map is one of change: what to do where it has too many classes is another thing then."""


@dataclass(frozen=True)
class _Size:
    pixels: int
    hectares: float


def draw(source: ClassMap, wish: Wish) -> Design:
    """Draw a sample; the same wish of the same map gives the same sample.

    Args:
        source: The map.
        wish: What is wanted.

    Raises:
        UsageError: Neither or both of units and target_se are given, or an expected class is not in the map.
        AssessmentError: The map has no class, or too few pixels.
    """
    allowed = _allowed(source.grid, wish)
    sizes, left_out_ha = _sizes(source, allowed)
    held = [item for item in source.classes if sizes[item.code].pixels]
    if not held and left_out_ha:
        raise AssessmentError(
            f"All {left_out_ha:,.0f} ha of {source.path.name} lie within {wish.away_m:g} m of {wish.away_from}.",
            do="Take a smaller --away-m, or leave --away-from out.",
        )
    if not held:
        raise AssessmentError(f"{source.path} has no pixel of any class to draw.", do="Give a map with classes.")
    if wish.away_from is not None and not left_out_ha:
        warnings.warn(
            f"{wish.away_from} lies nowhere near the map: nothing is left out.", ReferenceWarning, stacklevel=2
        )
    expected = _expected(source, wish)
    units = _units(wish, [sizes[item.code].pixels for item in held], [expected[item.name] for item in held])
    if wish.kind == "stratified":
        pixels = [sizes[item.code].pixels for item in held]
        shares = allocate(
            units,
            pixels,
            wish.allocation,
            users=[expected[item.name] for item in held],
            least=wish.least,
            advice=FEWER_STRATA if wish.of_change else "",
        )
        ranks = dict(zip((item.code for item in held), draw_ranks(shares.tolist(), pixels, wish.seed), strict=True))
        rows, cols, codes = _places(source, allowed, ranks)
    elif wish.kind == "simple":
        total = sum(size.pixels for size in sizes.values())
        (chosen,) = draw_ranks([min(units, total)], [total], wish.seed)
        rows, cols, codes = _places(source, allowed, {NO_CLASS: chosen})
    else:
        rows, cols, codes = _grid_places(source, allowed, units, wish.seed, sizes)
    order = np.random.default_rng([wish.seed, SHUFFLE]).permutation(len(rows))
    rows, cols, codes = rows[order], cols[order], codes[order]
    strata = tuple(
        Stratum(item.code, sizes[item.code].pixels, sizes[item.code].hectares, int((codes == item.code).sum()))
        for item in held
    )
    return Design(
        kind=wish.kind,
        seed=wish.seed,
        map_name=source.path.name,
        map_sha256=source.sha256,
        classes=source.classes,
        strata=strata,
        away_m=wish.away_m if wish.away_from is not None else None,
        left_out_ha=left_out_ha,
        rows=tuple(rows.tolist()),
        cols=tuple(cols.tolist()),
        codes=tuple(codes.tolist()),
        simulated=source.simulated,
    )


def _units(wish: Wish, pixels: list[int], expected: list[float]) -> int:
    if (wish.units is None) == (wish.target_se is None):
        raise UsageError(
            "A sample needs --units or --target-se, one of the two.",
            do="Give for instance --units 500, or --target-se 0.02.",
        )
    units = wish.units
    if units is None and wish.kind == "stratified":
        units = smallest_sample(pixels, expected, float(wish.target_se or 0.0), wish.allocation, least=wish.least)
    elif units is None:
        right = sum(size * share for size, share in zip(pixels, expected, strict=True)) / sum(pixels)
        units = smallest_sample([sum(pixels)], [right], float(wish.target_se or 0.0), "proportional")
    if units > sum(pixels):
        raise AssessmentError(
            f"{units:,} units are wanted, and the map has {sum(pixels):,} pixels to draw.", do="Take fewer --units."
        )
    return units


def _expected(source: ClassMap, wish: Wish) -> dict[str, float]:
    known = {item.name: EXPECTED for item in source.classes}
    unknown = sorted(set(wish.expected) - set(known))
    if unknown:
        raise UsageError(
            f"--expected names {', '.join(unknown)}, and the map's classes are {', '.join(known)}.",
            do="Write the classes as the map's legend does.",
        )
    return {**known, **wish.expected}


def _sizes(source: ClassMap, allowed: Callable[[Block], Bools] | None) -> tuple[dict[int, _Size], float]:
    """Pixels and true hectares that can be drawn, by class, and the hectares that cannot."""
    pixels = {item.code: 0 for item in source.classes}
    areas: dict[int, list[float]] = {code: [] for code in pixels}
    left_out: list[float] = []
    for block, codes in source.strips():
        area = source.grid.pixel_area_m2(block) / 1e4
        free = None if allowed is None else allowed(block)
        for code in set(np.unique(codes).tolist()) - {NO_CLASS}:
            here = codes == code
            if free is not None:
                left_out.append(math.fsum(area[here & ~free].tolist()))
                here &= free
            pixels[code] += int(here.sum())
            areas[code].append(math.fsum(area[here].tolist()))
    return {code: _Size(pixels[code], math.fsum(areas[code])) for code in pixels}, math.fsum(left_out)


def _places(
    source: ClassMap, allowed: Callable[[Block], Bools] | None, ranks: Mapping[int, Ints]
) -> tuple[Ints, Ints, Ints]:
    """Rows, columns and classes of the pixels with these ranks in their stratum, counted row after row."""
    seen = dict.fromkeys(ranks, 0)
    found: list[tuple[Ints, Ints, Ints]] = []
    for block, codes in source.strips():
        free = codes != NO_CLASS
        if allowed is not None:
            free &= allowed(block)
        for stratum, wanted in ranks.items():
            here = np.flatnonzero(free if stratum == NO_CLASS else free & (codes == stratum))
            mine = wanted[(wanted >= seen[stratum]) & (wanted < seen[stratum] + here.size)] - seen[stratum]
            seen[stratum] += here.size
            at = here[mine]
            found.append((at // block.width + block.y0, at % block.width, codes.ravel()[at].astype(np.int64)))
    rows, cols, values = (np.concatenate([part[number] for part in found]) for number in range(3))
    return rows, cols, values


def _grid_places(
    source: ClassMap,
    allowed: Callable[[Block], Bools] | None,
    units: int,
    seed: int,
    sizes: Mapping[int, _Size],
) -> tuple[Ints, Ints, Ints]:
    """Every so many pixels down and across, from a random start."""
    step = systematic_step(units, sum(size.pixels for size in sizes.values()))
    top, left = np.random.default_rng(seed).integers(0, step, 2).tolist()
    found: list[tuple[Ints, Ints, Ints]] = []
    for block, codes in source.strips():
        free = codes != NO_CLASS
        if allowed is not None:
            free &= allowed(block)
        first = (top - block.y0) % step
        down, across = np.nonzero(free[first::step, left::step])
        rows, cols = down * step + first, across * step + left
        found.append((rows + block.y0, cols, codes[rows, cols].astype(np.int64)))
    rows, cols, values = (np.concatenate([part[number] for part in found]) for number in range(3))
    if not rows.size:
        raise AssessmentError(f"A grid of {step} px meets no pixel of a class.", do="Take more units.")
    kept = np.sort(np.random.default_rng([seed, THINNING]).permutation(rows.size)[:units])  # the grid meets a few more
    return rows[kept], cols[kept], values[kept]


def _allowed(grid: Grid, wish: Wish) -> Callable[[Block], Bools] | None:
    """Which pixels of a block are far enough from the training polygons; None: all."""
    if wish.away_from is None:
        return None
    near = shapely.buffer(_shapes(wish.away_from, grid), wish.away_m)
    index = shapely.STRtree(near)

    def allowed(block: Block) -> Bools:
        window = grid.window(block.y0, block.x0, block.height, block.width)
        hits = near[index.query(shapely.box(*window.bounds))]
        if not hits.size:
            return np.ones(window.shape, dtype=np.bool_)
        burnt = rasterize(hits, out_shape=window.shape, transform=window.transform, all_touched=True, dtype="uint8")
        return np.asarray(burnt == 0, dtype=np.bool_)

    return allowed


def _shapes(path: Path, grid: Grid) -> NDArray[np.object_]:
    """The shapes of every layer of a vector file, in the grid's CRS."""
    advice = "Give the polygons that the model was trained on."
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        tables = [pyogrio.read_dataframe(path, columns=[], layer=name) for name in layers]
        shapes = [table.to_crs(grid.crs).geometry.to_numpy() for table in tables]
    except (DataSourceError, DataLayerError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a vector file with a CRS ({error}).", do=advice) from error
    every = np.concatenate([np.zeros(0, dtype=np.object_), *shapes])
    found: NDArray[np.object_] = every[~(shapely.is_missing(every) | shapely.is_empty(every))]
    if not found.size:
        raise UsageError(f"{path} holds nothing to keep away from.", do=advice)
    return found
