"""Workers in jobs of a batch system, through dask-jobqueue; the scheduler is a part of this process.

Jobs are asked for, replaced when they end, and given back by Dask's own adaptive scaling, also where their number is
fixed. Workers leave by themselves before the queue would end their job, and a new job takes the place.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import math
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

from wetmap.budget import parse_memory
from wetmap.cluster import queues
from wetmap.cluster.check import Greeting
from wetmap.cluster.limits import thread_limits
from wetmap.cluster.stream import DEATHS_ALLOWED
from wetmap.errors import ClusterError, UsageError, WorkersLostError
from wetmap.recipe_cluster import Cluster, clock_text, lifetime, parse_walltime

#: Classes of dask-jobqueue.
CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster"}
#: Threads that every worker has at least: predict has two blocks in hand, one that is read or written.
THREADS = 2
#: Seconds between looks at how many workers there should be, and looks in a row that must find a worker idle before it
#: is given back: five minutes, so that the end of one stage does not cost the next one its place in the queue.
ADAPT_EVERY_S, IDLE_LOOKS = 5.0, 60
#: Seconds of work at hand that are worth another worker: less than a block takes, so all are asked for.
WORTH_A_WORKER_S = 0.5
#: Seconds after which a worker that the scheduler lost is replaced.
REPLACED_AFTER_S = 10.0
#: Seconds that a worker looks for the scheduler before its job gives up.
FIND_SCHEDULER_S = 60
#: Seconds between questions to the batch system while there is no worker.
ASK_EVERY_S = 10.0
#: Share of a worker's part of the job's memory that blocks are cut for. Dask ends a worker at 95 %.
MEMORY_SHARE = 0.8
#: What paths in a job script may hold.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+,:=@-")


@dataclass
class JobsCrew:
    """Jobs, the workers in them, and the scheduler here."""

    cluster: Any
    client: Client
    kind: str
    logs: Path
    told: Greeting | None
    say: Callable[[str], None]
    stack: contextlib.ExitStack
    jobs: set[str] = field(default_factory=set)
    """Every job so far."""
    refused: str = ""
    """Why the batch system refused a job, where it refused one later on."""
    _asked: float = -math.inf
    _waiting: bool = False

    def hear(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take note of a job that could not be submitted while others work; Dask tries again by itself."""
        error = context.get("exception")
        if isinstance(error, RuntimeError) and "stderr:" in str(error):
            self.refused = refused_because(str(error))
        else:
            loop.default_exception_handler(context)

    def alive(self) -> list[str]:
        """Addresses of the workers that are there."""
        self.note_jobs()
        found = list(self.cluster.scheduler.workers)
        if found:
            self._waiting = False
        return found

    def note_jobs(self) -> None:
        """Keep in mind the jobs of now."""
        now = {str(job.job_id) for job in list(self.cluster.workers.values()) if job.job_id}
        if not now <= self.jobs:
            self.jobs |= now
            queues.remember(self.kind, now)

    def expects_more(self) -> bool:
        """Whether a job waits in the queue, or runs and its workers may still be starting."""
        if time.monotonic() - self._asked < ASK_EVERY_S:
            return self._waiting
        self._asked = time.monotonic()
        states = queues.waiting_or_running(self.kind, self.jobs)
        was, self._waiting = self._waiting, states is None or bool(states)
        if self._waiting and not was:
            self.say(f"cluster: waiting for workers; {self.kind} says: {states_text(states)}")
        return self._waiting

    def lost(self, waited_s: float) -> WorkersLostError:
        """The error where no job waits or runs."""
        said = last_words(self.logs)
        at_last = f", at last: {said}" if said else ""
        at_last += f"; the last job was refused: {self.refused}" if self.refused else ""
        return WorkersLostError(
            f"No worker of {self.kind} has been there for {waited_s:.0f} s, and none of the jobs "
            f"({numbers_text(self.jobs)}) waits or runs; they print to {self.logs}{at_last}.",
            do="Mend what that says (often cluster.job.interface, python or memory) and run the same command again: "
            "what is finished stays.",
        )


def threads_of(settings: Cluster) -> int:
    """Threads that each worker process has for tasks, whatever the stage: the most that any of them uses."""
    return max(THREADS, fetch_at_once(settings))


def fetch_at_once(settings: Cluster) -> int:
    """Blocks that a worker fetches at the same time."""
    return settings.fetch_at_once or 2 * settings.threads_per_worker


def worker_memory(settings: Cluster) -> int:
    """Memory that blocks of one worker may use, bytes."""
    return int(parse_memory(settings.job.memory) / settings.job.workers * MEMORY_SHARE)


def options(settings: Cluster, logs: Path) -> dict[str, Any]:
    """What dask-jobqueue is told about each job; everything that it puts into the script unquoted is plain.

    Raises:
        UsageError: The folder for logs has a space or another character that job scripts take amiss.
    """
    job, kind = settings.job, settings.kind
    _class_of(kind)  # its configuration is read with it
    if not set(str(logs)) <= PLAIN:
        raise UsageError(
            f"Job scripts cannot name the folder {logs}: it has a space or another special character.",
            do="Give a plain one with cluster.job.logs in the recipe.",
        )
    cores, memory = job.workers * settings.threads_per_worker, parse_memory(job.memory)
    leave, stagger = lifetime(parse_walltime(job.walltime))
    found: dict[str, Any] = {
        "cores": job.workers * threads_of(settings),
        "processes": job.workers,
        "memory": f"{memory} B",
        "walltime": clock_text(parse_walltime(job.walltime)),
        "queue": job.queue,
        "interface": job.interface,
        "local_directory": job.scratch,
        "log_directory": str(logs),
        "job_name": "wetmap",
        "job_extra_directives": [*(job.directives or _of_site(kind, "job-extra-directives"))],
        "job_script_prologue": [
            *_settings_of_workers(settings.threads_per_worker),
            *(job.prologue or _of_site(kind, "job-script-prologue")),
        ],
        "python": shlex.quote(job.python or sys.executable),
        "death_timeout": FIND_SCHEDULER_S,
        "worker_extra_args": ["--lifetime", f"{leave}s", "--lifetime-stagger", f"{stagger}s", "--no-dashboard"],
        "scheduler_options": {"port": job.port, "dashboard_address": "127.0.0.1:0"},
    }
    match kind:
        case "slurm":
            found |= {"account": job.account, "job_cpu": cores}
        case "pbs":
            asked = f"select=1:ncpus={cores}:mem={-(-memory // 2**20)}MB"
            found |= {"account": job.account, "resource_spec": asked}
        case "sge":
            found |= {"project": job.account, "resource_spec": f"h_vmem={-(-memory // (cores * 2**20))}M"}
            if cores > 1:
                found["job_extra_directives"].insert(0, f"-pe smp {cores}")
    return found


def _of_site(kind: str, name: str) -> list[str]:
    """What dask-jobqueue's own configuration says, which a site may have written for all its users."""
    import dask

    said = dask.config.get(f"jobqueue.{kind}.{name}", None) or []
    return [f"{key} {value}".strip() for key, value in said.items()] if isinstance(said, dict) else list(said)


def _settings_of_workers(threads: int) -> list[str]:
    """Lines of shell: how Dask's processes on the nodes are set up, which read it from variables.

    A block's memory is planned, and Dask's data is small: pausing and spilling would only stop workers for good. What
    goes beyond its part of the job all the same is ended at 95 %, before the queue ends the whole job.
    """
    values = {
        "NANNY__PRE_SPAWN_ENVIRON": json.dumps(thread_limits(threads)),
        "WORKER__MEMORY__TARGET": "False",
        "WORKER__MEMORY__SPILL": "False",
        "WORKER__MEMORY__PAUSE": "False",
        "ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
    }
    return [f"export DASK_DISTRIBUTED__{name}={shlex.quote(value)}" for name, value in values.items()]


def job_script(settings: Cluster, logs: Path) -> str:
    """The script of a job as it would be submitted, with a stand-in for the scheduler's address."""
    found = options(settings, logs)
    found.pop("scheduler_options")
    made: str = _class_of(settings.kind).job_cls("tcp://HOST:PORT", name="wetmap-0", **found).job_script()
    return made


def start(settings: Cluster, told: Greeting, logs: Path, say: Callable[[str], None]) -> JobsCrew:
    """Submit jobs, and have as many of them there as the recipe says; the crew's stack ends them.

    Raises:
        ClusterError: dask-jobqueue or the batch system is missing, or refuses a job.
    """
    import dask

    make, kind = _class_of(settings.kind), settings.kind
    if shutil.which(queues.SUBMIT[kind]) is None:
        raise ClusterError(
            f"cluster.kind is {kind}, and there is no {queues.SUBMIT[kind]} on this machine.",
            do="Run the command where jobs are submitted, such as the login node, or with --cluster local.",
        )
    found = options(settings, logs)
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            dask.config.set(
                {
                    "distributed.admin.system-monitor.gil.enabled": False,
                    "distributed.comm.timeouts.connect": "60s",
                    "distributed.scheduler.allowed-failures": DEATHS_ALLOWED,
                    "distributed.deploy.lost-worker-timeout": f"{REPLACED_AFTER_S}s",
                }
            )
        )
        if settings.job.encrypted:
            found |= {"security": True, "shared_temp_directory": str(folder_of(told))}
        cluster = _make(make, found, settings)
        stack.callback(queues.forget, kind)
        stack.callback(_close, cluster)
        crew = JobsCrew(cluster, cluster.get_client(), kind, logs, told, say, stack)
        cluster.loop.asyncio_loop.set_exception_handler(crew.hear)
        stack.callback(crew.client.close)
        _submit(cluster, settings)
        crew.note_jobs()
        cluster.adapt(
            minimum_jobs=settings.fewest_jobs,
            maximum_jobs=settings.jobs,
            interval=ADAPT_EVERY_S,
            wait_count=IDLE_LOOKS,
            target_duration=f"{WORTH_A_WORKER_S}s",
        )
        _tell(crew, settings)
        crew.stack = stack.pop_all()
    return crew


def folder_of(told: Greeting) -> Path:
    """The folder of the workspace that workers must see; keys are files in it that only the user may read."""
    return (told.token or Path.cwd()).parent


def _make(make: Any, found: dict[str, Any], settings: Cluster) -> Any:
    try:
        return make(**found, silence_logs=logging.CRITICAL)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ClusterError(
            f"The scheduler for workers of {settings.kind} cannot be started here ({error}).",
            do="Look at cluster.job.interface and cluster.job.port: `ip address` lists the interfaces of this machine.",
        ) from error


def _submit(cluster: Any, settings: Cluster) -> None:
    """Submit the first jobs, and wait until the batch system took them."""

    async def submit() -> None:
        for _ in range(settings.fewest_jobs):
            cluster.worker_spec.update(cluster.new_worker_spec())
        await cluster  # unlike cluster.scale, which leaves errors to a log

    try:
        cluster.sync(submit)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"{queues.SUBMIT[settings.kind]} refused a job: {refused_because(str(error))}.",
            do="Mend cluster.job in the recipe (queue, account, memory, walltime, ...), or ask for fewer --workers.",
        ) from error


def refused_because(text: str) -> str:
    """What the batch system printed, from the message of dask-jobqueue around it, in one line."""
    _, found, rest = text.partition("stderr:")
    lines = (rest if found else text).replace("sbatch: error: ", "").strip().splitlines()
    return " ".join(" ".join(lines).split()).rstrip(".") or "it gives no reason"


def _close(cluster: Any) -> None:
    from distributed.core import Status

    for job in list(cluster._created):  # noqa: SLF001
        job.status = Status.closed  # Dask insists on that in the end, and dask-jobqueue never says so
    with contextlib.suppress(RuntimeError, OSError, TimeoutError):
        cluster.close(timeout=30)
    for name, value in vars(cluster).items():
        if name.startswith("_job_") and hasattr(value, "close"):  # keys and certificates, which go with their files
            with contextlib.suppress(OSError):
                value.close()


def _tell(crew: JobsCrew, settings: Cluster) -> None:
    count = settings.jobs * settings.job.workers
    asked = "" if settings.fewest_jobs == settings.jobs else f", up to {settings.jobs} as work comes"
    crew.say(
        f"cluster: {_counted(settings.fewest_jobs, 'job')} of {crew.kind} ({numbers_text(crew.jobs)}){asked}, "
        f"{_counted(count, 'worker')} in all; they print to {crew.logs}"
    )
    services = crew.cluster.scheduler_info.get("services", {})
    if "dashboard" in services:
        crew.say(f"scheduler dashboard: http://127.0.0.1:{services['dashboard']}/status")


def numbers_text(jobs: set[str]) -> str:
    """Numbers of jobs for people: ranges where they follow each other."""
    found: list[list[int]] = []
    for number in sorted(int(job) for job in jobs):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found) or "none"


def states_text(states: dict[str, str] | None) -> str:
    """What the batch system says of jobs, in few words: ``2 PENDING Resources, 1 RUNNING``."""
    if states is None:
        return "nothing, it does not answer"
    counts = Counter(state.removesuffix(" None") for state in states.values())
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def last_words(logs: Path) -> str:
    """The last line of the youngest log, in 200 characters at most."""
    with contextlib.suppress(OSError):
        files = sorted((path for path in logs.iterdir() if path.is_file()), key=lambda path: path.stat().st_mtime)
        for path in reversed(files):
            with path.open("rb") as file:
                file.seek(max(path.stat().st_size - 4096, 0))
                lines = file.read().decode(errors="replace").strip().splitlines()
            if lines:
                return f"{path.name}: {lines[-1].strip()[:200]}"
    return ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _class_of(kind: str) -> Any:
    try:
        return getattr(importlib.import_module("dask_jobqueue"), CLASSES[kind])
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"cluster.kind is {kind}, and dask-jobqueue is not installed.",
            do="Install it: pip install 'wetmap[cluster]'",
        ) from error
