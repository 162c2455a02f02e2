"""WetMapFormer's window classifiers in training: the same answer and gradients as the layers one by one, sooner.

On the CPU a training step of the plain layers spends most of its time waiting for memory and in convolutions of a few
pixels. Here the front goes through the cache part by part (``training_front``), layers without an activation between
them become one kernel, kernels are cut to the taps that a small map has room for, and dense layers are products of the
faster library. Weights are those of the modules, and gradients find their way through plain operations.

Evaluation, export, other devices and mixed precision keep to the modules.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.layers import SameConv2d
from wetmap.models.wetmapformer.folding import product
from wetmap.models.wetmapformer.network import (
    AttentionBlock,
    Block,
    ConstantMlp,
    ConvBlock,
    Extractor,
    Mlp,
    Positional,
    Spectral,
    WetMapFormer,
)
from wetmap.models.wetmapformer.training_front import FrontWeights, front


def applies(model: WetMapFormer, maps: Tensor) -> bool:
    """Whether a batch of normalised windows is computed here rather than by the modules.

    Args:
        model: The model.
        maps: (N, C, window, window).
    """
    if not model.training or maps.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    # a converted norm (one that joins processes, for instance) does more than is done here
    plain = type(model.spectra.norm) is nn.BatchNorm2d and model.spectra.norm.training
    return plain and not torch.compiler.is_compiling()


def logits(model: WetMapFormer, maps: Tensor) -> Tensor:
    """Logits (N, K) of normalised windows, in training mode.

    Args:
        model: The model; its batch norms note the statistics of the batch.
        maps: (N, C, window, window), dimensionless, without NaN.
    """
    separated, skipped = spectral_front(model.spectra, model.extractor, maps)
    encoded = model.extractor.separable2(F.relu(separated))
    # 'same' padding of an even side is one column and row at the end, which a ceiling stands for
    pooled = F.max_pool2d(encoded, 3, 2, ceil_mode=True)
    tokens = model.stem_norm(_stem(model, pooled, skipped))
    for block in model.stage1:
        tokens = _block(block, tokens)
    tokens = model.down_norm(_patches(model.down, tokens))
    for block in model.stage2:
        tokens = _block(block, tokens)
    answer: Tensor = model.head(model.norm(tokens).mean((2, 3)))
    return answer


def spectral_front(spectra: Spectral, extractor: Extractor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """First separable convolution and skip convolution of normalised maps; the batch norm notes the statistics.

    Args:
        spectra: Spectral part, in training mode.
        extractor: What looks at it.
        maps: (N, C, h, w), h and w even, dimensionless, without NaN.

    Returns:
        (N, 32, h, w), not rectified, and (N, 32, h / 2, w / 2).
    """
    first, norm = extractor.separable1, spectra.norm
    weights = FrontWeights(
        spectra.conv1.weight,
        _bias(spectra.conv1),
        spectra.conv2.weight,
        _bias(spectra.conv2),
        norm.weight,
        norm.bias,
        first.depthwise.weight,
        first.pointwise.weight,
        _bias(first.pointwise),
        extractor.skip.weight,
        _bias(extractor.skip),
    )
    answer = front(maps, norm.eps, weights)
    count = maps.shape[0] * maps.shape[2] * maps.shape[3]
    _note(norm, answer.mean, answer.variance * (count / (count - 1)))
    return answer.separated, answer.skipped


@torch.no_grad()
def _note(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Running statistics as the module keeps them; ``variance`` is the unbiased one."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    weight = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, weight)
    norm.running_var.lerp_(variance, weight)


def _stem(model: WetMapFormer, pooled: Tensor, skipped: Tensor) -> Tensor:
    """From half the window's side to tokens: decoder, residual path and stem.

    Between the decoder's last norm and the stem nothing is activated, and pixels come in equal pairs, so that the stem
    and the residual path's convolution are one kernel of half the side.
    """
    extractor, stem = model.extractor, model.stem
    stride = model.wiring.stem_stride
    if stride % 2 or model.window % stride:
        tokens: Tensor = stem(extractor.decode(pooled, skipped))
        return tokens
    decoded = extractor.decoded(pooled)
    # the kernels one after the other, first the residual path's: (O, 32, stride + 2, stride + 2)
    both = F.conv_transpose2d(stem.weight, extractor.skip_up.weight)
    bias = _bias(stem) + stem.weight.sum((2, 3)) @ _bias(extractor.skip_up)
    residual = F.conv2d(pooled + skipped, _halved(both, padding=1), bias, stride=stride // 2, padding=1)
    return residual + F.conv2d(decoded, _halved(stem.weight), stride=stride // 2)


def _halved(kernel: Tensor, padding: int = 0) -> Tensor:
    """A kernel for maps before nearest enlargement by two: taps that see the same pixel are added."""
    return 4 * F.avg_pool2d(kernel, 2, padding=padding)


def _block(block: nn.Module, maps: Tensor) -> Tensor:
    """``Block.forward``, and the mixing of both kinds of block."""
    if not isinstance(block, Block):
        raise TypeError(f"a stage holds a {type(block).__name__}")
    positional = _positional(block.positional, maps)
    if isinstance(block, ConvBlock):
        mixed = _dense(block.point1, block.norm(positional))
        mixed = _dense(block.point2, _spread(mixed, block.spread.weight, _bias(block.spread)))
    elif isinstance(block, AttentionBlock) and block.attention.kernel == 1:
        mixed = _alone(block, maps)
    else:
        mixed = block.mix(maps, positional)
    middle = maps + positional + mixed
    return maps + middle + _mlp(block.mlp, block.mlp_norm, middle)


def _alone(block: AttentionBlock, maps: Tensor) -> Tensor:
    """Attention of each token to itself alone: the softmax of one score is 1, whatever query, key and position."""
    attention = block.attention
    width = maps.shape[1]
    rows = block.norm(maps.permute(0, 2, 3, 1)).flatten(0, 2)
    values = product(rows, attention.qkv.weight[2 * width :], attention.qkv.bias[2 * width :])
    # a gradient of 0 is not the same as none: an optimiser decays what has one
    values = values + 0 * attention.positions.sum()
    return _maps(product(values, attention.out.weight, attention.out.bias), maps)


def _mlp(mlp: nn.Module, norm: nn.Module, maps: Tensor) -> Tensor:
    if isinstance(mlp, ConstantMlp):
        # the norm's answer is not looked at, but a batch norm notes what it has seen
        norm(maps.detach()) if isinstance(norm, nn.BatchNorm2d) else None
        constant: Tensor = mlp(maps)
        return constant
    if not isinstance(mlp, Mlp):
        raise TypeError(f"a block holds a {type(mlp).__name__}")
    rows = norm(maps).permute(0, 2, 3, 1).flatten(0, 2)
    hidden = F.gelu(product(rows, mlp.dense1.weight, mlp.dense1.bias))
    return _maps(product(hidden, mlp.dense2.weight, mlp.dense2.bias), maps)


def _positional(positional: Positional, maps: Tensor) -> Tensor:
    """The sum of three depthwise convolutions and the maps themselves is one depthwise convolution."""
    convs = [conv for conv in positional.convs if isinstance(conv, nn.Conv2d)]
    largest = max(conv.kernel_size[0] for conv in convs)
    kernel = convs[-1].weight.new_zeros(1, 1, largest, largest)
    kernel[..., largest // 2, largest // 2] = 1
    bias = torch.zeros_like(_bias(convs[-1]))
    for conv in convs:
        kernel = kernel + F.pad(conv.weight, [(largest - conv.kernel_size[0]) // 2] * 4)
        bias = bias + _bias(conv)
    return _spread(maps, kernel, bias)


def _spread(maps: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """A depthwise convolution with zeros around, by the taps that some pixel of the map sees.

    Args:
        maps: (N, C, h, w).
        kernel: (C, 1, k, k), k odd.
        bias: (C,).
    """
    height, width = maps.shape[2:]
    reach = kernel.shape[-1] // 2
    tall, wide = min(reach, height - 1), min(reach, width - 1)
    kernel = kernel[..., reach - tall : reach + tall + 1, reach - wide : reach + wide + 1]
    if tall == wide == 0:
        return torch.addcmul(bias[:, None, None], maps, kernel[:, 0])
    return F.conv2d(maps, kernel, bias, padding=(tall, wide), groups=maps.shape[1])


def _patches(conv: SameConv2d, maps: Tensor) -> Tensor:
    """A convolution whose kernel is its stride, as a product of patches; any other by its module."""
    size = conv.kernel_size[0]
    count, channels, height, width = maps.shape
    if conv.stride != conv.kernel_size or height % size or width % size:
        plain: Tensor = conv(maps)
        return plain
    cells = maps.permute(0, 2, 3, 1).reshape(count, height // size, size, width // size, size, channels)
    rows = cells.transpose(2, 3).reshape(count * (height // size) * (width // size), -1)
    answer = product(rows, conv.weight.permute(0, 2, 3, 1).flatten(1), _bias(conv))
    return answer.view(count, height // size, width // size, -1).permute(0, 3, 1, 2)


def _dense(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """A 1 x 1 convolution."""
    rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    return _maps(product(rows, conv.weight.flatten(1), _bias(conv)), maps)


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """(N * h * w, C) as (N, C, h, w), for maps (N, any, h, w)."""
    return rows.view(like.shape[0], like.shape[2], like.shape[3], -1).permute(0, 3, 1, 2)


def _bias(conv: nn.Module) -> Tensor:
    """The bias of a layer that has one."""
    bias = conv.bias
    if not isinstance(bias, Tensor):
        raise TypeError(f"{conv} has no bias")
    return bias
