"""What a trained model says about itself, and whether a cube fits it.

The card is ``model.json`` of a bundle: all that is needed to refuse imagery that the model was not trained for.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wetmap.classes import MapClass
from wetmap.cube import Band
from wetmap.errors import BundleError
from wetmap.models.contract import Geometry
from wetmap.training.intervals import GroupScores
from wetmap.training.metrics import Scores
from wetmap.training.points import PointScore

#: Resolutions that differ by less than this share are the same: a decimal read back from text.
RESOLUTION_TOLERANCE = 1e-9
#: Names given in a message before the rest is only counted.
NAMES_IN_MESSAGE = 3

#: What weights files are called: of a network, of a random forest, of boosted trees.
WeightsName = Literal["weights.safetensors", "forest.skops", "boosting.safetensors"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CardSeason(_Part):
    """A season the model was trained on; for information."""

    name: str = Field(description="Short name.")
    start: dt.date = Field(description="First day, UTC.")
    end: dt.date = Field(description="Last day, UTC, included.")


class WeightsFile(_Part):
    """The weights file that belongs to a card."""

    name: WeightsName = Field(description="File name in the bundle.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file.")
    bytes: int = Field(ge=1, description="Size of the file, bytes.")


class CardHistory(_Part):
    """What became of the training."""

    epochs: int = Field(ge=0, description="Epochs that were trained; 0 for a model of pixels.")
    best_epoch: int = Field(ge=0, description="Epoch whose weights are in the bundle, from 0.")
    best_validation_macro_f1: float | None = Field(None, description="Its macro F1 on the validation fold, 0-1.")


class CardCalibration(_Part):
    """How the model's probabilities were made to mean what they say, for the class mix of the samples."""

    temperature: float = Field(gt=0, description="What logits are divided by; 1 leaves the probabilities alone.")
    floor: float = Field(0, ge=0, lt=1, description="Probabilities below it count as it.")
    samples: Literal["validation"] = Field("validation", description="Samples the temperature was fitted on.")
    n: int = Field(ge=1, description="Number of these samples.")
    bins: int = Field(ge=1, description="Bins of equal width of the expected calibration error.")
    ece_before: float = Field(ge=0, le=1, description="Expected calibration error on these samples without it, 0-1.")
    ece_after: float = Field(ge=0, le=1, description="The same with it, on the samples it was fitted on, 0-1.")
    test_ece_before: float | None = Field(None, ge=0, le=1, description="Without it, on the test fold, 0-1.")
    test_ece_after: float | None = Field(None, ge=0, le=1, description="With it, on the test fold, 0-1.")


class ModelCard(_Part):
    """What a bundle says about its model. Unknown keys are refused."""

    format_version: Literal[1] = Field(1, description="Layout of the bundle.")
    model: str = Field(description="Name of the model in the registry.")
    options: dict[str, bool | int | float | str] = Field({}, description="The model's own options.")
    bands: tuple[Band, ...] = Field(min_length=1, description="Bands in order: name, kind, unit, observed layer.")
    layers: tuple[str, ...] = Field(min_length=1, description="Observed layers in order.")
    classes: tuple[MapClass, ...] = Field(min_length=2, description="Classes in order: code, name, colour, upland.")
    window: int = Field(ge=1, description="Side of the training windows, pixels.")
    geometry: Geometry = Field(description="Tile, margin and stride, pixels.")
    res_m: float = Field(gt=0, description="Pixel side that the model was trained at, metres.")
    seasons: tuple[CardSeason, ...] = Field((), description="Seasons trained on; for information.")
    scores: dict[str, Scores] = Field({}, description="Held-out scores of the model and of what it is compared with.")
    intervals: dict[str, GroupScores] = Field(
        {}, description="The same with 95 % intervals over reference features, for the models."
    )
    split: str = Field("", description="How training and held-out samples were kept apart, in words.")
    history: CardHistory | None = Field(None, description="Summary of the training.")
    points: tuple[PointScore, ...] = Field((), description="Validation accuracy of each operating point, if any.")
    calibration: CardCalibration | None = Field(None, description="Temperature of the probabilities, if any.")
    simulated: bool = Field(description="True when any of the imagery or labels were simulated.")
    versions: dict[str, str] = Field({}, description="Versions of what made it; for information.")
    weights: WeightsFile = Field(description="The weights file.")

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        names = [band.name for band in self.bands]
        if len(set(names)) < len(names):
            raise ValueError("two bands have the same name")
        unknown = sorted({band.layer for band in self.bands} - set(self.layers))
        if unknown:
            raise ValueError(f"bands are of layers that are not listed: {', '.join(unknown)}")
        return self

    @property
    def band_layer(self) -> tuple[int, ...]:
        """Index of the observed layer of each band."""
        return tuple(self.layers.index(band.layer) for band in self.bands)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return tuple(item.name for item in self.classes)


def card_json(card: ModelCard) -> bytes:
    """The card as it is written: JSON, UTF-8, keys sorted."""
    data = card.model_dump(mode="json")
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def check_fits(card: ModelCard, *, bands: Sequence[Band], layers: Sequence[str], res_m: float) -> None:
    """Refuse a cube that the model was not trained for; the message names the first difference.

    Args:
        card: The model's card.
        bands: The cube's bands, in order.
        layers: The cube's observed layers, in order.
        res_m: The cube's pixel side, metres.

    Raises:
        BundleError: A band is missing, left over, in another place, of another kind or unit, the layers differ, or the
            resolution does.
    """
    difference = (
        _other_bands(card.bands, bands)
        or _other_values(card.bands, bands)
        or _other_layers(card.layers, layers)
        or _other_resolution(card.res_m, res_m)
    )
    if difference:
        raise BundleError(f"The model {card.model} does not fit the cube: {difference}.", do=_FIT)


_FIT = "Fetch with the recipe that the model was trained with, or run wetmap train on this cube."


def _other_bands(expected: Sequence[Band], found: Sequence[Band]) -> str:
    wanted, there = [band.name for band in expected], [band.name for band in found]
    missing = [name for name in wanted if name not in there]
    extra = [name for name in there if name not in wanted]
    if missing:
        return f"the cube lacks {_some('band', missing)}"
    if extra:
        return f"the cube has {_some('band', extra)} that the model does not know"
    if wanted != there:
        number = next(i for i, (one, other) in enumerate(zip(wanted, there, strict=False)) if one != other)
        return f"band {number + 1} is {there[number]} in the cube and {wanted[number]} in the model: another order"
    return ""


def _other_values(expected: Sequence[Band], found: Sequence[Band]) -> str:
    for mine, theirs in zip(expected, found, strict=True):
        for what in ("unit", "kind", "layer"):
            one, other = getattr(mine, what), getattr(theirs, what)
            if one != other:
                return f"band {mine.name} has {what} {other} in the cube and {one} in the model{_why(one, other)}"
    return ""


def _why(one: str, other: str) -> str:
    if {one, other} != {"gamma0_db", "sigma0_db"}:
        return ""
    return " (gamma-0 of terrain-corrected scenes has the slopes taken out, sigma-0 of Earth Engine has not)"


def _other_layers(expected: Sequence[str], found: Sequence[str]) -> str:
    if tuple(expected) == tuple(found):
        return ""
    return f"the observed layers are {', '.join(found) or 'none'} in the cube and {', '.join(expected)} in the model"


def _other_resolution(expected: float, found: float) -> str:
    if abs(expected - found) <= RESOLUTION_TOLERANCE * expected:
        return ""
    return f"the pixel is {found:.12g} m in the cube and {expected:.12g} m in the model"


def _some(noun: str, names: Sequence[str]) -> str:
    shown, more = ", ".join(names[:NAMES_IN_MESSAGE]), len(names) - NAMES_IN_MESSAGE
    return f"{noun}{'s' if len(names) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}"
