"""Where a map and its reference differ: in how much of each class there is, or in where it is; and kappa, for who asks.

R. G. Pontius and M. Millones (2011), Death to Kappa: birth of quantity disagreement and allocation disagreement for
accuracy assessment, International Journal of Remote Sensing 32(15), 4407-4429.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Disagreement:
    """Shares of the area, 0-1."""

    quantity: float
    """Disagreement that follows from mapping too much of some classes and too little of others."""
    allocation: float
    """Disagreement that swapping places could mend."""
    kappa: float
    """Cohen's kappa; NaN where chance alone agrees everywhere. It says nothing that the other two do not say better."""


def disagreement(matrix: NDArray[np.float64]) -> Disagreement:
    """Split the disagreement of an error matrix.

    Args:
        matrix: Shares of the area by map class (rows) and reference class (columns), (K, K), sum 1.
    """
    mapped, seen, agreed = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    quantity = float(np.abs(mapped - seen).sum() / 2)
    chance, overall = float(mapped @ seen), float(agreed.sum())
    kappa = float("nan") if chance >= 1 else (overall - chance) / (1 - chance)
    return Disagreement(quantity, float(np.minimum(mapped - agreed, seen - agreed).sum()), kappa)
