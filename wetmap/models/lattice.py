"""Overlapping windows on one lattice of the grid, and the blending of what they answer.

A network that sees the whole of its input answers differently in two windows of the same ground, so that a map of
windows side by side has seams. Here windows of one side begin every ``step`` pixels from the grid's origin and overlap;
a pixel's answer is the mean of those of its windows, by weights that fall towards a window's border, are positive
everywhere and sum to 1 at every pixel. The lattice belongs to the grid: whoever computes a tile computes all the
windows that touch it, so that tiles and blocks leave no trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetmap.errors import UsageError


@dataclass(frozen=True)
class Lattice:
    """Windows of ``window`` pixels a side that begin at every multiple of ``step`` from the grid's origin.

    Raises:
        UsageError: The windows would leave gaps, or are empty.
    """

    window: int
    """Side of a window, pixels."""
    step: int
    """From one window to the next, pixels, 1 to ``window``; ``window``: side by side, no overlap."""

    def __post_init__(self) -> None:
        if not 1 <= self.step <= self.window:
            raise UsageError(
                f"Windows of {self.window} pixels every {self.step} pixels.", do="Give a step from 1 to the window."
            )

    @property
    def before(self) -> int:
        """Windows that begin before a multiple of the step and reach beyond it, along one axis."""
        return math.ceil(self.window / self.step) - 1

    @property
    def margin(self) -> int:
        """How far the windows that touch a tile of whole steps reach out of it at most, pixels: whole steps."""
        return self.before * self.step

    def count(self, tile: int) -> int:
        """Windows along one axis that touch a tile of ``tile`` pixels, a multiple of the step."""
        return tile // self.step + self.before

    def weights(self) -> NDArray[np.float64]:
        """Weight of a window's answer at each of its pixels along one axis, (window,), above 0.

        The weights of all windows of the lattice sum to 1 at every pixel; in two dimensions they are products. Before
        normalisation they rise linearly from half a pixel over the overlap, at most to the middle, and are then level.
        """
        place = np.arange(self.window)
        ramp = max(1, min(self.window - self.step, self.window // 2))
        rising = np.minimum(1.0, (np.minimum(place, self.window - 1 - place) + 0.5) / ramp)
        total = np.zeros(self.step)
        np.add.at(total, place % self.step, rising)
        return np.asarray(rising / total[place % self.step])

    def blend(self, rows: Iterable[Tensor], tile: int, *, classes: int, like: Tensor) -> Tensor:
        """Blend the answers of the windows that touch a tile.

        Args:
            rows: ``count(tile)`` rows of windows from the top, each (count, K, window, window), from the left.
            tile: Side of the tile, pixels, a multiple of the step.
            classes: K.
            like: A tensor of the answers' dtype and device.

        Returns:
            (K, tile, tile). Windows are added up in one order, so that the result is the same to the bit.
        """
        side = (self.count(tile) - 1) * self.step + self.window
        canvas = like.new_zeros(classes, side, side)
        axis = torch.from_numpy(self.weights()).to(like)
        weights = axis[:, None] * axis
        for y, answers in enumerate(rows):
            down = canvas[:, y * self.step : y * self.step + self.window]
            for x, weighted in enumerate(answers * weights):
                down[:, :, x * self.step : x * self.step + self.window] += weighted
        inner = slice(self.margin, self.margin + tile)
        return canvas[:, inner, inner]
