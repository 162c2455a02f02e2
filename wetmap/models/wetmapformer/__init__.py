"""WetMapFormer: a spectral and spatial feature extractor, a convolutional stage and a local-attention stage.

Architecture: Jamali, Roy and Ghamisi (2023), WetMapFormer, doi:10.1016/j.jag.2023.103333; written from a description of
what the released notebook computes. ``window`` is the classifier as evidently meant, ``published`` as released.
"""

from __future__ import annotations

from collections.abc import Sequence

from wetmap.models.wetmapformer.dense import DenseWetMapFormer
from wetmap.models.wetmapformer.network import WetMapFormer, Wiring
from wetmap.models.wetmapformer.reference import load_reference, reference_count

__all__ = [
    "DenseWetMapFormer",
    "WetMapFormer",
    "Wiring",
    "build_dense",
    "build_published",
    "build_window",
    "load_reference",
    "reference_count",
]

#: Blocks per stage and width of an attention head. A head wider than the second stage leaves no head, and then that
#: stage is convolutional too: the released large variant has no attention at all.
_SIZES = {"small": ((1, 1), 32), "medium": ((3, 4), 256), "large": ((6, 8), 1024)}

#: Blocks per stage of the dense form.
_DENSE_DEPTHS = {"small": (1, 1), "medium": (2, 2)}


def build_dense(
    bands: int,
    classes: int,
    *,
    size: str,
    window: int,
    attention: int,
    layers: int = 1,
    band_layer: Sequence[int] | None = None,
) -> DenseWetMapFormer:
    """The dense form, for maps."""
    wiring = Wiring(
        depths=_DENSE_DEPTHS[size], head_width=32, kernel=attention, mlp_ratio=4, stem_stride=2, widths=(64, 128)
    )
    return DenseWetMapFormer(bands, classes, wiring=wiring, window=window, layers=layers, band_layer=band_layer)


def build_window(
    bands: int,
    classes: int,
    *,
    size: str,
    window: int,
    stem_stride: int,
    layers: int = 1,
    band_layer: Sequence[int] | None = None,
) -> WetMapFormer:
    """The window classifier as evidently meant: attention kernel 3, MLP ratio 4 (small: 1,376,816)."""
    depths, head_width = _SIZES[size]
    wiring = Wiring(depths=depths, head_width=head_width, kernel=3, mlp_ratio=4, stem_stride=stem_stride)
    return WetMapFormer(bands, classes, wiring=wiring, window=window, layers=layers, band_layer=band_layer)


def build_published(
    bands: int,
    classes: int,
    *,
    size: str,
    window: int,
    stem_stride: int,
    layers: int = 1,
    band_layer: Sequence[int] | None = None,
) -> WetMapFormer:
    """The released wiring: attention kernel 1 and MLP ratio 0, both of which do nothing (small: 719,728)."""
    depths, head_width = _SIZES[size]
    wiring = Wiring(depths=depths, head_width=head_width, kernel=1, mlp_ratio=0, stem_stride=stem_stride)
    return WetMapFormer(bands, classes, wiring=wiring, window=window, layers=layers, band_layer=band_layer)
