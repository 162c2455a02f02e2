"""What goes wrong on the way to a file, put before the files of the local API: every archive does each of these.

A fault is served to the next so many requests for a file, or for ever; then the file is served as it is. S3 asked path
by path is HTTP too, so that the same server, with ``files`` as the bucket, stands for a faulty object store.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

Kind = Literal["503", "500", "429", "404", "403", "reset", "short", "truncated", "html", "stall"]
#: Where the API serves files, and where it gives tokens (as ``PC_SDK_SAS_URL`` names it).
FILES, TOKENS = "/files/", "/api/sas/v1/token/"
#: Seconds for which a stalled answer says nothing.
STALL_S = 30.0
#: What object stores say beside the status.
WORDS = {
    "404": ("NoSuchKey", "The specified key does not exist."),
    "403": ("AccessDenied", "Access Denied"),
    "500": ("InternalError", "We met an internal error."),
    "429": ("SlowDown", "Please reduce your request rate."),
    "503": ("SlowDown", "Please reduce your request rate."),
}
_ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>'
HTML = b"<!DOCTYPE html><html><body><h1>We will be back soon</h1></body></html>"


@dataclass
class _Fault:
    ending: str
    kind: Kind
    times: float
    retry_after: str
    after: int = 0


@dataclass
class Faults:
    """The faults to serve, and what was asked."""

    folder: Path
    """Where the files lie."""
    seen: Counter[str] = field(default_factory=Counter)
    """Requests by what was served: ``calm`` or the kind of fault."""
    paths: Counter[str] = field(default_factory=Counter)
    """Requests by path."""
    tokens: int = 0
    """Tokens given out; only the last one is good."""
    guarded: bool = False
    """Whether files ask for a token."""
    most_files_at_once: int = 0
    """Most files that were asked for at the same time."""
    token_s: float = 3600.0
    """Seconds for which a token says that it is good."""
    slow_s: float = 0.0
    """Seconds by which every answer is late."""
    _faults: list[_Fault] = field(default_factory=list)
    _now: list[str] = field(default_factory=list)

    def add(
        self, kind: Kind, ending: str, times: float = float("inf"), *, retry_after: str = "", after: int = 0
    ) -> None:
        """Serve a fault to ``times`` requests, from the one ``after`` the next, for files that end with ``ending``."""
        self._faults.append(_Fault(ending, kind, times, retry_after, after))

    def calm(self) -> None:
        """No faults from now on, and all counts from zero."""
        self._faults.clear()
        self.seen.clear()
        self.paths.clear()
        self.slow_s, self.most_files_at_once = 0.0, 0

    def expire(self) -> None:
        """Tokens given out so far are good no longer."""
        self.tokens += 1

    def around(self, app: Any) -> Any:
        """The application with the faults before its files."""

        async def faulty(scope: Any, receive: Any, send: Any) -> None:
            path = unquote(scope.get("path", ""))
            if scope["type"] == "http" and path.startswith(TOKENS):
                await _answer(send, 200, json.dumps(self._token()).encode(), {"content-type": "application/json"})
            elif scope["type"] == "http" and path.startswith(FILES):
                self._now.append(path)
                self.most_files_at_once = max(self.most_files_at_once, len(set(self._now)))
                try:
                    await asyncio.sleep(self.slow_s)
                    await self._serve(app, scope, receive, send)
                finally:
                    self._now.remove(path)
            else:
                await app(scope, receive, send)

        return faulty

    async def _serve(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        path = unquote(scope["path"])
        fault = self._next(path, scope)
        kind = "calm" if fault is None else fault.kind
        self.seen[kind] += 1
        self.paths[path] += 1
        if fault is None:
            await app(scope, receive, send)
        elif kind in ("503", "500", "429", "404", "403"):
            after = {"retry-after": fault.retry_after} if fault.retry_after else {}
            await _answer(
                send, int(kind), (_ERROR % WORDS.get(kind, ("InternalError", "We met an error."))).encode(), after
            )
        elif kind == "html":
            await _answer(send, 200, HTML, {"content-type": "text/html"})
        elif kind == "stall":
            await _stall(receive)
        else:
            await self._cut(kind, path, scope, send)

    async def _cut(self, kind: str, path: str, scope: Any, send: Any) -> None:
        """``truncated``: a file that ends half way; ``reset`` and ``short``: an answer that does."""
        data = (self.folder / path.removeprefix(FILES)).read_bytes()
        if kind == "truncated":
            data = data[: len(data) // 2]
        status, body, headers = _ranged(data, scope)
        headers["content-length"] = str(len(body))
        await send({"type": "http.response.start", "status": status, "headers": _raw(headers)})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
        elif kind == "truncated":
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            await asyncio.sleep(0.01)
            _break_off(send, reset=kind == "reset")

    def _next(self, path: str, scope: Any) -> _Fault | None:
        if self.guarded:
            sig = parse_qs(scope.get("query_string", b"").decode()).get("sig", [""])[0]
            if sig != f"secret{self.tokens}":
                return _Fault("", "403", 1, "")
        for fault in self._faults:
            if fault.times > 0 and path.endswith(fault.ending):
                if fault.after > 0:
                    fault.after -= 1
                    return None
                fault.times -= 1
                return fault
        return None

    def _token(self) -> dict[str, str]:
        self.tokens += 1
        expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.token_s)
        return {"msft:expiry": expiry.strftime("%Y-%m-%dT%H:%M:%SZ"), "token": f"sv=1&sig=secret{self.tokens}"}


def _ranged(data: bytes, scope: Any) -> tuple[int, bytes, dict[str, str]]:
    wanted = dict(scope["headers"]).get(b"range", b"").decode()
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    if match is None:
        return 200, data, {"accept-ranges": "bytes"}
    start, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
    if start >= len(data):
        return 416, b"", {"content-range": f"bytes */{len(data)}"}
    return 206, data[start : end + 1], {"content-range": f"bytes {start}-{end}/{len(data)}"}


async def _answer(send: Any, status: int, body: bytes, headers: dict[str, str]) -> None:
    headers = {"content-length": str(len(body)), **headers}
    await send({"type": "http.response.start", "status": status, "headers": _raw(headers)})
    await send({"type": "http.response.body", "body": body})


async def _stall(receive: Any) -> None:
    """Say nothing until the client goes away, ``STALL_S`` at most."""
    end = asyncio.get_running_loop().time() + STALL_S
    while asyncio.get_running_loop().time() < end:
        message = await asyncio.wait_for(receive(), STALL_S)
        if message["type"] == "http.disconnect":
            return


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _break_off(send: Any, *, reset: bool) -> None:
    """End the connection in the middle: with a reset, or by closing it."""
    transport = send.__self__.transport
    if reset:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()
