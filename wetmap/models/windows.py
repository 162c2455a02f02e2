"""Classifiers of windows, evaluated at every pixel of a tile.

A network in this family has two parts: a *spectral* one that looks at each pixel on its own, and a *spatial* one that
looks at a window of the spectral part's answers. Over a tile the first is computed once per pixel, and whatever else a
network knows how to share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wetmap.errors import UsageError
from wetmap.models.checks import check_evaluating, check_maps
from wetmap.models.contract import Geometry
from wetmap.models.normalise import Normalisation

#: Side of the tile on which a window classifier answers, pixels: the margin is computed for each tile anew, which at
#: window 8 adds a quarter to what is shared.
TILE_PX = 64

#: Pixels in one batch of windows: enough to keep a core busy, few enough to stay in its cache (128 windows of 8 x 8).
BATCH_PIXELS = 8192


class WindowClassifier(nn.Module):
    """Base of the window classifiers: normalisation, geometry, and the evaluation over a tile.

    The window of the pixel in row r is the rows ``r - window // 2`` to ``r + window // 2 - 1``: the pixel itself is at
    index (window // 2, window // 2).

    Args:
        bands: Number of bands.
        classes: Number of classes.
        window: Side of the window, pixels, even.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self, bands: int, classes: int, *, window: int, layers: int = 1, band_layer: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.bands, self.classes, self.window, self.layers = bands, classes, window, layers
        self.normalisation = Normalisation(bands, band_layer)

    @property
    def geometry(self) -> Geometry:
        """Tile and margin; the answer of a pixel does not depend on the tile's origin, so the stride is 1."""
        return Geometry(tile=TILE_PX, margin=self.window // 2, stride=1)

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

    def spectral(self, normalised: Tensor) -> Tensor:
        """What is computed at each pixel on its own: (N, C, h, w) to (N, D, h, w)."""
        raise NotImplementedError

    def spatial(self, spectra: Tensor) -> Tensor:
        """What is computed over a window of the spectral part's answers: (N, D, window, window) to (N, K) logits."""
        raise NotImplementedError

    def forward(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """Classify windows.

        Args:
            features: (N, C, window, window) in physical units, NaN where not observed.
            observed: (N, L, window, window) bool, or None.

        Returns:
            (N, K) logits.

        Raises:
            UsageError: The shapes do not fit the model.
        """
        check_maps(features, observed, bands=self.bands, layers=self.layers)
        if tuple(features.shape[2:]) != (self.window, self.window):
            raise UsageError(
                f"Windows of {features.shape[2]} x {features.shape[3]} pixels for a model of window {self.window}.",
                do="Cut windows of the model's own size.",
            )
        return self.window_logits(self.normalisation(features, observed))

    def window_logits(self, normalised: Tensor) -> Tensor:
        """Logits (N, K) of normalised windows (N, C, window, window)."""
        return self.spatial(self.spectral(normalised))

    @torch.no_grad()
    def tile_probabilities(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """Class probabilities at every pixel of a tile, as if each pixel's window were classified on its own.

        Every tile is computed alone and in parts whose sizes follow from the tile's, so that an answer depends on
        nothing but the tile.

        Args:
            features: (B, C, T + window, T + window) in physical units, NaN where not observed, B >= 1.
            observed: (B, L, T + window, T + window) bool, or None.

        Returns:
            (B, K, T, T), in the model's dtype.

        Raises:
            UsageError: The model is in training mode, or the shapes do not fit it.
        """
        self._check_tile(features, observed)
        tiles = []
        for b in range(len(features)):
            normalised = self.normalisation(features[b : b + 1], None if observed is None else observed[b : b + 1])
            tile = normalised.shape[2] - self.window
            logits = self.tile_logits(normalised).to(normalised)
            tiles.append(logits.T.contiguous().softmax(0).view(-1, tile, tile))
        return torch.stack(tiles)

    @torch.no_grad()
    def tile_probabilities_naive(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """The same, each window cut out and classified on its own: slow, and what ``tile_probabilities`` must equal."""
        self._check_tile(features, observed)
        tile, window = features.shape[2] - self.window, self.window
        normalised = self.normalisation(features, observed)
        windows = normalised.unfold(2, window, 1).unfold(3, window, 1)[:, :, :tile, :tile].permute(0, 2, 3, 1, 4, 5)
        batches = windows.reshape(-1, self.bands, window, window).split(max(1, BATCH_PIXELS // window**2))
        answers = torch.cat([self.spatial(self.spectral(batch)) for batch in batches]).softmax(1)
        return answers.view(len(features), tile, tile, -1).permute(0, 3, 1, 2)

    def tile_logits(self, normalised: Tensor) -> Tensor:
        """Logits of every window of one tile; here only the spectral part is shared.

        Args:
            normalised: (1, C, T + window, T + window), dimensionless, without NaN.

        Returns:
            (T * T, K).
        """
        side, window = normalised.shape[2], self.window
        tile = side - window
        spectra = self.spectral(normalised)
        pixels = spectra.permute(0, 2, 3, 1).reshape(side * side, -1)
        within = torch.arange(window, device=pixels.device)
        offsets = (within[:, None] * side + within).flatten()
        batch = max(1, BATCH_PIXELS // window**2)
        answers = []
        for first in range(0, tile * tile, batch):
            place = torch.arange(first, first + batch, device=pixels.device).clamp(max=tile * tile - 1)
            start = place // tile * side + place % tile
            cut = pixels[(start[:, None] + offsets).flatten()].reshape(batch, window, window, -1)
            answers.append(self.spatial(cut.permute(0, 3, 1, 2)))
        return torch.cat(answers)[: tile * tile]

    def _check_tile(self, features: Tensor, observed: Tensor | None) -> None:
        check_evaluating(self)
        check_maps(features, observed, bands=self.bands, layers=self.layers)
        if features.shape[2] != features.shape[3] or features.shape[2] <= self.window:
            raise UsageError(
                f"A tile of {features.shape[2]} x {features.shape[3]} pixels for a model of window {self.window}.",
                do="Give square tiles with a margin of half a window on each side.",
            )
