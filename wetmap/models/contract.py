"""What the mapping engine knows about a model, and all it knows.

A model maps a tile of features *with a margin* to class probabilities of the tile, and declares the geometry it needs.
Nothing here imports torch when the program starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """The tile a model works on. Tiles start at multiples of ``tile`` from the grid's origin."""

    tile: int
    """Side of the answer, pixels."""
    margin: int
    """Context needed on each side of the tile, pixels."""
    stride: int
    """Phase the network must keep: tile origins are multiples of it, pixels."""
    beyond: Literal["unobserved", "nearest"] = "unobserved"
    """What it is given beyond the grid: nothing, as a classifier of windows was in training, or the nearest pixel of
    the grid's edge, so that near the edge it answers as anywhere else."""

    @property
    def side(self) -> int:
        """Side of the input, tile and both margins, pixels."""
        return self.tile + 2 * self.margin


class MapModel(Protocol):
    """Anything that can be mapped with."""

    @property
    def geometry(self) -> Geometry:
        """The tile it works on."""
        ...

    def tile_probabilities(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """Probabilities of the classes on a tile.

        Args:
            features: (B, C, T + 2m, T + 2m) float32 in physical units, NaN where not observed; T is the tile and m
                the margin of ``geometry``.
            observed: (B, L, T + 2m, T + 2m) bool, one layer per season, sensor and orbit state; None: only NaN says
                what was not observed.

        Returns:
            (B, K, T, T) float32, sums to 1 over the classes. It depends on nothing but the tile: not on B, nor on
            the other tiles of the batch.
        """
        ...
