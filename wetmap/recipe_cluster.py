"""The recipe's part about where the work runs: this machine, jobs of a queue, or a scheduler that runs already."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from wetmap.budget import parse_budget, parse_memory
from wetmap.recipe_training import Part

#: Where jobs are submitted to, by the names of `--cluster`.
QUEUES = ("slurm", "pbs", "sge")
#: What a place to work at may look like; shown wherever one is refused.
KIND_EXAMPLES = "local, slurm, pbs, sge, tcp://host:8786"

#: An address that Dask understands: a host's name or number, or an IPv6 number in brackets, and a port.
_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d{1,3}):([0-5]\d)(?::([0-5]\d))?")
#: Shortest time of a job, seconds: two minutes to leave in, and some to work.
LEAST_WALLTIME_S = 300
#: Seconds before the end of its job by which a worker has left: it gives back its tasks and may wait for one block.
LEAVE_S = 120
#: Share of a job's time by which workers that began together leave apart, to both sides.
STAGGER = 0.05

#: What stands in a line of a job script: one word that no shell or queue takes for two.
Word = Annotated[str, StringConstraints(pattern=r"^[\w.@:+,=/%-]+$")]
#: A folder that the node's own shell may fill in, such as `$TMPDIR/wetmap`.
NodeFolder = Annotated[str, StringConstraints(pattern=r"^[\w.@:+,=/%${}-]+$")]
#: One line of a job script.
Line = Annotated[str, StringConstraints(pattern=r"^[^\r\n\x00]+$")]


class Job(Part):
    """One job of a queue: what it asks for, and what its script says before the workers start."""

    workers: int = Field(1, ge=1, description="Worker processes of each job, `threads_per_worker` cores each.")
    memory: str = Field("4GiB", description="Memory of each job (`4GiB`, `16GB`); its workers share it evenly.")
    walltime: str = Field(
        "2h",
        description="Time limit of each job (`90m`, `2h`, `1d`, or `02:00:00`), 5 minutes at least. Workers leave "
        "before it ends, and new jobs take their place.",
    )
    queue: Word | None = Field(None, description="Partition or queue; default: the cluster's own.")
    account: Word | None = Field(None, description="Account or project that pays; default: your own.")
    directives: list[Line] = Field(
        [], description="More options of a job, as they stand in a job script, such as `--gpus=1` or `-l h_vmem=4G`."
    )
    prologue: list[Line] = Field(
        [], description="Lines of shell before the workers start, such as `module load ...` or `source ...`."
    )
    interface: Word | None = Field(
        None, description="Network interface that workers and this machine share, such as `ib0`; default: the first."
    )
    port: int = Field(0, ge=0, le=65535, description="Port on this machine that workers connect to; 0: any free one.")
    encrypted: bool = Field(
        True,
        description="Whether only workers with this run's own certificate may reach the scheduler; without, whoever "
        "shares the network can run code as you. The certificate is kept in the workspace while jobs run.",
    )
    scratch: NodeFolder | None = Field(
        None,
        description="Folder on the nodes for Dask's own files (`$TMPDIR/wetmap`); default: their temporary folder.",
    )
    logs: Path | None = Field(
        None, description="Folder for what jobs print, on a shared disk; default: `job-logs` in the workspace."
    )
    python: Word | None = Field(
        None, description="Python on the nodes that has wetmap; default: the one that runs this."
    )

    @field_validator("memory")
    @classmethod
    def _an_amount(cls, value: str) -> str:
        parse_memory(value)
        return value

    @field_validator("walltime")
    @classmethod
    def _a_time(cls, value: str) -> str:
        parse_walltime(value)
        return value


class Cluster(Part):
    """Where the work runs. Threads per worker are part of the numerics; workers, jobs and places are not."""

    kind: str = Field(
        "local",
        description="Where blocks are worked on: `local` (this machine), jobs of `slurm`, `pbs` or `sge`, or the "
        "address of a Dask scheduler that runs already, `tcp://host:8786`.",
    )
    workers: int = Field(
        0,
        ge=0,
        description="Worker processes; 0 for as many as the cores allow, those of one job, or those of the scheduler.",
    )
    minimum_workers: int | None = Field(
        None,
        ge=1,
        description="Of jobs: keep this many while there is little to do, and ask for more, up to `workers`, as work "
        "comes; default: all, all the time.",
    )
    threads_per_worker: int = Field(1, ge=1, description="Threads of each worker.")
    fetch_at_once: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Blocks that each worker of a cluster fetches at the same time, because it mostly waits for "
        "servers; default: two for each of its threads. On this machine: one for each thread of all workers.",
    )
    memory: str | None = Field(
        None,
        description="Memory that mapping may use on this machine, all processes together (`2GiB`, `1500MB`): the size "
        "of blocks and the number of workers follow from it; default: no bound. In jobs `job.memory` is the bound.",
    )
    max_failed: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of blocks, or of a block's scenes, that may fail before it is an error, 0-1.",
    )
    job: Job = Field(default_factory=Job, description="Jobs of a queue (kinds slurm, pbs, sge).")

    @field_validator("kind")
    @classmethod
    def _a_place(cls, value: str) -> str:
        if value != "local" and value not in QUEUES and not _ADDRESS.fullmatch(value):
            raise ValueError(f"{value!r} is no place to work at; write one of {KIND_EXAMPLES}")
        return value

    @field_validator("memory")
    @classmethod
    def _an_amount(cls, value: str | None) -> str | None:
        if value is not None:
            parse_memory(value)
        return value

    @property
    def jobs(self) -> int:
        """Jobs that hold all workers; each has ``job.workers`` of them."""
        return max(1, -(-self.workers // self.job.workers))

    @property
    def fewest_jobs(self) -> int:
        """Jobs that are kept while there is little to do."""
        fewest = self.workers if self.minimum_workers is None else self.minimum_workers
        return min(self.jobs, max(1, -(-fewest // self.job.workers)))


def parse_walltime(text: str) -> int:
    """Read the time limit of a job: ``90m``, ``1d12h``, or as queues write it, ``[D-]HH:MM[:SS]``; seconds.

    Raises:
        ValueError: It is neither, or less than ``LEAST_WALLTIME_S``.
    """
    clock = _CLOCK.fullmatch(text.strip())
    if clock is not None:
        days, hours, minutes, rest = (int(part or 0) for part in clock.groups())
        seconds = float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
    else:
        try:
            found = parse_budget(text.strip()).seconds
        except ValueError:
            found = None
        if found is None:
            raise ValueError(f"{text!r} is not a time; write it like 90m, 2h, 1d12h or 02:00:00")
        seconds = found
    if seconds < LEAST_WALLTIME_S:
        raise ValueError(f"a walltime of {text} is too short; give jobs 5m or more")
    return int(seconds)


def clock_text(seconds: int) -> str:
    """A time as every queue reads it: ``HH:MM:SS``, with more than 99 hours where need be."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def lifetime(walltime_s: int) -> tuple[int, int]:
    """When workers leave by themselves, so that the queue never has to kill one in the middle of a block.

    A worker leaves at ``lifetime``, give or take ``stagger`` at random: those that began together leave apart.
    The last leaves ``LEAVE_S`` before the walltime, or 5 % of it where that is longer. Of an hour: 54 minutes, give or
    take three; of five minutes: 165 seconds, give or take 15.

    Args:
        walltime_s: Time limit of the job, seconds.

    Returns:
        Lifetime and stagger, seconds.
    """
    stagger = int(walltime_s * STAGGER)
    return walltime_s - max(LEAVE_S, stagger) - stagger, stagger
