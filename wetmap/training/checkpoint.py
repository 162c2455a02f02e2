"""The state of an unfinished fit on disk, so that a run that was killed goes on as if it had not been.

One safetensors file, replaced atomically after every epoch: the weights, the best weights so far and the optimiser's
moments as tensors, the history as JSON in the file's header, so that the two cannot be of different epochs. No pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from wetmap.workspace import write_bytes

#: File name in the folder that ``fit_network`` is given.
STATE_FILE = "fit-state.safetensors"
#: Layout of the file; a state of another layout is ignored.
STATE_FORMAT = 2
#: Safetensors begins with the length of its JSON header, 8 bytes, little-endian (its README, "Format").
HEADER_LENGTH_BYTES = 8

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class FitState:
    """Where a fit stands after an epoch."""

    history: list[dict[str, Any]]
    """One row per finished epoch."""
    best_epoch: int
    """The epoch whose weights are kept, from 0."""
    model: Tensors
    """The network's state after the last finished epoch."""
    best: Tensors
    """The network's state after the best epoch."""
    optimiser: dict[str, Tensors] = field(default_factory=dict)
    """Per parameter name: step, exp_avg, exp_avg_sq."""
    average: Tensors = field(default_factory=dict)
    """The moving average of the network's states, where one is kept; the best state is then one of these."""

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def seconds(self) -> float:
        """Training time of the finished epochs, over all runs, seconds."""
        return float(sum(row.get("seconds", 0.0) for row in self.history))

    def exhausted(self, epochs: int, patience: int, minutes: float | None = None) -> bool:
        """Whether all epochs are done, the last ``patience`` of them brought nothing better, or the time is up."""
        too_late = minutes is not None and self.seconds >= minutes * 60
        return self.epochs_done >= epochs or self.epochs_done - 1 - self.best_epoch >= patience or too_late


def copied(tensors: Mapping[str, Tensor]) -> Tensors:
    """Copies on the CPU that later training does not change."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def save_state(folder: Path, key: str, state: FitState) -> None:
    """Replace the folder's state atomically.

    Args:
        folder: Where the state lives; made if it is not there.
        key: Digest of what the fit was asked.
        state: What to keep.

    Raises:
        WorkspaceError: The disk is full.
    """
    header = {"format": STATE_FORMAT, "key": key, "history": state.history, "best_epoch": state.best_epoch}
    tensors = {f"model/{name}": tensor for name, tensor in state.model.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in state.average.items()}
    if state.best_epoch != state.epochs_done - 1:  # else the best weights are the last ones
        tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    for name, moments in state.optimiser.items():
        tensors |= {f"optimiser/{name}/{moment}": tensor for moment, tensor in moments.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / STATE_FILE, tensors_to_bytes(tensors, metadata={"fit": json.dumps(header, sort_keys=True)}))


def load_state(folder: Path, key: str, like: Mapping[str, Tensor]) -> FitState | None:
    """Read the state that an earlier run left, if it is about the same fit.

    Args:
        folder: Where the state lives.
        key: Digest of what the fit is asked now.
        like: The network's own state, for its names and shapes.

    Returns:
        The state, or None where there is none, or it is damaged, of another layout, of another fit or of another
        network: then the fit begins anew, and ends with the same weights.
    """
    try:
        data = (folder / STATE_FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        tensors, header = tensors_from_bytes(data), _header(data)
    except (SafetensorError, ValueError):
        return None
    if header.get("format") != STATE_FORMAT or header.get("key") != key:
        return None
    last, average = _part(tensors, "model/"), _part(tensors, "average/")
    state = FitState(
        history=header["history"],
        best_epoch=header["best_epoch"],
        model=last,
        best=_part(tensors, "best/") or average or last,
        optimiser=_moments(_part(tensors, "optimiser/")),
        average=average,
    )
    return state if all(_shapes(part) == _shapes(like) for part in (last, state.best, average or last)) else None


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:HEADER_LENGTH_BYTES], "little")
    metadata = json.loads(data[HEADER_LENGTH_BYTES : HEADER_LENGTH_BYTES + length]).get("__metadata__", {})
    header = json.loads(metadata.get("fit", "{}"))
    return header if isinstance(header, dict) else {}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _moments(tensors: Mapping[str, Tensor]) -> dict[str, Tensors]:
    moments: dict[str, Tensors] = {}
    for path, tensor in tensors.items():
        name, _, moment = path.rpartition("/")
        moments.setdefault(name, {})[moment] = tensor
    return moments


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
