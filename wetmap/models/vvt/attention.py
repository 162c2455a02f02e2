"""Vicinity attention: every token attends to every other, near ones more, at a cost linear in the number of tokens.

The weight of a pair is ``(q . k) (cos(a - a') + cos(b - b'))`` with queries and keys made non-negative and a, b the
row and the column of a token as angles. Since ``cos(a - a') = cos a cos a' + sin a sin a'``, lifting queries and keys
to four times their width turns the weight into one inner product, and keys can be multiplied with values first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.errors import UsageError

#: Magnitudes that the release forces every number in its attention into; zeros stay zeros.
LEAST, MOST = 1e-4, 1e4

#: Added to the sum of a query's weights before dividing by it, so that a query without any key gives 0.
LEAST_WEIGHT = 1e-4

#: Epsilon of the layer norms after convolutions (torch's default); the release sets another one everywhere else.
CONV_NORM_EPS = 1e-5


@dataclass(frozen=True)
class AttentionForm:
    """What can be chosen about vicinity attention."""

    heads: int = 1
    """Number of heads; times ``feature_reduction`` it must divide the width."""
    feature_reduction: int = 2
    """How many times narrower queries, keys and values are than tokens."""
    gate_reduction: int = 1
    """How many times narrower the gate's hidden layer is than tokens."""
    key_stride: int = 1
    """Side of the squares of tokens that become one key, by convolution; 1: every token is a key."""
    clamp: bool = True
    """Force magnitudes into 1e-4 to 1e4 as the release does."""
    exact_angles: bool = False
    """Angles in float64; by default they are rounded to float32 first, as in the release."""


def bound(values: Tensor) -> Tensor:
    """Force magnitudes into 1e-4 to 1e4; zeros stay 0, everything else is lifted or cut, and gets no gradient there."""
    return values.sign() * values.abs().clamp(LEAST, MOST)


def unbounded(values: Tensor) -> Tensor:
    """Leave values as they are; what stands in for ``bound`` where the clamps are switched off."""
    return values


def angles(height: int, width: int, *, exact: bool = False) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows and columns of a map's tokens as angles from 0 to just below pi / 2, row-major.

    Args:
        height: Rows of tokens.
        width: Columns of tokens.
        exact: In float64; else every step is rounded to float32, which the release does whatever its weights' dtype.

    Returns:
        Row angles (height * width,) and column angles (height * width,), radians.
    """
    place = np.arange(height * width)
    return _angle(place // width, height, exact), _angle(place % width, width, exact)


def _angle(place: npt.NDArray[np.int64], count: int, exact: bool) -> npt.NDArray[np.float64]:
    if exact:
        return math.pi / 2 * place / count
    return (np.float32(math.pi / 2) * place.astype(np.float32) / np.float32(count)).astype(np.float64)


@lru_cache(maxsize=64)
def _table(height: int, width: int, exact: bool, double: bool) -> npt.NDArray[np.floating]:
    """(height * width, 4): cosine and sine of the row's angle, cosine and sine of the column's.

    Kept as an array and not as a tensor: a tensor made while a model is being traced would be a tracer's own.
    """
    rows, columns = angles(height, width, exact=exact)
    table = np.stack((np.cos(rows), np.sin(rows), np.cos(columns), np.sin(columns)), axis=1)
    return table if double else table.astype(np.float32)


def lift(tokens: Tensor, size: tuple[int, int], *, exact: bool = False) -> Tensor:
    """Multiply queries or keys with the cosines and sines of their places.

    Args:
        tokens: (B, heads, h * w, d), row-major.
        size: Rows and columns, h and w.
        exact: Whether angles are exact or rounded to float32.

    Returns:
        (B, heads, h * w, 4 d).
    """
    table = torch.from_numpy(_table(*size, exact, tokens.dtype is torch.float64)).to(tokens, non_blocking=True)
    return (tokens.unsqueeze(-2) * table.unsqueeze(-1)).flatten(-2)


def linear_attention(query: Tensor, key: Tensor, value: Tensor, limit: Callable[[Tensor], Tensor]) -> Tensor:
    """Attention of lifted queries and keys without ever forming a weight per pair.

    Args:
        query: (B, heads, N, e), lifted.
        key: (B, heads, M, e), lifted.
        value: (B, heads, M, d).
        limit: ``bound`` or ``unbounded``.

    Returns:
        (B, heads, N, d).
    """
    held = limit(key.transpose(-2, -1) @ value)
    weight = query @ key.sum(-2).unsqueeze(-1)
    return limit(limit(query @ held) * limit(1 / (weight + LEAST_WEIGHT)))


class Gate(nn.Module):
    """A factor from 0 to 1 per channel, from the mean of all tokens: (N, h, w, C) to (N, 1, 1, C); no biases."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, width // reduction, bias=False)
        self.widen = nn.Linear(width // reduction, width, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Look at the mean token."""
        hidden = F.relu(self.squeeze(maps.mean((1, 2), keepdim=True)))
        return torch.sigmoid(self.widen(hidden))


class KeyReduction(nn.Module):
    """Squares of ``stride`` x ``stride`` tokens to one: (N, h, w, C) to (N, h / stride, w / stride, C)."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width, stride, stride=stride)
        self.norm = nn.LayerNorm(width, eps=CONV_NORM_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        """Reduce.

        Raises:
            UsageError: The map is not a whole number of squares.
        """
        height, width = maps.shape[1:3]
        if height % self.stride or width % self.stride:
            raise UsageError(
                f"A map of {height} x {width} tokens does not divide into squares of {self.stride}.",
                do="Use a size that does, or a key stride of 1.",
            )
        reduced: Tensor = self.norm(self.conv(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return reduced


class VicinityAttention(nn.Module):
    """Vicinity attention with feature reduction, and the gate that the paper calls a feature-preserving connection.

    The gate adds nothing of the input back: it multiplies the attention's output by ``1 + gate``.

    Args:
        width: Channels of a token.
        form: What is chosen about it.

    Raises:
        UsageError: The width does not divide by heads x feature reduction.
    """

    def __init__(self, width: int, form: AttentionForm) -> None:
        super().__init__()
        if width % (form.heads * form.feature_reduction):
            raise UsageError(
                f"Tokens of {width} channels do not divide into {form.heads} heads reduced by"
                f" {form.feature_reduction}.",
                do="Choose a width that is a multiple of heads x feature reduction.",
            )
        self.form = form
        narrow = width // form.feature_reduction
        self.query = nn.Linear(width, narrow)
        self.key = nn.Linear(width, narrow)
        self.value = nn.Linear(width, narrow)
        self.out = nn.Linear(narrow, width)
        self.gate = Gate(width, form.gate_reduction)
        self.reduction = KeyReduction(width, form.key_stride) if form.key_stride > 1 else None

    def forward(self, maps: Tensor) -> Tensor:
        """Attend over the whole map: (N, h, w, C) to (N, h, w, C), channels last, tokens already normalised."""
        form = self.form
        limit = bound if form.clamp else unbounded
        sources = maps if self.reduction is None else self.reduction(maps)
        query = self._heads(F.relu(self.query(maps)))
        key = self._heads(F.relu(self.key(sources)))
        query = lift(query, (maps.shape[1], maps.shape[2]), exact=form.exact_angles)
        key = lift(key, (sources.shape[1], sources.shape[2]), exact=form.exact_angles)
        mixed = linear_attention(query, key, self._heads(self.value(sources)), limit)
        joined = limit(self.out(mixed.transpose(1, 2).reshape(*maps.shape[:3], -1)))
        return limit(joined + joined * self.gate(maps))

    def _heads(self, maps: Tensor) -> Tensor:
        """(N, h, w, E) to (N, heads, h * w, E / heads)."""
        count, height, width, _ = maps.shape
        return maps.reshape(count, height * width, self.form.heads, -1).transpose(1, 2)
