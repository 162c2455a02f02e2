"""Gradients of single operations, for functions that go their way back themselves."""

from __future__ import annotations

import torch
from torch import Tensor


def rectifier_back(gradient: Tensor, answer: Tensor) -> Tensor:
    """The gradient before a rectifier from that behind it, in place.

    Args:
        gradient: Of the rectifier's answer; changed.
        answer: The rectifier's answer, of the same shape.
    """
    done: Tensor = torch.ops.aten.threshold_backward.grad_input(gradient, answer, 0, grad_input=gradient)
    return done


def convolution_back(
    gradient: Tensor, maps: Tensor, kernel: Tensor, *, padding: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Gradients of the maps and of the kernel of a convolution with stride 1.

    Args:
        gradient: Of the answer, (N, O, h, w).
        maps: (N, I, h, w).
        kernel: (O, I, rows, columns).
        padding: Zeros before and after each axis.
    """
    answer: tuple[Tensor, Tensor, Tensor | None] = torch.ops.aten.convolution_backward(
        gradient, maps, kernel, None, [1, 1], list(padding), [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return answer[0], answer[1]


def kernel_back(gradient: Tensor, maps: Tensor, kernel: Tensor, *, stride: int) -> Tensor:
    """Gradient of the kernel of a 3 x 3 convolution with a zero around the maps, depthwise if its kernel is.

    Args:
        gradient: Of the answer, (N, O, h / stride, w / stride).
        maps: (N, I, h, w).
        kernel: (O, I, 3, 3) or (I, 1, 3, 3).
        stride: Of the convolution.
    """
    groups = maps.shape[1] // kernel.shape[1]
    answer: tuple[Tensor | None, Tensor, Tensor | None] = torch.ops.aten.convolution_backward(
        gradient, maps, kernel, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], groups, [False, True, False]
    )
    return answer[1]


def outer_product(left: Tensor, right: Tensor) -> Tensor:
    """``left.T @ right``, (M, A) and (M, B) to (A, B).

    By the library that ``folding.product`` prefers: it is the gradient of the kernel of the same 1 x 1 convolution.
    """
    if left.dtype is not torch.float32:
        return left.T @ right
    images = (rows.view(1, 1, *rows.shape).permute(0, 3, 1, 2) for rows in (left, right))
    kernel = left.new_empty(1).expand(left.shape[1], right.shape[1], 1, 1)
    answer: tuple[Tensor | None, Tensor, Tensor | None] = torch.ops.aten.convolution_backward(
        *images, kernel, None, [1, 1], [0, 0], [2, 2], False, [0, 0], 1, [False, True, False]
    )
    return answer[1].flatten(1)
