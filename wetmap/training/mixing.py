"""What is done to whole training batches: noise in the bands, and samples mixed with each other.

Every draw of a batch comes from a generator seeded by (seed, epoch, number of the batch) alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wetmap.recipe import Training
from wetmap.training.data import Batch, EpochBatches
from wetmap.training.losses import shares

#: What a SeedSequence is for, beside (seed, epoch, batch); other streams are in data.py, tiles.py and subnetworks.py.
MIXING_STREAM = 4


@dataclass(frozen=True)
class Bands:
    """What is known about the bands of training samples."""

    mean: Tensor
    """(C,) float32, in the bands' units."""
    deviation: Tensor
    """(C,) float32 standard deviation, in the bands' units."""
    layer: tuple[int, ...]
    """Index of the observed layer of each band."""
    classes: int
    """Number of classes."""


@dataclass(frozen=True)
class Mixing:
    """How strongly batches are disturbed; 0 = not at all."""

    noise: float = 0.0
    """Standard deviation of the noise, in standard deviations of the band."""
    mixup: float = 0.0
    """Alpha of mixup's beta distribution."""
    cutmix: float = 0.0
    """Alpha of CutMix's beta distribution."""

    @classmethod
    def of(cls, settings: Training) -> Mixing:
        """What a recipe asks for."""
        return cls(settings.noise, settings.mixup, settings.cutmix)

    def __bool__(self) -> bool:
        return bool(self.noise or self.mixup or self.cutmix)


class MixedBatches:
    """Training batches with noise, and with each sample mixed with the one before it in the batch.

    Where both mixup and CutMix are on, each batch is mixed by one of them, with equal chances.
    """

    def __init__(self, batches: EpochBatches, mixing: Mixing, bands: Bands, *, seed: int) -> None:
        self._batches, self._mixing, self._bands, self._seed = batches, mixing, bands, seed

    @property
    def epoch(self) -> int:
        """The epoch that is drawn, from 0."""
        return self._batches.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._batches.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self._batches):
            stream = np.random.SeedSequence([self._seed, self.epoch, number, MIXING_STREAM])
            yield self._disturbed(batch, np.random.Generator(np.random.PCG64(stream)))

    def _disturbed(self, batch: Batch, generator: np.random.Generator) -> Batch:
        features, observed, target = batch
        if self._mixing.noise:
            # PyTorch draws these in a third of NumPy's time
            quick = torch.Generator().manual_seed(int(generator.integers(1 << 63)))
            drawn = torch.randn(features.shape, generator=quick)
            features = with_noise(features, drawn, self._mixing.noise * self._bands.deviation)
        alphas = [alpha for alpha in (self._mixing.mixup, self._mixing.cutmix) if alpha]
        if not alphas:
            return features, observed, target
        which = int(generator.integers(len(alphas)))
        share = float(generator.beta(alphas[which], alphas[which]))
        if self._mixing.mixup and which == 0:
            return mixup((features, observed, target), share, self._bands)
        where = box(features.shape[-1], share, (float(generator.random()), float(generator.random())))
        return cutmix((features, observed, target), where, self._bands.classes)


def with_noise(features: Tensor, drawn: Tensor, deviation: Tensor) -> Tensor:
    """Features with noise; what was not observed (NaN) stays so.

    Args:
        features: (B, C, h, w) in the bands' units.
        drawn: Alike, of the standard normal distribution.
        deviation: (C,) standard deviation of the noise, in the bands' units.
    """
    return features + drawn.mul_(deviation[:, None, None])


def mixup(batch: Batch, share: float, bands: Bands) -> Batch:
    """Blend each sample with the one before it, its label alike (Zhang and others 2018, arXiv:1710.09412, equation 1).

    What only one of the two has observed is blended with the band's mean, which is what a network sees there. So the
    normalised blend is the blend of the normalised samples.

    Args:
        batch: Features, observed and class index, or ``IGNORE``.
        share: What stays of each sample, 0-1.
        bands: For the means and the number of classes.

    Returns:
        Features; observed where either was; shares of the classes (B, K) of windows or (B, K, w, w) of tiles. A pixel
        that only one of two tiles labels is labelled with that one's share, and counts for as much in the loss.
    """
    features, observed, target = batch
    missing = ~torch.isfinite(features) | ~observed[:, list(bands.layer)]
    filled = torch.where(missing, bands.mean[:, None, None], features)
    mixed = filled * share + before(filled) * (1 - share)
    known = shares(target, bands.classes)
    return (
        mixed.masked_fill_(missing & before(missing), torch.nan),
        observed | before(observed),
        known * share + before(known) * (1 - share),
    )


def cutmix(batch: Batch, where: tuple[slice, slice], classes: int) -> Batch:
    """Paste a box of the sample before it into each sample (Yun and others 2019, arXiv:1905.04899, equation 1).

    Args:
        batch: Features, observed and class index, or ``IGNORE``.
        where: Rows and columns of the box.
        classes: Number of classes.

    Returns:
        Features and observed; of windows the shares of the classes (B, K), by the area of the box as published; of
        tiles, whose pixels have labels of their own, the class index with the box's labels pasted (B, w, w).
    """
    features, observed, target = batch
    inside = torch.zeros(features.shape[-2:], dtype=torch.bool)
    inside[where] = True
    features = torch.where(inside, before(features), features)
    observed = torch.where(inside, before(observed), observed)
    if target.ndim > 1:
        return features, observed, torch.where(inside, before(target), target)
    pasted = float(inside.float().mean())
    known = shares(target, classes)
    return features, observed, known * (1 - pasted) + before(known) * pasted


def box(side: int, share: float, centre: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of the box to paste: its sides are sqrt(1 - share) of the window's, cut at the window's edge.

    Args:
        side: Side of the window, pixels.
        share: What stays of the window where the box is not cut, 0-1.
        centre: Row and column of the box's centre, as shares of the side, 0-1.

    Example:
        >>> box(8, 0.75, (0.5, 0.0))
        (slice(2, 6, None), slice(0, 2, None))
    """
    size = round(side * (1 - share) ** 0.5)
    first = [math.floor(at * side - size / 2 + 0.5) for at in centre]
    rows, columns = (slice(max(0, start), min(side, start + size)) for start in first)
    return rows, columns


def before(values: Tensor) -> Tensor:
    """For each sample of a batch (B, ...) the one before it; for the first, the last."""
    return values.roll(1, 0)
