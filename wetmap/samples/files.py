"""The files of a reference: which there are, what is said where one is missing, and their names without folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wetmap.errors import UsageError
from wetmap.recipe import Reference
from wetmap.recipe_file import plain


def need_files(reference: Reference) -> None:
    """Refuse a reference whose files are not all there, and say where they are to be had.

    Raises:
        UsageError: Some are missing; all of them are named.
    """
    lacking = [(key, path, how_to_get(obtain)) for key, path, obtain in _files(reference) if not path.exists()]
    if not lacking:
        return
    told = "; ".join(f"{key} names {path}, which does not exist" for key, path, _ in lacking)
    usual = "Give its path with --reference, or under that key of the recipe."
    raise UsageError(f"{told}.", do=" ".join(dict.fromkeys(obtain or usual for _, _, obtain in lacking)))


def missing(reference: Reference) -> list[str]:
    """What is missing and how to get it, a sentence or two for each file; empty where one does not say where from."""
    lacking = [(key, path, how_to_get(obtain)) for key, path, obtain in _files(reference) if not path.exists()]
    if not all(obtain for _, _, obtain in lacking):
        return []
    return [f"{path} ({key}) is missing. {obtain}" for key, path, obtain in lacking]


def how_to_get(obtain: str | None) -> str:
    """The recipe's own words on where a file is to be had, as one line; empty where there are none."""
    return " ".join((obtain or "").split())


def named(reference: Reference) -> dict[str, Any]:
    """What is asked of a reference, as plain data: files by name alone, and not where they are to be had."""
    asked = {key: value for key, value in plain(reference).items() if key not in {"obtain", "also"}}
    asked["path"] = reference.path.name
    if reference.also:
        asked["also"] = [
            {**{key: value for key, value in plain(more).items() if key != "obtain"}, "path": more.path.name}
            for more in reference.also
        ]
    return asked


def without_folders(reference: Reference) -> Reference:
    """The same with files by name alone, to be shown elsewhere."""
    also = [more.model_copy(update={"path": Path(more.path.name)}) for more in reference.also]
    return reference.model_copy(update={"path": Path(reference.path.name), "also": also})


def _files(reference: Reference) -> list[tuple[str, Path, str | None]]:
    more = [(f"reference.also.{place}.path", one.path, one.obtain) for place, one in enumerate(reference.also)]
    return [("reference.path", reference.path, reference.obtain), *more]
