"""Workers of a Dask scheduler that runs already, by its address."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

from wetmap.cluster.check import Greeting, answer
from wetmap.cluster.stream import greet, judge
from wetmap.errors import ClusterError, WorkersLostError

#: Seconds that a scheduler is given to answer.
ANSWER_S = 10.0


@dataclass(frozen=True)
class AddressCrew:
    """The workers of somebody else's scheduler. They stay when this process leaves."""

    client: Client
    address: str
    told: Greeting | None
    stack: contextlib.ExitStack

    def alive(self) -> list[str]:
        """Addresses of the workers that are there."""
        if self.client.status != "running":
            return []
        info: Any = self.client.scheduler_info(n_workers=-1)
        return list(info["workers"])

    def expects_more(self) -> bool:
        """Nobody here starts any."""
        return False

    def lost(self, waited_s: float) -> WorkersLostError:
        """The error where they are gone, or the scheduler is."""
        if self.client.status != "running":
            what = f"The scheduler at {self.address} went away."
        else:
            what = f"The scheduler at {self.address} has had no workers for {waited_s:.0f} s."
        return WorkersLostError(
            what,
            do="Start it and its workers (dask worker ADDRESS) and run the same command again: what is finished stays.",
        )


def connect(address: str, told: Greeting, say: Callable[[str], None]) -> AddressCrew:
    """Connect to a scheduler, and compare it and its workers with this process; the crew's stack disconnects.

    Raises:
        ClusterError: Nobody answers there, or somebody differs.
        WorkersLostError: It has no workers.
    """
    import dask
    from distributed import Client
    from distributed.utils import silence_logging_cmgr

    quiet: Any = silence_logging_cmgr
    open_client: Any = Client  # distributed leaves it untyped
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet(logging.CRITICAL))  # what fails is told by us, in one line
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": f"{ANSWER_S:.0f}s"}))
        try:
            client = stack.enter_context(open_client(address, timeout=ANSWER_S, set_as_default=False))
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ClusterError(
                f"No Dask scheduler answers at {address} within {ANSWER_S:.0f} s ({reason}).",
                do="Start one (dask scheduler), or mend the address: it is printed when the scheduler starts.",
            ) from error
        crew = AddressCrew(client, address, told, stack.pop_all())
    try:
        _look_at_all(crew)
        say(f"cluster: {len(crew.alive())} workers of {address}")
        say(f"scheduler dashboard: {client.dashboard_link}")
    except BaseException:
        crew.stack.close()
        raise
    return crew


def _look_at_all(crew: AddressCrew) -> None:
    told = crew.told
    if told is None:
        return
    _compare_scheduler(crew, told)
    workers = crew.alive()
    if not workers:
        raise WorkersLostError(
            f"The scheduler at {crew.address} has no workers.",
            do=f"Start some on machines that share the workspace's disk: dask worker {crew.address}",
        )
    greet(crew, workers)


def _compare_scheduler(crew: AddressCrew, told: Greeting) -> None:
    """The scheduler reads what workers are handed, and need not see the disk."""
    try:
        run: Any = crew.client.run_on_scheduler  # distributed leaves it untyped
        said: Any = run(answer, replace(told, token=None))
    except Exception as error:  # noqa: BLE001 - whatever goes wrong there arrives as it was raised
        said = error
    refused = judge(told, crew.address, said)
    if refused is not None:
        raise ClusterError(refused.what.replace("The worker on", "The scheduler on", 1), do=refused.do)
