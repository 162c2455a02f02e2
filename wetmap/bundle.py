"""A trained model on disk: save it, load it, refuse what does not fit.

A bundle is a directory of two files: ``model.json``, the card, which says what the model expects and what it answers,
and the weights: safetensors for a network or boosted trees, skops for a forest. A third, which may lack, says where the
model applies. Nothing in it is a pickle.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from pydantic import ValidationError

from wetmap.assessment.applicability import Applicability
from wetmap.errors import BundleError, UsageError, WetmapError
from wetmap.model_card import (
    CardCalibration,
    CardHistory,
    CardSeason,
    ModelCard,
    WeightsFile,
    WeightsName,
    card_json,
    check_fits,
)
from wetmap.models.contract import Geometry, MapModel
from wetmap.models.points import Point, set_point
from wetmap.predictor import Predictor, same_numbers_on_gpu
from wetmap.workspace import disk_full

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wetmap.models.pixels import PixelModel

__all__ = [
    "APPLICABILITY_FILE",
    "Bundle",
    "CardCalibration",
    "CardHistory",
    "CardSeason",
    "ModelCard",
    "Payload",
    "Predictor",
    "WeightsFile",
    "check_fits",
    "choose_device",
    "load_applicability",
    "load_bundle",
    "load_network",
    "load_predictor",
    "network_payload",
    "pixel_payload",
    "save_bundle",
]

CARD_FILE: Final = "model.json"
NETWORK_FILE: Final = "weights.safetensors"
#: Where the model applies: its training samples' features and the threshold of dissimilarity.
APPLICABILITY_FILE: Final = "applicability.safetensors"
#: The weights file of each model of pixels.
PIXEL_FILES: Final[dict[str, WeightsName]] = {"forest": "forest.skops", "boosting": "boosting.safetensors"}
#: Layout of a bundle; a newer one is refused.
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Payload:
    """The contents of a weights file."""

    name: WeightsName
    """File name in the bundle."""
    data: bytes
    """The file."""

    @property
    def file(self) -> WeightsFile:
        """What the card says about it."""
        return WeightsFile(name=self.name, sha256=hashlib.sha256(self.data).hexdigest(), bytes=len(self.data))


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found whole."""

    folder: Path
    """Where it was read from."""
    card: ModelCard
    """What it says about its model."""
    payload: Payload
    """Its weights."""


def network_payload(state: Mapping[str, Tensor]) -> Payload:
    """The weights file of a network: the same tensors give the same bytes.

    Args:
        state: The network's state, by name, on any device.
    """
    from safetensors.torch import save

    return Payload(NETWORK_FILE, save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))


def pixel_payload(model: PixelModel) -> Payload:
    """The weights file of a random forest or of boosted trees."""
    return Payload(PIXEL_FILES[model.kind], model.to_bytes())


def save_bundle(
    folder: Path, card: ModelCard, payload: Payload, *, applicability: Applicability | None = None
) -> Bundle:
    """Write a bundle, whole or not at all; one that is there already is replaced.

    Args:
        folder: The bundle's directory; its parent is made if needed.
        card: What to say about the model; ``card.weights`` must be ``payload.file``.
        payload: The weights.
        applicability: Where the model applies; None where that is not known.

    Returns:
        The bundle as it lies there.

    Raises:
        BundleError: The card is about other weights.
        WorkspaceError: The disk is full.
    """
    if card.weights != payload.file:
        raise BundleError(
            f"The card is about other weights ({card.weights.name}, {card.weights.sha256[:12]}) than those given "
            f"({payload.name}, {payload.file.sha256[:12]}).",
            do="Make the card with weights=payload.file.",
        )
    fresh, old = folder.with_name(f".tmp-{folder.name}"), folder.with_name(f".tmp-old-{folder.name}")
    try:
        for leftover in (fresh, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        fresh.mkdir(parents=True)
        (fresh / payload.name).write_bytes(payload.data)
        (fresh / CARD_FILE).write_bytes(card_json(card))
        if applicability is not None:
            (fresh / APPLICABILITY_FILE).write_bytes(_applicability_bytes(applicability, card))
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.replace(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        if error.errno == errno.ENOSPC:
            raise disk_full(folder) from error
        raise BundleError(
            f"The model could not be written to {folder} ({error.strerror or error}).",
            do="Free the folder's permissions.",
        ) from error
    return Bundle(folder, card, payload)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check that it is whole.

    Raises:
        BundleError: There is none, it is not a wetmap bundle, it is of a newer layout, or its weights are missing,
            cut short or altered.
    """
    card = _read_card(folder)
    path = folder / card.weights.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"The model in {folder} has no {card.weights.name} ({error.strerror}).", do=_RETRAIN
        ) from error
    if len(data) != card.weights.bytes:
        raise BundleError(f"{path} has {len(data)} bytes, and its card says {card.weights.bytes}.", do=_RETRAIN)
    payload = Payload(card.weights.name, data)
    if payload.file != card.weights:
        raise BundleError(
            f"{path} was altered: its SHA-256 begins {payload.file.sha256[:12]}, and its card says "
            f"{card.weights.sha256[:12]}.",
            do=_RETRAIN,
        )
    return Bundle(folder, card, payload)


def load_applicability(bundle: Bundle) -> Applicability | None:
    """Where a model applies; None where its folder does not say, as those of older versions.

    Raises:
        BundleError: The file is damaged, or of other bands than the model.
    """
    from wetmap.assessment.applicability_file import loads

    path = bundle.folder / APPLICABILITY_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror or error}).", do=_RETRAIN) from error
    return loads(data, [band.name for band in bundle.card.bands])


def _applicability_bytes(applicability: Applicability, card: ModelCard) -> bytes:
    from wetmap.assessment.applicability_file import dumps

    return dumps(applicability, [band.name for band in card.bands])


_RETRAIN = "Copy the whole folder again, or run wetmap train."


def _read_card(folder: Path) -> ModelCard:
    path = folder / CARD_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"No model in {folder}.", do="Give the folder of a model (it holds model.json), or run wetmap train first."
        ) from error
    except (OSError, ValueError, RecursionError) as error:  # numbers of thousands of digits are a ValueError too
        raise BundleError(f"{path} cannot be read ({error}).", do=_RETRAIN) from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BundleError(f"{path} is not the card of a wetmap model.", do="Give the folder that wetmap train wrote.")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{path} is of layout {version}, and this wetmap reads up to {FORMAT_VERSION}.",
            do="Install a newer wetmap.",
        )
    try:
        card = ModelCard.model_validate(data)
        return card if "beyond" in data["geometry"] else _with_own_geometry(card)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise BundleError(f"{path} is not a valid card: {where}: {first['msg']}.", do=_RETRAIN) from error
    except UsageError as error:
        raise BundleError(f"{path} is not a valid card: {error.what}", do=_RETRAIN) from error


def _with_own_geometry(card: ModelCard) -> ModelCard:
    """A card from before geometries said what a model sees beyond the grid, with the tiles that its model has now.

    Only dense networks and models of pixels map in other tiles since; their weights are the same.
    """
    import torch

    from wetmap import models

    try:
        if models.entry(card.model).answers == "pixel":
            from wetmap.models.pixels import GEOMETRY

            return card.model_copy(update={"geometry": GEOMETRY})
        if models.entry(card.model).answers != "dense":
            return card
        with torch.device("meta"):  # described, not filled
            model = models.create(
                card.model,
                len(card.bands),
                len(card.classes),
                layers=len(card.layers),
                band_layer=card.band_layer,
                **card.options,
            )
    except WetmapError:
        return card  # refused in its own words when the model is made
    return card.model_copy(update={"geometry": cast("MapModel", model).geometry})


def choose_device(bundle: Bundle) -> str:
    """Where a model maps: a network on a CUDA device where PyTorch has one, everything else on the processor."""
    import torch

    is_network = bundle.payload.name not in PIXEL_FILES.values()
    return "cuda" if is_network and torch.cuda.is_available() else "cpu"


def load_predictor(
    bundle: Bundle, *, threads: int = 1, point: Point | None = None, device: str = "cpu", precision: str = "float32"
) -> Predictor:
    """Make the model of a bundle, ready to map with.

    Args:
        bundle: What ``load_bundle`` gave.
        threads: Threads of a network; part of the numerics.
        point: Which of several networks in one set of weights maps; None: all tokens of the largest size.
        device: ``cpu``, or a device that PyTorch has; trees know the processor only.
        precision: ``float32``, or ``bfloat16`` by autocast.

    Raises:
        BundleError: The registry does not know the model or its options, or the weights are of another network.
        UsageError: A point is given that the model does not have.
    """
    card, data = bundle.card, bundle.payload.data
    kinds = {file: kind for kind, file in PIXEL_FILES.items()}
    kind = kinds.get(bundle.payload.name)
    model = _network(card, data) if kind is None else _pixel_model(kind, card, data)
    if model.geometry != card.geometry:
        raise BundleError(
            f"The card says tile, margin and stride {_geometry(card.geometry)}, and the model has "
            f"{_geometry(model.geometry)}.",
            do="Run wetmap train again with this version.",
        )
    if point is not None:
        set_point(model, point)
    if kind is None and device != "cpu":
        same_numbers_on_gpu()
        model = cast("MapModel", cast("nn.Module", model).to(device))
    return Predictor(model, card, threads=threads, device=device, precision=precision)


def load_network(bundle: Bundle) -> nn.Module:
    """The network of a bundle, in evaluation mode on the CPU, for what is not mapping.

    Raises:
        BundleError: The model is not a network, the registry does not know it or its options, or the weights are of
            another network.
    """
    card = bundle.card
    if bundle.payload.name in PIXEL_FILES.values():
        raise BundleError(
            f"The model {card.model} answers for single pixels and is not a network.",
            do="Give the folder of a network, such as wetmapformer-window.",
        )
    return cast("nn.Module", _network(card, bundle.payload.data))


def _geometry(geometry: Geometry) -> str:
    return f"{geometry.tile}, {geometry.margin}, {geometry.stride}"


def _pixel_model(kind: str, card: ModelCard, data: bytes) -> MapModel:
    from wetmap.models.pixels import pixel_class

    model = pixel_class(kind).from_bytes(data)
    mine = (len(card.bands), len(card.layers), len(card.classes))
    theirs = (model.bands, model.layers, model.classes)
    if mine != theirs:
        raise BundleError(
            f"The model {kind} is of {theirs[0]} bands, {theirs[1]} layers and {theirs[2]} classes, and its card of "
            f"{mine[0]}, {mine[1]} and {mine[2]}.",
            do=_RETRAIN,
        )
    return model


def _network(card: ModelCard, data: bytes) -> MapModel:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from wetmap import models

    try:
        with torch.random.fork_rng():
            model = models.create(
                card.model,
                len(card.bands),
                len(card.classes),
                layers=len(card.layers),
                band_layer=card.band_layer,
                **card.options,
            )
        model.load_state_dict(load(data))
    except WetmapError as error:
        raise BundleError(f"The model {card.model} cannot be made: {error.what}", do=_RETRAIN) from error
    except (RuntimeError, SafetensorError) as error:
        raise BundleError(
            f"The weights are of another network than {card.model} with these bands and classes "
            f"({_first_difference(error)}).",
            do="Run wetmap train again with this version.",
        ) from error
    return cast("MapModel", model.eval())


def _first_difference(error: Exception) -> str:
    """What PyTorch says first, below its heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    return lines[min(1, len(lines) - 1)].rstrip(".") if lines else type(error).__name__
