"""CoAtNet, small: convolutions at the fine scales, attention with relative positions at the coarse ones.

Dai et al. (2021), CoAtNet, arXiv:2106.04803. As there: a stem of two 3 x 3 convolutions, two stages of inverted
bottlenecks with squeeze and excitation (MBConv; Sandler et al. 2018, doi:10.1109/CVPR.2018.00474), two stages of
transformer blocks whose scores are query x key plus a learned number for the offset; norms come first, the shortcut of
a block that changes the map is pooled and projected, the mean goes into a dense layer. What differs: the map is halved
once in each half instead of five times in all; 32 to 96 channels; the depthwise convolution has the stride, not the
1 x 1 before it, which would skip three pixels of four; a layer norm after the mean, and no dropped paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.layers import SameConv2d, max_pool_same
from wetmap.models.transformer import NORM_EPS, SelfAttention, initialise, mlp, positions_if_any
from wetmap.models.windows import WindowClassifier

#: Channels of the stem; channels, blocks and stride of the two stages of convolution and the two of attention.
STEM = 32
CONVOLUTION, ATTENTION = ((32, 1, 1), (48, 2, 2)), ((64, 2, 1), (96, 2, 2))

#: Channels of an attention head; the width of the inner layers as a multiple of a block's; the paper has 32 and 4.
HEAD_WIDTH, EXPANSION = 16, 4


class Shortcut(nn.Module):
    """What a block adds its answer to: the input, pooled where the map is halved, projected where the width changes."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.project = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, width, ceil(h / stride), ceil(w / stride))."""
        projected: Tensor = self.project(max_pool_same(maps, 2, 2) if self.stride == 2 else maps)
        return projected


class SqueezeExcite(nn.Module):
    """Each channel times a number from 0 to 1 that depends on the means of all; doi:10.1109/CVPR.2018.00745."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.narrow, self.widen = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        gate: Tensor = self.widen(F.gelu(self.narrow(maps.mean((2, 3), keepdim=True)))).sigmoid()
        return maps * gate


class MbConv(nn.Module):
    """Widen four times, depthwise 3 x 3, squeeze and excite, narrow; added to the shortcut.

    Args:
        inputs: Channels that come in.
        width: Channels that go out.
        stride: 1, or 2 to halve the map (odd sides are rounded up).
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.norm = nn.BatchNorm2d(inputs)
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.spread = SameConv2d(hidden, hidden, 3, stride=stride, groups=hidden, bias=False)
        self.spread_norm = nn.BatchNorm2d(hidden)
        self.excite = SqueezeExcite(hidden, inputs // 4)
        self.narrow = nn.Conv2d(hidden, width, 1)
        self.shortcut = Shortcut(inputs, width, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, width, ceil(h / stride), ceil(w / stride))."""
        hidden = F.gelu(self.expand_norm(self.expand(self.norm(maps))))
        hidden = F.gelu(self.spread_norm(self.spread(hidden)))
        out: Tensor = self.shortcut(maps) + self.narrow(self.excite(hidden))
        return out


class AttentionBlock(nn.Module):
    """Attention over the whole map with relative positions, and an MLP.

    Args:
        inputs: Channels that come in.
        width: Channels that go out.
        stride: 1, or 2 to halve the map before attention.
        side: Side of the map that goes out, tokens.
    """

    def __init__(self, inputs: int, width: int, stride: int, side: int) -> None:
        super().__init__()
        self.stride = stride
        self.attention_norm = nn.LayerNorm(inputs, eps=NORM_EPS)
        self.attention = SelfAttention(inputs, width, width // HEAD_WIDTH)
        self.positions = positions_if_any(width // HEAD_WIDTH, side)
        self.shortcut = Shortcut(inputs, width, stride)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = mlp(width, EXPANSION)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, width, side, side)."""
        normal = self.attention_norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        pooled = max_pool_same(normal, 2, 2) if self.stride == 2 else normal
        scores = None if self.positions is None else self.positions()
        mixed = self.attention(pooled.flatten(2).transpose(1, 2), scores)  # (N, side * side, width)
        shortcut: Tensor = self.shortcut(maps)
        tokens: Tensor = shortcut.flatten(2).transpose(1, 2) + mixed
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        return tokens.transpose(1, 2).reshape(shortcut.shape)


class CoAtNet(WindowClassifier):
    """CoAtNet as a classifier of windows.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        window: Side of the window, pixels, even.
        stem_stride: Stride of the stem's first convolution, pixels.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        window: int = 8,
        stem_stride: int = 1,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, layers=layers, band_layer=band_layer)
        self.stem1 = SameConv2d(bands, STEM, 3, stride=stem_stride, bias=False)
        self.stem_norm = nn.BatchNorm2d(STEM)
        self.stem2 = nn.Conv2d(STEM, STEM, 3, padding=1)
        blocks: list[nn.Module] = []
        side, inputs = math.ceil(window / stem_stride), STEM
        for stage, (width, depth, first_stride) in enumerate((*CONVOLUTION, *ATTENTION)):
            for stride in (first_stride, *[1] * (depth - 1)):
                side = math.ceil(side / stride)
                attends = stage >= len(CONVOLUTION)
                blocks.append(AttentionBlock(inputs, width, stride, side) if attends else MbConv(inputs, width, stride))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(inputs, eps=NORM_EPS)
        self.head = nn.Linear(inputs, classes)
        initialise(self)

    def spectral(self, normalised: Tensor) -> Tensor:
        """Nothing is computed per pixel: (N, C, h, w) as it is."""
        return normalised

    def spatial(self, spectra: Tensor) -> Tensor:
        """Normalised windows (N, C, window, window) to logits (N, K)."""
        maps = self.blocks(self.stem2(F.gelu(self.stem_norm(self.stem1(spectra)))))
        logits: Tensor = self.head(self.norm(maps.mean((2, 3))))
        return logits
