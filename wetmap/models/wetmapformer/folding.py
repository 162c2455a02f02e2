"""Folding: linear layers in a row become one matrix, in float64, before anything is computed in float32.

A stretch of layers is affine when it has no activation and its norms are batch norms in evaluation mode. Its matrix is
found by sending the unit vectors through the layers themselves, so that it cannot disagree with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Whether torch was built with oneDNN, and with the operation its own compiler uses for dense layers.
_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_PACKING = _ONEDNN and all(
    hasattr(torch.ops.mkldnn, name)
    for name in (
        "_linear_pointwise",
        "_reorder_linear_weight",
        "_convolution_pointwise",
        "_reorder_convolution_weight",
        "_is_mkldnn_bf16_supported",
    )
)

#: Whether the processor is one that oneDNN computes with in bfloat16.
_BFLOAT16: bool = _PACKING and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001

#: Torch gives smaller images to its own, slow convolution (20,480 numbers in its source, release 2.13).
FEWEST_NUMBERS = 20_481
#: Rows that weights are packed for; other numbers of rows are right too.
ROWS_TOGETHER = 1024


@dataclass(frozen=True)
class Affine:
    """``x -> weight @ x + bias``."""

    weight: Tensor
    """(outputs, inputs)."""
    bias: Tensor
    """(outputs,)."""
    packed: Tensor | None = None
    """The weight as oneDNN wants it; None: not packed."""

    def after(self, first: Affine) -> Affine:
        """This one applied to the answer of another."""
        return Affine(self.weight @ first.weight, self.weight @ first.bias + self.bias)

    def to(self, like: Tensor) -> Affine:
        """The same in the dtype and on the device of a tensor, ready for use."""
        weight, bias = self.weight.detach().to(like).contiguous(), self.bias.detach().to(like).contiguous()
        if not _packs(weight):
            return Affine(weight, bias)
        return Affine(weight, bias, torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_TOGETHER))  # noqa: SLF001

    def __call__(self, rows: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs)."""
        if self.packed is None:
            return product(rows, self.weight, self.bias)
        return _packed_product(rows, self, "none")

    def gelu(self, rows: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs), followed by the exact GELU."""
        if self.packed is None:
            return F.gelu(product(rows, self.weight, self.bias))
        return _packed_product(rows, self, "gelu")

    def relu(self, rows: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs), followed by the rectifier."""
        if self.packed is None:
            return product(rows, self.weight, self.bias).relu_()
        return _packed_product(rows, self, "relu")


@dataclass(frozen=True)
class Convolution:
    """A convolution of maps that lie channels last, of two dimensions or three."""

    weight: Tensor
    """(outputs, inputs / groups, kernel...)."""
    bias: Tensor
    """(outputs,)."""
    padding: tuple[int, ...]
    """Places of zeros on each side, per dimension."""
    packed: Tensor | None = None
    """The weight as oneDNN may be given it; None: without."""

    def to(self, like: Tensor, size: tuple[int, int] | None = None) -> Convolution:
        """The same in the dtype and on the device of a tensor; with ``size``, packed for maps of that many places."""
        weight, bias = self.weight.detach().to(like).contiguous(), self.bias.detach().to(like).contiguous()
        ready = replace(self, weight=weight, bias=bias)
        if not _packs(weight):
            return ready
        if size is None:
            return replace(ready, packed=weight)
        shape, (pads, strides, dilations, groups) = [1, weight.shape[1] * self._groups, *size], self._how
        kernel = weight.contiguous(memory_format=torch.channels_last)
        packed = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001
            kernel, pads, strides, dilations, groups, shape
        )
        return replace(ready, packed=packed)

    def __call__(self, maps: Tensor) -> Tensor:
        """(places..., inputs) to (places'..., outputs), contiguous."""
        return self._convolve(maps, "none")

    def relu(self, maps: Tensor) -> Tensor:
        """The same, followed by the rectifier."""
        return self._convolve(maps, "relu")

    @property
    def _groups(self) -> int:
        """Every channel on its own where a filter has one input; no other grouped convolution is folded."""
        return len(self.weight) if self.weight.shape[1] == 1 else 1

    @property
    def _how(self) -> tuple[list[int], list[int], list[int], int]:
        ones = [1] * len(self.padding)
        return list(self.padding), ones, ones, self._groups

    def _convolve(self, maps: Tensor, then: str) -> Tensor:
        image = maps[None].movedim(-1, 1)
        if self.packed is None:
            convolve = F.conv2d if len(self.padding) == 2 else F.conv3d
            answer = convolve(image, self.weight, self.bias, padding=self.padding, groups=self._groups)
            answer = answer.relu_() if then == "relu" else answer
        else:
            operation = torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001
            answer = operation(image, self.packed, self.bias, *self._how, then, [], "none")
        return answer[0].movedim(0, -1).contiguous()


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN is given packed weights like these."""
    known = weight.dtype is torch.float32 or (weight.dtype is torch.bfloat16 and _BFLOAT16)
    return _PACKING and known and weight.device.type == "cpu"


def _packed_product(rows: Tensor, layer: Affine, then: str) -> Tensor:
    """As torch's compiler writes a dense layer, the activation within the product: 7 % faster than ``product``."""
    operation = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    answer: Tensor = operation(rows, layer.packed, layer.bias, then, [], "none")
    return answer


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``rows @ weight.T + bias``, (M, inputs) to (M, outputs), by the faster of torch's two matrix libraries.

    On x86 torch multiplies float32 matrices with MKL, which uses half the width of the vector units of AMD's
    processors, and convolves with oneDNN, which uses all of it. A 1 x 1 convolution is a matrix product, and torch
    gives it to oneDNN when it is dilated, which for one tap means nothing. Where there is no oneDNN: the plain product.
    """
    few = rows.numel() < FEWEST_NUMBERS
    if few or rows.dtype is not torch.float32 or rows.device.type != "cpu" or not _ONEDNN:
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


def linear(layer: nn.Linear | nn.Conv2d) -> Affine:
    """A dense layer or a 1 x 1 convolution as an affine map."""
    weight = layer.weight.flatten(1)
    return Affine(weight, bias_of(layer))


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
    return linear(layer).after(Affine(torch.diag(scale), shift))


def diagonal(norm: nn.BatchNorm2d) -> Affine:
    """A batch norm in evaluation mode as a matrix."""
    scale, shift = scale_and_shift(norm)
    return Affine(torch.diag(scale), shift)


def depthwise(conv: nn.Conv2d) -> Convolution:
    """A depthwise convolution without its padding."""
    return Convolution(conv.weight, bias_of(conv), (0, 0))


def bias_of(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """The bias of a layer; zeros where it has none."""
    return layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias


def positional_sum(convs: Iterable[nn.Module]) -> Convolution:
    """A map plus depthwise convolutions of it as one kernel, the largest, without padding."""
    parts = [depthwise(conv) for conv in convs if isinstance(conv, nn.Conv2d)]
    side = max(part.weight.shape[-1] for part in parts)
    weight = parts[0].weight.new_zeros(len(parts[0].weight), 1, side, side)
    weight[:, :, side // 2, side // 2] = 1
    for part in parts:
        weight += F.pad(part.weight, 4 * ((side - part.weight.shape[-1]) // 2,))
    return Convolution(weight, torch.stack([part.bias for part in parts]).sum(0), (0, 0))
