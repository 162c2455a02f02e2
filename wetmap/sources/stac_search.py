"""Ask a STAC catalogue for items: an API month by month, a static catalogue file by file; on disk, over HTTP, on S3.

A year over a province is thousands of items, and APIs give up on such questions. A month at a time they answer, and
each answer is kept the moment it is there, so that a search that fails or is killed goes on where it stopped.
"""

from __future__ import annotations

import datetime as dt
import difflib
import json
import random
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from wetmap.errors import MissingSourceError, SourceError, WetmapWarning
from wetmap.geo import Aoi
from wetmap.recipe import Season
from wetmap.recipe_sources import CATALOGS
from wetmap.sources.stac_item import absolute
from wetmap.workspace import write_json

if TYPE_CHECKING:
    from pystac import Catalog
    from pystac.stac_io import StacIO
    from urllib3 import BaseHTTPResponse, Retry

Item = dict[str, Any]
Days = tuple[dt.date, dt.date]

#: Seconds to wait for a connection, and for an answer.
TIMEOUT = (10.0, 60.0)
#: Tries after the first for a request that fails; the first wait between them, seconds (it doubles); and the most that
#: is added to each wait by chance, so that many runs that failed together do not come back together.
RETRIES, FIRST_WAIT, JITTER = 4, 0.5, 1.0
#: A server that asks for a longer pause (Retry-After) is not waited for, seconds.
LONGEST_WAIT = 180.0
#: Answers that are worth another try.
RETRIED = (408, 429, 500, 502, 503, 504)
#: Times that a host is asked for whose name cannot be resolved, and what is said of it.
NAME_TRIES, NO_NAME = 2, "its name cannot be resolved: is there a network?"
#: Key of what stands in the place of an item whose file on disk is none: why, as half a sentence.
BROKEN = "wetmap:broken"
#: Items per page of a search.
PAGE = 100


@dataclass(frozen=True)
class Question:
    """What a catalogue is asked once."""

    catalog: str
    """URL or path."""
    collection: str
    """Collection id."""
    box: tuple[float, float, float, float]
    """West, south, east, north of the area, degrees."""
    days: Days | None
    """First and last day, both included, UTC; None for all times."""

    @classmethod
    def each(cls, catalog: str, collection: str, aoi: Aoi, seasons: Sequence[Season]) -> list[Question]:
        """One question per month of each season, or one without dates where there are no seasons."""
        box = aoi.geometry.bounds
        whole: list[Days | None] = list(dict.fromkeys(days for season in seasons for days in months_of(season)))
        return [cls(catalog, collection, box, days) for days in (whole or [None])]

    def to_json(self) -> dict[str, Any]:
        """Plain data that says what was asked."""
        return {
            "catalog": self.catalog,
            "collection": self.collection,
            "bbox": list(self.box),
            "datetime": self.interval,
        }

    @property
    def interval(self) -> str | None:
        """The days as STAC wants them."""
        return None if self.days is None else f"{self.days[0]}T00:00:00Z/{self.days[1]}T23:59:59.999999Z"

    @property
    def name(self) -> str:
        """The days as a file name and in sentences."""
        return "all" if self.days is None else f"{self.days[0]}_{self.days[1]}"


@dataclass(frozen=True)
class Kept:
    """Answers kept in a folder, one file per question, each written whole or not at all."""

    folder: Path
    """The folder; made when the first answer is there."""
    sensor: str
    """Begins the files' names."""

    def of(self, question: Question) -> list[Item] | None:
        """The answer to a question, or None where it was not kept, or to another question."""
        try:
            data = json.loads(self._path(question).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(data, dict) or data.get("asked") != question.to_json():
            return None
        return list(data["items"])

    def keep(self, question: Question, items: Sequence[Item]) -> None:
        """Write an answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(question), {"asked": question.to_json(), "items": list(items)})

    def _path(self, question: Question) -> Path:
        return self.folder / f"{self.sensor}-{question.name}.json"


def months_of(season: Season) -> list[Days]:
    """The months of a season, the first and the last cut to its days; together they are the season, day by day."""
    out = []
    start = season.start
    while start <= season.end:
        following = (start.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
        out.append((start, min(season.end, following - dt.timedelta(days=1))))
        start = following
    return out


def is_static(catalog: str) -> bool:
    """Whether this is a static catalogue: a path, an object on S3, or a URL of a JSON file."""
    if catalog.startswith(("http://", "https://")):
        return catalog.partition("?")[0].endswith(".json")
    return True


def is_remote(catalog: str) -> bool:
    """Whether a network is needed to read it."""
    return catalog.startswith(("http://", "https://", "s3://", "/vsis3/", "/vsicurl/"))


class Api:
    """A STAC API, opened at the first question."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Any = None

    def ask(self, question: Question) -> list[Item]:
        """All items that answer a question, all pages of them.

        Raises:
            SourceError: The API cannot be reached, refuses, or answers with something else, after several tries.
        """
        from pystac.errors import STACError, STACTypeError
        from pystac_client.exceptions import APIError
        from requests.exceptions import RequestException

        try:
            search = self._open().search(
                collections=[question.collection], bbox=question.box, datetime=question.interval, limit=PAGE
            )
            return [absolute(item) for item in search.items_as_dicts()]
        except (
            APIError, RequestException, STACError, STACTypeError, ValueError, KeyError, TypeError, AttributeError
        ) as error:  # fmt: skip
            when = "" if question.days is None else f" for {question.days[0]} to {question.days[1]}"
            raise SourceError(
                f"The STAC API {self.url} cannot be searched{when} ({brief(error)}).",
                do="Check the URL and the network, or wait a while; then run the same command again: months that were "
                "answered are not asked for again. A static catalogue on disk (`catalog:` a path) needs no network.",
            ) from error

    def _open(self) -> Any:
        if self._client is None:
            import pystac_client
            from pystac_client.exceptions import APIError
            from pystac_client.stac_api_io import StacApiIO

            class CarefulIO(StacApiIO):
                """An answer that is no STAC must not pass for one without items."""

                def read_json(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
                    data = super().read_json(*args, **kwargs)
                    if not {"features", "collections", "stac_version"} & data.keys():
                        raise APIError("the answer holds no items and is no STAC")
                    return data

            careful = CarefulIO(max_retries=patient_retry(self.url), timeout=TIMEOUT)
            self._client = pystac_client.Client.open(self.url, stac_io=careful)
        return self._client


def read_static(catalog: str, collection: str) -> Iterator[Item]:
    """Every item of a collection of a static catalogue, asset links absolute.

    Args:
        catalog: Path, ``https://.../catalog.json`` or ``s3://bucket/.../catalog.json``.
        collection: Collection id, or the id of the catalogue itself.

    Raises:
        SourceError: It is not there, cannot be read, or has no such collection. An item on disk that cannot be read
            is given as its name and the reason (``BROKEN``); over a network it is an error, since it may pass.
    """
    import pystac
    from pystac.errors import STACError, STACTypeError
    from requests.exceptions import RequestException

    refuse_missing(catalog)
    try:
        root = pystac.Catalog.from_file(catalog, stac_io=_catalog_io(catalog))
        below = {child.id: child for child in root.get_children()}
        known = below or {root.id: root}
        if collection not in known and collection != root.id:
            raise SourceError(
                f"{catalog} has no collection {collection}; it has {', '.join(sorted(known))}.",
                do="Name one of them as `collection:` of the source.",
            )
        yield from _items_below(known.get(collection, root))
    except (STACError, STACTypeError, RequestException, OSError, ValueError, KeyError, AttributeError) as error:
        if not is_remote(catalog):
            raise SourceError(
                f"The STAC catalogue {catalog} cannot be read ({_local_reason(error, catalog)}).",
                do="Mend that file: see the STAC specification (https://stacspec.org).",
            ) from error
        raise SourceError(
            f"The STAC catalogue {catalog} cannot be read ({brief(error)}).",
            do="Check the network, and its files against the STAC specification (https://stacspec.org).",
        ) from error


def refuse_missing(catalog: str, key: str = "") -> None:
    """Refuse a static catalogue on disk that is not there; nothing else is asked.

    Args:
        catalog: Path, or anything else, which passes.
        key: What names it in the recipe; empty: it is named by itself.

    Raises:
        MissingSourceError: There is no such file; with what may have been meant.
    """
    if is_remote(catalog) or catalog in CATALOGS or Path(catalog).is_file():
        return
    what = f"{key} names {catalog}, which" if key else f"The STAC catalogue {catalog}"
    inside = Path(catalog) / "catalog.json"
    if Path(catalog).is_dir():
        there = f"Name the file in it: {inside}." if inside.is_file() else "Give the path of its catalog.json."
        raise MissingSourceError(f"{what} is a folder, not a catalogue.", do=there)
    name = Path(catalog).name.lower().replace("_", "-").replace(" ", "-")
    near = difflib.get_close_matches(name, CATALOGS, 1)
    meant = f"Did you mean {near[0]}? Else give" if near else f"Give {', '.join(CATALOGS)},"
    raise MissingSourceError(
        f"{what} does not exist.",
        do=f"{meant} the URL of a STAC API, or the path or URL of a catalog.json.",
    )


def _items_below(catalog: Catalog) -> Iterator[Item]:
    """Every item of a catalogue and of those in it; of a file on disk that is none, its name and why (``BROKEN``)."""
    from pystac.errors import STACError, STACTypeError

    for link in catalog.get_item_links():
        href = str(link.get_absolute_href())
        try:
            link.resolve_stac_object(root=catalog.get_root())
            item: Any = link.target
            item.make_asset_hrefs_absolute()
            found = item.to_dict(include_self_link=False, transform_hrefs=False)
        except (STACError, STACTypeError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if is_remote(href):
                raise
            found = {"id": href, BROKEN: _local_reason(error, href)}
        yield found
    for child in catalog.get_children():
        yield from _items_below(child)


def _local_reason(error: BaseException, path: str) -> str:
    """Why a file of a static catalogue on disk, or one that it links, is none: which, and what is wrong with it."""
    named = re.search(r"HREF: '([^']*)'", str(error))
    file = Path(named[1] if named else path)
    which = "its file" if str(file) == path else str(file)
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{which} is not there"
    except (OSError, UnicodeDecodeError) as unread:
        return f"{which} cannot be read ({getattr(unread, 'strerror', None) or 'it is no text'})"
    except ValueError:
        return f"{which} is not JSON, or cut short"
    return f"{which} is no STAC that can be read: {brief(error)}"


def patient_retry(url: str = "") -> Retry:
    """How a request that fails is tried again: waits that double, with chance, or as long as the server asks.

    Args:
        url: What is asked; the first time that there is no answer at all, a warning says so, since waiting takes long.
            Empty: nothing is said.
    """
    from urllib3 import Retry as Plain
    from urllib3.exceptions import InvalidHeader, MaxRetryError, NameResolutionError, ResponseError

    asked, told = url.partition("?")[0], list[str]()

    class Patient(Plain):
        def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
            try:
                return super().get_retry_after(response)
            except InvalidHeader:
                return None

        def get_backoff_time(self) -> float:
            """The first try again waits too, which urllib3 leaves out, and so does the chance in it."""
            if not self.history or not FIRST_WAIT:
                return 0.0
            chance = random.random() * JITTER  # noqa: S311 - spreads requests, protects nothing
            return float(min(LONGEST_WAIT, FIRST_WAIT * 2 ** (len(self.history) - 1) + chance))

        def increment(
            self,
            method: str | None = None,
            url: str | None = None,
            response: BaseHTTPResponse | None = None,
            error: Exception | None = None,
            _pool: Any = None,
            _stacktrace: Any = None,
        ) -> Self:
            wait = self.get_retry_after(response) if response is not None else None
            if response is not None and wait is not None and wait > LONGEST_WAIT:
                asks = ResponseError(f"HTTP {response.status}: the server asks to come back in {wait / 60:.0f} minutes")
                raise MaxRetryError(_pool, url or "", asks)
            unnamed = isinstance(error, NameResolutionError)
            if unnamed and len(self.history) + 1 >= NAME_TRIES:  # names that are not known do not become known soon
                raise MaxRetryError(_pool, url or "", error)
            if error is not None and asked and not told:
                told.append(asked)
                why = NO_NAME if unnamed else "the connection fails"
                warnings.warn(f"{asked}: no answer yet ({why}), trying again.", WetmapWarning, stacklevel=2)
            return super().increment(method, url, response, error, _pool, _stacktrace)

    return Patient(RETRIES, status_forcelist=RETRIED, allowed_methods=None)


def brief(error: BaseException) -> str:
    """What went wrong with a request, in few words: the status, or the last cause; no query of any URL."""
    text = " ".join(str(error).split())
    if "NameResolutionError" in text or "Failed to resolve" in text:
        return f"{NO_NAME}, {NAME_TRIES} times"
    code = getattr(error, "status_code", None)
    refused = re.search(r"too many (\d{3}) error responses", text)
    asked = re.search(r"HTTP \d{3}: the server asks[^')]*", text)
    if asked:
        return asked[0]
    if refused:
        return f"HTTP {refused[1]}, {RETRIES + 1} times"
    if "timed out" in text:
        return "it did not answer in time"
    caused = re.findall(r"Caused by \w+\((?:'[^']*', |\"[^\"]*\", )?[\"']?(.*?)[\"']?\)+$", text)
    plain = re.sub(r"<[^>]*>", " ", caused[-1] if caused else text)
    plain = re.sub(r"\?[^\s'\",)]*", "", " ".join(plain.split()))[:160]
    name = f"HTTP {code}" if code else type(error).__name__
    return f"{name}: {plain}" if plain else name


def _catalog_io(catalog: str) -> StacIO:
    """Reads the files of a static catalogue wherever they are."""
    from pystac.stac_io import DefaultStacIO
    from requests import Session
    from requests.adapters import HTTPAdapter

    from wetmap.sources.s3_text import read_object

    session = Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=patient_retry(catalog)))

    class AnywhereIO(DefaultStacIO):
        def read_text_from_href(self, href: str) -> str:
            if href.startswith("s3://"):
                return read_object(session, href, timeout=TIMEOUT).decode("utf-8")
            if href.startswith(("http://", "https://")):
                answer = session.get(href, timeout=TIMEOUT)
                answer.raise_for_status()
                return answer.content.decode("utf-8")
            return super().read_text_from_href(href)

    return AnywhereIO()
