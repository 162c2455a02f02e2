"""The trunk of the Vicinity Vision Transformer, four scales of tokens, and the classifier of windows on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.front import make_front
from wetmap.models.layers import depthwise
from wetmap.models.vvt.attention import CONV_NORM_EPS, AttentionForm, VicinityAttention
from wetmap.models.windows import WindowClassifier

#: Kernel and stride of the patch embeddings; each overlaps its neighbours, with padding of half the kernel.
EMBEDDINGS = ((7, 4), (3, 2), (3, 2), (3, 2))

#: Pixels per side of a token at each scale. The centre of token i is the pixel i times this.
STRIDES = (4, 8, 16, 32)

#: Standard deviation of the first weights of dense layers, cut at plus and minus 2 (absolute), as in the release.
DENSE_DEVIATION, DENSE_CUT = 0.02, 2.0


@dataclass(frozen=True)
class Wiring:
    """What tells the variants apart; one value per scale where there are four."""

    widths: tuple[int, int, int, int]
    """Channels of a token."""
    depths: tuple[int, int, int, int]
    """Number of blocks."""
    heads: tuple[int, int, int, int]
    """Attention heads."""
    mlp_ratios: tuple[int, int, int, int]
    """Hidden width of the MLPs as a multiple of the scale's."""
    feature_reductions: tuple[int, int, int, int] = (2, 2, 2, 2)
    """How many times narrower attention is than tokens."""
    key_strides: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Side of the squares of tokens that become one key."""
    gate_reduction: int = 1
    """How many times narrower the gate's hidden layer is than tokens."""
    norm_eps: float = 1e-6
    """Epsilon of the layer norms that do not follow a convolution."""
    drop_path: float = 0.0
    """Share of the last block's answers left out in training; it rises from 0 linearly over the blocks."""
    dropout: float = 0.0
    """Share of values dropped in the MLPs in training."""
    clamp: bool = True
    """Clamps of the release in the attention."""
    exact_angles: bool = False
    """Angles in float64 rather than rounded to float32 as in the release."""

    def attention(self, scale: int) -> AttentionForm:
        """The form of attention at a scale, 0 to 3."""
        return AttentionForm(
            heads=self.heads[scale],
            feature_reduction=self.feature_reductions[scale],
            gate_reduction=self.gate_reduction,
            key_stride=self.key_strides[scale],
            clamp=self.clamp,
            exact_angles=self.exact_angles,
        )


class DropPath(nn.Module):
    """In training, leave out a sample's whole residual with this probability and scale the others up."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, residual: Tensor) -> Tensor:
        """(N, ...) to (N, ...)."""
        if not self.training or self.share == 0:
            return residual
        kept = torch.empty(residual.shape[0], device=residual.device, dtype=residual.dtype).bernoulli_(1 - self.share)
        return residual * (kept / (1 - self.share)).reshape(-1, *[1] * (residual.ndim - 1))


class Mlp(nn.Module):
    """Widen, a depthwise 3 x 3 convolution over the map, exact GELU, narrow; channels last."""

    def __init__(self, width: int, ratio: int, dropout: float) -> None:
        super().__init__()
        self.dense1 = nn.Linear(width, ratio * width)
        self.spread = depthwise(ratio * width, 3)
        self.dense2 = nn.Linear(ratio * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, h, w, C) to (N, h, w, C)."""
        hidden = self.spread(self.dense1(maps).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        narrowed: Tensor = self.drop(self.dense2(self.drop(F.gelu(hidden))))
        return narrowed


class Block(nn.Module):
    """Attention and an MLP, each on normalised tokens and added to them."""

    def __init__(self, wiring: Wiring, scale: int, drop_path: float) -> None:
        super().__init__()
        width = wiring.widths[scale]
        self.attention_norm = nn.LayerNorm(width, eps=wiring.norm_eps)
        self.attention = VicinityAttention(width, wiring.attention(scale))
        self.mlp_norm = nn.LayerNorm(width, eps=wiring.norm_eps)
        self.mlp = Mlp(width, wiring.mlp_ratios[scale], wiring.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, h, w, C) to (N, h, w, C)."""
        maps = maps + self.drop_path(self.attention(self.attention_norm(maps)))
        out: Tensor = maps + self.drop_path(self.mlp(self.mlp_norm(maps)))
        return out


class Embedding(nn.Module):
    """Overlapping patches to tokens: (N, C, h, w) to (N, floor((h - 1) / stride) + 1, the same of w, width)."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width, eps=CONV_NORM_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        """Embed."""
        tokens: Tensor = self.norm(self.conv(maps).permute(0, 2, 3, 1))
        return tokens


class Stage(nn.Module):
    """One scale: an embedding, blocks and a norm; (N, C, h, w) in, channels last out."""

    def __init__(self, wiring: Wiring, scale: int, inputs: int, drop_paths: Sequence[float]) -> None:
        super().__init__()
        width = wiring.widths[scale]
        self.embedding = Embedding(inputs, width, *EMBEDDINGS[scale])
        self.blocks = nn.Sequential(*(Block(wiring, scale, drop_path) for drop_path in drop_paths))
        self.norm = nn.LayerNorm(width, eps=wiring.norm_eps)

    def forward(self, maps: Tensor) -> Tensor:
        """One scale further."""
        tokens: Tensor = self.norm(self.blocks(self.embedding(maps)))
        return tokens


class VvtTrunk(nn.Module):
    """The pyramid of four scales.

    Args:
        inputs: Channels of the image.
        wiring: Which variant.
    """

    def __init__(self, inputs: int, wiring: Wiring) -> None:
        super().__init__()
        self.wiring = wiring
        drop_paths = torch.linspace(0, wiring.drop_path, sum(wiring.depths), device="cpu").tolist()
        stages = []
        for scale, depth in enumerate(wiring.depths):
            before = sum(wiring.depths[:scale])
            channels = wiring.widths[scale - 1] if scale else inputs
            stages.append(Stage(wiring, scale, channels, drop_paths[before : before + depth]))
        self.stages = nn.ModuleList(stages)

    def forward(self, maps: Tensor) -> list[Tensor]:
        """Tokens at every scale.

        Args:
            maps: (N, C, h, w), any h and w from 1.

        Returns:
            Four maps (N, h', w', width), channels last, normalised; h' is floor((h - 1) / stride) + 1 with the strides
            4, 8, 16 and 32.
        """
        pyramid: list[Tensor] = []
        for stage in self.stages:
            tokens = stage(maps)
            pyramid.append(tokens)
            maps = tokens.permute(0, 3, 1, 2)
        return pyramid


class Vvt(WindowClassifier):
    """The Vicinity Vision Transformer as a classifier of windows; looks at each window on its own.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        wiring: Which variant.
        window: Side of the window, pixels, even.
        extractor: What the backbone gets: ``none``, the bands; ``spectral``, the 32 maps of WetMapFormer's extractor.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        wiring: Wiring,
        window: int = 32,
        extractor: str = "none",
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, layers=layers, band_layer=band_layer)
        self.front = make_front(extractor, bands)
        self.trunk = VvtTrunk(self.front.channels, wiring)
        self.head = nn.Linear(wiring.widths[-1], classes)
        initialise(self)
        self.front.initialise()

    def spectral(self, normalised: Tensor) -> Tensor:
        """What the front computes per pixel; without an extractor (N, C, h, w) as it is."""
        return self.front.spectral(normalised)

    def spatial(self, spectra: Tensor) -> Tensor:
        """Images (N, C, h, w) of any size to logits (N, K): the mean of the coarsest tokens, classified."""
        logits: Tensor = self.head(self.trunk(self.front.spatial(spectra))[-1].mean((1, 2)))
        return logits


def initialise(module: nn.Module) -> None:
    """First weights as the release draws them: dense layers narrow normal, convolutions by their fan-out, biases 0.

    A convolution's standard deviation is sqrt(2 / (kernel area x outputs / groups)). Only torch's global generator is
    used, in the order of ``module.modules()``.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=DENSE_DEVIATION, a=-DENSE_CUT, b=DENSE_CUT)
        elif isinstance(part, nn.Conv2d):
            area = part.kernel_size[0] * part.kernel_size[1]
            nn.init.normal_(part.weight, std=math.sqrt(2 * part.groups / (area * part.out_channels)))
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
