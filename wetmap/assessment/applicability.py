"""Where a model knows the ground: the dissimilarity index and its threshold, the area of applicability.

H. Meyer and E. Pebesma (2021), Predicting into unknown space? Estimating the area of applicability of spatial
prediction models, Methods in Ecology and Evolution 12, 1620-1633: features are standardised by the training samples and
weighted; the index DI of a pixel is its distance to the nearest training sample, divided by the mean distance between
training samples; the threshold is the upper whisker of the DI that samples have to the samples of other folds.

What was not observed is no number here either. The distance of a pixel to a sample runs over the features that the
*pixel* has, and is rescaled to all of them: ``d2 = (W / Wp) sum(w2 (z - z')2)``, where ``W`` is the sum of the
squared weights ``w2`` of all features and ``Wp`` that of the pixel's. A feature that the pixel has and the sample lacks
counts 2 in the place of ``(z - z')2``: the mean squared difference of two draws from a distribution of variance 1. So a
sample is not near because little of it was seen, and all samples are compared over the same features.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import AssessmentError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)

#: Training samples that are kept, at most; a map takes time in proportion.
MOST_SAMPLES = 3072
#: Bytes that the kept samples may take, at most: with very many features fewer samples are kept.
MOST_BYTES = 4_000_000
#: Pixels whose distances are computed together, and samples likewise. Every matrix product has this one shape (but for
#: the last samples, which the training data alone decide), because a sum's last bits depend on the shape.
BATCH, CHUNK = 4096, 1024
#: Mean squared difference of two draws from a distribution of variance 1.
UNSEEN = 2.0
#: Upper whisker of a box plot: so many interquartile ranges above the upper quartile (Meyer and Pebesma 2021).
WHISKER = 1.5
#: Value of the threshold in the 8-bit layer; a pixel is inside up to it, and outside above.
LAYER_THRESHOLD = 100
#: Largest value of the layer (it stands for "or more"), and its nodata.
LAYER_MOST, LAYER_NODATA = 254, 255


@dataclass(frozen=True, eq=False)
class Known:
    """Labelled samples, as the index sees them."""

    features: NDArray[np.float32]
    """(n, C), each in its own unit, NaN where not observed."""
    fold: NDArray[np.int16]
    """(n,), fold in space."""
    stratum: NDArray[np.uint8]
    """(n,), class index: classes are thinned apart."""
    place: Ints
    """(n, k), what samples of a class are sorted by before they are thinned: polygon, row, column."""

    def __len__(self) -> int:
        return len(self.fold)

    def thinned(self, most: int) -> Known:
        """At most so many of these samples, see `thin`."""
        kept = thin(self.stratum, np.column_stack([self.fold, self.place]), most)
        return Known(self.features[kept], self.fold[kept], self.stratum[kept], self.place[kept])


@dataclass(frozen=True, eq=False)
class Applicability:
    """What is needed to compute the index of any pixel."""

    mean: Floats
    """(C,) mean of each feature over the training samples, in its unit."""
    scale: Floats
    """(C,) standard deviation likewise (divisor n), positive."""
    weight: Floats
    """(C,) weight of each standardised feature; 0 for one that does not take part."""
    samples: NDArray[np.float32]
    """(n, C) training samples, standardised, not weighted; NaN where not observed."""
    mean_distance: float
    """Mean distance between two of these samples."""
    threshold: float
    """DI up to which a pixel is inside the area of applicability."""

    def index(self, features: NDArray[np.float32]) -> Floats:
        """The dissimilarity index of pixels.

        Args:
            features: (n, C), in the units of the training samples, NaN where not observed.

        Returns:
            DI (n,), 0 for a pixel like a training sample; NaN where no feature that takes part was observed.

        Raises:
            AssessmentError: The pixels have another number of features.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise AssessmentError(
                f"The pixels are of shape {features.shape}, and the training samples have {len(self.mean)} features.",
                do="Give pixels (n, features) of the cube that the model was trained on.",
            )
        pixels = standardise(features, self.mean, self.scale)
        return self._neighbours.distance(pixels) / self.mean_distance

    @functools.cached_property
    def _neighbours(self) -> Neighbours:
        return Neighbours(self.samples, self.weight)

    def layer(self, index: Floats) -> NDArray[np.uint8]:
        """The index as an 8-bit layer: percent of the threshold, rounded up, so that 100 and less is inside.

        Args:
            index: DI, any shape; NaN for nothing.

        Returns:
            The same shape: 0 to 254, where 254 stands for "or more"; 255 for nothing.
        """
        missing = np.isnan(index)
        # a quotient of two unlike doubles does not round to 1: what is above the threshold becomes 101 at least
        percent = LAYER_THRESHOLD * (np.where(missing, 0.0, index) / self.threshold)
        return np.where(missing, LAYER_NODATA, np.ceil(np.minimum(percent, LAYER_MOST))).astype(np.uint8)


def measure(
    training: Known, held: Known | None = None, *, importance: Sequence[float] | None = None, most: int = MOST_SAMPLES
) -> Applicability | None:
    """Prepare the index of a model from the samples that it was trained on.

    Args:
        training: The samples that the model learnt from: a pixel is compared with these.
        held: Samples of other folds that chose the epoch; they take part in the threshold alone.
        importance: (C,) weight of each feature; None for equal weights.
        most: Training samples kept, at most; of held samples likewise.

    Returns:
        The index; None where it has no meaning: no feature varies among the samples, no sample has one of another
        fold to be compared with, or the threshold would be 0.

    Raises:
        AssessmentError: The importance is of another number of features, negative, or all 0.
    """
    bands = training.features.shape[1]
    mean, scale, varies = _statistics(training.features)
    weight = np.where(varies, _weights(importance, bands), 0.0)
    if not len(training) or not weight.any():
        return None
    kept = training.thinned(min(most, MOST_BYTES // (4 * bands)))
    samples = standardise(kept.features, mean, scale)
    distance = Neighbours(samples, weight).mean_distance()
    if not distance > 0:
        return None
    asked = [(samples, kept.fold)]
    if held is not None and len(held):
        rest = held.thinned(most)
        asked.append((standardise(rest.features, mean, scale), rest.fold))
    found = [other_fold_distances(points, fold, samples, kept.fold, weight) for points, fold in asked]
    index = np.concatenate(found) / distance
    index = index[np.isfinite(index)]
    if not index.size or not upper_whisker(index) > 0:
        return None
    return Applicability(mean, scale, weight, samples, distance, upper_whisker(index))


def standardise(features: NDArray[np.float32], mean: Floats, scale: Floats) -> NDArray[np.float32]:
    """(n, C) features less their mean, by their standard deviation; rounded to float32, pixels like samples."""
    return np.asarray((features.astype(np.float64) - mean) / scale, dtype=np.float32)


def thin(stratum: NDArray[np.uint8], place: Ints, most: int) -> Ints:
    """Choose samples without chance: every class gets the same room, and what a rare one leaves goes to the others.

    Within a class samples are sorted by place and taken at even steps, the first half a step from the beginning. So
    folds and polygons keep about their shares.

    Args:
        stratum: (n,) class.
        place: (n, k) what to sort by, the first column first.
        most: Samples to keep, at most, 1 or more.

    Returns:
        (m,) places of the samples kept, ascending; all of them where there are no more than ``most``.
    """
    count = len(stratum)
    if count <= most:
        return np.arange(count, dtype=np.int64)
    members = [np.flatnonzero(stratum == value) for value in np.unique(stratum)]
    members.sort(key=len)  # stable: of equal sizes the first class first
    kept, room = [], most
    for number, rows in enumerate(members):
        share = min(len(rows), room // (len(members) - number))
        room -= share
        order = rows[np.lexsort(place[rows].T[::-1])]
        kept.append(order[(2 * np.arange(share) + 1) * len(rows) // (2 * max(share, 1))])
    return np.sort(np.concatenate(kept)).astype(np.int64)


def other_fold_distances(
    points: NDArray[np.float32],
    fold: NDArray[np.int16],
    samples: NDArray[np.float32],
    sample_fold: NDArray[np.int16],
    weight: Floats,
) -> Floats:
    """Distance of each point to the nearest sample of another fold than its own.

    Args:
        points: (m, C), standardised, NaN where not observed.
        fold: (m,) their folds.
        samples: (n, C) likewise.
        sample_fold: (n,) their folds.
        weight: (C,) of the features.

    Returns:
        (m,); NaN where there is no sample of another fold, or the point has no feature.
    """
    found = np.full(len(points), np.nan)
    for number in np.unique(fold):
        others = samples[sample_fold != number]
        if len(others):
            mine = fold == number
            found[mine] = Neighbours(others, weight).distance(points[mine])
    return found


def upper_whisker(values: Floats) -> float:
    """The largest value that is no outlier: not above the 75 % quantile and 1.5 interquartile ranges.

    Args:
        values: (n,), at least one, finite. Quantiles are interpolated linearly.
    """
    low, high = np.quantile(values, [0.25, 0.75])
    return float(values[values <= high + WHISKER * (high - low)].max())


class Neighbours:
    """Samples prepared for the search of the nearest one: exact, of all samples, in bounded memory.

    The candidate is found with matrix products and its distance computed anew feature by feature, so that a pixel that
    equals a sample has distance 0 and not the rounding error of a difference of squares.
    """

    def __init__(self, samples: NDArray[np.float32], weight: Floats) -> None:
        """Prepare.

        Args:
            samples: (n, C), standardised, NaN where not observed.
            weight: (C,), not negative; features of weight 0 are left out.

        Raises:
            AssessmentError: There is no sample, or no feature of weight above 0.
        """
        self._used = np.flatnonzero(weight > 0)
        if not len(samples) or not len(self._used):
            raise AssessmentError(
                f"There are {len(samples)} samples and {len(self._used)} features to compare.",
                do="Give at least one of each.",
            )
        self._weight = weight[self._used]
        self._square = self._weight**2
        self._total = math.fsum(self._square.tolist())
        self._values, self._seen = self._weighted(samples)
        self._gaps = np.flatnonzero(~self._seen.all(axis=0))
        own = self._seen.astype(np.float64)
        lacking = UNSEEN * self._square * (1 - own)
        self._right = np.hstack([-2 * self._values, self._values**2 + lacking, own[:, self._gaps]]).T.copy()

    def distance(self, points: NDArray[np.float32]) -> Floats:
        """Distance of points (m, C), standardised, to the nearest sample: (m,); NaN for a point without a feature."""
        found = np.empty(len(points))
        for start, values, seen in self._batches(points):
            nearest = self._nearest(values, seen)
            rows = slice(start, min(start + BATCH, len(points)))
            found[rows] = self._exact(values, seen, nearest)[: rows.stop - start]
        return found

    def mean_distance(self) -> float:
        """Mean distance from one sample to another, of all ordered pairs; NaN for one sample alone.

        From a sample without a feature there is no distance.
        """
        sums: list[float] = []
        pairs = 0
        for start in range(0, len(self._values), BATCH):
            rows = slice(start, min(start + BATCH, len(self._values)))
            size = rows.stop - start
            values, seen = _padded(self._values[rows]), _padded(self._seen[rows])
            left, own = self._left(values, seen), self._rescale(seen)[:size]
            for first in range(0, len(self._values), CHUNK):
                squared = (left @ self._right[:, first : first + CHUNK])[:size]
                squared = np.maximum(squared + self._constant(values)[:size, None], 0.0) * own[:, None]
                squared[np.arange(first, first + squared.shape[1]) == np.arange(start, rows.stop)[:, None]] = 0.0
                sums += np.sqrt(squared[np.isfinite(own)]).sum(axis=1).tolist()
            pairs += int(np.isfinite(own).sum()) * (len(self._values) - 1)
        return math.fsum(sums) / pairs if pairs else math.nan

    def _weighted(self, points: NDArray[np.float32]) -> tuple[Floats, NDArray[np.bool_]]:
        """Weighted values of the features used, 0 where not observed, and where they were; both (m, used)."""
        used = points[:, self._used]
        seen = ~np.isnan(used)
        return np.where(seen, used, 0.0).astype(np.float64) * self._weight, seen

    def _batches(self, points: NDArray[np.float32]) -> Iterator[tuple[int, Floats, NDArray[np.bool_]]]:
        for start in range(0, len(points), BATCH):
            values, seen = self._weighted(points[start : start + BATCH])
            yield start, _padded(values), _padded(seen)

    def _left(self, values: Floats, seen: NDArray[np.bool_]) -> Floats:
        return np.hstack([values, seen.astype(np.float64), values[:, self._gaps] ** 2])

    def _constant(self, values: Floats) -> Floats:
        """What every sample adds alike: the squares of features that no sample lacks, (m,)."""
        whole = np.setdiff1d(np.arange(values.shape[1]), self._gaps)
        return np.asarray((values[:, whole] ** 2).sum(axis=1))

    def _nearest(self, values: Floats, seen: NDArray[np.bool_]) -> Ints:
        """Place of the nearest sample of each point, (m,); of equal ones the first."""
        left = self._left(values, seen)
        least, place = np.full(len(values), np.inf), np.zeros(len(values), dtype=np.int64)
        for first in range(0, len(self._values), CHUNK):
            squared = left @ self._right[:, first : first + CHUNK]
            here = squared.argmin(axis=1)
            value = squared[np.arange(len(values)), here]
            better = value < least
            least[better], place[better] = value[better], first + here[better]
        return place

    def _exact(self, values: Floats, seen: NDArray[np.bool_], nearest: Ints) -> Floats:
        """Distance of each point to its sample, (m,), summed feature by feature in their order."""
        total = np.zeros(len(values))
        for band, square in enumerate(self._square):
            apart = (values[:, band] - self._values[nearest, band]) ** 2
            both = np.where(self._seen[nearest, band], apart, UNSEEN * square)
            total += np.where(seen[:, band], both, 0.0)
        return np.sqrt(total * self._rescale(seen))

    def _rescale(self, seen: NDArray[np.bool_]) -> Floats:
        """(m,) all squared weights by those of the point's features; NaN without any."""
        own = np.zeros(len(seen))
        for band, square in enumerate(self._square):
            own += np.where(seen[:, band], square, 0.0)
        return np.where(own > 0, self._total / np.where(own > 0, own, 1.0), np.nan)


def _padded(rows: NDArray[Number]) -> NDArray[Number]:
    """Rows with zeros below up to a whole batch."""
    whole = np.zeros((BATCH, rows.shape[1]), dtype=rows.dtype)
    whole[: len(rows)] = rows
    return whole


def _statistics(features: NDArray[np.float32]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Mean and standard deviation of each feature where it was observed, and whether it varies; sums are exact."""
    mean, scale = np.zeros(features.shape[1]), np.ones(features.shape[1])
    varies = np.zeros(features.shape[1], dtype=np.bool_)
    for band in range(features.shape[1]):
        values = features[:, band][~np.isnan(features[:, band])].astype(np.float64)
        if not values.size or values.min() == values.max():
            mean[band] = values[0] if values.size else 0.0
            continue
        mean[band] = math.fsum(values.tolist()) / values.size
        scale[band] = math.sqrt(math.fsum(((values - mean[band]) ** 2).tolist()) / values.size)
        varies[band] = True
    return mean, scale, varies


def _weights(importance: Sequence[float] | None, bands: int) -> Floats:
    if importance is None:
        return np.ones(bands)
    weight = np.asarray(importance, dtype=np.float64)
    if weight.shape != (bands,) or not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise AssessmentError(
            f"There are {bands} features, and their importance is {weight.tolist()}.",
            do="Give one number for each feature, none negative and not all 0.",
        )
    return weight
