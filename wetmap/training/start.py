"""Weights that training begins from instead of random ones: a start file and what it says about itself.

A start is two files: ``NAME.safetensors``, the weights by the names of the network here, and ``NAME.json`` beside it,
where they come from, what was changed, and what they fit. ``wetmap model import`` writes it. The folder of a trained
network, a bundle, is a start too; of its card only what a start needs is read here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wetmap.errors import TrainingError, UsageError
from wetmap.workspace import write_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Ending of the weights file; the other file has ``.json`` in its place.
ENDING: Final = ".safetensors"
#: Names given in a message before the rest is only counted.
NAMES_IN_MESSAGE = 4
#: The two files of a trained network's folder, see ``wetmap.bundle``.
BUNDLE_CARD, BUNDLE_WEIGHTS = "model.json", "weights.safetensors"
#: ``StartSource.kind`` of a network that was trained here.
OWN: Final = "wetmap"

_AGAIN = "Run wetmap model import again for this model and these bands."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StartSource(_Part):
    """The file that the weights come from."""

    name: str = Field(description="File name.")
    kind: str = Field(description="Format: torch, safetensors, npz, or wetmap: a model trained here.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file.")
    bytes: int = Field(ge=1, description="Size of the file, bytes.")


class StartCard(_Part):
    """What a start says about itself. Unknown keys are refused."""

    format: Literal["wetmap start"] = Field("wetmap start", description="What the file is.")
    format_version: Literal[1] = Field(1, description="Its layout.")
    model: str = Field(description="Name of the model in the registry.")
    options: dict[str, bool | int | float | str] = Field({}, description="The model's options when it was imported.")
    bands: int = Field(ge=1, description="Number of bands it was made for.")
    source: StartSource = Field(description="Where the weights come from.")
    taken: tuple[str, ...] = Field(description="Weights as they were.")
    adapted: dict[str, str] = Field({}, description="Weights that were changed, and how.")
    left_out: dict[str, str] = Field({}, description="Weights of the source that were not used, by its names, and why.")
    fresh: tuple[str, ...] = Field((), description="Weights of the model that stay as they are drawn.")
    head: tuple[str, ...] = Field((), description="Weights that are left out where the number of classes differs.")
    band_names: tuple[str, ...] = Field((), exclude=True, description="Of a model trained here: its bands, in order.")
    classes: int | None = Field(None, exclude=True, description="Of a model trained here: its number of classes.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the weights file.")
    bytes: int = Field(ge=1, description="Size of the weights file, bytes.")


@dataclass(frozen=True)
class StartReport:
    """What became of a start in one network."""

    path: Path
    """The weights file."""
    card: StartCard
    """What it says about itself."""
    taken: tuple[str, ...]
    """Weights of the network that were filled."""
    fresh: tuple[str, ...]
    """Weights of the network that stay as they were drawn."""

    @property
    def line(self) -> str:
        """In one sentence, for people."""
        source, adapted = self.card.source, sum(name in self.card.adapted for name in self.taken)
        return (
            f"begins from {source.name} (SHA-256 {source.sha256[:12]}): {len(self.taken)} weights, {adapted} of them "
            f"adapted to the bands; {len(self.fresh)} are drawn at random{_some(self.fresh, ': ')}."
        )


def start_digest(path: Path) -> str:
    """SHA-256 that stands for a start in the key of a training; it covers the weights too.

    Raises:
        UsageError: There is no such start.
        TrainingError: It is damaged.
    """
    return hashlib.sha256(_card_bytes(_checked(path))).hexdigest()


def write_start(path: Path, state: Mapping[str, Tensor], **about: object) -> StartCard:
    """Write a start; the weights first, so that a card never speaks of weights that are not there.

    Args:
        path: The weights file, ``NAME.safetensors``; its folder is made if needed.
        state: Weights by the network's names.
        about: Fields of ``StartCard`` but ``sha256`` and ``bytes``.

    Raises:
        UsageError: The name has another ending.
        WorkspaceError: The disk is full.
    """
    from safetensors.torch import save

    _check_ending(path)
    data = save({name: value.detach().cpu().contiguous() for name, value in sorted(state.items())})
    card = StartCard.model_validate({**about, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    write_bytes(path.with_suffix(".json"), _card_bytes(card))
    return card


def read_start(path: Path) -> tuple[StartCard, dict[str, Tensor]]:
    """Read a start and check that it is whole.

    Raises:
        UsageError: There is none.
        TrainingError: It is not a start, cut short, or altered.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    card = _checked(path)
    path = _weights_of(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The start {path} cannot be read ({error.strerror}).", do="Give its path.") from error
    if len(data) != card.bytes or hashlib.sha256(data).hexdigest() != card.sha256:
        raise TrainingError(
            f"The start {path} was cut short or altered: it is not the file that its .json speaks of.",
            do=_AGAIN if card.source.kind != OWN else "Copy the whole folder of the model again.",
        )
    try:
        values = load(data)
    except SafetensorError as error:
        raise TrainingError(f"The start {path} is not a safetensors file ({error}).", do=_AGAIN) from error
    if card.source.kind == OWN:  # what training measures is no start
        values = {name: value for name, value in values.items() if _needed(name, value)}
    return card, values


def check_start(model: nn.Module, path: Path, *, bands: Sequence[str] = ()) -> None:
    """Refuse what ``apply_start`` refuses, and fill nothing.

    Args:
        model: A network as for ``apply_start``; it may be on the device ``meta`` and have any number of classes.
        path: As for ``apply_start``.
        bands: As for ``apply_start``.

    Raises:
        UsageError: There is no such file.
        TrainingError: It is damaged, or it does not fit the network.
    """
    _fitting(model, path, bands)


def apply_start(model: nn.Module, path: Path, *, bands: Sequence[str] = ()) -> StartReport:
    """Fill a fresh network with the weights of a start.

    The layer of the classes is left as it was drawn where the number of classes differs, and so is what the start does
    not hold. The normalisation of the bands is not touched: training measures it.

    Args:
        model: A network as ``wetmap.models.create`` makes it, filled in place. Call this before ``fit_network``, inside
            ``reproducible``: nothing is drawn.
        path: The weights file, ``NAME.safetensors``, with ``NAME.json`` beside it, or the folder of a trained network.
        bands: Names of the network's bands, which a trained network must have too; empty: they are only counted.

    Returns:
        What was filled and what was not.

    Raises:
        UsageError: There is no such file.
        TrainingError: It is damaged, or it does not fit the network; then the network is as it was.
    """
    card, values, skipped = _fitting(model, path, bands)
    state = model.state_dict()
    for name, value in values.items():
        if name not in skipped:
            state[name].copy_(value)
    taken = tuple(name for name in state if name in values and name not in skipped)
    fresh = tuple(name for name, value in state.items() if _needed(name, value) and name not in taken)
    return StartReport(path=path, card=card, taken=taken, fresh=fresh)


def _fitting(model: nn.Module, path: Path, bands: Sequence[str]) -> tuple[StartCard, dict[str, Tensor], frozenset[str]]:
    """A start that fits a network, its weights, and the names of those that are left out."""
    card, values = read_start(path)
    state = model.state_dict()
    count = getattr(model, "bands", card.bands)
    if count != card.bands:
        raise TrainingError(
            f"The start {path} was made for {card.bands} bands, and the cube has {count}.", do=_again(card)
        )
    if bands and card.band_names and tuple(bands) != card.band_names:
        number = next(i for i, (a, b) in enumerate(zip(bands, card.band_names, strict=True)) if a != b)
        raise TrainingError(
            f"The start {path} was trained on other bands: band {number + 1} is {card.band_names[number]} there and "
            f"{bands[number]} in the cube.",
            do=_again(card),
        )
    foreign = sorted(set(values) - set(state))
    holes = sorted(name for name, value in state.items() if _needed(name, value) and name not in {*values, *card.fresh})
    if foreign or holes:
        raise TrainingError(
            f"The start {path} is of {card.model} with {_options(card)}, another network than the one to train: "
            f"{'it holds' if foreign else 'it lacks'} {_some(foreign or holes)}.",
            do="Choose that model in the recipe, or run wetmap model import again for the model to train.",
        )
    return card, values, _other_classes(path, card, values, state)


def _other_classes(
    path: Path, card: StartCard, values: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> frozenset[str]:
    """The layer of the classes where its size differs; any other difference is refused."""
    differ = [name for name, value in values.items() if value.shape != state[name].shape]
    head = {*card.head, *_own_head(card, values, state)}
    wrong = [name for name in differ if name not in head]
    if wrong:
        name = wrong[0]
        raise TrainingError(
            f"The start {path} does not fit: {name} is {tuple(values[name].shape)} in it and "
            f"{tuple(state[name].shape)} in {card.model} as it is to be trained. It was made with {_options(card)}.",
            do="Choose these options in the recipe, or run wetmap model import again with the recipe's.",
        )
    return frozenset(head) if differ else frozenset()


def _own_head(card: StartCard, values: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Weights of a trained network that differ from the one to train in the number of classes alone."""
    if card.classes is None:
        return []
    return [
        name
        for name, value in values.items()
        if value.ndim and value.shape != state[name].shape
        if value.shape[0] == card.classes and value.shape[1:] == state[name].shape[1:]
    ]


def _needed(name: str, value: Tensor) -> bool:
    """Whether a name in a network's state is of a weight, and not of a count or of what training measures."""
    return value.is_floating_point() and not name.startswith("normalisation.")


def _weights_of(path: Path) -> Path:
    """The weights file of a start: itself, or that of a trained network's folder."""
    return path / BUNDLE_WEIGHTS if path.is_dir() else path


def _of_bundle(path: Path) -> StartCard:
    """What a trained network's own card says, as that of a start.

    Raises:
        TrainingError: It is no such card, or of a model that is not a network.
    """
    weights = _weights_of(path)
    card = weights.with_name(BUNDLE_CARD)
    try:
        data = json.loads(card.read_text(encoding="utf-8"))
        file = data["weights"]
        if file["name"] != BUNDLE_WEIGHTS:
            raise TrainingError(
                f"The model in {card.parent} is {data['model']}, which is not a network: nothing can begin from it.",
                do="Give the folder of a network.",
            )
        return StartCard(
            model=data["model"],
            options=data["options"],
            bands=len(data["bands"]),
            band_names=tuple(band["name"] for band in data["bands"]),
            classes=len(data["classes"]),
            source=StartSource(
                name=f"{card.parent.name}/{weights.name}", kind=OWN, sha256=file["sha256"], bytes=file["bytes"]
            ),
            taken=(),
            sha256=file["sha256"],
            bytes=file["bytes"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{card} is not the card of a trained model ({error}).",
            do="Give the folder that wetmap train wrote, such as nb-wetmap/model.",
        ) from error


def _again(card: StartCard) -> str:
    return _AGAIN if card.source.kind != OWN else "Give a model that was trained on the same bands in the same order."


def _checked(path: Path) -> StartCard:
    if path.is_dir() or (path.name == BUNDLE_WEIGHTS and path.with_name(BUNDLE_CARD).exists()):
        return _of_bundle(path)
    _check_ending(path)
    beside = path.with_suffix(".json")
    try:
        data = json.loads(beside.read_text(encoding="utf-8"))
        return StartCard.model_validate(data)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"There is no start {path}: {beside.name} is not beside it." if path.exists() else f"There is no {path}.",
            do="Give the .safetensors file that wetmap model import wrote; its .json must lie beside it.",
        ) from error
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{beside} cannot be read ({error}).", do=_AGAIN) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise TrainingError(f"{beside} is not the card of a start: {where}: {first['msg']}.", do=_AGAIN) from error


def _check_ending(path: Path) -> None:
    if path.suffix != ENDING:
        raise UsageError(
            f"{path} is not a start: its name does not end in {ENDING}.",
            do="Make one of a public checkpoint with wetmap model import, or give the folder of a trained model.",
        )


def _card_bytes(card: StartCard) -> bytes:
    data = card.model_dump(mode="json")
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _options(card: StartCard) -> str:
    said = ", ".join(f"{name} {value}" for name, value in card.options.items())
    return f"{card.bands} bands, {said}" if said else f"{card.bands} bands"


def _some(names: list[str] | tuple[str, ...], before: str = "") -> str:
    shown, more = ", ".join(names[:NAMES_IN_MESSAGE]), len(names) - NAMES_IN_MESSAGE
    return f"{before}{shown}{f' and {more} more' if more > 0 else ''}" if names else ""
