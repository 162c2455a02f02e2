"""A stage in parts: which blocks a shard works on, and what must be there before it.

The blocks of a stage are listed once, in a file beside its ledger. A shard is a run of that list, so that it reads
scenes and the cube where its neighbours are its own; any number of shards divides the list into such runs, of equal
length but for one block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from wetmap.errors import TooManyFailuresError, UsageError, WorkspaceError
from wetmap.ledger import Ledger
from wetmap.workspace import WHOLE, StageFolder, because, read_json, write_json

if TYPE_CHECKING:  # wetmap status reads names alone, and answers at once
    from wetmap.geo import Block, Grid

Item = TypeVar("Item")

#: What a verb does of a stage when it does not do all of it: ``plan`` settles what shards share, ``finish`` closes.
Only = Literal["plan", "finish"]

#: File with the names of a stage's blocks.
LIST = "blocks.json"
#: A finishing step does what is left by itself up to this share of the blocks, or this many blocks.
FEW_LEFT, FEW_BLOCKS = 0.05, 1


@dataclass(frozen=True)
class Shard:
    """One part of a stage's blocks."""

    number: int
    """Which, from 1."""
    of: int
    """Of how many."""

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``3/64``.

        Raises:
            UsageError: It is not two numbers, or the first is not 1 to the second.
        """
        found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard is {text!r}.", do="Give it as 3/64: the third of 64 shards, counted from 1.")
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        """Its name in the files of ledgers and locks."""
        return f"{self.number}of{self.of}"

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"

    def take(self, items: Sequence[Item]) -> Sequence[Item]:
        """Its run of a list: the shards of one number together have every item once, in order."""
        first, last = ((part * len(items)) // self.of for part in (self.number - 1, self.number))
        return items[first:last]


def shard_of(name: str) -> Shard | None:
    """The shard of a ledger's or a lock's name; None where it is the whole stage, or no shard's name."""
    found = re.fullmatch(r"(\d+)of(\d+)", name)
    if found is None or name == WHOLE or not 1 <= int(found[1]) <= int(found[2]):
        return None
    return Shard(int(found[1]), int(found[2]))


def blocks_of(folder: Path, grid: Grid, block_px: int, make: Callable[[], Iterable[Block]]) -> list[Block]:
    """The blocks of a stage: from its list, or made now and listed.

    Args:
        folder: The stage's folder.
        grid: The map's grid.
        block_px: Side of the blocks, pixels.
        make: Gives them.
    """
    listed = read_json(folder / LIST)
    if listed is None or listed.get("block_px") != block_px:
        blocks = list(make())
        write_json(folder / LIST, {"block_px": block_px, "blocks": [block.name for block in blocks]})
        return blocks
    return [block_named(name, grid, block_px) for name in listed["blocks"]]


def names_of(folder: Path) -> list[str] | None:
    """Names of a stage's blocks in their order, or None where they are not listed yet."""
    listed = read_json(folder / LIST)
    return None if listed is None else list(listed["blocks"])


def block_named(name: str, grid: Grid, block_px: int) -> Block:
    """The block of a name in a ledger.

    Raises:
        WorkspaceError: It is no block's name.
    """
    from wetmap.geo import Block

    found = re.fullmatch(r"r(\d+)c(\d+)", name)
    if found is None:
        raise WorkspaceError(f"{name!r} in {LIST} is no block.", do=f"Delete that {LIST} and run the same verb again.")
    row, col = int(found[1]), int(found[2])
    y0, x0 = row * block_px, col * block_px
    return Block(row, col, y0, x0, min(block_px, grid.height - y0), min(block_px, grid.width - x0))


def need_settled(folder: StageFolder, verb: str, last: str = LIST) -> None:
    """Refuse a shard, or the closing of a stage, before what all shards share is there.

    Args:
        folder: The stage's folder.
        verb: What prepares it.
        last: The file that is written when all is there.

    Raises:
        WorkspaceError: It is not there.
    """
    if not (folder.path / last).exists():
        changed = f" (changed since: {because(folder.changes)})" if folder.changes else ""
        raise WorkspaceError(
            f"The stage {folder.stage} is not prepared for shards in {folder.path.parent}{changed}.",
            do=f"Run wetmap {verb} --only plan first, with the same recipe and workspace.",
        )


def need_few_left(folder: StageFolder, verb: str) -> None:
    """Refuse to close a stage of which much is left: the shards are for that.

    Raises:
        TooManyFailuresError: More is left than a finishing step does by itself.
    """
    names, entries = names_of(folder.path) or [], Ledger(folder.path / "ledger").entries()
    failed = [name for name in names if name in entries and entries[name].status == "failed"]
    untouched = [name for name in names if name not in entries]
    left = len(failed) + len(untouched)
    if left > max(FEW_LEFT * len(names), FEW_BLOCKS):
        parts = [f"{len(untouched)} were not worked on"] if untouched else []
        if failed:
            parts.append(f"{len(failed)} failed, the first is {failed[0]}: {entries[failed[0]].reason}")
        raise TooManyFailuresError(
            f"{left} of {len(names)} blocks of {folder.stage} are left ({'; '.join(parts)}), more than the "
            f"{FEW_LEFT:.0%} that --only finish does by itself.",
            do=f"See wetmap status; run their shards again (wetmap submit does), or wetmap {verb} without --only, "
            "which does all that is left.",
        )
