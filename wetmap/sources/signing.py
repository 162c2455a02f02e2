"""Links are signed where and when they are read: tokens last less than an hour, and none must reach a manifest.

A provider that signs is one small class; links of all others pass as they are. Object stores that want an account
(Copernicus Data Space) are signed for by GDAL, with the AWS_* variables of the environment and with nothing else.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol
from urllib.parse import parse_qs, urlsplit

import requests

from wetmap.sources.trouble import Trouble, TroubleError, from_answer, from_silence

#: Who signs: nobody, or the Planetary Computer.
SignerName = Literal["", "planetary-computer"]

#: Where the Planetary Computer gives tokens; the variables are those of its own client.
TOKEN_URL, TOKEN_URL_VARIABLE = "https://planetarycomputer.microsoft.com/api/sas/v1/token", "PC_SDK_SAS_URL"
KEY_VARIABLE, KEY_HEADER = "PC_SDK_SUBSCRIPTION_KEY", "Ocp-Apim-Subscription-Key"
#: Its files lie in Azure's object store.
BLOB_DOMAIN = ".blob.core.windows.net"
#: A token is renewed this long before it ends, seconds: a read that begins with it should also end with it.
REMAINING_S = 120.0
#: Seconds within which the token service must answer.
TIMEOUT_S = 20.0


class Signer(Protocol):
    """Makes links that can be opened."""

    def sign(self, href: str) -> str:
        """The link with what opens it.

        Raises:
            TroubleError: No token can be had now.
        """

    def renew(self, href: str) -> None:
        """The link was refused: ask for a new token next time."""


class Nobody:
    """Links that need no signature, or are signed already."""

    def sign(self, href: str) -> str:
        """The link as it is."""
        return href

    def renew(self, href: str) -> None:
        """Nothing to renew."""


@dataclass
class PlanetaryComputer:
    """Tokens of the Planetary Computer, one for each container, kept until they end."""

    _tokens: dict[str, tuple[str, dt.datetime]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sign(self, href: str) -> str:
        """The link with a token behind it; links elsewhere, and such as are signed, pass as they are.

        Raises:
            TroubleError: The token service does not answer, or refuses.
        """
        container = _container(href)
        if container is None:
            return href
        with self._lock:  # one asks, and all others of the process wait for the answer
            token, ends = self._tokens.get(container, ("", dt.datetime.min.replace(tzinfo=dt.UTC)))
            if (ends - dt.datetime.now(dt.UTC)).total_seconds() < REMAINING_S:
                token, ends = _ask_token(container)
                self._tokens[container] = token, ends
        return f"{href}{'&' if urlsplit(href).query else '?'}{token}"

    def renew(self, href: str) -> None:
        """Forget the token of a link's container."""
        with self._lock:
            self._tokens.pop(_container(href) or "", None)


#: Who signs, by name. Every process has its own tokens.
SIGNERS: dict[SignerName, Signer] = {"": Nobody(), "planetary-computer": PlanetaryComputer()}


def _container(href: str) -> str | None:
    """``account/container`` of an unsigned link into Azure's object store."""
    parts = urlsplit(href)
    host, names = parts.hostname or "", parts.path.split("/")
    if not host.endswith(BLOB_DOMAIN) or len(names) < 3 or "sig" in parse_qs(parts.query):
        return None
    return f"{host.removesuffix(BLOB_DOMAIN)}/{names[1]}"


def _ask_token(container: str) -> tuple[str, dt.datetime]:
    """A new token of a container and when it ends."""
    url = f"{os.environ.get(TOKEN_URL_VARIABLE, TOKEN_URL).rstrip('/')}/{container}"
    key = os.environ.get(KEY_VARIABLE)
    try:
        return _fetch_token(url, {KEY_HEADER: key} if key else {})
    except TroubleError as error:
        said = f"no token for {container} from the Planetary Computer: {error.trouble.text}"
        raise TroubleError(replace(error.trouble, text=said)) from None


def _fetch_token(url: str, headers: Mapping[str, str] | None = None) -> tuple[str, dt.datetime]:
    try:
        answer = requests.get(url, headers=headers, timeout=TIMEOUT_S)
        trouble = from_answer(answer)
        if trouble is None:
            body = answer.json()
            return str(body["token"]), dt.datetime.fromisoformat(str(body["msft:expiry"]))
    except (KeyError, TypeError, ValueError):  # also what is no JSON
        trouble = Trouble("busy", "the answer is no token")
    except requests.RequestException as error:
        trouble = from_silence(error)
    raise TroubleError(trouble)
