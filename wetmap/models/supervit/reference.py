"""Weights of the released SuperViT (DeiT form) in, by the names that its checkpoints use."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from wetmap.errors import BundleError
from wetmap.models.supervit.classifier import SuperVit

#: Parts of a block: the name here and the released one.
_BLOCK_PARTS = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "norm2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def reference_names(model: SuperVit) -> dict[str, str]:
    """The released name of every parameter, and the parameter's name here.

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


def load_reference(model: SuperVit, tensors: Mapping[str, Tensor]) -> None:
    """Fill a model with released weights of the same sizes, bands and classes.

    Args:
        model: The model to fill, in place; its dtype is kept.
        tensors: Weights by released name, bare or under ``param/``; if any name is under ``param/``, those that are not
            (inputs, outputs) are not looked at.

    Raises:
        BundleError: A weight is missing, left over, or has another shape, or the model has a kernel per size.
    """
    given = {name.removeprefix("param/"): value for name, value in tensors.items() if name.startswith("param/")}
    given = given or dict(tensors)
    names = reference_names(model)
    wrong = set(names) ^ set(given)
    if wrong:
        raise BundleError(
            f"{len(wrong)} weights are missing or left over: {', '.join(sorted(wrong)[:8])}.",
            do="Give the weights of a model with the same sizes and depth.",
        )
    state = model.state_dict()
    for there, here in names.items():
        if given[there].shape != state[here].shape:
            raise BundleError(
                f"Weight {there} has the shape {tuple(given[there].shape)} instead of {tuple(state[here].shape)}.",
                do="Give the weights of a model with the same sizes, bands and classes.",
            )
    for there, here in names.items():
        state[here].copy_(given[there])
