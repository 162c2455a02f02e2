"""The network of WetMapFormer's window classifiers: spectral part, extractor, stem, two stages, head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.contract import Geometry
from wetmap.models.layers import (
    LocalWindowAttention,
    SameConv2d,
    SeparableConv2d,
    depthwise,
    initialise,
    max_pool_same,
)
from wetmap.models.windows import WindowClassifier

if TYPE_CHECKING:
    from wetmap.models.wetmapformer.shared import SharedForm

#: Filters of the two convolutions along the band axis.
SPECTRAL_FILTERS = (16, 32)

#: Width of the extractor's maps.
EXTRACTOR_WIDTH = 32


#: Epsilon of the layer norm before attention; the others, between stages and before MLPs, have 1e-6.
ATTENTION_NORM_EPS, NORM_EPS = 1e-5, 1e-6


@dataclass(frozen=True)
class Wiring:
    """What tells the variants of WetMapFormer apart."""

    depths: tuple[int, int] = (1, 1)
    """Blocks in each stage."""
    head_width: int = 32
    """Channels per attention head; wider than the second stage: no attention, the stage is convolutional."""
    kernel: int = 3
    """Side of the attention neighbourhood, tokens."""
    mlp_ratio: int = 4
    """Hidden width of the MLPs as a multiple of the stage's; 0: an MLP is a constant."""
    stem_stride: int = 4
    """Pixels per side that become one token."""
    widths: tuple[int, int] = (128, 256)
    """Channels of each stage."""

    @property
    def heads(self) -> int:
        """Attention heads of the second stage."""
        return self.widths[1] // self.head_width


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a (N, C, h, w) map."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each pixel's channels."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def extractor_norm(channels: int) -> nn.BatchNorm2d:
    """Keras' default batch norm: epsilon 1e-3, momentum 0.99 (torch counts it from the other end)."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def block_norm(channels: int) -> nn.BatchNorm2d:
    """The blocks' batch norm: epsilon 1e-5, Keras momentum 0.9."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)


class Spectral(nn.Module):
    """Two convolutions along the band axis of each pixel, then batch norm: (N, C, h, w) to (N, C * 32, h, w).

    The output channel is ``band * 32 + filter``.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        first, second = SPECTRAL_FILTERS
        self.conv1 = nn.Conv2d(1, first, (1, 3), padding=(0, 1))
        self.conv2 = nn.Conv2d(first, second, (1, 5), padding=(0, 2))
        self.norm = extractor_norm(bands * second)

    def forward(self, maps: Tensor) -> Tensor:
        """Extract spectral features; an image's rows are pixels and its columns bands while the bands are convolved."""
        count, bands, height, width = maps.shape
        lines = maps.permute(0, 2, 3, 1).reshape(count, 1, height * width, bands)
        lines = lines.contiguous(memory_format=torch.channels_last)
        lines = F.relu(self.conv2(F.relu(self.conv1(lines))))
        spectra = lines.permute(0, 2, 3, 1).reshape(count, height, width, -1).permute(0, 3, 1, 2)
        return F.relu(self.norm(spectra))


class Extractor(nn.Module):
    """Spatial features of a window: (N, D, w, w) to (N, 32, w, w), an encoder, a decoder and a residual path."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        width = EXTRACTOR_WIDTH
        self.separable1 = SeparableConv2d(inputs, width)
        self.separable2 = SeparableConv2d(width, width)
        self.skip = SameConv2d(inputs, width, 3, stride=2)
        self.up1 = nn.ConvTranspose2d(width, width, 3, padding=1)
        self.norm1 = extractor_norm(width)
        self.up2 = nn.ConvTranspose2d(width, width, 3, padding=1)
        self.norm2 = extractor_norm(width)
        self.skip_up = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, spectra: Tensor) -> Tensor:
        """Extract."""
        encoded = self.separable2(F.relu(self.separable1(spectra)))
        return self.decode(max_pool_same(encoded, 3, 2), self.skip(spectra))

    def decode(self, pooled: Tensor, skipped: Tensor) -> Tensor:
        """From half the window's side to the whole; the decoder starts before the residual is added, the rest after."""
        residual: Tensor = self.skip_up(F.interpolate(pooled + skipped, scale_factor=2.0, mode="nearest"))
        return F.interpolate(self.decoded(pooled), scale_factor=2.0, mode="nearest") + residual

    def decoded(self, pooled: Tensor) -> Tensor:
        """The decoder before it enlarges: (N, 32, h, w) to (N, 32, h, w)."""
        decoded = self.norm1(self.up1(F.relu(pooled)))
        answer: Tensor = self.norm2(self.up2(F.relu(decoded)))
        return answer


class Positional(nn.Module):
    """``x`` plus three depthwise convolutions of it, 1 x 1, 3 x 3 and 5 x 5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(depthwise(width, kernel) for kernel in (1, 3, 5))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, h, w)."""
        total = maps
        for conv in self.convs:
            total = total + conv(maps)
        return total


class Mlp(nn.Module):
    """Two dense layers with exact GELU between, on each token of a (N, C, h, w) map."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(width, ratio * width)
        self.dense2 = nn.Linear(ratio * width, width)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, h, w)."""
        tokens: Tensor = self.dense2(F.gelu(self.dense1(maps.permute(0, 2, 3, 1))))
        return tokens.permute(0, 3, 1, 2)


class ConstantMlp(nn.Module):
    """What is left of an MLP whose hidden width is 0: the last layer's bias, whatever the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to (1, C, 1, 1), to be broadcast; ``maps`` is not looked at."""
        return self.bias[None, :, None, None].to(maps.dtype)


class Block(nn.Module):
    """One block: positional sum, mixing of tokens, MLP, with the release's double residual.

    ``b = x + p + mix`` where p contains x, and ``out = x + b + mlp(norm(b))``: the stream grows about threefold.
    """

    def __init__(self, width: int, wiring: Wiring, norm: nn.Module) -> None:
        super().__init__()
        self.positional = Positional(width)
        self.mlp_norm = norm
        self.mlp = Mlp(width, wiring.mlp_ratio) if wiring.mlp_ratio else ConstantMlp(width)

    def mix(self, maps: Tensor, positional: Tensor) -> Tensor:
        """How tokens exchange what they know."""
        raise NotImplementedError

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, h, w)."""
        positional = self.positional(maps)
        middle = maps + positional + self.mix(maps, positional)
        out: Tensor = maps + middle + self.mlp(self.mlp_norm(middle))
        return out


class ConvBlock(Block):
    """Tokens are mixed by pointwise, depthwise 5 x 5 and pointwise convolutions without an activation."""

    def __init__(self, width: int, wiring: Wiring) -> None:
        super().__init__(width, wiring, block_norm(width))
        self.norm = block_norm(width)
        self.point1 = nn.Conv2d(width, width, 1)
        self.spread = depthwise(width, 5)
        self.point2 = nn.Conv2d(width, width, 1)

    def mix(self, maps: Tensor, positional: Tensor) -> Tensor:  # noqa: ARG002 - the other block looks at the input
        """Convolve the normalised positional sum."""
        mixed: Tensor = self.point2(self.spread(self.point1(self.norm(positional))))
        return mixed


class AttentionBlock(Block):
    """Tokens are mixed by local window attention over the normalised *input* of the block."""

    def __init__(self, width: int, wiring: Wiring) -> None:
        super().__init__(width, wiring, ChannelNorm(width, eps=NORM_EPS))
        self.norm = nn.LayerNorm(width, eps=ATTENTION_NORM_EPS)
        self.attention = LocalWindowAttention(width, wiring.heads, wiring.kernel)

    def mix(self, maps: Tensor, positional: Tensor) -> Tensor:  # noqa: ARG002 - the other block looks at the sum
        """Attend."""
        tokens: Tensor = self.attention(self.norm(maps.permute(0, 2, 3, 1)))
        return tokens.permute(0, 3, 1, 2)


class WetMapFormer(WindowClassifier):
    """WetMapFormer as a classifier of windows.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        wiring: Which variant.
        window: Side of the window, pixels, even.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        wiring: Wiring,
        window: int = 8,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, layers=layers, band_layer=band_layer)
        self.wiring = wiring
        self._shared: tuple[object, SharedForm] | None = None
        first, second = wiring.widths
        self.spectra = Spectral(bands)
        self.extractor = Extractor(bands * SPECTRAL_FILTERS[1])
        # 'same' is 'valid' where the window is a multiple of the stride; elsewhere no pixel of the window is left out
        self.stem = SameConv2d(EXTRACTOR_WIDTH, first, wiring.stem_stride, stride=wiring.stem_stride)
        self.stem_norm = ChannelNorm(first, eps=NORM_EPS)
        self.stage1 = nn.Sequential(*(ConvBlock(first, wiring) for _ in range(wiring.depths[0])))
        self.down = SameConv2d(first, second, 2, stride=2)
        self.down_norm = ChannelNorm(second, eps=NORM_EPS)
        kind = AttentionBlock if wiring.heads else ConvBlock
        self.stage2 = nn.Sequential(*(kind(second, wiring) for _ in range(wiring.depths[1])))
        self.norm = block_norm(second)
        self.head = nn.Linear(second, classes)
        initialise(self)

    @property
    def geometry(self) -> Geometry:
        """Tile and margin; twice the usual tile where windows share most of their work, so that margins cost less."""
        from wetmap.models.wetmapformer.shared import is_folded

        usual = super().geometry
        return replace(usual, tile=2 * usual.tile) if is_folded(self) else usual

    @property
    def inert_parameters(self) -> frozenset[str]:
        """Parameters no answer depends on: the norms before constant MLPs, the positions of one-token attention."""
        names: set[str] = set()
        for path, part in self.named_modules():
            if isinstance(part, Block) and isinstance(part.mlp, ConstantMlp):
                names |= {f"{path}.mlp_norm.weight", f"{path}.mlp_norm.bias"}
            if isinstance(part, LocalWindowAttention) and part.kernel == 1:
                names.add(f"{path}.positions")
        return frozenset(names)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the folded weights are made anew when next needed."""
        self._shared = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_shared": None}

    def tile_logits(self, normalised: Tensor) -> Tensor:
        """Logits (T * T, K) of every window of a tile (1, C, T + window, T + window), shared where that is possible."""
        from wetmap.models.wetmapformer import shared

        if not shared.can_share(self.window):
            return super().tile_logits(normalised)
        now = shared.weights_now(self)
        if self._shared is None or self._shared[0] != now:
            self._shared = now, shared.SharedForm(self)
        return self._shared[1].logits(self, normalised[0])

    def compute_in(self, dtype: torch.dtype) -> None:
        """Map in numbers of this type, which autocast would not do for a folded form; units are taken off before."""
        self.to(dtype).normalisation.float()

    def window_logits(self, normalised: Tensor) -> Tensor:
        """Logits (N, K) of normalised windows (N, C, window, window); in training by a faster form of the layers."""
        from wetmap.models.wetmapformer import training_form

        if training_form.applies(self, normalised):
            return training_form.logits(self, normalised)
        return super().window_logits(normalised)

    def spectral(self, normalised: Tensor) -> Tensor:
        """Each pixel on its own: (N, C, h, w) to (N, C * 32, h, w)."""
        spectra: Tensor = self.spectra(normalised)
        return spectra

    def spatial(self, spectra: Tensor) -> Tensor:
        """Windows of spectral features (N, C * 32, window, window) to logits (N, K)."""
        return self.classify(self.extractor(spectra))

    def classify(self, maps: Tensor) -> Tensor:
        """The extractor's answer (N, 32, window, window) to logits (N, K)."""
        tokens = self.stem_norm(self.stem(maps))
        tokens = self.down_norm(self.down(self.stage1(tokens)))
        pooled = self.norm(self.stage2(tokens)).mean((2, 3))
        logits: Tensor = self.head(pooled)
        return logits
