"""Texts without the secrets of links and of the environment: for errors, manifests and logs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

#: What stands where a secret stood.
GAP = "..."
#: Environment variables whose values are secrets.
SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PC_SDK_SUBSCRIPTION_KEY",
    "GDAL_HTTP_USERPWD",
    "GDAL_HTTP_BEARER",
    "GDAL_HTTP_HEADERS",
    "GDAL_HTTP_PROXYUSERPWD",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
)
#: Shorter values are not looked for: they would tear ordinary words apart, and protect nothing.
SHORTEST = 4

#: A query, from its question mark to where a link ends in a text.
_QUERY = re.compile(r"\?[^\s'\"<>]*")
#: User and password before a host.
_USER = re.compile(r"(?<=://)[^\s/@]+@")
#: Parts of signatures outside a link: Azure's, Amazon's, Google's, and tokens in general.
_PAIR = re.compile(
    r"\b(sig|signature|token|se|sp|st|sv|skoid|sktid|x-(?:amz|goog)-[\w-]+|awsaccesskeyid|key-pair-id|policy)"
    r"(=|%3d|\">|>)[^\s&'\"<>]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer|basic|authorization:)\s+\S+", re.IGNORECASE)


def address(href: str) -> str:
    """A link that may be shown: without query, fragment, user and password."""
    return _USER.sub("", re.split(r"[?#]", href, maxsplit=1)[0])


def without_secrets(text: str, *links: str) -> str:
    """Cut out of a text what may be a secret.

    Args:
        text: Any text, such as the message of a library.
        links: Links that were in use: their queries, users and passwords are looked for wherever they stand.

    Returns:
        The text on one line.
    """
    for secret in sorted({*_of_environment(), *(s for link in links for s in _of_link(link))}, key=len, reverse=True):
        text = text.replace(secret, GAP)
    text = _USER.sub("", _QUERY.sub("", text))
    text = _BEARER.sub(rf"\1 {GAP}", _PAIR.sub(rf"\1\2{GAP}", text))
    return " ".join(text.split())


def _of_environment() -> Iterator[str]:
    for name in SECRET_VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST:
            yield value


def _of_link(link: str) -> Iterator[str]:
    """The query, its values as they stand and decoded, the fragment, user and password of a link."""
    try:
        parts = urlsplit(link)
    except ValueError:  # no link at all; what follows its question mark may be a secret all the same
        parts = urlsplit(f"?{link.partition('?')[2]}")
    values = [parts.query, parts.fragment, *(value for _, value in parse_qsl(parts.query))]
    values += re.split(r"[&;=]", parts.query)
    if "@" in parts.netloc:
        values += [parts.netloc.rpartition("@")[0], *parts.netloc.rpartition("@")[0].split(":")]
    for value in values:
        for form in (value, unquote(value)):
            if len(form) >= SHORTEST:
                yield form
