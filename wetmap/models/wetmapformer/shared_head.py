"""The head of WetMapFormer for windows of 8 pixels and a stem of stride 4, with its linear layers folded.

From the pooled maps on, every number belongs to one window alone: the window's border differs at each of the 4 x 4
positions, so nothing is left to share and only algebra helps. What has no activation between is one matrix:

- a decoder convolution and its batch norm; the second of them, both enlargements, the skip path and the stem;
- in a convolutional block, the positional sum, the batch norms and the three mixing convolutions;
- with one token, an attention over one real key and padding that equals the bias: a gate, ``sigmoid(q k + c)``;
- the last dense layer, the last batch norm, the mean over one token and the classifier.

Rows are windows. While a window has several positions, these come first, (P, M, W): a row of the products is a token
then, and neighbouring windows lie side by side as they do in the shared maps. What joins the tokens takes rows of P * W
numbers, position first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.wetmapformer.folding import (
    Affine,
    Convolution,
    affine_of,
    depthwise,
    diagonal,
    linear,
    positional_sum,
    scale_and_shift,
    stacked,
)
from wetmap.models.wetmapformer.network import (
    EXTRACTOR_WIDTH,
    AttentionBlock,
    Block,
    ChannelNorm,
    ConstantMlp,
    ConvBlock,
    Extractor,
    Mlp,
    WetMapFormer,
)
from wetmap.models.wetmapformer.shared_front import Maps

#: The window and stem this head is for; then 4 x 4 pooled positions, 2 x 2 tokens, and one token.
WINDOW, STEM_STRIDE = 8, 4
POOLED_SIDE, TOKEN_SIDE = 4, 2
#: Pooled positions along an axis that reach a token: 0 to 2 the first, 1 to 3 the second.
SEEN = 3
#: Windows in one batch, per core at work: the work of each call outweighs the call, and a batch stays in the cache.
WINDOWS_TOGETHER = 1024


@dataclass(frozen=True)
class FoldedNorm:
    """Layer norm of rows."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, rows: Tensor) -> Tensor:
        """(M, P * W) to the same, each W normalised."""
        tokens = rows.view(-1, len(self.weight))
        return F.layer_norm(tokens, self.weight.shape, self.weight, self.bias, self.eps).view_as(rows)


@dataclass(frozen=True)
class FoldedMlp:
    """End of a block: ``rest(x + middle) + second(gelu(first(middle)))``."""

    first: Affine
    second: Affine
    norm_eps: float | None
    """Epsilon of the layer norm before, whose affine part is folded; None: a batch norm, folded altogether."""
    rest: Affine | None = None
    """What follows the block, folded into it; None: nothing."""

    def __call__(self, rows: Tensor, middle: Tensor) -> Tensor:
        """(M, P * W) twice to (M, P * W), or to what follows."""
        tokens = middle.view(-1, self.first.weight.shape[1])
        if self.norm_eps is not None:
            tokens = F.layer_norm(tokens, tokens.shape[1:], eps=self.norm_eps)
        answer = self.second(self.first.gelu(tokens))
        total = rows + middle
        if self.rest is not None:
            total = self.rest(total)
        return total.add_(answer.view_as(total))


@dataclass(frozen=True)
class FoldedSpread:
    """What a convolutional block adds up before its MLP, on 2 x 2 tokens: half the products of one matrix for it all.

    The positions are the first two axes of a three-dimensional map and the windows its third, which no kernel spans: so
    oneDNN leaves out the taps that fall on padding and has long rows to work on.
    """

    positional: Convolution
    point1: Affine
    depth: Convolution
    point2: Affine

    def __call__(self, tokens: Tensor) -> Tensor:
        """(4, M, W) to the same."""
        count, width = tokens.shape[1:]
        square = TOKEN_SIDE, TOKEN_SIDE, count, width
        positional = self.positional(tokens.view(square)).view(-1, width)
        mixed = self.depth(self.point1(positional).view(square)).view(-1, width)
        return self.point2(mixed).add_(positional).view_as(tokens).add_(tokens)


@dataclass(frozen=True)
class FoldedConv:
    """A convolutional block."""

    spread: Affine | FoldedSpread
    mlp: FoldedMlp

    def __call__(self, rows: Tensor) -> Tensor:
        """(M, W) to the same where the map is one token, else (4, M, W) to the same."""
        return self.mlp(rows, self.spread(rows))


@dataclass(frozen=True)
class FoldedAttention:
    """An attention block on one token."""

    norm_eps: float
    mixing: Affine
    """Queries, keys and values, the last two without bias; with a kernel of 1, all that attention does."""
    out: Affine | None
    """After the gate, with all biases of the block up to its MLP; None: kernel 1."""
    padding: Tensor | None
    """(heads,) minus the logarithm of the padding's share where the query is 0; None: kernel 1."""
    scale: Tensor
    """(W,) of the input in the sum before the MLP."""
    mlp: FoldedMlp | None
    """None: a constant, folded."""

    def __call__(self, rows: Tensor) -> Tensor:
        """(M, W) to (M, W), or to what follows the block."""
        mixed = self.mixing(F.layer_norm(rows, rows.shape[1:], eps=self.norm_eps))
        if self.out is not None and self.padding is not None:
            query, key, value = mixed.view(len(rows), 3, len(self.padding), -1).unbind(1)
            share = (query * key).sum(2).add_(self.padding).sigmoid_()
            mixed = self.out((value * share[:, :, None]).flatten(1))
        middle = torch.addcmul(mixed, rows, self.scale)
        return rows + middle if self.mlp is None else self.mlp(rows, middle)


Step = Affine | FoldedNorm | FoldedConv | FoldedAttention


class FoldedHead:
    """Folded weights of everything after the shared maps, and their evaluation.

    Args:
        model: The model, in float64 and evaluation mode.
        like: A tensor of the dtype and on the device to compute with.
    """

    def __init__(self, model: WetMapFormer, like: Tensor) -> None:
        extractor = model.extractor
        scale, shift = scale_and_shift(extractor.norm1)
        # a transposed convolution of stride 1 is a convolution with the kernel turned round
        weight = extractor.up1.weight.flip(2, 3).transpose(0, 1) * scale[:, None, None, None]
        bias = shift if extractor.up1.bias is None else extractor.up1.bias * scale + shift
        self._decode = Convolution(weight[..., None], bias, (1, 1, 0)).to(like)
        self._stem = tuple(part.to(like) for part in _fold_stem(extractor, model.stem))
        self._steps = tuple(_cast(step, like) for step in _fold_tokens(model))

    def __call__(self, maps: Maps, tile: int) -> Tensor:
        """Logits (tile * tile, K) of every window of a tile."""
        on_cpu = maps.pooled.device.type == "cpu"
        rows = max(1, WINDOWS_TOGETHER * torch.get_num_threads() // tile) if on_cpu else tile
        return torch.cat([self._some(maps, first, min(rows, tile - first), tile) for first in range(0, tile, rows)])

    def _some(self, maps: Maps, first: int, count: int, tile: int) -> Tensor:
        tokens = self._tokens(*_cut(maps, first, count, tile))
        for step in self._steps:
            if isinstance(step, Affine) and tokens.ndim == 3:
                # what joins the tokens of a window wants them side by side
                tokens = tokens.transpose(0, 1).reshape(count * tile, -1)
            tokens = step(tokens)
        return tokens

    def _tokens(self, pooled: Tensor, middle: Tensor) -> Tensor:
        """The stem's answer (4, M, W) from the rectified pooled maps and the skip path, (4, 4, M, 32) each."""
        decoded = self._decode.relu(pooled)
        count, width = pooled.shape[2], len(self._stem[0].bias)
        seen = pooled.new_empty(count, 2, SEEN, SEEN, EXTRACTOR_WIDTH)
        tokens = pooled.new_empty(len(self._stem), count, width)
        for token, stem in enumerate(self._stem):
            row, column = divmod(token, TOKEN_SIDE)
            for kind, part in enumerate((decoded, middle)):
                seen[:, kind] = part[row : row + SEEN, column : column + SEEN].permute(2, 0, 1, 3)
            tokens[token] = stem(seen.view(count, -1))
        return tokens


def _cut(maps: Maps, first: int, count: int, tile: int) -> tuple[Tensor, Tensor]:
    """Rectified pooled maps and skip path of the windows of some rows, (4, 4, count * tile, 32) each."""
    here = _positions(maps.pooled[..., first:, :, :], (count, tile), (POOLED_SIDE, POOLED_SIDE), own_class=True)
    pooled = here.clamp(min=0)
    middle = torch.empty_like(pooled)
    inner, last = slice(0, POOLED_SIDE - 1), slice(POOLED_SIDE - 1, POOLED_SIDE)
    for row, rows in enumerate((inner, last)):
        for column, columns in enumerate((inner, last)):
            skipped = maps.skipped[row, column, first + 2 * rows.start :, 2 * columns.start :]
            size = rows.stop - rows.start, columns.stop - columns.start
            seen = _positions(skipped, (count, tile), size, own_class=False)
            torch.add(here[rows, columns], seen, out=middle[rows, columns])
    return pooled.flatten(2, 3), middle.flatten(2, 3)


def _positions(maps: Tensor, answers: tuple[int, int], size: tuple[int, int], *, own_class: bool) -> Tensor:
    """What neighbouring positions of the pooled windows read, as one view: (positions, positions, rows, columns, 32).

    Positions lie two pixels apart, in the same map or, with ``own_class``, each in the map of its own number.
    """
    row, column, channel = maps.stride()[-3:]
    steps = [2 * row, 2 * column]
    if own_class:
        steps = [step + between for step, between in zip(steps, maps.stride()[:2], strict=True)]
    return maps.as_strided((*size, *answers, maps.shape[-1]), (*steps, row, column, channel), maps.storage_offset())


def _enlarge(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="nearest")


def _fold_stem(extractor: Extractor, stem: nn.Module) -> list[Affine]:
    """One matrix per token from the (2 kinds, 3, 3, 32) numbers that reach it: decoder, then skip path."""
    shape = (POOLED_SIDE, POOLED_SIDE, EXTRACTOR_WIDTH)
    decoder = affine_of(lambda maps: stem(_enlarge(extractor.norm2(extractor.up2(maps)))), shape)
    skip = affine_of(lambda maps: stem(extractor.skip_up(_enlarge(maps))), shape)
    nothing = affine_of(stem, (2 * POOLED_SIDE, 2 * POOLED_SIDE, EXTRACTOR_WIDTH)).bias
    bias = (decoder.bias + skip.bias - nothing).view(TOKEN_SIDE**2, -1)
    weights = [part.weight.view(*bias.shape, *shape) for part in (decoder, skip)]
    folded = []
    for token in range(TOKEN_SIDE**2):
        row, column = divmod(token, TOKEN_SIDE)
        seen = [part[token, :, row : row + SEEN, column : column + SEEN].flatten(1) for part in weights]
        folded.append(Affine(torch.cat(seen, 1), bias[token]))
    return folded


def _fold_tokens(model: WetMapFormer) -> list[Step]:
    """The steps from the stem's answer to the logits."""
    first, second = model.wiring.widths
    steps: list[Step] = [_norm(model.stem_norm)]
    for block in model.stage1:
        _append(steps, _fold_block(block, TOKEN_SIDE, first))
    _append(steps, affine_of(model.down, (TOKEN_SIDE, TOKEN_SIDE, first)))
    steps.append(_norm(model.down_norm))
    for block in model.stage2:
        _append(steps, _fold_block(block, 1, second))
    _finish(steps, stacked(model.norm, model.head))
    return steps


def _append(steps: list[Step], step: Step) -> None:
    """Add a step, or fold it into the last where both are affine."""
    last = steps[-1]
    if isinstance(last, Affine) and isinstance(step, Affine):
        steps[-1] = step.after(last)
    else:
        steps.append(step)


def _finish(steps: list[Step], end: Affine) -> None:
    """Fold the classifier into the last step, as far as that is linear."""
    last = steps[-1]
    if isinstance(last, FoldedConv | FoldedAttention) and last.mlp is not None:
        second = Affine(end.weight @ last.mlp.second.weight, end.weight @ last.mlp.second.bias)
        steps[-1] = replace(last, mlp=replace(last.mlp, second=second, rest=end))
    else:
        _append(steps, end)


def _norm(norm: ChannelNorm) -> FoldedNorm:
    return FoldedNorm(norm.weight.detach(), norm.bias.detach(), norm.eps)


def _fold_mlp(block: Block) -> FoldedMlp | None:
    if not isinstance(block.mlp, Mlp):
        return None
    eps = block.mlp_norm.eps if isinstance(block.mlp_norm, ChannelNorm) else None
    return FoldedMlp(stacked(block.mlp_norm, block.mlp.dense1), linear(block.mlp.dense2), eps)


def _constant(block: Block, like: Tensor) -> Tensor:
    """What an MLP of no width adds, (W,)."""
    return block.mlp.bias.detach() if isinstance(block.mlp, ConstantMlp) else torch.zeros_like(like)


def _fold_block(block: nn.Module, side: int, width: int) -> Step:
    """A block on side x side tokens; attention only on one."""
    if isinstance(block, ConvBlock):
        return _fold_conv(block, side, width)
    if isinstance(block, AttentionBlock) and side == 1:
        return _fold_attention(block)
    raise TypeError(f"a block of type {type(block).__name__} on {side} x {side} tokens")


def _fold_conv(block: ConvBlock, side: int, width: int) -> Step:
    """A convolutional block on side x side tokens; affine altogether where its MLP is a constant."""

    def middle(maps: Tensor) -> Tensor:
        positional = block.positional(maps)
        total: Tensor = maps + positional + block.mix(maps, positional)
        return total

    mlp = _fold_mlp(block)
    if mlp is not None and side == TOKEN_SIDE:
        return FoldedConv(_fold_spread(block), mlp)
    spread = affine_of(middle, (side, side, width))
    if mlp is not None:
        return FoldedConv(spread, mlp)
    constant = _constant(block, spread.bias[:width]).repeat(side**2)
    return Affine(spread.weight + torch.eye(len(spread.bias), dtype=spread.weight.dtype), spread.bias + constant)


def _fold_spread(block: ConvBlock) -> FoldedSpread:
    """The parts of a convolutional block before its MLP, each with the norm before it."""
    point1 = linear(block.point1).after(diagonal(block.norm))
    return FoldedSpread(
        _near(positional_sum(block.positional.convs)), point1, _near(depthwise(block.spread)), linear(block.point2)
    )


def _near(kernel: Convolution) -> Convolution:
    """Of a depthwise kernel the taps that stay within 2 x 2 tokens, for maps whose third dimension is windows."""
    edge = kernel.weight.shape[-1] // 2 - 1
    middle = slice(edge, edge + 3)
    return Convolution(kernel.weight[:, :, middle, middle, None], kernel.bias, (1, 1, 0))


def _fold_attention(block: AttentionBlock) -> FoldedAttention:
    """An attention block on one token.

    The map is padded to kernel x kernel with zeros, whose keys and values are the biases b. Against the query, the real
    key W x + b and the padding's b differ by q W x, so that the token's share is ``sigmoid(q W x + p)`` with p its own
    position's score minus the logarithm of the sum of the others' exponentials; the answer is ``b + share * W x``.
    """
    attention, eps = block.attention, block.norm.eps
    heads, kernel, width = attention.heads, attention.kernel, attention.out.out_features
    end, mixing = linear(attention.out), stacked(block.norm, attention.qkv)
    bias = mixing.bias.clone()
    bias[width:] -= attention.qkv.bias[width:]
    positional = affine_of(block.positional, (1, 1, width))
    scale = positional.weight.diagonal() + 1
    plain = end.weight @ attention.qkv.bias[2 * width :] + end.bias
    end = Affine(end.weight, plain + positional.bias + _constant(block, plain))
    mlp = _fold_mlp(block)
    if kernel == 1:
        values = Affine(mixing.weight[2 * width :], bias[2 * width :])
        return FoldedAttention(eps, end.after(values), None, None, scale, mlp)
    root = bias.new_ones(3 * width)
    root[:width] = (width // heads) ** -0.5
    table = attention.positions.view(heads, 2 * kernel - 1, -1)[:, kernel - 1 :, kernel - 1 :].flatten(1)
    padding = table[:, 0] - table[:, 1:].logsumexp(1)
    return FoldedAttention(eps, Affine(mixing.weight * root[:, None], bias * root), end, padding, scale, mlp)


def _cast(step: Step, like: Tensor) -> Step:
    """A step with every tensor in the dtype and on the device of another."""

    def cast(value: Any) -> Any:
        if isinstance(value, FoldedMlp | FoldedSpread):
            return replace(value, **{name: cast(part) for name, part in vars(value).items()})
        if isinstance(value, Affine | Convolution):
            return value.to(like)
        return value.to(like).contiguous() if isinstance(value, Tensor) else value

    return cast(step) if isinstance(step, Affine) else replace(step, **{k: cast(v) for k, v in vars(step).items()})
