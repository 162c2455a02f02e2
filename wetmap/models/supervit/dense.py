"""SuperViT that answers for every pixel of a tile; a dropped token is put back, so that pruning leaves no hole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.errors import UsageError
from wetmap.models.normalise import Normalisation
from wetmap.models.supervit.network import OperatingPoint, Shape, Trunk, initialise, resized


class SuperVitDense(nn.Module):
    """SuperViT with a head for every pixel.

    The tokens, those dropped on the way among them, are laid out as a map of t x t, brought to the pixels bilinearly
    and added to what a 1 x 1 kernel makes of the pixel itself; the head is a 1 x 1 kernel on the GELU of that sum.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        shape: Sizes, width, depth.
        side: Side of the tiles, pixels.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        shape: Shape,
        side: int = 32,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.bands, self.classes, self.side, self.layers = bands, classes, side, layers
        self.shape = shape
        self.normalisation = Normalisation(bands, band_layer)
        self.trunk = Trunk(bands, shape, side)
        self.pixel = nn.Conv2d(bands, shape.width, 1)
        self.head = nn.Conv2d(shape.width, classes, 1)
        initialise(self)
        self.default_point = shape.largest()
        """What is run where nothing is said."""

    @property
    def operating_points(self) -> tuple[OperatingPoint, ...]:
        """Every size at every rate that training draws."""
        return self.shape.points()

    def operating_point(
        self, *, size_index: int | None = None, tokens: int | None = None, keep: float | None = None
    ) -> OperatingPoint:
        """Choose a network by size index or tokens per side and keeping rate; what is not said is the default's.

        Raises:
            UsageError: There is no such size or rate, or the size is named twice.
        """
        return self.shape.point(self.default_point, size_index=size_index, tokens=tokens, keep=keep)

    def set_normalisation(self, mean: Tensor, variance: Tensor) -> None:
        """Take the per-band mean (C,) and variance (C,) of the training samples, in physical units.

        Raises:
            TrainingError: Wrong length, a value that is not finite, or a negative variance.
        """
        self.normalisation.set(mean, variance)

    def forward(self, features: Tensor, observed: Tensor | None = None, point: OperatingPoint | None = None) -> Tensor:
        """Classify every pixel of tiles.

        Args:
            features: (N, C, side, side) in physical units, NaN where not observed.
            observed: (N, L, side, side) bool, or None.
            point: Which network to run; None: the default point.

        Returns:
            (N, K, side, side) logits.

        Raises:
            UsageError: The shapes do not fit the model.
        """
        self._check(features, observed)
        maps = self.normalisation(features, observed)
        chosen = self.default_point if point is None else point
        tokens = self.trunk(maps, chosen, put_back=True)[:, 1:]
        pixels = self._to_pixels(tokens, chosen.size) + self.pixel(maps)
        logits: Tensor = self.head(F.gelu(pixels))
        return logits

    def _to_pixels(self, tokens: Tensor, size: int) -> Tensor:
        """Tokens (N, t * t, C) row by row to (N, C, side, side), a token's value at the centre of its patch.

        First to the pixels of the image that was cut into patches, then back from there the way it was resized.
        """
        count, image = self.shape.tokens[size], self.trunk.image_side(size)
        maps = tokens.transpose(1, 2).reshape(len(tokens), -1, count, count)
        return resized(F.interpolate(maps, size=(image, image), mode="bilinear", align_corners=False), self.side)

    def _check(self, features: Tensor, observed: Tensor | None) -> None:
        if tuple(features.shape[1:]) != (self.bands, self.side, self.side):
            raise UsageError(
                f"Features of shape {tuple(features.shape)} for a model of {self.bands} bands and tiles of "
                f"{self.side} x {self.side} pixels.",
                do="Give (batch, bands, rows, columns).",
            )
        wanted = (len(features), self.layers, self.side, self.side)
        if observed is not None and (tuple(observed.shape) != wanted or observed.dtype != torch.bool):
            raise UsageError(
                f"The observation mask is {observed.dtype} of shape {tuple(observed.shape)}, not bool of {wanted}.",
                do="Give one layer per season, sensor and orbit state, in the order of the cube.",
            )
