"""Streaming items through running workers: few in flight, errors as results, and what becomes of the dead."""

from __future__ import annotations

import queue
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from distributed import Client

from wetmap.cluster.check import Answer, Greeting, answer, differences, look_once, refusal
from wetmap.cluster.limits import limit_this_process, place
from wetmap.errors import ClusterError, WetmapError, WorkersLostError

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


@dataclass(frozen=True)
class Call(Generic[Item, Result]):
    """A function as a worker is handed it: it first sees to the process that it is called in. It holds no handles."""

    function: Callable[[Item], Result]
    threads: int
    """Threads that libraries may start."""
    at_once: int
    """Tasks that a worker works on at a time."""
    told: Greeting | None
    """What the worker must be like; None for a process of this machine."""

    def __call__(self, item: Item) -> Result:
        """See to the process, and call the function.

        Raises:
            ClusterError: The worker differs from the process that leads.
        """
        if self.told is not None:
            look_once(self.told)
        limit_this_process(self.threads)
        try:
            with place(self.at_once):
                return self.function(item)
        except MemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold what took the memory, and Dask needs some to go on
            raise


class Crew(Protocol):
    """Running workers, wherever they are."""

    @property
    def client(self) -> Client:
        """Through which they are handed tasks."""

    @property
    def told(self) -> Greeting | None:
        """What they must be like; None: they are of this machine."""

    def alive(self) -> list[str]:
        """Addresses of the workers that are there."""

    def expects_more(self) -> bool:
        """Whether workers may still come though there is none, such as those of jobs that wait in a queue."""

    def lost(self, waited_s: float) -> WorkersLostError:
        """The error where nobody is there, and nobody comes."""


def through(
    crew: Crew, call: Callable[[Item], Result], items: Iterable[Item], in_flight: int
) -> Iterator[tuple[Item, Result | BaseException]]:
    """Stream items through workers, so many in flight, and give each result or exception as it comes.

    A worker that dies takes the tasks beside it along. Items that were hit too often are set aside and tried alone at
    the end, which shows which of them is to blame.

    Raises:
        ClusterError: A worker differs from this process.
        WorkersLostError: All workers are gone and none comes back.
    """
    suspects: list[Item] = []
    for item, result in _stream(crew, call, items, in_flight):
        if _killed(result):
            suspects.append(item)
        else:
            yield item, result
    for item, result in _stream(crew, call, suspects, 1):
        yield item, _blame(result) if _killed(result) else result


def _stream(
    crew: Crew, call: Callable[[Item], Result], items: Iterable[Item], in_flight: int
) -> Iterator[tuple[Item, Result | BaseException]]:
    waiting = iter(items)
    arrived: queue.SimpleQueue[Future] = queue.SimpleQueue()
    owner: dict[Any, tuple[Future, Item]] = {}

    def submit(item: Item) -> None:
        future: Future = crew.client.submit(call, item, pure=False)
        owner[future.key] = future, item
        future.add_done_callback(arrived.put)

    for item in take(waiting, in_flight):
        submit(item)
    while owner:
        future = _next(crew, arrived)
        kept = owner.pop(future.key)
        result = _outcome(crew, future)
        future.release()
        for following in take(waiting, 1):
            submit(following)
        yield kept[1], result


def _next(crew: Crew, arrived: queue.SimpleQueue[Future]) -> Future:
    watch = _Watch(crew)
    while True:
        try:
            return arrived.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            watch.look()


def _outcome(crew: Crew, future: Future) -> Any:
    """The result or the exception; a result that died with its worker is made anew meanwhile."""
    watch = _Watch(crew)
    while True:
        try:
            error: BaseException | None = future.exception(timeout=LOOK_EVERY_S)
            result = future.result(timeout=LOOK_EVERY_S) if error is None else error
        except TimeoutError:
            watch.look()
            continue
        except CancelledError as gone:
            raise crew.lost(0.0) from gone  # the scheduler went away with all it knew
        if isinstance(result, ClusterError):
            raise result
        if isinstance(result, ModuleNotFoundError) and _of_wetmap(result):
            greet(crew, crew.alive())
        return result


def _of_wetmap(error: ModuleNotFoundError) -> bool:
    return (error.name or "").partition(".")[0] == "wetmap"


def greet(crew: Crew, addresses: list[str]) -> None:
    """Compare workers with this process.

    Raises:
        ClusterError: One of them differs; the first is named, with what differs.
    """
    if crew.told is None or not addresses:
        return
    found = crew.client.run(answer, crew.told, workers=addresses, on_error="return")
    refused = [error for error in (judge(crew.told, address, said) for address, said in found.items()) if error]
    if refused:
        more = f" {len(refused) - 1} more workers differ too." if len(refused) > 1 else ""
        raise ClusterError(refused[0].what + more, do=refused[0].do)


def judge(told: Greeting, address: str, said: Answer | BaseException) -> WetmapError | None:
    """What is wrong with a worker, from what it said; None where nothing is, or where it left meanwhile."""
    if isinstance(said, Answer):
        apart = differences(told, said)
        return None if apart is None else refusal(said.host, said.executable, apart)
    if isinstance(said, ModuleNotFoundError):
        return refusal(address, "its Python", f"has no module {said.name}, which wetmap needs")
    if isinstance(said, OSError):
        return None
    return refusal(address, "its Python", f"cannot be asked ({type(said).__name__}: {said})")


class _Watch:
    """Notices that all workers are gone and stay away."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._seen = time.monotonic()

    def look(self) -> None:
        """Look once.

        Raises:
            WorkersLostError: There has been no worker for ``LOST_AFTER_S``, and none is expected.
        """
        now = time.monotonic()
        if self._crew.alive() or self._crew.expects_more():
            self._seen = now
        elif now - self._seen > LOST_AFTER_S:
            raise self._crew.lost(LOST_AFTER_S)


def _killed(result: object) -> bool:
    from distributed.scheduler import KilledWorker

    return isinstance(result, KilledWorker)


def _blame(result: Any) -> WorkersLostError:
    """What is said of an item that ended its worker in both rounds."""
    deaths = 2 * (int(result.allowed_failures) + 1)
    return WorkersLostError(
        f"The worker process died each of the {deaths} times that it worked on this.",
        do="If memory ran out, give --memory or a smaller --block-px; in jobs, more cluster.job.memory.",
    )


def take(items: Iterator[Item], count: int) -> Iterator[Item]:
    """The next few items, as many as there are."""
    for _ in range(count):
        try:
            yield next(items)
        except StopIteration:
            return
