"""Classes of a recipe for which the reference has no feature: they are refused before anything is fetched."""

from __future__ import annotations

import difflib
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wetmap.errors import ReferenceDataError
from wetmap.recipe import Background, ClassSpec, Reference
from wetmap.samples.class_table import value_key, value_text

#: Values that are named in a message, at most.
LISTED = 20


def refuse_unfound(
    specs: Sequence[ClassSpec],
    values: Iterable[object],
    background: Background | None,
    *,
    where: str,
    field: str | None = None,
) -> None:
    """Refuse classes that stand for values of which there is no feature: later they would have no sample.

    The class that background is drawn for needs no feature.

    Args:
        specs: The classes of the recipe; none: nothing to refuse.
        values: The class of every feature, repeated or not; None where empty.
        background: The background of the reference, if any.
        where: Where the features lie, for the message: ``in the area``.
        field: The class field.

    Raises:
        ReferenceDataError: A class has no feature; the nearest values are offered.
    """
    texts = Counter(value_text(value) for value in values if value is not None)
    by_key = {value_key(text): text for text in texts}
    drawn = None if background is None else value_key(background.name)
    lacking = [
        spec for spec in specs if value_key(spec.name) != drawn and not any(key in by_key for key in _keys_of(spec))
    ]
    if not lacking:
        return
    named = "; ".join(f"{spec.name} (reference: {', '.join(map(repr, _wanted(spec)))})" for spec in lacking)
    found = ", ".join(f"{text!r} ({count})" for text, count in sorted(texts.items())[:LISTED]) or "nothing"
    more = f" and {len(texts) - LISTED} more values" if len(texts) > LISTED else ""
    plural = "Classes" if len(lacking) > 1 else "Class"
    raise ReferenceDataError(
        f"{plural} without any reference feature {where}: {named}. {field or 'The class field'} holds {found}{more}.",
        do=f"{_guess(specs, lacking, by_key)}List the values as the field has them under `reference:` of the class, "
        "or take the class out.",
    )


def refuse_unknown_values(reference: Reference, classes: Sequence[ClassSpec]) -> None:
    """Refuse a class that stands for no value of the whole file, wherever its features lie: a slip of the pen.

    Only the class fields of vector files are read. A label raster, files that are not there and fields that are not
    named yet are left to those that read them.

    Raises:
        ReferenceDataError: As ``refuse_unfound``.
    """
    fields: list[tuple[Path, str | None, str | None, str | int | None]]
    fields = [(reference.path, reference.layer, reference.class_field, None)]
    fields += [(more.path, more.layer, more.class_field, more.value) for more in reference.also]
    values: list[Any] = []
    for path, layer, field, value in fields:
        found = [value] if value is not None else _values_of(path, layer, field)
        if found is None:
            return
        values += found
    if values:
        refuse_unfound(
            classes, values, reference.background, where="in the whole of its file", field=reference.class_field
        )


def _values_of(path: Path, layer: str | None, field: str | None) -> list[Any] | None:
    """The values of a field, without empty ones; None where they cannot be had here."""
    import pandas as pd
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError, FieldError

    if field is None:
        return None
    try:
        names = [str(row[0]) for row in pyogrio.list_layers(path)]
        if not names:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # whoever reads the geometry says what is wrong with it
            frame = pyogrio.read_dataframe(path, layer=layer or names[0], columns=[field], read_geometry=False)
    except (DataSourceError, DataLayerError, FieldError, UnicodeDecodeError, ValueError):
        return None  # the verb that trains says what is wrong
    if field not in frame:
        return None
    return [value for value in frame[field] if not pd.isna(value) and value_text(value)]


def _wanted(spec: ClassSpec) -> list[Any]:
    return list(spec.reference or [spec.name])


def _keys_of(spec: ClassSpec) -> list[str]:
    return [value_key(value) for value in _wanted(spec)]


def _guess(specs: Sequence[ClassSpec], lacking: Sequence[ClassSpec], by_key: dict[str, str]) -> str:
    """``Did you mean 'upland'? ``, of values that no class claims before others; empty where nothing is near."""
    claimed = {key for spec in specs for key in _keys_of(spec)}
    near: list[str] = []
    for spec in lacking:
        for key in [*_keys_of(spec), value_key(spec.name)]:
            free = difflib.get_close_matches(key, [one for one in by_key if one not in claimed], 1)
            near += [by_key[one] for one in free if by_key[one] not in near]
    return f"Did you mean {' and '.join(map(repr, near))}? " if near else ""
