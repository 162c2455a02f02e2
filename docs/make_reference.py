"""Write the two reference pages from what they are about: the recipe's schema, and the commands.

    .venv/bin/python docs/make_reference.py

``docs/reference/recipe.md`` and ``docs/reference/cli.md`` are never edited by hand: the texts in them are the
descriptions of the fields (``wetmap/recipe.py`` and its neighbours) and the help of the options (``wetmap/cli/``). A
test fails where the pages are not what this script writes. The same code gives the same bytes.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from typer.main import get_command

from wetmap import errors
from wetmap.cli import main
from wetmap.recipe import Recipe
from wetmap.recipe_file import plain

FOLDER = Path(__file__).resolve().parent / "reference"
COMMAND = ".venv/bin/python docs/make_reference.py"

#: Types of JSON schema, and of options, in words.
WORDS = {
    "string": "text",
    "str": "text",
    "integer": "whole number",
    "int": "whole number",
    "number": "number",
    "float": "number",
    "boolean": "true or false",
    "object": "keys and values",
    "path": "path",
    "Path": "path",
    "PosixPath": "path",
    "date": "date, YYYY-MM-DD",
}

#: What a recipe with each kind of source looks like; ``tests/test_docs.py`` loads every one.
EXAMPLES = {
    "stac": """\
sources:
  optical: {from: stac, catalog: earth-search}
  radar: {from: stac, catalog: planetary-computer}
""",
    "earth-engine": """\
sources:
  optical: {from: earth-engine, project: my-project, cloud_mask: both}
""",
    "simulated": """\
sources:
  optical: {from: simulated}
  radar: {from: simulated}
  terrain: {from: simulated}
reference: simulated
""",
    "rasters": """\
sources:
  optical:
    from: rasters
    files:
      - {path: s2_july.tif, bands: [B02, B03, B04, B08], unit: reflectance, scale: 0.0001, offset: -0.1, nodata: 0}
features: {preset: custom, optical: [B02, B03, B04, B08]}
""",
    "files": """\
sources:
  optical: {from: files, folder: downloads}
  radar: {from: files, folder: downloads, stored: decibel}
""",
}

RECIPE_HEAD = f"""\
# Recipe: every key

<!-- Written by {COMMAND}. Change the fields' descriptions in the code, not this page. -->

Every key that a recipe may have, with its default. A recipe holds only what differs from these; an unknown key is
refused. [Write a recipe](../how-to/recipes.md) shows them at work; `wetmap recipe schema` prints the same as JSON, for
editors that complete and check YAML. Relative paths start at the recipe's own folder.
"""

CLI_HEAD = f"""\
# Commands

<!-- Written by {COMMAND}. Change the help texts in wetmap/cli/, not this page. -->

Every command with every option, as `--help` says it. A flag overrides the [recipe](recipe.md), which overrides the
defaults; a command without `--recipe` uses the workspace's own `recipe.yaml`, if there is one. How `--json`,
`--dry-run` and a restart work: [the workspace](workspace.md).
"""


# ---------------------------------------------------------------------------------------------------- the recipe


def recipe_page() -> str:
    """The page of the recipe, from the JSON schema of the model that reads it."""
    schema = Recipe.model_json_schema(by_alias=True)
    rows = [*_sections("", schema, schema["$defs"], set())]
    return "\n".join([RECIPE_HEAD, "## Top level", "", *rows]).rstrip() + "\n"


def _sections(path: str, part: Mapping[str, Any], defs: Mapping[str, Any], seen: set[str]) -> Iterator[str]:
    """Lines of one part of the recipe, and after it of the parts in it, each part once."""
    yield from _table(path, part, defs)
    for key, field in part["properties"].items():
        for name in _parts_in(field):
            if name not in seen:
                seen.add(name)
                inner = defs[name]
                yield from ["", f"## {_title(_path_of(path, key, name, defs))}", ""]
                yield from [inner["description"].split("\n\n")[0].replace("\n", " "), ""]
                yield from _example(inner)
                yield from _sections(_path_of(path, key, name, defs), inner, defs, seen)


def _example(part: Mapping[str, Any]) -> list[str]:
    """The example of a kind of source."""
    kind = _kind(part)
    return ["```yaml", *EXAMPLES[kind].splitlines(), "```", ""] if kind is not None else []


def _kind(part: Mapping[str, Any]) -> str | None:
    """What follows ``from:`` in a source; None for a part that is no source."""
    kind = part["properties"].get("from", {}).get("const")
    return str(kind) if kind is not None else None


def _path_of(path: str, key: str, name: str, defs: Mapping[str, Any]) -> str:
    """Where a part stands: ``postprocess.masks``; sources are called by their kind."""
    kind = _kind(defs[name])
    if kind is not None:
        return f"from {kind}"
    return f"{path}.{key}" if path else key


def _title(path: str) -> str:
    source, _, key = path.removeprefix("from ").partition(".")
    if not path.startswith("from "):
        return path
    return f"`{key}` of a source `from: {source}`" if key else f"A source: `from: {source}`"


def _anchor(path: str) -> str:
    """The anchor of a heading, as MkDocs and GitHub make it."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", _title(path).lower()).strip())


def _parts_in(field: Mapping[str, Any]) -> Iterator[str]:
    """Names of the parts that a field can hold, in order."""
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2]
    for inner in (*field.get("anyOf", ()), *field.get("oneOf", ()), *field.get("allOf", ())):
        yield from _parts_in(inner)
    if "items" in field:
        yield from _parts_in(field["items"])


def _table(path: str, part: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[str]:
    yield from ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    required = set(part.get("required", ()))
    for key, field in part["properties"].items():
        value = " or ".join(dict.fromkeys(_values(path, key, field, defs)))
        default = "required" if key in required else _default(path, key, field)
        yield f"| `{key}` | {_cell(value)} | {_cell(default)} | {_cell(field.get('description', ''))} |"


def _values(path: str, key: str, field: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[str]:
    """What may stand in a field, in words; bounds and choices included."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        where = _path_of(path, key, name, defs)
        words = f"`from: {_kind(defs[name])}`" if _kind(defs[name]) else f"`{key}` as below" if " " in where else where
        yield f"[{words}](#{_anchor(where)})"
    elif "anyOf" in field or "oneOf" in field:
        for inner in field.get("anyOf", field.get("oneOf")):
            yield from _values(path, key, inner, defs)
    elif "const" in field:
        yield f"`{field['const']}`"
    elif "enum" in field:
        yield from (f"`{choice}`" for choice in field["enum"])
    elif field.get("type") == "null":
        yield "`null`"
    elif field.get("type") == "array":
        yield _list(path, key, field, defs)
    else:
        yield _plain(field)


def _list(path: str, key: str, field: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if "prefixItems" in field:
        return f"list of {len(field['prefixItems'])} numbers"
    inner = " or ".join(dict.fromkeys(_values(path, key, field["items"], defs)))
    least = f", at least {field['minItems']}" if "minItems" in field else ""
    return f"list of {inner}{least}"


def _plain(field: Mapping[str, Any]) -> str:
    kind = str(field.get("format") or field.get("type") or "text")
    words = WORDS.get(kind, kind)
    bounds = _between(field.get("minimum"), field.get("maximum"))
    bounds += [f"above {_number(field['exclusiveMinimum'])}"] if "exclusiveMinimum" in field else []
    bounds += [f"below {_number(field['exclusiveMaximum'])}"] if "exclusiveMaximum" in field else []
    bounds += [f"at least {field['minLength']} character"] if field.get("minLength") else []
    bounds += [f"like `{field['pattern']}`"] if "pattern" in field else []
    return ", ".join([words, *bounds])


def _default(path: str, key: str, field: Mapping[str, Any]) -> str:
    """The value where a recipe says nothing."""
    value = field["default"] if "default" in field else _at(f"{path}.{key}".strip("."))
    if isinstance(value, dict) and value:
        return f"`{{from: {value['from']}}}`" if "from" in value else "as below"
    text = value if isinstance(value, str) else re.sub(r"\.0(?!\d)", "", json.dumps(value, ensure_ascii=False))
    return f"`{text}`"


def _at(path: str) -> Any:
    """What stands in a recipe that says nothing, at a dotted place."""
    value: Any = plain(Recipe())
    for key in path.split("."):
        value = value[key]
    return value


def _between(low: float | None, high: float | None) -> list[str]:
    """Bounds that are allowed themselves, in words."""
    if low is not None and high is not None:
        return [f"{_number(low)} to {_number(high)}"]
    return [f"at least {_number(low)}"] if low is not None else [f"at most {_number(high)}"] if high is not None else []


def _number(value: float) -> str:
    """A number without needless digits, and with commas where it is long."""
    return f"{value:,.15g}" if abs(value) >= 10_000 else f"{value:.15g}"


def _cell(text: str) -> str:
    """A text as a cell of a table."""
    return re.sub(r"<(?=\w)", "&lt;", " ".join(text.split()).replace("|", "\\|"))


# -------------------------------------------------------------------------------------------------- the commands


def cli_page() -> str:
    """The page of the commands, from the commands themselves."""
    return "\n".join([CLI_HEAD, *_commands("wetmap", get_command(main.app)), *_exit_codes()]).rstrip() + "\n"


def _commands(name: str, command: Any) -> Iterator[str]:
    """Lines of a command, and of the commands in it, in their order."""
    yield from [f"## {name}", "", " ".join((command.help or "").split()), ""]
    rows = [row for row in command.params if row.opts != ["--help"] and not getattr(row, "hidden", False)]
    if rows:
        yield from ["| argument or option | value | default | meaning |", "| --- | --- | --- | --- |"]
        for row in rows:
            meaning, default = _meaning(row)
            yield f"| {_option(row)} | {_cell(_value(row))} | {_cell(default)} | {_cell(meaning)} |"
        yield ""
    for word, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _commands(f"{name} {word}", inner)


def _option(row: Any) -> str:
    if row.param_type_name == "argument":
        return f"`{row.name.upper()}`"
    return ", ".join(f"`{word}`" for word in (*row.opts, *row.secondary_opts))


def _value(row: Any) -> str:
    if getattr(row, "is_flag", False):
        return ""
    kind = row.type_descriptor.annotation
    kinds = [part for part in get_args(kind) if part is not type(None)] if get_origin(kind) is UnionType else [kind]
    kind = kinds[0] if get_origin(kinds[0]) is not list else get_args(kinds[0])[0]
    words = " or ".join(f"`{word}`" for word in get_args(kind)) if get_origin(kind) is Literal else WORDS[kind.__name__]
    return ", ".join(
        [words, *_between(row.min, row.max), *(["may be repeated"] if getattr(row, "multiple", False) else [])]
    )


def _meaning(row: Any) -> tuple[str, str]:
    """The help of an option, and the default that it says or has."""
    said = re.search(r" ?\[default: (.+?)\]", row.help or "")
    meaning = (row.help or "").replace(said[0], "") if said else row.help or ""
    if row.required:
        return meaning, "required"
    if said or getattr(row, "is_flag", False) or row.default is None or callable(row.default):
        return meaning, said[1] if said else ""
    return meaning, f"`{row.default}`"


def _exit_codes() -> Iterator[str]:
    """Exit codes, and the kinds of error that ``--json`` names."""
    said = re.search(r"Exit codes: (.*?)\.", inspect.getdoc(main) or "", re.DOTALL)
    pairs = re.findall(r"(\d+) ([\w ]+)", " ".join(said[1].split()) if said else "")
    yield from ["## Exit codes", "", "| code | meaning |", "| --- | --- |"]
    yield from (f"| {code} | {words.strip()} |" for code, words in pairs)
    yield from ["", "With `--json` an error is one JSON object, whose `kind` is one of these:", ""]
    yield from ["| kind | exit code | meaning |", "| --- | --- | --- |"]
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.WetmapError) and kind is not errors.WetmapError
    ]
    for kind in kinds:
        meaning = (inspect.getdoc(kind) or "").split("\n\n")[0].removesuffix(": exit code 2.").rstrip(".")
        yield f"| `{kind.__name__}` | {kind.exit_code} | {_cell(meaning.replace('``', '`'))} |"


PAGES = {"recipe.md": recipe_page, "cli.md": cli_page}


if __name__ == "__main__":
    for file, page in PAGES.items():
        (FOLDER / file).write_text(page(), encoding="utf-8")
