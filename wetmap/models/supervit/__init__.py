"""SuperViT: a vision transformer that holds networks of several sizes and keeping rates in one set of weights.

Architecture: Lin, Chen, Zhang, Shen, Ji and Cao (2023), "Super Vision Transformer", arXiv:2205.11397; written from a
description of what the released DeiT form computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wetmap.models.supervit.classifier import SuperVit
from wetmap.models.supervit.dense import SuperVitDense
from wetmap.models.supervit.network import KEEP_RATES, OperatingPoint, Shape
from wetmap.models.supervit.reference import load_reference

__all__ = [
    "KEEP_RATES",
    "OperatingPoint",
    "Shape",
    "SuperVit",
    "SuperVitDense",
    "build",
    "build_dense",
    "build_micro",
    "build_micro_dense",
    "build_small",
    "build_small_dense",
    "load_reference",
    "micro_shape",
    "small_shape",
]


def micro_shape(side: int, patching: str = "resize") -> Shape:
    """A laptop's size: 4, 6 or 8 tokens a side. The largest size is the input itself, cut into 8 x 8 patches.

    Args:
        side: Side of the window or tile, pixels, a multiple of 8.
        patching: ``resize`` or ``multi``.
    """
    return Shape(tokens=(4, 6, 8), patch=max(1, side // 8), width=64, depth=8, heads=4, patching=patching)


def small_shape(patching: str = "resize") -> Shape:
    """The released DeiT-S form: images of 128, 160, 192 and 224 pixels, patches of 16."""
    return Shape(tokens=(8, 10, 12, 14), patch=16, width=384, depth=12, heads=6, patching=patching)


def _shape(size: str, window: int, patching: str) -> Shape:
    return micro_shape(window, patching) if size == "micro" else small_shape(patching)


def build(  # noqa: PLR0913 - one parameter per option
    size: str,
    bands: int,
    classes: int,
    *,
    window: int,
    patching: str,
    extractor: str,
    layers: int = 1,
    band_layer: Sequence[int] | None = None,
) -> SuperVit:
    """A classifier of windows: ``micro``, of a laptop's size, or ``small``, as released.

    At 16 bands and 7 classes micro has 412,295 parameters (window 16) and small 23,065,735.
    """
    shape = _shape(size, window, patching)
    return SuperVit(
        bands, classes, shape=shape, window=window, extractor=extractor, layers=layers, band_layer=band_layer
    )


def build_dense(  # noqa: PLR0913 - one parameter per option
    size: str,
    bands: int,
    classes: int,
    *,
    window: int,
    patching: str,
    extractor: str,
    layers: int = 1,
    band_layer: Sequence[int] | None = None,
) -> SuperVitDense:
    """A network of tiles in either size."""
    shape = _shape(size, window, patching)
    return SuperVitDense(
        bands, classes, shape=shape, window=window, extractor=extractor, layers=layers, band_layer=band_layer
    )


build_micro, build_small = partial(build, "micro"), partial(build, "small")
build_micro_dense, build_small_dense = partial(build_dense, "micro"), partial(build_dense, "small")
