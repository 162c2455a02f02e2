"""Accuracy and hectares from a sample that was interpreted, or agreement with reference points of another kind."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.assessment import Estimate, Interval, Sample, disagreement, estimate, intervals
from wetmap.assessment.estimate import mean
from wetmap.errors import AssessmentError, ReferenceWarning, UsageError
from wetmap.products.change_table import ARROW
from wetmap.products.class_map import NO_CLASS, ClassMap
from wetmap.products.sample_file import Design, read_design
from wetmap.products.sample_form import REFERENCE
from wetmap.stages.assess_agreement import agreement
from wetmap.stages.assess_change import Dates
from wetmap.stages.assess_reading import Asked, Interpreted, read_interpreted, spellings, with_words
from wetmap.stages.assess_unknown import refuse_foreign, warn_of_unknown

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Classes:
    """The rows and columns of the error matrix."""

    names: tuple[str, ...]
    """Of the map that is assessed, in the order of its codes; then those that only the sampled map had; then those that
    only the interpreter saw."""
    codes: dict[str, int]
    """Code in the map that is assessed, by name, where it has the class."""

    def row_of_code(self) -> dict[int, int]:
        """Place in the matrix by code of the map."""
        at = {name: number for number, name in enumerate(self.names)}
        return {code: at[name] for name, code in self.codes.items()}


def assess(
    source: ClassMap,
    path: Path,
    *,
    class_field: str = REFERENCE,
    layer: str | None = None,
    second: Path | None = None,
    drawn: Path | None = None,
    dates: Dates | None = None,
) -> dict[str, Any]:
    """Assess a map.

    Args:
        source: The map.
        path: A sample of it that was interpreted, or points with a class.
        class_field: Field of the class.
        layer: Layer of the file.
        second: The same sample, interpreted by somebody else.
        drawn: The sample as ``wetmap sample`` wrote it, where ``path`` is an exported copy of it.
        dates: How the classes of two dates become a transition, for a map of change; None for a map of classes.

    Returns:
        What the verb prints and writes: ``basis`` is ``probability sample`` or ``agreement``.

    Raises:
        AssessmentError: Nothing was interpreted, or too little of a class, or most points have classes that the map
            lacks.
        ReferenceDataError: A file cannot be read or its units are not those that were drawn.
        UsageError: A field is missing, or files do not belong together.
    """
    design = _design(path, second, drawn)
    if design is None:
        return agreement(source, path, class_field, layer, dates)
    field = class_field if dates is None else f"{dates.before_field} and {dates.after_field}"
    asked = Asked(field, layer, exported=drawn is not None, dates=dates)
    changed = design.map_sha256 != source.sha256
    mapped = np.array(design.codes, dtype=np.int64)
    if changed:
        warnings.warn(
            f"{source.path.name} is not the map that {path.name} was drawn from. Its classes are looked up anew; the "
            "strata are the old map's, which makes the intervals wider, not wrong.",
            ReferenceWarning,
            stacklevel=2,
        )
        mapped = source.codes_at(np.array(design.rows), np.array(design.cols)).astype(np.int64)
    # a sample of a map of classes has no transitions: those of the map of change alone count
    legend = replace(design, classes=()) if changed and dates is not None else design
    known = [item.name for item in (source.classes if changed else legend.classes)]
    names = with_words(_spellings(legend, source, changed=changed), known, {} if dates else source.words)
    read = read_interpreted(path, asked, design, source, names)
    if dates is None:  # of change, the classes of each date were looked at
        refuse_foreign([(value,) for value in read.value], known, path.name, field)
    classes = _classes(legend, source, read, names, changed=changed)
    sample = _sample(design, read, mapped, classes)
    result = _result(design, sample, classes, _mapped_ha(design, source, changed=changed))
    result |= {"map_changed": changed, "units": len(design.codes), "interpreted": len(read.value), "file": path.name}
    if dates is not None:
        result |= dates.figures(path, layer, read.place, sample, result, placed=drawn is None)
    if second is not None:
        theirs = Asked(field, layer, exported=read_design(second) is None, dates=dates)
        result["second"] = _second(sample, read, read_interpreted(second, theirs, design, source, names))
    return result


def _design(path: Path, second: Path | None, drawn: Path | None) -> Design | None:
    """How the sample was drawn; None where the file is no sample."""
    design = read_design(drawn or path)
    if design is None and second is None and drawn is None:
        return None
    if design is None:
        idle = "--second" if drawn is None else "--sample"
        raise UsageError(
            f"{drawn or path} is not a sample of wetmap sample, which {idle} needs.",
            do=f"Leave {idle} out, or name the file that wetmap sample wrote.",
        )
    if second is not None and second.resolve() == path.resolve():
        raise UsageError(f"--second is {path.name} itself.", do="Give the copy that somebody else filled.")
    for other in filter(None, (path, second)):
        own = read_design(other)
        foreign = drawn is None if own is None else _units_of(own) != _units_of(design)
        if foreign:
            raise AssessmentError(
                f"{other.name} is not the same sample as {(drawn or path).name}.",
                do="Give copies of one sample; of an exported copy, name the sample itself too: --sample sample.gpkg.",
            )
    return design


def _units_of(design: Design) -> tuple[object, ...]:
    return design.map_sha256, design.rows, design.cols


def _mapped_ha(design: Design, source: ClassMap, *, changed: bool) -> dict[int, float]:
    """True hectares of each class of the map, by code."""
    if not changed:
        return {row.code: row.hectares for row in design.strata}
    parts: dict[int, list[float]] = {}
    for block, codes in source.strips():
        area = source.grid.pixel_area_m2(block) / 1e4
        for code in np.unique(codes).tolist():
            parts.setdefault(code, []).append(math.fsum(area[codes == code].tolist()))
    return {code: math.fsum(values) for code, values in parts.items()}


def _spellings(design: Design, source: ClassMap, *, changed: bool) -> dict[str, str]:
    """What may stand for a class: the form's names and codes are the sample's, and other names those of the map."""
    drawn = [(item.code, item.name) for item in design.classes]
    own = dict(drawn)
    also = {item.name: item.name if changed else own.get(item.code, item.name) for item in source.classes}
    return spellings(drawn, also)


def _classes(
    design: Design, source: ClassMap, read: Interpreted, names: Mapping[str, str], *, changed: bool
) -> _Classes:
    """The classes of the error matrix. A code is a class of the map that is assessed; a name is a class of all."""
    legend = source.classes if changed else design.classes
    codes = {item.name: item.code for item in sorted(legend, key=lambda one: one.code)}
    transitions = any(ARROW in name for name in codes)  # a -> b looks like b -> a and is no spelling mistake
    unknown = warn_of_unknown(read.value, list(codes), (read.place + 1).tolist(), suggest=not transitions)
    # a class of the sampled map that stands for one of this map is no class of its own
    gone = [item.name for item in design.classes if item.name not in codes and names[item.name] == item.name]
    return _Classes((*codes, *gone, *(name for name in unknown if name not in gone)), codes)


def _sample(design: Design, read: Interpreted, mapped: Ints, classes: _Classes) -> Sample:
    by_name = {name: number for number, name in enumerate(classes.names)}
    strata = {row.code: number for number, row in enumerate(design.strata)}
    stratum = np.array([strata[design.codes[place]] for place in read.place], dtype=np.int64)
    lost = int((mapped[read.place] == NO_CLASS).sum())
    if lost:
        raise AssessmentError(
            f"{lost} interpreted units lie where the map has no class.",
            do="Assess the map that the sample was drawn from.",
        )
    total_px = sum(row.pixels for row in design.strata)
    total_ha = sum(row.hectares for row in design.strata)
    sizes = np.array([row.hectares / total_ha * total_px for row in design.strata])  # weights by true area
    counts = np.bincount(stratum, minlength=sizes.size)
    sizes *= max(1.0, float((counts / sizes).max()))  # where all pixels were drawn, as many as were drawn
    thin = (counts < 2) & (counts < np.array([row.pixels for row in design.strata]))
    poststratified = design.kind != "stratified"
    if len(stratum) < 2:
        raise AssessmentError(
            "Only one unit is interpreted, and a variance needs at least two.", do="Interpret more of the sample."
        )
    if poststratified and (counts < 2).any():
        warnings.warn(
            "A class of the map has fewer than two interpreted units, so the classes are not used as strata: the "
            "intervals are wider than they need be, and say little of rare classes. A stratified sample gives every "
            "class its share.",
            ReferenceWarning,
            stacklevel=3,
        )
        stratum, sizes, poststratified = np.zeros_like(stratum), np.array([float(total_px)]), False
    elif thin.any():
        names_of = {item.code: item.name for item in design.classes}
        named = ", ".join(
            f"{names_of.get(row.code, row.code)} ({count})"
            for row, count, few in zip(design.strata, counts, thin, strict=True)
            if few
        )
        raise AssessmentError(
            f"A variance needs at least two interpreted units of every class that was sampled; too few: {named}.",
            do="Interpret more of them, or draw another sample with --least.",
        )
    rows = classes.row_of_code()
    return Sample(
        stratum=stratum,
        mapped=np.array([rows[int(code)] for code in mapped[read.place]], dtype=np.int64),
        reference=np.array([by_name[value] for value in read.value], dtype=np.int64),
        sizes=sizes,
        classes=len(classes.names),
        poststratified=poststratified,
    )


def _result(design: Design, sample: Sample, classes: _Classes, mapped_ha: dict[int, float]) -> dict[str, Any]:
    found = estimate(sample)
    made = intervals(sample, found)
    total_ha = sum(row.hectares for row in design.strata)
    split = disagreement(found.matrix)
    rows = []
    for k, name in enumerate(classes.names):
        code = classes.codes.get(name)
        mapped = 0.0 if code is None else mapped_ha.get(code, 0.0)
        unsampled = mapped > 0 and not (sample.mapped == k).any()
        rows.append(
            {
                "code": code,
                "class": name,
                "sampled": int((sample.mapped == k).sum()),
                "seen": int((sample.reference == k).sum()),
                "mapped_ha": mapped,
                "hectares": _scaled(found.area[k], made.area[k], total_ha),
                "users": _scaled(found.users[k], made.users[k], 1.0),
                "producers": None if unsampled else _producers(found.producers[k], made.producers[k], mapped, total_ha),
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


def _producers(one: Estimate, interval: Interval, mapped_ha: float, total_ha: float) -> dict[str, Any] | None:
    """Producer's accuracy; of a class that the map has nowhere, or everywhere, it is certain and has no interval."""
    told = _scaled(one, interval, 1.0)
    if told is None or 0 < mapped_ha < total_ha * (1 - 1e-9):
        return told
    nowhere = mapped_ha == 0
    why = "the map has no such class" if nowhere else "the map has no other class"
    value = 0.0 if nowhere else 1.0
    return {"value": value, "se": None, "low": None, "high": None, "method": "definition", "why": why}


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


def _second(sample: Sample, read: Interpreted, other: Interpreted) -> dict[str, Any]:
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
