"""Reading a sample that was interpreted: which units, what was seen there, in the words of the map's legend."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wetmap.errors import AssessmentError, ReferenceWarning
from wetmap.products.class_map import ClassMap
from wetmap.products.sample_file import CHANGE_COLUMNS, OWN_COLUMNS, Design, read_units
from wetmap.stages.assess_change import Dates

Ints = NDArray[np.int64]

#: Classes and units named in a message, at most.
LISTED = 8


@dataclass(frozen=True)
class Asked:
    """How a filled sample is to be read."""

    field: str
    """Field of the class."""
    layer: str | None = None
    """Layer of the file, or None for the sample's own."""
    exported: bool = False
    """Whether it is a copy without the design, such as a table from a spreadsheet; its points need no place then."""
    dates: Dates | None = None
    """How the classes of two dates become a transition, for a map of change; ``field`` is the first date's then."""


@dataclass(frozen=True)
class Interpreted:
    """Interpreted units: their place in the design, and what was seen there."""

    place: Ints
    """(n,), from 0."""
    value: list[str]
    """Names of classes, as the legend spells them where it knows them."""


def read_interpreted(
    path: Path, asked: Asked, design: Design, source: ClassMap, names: Mapping[str, str]
) -> Interpreted:
    """Read a sample that was filled.

    Args:
        path: The file.
        asked: How to read it.
        design: The sample as it was drawn.
        source: A map on the same grid.
        names: The legend's names, by what may stand for them, as `spellings` gives them.

    Raises:
        AssessmentError: Nothing is interpreted, or the units are not those that were drawn.
        ReferenceDataError: The file cannot be read.
        UsageError: It has no such field or layer.
    """
    if asked.dates is not None:
        table, values = asked.dates.read(path, asked.layer, placed=not asked.exported)
    else:
        table, values = read_units(path, asked.field, asked.layer, placed=not asked.exported)
    if "unit" not in table.columns:
        raise AssessmentError(f"{path} has lost its field unit.", do="Assess the file as wetmap sample wrote it.")
    places = _places(path, table["unit"], len(design.rows))
    if isinstance(table, geopandas.GeoDataFrame) and table.crs is not None:
        _refuse_moved(path, table, places, design, source)
    order = np.argsort(places)  # sums, and so the last digits, do not depend on how a table was sorted
    places, values = places[order], values[order]
    filled = np.array([value is not None for value in values], dtype=bool)
    empty = len(design.rows) - int(filled.sum())
    if not filled.any():
        raise AssessmentError(f"No unit of {path.name} is interpreted.", do=f"Fill its field {asked.field} in QGIS.")
    if empty:
        warnings.warn(
            f"{empty} of {len(design.rows)} units of {path.name} are not interpreted. They are left out, as if they "
            "were like the others of their stratum; if they were the hard ones, the figures flatter the map.",
            ReferenceWarning,
            stacklevel=3,
        )
    return Interpreted(places[filled], as_in_the_legend(values[filled].tolist(), names, asked.field))


def looks_exported(columns: Sequence[str]) -> bool:
    """Whether these are the columns of a copy of a sample."""
    return set(columns) >= OWN_COLUMNS or set(columns) >= CHANGE_COLUMNS


def _places(path: Path, given: pd.Series, units: int) -> Ints:
    """Place of each row in the design, from 0."""
    numbers = pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64)
    known = np.isin(numbers, np.arange(1, units + 1))
    if not known.all() or len(np.unique(numbers)) < len(numbers):
        strange = ", ".join(f"{unit:g}" for unit in numbers[~known][:LISTED])
        many, how_many = np.unique(numbers[known], return_counts=True)
        twice = ", ".join(f"{unit:g}" for unit in many[how_many > 1][:LISTED])
        raise AssessmentError(
            f"The units of {path.name} are not those that were drawn: unknown {strange or 'none'}; "
            f"twice {twice or 'none'}.",
            do="Delete the added or copied points; a probability sample is what was drawn, no more.",
        )
    return numbers.astype(np.int64) - 1


def _refuse_moved(path: Path, table: geopandas.GeoDataFrame, places: Ints, design: Design, source: ClassMap) -> None:
    """Every point must lie in the pixel that was drawn for its number."""
    rows, cols = pixels_of(table, source)
    moved = (rows != np.array(design.rows)[places]) | (cols != np.array(design.cols)[places])
    if moved.all():
        raise AssessmentError(
            f"Not one point of {path.name} lies in the pixel of {source.path.name} that was drawn: the map has another "
            "grid than the one that was sampled.",
            do=f"Assess {design.map_name} as it was then, or draw a new sample of this map.",
        )
    if moved.any():
        named = ", ".join(str(place + 1) for place in places[moved][:LISTED])
        raise AssessmentError(
            f"{int(moved.sum())} points of {path.name} do not lie in the pixel that was drawn, among them {named}.",
            do="Undo the move or the renumbering; if the map has another grid now, assess the one that was sampled.",
        )


def pixels_of(table: geopandas.GeoDataFrame, source: ClassMap) -> tuple[Ints, Ints]:
    """Row and column of the pixel that each point lies in, (n,) each; outside the map, outside of its range."""
    points = table.to_crs(source.grid.crs).geometry
    rows = np.floor((source.grid.top - points.y.to_numpy()) / source.grid.res_m)
    cols = np.floor((points.x.to_numpy() - source.grid.left) / source.grid.res_m)
    return _whole(rows), _whole(cols)


def _whole(values: NDArray[np.float64]) -> Ints:
    return np.where(np.isfinite(values), values, -1).astype(np.int64)


def with_words(names: Mapping[str, str], legend: Sequence[str], words: Mapping[str, str]) -> dict[str, str]:
    """Spellings in which the values of the reference data stand for the map's classes too.

    A class that the map has is never translated, and a code stays a code.

    Args:
        names: As `spellings` gives them.
        legend: The map's classes.
        words: Name of a class by value, as the recipe lists them.
    """
    own = {_bare(name) for name in legend}
    means = {
        _bare(value): name
        for value, name in words.items()
        if name in legend and _bare(value) not in own and _code(value) == value and not value.isdecimal()
    }
    return {**means, **{key: means.get(_bare(name), name) for key, name in names.items()}}


def spellings(names: Sequence[tuple[int, str]], also: Mapping[str, str] | None = None) -> dict[str, str]:
    """What may stand for a class: its name, its name but for case, blanks, hyphens and underscores, its code.

    Where two of these clash, the earlier kind wins: a class that is called 5 is meant by 5, not the one with that code.

    Args:
        names: Codes and names of the legend.
        also: Other names of its classes.
    """
    codes = {str(code): name for code, name in names}
    others = {_bare(other): name for other, name in (also or {}).items()}
    bare = {_bare(name): name for _, name in names}
    return {**codes, **others, **bare, **(also or {}), **{name: name for _, name in names}}


def as_in_the_legend(values: Sequence[str], names: Mapping[str, str], field: str) -> list[str]:
    """Names as the map's legend spells them; others stay as they are.

    Args:
        values: What was written.
        names: As `spellings` gives them.
        field: Where it was written.

    Raises:
        AssessmentError: Not one value is a class of the map.
    """
    found = [names.get(value) or names.get(_bare(value)) or names.get(_code(value), value) for value in values]
    known = list(dict.fromkeys(names.values()))
    if not set(found) & set(known):
        raise AssessmentError(
            f"No value of {field} is a class of the map: {', '.join(sorted(set(values))[:LISTED])}; the classes "
            f"are {', '.join(known)}.",
            do="Name the field of the class with --class-field, or write the classes as the legend does.",
        )
    return found


def _code(value: str) -> str:
    """5.0 and 05 are the code 5."""
    match = re.fullmatch(r"0*(\d{1,3})(?:\.0*)?", value)
    return match[1] if match else value


def _bare(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())
