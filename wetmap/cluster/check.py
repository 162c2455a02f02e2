"""Whether a worker is like the process that leads: the same versions, and the same folder at the same path.

A worker on another machine may have another wetmap, another PyTorch that rounds otherwise, or not the shared disk.
What differs is named before any block is worked on: the leading process asks the workers that come, and a worker that
joins in between looks by itself before its first task.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from wetmap.errors import ClusterError, WorkspaceError

#: What must be the same everywhere: what computes, what reads and writes, and what carries the messages.
PACKAGES = ("wetmap", "torch", "numpy", "zarr", "rasterio", "dask", "distributed")
#: Seconds that a file written elsewhere is waited for: network file systems remember for a while what a folder holds.
SEEN_WITHIN_S = 10.0
#: Age, seconds, from which what a run on another machine has left is cleared away.
OLD_S = 86400.0
#: Folder of a run, and the file in it.
_PREFIX, TOKEN = "run-", "seen-by-workers"

_accepted: set[str] = set()
_looking = threading.Lock()


@dataclass(frozen=True)
class Greeting:
    """What a worker is told to compare itself with."""

    python: str
    """Version of Python, such as ``3.11.2``."""
    versions: tuple[tuple[str, str], ...]
    """Packages and their versions."""
    token: Path | None
    """A file in the workspace; None where nobody need see it."""
    word: str
    """What it holds; new for every run."""


@dataclass(frozen=True)
class Answer:
    """What a worker found."""

    host: str
    """Name of its machine."""
    executable: str
    """Its Python."""
    python: str
    """Version of that."""
    versions: tuple[tuple[str, str], ...]
    """Packages and their versions; ``not installed`` for what is missing."""
    trouble: str | None
    """What is wrong with the folder, as a clause; None where nothing is."""


@contextlib.contextmanager
def greeting(folder: Path) -> Iterator[Greeting]:
    """Make a folder for this run in a folder of the workspace, and write a token into it; both go with the block.

    Only the user may read it: the keys of jobs are kept there too.

    Raises:
        WorkspaceError: The folder cannot be written.
    """
    word = secrets.token_hex(16)
    own = folder.absolute() / f"{_PREFIX}{platform.node()}-{os.getpid()}-{word[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_away(folder)
        own.mkdir(mode=0o700)
        (own / TOKEN).write_text(word, encoding="ascii")
    except OSError as error:
        raise WorkspaceError(
            f"{folder} cannot be written ({error.strerror}).", do="Give a --workspace that you may write to."
        ) from error
    try:
        yield Greeting(platform.python_version(), versions(), own / TOKEN, word)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _clear_away(folder: Path) -> None:
    """Delete what runs that were killed have left: on this machine at once, of others after a day."""
    for old in folder.glob(f"{_PREFIX}*-*-*"):
        host, pid, _ = old.name.removeprefix(_PREFIX).rsplit("-", 2)
        with contextlib.suppress(OSError):
            gone = host == platform.node() and pid.isdecimal() and not psutil.pid_exists(int(pid))
            if gone or time.time() - old.stat().st_mtime > OLD_S:
                shutil.rmtree(old, ignore_errors=True)


@functools.cache
def versions() -> tuple[tuple[str, str], ...]:
    """The packages of this process."""
    return tuple((name, _version(name)) for name in PACKAGES)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def answer(told: Greeting) -> Answer:
    """What this process has, and whether it sees the token and can write beside it; runs in a worker."""
    import sys

    return Answer(platform.node(), sys.executable, platform.python_version(), versions(), _trouble(told))


def _trouble(told: Greeting) -> str | None:
    token = told.token
    if token is None:
        return None
    found = _read_patiently(token)
    if isinstance(found, OSError):
        return f"does not see {token} ({found.strerror})"
    if found != told.word.encode():
        return f"sees another file at {token}: its folder is a copy, not the shared one"
    beside = token.with_name(f"{token.name}-{platform.node()}-{os.getpid()}")
    try:
        beside.write_text(told.word, encoding="ascii")
        beside.unlink()
    except OSError as error:
        return f"cannot write to {token.parent} ({error.strerror})"
    return None


def _read_patiently(token: Path) -> bytes | OSError:
    until = time.monotonic() + SEEN_WITHIN_S
    while True:
        try:
            return token.read_bytes()
        except OSError as error:
            if time.monotonic() > until:
                return error
            with contextlib.suppress(OSError):
                next(token.parent.iterdir(), None)  # makes a network file system look again
            time.sleep(0.2)


def differences(told: Greeting, found: Answer) -> str | None:
    """What sets a worker apart, as the rest of a sentence that begins with its name; None where nothing does.

    Patch releases of Python may differ (3.11.2 and 3.11.9); packages may not.

    Args:
        told: The leading process's.
        found: The worker's.
    """
    parts = []
    if told.python.split(".")[:2] != found.python.split(".")[:2]:
        parts.append(f"runs Python {found.python}, and this process {told.python}")
    theirs = dict(found.versions)
    parts += [
        f"has {name} {theirs.get(name, 'not installed')}, and this process {own}"
        for name, own in told.versions
        if theirs.get(name, "not installed") != own
    ]
    if found.trouble:
        parts.append(found.trouble)
    return "; it ".join(parts) or None


def refusal(who: str, executable: str, what: str) -> ClusterError:
    """The error about a worker that differs."""
    return ClusterError(
        f"The worker on {who} ({executable}) {what}.",
        do="Give all machines the same environment, and a workspace on a disk that all of them see at the same path "
        "(cluster.job.python, cluster.job.prologue, --workspace).",
    )


def look_once(told: Greeting) -> None:
    """Compare this worker process with the one that leads, before its first task.

    Raises:
        ClusterError: Something differs.
    """
    if told.word in _accepted:
        return
    with _looking:
        if told.word in _accepted:
            return
        found = answer(told)
        apart = differences(told, found)
        if apart is not None:
            raise refusal(found.host, found.executable, apart)
        _accepted.add(told.word)
