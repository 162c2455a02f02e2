"""Classes that somebody saw and the map lacks: translated, refused or told, never counted in silence."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wetmap.errors import AssessmentError, RecipeError, ReferenceWarning
from wetmap.products.sample_form import OTHER

#: Numbers of points named for a class, and classes named in a message, at most.
POINTS, CLASSES = 5, 40
#: From this likeness on a class is suggested (``difflib.SequenceMatcher.ratio``): two letters changed places in a word
#: of eight are 0.88, and of two common classes "marsh" and "swamp" have 0.6.
ALIKE = 0.75
#: Characters of a value that are compared: more are no name.
LONGEST = 80


def reference_words(root: Path, path: Path) -> dict[str, str]:
    """What a workspace's recipe says of the values of its reference data: the class that each stands for.

    Args:
        root: The workspace.
        path: The map; of a map that is not the workspace's own nothing is known.

    Returns:
        Name of a class by value, without values that two classes list; empty where there is no recipe that can be read.
    """
    from wetmap.recipe_file import load_recipe

    file = root / "recipe.yaml"
    if not file.is_file() or path.absolute() != root.absolute() / "map" / "classes.tif":
        return {}
    try:
        classes = load_recipe(file).classes
    except RecipeError:
        return {}  # the map can be assessed without it
    listed = [(str(value), item.name) for item in classes for value in item.reference]
    meant = {value: {name for other, name in listed if other == value} for value, _ in listed}
    return {value: min(names) for value, names in meant.items() if len(names) == 1}


def refuse_foreign(values: Sequence[Iterable[str]], known: Sequence[str], file: str, field: str) -> None:
    """Refuse points most of which have a class that the map lacks: figures of other classes say nothing of this map.

    Args:
        values: Classes seen at each point, in the words of the legend.
        known: The map's classes.
        file: Name of the file.
        field: Where they are written.

    Raises:
        AssessmentError: More than half of the points have such a class; *none of these* is an answer and no such class.
    """
    taken = {*known, *OTHER}
    foreign = [set(seen) - taken for seen in values]
    many = sum(map(bool, foreign))
    if 2 * many <= len(values):
        return
    counts = {name: sum(name in seen for seen in foreign) for name in sorted(set().union(*foreign))}
    named = _listed([f"{name} ({count})" for name, count in counts.items()])
    raise AssessmentError(
        f"{many} of {len(values)} interpreted points of {file} have a class that the map lacks: {named}. The map's "
        f"classes are {', '.join(known)}.",
        do="Draw a new sample of this map with wetmap sample, or assess the map that this one was drawn from. Where "
        f"the classes are the same under other names, write the map's names into the field {field}, or list the others "
        "under `reference:` of the recipe's classes before you make the map.",
    )


def warn_of_unknown(
    values: Mapping[int, Iterable[str]] | Sequence[str],
    known: Sequence[str],
    units: Sequence[int] | None = None,
    *,
    suggest: bool = True,
) -> list[str]:
    """The classes that the map does not have, sorted; told as a warning, with their points.

    Args:
        values: Class seen at each point; or classes by the point's number.
        known: The map's classes.
        units: Number of each point; None: from 1.
        suggest: Whether to name a class of the map that is spelt nearly so.
    """
    if not isinstance(values, Mapping):
        numbers = units if units is not None else range(1, len(values) + 1)
        values = {number: (value,) for number, value in zip(numbers, values, strict=True)}
    taken = set(known)
    points: dict[str, list[int]] = {}
    for number, seen in sorted(values.items()):
        for name in sorted(set(seen) - taken):
            points.setdefault(name, []).append(number)
    others = sorted(points)
    if others:
        told = _listed([_told(name, points[name], known if suggest else ()) for name in others])
        warnings.warn(
            f"The map has no class {told}, which the interpreter saw: counted as a class that the map misses. Mend "
            "the spelling if it is one of the map's.",
            ReferenceWarning,
            stacklevel=3,
        )
    return others


def _told(name: str, numbers: Sequence[int], known: Sequence[str]) -> str:
    first = ", ".join(map(str, numbers[:POINTS])) + (", ..." if len(numbers) > POINTS else "")
    near = None if name in OTHER else _nearest(name, known)
    meant = f"; did you mean {near}?" if near else ""
    return f"{name} ({len(numbers)} {'point' if len(numbers) == 1 else 'points'}: {first}{meant})"


def _nearest(name: str, known: Sequence[str]) -> str | None:
    by_word = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name[:LONGEST].casefold(), by_word, 1, ALIKE)
    return by_word[near[0]] if near else None


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - CLASSES} more" if len(texts) > CLASSES else ""
    return ", ".join(texts[:CLASSES]) + more
