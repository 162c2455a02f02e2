"""Weights of the released SuperViT (DeiT form) in, by the names that its checkpoints use."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from wetmap.errors import BundleError
from wetmap.models import reference
from wetmap.models.reference import BandAxis, KeyMap, Weight
from wetmap.models.supervit.classifier import SuperVit
from wetmap.models.supervit.dense import SuperVitDense

#: The classifier's own layer on the trunk, of the same name here and in the release.
_HEAD = frozenset({"head.weight", "head.bias"})

#: Parts of a block: the name here and the released one.
_BLOCK_PARTS = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "norm2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def reference_names(model: SuperVit | SuperVitDense) -> dict[str, str]:
    """The released name of every parameter of the trunk and the classifier, and the parameter's name here.

    Raises:
        BundleError: The model has a kernel per size, which the release has not.
    """
    if model.shape.patching != "resize":
        raise BundleError(
            "The model embeds real patch sizes with a kernel for each; the released weights have one kernel.",
            do="Make the model with patching 'resize'.",
        )
    names = {"cls_token": "trunk.class_token"}
    names |= {f"pos_embed_list.{size}": f"trunk.positions.{size}" for size in range(len(model.shape.tokens))}
    modules = {"patch_embed.proj": "trunk.embeddings.0", "norm": "trunk.norm", "head": "head"}
    for number in range(model.shape.depth):
        for here, there in _BLOCK_PARTS.items():
            modules[f"blocks.{number}.{there}"] = f"trunk.blocks.{number}.{here}"
    for there, here in modules.items():
        names |= {f"{there}.{kind}": f"{here}.{kind}" for kind in ("weight", "bias")}
    return names


def key_map(model: SuperVit | SuperVitDense) -> KeyMap:
    """The released names of the trunk, and of the head where the model is the classifier that was released.

    Raises:
        BundleError: The model has a kernel per size, which the release has not.
    """
    released = isinstance(model, SuperVit)
    common = {there: here for there, here in reference_names(model).items() if released or there not in _HEAD}
    known = set(common.values())
    return KeyMap(
        weights=tuple(Weight(there, here) for there, here in common.items()),
        by_band=(BandAxis("trunk.embeddings.0.weight", 1),),
        head=_HEAD if released else frozenset(),
        elsewhere=frozenset() if released else _HEAD,
        unpublished=tuple(name for name, _ in model.named_parameters() if name not in known),
    )


def load_reference(model: SuperVit, tensors: Mapping[str, Tensor]) -> None:
    """Fill a model with released weights of the same sizes, bands and classes.

    Args:
        model: The model to fill, in place; its dtype is kept.
        tensors: Weights by released name, bare or under ``param/``; if any name is under ``param/``, those that are not
            (inputs, outputs) are not looked at.

    Raises:
        BundleError: A weight is missing, left over, or has another shape, or the model has a kernel per size; then the
            model is as it was.
    """
    reference.load_reference(model, tensors)
