"""How far a workspace is: from its ledgers, manifests and locks alone, whoever works on it and wherever.

Nothing is opened but small files, nothing is computed anew and nothing is written, so that it answers at once while
hundreds of jobs work, and on a machine that has neither the imagery nor a scheduler.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wetmap.errors import WorkspaceError
from wetmap.ledger import Ledger, latest
from wetmap.recipe import Recipe
from wetmap.stages.pace import Part, hours_left, parts_of
from wetmap.stages.shards import names_of
from wetmap.workspace import StageFolder, Workspace, read_json

#: Failed blocks that are named, at most.
NAMED = 10
#: Steps without a row of their own, by the row that they belong to.
BEHIND = {"train": ("cubes",), "map": ("postprocess", "mosaic", "background", "report")}
#: Where `wetmap submit` notes what it submitted.
JOBS = Path("slurm", "jobs.json")
#: The script that submits the others.
SUBMITS = JOBS.with_name("submit.sh")


@dataclass(frozen=True)
class Stage:
    """One stage in the table."""

    name: str
    """Its name."""
    verb: str
    """The verb that makes it."""
    state: str
    """``done``, ``at work``, ``begun`` or ``to do``."""
    blocks: int = 0
    """Its blocks; 0 where it has none, or has not counted them yet."""
    done: int = 0
    """Blocks that are done."""
    skipped: int = 0
    """Blocks that nothing was to be done in."""
    failed: int = 0
    """Blocks that failed."""
    failures: tuple[dict[str, str], ...] = ()
    """The first of them, with reasons."""
    parts: tuple[Part, ...] = ()
    """Who worked on it."""
    per_hour: float | None = None
    """Blocks an hour."""
    hours_left: float | None = None
    """Hours until all blocks are settled, at that pace."""

    @property
    def left(self) -> int:
        """Blocks that are not settled."""
        return self.blocks - self.done - self.skipped


def simulates(recipe: Recipe) -> bool:
    """Whether anything that the recipe reads is simulated first."""
    sources = (recipe.sources.optical, recipe.sources.radar, recipe.sources.terrain)
    return recipe.reference == "simulated" or any(one is not None and one.kind == "simulated" for one in sources)


def status(
    space: Workspace,
    *,
    now: float | None = None,
    own_model: bool = True,
    simulated: bool = False,
    recipe: Path | None = None,
) -> list[Stage]:
    """Every stage that a map needs, in order.

    A stage counts as begun or done only where it follows from the one before it that is there now: what an earlier
    recipe made is to do.

    Args:
        space: The workspace.
        now: The time, seconds since 1970 UTC; None: the clock's.
        own_model: Whether the map's model is trained here.
        simulated: Whether scenes are simulated first.
        recipe: The recipe that names the workspace, for advice.

    Raises:
        WorkspaceError: There is no such workspace.
    """
    if not (space.root / "stages").is_dir():
        if recipe is None:
            do = "Give the folder with --workspace, or the recipe."
        else:
            do = f"Begin with wetmap run {shlex.quote(str(recipe))}; what was just begun shows after some seconds. "
            do += "Work that lies elsewhere is found with --workspace."
        raise WorkspaceError(f"{space.root} holds no work of wetmap{'' if recipe is None else ' yet'}.", do=do)
    moment = time.time() if now is None else now
    found = _chain(space)
    verbs = {"simulate": "fetch", "plan": "fetch", "fetch": "fetch", "train": "train"}
    names = [*(["simulate"] if simulated else []), "plan", "fetch", *(["train"] if own_model else []), "predict"]
    names += ["applicability"] if found.get("applicability") is not None else []
    rows = [_stage(space, name, verbs.get(name, "predict"), found.get(name), moment) for name in names]
    last = found.get("report")
    rows.append(Stage("map", "predict", "done" if last is not None and last.complete else "to do"))
    return [_with_work_behind(space, row) for row in rows]


def _with_work_behind(space: Workspace, row: Stage) -> Stage:
    """A row that is at work where a process has the lock of a step that has no row of its own."""
    busy = row.state != "done" and any(space.locked(step) for step in BEHIND.get(row.name, ()))
    return replace(row, state="at work") if busy else row


def _chain(space: Workspace) -> dict[str, StageFolder]:
    """The current folder of each stage, as far as each follows from the one before."""
    found = {
        name: folder
        for name in ("simulate", "plan", "fetch", "cubes", "train", "predict", "applicability", "mosaic", "report")
        if (folder := space.current(name)) is not None
    }
    asks = {name: read_json(folder.path / "asked.json") or {} for name, folder in found.items()}
    before = {
        "fetch": [("plan", "plan")],
        "cubes": [("fetch", "fetch")],
        "train": [("cubes", "cubes")],
        "predict": [("fetch", "fetch"), ("model", "train")],
        "applicability": [("fetch", "fetch")],
        "mosaic": [("predict", "predict")],
        "report": [("mosaic", "mosaic")],
    }
    for name, needs in before.items():
        if name in found and not all(_follows(asks[name].get(key), found.get(stage)) for key, stage in needs):
            del found[name]
    return found


def _follows(asked: Any, folder: StageFolder | None) -> bool:
    """Whether what a stage was asked is what a folder holds; a model from elsewhere is a longer hash."""
    key = str(asked).partition(" ")[0]  # behind it: what the work lacks
    return len(key) == 64 or (folder is not None and key == folder.key)


def _stage(space: Workspace, name: str, verb: str, folder: StageFolder | None, now: float) -> Stage:
    if folder is None:
        return Stage(name, verb, "at work" if space.locked(name) else "to do")
    names = names_of(folder.path)
    if names is None:
        return Stage(name, verb, "done" if folder.complete else "at work" if space.locked(name) else "begun")
    files = Ledger(folder.path / "ledger").files()
    known = latest(lines for _, lines in files)
    own = {block: known[block] for block in names if block in known}
    settled = [entry.status for entry in own.values()]
    failures = [entry for entry in own.values() if entry.status == "failed"]
    parts = () if folder.complete else parts_of(names, known, files, _held(space, name), now)
    left = len(names) - len(settled) + len(failures)
    per_hour, hours = hours_left(parts, left)
    return Stage(
        name,
        verb,
        _state(folder, parts, begun=bool(own)),
        len(names),
        settled.count("done"),
        settled.count("skipped"),
        len(failures),
        tuple({"block": row.block, "reason": row.reason} for row in failures[:NAMED]),
        parts,
        per_hour,
        hours,
    )


def _state(folder: StageFolder, parts: Sequence[Part], *, begun: bool) -> str:
    if folder.complete:
        return "done"
    return "at work" if any(part.at_work for part in parts) else "begun" if begun else "to do"


def _held(space: Workspace, stage: str) -> list[str]:
    """Shards whose lock somebody holds."""
    names = [path.stem.removeprefix(f"{stage}-") for path in (space.root / "locks").glob(f"{stage}-*of*.lock")]
    return [name for name in names if space.locked(stage, name)]


def next_step(rows: Sequence[Stage], again: Sequence[str], submit: str | None) -> dict[str, str]:
    """What is to be done next.

    Args:
        rows: The stages.
        again: What the next command names, as words: ``--recipe nb.yaml``, or ``--workspace nb-wetmap``.
        submit: The command that submits to Slurm, where that was done before.

    Returns:
        ``what`` in a few words, and ``command``; the command is empty where there is nothing to do.
    """
    row = next((row for row in rows if row.state != "done"), None)
    if row is None:
        return {"what": "the map is finished", "command": ""}
    if row.state == "at work":
        return {"what": f"wait: {row.name} is at work", "command": ""}
    words = ["wetmap", row.verb, *again]
    sharded = [part for part in row.parts if part.shard is not None]
    if submit is not None:
        how = "submit the scripts" if submit.startswith("bash ") else "submit again"
        return {"what": f"{row.name}: {how}; only what is missing is done", "command": submit}
    if row.name == "fetch" and row.blocks and sharded:
        return _of_shards(row, sharded, words)
    if row.name in {"predict", "applicability"} and sharded:
        return _of_shards(row, sharded, words)
    return {"what": f"{row.name}: {'go on' if row.state == 'begun' else 'begin'}", "command": shlex.join(words)}


def _of_shards(row: Stage, parts: Sequence[Part], words: list[str]) -> dict[str, str]:
    missing = [part for part in parts if part.left]
    if not missing:
        close = shlex.join([*words, "--only", "finish"])
        return {"what": f"{row.name}: all shards are through; close it", "command": close}
    many = ", ".join(part.name for part in missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
    return {
        "what": f"{row.name}: {len(missing)} of {len(parts)} shards have blocks left ({many})",
        "command": shlex.join([*words, "--shard", missing[0].name]),
    }


def told(space: Workspace, rows: Sequence[Stage], again: Sequence[str]) -> dict[str, Any]:
    """The table as plain data."""
    submit = (read_json(space.root / JOBS) or {}).get("again")
    if submit is None and (space.root / SUBMITS).exists():
        submit = shlex.join(["bash", str(space.root / SUBMITS)])
    return {
        "verb": "status",
        "workspace": str(space.root),
        "stages": [_row(row) for row in rows],
        "next": next_step(rows, again, submit),
    }


def _row(row: Stage) -> dict[str, Any]:
    data = asdict(row)
    for part, own in zip(data["parts"], row.parts, strict=True):
        del part["shard"]
        part["left"] = own.left
    return {**data, "left": row.left}


def lines(result: Mapping[str, Any]) -> list[str]:
    """The same as lines for people."""
    out = [f"Workspace: {result['workspace']}", ""]
    wide = max(len(row["name"]) for row in result["stages"])
    for row in result["stages"]:
        out.append(f"{row['name']:<{wide}}  {row['state']}{_blocks(row)}")
        out += [f"{'':<{wide}}  {line}" for line in _more(row)]
    if any(row["state"] == "at work" for row in result["stages"]):
        out += ["", "At work: has its lock here, or wrote a line in the last ten minutes and has blocks left."]
    out += ["", f"Next: {result['next']['what']}"]
    return out + ([f"      {result['next']['command']}"] if result["next"]["command"] else [])


def _blocks(row: Mapping[str, Any]) -> str:
    if not row["blocks"]:
        return ""
    counts = [f"{row['done']:,} done"]
    counts += [f"{row['skipped']:,} skipped"] if row["skipped"] else []
    failed = f" ({row['failed']:,} of them failed)" if row["failed"] else ""
    counts += [f"{row['left']:,} left{failed}"] if row["left"] else []
    return f": {row['blocks']:,} block{'' if row['blocks'] == 1 else 's'}, {', '.join(counts)}"


def _more(row: Mapping[str, Any]) -> list[str]:
    """Shards, pace and failures of a stage."""
    out, parts = [], row["parts"]
    if len(parts) > 1:
        working = [part["name"] for part in parts if part["at_work"]]
        through = sum(not part["left"] for part in parts)
        waiting = sum(bool(part["left"]) and not part["newest"] and not part["at_work"] for part in parts)
        stopped = [part["name"] for part in parts if part["left"] and part["newest"] and not part["at_work"]]
        out.append(
            f"{len(parts)} shards: {through} through, {len(working)} at work, {waiting} not begun, "
            f"{len(stopped)} stopped{_some(stopped)}"
        )
    if row["hours_left"] is not None and row["left"]:
        pace = f"{row['per_hour']:,.0f} blocks an hour"
        if row["state"] == "at work":
            out.append(f"{pace}, about {_hours(row['hours_left'])} left at this pace")
        else:
            out.append(f"{pace} when it last worked; about {_hours(row['hours_left'])} of that are left")
    out += [f"failed {one['block']}: {one['reason']}" for one in row["failures"]]
    more = row["failed"] - len(row["failures"])
    return [*out, *([f"... and {more:,} more failed"] if more else [])]


def _some(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})" if names else ""


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:,.1f} hours"
