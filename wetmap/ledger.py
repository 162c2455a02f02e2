"""Which blocks of a stage are done, failed or skipped, and why.

One append-only file of JSON lines per shard, so that many writers on a shared file system never touch the same file. A
line that a kill cut short is ignored: its block counts as not done and is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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


class Ledger:
    """The ledger of one stage, kept in that stage's folder, which is named by what the stage was asked."""

    def __init__(self, folder: Path, shard: str = "0of1") -> None:
        self.folder = folder
        self._file = folder / f"{shard}.jsonl"

    def entries(self) -> dict[str, Entry]:
        """The last word on every block, over all shards."""
        latest: dict[str, Entry] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = _parse(line)
                if entry is not None:
                    latest[entry.block] = entry
        return latest

    def settled(self, *, whole: bool = False) -> set[str]:
        """Blocks that need no more work; with ``whole``, only such as lack nothing (no rows in their entry)."""
        entries = self.entries().items()
        return {name for name, entry in entries if entry.status != "failed" and not (whole and entry.detail)}

    def add(self, entries: Iterable[Entry]) -> None:
        """Append entries; they are on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps(
                {
                    "block": e.block,
                    "status": e.status,
                    "reason": e.reason,
                    "detail": list(e.detail),
                    **({"facts": e.facts} if e.facts else {}),
                },
                sort_keys=True,
            )
            for e in entries
        ]
        if not lines:
            return
        with self._file.open("ab") as file:
            # A line cut short by a kill must not swallow the next one.
            start = "\n" if file.tell() else ""
            file.write((start + "\n".join(lines)).encode())
            file.flush()
            os.fsync(file.fileno())


def _parse(line: str) -> Entry | None:
    try:
        row = json.loads(line)
        return Entry(row["block"], row["status"], row["reason"], tuple(row["detail"]), row.get("facts", {}))
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
