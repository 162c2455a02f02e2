"""Job scripts that make a map as Slurm arrays: plain bash, one for each step, to read and to run by hand.

Nothing here asks Slurm or the workspace; the same request gives the same text.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wetmap.errors import UsageError
from wetmap.recipe_cluster import Job, clock_text, parse_walltime

#: Columns of the comments.
WIDTH = 96
#: What a job waits for: steps before it that ended well, and arrays that ended, however they did.
Needs = tuple[tuple[str, str], ...]
#: Options of every sbatch: jobs that can never start are taken out of the queue, not left in it for ever.
SBATCH = ("sbatch", "--parsable", "--kill-on-invalid-dep=yes")


@dataclass(frozen=True)
class Step:
    """One script."""

    name: str
    """Its name: the script is ``<name>.sh``."""
    verb: str
    """The verb of wetmap that it runs."""
    part: str
    """``--only plan`` and the like, ``--shard`` for an array, or empty."""
    about: str
    """What it does, for people."""
    after: Needs = ()
    """Steps that it waits for, and how: ``afterok`` or ``afterany``."""
    counts: bool = False
    """Whether it computes with the model, so that a GPU helps."""

    @property
    def array(self) -> bool:
        """Whether it is an array, one element for each shard."""
        return self.part == "--shard"


#: The steps of a map, in order. An array may end with elements that failed: the step that closes it does a few blocks
#: by itself and refuses where many are left, which tells more than a job that never starts.
STEPS = (
    Step(
        "plan",
        "fetch",
        "--only plan",
        "Searches the imagery and settles what is settled once for the whole area: scenes, shifts, where water runs, "
        "and the list of blocks.",
    ),
    Step(
        "fetch",
        "fetch",
        "--shard",
        "Reads the imagery near the blocks of one shard and writes their features. Needs the network, unless the "
        "imagery lies on your own disk.",
        (("plan", "afterok"),),
    ),
    Step(
        "fetch_finish",
        "fetch",
        "--only finish",
        "Closes the cube: tries blocks that failed once more, names those that fail again, and counts what was seen.",
        (("plan", "afterok"), ("fetch", "afterany")),
    ),
    Step(
        "train",
        "train",
        "",
        "Draws samples from the reference data, trains the model and scores it on held-out ground.",
        (("fetch_finish", "afterok"),),
        counts=True,
    ),
    Step(
        "predict_plan",
        "predict",
        "--only plan",
        "Settles what the map is made with: device, precision, size of blocks, operating point. It must run where "
        "predict.sh will: a map that is begun on a GPU goes on on GPUs.",
        (("fetch_finish", "afterok"), ("train", "afterok")),
        counts=True,
    ),
    Step(
        "predict",
        "predict",
        "--shard",
        "Maps the blocks of one shard.",
        (("predict_plan", "afterok"),),
        counts=True,
    ),
    Step(
        "map",
        "predict",
        "--only finish",
        "Closes the map: maps the few blocks that failed once more, then post-processing, GeoTIFFs, the project for "
        "QGIS and the report.",
        (("predict_plan", "afterok"), ("predict", "afterany")),
        counts=True,
    ),
)


@dataclass(frozen=True)
class Launch:
    """What all scripts share."""

    command: tuple[str, ...]
    """How wetmap is called."""
    options: tuple[str, ...]
    """Words that every verb gets: recipe, workspace and what else was given."""
    logs: Path
    """Folder of what jobs print."""
    shards: int
    """Elements of each array."""
    job: Job
    """What one job asks for, and what its script says first."""
    threads: int = 1
    """Threads of each worker process."""
    gpus: int = 0
    """GPUs of each job that computes with the model."""
    at_once: int | None = None
    """Elements of an array that run at the same time, at most; None: as many as the cluster allows."""
    max_failed: float | None = None
    """Share of blocks that may fail; None: the recipe's."""
    train_memory: str | None = None
    """Memory of the job that trains, where it needs more than the others; None: the same."""


def script(step: Step, launch: Launch) -> str:
    """The text of one script."""
    words = [*launch.command, step.verb]
    pairs = [launch.options[at : at + 2] for at in range(0, len(launch.options), 2)]
    pairs.append(("--cluster", "local"))  # the job itself is the worker, whatever the recipe says
    pairs.append(("--workers", str(1 if step.counts and launch.gpus else launch.job.workers)))
    if step.verb == "predict":
        pairs.append(("--memory", f"{_mebibytes(launch.job.memory)}MiB"))  # blocks are cut so that the job holds them
    if launch.max_failed is not None and step.verb != "train":
        pairs.append(("--max-failed", f"{launch.max_failed:g}"))
    if step.part and not step.array:
        pairs.append(tuple(step.part.split()))
    lines = [shlex.join(words), *map(shlex.join, pairs)]
    if step.array:
        lines.append(f'--shard "$shard/{launch.shards}"')
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *_directives(step, launch),
            "#",
            *_comment(step, launch),
            "set -euo pipefail",
            "",
            *(_which_shard(step, launch) if step.array else ()),
            *launch.job.prologue,
            f"export OMP_NUM_THREADS={launch.threads}",
            "exec " + " \\\n  ".join(lines),
            "",
        ]
    )


def _directives(step: Step, launch: Launch) -> list[str]:
    """The lines that Slurm reads."""
    job = launch.job
    log = str(launch.logs / (f"{step.name}-%A_%a.out" if step.array else f"{step.name}-%j.out"))
    head = log[: -len(Path(log).name)].replace("%", "%%") + Path(log).name
    gpus = launch.gpus if step.counts else 0
    workers = 1 if gpus else job.workers
    pairs = {
        "job-name": f"wetmap-{step.name}",
        "output": head,
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(workers * launch.threads),
        "mem": f"{_mebibytes(_memory(step, launch))}M",
        "time": clock_text(parse_walltime(job.walltime)),
        "partition": job.queue,
        "account": job.account,
        "gres": f"gpu:{gpus}" if gpus else None,
    }
    lines = [f"#SBATCH --{name}={_one_line(value)}" for name, value in pairs.items() if value is not None]
    return [*lines, *(f"#SBATCH {line}" for line in job.directives)]


def _memory(step: Step, launch: Launch) -> str:
    return launch.train_memory or launch.job.memory if step.name == "train" else launch.job.memory


def _mebibytes(memory: str) -> int:
    from wetmap.budget import parse_memory

    return parse_memory(memory) // 2**20


def _one_line(value: str) -> str:
    """A value as Slurm reads it in a script.

    Raises:
        UsageError: It has a line break, which no quoting makes one line of.
    """
    if not value.isprintable():
        raise UsageError(f"{value!r} cannot stand in a job script.", do="Give folders names without line breaks.")
    return shlex.quote(value)


def _comment(step: Step, launch: Launch) -> list[str]:
    about = [f"wetmap, step {step.name}: {step.about}"]
    if step.array:
        about.append(f"One element of the array is one of {launch.shards} shards: a run of the blocks.")
    if step.after:
        about.append(f"After: {', '.join(f'{name}.sh' for name, _ in step.after)}.")
    about.append("It may be run again at any time: what is done is passed over.")
    by_hand = f"bash {step.name}.sh 3" if step.array else f"bash {step.name}.sh"
    on_slurm = f"sbatch --array=1-{launch.shards} {step.name}.sh" if step.array else f"sbatch {step.name}.sh"
    lines = [line for text in about for line in textwrap.wrap(text, WIDTH, break_on_hyphens=False)]
    lines += ["", f"Here:     {by_hand}{'   (the third shard)' if step.array else ''}", f"On Slurm: {on_slurm}"]
    return [f"# {line}".rstrip() for line in lines]


def _which_shard(step: Step, launch: Launch) -> list[str]:
    return [
        'shard="${1:-${SLURM_ARRAY_TASK_ID:-}}"',
        'if [[ ! "$shard" =~ ^[0-9]+$ ]]; then',
        f'  echo "Give the number of a shard, 1 to {launch.shards}: bash {step.name}.sh 3" >&2',
        "  exit 2",
        "fi",
    ]


def array_text(numbers: Sequence[int], at_once: int | None = None) -> str:
    """Elements of an array as Slurm takes them: ``1-3,7,9-10%4``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return text if at_once is None else f"{text}%{at_once}"


def submit_script(steps: Sequence[Step], launch: Launch) -> str:
    """A script that submits the others, each after those that it needs; what `wetmap submit` does by itself."""
    names = {step.name for step in steps}
    lines = [
        "#!/usr/bin/env bash",
        "# Submits the scripts beside it to Slurm, each after those that it needs. `wetmap submit` does the same, and",
        "# leaves out what is done already. `wetmap status` shows how far it is.",
        "set -euo pipefail",
        "",
        'here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
        f"mkdir -p {shlex.quote(str(launch.logs))}",
    ]
    for step in steps:
        waits = [f"{how}:${{{name}%%;*}}" for name, how in step.after if name in names]
        words = [*SBATCH, *(["--dependency=" + ",".join(waits)] if waits else [])]
        if step.array:
            words.append(f"--array={array_text(range(1, launch.shards + 1), launch.at_once)}")
        quoted = [f'"{word}"' if "$" in word else word for word in words]
        lines.append(f'{step.name}="$({" ".join(quoted)} "$here/{step.name}.sh")"')
        lines.append(f'echo "{step.name}: job ${{{step.name}%%;*}}"')
    return "\n".join([*lines, ""])


def scripts(steps: Sequence[Step], launch: Launch) -> dict[str, str]:
    """All scripts by file name."""
    texts = {f"{step.name}.sh": script(step, launch) for step in steps}
    return {**texts, "submit.sh": submit_script(steps, launch)}
