"""Workers from the recipe: this process, processes of this machine, jobs of a queue, or those of a scheduler.

One worker of this machine is this process itself: its threads take tasks in turn, and nothing has to be started.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from concurrent.futures import Future as LocalFuture
from pathlib import Path

from wetmap.budget import parse_memory
from wetmap.cluster import address, check, jobs, local
from wetmap.cluster.handfuls import Handful, Handled, InHandfuls, Pairs, in_handfuls
from wetmap.cluster.limits import limited_threads
from wetmap.cluster.stream import WAITING_PER_WORKER, Call, Crew, Item, Result, take, through
from wetmap.recipe import Cluster


class Workers:
    """Workers, started at the first use."""

    def __init__(
        self,
        settings: Cluster,
        scratch: Path,
        *,
        logs: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Nothing is started yet.

        Args:
            settings: The recipe's part.
            scratch: Folder of the workspace for Dask's files, and for the file that workers elsewhere must see.
            logs: Folder for what jobs print; default: in ``scratch``. The recipe's own goes first.
            say: Is told which jobs are asked for, and where the dashboard is.
        """
        self.threads = settings.threads_per_worker
        #: Whether workers are processes of this machine.
        self.local = settings.kind == "local"
        #: Memory that all processes of this machine together may use, bytes; None: no bound.
        self.memory = None if settings.memory is None or not self.local else parse_memory(settings.memory)
        self._settings = settings
        self._scratch = scratch
        self._logs = settings.job.logs or logs or scratch / "job-logs"
        self._say = say
        self._local: local.LocalCrew | None = None
        self._far: jobs.JobsCrew | address.AddressCrew | None = None
        self._far_stack = contextlib.ExitStack()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()
        if self.local:
            local.tidy(self._scratch)

    @property
    def count(self) -> int:
        """Worker processes; of a scheduler that is asked for the first time, those that it has."""
        settings = self._settings
        if settings.workers:
            return settings.workers
        if self.local:
            return max(1, count_cores() // self.threads)
        if settings.kind in jobs.CLASSES:
            return settings.job.workers
        return max(1, len(self._elsewhere().alive()))

    @property
    def worker_memory(self) -> int | None:
        """Memory that blocks of one worker in a job may use, bytes; None: no bound, or one for all together."""
        return jobs.worker_memory(self._settings) if self._settings.kind in jobs.CLASSES else None

    def fetch_pace(self) -> tuple[int, int | None]:
        """How imagery is fetched: blocks at a time in each worker, and workers (None: all).

        On this machine that is in threads of this process: what takes time is done outside of Python's lock (decoding,
        sorting, waiting for a server), and processes would each hold the libraries again.
        """
        if self.local:
            return self.count * self.threads, 1
        return jobs.fetch_at_once(self._settings), None

    def prepare(self, *modules: str) -> None:
        """Begin to make what worker processes are made from, beside whatever this process does meanwhile.

        Nothing is done where there will be no worker processes here, or where memory may forbid them.

        Args:
            modules: What they will need besides the usual libraries.
        """
        if self.local and self.count > 1 and self.memory is None:
            local.prepare(self.threads, *modules)

    def rest(self) -> None:
        """End the worker processes of this machine and free their memory; the next use starts new ones."""
        if self._local is not None:
            self._local.stack.close()
        self._local = None

    def dismiss(self) -> None:
        """End every worker, jobs too: nothing is left to do for a long while. The next use starts new ones."""
        self.rest()
        self._far = None
        self._far_stack.close()

    def stream(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, at_once: int = 1, count: int | None = None
    ) -> Iterator[tuple[Item, Result | BaseException]]:
        """Run ``function`` on every item and give each result, or the exception, as it comes.

        A few tasks per worker are in flight at any time. Items and results must pickle; handles are opened inside.

        Args:
            function: Of a module, so that it pickles.
            items: Taken as workers need them.
            at_once: Tasks that each worker works on at the same time, in threads.
            count: Workers of this machine to use; None: all. Elsewhere all work.

        Raises:
            ClusterError: Workers cannot be had, or differ from this process.
            WorkersLostError: All workers died and none came back.
        """
        waiting = iter(items)
        for first in take(waiting, 1):  # without an item nobody is asked to come
            rest = itertools.chain([first], waiting)
            if not self.local:
                yield from self._far_away(function, rest, at_once)
            elif (wanted := self.count if count is None else min(count, self.count)) == 1:
                yield from self._here(function, rest, at_once)
            else:
                yield from self._spread(function, rest, at_once, wanted)

    def stream_handfuls(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, at_once: int = 1, count: int | None = None
    ) -> Iterator[Pairs[Item, Result]]:
        """As ``stream``, with quick items put together; gives what was done together at once.

        A function that fails, or ends its worker, beside others is called again on each of these items alone.
        """

        def run(
            call: InHandfuls[Item, Result], hands: Iterator[Handful[Item]]
        ) -> Iterator[tuple[Handful[Item], Handled[Result] | BaseException]]:
            return self.stream(call, hands, at_once=at_once, count=count)

        yield from in_handfuls(run, function, items)

    def ask(self, function: Callable[[Item], Result], item: Item) -> Result:
        """What a function says in a worker; in this process, where workers are of this machine.

        Raises:
            ClusterError, WorkersLostError: As ``stream``; and whatever the function raises.
        """
        if self.local:
            return function(item)
        ((_, result),) = self._far_away(function, [item], 1)
        if isinstance(result, BaseException):
            raise result
        return result

    def _here(
        self, function: Callable[[Item], Result], items: Iterable[Item], at_once: int
    ) -> Iterator[tuple[Item, Result | BaseException]]:
        self.rest()
        waiting = iter(items)
        owner: dict[LocalFuture[Result], Item] = {}
        with limited_threads(self.threads), ThreadPoolExecutor(at_once, thread_name_prefix="block") as pool:
            try:
                for item in take(waiting, at_once + WAITING_PER_WORKER):
                    owner[pool.submit(function, item)] = item
                while owner:
                    for future in wait(owner, return_when=FIRST_COMPLETED).done:
                        for following in take(waiting, 1):
                            owner[pool.submit(function, following)] = following
                        error = future.exception()
                        yield owner.pop(future), future.result() if error is None else error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _spread(
        self, function: Callable[[Item], Result], items: Iterable[Item], at_once: int, count: int
    ) -> Iterator[tuple[Item, Result | BaseException]]:
        if self._local is not None and (self._local.count, self._local.at_once) != (count, at_once):
            self.rest()
        if self._local is None:
            self._local = local.start(self._scratch, self.threads, count, at_once)
        call, known = Call(function, self.threads, at_once, None), set(self._local.alive())
        for found in through(self._local, call, items, count * (at_once + WAITING_PER_WORKER)):
            there = set(self._local.alive())
            if gone := known - there:
                self._say(
                    f"{len(gone)} of {count} worker processes died; others take their place, and their blocks are made "
                    "again. If memory ran out, give --memory or fewer --workers."
                )
            known = there
            yield found

    def _far_away(
        self, function: Callable[[Item], Result], items: Iterable[Item], at_once: int
    ) -> Iterator[tuple[Item, Result | BaseException]]:
        crew = self._elsewhere()
        call = Call(function, self.threads, at_once, crew.told)
        # as many as their threads, so that adaptive scaling sees work for all of them
        each = max(at_once + WAITING_PER_WORKER, jobs.threads_of(self._settings))
        yield from through(crew, call, items, self.count * each)

    def _elsewhere(self) -> Crew:
        """The workers that are not of this machine, asked to come if they have not been."""
        if self._far is None:
            with contextlib.ExitStack() as stack:
                told = stack.enter_context(check.greeting(self._scratch))
                if self._settings.kind in jobs.CLASSES:
                    self._far = jobs.start(self._settings, told, self._logs, self._say)
                else:
                    self._far = address.connect(self._settings.kind, told, self._say)
                stack.callback(self._far.stack.close)
                self._far_stack = stack.pop_all()
        return self._far


def count_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
