"""Accuracy and hectares from a sample that was interpreted, or agreement with reference points of another kind."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wetmap.assessment import Estimate, Interval, Sample, disagreement, estimate, intervals
from wetmap.assessment.estimate import mean
from wetmap.errors import AssessmentError, ReferenceWarning, UsageError
from wetmap.products.class_map import NO_CLASS, ClassMap
from wetmap.products.sample_file import REFERENCE, Design, read_design, read_units

Ints = NDArray[np.int64]

#: Classes and units named in a message, at most.
LISTED = 8


@dataclass(frozen=True)
class _Read:
    """Interpreted units: their place in the design, and what was seen there."""

    place: Ints
    value: list[str]


def assess(
    source: ClassMap, path: Path, *, class_field: str = REFERENCE, layer: str | None = None, second: Path | None = None
) -> dict[str, Any]:
    """Assess a map.

    Args:
        source: The map.
        path: A sample of it that was interpreted, or points with a class.
        class_field: Field of the class.
        layer: Layer of the file.
        second: The same sample, interpreted by somebody else.

    Returns:
        What the verb prints and writes: ``basis`` is ``probability sample`` or ``agreement``.

    Raises:
        AssessmentError: Nothing was interpreted, or too little of a class.
        ReferenceDataError: A file cannot be read or its units are not those that were drawn.
        UsageError: A field is missing.
    """
    design = read_design(path)
    if design is None:
        if second is not None:
            raise UsageError(
                f"{path} is not a sample of wetmap sample, and --second compares two interpretations of one.",
                do="Leave --second out.",
            )
        return _agreement(source, path, class_field, layer)
    read = _units(path, class_field, layer, design, source)
    codes = np.array(design.codes, dtype=np.int64)
    changed = design.map_sha256 != source.sha256
    mapped = codes
    if changed:
        warnings.warn(
            f"{source.path.name} is not the map that {path.name} was drawn from. Its classes are looked up anew; the "
            "strata are the old map's, which makes the intervals wider, not wrong.",
            ReferenceWarning,
            stacklevel=2,
        )
        mapped = source.codes_at(np.array(design.rows), np.array(design.cols)).astype(np.int64)
    names = _names(design, source, read.value)
    sample = _sample(design, read, mapped, names)
    mapped_ha = _mapped_ha(source) if changed else {row.code: row.hectares for row in design.strata}
    result = _result(design, sample, names, mapped_ha)
    result |= {"map_changed": changed, "units": len(codes), "interpreted": len(read.value), "file": path.name}
    if second is not None:
        other = read_design(second)
        if other is None or (other.map_sha256, other.rows, other.cols) != (design.map_sha256, design.rows, design.cols):
            raise AssessmentError(
                f"{second.name} is not the same sample as {path.name}.",
                do="Give two copies of one sample, filled apart.",
            )
        result["second"] = _second(sample, read, _units(second, class_field, layer, design, source))
    return result


def _mapped_ha(source: ClassMap) -> dict[int, float]:
    """True hectares of each class of the map."""
    parts: dict[int, list[float]] = {}
    for block, codes in source.strips():
        area = source.grid.pixel_area_m2(block) / 1e4
        for code in np.unique(codes).tolist():
            parts.setdefault(code, []).append(math.fsum(area[codes == code].tolist()))
    return {code: math.fsum(values) for code, values in parts.items()}


def _units(path: Path, class_field: str, layer: str | None, design: Design, source: ClassMap) -> _Read:
    table, values = read_units(path, class_field, layer)
    if "unit" not in table.columns:
        raise AssessmentError(f"{path} has lost its field unit.", do="Assess the file as wetmap sample wrote it.")
    units = pd.to_numeric(table["unit"], errors="coerce").to_numpy(dtype=np.float64)
    known = np.isin(units, np.arange(1, len(design.rows) + 1))
    if not known.all() or len(np.unique(units)) < len(units):
        strange = ", ".join(f"{unit:g}" for unit in units[~known][:LISTED])
        many, how_many = np.unique(units[known], return_counts=True)
        twice = ", ".join(f"{unit:g}" for unit in many[how_many > 1][:LISTED])
        raise AssessmentError(
            f"The units of {path.name} are not those that were drawn: unknown {strange or 'none'}; "
            f"twice {twice or 'none'}.",
            do="Delete the added or copied points; a probability sample is what was drawn, no more.",
        )
    places = units.astype(np.int64) - 1
    _refuse_moved(path, table, places, design, source)
    filled = np.array([value is not None for value in values], dtype=bool)
    empty = len(design.rows) - int(filled.sum())
    if not filled.any():
        raise AssessmentError(f"No unit of {path.name} is interpreted.", do=f"Fill its field {class_field} in QGIS.")
    if empty:
        warnings.warn(
            f"{empty} of {len(design.rows)} units of {path.name} are not interpreted. They are left out, as if they "
            "were like the others of their stratum; if they were the hard ones, the figures flatter the map.",
            ReferenceWarning,
            stacklevel=3,
        )
    return _Read(
        places[filled], _as_in_the_legend([str(value) for value in values[filled]], design, source, class_field)
    )


def _refuse_moved(path: Path, table: Any, places: Ints, design: Design, source: ClassMap) -> None:
    """Every point must lie in the pixel that was drawn for its number."""
    rows, cols = _pixels(table, source)
    moved = (rows != np.array(design.rows)[places]) | (cols != np.array(design.cols)[places])
    if moved.any():
        named = ", ".join(str(place + 1) for place in places[moved][:LISTED])
        raise AssessmentError(
            f"{int(moved.sum())} points of {path.name} do not lie in the pixel that was drawn, among them {named}.",
            do="Undo the move or the renumbering; if the map has another grid now, assess the one that was sampled.",
        )


def _pixels(table: Any, source: ClassMap) -> tuple[Ints, Ints]:
    points = table.to_crs(source.grid.crs).geometry
    rows = np.floor((source.grid.top - points.y.to_numpy()) / source.grid.res_m)
    cols = np.floor((points.x.to_numpy() - source.grid.left) / source.grid.res_m)
    return _whole(rows), _whole(cols)


def _whole(values: NDArray[np.float64]) -> Ints:
    return np.where(np.isfinite(values), values, -1).astype(np.int64)


def _as_in_the_legend(values: list[str], design: Design, source: ClassMap, class_field: str) -> list[str]:
    """Names as the map's legend spells them: case, blanks, hyphens and underscores do not matter, codes are taken too.

    Raises:
        AssessmentError: Not one value is a class of the map.
    """
    known = {item.code: item.name for item in (*design.classes, *source.classes)}
    spelt = {_bare(name): name for name in known.values()} | {str(code): name for code, name in known.items()}
    found = [spelt.get(_bare(value), value) for value in values]
    if not set(found) & set(known.values()):
        raise AssessmentError(
            f"No value of {class_field} is a class of the map: {', '.join(sorted(set(values))[:LISTED])}; the classes "
            f"are {', '.join(known.values())}.",
            do="Name the field of the class with --class-field, or write the classes as the legend does.",
        )
    return found


def _bare(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())


def _names(design: Design, source: ClassMap, seen: Sequence[str]) -> list[tuple[int, str]]:
    """Code and name of every class of the matrix: the map's, then those that only the interpreter saw (negative)."""
    known = {item.code: item.name for item in (*source.classes, *design.classes)}
    names = sorted(known.items())
    others = sorted(set(seen) - set(known.values()))
    if others:
        warnings.warn(
            f"The map has no class {', '.join(others[:LISTED])}, which the interpreter saw: counted as a class that "
            "the map misses. Mend the spelling if it is one of the map's.",
            ReferenceWarning,
            stacklevel=3,
        )
    return [*names, *((-1 - number, name) for number, name in enumerate(others))]


def _sample(design: Design, read: _Read, mapped: Ints, names: Sequence[tuple[int, str]]) -> Sample:
    at = {code: number for number, (code, _) in enumerate(names)}
    by_name = {name: number for number, (_, name) in enumerate(names)}
    strata = {row.code: number for number, row in enumerate(design.strata)}
    stratum = np.array([strata[design.codes[place]] for place in read.place], dtype=np.int64)
    lost = mapped[read.place] == NO_CLASS
    if lost.any():
        raise AssessmentError(
            f"{int(lost.sum())} interpreted units lie where the map has no class.",
            do="Assess the map that the sample was drawn from.",
        )
    total_px = sum(row.pixels for row in design.strata)
    total_ha = sum(row.hectares for row in design.strata)
    sizes = np.array([row.hectares / total_ha * total_px for row in design.strata])  # weights by true area
    counts = np.bincount(stratum, minlength=sizes.size)
    poststratified = design.kind != "stratified"
    if poststratified and (counts < 2).any():
        warnings.warn(
            "A class of the map has fewer than two interpreted units, so the classes are not used as strata: the "
            "intervals are wider than they need be, and say little of rare classes. A stratified sample gives every "
            "class its share.",
            ReferenceWarning,
            stacklevel=3,
        )
        stratum, sizes, poststratified = np.zeros_like(stratum), np.array([float(total_px)]), False
    elif (counts < 2).any():
        names_of = {item.code: item.name for item in design.classes}
        thin = ", ".join(
            f"{names_of.get(row.code, row.code)} ({count})"
            for row, count in zip(design.strata, counts, strict=True)
            if count < 2
        )
        raise AssessmentError(
            f"A variance needs at least two interpreted units of every class that was sampled; too few: {thin}.",
            do="Interpret more of them, or draw another sample with --least.",
        )
    return Sample(
        stratum=stratum,
        mapped=np.array([at[int(code)] for code in mapped[read.place]], dtype=np.int64),
        reference=np.array([by_name[value] for value in read.value], dtype=np.int64),
        sizes=sizes,
        classes=len(names),
        poststratified=poststratified,
    )


def _result(
    design: Design, sample: Sample, names: Sequence[tuple[int, str]], mapped_ha: dict[int, float]
) -> dict[str, Any]:
    found = estimate(sample)
    made = intervals(sample, found)
    total_ha = sum(row.hectares for row in design.strata)
    split = disagreement(found.matrix)
    rows = []
    for k, (code, name) in enumerate(names):
        unsampled = mapped_ha.get(code, 0.0) > 0 and not (sample.mapped == k).any()
        rows.append(
            {
                "code": code if code > 0 else None,
                "class": name,
                "sampled": int((sample.mapped == k).sum()),
                "seen": int((sample.reference == k).sum()),
                "mapped_ha": mapped_ha.get(code, 0.0),
                "hectares": _scaled(found.area[k], made.area[k], total_ha),
                "users": _scaled(found.users[k], made.users[k], 1.0),
                "producers": None if unsampled else _scaled(found.producers[k], made.producers[k], 1.0),
            }
        )
    return {
        "basis": "probability sample",
        "design": design.kind,
        "simulated": design.simulated,
        "poststratified": sample.poststratified,
        "away_m": design.away_m,
        "left_out_ha": design.left_out_ha,
        "hectares": total_ha,
        "overall": _scaled(found.overall, made.overall, 1.0),
        "classes": rows,
        "matrix": found.matrix.tolist(),
        "quantity_disagreement": split.quantity,
        "allocation_disagreement": split.allocation,
        "kappa": None if np.isnan(split.kappa) else split.kappa,
    }


def _scaled(one: Estimate, interval: Interval, by: float) -> dict[str, Any] | None:
    if np.isnan(one.value):
        return None
    return {
        "value": one.value * by,
        "se": one.se * by,
        "low": interval.low * by,
        "high": interval.high * by,
        "method": interval.method,
    }


def _second(sample: Sample, read: _Read, other: _Read) -> dict[str, Any]:
    """How often a second interpreter saw something else, as a share of the area."""
    theirs = dict(zip(other.place.tolist(), other.value, strict=True))
    both = np.array([place in theirs for place in read.place.tolist()])
    if not both.any():
        raise AssessmentError("The two interpreters have no unit in common.", do="Give two fills of the same sample.")
    differ = np.array(
        [theirs[place] != mine for place, mine in zip(read.place.tolist(), read.value, strict=True) if place in theirs]
    )
    shared = Sample(
        sample.stratum[both],
        sample.mapped[both],
        sample.reference[both],
        sample.sizes,
        sample.classes,
        sample.poststratified,
    )
    counts = np.bincount(shared.stratum, minlength=sample.sizes.size)
    known = bool((counts >= 2).all())
    share = mean(shared, differ.astype(np.float64)) if known else Estimate(float(differ.mean()), float("nan"))
    units = (read.place[both][differ] + 1).tolist()
    return {
        "common": int(both.sum()),
        "differ": int(differ.sum()),
        "share_of_area": share.value,
        "se": share.se if known else None,
        "units": units,
    }


def _agreement(source: ClassMap, path: Path, class_field: str, layer: str | None) -> dict[str, Any]:
    """Counts against points that nobody drew at random: what they say holds for them alone."""
    table, values = read_units(path, class_field, layer)
    rows, cols = _pixels(table, source)
    codes = source.codes_at(rows, cols).astype(np.int64)
    given = np.array([value is not None for value in values], dtype=bool)
    within = (rows >= 0) & (rows < source.grid.height) & (cols >= 0) & (cols < source.grid.width)
    places = rows * source.grid.width + cols
    first = np.zeros(len(places), dtype=bool)
    first[np.unique(places, return_index=True)[1]] = True
    used = given & (codes != NO_CLASS) & first
    left_out = {
        "without a class": int((~given).sum()),
        "outside the map": int((given & ~within).sum()),
        "where the map has no class": int((given & within & (codes == NO_CLASS)).sum()),
        "in the pixel of another point": int((given & (codes != NO_CLASS) & ~first).sum()),
    }
    if not used.any():
        told = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
        raise AssessmentError(
            f"No point of {path.name} can be compared with the map: {told}.", do="Check the file's CRS."
        )
    for why, count in left_out.items():
        if count:
            warnings.warn(f"{count} points of {path.name} are left out: {why}.", ReferenceWarning, stacklevel=3)
    names = sorted({item.code: item.name for item in source.classes}.items())
    spelt = {_bare(name): name for _, name in names}
    seen = [spelt.get(_bare(str(value)), str(value)) for value in values[used]]
    names += [(-1 - n, name) for n, name in enumerate(sorted(set(seen) - {name for _, name in names}))]
    at = {code: number for number, (code, _) in enumerate(names)}
    by_name = {name: number for number, (_, name) in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(matrix, ([at[int(code)] for code in codes[used]], [by_name[value] for value in seen]), 1)
    return {
        "basis": "agreement",
        "file": path.name,
        "points": len(values),
        "used": int(used.sum()),
        "left_out": left_out,
        "overall": float(np.trace(matrix) / matrix.sum()),
        "classes": [
            {
                "code": code if code > 0 else None,
                "class": name,
                "mapped": int(matrix[k].sum()),
                "seen": int(matrix[:, k].sum()),
                "agreed": int(matrix[k, k]),
            }
            for k, (code, name) in enumerate(names)
        ],
        "matrix": matrix.tolist(),
    }
