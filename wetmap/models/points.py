"""Operating points as people name them: tokens a side, and the share of them that is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from wetmap.errors import UsageError

if TYPE_CHECKING:
    from wetmap.models.supervit import OperatingPoint, Shape


@dataclass(frozen=True, order=True)
class Point:
    """Which of the networks in one set of weights is run."""

    tokens: int
    """Tokens a side."""
    keep: float
    """Share of the tokens that each pruning block keeps, above 0 to 1."""

    def __str__(self) -> str:
        return f"{self.tokens} tokens a side, keep {self.keep:g}"


class ManyNetworks(Protocol):
    """A model that holds several networks in one set of weights."""

    shape: Shape
    default_point: OperatingPoint

    @property
    def operating_points(self) -> tuple[OperatingPoint, ...]:
        """Every point that training draws."""
        ...

    def operating_point(
        self, *, size_index: int | None = None, tokens: int | None = None, keep: float | None = None
    ) -> OperatingPoint:
        """Choose a network."""
        ...


def many_networks(model: object) -> ManyNetworks | None:
    """The model as one of several networks, or None where it is a single one."""
    return cast(ManyNetworks, model) if hasattr(model, "operating_points") else None


def points_of(model: ManyNetworks) -> tuple[Point, ...]:
    """The points that training draws, the fewest tokens first."""
    return tuple(Point(model.shape.tokens[point.size], point.keep) for point in model.operating_points)


def set_point(model: Any, point: Point) -> None:
    """Let a model run at a point wherever nothing else is said.

    Raises:
        UsageError: The model is a single network, or has no such point.
    """
    several = many_networks(model)
    if several is None:
        raise UsageError(
            f"{type(model).__name__} is a single network and has no operating points.",
            do="Leave --tokens, --keep and --budget out, or train a SuperViT.",
        )
    several.default_point = several.operating_point(tokens=point.tokens, keep=point.keep)
