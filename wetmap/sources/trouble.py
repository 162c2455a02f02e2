"""Why a remote file could not be read, and whether trying again may help.

GDAL says what went wrong in a sentence, and not always: of a tile that did not arrive it says that it is damaged.
The server of a link is therefore asked once more, for the file's first bytes: its status, how long it wants us to wait,
and whether what it sends is a raster at all.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from dataclasses import dataclass
from typing import Literal

import requests

from wetmap.sources.secrets import without_secrets

#: What stands in the way: the server is overworked or the line is bad; the file is not there; we may not read it; what
#: is there is no raster; the file is there, and what was read of it was not whole.
Kind = Literal["busy", "gone", "denied", "foreign", "damaged"]

#: Kinds that stay as they are however often one asks: such a file is tried this often and no more.
LASTING: frozenset[Kind] = frozenset({"gone", "denied", "foreign"})
LASTING_TRIES = 3

#: How GeoTIFF, BigTIFF, JPEG 2000 (file and codestream), HDF5, netCDF, PNG and ENVI-like rasters we read begin.
MAGIC = (
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP",
    b"\xff\x4f\xff\x51",
    b"\x89HDF",
    b"CDF",
    b"\x89PNG",
)
#: Bytes that are asked for to see what a file is.
FIRST_BYTES = 16

#: What GDAL passes on of the words of object stores and of curl, where it does not say the status; the same in ours.
_WORDS: tuple[tuple[Kind, str, str], ...] = (
    ("gone", "not there", r"NoSuchKey|NoSuchBucket|key does not exist|bucket does not exist|BlobNotFound"),
    (
        "denied",
        "no permission",
        r"AccessDenied|Access ?Denied|InvalidAccessKeyId|Access Key Id|SignatureDoesNotMatch|signature|Expired"
        r"|AuthenticationFailed|[Cc]redentials|AWS_SECRET_ACCESS_KEY",
    ),
    ("busy", "the server is busy", r"SlowDown|ServerBusy|request rate|ServiceUnavailable|InternalError|RequestTimeout"),
    ("busy", "the server does not answer in time", r"timed out|too slow"),
    ("busy", "the connection fails", r"CURL error|[Cc]ould ?n.t connect|[Rr]esolve|[Cc]onnection"),
)


@dataclass(frozen=True)
class Trouble:
    """What stands in the way of a read."""

    kind: Kind
    """Which trouble it is."""
    text: str
    """The same in words, without secrets."""
    wait_s: float | None = None
    """How long the server asks us to wait (Retry-After), seconds; None where it does not say."""

    @property
    def lasting(self) -> bool:
        """Whether waiting will hardly help."""
        return self.kind in LASTING


class TroubleError(Exception):
    """A trouble that was met before a file was opened, such as a token that is refused."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble


def diagnose(error: BaseException, url: str, timeout_s: float) -> Trouble:
    """Find out why a read failed.

    Args:
        error: What was raised.
        url: The link as it was opened, signed.
        timeout_s: The server of the link is given this long to say something, seconds.
    """
    if isinstance(error, TroubleError):
        return error.trouble
    said = _all_of(error)
    status = re.search(r"HTTP (?:response|error) code ?: ?(\d{3})", said)
    told = _from_status(int(status[1])) if status else _from_words(said, url)
    if url.startswith(("http://", "https://")) and (told is None or (status and told.kind == "busy")):
        return _ask(url, timeout_s, told) or told or _damaged(said, url)
    return told or _damaged(said, url)


def _from_status(status: int) -> Trouble | None:
    answer = requests.Response()
    answer.status_code = status
    return from_answer(answer)


def from_answer(answer: requests.Response) -> Trouble | None:
    """What a server's status says; None where it is content."""
    status = answer.status_code
    if status in (401, 403):
        return Trouble("denied", f"the server answers {status}: no permission")
    if status in (404, 410):
        return Trouble("gone", f"the server answers {status}: not there")
    if status >= 400:
        why = "too many requests" if status == 429 else "out of order"
        return Trouble("busy", f"the server answers {status}: {why}", _seconds(answer.headers.get("Retry-After")))
    return None


def from_silence(error: requests.RequestException) -> Trouble:
    """No answer at all."""
    slow = isinstance(error, requests.Timeout)
    return Trouble("busy", "the server does not answer in time" if slow else "the connection fails")


def _ask(url: str, timeout_s: float, told: Trouble | None) -> Trouble | None:
    """The file's first bytes; None where all is well by now, or where that is all that is wrong."""
    try:
        with requests.get(
            url, headers={"Range": f"bytes=0-{FIRST_BYTES - 1}"}, stream=True, timeout=timeout_s
        ) as answer:
            trouble = from_answer(answer)
            if trouble is not None or told is not None:
                return trouble
            first = next(answer.iter_content(FIRST_BYTES), b"")
    except requests.RequestException as error:
        return from_silence(error)
    if first.startswith(MAGIC):
        return None
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    return Trouble("foreign", f"what the server sends is no raster{f' but {_plain(kind)}' if kind else ''}")


def _plain(kind: str) -> str:
    return kind if re.fullmatch(r"[\w.+-]+/[\w.+-]+", kind) else "something else"


def _from_words(said: str, url: str) -> Trouble | None:
    """What GDAL's sentence says, where it does."""
    for kind, text, words in _WORDS:
        if re.search(words, said):
            return Trouble(kind, text if kind == "busy" else f"{text}: {_brief(said, url)}")
    if url.startswith(("s3://", "/vsi")) and "not recognized as being in a supported file format" in said:
        return Trouble("foreign", "what the server sends is no raster")
    return None


def _damaged(said: str, url: str) -> Trouble:
    return Trouble("damaged", f"not all of it arrived, or it is damaged: {_brief(said, url)}")


def local_trouble(error: BaseException, href: str) -> str:
    """Why a file of this machine could not be read, in words, without its path.

    Args:
        error: What was raised.
        href: What GDAL was given: a path, or a member of a zip (``/vsizip/{zip}/member``).
    """
    said = " ".join(without_secrets(_all_of(error)).split())
    for name in (f"'{href}'", f"`{href}'", href):
        said = said.replace(name, "it")
    said = re.sub(r"^it[:,]\s*(?:it[:,]\s*)?", "", said)[:200].rstrip(". ")
    if re.search(r"No such file|does not exist", said):
        return "it is not there"
    if "Permission denied" in said:
        return "no permission"
    if "not recognized as being in a supported file format" in said:
        return "it is no raster that can be read, or damaged at its beginning"
    return f"not all of it arrived, or it is damaged: {said.partition(';')[0]}"


def _brief(said: str, url: str) -> str:
    return without_secrets(said, url)[:200].rstrip(". ")


def _all_of(error: BaseException) -> str:
    """The words of an error and of those behind it: rasterio says only that there is one."""
    words: list[str] = []
    behind: BaseException | None = error
    while behind is not None and len(words) < 5:
        words.append(str(getattr(behind, "errmsg", behind)))
        behind = behind.__cause__ or behind.__context__
    told = [text for text in words if "See previous exception" not in text]
    return "; ".join(dict.fromkeys(told or words))


def _seconds(header: str | None) -> float | None:
    """Retry-After: seconds, or a date (RFC 9110, section 10.2.3)."""
    if not header:
        return None
    if re.fullmatch(r"\s*\d{1,6}\s*", header):
        return float(header)
    try:
        until = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    until = until.replace(tzinfo=dt.UTC) if until.tzinfo is None else until
    return max(0.0, (until - dt.datetime.now(dt.UTC)).total_seconds())
