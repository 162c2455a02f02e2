"""Which models there are, what can be chosen about each, and how one is made.

Adding a model is one file and one line in ``_ENTRIES``. Builders are named, not imported, so that listing the models
imports neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wetmap.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

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
    family: Literal["torch", "forest"]
    """``torch``: a module, trained by gradient. ``forest``: fitted by ``wetmap.models.forest.fit_forest``."""
    answers: Literal["window", "dense", "pixel"]
    """What it was trained to answer for: the centre of a window, every pixel of a tile, a pixel on its own."""
    builder: str
    """``module:function`` that makes it."""
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


_WINDOW_OPTIONS = {
    "size": Option("small", "Depth and attention heads, as in the published notebook.", ("small", "medium", "large")),
    "window": Option(8, "Side of the window that is classified, pixels, even.", tuple(range(8, 33, 2))),
    "stem_stride": Option(4, "Pixels per side that become one token.", (1, 2, 4)),
}

_VVT_OPTIONS = {
    "window": Option(32, "Side of the window that is classified, pixels, even.", tuple(range(16, 65, 2))),
    "clamp": Option(True, "Force magnitudes in the attention into 1e-4 to 1e4, as released."),
    "drop_path": Option(0.0, "Share of the last block's answers left out in training.", (0.0, 0.1, 0.2, 0.3)),
}

_PATCHING = Option("resize", "One kernel on a resized window, or a kernel for each patch size.", ("resize", "multi"))

_ENTRIES = (
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
        summary="SuperViT of a laptop's size: 4, 6 or 8 tokens a side and any keeping rate in one set of weights.",
        options={
            "window": Option(16, "Side of the window that is classified, pixels.", (8, 16, 24, 32)),
            "patching": _PATCHING,
        },
    ),
    ModelEntry(
        name="supervit-small",
        family="torch",
        answers="window",
        builder="wetmap.models.supervit:build_small",
        summary="SuperViT as released, DeiT-S: 8, 10, 12 or 14 tokens a side; large and slow for small windows.",
        options={
            "window": Option(16, "Side of the window that is classified, pixels, even.", tuple(range(8, 33, 2))),
            "patching": _PATCHING,
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
        for size, note in (
            ("micro", "of a laptop's size, 0.3 million parameters"),
            ("tiny", "12 million parameters"),
            ("small", "25 million parameters"),
            ("medium", "47 million parameters"),
            ("large", "61 million parameters"),
        )
    ),
    ModelEntry(
        name="forest",
        family="forest",
        answers="pixel",
        builder="wetmap.models.forest:fit_forest",
        summary="Random forest on single pixels, the baseline.",
        options={
            "trees": Option(200, "Number of trees."),
            "class_weight": Option("balanced", "Weight classes by inverse frequency, or not.", ("balanced", "none")),
        },
        exportable=False,
    ),
)


def model_names() -> tuple[str, ...]:
    """The registered names, in the order of the registry."""
    return tuple(known.name for known in _ENTRIES)


def entry(name: str) -> ModelEntry:
    """What is known about a model.

    Raises:
        RecipeError: There is no such model.
    """
    for known in _ENTRIES:
        if known.name == name:
            return known
    raise RecipeError(f"There is no model called {name!r}.", do=f"Choose one of {', '.join(model_names())}.")


def option_defaults(name: str) -> dict[str, OptionValue]:
    """The options of a model with their defaults.

    Raises:
        RecipeError: There is no such model.
    """
    return {key: option.default for key, option in entry(name).options.items()}


def resolve_options(name: str, options: Mapping[str, object]) -> dict[str, OptionValue]:
    """Check the options of a model and fill in the defaults; the result is what a bundle records.

    Raises:
        RecipeError: There is no such model or option, or a value has the wrong type or is not among the allowed.
    """
    known = entry(name).options
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise RecipeError(
            f"Model {name} has no option {', '.join(unknown)}.", do=f"Its options are {', '.join(sorted(known))}."
        )
    return {key: _checked(name, key, option, options.get(key, option.default)) for key, option in known.items()}


def create(
    name: str,
    bands: int,
    classes: int,
    *,
    layers: int = 1,
    band_layer: Sequence[int] | None = None,
    **options: object,
) -> nn.Module:
    """Make an untrained torch model, in training mode.

    Its initial weights come from torch's global generator: call ``torch.manual_seed`` first.

    Args:
        name: A registered name of the family ``torch``.
        bands: Number of features per pixel.
        classes: Number of classes.
        layers: Number of observation layers (season x sensor x orbit state).
        band_layer: For each band, the index of the layer that says where it was observed; may be left out when there
            is one layer.
        options: The model's own, see ``option_defaults``.

    Raises:
        RecipeError: An unknown name or option, a wrong value, or layers that do not fit the bands.
    """
    known = entry(name)
    chosen = resolve_options(name, options)
    if known.family != "torch":
        raise RecipeError(
            f"Model {name} is not trained by gradient.", do="Fit it with wetmap.models.forest.fit_forest."
        )
    _check_counts(bands, classes, layers, band_layer)
    module, function = known.builder.split(":")
    build = getattr(importlib.import_module(module), function)
    model: nn.Module = build(bands, classes, layers=layers, band_layer=band_layer, **chosen)
    return model


def _checked(name: str, key: str, option: Option, value: object) -> OptionValue:
    kind = type(option.default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise RecipeError(
            f"Option {key} of model {name} is {value!r}, of type {type(value).__name__}.",
            do=f"Give a value of type {kind.__name__}, such as {option.default!r}.",
        )
    checked: Any = value
    if option.allowed and checked not in option.allowed:
        choices = ", ".join(str(choice) for choice in option.allowed)
        raise RecipeError(f"Option {key} of model {name} is {value!r}.", do=f"Choose one of {choices}.")
    if not option.allowed and kind in (int, float) and not checked > 0:
        raise RecipeError(f"Option {key} of model {name} is {value!r}.", do="Give a value above 0.")
    return kind(checked)


def _check_counts(bands: int, classes: int, layers: int, band_layer: Sequence[int] | None) -> None:
    if bands < 1 or classes < 2 or layers < 1:
        raise RecipeError(
            f"A model cannot have {bands} bands, {classes} classes and {layers} layers.",
            do="Give at least 1 band, 2 classes and 1 layer.",
        )
    if band_layer is None and layers > 1:
        raise RecipeError(
            f"There are {layers} observation layers and nothing says which band belongs to which.",
            do="Give band_layer, one index per band.",
        )
    if band_layer is not None and (len(band_layer) != bands or not all(0 <= layer < layers for layer in band_layer)):
        raise RecipeError(
            f"band_layer is {list(band_layer)} for {bands} bands and {layers} layers.",
            do="Give one index per band, from 0 to layers - 1.",
        )
