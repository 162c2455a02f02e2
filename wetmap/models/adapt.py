"""Weights of a public model, made to fit another number of bands and of classes.

A kernel over photographs' three bands says something about edges and texture, and little about which band they are in.
So every band gets the mean of the kernels, scaled so that the layer's answer to the same values in all bands is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wetmap.errors import BundleError
from wetmap.models.reference import BandAxis, KeyMap, Weight, bare, check_names, check_shape, key_map

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Endings of names in a module's state that count or index and are not trained.
BOOK_KEEPING = ("num_batches_tracked", "band_layer")


@dataclass(frozen=True)
class Adapted:
    """What was made of a public model's weights."""

    state: dict[str, Tensor] = field(default_factory=dict)
    """Weights by the name here, float32."""
    taken: tuple[str, ...] = ()
    """Names here of those that are as they were."""
    adapted: dict[str, str] = field(default_factory=dict)
    """Names here of those that were changed, and how."""
    left_out: dict[str, str] = field(default_factory=dict)
    """The release's names of those that were not used, and why."""
    fresh: tuple[str, ...] = ()
    """Names here of weights that stay as they are drawn at random."""


def adapt_reference(model: nn.Module, tensors: Mapping[str, Tensor], *, keep_head: bool) -> Adapted:
    """Fit public weights to a model; the model is not changed, and may be on the device ``meta``.

    Args:
        model: A WetMapFormer classifier, or a VVT or SuperViT in any form (of a dense form, the trunk is filled).
        tensors: Weights by the public code's own names, bare or under ``param/``.
        keep_head: Whether the layer of the classes is used, where the number of classes is the same.

    Raises:
        BundleError: The model has no published counterpart, a weight is missing, left over, of another shape, or not
            a number. A missing classes' layer is none of these.
    """
    keys, given = key_map(model), bare(tensors)
    heads = {weight.name for weight in keys.weights if weight.target in keys.head}
    check_names({weight.name for weight in keys.weights} - heads, set(given) - heads - keys.elsewhere)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    left_out = dict.fromkeys(sorted(keys.elsewhere & set(given)), "this form of the model has a layer of its own there")
    refused = _why_no_head(keys, given, shapes) if keep_head else "the classes are not known to be the same"
    bands = {axis.target: axis for axis in keys.by_band}
    state: dict[str, Tensor] = {}
    adapted: dict[str, str] = {}
    for weight in (weight for weight in keys.weights if weight.name in given):
        if weight.target is None or weight.target in keys.measured:
            left_out[weight.name] = "training measures it anew, or nothing depends on it"
        elif weight.target in keys.head and refused:
            left_out[weight.name] = refused
        else:
            value, change = _fitted(weight, given[weight.name], bands.get(weight.target), shapes[weight.target])
            state[weight.target] = value
            adapted |= {weight.target: change} if change else {}
    known = set(state) | keys.measured
    fresh = tuple(name for name in shapes if name not in known and _drawn(name))
    return Adapted(state, tuple(name for name in state if name not in adapted), adapted, left_out, fresh)


def _drawn(name: str) -> bool:
    """Whether a name in a module's state is of a weight, and not of a count or of what training measures."""
    return not name.startswith("normalisation.") and not name.endswith(BOOK_KEEPING)


def _why_no_head(keys: KeyMap, given: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Why the classes' layer cannot be used; empty where it can."""
    for weight in keys.weights:
        if weight.target is None or weight.target not in keys.head:
            continue
        if weight.name not in given:
            return "the other part of the layer is missing"
        count, wanted = weight.ours(given[weight.name]).shape[:1], shapes[weight.target][:1]
        if count != wanted:
            return f"it is for {count[0] if count else 0} classes and not {wanted[0]}"
    return ""


def _fitted(weight: Weight, value: Tensor, axis: BandAxis | None, shape: tuple[int, ...]) -> tuple[Tensor, str]:
    """A weight as it is used here, float32, and what was changed, in words."""
    change = ""
    if axis is not None and value.ndim == (len(weight.axes) if weight.axes else len(shape)):
        value, change = _to_bands(weight.ours(value), axis, shape)
        weight = Weight(weight.name, weight.target)
    check_shape(weight, value, shape)
    value = weight.ours(value).detach().float().contiguous()
    if not bool(value.isfinite().all()):
        raise BundleError(
            f"Weight {weight.name} holds values that are not numbers.", do="Give a checkpoint of a finished training."
        )
    return value, change


def _to_bands(value: Tensor, axis: BandAxis, shape: tuple[int, ...]) -> tuple[Tensor, str]:
    """Make a weight of some bands one of as many as ``shape`` says; and what was done, in words."""
    if value.ndim != len(shape) or value.shape[axis.axis] == shape[axis.axis] or value.shape[axis.axis] % axis.block:
        return value, ""
    before, after = value.shape[axis.axis] // axis.block, shape[axis.axis] // axis.block
    parts = value.reshape(*value.shape[: axis.axis], before, axis.block, *value.shape[axis.axis + 1 :])
    mean = parts.float().mean(axis.axis, keepdim=True)
    if axis.summed:
        mean = mean * (before / after)
    wide = mean.repeat_interleave(after, axis.axis).flatten(axis.axis, axis.axis + 1)
    scaled = f" times {before}/{after}" if axis.summed else ""
    return wide, f"the mean over its {before} inputs{scaled}, for each of {after}"
