"""From the classes of the recipe and the values of the reference to the class table of the map."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from dataclasses import replace

from wetmap.classes import MapClass, distinct_colours
from wetmap.errors import RecipeError, ReferenceDataError
from wetmap.recipe import Background, ClassSpec

#: Codes that a class can have: 0 is nodata in the map, 255 is unlabelled in label rasters.
CODES = range(1, 255)
#: A class whose name begins like this is dry land, also when nobody says so.
UPLAND_NAMES = ("upland", "background")


def value_text(value: object) -> str:
    """A reference value as text, trimmed; 3.0 is "3", because a raster of whole numbers may be stored as float."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value).is_integer():
        return str(int(float(value)))
    return str(value).strip()


def value_key(value: object) -> str:
    """What two values must share to be the same: their text without case, so that "Bog " is "bog" and 3.0 is 3."""
    return value_text(value).casefold()


def resolve_classes(specs: Sequence[ClassSpec], found_values: Iterable[object]) -> tuple[MapClass, ...]:
    """Decide the class table.

    Args:
        specs: The classes of the recipe. Without them every distinct value of the reference becomes a class.
        found_values: Values of the class field or of the label raster, in any order, repeated or not.

    Returns:
        The classes: in the recipe's order with codes from the recipe or the place in it, from 1; else in the order of
        the values, with whole numbers from 1 to 254 as their own codes and anything else numbered from 1.

    Raises:
        RecipeError: Two classes share a name, a code or a reference value.
        ReferenceDataError: There are no specs and no value, or more values than codes.
    """
    return _from_specs(specs) if specs else _from_values(found_values)


def codes_by_value(specs: Sequence[ClassSpec], classes: Sequence[MapClass]) -> dict[str, int]:
    """Which code each reference value (as its ``value_key``) gets.

    Args:
        specs: The classes of the recipe, or none.
        classes: What ``resolve_classes`` made of them.

    Raises:
        RecipeError: Two classes of the recipe claim the same value.
    """
    if not specs:
        return {value_key(row.name): row.code for row in classes}
    codes: dict[str, int] = {}
    owner: dict[str, str] = {}
    for spec, row in zip(specs, classes, strict=False):
        for value in spec.reference or [spec.name]:
            key = value_key(value)
            if owner.setdefault(key, spec.name) != spec.name:
                raise RecipeError(
                    f"classes: {owner[key]!r} and {spec.name!r} both claim the reference value {value!r}.",
                    do="Give each value to one class.",
                )
            codes[key] = row.code
    return codes


def with_background(classes: Sequence[MapClass], background: Background | None) -> tuple[MapClass, ...]:
    """Add the class of the background samples, or mark it as upland where it is there already.

    Raises:
        RecipeError: Every code is taken.
    """
    if background is None:
        return tuple(classes)
    key = value_key(background.name)
    if any(value_key(row.name) == key for row in classes):
        return tuple(replace(row, upland=True) if value_key(row.name) == key else row for row in classes)
    taken = {row.code for row in classes}
    free = next((code for code in range(max(taken, default=0) + 1, 255)), None)
    free = free if free is not None else next((code for code in CODES if code not in taken), None)
    if free is None:
        raise RecipeError(
            f"No code from 1 to 254 is left for the background class {background.name!r}.", do="Merge some classes."
        )
    colour = distinct_colours([*(row.name for row in classes), background.name])[-1]
    return (*classes, MapClass(free, background.name.strip(), colour, upland=True))


def class_of(classes: Sequence[MapClass], name: str) -> MapClass:
    """The class of that name, whatever its case.

    Raises:
        RecipeError: There is none.
    """
    for row in classes:
        if value_key(row.name) == value_key(name):
            return row
    raise RecipeError(
        f"There is no class {name!r} among {', '.join(row.name for row in classes)}.", do="Name one of these classes."
    )


def _from_specs(specs: Sequence[ClassSpec]) -> tuple[MapClass, ...]:
    names = [spec.name.strip() for spec in specs]
    codes = [spec.code if spec.code is not None else place for place, spec in enumerate(specs, start=1)]
    _refuse_twins("name", [name.casefold() for name in names], names)
    _refuse_twins("code", codes, names)
    if max(codes) > CODES[-1]:
        raise RecipeError(
            f"classes: the recipe lists {len(specs)} classes, and codes end at {CODES[-1]}.", do="Merge some classes."
        )
    colours = distinct_colours(names)
    return tuple(
        MapClass(code, name, spec.colour or colour, upland=spec.upland or _is_upland(name))
        for spec, name, code, colour in zip(specs, names, codes, colours, strict=True)
    )


def _refuse_twins(what: str, values: Sequence[object], names: Sequence[str]) -> None:
    first: dict[object, int] = {}
    for place, value in enumerate(values):
        if first.setdefault(value, place) != place:
            raise RecipeError(
                f"classes: number {first[value] + 1} ({names[first[value]]!r}) and number {place + 1} "
                f"({names[place]!r}) share the {what} {value!r}.",
                do=f"Give each class a {what} of its own.",
            )


def _from_values(found_values: Iterable[object]) -> tuple[MapClass, ...]:
    by_key: dict[str, str] = {}
    for text in sorted({value_text(value) for value in found_values}):
        by_key.setdefault(text.casefold(), text)
    names = [name for name in by_key.values() if name]
    if not names:
        raise ReferenceDataError(
            "The reference names no class: every value is empty.", do="Give another --class-field, or fill this one."
        )
    if len(names) > len(CODES):
        raise ReferenceDataError(
            f"The reference holds {len(names)} distinct values ({', '.join(names[:3])} ...), and a map has at most "
            f"{len(CODES)} classes.",
            do="Check that --class-field names the class and not an identifier, or list the classes in the recipe.",
        )
    whole = all(name.isascii() and name.isdigit() and int(name) in CODES for name in names)
    names.sort(key=(lambda name: (int(name), "")) if whole else (lambda name: (0, name.casefold())))
    colours = distinct_colours(names)
    return tuple(
        MapClass(int(name) if whole else place, name, colour, upland=_is_upland(name))
        for place, (name, colour) in enumerate(zip(names, colours, strict=True), start=1)
    )


def _is_upland(name: str) -> bool:
    return name.strip().casefold().startswith(UPLAND_NAMES)
