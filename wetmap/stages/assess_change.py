"""A sample with a class for two dates at each point: the transition that was seen, and what follows for each class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wetmap.assessment import Sample
from wetmap.assessment.change import ClassChange, Figure, class_changes, transition_areas
from wetmap.errors import ReferenceWarning, UsageError
from wetmap.products.change_table import ChangeTable
from wetmap.products.sample_file import read_units
from wetmap.stages.assess_unknown import refuse_foreign, warn_of_unknown
from wetmap.stages.hectares_text import hectares_text

Ints = NDArray[np.int64]
Texts = NDArray[np.object_]

#: Units named in a message, at most.
LISTED = 8
#: Interpreted points for each stratum, on average, below which a warning says that the intervals are wide: half of the
#: 50 that Olofsson et al. (2014, section 5.1.2) name as the fewest for a rare class.
FEW = 25


@dataclass(frozen=True)
class Dates:
    """How the classes of two dates are read from a sample, and what they mean on a map of change."""

    table: ChangeTable
    """What the codes of the map of change mean."""
    before_field: str
    """Field of the class at the first date."""
    after_field: str
    """Field of the class at the second."""

    def read(self, path: Path, layer: str | None, *, placed: bool = True) -> tuple[pd.DataFrame, Texts]:
        """Points, and the transition seen at each as the map's legend calls it, (n,), None where a class is missing.

        Args:
            path: The file.
            layer: Layer of the file, as `read_units` takes it.
            placed: Whether every feature must be a point on the map.

        Raises:
            ReferenceDataError: It cannot be read.
            UsageError: It lacks one of the two fields.
        """
        table, before, after = self._classes(path, layer, placed=placed)
        half = [
            str(unit) for unit, b, a in zip(_units(table), before, after, strict=True) if (b is None) != (a is None)
        ]
        if half:
            warnings.warn(
                f"Points of {path.name} with a class for one date only: {len(half)} "
                f"({', '.join(half[:LISTED])}{', ...' if len(half) > LISTED else ''}). They count as not interpreted.",
                ReferenceWarning,
                stacklevel=3,
            )
        self._look_for_unknown(path, _units(table), before, after)
        seen = [
            None if b is None or a is None else self.table.name_of(b, a) for b, a in zip(before, after, strict=True)
        ]
        return table, np.array(seen, dtype=object)

    def figures(
        self,
        path: Path,
        layer: str | None,
        place: Ints,
        sample: Sample,
        result: Mapping[str, Any],
        *,
        placed: bool = True,
    ) -> dict[str, Any]:
        """Hectares of each transition, and gain, loss and net change of each class.

        Args:
            path: The file that ``read`` read.
            layer: Its layer.
            place: Place in the design of each unit of ``sample``, (n,), from 0.
            sample: The units that are interpreted.
            result: What the sample says of the map of change; its rows get intervals that many transitions need.
            placed: As in ``read``.

        Returns:
            The parts of ``result`` that change or are new.
        """
        hectares = float(result["hectares"])
        table, before, after = self._classes(path, layer, placed=placed)
        at = {int(unit) - 1: row for row, unit in enumerate(_units(table))}
        rows = [at[one] for one in place.tolist()]
        pairs = [(str(before[row]), str(after[row])) for row in rows]
        names = [item.name for item in self.table.classes]
        names += sorted({name for pair in pairs for name in pair} - set(names))
        number = {name: k for k, name in enumerate(names)}
        first, second = (np.array([number[pair[date]] for pair in pairs], dtype=np.int64) for date in (0, 1))
        found = class_changes(sample, first, second, len(names))
        _warn_of_few(sample, hectares)
        areas = transition_areas(sample)
        return {
            "classes": [
                {**row, "hectares": _scaled(one, hectares)} for row, one in zip(result["classes"], areas, strict=True)
            ],
            "change": [_row(name, one, hectares) for name, one in zip(names, found, strict=True)],
            "change_maps": {"before": self.table.before, "after": self.table.after},
        }

    def _look_for_unknown(
        self, path: Path, units: Sequence[Any], before: Sequence[str | None], after: Sequence[str | None]
    ) -> None:
        """Tell classes that the maps lack: a spelling mistake would be counted as a change otherwise.

        Raises:
            AssessmentError: Most points have such a class.
        """
        known = [item.name for item in self.table.classes]
        rows = {
            int(unit): (b, a)
            for unit, b, a in zip(units, before, after, strict=True)
            if b is not None and a is not None
        }
        refuse_foreign(list(rows.values()), known, path.name, f"{self.before_field} and {self.after_field}")
        warn_of_unknown(rows, known)

    def _classes(
        self, path: Path, layer: str | None, *, placed: bool
    ) -> tuple[pd.DataFrame, list[str | None], list[str | None]]:
        """Points, and the class of each date as the legend spells it, None where there is none."""
        try:
            table, before = read_units(path, self.before_field, layer, placed=placed)
            _, after = read_units(path, self.after_field, layer, placed=placed)
        except UsageError as error:
            if "has no field" not in error.what:
                raise
            raise UsageError(
                error.what,
                do="Of a map of change, the class of both dates is needed: name the two fields with --before-field and "
                "--after-field.",
            ) from error
        return table, self._spelt(before.tolist()), self._spelt(after.tolist())

    def _spelt(self, values: Sequence[str | None]) -> list[str | None]:
        """Names as the legend spells them; case, blanks, hyphens and underscores do not matter, codes are taken too."""
        spelt = {str(item.code): item.name for item in self.table.classes}
        spelt |= {_bare(item.name): item.name for item in self.table.classes}
        return [None if value is None else spelt.get(_bare(value), value) for value in values]


def _warn_of_few(sample: Sample, hectares: float) -> None:
    """Say so where the points are too few for the strata: what nobody saw may be anything up to the interval's end."""
    points, strata = len(sample.stratum), int(sample.sizes.size)
    if points >= FEW * strata:
        return
    unseen = replace(sample, reference=np.zeros_like(sample.reference), classes=2)
    reach = transition_areas(unseen)[1].interval.high * hectares
    warnings.warn(
        f"{points} interpreted points for {strata} strata are {points / strata:.0f} for each, and below {FEW} the "
        f"intervals of rare change say little: a transition that nobody saw may still have {hectares_text(reach)} ha. "
        "Interpret more points, or make the map of change with fewer entries (wetmap change with a larger --least-ha, "
        "or --stable one) and sample that.",
        ReferenceWarning,
        stacklevel=4,
    )


def _units(table: pd.DataFrame) -> Sequence[Any]:
    """The number of each row: its unit, or, in a file without units, its place from 1."""
    if "unit" not in table.columns:
        return range(1, len(table) + 1)
    numbers: list[Any] = pd.to_numeric(table["unit"], errors="coerce").fillna(0).astype(int).tolist()
    return numbers


def _row(name: str, one: ClassChange, hectares: float) -> dict[str, Any]:
    figures = {figure: _scaled(getattr(one, figure), hectares) for figure in ("before", "after", "gain", "loss", "net")}
    return {"class": name, **figures}


def _scaled(figure: Figure, by: float) -> dict[str, Any]:
    return {
        "value": figure.estimate.value * by,
        "se": figure.estimate.se * by,
        "low": figure.interval.low * by,
        "high": figure.interval.high * by,
        "method": figure.interval.method,
    }


def _bare(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())
