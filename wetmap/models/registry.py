"""Which models there are, what can be chosen about each, and how one is made.

The models themselves are listed in ``wetmap.models.entries``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wetmap.errors import RecipeError
from wetmap.models.entries import ENTRIES, ModelEntry, Option, OptionValue

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "ModelEntry",
    "Option",
    "OptionValue",
    "create",
    "entry",
    "model_names",
    "option_defaults",
    "resolve_options",
]


def model_names() -> tuple[str, ...]:
    """The registered names, in the order of the registry."""
    return tuple(known.name for known in ENTRIES)


def entry(name: str) -> ModelEntry:
    """What is known about a model.

    Raises:
        RecipeError: There is no such model.
    """
    for known in ENTRIES:
        if known.name == name:
            return known
    near = difflib.get_close_matches(name.lower().replace("_", "-"), model_names(), 1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise RecipeError(f"There is no model called {name!r}.{meant}", do=f"Choose one of {', '.join(model_names())}.")


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
            f"Model {name} is not trained by gradient.", do="Fit it with wetmap.models.pixels.fit_pixel_model."
        )
    _check_counts(bands, classes, layers, band_layer)
    model: nn.Module = known.load()(bands, classes, layers=layers, band_layer=band_layer, **chosen)
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
