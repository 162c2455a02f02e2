"""What a verb answers when it did one part: the plan of the shards, or one shard."""

from __future__ import annotations

from collections import Counter
from typing import Any

from wetmap.ledger import Ledger
from wetmap.stages import fetch, predict, shards
from wetmap.stages.context import Context
from wetmap.stages.lost_reads import counted


def of_part(context: Context, verb: str) -> dict[str, Any]:
    """What became of one part of a verb: the plan of its shards, or one of them."""
    folder = (fetch if verb == "fetch" else predict).folder_of(context)
    names, entries = shards.names_of(folder.path) or [], Ledger(folder.path / "ledger").entries()
    shard = context.shard
    own = names if shard is None else list(shard.take(names))
    counts = Counter(entries[name].status for name in own if name in entries)
    return {
        "verb": verb,
        "workspace": str(context.workspace.root),
        "part": "plan" if shard is None else f"{shard.number}/{shard.of}",
        "blocks": len(own),
        "settled": counts["done"] + counts["skipped"],
        "failed_blocks": [name for name in own if name in entries and entries[name].status == "failed"],
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The same as lines for people."""
    verb, blocks, failed = result["verb"], counted(result["blocks"], "block"), result["failed_blocks"]
    if result["part"] == "plan":
        return [
            f"Plan:   {blocks} of {verb} to make, {result['settled']} of them are there",
            f"Next:   wetmap {verb} --shard 1/N to N/N, in any order and at the same time, then --only finish",
        ]
    out = [f"Shard:  {result['part']} of {verb}: {result['settled']} of {blocks} are there"]
    if failed:
        out.append(f"Failed: {counted(len(failed), 'block')}, the first {failed[0]} (the same command tries again)")
    return out
