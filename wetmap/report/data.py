"""What the report page is handed: plain facts about one map, none of them worked out here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

from wetmap.classes import MapClass
from wetmap.report.viewer import ViewerData

#: Marks every figure that comes from a split that leaks.
LEAKS_MARK = "LEAKS"

#: Lower and upper bound of a score, 0-1.
Bounds = tuple[float, float]


class ClassScore(TypedDict):
    """Held-out scores of one class."""

    name: str
    """Name in legends."""
    precision: float | None
    """Share of what was mapped as the class that is the class, 0-1; None (or NaN) where nothing was."""
    recall: float | None
    """Share of the class that was mapped as it, 0-1; None (or NaN) where there is none."""
    f1: float | None
    """Harmonic mean of the two, 0-1."""
    n: int
    """Held-out pixels of the class."""


class Scores(TypedDict):
    """Held-out scores of one model."""

    macro_f1: float | None
    """Mean of the classes' F1, 0-1."""
    overall_accuracy: float | None
    """Share of held-out pixels that are right, 0-1."""
    per_class: Sequence[ClassScore]
    """One row per class."""
    confusion: Sequence[Sequence[int]]
    """Held-out pixels by reference class (rows) and mapped class (columns), in the order of ``per_class``."""


@dataclass(frozen=True)
class Contender:
    """One model with its held-out scores, and how sure they are."""

    name: str
    """Its name."""
    scores: Scores
    """Its scores."""
    role: Literal["model", "baseline", "guess"] = "baseline"
    """The model that made the map, one that was trained beside it, or always answering the commonest class."""
    class_bounds: Mapping[str, Bounds] = field(default_factory=dict)
    """95 % interval of the F1 by class; classes in too few groups have none."""
    macro_bounds: Bounds | None = None
    """The same of the macro F1."""
    overall_bounds: Bounds | None = None
    """The same of the overall accuracy."""
    groups: int | None = None
    """Groups (reference features or blocks) that the intervals are over."""
    note: str = ""
    """What makes the interval of the macro F1 shaky, or why there is none."""


class Area(Protocol):
    """What the map holds of one class, as the table of areas has it."""

    @property
    def code(self) -> int:
        """Value in classes.tif."""

    @property
    def pixels(self) -> int:
        """Pixels of the class."""

    @property
    def hectares(self) -> float:
        """True area of these pixels, hectares."""

    @property
    def share_percent(self) -> float:
        """Share of the area of all classes, percent."""


@dataclass(frozen=True)
class ScenesUsed:
    """What one sensor gave to one season."""

    season: str
    """Name of the season."""
    sensor: str
    """Sensor, in words; with the orbit state where passes are kept apart."""
    used: int
    """Scenes that serve it."""
    dates: str
    """First and last day, in words."""


@dataclass(frozen=True)
class ChartPicture:
    """A chart that was drawn elsewhere."""

    title: str
    """What it shows."""
    png: bytes
    """The picture."""
    alt: str
    """Its numbers in words."""
    read: str = ""
    """How to read it, one or two sentences."""


@dataclass(frozen=True)
class FileSum:
    """A file of the map's folder and its checksum."""

    name: str
    """Name in the folder."""
    size: int
    """Bytes."""
    sha256: str
    """SHA-256, hexadecimal."""


@dataclass(frozen=True)
class Comparison:
    """What ``wetmap compare`` found on the same cube."""

    head: Mapping[str, Any]
    """What is true of all rows, as ``compare.json`` has it."""
    rows: Sequence[Mapping[str, Any]]
    """One per model, the best first, as ``compare.json`` has them."""
    plot_png: bytes | None = None
    """Accuracy against speed."""


@dataclass(frozen=True)
class ReportData:
    """Everything the page says."""

    title: str
    """Name of the map."""
    area: str
    """The area of interest in one line."""
    simulated: bool
    """True if any of it was made from simulated scenes: the page then says so on top."""
    classes: Sequence[MapClass]
    """The map's classes, in the order of the legend."""
    areas: Sequence[Area]
    """Pixel counts by class."""
    classes_tif: Path
    """The map of classes."""
    grid: str
    """The grid in one line."""
    recipe: str
    """The resolved recipe, YAML."""
    versions: Mapping[str, str]
    """Versions by name of software."""
    confidence_tif: Path | None = None
    """The map of confidence."""
    confidence_range: tuple[float, float] = (0.0, 1.0)
    """Values of the confidence map that mean none and certainty."""
    contenders: Sequence[Contender] = ()
    """The model that made the map, and what it is compared with, in the order of the columns."""
    guess_class: str = ""
    """The commonest class among the training samples, which the naive guess always answers."""
    assessment: Mapping[str, Any] | None = None
    """What ``wetmap assess`` wrote about this map (``accuracy.json``)."""
    assessment_note: str = ""
    """Why an assessment that is there is not shown, or what else to know of it."""
    assess_commands: Sequence[str] = ()
    """The commands that give areas with intervals."""
    comparison: Comparison | None = None
    """Models compared on the same cube."""
    charts: Sequence[ChartPicture] = ()
    """Pictures of the training."""
    calibration: Mapping[str, Any] | None = None
    """Temperature and calibration errors of the model's probabilities, as the model's card has them."""
    applicability: Mapping[str, Any] | None = None
    """Threshold, and hectares inside and outside the area of applicability; None where the layer was not asked for."""
    clear_looks: Sequence[Mapping[str, Any]] = ()
    """Hectares by number of clear looks, a row per season, as the manifest of fetch has them."""
    few_looks: Sequence[str] = ()
    """Warnings of seasons with few clear looks, as sentences."""
    limits: Sequence[tuple[str, str]] = ()
    """What the map cannot tell: (topic, sentences), the most important first."""
    checksums: Sequence[FileSum] = ()
    """The files of the map's folder."""
    split: Sequence[tuple[str, str]] = ()
    """How training and held-out samples were kept apart: (what, value)."""
    split_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Samples by class name and role (``train``, ``validation``, ``test``, ``dropped``)."""
    scores_note: str = ""
    """Why the scores are not of this map, as a sentence, where another run trained the model; else empty."""
    leak_note: str = ""
    """What is wrong with the scores of a split that lets training windows overlap held-out ones, beginning with
    ``LEAKS_MARK``: the page then says so on top and at every score. Empty where nothing leaks."""
    split_png: bytes | None = None
    """The split as a map, PNG."""
    split_alt: str = ""
    """The same in words."""
    shifts: Sequence[str] = ()
    """How far scenes lie off each other and what was done about it, as sentences."""
    shifts_png: bytes | None = None
    """The same as maps with arrows, PNG."""
    shifts_alt: str = ""
    """The picture in words."""
    scenes: Sequence[ScenesUsed] = ()
    """Scenes by season and sensor."""
    skipped: Sequence[tuple[str, str]] = ()
    """What was left out, and why: (name, reason)."""
    scenes_used: int | None = None
    """Scenes that serve any season, each counted once; None: the sum of the rows."""
    lost: Sequence[tuple[str, str]] = ()
    """Scenes among those used that could not be read in some blocks, and why: (name, reason)."""
    lost_words: str = ""
    """How many of them, and in how many blocks."""
    figures: Sequence[tuple[str, str]] = ()
    """Further key figures for the top of the page: (value, what it is)."""
    steps: Sequence[str] = ()
    """What was done to the map after the model answered, one line each."""
    notes: Sequence[str] = ()
    """Warnings of the run, as sentences."""
    viewer: ViewerData | None = None
    """The map that can be moved, with its measures and backgrounds; None: the still picture alone."""
    made: str | None = None
    """When it was made, if the page is to say so."""

    @property
    def mark(self) -> str:
        """What stands before every score of a split that leaks."""
        return f"{LEAKS_MARK}: " if self.leak_note else ""
