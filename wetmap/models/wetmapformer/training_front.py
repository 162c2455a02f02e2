"""The front of WetMapFormer in training: the spectral part and what looks at it, a few windows at a time, and back.

Equal to the layers one by one but for rounding. These layers are nine tenths of a step's multiplications, and one by
one each of them writes and reads the spectral features of all windows, tens of megabytes. Here a few windows go through
all layers while a cache holds them; only batch norm, which needs every window, parts the way in two. What can be
computed from the spectral features again is not kept for the way back.

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

#: Spectral features that go through the layers together (4 MB of float32): few enough that the next layer finds them in
#: a cache, enough to keep the cores busy.
NUMBERS_TOGETHER = 1 << 20

#: Taps of the skip convolution that see the even and the odd pixels of an axis. Of a pair of pixels, the even one is
#: tap 0 of its own answer and tap 2 of the answer before; the odd one is tap 1 of its own.
TAPS_OF = (slice(0, 3, 2), slice(1, 2))
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
        weights = FrontWeights(*tensors)
        features, mean, variance = _Lines(maps, weights).features()
        inverse = (variance + eps).rsqrt()
        separated, skipped = _Windows(maps, weights, mean, inverse).answers(features)
        ctx.save_for_backward(maps, mean, inverse, *tensors, *features)
        ctx.mark_non_differentiable(mean, variance)
        return separated.permute(0, 3, 1, 2), skipped.permute(0, 3, 1, 2), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all that was given to ``forward``."""
        maps, mean, inverse, *tensors = ctx.saved_tensors
        count = len(FrontWeights._fields)
        weights, features = FrontWeights(*tensors[:count]), tensors[count:]
        separated, skipped = (part.permute(0, 2, 3, 1).contiguous() for part in gradients[:2])
        slopes, of_windows = _Windows(maps, weights, mean, inverse).gradients(features, separated, skipped)
        to_maps, of_lines = _Lines(maps, weights).gradients(features, slopes, to_maps=ctx.needs_input_grad[0])
        return to_maps, None, *of_lines, *of_windows


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
            slope = _rectified(slope.addcmul_(normalised, slopes.factor), values)
            biases[1].add_(slope.sum(0))
            hidden = self._hidden(here)
            to_lines, of_kernel = _gradients(
                self._lines(slope, windows), self._lines(hidden, windows), self.weights.conv2, (0, 2)
            )
            kernel.add_(of_kernel)
            to_hidden = _rows(to_lines, hidden.shape[1])
            to_hidden = _rectified(to_hidden, hidden)
            biases[0].add_(to_hidden.sum(0))
            matrix.add_(_outer(to_hidden, self.pixels[here]))
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
        mean: (D,) of the features.
        inverse: (D,), 1 / standard deviation.
    """

    def __init__(self, maps: Tensor, weights: FrontWeights, mean: Tensor, inverse: Tensor) -> None:
        super().__init__(maps, weights)
        self.mean, self.inverse = mean, inverse
        self.factor = weights.scale * inverse
        self.offset = weights.shift - mean * self.factor
        self.cells = self.height // 2, self.width // 2
        self.corners = [_corner(weights.skip, *corner).flatten(0, 2).contiguous() for corner in CORNERS]

    def answers(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, h, w, 32) and (N, h / 2, w / 2, 32)."""
        separated = self.weights.point_bias.new_empty(self.count, self.height, self.width, len(self.weights.point))
        skipped = self.weights.skip_bias.repeat(self.count, *self.cells, 1)
        spare = torch.empty_like(features[0])
        for (windows, _), values in reversed(list(zip(self.parts, features, strict=True))):
            seen = self._seen(values, spare)
            spread = F.conv2d(self._maps(seen), self.weights.depth, padding=1, groups=self.channels)
            pointed = F.conv2d(spread, self.weights.point, self.weights.point_bias)
            separated[windows] = pointed.permute(0, 2, 3, 1)
            self._skip(seen, skipped[windows])
        return separated, skipped

    def _skip(self, seen: Tensor, target: Tensor) -> None:
        """Add the skip convolution of normalised features (m, D) to (n, h / 2, w / 2, 32)."""
        cells = self._cells(seen)
        for (row, column), matrix in zip(CORNERS, self.corners, strict=True):
            rows = cells[:, :, row, :, column].reshape(-1, self.channels)
            taps = product(rows, matrix).view(*target.shape[:3], 2 - row, 2 - column, -1)
            for i in range(2 - row):
                for j in range(2 - column):
                    before = target[:, : self.cells[0] - i, : self.cells[1] - j]
                    before.add_(taps[:, i:, j:, i, j])

    def gradients(
        self, features: list[Tensor], separated: Tensor, skipped: Tensor
    ) -> tuple[_Slopes, tuple[Tensor, ...]]:
        """What the features' gradient is made of, and the gradients of scale, shift, depth, point and skip.

        Args:
            features: (m, D) of each part.
            separated: Gradient (N, h, w, 32).
            skipped: Gradient (N, h / 2, w / 2, 32).
        """
        normalised = []
        depth, point = torch.zeros_like(self.weights.depth), torch.zeros_like(self.weights.point)
        corners = [torch.zeros_like(matrix) for matrix in self.corners]
        turned = [matrix.T.contiguous() for matrix in self.corners]
        total, moment = torch.zeros_like(self.factor), torch.zeros_like(self.factor)
        spare = torch.empty_like(features[0])
        for (windows, _), values in zip(self.parts, features, strict=True):
            seen = self._seen(values, spare)
            maps = self._maps(seen)
            spread = F.conv2d(maps, self.weights.depth, padding=1, groups=self.channels)
            to_spread, of_point = _gradients(separated[windows].permute(0, 3, 1, 2), spread, self.weights.point, (0, 0))
            del spread  # what comes next finds its memory still in the cache
            to_seen, of_depth = _gradients(to_spread, maps, self.weights.depth, (1, 1))
            del to_spread
            point.add_(of_point)
            depth.add_(of_depth)
            slope = _rows(to_seen, self.channels)
            self._skip_back(skipped[windows], seen, slope, (turned, corners))
            normalised.append(_rectified(slope, seen))
            total.add_(slope.sum(0))
            moment.add_(torch.mul(slope, values, out=seen).sum(0))
            del slope, to_seen
        scale = self.inverse * (moment - self.mean * total)
        pixels = self.count * self.height * self.width
        through_variance = -self.factor * self.inverse * scale / pixels
        through_mean = -self.factor * total / pixels - through_variance * self.mean
        skip = torch.empty_like(self.weights.skip)
        for corner, matrix in zip(CORNERS, corners, strict=True):
            part = _corner(skip, *corner)
            part.copy_(matrix.view(part.shape))
        biases = separated.sum((0, 1, 2)), skipped.sum((0, 1, 2))
        slopes = _Slopes(normalised, self.factor, through_variance, through_mean)
        return slopes, (scale, total, depth, point, biases[0], skip, biases[1])

    def _skip_back(
        self, skipped: Tensor, seen: Tensor, slope: Tensor, weights: tuple[list[Tensor], list[Tensor]]
    ) -> None:
        """Add what comes back through the skip convolution.

        Args:
            skipped: Gradient of its answer (n, h / 2, w / 2, 32).
            seen: Normalised features (m, D).
            slope: Their gradient (m, D), added to.
            weights: The corners' matrices turned round, (D, taps * 32), and their gradients, added to.
        """
        taps = skipped.new_zeros(*skipped.shape[:3], 2, 2, skipped.shape[3])
        for i, j in CORNERS:
            taps[:, i:, j:, i, j] = skipped[:, : self.cells[0] - i, : self.cells[1] - j]
        cells, to_cells = self._cells(seen), self._cells(slope)
        for (row, column), turned, gradient in zip(CORNERS, *weights, strict=True):
            some = taps[:, :, :, : 2 - row, : 2 - column].reshape(-1, turned.shape[1])
            gradient.add_(_outer(some, cells[:, :, row, :, column].reshape(-1, self.channels)))
            corner = to_cells[:, :, row, :, column]
            corner.add_(product(some, turned).view(corner.shape))

    def _seen(self, features: Tensor, spare: Tensor) -> Tensor:
        """Features (m, D) normalised and rectified, in spare memory."""
        return torch.addcmul(self.offset, features, self.factor, out=spare[: len(features)]).relu_()

    def _maps(self, rows: Tensor) -> Tensor:
        """(m, D) as (n, D, h, w)."""
        return rows.view(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)

    def _cells(self, rows: Tensor) -> Tensor:
        """(m, D) as (n, h / 2, 2, w / 2, 2, D)."""
        return rows.view(-1, self.cells[0], 2, self.cells[1], 2, self.channels)


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


def _corner(kernel: Tensor, row: int, column: int) -> Tensor:
    """The taps of a (32, D, 3, 3) kernel that see one corner of a cell, as a view (rows, columns, 32, D)."""
    return kernel[:, :, TAPS_OF[row], TAPS_OF[column]].permute(2, 3, 0, 1)


def _rows(maps: Tensor, channels: int) -> Tensor:
    """(n, k, h, w) as rows of ``channels``, without copying where the channels lie last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, channels)


def _rectified(gradient: Tensor, answer: Tensor) -> Tensor:
    """The gradient behind a rectifier, in place."""
    done: Tensor = torch.ops.aten.threshold_backward.grad_input(gradient, answer, 0, grad_input=gradient)
    return done


def _gradients(gradient: Tensor, maps: Tensor, kernel: Tensor, padding: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Gradients of the maps and of the kernel of a convolution, depthwise if its kernel is."""
    groups = maps.shape[1] // kernel.shape[1]
    answer: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, maps, kernel, None, [1, 1], list(padding), [1, 1], False, [0, 0], groups, [True, True, False]
    )
    return answer[0], answer[1]


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """``left.T @ right``, (M, A) and (M, B) to (A, B), by the library that ``product`` prefers, as its gradient."""
    if left.dtype is not torch.float32:
        return left.T @ right
    images = (rows.view(1, 1, *rows.shape).permute(0, 3, 1, 2) for rows in (left, right))
    kernel = left.new_empty(1).expand(left.shape[1], right.shape[1], 1, 1)
    answer: tuple[Tensor | None, Tensor, Tensor | None] = torch.ops.aten.convolution_backward(
        *images, kernel, None, [1, 1], [0, 0], [2, 2], False, [0, 0], 1, [False, True, False]
    )
    return answer[1].flatten(1)
