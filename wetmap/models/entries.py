"""The models that are registered: adding one is its own file and one entry here.

Builders are named, not imported, so that listing the models imports neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

OptionValue = int | float | str | bool


@dataclass(frozen=True)
class Option:
    """One thing that can be chosen about a model."""

    default: OptionValue
    """Value when nothing is said; its type is the option's type."""
    description: str
    """What it is, with its unit."""
    allowed: tuple[OptionValue, ...] = ()
    """The values to choose from; empty: any positive value of the type."""


@dataclass(frozen=True)
class ModelEntry:
    """What is known about a model before it is made."""

    name: str
    """Its name in recipes and bundles."""
    family: Literal["torch", "pixel"]
    """``torch``: a module, trained by gradient. ``pixel``: fitted by ``wetmap.models.pixels.fit_pixel_model``."""
    answers: Literal["window", "dense", "pixel"]
    """What it was trained to answer for: the centre of a window, every pixel of a tile, a pixel on its own."""
    builder: str
    """``module:function`` that makes a module, ``module:class`` of a pixel model."""
    summary: str
    """One line for ``wetmap doctor``."""
    options: Mapping[str, Option]
    """What can be chosen, by name."""
    every_parameter_trains: bool = True
    """False where the architecture has parameters that no loss can move; the model names them itself."""
    exportable: bool = True
    """Whether it can be written as ONNX."""
    needs_all_layers: bool = False
    """True where a season or a pass may not be missing."""
    tokens: tuple[int, ...] = ()
    """Tokens a side of its operating points, from the fewest; none where the model is a single network."""
    sees_whole_tile: bool = False
    """Of dense models: True where every answer depends on the whole tile, as with attention over all of it."""

    def load(self) -> Any:
        """What ``builder`` names, imported now."""
        module, name = self.builder.split(":")
        return getattr(importlib.import_module(module), name)


_WINDOW_OPTIONS = {
    "size": Option("small", "Depth and attention heads, as in the published notebook.", ("small", "medium", "large")),
    "window": Option(8, "Side of the window that is classified, pixels, even.", tuple(range(8, 33, 2))),
    "stem_stride": Option(4, "Pixels per side that become one token.", (1, 2, 4)),
}

_EXTRACTOR = Option(
    "none",
    "The cube as it is, or through WetMapFormer's 3-D/2-D convolutional feature extractor.",
    ("none", "spectral"),
)

_VVT_OPTIONS = {
    "window": Option(32, "Side of the window that is classified, pixels, even.", tuple(range(16, 65, 2))),
    "clamp": Option(True, "Force magnitudes in the attention into 1e-4 to 1e4, as released."),
    "drop_path": Option(0.0, "Share of the last block's answers left out in training.", (0.0, 0.1, 0.2, 0.3)),
    "extractor": _EXTRACTOR,
}

_DENSE_SIDE = "Side of the tiles, in training and in mapping, pixels; in maps a quarter overlaps with the next."

_VVT_SIZES = (
    ("micro", "of a laptop's size, 0.3 million parameters"),
    ("tiny", "12 million parameters"),
    ("small", "25 million parameters"),
    ("medium", "47 million parameters"),
    ("large", "61 million parameters"),
)

_VVT_DENSE_OPTIONS = {**_VVT_OPTIONS, "window": Option(32, _DENSE_SIDE, (16, 32, 48, 64, 96, 128))}

_PATCHING = Option("resize", "One kernel on a resized window, or a kernel for each patch size.", ("resize", "multi"))

_SUPERVIT_DENSE_OPTIONS = {
    "window": Option(32, _DENSE_SIDE, (16, 32, 48, 64)),
    "patching": _PATCHING,
    "extractor": _EXTRACTOR,
}

_BASELINE_WINDOW = Option(8, "Side of the window that is classified, pixels, even.", tuple(range(8, 33, 2)))

_CLASS_WEIGHT = Option("balanced", "Weight classes by inverse frequency, or not.", ("balanced", "none"))

#: Every model, in the order in which they are listed.
ENTRIES: tuple[ModelEntry, ...] = (
    ModelEntry(
        name="wetmapformer",
        family="torch",
        answers="dense",
        builder="wetmap.models.wetmapformer:build_dense",
        summary="WetMapFormer in dense form, for maps: local attention over a whole tile.",
        options={
            "size": Option("small", "Blocks per stage: 1 or 2.", ("small", "medium")),
            "window": Option(16, "Side of the training tiles, pixels.", (8, 16, 24, 32, 48, 64)),
            "attention": Option(5, "Side of the attention neighbourhood, tokens of 4 pixels.", (3, 5, 7)),
        },
    ),
    ModelEntry(
        name="wetmapformer-window",
        family="torch",
        answers="window",
        builder="wetmap.models.wetmapformer:build_window",
        summary="WetMapFormer's window classifier as evidently meant: attention kernel 3, MLP ratio 4.",
        options=_WINDOW_OPTIONS,
    ),
    ModelEntry(
        name="wetmapformer-published",
        family="torch",
        answers="window",
        builder="wetmap.models.wetmapformer:build_published",
        summary="WetMapFormer as released, whose attention does nothing; for comparison.",
        options=_WINDOW_OPTIONS,
        every_parameter_trains=False,
    ),
    ModelEntry(
        name="supervit-micro",
        family="torch",
        answers="window",
        builder="wetmap.models.supervit:build_micro",
        tokens=(4, 6, 8),
        summary="SuperViT of a laptop's size: 4, 6 or 8 tokens a side and any keeping rate in one set of weights.",
        options={
            "window": Option(16, "Side of the window that is classified, pixels.", (8, 16, 24, 32)),
            "patching": _PATCHING,
            "extractor": _EXTRACTOR,
        },
    ),
    ModelEntry(
        name="supervit-small",
        family="torch",
        answers="window",
        builder="wetmap.models.supervit:build_small",
        tokens=(8, 10, 12, 14),
        summary="SuperViT as released, DeiT-S: 8, 10, 12 or 14 tokens a side; large and slow for small windows.",
        options={
            "window": Option(16, "Side of the window that is classified, pixels, even.", tuple(range(8, 33, 2))),
            "patching": _PATCHING,
            "extractor": _EXTRACTOR,
        },
    ),
    *(
        ModelEntry(
            name=f"vvt-{size}",
            family="torch",
            answers="window",
            builder=f"wetmap.models.vvt:build_{size}",
            summary=f"Vicinity Vision Transformer, {note}.",
            options=_VVT_OPTIONS,
        )
        for size, note in _VVT_SIZES
    ),
    *(
        ModelEntry(
            name=f"vvt-{size}-dense",
            family="torch",
            answers="dense",
            builder=f"wetmap.models.vvt:build_{size}_dense",
            summary=f"Vicinity Vision Transformer that answers for every pixel of a tile, {note}.",
            options=_VVT_DENSE_OPTIONS,
            sees_whole_tile=True,
        )
        for size, note in _VVT_SIZES
    ),
    *(
        ModelEntry(
            name=f"supervit-{size}-dense",
            family="torch",
            answers="dense",
            builder=f"wetmap.models.supervit:build_{size}_dense",
            summary=f"SuperViT that answers for every pixel of a tile, {note}.",
            options=_SUPERVIT_DENSE_OPTIONS,
            tokens=tokens,
            sees_whole_tile=True,
        )
        for size, note, tokens in (
            ("micro", "of a laptop's size: 4, 6 or 8 tokens a side", (4, 6, 8)),
            ("small", "of DeiT-S: 8, 10, 12 or 14 tokens a side; large and slow", (8, 10, 12, 14)),
        )
    ),
    ModelEntry(
        name="unet",
        family="torch",
        answers="dense",
        builder="wetmap.models.unet:UNet",
        summary="A small U-Net of two poolings, 0.4 million parameters: the plain dense network to beat.",
        options={
            "window": Option(16, "Side of the training tiles, pixels.", (8, 16, 24, 32, 48, 64, 96, 128)),
            "width": Option(32, "Channels at full resolution; doubled by every pooling.", (8, 16, 24, 32, 48, 64)),
        },
    ),
    ModelEntry(
        name="hybridsn",
        family="torch",
        answers="window",
        builder="wetmap.models.hybridsn:HybridSn",
        summary="Baseline: 3-D then 2-D convolutions in the manner of HybridSN, 0.4 million parameters.",
        options={
            "window": _BASELINE_WINDOW,
            "dropout": Option(0.4, "Share of values dropped in the dense layers.", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        },
    ),
    ModelEntry(
        name="resnet",
        family="torch",
        answers="window",
        builder="wetmap.models.resnet:ResNet",
        summary="Baseline: ResNet-20, 0.3 million parameters.",
        options={"window": _BASELINE_WINDOW},
    ),
    ModelEntry(
        name="vit",
        family="torch",
        answers="window",
        builder="wetmap.models.vit:Vit",
        summary="Baseline: a plain vision transformer, 0.3 million parameters.",
        options={
            "window": _BASELINE_WINDOW,
            "patch": Option(2, "Pixels per side that become one token.", (1, 2, 4)),
        },
    ),
    ModelEntry(
        name="swin",
        family="torch",
        answers="window",
        builder="wetmap.models.swin:Swin",
        summary="Baseline: Swin, attention within shifted squares, 0.6 million parameters.",
        options={
            "window": _BASELINE_WINDOW,
            "patch": Option(1, "Pixels per side that become one token.", (1, 2, 4)),
        },
    ),
    ModelEntry(
        name="coatnet",
        family="torch",
        answers="window",
        builder="wetmap.models.coatnet:CoAtNet",
        summary="Baseline: CoAtNet, convolutions then attention, 0.4 million parameters.",
        options={
            "window": _BASELINE_WINDOW,
            "stem_stride": Option(1, "Pixels per side of the map after the stem.", (1, 2)),
        },
    ),
    ModelEntry(
        name="forest",
        family="pixel",
        answers="pixel",
        builder="wetmap.models.forest:ForestModel",
        summary="Random forest on single pixels, the baseline.",
        options={
            "trees": Option(200, "Number of trees."),
            "class_weight": _CLASS_WEIGHT,
        },
        exportable=False,
    ),
    ModelEntry(
        name="boosting",
        family="pixel",
        answers="pixel",
        builder="wetmap.models.boosting:BoostingModel",
        summary="Gradient boosting on single pixels, the other baseline.",
        options={
            "trees": Option(100, "Rounds, each of one tree per class."),
            "learning_rate": Option(0.1, "Share of each tree's correction that is taken."),
            "leaves": Option(31, "Most leaves of a tree, at least 2."),
            "class_weight": _CLASS_WEIGHT,
        },
        exportable=False,
    ),
)
