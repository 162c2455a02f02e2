"""What is kept of a model's answer beside the class and its probability: every probability, and how even they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

#: Percent are 0 to 100; this stands where nothing is mapped.
NO_PERCENT = 255


@dataclass(frozen=True)
class Keep:
    """What is asked for; nothing costs nothing."""

    probabilities: bool = False
    """The probability of every class."""
    entropy: bool = False
    """Their normalised entropy."""

    @property
    def anything(self) -> bool:
        """Whether anything is asked for."""
        return self.probabilities or self.entropy

    def pixel_bytes(self, classes: int) -> int:
        """Bytes per pixel of what is kept."""
        return classes * self.probabilities + self.entropy


#: Nothing beside the class and its probability.
NOTHING = Keep()


class Layers:
    """What is kept of one block, filled tile by tile."""

    def __init__(self, keep: Keep, valid: NDArray[np.bool_]) -> None:
        """Begin a block.

        Args:
            keep: What is asked for.
            valid: Pixels that are mapped, (height, width); elsewhere every layer is 255.
        """
        self._keep, self._valid = keep, valid
        self.probabilities: NDArray[np.uint8] | None = None
        self.entropy: NDArray[np.uint8] | None = None

    def add(self, answer: NDArray[np.float32], y: int, x: int) -> None:
        """Take a tile's answer, (K, T, T), at a place of the block; what hangs over the block's edge is left out."""
        if not self._keep.anything:
            return
        valid = self._valid[y : y + answer.shape[1], x : x + answer.shape[2]]
        height, width = valid.shape
        place = (slice(y, y + height), slice(x, x + width))
        if self._keep.probabilities:
            if self.probabilities is None:
                self.probabilities = np.full((len(answer), *self._valid.shape), NO_PERCENT, dtype=np.uint8)
            for number, one in enumerate(answer):
                self.probabilities[number][place][valid] = percent(one[:height, :width])[valid]
        if self._keep.entropy:
            if self.entropy is None:
                self.entropy = np.full(self._valid.shape, NO_PERCENT, dtype=np.uint8)
            # of the whole tile: the same numbers however the block was cut
            self.entropy[place][valid] = percent(normalised_entropy(answer)[:height, :width])[valid]


def percent(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Shares 0-1 in whole percent, halves to the even number; what roundings put beyond 0 or 1 counts as that."""
    found: NDArray[np.uint8] = np.rint(np.clip(share, 0, 1) * 100).astype(np.uint8)
    return found


def normalised_entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shannon entropy of the classes' probabilities as a share of the most there can be.

    ``-sum p ln p / ln K`` (Shannon 1948, A Mathematical Theory of Communication, section 6), with ``0 ln 0 = 0``.

    Args:
        probabilities: (K, height, width), summing to 1 over the classes.

    Returns:
        (height, width): 0 where one class is certain, 1 where all are equally likely; 0 with a single class.
    """
    total = np.zeros(probabilities.shape[1:], dtype=np.float64)
    if len(probabilities) < 2:
        return total
    for one in probabilities:  # class by class: little memory, and one order of the sum
        wide = one.astype(np.float64)
        total -= xlogy(wide, wide)
    return total / math.log(len(probabilities))
