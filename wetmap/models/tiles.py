"""Dense networks: one pass answers for every pixel of a tile, or of a window of which a lattice covers the tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from wetmap.errors import UsageError
from wetmap.models.checks import check_evaluating, check_maps
from wetmap.models.contract import Geometry
from wetmap.models.lattice import Lattice
from wetmap.models.normalise import Normalisation

#: Side of the tile that a lattice of windows covers, pixels, about: whole steps. Windows at its border are computed
#: again for the next tile: on 192 pixels (9 * 24 / 192)^2 = 1.27 times as many at windows of 32.
LATTICE_TILE_PX = 192


class TileNetwork(nn.Module):
    """Base of the dense networks: normalisation, geometry, and the answer for a tile.

    A network is trained on tiles of ``window`` pixels a side, of which only some pixels are labelled, and maps tiles of
    ``geometry``: the margin is cut off after the pass, so that every answer has seen its context. Beyond the grid it is
    given the nearest pixel of the grid's edge: near the edge it then answers as in the middle of like ground.

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
        self._geometry = replace(geometry, beyond="nearest")

    @property
    def geometry(self) -> Geometry:
        """Tile, margin and stride of mapping."""
        return self._geometry

    @property
    def pass_geometry(self) -> Geometry:
        """Tile and margin of one pass, for who runs the network without the mapping engine."""
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
        return torch.cat(
            [
                self._answers(features[b : b + 1], None if observed is None else observed[b : b + 1])
                for b in range(len(features))
            ]
        )

    def _answers(self, features: Tensor, observed: Tensor | None) -> Tensor:
        """Probabilities (1, K, T, T) of one tile."""
        inner = slice(self.geometry.margin, features.shape[2] - self.geometry.margin)
        logits: Tensor = self(features, observed)
        return logits[:, :, inner, inner].to(self.normalisation.mean).softmax(1)  # also where a pass was in bfloat16


class LatticeNetwork(TileNetwork):
    """A dense network whose every answer depends on the whole of its input, so that no margin makes two tiles agree.

    It maps with windows of the side that it was trained at, a quarter of which overlaps with the next. The blend leaves
    no seam, see ``wetmap.models.lattice``.

    Args:
        bands: Number of bands.
        classes: Number of classes.
        window: Side of the windows, in training and in mapping, pixels, a multiple of 4 strides.
        stride: Phase of the network, pixels.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        window: int,
        stride: int,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        lattice = Lattice(window, window - window // 4)
        tile = max(1, round(LATTICE_TILE_PX / lattice.step)) * lattice.step
        geometry = Geometry(tile=tile, margin=lattice.margin, stride=lattice.step)
        super().__init__(bands, classes, window=window, geometry=geometry, layers=layers, band_layer=band_layer)
        self.lattice, self._stride = lattice, stride

    @property
    def pass_geometry(self) -> Geometry:
        """One window, of which the inner half of each side is to be kept where nothing is blended."""
        quarter = self.window // 4
        return Geometry(tile=self.window - 2 * quarter, margin=quarter, stride=self._stride)

    def _answers(self, features: Tensor, observed: Tensor | None) -> Tensor:
        """Probabilities (1, K, T, T) of one tile, windows in batches of one row of the lattice."""
        tile = features.shape[2] - 2 * self.geometry.margin
        normalised = self.normalisation(features, observed)[0]
        return self.lattice.blend(self._rows(normalised, tile), tile, classes=self.classes, like=normalised)[None]

    def _rows(self, normalised: Tensor, tile: int) -> Iterator[Tensor]:
        """Probabilities (count, K, window, window) of each row of windows of one tile (C, T + 2m, T + 2m)."""
        count, side, step = self.lattice.count(tile), self.window, self.lattice.step
        windows = normalised.unfold(1, side, step).unfold(2, side, step)[:, :count, :count]  # (C, y, x, side, side)
        for y in range(count):
            logits = self.classify(windows[:, y].transpose(0, 1).contiguous())
            yield logits.to(normalised).softmax(1).contiguous()
