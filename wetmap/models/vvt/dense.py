"""The Vicinity Vision Transformer with a head on its pyramid: classes of every pixel of a tile at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.errors import UsageError
from wetmap.models.normalise import Normalisation
from wetmap.models.vvt.network import EMBEDDINGS, VvtTrunk, Wiring, initialise


def refine(maps: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Interpolate tokens to a finer map, linearly, each token staying where it was.

    The centre of token i is the place ``stride * i`` of the finer map: resizing by a factor, which puts it in the
    middle of its square, would shift the coarsest scale by 15.5 pixels. Beyond the last token its value is repeated.

    Args:
        maps: (N, C, h, w).
        stride: Places of the finer map per token.
        size: Rows and columns of the finer map, (h - 1) * stride + 1 to h * stride; likewise for w.

    Returns:
        (N, C, *size).
    """
    reached = [(count - 1) * stride + 1 for count in maps.shape[2:]]
    between = F.interpolate(maps, size=reached, mode="bilinear", align_corners=True)
    return F.pad(between, (0, size[1] - reached[1], 0, size[0] - reached[0]), mode="replicate")


class PyramidHead(nn.Module):
    """Four scales of tokens to logits of every pixel.

    Each scale is brought to one width by a 1 x 1 convolution; from the coarsest to the finest they are refined and
    added up, then refined to pixels. There a 1 x 1 convolution of the pixel's own bands joins them: without it two
    pixels of one token could differ only by interpolation.

    Args:
        bands: Number of bands.
        classes: Number of classes.
        scales: Width of the tokens at each scale.
        width: Common width.
    """

    def __init__(self, bands: int, classes: int, *, scales: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(scale, width, 1) for scale in scales)
        self.pixel = nn.Conv2d(bands, width, 1)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, pixels: Tensor, pyramid: Sequence[Tensor]) -> Tensor:
        """Classify.

        Args:
            pixels: (N, C, h, w), normalised.
            pyramid: Four maps (N, h', w', width), channels last, finest first.

        Returns:
            (N, K, h, w) logits.
        """
        levels = [lateral(maps.permute(0, 3, 1, 2)) for lateral, maps in zip(self.lateral, pyramid, strict=True)]
        levels.insert(0, pixels)
        context = levels[-1]
        for level in range(len(levels) - 2, 0, -1):
            context = levels[level] + refine(context, EMBEDDINGS[level][1], _size(levels[level]))
        context = refine(context, EMBEDDINGS[0][1], _size(pixels))
        joined = self.join(torch.cat((F.gelu(context), F.gelu(self.pixel(pixels))), dim=1))
        logits: Tensor = self.classify(F.gelu(joined))
        return logits


class VvtDense(nn.Module):
    """The Vicinity Vision Transformer as a network of tiles.

    Attention spans the whole tile, so the answer of a pixel depends on the tile that it is in, also beyond any margin.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        wiring: Which variant.
        head_width: Width of the pyramid head.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        wiring: Wiring,
        head_width: int = 64,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.bands, self.classes, self.layers = bands, classes, layers
        self.normalisation = Normalisation(bands, band_layer)
        self.trunk = VvtTrunk(bands, wiring)
        self.head = PyramidHead(bands, classes, scales=wiring.widths, width=head_width)
        initialise(self)

    def set_normalisation(self, mean: Tensor, variance: Tensor) -> None:
        """Take the per-band mean (C,) and variance (C,) of the training samples, in physical units.

        Raises:
            TrainingError: Wrong length, a value that is not finite, or a negative variance.
        """
        self.normalisation.set(mean, variance)

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
        if features.ndim != 4 or features.shape[1] != self.bands:
            raise UsageError(
                f"Features of shape {tuple(features.shape)} for a model of {self.bands} bands.",
                do="Give (batch, bands, rows, columns).",
            )
        wanted = (features.shape[0], self.layers, *features.shape[2:])
        if observed is not None and (tuple(observed.shape) != wanted or observed.dtype != torch.bool):
            raise UsageError(
                f"The observation mask is {observed.dtype} of shape {tuple(observed.shape)}, not bool of {wanted}.",
                do="Give one layer per season, sensor and orbit state, in the order of the cube.",
            )
        pixels = self.normalisation(features, observed)
        logits: Tensor = self.head(pixels, self.trunk(pixels))
        return logits


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2], maps.shape[3]
