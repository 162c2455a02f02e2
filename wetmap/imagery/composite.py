"""Many looks become one value.

Order statistics per band (median, percentile), or one real look per pixel (medoid). The look with the best score is
in ``best_pixel``. Everything works on pixels one by one: what a pixel gets does not depend on the array around it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Counts = NDArray[np.uint16]

#: Pixels that are sorted together: a few looks of them fit into a core's cache. Fewer where distances are kept too.
CHUNK_PX, MEDOID_CHUNK_PX = 16384, 4096
#: Rounding noise of a position between looks, looks: 10 looks and 10 % give exactly 0.9, not 0.9 and a little.
SNAP = 1e-9


def median_composite(stack: Floats) -> tuple[Floats, Counts]:
    """Median over time of what was observed.

    Args:
        stack: (t, y, x) float32, NaN where not observed.

    Returns:
        (y, x) float32 with NaN where no look was observed, equal to ``numpy.nanmedian``; and the number of looks
        (y, x) uint16.
    """
    return _per_pixel(stack, 50.0)


def percentile_composite(stack: Floats, percent: float) -> tuple[Floats, Counts]:
    """Percentile over time of what was observed, linear between the looks on either side.

    Args:
        stack: (t, y, x) float32, NaN where not observed.
        percent: 0 to 100; 50 is the median.

    Returns:
        (y, x) float32 with NaN where no look was observed, as ``numpy.nanpercentile`` (definition 7 of Hyndman and
        Fan 1996); and the number of looks (y, x) uint16.
    """
    return _per_pixel(stack, percent)


def medoid_composite(stack: Floats) -> tuple[Floats, Counts]:
    """The real look nearest the median of all bands: spectra stay as they were measured.

    A median per band takes each band from another day; the medoid takes all bands of a pixel from one look (Flood
    2013, doi:10.3390/rs5126481). Flood's medoid has the least sum of distances to all looks; this is the look with
    the least sum of squared distances to the per-band medians, which needs one pass in place of all pairs. Of looks
    that are exactly as near the darker counts (least sum of reflectance: what masks leave over is mostly haze), then
    the earlier. Two looks are always exactly as near.

    Args:
        stack: (t, band, y, x) float32, NaN where not observed, looks in order of time. A look counts at a pixel only
            with all its bands.

    Returns:
        (band, y, x) float32 with NaN where no look counts, and the number of looks that do, (y, x) uint16.
    """
    looks, bands, *shape = stack.shape
    values = stack.reshape(looks, bands, math.prod(shape))
    composite = np.full((bands, values.shape[2]), np.nan, dtype=np.float32)
    count = np.zeros(values.shape[2], dtype=np.uint16)
    for chunk in _chunks(values.shape[2], MEDOID_CHUNK_PX) if looks and bands else ():
        composite[:, chunk], count[chunk] = _medoid(values[:, :, chunk])
    return composite.reshape(bands, *shape), count.reshape(shape)


def _medoid(stack: Floats) -> tuple[Floats, Counts]:
    """As ``medoid_composite``, of (t, band, n)."""
    counts = np.isfinite(stack).all(axis=1)
    distance = np.zeros(counts.shape, dtype=np.float64)
    brightness = np.zeros(counts.shape, dtype=np.float64)
    for band in range(stack.shape[1]):
        values = np.where(counts, stack[:, band], np.float32(np.nan))
        middle, _ = _order_statistic(values, 50.0)
        distance += np.square(values.astype(np.float64) - middle)
        brightness += values
    distance[~counts] = np.inf
    brightness[~counts | (distance > distance.min(axis=0))] = np.inf
    chosen = brightness.argmin(axis=0)
    found = np.take_along_axis(stack, chosen[np.newaxis, np.newaxis], axis=0)[0]
    seen = counts.any(axis=0)
    return np.where(seen, found, np.float32(np.nan)), counts.sum(axis=0, dtype=np.uint16)


def _per_pixel(stack: Floats, percent: float) -> tuple[Floats, Counts]:
    looks, *shape = stack.shape
    values = stack.reshape(looks, math.prod(shape))
    composite = np.full(values.shape[1], np.nan, dtype=np.float32)
    count = np.zeros(values.shape[1], dtype=np.uint16)
    for chunk in _chunks(values.shape[1], CHUNK_PX) if looks else ():
        found, count[chunk] = _order_statistic(values[:, chunk], percent)
        composite[chunk] = found
    return composite.reshape(shape), count.reshape(shape)


def _chunks(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def _order_statistic(stack: Floats, percent: float) -> tuple[NDArray[np.float64], Counts]:
    """Percentile of (t, n), t at least 1, NaN where there is none, float64 (n,) not rounded; and the looks (n,)."""
    count = np.isfinite(stack).sum(axis=0, dtype=np.uint16)
    work = np.empty((stack.shape[0] + 1, stack.shape[1]), dtype=np.float32)
    np.fmin(stack, np.float32(np.inf), out=work[:-1])  # NaN becomes infinite: what is missing goes last
    rows = _sort(work)
    place = np.maximum(count.astype(np.float64) - 1, 0) * (percent / 100)
    below = np.floor(place + SNAP)
    share = np.where(place - below < SNAP, 0.0, place - below)
    low = _take(work, rows, below.astype(np.intp))
    high = _take(work, rows, np.minimum(below + 1, np.maximum(count.astype(np.float64) - 1, 0)).astype(np.intp))
    with np.errstate(invalid="ignore"):  # where nothing was seen
        value = low * (1 - share) + high * share + 0.0  # no negative zero
    return np.where(count > 0, value, np.nan), count


def _take(work: Floats, rows: NDArray[np.intp], rank: NDArray[np.intp]) -> NDArray[np.float64]:
    """The value of each column's rank, (n,) float64."""
    columns = np.arange(work.shape[1])
    return np.asarray(work[rows[rank], columns], dtype=np.float64)


def _sort(work: Floats) -> NDArray[np.intp]:
    """Sort each column of (t + 1, n), whose last row is spare, by whole rows at a time; gives the rows in order."""
    rows = list(range(work.shape[0]))
    spare = rows.pop()
    for one, other in _network(len(rows)):
        low, high = work[rows[one]], work[rows[other]]
        np.minimum(low, high, out=work[spare])
        np.maximum(low, high, out=high)
        rows[one], spare = spare, rows[one]
    return np.asarray(rows, dtype=np.intp)


@functools.lru_cache(maxsize=128)
def _network(size: int) -> tuple[tuple[int, int], ...]:
    """Pairs to put in order, one after the other, so that ``size`` values end up sorted.

    Batcher's merge exchange for any size (Batcher 1968; Knuth, The Art of Computer Programming 3, 5.2.2, algorithm
    M). The pairs are fixed, so whole rows are compared at once, which is several times as fast as sorting each pixel.
    """
    pairs: list[tuple[int, int]] = []
    top = 1 << max((size - 1).bit_length() - 1, 0)
    step = top if size > 1 else 0
    while step:
        reach, offset, distance = top, 0, step
        while distance:
            pairs += [(i, i + distance) for i in range(size - distance) if i & step == offset]
            distance, reach, offset = reach - step, reach >> 1, step
        step >>= 1
    return tuple(pairs)
