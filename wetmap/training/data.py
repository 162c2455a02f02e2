"""Training windows in memory: their statistics, their batches, and what is drawn at random about them.

Every random draw of an epoch comes from generators seeded by (seed, epoch) alone, so that an epoch is the same whether
or not the run was stopped before it, and whatever the batch size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetmap.errors import TrainingError

#: A batch: features (B, C, w, w) float32 with NaN, observed (B, L, w, w) bool, and the label (B,) of a window or the
#: labels (B, w, w) of a tile, int64; or, where samples are mixed, the classes' shares (B, K) or (B, K, w, w), float32.
Batch = tuple[Tensor, Tensor, Tensor]

#: Flips and quarter turns of a square: number k is a left-right flip if k is odd, then k // 2 quarter turns.
SYMMETRIES = 8
#: What a SeedSequence is for, beside (seed, epoch): the draws made here, and the model's own (dropout).
SAMPLE_STREAM, MODEL_STREAM = 0, 1
#: Variance of a band that was never observed: whatever is observed of it later is nothing beside its root, so that a
#: map is made without the band too. The root's reciprocal is far from the ends of float32.
UNSEEN_VARIANCE = 1e30


class ArraySet(Protocol):
    """Windows around labelled pixels, as the patch cubes give them."""

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, C, w, w) float32, physical units, NaN where not observed."""

    @property
    def observed(self) -> NDArray[np.bool_]:
        """(n, L, w, w) bool, per observed layer."""

    @property
    def label(self) -> NDArray[np.integer]:
        """(n,) class index, 0 to K-1."""


class Batches(Protocol):
    """Batches, the same every time."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class EpochBatches(Batches, Protocol):
    """Batches that are drawn anew for every epoch."""

    epoch: int
    """The epoch that is drawn, from 0."""


@dataclass(frozen=True)
class Arrays:
    """The plain ``ArraySet``."""

    features: NDArray[np.float32]
    """(n, C, w, w) float32, physical units, NaN where not observed."""
    observed: NDArray[np.bool_]
    """(n, L, w, w) bool, per observed layer."""
    label: NDArray[np.integer]
    """(n,) class index, 0 to K-1."""


@dataclass(frozen=True)
class Augmentation:
    """What is changed at random about a training sample."""

    flips: bool
    """Whether samples are flipped and turned by right angles."""
    drop_layers: float
    """Chance that an observed layer is hidden from a sample, 0-1."""
    band_layer: tuple[int, ...]
    """Index of the observed layer of each band."""


@dataclass(frozen=True)
class EpochDraw:
    """All random choices of one epoch; row i of the last two is about the i-th turn."""

    order: NDArray[np.int64]
    """(n,) the samples in the order of their turn; where classes are balanced, some more than once, some not."""
    symmetry: NDArray[np.int64]
    """(n,) which of the eight flips and turns, 0-7."""
    hide: NDArray[np.float64]
    """(n, L) uniform in [0, 1): a layer is hidden where this is below the chance."""


def draw_epoch(
    seed: int, epoch: int, samples: int, layers: int, *, balance: NDArray[np.integer] | None = None
) -> EpochDraw:
    """Draw everything random about an epoch, but for mixing and for the model's own dropout.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        samples: Number of training samples.
        layers: Number of observed layers.
        balance: (n,) class index of each sample, if every class is to come as often; None: each sample once.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, SAMPLE_STREAM])))
    return EpochDraw(
        order=generator.permutation(samples) if balance is None else balanced_order(balance, generator),
        symmetry=generator.integers(0, SYMMETRIES, samples),
        hide=generator.random((samples, layers)),
    )


def balanced_order(label: NDArray[np.integer], generator: np.random.Generator) -> NDArray[np.int64]:
    """As many samples as there are, with every class as often as the others (but for one), drawn with replacement.

    Args:
        label: (n,) class index of each sample.
        generator: Of the epoch.

    Returns:
        (n,) samples in the order of their turn.
    """
    members = [np.flatnonzero(label == index) for index in np.unique(label)]
    # dealt in turn, in an order drawn anew, so that no class always gets one more
    dealt = generator.permutation(len(members))[np.arange(len(label)) % len(members)]
    counts = np.bincount(dealt, minlength=len(members))
    drawn = [own[generator.integers(0, len(own), count)] for own, count in zip(members, counts, strict=True)]
    return generator.permutation(np.concatenate(drawn))


def model_seed(seed: int, epoch: int) -> int:
    """The seed of PyTorch's generator, from which a model draws its dropout, for one epoch."""
    return int(np.random.SeedSequence([seed, epoch, MODEL_STREAM]).generate_state(1, np.uint32)[0])


def layers_to_hide(present: NDArray[np.bool_], draw: NDArray[np.float64], chance: float) -> NDArray[np.bool_]:
    """Choose the observed layers that are hidden from each sample; one that was seen always stays.

    Args:
        present: (n, L) whether the layer was observed anywhere in the sample's window.
        draw: (n, L) uniform in [0, 1).
        chance: Chance that an observed layer is hidden, 0-1.

    Returns:
        (n, L). Where the draws would hide everything a sample has, its layer with the largest draw is kept.
    """
    hidden: NDArray[np.bool_] = present & (draw < chance)
    bare = np.flatnonzero((hidden == present).all(axis=1) & present.any(axis=1))
    keep = np.where(present[bare], draw[bare], -1.0).argmax(axis=1)
    hidden[bare, keep] = False
    return hidden


def hide_layers(features: Tensor, observed: Tensor, hidden: Tensor, band_layer: Tensor) -> tuple[Tensor, Tensor]:
    """Take layers away from samples.

    Args:
        features: (B, C, w, w).
        observed: (B, L, w, w).
        hidden: (B, L) which layers to take away.
        band_layer: (C,) index of each band's layer.

    Returns:
        Features with NaN, and observed with False, where a layer was taken away.
    """
    if not bool(hidden.any()):
        return features, observed
    gone = hidden[:, band_layer][:, :, None, None]
    return features.masked_fill(gone, torch.nan), observed & ~hidden[:, :, None, None]


def turn(windows: Tensor, symmetry: Tensor) -> Tensor:
    """Flip and turn each window (..., w, w) of a batch (B, ...) by its own element of the square's eight symmetries.

    Right angles only, so every value is moved and none is interpolated.
    """
    turned = torch.empty_like(windows)
    for number in range(SYMMETRIES):
        chosen = symmetry == number
        if bool(chosen.any()):
            some = windows[chosen]
            flipped = some.flip(-1) if number % 2 else some
            turned[chosen] = torch.rot90(flipped, number // 2, (-2, -1))
    return turned


class TrainingBatches:
    """The training samples, shuffled and augmented anew for ``epoch``, in batches.

    The last batch may be smaller; it is left out only if it would hold a single sample, from which batch
    normalisation learns nothing.

    Args:
        arrays: The training windows.
        augmentation: What is changed about them.
        batch_size: Windows in a batch.
        seed: Seed of the run.
        balanced: Whether every class comes as often, by drawing with replacement.
    """

    def __init__(
        self, arrays: ArraySet, augmentation: Augmentation, *, batch_size: int, seed: int, balanced: bool = False
    ) -> None:
        self.epoch = 0
        self._features, self._observed, self._label = as_tensors(arrays)
        self._present: NDArray[np.bool_] = np.asarray(np.asarray(arrays.observed).any(axis=(2, 3)))
        self._augmentation = augmentation
        self._band_layer = torch.tensor(augmentation.band_layer, dtype=torch.int64)
        self._seed, self._balance = seed, np.asarray(arrays.label) if balanced else None
        n = len(self._label)
        self.turns = np.ones(n) if self._balance is None else 1 / np.bincount(self._balance)[self._balance]
        """(n,) how often each sample comes in an epoch, as a multiple of anything."""
        self._starts = [start for start in range(0, n, batch_size) if n - start > 1 or batch_size == 1]
        self._batch_size = batch_size

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Batch]:
        draw = draw_epoch(self._seed, self.epoch, len(self._label), self._present.shape[1], balance=self._balance)
        hidden = layers_to_hide(self._present[draw.order], draw.hide, self._augmentation.drop_layers)
        for start in self._starts:
            part = slice(start, start + self._batch_size)
            yield self._batch(torch.from_numpy(draw.order[part]), torch.from_numpy(hidden[part]), draw.symmetry[part])

    def _batch(self, index: Tensor, hidden: Tensor, symmetry: NDArray[np.int64]) -> Batch:
        features, observed = hide_layers(self._features[index], self._observed[index], hidden, self._band_layer)
        if self._augmentation.flips:
            chosen = torch.from_numpy(symmetry)
            features, observed = turn(features, chosen), turn(observed, chosen)
        return features, observed, self._label[index]


class PlainBatches:
    """Samples in their own order, as they are, in batches."""

    def __init__(self, arrays: ArraySet, *, batch_size: int) -> None:
        self._tensors = as_tensors(arrays)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._tensors[2]) / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._tensors[2]), self._batch_size):
            features, observed, label = (tensor[start : start + self._batch_size] for tensor in self._tensors)
            yield features, observed, label


def as_tensors(arrays: ArraySet) -> Batch:
    """The arrays as tensors: features float32, observed bool, label int64."""
    return (
        torch.from_numpy(np.require(arrays.features, np.float32, ["C", "W"])),
        torch.from_numpy(np.require(arrays.observed, np.bool_, ["C", "W"])),
        torch.from_numpy(np.require(arrays.label, np.int64, ["C", "W"])),
    )


def band_statistics(arrays: ArraySet, band_layer: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population variance of each band over what was observed in the training windows.

    Args:
        arrays: The training windows.
        band_layer: Index of the observed layer of each band.

    Returns:
        mean (C,) in the bands' units and variance (C,) in their squares, float64. A band that was never observed
        gets 0 and ``UNSEEN_VARIANCE``, so that a map does not use it either; a band that never changes gets variance 1,
        so that dividing by it is harmless.
    """
    count = arrays.features.shape[1]
    mean, variance = np.zeros(count), np.full(count, UNSEEN_VARIANCE)
    for band, layer in enumerate(band_layer):
        values = arrays.features[:, band]
        seen = values[arrays.observed[:, layer] & np.isfinite(values)].astype(np.float64)
        if seen.size:
            mean[band] = seen.mean()
            spread = float(seen.var())
            variance[band] = spread if spread > 0 else 1.0
    return mean, variance


def class_weights(
    label: NDArray[np.integer], classes: int, turns: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Inverse-frequency weights, (K,) float32: n / (classes present * n of the class); 0 for a class without samples.

    Their mean over the samples is 1, so that the loss keeps its scale.

    Args:
        label: (n,) class index of each sample.
        classes: Number of classes.
        turns: (n,) how often each sample comes in an epoch, as a multiple of anything; None: all as often.
    """
    counts = np.bincount(np.asarray(label, dtype=np.int64), turns, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype(np.float32)


def check_samples(arrays: ArraySet, role: str, *, classes: Sequence[str], layers: int) -> None:
    """Refuse samples that nothing can be learnt from.

    Args:
        arrays: The windows.
        role: ``training`` or ``validation``, for the message.
        classes: Names of the classes.
        layers: Observed layers there must be, at least.

    Raises:
        TrainingError: No samples, arrays that do not belong together, or a label outside the class table.
    """
    n = len(arrays.label)
    if n == 0:
        raise TrainingError(
            f"There are no {role} samples.", do="Add reference data, or split it into fewer folds (splits.folds)."
        )
    shape, seen = arrays.features.shape, arrays.observed.shape
    fits = len(shape) == len(seen) == 4 and shape[0] == seen[0] == n and shape[2:] == seen[2:]
    if not fits or shape[2] != shape[3]:
        raise TrainingError(
            f"The {role} arrays do not belong together: features {shape}, observed {seen}, label ({n},).",
            do="Delete the patch cubes and run wetmap train again.",
        )
    if seen[1] < layers:
        raise TrainingError(
            f"The {role} windows have {seen[1]} observed layers, and the bands name {layers}.",
            do="Delete the patch cubes and run wetmap train again.",
        )
    low, high = int(arrays.label.min()), int(arrays.label.max())
    if low < 0 or high >= len(classes):
        raise TrainingError(
            f"The {role} labels run from {low} to {high}, and the {len(classes)} classes are numbered "
            f"0 to {len(classes) - 1}.",
            do="Leave unlabelled samples (255) out, and use the class table that the samples were made with.",
        )
