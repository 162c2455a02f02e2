"""Which blocks of a stage are done, failed or skipped, and why.

One append-only file of JSON lines per shard and machine, so that many writers on a shared file system never touch the
same file, even should two machines do the same shard. A line that a kill cut short is ignored: its block counts as not
done and is made again. What was measured of a block may be long, and lies in a file beside it, so that who looks for
blocks that are left reads little.

Which of several lines about a block is the last word does not depend on anybody's clock: each line counts how often the
block was worked on, as far as its writer knew. Should two writers have worked on a block at the same time, the line
that leaves more to be done holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from wetmap.errors import WorkspaceError

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Entry:
    """What happened to one block."""

    block: str
    """The block's name."""
    status: Status
    """``failed`` blocks are tried again by the next run; the other two are settled."""
    reason: str = ""
    """Why it was skipped or failed."""
    detail: tuple[Any, ...] = ()
    """Rows for the manifest, such as scenes that could not be read."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was measured on the way, plain data: the stage adds up what its blocks say."""
    turn: int = 0
    """How often the block had been worked on before, as far as the writer knew."""
    at: float = field(default=0.0, compare=False)
    """When the line was written, seconds since 1970 UTC, 0 where it does not say; for ``wetmap status`` alone."""
    place: tuple[str, int] | None = field(default=None, compare=False)
    """Where its facts lie, if they were not read: file in the ledger's folder, first byte."""

    @property
    def left_to_do(self) -> tuple[bool, int]:
        """How much it leaves to be done, for comparing."""
        return self.status == "failed", len(self.detail)


class Ledger:
    """The ledger of one stage, kept in that stage's folder, which is named by what the stage was asked."""

    def __init__(self, folder: Path, shard: str = "0of1") -> None:
        self.folder = folder
        machine = re.sub(r"[^\w.-]", "_", socket.gethostname())[:60]
        self._file = folder / f"{shard}@{machine}.jsonl"

    def entries(self) -> dict[str, Entry]:
        """The last word on every block, over all shards; facts are left where they are (`with_facts`)."""
        return latest(lines for _, lines in self.files())

    def files(self) -> list[tuple[str, list[Entry]]]:
        """Every line that can be read: of each file the shard and its lines, in the order of writing."""
        return [(path.stem.partition("@")[0], _read(path)) for path in sorted(self.folder.glob("*.jsonl"))]

    def settled(self, *, whole: bool = False) -> set[str]:
        """Blocks that need no more work; with ``whole``, only such as lack nothing (no rows in their entry)."""
        entries = self.entries().items()
        return {name for name, entry in entries if entry.status != "failed" and not (whole and entry.detail)}

    def with_facts(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The same entries with what was measured, read as they are asked for: a big map's do not fit in memory.

        Raises:
            WorkspaceError: A file was damaged.
        """
        with contextlib.ExitStack() as stack:
            opened, file = "", None
            for entry in entries:
                if entry.place is None:
                    yield entry
                    continue
                name, first = entry.place
                if name != opened or file is None:  # neighbours are of one shard, and so in one file
                    stack.close()
                    opened, file = name, stack.enter_context((self.folder / name).open("rb"))
                file.seek(first)
                yield replace(entry, facts=_facts(self.folder / name, entry, file.readline()), place=None)

    def add(self, entries: Iterable[Entry]) -> None:
        """Append entries; they are on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        placed = self._add_facts(list(entries))
        if not placed:
            return
        now = round(time.time(), 1)
        with self._file.open("ab") as file:
            # A line cut short by a kill must not swallow the next one.
            start = "\n" if file.tell() else ""
            file.write((start + "\n".join(_line(entry, now) for entry in placed)).encode())
            file.flush()
            os.fsync(file.fileno())

    def _add_facts(self, entries: list[Entry]) -> list[Entry]:
        """Append what was measured, and say of each entry where it lies."""
        if not any(entry.facts for entry in entries):
            return entries
        path = self._file.with_suffix(".facts")
        placed = []
        with path.open("ab") as file:
            for entry in entries:
                if entry.facts:
                    placed.append(replace(entry, place=(path.name, file.tell())))
                    file.write(
                        json.dumps({"block": entry.block, "facts": entry.facts}, sort_keys=True).encode() + b"\n"
                    )
                else:
                    placed.append(entry)
            file.flush()
            os.fsync(file.fileno())
        return placed


def latest(shards: Iterable[Iterable[Entry]]) -> dict[str, Entry]:
    """The last word on every block.

    Args:
        shards: The lines of each shard's file, in the order of writing.

    Returns:
        By block. Of one file, a later line of the same turn holds; of several files, the higher turn; of equal turns
        the one that leaves more to be done, so that two writers at once may cost work and never hide a failure.
    """
    found: dict[str, Entry] = {}
    for lines in shards:
        own: dict[str, Entry] = {}
        for entry in lines:
            before = own.get(entry.block)
            if before is None or entry.turn >= before.turn:
                own[entry.block] = entry
        for block, entry in own.items():
            other = found.get(block)
            if other is None or (entry.turn, entry.left_to_do) > (other.turn, other.left_to_do):
                found[block] = entry
    return found


def _line(entry: Entry, at: float) -> str:
    row: dict[str, Any] = {"block": entry.block, "status": entry.status, "at": at, "turn": entry.turn}
    row |= {"reason": entry.reason, "detail": list(entry.detail)}
    return json.dumps(row if entry.place is None else {**row, "facts_at": entry.place[1]})


def _facts(path: Path, entry: Entry, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if row["block"] == entry.block:
            return dict(row["facts"])
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        pass
    raise WorkspaceError(
        f"{path} is damaged: it does not say what was measured of block {entry.block}.",
        do=f"Delete it and {path.with_suffix('.jsonl').name} beside it, and run the same command again.",
    )


def _read(path: Path) -> list[Entry]:
    beside = path.with_suffix(".facts").name
    with path.open(encoding="utf-8", errors="replace") as file:
        return [entry for line in file if (entry := _parse(line, beside)) is not None]


def _parse(line: str, beside: str) -> Entry | None:
    try:
        row = json.loads(line)
        return Entry(
            row["block"],
            row["status"],
            row["reason"],
            tuple(row["detail"]),
            row.get("facts", {}),  # as they were kept at first
            row.get("turn", 0),
            row.get("at", 0.0),
            (beside, row["facts_at"]) if "facts_at" in row else None,
        )
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
