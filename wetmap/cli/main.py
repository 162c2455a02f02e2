"""The ``wetmap`` command: its verbs, its exit codes, and what an interruption does.

Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted. Modules imported here must stay light: ``wetmap --help``
answers in under half a second, so each verb imports what it needs when it runs.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import io
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, NoReturn

import typer

from wetmap import __version__
from wetmap.cli import (
    assess,
    bench,
    change,
    compare,
    doctor,
    fetch,
    model,
    predict,
    recipe,
    run,
    sample,
    status,
    submit,
    train,
)
from wetmap.errors import REFUSED, WetmapError, full_disk, refused_file, unusable_path

app = typer.Typer(
    name="wetmap",
    help="Turn an area of interest into a wetland map that opens in QGIS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("fetch")(fetch.fetch)
app.command("train")(train.train)
app.command("compare")(compare.compare)
app.command("predict")(predict.predict)
app.command("sample")(sample.sample)
app.command("assess")(assess.assess)
app.command("change")(change.change)
app.command("run")(run.run)
app.command("submit")(submit.submit)
app.command("status")(status.status)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(recipe.app, name="recipe")
app.add_typer(model.app, name="model")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wetmap {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    """Turn an area of interest into a wetland map that opens in QGIS."""


def main() -> None:
    """Entry point of the ``wetmap`` command."""
    _exit_at_once_on_ctrl_c()
    atexit.register(gc.freeze)  # looking for circles in all that was imported takes a second, and the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # names of files need not be text
    try:
        with _led_by_the_first_of_torchrun() as leads:
            if leads:
                app()
    except WetmapError as error:
        _fail(error)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _fail(full_disk(error))
        if error.errno in REFUSED:
            _fail(refused_file(error))
        if error.filename is not None:
            _fail(unusable_path(error))
        raise


@contextlib.contextmanager
def _led_by_the_first_of_torchrun() -> Iterator[bool]:
    """Whether this process runs the verb; under torchrun only the first does, and the others train along."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        yield True
        return
    from wetmap.training.ranks import dismiss, follow_torchrun

    leads = os.environ["RANK"] == "0"
    if not leads:
        follow_torchrun()
    try:
        yield leads
    finally:
        dismiss()


def _fail(error: WetmapError) -> NoReturn:
    """Say it in one line, and as JSON where that was asked, and leave with the error's exit code."""
    if "--debug" in sys.argv:
        raise error
    if "--json" in sys.argv:
        typer.echo(json.dumps({"error": error.what, "do": error.do, "kind": type(error).__name__}))
    typer.echo(f"wetmap: {' '.join(str(error).split())}", err=True)
    sys.exit(error.exit_code)


def _exit_at_once_on_ctrl_c() -> None:
    """Ctrl-C ends the process at once, even inside a long call of a compiled library.

    Nothing is lost by that: every write is atomic and every stage continues where it stopped. Worker processes notice
    that this one is gone and end too. The system's own handler writes a byte to the socket even while Python code
    cannot run, and a thread waits for it.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.set_wakeup_fd(sending.fileno())
    threading.Thread(target=_leave_when_told, args=(receiving, sending), daemon=True).start()


def _leave_when_told(receiving: socket.socket, _sending: socket.socket) -> None:
    while signal.SIGINT not in receiving.recv(16):
        continue
    _kill_children()
    _cancel_jobs()  # by a process that is not to be killed
    with contextlib.suppress(OSError):
        sys.stderr.write("\x1b[?25h" if sys.stderr.isatty() else "")
        sys.stderr.write("\nwetmap: interrupted. What is finished is kept; the same command continues.\n")
        sys.stderr.flush()
    os._exit(130)


def _cancel_jobs() -> None:
    """Jobs that still wait in a queue would start later, for nobody."""
    if "wetmap.cluster" in sys.modules:
        from wetmap.cluster import cancel_submitted

        cancel_submitted()


def _kill_children() -> None:
    """End worker processes before they can complain that their scheduler is gone."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
