"""Residual shift between two pictures of the same ground that show it in different contrast: radar against optical.

What both sensors share is where things end: field edges, banks, roads. Which side is the brighter differs from edge to
edge. So each picture becomes a field of *edge directions with doubled angle*: the gradient (gx, gy) read as a complex
number and squared. Turning a gradient round (bright to dark becomes dark to bright) leaves its square as it is, and
speckle, which has no preferred direction, adds nothing to it on average (J. Bigun and G. Granlund, 1987, Optimal
orientation detection of linear symmetry, ICCV, 433-438). Two such fields are correlated at all displacements; the peak
is refined on an upsampled Fourier transform (M. Guizar-Sicairos, S. Thurman and J. Fienup, 2008, Efficient subpixel
image registration algorithms, Optics Letters 33, 156-158).

How far a peak can be trusted is read off the correlation itself, at displacements that no sensor is off by: how high it
rises there by chance, and how steep chance slopes are. Chance slopes over the peak's own curvature are the shift's
standard error, along each direction: a single straight bank fixes one direction and leaves the other open.

Pure functions; rows grow southward, columns eastward, all shifts in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

#: Gradients are taken over a Gaussian of this standard deviation, pixels: wide enough for single-look speckle.
SIGMA_PX = 1.5
#: Reach of that Gaussian, pixels: what lies nearer to a gap is not used.
REACH_PX = 5
#: The rim of a block fades out over this share of its side, so that its border is no edge.
FADE = 0.12
#: Largest shift looked for, pixels.
SEARCH_PX = 8
#: Displacements from here on show what correlation there is by chance, pixels; up to a quarter of the block.
CHANCE_FROM_PX = 14
#: Least share of a block that both pictures must see.
LEAST_COVER = 0.35
#: A peak must stand this many standard deviations above chance, and this much above the next one.
LEAST_HEIGHT, LEAST_RATIO = 6.0, 1.25
#: The standard error in the weaker direction must be below this, pixels.
MOST_ERROR_PX = 0.5
#: The two halves of a block may differ by this much, pixels, and by this many standard errors of the whole: each half
#: has 1.4 times its error, their difference twice, and 3 of those are exceeded once in a hundred.
HALVES_PX, HALVES_ERRORS = 0.5, 6.0
#: Steps per pixel, and reach, of the fine grid around a peak.
FINE_STEPS, FINE_REACH_PX = 8, 1.5


@dataclass(frozen=True)
class Edges:
    """Edge directions of one picture."""

    field: Complexes
    """(y, x) complex: direction with doubled angle, length 0 (no edge) to 1 (strong edge)."""
    weight: Floats
    """(y, x), 0 to 1: how much a pixel counts; 0 near gaps and at the rim."""


@dataclass(frozen=True)
class Tie:
    """What one block says about the shift."""

    shift_px: tuple[float, float]
    """(rows, columns) by which the picture lies off the reference: positive is south and east."""
    covariance: tuple[float, float, float]
    """Of the shift: row variance, row-column covariance, column variance, square pixels."""
    height: float
    """Height of the peak above chance, standard deviations."""
    ratio: float
    """The peak over the next highest one."""
    halves_px: float
    """By how much the shifts of the block's two halves differ, pixels; NaN where a half says nothing."""
    fault: str = ""
    """Why the block is not to be trusted; empty for a good one."""

    @property
    def error_px(self) -> float:
        """Standard error in the direction in which it is largest, pixels."""
        a, b, c = self.covariance
        return math.sqrt(max((a + c) / 2 + math.hypot((a - c) / 2, b), 0.0))


def silent(fault: str) -> Tie:
    """A block that says nothing, and why."""
    nan = float("nan")
    return Tie((nan, nan), (nan, nan, nan), nan, nan, nan, fault)


def edges_of(bands: Floats, *, power: bool) -> Edges:
    """Edge directions of a picture, of all its bands together.

    Args:
        bands: (band, y, x) float64, NaN where not observed: reflectance, or linear radar power.
        power: True for radar: gradients relative to the power itself, so that the multiplicative speckle of bright
            ground does not count for more than that of dark ground.

    Returns:
        Directions and weights, (y, x); a field of zeros where nothing was observed.
    """
    seen = np.asarray(np.isfinite(bands).all(axis=0), dtype=np.bool_)
    total = np.zeros(seen.shape, dtype=np.complex128)
    energy = np.zeros(seen.shape)
    weight = _weight(seen)
    used = weight > 0
    if not used.any():
        return Edges(total, weight)
    for band in bands:
        gradient = _gradient(band, seen, power=power)
        square = gradient * gradient
        level = float(np.mean(np.abs(square[used])))
        if level > 0:
            total += square / level
            energy += np.abs(square) / level
    # Strong edges count alike, and what is far below the block's mean is noise.
    mean = float(np.mean(energy[used]))
    if mean > 0:
        total /= energy + mean
    total -= np.sum(total * weight) / np.sum(weight)  # else a block's main direction would correlate everywhere
    return Edges(total, weight)


def measure(reference: Edges, picture: Edges) -> Tie:
    """The shift of a picture against a reference, from one block.

    Args:
        reference: Edges of the reference, (y, x).
        picture: Edges of the picture, same shape.

    Returns:
        The shift with its error, and whether it is to be trusted (``fault``).
    """
    size = min(reference.weight.shape)
    if float(np.mean((reference.weight > 0) & (picture.weight > 0))) < LEAST_COVER:
        return silent("too little of it is seen by both")
    whole = _correlate(reference, picture)
    peak = _peak(whole, size)
    if isinstance(peak, str):
        return silent(peak)
    halves = [_peak(_correlate(_part(reference, half), picture), size) for half in _halves(reference.weight.shape)]
    apart = float("nan")
    if not any(isinstance(half, str) for half in halves):
        first, second = (half.shift_px for half in halves if not isinstance(half, str))
        apart = math.hypot(first[0] - second[0], first[1] - second[1])
    tie = Tie(peak.shift_px, peak.covariance, peak.height, peak.ratio, apart)
    return Tie(tie.shift_px, tie.covariance, tie.height, tie.ratio, apart, _fault(tie))


def _fault(tie: Tie) -> str:
    """Why a peak is not to be trusted."""
    if tie.height < LEAST_HEIGHT or tie.ratio < LEAST_RATIO:
        return "its peak does not stand out from chance"
    if not tie.error_px <= MOST_ERROR_PX:
        return "its edges leave one direction open"
    allowed = max(HALVES_PX, HALVES_ERRORS * tie.error_px)
    if not tie.halves_px <= allowed:
        return "its two halves disagree"
    return ""


@dataclass(frozen=True)
class _Surface:
    """A correlation: as a spectrum, for any displacement, and at whole pixels, row 0 and column 0 in the corner."""

    spectrum: Complexes
    overlap_spectrum: Complexes
    whole: Floats
    overlap: Floats


@dataclass(frozen=True)
class _Peak:
    shift_px: tuple[float, float]
    covariance: tuple[float, float, float]
    height: float
    ratio: float


def _gradient(band: Floats, seen: NDArray[np.bool_], *, power: bool) -> Complexes:
    """Gradient as a complex number, columns real, rows imaginary; gaps are filled with the mean and never used."""
    filled = np.where(seen, band, float(np.mean(band[seen])))

    def smooth(rows: int, cols: int) -> Floats:
        return np.asarray(
            ndimage.gaussian_filter(filled, SIGMA_PX, order=(rows, cols), mode="nearest", radius=REACH_PX),
            dtype=np.float64,
        )

    gradient = smooth(0, 1) + 1j * smooth(1, 0)
    if power:
        with np.errstate(divide="ignore", invalid="ignore"):
            gradient = np.nan_to_num(gradient / smooth(0, 0), nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(gradient, dtype=np.complex128)


def _weight(seen: NDArray[np.bool_]) -> Floats:
    """1 in the middle, fading to 0 at the block's rim; 0 within reach of a gap."""
    height, width = seen.shape
    if not seen.all():
        side = 2 * REACH_PX + 1
        seen = ndimage.binary_erosion(seen, structure=np.ones((side, side), dtype=np.bool_), border_value=1)
    return np.asarray(np.outer(_fade(height), _fade(width)) * seen, dtype=np.float64)


def _fade(size: int) -> Floats:
    """A raised cosine at both ends, 0 on the outermost pixels."""
    rim = max(FADE * size, 1.0)
    from_edge = np.minimum(np.arange(size), np.arange(size)[::-1])
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.clip(from_edge / rim, 0.0, 1.0)), dtype=np.float64)


def _part(edges: Edges, mask: NDArray[np.bool_]) -> Edges:
    return Edges(edges.field, edges.weight * mask)


def _halves(shape: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A block as a chequerboard of 4 x 4 squares: both halves see every part of it."""
    rows = (np.arange(shape[0]) * 4 // shape[0])[:, np.newaxis]
    cols = (np.arange(shape[1]) * 4 // shape[1])[np.newaxis, :]
    even = (rows + cols) % 2 == 0
    return even, ~even


def _correlate(reference: Edges, picture: Edges) -> _Surface:
    """Mean product of the two fields where they overlap, at every displacement."""
    spectrum = np.conj(fft.fft2(reference.field * reference.weight)) * fft.fft2(picture.field * picture.weight)
    overlap = np.conj(fft.fft2(reference.weight)) * fft.fft2(picture.weight)
    top, bottom = fft.ifft2(spectrum).real, fft.ifft2(overlap).real
    # Without the division a common rim would pull every shift toward zero.
    return _Surface(spectrum, overlap, np.asarray(top / np.maximum(bottom, bottom[0, 0] * 0.05)), bottom)


def _peak(surface: _Surface, size: int) -> _Peak | str:
    """The peak within reach, to a fraction of a pixel, or why there is none."""
    height, width = surface.whole.shape
    down = np.fft.fftfreq(height, 1 / height)[:, np.newaxis]
    right = np.fft.fftfreq(width, 1 / width)[np.newaxis, :]
    distance = np.maximum(np.abs(down), np.abs(right))
    chance = (distance >= CHANCE_FROM_PX) & (distance <= max(size // 4, CHANCE_FROM_PX + 6))
    spread = float(np.std(surface.whole[chance]))
    if not spread > 0:
        return "it shows nothing"
    near = np.where(distance <= SEARCH_PX, surface.whole, -np.inf)
    row, col = np.unravel_index(int(np.argmax(near)), near.shape)
    first = float(down[row, 0]), float(right[0, col])
    if max(abs(first[0]), abs(first[1])) > SEARCH_PX - 1:
        return "its peak lies at the edge of what is searched"
    fine = _fine(surface, first)
    shift, hessian, top = _vertex(fine, first)
    if shift is None:
        return "its correlation has no peak"
    slopes = _slopes(surface.whole, chance)
    inverse = np.linalg.inv(hessian)
    covariance = inverse @ slopes @ inverse.T
    own = np.hypot(down - shift[0], right - shift[1]) <= 2.5 * SIGMA_PX
    others = float(np.max(np.where((distance <= SEARCH_PX + 4) & ~own, surface.whole, -np.inf)))
    middle = float(np.mean(surface.whole[chance]))
    return _Peak(
        shift,
        (float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
        (top - middle) / spread,
        (top - middle) / max(others - middle, spread),
    )


def _fine(surface: _Surface, about: tuple[float, float]) -> Floats:
    """The correlation on a fine grid around a displacement, by Fourier sums at just these places."""
    height, width = surface.whole.shape
    steps = np.arange(-round(FINE_REACH_PX * FINE_STEPS), round(FINE_REACH_PX * FINE_STEPS) + 1) / FINE_STEPS
    rows = np.exp(2j * np.pi * np.outer(about[0] + steps, np.fft.fftfreq(height)))
    cols = np.exp(2j * np.pi * np.outer(np.fft.fftfreq(width), about[1] + steps))
    top, bottom = (rows @ spectrum @ cols for spectrum in (surface.spectrum, surface.overlap_spectrum))
    return np.asarray(top.real / np.maximum(bottom.real, 1e-9), dtype=np.float64)


def _vertex(fine: Floats, about: tuple[float, float]) -> tuple[tuple[float, float] | None, Floats, float]:
    """Top of the paraboloid through a peak's surroundings: place, second derivatives per pixel, value."""
    top = np.unravel_index(int(np.argmax(fine)), fine.shape)
    reach = FINE_STEPS // 2
    row, col = (int(np.clip(at, reach, fine.shape[0] - 1 - reach)) for at in top)
    part = fine[row - reach : row + reach + 1, col - reach : col + reach + 1]
    steps = np.arange(-reach, reach + 1) / FINE_STEPS
    y, x = (grid.ravel() for grid in np.meshgrid(steps, steps, indexing="ij"))
    design = np.stack([np.ones_like(x), y, x, y * y, x * y, x * x], axis=1)
    c = np.linalg.lstsq(design, part.ravel(), rcond=None)[0]
    hessian = np.array([[2 * c[3], c[4]], [c[4], 2 * c[5]]])
    if not (hessian[0, 0] < 0 and np.linalg.det(hessian) > 0):
        return None, hessian, float(c[0])
    step = -np.linalg.solve(hessian, np.array([c[1], c[2]]))
    if np.abs(step).max() > 1.0:
        return None, hessian, float(c[0])
    base = FINE_REACH_PX * FINE_STEPS
    shift = (
        about[0] + (row - base) / FINE_STEPS + float(step[0]),
        about[1] + (col - base) / FINE_STEPS + float(step[1]),
    )
    return shift, hessian, float(c[0] + (c[1] * step[0] + c[2] * step[1]) / 2)


def _slopes(whole: Floats, chance: NDArray[np.bool_]) -> Floats:
    """Covariance of the correlation's slopes by chance, per pixel, (2, 2)."""
    down = (np.roll(whole, -1, axis=0) - np.roll(whole, 1, axis=0))[chance] / 2
    right = (np.roll(whole, -1, axis=1) - np.roll(whole, 1, axis=1))[chance] / 2
    return np.asarray(np.cov(np.stack([down, right])), dtype=np.float64)
