"""Read a small object from S3 (the JSON files of a static catalogue) with what is there: HTTP and a signature.

Pixels are read by GDAL, which cannot hand out text files; its settings hold here too, so that one set of environment
variables serves both: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_NO_SIGN_REQUEST, AWS_REGION,
AWS_S3_ENDPOINT, AWS_HTTPS, AWS_VIRTUAL_HOSTING, AWS_REQUEST_PAYER, AWS_PROFILE.

The signature is AWS Signature Version 4 (docs.aws.amazon.com, "Signature Version 4 signing process").
"""

from __future__ import annotations

import configparser
import datetime as dt
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from requests import Response, Session

#: Hash of an empty body.
_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Keys:
    """Credentials; kept out of every text."""

    key_id: str
    secret: str
    token: str = ""

    def __repr__(self) -> str:
        return "Keys(...)"


def read_object(session: Session, url: str, *, timeout: tuple[float, float]) -> bytes:
    """Read an object.

    Args:
        session: Sends the request, and tries again as it was told.
        url: ``s3://bucket/key``.
        timeout: Seconds to connect, and to wait for an answer.

    Raises:
        requests.RequestException: It cannot be reached or is refused. No message holds a credential.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    region = settings.get("AWS_REGION") or settings.get("AWS_DEFAULT_REGION") or "us-east-1"
    answer = _get(session, url, region, settings, timeout)
    elsewhere = answer.headers.get("x-amz-bucket-region", region)
    if answer.status_code in {301, 307, 400} and elsewhere != region:
        answer = _get(session, url, elsewhere, settings, timeout)
    answer.raise_for_status()
    return bytes(answer.content)


def http_url(url: str, region: str, settings: Mapping[str, str]) -> str:
    """Where an ``s3://`` object is served, by the rules of GDAL's settings."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    host = (settings.get("AWS_S3_ENDPOINT") or f"s3.{region}.amazonaws.com").rstrip("/")
    scheme = "https" if _yes(settings.get("AWS_HTTPS", "YES")) else "http"
    if "://" in host:
        scheme, _, host = host.partition("://")
    path = quote(key, safe="/-_.~")
    if _yes(settings.get("AWS_VIRTUAL_HOSTING", "YES")) and "." not in bucket:
        return f"{scheme}://{bucket}.{host}/{path}"
    return f"{scheme}://{host}/{bucket}/{path}"


def signed_headers(url: str, region: str, keys: Keys, now: dt.datetime, extra: Mapping[str, str]) -> dict[str, str]:
    """Headers that sign a GET request for S3.

    Args:
        url: The URL that will be asked, without a query.
        region: Region of the bucket.
        keys: Credentials.
        now: Time of the request, UTC.
        extra: Further headers to send and to sign.
    """
    parts = urlsplit(url)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {**extra, "x-amz-date": stamp, "x-amz-content-sha256": _EMPTY}
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    signed = {"host": parts.netloc, **{name.lower(): value for name, value in headers.items()}}
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        ["GET", parts.path, "", *(f"{name}:{signed[name].strip()}" for name in sorted(signed)), "", names, _EMPTY]
    )
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys.secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    told = f"Credential={keys.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {told}"}


def keys_of(settings: Mapping[str, str]) -> Keys | None:
    """Credentials from the environment, else from ``~/.aws/credentials``; None to ask without a signature."""
    if _yes(settings.get("AWS_NO_SIGN_REQUEST", "NO")):
        return None
    if settings.get("AWS_ACCESS_KEY_ID") and settings.get("AWS_SECRET_ACCESS_KEY"):
        return Keys(
            settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"], settings.get("AWS_SESSION_TOKEN", "")
        )
    file = Path(settings.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    parser = configparser.ConfigParser()
    try:
        parser.read(file, encoding="utf-8")
        part = parser[settings.get("AWS_PROFILE") or settings.get("AWS_DEFAULT_PROFILE") or "default"]
        return Keys(part["aws_access_key_id"], part["aws_secret_access_key"], part.get("aws_session_token", ""))
    except (KeyError, OSError, configparser.Error, UnicodeDecodeError):
        return None


def _get(
    session: Session, url: str, region: str, settings: Mapping[str, str], timeout: tuple[float, float]
) -> Response:
    where = http_url(url, region, settings)
    headers = {"x-amz-request-payer": "requester"} if settings.get("AWS_REQUEST_PAYER") == "requester" else {}
    keys = keys_of(settings)
    if keys is not None:
        headers = signed_headers(where, region, keys, dt.datetime.now(dt.UTC), headers)
    return session.get(where, headers=headers, timeout=timeout, allow_redirects=False)


def _yes(value: str) -> bool:
    """How GDAL reads a setting that is on or off."""
    return value.strip().upper() in {"YES", "TRUE", "ON", "1"}
