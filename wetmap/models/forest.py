"""The baseline that every network is compared with: a random forest on single pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from wetmap.errors import BundleError, TrainingError, UsageError
from wetmap.models import forest_file
from wetmap.models.contract import Geometry

#: Side of the tile, pixels. A tree is called once per tile; a larger tile spreads that call over more pixels.
TILE_PX = 64


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
class ForestModel:
    """A fitted forest that answers for each pixel from that pixel's bands alone."""

    forest: RandomForestClassifier
    """scikit-learn's model."""
    fill: NDArray[np.float32]
    """(C,) what stands for a missing value: the band's mean over the training pixels where it was observed, 0 for a
    band that never was. The same is done in training."""
    classes: int
    """Number of classes K of the map; a class absent from training has probability 0 everywhere."""
    layers: int
    """Number of observation layers L."""
    band_layer: NDArray[np.int64]
    """(C,) the observation layer of each band."""

    @property
    def bands(self) -> int:
        """Number of bands C."""
        return len(self.fill)

    @property
    def geometry(self) -> Geometry:
        """No margin: a pixel is answered for on its own."""
        return Geometry(tile=TILE_PX, margin=0, stride=1)

    def pixel_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of pixels.

        Args:
            x: (n, C) in physical units, NaN where not observed.

        Returns:
            (n, K), sums to 1 over the classes. The trees are added up in their own order, one after the other, so that
            the last bits do not depend on threads.
        """
        answers = np.zeros((len(x), self.classes), np.float32)
        if len(x):
            found = self.forest.predict_proba(_filled(x, self.fill))
            answers[:, np.asarray(self.forest.classes_, np.int64)] = found
        return answers

    def tile_probabilities(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """Class probabilities at every pixel of a tile.

        Args:
            features: (B, C, T, T) in physical units, NaN where not observed.
            observed: (B, L, T, T) bool, or None.

        Returns:
            (B, K, T, T) float32, on the CPU.

        Raises:
            UsageError: The shapes do not fit the model.
        """
        if features.ndim != 4 or features.shape[1] != self.bands:
            raise UsageError(
                f"Features of shape {tuple(features.shape)} for a forest of {self.bands} bands.",
                do="Give (batch, bands, rows, columns).",
            )
        count, _, height, width = features.shape
        values = features.detach().to("cpu", torch.float32).numpy()
        if observed is not None:
            if tuple(observed.shape) != (count, self.layers, height, width) or observed.dtype != torch.bool:
                raise UsageError(
                    f"The observation mask is {observed.dtype} of {tuple(observed.shape)} for {self.layers} layers.",
                    do="Give one bool layer per season, sensor and orbit state, in the order of the cube.",
                )
            seen = observed.cpu().numpy()[:, self.band_layer]
            values = np.where(seen, values, np.float32(np.nan))
        x = np.ascontiguousarray(values.transpose(0, 2, 3, 1).reshape(-1, self.bands))
        answers = self.pixel_probabilities(x).reshape(count, height, width, self.classes)
        return torch.from_numpy(np.ascontiguousarray(answers.transpose(0, 3, 1, 2)))

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
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"The forest lacks a part ({error}).", do=forest_file.ADVICE) from error
        _check_loaded(model)
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
    x, y = np.asarray(x, np.float32), np.asarray(y)
    _check_samples(x, y, classes, trees)
    band_layer = np.asarray(settings.band_layer or [0] * x.shape[1], np.int64)
    if band_layer.shape != (x.shape[1],) or band_layer.min() < 0 or band_layer.max() >= settings.layers:
        raise TrainingError(
            f"band_layer is {band_layer.tolist()} for {x.shape[1]} bands and {settings.layers} layers.",
            do="Give one index per band, from 0 to layers - 1.",
        )
    seen = np.isfinite(x)
    # float64 sums: float32 ones lose digits over many pixels
    total = np.where(seen, x, 0).sum(0, dtype=np.float64)
    fill = (total / np.maximum(seen.sum(0), 1)).astype(np.float32)
    forest = RandomForestClassifier(
        n_estimators=trees,
        min_samples_leaf=settings.min_samples_leaf,
        max_features="sqrt",
        class_weight=None if settings.class_weight == "none" else settings.class_weight,
        random_state=seed,
        n_jobs=threads,
    )
    forest.fit(_filled(x, fill), y.astype(np.int64))
    # prediction adds trees up in the order in which threads finish; one thread makes it the order of the trees
    forest.set_params(n_jobs=1)
    return ForestModel(forest=forest, fill=fill, classes=classes, layers=settings.layers, band_layer=band_layer)


def _filled(x: NDArray[np.float32], fill: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put the training means where nothing (or no number) was observed."""
    return np.where(np.isfinite(x), x, fill).astype(np.float32, copy=False)


def _check_samples(x: NDArray[np.float32], y: NDArray[Any], classes: int, trees: int) -> None:
    if x.ndim != 2 or y.shape != (len(x),) or len(x) == 0 or x.shape[1] == 0:
        raise TrainingError(
            f"Samples of shape {x.shape} with labels of shape {y.shape}.", do="Give (n, bands) and (n,), n at least 1."
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= classes:
        raise TrainingError(
            f"Labels run from {y.min()} to {y.max()} ({y.dtype}) for {classes} classes.",
            do="Give class indices, not codes, and leave unlabelled pixels out.",
        )
    if trees < 1:
        raise TrainingError(f"A forest of {trees} trees.", do="Give at least one tree.")


def _check_loaded(model: ForestModel) -> None:
    forest: Mapping[str, Any] = vars(model.forest)
    known = np.asarray(forest.get("classes_", [-1]))
    fits = (
        model.fill.ndim == 1
        and model.band_layer.shape == model.fill.shape
        and bool(np.isfinite(model.fill).all())
        and bool(((model.band_layer >= 0) & (model.band_layer < model.layers)).all())
        and forest.get("n_features_in_") == model.bands
        and bool(((known >= 0) & (known < model.classes)).all())
    )
    if not fits:
        raise BundleError("The parts of the forest do not fit each other.", do=forest_file.ADVICE)
    for tree in cast("list[Any]", forest["estimators_"]):
        forest_file.check_tree(tree.tree_, model.bands, len(known))
