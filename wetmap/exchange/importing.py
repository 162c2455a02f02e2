"""Public weights to a start: what a network that is trained here can begin from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wetmap import models
from wetmap.errors import UsageError
from wetmap.exchange.foreign import keras_names, read_foreign
from wetmap.models.adapt import Adapted, adapt_reference
from wetmap.models.reference import bare, key_map
from wetmap.training.start import StartCard, write_start

#: Classes of the network that only lends its shapes, where none are said; its classes' layer is not used then.
ANY_CLASSES = 2


@dataclass(frozen=True)
class Wanted:
    """The network that is to be trained."""

    model: str
    """Name in the registry."""
    options: Mapping[str, object]
    """Its options; those not named have their defaults."""
    bands: int
    """Number of bands of the cube."""
    classes: int | None = None
    """Number of classes, where they are those of the source, in the same order; None: their layer is left out."""


def import_weights(source: Path, wanted: Wanted, target: Path) -> StartCard:
    """Make a start of public weights.

    Args:
        source: A PyTorch checkpoint, a safetensors file, or a NumPy archive of a Keras model's weights.
        wanted: The network that is to be trained.
        target: The start to write, ``NAME.safetensors``.

    Returns:
        What was taken, adapted and left out; it is written beside the weights too.

    Raises:
        UsageError: The source is not there or of another format, or the model or its options are unknown.
        BundleError: The source is damaged or hostile, or of another model.
        WorkspaceError: The disk is full.
    """
    options: dict[str, Any] = models.resolve_options(wanted.model, wanted.options)
    if models.entry(wanted.model).family != "torch":
        raise UsageError(
            f"Model {wanted.model} does not begin from weights.",
            do="Choose a vvt, supervit or wetmapformer.",
        )
    with torch.device("meta"):  # only its names and shapes are wanted
        network = models.create(wanted.model, wanted.bands, wanted.classes or ANY_CLASSES, **options)
    keys = key_map(network)  # a model without a release is refused before its weights are read
    foreign = read_foreign(source)
    from_keras = any("/" in weight.name for weight in keys.weights)
    tensors = bare(foreign.tensors)
    adapted: Adapted = adapt_reference(
        network, keras_names(tensors) if from_keras else tensors, keep_head=wanted.classes is not None
    )
    return write_start(
        target,
        adapted.state,
        model=wanted.model,
        options=options,
        bands=wanted.bands,
        source={"name": foreign.name, "kind": foreign.kind, "sha256": foreign.sha256, "bytes": foreign.bytes},
        taken=adapted.taken,
        adapted=adapted.adapted,
        left_out=adapted.left_out,
        fresh=adapted.fresh,
        head=tuple(sorted(keys.head & set(adapted.state))),
    )


def describe_start(card: StartCard, target: Path) -> list[str]:
    """A start in plain words."""
    source = card.source
    lines = [
        f"{target}: a start for {card.model} of {card.bands} bands, from {source.name} ({source.kind}, SHA-256 "
        f"{source.sha256[:12]})",
        f"taken as they were: {len(card.taken)} weights",
    ]
    lines += [f"adapted: {name}: {change}" for name, change in card.adapted.items()]
    lines += [f"left out: {', '.join(names)}: {reason}" for reason, names in _by_reason(card.left_out).items()]
    if card.fresh:
        lines.append(f"drawn at random when training begins: {', '.join(card.fresh)}")
    return [*lines, f"next: in the recipe, under training: start: {target.absolute()}"]


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        reasons.setdefault(reason, []).append(name)
    return reasons
