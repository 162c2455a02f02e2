"""Worker processes from the recipe, and bounded streaming of tasks through them.

One worker is this process itself: two of its threads take tasks in turn, and nothing has to be started. Several are
processes of a Dask cluster on this machine, which comes back by itself when one of them dies.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from concurrent.futures import Future as LocalFuture
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from distributed import Client

from wetmap.budget import parse_memory
from wetmap.errors import WetmapError, WorkersLostError, full_disk
from wetmap.recipe import Cluster

#: A future of distributed, which types it not.
Future = Any
Item = TypeVar("Item")
Result = TypeVar("Result")

#: Tasks handed out per worker beyond those that it works on, so that it never idles and the scheduler never holds more
#: than a few tasks of a province's thousands.
WAITING_PER_WORKER = 1
#: A worker may die this often under a task before the task is set aside and tried alone.
DEATHS_ALLOWED = 1
#: Seconds without any worker after which nobody is waited for any more; a new process is there within ten.
LOST_AFTER_S = 60.0
#: Seconds between looks at whether there are workers.
LOOK_EVERY_S = 1.0
#: What worker processes are made with; single packages that are not there are passed over.
PRELOADED = ("distributed", "distributed.nanny", "distributed.worker", "numpy", "zarr", "torch", "wetmap.cluster")
#: What libraries ask about the threads that they may start: OpenMP, MKL, OpenBLAS, numexpr, GDAL.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "GDAL_NUM_THREADS",
)


@dataclass(frozen=True)
class _Running:
    """A Dask cluster and what it was started for."""

    cluster: Any
    client: Client
    count: int
    at_once: int
    stack: contextlib.ExitStack


@dataclass(frozen=True)
class _Limited(Generic[Item, Result]):
    """A function that first sees to the threads of the process it is called in."""

    function: Callable[[Item], Result]
    threads: int

    def __call__(self, item: Item) -> Result:
        _limit_this_process(self.threads)
        return self.function(item)


class Workers:
    """Worker processes, started at the first use."""

    def __init__(self, settings: Cluster, scratch: Path) -> None:
        self.threads = settings.threads_per_worker
        self.count = settings.workers or max(1, _cores() // self.threads)
        #: Memory that all processes together may use, bytes; None: no bound.
        self.memory = None if settings.memory is None else parse_memory(settings.memory)
        self._scratch = scratch
        self._running: _Running | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def prepare(self, *modules: str) -> None:
        """Begin to make what worker processes are made from, beside whatever this process does meanwhile.

        Nothing is done where there will be no worker processes, or where memory may forbid them.

        Args:
            modules: What they will need besides the usual libraries.
        """
        if self.count > 1 and self.memory is None and sys.platform == "linux":
            from multiprocessing import forkserver, get_context

            get_context("forkserver").set_forkserver_preload([*PRELOADED, *modules])
            with environment(**_thread_limits(self.threads)):
                forkserver.ensure_running()

    def rest(self) -> None:
        """End the worker processes and free their memory; the next use starts new ones."""
        if self._running is not None:
            self._running.stack.close()
        self._running = None

    def stream(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, at_once: int = 1, count: int | None = None
    ) -> Iterator[tuple[Item, Result | BaseException]]:
        """Run ``function`` on every item and give each result, or the exception, as it comes.

        A few tasks per worker are in flight at any time. Items and results must pickle; handles are opened inside.

        Args:
            function: Of a module, so that it pickles.
            items: Taken as workers need them.
            at_once: Tasks that each worker works on at the same time, in threads.
            count: Workers to use; None: all.

        Raises:
            WorkersLostError: All workers died and none came back.
        """
        count = self.count if count is None else min(count, self.count)
        if count == 1:
            yield from self._here(function, items, at_once)
        else:
            yield from self._spread(function, items, at_once, count)

    def _here(
        self, function: Callable[[Item], Result], items: Iterable[Item], at_once: int
    ) -> Iterator[tuple[Item, Result | BaseException]]:
        self.rest()
        waiting = iter(items)
        owner: dict[LocalFuture[Result], Item] = {}
        with limited_threads(self.threads), ThreadPoolExecutor(at_once, thread_name_prefix="block") as pool:
            try:
                for item in _take(waiting, at_once + WAITING_PER_WORKER):
                    owner[pool.submit(function, item)] = item
                while owner:
                    for future in wait(owner, return_when=FIRST_COMPLETED).done:
                        for following in _take(waiting, 1):
                            owner[pool.submit(function, following)] = following
                        error = future.exception()
                        yield owner.pop(future), future.result() if error is None else error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _spread(
        self, function: Callable[[Item], Result], items: Iterable[Item], at_once: int, count: int
    ) -> Iterator[tuple[Item, Result | BaseException]]:
        running = self._connect(count, at_once)
        call = _Limited(function, self.threads)
        suspects: list[Item] = []
        for item, result in _through(running, call, items, count * (at_once + WAITING_PER_WORKER)):
            if _killed(result):
                suspects.append(item)
            else:
                yield item, result
        # A worker that dies takes the tasks beside it along: alone it shows which of them is to blame.
        for item, result in _through(running, call, suspects, 1):
            yield item, _blame(result) if _killed(result) else result

    def _connect(self, count: int, at_once: int) -> _Running:
        if self._running is not None and (self._running.count, self._running.at_once) != (count, at_once):
            self.rest()
        if self._running is None:
            with contextlib.ExitStack() as stack:
                cluster = _start(stack, self._scratch, self.threads, count, at_once)
                self._running = _Running(cluster, cluster.get_client(), count, at_once, stack.pop_all())
                self._running.stack.enter_context(self._running.client)
        return self._running


def _start(stack: contextlib.ExitStack, scratch: Path, threads: int, count: int, at_once: int) -> Any:
    import dask
    from distributed import LocalCluster

    start_cluster: Any = LocalCluster  # distributed leaves it untyped
    scratch.mkdir(parents=True, exist_ok=True)
    stack.enter_context(
        dask.config.set(
            {
                "distributed.worker.multiprocessing-method": _prepare_processes(),
                "distributed.admin.system-monitor.gil.enabled": False,
                "distributed.comm.timeouts.connect": "60s",
                "distributed.scheduler.allowed-failures": DEATHS_ALLOWED,
                "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREAD_VARIABLES, str(threads)),
            }
        )
    )
    return stack.enter_context(
        start_cluster(
            n_workers=count,
            threads_per_worker=at_once,
            processes=True,
            host="127.0.0.1",
            protocol="tcp",
            dashboard_address="127.0.0.1:0",  # None means port 8787 on every interface
            silence_logs=logging.CRITICAL,  # what fails is told by us, in one line
            local_directory=str(scratch),
            memory_limit=0,
        )
    )


def _prepare_processes() -> str:
    """How worker processes are made. On Linux from one that has imported the libraries once.

    A worker is then there at once, a dead one is replaced at once, and what was imported is held once for all of them.
    """
    if sys.platform != "linux":
        return "spawn"
    import dask
    from distributed import utils

    context_of: Any = utils.get_mp_context
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        context: Any = context_of()  # sets a list of its own at the first call
    context.set_forkserver_preload(list(PRELOADED))
    return "forkserver"


def _through(
    running: _Running, call: Callable[[Item], Result], items: Iterable[Item], in_flight: int
) -> Iterator[tuple[Item, Result | BaseException]]:
    """Stream items through a cluster, so many in flight."""
    waiting = iter(items)
    arrived: queue.SimpleQueue[Future] = queue.SimpleQueue()
    owner: dict[Any, tuple[Future, Item]] = {}

    def submit(item: Item) -> None:
        future: Future = running.client.submit(call, item, pure=False)
        owner[future.key] = future, item
        future.add_done_callback(arrived.put)

    for item in _take(waiting, in_flight):
        submit(item)
    while owner:
        future = _next(running, arrived)
        kept = owner.pop(future.key)
        result = _outcome(running, future)
        future.release()
        for following in _take(waiting, 1):
            submit(following)
        yield kept[1], result


def _next(running: _Running, arrived: queue.SimpleQueue[Future]) -> Future:
    watch = _Watch(running)
    while True:
        try:
            return arrived.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            watch.look()


def _outcome(running: _Running, future: Future) -> Any:
    """The result or the exception; a result that died with its worker is made anew meanwhile."""
    watch = _Watch(running)
    while True:
        try:
            error: BaseException | None = future.exception(timeout=LOOK_EVERY_S)
            return future.result(timeout=LOOK_EVERY_S) if error is None else error
        except TimeoutError:
            watch.look()


class _Watch:
    """Notices that all workers are gone and stay away."""

    def __init__(self, running: _Running) -> None:
        self._running = running
        self._seen = time.monotonic()

    def look(self) -> None:
        """Look once.

        Raises:
            WorkersLostError: There has been no worker for ``LOST_AFTER_S``.
        """
        if self._running.cluster.scheduler.workers:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > LOST_AFTER_S:
            raise WorkersLostError(
                f"All {self._running.count} worker processes ended, and none came back within {LOST_AFTER_S:.0f} s.",
                do="Run the same command again: what is finished stays. If memory ran out, give --memory or --workers.",
            )


def _killed(result: object) -> bool:
    from distributed.scheduler import KilledWorker

    return isinstance(result, KilledWorker)


def _blame(_: object) -> WorkersLostError:
    deaths = 2 * (DEATHS_ALLOWED + 1)
    return WorkersLostError(
        f"The worker process died each of the {deaths} times that it worked on this.",
        do="If memory ran out, give --memory or a smaller --block-px.",
    )


def _take(items: Iterator[Item], count: int) -> Iterator[Item]:
    for _ in range(count):
        try:
            yield next(items)
        except StopIteration:
            return


def _cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


_limits = contextlib.ExitStack()
_limited_to: list[int] = []


def _limit_this_process(threads: int) -> None:
    """See to the threads of a worker process, once."""
    if _limited_to != [threads]:
        _limits.close()
        _limits.enter_context(limited_threads(threads))
        _limited_to[:] = [threads]


@contextlib.contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Let no library of this process start more threads than this; everything is as before afterwards.

    Zarr decodes and writes chunks in a pool of its own, which takes its size at its first use; how many chunks it works
    on at a time is limited as well.
    """
    import zarr
    from threadpoolctl import threadpool_limits

    torch: Any = sys.modules.get("torch")
    torch_before = None if torch is None else torch.get_num_threads()
    try:
        with environment(**_thread_limits(threads)), threadpool_limits(threads), zarr.config.set(_zarr_limits(threads)):
            if torch is not None:
                torch.set_num_threads(threads)
            yield
    finally:
        if torch is not None:
            torch.set_num_threads(torch_before)


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables for as long as it lasts, here and in processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _thread_limits(threads: int) -> dict[str, str]:
    """What libraries ask about their threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def _zarr_limits(threads: int) -> dict[str, int]:
    return {"threading.max_workers": threads, "async.concurrency": threads}


def explain(error: BaseException) -> str:
    """One line about why a task failed, for the ledger and the summary."""
    if isinstance(error, WetmapError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return str(full_disk(error))
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
