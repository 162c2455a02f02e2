"""VVT, the Vicinity Vision Transformer: attention that prefers what is near, at a cost linear in the tokens.

Architecture: Sun, Qin et al. (2023), Vicinity Vision Transformer, doi:10.1109/TPAMI.2023.3285569; written from a
description of what the released code computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from wetmap.models.vvt.attention import AttentionForm, VicinityAttention
from wetmap.models.vvt.dense import VvtDense
from wetmap.models.vvt.network import STRIDES, Vvt, VvtTrunk, Wiring
from wetmap.models.vvt.reference import load_reference, reference_name

__all__ = [
    "STRIDES",
    "WIRINGS",
    "AttentionForm",
    "VicinityAttention",
    "Vvt",
    "VvtDense",
    "VvtTrunk",
    "Wiring",
    "build",
    "build_dense",
    "load_reference",
    "reference_name",
]

_WIDTHS, _HEADS = (96, 160, 320, 512), (1, 2, 5, 8)

#: The four published sizes, and one for a laptop.
WIRINGS = {
    "micro": Wiring(widths=(32, 48, 64, 96), depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), mlp_ratios=(4, 4, 4, 4)),
    "tiny": Wiring(widths=_WIDTHS, depths=(2, 2, 2, 2), heads=_HEADS, mlp_ratios=(8, 8, 4, 4)),
    "small": Wiring(widths=_WIDTHS, depths=(3, 3, 9, 3), heads=_HEADS, mlp_ratios=(8, 8, 4, 4)),
    "medium": Wiring(widths=_WIDTHS, depths=(3, 3, 27, 3), heads=_HEADS, mlp_ratios=(8, 8, 4, 4)),
    "large": Wiring(widths=_WIDTHS, depths=(4, 4, 36, 4), heads=_HEADS, mlp_ratios=(4, 4, 4, 4)),
}


def build(  # noqa: PLR0913 - one parameter per option
    size: str,
    bands: int,
    classes: int,
    *,
    window: int,
    clamp: bool,
    drop_path: float,
    extractor: str,
    layers: int = 1,
    band_layer: Sequence[int] | None = None,
) -> Vvt:
    """The classifier of windows in one of the sizes of ``WIRINGS``."""
    wiring = replace(WIRINGS[size], clamp=clamp, drop_path=drop_path)
    return Vvt(bands, classes, wiring=wiring, window=window, extractor=extractor, layers=layers, band_layer=band_layer)


def build_dense(  # noqa: PLR0913 - one parameter per option
    size: str,
    bands: int,
    classes: int,
    *,
    window: int,
    clamp: bool,
    drop_path: float,
    extractor: str,
    layers: int = 1,
    band_layer: Sequence[int] | None = None,
) -> VvtDense:
    """The network of tiles in one of the sizes of ``WIRINGS``."""
    wiring = replace(WIRINGS[size], clamp=clamp, drop_path=drop_path)
    return VvtDense(
        bands, classes, wiring=wiring, window=window, extractor=extractor, layers=layers, band_layer=band_layer
    )


build_micro = partial(build, "micro")
build_tiny = partial(build, "tiny")
build_small = partial(build, "small")
build_medium = partial(build, "medium")
build_large = partial(build, "large")

build_micro_dense = partial(build_dense, "micro")
build_tiny_dense = partial(build_dense, "tiny")
build_small_dense = partial(build_dense, "small")
build_medium_dense = partial(build_dense, "medium")
build_large_dense = partial(build_dense, "large")
