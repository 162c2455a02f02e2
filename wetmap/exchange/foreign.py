"""Weights that others saved: PyTorch checkpoints, safetensors, NumPy archives.

A checkpoint is a pickle, and a pickle can hold a program. It is read here, and nowhere else, by PyTorch's restricted
reader, which builds tensors and plain values and calls nothing that the file names.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# for the name of its error; nothing is unpickled with it
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from wetmap.errors import BundleError, UsageError

#: Largest file, and largest contents of an archive, that is read. The largest published model here has 0.25 GB, and a
#: checkpoint that holds the optimiser's state and an average of the weights four times that.
MOST_BYTES = 4 * 2**30
#: How many times larger than the file the contents of an archive may be. Trained weights hardly shrink at all.
MOST_RATIO = 20
#: Below this no ratio is asked, bytes.
SMALL_BYTES = 2**20

#: Where checkpoints keep the weights, beside optimisers and settings, in order of preference.
CONTAINERS = ("model", "state_dict", "model_state_dict")
#: What wrappers for several devices put before every name.
WRAPPERS = ("module.", "_orig_mod.")
#: The weights of Keras' Normalization layer.
NORMALISATION = ("mean", "variance", "count")

#: Everything that PyTorch's reader raises on files that are cut short, altered, or hostile.
_DAMAGE = (
    UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    EOFError,
    OverflowError,
    MemoryError,
    ImportError,
    zipfile.BadZipFile,
)
_DOWNLOAD = "Download the file again."
_SAFE = "Ask its author for safetensors, or save the weights alone (`state_dict`) where you trust it."


@dataclass(frozen=True)
class Foreign:
    """Weights from somebody else's file."""

    name: str
    """File name."""
    kind: str
    """``torch``, ``safetensors`` or ``npz``."""
    sha256: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file, bytes."""
    tensors: dict[str, Tensor]
    """Weights by name, on the CPU."""


def read_foreign(path: Path) -> Foreign:
    """Read weights; no code in the file is run.

    Args:
        path: A PyTorch checkpoint, a safetensors file, or a NumPy archive (``.npz``) of a Keras model's weights. Which
            it is follows from its contents, not from its name.

    Raises:
        UsageError: There is no such file, or it is of another format.
        BundleError: It is cut short, too large, or holds anything but weights and plain values.
    """
    data = _read(path)
    if data[:4] == b"PK\x03\x04":
        kind, tensors = _from_archive(path, data)
    elif data[8:9] == b"{":
        kind, tensors = "safetensors", _from_safetensors(path, data)
    elif data[:1] == b"\x80":
        kind, tensors = "torch", _from_torch(path, data)
    else:
        raise UsageError(f"{path} is not a file of weights that can be read{_what_it_is(data)}.", do=_formats(data))
    if not tensors:
        raise BundleError(f"{path} holds no weights.", do="Give the checkpoint of a trained model.")
    return Foreign(path.name, kind, hashlib.sha256(data).hexdigest(), len(data), tensors)


def keras_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keras' weights with the running numbers of layers begun at none, as in a session that made one model.

    ``conv2d_7/kernel:0`` becomes ``conv2d/kernel`` where no ``conv2d`` has a lower number than 7; what stands before
    the layer's name is left out.

    Raises:
        BundleError: Two weights have the same layer and name.
    """
    split = {name: _keras_layer(name) for name in tensors}
    numbers: dict[str, set[int]] = defaultdict(set)
    for kind, number, _ in split.values():
        numbers[kind].add(number)
    places = {kind: {number: place for place, number in enumerate(sorted(seen))} for kind, seen in numbers.items()}
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        kind, number, weight = split[name]
        place = places[kind][number]
        ours = f"{kind}_{place}/{weight}" if place else f"{kind}/{weight}" if kind else weight
        if ours in found:
            raise BundleError(f"Two of the weights are {ours}.", do="Save the weights of one model, without optimiser.")
        found[ours] = value
    return found


def _keras_layer(name: str) -> tuple[str, int, str]:
    """Kind, running number and weight: ``conv2d_3/kernel:0`` is ``conv2d``, 3, ``kernel``.

    The statistics of the normalisation have no layer in the names that are used here.
    """
    *before, weight = name.removesuffix(":0").split("/")
    match = re.fullmatch(r"(.+?)(?:_(\d+))?", before[-1]) if before else None
    if match is None or weight in NORMALISATION:
        return "", 0, weight
    return match[1], int(match[2] or 0), weight


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise BundleError(
                f"{path} has {size / 2**30:.1f} GiB, and at most {MOST_BYTES / 2**30:.0f} are read.",
                do="Save the weights alone, without the state of an optimiser.",
            )
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}).", do="Give the path of a file.") from error


def _from_safetensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return dict(load_safetensors(data))
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"{path} is not a whole safetensors file ({error}).", do=_DOWNLOAD) from error


def _from_archive(path: Path, data: bytes) -> tuple[str, dict[str, Tensor]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_size(path, len(data), members)
            names = [member.filename for member in members]
            if names and all(name.endswith(".npy") for name in names):
                return "npz", dict(_arrays(path, archive))
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OSError) as error:
        raise BundleError(f"{path} is cut short or damaged ({_short(error)}).", do=_DOWNLOAD) from error
    if any(name.endswith("constants.pkl") for name in names):
        raise BundleError(f"{path} is a TorchScript program, not weights.", do=_SAFE)
    if not any(name.endswith("data.pkl") for name in names):
        raise UsageError(f"{path} is an archive without weights.", do=_formats(data))
    return "torch", _from_torch(path, data)


def _check_size(path: Path, size: int, members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive that would unpack to far more than it looks, before any of it is unpacked."""
    whole = sum(member.file_size for member in members)
    if whole > MOST_BYTES or whole > max(MOST_RATIO * size, SMALL_BYTES):
        raise BundleError(
            f"{path} has {size / 2**20:.1f} MiB and would unpack to {whole / 2**20:.0f} MiB, which no weights do.",
            do="Give the checkpoint itself, from where it was published.",
        )


def _arrays(path: Path, archive: zipfile.ZipFile) -> Iterator[tuple[str, Tensor]]:
    """The arrays of a NumPy archive, each checked against the size of its member before it is made."""
    for member in archive.infolist():
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            if dtype.kind not in "fiu" or int(np.prod(shape, dtype=object)) * dtype.itemsize > member.file_size:
                raise BundleError(
                    f"{path}: {member.filename} is {dtype} of {shape}, which is no weight or not all there.",
                    do="Save every weight as an array of numbers.",
                )
            flat = np.frombuffer(stream.read(), dtype=dtype)
        array = flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))
        yield member.filename.removesuffix(".npy"), torch.from_numpy(np.array(array, dtype=np.float32))


def _from_torch(path: Path, data: bytes) -> dict[str, Tensor]:
    """The weights in a checkpoint, by PyTorch's restricted reader.

    A training script's settings (``argparse.Namespace``) may stand beside the weights: reading one only sets its
    attributes.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            # of an unusual pickle protocol: it is read, or refused below
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\b")
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise _explained(path, error) from error
    return _state(path, loaded)


def _explained(path: Path, error: BaseException) -> BundleError:
    """Why PyTorch's reader would not read a file."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return BundleError(
            f"{path} is refused: it names {named[1]}, which is no weight and could run a program when it is read.",
            do=_SAFE,
        )
    if isinstance(error, UnpicklingError):
        reason = re.search(r"WeightsUnpickler error: (.+)", str(error))
        why = reason[1].strip() if reason else "its reader says no more"
        return BundleError(f"{path} is refused: it is damaged, or holds more than weights ({why}).", do=_SAFE)
    return BundleError(f"{path} is cut short, damaged or no checkpoint ({_short(error)}).", do=_DOWNLOAD)


def _state(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The weights in what was read: the dictionary itself, or the one under a usual name."""
    held = loaded
    for name in CONTAINERS:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
            break
    if not isinstance(held, Mapping) or not all(isinstance(name, str) for name in held):
        raise BundleError(f"{path} holds a {type(loaded).__name__}, not weights by name.", do=_SAFE)
    strange = [name for name, value in held.items() if not _is_weight(value)]
    if strange:
        raise BundleError(
            f"{path} holds {strange[0]}, which is no weight ({type(held[strange[0]]).__name__}).",
            do="Save the weights alone: the model's `state_dict`.",
        )
    return _without_wrapper(dict(held))


def _is_weight(value: Any) -> bool:
    """A plain dense tensor that is no larger than what it is stored as."""
    if (
        not isinstance(value, Tensor)
        or value.layout != torch.strided
        or value.is_quantized
        or value.is_meta
        or value.is_complex()
    ):
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _without_wrapper(held: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPERS:
        if held and all(name.startswith(prefix) for name in held):
            held = {name.removeprefix(prefix): value for name, value in held.items()}
    return held


def _what_it_is(data: bytes) -> str:
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return ": it is HDF5, as Keras writes it"
    return "" if data else ": it is empty"


def _formats(data: bytes) -> str:
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return "Save the weights as .npz where Keras is; docs/how-to/public-weights.md has the lines."
    return "Give a PyTorch checkpoint, a safetensors file, or a NumPy archive (.npz) of a Keras model's weights."


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
