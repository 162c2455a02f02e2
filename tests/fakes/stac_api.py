"""A STAC API on loopback: the real framework (stac-fastapi) over items in memory, their files served with HTTP Range.

What it knows: collections, search by box, geometry, time, ids and collections, with paging, by GET and by POST. It
counts what was asked, so that a test can tell a search from a read.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attr
import shapely
import uvicorn
from fastapi import FastAPI
from shapely.geometry import shape
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import create_get_request_model, create_post_request_model
from stac_fastapi.extensions import TokenPaginationExtension
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError
from stac_fastapi.types.extension import ApiExtension
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

Json = dict[str, Any]
FIRST, LAST = dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)


@attr.s
class InMemory(BaseCoreClient):
    """The answers to a STAC API's questions, from dictionaries."""

    collections: dict[str, Json] = attr.ib(factory=dict)
    items: dict[str, dict[str, Json]] = attr.ib(factory=dict)

    def all_collections(self, **kwargs: Any) -> Json:  # type: ignore[override]
        request: Request = kwargs["request"]
        found = [linked(body, request, f"collections/{name}") for name, body in self.collections.items()]
        return {"collections": found, "links": [{"rel": "root", "href": str(request.base_url)}]}

    def get_collection(self, collection_id: str, **kwargs: Any) -> Json:  # type: ignore[override]
        if collection_id not in self.collections:
            raise NotFoundError(f"no collection {collection_id}")
        return linked(self.collections[collection_id], kwargs["request"], f"collections/{collection_id}")

    def get_item(self, item_id: str, collection_id: str, **kwargs: Any) -> Json:  # type: ignore[override]
        item = self.items.get(collection_id, {}).get(item_id)
        if item is None:
            raise NotFoundError(f"no item {item_id}")
        return linked(item, kwargs["request"], f"collections/{collection_id}/items/{item_id}")

    def get_search(self, **kwargs: Any) -> Json:  # type: ignore[override]
        request = kwargs.pop("request")
        return self._page(request, {key: value for key, value in kwargs.items() if value is not None}, None)

    def post_search(self, search_request: Any, **kwargs: Any) -> Json:  # type: ignore[override]
        asked = search_request.model_dump(exclude_none=True, mode="json", by_alias=True)
        return self._page(kwargs["request"], asked, asked)

    def item_collection(self, collection_id: str, **kwargs: Any) -> Json:  # type: ignore[override]
        request = kwargs.pop("request")
        return self._page(request, {**kwargs, "collections": [collection_id]}, None)

    def _page(self, request: Request, asked: Json, body: Json | None) -> Json:
        names = asked.get("collections") or list(self.items)
        found = [item for name in names for item in self.items.get(name, {}).values() if matches(item, asked)]
        start, limit = int(asked.get("token") or 0), int(asked.get("limit") or 10)
        page = found[start : start + limit]
        links: list[Json] = []
        if start + limit < len(found):
            token = str(start + limit)
            if body is None:
                links.append(
                    {"rel": "next", "method": "GET", "href": str(request.url.include_query_params(token=token))}
                )
            else:
                links.append(
                    {"rel": "next", "method": "POST", "href": str(request.url), "body": {**body, "token": token}}
                )
        features = [linked(i, request, f"collections/{i['collection']}/items/{i['id']}") for i in page]
        return {
            "type": "FeatureCollection",
            "features": features,
            "links": links,
            "numberMatched": len(found),
            "numberReturned": len(page),
        }


def linked(body: Json, request: Request, path: str) -> Json:
    base = str(request.base_url).rstrip("/")
    links = [{"rel": "self", "href": f"{base}/{path}"}, {"rel": "root", "href": base}]
    return {**body, "links": links}


def matches(item: Json, asked: Json) -> bool:
    geometry = shape(item["geometry"])
    if asked.get("ids") and item["id"] not in asked["ids"]:
        return False
    if asked.get("bbox") and not geometry.intersects(shapely.box(*asked["bbox"])):
        return False
    if asked.get("intersects") and not geometry.intersects(shape(asked["intersects"])):
        return False
    start, end = interval(asked.get("datetime"))
    return start <= moment(item["properties"]["datetime"], FIRST) <= end


def interval(asked: Any) -> tuple[dt.datetime, dt.datetime]:
    if not asked:
        return FIRST, LAST
    ends = asked.split("/") if isinstance(asked, str) else list(asked) if isinstance(asked, list | tuple) else [asked]
    return moment(ends[0], FIRST), moment(ends[-1], LAST)


def moment(value: Any, otherwise: dt.datetime) -> dt.datetime:
    if value in (None, "", ".."):
        return otherwise
    parsed = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    return parsed.astimezone(dt.UTC)


def make_app(collections: list[Json], items: list[Json], folder: Path, counts: Counter[str]) -> FastAPI:
    """The API over ``items``, with ``folder`` served under /files; ``counts`` counts requests by status."""
    client = InMemory(
        collections={body["id"]: body for body in collections},
        items={body["id"]: {i["id"]: i for i in items if i["collection"] == body["id"]} for body in collections},
    )
    extensions: list[ApiExtension] = [TokenPaginationExtension()]
    app: FastAPI = StacApi(
        settings=ApiSettings(),
        client=client,
        extensions=extensions,
        search_get_request_model=create_get_request_model(extensions),
        search_post_request_model=create_post_request_model(extensions),
    ).app
    app.mount("/files", StaticFiles(directory=folder))

    @app.middleware("http")
    async def count(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        kind = "files" if request.url.path.startswith("/files") else request.url.path
        counts[f"{kind} {answer.status_code}"] += 1
        return answer

    return app


@contextlib.contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Run an application on a free port of loopback; gives its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(5)
        listener.close()
