"""The Earth Engine service: sign in once per process, ask for pixels of the grid, wait and ask again.

Everything that talks to Google goes through here. The client library (``ee``) keeps its connection in global state, so
it is opened inside the worker that uses it and never sent to another process.
"""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import SourceError
from wetmap.geo import Grid
from wetmap.recipe import EarthEngineSource

#: Value that stands for "masked" in an answer. Nothing that is asked for can have it: reflectance, power, classes and
#: counts are not negative beyond noise, and no land lies 9999 m below the sea.
MASKED = -9999.0
#: Most bytes of one answer. The service's limit is 50,331,648 (its own error message); a third is left, because how it
#: counts is not documented to the byte.
MOST_BYTES = 32 * 2**20
#: Values come as float32.
BYTES_PER_VALUE = 4
#: Windows are not cut smaller than this when the service runs out of memory or time, pixels.
LEAST_SIDE_PX = 32
#: Waits between rounds of asking, seconds, each times 0.5 to 1.5. One round is six tries of the client library itself,
#: over about half a minute.
WAITS = (15.0, 30.0, 60.0)
#: Seconds after which an answer is given up. The service computes for five minutes at most.
DEADLINE_S = 330
#: HTTP answers that mean "later".
LATER = frozenset({408, 429, 500, 502, 503, 504})
#: What the service says when a request is too much for it: half of it may not be.
TOO_MUCH = ("user memory limit exceeded", "computation timed out", "total request size", "too many pixels")
#: Environment variables that name the project where the recipe does not, the first that is set.
PROJECT_VARIABLES = ("EE_PROJECT_ID", "GOOGLE_CLOUD_PROJECT")

Value = TypeVar("Value")


@dataclass(frozen=True)
class Connection:
    """How to reach the service: addresses and names, no secret."""

    project: str | None
    """Cloud project that is charged; None: the one of the credentials."""
    credentials: Path | None
    """Key file of a service account; None: the user's own credentials."""
    url: str
    """Endpoint."""
    requests: int
    """Requests at the same time from one process."""

    @classmethod
    def of(cls, source: EarthEngineSource) -> Connection:
        """What a recipe says; the project from the environment where it says none."""
        named = (os.environ.get(name) for name in PROJECT_VARIABLES)
        project = source.project or next((name for name in named if name), None)
        return cls(project, source.credentials, source.url.rstrip("/"), source.requests)

    @property
    def local(self) -> bool:
        """Whether the service is on this machine: a stand-in, which needs no account."""
        return urllib.parse.urlsplit(self.url).hostname in {"localhost", "127.0.0.1", "::1"}


@dataclass
class _Session:
    """What this process has open."""

    pid: int = 0
    connection: Connection | None = None
    slots: threading.BoundedSemaphore = field(default_factory=threading.BoundedSemaphore)


_session = _Session()
_opening = threading.Lock()


def connect(connection: Connection) -> threading.BoundedSemaphore:
    """Open the service in this process, once; gives the slots for requests at the same time.

    Raises:
        SourceError: There are no credentials, they are not accepted, no project is known, or there is no network.
    """
    with _opening:
        if (_session.pid, _session.connection) != (os.getpid(), connection):
            _session.connection = None
            _open(connection)
            _session.pid, _session.connection = os.getpid(), connection
            _session.slots = threading.BoundedSemaphore(connection.requests)
        return _session.slots


def disconnect() -> None:
    """Forget the connection of this process; the next request opens it again."""
    import ee

    with _opening:
        ee.Reset()
        _session.pid, _session.connection = 0, None


def _open(connection: Connection) -> None:
    import ee
    from ee import _state
    from google.auth.exceptions import GoogleAuthError

    ee.Reset()
    # As ee.data.setDeadline, which works only after Initialize: that would wait for ever.
    _state.get_state().deadline_ms = round(1000 * DEADLINE_S)
    fetch_list = ee.deprecation.InitializeDeprecatedAssets
    # The client would ask for a list of deprecated data sets, with no limit of time. wetmap names its data sets itself.
    ee.deprecation.InitializeDeprecatedAssets = lambda: None
    try:
        credentials = _credentials(connection)
        project = connection.project or getattr(credentials, "project_id", None)  # a key file names its project
        ee.Initialize(credentials=credentials, url=connection.url, project=project)
    except (ee.EEException, GoogleAuthError, OSError) as error:
        raise _refused(error, connection) from None
    finally:
        ee.deprecation.InitializeDeprecatedAssets = fetch_list


def _credentials(connection: Connection) -> Any:
    """Key of a service account, nothing for a stand-in on this machine, else the user's own."""
    import ee

    if connection.credentials is not None:
        from google.oauth2.service_account import Credentials

        try:
            return Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                str(connection.credentials), scopes=ee.oauth.SCOPES
            )
        except (OSError, ValueError) as error:  # the text of a ValueError may quote the file
            raise SourceError(
                f"{connection.credentials} is not the key file of a service account ({type(error).__name__}).",
                do="Give the JSON file that Google Cloud makes for a service account as `credentials:` of the source.",
            ) from None
    if connection.local:
        from google.auth.credentials import AnonymousCredentials

        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    return ee.data.get_persistent_credentials()


def _refused(error: Exception, connection: Connection) -> SourceError:
    text = words(error)
    if "authorize access" in text:
        return SourceError(
            "This machine has no Earth Engine credentials.",
            do="Run `earthengine authenticate` once, or name the key file of a service account as `credentials:`.",
        )
    if "project" in text.lower() and connection.project is None:
        return SourceError(
            "No Google Cloud project is known for Earth Engine.",
            do=f"Give `project:` of the source, or set {PROJECT_VARIABLES[0]}.",
        )
    return SourceError(
        f"Earth Engine at {connection.url} cannot be opened for project {connection.project or '(of the credentials)'} "
        f"({text}).",
        do="Check the network, and that the project is registered for Earth Engine and open to these credentials.",
    )


def words(error: BaseException) -> str:
    """What an error of the service says, in one line; of signing in its name alone, as its text may quote keys."""
    from google.auth.exceptions import GoogleAuthError

    if isinstance(error, GoogleAuthError):
        return type(error).__name__
    text = re.sub(r"\?[^\s'\",)]*", "", " ".join(str(error).split()))
    return text[:300] or type(error).__name__


def ask(connection: Connection, request: Callable[[], Value], what: str) -> Value:
    """Send a request, and again after a wait while the service says "later".

    Args:
        connection: Where to.
        request: Sends it and gives the answer; ``ee`` is open when it is called.
        what: What is asked for, for messages.

    Raises:
        SourceError: The service refuses it, or says "later" for minutes.
        TooMuchError: It is too much for one request.
    """
    import ee
    from google.auth.exceptions import GoogleAuthError

    slots, waits = connect(connection), iter(WAITS)
    while True:
        try:
            with slots:
                return request()
        except (ee.EEException, GoogleAuthError, OSError) as error:
            wait = next(waits, None)
            if wait is None or not _passes(error):
                raise _failed(error, what) from None
        time.sleep(wait * SystemRandom().uniform(0.5, 1.5))


def _status(error: BaseException) -> int | None:
    """HTTP status behind an error of the client, which keeps the answer as the error's context."""
    from googleapiclient.errors import HttpError

    behind = error.__context__
    return int(behind.status_code) if isinstance(behind, HttpError) else None


def _passes(error: Exception) -> bool:
    """Whether asking again may help."""
    from google.auth.exceptions import TransportError

    status = _status(error)
    if _too_much(error):
        return False
    return status in LATER or isinstance(error, OSError | TransportError)


def _too_much(error: Exception) -> bool:
    text = str(error).lower()
    return any(phrase in text for phrase in TOO_MUCH)


class TooMuchError(SourceError):
    """A request is too much for the service."""


def _failed(error: Exception, what: str) -> SourceError:
    status, text = _status(error), words(error)
    said = f"{status}: {text}" if status else text
    if _too_much(error):
        return TooMuchError(
            f"Earth Engine cannot compute {what} at once ({said}).", do="Make grid.block_px smaller, or the season."
        )
    if status == 429 or "quota" in text.lower():
        return SourceError(
            f"Earth Engine's quota is used up, asked for {what} ({said}).",
            do="Ask for less at the same time (`requests:` of the source, cluster.workers), look at the project's "
            "Earth Engine quotas, or run the same command again later: what is done stays.",
        )
    if status in {401, 403}:
        return SourceError(
            f"Earth Engine does not let this account have {what} ({said}).",
            do="Check that the project is registered for Earth Engine and that the account may use it.",
        )
    return SourceError(
        f"Earth Engine does not give {what} ({said}).",
        do="If it says that it is busy, run the same command again later; else check the source in the recipe.",
    )


def list_images(
    connection: Connection, collection: str, region: Mapping[str, Any], start: str, end: str
) -> list[dict[str, Any]]:
    """The images of a collection that meet a region, with their properties and outlines.

    Args:
        connection: Where to ask.
        collection: Asset id of the collection.
        region: GeoJSON geometry, longitude and latitude.
        start: First moment, ISO 8601; empty for all.
        end: Moment after the last, ISO 8601; empty for all.

    Raises:
        SourceError: As ``ask``.
    """
    import ee

    params: dict[str, Any] = {"parent": collection, "region": dict(region)}
    params |= {"startTime": start} if start else {}
    params |= {"endTime": end} if end else {}
    found = ask(connection, lambda: ee.data.listImages(dict(params)), f"the list of {collection}")
    return list(found["images"] or [])


def pixels(
    connection: Connection, image: Callable[[], Any], names: Sequence[str], window: Grid, what: str
) -> dict[str, NDArray[np.float32]]:
    """Compute bands of an image on exactly the pixels of a window.

    Masked pixels are given a value of their own before they leave the service (``MASKED``), beyond the image's
    footprint too, so that nothing depends on what the service writes into masked pixels.

    Args:
        connection: Where to ask.
        image: Makes the ``ee.Image``; called when the service is open.
        names: Its bands, all numeric.
        window: The pixels; one answer's worth is asked for at a time.
        what: What it is, for messages.

    Returns:
        Each band (height, width) float32, NaN where masked.

    Raises:
        SourceError: As ``ask``, or the answer is not what was asked for.
    """
    connect(connection)
    whole = image().select(list(names)).toFloat().unmask(MASKED, False)
    values = {name: np.full(window.shape, np.nan, dtype=np.float32) for name in names}
    todo = list(pieces(window.height, window.width, len(names)))
    while todo:
        piece = todo.pop(0)
        try:
            found = _piece(connection, whole, names, window.window(*piece), what)
        except TooMuchError:
            if max(piece[2:]) <= LEAST_SIDE_PX:
                raise
            todo[:0] = _halves(piece)
            continue
        y0, x0, height, width = piece
        for name in names:
            values[name][y0 : y0 + height, x0 : x0 + width] = found[name]
    return values


Piece = tuple[int, int, int, int]


def pieces(height: int, width: int, bands: int) -> Iterator[Piece]:
    """Cut a window into pieces (first row, first column, height, width) whose answers stay below ``MOST_BYTES``."""
    todo: list[Piece] = [(0, 0, height, width)]
    while todo:
        piece = todo.pop(0)
        if piece[2] * piece[3] * bands * BYTES_PER_VALUE > MOST_BYTES and max(piece[2:]) > 1:
            todo[:0] = _halves(piece)
        else:
            yield piece


def _halves(piece: Piece) -> list[Piece]:
    """The two halves of a piece, cut across its longer side."""
    y0, x0, height, width = piece
    if height >= width:
        half = (height + 1) // 2
        return [(y0, x0, half, width), (y0 + half, x0, height - half, width)]
    half = (width + 1) // 2
    return [(y0, x0, height, half), (y0, x0 + half, height, width - half)]


def grid_of(window: Grid) -> dict[str, Any]:
    """A window as the service's PixelGrid: its own pixels, corner to corner."""
    code = {"crsCode": window.crs} if window.crs.upper().startswith("EPSG:") else {"crsWkt": window.crs}
    return {
        "dimensions": {"width": window.width, "height": window.height},
        "affineTransform": {
            "scaleX": window.res_m,
            "shearX": 0.0,
            "translateX": window.left,
            "shearY": 0.0,
            "scaleY": -window.res_m,
            "translateY": window.top,
        },
        **code,
    }


def _piece(
    connection: Connection, image: Any, names: Sequence[str], window: Grid, what: str
) -> dict[str, NDArray[np.float32]]:
    import ee

    params = {"expression": image, "fileFormat": "NUMPY_NDARRAY", "grid": grid_of(window)}

    def request() -> Any:
        try:
            return ee.data.computePixels(params)
        except (ValueError, EOFError) as error:  # not an array: an answer that was cut off
            raise ConnectionError(f"the answer is not an array ({type(error).__name__})") from None

    found = ask(connection, request, what)
    if found.shape != window.shape or set(found.dtype.names or ()) != set(names):
        raise SourceError(
            f"Earth Engine gave {found.shape} {found.dtype.names} for {what}, not {window.shape} {tuple(names)}.",
            do="Run the same command again; if it stays, tell the authors of wetmap.",
        )
    return {name: np.where(found[name] == MASKED, np.float32(np.nan), found[name]).astype(np.float32) for name in names}
