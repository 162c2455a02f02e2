"""Several processes that train one network: who starts them, how they meet, and what becomes of them.

One process leads: the one that runs the verb, or the first that torchrun started. It alone reads and writes the
workspace. The others follow: they wait for a fit, are handed all it needs, take their part in it, and wait for the
next. On one machine the leading process starts the others itself and ends them with the fit.

What is handed over is pickled, but only between processes of one run; no pickle is ever read from a file.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import nn

from wetmap.cluster import environment
from wetmap.errors import TrainingError, WetmapError
from wetmap.recipe import Training
from wetmap.training.checkpoint import FitState
from wetmap.training.seat import ALONE, Seat

if TYPE_CHECKING:
    from wetmap.training.fit import FitRun, SampleSet

#: PyTorch does not export what is used of it here to type checkers.
dist: Any = torch.distributed
Store = Any

#: Longest wait for a message within a fit: the others wait while the leading process saves an epoch.
WITHIN_FIT = timedelta(minutes=30)
#: Longest wait for a fit: the leading process may have imagery to fetch first.
FOR_A_FIT = timedelta(days=30)
#: Seconds that a process is given to end by itself.
TO_END_S = 15.0
#: What torchrun tells a process about its place.
TORCHRUN = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
#: Files of the processes that were started here, in a folder of their own.
MEETING_FILE, LOG_FILE, ERROR_FILE = "meeting", "process-{}.log", "process-{}.error"

_FIT, _END = "fit", "end"
_AGAIN = "Run the same command again; it goes on from the last finished epoch."
_CODE = "from wetmap.training.ranks import follow_parent; follow_parent()"


@dataclass(frozen=True)
class FitJob:
    """All that a fit needs, in every process that takes part."""

    model: nn.Module
    """The network as the fit begins, on the CPU."""
    train: SampleSet
    """Training samples."""
    validation: SampleSet
    """Samples that choose the epoch."""
    settings: Training
    """The recipe's training part."""
    run: FitRun
    """Classes, seed and threads; the folder is the leading process's."""
    start: FitState | None
    """Where an earlier run stopped."""


@contextlib.contextmanager
def together(job: FitJob) -> Iterator[Seat]:
    """Gather the processes that are to take part in a fit and hand them the job; they train until the block ends.

    Under torchrun these are all of its processes, otherwise as many as ``training.devices`` says.

    Args:
        job: The fit.

    Yields:
        The seat of this process, which leads.

    Raises:
        TrainingError: There are fewer GPUs than devices asked for, or another process failed.
    """
    seat = torchrun_seat()
    if seat is None:
        seat = Seat(0, process_count(job.settings.devices), 0, process_count(job.settings.devices))
    if seat.ranks == 1:
        yield ALONE
    elif torchrun_seat() is not None:
        with _turn(_torchrun_store(), seat, next(_turns), job):
            yield seat
    else:
        with _Children(seat.ranks) as children, children.failures_named(), _turn(children.store, seat, 1, job):
            children.watch()
            yield seat


def process_count(devices: int) -> int:
    """Processes that ``training.devices`` asks for on this machine.

    Raises:
        TrainingError: There are GPUs, and fewer than that.
    """
    gpus = torch.cuda.device_count()
    if devices == 0:
        return max(gpus, 1)
    if gpus and devices > gpus:
        raise TrainingError(
            f"training.devices is {devices}, and this machine has {gpus} GPU{'s' if gpus > 1 else ''}.",
            do="Give at most that many, or 0 for all of them.",
        )
    return devices


def torchrun_seat() -> Seat | None:
    """The place that torchrun gave this process; None without torchrun."""
    if not all(name in os.environ for name in TORCHRUN):
        return None
    return Seat(*(int(os.environ[name]) for name in TORCHRUN[1:]))


def follow_torchrun() -> None:
    """Take part in the fits of the process that leads, until that one dismisses the others."""
    seat = torchrun_seat() or ALONE
    _follow(_torchrun_store(), seat)


def dismiss() -> None:
    """Let the other processes of torchrun end; for the leading process when all fits are done."""
    seat = torchrun_seat()
    if seat is not None and seat.ranks > 1 and seat.leads:
        _torchrun_store().set(f"turn-{next(_turns)}", _END)


def follow_parent() -> None:
    """Take part in one fit of the process that started this one; the folder, rank and ranks are the arguments."""
    folder, rank, ranks = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Ctrl-C is for the process that leads; when that one ends, so does this
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()

    def leave_word(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        said = str(error) if isinstance(error, WetmapError) else f"{kind.__name__}: {error}"
        (folder / ERROR_FILE.format(rank)).write_text(said, encoding="utf-8")
        traceback.print_exception(kind, error, trace)
        sys.stderr.flush()
        os._exit(1)  # what is left of a broken connection may abort the process

    sys.excepthook = leave_word
    _follow(dist.FileStore(str(folder / MEETING_FILE), ranks), Seat(rank, ranks, rank, ranks))


def _follow(store: Store, seat: Seat) -> None:
    from wetmap.training.fit import take_part

    for turn in itertools.count(1):
        store.set(f"ready-{turn}-{seat.rank}", "")
        store.wait([f"turn-{turn}"], FOR_A_FIT)
        if store.get(f"turn-{turn}").decode() == _END:
            return
        with _group(store, seat, turn):
            take_part(_handed_over(None), seat)


@contextlib.contextmanager
def _turn(store: Store, seat: Seat, turn: int, job: FitJob) -> Iterator[None]:
    """One fit, in the process that leads."""
    store.set(f"turn-{turn}", _FIT)
    with _group(store, seat, turn):
        _handed_over(job)
        yield


@contextlib.contextmanager
def _group(store: Store, seat: Seat, turn: int) -> Iterator[None]:
    """The connection between the processes for one fit."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(seat.local_rank)
    last_words = sys.excepthook  # PyTorch puts its own in front
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=dist.PrefixStore(f"fit-{turn}", store),
        rank=seat.rank,
        world_size=seat.ranks,
        timeout=WITHIN_FIT,
    )
    done = False
    try:
        yield
        done = True
    finally:
        if not done and on_gpu:
            abort_group()  # others may never come to where NCCL waits for them
        dist.destroy_process_group()
        sys.excepthook = last_words


def abort_group() -> None:
    """Break off whatever the connection is waiting for."""
    if dist.is_initialized() and dist.group.WORLD is not None:
        dist.group.WORLD.abort()


def _handed_over(job: FitJob | None) -> FitJob:
    """The job of the process that leads, in every process."""
    box: list[Any] = [job]
    dist.broadcast_object_list(box, src=0)
    found: FitJob = box[0]
    return found


_turns = itertools.count(1)
_store: list[Store] = []


def _torchrun_store() -> Store:
    """What torchrun's processes leave messages in; one for the life of the process."""
    if not _store:
        _store.append(next(iter(dist.rendezvous("env://", timeout=FOR_A_FIT)))[0])
    return _store[0]


def _end_with_parent(folder: Path) -> None:
    """Leave when the pipe from the parent closes, which the system does however the parent ends."""
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


class _Children:
    """The processes that the leading one starts on its own machine; none of them outlives the block."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._stack = contextlib.ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()

    def __enter__(self) -> _Children:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wetmap-ranks-")))
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
        # nobody outside this machine need reach its processes
        self._stack.enter_context(environment(GLOO_SOCKET_IFNAME=loopback))
        self.store = dist.FileStore(str(self._folder / MEETING_FILE), self._ranks)
        self._stack.callback(self._end)
        try:
            for rank in range(1, self._ranks):
                self._processes[rank] = self._start(rank)
        except OSError:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for process in self._processes.values():
                process.kill()
        self._stack.close()

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self._folder / LOG_FILE.format(rank)).open("wb"))
        command = [sys.executable, "-c", _CODE, str(self._folder), str(rank), str(self._ranks)]
        # classes of the caller's own modules are found where the caller finds them
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)  # noqa: S603

    @contextlib.contextmanager
    def failures_named(self) -> Iterator[None]:
        """Wait for all processes; then turn a broken connection into what broke it."""
        waiting = [f"ready-1-{rank}" for rank in self._processes]
        while not all(self.store.check([key]) for key in waiting):
            self._raise_failure(None)
            time.sleep(0.05)
        try:
            yield
        except RuntimeError as error:  # so gloo and NCCL call a connection that broke
            until = time.monotonic() + TO_END_S
            while time.monotonic() < until:
                self._raise_failure(error)
                time.sleep(0.05)
            raise

    def watch(self) -> None:
        """Do not wait for ever for a process that is gone; gloo notices by itself, NCCL may not."""
        threading.Thread(target=self._abort_when_one_is_gone, daemon=True).start()

    def _abort_when_one_is_gone(self) -> None:
        while not self._over.wait(1.0):
            if self._failed() is not None:
                if not self._over.wait(TO_END_S) and torch.cuda.is_available():
                    abort_group()
                return

    def _failed(self) -> int | None:
        return next((rank for rank, process in self._processes.items() if process.poll() not in (None, 0)), None)

    def _raise_failure(self, cause: Exception | None) -> None:
        rank = self._failed()
        if rank is None:
            return
        status, who = self._processes[rank].returncode, f"Process {rank + 1} of {self._ranks} of this training"
        error, log = (self._folder / name.format(rank) for name in (ERROR_FILE, LOG_FILE))
        if status < 0 and not error.exists():
            raise TrainingError(
                f"{who} was ended by {signal.Signals(-status).name}.",
                do="If memory ran out, lower training.devices or training.batch_size. " + _AGAIN,
            ) from cause
        if error.exists():
            said = " ".join(error.read_text(encoding="utf-8").split())
        else:
            said = f"exit status {status}: {_last_line(log)}"
        raise TrainingError(f"{who} failed ({said}).", do=_AGAIN) from cause

    def _end(self) -> None:
        self._over.set()
        self.store.set("turn-2", _END)
        until = time.monotonic() + TO_END_S
        for process in self._processes.values():
            # a fit that ended well leaves them waiting for the next, and this is none
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(until - time.monotonic(), 0.0))
            process.kill()
            process.communicate()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
