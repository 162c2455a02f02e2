"""The Vicinity Vision Transformer with a head on its pyramid: classes of every pixel of a tile at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.front import make_front
from wetmap.models.tiles import LatticeNetwork
from wetmap.models.vvt.network import DENSE_CUT, DENSE_DEVIATION, EMBEDDINGS, STRIDES, VvtTrunk, Wiring, initialise


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


class VvtDense(LatticeNetwork):
    """The Vicinity Vision Transformer as a network of tiles.

    Attention spans the whole tile and its weights scale with the tile's sides, so the answer of a pixel depends on the
    tile that it is in, also beyond any margin. Maps are made on windows of the side it was trained at, which overlap
    and are blended.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        wiring: Which variant.
        window: Side of the tiles, in training and in mapping, pixels, a multiple of 16.
        head_width: Width of the pyramid head.
        extractor: What the trunk gets: ``none``, the bands; ``spectral``, the 32 maps of WetMapFormer's extractor.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(  # noqa: PLR0913 - what every dense network is made of, its head and its front
        self,
        bands: int,
        classes: int,
        *,
        wiring: Wiring,
        window: int = 32,
        head_width: int = 64,
        extractor: str = "none",
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, stride=STRIDES[0], layers=layers, band_layer=band_layer)
        self.front = make_front(extractor, bands)
        self.trunk = VvtTrunk(self.front.channels, wiring)
        self.head = PyramidHead(bands, classes, scales=wiring.widths, width=head_width)
        initialise(self)
        self.front.initialise()
        # by its fan-out the last kernel would begin with probabilities near 0 and 1; it begins as a classifier's layer
        nn.init.trunc_normal_(self.head.classify.weight, std=DENSE_DEVIATION, a=-DENSE_CUT, b=DENSE_CUT)

    def classify(self, normalised: Tensor) -> Tensor:
        """Logits of every pixel: (N, C, h, w), dimensionless and without NaN, to (N, K, h, w).

        The head looks at a pixel's own bands, whatever the trunk is given.
        """
        logits: Tensor = self.head(normalised, self.trunk(self.front(normalised)))
        return logits


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2], maps.shape[3]
