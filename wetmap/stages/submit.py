"""Batch without a living scheduler: scripts for Slurm arrays, submitted so that each waits for what it needs.

What is to be done follows from the workspace alone: finished steps and shards are left out, so that submitting again
goes on.
"""

from __future__ import annotations

import math
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wetmap.budget import parse_memory
from wetmap.errors import SubmitError, UsageError, WetmapError, WetmapWarning
from wetmap.ledger import Ledger
from wetmap.stages import applicability, cubes, expected, fetch, plan, predict, report, train
from wetmap.stages.check import check_recipe
from wetmap.stages.context import Context
from wetmap.stages.shards import Shard, names_of
from wetmap.stages.status import JOBS
from wetmap.stages.submit_scripts import SBATCH, STEPS, Launch, Step, array_text, scripts
from wetmap.workspace import StageFolder, read_json, write_bytes, write_json

#: Folder of the scripts in the workspace.
FOLDER = JOBS.parent
#: Seconds that a command of Slurm may take.
SLURM_S = 120
#: Options of the verb, and the words by which a refusal of sbatch speaks of them.
REFUSALS = {
    "--partition": ("partition", "qos"),
    "--account": ("account",),
    "--time": ("time limit", "--time", "timelimit"),
    "--mem": ("memory", "--mem"),
    "--array": ("array",),
    "--cpus": ("cpu", "node configuration"),
    "--gpus": ("gres", "gpu"),
}


@dataclass(frozen=True)
class Todo:
    """A step that is to be submitted."""

    step: Step
    """Which."""
    shards: tuple[int, ...] = ()
    """Elements of its array that have blocks left."""


@dataclass(frozen=True)
class Asked:
    """What is asked of a submission beyond the recipe."""

    shards: int
    """Elements of each array."""
    options: tuple[str, ...]
    """Options of every verb: recipe, workspace, what else was given."""
    again: str
    """The command that submits again."""
    cores: int | None = None
    """Cores of each job; None: those of the recipe's workers."""
    gpus: int = 0
    """GPUs of each job that computes with the model."""
    at_once: int | None = None
    """Elements of an array that run at the same time, at most."""
    max_failed: float | None = None
    """Share of blocks that may fail."""
    script_only: bool = False
    """Write the scripts, and submit nothing."""


def run(context: Context, asked: Asked) -> dict[str, Any]:
    """Write the scripts and submit those that are needed.

    Returns:
        What the verb answers, as plain data.

    Raises:
        UsageError: The recipe cannot work, or there is no Slurm here.
        SubmitError: Slurm refuses a job, or the jobs of the last submission are still there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WetmapWarning)  # the first job says the same
        check_recipe(context.recipe)
        if context.recipe.predict.bundle is None:
            cubes.reference_of(context)
    _ = context.grid  # an area that cannot be mapped must not leave a workspace behind
    if not asked.script_only:
        need_slurm()
        _refuse_twice(context)
    folder = context.workspace.open().root / FOLDER
    context.note()
    launch = launch_of(context, asked)
    launch.logs.mkdir(parents=True, exist_ok=True)
    steps = [step for step in STEPS if step.name != "train" or context.recipe.predict.bundle is None]
    folder.mkdir(exist_ok=True)
    for name, text in scripts(steps, launch).items():
        write_bytes(folder / name, text.encode())
        (folder / name).chmod(0o755)
    todo = needed(context, steps, asked.shards)
    jobs = [] if asked.script_only else _submit(context, folder, launch, todo, asked)
    return {
        "verb": "submit",
        "workspace": str(context.workspace.root),
        "folder": str(folder),
        "scripts": [f"{step.name}.sh" for step in steps] + ["submit.sh"],
        "steps": [{"step": row.step.name, "shards": list(row.shards)} for row in todo],
        "submitted": not asked.script_only,
        "jobs": jobs,
        "train_memory": launch.train_memory if any(step.name == "train" for step in steps) else None,
        "job_memory": launch.job.memory,
        "recipe": list(asked.options),
    }


def launch_of(context: Context, asked: Asked) -> Launch:
    """What all scripts share."""
    cluster = context.recipe.cluster
    root = context.workspace.root
    job = cluster.job
    if asked.cores is not None:
        job = job.model_copy(update={"workers": max(1, asked.cores // cluster.threads_per_worker)})
    return Launch(
        command=(cluster.job.python or sys.executable, "-m", "wetmap"),
        options=asked.options,
        logs=cluster.job.logs or root / FOLDER / "logs",
        shards=asked.shards,
        job=job,
        threads=cluster.threads_per_worker,
        gpus=asked.gpus,
        at_once=asked.at_once,
        max_failed=asked.max_failed,
        train_memory=train_memory(context, job.memory),
    )


def train_memory(context: Context, memory: str) -> str | None:
    """Memory for the job that trains, where drawing samples of so large a grid takes more than other jobs get.

    Args:
        context: The run.
        memory: What each job asks for.

    Returns:
        Whole GiB, rounded up; None where the memory of other jobs will do.
    """
    needed = expected.sampling_gb(context) * 1e9
    return None if needed <= parse_memory(memory) else f"{math.ceil(needed / 2**30)}GiB"


def needed(context: Context, steps: Sequence[Step], shards: int) -> list[Todo]:
    """The steps that are not done, and of arrays the shards that have blocks left.

    Args:
        context: The run.
        steps: All steps of the map, in order.
        shards: Elements of each array.
    """
    known = {step.name: step for step in steps}
    everything = tuple(range(1, shards + 1))
    fetched, own = fetch.folder_of(context), "train" in known
    todo: list[Todo] = []
    if not fetched.complete:
        ready = plan.folder_of(context).complete and names_of(fetched.path) is not None
        left = missing([fetched], shards) if ready else everything
        todo += [] if ready else [Todo(known["plan"])]
        todo += [Todo(known["fetch"], left)] if left else []
        todo.append(Todo(known["fetch_finish"]))
    trained = not own or (fetched.complete and train.folder_of(context).complete)
    if not trained:
        todo.append(Todo(known["train"]))
    if not fetched.complete or not trained:
        return [*todo, Todo(known["predict_plan"]), Todo(known["predict"], everything), Todo(known["map"])]
    mapped = predict.folder_of(context)
    if mapped.complete:
        done = report.folder_of(context).complete and (context.workspace.root / "map").is_dir()
        return [*todo, *([] if done else [Todo(known["map"])])]
    layers = [mapped, *([applicability.folder_of(context)] if applicability.wanted(context.recipe) else [])]
    ready = all(names_of(folder.path) is not None for folder in layers)
    left = missing(layers, shards) if ready else everything
    todo += [] if ready else [Todo(known["predict_plan"])]
    todo += [Todo(known["predict"], left)] if left else []
    return [*todo, Todo(known["map"])]


def missing(folders: Sequence[StageFolder], shards: int) -> tuple[int, ...]:
    """Shards of which some stage has blocks that are not settled."""
    found: set[int] = set()
    for folder in folders:
        names, settled = names_of(folder.path) or [], Ledger(folder.path / "ledger").settled()
        for number in range(1, shards + 1):
            if any(name not in settled for name in Shard(number, shards).take(names)):
                found.add(number)
    return tuple(sorted(found))


def need_slurm() -> None:
    """Refuse to submit where there is no Slurm.

    Raises:
        UsageError: There is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise UsageError(
            "There is no sbatch on this machine, so nothing can be submitted to Slurm from here.",
            do="Log in where jobs are submitted; or write the scripts alone with --script-only, and submit them there.",
        )


def _refuse_twice(context: Context) -> None:
    """Refuse to submit while jobs of the last submission wait or run."""
    before = [row["job"] for row in (read_json(context.workspace.root / JOBS) or {}).get("jobs", [])]
    if not before:
        return
    alive = set(_slurm("squeue", "--me", "--noheader", "--format=%F").split())
    there = [job for job in before if job in alive]
    if there:
        raise SubmitError(
            f"Jobs of the last submission are still in the queue: {' '.join(there)}.",
            do=f"Wait for them (wetmap status), or take them out: scancel {' '.join(there)}",
        )


def _submit(context: Context, folder: Path, launch: Launch, todo: Sequence[Todo], asked: Asked) -> list[dict[str, Any]]:
    """Submit the steps; where one is refused, those before it are taken back."""
    ids: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    try:
        for row in todo:
            waits = [f"{how}:{ids[name]}" for name, how in row.step.after if name in ids]
            words = [*SBATCH, *(["--dependency=" + ",".join(waits)] if waits else [])]
            array = array_text(row.shards, launch.at_once) if row.step.array else None
            words += [] if array is None else [f"--array={array}"]
            answer = _slurm(*words, str(folder / f"{row.step.name}.sh"))
            ids[row.step.name] = answer.strip().splitlines()[-1].partition(";")[0]
            rows.append({"step": row.step.name, "job": ids[row.step.name], "array": array, "after": waits})
            # at once: whoever is interrupted here must not submit the same again unawares
            write_json(context.workspace.root / JOBS, {"again": asked.again, "jobs": rows})
    except WetmapError:
        if ids:
            _slurm("scancel", *ids.values())
            (context.workspace.root / JOBS).unlink()
        raise
    return rows


def _slurm(*words: str) -> str:
    """Run a command of Slurm and give what it prints.

    Raises:
        SubmitError: It fails, or does not answer.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SLURM_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SubmitError(f"{words[0]} does not work here ({error}).", do="Ask those who run the cluster.") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise SubmitError(f"{words[0]} refuses: {said or f'exit code {done.returncode}'}.", do=_advice(said))
    return done.stdout


def _advice(said: str) -> str:
    """What to do about a refusal: the options that it speaks of; whom to ask where it speaks of none."""
    named = [option for option, words in REFUSALS.items() if any(word in said.lower() for word in words)]
    if named:
        return f"Mend {' or '.join(named)}, and submit again."
    return "Submit again when Slurm answers; if it refuses still, ask those who run the cluster."


def lines(result: dict[str, Any]) -> list[str]:
    """What the verb answers as lines for people."""
    out = [f"Scripts: {result['folder']}: {', '.join(result['scripts'])}"]
    if result["train_memory"]:
        out.append(
            f"Memory:  train.sh asks for {result['train_memory']} (other jobs: {result['job_memory']}), which drawing "
            "samples of an area this large needs"
        )
    if not result["steps"]:
        return [*out, "Nothing to do: the map is finished."]
    if not result["submitted"]:
        return [*out, f"Submit:  bash {Path(result['folder']) / 'submit.sh'}", *_watch(result)]
    for row in result["jobs"]:
        array = f", elements {row['array']}" if row["array"] else ""
        after = f", after {' and '.join(row['after'])}" if row["after"] else ""
        out.append(f"Job:     {row['job']} {row['step']}{array}{after}")
    ids = " ".join(row["job"] for row in result["jobs"])
    return [*out, *_watch(result), f"Stop:    scancel {ids}"]


def _watch(result: dict[str, Any]) -> list[str]:
    return [f"Watch:   wetmap status --workspace {shlex.quote(result['workspace'])}   (and squeue --me)"]
