"""What every stage is handed: the recipe, the workspace, the area, the grid, the workers, and somebody to tell."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from wetmap.cluster import Workers, explain
from wetmap.errors import (
    BlockFailedWarning,
    CoregistrationWarning,
    SceneSkippedWarning,
    TooManyFailuresError,
    UsageError,
)
from wetmap.geo import Aoi, Block, Grid, make_grid, read_aoi
from wetmap.ledger import Entry, Ledger
from wetmap.recipe import Recipe
from wetmap.recipe_file import dump_recipe
from wetmap.stages.shards import Only, Shard
from wetmap.workspace import NOTED, WHOLE, StageFolder, Workspace, because, sweep, write_bytes

Task = TypeVar("Task")


class Listener(Protocol):
    """Who is told what happens: a terminal, a log file, or nobody."""

    def stage(self, name: str, state: str) -> None:
        """A stage begins, continues, or is already there; ``state`` says which and why."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """So much of the current stage is done."""

    def say(self, text: str) -> None:
        """Something worth a line."""


class Silent:
    """Tells nobody."""

    def stage(self, name: str, state: str) -> None:
        """Say nothing."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Context:
    """One run of one or more verbs on one workspace."""

    recipe: Recipe
    """The resolved recipe."""
    kept: Recipe
    """The recipe without flags that hold for one command only; the workspace remembers it."""
    workspace: Workspace
    """Where everything is kept."""
    workers: Workers
    """Worker processes, started at the first use."""
    listener: Listener
    """Who is told."""
    shard: Shard | None = None
    """The part of the blocks that this run works on; None: all. What all parts share must be there."""
    only: Only | None = None
    """``plan``: settle what shards share, and make no block; ``finish``: close what shards have made; None: all."""

    @functools.cached_property
    def aoi(self) -> Aoi:
        """The area of interest."""
        if self.recipe.aoi is None:
            raise UsageError(
                "No area of interest is known.",
                do="Give --aoi with a GeoJSON, GeoPackage or Shapefile, or `aoi:` in the recipe.",
            )
        return read_aoi(self.recipe.aoi)

    @functools.cached_property
    def grid(self) -> Grid:
        """The one grid that everything is on."""
        part = self.recipe.grid
        return make_grid(self.aoi, res_m=part.res_m, crs=part.crs, align=part.align)

    @functools.cached_property
    def folders(self) -> dict[Path, dict[str, str]]:
        """What is in the folders of downloaded files, filled as they are asked for: each is listed once in a run."""
        return {}

    def with_test_fold(self, fold: int) -> Context:
        """The same run with another fold held out for testing."""
        splits = self.recipe.splits.model_copy(update={"test_fold": fold})
        return replace(self, recipe=self.recipe.model_copy(update={"splits": splits}))

    @property
    def share(self) -> str:
        """The shard's name in ledgers and locks."""
        return WHOLE if self.shard is None else self.shard.name

    @property
    def prepared(self) -> bool:
        """Whether this run goes by what was settled before, and settles nothing."""
        return self.shard is not None or self.only == "finish"

    @property
    def name(self) -> str:
        """Name of the map."""
        return self.recipe.name or self.aoi.name

    def remember(self) -> None:
        """Keep the recipe for the verbs that follow; called when a verb has done its work."""
        write_bytes(self.workspace.root / "recipe.yaml", dump_recipe(self.kept).encode())

    def note(self) -> None:
        """Keep the recipe of work that is not through, for `wetmap status`: verbs do not take it for their own."""
        path, data = self.workspace.root / NOTED, dump_recipe(self.kept).encode()
        if not path.exists() or path.read_bytes() != data:
            write_bytes(path, data)

    def begin(self, folder: StageFolder, asked: dict[str, Any]) -> bool:
        """Say what becomes of a stage and make its folder.

        A shard writes nothing that others write too.

        Returns:
            True when there is work to do, False when it is complete.
        """
        if folder.complete:
            self.listener.stage(folder.stage, "already done")
            if self.shard is None:
                self.workspace.begin(folder, asked)
            return False
        if self.shard is not None:
            self.listener.stage(folder.stage, str(self.shard))
            return True
        if (folder.path / "asked.json").exists():  # the folder alone may hold what was settled before the beginning
            state = "continues where it stopped"
        elif folder.changes:
            state = f"made new, because of {because(folder.changes)}"
        else:
            state = "begins"
        self.listener.stage(folder.stage, state)
        self.workspace.begin(folder, asked)
        return True


@dataclass(frozen=True)
class BlockTask:
    """One block and what its stage needs to work on it; what it holds is small and pickles."""

    block: Block
    """The block."""
    work: Any
    """The stage's own task."""


@dataclass(frozen=True)
class Pace:
    """How much is worked on at the same time."""

    at_once: int = 1
    """Blocks that each worker works on, in threads."""
    workers: int | None = None
    """Workers; None: all."""


def run_blocks(
    context: Context,
    folder: StageFolder,
    blocks: Iterable[Block],
    function: Callable[[BlockTask], Entry],
    work: Any,
    pace: Pace | None = None,
    *,
    holes_again: bool = False,
) -> list[Entry]:
    """Run a function over the blocks that are not settled yet, and keep the ledger.

    Args:
        context: The run; a shard of it takes its part of the blocks.
        folder: The stage's folder.
        blocks: Every block of the stage, in the same order in every run.
        function: Makes one block and says what happened; runs in a worker.
        work: Passed to every call.
        pace: How much at the same time; None: one block per worker, all workers.
        holes_again: Whether blocks that lack something (rows in their entry) are given to the function again.

    Returns:
        The entries of all blocks (of the shard), settled before or now, without facts (`Ledger.with_facts`).

    Raises:
        TooManyFailuresError: More blocks failed than the recipe's ``cluster.max_failed`` allows.
    """
    ledger = Ledger(folder.path / "ledger", context.share)
    wanted = list(blocks)
    if context.shard is not None:
        wanted = list(context.shard.take(wanted))
    before = ledger.entries()
    settled = {e.block for e in before.values() if e.status != "failed" and not (holes_again and e.detail)}
    turns = {name: entry.turn + 1 for name, entry in before.items()}
    todo = [BlockTask(block, work) for block in wanted if block.name not in settled]
    done = len(wanted) - len(todo)
    context.listener.progress(done, len(wanted), "blocks")
    named: set[str] = set()
    for together in _entries(context, function, todo, pace or Pace()):
        ledger.add([replace(entry, turn=turns.get(entry.block, 0)) for entry in together])
        for entry in together:
            _name_lost_scenes(entry, named, folder.stage)
            if entry.status == "failed":
                warnings.warn(f"{folder.stage} block {entry.block}: {entry.reason}", BlockFailedWarning, stacklevel=2)
        done += sum(entry.status != "failed" for entry in together)
        context.listener.progress(done, len(wanted), "blocks")
    known = ledger.entries()
    gone = Entry("", "failed", "its line in the ledger cannot be read")  # two writers of one file, against the rule
    entries = [known.get(block.name, replace(gone, block=block.name)) for block in wanted]
    _refuse_failures(entries, context.recipe.cluster.max_failed, folder.stage)
    if context.shard is None:
        sweep(folder.path)
    return entries


def _entries(
    context: Context, function: Callable[[BlockTask], Entry], todo: list[BlockTask], pace: Pace
) -> Iterator[list[Entry]]:
    if not todo:
        return
    for pairs in context.workers.stream_handfuls(function, todo, at_once=pace.at_once, count=pace.workers):
        yield [
            result if isinstance(result, Entry) else Entry(task.block.name, "failed", explain(result))
            for task, result in pairs
        ]


def _name_lost_scenes(entry: Entry, named: set[str], stage: str) -> None:
    """Warn of each scene once, however many blocks miss it; the ledger has them all."""
    # the blocks of the plan are tie blocks: it reads scenes to lay them onto each other, and no more
    planning = stage == "plan"
    kind = CoregistrationWarning if planning else SceneSkippedWarning
    what = "is missing from co-registration" if planning else "is left out"
    for row in entry.detail:
        if row["scene"] not in named:
            named.add(row["scene"])
            warnings.warn(f"{row['sensor']} scene {row['scene']} {what}: {row['reason']}", kind, stacklevel=2)


def _refuse_failures(entries: list[Entry], allowed: float, stage: str) -> None:
    failed = [entry for entry in entries if entry.status == "failed"]
    if failed and len(failed) > allowed * len(entries):
        plural = "block" if len(entries) == 1 else "blocks"
        raise TooManyFailuresError(
            f"{len(failed)} of {len(entries)} {plural} of {stage} failed, more than the {100 * allowed:g} % that are "
            f"allowed; the first is {failed[0].block}: {failed[0].reason}",
            do="Run the same command again to try them again, or allow more with --max-failed.",
        )
