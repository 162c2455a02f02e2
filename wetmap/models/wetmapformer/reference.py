"""Weights of the released Keras model in, and its way of counting parameters.

Keras names a layer by its type and a running number in order of creation (``conv2d_3``); the plan below walks the
network in that order. Used by the golden tests, which say that this restatement computes what the release computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from wetmap.models import reference
from wetmap.models.reference import BandAxis, KeyMap, Weight
from wetmap.models.wetmapformer.network import (
    SPECTRAL_FILTERS,
    AttentionBlock,
    Block,
    ConstantMlp,
    ConvBlock,
    Mlp,
    WetMapFormer,
)

#: Keras axes to torch axes: (h, w, in, out) or the transposed convolution's (h, w, out, in), both reversed in pairs;
#: a depthwise kernel is (h, w, channels, 1), a dense one (in, out).
_CONV, _DEPTHWISE, _DENSE = (3, 2, 0, 1), (2, 3, 0, 1), (1, 0)

#: Per band, 32 channels: what is normalised, convolved channel by channel, and added up over all channels.
_PER_CHANNEL = (
    "spectra.norm.weight",
    "spectra.norm.bias",
    "spectra.norm.running_mean",
    "spectra.norm.running_var",
    "extractor.separable1.depthwise.weight",
)
_ADDED_UP = ("extractor.separable1.pointwise.weight", "extractor.skip.weight")


@dataclass(frozen=True)
class Layer:
    """One Keras layer with weights."""

    name: str
    """Keras name of the layer."""
    path: str
    """Path of the module here; empty for a layer that has none."""
    weights: tuple[Weight, ...]
    """Its weights."""


def load_reference(model: WetMapFormer, tensors: Mapping[str, Tensor]) -> None:
    """Fill a model with the weights of a Keras WetMapFormer of the same wiring.

    Args:
        model: The model to fill, in place; its dtype is kept.
        tensors: Keras weights by name (``conv2d_3/kernel``), bare or under ``param/``; if any name is under ``param/``,
            those that are not (inputs, activations) are not looked at.

    Raises:
        BundleError: A weight is missing, left over, or has another shape; then the model is as it was.
    """
    reference.load_reference(model, tensors)


def key_map(model: WetMapFormer) -> KeyMap:
    """The Keras names of everything in a model."""
    filters = SPECTRAL_FILTERS[1]
    per_channel = (BandAxis(name, 0, filters, summed=False) for name in _PER_CHANNEL)
    added_up = (BandAxis(name, 1, filters) for name in _ADDED_UP)
    return KeyMap(
        weights=tuple(weight for layer in reference_layers(model) for weight in layer.weights),
        by_band=(*per_channel, *added_up),
        head=frozenset({"head.weight", "head.bias"}),
        measured=frozenset({"normalisation.mean", "normalisation.variance"}),
    )


def reference_count(model: WetMapFormer) -> int:
    """Parameters as Keras counts them: weights, running means and variances, and 2 C + 1 for the normalisation.

    Keras' Normalization keeps a mean and a variance per band and one count; torch's own ``num_batches_tracked`` and the
    band-to-layer table have no counterpart and are not counted.
    """
    statistics = sum(
        2 * part.num_features
        for part in model.modules()
        if isinstance(part, nn.BatchNorm2d) and part.track_running_stats
    )
    return sum(parameter.numel() for parameter in model.parameters()) + statistics + 2 * model.bands + 1


def reference_layers(model: WetMapFormer) -> Iterator[Layer]:
    """The Keras layers with weights, in order of creation within each type, and what stands for them here."""
    name = _Names()
    yield Layer(
        "data_augmentation",
        "normalisation",
        (
            Weight("mean", "normalisation.mean"),
            Weight("variance", "normalisation.variance"),
            Weight("count", None),
        ),
    )
    for path in ("spectra.conv1", "spectra.conv2"):
        yield _convolution(name("conv3d"), path, (4, 3, 0, 1, 2))
    yield _batch_norm(name("batch_normalization"), "spectra.norm")
    for path in ("extractor.separable1", "extractor.separable2"):
        yield _separable(name("separable_conv2d"), path)
    for up, norm in (("up1", "norm1"), ("up2", "norm2")):
        yield _convolution(name("conv2d_transpose"), f"extractor.{up}", _CONV)
        yield _batch_norm(name("batch_normalization"), f"extractor.{norm}")
    for path in ("extractor.skip", "extractor.skip_up", "stem"):
        yield _convolution(name("conv2d"), path, _CONV)
    yield _layer_norm(name("layer_normalization"), "stem_norm")
    yield from _stage(name, model.stage1, "stage1")
    yield _convolution(name("conv2d"), "down", _CONV)
    yield _layer_norm(name("layer_normalization"), "down_norm")
    yield from _stage(name, model.stage2, "stage2")
    yield _batch_norm(name("batch_normalization"), "norm")
    yield _dense("predictions", "head")


class _Names:
    """Keras' running numbers: ``conv2d``, ``conv2d_1``, ``conv2d_2``."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def __call__(self, kind: str) -> str:
        number = self.seen[kind]
        self.seen[kind] += 1
        return f"{kind}_{number}" if number else kind


def _stage(name: _Names, stage: nn.Sequential, path: str) -> Iterator[Layer]:
    for index, block in enumerate(stage):
        if isinstance(block, ConvBlock):
            yield from _conv_block(name, block, f"{path}.{index}")
        elif isinstance(block, AttentionBlock):
            yield from _attention_block(name, block, f"{path}.{index}")


def _conv_block(name: _Names, block: ConvBlock, path: str) -> Iterator[Layer]:
    yield from _positional(name, path)
    yield _batch_norm(name("batch_normalization"), f"{path}.norm")
    yield _convolution(name("conv2d"), f"{path}.point1", _CONV)
    yield _convolution(name("depthwise_conv2d"), f"{path}.spread", _DEPTHWISE, "depthwise_kernel")
    yield _convolution(name("conv2d"), f"{path}.point2", _CONV)
    yield _batch_norm(name("batch_normalization"), f"{path}.mlp_norm")
    yield from _mlp(name, block, path)


def _attention_block(name: _Names, block: AttentionBlock, path: str) -> Iterator[Layer]:
    yield from _positional(name, path)
    yield _layer_norm(name("layer_normalization"), f"{path}.norm")
    yield from attention_layers(name, f"{path}.attention")
    yield _layer_norm(name("layer_normalization"), f"{path}.mlp_norm")
    yield from _mlp(name, block, path)


def attention_layers(name: _Names, path: str) -> Iterator[Layer]:
    """The three Keras layers of a local window attention."""
    yield _dense(name("dense"), f"{path}.qkv")
    table = name("multi_head_relative_positional_kernel_bias")
    yield Layer(table, "", (Weight(f"{table}/positional_embedding", f"{path}.positions"),))
    yield _dense(name("dense"), f"{path}.out")


def _positional(name: _Names, path: str) -> Iterator[Layer]:
    for index in range(3):
        conv = f"{path}.positional.convs.{index}"
        yield _convolution(name("depthwise_conv2d"), conv, _DEPTHWISE, "depthwise_kernel")


def _mlp(name: _Names, block: Block, path: str) -> Iterator[Layer]:
    first, second = name("dense"), name("dense")
    if isinstance(block.mlp, Mlp):
        yield _dense(first, f"{path}.mlp.dense1")
        yield _dense(second, f"{path}.mlp.dense2")
    elif isinstance(block.mlp, ConstantMlp):
        yield Layer(first, "", (Weight(f"{first}/kernel", None), Weight(f"{first}/bias", None)))
        yield Layer(second, "", (Weight(f"{second}/kernel", None), Weight(f"{second}/bias", f"{path}.mlp.bias")))


def _convolution(layer: str, path: str, axes: tuple[int, ...], kernel: str = "kernel") -> Layer:
    weights = (Weight(f"{layer}/{kernel}", f"{path}.weight", axes), Weight(f"{layer}/bias", f"{path}.bias"))
    return Layer(layer, path, weights)


def _separable(layer: str, path: str) -> Layer:
    return Layer(
        layer,
        path,
        (
            Weight(f"{layer}/depthwise_kernel", f"{path}.depthwise.weight", _DEPTHWISE),
            Weight(f"{layer}/pointwise_kernel", f"{path}.pointwise.weight", _CONV),
            Weight(f"{layer}/bias", f"{path}.pointwise.bias"),
        ),
    )


def _dense(layer: str, path: str) -> Layer:
    return Layer(
        layer, path, (Weight(f"{layer}/kernel", f"{path}.weight", _DENSE), Weight(f"{layer}/bias", f"{path}.bias"))
    )


def _layer_norm(layer: str, path: str) -> Layer:
    return Layer(layer, path, (Weight(f"{layer}/gamma", f"{path}.weight"), Weight(f"{layer}/beta", f"{path}.bias")))


def _batch_norm(layer: str, path: str) -> Layer:
    weights = _layer_norm(layer, path).weights
    running = (
        Weight(f"{layer}/moving_mean", f"{path}.running_mean"),
        Weight(f"{layer}/moving_variance", f"{path}.running_var"),
    )
    return Layer(layer, path, weights + running)
