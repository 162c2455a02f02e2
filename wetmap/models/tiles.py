"""Dense networks: one pass answers for every pixel of a tile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wetmap.errors import UsageError
from wetmap.models.checks import check_evaluating, check_maps
from wetmap.models.contract import Geometry
from wetmap.models.normalise import Normalisation


class TileNetwork(nn.Module):
    """Base of the dense networks: normalisation, geometry, and the answer for a tile.

    A network is trained on tiles of ``window`` pixels a side, of which only some pixels are labelled, and maps tiles of
    ``geometry``: the margin is cut off after the pass, so that every answer has seen its context.

    Args:
        bands: Number of bands.
        classes: Number of classes.
        window: Side of the training tiles, pixels.
        geometry: Tile, margin and stride of mapping. Tile and margin are multiples of the stride, so that a place of
            the grid always meets the same phase of a strided network.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        window: int,
        geometry: Geometry,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.bands, self.classes, self.window, self.layers = bands, classes, window, layers
        self.normalisation = Normalisation(bands, band_layer)
        self._geometry = geometry

    @property
    def geometry(self) -> Geometry:
        """Tile, margin and stride of mapping."""
        return self._geometry

    @property
    def inert_parameters(self) -> frozenset[str]:
        """Names of parameters that cannot change any answer."""
        return frozenset()

    def set_normalisation(self, mean: Tensor, variance: Tensor) -> None:
        """Take the per-band mean (C,) and variance (C,) of the training samples, in physical units.

        Raises:
            TrainingError: Wrong length, a value that is not finite, or a negative variance.
        """
        self.normalisation.set(mean, variance)

    def classify(self, normalised: Tensor) -> Tensor:
        """Logits of every pixel: (N, C, h, w), dimensionless and without NaN, to (N, K, h, w)."""
        raise NotImplementedError

    def forward(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """Classify every pixel.

        Args:
            features: (N, C, h, w) in physical units, NaN where not observed, any h and w from 1.
            observed: (N, L, h, w) bool, or None.

        Returns:
            (N, K, h, w) logits.

        Raises:
            UsageError: The shapes do not fit the model.
        """
        check_maps(features, observed, bands=self.bands, layers=self.layers)
        return self.classify(self.normalisation(features, observed))

    @torch.no_grad()
    def tile_probabilities(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """Class probabilities of tiles.

        Tiles are worked through one by one, so that an answer depends on nothing but the tile.

        Args:
            features: (B, C, T + 2m, T + 2m) in physical units, NaN where not observed, B >= 1; m is the margin of
                ``geometry`` and T + 2m any multiple of its stride above 2m.
            observed: (B, L, T + 2m, T + 2m) bool, or None.

        Returns:
            (B, K, T, T), in the model's dtype.

        Raises:
            UsageError: The model is in training mode, or the shapes do not fit it.
        """
        check_evaluating(self)
        check_maps(features, observed, bands=self.bands, layers=self.layers)
        side, margin = features.shape[2], self.geometry.margin
        if side != features.shape[3] or side <= 2 * margin or side % self.geometry.stride:
            raise UsageError(
                f"A tile of {side} x {features.shape[3]} pixels for a model of margin {margin} and stride "
                f"{self.geometry.stride}.",
                do="Give square tiles of a multiple of the stride with the margin on each side.",
            )
        inner = slice(margin, side - margin)
        answers = []
        for b in range(len(features)):
            logits = self(features[b : b + 1], None if observed is None else observed[b : b + 1])
            answers.append(logits[:, :, inner, inner].softmax(1))
        return torch.cat(answers)
