"""Folding: linear layers in a row become one matrix, in float64, before anything is computed in float32.

A stretch of layers is affine when it has no activation and its norms are batch norms in evaluation mode. Its matrix is
found by sending the unit vectors through the layers themselves, so that it cannot disagree with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Affine:
    """``x -> weight @ x + bias``."""

    weight: Tensor
    """(outputs, inputs)."""
    bias: Tensor
    """(outputs,)."""

    def after(self, first: Affine) -> Affine:
        """This one applied to the answer of another."""
        return Affine(self.weight @ first.weight, self.weight @ first.bias + self.bias)

    def to(self, like: Tensor) -> Affine:
        """The same in the dtype and on the device of a tensor."""
        return Affine(self.weight.to(like).contiguous(), self.bias.to(like).contiguous())

    def __call__(self, rows: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs)."""
        return product(rows, self.weight, self.bias)


def product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``rows @ weight.T + bias``, (M, inputs) to (M, outputs), by the faster of torch's two matrix libraries.

    On x86 torch multiplies float32 matrices with MKL, which uses half the width of the vector units of AMD's
    processors, and convolves with oneDNN, which uses all of it. A 1 x 1 convolution is a matrix product, and torch
    gives it to oneDNN when it is dilated, which for one tap means nothing. Where there is no oneDNN: the plain product.
    """
    plain = rows.dtype is not torch.float32 or rows.device.type != "cpu" or not torch.backends.mkldnn.is_available()
    if plain or torch.is_autocast_enabled("cpu"):
        return F.linear(rows, weight, bias)
    count, inputs = rows.shape
    image = rows.reshape(1, 1, count, inputs).permute(0, 3, 1, 2)
    answer = F.conv2d(image, weight[:, :, None, None], bias, dilation=2)
    return answer.permute(0, 2, 3, 1).reshape(count, -1)


def affine_of(function: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> Affine:
    """The matrix of an affine function of maps.

    Args:
        function: (N, C, h, w) float64 to (N, C', h', w').
        shape: (h, w, C) of its input.

    Returns:
        The function on vectors whose index is (row, column, channel), row-major.
    """

    def flat(vectors: Tensor) -> Tensor:
        maps = vectors.reshape(-1, *shape).permute(0, 3, 1, 2)
        return function(maps).permute(0, 2, 3, 1).reshape(len(vectors), -1)

    size = math.prod(shape)
    bias = flat(torch.zeros(1, size, dtype=torch.float64))
    weight = flat(torch.eye(size, dtype=torch.float64)) - bias
    return Affine(weight.T.contiguous(), bias[0])


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation mode as ``scale * x + shift``, per channel."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:  # pragma: no cover - no norm here goes without
        mean, variance = torch.zeros_like(norm.bias), torch.ones_like(norm.bias)
    scale = norm.weight / (variance + norm.eps).sqrt()
    return scale, norm.bias - mean * scale


def linear(layer: nn.Linear) -> Affine:
    """A dense layer as an affine map."""
    return Affine(layer.weight.detach(), layer.bias.detach())


def stacked(norm: nn.Module, layer: nn.Linear) -> Affine:
    """A dense layer after a per-channel norm of which only the affine part (or a whole batch norm) remains.

    A layer norm's own standardisation is not affine and stays with the caller.
    """
    if isinstance(norm, nn.BatchNorm2d):
        scale, shift = scale_and_shift(norm)
    elif isinstance(norm, nn.LayerNorm):
        scale, shift = norm.weight, norm.bias
    else:
        raise TypeError(f"a norm of type {type(norm).__name__}")
    return linear(layer).after(Affine(torch.diag(scale.detach()), shift.detach()))
