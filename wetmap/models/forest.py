"""The baseline that every network is compared with: a random forest on single pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from wetmap.errors import BundleError, TrainingError
from wetmap.models import forest_file
from wetmap.models.pixels import PixelModel, PixelSamples, class_weight_argument


@dataclass(frozen=True)
class ForestSettings:
    """What else can be said about a forest and the cube it is for."""

    class_weight: str = "balanced"
    """``balanced``: classes are weighted by inverse frequency; ``none``: not."""
    min_samples_leaf: int = 1
    """Fewest training pixels in a leaf."""
    layers: int = 1
    """Observation layers of the cube."""
    band_layer: tuple[int, ...] | None = None
    """The layer of each band; None: layer 0."""


@dataclass(frozen=True, eq=False)
class ForestModel(PixelModel):
    """A fitted forest."""

    kind: ClassVar[str] = "forest"

    forest: RandomForestClassifier
    """scikit-learn's model."""
    fill: NDArray[np.float32]
    """(C,) what stands for a missing value: the band's mean over the training pixels where it was observed, 0 for a
    band that never was. The same is done in training."""

    @classmethod
    def fit(cls, samples: PixelSamples, options: Mapping[str, Any], *, seed: int, threads: int) -> ForestModel:
        """Fit a forest with the registry's options; see ``fit_forest``."""
        return fit_forest(
            samples.x,
            samples.y,
            classes=samples.classes,
            trees=options["trees"],
            seed=seed,
            threads=threads,
            settings=ForestSettings(
                class_weight=options["class_weight"], layers=samples.layers, band_layer=samples.band_layer
            ),
        )

    @property
    def known(self) -> NDArray[np.int64]:
        """(k,) the classes that had training pixels, ascending."""
        return np.asarray(vars(self.forest).get("classes_", [-1]), np.int64)

    def _known_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """What scikit-learn's ``predict_proba`` answers, to the last bit.

        Pixels that end side by side in one tree take like ways through the others too: taken in the order of their
        leaves in the first tree, they find the nodes in the cache.
        """
        trees: list[Any] = [one.tree_ for one in cast("list[Any]", vars(self.forest)["estimators_"])]
        x = _filled(x, self.fill)
        order = np.argsort(trees[0].apply(x), kind="stable")
        x = x[order]
        total = np.zeros((len(x), len(self.known)))
        leaves = np.empty_like(total)
        for tree in trees:
            # "clip" writes to `leaves` directly; the indices are in range
            np.take(tree.value[:, 0], tree.apply(x), axis=0, out=leaves, mode="clip")
            total += leaves
        found = np.empty_like(total)
        found[order] = total / len(trees)
        return found

    def to_bytes(self) -> bytes:
        """The model as a skops archive, without pickle; the same model gives the same bytes in every process."""
        return forest_file.dumps(
            {
                "forest": self.forest,
                "fill": self.fill,
                "classes": self.classes,
                "layers": self.layers,
                "band_layer": self.band_layer,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> ForestModel:
        """Read what ``to_bytes`` wrote.

        Raises:
            BundleError: The archive is damaged, holds types that a forest has no need of, or trees that point outside
                themselves.
        """
        content = forest_file.loads(data)
        try:
            model = cls(
                forest=content["forest"],
                fill=np.asarray(content["fill"], np.float32),
                classes=int(content["classes"]),
                layers=int(content["layers"]),
                band_layer=np.asarray(content["band_layer"], np.int64),
            )
            _check_loaded(model)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"The forest lacks a part ({error}).", do=forest_file.ADVICE) from error
        return model


def fit_forest(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    classes: int,
    trees: int,
    seed: int,
    threads: int,
    settings: ForestSettings | None = None,
) -> ForestModel:
    """Fit a random forest to labelled pixels.

    Breiman (2001), doi:10.1023/A:1010933404324, as scikit-learn does it: bootstrap samples, the square root of the
    number of bands tried at each split.

    Args:
        x: (n, C) features in physical units, NaN where not observed.
        y: (n,) class index, 0 to ``classes`` - 1; some classes may be absent.
        classes: Number of classes K of the map.
        trees: Number of trees.
        seed: Seed of the bootstrap and of the bands tried.
        threads: Threads to fit with; the forest does not depend on it.
        settings: Class weights and observation layers.

    Raises:
        TrainingError: No samples, lengths that differ, or a class index out of range.
    """
    settings = settings or ForestSettings()
    samples = PixelSamples(np.asarray(x, np.float32), np.asarray(y), classes, settings.layers, settings.band_layer)
    if trees < 1:
        raise TrainingError(f"A forest of {trees} trees.", do="Give at least one tree.")
    x = samples.x
    seen = np.isfinite(x)
    # float64 sums: float32 ones lose digits over many pixels
    total = np.where(seen, x, 0).sum(0, dtype=np.float64)
    fill = (total / np.maximum(seen.sum(0), 1)).astype(np.float32)
    forest = RandomForestClassifier(
        n_estimators=trees,
        min_samples_leaf=settings.min_samples_leaf,
        max_features="sqrt",
        class_weight=class_weight_argument(settings.class_weight),
        random_state=seed,
        n_jobs=threads,
    )
    forest.fit(_filled(x, fill), samples.y.astype(np.int64))
    # prediction adds trees up in the order in which threads finish; one thread makes it the order of the trees
    forest.set_params(n_jobs=1)
    return ForestModel(
        classes=classes, layers=samples.layers, band_layer=samples.layer_of_band, forest=forest, fill=fill
    )


def _filled(x: NDArray[np.float32], fill: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put the training means where nothing (or no number) was observed."""
    return np.where(np.isfinite(x), x, fill).astype(np.float32, copy=False)


def _check_loaded(model: ForestModel) -> None:
    forest: Mapping[str, Any] = vars(model.forest)
    fits = (
        model.fits_together
        and model.fill.shape == model.band_layer.shape
        and bool(np.isfinite(model.fill).all())
        and forest.get("n_features_in_") == model.bands
        and len(forest["estimators_"]) > 0
    )
    if not fits:
        raise BundleError("The parts of the forest do not fit each other.", do=forest_file.ADVICE)
    for tree in cast("list[Any]", forest["estimators_"]):
        forest_file.check_tree(tree.tree_, model.bands, len(model.known))
