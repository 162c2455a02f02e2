"""Telling people and machines what happens: a progress bar on a terminal, plain lines elsewhere, JSON on request."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from wetmap.errors import WetmapWarning

#: Seconds between plain progress lines.
PLAIN_EVERY_S = 5.0


class PlainLines:
    """Lines on standard error, for log files and pipes."""

    def __init__(self) -> None:
        self._stage = ""
        self._last = 0.0

    def stage(self, name: str, state: str) -> None:
        """Begin a stage."""
        self._stage, self._last = name, 0.0
        self.say(f"{name}: {state}")

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far it is, now and then and at the end."""
        now = time.monotonic()
        if done == total or now - self._last > PLAIN_EVERY_S:
            self._last = now
            self.say(f"{self._stage}: {done} of {total} {unit.removesuffix('s') if total == 1 else unit}")

    def say(self, text: str) -> None:
        """Print a line."""
        typer.echo(text, err=True)


class Bars:
    """A rich progress bar on a terminal."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._stage = ""
        self._task: TaskID | None = None

    def stage(self, name: str, state: str) -> None:
        """Begin a stage with a bar of its own."""
        self._close()
        self._stage = name
        self.say(f"{name}: {state}")

    def progress(self, done: int, total: int, unit: str) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._progress.add_task(f"{self._stage} ({unit})", total=total)
        self._progress.update(self._task, completed=done, total=total)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False)

    def _close(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


@contextlib.contextmanager
def listening(*, as_json: bool) -> Iterator[PlainLines | Bars]:
    """A listener on standard error, and our own warnings as lines with a count at the end."""
    console = Console(stderr=True)
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        listener: PlainLines | Bars
        if console.is_terminal and not as_json:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            listener = Bars(console, stack.enter_context(Progress(*columns, console=console, transient=True)))
        else:
            listener = PlainLines()
        stack.enter_context(_warnings_as_lines(listener, counts))
        yield listener
    if counts:
        total = counts.total()
        typer.echo(f"{total} warning{'' if total == 1 else 's'}, above.", err=True)


@contextlib.contextmanager
def _warnings_as_lines(listener: PlainLines | Bars, counts: Counter[str]) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", WetmapWarning)
        before = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, WetmapWarning):
                counts[category.__name__.removesuffix("Warning")] += 1
                listener.say(f"warning: {message}")
            elif sys.warnoptions:
                before(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def emit(summary: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    """The result: lines for people, or one JSON object for machines, on standard output."""
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False, default=str))
        return
    for line in lines:
        typer.echo(line)
