"""What a map cannot tell, as sentences made from its own numbers, the most important first.

A pure function: the same facts give the same sentences, and a sentence stands there only where its numbers call for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from wetmap.report.data import LEAKS_MARK, Bounds
from wetmap.report.words import bounds, hectares, number, percent, plural, score

#: Samples of a class below which its figures lean on too few: the rule of thumb of at least 50 samples per class for an
#: error matrix (Congalton and Green, "Assessing the Accuracy of Remotely Sensed Data", chapter on sample size).
FEW_SAMPLES = 50
#: F1 below which a class is wrong more often than right.
POOR_F1 = 0.5
#: Width of a 95 % interval above which a score hardly tells good from poor.
WIDE = 0.3 + 1e-9  # 0.3 exactly, as 0.8 - 0.5 is not quite, does not count
#: Confidence below which the model itself thinks another answer likelier than the one it gave, percent.
LOW_CONFIDENCE = 50
#: Names listed in a sentence before the rest is only counted.
LISTED = 8

#: How far the map was assessed: not at all, against points that nobody drew at random, or with a probability sample.
Assessed = Literal["no", "agreement", "sample"]


@dataclass(frozen=True)
class ClassFacts:
    """What is known of one class of the map. None is what is not known."""

    name: str
    """Its name."""
    mapped_ha: float
    """Hectares of the map."""
    train: int | None = None
    """Samples that the model learnt it from."""
    test: int | None = None
    """Held-out pixels that it was scored on."""
    f1: float | None = None
    """F1 on these, 0-1."""
    interval: Bounds | None = None
    """Its 95 % interval."""
    area_ha: tuple[float, float, float] | None = None
    """Hectares that an assessment with a probability sample gives it, and the bounds of their 95 % interval."""


@dataclass(frozen=True)
class Calibrated:
    """What a temperature did to the probabilities of held-out samples."""

    temperature: float
    """What logits were divided by: above 1 probabilities became flatter, below 1 sharper."""
    before: float
    """Expected calibration error without it, 0-1."""
    after: float
    """With it, 0-1."""

    @property
    def fault(self) -> Literal["", "too timid", "too sure"]:
        """What it made of the probabilities, where the error grew; empty where it did not."""
        if self.after <= self.before:
            return ""
        return "too timid" if self.temperature > 1 else "too sure"


@dataclass(frozen=True)
class MapFacts:
    """What is known of the map."""

    classes: Sequence[ClassFacts]
    """Its classes."""
    scored: bool = True
    """Whether the model came with held-out scores."""
    elsewhere: str | None = None
    """Seasons that the model was trained on, in words, where another run trained it; empty where its card names none;
    None where it is this run's own."""
    calibration: Calibrated | None = None
    """What the temperature did on held-out samples; None where there is none or it was not measured."""
    simulated: bool = False
    """Whether any of it was made from simulated scenes."""
    leak_note: str = ""
    """What is wrong with the scores of a split that leaks; empty where nothing leaks."""
    assessed: Assessed = "no"
    """How far it was assessed."""
    low_confidence_percent: float | None = None
    """Share of the map's pixels with a confidence below ``LOW_CONFIDENCE``, percent."""
    outside_ha: float | None = None
    """Hectares outside the model's area of applicability; None where that was not asked for."""
    outside_percent: float = 0.0
    """The same as a share of what was looked at, percent."""
    few_looks: Sequence[str] = ()
    """Sentences about seasons with few clear looks."""
    seen_only: Sequence[tuple[str, int]] = ()
    """Classes that whoever interpreted a sample saw and the map does not have, and at how many points."""
    unmatched: Sequence[tuple[str, int]] = ()
    """Values of the reference that no class of the map stands for, and how many features or pixels have them."""
    pixel_m: float = 10.0
    """Side of a pixel, metres."""
    unit_ha: float | None = None
    """Minimum mapping unit, hectares; None where small patches were kept."""
    window_px: int | None = None
    """Side of the window that the model looks at, pixels; None where it looks at single pixels or is unknown."""
    missing_blocks: int = 0
    """Blocks of the area that could not be read or mapped."""
    steps: bool = False
    """Whether the map was changed after the model had answered."""


def limits(facts: MapFacts) -> list[tuple[str, str]]:
    """What the map cannot tell.

    Args:
        facts: Its own numbers.

    Returns:
        Topic and sentences, the most important first.

    Example:
        >>> [topic for topic, _ in limits(MapFacts([ClassFacts("fen", 3.0)], assessed="sample"))][:2]
        ['Ground unlike the samples', 'Small things']
    """
    found: list[tuple[str, str]] = []
    for part in (_of_the_whole, _of_areas, _of_classes, _of_the_legend, _of_places, _of_the_ground):
        found += part(facts)
    return found


def _of_the_whole(facts: MapFacts) -> Iterator[tuple[str, str]]:
    if facts.simulated:
        yield (
            "SIMULATED",
            "The scenes come from a made-up landscape. Nothing here says anything about a real place, nor about how "
            "well a model maps real wetlands.",
        )
    if facts.leak_note:
        yield (
            LEAKS_MARK,
            "The held-out scores say how well the model remembers, not how well it maps: training windows overlap "
            "held-out ones. Train with splits.kind blocks, polygons or sites for scores that mean something.",
        )
    if facts.scored and facts.elsewhere is not None:
        yield "Scores from elsewhere", from_elsewhere(facts.elsewhere)
    if facts.assessed == "no":
        yield (
            "Accuracy and areas",
            "Nobody has assessed this map with a sample drawn at random from it. So its hectares are counts of pixels, "
            "which carry the map's errors along, and nothing says how far they are off.",
        )
    if facts.assessed == "agreement":
        yield (
            "Accuracy and areas",
            "The points that the map was compared with were not drawn at random from it. What they say holds for these "
            "points; no area and no interval follows from them.",
        )
    if not facts.scored:
        yield "Scores", "The model came without held-out scores, so nothing says how good it is, here or elsewhere."


def _of_areas(facts: MapFacts) -> Iterator[tuple[str, str]]:
    loose = [
        (row.name, row.area_ha)
        for row in facts.classes
        if row.area_ha is not None and row.area_ha[2] - row.area_ha[1] > row.area_ha[0]
    ]
    if loose:
        said = _listed([f"{name} ({hectares(area[1])} to {hectares(area[2])} ha)" for name, area in loose])
        yield (
            "Unsure areas",
            f"The interval of the hectares is wider than the hectares themselves: {said}. More points would narrow it.",
        )


def _of_classes(facts: MapFacts) -> Iterator[tuple[str, str]]:
    poor = [row for row in facts.classes if row.f1 is not None and row.f1 < POOR_F1 and row.test]
    if poor:
        said = _listed([f"{row.name} (F1 {score(row.f1)})" for row in poor])
        yield (
            "Poor classes",
            f"Do not rely on {said}. With an F1 below {POOR_F1:g} there are more than twice as many mistakes about a "
            "class, false finds and misses together, as right finds.",
        )
    wide = [row for row in facts.classes if row.interval is not None and row.interval[1] - row.interval[0] > WIDE]
    if wide:
        said = _listed([f"{row.name} ({bounds(row.interval)})" for row in wide])
        yield "Unsure scores", f"The F1 of these classes may be anywhere in a wide interval: {said}."
    bare = [row for row in facts.classes if row.f1 is not None and row.interval is None and row.test]
    if bare:
        said = _listed([row.name for row in bare])
        yield (
            "Scores without interval",
            f"Held-out places of {said} are too few to say how far the F1 would differ elsewhere.",
        )
    thin = [row for row in facts.classes if row.train is not None and row.train < FEW_SAMPLES]
    if thin:
        said = _listed([f"{row.name} ({number(row.train or 0)})" for row in thin])
        yield (
            "Thin classes",
            f"The model has seen fewer than {FEW_SAMPLES} training samples of {said}: it knows "
            "little of how they vary.",
        )
    few = [row for row in facts.classes if row.test is not None and row.test < FEW_SAMPLES]
    if few and facts.scored:
        said = _listed([f"{row.name} ({number(row.test or 0)})" for row in few])
        yield "Few held-out pixels", f"Scores of {said} rest on fewer than {FEW_SAMPLES} held-out pixels."


def _of_the_legend(facts: MapFacts) -> Iterator[tuple[str, str]]:
    if facts.seen_only:
        said = _listed([f"{name} ({plural(count, 'point', 'points')})" for name, count in facts.seen_only])
        yield "What the map lacks", f"Whoever checked the map saw {said} on it, for which it has no class."
    if facts.unmatched:
        said = _listed([f"{name} ({number(count)})" for name, count in facts.unmatched])
        yield (
            "What the legend lacks",
            f"The reference data also name {said}. The map has no such class: it shows the class that this ground "
            "resembles.",
        )
    nowhere = [row.name for row in facts.classes if row.mapped_ha == 0]
    if nowhere:
        be = "is" if len(nowhere) == 1 else "are"
        yield (
            "Classes that are nowhere",
            f"{_listed(nowhere)} {be} in the legend and nowhere on the map. That the model found none does not mean "
            "that there is none.",
        )


def _of_places(facts: MapFacts) -> Iterator[tuple[str, str]]:
    if facts.outside_ha is None:
        yield (
            "Ground unlike the samples",
            "Where the ground looks like nothing in the training samples was not computed, so the map does not say "
            "where its model guesses. Ask for it with products.applicability in the recipe.",
        )
    elif facts.outside_ha > 0:
        yield (
            "Ground unlike the samples",
            f"On {hectares(facts.outside_ha)} ha ({percent(facts.outside_percent)} %) the imagery is unlike every "
            "training sample. There the model guesses, whatever its confidence, and the scores do not hold.",
        )
    yield from _of_confidence(facts)
    if facts.few_looks:
        yield "Few clear looks", " ".join(f"{line[:1].upper()}{line[1:]}." for line in facts.few_looks)
    if facts.missing_blocks:
        are = "is" if facts.missing_blocks == 1 else "are"
        yield (
            "Holes",
            f"{plural(facts.missing_blocks, 'block', 'blocks')} of the area could not be read or mapped and {are} "
            "missing.",
        )


def _of_confidence(facts: MapFacts) -> Iterator[tuple[str, str]]:
    fault = "" if facts.calibration is None else facts.calibration.fault
    if facts.low_confidence_percent:
        blame = {
            "too timid": " Part of that is the calibration, which made probabilities too timid.",
            "too sure": " It would be more without the calibration, which made probabilities too sure.",
        }
        yield (
            "Low confidence",
            f"On {percent(facts.low_confidence_percent)} % of the map the model gave its own answer a probability "
            f"below {LOW_CONFIDENCE} %: all other classes together were likelier.{blame.get(fault, '')}",
        )
    if facts.calibration is not None and fault:
        one = facts.calibration
        right = "more" if fault == "too timid" else "less"
        yield (
            "Calibration",
            f"On held-out samples the probabilities miss the truth by {one.after:.3f} on average, {one.before:.3f} "
            f"without the calibration (temperature {one.temperature:.2f}). So they are {fault}: the model is right "
            f"{right} often than its confidence says.",
        )


def from_elsewhere(seasons: str) -> str:
    """Why the scores of a model that another run trained are not this map's.

    Args:
        seasons: The seasons it was trained on, in words; empty where unknown.
    """
    when = f" ({seasons})" if seasons else ""
    return (
        f"The held-out scores came with the model. They were measured on the ground and in the seasons{when} of the "
        "run that trained it and are not of this map: here the model may do better or worse, and nothing says by how "
        "much."
    )


def _of_the_ground(facts: MapFacts) -> Iterator[tuple[str, str]]:
    pixel_ha = facts.pixel_m**2 / 1e4
    window = ""
    if facts.window_px is not None:
        window = (
            f" The model decides each pixel from a window of {facts.window_px * facts.pixel_m:g} m by "
            f"{facts.window_px * facts.pixel_m:g} m."
        )
    small = (
        f"Patches below {facts.unit_ha:g} ha were merged into their neighbours: what is smaller is not on the map."
        if facts.unit_ha is not None
        else "No minimum mapping unit was asked for: patches of a few pixels are not evidence of small wetlands."
    )
    yield (
        "Small things",
        f"A pixel is {facts.pixel_m:g} m by {facts.pixel_m:g} m ({pixel_ha:g} ha); ditches, fringes and small ponds "
        f"are mixed with what is beside them.{window} {small}",
    )
    if facts.steps and facts.scored:
        yield (
            "Steps after the model",
            "The scores are of the model's answer. What was done to the map after it has not been scored.",
        )
    if facts.scored:
        yield (
            "The ground itself",
            "The scores compare the map with the reference data, which are a source of labels with errors of their "
            "own, and only near places that have such data.",
        )
    yield "Law", "A map from satellites is not a wetland delineation, and dry land on it is no permission."


def _listed(names: Sequence[str]) -> str:
    """``bog, fen and 3 more``, ``bog and fen``."""
    shown, more = list(names[:LISTED]), len(names) - LISTED
    if more > 0:
        shown.append(f"{more} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
