"""The front of WetMapFormer in training: the spectral part and what looks at it, a few windows at a time, and back.

Equal to the layers one by one but for rounding. These layers are nine tenths of a step's multiplications, and one by
one each of them writes and reads the spectral features of all windows, tens of megabytes. Here a few windows go through
all layers while a cache holds them; only batch norm, which needs every window, parts the way in two. What can be
computed from the spectral features again is not kept for the way back.

The windows are turned by half a circle meanwhile, and kernels and answers with them: the skip convolution wants a zero
after the last pixel but none before the first, and PyTorch's own padding gives one before the first.

Pixels are rows and channels the last axis throughout; D is bands * 32 and M is N * h * w.
``docs/explanation/training.md`` has the figures.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from wetmap.models.wetmapformer.folding import product
from wetmap.models.wetmapformer.gradients import convolution_back, kernel_back, outer_product, rectifier_back

#: Spectral features that go through the layers together (4 MB of float32): few enough that the next layer finds them in
#: a cache, enough to keep the cores busy.
NUMBERS_TOGETHER = 1 << 20

#: Taps of the skip convolution, turned, that see the even and the odd pixels of an axis. Of a pair of pixels, the even
#: one is tap 1 of its own answer; the odd one is tap 2 of its own and tap 0 of the answer after.
TAPS_OF = ((1,), (2, 0))
#: The four pixels of a cell of the skip convolution: row and column within the cell.
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


class FrontWeights(NamedTuple):
    """Parameters of the front, shaped as its modules have them."""

    conv1: Tensor
    """(16, 1, 1, 3), along the bands."""
    bias1: Tensor
    """(16,)."""
    conv2: Tensor
    """(32, 16, 1, 5), along the bands."""
    bias2: Tensor
    """(32,)."""
    scale: Tensor
    """(D,), batch norm."""
    shift: Tensor
    """(D,), batch norm."""
    depth: Tensor
    """(D, 1, 3, 3), depthwise."""
    point: Tensor
    """(32, D, 1, 1)."""
    point_bias: Tensor
    """(32,)."""
    skip: Tensor
    """(32, D, 3, 3), stride 2."""
    skip_bias: Tensor
    """(32,)."""


class FrontAnswer(NamedTuple):
    """What the front gives."""

    separated: Tensor
    """(N, 32, h, w), the first separable convolution, not rectified."""
    skipped: Tensor
    """(N, 32, h / 2, w / 2), the skip convolution."""
    mean: Tensor
    """(D,), of the spectral features over the batch; without gradient."""
    variance: Tensor
    """(D,), likewise, of the population."""


def front(maps: Tensor, eps: float, weights: FrontWeights) -> FrontAnswer:
    """Evaluate the front with the statistics of the batch.

    Args:
        maps: (N, C, h, w), h and w even, dimensionless, without NaN.
        eps: What batch norm adds to the variance.
        weights: The parameters.
    """
    answer: tuple[Tensor, Tensor, Tensor, Tensor] = _Front.apply(maps, eps, *weights)  # type: ignore[no-untyped-call]
    return FrontAnswer(*answer)


class _Front(Function):
    """The front and its gradient, which has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, eps: float, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``front``."""
        weights = _turned(FrontWeights(*tensors))
        maps = maps.flip(2, 3)
        features, mean, variance = _Lines(maps, weights).features()
        separated, skipped = _Windows(maps, weights, _Statistics(mean, variance, eps)).answers(features)
        ctx.save_for_backward(maps, mean, variance, *tensors, *features)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return _turned_maps(separated), _turned_maps(skipped), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all that was given to ``forward``."""
        maps, mean, variance, *tensors = ctx.saved_tensors
        count = len(FrontWeights._fields)
        weights, features = _turned(FrontWeights(*tensors[:count])), tensors[count:]
        separated, skipped = (part.permute(0, 2, 3, 1).flip(1, 2).contiguous() for part in gradients[:2])
        statistics = _Statistics(mean, variance, ctx.eps)
        slopes, of_windows = _Windows(maps, weights, statistics).gradients(features, separated, skipped)
        to_maps, of_lines = _Lines(maps, weights).gradients(features, slopes, to_maps=ctx.needs_input_grad[0])
        answer = _turned(FrontWeights(*of_lines, *of_windows))
        return None if to_maps is None else to_maps.flip(2, 3), None, *answer


class _Statistics(NamedTuple):
    """What batch norm knows of the batch."""

    mean: Tensor
    """(D,)."""
    variance: Tensor
    """(D,), of the population."""
    eps: float
    """What is added to it."""


class _Slopes(NamedTuple):
    """Gradient of the features, ``normalised * factor + features * spread + constant`` where a feature is not 0."""

    normalised: list[Tensor]
    """(m, D) of each part, of the normalised features before they are rectified."""
    factor: Tensor
    """(D,)."""
    spread: Tensor
    """(D,), through the variance of the batch."""
    constant: Tensor
    """(D,), through its mean."""


class _Parts:
    """A batch and how it is cut.

    Args:
        maps: (N, C, h, w).
        weights: The parameters.
    """

    def __init__(self, maps: Tensor, weights: FrontWeights) -> None:
        self.weights = weights
        self.count, self.bands, self.height, self.width = maps.shape
        self.channels = len(weights.scale)

        area = self.height * self.width
        step = max(1, NUMBERS_TOGETHER // (area * self.channels))
        edges = [*range(0, self.count, step), self.count]
        #: Windows that are computed together, and their pixels.
        self.parts = [(slice(a, b), slice(a * area, b * area)) for a, b in itertools.pairwise(edges)]


class _Lines(_Parts):
    """The two convolutions along the bands."""

    def __init__(self, maps: Tensor, weights: FrontWeights) -> None:
        super().__init__(maps, weights)
        self.pixels = maps.permute(0, 2, 3, 1).reshape(-1, self.bands)
        self.matrix = _band_matrix(weights.conv1, self.bands)
        self.bias = weights.bias1.repeat(self.bands)

    def features(self) -> tuple[list[Tensor], Tensor, Tensor]:
        """Rectified spectral features (m, D) of each part, their mean (D,) and population variance (D,) over all."""
        features, means, variances = [], [], []
        for windows, here in self.parts:
            lines = self._lines(self._hidden(here), windows)
            answer = F.conv2d(lines, self.weights.conv2, self.weights.bias2, padding=(0, 2))
            features.append(_rows(answer, self.channels).relu_())
            mean, variance = torch.batch_norm_update_stats(features[-1], None, None, 0.0)
            means.append(mean)
            variances.append(variance)
        sizes = [len(part) for part in features]
        return features, *_together(torch.stack(means), torch.stack(variances), sizes)

    def gradients(
        self, features: list[Tensor], slopes: _Slopes, *, to_maps: bool
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Gradients of the maps, if they are wanted, and of both convolutions."""
        matrix, kernel = torch.zeros_like(self.matrix), torch.zeros_like(self.weights.conv2)
        biases = torch.zeros_like(self.bias), torch.zeros_like(self.weights.scale)
        pixels = torch.empty_like(self.pixels) if to_maps else None
        back = self.matrix.T.contiguous()
        spare = torch.empty_like(features[0])
        # the last part first: it may still be in the cache
        for (windows, here), values, normalised in reversed(
            list(zip(self.parts, features, slopes.normalised, strict=True))
        ):
            slope = torch.addcmul(slopes.constant, values, slopes.spread, out=spare[: len(values)])
            slope = rectifier_back(slope.addcmul_(normalised, slopes.factor), values)
            biases[1].add_(slope.sum(0))
            hidden = self._hidden(here)
            to_lines, of_kernel = convolution_back(
                self._lines(slope, windows), self._lines(hidden, windows), self.weights.conv2, padding=(0, 2)
            )
            kernel.add_(of_kernel)
            to_hidden = _rows(to_lines, hidden.shape[1])
            to_hidden = rectifier_back(to_hidden, hidden)
            biases[0].add_(to_hidden.sum(0))
            matrix.add_(outer_product(to_hidden, self.pixels[here]))
            if pixels is not None:
                pixels[here] = product(to_hidden, back)
        answer = None if pixels is None else self._maps(pixels)
        first, second = (bias.view(self.bands, -1).sum(0) for bias in biases)
        return answer, (_band_kernel(matrix, self.bands), first, kernel, second)

    def _hidden(self, here: slice) -> Tensor:
        """The first convolution, rectified: (m, C * 16)."""
        return product(self.pixels[here], self.matrix, self.bias).relu_()

    def _lines(self, rows: Tensor, windows: slice) -> Tensor:
        """(m, C * k) as images (windows, k, pixels, C)."""
        count = windows.stop - windows.start
        return rows.view(count, len(rows) // count, self.bands, -1).permute(0, 3, 1, 2)

    def _maps(self, pixels: Tensor) -> Tensor:
        return pixels.view(self.count, self.height, self.width, self.bands).permute(0, 3, 1, 2)


class _Windows(_Parts):
    """Batch norm, the first separable convolution and the skip convolution.

    Args:
        maps: (N, C, h, w).
        weights: The parameters.
        statistics: Of the features.
    """

    def __init__(self, maps: Tensor, weights: FrontWeights, statistics: _Statistics) -> None:
        super().__init__(maps, weights)
        self.statistics = statistics
        self.inverse = (statistics.variance + statistics.eps).rsqrt()
        self.factor = weights.scale * self.inverse
        self.offset = weights.shift - statistics.mean * self.factor
        self.cells = self.height // 2, self.width // 2

    def answers(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, h, w, 32) and (N, h / 2, w / 2, 32)."""
        separated = self.weights.point_bias.new_empty(self.count, self.height, self.width, len(self.weights.point))
        skipped = separated.new_empty(self.count, *self.cells, len(self.weights.skip))
        spare = torch.empty_like(features[0])
        for (windows, _), values in reversed(list(zip(self.parts, features, strict=True))):
            maps = self._maps(self._seen(values, spare))
            spread = F.conv2d(maps, self.weights.depth, padding=1, groups=self.channels)
            pointed = F.conv2d(spread, self.weights.point, self.weights.point_bias)
            separated[windows] = pointed.permute(0, 2, 3, 1)
            answer = F.conv2d(maps, self.weights.skip, self.weights.skip_bias, stride=2, padding=1)
            skipped[windows] = answer.permute(0, 2, 3, 1)
        return separated, skipped

    def gradients(
        self, features: list[Tensor], separated: Tensor, skipped: Tensor
    ) -> tuple[_Slopes, tuple[Tensor, ...]]:
        """What the features' gradient is made of, and the gradients of scale, shift, depth, point and skip.

        Args:
            features: (m, D) of each part.
            separated: Gradient (N, h, w, 32).
            skipped: Gradient (N, h / 2, w / 2, 32).
        """
        w, normalised = self.weights, []
        depth, point, skip = (torch.zeros_like(part) for part in (w.depth, w.point, w.skip))
        scale, shift = torch.zeros_like(w.scale), torch.zeros_like(w.shift)
        corners, back = self._corners(skipped), w.point.flatten(1).T.contiguous()
        spare = torch.empty_like(features[0])
        for (windows, _), values in zip(self.parts, features, strict=True):
            seen = self._seen(values, spare)
            maps = self._maps(seen)
            spread = F.conv2d(maps, w.depth, padding=1, groups=self.channels)
            rows = separated[windows].view(-1, separated.shape[3])
            point.add_(outer_product(rows, _rows(spread, self.channels)).view_as(point))
            del spread  # what comes next finds its memory still in the cache
            to_spread = self._maps(product(rows, back))
            depth.add_(kernel_back(to_spread, maps, w.depth, stride=1))
            # the way back through a convolution with stride 1 is the convolution with the kernel turned
            slope = _rows(F.conv2d(to_spread, w.depth.flip(2, 3), padding=1, groups=self.channels), self.channels)
            del to_spread
            skip.add_(kernel_back(skipped[windows].permute(0, 3, 1, 2), maps, w.skip, stride=2))
            self._skip_back(corners, windows, slope)
            normalised.append(rectifier_back(slope, seen))
            to_scale, to_shift = self._norm_gradients(slope, values)
            scale.add_(to_scale)
            shift.add_(to_shift)
        pixels = self.count * self.height * self.width
        through_variance = -self.factor * self.inverse * scale / pixels
        through_mean = -self.factor * shift / pixels - through_variance * self.statistics.mean
        biases = separated.sum((0, 1, 2)), skipped.sum((0, 1, 2))
        slopes = _Slopes(normalised, self.factor, through_variance, through_mean)
        return slopes, (scale, shift, depth, point, biases[0], skip, biases[1])

    def _corners(self, skipped: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What comes back through the skip convolution to each corner of the cells, as factors of a product.

        Args:
            skipped: Gradient of its answer (N, h / 2, w / 2, 32).

        Returns:
            For each corner (N, cells, taps * 32) and (D, taps * 32).
        """
        taps = skipped.new_zeros(*skipped.shape[:3], 2, 2, skipped.shape[3])
        for i, j in CORNERS:
            taps[:, : self.cells[0] - i, : self.cells[1] - j, i, j] = skipped[:, i:, j:]
        parts = [taps[:, :, :, : 1 + row, : 1 + column].flatten(3).flatten(1, 2) for row, column in CORNERS]
        kernels = [_corner(self.weights.skip, *corner) for corner in CORNERS]
        return list(zip(parts, kernels, strict=True))

    def _skip_back(self, corners: list[tuple[Tensor, Tensor]], windows: slice, slope: Tensor) -> None:
        """Add what comes back through the skip convolution to the normalised features' gradient (m, D)."""
        cells = slope.view(-1, self.cells[0], 2, self.cells[1], 2, self.channels)
        for (row, column), (taps, kernel) in zip(CORNERS, corners, strict=True):
            corner = cells[:, :, row, :, column]
            corner.add_(product(taps[windows].flatten(0, 1), kernel).view(corner.shape))

    def _norm_gradients(self, slope: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """What a part adds to the gradients of scale and shift."""
        mean, variance, eps = self.statistics
        answer: tuple[Tensor | None, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
            slope, features, self.weights.scale, mean, variance, None, None, False, eps, [False, True, True]
        )
        return answer[1], answer[2]

    def _seen(self, features: Tensor, spare: Tensor) -> Tensor:
        """Features (m, D) normalised and rectified, in spare memory."""
        return torch.addcmul(self.offset, features, self.factor, out=spare[: len(features)]).relu_()

    def _maps(self, rows: Tensor) -> Tensor:
        """(m, D) as (n, D, h, w)."""
        return rows.view(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)


def _together(means: Tensor, variances: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and population variance (D,) of all parts from those of each, (parts, D)."""
    weight = torch.tensor(sizes, dtype=torch.float64)[:, None] / sum(sizes)
    mean = (weight * means).sum(0)
    variance = (weight * (variances + (means - mean).square())).sum(0)
    return mean.to(means.dtype), variance.to(means.dtype)


def _band_matrix(kernel: Tensor, bands: int) -> Tensor:
    """The first convolution, (16, 1, 1, 3), as a matrix (bands * 16, bands)."""
    matrix = kernel.new_zeros(bands, len(kernel), bands)
    for tap in range(min(3, bands + 1)):
        matrix.diagonal(tap - 1, 0, 2).copy_(kernel[:, 0, 0, tap, None])
    return matrix.flatten(0, 1)


def _band_kernel(matrix: Tensor, bands: int) -> Tensor:
    """Gradient of the kernel from that of ``_band_matrix``."""
    cube = matrix.view(bands, -1, bands)
    kernel = cube.new_zeros(cube.shape[1], 1, 1, 3)
    for tap in range(3):
        kernel[:, 0, 0, tap] = cube.diagonal(tap - 1, 0, 2).sum(-1)
    return kernel


def _turned(weights: FrontWeights) -> FrontWeights:
    """The same for windows that are turned by half a circle."""
    depth, skip = (kernel.flip(2, 3) for kernel in (weights.depth, weights.skip))
    return weights._replace(depth=depth, skip=skip)


def _turned_maps(rows: Tensor) -> Tensor:
    """(N, h, w, C) turned back, as (N, C, h, w)."""
    return rows.flip(1, 2).permute(0, 3, 1, 2)


def _corner(kernel: Tensor, row: int, column: int) -> Tensor:
    """The taps of a turned (32, D, 3, 3) kernel that see one corner of a cell, as a matrix (D, taps * 32)."""
    taps = kernel[:, :, TAPS_OF[row]][:, :, :, TAPS_OF[column]]
    return taps.permute(1, 2, 3, 0).flatten(1)


def _rows(maps: Tensor, channels: int) -> Tensor:
    """(n, k, h, w) as rows of ``channels``, without copying where the channels lie last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, channels)
