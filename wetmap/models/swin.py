"""The Swin transformer, small: attention within squares of tokens that are shifted from block to block.

Liu et al. (2021), Swin Transformer, doi:10.1109/ICCV48922.2021.00986, arXiv:2103.14030. As there: patch embedding with
a layer norm, pairs of blocks whose second one shifts the squares by half their side, learned relative positions, no
attention between tokens that only the cyclic shift made neighbours, merging of 2 x 2 tokens between stages, the mean of
the last tokens. What differs: a token is one pixel instead of 4 x 4; squares have 4 tokens a side instead of 7; three
stages of 2 blocks instead of four, of 32 channels instead of 96 in the first; no dropped paths; tokens that are added
to fill the last square are masked too, so that no real token sees them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.layers import SameConv2d
from wetmap.models.transformer import NORM_EPS, SelfAttention, initialise, mlp, positions_if_any
from wetmap.models.windows import WindowClassifier

#: Channels and heads of the three stages (16 channels a head); a laptop's size.
WIDTHS, HEADS = (32, 64, 128), (2, 4, 8)

#: Blocks of a stage: one with squares from the corner, one with shifted squares.
DEPTH = 2

#: Side of the squares within which tokens attend, tokens.
SQUARE = 4


def square_mask(side: int, square: int, shift: int) -> Tensor:
    """Which tokens of a square may attend to which, after padding and the cyclic shift up and left.

    Two tokens may if neither or both came around the edge, and neither or both are padding, along each axis.

    Args:
        side: Side of the map, tokens, before it is padded to a multiple of ``square``.
        square: Side of a square, tokens.
        shift: By how much the padded map was rolled, tokens; below ``square``.

    Returns:
        (squares, square ** 2, square ** 2) bool, query by key, squares and tokens row by row.
    """
    padded = math.ceil(side / square) * square
    place = torch.arange(padded)
    around = (place >= padded - shift).long()
    added = ((place + shift) % padded >= side).long()
    kind = around + 2 * added
    regions = into_squares((4 * kind[:, None] + kind)[None, :, :, None], square)[0, :, :, 0]
    return regions[:, :, None] == regions[:, None, :]


def into_squares(maps: Tensor, square: int) -> Tensor:
    """(N, h, w, C), h and w multiples of ``square``, to (N, squares, square ** 2, C)."""
    count, height, width, channels = maps.shape
    cut = maps.reshape(count, height // square, square, width // square, square, channels)
    return cut.transpose(2, 3).reshape(count, -1, square * square, channels)


def from_squares(squares: Tensor, side: int) -> Tensor:
    """What ``into_squares`` took apart: (N, squares, square ** 2, C) to (N, side, side, C)."""
    count, number, tokens, channels = squares.shape
    square, across = math.isqrt(tokens), math.isqrt(number)
    cut = squares.reshape(count, across, across, square, square, channels)
    return cut.transpose(2, 3).reshape(count, side, side, channels)


class SquareAttention(nn.Module):
    """Attention within squares; (N, side, side, C) to the same.

    Args:
        width: Channels of a token.
        heads: Number of heads.
        side: Side of the map, tokens. A map no larger than a square is one square and is not shifted.
        shifted: Whether the squares begin half a square away from the corner.
    """

    mask: Tensor | None

    def __init__(self, width: int, heads: int, side: int, shifted: bool) -> None:
        super().__init__()
        self.side, self.square = side, min(SQUARE, side)
        self.shift = self.square // 2 if shifted and side > self.square else 0
        self.padding = -side % self.square
        self.attention = SelfAttention(width, width, heads)
        self.positions = positions_if_any(heads, self.square)
        # a plain map needs no mask
        mask = square_mask(side, self.square, self.shift) if self.shift or self.padding else None
        self.register_buffer("mask", mask, persistent=False)

    def scores(self) -> Tensor | None:
        """What is added to the scores: (squares or 1, heads, square ** 2, square ** 2), or None for nothing."""
        if self.positions is None:
            return None
        scores: Tensor = self.positions()[None]
        return scores if self.mask is None else scores.masked_fill(~self.mask[:, None], -math.inf)

    def forward(self, maps: Tensor) -> Tensor:
        """Attend."""
        padded = F.pad(maps, (0, 0, 0, self.padding, 0, self.padding)) if self.padding else maps
        rolled = padded.roll((-self.shift, -self.shift), (1, 2)) if self.shift else padded
        mixed = self.attention(into_squares(rolled, self.square), self.scores())
        joined = from_squares(mixed, self.side + self.padding)
        back = joined.roll((self.shift, self.shift), (1, 2)) if self.shift else joined
        return back[:, : self.side, : self.side]


class Block(nn.Module):
    """Attention within squares and an MLP, each on normalised tokens and added; (N, side, side, C) to the same."""

    def __init__(self, width: int, heads: int, side: int, shifted: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = SquareAttention(width, heads, side, shifted)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = mlp(width)

    def forward(self, maps: Tensor) -> Tensor:
        """One block further."""
        maps = maps + self.attention(self.attention_norm(maps))
        out: Tensor = maps + self.mlp(self.mlp_norm(maps))
        return out


class Merging(nn.Module):
    """Four tokens become one of another width; (N, side, side, C) to (N, ceil(side / 2), ceil(side / 2), width)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * inputs, eps=NORM_EPS)
        self.dense = nn.Linear(4 * inputs, width, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Merge; a last row and column without a partner are joined with zeros."""
        odd = maps.shape[1] % 2
        even = F.pad(maps, (0, 0, 0, odd, 0, odd)) if odd else maps
        joined = torch.cat([even[:, row::2, column::2] for row in (0, 1) for column in (0, 1)], dim=-1)
        merged: Tensor = self.dense(self.norm(joined))
        return merged


class Swin(WindowClassifier):
    """Swin as a classifier of windows.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        window: Side of the window, pixels, even.
        patch: Side of the patch that becomes a token, pixels.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        window: int = 8,
        patch: int = 1,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, layers=layers, band_layer=band_layer)
        self.embedding = SameConv2d(bands, WIDTHS[0], patch, stride=patch)
        self.embedding_norm = nn.LayerNorm(WIDTHS[0], eps=NORM_EPS)
        parts: list[nn.Module] = []
        side = math.ceil(window / patch)
        for stage, (width, heads) in enumerate(zip(WIDTHS, HEADS, strict=True)):
            if stage:
                parts.append(Merging(WIDTHS[stage - 1], width))
                side = math.ceil(side / 2)
            parts += [Block(width, heads, side, shifted=depth % 2 == 1) for depth in range(DEPTH)]
        self.stages = nn.Sequential(*parts)
        self.norm = nn.LayerNorm(WIDTHS[-1], eps=NORM_EPS)
        self.head = nn.Linear(WIDTHS[-1], classes)
        initialise(self)

    def spectral(self, normalised: Tensor) -> Tensor:
        """Nothing is computed per pixel: (N, C, h, w) as it is."""
        return normalised

    def spatial(self, spectra: Tensor) -> Tensor:
        """Normalised windows (N, C, window, window) to logits (N, K)."""
        tokens = self.embedding_norm(self.embedding(spectra).permute(0, 2, 3, 1))
        logits: Tensor = self.head(self.norm(self.stages(tokens)).mean((1, 2)))
        return logits
