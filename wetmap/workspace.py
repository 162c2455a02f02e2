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
import string
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from wetmap.errors import LockedError, NoLocksWarning, WorkspaceError

if sys.platform != "win32":
    import fcntl

#: Characters of the key in folder names: 48 bits, far beyond the number of recipes a person tries in one workspace.
KEY_LENGTH = 12
#: The shard that is the whole stage.
WHOLE = "0of1"
#: The recipe of work that was begun.
NOTED = Path("stages", "recipe.yaml")
#: What stages before this one are called where their work changed.
MADE_BEFORE = {
    "simulate": "the simulated archive",
    "plan": "the plan",
    "fetch": "the cube",
    "cubes": "the samples",
    "train": "the model",
    "model": "the model",
    "predict": "the map's blocks",
    "mosaic": "the map",
    "assessment": "the assessment",
    "comparison": "the comparison",
}
#: Entries of a list that are named when they came or went, reasons that are given for a stage, and their length.
LISTED_CHANGES, LISTED_REASONS, REASON_LENGTH = 4, 3, 110
#: Seconds that a lock is waited for: somebody may be looking for a moment who holds it.
LOCK_WAIT_S = 0.3
#: What the system says where a file system has no locks, as some of clusters have none.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


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
    def lock(self, stage: str, shard: str = WHOLE) -> Iterator[None]:
        """Hold a stage and shard for this process; the system lets go of it when the process ends, however it ends.

        Shards of a stage work beside each other, and none beside the whole stage. Locks hold on one machine and may not
        hold between machines: there each shard owns its files, and a block that two make comes out the same.

        Raises:
            LockedError: Another process holds it.
        """
        folder = self.root / "locks"
        folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(_exclusive(self._lock_file(stage, shard)))
                if shard != WHOLE:
                    held.enter_context(_shared(self._lock_file(stage, WHOLE)))
            except filelock.Timeout as error:
                part = "" if shard == WHOLE else f", on its shard {shard.replace('of', '/')} or on all of it"
                raise LockedError(
                    f"Another wetmap works on {stage} in {self.root}{part}.",
                    do="Wait for it, stop it, or give this run a workspace of its own with --workspace.",
                ) from error
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                warnings.warn(
                    f"The file system of {self.root} has no locks ({error.strerror}): nothing stops a second wetmap "
                    f"from doing the same work ({stage}, shard {shard}).",
                    NoLocksWarning,
                    stacklevel=3,
                )
            yield

    def locked(self, stage: str, shard: str = WHOLE) -> bool:
        """Whether a process of this machine (or of any, where the file system's locks reach so far) holds it now."""
        path = self._lock_file(stage, shard)
        try:
            with _shared(path, create=False):
                return False
        except filelock.Timeout:
            return True
        except OSError:  # not there, not readable, or no locks
            return False

    def _lock_file(self, stage: str, shard: str) -> Path:
        return self.root / "locks" / f"{stage}-{shard}.lock"

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


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    lock = filelock.FileLock(path, timeout=LOCK_WAIT_S, fallback_to_soft=False)
    lock.acquire(poll_interval=0.02)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _shared(path: Path, *, create: bool = True) -> Iterator[None]:
    """Hold a lock together with others who hold it so; nobody has it alone meanwhile.

    Raises:
        filelock.Timeout: Somebody has it alone.
        OSError: The file is not there (without ``create``), or the file system has no locks.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise filelock.Timeout(str(path)) from error
        yield
    finally:
        os.close(handle)


def key_of(asked: Mapping[str, Any]) -> str:
    """Key of a request: SHA-256 of its canonical JSON, shortened."""
    return hashlib.sha256(_canonical(asked).encode()).hexdigest()[:KEY_LENGTH]


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What changed between two requests, one line per value, as ``seasons.0.start: 2021-06-01 -> 2021-06-15``.

    Hashes say nothing to people: a stage is named by its work, anything else by its key.
    """
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
        if len(words) > LISTED_CHANGES:
            words = [f"{len(gone)} gone, {len(added)} new"]
        yield f"{path}: {', '.join(words) or f'{len(before)} -> {len(after)} entries'}"
    elif before != after and (_is_hash(before) or _is_hash(after)):
        yield MADE_BEFORE.get(path, f"{path} (changed)")
    elif before != after:
        old, new = _short(before), _short(after)
        yield f"{path} (changed)" if old == new or "..." in old + new else f"{path}: {old} -> {new}"


def because(changes: Sequence[str]) -> str:
    """What changed in few words: as many changes as fit into a line, and how many more there are."""
    out: list[str] = []
    for change in changes:
        if out and (len(out) == LISTED_REASONS or len("; ".join([*out, change])) > REASON_LENGTH):
            break
        out.append(change if len(change) <= REASON_LENGTH else f"{change[: REASON_LENGTH - 3]}...")
    more = len(changes) - len(out)
    return "; ".join(out) + (f"; and {more} more" if more else "")


def _is_hash(value: Any) -> bool:
    """Whether a value is a key or a checksum, with or without what the work lacks behind it."""
    first = value.partition(" ")[0] if isinstance(value, str) else ""
    return len(first) in (KEY_LENGTH, 40, 64) and all(letter in string.hexdigits for letter in first)


def _short(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        value = value["name"]  # of a class, a season: the rest of it is long
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
    """Write JSON atomically, keys sorted. Halves of characters (of a name that is not UTF-8) become question marks."""
    text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", errors="replace"))


def spreadsheet_cell(text: str) -> str:
    """A cell of a table: a name that a spreadsheet would take for a formula is made text by an apostrophe before it.

    Numbers stay numbers, with their sign. What a spreadsheet takes for a formula begins with ``= + - @``, a tab or a
    carriage return (OWASP, "CSV Injection").
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


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


def sweep(folder: Path) -> None:
    """Remove what writers of arrays left that were killed in the middle of a chunk; nobody may be writing there now."""
    for leftover in folder.rglob("*.partial"):  # zarr's name for a chunk until it is whole
        leftover.unlink(missing_ok=True)


def disk_full(path: Path) -> WorkspaceError:
    """The error for a full disk."""
    folder = path if path.is_dir() else path.parent
    free = shutil.disk_usage(folder).free / 1e6 if folder.exists() else 0.0
    return WorkspaceError(
        f"The disk is full: {path} could not be written ({free:.1f} MB free).",
        do="Free some space and run the same command again; what is finished stays.",
    )
