"""The trunk of SuperViT: one set of weights that runs at several numbers of tokens and several keeping rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.errors import RecipeError, UsageError

#: Keeping rates that the released training draws from.
KEEP_RATES = (0.5, 0.7, 1.0)

#: Epsilon of every layer norm.
NORM_EPS = 1e-6

#: Standard deviation of the first weights of dense layers, class token and position tables, cut at +-2 (as DeiT).
FIRST_DEVIATION = 0.02


@dataclass(frozen=True)
class OperatingPoint:
    """Which of the networks in one set of weights is run."""

    size: int
    """Index into the tokens per side that the model offers, from the fewest."""
    keep: float
    """Share of the tokens that each pruning block keeps, above 0 to 1; 1: nothing is pruned."""


@dataclass(frozen=True)
class Shape:
    """What tells SuperViTs apart."""

    tokens: tuple[int, ...]
    """Tokens per side of each size, ascending."""
    patch: int
    """Side of the shared kernel, pixels of the resized input. Only for ``resize``."""
    width: int
    """Channels of a token."""
    depth: int
    """Blocks, at least 4."""
    heads: int
    """Attention heads; must divide ``width``."""
    mlp_ratio: int = 4
    """Hidden width of the MLPs as a multiple of ``width``."""
    patching: str = "resize"
    """``resize``: the input is resized and all sizes share one kernel, as released. ``multi``: each size has a kernel
    of its own, whose patches are the real pixels of the input."""

    def __post_init__(self) -> None:
        rising = all(0 < few < many for few, many in zip(self.tokens, self.tokens[1:], strict=False))
        if not self.tokens or self.tokens[0] < 1 or not rising:
            raise RecipeError(f"The tokens per side are {self.tokens}.", do="Give at least one number, ascending.")
        if self.width % self.heads or self.depth < 4 or self.patching not in ("resize", "multi"):
            raise RecipeError(
                f"A SuperViT cannot have width {self.width}, {self.heads} heads, depth {self.depth} and "
                f"patching {self.patching!r}.",
                do="Let the heads divide the width, give at least 4 blocks, and patching 'resize' or 'multi'.",
            )

    @property
    def pruning_blocks(self) -> tuple[int, ...]:
        """Blocks that drop tokens, from 0: floor of 1/4, 2/4 and 3/4 of the depth, so 3, 6, 9 of the released 12."""
        return tuple(self.depth * quarter // 4 for quarter in (1, 2, 3))

    def kernels(self, side: int) -> tuple[int, ...]:
        """Side of each size's patches, pixels, on an input of ``side`` pixels."""
        if self.patching == "resize":
            return (self.patch,) * len(self.tokens)
        return tuple(math.ceil(side / tokens) for tokens in self.tokens)

    def points(self) -> tuple[OperatingPoint, ...]:
        """Every size at every rate of ``KEEP_RATES``, cheapest size first."""
        return tuple(OperatingPoint(size, keep) for size in range(len(self.tokens)) for keep in KEEP_RATES)

    def largest(self) -> OperatingPoint:
        """All tokens of the largest size."""
        return OperatingPoint(len(self.tokens) - 1, 1.0)

    def point(
        self, default: OperatingPoint, *, size_index: int | None, tokens: int | None, keep: float | None
    ) -> OperatingPoint:
        """An operating point by index or tokens per side and keeping rate; what is not said is the default's.

        Raises:
            UsageError: There is no such size, both ways to name it are used, or the rate is not above 0 to 1.
        """
        if size_index is not None and tokens is not None:
            raise UsageError("Both a size index and a number of tokens are given.", do="Give one of them.")
        if tokens is not None and tokens not in self.tokens:
            choices = ", ".join(map(str, self.tokens))
            raise UsageError(f"The model has no size of {tokens} tokens per side.", do=f"Choose one of {choices}.")
        size = default.size if size_index is None else size_index
        size = size if tokens is None else self.tokens.index(tokens)
        if not 0 <= size < len(self.tokens):
            raise UsageError(f"The model has no size {size}.", do=f"Give an index from 0 to {len(self.tokens) - 1}.")
        rate = float(default.keep if keep is None else keep)
        if not 0 < rate <= 1:
            raise UsageError(f"The keeping rate is {rate}.", do="Give a share above 0, up to 1.")
        return OperatingPoint(size, rate)


def kept_count(tokens: int, keep: float) -> int:
    """How many of ``tokens`` (the class token among them) stay: the class token and ``ceil(keep * tokens)`` others.

    The class token is counted before the product and added after it, as released: one more than the rate says.
    """
    return 1 + min(tokens - 1, math.ceil(keep * tokens))


def strongest(score: Tensor, keep: float) -> Tensor:
    """The tokens to keep, the class token first and the others from the strongest down.

    Args:
        score: (N, T - 1) attention of the class token to each other token.
        keep: Share to keep.

    Returns:
        (N, T') int64 indices into the T tokens, the first one 0. Equal scores stay in order.
    """
    count = kept_count(score.shape[1] + 1, keep) - 1
    order = score.argsort(dim=1, descending=True, stable=True)[:, :count] + 1
    return F.pad(order, (1, 0))


def _select(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def _put(whole: Tensor, place: Tensor, tokens: Tensor) -> Tensor:
    return whole.scatter(1, place.unsqueeze(-1).expand_as(tokens), tokens)


class Attention(nn.Module):
    """Softmax attention of every token to every token, with biases, scaled by the root of the head's width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, scored: bool) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            tokens: (N, T, C), the class token first.
            scored: Whether the class token's attention is wanted.

        Returns:
            (N, T, C), and (N, T - 1) the attention of the class token to the others, averaged over the heads.
        """
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (N, heads, T, d)
        joined: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        if not scored:
            return joined, None
        of_class = query[:, :, :1] @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        return joined, of_class.softmax(-1)[:, :, 0, 1:].mean(1)


class BlockOutput(NamedTuple):
    """What a block gives."""

    tokens: Tensor
    """(N, T', C) tokens after the block; those that were kept, where it drops any."""
    attended: Tensor
    """(N, T, C) all tokens after attention: what a dropped token last was."""
    kept: Tensor | None
    """(N, T') indices of the kept tokens among the block's input; None: nothing was pruned."""


class Block(nn.Module):
    """Attention, the dropping of tokens where asked, and the MLP, each after a layer norm and with a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.mlp_ratio * shape.width
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = Attention(width, shape.heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor, keep: float) -> BlockOutput:
        """(N, T, C) to (N, T', C); attention sees all tokens, the MLP only those that are kept."""
        mixed, score = self.attention(self.norm1(tokens), keep != 1)
        attended = tokens + mixed
        kept = None if score is None else strongest(score, keep)
        tokens = attended if kept is None else _select(attended, kept)
        return BlockOutput(tokens + self.mlp(self.norm2(tokens)), attended, kept)


class Trunk(nn.Module):
    """From maps to tokens.

    Args:
        bands: Channels of the input.
        shape: Sizes, width, depth.
        side: Side of the input, pixels. Decides the kernels of ``multi``; ``resize`` takes inputs of any size.
    """

    def __init__(self, bands: int, shape: Shape, side: int) -> None:
        super().__init__()
        self.shape, self.side = shape, side
        self.kernels = shape.kernels(side)
        kernels = self.kernels[:1] if shape.patching == "resize" else self.kernels
        self.embeddings = nn.ModuleList(nn.Conv2d(bands, shape.width, kernel, stride=kernel) for kernel in kernels)
        self.class_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.positions = nn.ParameterList(torch.zeros(1, 1 + tokens**2, shape.width) for tokens in shape.tokens)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS)

    def image_side(self, size: int) -> int:
        """Side that the input is resized to for a size, pixels."""
        return self.shape.tokens[size] * self.kernels[size]

    def embed(self, maps: Tensor, size: int) -> Tensor:
        """Maps (N, bands, h, w) to (N, 1 + t * t, C): the class token, then the patches row by row."""
        maps = resized(maps, self.image_side(size))
        embedding = self.embeddings[0 if self.shape.patching == "resize" else size]
        patches = embedding(maps).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(maps.shape[0], -1, -1), patches], dim=1)
        placed: Tensor = tokens + self.positions[size]
        return placed

    def forward(self, maps: Tensor, point: OperatingPoint, *, put_back: bool = False) -> Tensor:
        """Compute the tokens.

        Args:
            maps: (N, bands, h, w).
            point: Which network to run.
            put_back: Give every token, in its place: a dropped one with the features it had when it was dropped.

        Returns:
            (N, T', C), normalised, the class token first. With ``put_back`` T' is 1 + t * t and the patches are row by
            row; without, they are those that are left, in no order that means anything.
        """
        tokens = self.embed(maps, point.size)
        whole, place = tokens, torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[0], -1)
        pruned = self.shape.pruning_blocks
        for number, block in enumerate(self.blocks):
            tokens, attended, kept = block(tokens, point.keep if number in pruned else 1.0)
            if put_back and kept is not None:
                whole = _put(whole, place, attended)
                place = place.gather(1, kept)
        if put_back and point.keep != 1:
            tokens = _put(whole, place, tokens)
        normalised: Tensor = self.norm(tokens)
        return normalised


def resized(maps: Tensor, side: int) -> Tensor:
    """Resize (N, C, h, w) to (N, C, side, side) bilinearly, corner pixels on corner pixels, where the size differs."""
    if maps.shape[2:] == (side, side):
        return maps
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=True)


def initialise(module: nn.Module) -> None:
    """First weights as DeiT draws them: dense layers, tables and class token normal, biases 0; kernels as torch's own.

    Only torch's global generator is used.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=FIRST_DEVIATION)
            nn.init.zeros_(part.bias)
        elif isinstance(part, Trunk):
            for table in (part.class_token, *part.positions):
                nn.init.trunc_normal_(table, std=FIRST_DEVIATION)
