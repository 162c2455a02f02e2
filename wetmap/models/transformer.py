"""Parts that the transformers among the baselines share. Tokens are (..., T, C), maps (N, h, w, C) or (N, C, h, w)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Epsilon of the layer norms of the ViT, which the later transformers kept.
NORM_EPS = 1e-6

#: Standard deviation of the first weights of dense layers and position tables, cut at +-2: the habit since DeiT.
FIRST_DEVIATION = 0.02


class SelfAttention(nn.Module):
    """Softmax attention of every token to every token, scaled by the root of the head's width.

    Args:
        inputs: Channels of a token that comes in.
        width: Channels of a token that goes out.
        heads: Number of heads; must divide ``width``.
    """

    def __init__(self, inputs: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(inputs, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, scores: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            tokens: (..., T, inputs).
            scores: (..., heads, T, T) added to the scores of query and key before the softmax; minus infinity: that
                query does not see that key. Every query must see one key at least.

        Returns:
            (..., T, width).
        """
        split = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (..., T, 3, heads, d)
        query, key, value = (split.select(-3, i).transpose(-3, -2) for i in range(3))
        if tokens.ndim == 3:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=scores)  # (N, heads, T, d)
        else:  # written out: the fused form cannot be written as ONNX with further axes
            products = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
            mixed = (products if scores is None else products + scores).softmax(-1) @ value
        joined: Tensor = self.out(mixed.transpose(-3, -2).flatten(-2))
        return joined


class RelativePositions(nn.Module):
    """A learned number for each head and each offset between two tokens of a square map, added to the scores.

    Every entry of the table belongs to an offset that occurs.

    Args:
        heads: Number of heads.
        side: Side of the map, tokens.
    """

    index: Tensor

    def __init__(self, heads: int, side: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(heads, (2 * side - 1) ** 2))
        self.register_buffer("index", relative_index(side), persistent=False)

    def forward(self) -> Tensor:
        """(heads, side ** 2, side ** 2): for each query and key, tokens row by row."""
        return self.table[:, self.index]


def relative_index(side: int) -> Tensor:
    """The place in the table of the offset of each pair of tokens of a square map.

    Returns:
        (side ** 2, side ** 2) int64, query by key: ``(dr + side - 1) * (2 * side - 1) + dc + side - 1`` where the query
        lies dr rows below and dc columns to the right of the key.
    """
    place = torch.arange(side * side)
    row, column = place // side, place % side
    down = row[:, None] - row + side - 1
    right = column[:, None] - column + side - 1
    return down * (2 * side - 1) + right


def positions_if_any(heads: int, side: int) -> RelativePositions | None:
    """The table of a map, or None for a map of one token: softmax over one score is 1 whatever is added to it."""
    return RelativePositions(heads, side) if side > 1 else None


def mlp(width: int, ratio: int = 4) -> nn.Sequential:
    """Widen, exact GELU, narrow; channels last."""
    return nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))


def initialise(module: nn.Module) -> None:
    """First weights: dense layers and tables narrow normal, convolutions normal by their fan-out (He), biases 0.

    A convolution's standard deviation is sqrt(2 / (kernel area x outputs / groups)). Only torch's global generator is
    used, in the order of ``module.modules()``.
    """
    for part in module.modules():
        if isinstance(part, RelativePositions):
            nn.init.trunc_normal_(part.table, std=FIRST_DEVIATION)
            continue
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=FIRST_DEVIATION)
        elif isinstance(part, nn.Conv2d):
            area = part.kernel_size[0] * part.kernel_size[1]
            nn.init.normal_(part.weight, std=math.sqrt(2 * part.groups / (area * part.out_channels)))
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
