"""WetMapFormer in dense form: the same blocks over a whole tile, an answer for every pixel.

What it shares with the window classifier: the two convolutions along the band axis, separable convolutions, a
convolutional and a local-attention stage with the same blocks. What differs, and why (docs/models/wetmapformer.md): the
512 spectral maps are mixed to 32 *before* the 3 x 3 kernels and not after, which costs a sixteenth; tokens are of 2 and
4 pixels, so that every token has real neighbours to attend to; the stages are decoded to pixels again; and each pixel's
own spectral features go past them to the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.contract import Geometry
from wetmap.models.layers import SameConv2d, SeparableConv2d, initialise
from wetmap.models.tiles import TileNetwork
from wetmap.models.wetmapformer.network import (
    EXTRACTOR_WIDTH,
    NORM_EPS,
    SPECTRAL_FILTERS,
    AttentionBlock,
    ChannelNorm,
    ConvBlock,
    Spectral,
    Wiring,
    block_norm,
    extractor_norm,
)

if TYPE_CHECKING:
    from wetmap.models.wetmapformer.dense_form import DenseForm

#: Side of the tile in mapping, pixels: the margin makes the spectral features a third dearer, and a tile's maps of 32
#: channels fit a processor's last cache.
TILE_PX = 256
#: Pixels per side of a token in the second stage.
STRIDE = 4
#: Rows of a tile whose spectral features are held at once when mapping: 512 maps of a whole tile would not fit a cache.
STRIP_PX = 8


class SpectralMixer(nn.Module):
    """Spectral features of each pixel on its own: (N, C, h, w) to (N, 32, h, w)."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.spectra = Spectral(bands)
        self.mix = nn.Conv2d(bands * SPECTRAL_FILTERS[1], EXTRACTOR_WIDTH, 1, bias=False)
        self.norm = extractor_norm(EXTRACTOR_WIDTH)

    def forward(self, maps: Tensor) -> Tensor:
        """Extract; in evaluation strip by strip, since no pixel looks at another."""
        if self.training or torch.compiler.is_exporting() or maps.shape[2] <= STRIP_PX:
            return self._extract(maps)
        return torch.cat([self._extract(strip) for strip in torch.split(maps, STRIP_PX, 2)], 2)

    def _extract(self, maps: Tensor) -> Tensor:
        mixed: Tensor = F.relu(self.norm(self.mix(self.spectra(maps))))
        return mixed


class DenseWetMapFormer(TileNetwork):
    """WetMapFormer as a network of tiles.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        wiring: Depths, widths, heads and attention kernel; ``stem_stride`` is 2 pixels.
        window: Side of the training tiles, pixels.
        dropout: Share of the head's inputs left out in training, 0-1.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        wiring: Wiring,
        window: int = 16,
        dropout: float = 0.1,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        geometry = Geometry(tile=TILE_PX, margin=math.ceil(reach_px(wiring) / STRIDE) * STRIDE, stride=STRIDE)
        super().__init__(bands, classes, window=window, geometry=geometry, layers=layers, band_layer=band_layer)
        self.wiring = wiring
        self._form: tuple[object, DenseForm] | None = None
        width, (first, second) = EXTRACTOR_WIDTH, wiring.widths
        self.pixel = SpectralMixer(bands)
        self.local1, self.local1_norm = SeparableConv2d(width, width), extractor_norm(width)
        self.local2, self.local2_norm = SeparableConv2d(width, width), extractor_norm(width)
        self.stem = SameConv2d(width, first, wiring.stem_stride, stride=wiring.stem_stride)
        self.stem_norm = ChannelNorm(first, eps=NORM_EPS)
        self.stage1 = nn.Sequential(*(ConvBlock(first, wiring) for _ in range(wiring.depths[0])))
        self.down = SameConv2d(first, second, 2, stride=2)
        self.down_norm = ChannelNorm(second, eps=NORM_EPS)
        self.stage2 = nn.Sequential(*(AttentionBlock(second, wiring) for _ in range(wiring.depths[1])))
        self.norm1, self.norm2 = block_norm(first), block_norm(second)
        self.up2 = nn.Conv2d(second, first, 1)
        self.up1 = nn.Conv2d(first, width, 1)
        self.join = nn.Conv2d(3 * width, 2 * width, 1, bias=False)
        self.join_norm = extractor_norm(2 * width)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(2 * width, classes, 1)
        initialise(self)

    def classify(self, normalised: Tensor) -> Tensor:
        """Logits of every pixel: (N, C, h, w), dimensionless, to (N, K, h, w)."""
        own = self.pixel(normalised)
        near = F.relu(self.local1_norm(self.local1(own)))
        near = F.relu(self.local2_norm(self.local2(near)))
        fine = self.stage1(self.stem_norm(self.stem(near)))
        coarse = self.stage2(self.down_norm(self.down(fine)))
        coarse = enlarged(self.up2(self.norm2(coarse)), fine.shape[2:])
        context = enlarged(self.up1(F.gelu(self.norm1(fine) + coarse)), own.shape[2:])
        joined = self.join_norm(self.join(torch.cat((own, near, F.gelu(context)), 1)))
        logits: Tensor = self.head(self.dropout(F.gelu(joined)))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the folded weights are made anew when next needed."""
        self._form = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_form": None}

    def compute_in(self, dtype: torch.dtype) -> None:
        """Map in numbers of this type, which autocast would not do for a folded form; units are taken off before."""
        self.to(dtype).normalisation.float()

    def _answers(self, features: Tensor, observed: Tensor | None) -> Tensor:
        """Probabilities (1, K, T, T) of one tile by the folded form of the layers."""
        from wetmap.models.wetmapformer.dense_form import DenseForm
        from wetmap.models.wetmapformer.shared import weights_now

        now = weights_now(self)
        if self._form is None or self._form[0] != now:
            self._form = now, DenseForm(self)
        form = self._form[1]
        spare = self.geometry.margin - form.needed.own
        inner = slice(spare, features.shape[2] - spare), slice(spare, features.shape[3] - spare)
        seen = None if observed is None else observed[:, :, *inner]
        normalised = self.normalisation(features[:, :, *inner], seen)[0]
        return form.logits(normalised).to(normalised).softmax(0)[None]


def reach_px(wiring: Wiring) -> int:
    """Farthest pixel that an answer can depend on, pixels: the sum of every kernel's reach at its own stride.

    Attention near the border of a tile looks farther inwards, but no token that an answer inside the margin depends on
    is that near.
    """
    fine, coarse = wiring.stem_stride, 2 * wiring.stem_stride
    local = 2  # two 3 x 3 kernels
    stage1 = wiring.depths[0] * (2 + 2)  # tokens: 5 x 5 positional, then 5 x 5 spread of it
    stage2 = wiring.depths[1] * max(2, wiring.kernel // 2)  # 5 x 5 positional beside attention
    interpolated = fine + coarse  # one token on each side at both scales
    return local + stage1 * fine + stage2 * coarse + interpolated + coarse - 1


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Twice as many rows and columns, linearly between the centres of tokens, cut to ``size`` where that is less."""
    larger = F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
    return larger[:, :, : size[0], : size[1]]
