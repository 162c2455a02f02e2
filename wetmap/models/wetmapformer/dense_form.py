"""The dense WetMapFormer as it maps: its layers folded, and each computed only where an answer needs it.

The layers of ``dense.py`` compute a whole tile with its margin, and the margin is cut off. Here every layer is computed
as far beyond the tile as the layers after it look, without padding, and batch norms and constants are folded into the
products beside them. ``docs/explanation/fast-mapping.md`` has the reasoning and the figures.

Maps are (rows, columns, channels), contiguous, one tile at a time. The spectral features, 512 numbers per pixel, are
computed some rows at a time, and so are hidden layers and the join, so that none leaves the cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.layers import LocalWindowAttention, SameConv2d, SeparableConv2d
from wetmap.models.wetmapformer.folding import (
    Affine,
    depthwise,
    diagonal,
    linear,
    positional_sum,
    scale_and_shift,
    stacked,
)
from wetmap.models.wetmapformer.network import (
    EXTRACTOR_WIDTH,
    AttentionBlock,
    Block,
    ChannelNorm,
    ConvBlock,
    Mlp,
    Wiring,
)
from wetmap.models.wetmapformer.spectral_form import PIXELS_TOGETHER, SpectralForm, together

if TYPE_CHECKING:
    from wetmap.models.wetmapformer.dense import DenseWetMapFormer, SpectralMixer

#: Rows of pixels from which tokens are made together: 4 more feed them.
STRIP_PX = 64
#: Reach of the two local convolutions together, pixels on each side.
LOCAL_REACH = 2
#: Parts of the join, whose rows are a fifth as long as those of spectral features.
JOINED = 4
#: Rows of squares that attend together.
SQUARES = 2
#: Side of the square of tokens that attend together, to all their neighbours at once.
QUERIES = 4
#: Classes are multiplied in a multiple of this number: a product of fewer outputs takes longer.
CLASSES_TOGETHER = 16
#: Reach of the positional sum and of the convolutional block's spread, tokens on each side (kernels of 5).
POSITIONAL_REACH = 2


@dataclass(frozen=True)
class Needed:
    """How far beyond the tile each layer's answer is needed."""

    coarse: int
    """Input of the second stage, tokens of it."""
    fine: int
    """Input of the first stage, tokens of it."""
    near: int
    """Output of the two local convolutions, pixels."""
    own: int
    """Spectral features, pixels."""

    @classmethod
    def of(cls, wiring: Wiring) -> Needed:
        """From the tile outwards: one token for what lies between tokens, and then each layer's reach."""
        coarse = 1 + wiring.depths[1] * max(POSITIONAL_REACH, wiring.kernel // 2)
        fine = 2 * coarse + wiring.depths[0] * 2 * POSITIONAL_REACH
        near = wiring.stem_stride * fine
        return cls(coarse, fine, near, near + LOCAL_REACH)


class DenseForm:
    """Folded weights of a dense model at one moment.

    Args:
        model: In evaluation mode; it is not changed, and not followed either.
    """

    @torch.no_grad()
    def __init__(self, model: DenseWetMapFormer) -> None:
        like = model.head.weight
        exact = copy.deepcopy(model).to("cpu", torch.float64)
        self.needed = Needed.of(model.wiring)
        self._classes = model.classes
        self._spectra = SpectralForm(exact.pixel.spectra, model.bands, like)
        self._mix = _fold_mix(exact.pixel, self._spectra).to(like)
        self._local1 = _Local(exact.local1, exact.local1_norm, like)
        self._local2 = _Local(exact.local2, exact.local2_norm, like)
        self._stem = _Tokens(exact.stem, exact.stem_norm, like)
        self._down = _Tokens(exact.down, exact.down_norm, like)
        self._stage1 = tuple(_Conv(block, like) for block in exact.stage1 if isinstance(block, ConvBlock))
        self._stage2 = tuple(_Attention(block, like) for block in exact.stage2 if isinstance(block, AttentionBlock))
        scale, shift = scale_and_shift(exact.norm1)
        up2 = linear(exact.up2).after(diagonal(exact.norm2))
        # a constant is the same after enlargement
        self._up2 = Affine(up2.weight, up2.bias + shift).to(like)
        self._fine_scale, self._up1 = scale.to(like), linear(exact.up1).to(like)
        self._join = diagonal(exact.join_norm).after(linear(exact.join)).to(like)
        head, spare = linear(exact.head), -model.classes % CLASSES_TOGETHER
        self._head = Affine(F.pad(head.weight, (0, 0, 0, spare)), F.pad(head.bias, (0, spare))).to(like)

    def logits(self, normalised: Tensor) -> Tensor:
        """Logits of a tile.

        Args:
            normalised: (C, T + 2 n, T + 2 n), dimensionless, without NaN; n is ``needed.own`` and T a multiple of the
                second stage's tokens.

        Returns:
            (K, T, T).
        """
        own, near, fine = self._tokens(normalised)
        for block in self._stage1:
            fine = block(fine)
        coarse = self._down(fine)
        for attention in self._stage2:
            coarse = attention(coarse)
        coarse = _inner(_enlarged(_each(self._up2, coarse)), 1)
        fine = _inner(fine, 2 * self.needed.coarse - 1)
        context = _each(self._up1, F.gelu(torch.addcmul(coarse, fine, self._fine_scale)))
        return self._answer(_inner(own, self.needed.own), _inner(near, self.needed.near), context)

    def _tokens(self, normalised: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spectral features, local features and tokens, some rows at a time: (C, h, w) to three maps."""
        bands, rows, columns = normalised.shape
        own = normalised.new_empty(rows, columns, EXTRACTOR_WIDTH, dtype=self._mix.weight.dtype)
        near = own.new_empty(rows - 2 * LOCAL_REACH, columns - 2 * LOCAL_REACH, EXTRACTOR_WIDTH)
        fine, known = [], 0
        step = 2 * max(1, STRIP_PX * together(own) // PIXELS_TOGETHER // 2)
        for top in range(0, len(near), step):
            bottom = min(top + step, len(near))
            end = bottom + 2 * LOCAL_REACH
            pixels = normalised[:, known:end].permute(1, 2, 0).reshape(-1, bands)
            own[known:end] = self._own(pixels).view(end - known, columns, -1)
            near[top:bottom] = self._local2(self._local1(own[top:end]))
            fine.append(self._stem(near[top:bottom]))
            known = end
        return own, near, torch.cat(fine)

    def _own(self, pixels: Tensor) -> Tensor:
        """Spectral features, mixed: (M, C) to (M, 32)."""
        pixels = pixels.to(self._mix.weight.dtype)
        return _in_parts(lambda some: self._mix.relu(self._spectra(some)), pixels)

    def _answer(self, own: Tensor, near: Tensor, context: Tensor) -> Tensor:
        """Join and head: (T, T, 32) twice and (T / 2 + 2, T / 2 + 2, 32) to (K, T, T)."""
        rows, columns = own.shape[:2]
        answer = own.new_empty(self._classes, rows, columns)
        step = 2 * max(1, JOINED * together(own) // columns // 2)
        for top in range(0, rows, step):
            bottom = min(top + step, rows)
            some = F.gelu(_inner(_enlarged(context[top // 2 : bottom // 2 + 2]), 2))
            joined = self._join.gelu(torch.cat((own[top:bottom], near[top:bottom], some), 2).flatten(0, 1))
            answer[:, top:bottom] = self._head(joined)[:, : self._classes].T.reshape(-1, bottom - top, columns)
        return answer


class _Local:
    """A separable convolution with its batch norm and rectifier: (h, w, C) to (h - 2, w - 2, C)."""

    def __init__(self, layer: SeparableConv2d, norm: nn.BatchNorm2d, like: Tensor) -> None:
        self._depth = depthwise(layer.depthwise).to(like)
        self._point = diagonal(norm).after(linear(layer.pointwise)).to(like)

    def __call__(self, maps: Tensor) -> Tensor:
        spread = self._depth(maps)
        return self._point.relu(spread.flatten(0, 1)).view(*spread.shape[:2], -1)


class _Tokens:
    """Squares of pixels become tokens, then layer norm."""

    def __init__(self, layer: SameConv2d, norm: ChannelNorm, like: Tensor) -> None:
        self._side = layer.stride[0]
        self._merge = Affine(layer.weight.permute(0, 2, 3, 1).flatten(1), linear(layer).bias).to(like)
        self._norm = norm.weight.to(like), norm.bias.to(like), norm.eps

    def __call__(self, maps: Tensor) -> Tensor:
        rows, columns = (size // self._side for size in maps.shape[:2])
        squares = maps.view(rows, self._side, columns, self._side * maps.shape[2]).transpose(1, 2)
        tokens = self._merge(squares.reshape(rows * columns, -1))
        weight, bias, eps = self._norm
        return F.layer_norm(tokens, weight.shape, weight, bias, eps).view(rows, columns, -1)


class _Block:
    """What both kinds of block share: positional sum, MLP, and the double residual."""

    def __init__(self, block: Block, like: Tensor) -> None:
        self._positional = positional_sum(block.positional.convs).to(like)
        if not isinstance(block.mlp, Mlp):
            raise TypeError("a block without an MLP")
        self._first = stacked(block.mlp_norm, block.mlp.dense1).to(like)
        self._second = linear(block.mlp.dense2).to(like)
        self._norm_eps = block.mlp_norm.eps if isinstance(block.mlp_norm, ChannelNorm) else None

    def _end(self, maps: Tensor, middle: Tensor) -> Tensor:
        """``maps + middle + mlp(middle)``, each (h, w, C), in the place of ``middle``."""
        tokens = middle.flatten(0, 1)
        answer = _in_parts(self._mlp, tokens)
        return middle.add_(maps).add_(answer.view_as(middle))

    def _mlp(self, tokens: Tensor) -> Tensor:
        if self._norm_eps is not None:
            tokens = F.layer_norm(tokens, tokens.shape[1:], eps=self._norm_eps)
        return self._second(self._first.gelu(tokens))


class _Conv(_Block):
    """A convolutional block: (h, w, C) to (h - 8, w - 8, C)."""

    def __init__(self, block: ConvBlock, like: Tensor) -> None:
        super().__init__(block, like)
        self._point1 = linear(block.point1).after(diagonal(block.norm)).to(like)
        self._spread = depthwise(block.spread).to(like)
        self._point2 = linear(block.point2).to(like)

    def __call__(self, maps: Tensor) -> Tensor:
        positional = self._positional(maps)
        mixed = _each(self._point2, self._spread(_each(self._point1, positional)))
        own = _inner(maps, 2 * POSITIONAL_REACH)
        return self._end(own, mixed.add_(own).add_(_inner(positional, POSITIONAL_REACH)))


class _Attention(_Block):
    """A local-attention block: (h, w, C) to (h - 2 r, w - 2 r, C), r its reach."""

    def __init__(self, block: AttentionBlock, like: Tensor) -> None:
        super().__init__(block, like)
        attention, width = block.attention, block.norm.normalized_shape[0]
        self._heads, self._kernel, self._eps = attention.heads, attention.kernel, block.norm.eps
        mixing = stacked(block.norm, attention.qkv)
        root = mixing.bias.new_ones(3 * width)
        root[:width] = (width // self._heads) ** -0.5
        self._mixing = Affine(mixing.weight * root[:, None], mixing.bias * root).to(like)
        self._out = linear(attention.out).to(like)
        self._offsets = _offsets(attention).to(like)

    def __call__(self, maps: Tensor) -> Tensor:
        reach = max(POSITIONAL_REACH, self._kernel // 2)
        own = _inner(maps, reach)
        near = _inner(maps, reach - self._kernel // 2)
        tokens = self._mixing(F.layer_norm(near, near.shape[2:], eps=self._eps).flatten(0, 1)).view(*near.shape[:2], -1)
        mixed = _each(self._out, self._attend(tokens, *own.shape[:2]))
        return self._end(own, mixed.add_(own).add_(_inner(self._positional(maps), reach - POSITIONAL_REACH)))

    def _attend(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Queries, keys and values (rows + kernel - 1, columns + kernel - 1, 3 C) to (rows, columns, C).

        Squares of queries look at all the tokens that any of them attends to; those that are not its own neighbours
        have a score of minus infinity.
        """
        down, across = -(-rows // QUERIES), -(-columns // QUERIES)
        padded = F.pad(tokens, (0, 0, 0, -columns % QUERIES, 0, -rows % QUERIES))
        query, key, value = padded.view(*padded.shape[:2], 3, self._heads, -1).unbind(2)
        before = self._kernel // 2
        query = query[before:, before : before + across * QUERIES]
        answer = tokens.new_empty(down * QUERIES, across * QUERIES, tokens.shape[2] // 3)
        step = QUERIES * SQUARES * (together(tokens) // PIXELS_TOGETHER)
        offsets = self._offsets.repeat(min(step // QUERIES, down) * across, 1, 1)
        for top in range(0, len(answer), step):
            bottom = min(top + step, len(answer))
            around = slice(top, bottom + self._kernel - 1)
            queries = _squares(query[top:bottom], QUERIES)
            keys, values = (_squares(part[around], QUERIES + self._kernel - 1) for part in (key, value))
            scores = torch.baddbmm(offsets[: len(queries)], queries, keys.transpose(1, 2))
            mixed = torch.bmm(scores.softmax(2), values)
            mixed = mixed.view(-1, across, self._heads, QUERIES, QUERIES, mixed.shape[2]).permute(0, 3, 1, 4, 2, 5)
            answer[top:bottom] = mixed.reshape(bottom - top, *answer.shape[1:])
        return answer[:rows, :columns]


def _squares(tokens: Tensor, side: int) -> Tensor:
    """Squares of tokens, each ``QUERIES`` from the next: (h, w, heads, d) to (squares * heads, side * side, d)."""
    squares = tokens.unfold(0, side, QUERIES).unfold(1, side, QUERIES)  # (down, across, heads, d, side, side)
    return squares.permute(0, 1, 2, 4, 5, 3).reshape(-1, side * side, tokens.shape[3])


def _fold_mix(pixel: SpectralMixer, spectra: SpectralForm) -> Affine:
    """The product that mixes spectral features, with what belongs before and after it."""
    mixed = diagonal(pixel.norm).after(linear(pixel.mix))
    return Affine(mixed.weight * spectra.scale, mixed.weight @ spectra.constant + mixed.bias)


def _offsets(attention: LocalWindowAttention) -> Tensor:
    """What is added to the scores of a square of queries: (heads, queries, keys), minus infinity for no neighbour."""
    kernel, around = attention.kernel, QUERIES + attention.kernel - 1
    table = attention.positions.view(attention.heads, 2 * kernel - 1, 2 * kernel - 1)
    # of all offsets only those of a neighbourhood that nothing shifts
    middle = table[:, kernel // 2 : kernel // 2 + kernel, kernel // 2 : kernel // 2 + kernel]
    scores = table.new_full((attention.heads, QUERIES, QUERIES, around, around), -torch.inf)
    for row in range(QUERIES):
        for column in range(QUERIES):
            scores[:, row, column, row : row + kernel, column : column + kernel] = middle
    return scores.view(attention.heads, QUERIES**2, around**2)


def _inner(maps: Tensor, cut: int) -> Tensor:
    """Without ``cut`` rows and columns on each side; a view."""
    return maps[cut : maps.shape[0] - cut, cut : maps.shape[1] - cut]


def _each(layer: Affine, maps: Tensor) -> Tensor:
    """A product of each place's channels: (h, w, C) to (h, w, D)."""
    return layer(maps.flatten(0, 1)).view(*maps.shape[:2], -1)


def _in_parts(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """A function of rows (M, C), as many of them at a time as stay near the core, in parts of one size."""
    count = -(-len(rows) // together(rows))
    return torch.cat([function(part) for part in torch.split(rows, -(-len(rows) // count))])


def _enlarged(maps: Tensor) -> Tensor:
    """Twice as many rows and columns, linearly between the centres; at the ends as if the map went on."""
    larger = F.interpolate(maps[None].permute(0, 3, 1, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    return larger[0].permute(1, 2, 0).contiguous()
