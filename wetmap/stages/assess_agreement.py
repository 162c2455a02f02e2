"""Agreement of a map with points that nobody drew at random: what it says holds for these points alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np

from wetmap.errors import AssessmentError, ReferenceWarning
from wetmap.products.class_map import NO_CLASS, ClassMap
from wetmap.products.sample_file import read_units
from wetmap.stages.assess_change import Dates
from wetmap.stages.assess_reading import as_in_the_legend, looks_exported, pixels_of, spellings, with_words
from wetmap.stages.assess_unknown import refuse_foreign, warn_of_unknown


def agreement(
    source: ClassMap, path: Path, class_field: str, layer: str | None, dates: Dates | None = None
) -> dict[str, Any]:
    """Compare a map with reference points.

    Args:
        source: The map.
        path: A vector file of points with a class.
        class_field: Field of the class.
        layer: Layer of the file.
        dates: How the classes of two dates become a transition, for a map of change.

    Returns:
        What `wetmap.stages.assess.assess` returns, with ``basis`` "agreement".

    Raises:
        AssessmentError: No point can be compared, or the file is a sample that has lost its design.
        ReferenceDataError: The file cannot be read.
        UsageError: A field or layer is missing.
    """
    table, values = read_units(path, class_field, layer) if dates is None else dates.read(path, layer)
    if looks_exported([str(name) for name in table.columns]):
        raise AssessmentError(
            f"{path.name} is a copy of a sample that was exported: how the sample was drawn is lost in it.",
            do="Assess the file that wetmap sample wrote, or name it beside the copy: --sample sample.gpkg.",
        )
    rows, cols = pixels_of(geopandas.GeoDataFrame(table), source)
    codes = source.codes_at(rows, cols).astype(np.int64)
    given = np.array([value is not None for value in values], dtype=bool)
    within = (rows >= 0) & (rows < source.grid.height) & (cols >= 0) & (cols < source.grid.width)
    candidates = given & (codes != NO_CLASS)
    first = _first_of_each(rows * source.grid.width + cols, candidates)
    used = candidates & first
    left_out = {
        "without a class": int((~given).sum()),
        "outside the map": int((given & ~within).sum()),
        "where the map has no class": int((given & within & (codes == NO_CLASS)).sum()),
        "in the pixel of another point": int((candidates & ~first).sum()),
    }
    if not used.any():
        told = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
        raise AssessmentError(
            f"No point of {path.name} can be compared with the map: {told}.",
            do="Check the file's CRS and the field of the class (--class-field).",
        )
    for why, count in left_out.items():
        if count:
            warnings.warn(f"{count} points of {path.name} are left out: {why}.", ReferenceWarning, stacklevel=3)
    legend = sorted((item.code, item.name) for item in source.classes)
    known = list(dict.fromkeys(name for _, name in legend))
    spelt = with_words(spellings(legend), known, {} if dates else source.words)
    seen = as_in_the_legend(values[used].tolist(), spelt, class_field)
    if dates is None:
        refuse_foreign([(value,) for value in seen], known, path.name, class_field)
    units = (np.flatnonzero(used) + 1).tolist()
    names = known + warn_of_unknown(seen, known, units, suggest=dates is None)
    place = {name: number for number, name in enumerate(names)}
    name_of = dict(legend)
    matrix = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(matrix, ([place[name_of[int(code)]] for code in codes[used]], [place[name] for name in seen]), 1)
    code_of = {name: code for code, name in reversed(legend)}
    return {
        "basis": "agreement",
        "file": path.name,
        "simulated": source.simulated,
        "points": len(values),
        "used": int(used.sum()),
        "left_out": left_out,
        "overall": float(np.trace(matrix) / matrix.sum()),
        "classes": [
            {
                "code": code_of.get(name),
                "class": name,
                "mapped": int(matrix[k].sum()),
                "seen": int(matrix[:, k].sum()),
                "agreed": int(matrix[k, k]),
            }
            for k, name in enumerate(names)
        ],
        "matrix": matrix.tolist(),
    }


def _first_of_each(places: np.ndarray[Any, Any], candidates: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whether each candidate is the first of its pixel, (n,)."""
    at = np.flatnonzero(candidates)
    first = np.zeros(len(places), dtype=np.bool_)
    first[at[np.unique(places[at], return_index=True)[1]]] = True
    return first
