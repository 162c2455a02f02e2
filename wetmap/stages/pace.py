"""How fast a stage goes, and who works on it: from the ledger's lines and their times alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from wetmap.ledger import Entry
from wetmap.stages.shards import Shard, shard_of

#: A shard counts as at work when its newest line is no older than this, seconds, or than so many of its blocks take.
FRESH_S, FRESH_BLOCKS = 600.0, 3.0
#: The pace is that of a shard's last lines, so many at most.
RECENT_LINES = 100
#: A gap between two lines is a pause, and what lies before it is not counted, when it is longer than this, seconds, and
#: than so many times the middle one of the gaps.
PAUSE_S, PAUSE_GAPS = 900.0, 10.0


@dataclass(frozen=True)
class Part:
    """One writer of a stage: a shard, or a run of the whole stage."""

    name: str
    """``3/64``, or ``all``."""
    shard: Shard | None
    """Which shard; None: the whole stage."""
    blocks: int
    """Its blocks."""
    settled: int
    """Done or skipped, by whomever."""
    failed: int
    """Failed."""
    at_work: bool
    """Whether it seems to work now."""
    newest: float
    """Time of its newest line, seconds since 1970 UTC; 0 before the first."""
    seconds_per_block: float | None
    """Its pace; None where too few lines tell."""

    @property
    def left(self) -> int:
        """Blocks that are not settled."""
        return self.blocks - self.settled


def seconds_per_block(stamps: Sequence[float]) -> float | None:
    """Pace of one writer.

    Args:
        stamps: Times of its lines, seconds, in any order; 0 where a line does not say.

    Returns:
        Mean time between its last lines since it last paused, seconds; None with fewer than two of them.
    """
    last = sorted(stamp for stamp in stamps if stamp > 0)[-RECENT_LINES:]
    gaps = [newer - older for older, newer in pairwise(last)]
    if not gaps:
        return None
    pause = max(PAUSE_S, PAUSE_GAPS * median(gaps))
    since = next((place + 1 for place in range(len(gaps) - 1, -1, -1) if gaps[place] > pause), 0)
    counted = gaps[since:]
    return sum(counted) / len(counted) if counted else None


def parts_of(
    names: Sequence[str],
    known: Mapping[str, Entry],
    files: Iterable[tuple[str, Sequence[Entry]]],
    held: Iterable[str],
    now: float,
) -> tuple[Part, ...]:
    """The writers of a stage, in order: the shards of the division that was last worked on, or the whole stage.

    Args:
        names: The stage's blocks.
        known: The last word on each block.
        files: The ledger's files: shard and lines.
        held: Shards whose lock is held.
        now: The time, seconds since 1970 UTC.

    Returns:
        Every shard of that division, also those that have not begun; empty where nobody has.
    """
    locked = set(held)
    stamps: dict[str, list[float]] = {name: [] for name in sorted(locked)}
    for name, lines in files:
        stamps.setdefault(name, []).extend(entry.at for entry in lines)
    if not stamps:
        return ()
    division = shard_of(max(stamps, key=lambda name: (name in locked, max(stamps[name], default=0.0), name)))
    if division is None:
        return (_part(None, names, known, stamps, locked, now),)
    shards = (Shard(number, division.of) for number in range(1, division.of + 1))
    return tuple(_part(shard, shard.take(names), known, stamps, locked, now) for shard in shards)


def _part(
    shard: Shard | None,
    own: Sequence[str],
    known: Mapping[str, Entry],
    written: Mapping[str, Sequence[float]],
    locked: set[str],
    now: float,
) -> Part:
    key = "0of1" if shard is None else shard.name
    stamps = written.get(key, ())
    pace, newest = seconds_per_block(stamps), max(stamps, default=0.0)
    found = [known[name].status for name in own if name in known]
    failed = found.count("failed")
    fresh = now - newest <= max(FRESH_S, FRESH_BLOCKS * (pace or 0.0))
    return Part(
        "all" if shard is None else f"{shard.number}/{shard.of}",
        shard,
        len(own),
        len(found) - failed,
        failed,
        key in locked or (fresh and len(found) < len(own)),
        newest,
        pace,
    )


def hours_left(parts: Sequence[Part], left: int) -> tuple[float | None, float | None]:
    """Blocks an hour, and hours until all are settled at that pace.

    The pace is that of the writers at work; where none is, of those that were at work together last.

    Args:
        parts: The writers.
        left: Blocks that are not settled.

    Returns:
        Both None where too few lines tell.
    """
    working = [part for part in parts if part.at_work]
    if not working:
        last = max((part.newest for part in parts), default=0.0)
        working = [part for part in parts if part.newest and last - part.newest <= FRESH_S]
    paces = [part.seconds_per_block for part in working if part.seconds_per_block]
    if not paces:
        return None, None
    # a writer that has just begun is taken to be as fast as the others
    per_hour = len(working) / len(paces) * sum(3600.0 / pace for pace in paces)
    return per_hour, left / per_hour
