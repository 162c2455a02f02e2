"""Reading and writing recipes as YAML: defaults, file, flags, in that order of precedence."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from wetmap.errors import RecipeError
from wetmap.recipe import Recipe
from wetmap.recipe_sources import CATALOGS
from wetmap.yaml_text import read_yaml

#: Where paths stand in a recipe; relative ones start at the recipe's own folder.
PATHS = (
    ("aoi",),
    ("grid", "align"),
    ("workspace",),
    ("reference", "path"),
    ("training", "start"),
    ("predict", "bundle"),
    ("cluster", "job", "logs"),
)


#: Flags that are not called as the last part of what they set.
FLAGS = {
    "cluster.job.memory": "--mem",
    "cluster.job.queue": "--partition",
    "cluster.job.walltime": "--time",
    "cluster.kind": "--cluster",
    "compare.window_px": "--window",
    "model.name": "--model",
    "reference.path": "--reference",
}
#: Longest message about a recipe, and longest value that it quotes, characters.
LONGEST_MESSAGE, LONGEST_VALUE = 1500, 300
#: What pydantic puts into the place of an error in a union: not keys of the recipe.
BRANCH = re.compile(r"bool|float|int|str|[A-Z]\w*|literal\[.*|list\[.*|constrained-.*|function-.*|nullable.*")
#: Kinds of problem that say only that the value should be of another kind, and that kind in words.
KINDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "keys and values",
    "model_type": "keys and values",
    "string_type": "a text",
}


def load_recipe(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file; None for the defaults.
        overrides: Dotted names to values, from the command line: ``{"grid.crs": "EPSG:2953"}``.

    Returns:
        The recipe, every path absolute.

    Raises:
        RecipeError: The file is missing, not YAML, or says something that a recipe cannot say.
    """
    data = {} if path is None else _read(path)
    _make_absolute(data, Path.cwd() if path is None else path.resolve().parent)
    for name, value in (overrides or {}).items():
        _set(data, name, str(value) if isinstance(value, Path) else value)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        culprit = _culprit(error, overrides or {}, data) or ("The recipe" if path is None else path)
        raise RecipeError(
            f"{culprit}: {_explain(error, data)}.",
            do="See `wetmap recipe schema` for every key with its unit and default.",
        ) from error


def _culprit(error: ValidationError, overrides: Mapping[str, Any], data: Any) -> str:
    """The flags that said what is refused first; empty where it was the file."""
    first = _problems(error)[0]
    where = _where(first, data)
    together = first["type"] == "value_error"  # of a whole part: what is in it does not fit together
    flags = [
        FLAGS.get(name, f"--{name.rpartition('.')[2].replace('_', '-')}")
        for name, value in overrides.items()
        if value is not None
        if where == name or where.startswith(f"{name}.") or (together and name.startswith(f"{where}."))
    ]
    return " and ".join(flags)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML that ``load_recipe`` reads back equal."""
    return yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, width=110)


def plain(part: BaseModel) -> dict[str, Any]:
    """A part of the recipe as plain JSON data."""
    return part.model_dump(mode="json", by_alias=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(
            f"The recipe {path} does not exist.", do="`wetmap recipe init` writes one to start from."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} cannot be read ({error}).", do="Give a YAML text file.") from error
    except yaml.YAMLError as error:
        where = _cut(" ".join(str(error).split()), LONGEST_MESSAGE)
        raise RecipeError(f"The recipe {path} is not YAML ({where}).", do="Mend that line.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise RecipeError(
            f"The recipe {path} is a {type(data).__name__}, not keys and values.", do="See `wetmap recipe init`."
        )
    return data


def _make_absolute(data: dict[str, Any], base: Path) -> None:
    for names in PATHS:
        _absolute_at(data, names, base)
    after = data.get("postprocess")
    masks = after.get("masks") if isinstance(after, dict) else None
    for mask in masks if isinstance(masks, list) else ():
        _absolute_at(mask, ("path",), base)
    reference = data.get("reference")
    also = reference.get("also") if isinstance(reference, dict) else None
    for more in also if isinstance(also, list) else ():
        _absolute_at(more, ("path",), base)
    sources = data.get("sources")
    for source in sources.values() if isinstance(sources, dict) else ():
        if not isinstance(source, dict):
            continue
        files = source.get("files")
        for file in files if isinstance(files, list) else ():
            _absolute_at(file, ("path",), base)
        _absolute_at(source, ("credentials",), base)
        _absolute_at(source, ("folder",), base)
        catalog = source.get("catalog")
        if isinstance(catalog, str) and _is_path(catalog, base):
            source["catalog"] = _joined(base, catalog)


def _is_path(catalog: str, base: Path) -> bool:
    """Whether a catalogue is a path: neither a URL, nor an archive known by name, nor a name that no file has."""
    if "://" in catalog or catalog in CATALOGS:
        return False
    try:
        return catalog.endswith(".json") or (base / catalog).exists()
    except OSError:  # longer than any path
        return False


def _absolute_at(data: Any, names: tuple[str, ...], base: Path) -> None:
    for name in names[:-1]:
        data = data.get(name) if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(data.get(names[-1]), str):
        data[names[-1]] = _joined(base, data[names[-1]])


def _joined(base: Path, path: str) -> str:
    """``path`` from ``base``, without ``..`` in the middle: it is printed and kept."""
    return os.path.normpath(base / path)


def _set(data: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        inner = data.get(name)
        if not isinstance(inner, dict):
            inner = data[name] = {}
        data = inner
    data[last] = value


def _explain(error: ValidationError, data: Any) -> str:
    """The first problem in one line: where, what, and the value."""
    problems = _problems(error)
    first = problems[0]
    where = _where(first, data)
    if first["type"] == "extra_forbidden":
        text = f"{where} is not a key of the recipe (value {_shown(first['input'])}){_meant(str(first['loc'][-1]))}"
    elif first["type"] == "value_error":
        text = f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    elif first["type"] == "missing":
        text = f"{where} is missing"
    elif first["type"] == "union_tag_not_found":
        text = f"{where} does not say `from:`, the kind of source"
    elif first["type"] == "invalid_key":
        text = f"{first['input']} is not a text, and every key of the recipe is one"
    else:
        text = f"{where} is {_shown(first['input'])}: {_wanted(first, problems, data)}"
    text = _cut(text.replace("\n", " "), LONGEST_MESSAGE)
    more = len({_where(problem, data) for problem in problems}) - 1
    return f"{text} (and {more} more)" if more else text


def _shown(value: Any) -> str:
    """A value as it is quoted in a message."""
    return _cut(repr(value), LONGEST_VALUE)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} ..."


def _wanted(first: Any, problems: list[Any], data: Any) -> str:
    """What should stand there; where several things may, all of them."""
    where = _where(first, data)
    kinds = [KINDS.get(problem["type"], "") for problem in problems if _where(problem, data) == where]
    words = [
        problem["ctx"]["expected"]
        for problem in problems
        if problem["type"] == "literal_error" and _where(problem, data) == where
    ]
    found = [*dict.fromkeys(kind for kind in kinds if kind), *words]
    if first["type"] not in KINDS and len(found) < 2:
        return f"{first['msg'][0].lower()}{first['msg'][1:]}"
    text = f"it should be {' or '.join(found)}"
    alone = isinstance(first["input"], str | int | float)
    return f"{text}, [{_cut(str(first['input']), LONGEST_VALUE)}]" if found == ["a list"] and alone else text


def _where(problem: Any, data: Any) -> str:
    """The key of the recipe that a problem is about, dotted: its place, without the branches of unions in it."""
    kept: list[str] = []
    here, tagged = data, False
    for part in problem["loc"]:
        if isinstance(here, dict) and not tagged and part == here.get("from", here.get("kind")):
            tagged = True  # the kind of a source, which may be called as a key of it
        elif isinstance(here, dict) and part in here:
            kept, here, tagged = [*kept, str(part)], here[part], False
        elif isinstance(here, list) and isinstance(part, int):
            kept, here, tagged = [*kept, str(part)], here[part] if part < len(here) else None, False
        elif not BRANCH.fullmatch(str(part)):
            kept.append(str(part))  # a key that is missing
    return ".".join(kept)


def _problems(error: ValidationError) -> list[Any]:
    """What is wrong, without what only says that a mapping is no word; keys that are not known come first."""
    found = error.errors(include_url=False)
    apt = [row for row in found if not (row["type"] == "string_type" and isinstance(row["input"], dict))]
    return sorted(apt or found, key=lambda row: row["type"] != "extra_forbidden") if apt != found else list(found)


def _meant(key: str) -> str:
    """The key of the recipe, of any of its parts, that is spelt most like this one."""
    near = difflib.get_close_matches(key[:LONGEST_VALUE], _keys(), 1)
    return f"; did you mean {near[0]}?" if near else ""


@functools.cache
def _keys() -> list[str]:
    """Every key of every part of the recipe, sorted."""
    schema = Recipe.model_json_schema()
    parts = (schema, *schema["$defs"].values())
    return sorted({name for part in parts for name in part.get("properties", ())})
