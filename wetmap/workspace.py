"""Where each stage's output lives; keys, atomic writes, manifests, locks.

A stage's work lives in ``stages/<stage>/<key>/``, where the key is a hash of what the stage was asked (its part of the
recipe) and of the keys of the stages before it. Continue means: same key. What was asked lies beside the work as
``asked.json``, so that a changed recipe can say which stages it makes new and why.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from wetmap.errors import LockedError, WorkspaceError

#: Characters of the key in folder names: 48 bits, far beyond the number of recipes a person tries in one workspace.
KEY_LENGTH = 12


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage's work under one key."""

    stage: str
    """Name of the stage."""
    key: str
    """Hash of what it was asked."""
    path: Path
    """``<workspace>/stages/<stage>/<key>``."""
    changes: tuple[str, ...] = ()
    """What differs from what this stage was asked last time; empty when it is the same or the first time."""

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest, which is written when the stage is complete; None before."""
        return read_json(self.path / "manifest.json")

    @property
    def complete(self) -> bool:
        """Whether the stage finished under this key."""
        return (self.path / "manifest.json").exists()


class Workspace:
    """One directory for everything about one area."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self) -> Workspace:
        """Make the directory if it is not there.

        Raises:
            WorkspaceError: It cannot be written.
        """
        try:
            (self.root / "stages").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                f"The workspace {self.root} cannot be written ({error.strerror}).",
                do="Give another folder with --workspace, or free its permissions.",
            ) from error
        if not os.access(self.root / "stages", os.W_OK):
            raise WorkspaceError(
                f"The workspace {self.root} is read-only.",
                do="Give another folder with --workspace, or free its permissions.",
            )
        return self

    def stage(self, name: str, asked: Mapping[str, Any]) -> StageFolder:
        """The folder for a stage that was asked ``asked`` (plain JSON data); nothing is written."""
        key = key_of(asked)
        before = self._asked_last(name)
        changes = tuple(differences(before, asked)) if before is not None else ()
        return StageFolder(name, key, self.root / "stages" / name / key, changes)

    def begin(self, folder: StageFolder, asked: Mapping[str, Any]) -> None:
        """Make the folder, note what was asked and that this is now the stage's current work."""
        folder.path.mkdir(parents=True, exist_ok=True)
        write_json(folder.path / "asked.json", asked)
        write_json(folder.path.parent / "current.json", {"key": folder.key})

    def current(self, name: str) -> StageFolder | None:
        """The folder that the stage worked on last, or None."""
        key = (read_json(self.root / "stages" / name / "current.json") or {}).get("key")
        return None if key is None else StageFolder(name, key, self.root / "stages" / name / key)

    def _asked_last(self, name: str) -> dict[str, Any] | None:
        current = self.current(name)
        return None if current is None else read_json(current.path / "asked.json")

    @contextlib.contextmanager
    def lock(self, stage: str, shard: str = "0of1") -> Iterator[None]:
        """Hold a stage and shard for this process; the system lets go of it when the process ends, however it ends.

        Raises:
            LockedError: Another process holds it.
        """
        folder = self.root / "locks"
        folder.mkdir(exist_ok=True)
        path = folder / f"{stage}-{shard}.lock"
        lock = filelock.FileLock(path, blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise LockedError(
                f"Another wetmap works on {stage} (shard {shard}) in {self.root}.",
                do="Wait for it, stop it, or give this run a workspace of its own with --workspace.",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def publish(self, name: str, files: Mapping[str, Path], manifest: Mapping[str, Any]) -> Path:
        """Replace the folder ``<workspace>/<name>`` by these files in one step, so that old and new never mix.

        Args:
            name: Folder name that users see (``map``, ``model``).
            files: Name in the folder to the file to link (or copy, where the file system has no hard links).
            manifest: Written as ``manifest.json``.

        Returns:
            The folder.
        """
        target, fresh, old = self.root / name, self.root / f".tmp-{name}", self.root / f".old-{name}"
        if read_json(target / "manifest.json") == manifest and all(
            (target / file).exists() and (target / file).stat().st_size == source.stat().st_size
            for file, source in files.items()
        ):
            return target
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir()
        for file, source in files.items():
            (fresh / file).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, fresh / file)
            except OSError:
                shutil.copy2(source, fresh / file)
        write_json(fresh / "manifest.json", manifest)
        if target.exists():
            target.replace(old)
        fresh.replace(target)
        shutil.rmtree(old, ignore_errors=True)
        return target


def key_of(asked: Mapping[str, Any]) -> str:
    """Key of a request: SHA-256 of its canonical JSON, shortened."""
    return hashlib.sha256(_canonical(asked).encode()).hexdigest()[:KEY_LENGTH]


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What changed between two requests, one line per value, as ``seasons.0.start: 2021-06-01 -> 2021-06-15``."""
    if isinstance(before, dict) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{path}.{number}")
    elif isinstance(before, list) and isinstance(after, list):
        gone = [value for value in before if value not in after]
        added = [value for value in after if value not in before]
        words = [f"without {_short(value)}" for value in gone] + [f"with {_short(value)}" for value in added]
        yield f"{path}: {', '.join(words) or f'{len(before)} -> {len(after)} entries'}"
    elif before != after:
        yield f"{path}: {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is no such file.

    Raises:
        WorkspaceError: The file is there and is not a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"{path} is damaged ({error}).", do="Delete it and run the same command again.") from error
    if not isinstance(data, dict):
        raise WorkspaceError(f"{path} is not a JSON object.", do="Delete it and run the same command again.")
    return data


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, keys sorted."""
    write_bytes(path, (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: a kill leaves the old one or the new one, never half of one.

    Raises:
        WorkspaceError: The disk is full.
    """
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise disk_full(path) from error
        raise


def disk_full(path: Path) -> WorkspaceError:
    """The error for a full disk."""
    folder = path if path.is_dir() else path.parent
    free = shutil.disk_usage(folder).free / 1e6 if folder.exists() else 0.0
    return WorkspaceError(
        f"The disk is full: {path} could not be written ({free:.1f} MB free).",
        do="Free some space and run the same command again; what is finished stays.",
    )
