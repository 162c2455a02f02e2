"""The other baseline: gradient boosting of trees on single pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from threadpoolctl import threadpool_limits

from wetmap.errors import BundleError, TrainingError
from wetmap.models import boosting_file
from wetmap.models.boosting_file import Trees
from wetmap.models.pixels import PixelModel, PixelSamples, class_weight_argument

#: Fewest training pixels in a leaf: scikit-learn's default. A class of fewer pixels gets no leaf of its own.
LEAF_PIXELS = 20
#: A probability below this counts as this in the logarithmic loss, so that one pixel cannot decide alone.
LOWEST_PROBABILITY = 1e-15


@dataclass(frozen=True, eq=False)
class BoostingModel(PixelModel):
    """Fitted boosted trees."""

    kind: ClassVar[str] = "boosting"

    seen_classes: NDArray[np.int64]
    """(k,) the classes that had training pixels, ascending."""
    start: NDArray[np.float64]
    """(s,) scores before the first tree: one per known class, a single one when there are one or two."""
    trees: Trees
    """The trees: one per score in each round."""

    @classmethod
    def fit(cls, samples: PixelSamples, options: Mapping[str, Any], *, seed: int, threads: int) -> BoostingModel:
        """Fit with the registry's options; see ``fit_boosting``."""
        return fit_boosting(samples, **options, seed=seed, threads=threads)

    @property
    def known(self) -> NDArray[np.int64]:
        """(k,) the classes that had training pixels, ascending."""
        return self.seen_classes

    @property
    def rounds(self) -> int:
        """Rounds of trees."""
        return len(self.trees.nodes) // len(self.start)

    @cached_property
    def _predictors(self) -> list[TreePredictor]:
        return self.trees.predictors()

    def _known_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        *_, score = self._scores(x)
        return self._probabilities(score)

    def _scores(self, x: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
        """The scores (s, n) at the start and after each round, in one array that is added to."""
        # whatever is no number was not observed: so it is with the forest
        numbers = np.where(np.isfinite(x), x, np.nan).astype(np.float64)
        score = np.repeat(self.start[:, None], len(x), axis=1)
        yield score
        for place, predictor in enumerate(self._predictors):
            score[place % len(score)] += boosting_file.added(predictor, numbers)
            if (place + 1) % len(score) == 0:
                yield score

    def _probabilities(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, k) from the scores (s, n): logistic for two classes, softmax otherwise."""
        if len(self.known) == 2:
            second = expit(score[0])
            return np.stack([1 - second, second], axis=1)
        shares = np.exp(score - score.max(axis=0))
        # class by class: numpy's own sum over the classes takes another order for one pixel than for many
        total = np.zeros(score.shape[1])
        for row in shares:
            total += row
        found: NDArray[np.float64] = (shares / total).T
        return found

    def tuned(self, validation: PixelSamples, /) -> BoostingModel:
        """The same model, with the first rounds alone that answer best for pixels that were not trained on.

        Best is the lowest logarithmic loss, averaged within each class and then over the classes, so that a rare class
        counts as much as a common one; the first of equals. Pixels of a class that was not trained on say nothing.

        Args:
            validation: Pixels of another fold. Never a random part of the training pixels: neighbours are alike, and
                more rounds would look better than they are.
        """
        place = np.searchsorted(self.known, validation.y)
        used = self.known[np.minimum(place, len(self.known) - 1)] == validation.y
        if not used.any() or not self.rounds:
            return self
        place, x = place[used], np.asarray(validation.x[used], np.float32)
        weight = 1 / np.bincount(place)[place]
        losses = [
            float(-(weight * np.log(np.maximum(found[np.arange(len(place)), place], LOWEST_PROBABILITY))).sum())
            for found in (self._probabilities(score) for score in self._scores(x))
        ]
        best = int(np.argmin(losses[1:])) + 1
        return replace(self, trees=self.trees.first(best * len(self.start)))

    def to_bytes(self) -> bytes:
        """The model as safetensors; the same model gives the same bytes in every process."""
        return boosting_file.dumps(
            {
                **vars(self.trees),
                "classes": np.asarray(self.classes),
                "layers": np.asarray(self.layers),
                "band_layer": self.band_layer,
                "known": self.known,
                "start": self.start,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> BoostingModel:
        """Read what ``to_bytes`` wrote.

        Raises:
            BundleError: The file is damaged, holds other arrays, or trees that point outside themselves.
        """
        content = boosting_file.loads(data)
        model = cls(
            classes=int(content.pop("classes")),
            layers=int(content.pop("layers")),
            band_layer=content.pop("band_layer"),
            seen_classes=content.pop("known"),
            start=content.pop("start"),
            trees=Trees(**content),
        )
        _check_loaded(model)
        return model


def fit_boosting(
    samples: PixelSamples,
    *,
    trees: int = 100,
    learning_rate: float = 0.1,
    leaves: int = 31,
    class_weight: str = "balanced",
    seed: int,
    threads: int,
) -> BoostingModel:
    """Fit gradient boosting to labelled pixels.

    Friedman (2001), doi:10.1214/aos/1013203451, on binned features as scikit-learn does it: each round adds one tree
    per class along the gradient of the logarithmic loss. A value that was not observed is none: each split sends it to
    the side that served the training pixels best. All rounds are made; ``BoostingModel.tuned`` shortens them.

    Args:
        samples: Pixels, labels, classes and layers.
        trees: Rounds.
        learning_rate: Share of each tree's correction that is taken.
        leaves: Most leaves of a tree.
        class_weight: ``balanced``: classes are weighted by inverse frequency; ``none``: not.
        seed: Seed of the pixels that bins are made from where there are more than 200,000; else nothing is drawn.
        threads: Threads to fit with; the model does not depend on it.

    Raises:
        TrainingError: No rounds, a learning rate that is not above 0, or fewer than 2 leaves.
    """
    if trees < 1 or leaves < 2 or not learning_rate > 0:
        raise TrainingError(
            f"Boosting of {trees} rounds, {leaves} leaves and learning rate {learning_rate}.",
            do="Give at least 1 round, at least 2 leaves, and a learning rate above 0.",
        )
    known = np.unique(samples.y).astype(np.int64)
    start, grown = np.zeros(1), Trees.of([])
    if len(known) > 1:  # scikit-learn would train against a class that is not there
        boosting = HistGradientBoostingClassifier(
            max_iter=trees,
            learning_rate=learning_rate,
            max_leaf_nodes=leaves,
            min_samples_leaf=LEAF_PIXELS,
            class_weight=class_weight_argument(class_weight),
            # scikit-learn would stop by a random part of the training pixels: neighbours of those it trains on
            early_stopping=False,
            random_state=seed,
        )
        with threadpool_limits(threads, user_api="openmp"):
            boosting.fit(_binnable(samples.x), samples.y.astype(np.int64))
        parts = vars(boosting)
        start = np.asarray(parts["_baseline_prediction"], np.float64).ravel()
        grown = Trees.of(tree for made in parts["_predictors"] for tree in made)
    return BoostingModel(
        classes=samples.classes,
        layers=samples.layers,
        band_layer=samples.layer_of_band,
        seen_classes=known,
        start=start,
        trees=grown,
    )


def _binnable(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The pixels with NaN for what is no number, and 0 throughout a band that never was observed.

    scikit-learn 1.9 finds no bins in a band of nothing but NaN, and fails. No tree can split on a constant, so that the
    band stays without a say in what is mapped, observed there or not.
    """
    seen = np.isfinite(x)
    return np.where(seen, x, np.where(seen.any(axis=0), np.float32(np.nan), np.float32(0)))


def _check_loaded(model: BoostingModel) -> None:
    count = len(model.known)
    fits = (
        model.fits_together
        and count > 0
        and bool((np.diff(model.known) > 0).all())
        and model.start.shape == (1 if count < 3 else count,)
        and len(model.trees.nodes) % len(model.start) == 0
        and bool(np.isfinite(model.start).all())
    )
    if not fits:
        raise BundleError("The parts of the boosting model do not fit each other.", do=boosting_file.ADVICE)
    model.trees.check(model.bands)
