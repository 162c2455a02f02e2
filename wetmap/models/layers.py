"""Layers that several architectures share. Maps are (N, C, h, w) unless a docstring says channels last."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Standard deviation of the positional table's first values, cut at two of them.
TABLE_DEVIATION = 0.02


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis, TensorFlow's 'same': ``ceil(size / stride)`` outputs, the odd zero last."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(maps: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad the last two axes for a 'same' convolution or pooling."""
    top, bottom = same_padding(maps.shape[-2], kernel, stride)
    left, right = same_padding(maps.shape[-1], kernel, stride)
    return F.pad(maps, (left, right, top, bottom), value=value) if top + bottom + left + right else maps


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's 'same' padding; on whole multiples of kernel = stride nothing is padded."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, h, w) to (N, O, ceil(h / stride), ceil(w / stride))."""
        return super().forward(pad_same(input, self.kernel_size[0], self.stride[0]))


def max_pool_same(maps: Tensor, kernel: int, stride: int) -> Tensor:
    """Maximum pooling with TensorFlow's 'same' padding (minus infinity, so that padding never wins)."""
    return F.max_pool2d(pad_same(maps, kernel, stride, value=-math.inf), kernel, stride)


class SeparableConv2d(nn.Module):
    """Depthwise 3 x 3 without bias, then pointwise with bias, nothing between (Keras' SeparableConv2D)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        mixed: Tensor = self.pointwise(self.depthwise(maps))
        return mixed


def depthwise(channels: int, kernel: int) -> nn.Conv2d:
    """A depthwise convolution with bias, zeros all around, map size kept (``kernel`` odd)."""
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


class LocalWindowAttention(nn.Module):
    """Each token attends to the ``kernel`` x ``kernel`` tokens around it (neighbourhood attention).

    At the borders the neighbourhood is shifted inwards, not cut. A map smaller than the kernel is padded with zeros
    at the bottom and right *before* queries, keys and values are formed: the padded keys and values equal the bias and
    take part in the softmax.

    Args:
        channels: Width of a token.
        heads: Number of heads; must divide ``channels``.
        kernel: Side of the neighbourhood, tokens, odd.
    """

    def __init__(self, channels: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads, self.kernel = heads, kernel
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.positions = nn.Parameter(torch.zeros(heads, (2 * kernel - 1) ** 2))
        nn.init.trunc_normal_(self.positions, std=TABLE_DEVIATION, a=-2 * TABLE_DEVIATION, b=2 * TABLE_DEVIATION)

    def weights(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Attention weights and the values they weigh.

        Args:
            tokens: (N, h, w, C), channels last.

        Returns:
            Weights (N, heads, h * w, kernel ** 2), which sum to 1 over the last axis, and the values of the same
            neighbours (N, heads, h * w, kernel ** 2, C / heads).
        """
        count, height, width, channels = tokens.shape
        query, key_value = self.qkv(tokens).split((channels, 2 * channels), dim=-1)
        full = max(height, self.kernel), max(width, self.kernel)
        if full != (height, width):
            # a zero token gives exactly the bias, so that only real tokens need multiplying
            padded = self.qkv.bias[channels:].expand(count, *full, -1).clone()
            padded[:, :height, :width] = key_value
            key_value = padded
        neighbours, offsets = _neighbourhoods(height, width, self.kernel)
        near = key_value.reshape(count, full[0] * full[1], -1)[:, _index(neighbours, tokens)]
        near = near.unflatten(-1, (2, self.heads, -1)).permute(3, 0, 4, 1, 2, 5)  # (2, N, heads, h * w, k * k, d)
        query = query.reshape(count, height * width, self.heads, 1, -1).transpose(1, 2)  # (N, heads, h * w, 1, d)
        scores = (query * near[0]).sum(-1) / math.sqrt(channels // self.heads)
        scores = scores + self.positions[:, _index(offsets, tokens)]
        return scores.softmax(-1), near[1]

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, h, w, C) to (N, h, w, C), channels last."""
        weights, values = self.weights(tokens)
        mixed = (weights.unsqueeze(-1) * values).sum(-2).transpose(1, 2)
        joined: Tensor = self.out(mixed.reshape(tokens.shape))
        return joined


def _index(table: npt.NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(table).to(like.device)


@lru_cache(maxsize=64)
def _neighbourhoods(height: int, width: int, kernel: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which tokens each token attends to, and the place of each pair in the positional table.

    Kept as arrays and not as tensors: a tensor made while a model is being traced would be a tracer's own.

    Returns:
        Two (height * width, kernel ** 2) int64 arrays: row-major indices into the map of
        max(height, kernel) x max(width, kernel) tokens, and indices into the (2 * kernel - 1) ** 2 offsets.
    """
    rows, row_offsets = _neighbours(height, kernel)
    cols, col_offsets = _neighbours(width, kernel)
    wide = max(width, kernel)
    places = rows[:, None, :, None] * wide + cols[None, :, None, :]
    offsets = row_offsets[:, None, :, None] * (2 * kernel - 1) + col_offsets[None, :, None, :]
    return places.reshape(height * width, -1), offsets.reshape(height * width, -1)


def _neighbours(size: int, kernel: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Along one axis: (size, kernel) indices of the neighbours and their offsets, from 0 to 2 * kernel - 2."""
    own = np.arange(size)[:, None]
    first = (own - kernel // 2).clip(0, max(size, kernel) - kernel)
    near = first + np.arange(kernel)
    return near, near - own + kernel - 1


def initialise(module: nn.Module) -> None:
    """First weights as Keras draws them: Glorot uniform for kernels, 0 for biases; norms keep 1 and 0.

    The fans of a depthwise kernel are counted as Keras counts them: inputs ``k * k * channels``, outputs ``k * k``.
    Only torch's global generator is used, in the order of ``module.modules()``.
    """
    for part in module.modules():
        if not isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        if isinstance(part, nn.Conv2d) and part.groups > 1:
            area = part.kernel_size[0] * part.kernel_size[1]
            bound = math.sqrt(6.0 / (area * (part.in_channels + 1)))
            nn.init.uniform_(part.weight, -bound, bound)
        else:
            nn.init.xavier_uniform_(part.weight)
        if part.bias is not None:
            nn.init.zeros_(part.bias)
