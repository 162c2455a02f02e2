"""How many threads the libraries of a process may start, and how many tasks it works on at a time."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

#: What libraries ask about the threads that they may start: OpenMP, MKL, OpenBLAS, numexpr, GDAL.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "GDAL_NUM_THREADS",
)

_limits = contextlib.ExitStack()
_limited_to: list[int] = []
_places: dict[int, threading.Semaphore] = {}
_once = threading.Lock()


def limit_this_process(threads: int) -> None:
    """See to the threads of a worker process, once."""
    with _once:
        if _limited_to != [threads]:
            _limits.close()
            _limits.enter_context(limited_threads(threads))
            _limited_to[:] = [threads]


def place(at_once: int) -> threading.Semaphore:
    """What a task of this worker process holds while it works: so many of them at a time, however many threads it has.

    The threads of a worker are as many as its stages need at most, and they stay from stage to stage.
    """
    with _once:
        return _places.setdefault(at_once, threading.Semaphore(at_once))


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
        with environment(**thread_limits(threads)), threadpool_limits(threads), zarr.config.set(_zarr_limits(threads)):
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


def thread_limits(threads: int) -> dict[str, str]:
    """What libraries ask about their threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def _zarr_limits(threads: int) -> dict[str, int]:
    return {"threading.max_workers": threads, "async.concurrency": threads}
