"""From the classes of a map to those of another system.

Packaged crosswalks live in ``class_tables/crosswalks/*.yaml``, as data: each row says what it rests on, and what the
satellites cannot see of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import yaml
from numpy.typing import NDArray

from wetmap.classes import MapClass, class_table, name_in_table, table_title
from wetmap.errors import RecipeError

#: What a row rests on that the recipe gave, or that follows from a class being dry land.
OWN_ROW, DRY_LAND = "products.crosswalk_rows of the recipe", "the class is marked as dry land"
#: What a row rests on where the map's class is called as one of the other system.
SAME_NAME = "the class has the name of one of the other system"


@dataclass(frozen=True)
class Row:
    """One class of the first system, and what it is in the second."""

    source: str
    """Name of the class in the first system."""
    target: str
    """Name of the class in the second."""
    rests_on: str
    """Why."""
    note: str = ""
    """What to know about it, such as what is not seen."""


@dataclass(frozen=True)
class Crosswalk:
    """A packaged crosswalk."""

    source: str
    """Name of the table of the first system."""
    target: str
    """Name of the table of the second."""
    rows: tuple[Row, ...]
    """One per class of the first table, in order of code."""

    @property
    def title(self) -> str:
        """What the second system is called in full."""
        return table_title(self.target)


@dataclass(frozen=True)
class Step:
    """What becomes of one class of a map."""

    before: MapClass
    """The class."""
    after: MapClass
    """The class of the other system."""
    rests_on: str
    """Why."""
    note: str
    """What to know about it; empty for nothing."""


@dataclass(frozen=True)
class Translation:
    """The classes of one map in another system."""

    target: str
    """Name of the other system's table."""
    steps: tuple[Step, ...]
    """One per class of the map, in its order."""

    @property
    def title(self) -> str:
        """What the other system is called in full."""
        return table_title(self.target)

    @property
    def classes(self) -> tuple[MapClass, ...]:
        """The classes of the other system that occur in the legend, in order of code."""
        return tuple(sorted({step.after for step in self.steps}, key=lambda row: row.code))

    def table(self) -> NDArray[np.uint8]:
        """The new code of each code of the map, (256,) uint8; 0 (nodata) for codes that are no class."""
        codes = np.zeros(256, dtype=np.uint8)
        for step in self.steps:
            codes[step.before.code] = step.after.code
        return codes


def crosswalk_names() -> tuple[str, ...]:
    """The systems that packaged crosswalks lead to, in alphabetical order."""
    return tuple(sorted(_packaged()))


def packaged(target: str) -> Crosswalk:
    """The packaged crosswalk to a system.

    Raises:
        RecipeError: There is none.
    """
    if target not in _packaged():
        raise RecipeError(f"There is no crosswalk to {target!r}.", do=f"Choose one of: {', '.join(crosswalk_names())}.")
    return _packaged()[target]


def translate(classes: Sequence[MapClass], target: str, own: Mapping[str, str]) -> Translation:
    """Say what becomes of each class of a map.

    A class is looked for among the recipe's own rows first, then by name and synonym in the packaged crosswalk, then
    among the names of the other system; any other class of dry land becomes the system's dry land.

    Args:
        classes: Classes of the map.
        target: Name of the packaged crosswalk.
        own: The recipe's own rows: name of a class of the map to name of a class of the other system.

    Raises:
        RecipeError: A class has no row; a row is of no class of the map; or names no class of the other system.
    """
    walk = packaged(target)
    after = {row.name: row for row in class_table(walk.target)}
    mine = _own_rows(own, classes, walk.target)
    rows = {row.source: row for row in walk.rows}
    dry = next((row.name for row in after.values() if row.upland), None)
    steps, lost = [], []
    for item in classes:
        row = mine.get(_key(item.name)) or rows.get(name_in_table(walk.source, item.name) or "")
        if row is None:
            row = _by_itself(item, walk.target, dry)
        if row is None:
            lost.append(item.name)
        else:
            steps.append(Step(item, after[row.target], row.rests_on, row.note))
    if lost:
        raise RecipeError(
            f"products.crosswalk: the crosswalk to {target} has no row for {_listed(lost)}; it knows "
            f"{_listed(list(rows))}.",
            do=f"Add rows to products.crosswalk_rows, such as `{lost[0]}: {next(iter(after))}`; the classes there are "
            f"{', '.join(after)}.",
        )
    return Translation(walk.target, tuple(steps))


def _by_itself(item: MapClass, table: str, dry: str | None) -> Row | None:
    """The row of a class that no crosswalk names: it is called as a class of the other system, or is dry land."""
    same = name_in_table(table, item.name)
    if same is not None:
        return Row(item.name, same, SAME_NAME)
    return Row(item.name, dry, DRY_LAND) if item.upland and dry is not None else None


def _own_rows(own: Mapping[str, str], classes: Sequence[MapClass], table: str) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    names = {_key(item.name) for item in classes}
    for name, wanted in own.items():
        target = name_in_table(table, wanted)
        if target is None:
            raise RecipeError(
                f"products.crosswalk_rows: {name!r} becomes {wanted!r}, which is no class of {table}.",
                do=f"Name one of: {', '.join(row.name for row in class_table(table))}.",
            )
        if _key(name) not in names:
            raise RecipeError(
                f"products.crosswalk_rows: {name!r} is no class of the map ({_listed([i.name for i in classes])}).",
                do="Name one of its classes, or take the row out.",
            )
        rows[_key(name)] = Row(name, target, OWN_ROW)
    return rows


def _key(name: str) -> str:
    return name.strip().casefold()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


@cache
def _packaged() -> Mapping[str, Crosswalk]:
    found = {}
    folder = files("wetmap") / "class_tables" / "crosswalks"
    for file in sorted((one for one in folder.iterdir() if one.name.endswith(".yaml")), key=lambda one: one.name):
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        rows = tuple(Row(row["from"], row["to"], row["rests_on"], row.get("note", "")) for row in data["rows"])
        found[data["to"]] = Crosswalk(data["from"], data["to"], rows)
    return found
