"""Worker processes of this machine: a Dask cluster that comes back by itself when one of them dies."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

from wetmap.cluster.limits import environment, thread_limits
from wetmap.cluster.stream import DEATHS_ALLOWED
from wetmap.errors import WorkersLostError

#: Seconds that a worker process may take to be there; its libraries are imported once, before, in two or three.
START_WITHIN_S = 120.0
#: What worker processes are made with; single packages that are not there are passed over.
PRELOADED = (
    "distributed",
    "distributed.nanny",
    "distributed.worker",
    "numpy",
    "zarr",
    "torch",
    "wetmap.cluster",
    "wetmap.cluster.quick_exit",
)


@dataclass(frozen=True)
class LocalCrew:
    """Processes of this machine, and what they were started for."""

    cluster: Any
    client: Client
    count: int
    at_once: int
    stack: contextlib.ExitStack
    told: None = None

    def alive(self) -> list[str]:
        """Addresses of the processes that are there."""
        return list(self.cluster.scheduler.workers)

    def expects_more(self) -> bool:
        """Never for long: processes come back within seconds."""
        return False

    def lost(self, waited_s: float) -> WorkersLostError:
        """The error where none came back."""
        return WorkersLostError(
            f"All {self.count} worker processes ended, and none came back within {waited_s:.0f} s.",
            do="Run the same command again: what is finished stays. If memory ran out, give --memory or --workers.",
        )


def prepare(threads: int, *modules: str) -> None:
    """Begin to make what worker processes are made from, beside whatever this process does meanwhile."""
    if sys.platform == "linux":
        from multiprocessing import forkserver, get_context

        get_context("forkserver").set_forkserver_preload([*PRELOADED, *modules])
        with environment(**thread_limits(threads)), _deaf_to_ctrl_c():
            forkserver.ensure_running()


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started here do not hear Ctrl-C, and this one not for that moment.

    The one that leads ends the others; one that heard it while it imports libraries would fill the screen.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start(scratch: Path, threads: int, count: int, at_once: int) -> LocalCrew:
    """Start worker processes; the crew's stack ends them.

    Raises:
        WorkersLostError: One of them ended while it started.
    """
    import dask
    from distributed import LocalCluster

    start_cluster: Any = LocalCluster  # distributed leaves it untyped
    scratch.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            dask.config.set(
                {
                    "distributed.worker.multiprocessing-method": prepare_processes(),
                    # for a dashboard that nobody is told of: to look at every thread a hundred times a second took a
                    # twentieth of each core
                    "distributed.worker.profile.enabled": False,
                    "distributed.admin.tick.interval": "500ms",
                    "distributed.admin.system-monitor.interval": "5s",
                    "distributed.admin.system-monitor.gil.enabled": False,
                    "distributed.comm.timeouts.connect": "60s",
                    "distributed.scheduler.allowed-failures": DEATHS_ALLOWED,
                    "distributed.nanny.pre-spawn-environ": thread_limits(threads),
                }
            )
        )
        cluster = stack.enter_context(
            _begun(
                count,
                lambda: start_cluster(
                    n_workers=count,
                    threads_per_worker=at_once,
                    processes=True,
                    host="127.0.0.1",
                    protocol="tcp",
                    dashboard_address="127.0.0.1:0",  # None means port 8787 on every interface
                    scheduler_kwargs={"dashboard": False},  # nobody is told of it, and Bokeh takes a second to load
                    silence_logs=logging.CRITICAL,  # what fails is told by us, in one line
                    local_directory=str(scratch),
                    memory_limit=0,
                    death_timeout=START_WITHIN_S,
                ),
            )
        )
        client = stack.enter_context(cluster.get_client())
        return LocalCrew(cluster, client, count, at_once, stack.pop_all())


def _begun(count: int, make: Callable[[], Any]) -> Any:
    """A cluster whose processes are all there."""
    try:
        return make()
    except (RuntimeError, TimeoutError) as error:  # what distributed says when one of them does not come
        raise WorkersLostError(
            f"One of {count} worker processes ended, or did not answer, while they started ({error}).",
            do="Run the same command again. If memory ran out, give --memory or fewer --workers.",
        ) from error


def tidy(scratch: Path) -> None:
    """Remove what worker processes left that were killed; Dask locks what is in use, and that stays."""
    place = scratch / "dask-scratch-space"
    if any(place.glob("*.dirlock")):
        from distributed.diskutils import WorkSpace

        space: Any = WorkSpace(str(place))
        space.new_work_dir(prefix="tidy-").release()  # making one purges what nobody holds


def prepare_processes() -> str:
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
