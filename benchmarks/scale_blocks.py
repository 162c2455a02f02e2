"""What ``benchmarks/scale.py`` runs in processes of its own: a stage of empty blocks, and the block itself."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

from wetmap.cluster import Workers
from wetmap.geo import Block
from wetmap.ledger import Entry
from wetmap.recipe_file import load_recipe
from wetmap.stages.context import BlockTask, Context, Pace, Silent, run_blocks
from wetmap.workspace import Workspace

#: Side of the square lattice that blocks are numbered on, at most this wide.
LATTICE = 300


def empty(task: BlockTask) -> Entry:
    """A block in which nothing lies, as most of a map's bounding box is."""
    return Entry(task.block.name, "skipped", "no pixel of the area was observed here")


def blocks(count: int) -> list[Block]:
    """So many blocks of 512 px."""
    width = min(LATTICE, math.ceil(math.sqrt(count)))
    return [Block(i // width, i % width, i // width * 512, i % width * 512, 512, 512) for i in range(count)]


def peak_mb(pid: int | str = "self") -> float:
    """The most memory that a process has held so far, MB (VmHWM of Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Run one stage of empty blocks, and say in one JSON object what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("cluster", help="the recipe's cluster part, JSON")
    chosen = parser.parse_args()
    given = {f"cluster.{name}": value for name, value in json.loads(chosen.cluster).items()}
    recipe = load_recipe(None, given)
    workspace = Workspace(chosen.folder).open()
    asked = {"blocks": chosen.count}
    with Workers(recipe.cluster, chosen.folder / ".dask") as workers, warnings.catch_warnings():
        context = Context(recipe, recipe, workspace, workers, Silent())
        few, all_of_them = (workspace.stage(name, asked) for name in ("start", "scale"))
        pace = Pace(at_once=2)
        # a first few, so that what is timed is the blocks and not the start of processes
        run_blocks(context, few, blocks(8), empty, None, pace)
        before_mb, start = peak_mb(), time.perf_counter()
        done = run_blocks(context, all_of_them, blocks(chosen.count), empty, None, pace)
        seconds = time.perf_counter() - start
        after_mb = peak_mb()
    if len(done) != chosen.count or any(entry.status != "skipped" for entry in done):
        raise SystemExit("blocks are missing")
    json.dump({"seconds": seconds, "client_mb": after_mb, "client_start_mb": before_mb}, sys.stdout)


if __name__ == "__main__":
    main()
