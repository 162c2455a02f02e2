"""A Dask client from the recipe, and bounded streaming of tasks through it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from distributed import Client, Future

from wetmap.errors import WetmapError, full_disk
from wetmap.recipe import Cluster

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Tasks handed out per worker: one running, one waiting, so that a worker never idles and the scheduler never holds
#: more than a few tasks of a province's thousands.
IN_FLIGHT_PER_WORKER = 2


class Workers:
    """Worker processes, started at the first use."""

    def __init__(self, settings: Cluster, scratch: Path) -> None:
        self.count = settings.workers or os.cpu_count() or 1
        self.threads = settings.threads_per_worker
        self._scratch = scratch
        self._client: Client | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._client = None

    def stream(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | BaseException]]:
        """Run ``function`` on every item and give each result, or the exception, as it comes.

        A few tasks per worker are in flight at any time. Items and results must pickle; handles are opened inside.
        """
        from distributed import as_completed

        client = self._connect()
        waiting = iter(items)
        owner: dict[Future[Any], Item] = {}
        running = as_completed()  # type: ignore[no-untyped-call]  # distributed types it not
        for item in _take(waiting, IN_FLIGHT_PER_WORKER * self.count):
            self._submit(client, function, item, owner, running)
        for future in running:
            item = owner.pop(future)
            error = future.exception() if future.status == "error" else None
            result = future.result() if error is None else error
            future.release()
            for following in _take(waiting, 1):
                self._submit(client, function, following, owner, running)
            yield item, result

    @staticmethod
    def _submit(
        client: Client, function: Callable[[Item], Result], item: Item, owner: dict[Future[Any], Item], running: Any
    ) -> None:
        future = client.submit(function, item, pure=False)
        owner[future] = item
        running.add(future)

    def _connect(self) -> Client:
        if self._client is None:
            import dask
            from distributed import Client, LocalCluster

            start_cluster: Any = LocalCluster  # distributed leaves these two untyped
            start_client: Any = Client

            self._scratch.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(
                dask.config.set(
                    {"distributed.admin.system-monitor.gil.enabled": False, "distributed.comm.timeouts.connect": "60s"}
                )
            )
            cluster = self._stack.enter_context(
                start_cluster(
                    n_workers=self.count,
                    threads_per_worker=1,
                    processes=self.count > 1,
                    host="127.0.0.1",
                    protocol="tcp",
                    dashboard_address="127.0.0.1:0",  # None means port 8787 on every interface
                    silence_logs=logging.CRITICAL,  # what fails is told by us, in one line
                    local_directory=str(self._scratch),
                    memory_limit=0,
                )
            )
            self._client = self._stack.enter_context(start_client(cluster))
        return self._client


def _take(items: Iterator[Item], count: int) -> Iterator[Item]:
    for _ in range(count):
        try:
            yield next(items)
        except StopIteration:
            return


def explain(error: BaseException) -> str:
    """One line about why a task failed, for the ledger and the summary."""
    if isinstance(error, WetmapError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return str(full_disk(error))
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
