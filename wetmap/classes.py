"""The classes of a map: a code in the raster, a name in the legend, a colour.

Names and colours that are well known live in ``class_tables/*.yaml``, as data.
"""

from __future__ import annotations

import colorsys
import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from wetmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Colours of classes that no table knows, in order: Okabe and Ito (2008), "Color Universal Design", without black.
OTHER_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
#: Fraction of the colour circle that keeps successive hues apart: 1 - 1/golden ratio.
GOLDEN_TURN = 0.381966

#: Confidence and other measures, low to high: five stops of viridis (Smith and van der Walt, 2015), which stays in
#: order in every kind of colour vision and in grey print.
MEASURE_RAMP = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
#: Spare colours to choose from beyond one per class.
SPARE_COLOURS = 16

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class MapClass:
    """One class of a map."""

    code: int
    """Value in classes.tif, 1 to 254 (0 is nodata, 255 is unlabelled in label rasters)."""
    name: str
    """Name in legends."""
    colour: str
    """``#rrggbb``."""
    upland: bool = False
    """True for dry land: background samples belong to it."""

    def __post_init__(self) -> None:
        if isinstance(self.code, bool) or not isinstance(self.code, int) or not 1 <= self.code <= 254:
            raise UsageError(f"class {self.name!r} has code {self.code!r}.", do="Give it a whole number from 1 to 254.")
        if not self.name.strip():
            raise UsageError(f"the class with code {self.code} has no name.", do="Give it a name.")
        if not _COLOUR.fullmatch(self.colour):
            raise UsageError(
                f"class {self.name!r} has colour {self.colour!r}.", do="Give it as #rrggbb, such as #0d3783."
            )

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0 to 255."""
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back unchanged."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MapClass:
        """Rebuild a class written by ``to_json``.

        Raises:
            UsageError: The code, name or colour is not one a map can have.
        """
        return cls(**data)


def palette_colour(name: str, index: int) -> str:
    """The colour of a class that was given none.

    Args:
        name: The class's name. Case, spaces, hyphens and underscores do not matter; the inventory's two-letter
            codes and usual synonyms are known too.
        index: Place of the class in its table, from 0.

    Returns:
        ``#rrggbb``: the packaged tables' colour of that name; for any other name a colour that depends on ``index``
        alone and that no other index and no table has.
    """
    known = _known_colours().get(_normal(name))
    return known if known is not None else _other_colour(index)


def distinct_colours(names: Sequence[str]) -> tuple[str, ...]:
    """Colours for the classes of one map that were given none, no two alike.

    Args:
        names: The classes' names, in order.

    Returns:
        ``#rrggbb`` per name: its palette colour, unless an earlier class of this map has that already; for every
        other name the spare colour that is farthest from those in use.
    """
    known = [_known_colours().get(_normal(name)) for name in names]
    chosen = [colour if colour and colour not in known[:at] else None for at, colour in enumerate(known)]
    used = [colour for colour in chosen if colour]
    spare = [_other_colour(index) for index in range(len(names) + SPARE_COLOURS)]
    for at, colour in enumerate(chosen):
        if colour is None:
            best = max(spare, key=lambda one: min((_distance(one, other) for other in used), default=0))
            chosen[at] = best
            used.append(best)
            spare.remove(best)
    return tuple(colour for colour in chosen if colour)


def class_table(name: str) -> tuple[MapClass, ...]:
    """The classes of a packaged table, such as ``new-brunswick``, in order of code.

    Raises:
        UsageError: There is no table of that name.
    """
    tables = _tables()
    wanted = _normal(name).replace(" ", "-")
    if wanted not in tables:
        raise UsageError(f"there is no class table {name!r}.", do=f"Choose one of: {', '.join(sorted(tables))}.")
    return tables[wanted]


def table_names() -> tuple[str, ...]:
    """Names of the packaged tables, in alphabetical order."""
    return tuple(sorted(_tables()))


def table_title(name: str) -> str:
    """What a packaged table is called in full; its name, where it says nothing else.

    Raises:
        UsageError: There is no table of that name.
    """
    document = _document(name)
    return str(document.get("title", document["name"]))


def synonyms(name: str) -> dict[str, tuple[str, ...]]:
    """Other names of the classes of a packaged table, by the classes' own names, in order of code.

    Raises:
        UsageError: There is no table of that name.
    """
    rows = sorted(_document(name)["classes"], key=lambda row: int(row["code"]))
    return {row["name"]: tuple(row.get("also", ())) for row in rows}


def name_in_table(table: str, name: str) -> str | None:
    """What a packaged table calls a class.

    Args:
        table: Name of the table.
        name: The class's name, or a synonym that the table knows; case, spaces, hyphens and underscores do not matter.

    Returns:
        The table's own name; None where it has no such class.

    Raises:
        UsageError: There is no table of that name.
    """
    known = {_normal(word): own for own, also in synonyms(table).items() for word in (own, *also)}
    return known.get(_normal(name))


def _document(name: str) -> dict[str, Any]:
    class_table(name)  # refuses an unknown name
    wanted = _normal(name).replace(" ", "-")
    return next(one for one in _documents() if one["name"] == wanted)


def _normal(name: str) -> str:
    return " ".join(re.split(r"[\s_/-]+", name.strip().casefold())).strip()


@cache
def _documents() -> tuple[dict[str, Any], ...]:
    folder = files("wetmap") / "class_tables"
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return tuple(yaml.safe_load(file.read_text(encoding="utf-8")) for file in found)


@cache
def _tables() -> Mapping[str, tuple[MapClass, ...]]:
    tables = {}
    for document in _documents():
        rows = [{key: value for key, value in row.items() if key != "also"} for row in document["classes"]]
        tables[document["name"]] = tuple(sorted((MapClass(**row) for row in rows), key=lambda item: item.code))
    return MappingProxyType(tables)


@cache
def _known_colours() -> Mapping[str, str]:
    """Colour by normalised name or synonym, over all tables; a name means one colour everywhere (tests see to it)."""
    return MappingProxyType(
        {
            _normal(name): row["colour"]
            for document in _documents()
            for row in document["classes"]
            for name in (row["name"], *row.get("also", ()))
        }
    )


def _distance(one: str, other: str) -> int:
    """Squared distance of two colours in sRGB, 0 to 3 * 255^2."""
    return sum((int(one[at : at + 2], 16) - int(other[at : at + 2], 16)) ** 2 for at in (1, 3, 5))


def _other_colour(index: int) -> str:
    """Okabe and Ito's colours first, then golden-angle hues whose lightness and saturation change every turn."""
    if index < len(OTHER_COLOURS):
        return OTHER_COLOURS[max(index, 0)]
    step = index - len(OTHER_COLOURS)
    lightness, saturation = ((0.42, 0.65), (0.62, 0.55), (0.76, 0.70), (0.30, 0.50))[step % 4]
    red, green, blue = colorsys.hls_to_rgb((0.03 + step * GOLDEN_TURN) % 1.0, lightness, saturation)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
