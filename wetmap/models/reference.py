"""Weights of the public models in: the names that the releases use, and what stands for them here.

Each architecture with a published counterpart has a ``key_map`` in its own ``reference`` module; this one says how a
map is used, and finds the map of a module.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wetmap.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor, nn

#: The modules of each class that has a published counterpart; named, so that none is imported that is not needed.
_MAPS = {
    "wetmap.models.wetmapformer.network:WetMapFormer": "wetmap.models.wetmapformer.reference",
    "wetmap.models.vvt.network:Vvt": "wetmap.models.vvt.reference",
    "wetmap.models.vvt.dense:VvtDense": "wetmap.models.vvt.reference",
    "wetmap.models.supervit.classifier:SuperVit": "wetmap.models.supervit.reference",
    "wetmap.models.supervit.dense:SuperVitDense": "wetmap.models.supervit.reference",
}

#: Names given in a message before the rest is only counted.
NAMES_IN_MESSAGE = 8


@dataclass(frozen=True)
class Weight:
    """One weight of a release and where it goes."""

    name: str
    """The release's name, such as ``block1.0.attn.q_proj.weight`` or ``conv2d_3/kernel``."""
    target: str | None
    """Name of the parameter or buffer here; None: it has no counterpart here, and nothing depends on it."""
    axes: tuple[int, ...] | None = None
    """Permutation from the release's layout to torch's; None: the same layout."""

    def ours(self, value: Tensor) -> Tensor:
        """A value in the layout that is used here."""
        turned = value if self.axes is None else value.permute(self.axes)
        # Keras' convolutions along the bands, (1, 1, bands, in, out), are (out, in, 1, bands) here
        return turned.squeeze(2) if turned.ndim == 5 else turned


@dataclass(frozen=True)
class BandAxis:
    """A weight that grows with the number of bands."""

    target: str
    """Name of the parameter or buffer here."""
    axis: int
    """The axis that grows."""
    block: int = 1
    """Places on that axis per band."""
    summed: bool = True
    """Whether the layer adds the bands up."""


@dataclass(frozen=True)
class KeyMap:
    """What a module has in common with its release."""

    weights: tuple[Weight, ...]
    """The weights, in the release's order."""
    by_band: tuple[BandAxis, ...] = ()
    """Those whose size depends on the number of bands."""
    head: frozenset[str] = frozenset()
    """Names here of the weights whose size depends on the number of classes."""
    elsewhere: frozenset[str] = frozenset()
    """The release's names of weights that this form of the model has no place for."""
    measured: frozenset[str] = frozenset()
    """Names here of what training measures itself: the normalisation of the bands."""
    unpublished: tuple[str, ...] = ()
    """Names here of parameters that the release does not have."""


def load_reference(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill a model with the weights of the public code's own model of the same wiring, bands and classes.

    Args:
        model: A WetMapFormer classifier, a VVT or a SuperViT classifier, filled in place; its dtype is kept.
        tensors: Weights by the public code's own names (``block1.0.attn.q_proj.weight``, ``conv2d_3/kernel``), bare or
            under ``param/``; if any name is under ``param/``, those that are not (inputs, outputs) are not looked at.

    Raises:
        BundleError: A weight is missing, left over, or has another shape, or the model has no published counterpart;
            then the model is as it was.
    """
    keys = key_map(model)
    if keys.unpublished:
        raise BundleError(
            f"{type(model).__name__} has parts that the release has not: {_some(keys.unpublished)}.",
            do="Make the form that was published, a classifier of windows without an extractor before it.",
        )
    given = bare(tensors)
    check_names({weight.name for weight in keys.weights}, given)
    state = model.state_dict()
    values = {}
    for weight in keys.weights:
        value = given[weight.name]
        if weight.target is None:
            check_shape(weight, value, () if value.numel() else tuple(value.shape))
        else:
            check_shape(weight, value, tuple(state[weight.target].shape))
            values[weight.target] = weight.ours(value)
    for target, value in values.items():
        state[target].copy_(value)


def key_map(model: nn.Module) -> KeyMap:
    """What a model has in common with its release.

    Raises:
        BundleError: There is no release of such a model.
    """
    for kind in type(model).__mro__:
        found = _MAPS.get(f"{kind.__module__}:{kind.__qualname__}")
        if found is not None:
            keys: KeyMap = importlib.import_module(found).key_map(model)
            return keys
    raise BundleError(
        f"{type(model).__name__} has no published counterpart, so there are no reference weights for it.",
        do="Reference weights exist for wetmapformer-window, wetmapformer-published, the vvt and the supervit models.",
    )


def bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights among stored tensors: those under ``param/`` without it, or all where there is no such name."""
    given = {name.removeprefix("param/"): value for name, value in tensors.items() if name.startswith("param/")}
    return given or dict(tensors)


def check_names(wanted: Collection[str], given: Collection[str]) -> None:
    """Refuse names that are missing or left over, by name.

    Raises:
        BundleError: There are such names.
    """
    missing, extra = set(wanted) - set(given), set(given) - set(wanted)
    if missing or extra:
        # those left over come first: they say what the file is of
        lists = [_some(sorted(names), what) for names, what in ((extra, "left over"), (missing, "missing")) if names]
        raise BundleError(
            f"{len(missing | extra)} weights are missing or left over: {'; '.join(lists)}.",
            do="Give the weights of a model with the same wiring.",
        )


def check_shape(weight: Weight, value: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a value that does not fit.

    Args:
        weight: Which weight.
        value: Its value, in the release's layout.
        shape: The shape that is wanted, in the layout used here.

    Raises:
        BundleError: Its shape, in the layout used here, is another one.
    """
    turned = value.ndim if weight.axes is None else len(weight.axes)
    found = tuple(weight.ours(value).shape) if turned == value.ndim else tuple(value.shape)
    if found != shape:
        raise BundleError(
            f"Weight {weight.name} has the shape {found}, not {shape}.",
            do="Give the weights of a model with the same wiring, bands and classes.",
        )


def _some(names: Collection[str], what: str = "") -> str:
    """The first names, each with what is wrong with it, and how many more there are."""
    shown, more = list(names)[:NAMES_IN_MESSAGE], len(names) - NAMES_IN_MESSAGE
    said = f" ({what})" if what else ""
    return ", ".join(f"{name}{said}" for name in shown) + (f" and {more} more{said}" if more > 0 else "")
