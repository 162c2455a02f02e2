"""The front of WetMapFormer over a tile: all that neighbouring windows can share.

A window pads feature maps with zeros at its own border, so a value depends on where in the window it lies, but only
through *which taps of the kernels fall inside*. Along one axis the first separable convolution has three such classes,
the second five and the pooling four; in two dimensions every map below is computed once per pixel of the tile for each
pair of a row class and a column class. Taps that fall outside are left out, not multiplied by zero.

Maps lie pixel by pixel, channels last, the tile's rows one after the other, with spare pixels before and after: a shift
in the tile is a shift in memory. What a shift wraps around into the next row is never read by any window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wetmap.models.wetmapformer.folding import Affine, linear
from wetmap.models.wetmapformer.network import EXTRACTOR_WIDTH, Extractor, Spectral
from wetmap.models.wetmapformer.spectral_form import SpectralForm, together

#: Memory is looked at in rows of this many pixels where each channel has a weight of its own.
RUN = 16

#: First separable convolution: the taps inside, for the first position of the window, those between, and the last.
FIRST = ((0, 1), (-1, 0, 1), (-1, 0))
#: Second: (tap, class of the first there) for the first position, the second, those between, the last two.
SECOND = (
    ((0, 0), (1, 1)),
    ((-1, 0), (0, 1), (1, 1)),
    ((-1, 1), (0, 1), (1, 1)),
    ((-1, 1), (0, 1), (1, 2)),
    ((-1, 1), (0, 2)),
)
#: Pooling by 3 with stride 2, padded at the end only: (shift, class of the second there).
POOLED = (((0, 0), (1, 1), (2, 2)), ((0, 2), (1, 2), (2, 2)), ((0, 2), (1, 2), (2, 3)), ((0, 3), (1, 4)))
#: The skip convolution, stride 2, padded at the end only: taps inside for all positions but the last, and for the last.
SKIPPED = ((0, 1, 2), (0, 1))


def pooled_class(position: int, size: int) -> int:
    """Class (of ``POOLED``) of a position of the pooled window, which is ``size`` (>= 3) long."""
    return {0: 0, size - 2: 2, size - 1: 3}.get(position, 1)


def skipped_class(position: int, size: int) -> int:
    """Class (of ``SKIPPED``) of a position of the pooled window."""
    return int(position == size - 1)


@dataclass(frozen=True)
class Maps:
    """The shared maps of a tile, (classes of rows, classes of columns, rows, columns, 32).

    The value at (row, column) is that of the position whose *own* pixel is there: position i of the pooled window of
    the answer pixel whose window starts at row o is at row o + 2 i.
    """

    pooled: Tensor
    """The encoder's answer, 4 x 4 classes."""
    skipped: Tensor
    """The skip convolution's, 2 x 2 classes."""

    def at(self, row: int, column: int, size: int, rows: slice, tile: int) -> tuple[Tensor, Tensor]:
        """One position of the pooled window, for the answer pixels of some rows of the tile.

        Args:
            row: Row of the position.
            column: Its column.
            size: Side of the pooled window.
            rows: Rows of the tile.
            tile: Side of the tile.

        Returns:
            Pooled and skipped, (rows, tile, 32) each.
        """
        place = slice(rows.start + 2 * row, rows.stop + 2 * row), slice(2 * column, 2 * column + tile)
        pooled = self.pooled[pooled_class(row, size), pooled_class(column, size)]
        skipped = self.skipped[skipped_class(row, size), skipped_class(column, size)]
        return pooled[place], skipped[place]


class Front:
    """Folded weights of the front, and its evaluation over a tile.

    Args:
        spectra: Spectral part, in float64 and evaluation mode.
        extractor: Extractor, likewise.
        bands: Number of bands.
        like: A tensor of the dtype and on the device to compute with.
    """

    def __init__(self, spectra: Spectral, extractor: Extractor, bands: int, like: Tensor) -> None:
        self._spectra = SpectralForm(spectra, bands, like)
        taps = _fold_taps(extractor)
        constant = taps.weight @ self._spectra.constant + taps.bias
        self._taps = Affine(taps.weight * self._spectra.scale, constant).to(like)
        second = extractor.separable2
        self._depth = second.depthwise.weight[:, 0].permute(1, 2, 0).to(like).repeat(1, 1, RUN).contiguous()
        self._point = linear(second.pointwise).to(like)

    def __call__(self, normalised: Tensor) -> Maps:
        """The shared maps of a tile.

        Args:
            normalised: (C, rows, columns), dimensionless, without NaN.
        """
        _, rows, columns = normalised.shape
        plane = _Plane(rows, columns)
        pixels = normalised.permute(1, 2, 0).reshape(rows * columns, -1)
        first, skipped = self._columns_of_taps(pixels, plane)
        first = _rows_of_first(first, plane)
        pooled = self._pool(first, plane)
        return Maps(plane.image(pooled), plane.image(_rows_of_skipped(skipped, plane)))

    def _columns_of_taps(self, pixels: Tensor, plane: _Plane) -> tuple[Tensor, Tensor]:
        """Products of each tap, summed over the taps of each class of columns.

        Returns:
            (3 classes of columns, 3 row taps, length, 32) and (2, 3, length, 32).
        """
        first = plane.empty(len(FIRST), 3, like=pixels)
        skipped = plane.empty(len(SKIPPED), 3, like=pixels)
        step = max(1, together(pixels) // plane.columns) * plane.columns
        for start in range(0, len(pixels), step):
            part = self._taps(self._spectra(pixels[start : start + step]))
            taps = part.view(len(part), 2, 3, 3, EXTRACTOR_WIDTH).permute(1, 2, 3, 0, 4)  # kind, column, row, pixel, 32
            place = slice(plane.guard + start, plane.guard + start + len(part))
            for column, inside in enumerate(FIRST):
                _sum_shifted(first[column, :, place], [(taps[0, tap + 1], tap) for tap in inside])
            for column, inside in enumerate(SKIPPED):
                _sum_shifted(skipped[column, :, place], [(taps[1, tap], tap) for tap in inside])
        return first, skipped

    def _pool(self, first: Tensor, plane: _Plane) -> Tensor:
        """Second convolution and pooling: (3, 3, length, 32) to (4 classes of rows, 4 of columns, length, 32)."""
        tall = first.new_empty(len(SECOND), len(POOLED), plane.length, EXTRACTOR_WIDTH)
        for column, terms in enumerate(SECOND):
            spread = self._spread(first, terms, plane)
            mixed = self._point(spread.view(-1, EXTRACTOR_WIDTH)).view_as(spread)
            for row, group in enumerate(POOLED):
                _maximum(tall[column, row], [(mixed[c], shift * plane.columns) for shift, c in group])
        wide = first.new_empty(len(POOLED), len(POOLED), plane.length, EXTRACTOR_WIDTH)
        for column, group in enumerate(POOLED):
            _maximum(wide[:, column], [(tall[c], shift) for shift, c in group])
        return wide

    def _spread(self, first: Tensor, columns: tuple[tuple[int, int], ...], plane: _Plane) -> Tensor:
        """Depthwise part of the second convolution for one class of columns: (5 classes of rows, length, 32)."""
        sums: dict[int, Tensor] = {}
        answer = first.new_empty(len(SECOND), plane.length, EXTRACTOR_WIDTH)
        for tap in (-1, 0, 1):
            classes = [c for terms in SECOND for t, c in terms if t == tap]
            low, high = min(classes), max(classes) + 1
            sums[tap] = plane.empty(len(FIRST), like=first)
            target = plane.runs(sums[tap][low:high])
            for number, (shift, column) in enumerate(columns):
                source, weight = plane.runs(first[low:high, column], shift), self._depth[tap + 1, shift + 1]
                if number:
                    target.addcmul_(source, weight)
                else:
                    torch.mul(source, weight, out=target)
        for row, terms in enumerate(SECOND):
            _add(answer[row], [plane.core(sums[t][c], t * plane.columns) for t, c in terms])
        return answer


class _Plane:
    """How a tile lies in memory: rows one after the other between two guards, in whole runs."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.length = -(-rows * columns // RUN) * RUN
        self.guard = 2 * columns + RUN

    def empty(self, *lead: int, like: Tensor) -> Tensor:
        """(lead..., guard + length + guard, 32), whose guards are 0."""
        planes = like.new_empty(*lead, self.length + 2 * self.guard, EXTRACTOR_WIDTH)
        end = self.guard + self.rows * self.columns
        planes.narrow(-2, 0, self.guard).zero_()
        planes.narrow(-2, end, planes.shape[-2] - end).zero_()
        return planes

    def core(self, planes: Tensor, shift: int = 0) -> Tensor:
        """The tile without its guards, looked at from ``shift`` pixels further on."""
        return planes.narrow(-2, self.guard + shift, self.length)

    def runs(self, planes: Tensor, shift: int = 0) -> Tensor:
        """The same as (lead..., runs, RUN * 32)."""
        inner = self.core(planes, shift)
        return inner.view(*inner.shape[:-2], self.length // RUN, RUN * EXTRACTOR_WIDTH)

    def image(self, planes: Tensor) -> Tensor:
        """(lead..., length, 32) as (lead..., rows, columns, 32)."""
        inner = planes.narrow(-2, 0, self.rows * self.columns)
        return inner.view(*inner.shape[:-2], self.rows, self.columns, EXTRACTOR_WIDTH)


def _sum_shifted(target: Tensor, terms: list[tuple[Tensor, int]]) -> None:
    """Sum (..., pixels, 32) terms, each looked at from its shift on; 0 where one of them ends."""
    low = -min(shift for _, shift in terms)
    high = max(shift for _, shift in terms)
    length = target.shape[-2] - low - high
    _add(target.narrow(-2, low, length), [term.narrow(-2, low + shift, length) for term, shift in terms])
    target.narrow(-2, 0, low).zero_()
    target.narrow(-2, low + length, high).zero_()


def _rows_of_first(sums: Tensor, plane: _Plane) -> Tensor:
    """First separable convolution with its rectifier: (3 columns, 3 row taps, ...) to (3 rows, 3 columns, ...)."""
    answer = plane.empty(len(FIRST), len(FIRST), like=sums)
    for row, taps in enumerate(FIRST):
        _add(plane.core(answer[row]), [plane.core(sums[:, tap + 1], tap * plane.columns) for tap in taps])
    return answer.relu_()


def _rows_of_skipped(sums: Tensor, plane: _Plane) -> Tensor:
    """Skip convolution: (2 columns, 3 row taps, ...) to (2 rows, 2 columns, length, 32)."""
    answer = sums.new_empty(len(SKIPPED), len(SKIPPED), plane.length, EXTRACTOR_WIDTH)
    for row, taps in enumerate(SKIPPED):
        _add(answer[row], [plane.core(sums[:, tap], tap * plane.columns) for tap in taps])
    return answer


def _add(target: Tensor, terms: list[Tensor]) -> None:
    torch.add(terms[0], terms[1], out=target)
    for term in terms[2:]:
        target += term


def _maximum(target: Tensor, terms: list[tuple[Tensor, int]]) -> None:
    """Largest of (..., pixels, 32) terms, each looked at from its shift (>= 0) on; 0 where one of them ends."""
    end = max(shift for _, shift in terms)
    length = target.shape[-2] - end
    inner = target.narrow(-2, 0, length)
    parts = [term.narrow(-2, shift, length) for term, shift in terms]
    torch.maximum(parts[0], parts[1], out=inner)
    for part in parts[2:]:
        torch.maximum(inner, part, out=inner)
    target.narrow(-2, length, end).zero_()


def _fold_taps(extractor: Extractor) -> Affine:
    """Each tap's own product of the two convolutions that look at spectral features.

    The answers' index is (first separable or skip, column tap, row tap, filter). The biases ride on the one tap that no
    class leaves out: the centre of the separable convolution, the first of the skip convolution.
    """
    depth, point = extractor.separable1.depthwise.weight[:, 0], extractor.separable1.pointwise
    first = torch.einsum("od,drc->crod", point.weight[:, :, 0, 0], depth)
    skip = extractor.skip.weight.permute(3, 2, 0, 1)
    bias = first.new_zeros(2, 3, 3, EXTRACTOR_WIDTH)
    if point.bias is not None and extractor.skip.bias is not None:
        bias[0, 1, 1], bias[1, 0, 0] = point.bias, extractor.skip.bias
    return Affine(torch.stack([first, skip]).reshape(-1, depth.shape[0]), bias.flatten())
