"""What a batch system says about jobs that were submitted: which of them still wait or run."""

from __future__ import annotations

import contextlib
import getpass
import re
import shutil
import subprocess
from collections.abc import Iterable

#: How each lists its waiting and running jobs, one to a line that begins with the number: `{user}` is filled in.
LIST = {
    "slurm": ("squeue", "-h", "-u", "{user}", "-o", "%A %T %r"),
    "pbs": ("qstat", "-u", "{user}"),
    "sge": ("qstat", "-u", "{user}"),
}
#: How each submits, and ends, jobs.
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub"}
CANCEL = {"slurm": "scancel", "pbs": "qdel", "sge": "qdel"}
#: Seconds that a busy batch system is given to answer.
ANSWER_S = 30.0

_submitted: dict[str, set[str]] = {}


def waiting_or_running(kind: str, jobs: Iterable[str]) -> dict[str, str] | None:
    """Those of some jobs that have not ended, with what the batch system says of them.

    Args:
        kind: ``slurm``, ``pbs`` or ``sge``.
        jobs: Their numbers.

    Returns:
        Numbers and states, the latter as they are printed (``PENDING Resources``); None where it does not answer.
    """
    command = [word.format(user=getpass.getuser()) for word in LIST[kind]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    wanted = set(jobs)
    rows = (re.match(r"\s*(\d+)\S*\s*(.*)", line) for line in done.stdout.splitlines())
    return {row[1]: " ".join(row[2].split()) for row in rows if row is not None and row[1] in wanted}


def remember(kind: str, jobs: Iterable[str]) -> None:
    """Keep in mind which jobs this process submitted."""
    _submitted.setdefault(kind, set()).update(jobs)


def forget(kind: str) -> None:
    """They were ended."""
    _submitted.pop(kind, None)


def cancel_submitted() -> None:
    """Tell the batch system to end what this process submitted, without waiting: for a process that leaves now."""
    for kind, jobs in _submitted.items():
        program = shutil.which(CANCEL[kind])
        if program and jobs:
            with contextlib.suppress(OSError):
                subprocess.Popen(  # noqa: S603
                    [program, *sorted(jobs)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
