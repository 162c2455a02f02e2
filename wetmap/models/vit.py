"""A plain vision transformer (ViT), small.

Dosovitskiy et al. (2021), An Image is Worth 16x16 Words, arXiv:2010.11929. As there: square patches that do not
overlap, a class token, learned positions, layer norm before attention and MLP, a dense layer on the class token. What
differs: patches of 2 px instead of 16; 64 channels, 6 blocks and 4 heads instead of 768, 12 and 12; no dropout, and
no hidden layer in the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wetmap.models.layers import SameConv2d
from wetmap.models.transformer import FIRST_DEVIATION, NORM_EPS, SelfAttention, initialise, mlp
from wetmap.models.windows import WindowClassifier

#: Channels of a token, blocks, attention heads: a laptop's size.
WIDTH, DEPTH, HEADS = 64, 6, 4


class Block(nn.Module):
    """Attention and an MLP, each on normalised tokens and added to them; (N, T, C) to (N, T, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = SelfAttention(width, width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = mlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """One block further."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        out: Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return out


class Vit(WindowClassifier):
    """The ViT as a classifier of windows.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        window: Side of the window, pixels, even.
        patch: Side of a patch, pixels. Where it does not divide the window, zeros (the bands' means) are added around.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        window: int = 8,
        patch: int = 2,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, layers=layers, band_layer=band_layer)
        self.embedding = SameConv2d(bands, WIDTH, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, 1 + math.ceil(window / patch) ** 2, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH, eps=NORM_EPS)
        self.head = nn.Linear(WIDTH, classes)
        initialise(self)
        for table in (self.class_token, self.positions):
            nn.init.trunc_normal_(table, std=FIRST_DEVIATION)

    def spectral(self, normalised: Tensor) -> Tensor:
        """Nothing is computed per pixel: (N, C, h, w) as it is."""
        return normalised

    def spatial(self, spectra: Tensor) -> Tensor:
        """Normalised windows (N, C, window, window) to logits (N, K)."""
        patches = self.embedding(spectra).flatten(2).transpose(1, 2)  # (N, T, width), row by row
        tokens = torch.cat([self.class_token.expand(patches.shape[0], -1, -1), patches], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)[:, 0]))
        return logits
