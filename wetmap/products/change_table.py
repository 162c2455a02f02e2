"""What the codes of a map of change mean: a class that stayed, a transition between two, or a group of them.

The table travels inside the GeoTIFF, as a tag, so that whoever samples or assesses the map knows which two classes a
code stands for, and not only its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from wetmap.classes import MapClass
from wetmap.errors import SourceError

#: The tag, and the version of what it holds.
TAG, VERSION = "WETMAP_CHANGE", 1
#: Between the two classes of a transition.
ARROW = " -> "
#: Names of groups: changes, and classes that stayed, too small to be shown by themselves; all that stayed.
OTHER_CHANGE, OTHER_STABLE, NO_CHANGE = "other change", "other stable", "no change"


@dataclass(frozen=True)
class Shown:
    """One code of the map of change."""

    code: int
    """Value in change.tif."""
    name: str
    """Name in its legend."""
    pairs: tuple[tuple[int, int], ...]
    """Codes of the classes before and after: one pair, or all of a group."""


@dataclass(frozen=True)
class ChangeTable:
    """What a map of change was made from, and what its codes mean."""

    before: str
    """Name of the first map."""
    after: str
    """Name of the second."""
    before_sha256: str
    """Checksum of the first map's classes."""
    after_sha256: str
    """Checksum of the second's."""
    classes: tuple[MapClass, ...]
    """The classes of both maps."""
    shown: tuple[Shown, ...]
    """Every code of the map of change."""

    def name_of(self, before: str, after: str) -> str:
        """What the map calls a change between two classes, by their names.

        A pair that the map shows in a group has the group's name. So has a pair that it does not show at all, where
        there is a group of such pairs: "other change" is every change that is not listed.
        """
        codes = {item.name: item.code for item in self.classes}
        pair = (codes.get(before, -1), codes.get(after, -1))
        for row in self.shown:
            if pair in row.pairs:
                return row.name
        group = NO_CHANGE if before == after and self._has(NO_CHANGE) else None
        group = group or (OTHER_STABLE if before == after else OTHER_CHANGE)
        return group if self._has(group) else pair_name(before, after)

    def _has(self, name: str) -> bool:
        return any(row.name == name for row in self.shown)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back unchanged."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChangeTable:
        """Rebuild a table written by ``to_json``.

        Raises:
            ValueError: It is damaged, or of another version.
        """
        if data.get("version") != VERSION:
            raise ValueError(
                f"the table of change is of version {data.get('version')}, and this wetmap reads {VERSION}"
            )
        try:
            return cls(
                **{key: str(data[key]) for key in ("before", "after", "before_sha256", "after_sha256")},
                classes=tuple(MapClass.from_json(row) for row in data["classes"]),
                shown=tuple(
                    Shown(int(row["code"]), str(row["name"]), tuple((int(b), int(a)) for b, a in row["pairs"]))
                    for row in data["shown"]
                ),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the table of change is damaged: {error}") from error


def pair_name(before: str, after: str) -> str:
    """``bog -> water``, or ``stable bog``."""
    return f"stable {before}" if before == after else f"{before}{ARROW}{after}"


def change_table_of(path: Path) -> ChangeTable | None:
    """The table in a GeoTIFF; None where there is none: it is no map of change of ours.

    Raises:
        SourceError: The file cannot be read, or its table is damaged.
    """
    try:
        with rasterio.open(path) as raster:
            text = raster.tags().get(TAG)
        return None if text is None else ChangeTable.from_json(json.loads(text))
    except (RasterioError, ValueError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"The table of change in {path} cannot be read ({error}).", do="Make the map anew with wetmap change."
        ) from error


def tag_text(table: ChangeTable) -> str:
    """The table as the text of the tag."""
    return json.dumps(table.to_json(), sort_keys=True, ensure_ascii=True)
