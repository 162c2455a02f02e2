"""Remote files, read patiently: what may pass is tried again, what stays is named, and no wait is without end.

Around the opening **and** the reading of a file:

1. The link is signed now (``wetmap.sources.signing``), and signed anew where the server refuses it.
2. No more than ``network.per_host`` files of one host are read at the same time by one process.
3. A request that moves less than ``SLOW_BYTES_PER_S`` for ``network.timeout_s`` is cut.
4. What fails is diagnosed (``wetmap.sources.trouble``), GDAL is made to forget what it remembers of the file, failures
   above all, and after a wait it is tried again: the wait doubles, with jitter, and is never shorter than what the
   server asks for. There are at most ``network.tries`` tries, and none begins after ``network.patience_s``.
5. After a read was given up, its file (or its host, if that was in trouble) has no more than one try for each read,
   until one succeeds. After ``DOWN_AFTER`` reads in a row a host counts as down, and is asked once in ``REST_S``: a
   server that is gone does not cost a patient read for every scene of every block.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import rasterio
from rasterio.errors import RasterioError

from wetmap.errors import SourceError, UnusableFileError
from wetmap.recipe import Network
from wetmap.sources.providers import PROVIDERS
from wetmap.sources.secrets import address
from wetmap.sources.signing import SIGNERS, SignerName
from wetmap.sources.trouble import LASTING_TRIES, Trouble, TroubleError, diagnose

Value = TypeVar("Value")

#: Slower than this is as good as nothing, bytes per second.
SLOW_BYTES_PER_S = 1000
#: Seconds to wait for a connection, at most.
CONNECT_S = 15.0
#: The wait between two tries doubles up to this, seconds.
LONGEST_WAIT_S = 60.0
#: Reads of one host that are given up in a row until it counts as down, and seconds between questions to such a host.
DOWN_AFTER = 20
REST_S = 30.0
#: Settings of GDAL while remote files are read: no listing of folders, no question before the first read, no tries of
#: its own (ours see what the server asks for).
GDAL_SETTINGS: Mapping[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_USE_HEAD": "NO",
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "TRUE",
}
#: GDAL's settings of the buckets of known archives; the variables of the environment go before.
ENDPOINTS: Mapping[str, Mapping[str, str]] = {
    bucket: settings for provider in PROVIDERS.values() for bucket, settings in provider.buckets.items()
}
#: Opening a file with these makes GDAL forget it, when it closes it; it reaches nobody within a millisecond.
_FORGETTING: Mapping[str, Any] = {
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/",
    "GDAL_HTTP_TIMEOUT": "0.001",
    "GDAL_HTTP_CONNECTTIMEOUT": "0.001",
}

#: Who logs links: rasterio what GDAL says, and urllib3 every request.
LOGGERS = ("rasterio._env", "rasterio._err", "rasterio._io", "rasterio._base", "rasterio", "urllib3.connectionpool")

_ADVICE = {
    "gone": "If it stays so, search again in a new --workspace: the archive may have replaced the scene.",
    "denied": "Check that you may read this archive, and the variables that hold its credentials: AWS_ACCESS_KEY_ID "
    "and AWS_SECRET_ACCESS_KEY of an object store, PC_SDK_SUBSCRIPTION_KEY of the Planetary Computer.",
    "foreign": "Check the address in a browser; the archive may be closed for maintenance.",
    "busy": "Run the same command again, later: what is finished stays, and what failed is tried again.",
    "damaged": "Run the same command again; if it fails at the same place, the archive's file is damaged.",
}

_settings: contextvars.ContextVar[Network] = contextvars.ContextVar("network", default=Network())  # noqa: B039 - frozen


@dataclass
class _Strain:
    """Reads of a host or a file that were given up in a row, and when the last one was."""

    count: int = 0
    last: float = 0.0


@dataclass
class _Shared:
    """What the threads of a process know together of the hosts."""

    lock: threading.Lock
    slots: dict[tuple[str, int], threading.BoundedSemaphore]
    strained: dict[str, _Strain]


_SHARED = _Shared(threading.Lock(), {}, {})


@contextlib.contextmanager
def using(settings: Network) -> Iterator[None]:
    """Read by these settings for as long as it lasts, in this thread."""
    token = _settings.set(settings)
    try:
        yield
    finally:
        _settings.reset(token)


def is_remote(href: str) -> bool:
    """Whether GDAL reads this over the network."""
    return href.startswith(("http://", "https://", "s3://", "/vsicurl", "/vsis3", "/vsiaz", "/vsigs"))


def read(href: str, use: Callable[[str], Value], signer: SignerName = "") -> Value:
    """Open and read a remote file, patiently.

    Args:
        href: The file's unsigned link: http(s) or s3.
        use: Opens the link that it is given, reads, and gives what it read; called once for every try.
        signer: Who signs the link.

    Returns:
        What ``use`` gave.

    Raises:
        UnusableFileError: The file is not there, must not be read, or is no raster.
        SourceError: The read was given up, or what ``use`` raises of this kind.
    """
    settings, name, host = _settings.get(), address(href), host_of(href)
    start, failed = time.monotonic(), 0
    _refuse_down(host, name)
    while True:
        url = href
        try:
            url = SIGNERS[signer].sign(href)
            with _slot(host, settings.per_host), _quietly(), rasterio.Env(**environment(url, settings)):
                value = use(url)
        except (RasterioError, OSError, TroubleError) as error:
            with _quietly():
                trouble = diagnose(error, url, settings.timeout_s)
        else:
            _relax(name, host)
            return value
        failed += 1
        _forget(url)
        if trouble.kind == "denied":
            SIGNERS[signer].renew(href)
        wait_s = _wait(name, failed, trouble, settings)
        if failed >= _tries(name, host, trouble, settings) or _spent(start) + wait_s > settings.patience_s:
            _strain(name, host, trouble)
            raise _given_up(name, trouble, failed, _spent(start))
        time.sleep(wait_s)


def host_of(href: str) -> str:
    """Whom a link asks: ``host:port``, or the bucket of an object store."""
    if href.startswith("/vsicurl/"):
        href = href.removeprefix("/vsicurl/")
    parts = urlsplit(href)
    if parts.scheme in ("http", "https"):
        return f"{parts.hostname}:{parts.port or ''}".rstrip(":")
    return "/".join(href.replace("://", "/").strip("/").split("/")[:2])


def environment(href: str, settings: Network) -> dict[str, Any]:
    """GDAL's settings for one link."""
    options: dict[str, Any] = {
        **GDAL_SETTINGS,
        "GDAL_HTTP_CONNECTTIMEOUT": str(min(settings.timeout_s, CONNECT_S)),
        "GDAL_HTTP_LOW_SPEED_LIMIT": str(SLOW_BYTES_PER_S),
        "GDAL_HTTP_LOW_SPEED_TIME": str(math.ceil(settings.timeout_s)),
        "GDAL_HTTP_TIMEOUT": str(settings.patience_s),
    }
    host = host_of(href)
    if host.startswith(("s3/", "vsis3/")) and "AWS_S3_ENDPOINT" not in os.environ:
        options |= ENDPOINTS.get(host.partition("/")[2], {})
    return options


@contextlib.contextmanager
def _slot(host: str, count: int) -> Iterator[None]:
    """One of the host's places."""
    with _SHARED.lock:
        slot = _SHARED.slots.setdefault((host, count), threading.BoundedSemaphore(count))
    with slot:
        yield


def _tries(name: str, host: str, trouble: Trouble, settings: Network) -> int:
    if trouble.lasting:  # the server answers at once, and a link that is refused has to be signed anew
        return min(settings.tries, LASTING_TRIES)
    with _SHARED.lock:
        return 1 if {name, host} & _SHARED.strained.keys() else settings.tries


def _strain(name: str, host: str, trouble: Trouble) -> None:
    """A read was given up: remember whose fault it was."""
    if trouble.lasting:
        _relax(host)  # it answers
        return
    with _SHARED.lock:
        strain = _SHARED.strained.setdefault(host if trouble.kind == "busy" else name, _Strain())
        strain.count, strain.last = strain.count + 1, time.monotonic()


def _relax(*who: str) -> None:
    """All is well with them."""
    if _SHARED.strained:
        with _SHARED.lock:
            for one in who:
                _SHARED.strained.pop(one, None)


def _refuse_down(host: str, name: str) -> None:
    """Give up at once where a host counts as down and was asked lately."""
    with _SHARED.lock:
        strain = _SHARED.strained.get(host, _Strain())
        if strain.count < DOWN_AFTER:
            return
        lately = time.monotonic() - strain.last < REST_S
        if not lately:
            strain.last = time.monotonic()  # one asks, and the others do not until it knows
    if lately:
        trouble = Trouble("busy", f"{host} failed {strain.count} times in a row, and is asked once in {REST_S:g} s")
        raise _given_up(name, trouble, 1, 0.0)


def _wait(name: str, failed: int, trouble: Trouble, settings: Network) -> float:
    """Seconds until the next try: half to the whole of a doubling wait, and no less than the server asks for.

    The jitter is of the file, the process and the try: workers that were refused together do not come back together.
    """
    longest = min(settings.first_wait_s * 2.0 ** (failed - 1), LONGEST_WAIT_S)
    jitter = random.Random(f"{name} {os.getpid()} {threading.get_ident()} {failed}").uniform(0.5, 1.0)  # noqa: S311
    return max(longest * jitter, trouble.wait_s or 0.0)


def _forget(url: str) -> None:
    """Make GDAL forget a file: it remembers failures, sizes and pieces for as long as the process lives."""
    settings = {**GDAL_SETTINGS, **environment(url, _settings.get()), **_FORGETTING}
    with contextlib.suppress(RasterioError, OSError), _quietly(), rasterio.Env(**settings), rasterio.open(url):
        pass


class _Muted(logging.Filter):
    """Drops what others log while remote files are read: it names signed links, and we say ourselves what failed."""

    def filter(self, _: logging.LogRecord) -> bool:
        """Whether a record is kept."""
        return not _quiet.get()


_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("quiet", default=False)
_MUTED = _Muted()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Nothing of what these loggers hear from this thread gets through."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_MUTED)  # no more than once
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def _spent(start: float) -> float:
    return time.monotonic() - start


def _given_up(name: str, trouble: Trouble, tries: int, seconds: float) -> SourceError:
    times = "" if tries == 1 else f"; tried {tries} times in {seconds:.0f} s"
    kind = UnusableFileError if trouble.lasting else SourceError
    return kind(f"{name} cannot be read ({trouble.text}{times}).", do=_ADVICE[trouble.kind])
