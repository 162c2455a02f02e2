"""Draw labelled pixels: the same number of every class where there are enough, spread over its polygons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import ReferenceDataError
from wetmap.recipe import Background
from wetmap.samples.class_table import class_of
from wetmap.samples.labels import Labels
from wetmap.samples.sites import sites_of_samples

#: Sets the background's random numbers apart from those of the labelled pixels of the same class; and those by which
#: many candidates are thinned.
BACKGROUND_STREAM, THINNING_STREAM = 1000, 1001
#: Pixels among which background is drawn in turns, at most: of more, so many are taken at random first. The background
#: of a province is 700 million pixels, and turns take 70 bytes for each.
MOST_CANDIDATES = 2**22
#: Rows that are looked through at a time, pixels.
STRIP_PX = 512


@dataclass(frozen=True)
class Samples:
    """Labelled pixels, ordered by row and column; no pixel occurs twice."""

    row: NDArray[np.int32]
    """Pixel row on the grid, (sample,)."""
    col: NDArray[np.int32]
    """Pixel column on the grid, (sample,)."""
    label: NDArray[np.uint8]
    """Class **index**, place in the class table from 0, (sample,)."""
    polygon: NDArray[np.int32]
    """Id of the reference feature, or of the square that stands in for it, (sample,)."""
    site: NDArray[np.int16] | None = None
    """Place in ``site_names``, (sample,); None where the reference names no sites."""
    site_names: tuple[str, ...] = ()
    """Names of the sites that hold samples, sorted."""

    def __len__(self) -> int:
        return len(self.row)


def draw_samples(
    labels: Labels, *, per_class: int, min_per_class: int, background: Background | None, seed: int
) -> Samples:
    """Draw a stratified random sample of the labelled pixels.

    Within a class polygons take turns: first one random pixel of every polygon, then a second, and so on, so that one
    large polygon does not speak for its class. What is drawn of a class depends on the seed, the class's code and its
    pixels, not on the other classes nor on the order of the features in their file.

    Args:
        labels: Labels on the grid.
        per_class: Pixels per class, at most.
        min_per_class: A class with fewer labelled pixels is refused.
        background: When given, ``share`` times as many samples as all others together are drawn from
            ``labels.background`` and get its class.
        seed: Seed.

    Returns:
        The samples.

    Raises:
        ReferenceDataError: A class has fewer labelled pixels than ``min_per_class``.
    """
    codes = labels.codes.ravel()
    background_code = None if background is None else class_of(labels.classes, background.name).code
    drawn: list[tuple[NDArray[np.int64], int]] = []
    for index, row in enumerate(labels.classes):
        pixels = np.flatnonzero(codes == row.code)
        if row.code != background_code:
            _refuse_thin(row.name, len(pixels), min_per_class)
        drawn.append((_take_turns(pixels, labels, per_class, (seed, row.code)), index))
    if background is not None:
        total = sum(len(pixels) for pixels, _ in drawn)
        drawn.append(_background(labels, background, total, min_per_class, seed))
    return _samples(drawn, labels)


def _background(
    labels: Labels, background: Background, others: int, min_per_class: int, seed: int
) -> tuple[NDArray[np.int64], int]:
    row = class_of(labels.classes, background.name)
    stream = (seed, row.code, THINNING_STREAM)
    candidates = np.zeros(0, dtype=np.int64) if labels.background is None else thinned(labels.background, stream)
    labelled = int((labels.codes == row.code).sum())
    if len(candidates) + labelled < min_per_class:
        raise ReferenceDataError(
            f"Background class {row.name} has {len(candidates)} pixels farther than {background.buffer_m:g} m from "
            f"every reference polygon, fewer than samples.min_per_class = {min_per_class}.",
            do="Lower background.buffer_m, enlarge the area, or give reference of dry land instead.",
        )
    wanted = max(round(background.share * others), min_per_class)
    return _take_turns(candidates, labels, wanted, (seed, row.code, BACKGROUND_STREAM)), labels.classes.index(row)


def thinned(mask: NDArray[np.bool_], stream: tuple[int, ...], most: int = MOST_CANDIDATES) -> NDArray[np.int64]:
    """Flat indices of the True pixels in raster order; of more than ``most`` a simple random sample of so many.

    Args:
        mask: (height, width).
        stream: Seeds of the random numbers.
        most: Pixels, at most.
    """
    total, width = int(np.count_nonzero(mask)), mask.shape[1]
    if total <= most:
        return np.flatnonzero(mask.ravel())
    draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream)))
    ranks = np.sort(draw.choice(total, most, replace=False, shuffle=False))
    kept, before = [], 0
    for y0 in range(0, mask.shape[0], STRIP_PX):
        here = np.flatnonzero(mask[y0 : y0 + STRIP_PX].ravel())
        first, last = np.searchsorted(ranks, (before, before + len(here)))
        kept.append(here[ranks[first:last] - before] + y0 * width)
        before += len(here)
    return np.concatenate(kept)


def _take_turns(pixels: NDArray[np.int64], labels: Labels, wanted: int, stream: tuple[int, ...]) -> NDArray[np.int64]:
    """Choose ``wanted`` of ``pixels`` (flat indices in raster order), polygons in turn; all of them if fewer."""
    if len(pixels) <= wanted:
        return pixels
    lot = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream))).permutation(len(pixels))
    polygon = labels.polygon.ravel()[pixels].astype(np.int64)
    order = np.argsort(polygon * len(pixels) + lot)  # by polygon, then by lot: one key sorts faster than two
    first = np.flatnonzero(np.r_[True, np.diff(polygon[order]) != 0])
    turn = np.empty(len(pixels), dtype=np.int64)
    turn[order] = np.arange(len(pixels)) - np.repeat(first, np.diff(np.r_[first, len(pixels)]))
    return pixels[np.argpartition(turn * len(pixels) + lot, wanted)[:wanted]]


def _samples(drawn: list[tuple[NDArray[np.int64], int]], labels: Labels) -> Samples:
    pixels = np.concatenate([chosen for chosen, _ in drawn])
    label = np.concatenate([np.full(len(chosen), index, dtype=np.uint8) for chosen, index in drawn])
    order = np.argsort(pixels, kind="stable")
    row, col = np.divmod(pixels[order], labels.codes.shape[1])
    polygon = labels.polygon.ravel()[pixels[order]].astype(np.int32)
    site, names = (None, ()) if labels.sites is None else sites_of_samples(row, col, polygon, labels.sites)
    return Samples(
        row=row.astype(np.int32),
        col=col.astype(np.int32),
        label=label[order],
        polygon=polygon,
        site=site,
        site_names=names,
    )


def _refuse_thin(name: str, pixels: int, least: int) -> None:
    if pixels < least:
        raise ReferenceDataError(
            f"Class {name} has {pixels} labelled pixels in the area, fewer than samples.min_per_class = {least}.",
            do="Add reference for it, merge it with another class (`reference:` of a class takes several values), or "
            "lower samples.min_per_class.",
        )
