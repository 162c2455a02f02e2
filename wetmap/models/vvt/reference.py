"""Weights of the released PyTorch model in: the same layout, other names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from wetmap.models import reference
from wetmap.models.reference import BandAxis, KeyMap, Weight
from wetmap.models.vvt.dense import VvtDense
from wetmap.models.vvt.network import Vvt

#: The classifier's own layer on the trunk.
_HEAD = frozenset({"head.weight", "head.bias"})

#: Parts of the names within a stage: here, and in the release.
_PARTS = {
    "attention_norm": "norm1",
    "attention.query": "attn.q_proj",
    "attention.key": "attn.k_proj",
    "attention.value": "attn.v_proj",
    "attention.out": "attn.out_proj",
    "attention.gate.squeeze": "attn.se_fc.0",
    "attention.gate.widen": "attn.se_fc.2",
    "attention.reduction.conv": "attn.sr",
    "attention.reduction.norm": "attn.norm",
    "mlp_norm": "norm2",
    "mlp.dense1": "mlp.fc1",
    "mlp.spread": "mlp.dwconv.dwconv",
    "mlp.dense2": "mlp.fc2",
}


def reference_name(name: str) -> str:
    """The release's name of a parameter: ``trunk.stages.0.blocks.1.mlp.dense1.bias`` is ``block1.1.mlp.fc1.bias``."""
    found = re.fullmatch(r"trunk\.stages\.(\d)\.(.+)\.(weight|bias)", name)
    if found is None:
        return name
    scale, path, kind = int(found[1]) + 1, found[2], found[3]
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", path)
    if block:
        return f"block{scale}.{block[1]}.{_PARTS[block[2]]}.{kind}"
    if path == "norm":
        return f"norm{scale}.{kind}"
    part = {"embedding.conv": "proj", "embedding.norm": "norm"}[path]
    return f"patch_embed{scale}.{part}.{kind}"


def key_map(model: Vvt | VvtDense) -> KeyMap:
    """The release's names of the trunk, and of the head where the model is the classifier that was released."""
    released = isinstance(model, Vvt)
    names = [name for name, _ in model.named_parameters()]
    common = [name for name in names if name.startswith("trunk.") or (released and name in _HEAD)]
    return KeyMap(
        weights=tuple(Weight(reference_name(name), name) for name in common),
        by_band=(BandAxis("trunk.stages.0.embedding.conv.weight", 1),),
        head=_HEAD if released else frozenset(),
        elsewhere=frozenset() if released else _HEAD,
        unpublished=tuple(name for name in names if name not in common),
    )


def load_reference(model: Vvt, tensors: Mapping[str, Tensor]) -> None:
    """Fill a classifier with the weights of a released one of the same wiring, bands and classes.

    Args:
        model: The model to fill, in place; its dtype and its normalisation are kept.
        tensors: The release's weights by name (``block1.0.attn.q_proj.weight``), bare or under ``param/``; if any name
            is under ``param/``, those that are not (inputs, outputs) are not looked at.

    Raises:
        BundleError: A weight is missing, left over, or has another shape; then the model is as it was.
    """
    reference.load_reference(model, tensors)
