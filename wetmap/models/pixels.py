"""What the models of single pixels share: their samples, their tiles, and one way to fit any of them."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetmap.errors import RecipeError, TrainingError
from wetmap.models.checks import check_maps
from wetmap.models.contract import Geometry
from wetmap.models.registry import entry, resolve_options

#: Side of the tile, pixels. Every tree is fetched from memory once per tile, and the trees of a forest are together
#: larger than any cache: on tiles of 64 pixels a forest of 500 trees takes 1.7 times as long per pixel.
TILE_PX = 256
#: Every model of pixels maps alike: no margin, because a pixel is answered for on its own.
GEOMETRY = Geometry(tile=TILE_PX, margin=0, stride=1)
#: Fewer pixels than this are not worth a thread of their own.
LEAST_PER_THREAD = 4096


@dataclass(frozen=True, eq=False)
class PixelSamples:
    """Labelled pixels, and the cube they are of.

    Raises:
        TrainingError: No samples, lengths that differ, a class index out of range, or layers that do not fit the bands.
    """

    x: NDArray[np.float32]
    """(n, C) features in physical units, NaN where not observed."""
    y: NDArray[np.int64]
    """(n,) class index, 0 to ``classes`` - 1; some classes may be absent."""
    classes: int
    """Number of classes K of the map."""
    layers: int = 1
    """Observation layers L of the cube."""
    band_layer: tuple[int, ...] | None = None
    """The layer of each band; None: layer 0."""

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if x.ndim != 2 or y.shape != (len(x),) or len(x) == 0 or x.shape[1] == 0:
            raise TrainingError(
                f"Samples of shape {x.shape} with labels of shape {y.shape}.",
                do="Give (n, bands) and (n,), n at least 1.",
            )
        if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= self.classes:
            raise TrainingError(
                f"Labels run from {y.min()} to {y.max()} ({y.dtype}) for {self.classes} classes.",
                do="Give class indices, not codes, and leave unlabelled pixels out.",
            )
        layer = self.layer_of_band
        if layer.shape != (x.shape[1],) or layer.min() < 0 or layer.max() >= self.layers:
            raise TrainingError(
                f"band_layer is {layer.tolist()} for {x.shape[1]} bands and {self.layers} layers.",
                do="Give one index per band, from 0 to layers - 1.",
            )

    @property
    def layer_of_band(self) -> NDArray[np.int64]:
        """(C,) the layer of each band."""
        return np.asarray(self.band_layer or [0] * self.x.shape[1], np.int64)


@dataclass(frozen=True, eq=False)
class PixelModel(ABC):
    """A fitted model that answers for each pixel from that pixel's bands alone."""

    kind: ClassVar[str]
    """Its name in the registry."""

    classes: int
    """Number of classes K of the map; a class absent from training has probability 0 everywhere."""
    layers: int
    """Number of observation layers L."""
    band_layer: NDArray[np.int64]
    """(C,) the observation layer of each band."""

    @classmethod
    @abstractmethod
    def fit(cls, samples: PixelSamples, options: Mapping[str, Any], *, seed: int, threads: int) -> Self:
        """Fit to labelled pixels with all of the registry's options; the model does not depend on the threads."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote.

        Raises:
            BundleError: The file is damaged, or holds what such a model has no need of.
        """

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The model as a file without pickle; the same model gives the same bytes in every process."""

    @property
    @abstractmethod
    def known(self) -> NDArray[np.int64]:
        """(k,) the classes that had training pixels, ascending."""

    @abstractmethod
    def _known_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """(n, k) probabilities of the known classes for (n, C) pixels, n at least 1; each row depends on itself."""

    def tuned(self, _validation: PixelSamples, /) -> Self:
        """The same model, as long as pixels that were not trained on say it should be; as it is by default."""
        return self

    @property
    def bands(self) -> int:
        """Number of bands C."""
        return len(self.band_layer)

    @property
    def geometry(self) -> Geometry:
        """No margin: a pixel is answered for on its own."""
        return GEOMETRY

    @property
    def fits_together(self) -> bool:
        """Whether classes, layers and bands, as read from a file, go with each other."""
        return (
            self.band_layer.ndim == 1
            and self.known.ndim == 1
            and bool(((self.band_layer >= 0) & (self.band_layer < self.layers)).all())
            and bool(((self.known >= 0) & (self.known < self.classes)).all())
        )

    def pixel_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of pixels.

        Args:
            x: (n, C) in physical units, NaN where not observed.

        Returns:
            (n, K), sums to 1 over the classes. Pixels are divided among as many threads as PyTorch may use; for each
            of them the trees are added up in their own order, so that the last bits do not depend on threads.
        """
        answers = np.zeros((len(x), self.classes), np.float32)
        threads = min(torch.get_num_threads(), len(x) // LEAST_PER_THREAD)
        if threads > 1:
            edges = np.linspace(0, len(x), threads + 1).astype(int)
            parts = [slice(*pair) for pair in itertools.pairwise(edges)]
            with ThreadPoolExecutor(threads) as pool:
                for part, found in zip(
                    parts, pool.map(lambda part: self._known_probabilities(x[part]), parts), strict=True
                ):
                    answers[part, self.known] = found
        elif len(x):
            answers[:, self.known] = self._known_probabilities(x)
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
        check_maps(features, observed, bands=self.bands, layers=self.layers)
        count, _, height, width = features.shape
        values = features.detach().to("cpu", torch.float32).numpy()
        if observed is not None:
            values = np.where(observed.cpu().numpy()[:, self.band_layer], values, np.float32(np.nan))
        x = np.ascontiguousarray(values.transpose(0, 2, 3, 1).reshape(-1, self.bands))
        answers = self.pixel_probabilities(x).reshape(count, height, width, self.classes)
        return torch.from_numpy(np.ascontiguousarray(answers.transpose(0, 3, 1, 2)))


def pixel_class(name: str) -> type[PixelModel]:
    """The class of a registered pixel model.

    Raises:
        RecipeError: There is no such model, or it is a network.
    """
    known = entry(name)
    if known.family != "pixel":
        raise RecipeError(f"Model {name} is a network.", do="Make it with wetmap.models.create.")
    return cast("type[PixelModel]", known.load())


def fit_pixel_model(
    name: str,
    samples: PixelSamples,
    *,
    options: Mapping[str, object],
    seed: int,
    threads: int,
    validation: PixelSamples | None = None,
) -> PixelModel:
    """Fit any registered pixel model.

    Args:
        name: A registered name of the family ``pixel``.
        samples: Pixels of the training role.
        options: The model's own, see ``option_defaults``; what is left out has its default.
        seed: Seed of everything drawn.
        threads: Threads to fit with; the model does not depend on them.
        validation: Pixels of the validation role, by which boosting chooses its number of rounds; None: it makes all
            that were asked for. A forest has nothing to choose.

    Raises:
        RecipeError: An unknown name or option, or a wrong value.
        TrainingError: The model cannot be fitted with these options.
    """
    model = pixel_class(name).fit(samples, resolve_options(name, options), seed=seed, threads=threads)
    return model if validation is None else model.tuned(validation)


def class_weight_argument(class_weight: str) -> str | None:
    """Scikit-learn's word for ``balanced`` or ``none``."""
    return None if class_weight == "none" else class_weight


def trees_are_closed(
    left: NDArray[Any], right: NDArray[Any], feature: NDArray[Any], *, own: NDArray[Any], end: NDArray[Any], bands: int
) -> bool:
    """Whether no node leads out of its tree: scikit-learn follows these indices without looking.

    Args:
        left: (N,) index of the left child, -1 for a leaf.
        right: (N,) index of the right child, -1 for a leaf.
        feature: (N,) band that an inner node asks for.
        own: (N,) index of the node itself; children come after it, so that every path ends.
        end: (N,) number of nodes of its tree.
        bands: Number of bands that a node may ask for.
    """
    inner = left != -1
    return (
        bool((right[~inner] == -1).all())
        and bool(((left > own) & (left < end) & (right > own) & (right < end))[inner].all())
        and bool(((feature >= 0) & (feature < bands))[inner].all())
    )
