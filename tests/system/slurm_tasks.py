"""What jobs of the Slurm tests work on; workers import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def note(task: tuple[Path, int, float]) -> str:
    """Take so many seconds, note who did it, and give the number of the job."""
    folder, number, seconds = task
    time.sleep(seconds)
    job = os.environ["SLURM_JOB_ID"]
    (folder / f"{number}-{job}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return job


def die(task: tuple[Path, int]) -> int:
    """Number 3 ends its worker each time."""
    folder, number = task
    if number == 3:
        (folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number
