"""Small objects on S3: where they are asked for, and the signature, held against Amazon's own."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.stac_api import make_app, serve
from tests.fakes.tiny_archive import GRID, SEASON, aoi
from wetmap.errors import SourceError
from wetmap.recipe import StacSource
from wetmap.sources import open_archive
from wetmap.sources.s3_text import Keys, http_url, keys_of, signed_headers

NOW = dt.datetime(2026, 5, 4, 3, 2, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "https://bucket.s3.eu-west-1.amazonaws.com/a/catalog%20x.json"),
        ({"AWS_VIRTUAL_HOSTING": "FALSE"}, "https://s3.eu-west-1.amazonaws.com/bucket/a/catalog%20x.json"),
        (
            {"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu", "AWS_VIRTUAL_HOSTING": "FALSE"},
            "https://eodata.dataspace.copernicus.eu/bucket/a/catalog%20x.json",
        ),
        (
            {"AWS_S3_ENDPOINT": "127.0.0.1:9000", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "no"},
            "http://127.0.0.1:9000/bucket/a/catalog%20x.json",
        ),
        ({"AWS_S3_ENDPOINT": "http://h:1/", "AWS_VIRTUAL_HOSTING": "NO"}, "http://h:1/bucket/a/catalog%20x.json"),
    ],
)
def test_where_an_object_is(settings: dict[str, str], expected: str) -> None:
    assert http_url("s3://bucket/a/catalog x.json", "eu-west-1", settings) == expected


@settings(deadline=None, max_examples=15)
@given(
    key=st.lists(st.text("abcXYZ019-_.~ +", min_size=1, max_size=8), min_size=1, max_size=3).map("/".join),
    region=st.sampled_from(["us-east-1", "eu-central-1", "default"]),
    token=st.sampled_from(["", "session/token=="]),
    pays=st.booleans(),
)
def test_signature_is_amazons(key: str, region: str, token: str, pays: bool) -> None:
    """botocore, which is Amazon's own client, signs the same request at the same time."""
    auth, awsrequest, credentials = _botocore()
    url = http_url(f"s3://bucket/{key}", region, {})
    extra = {"x-amz-request-payer": "requester"} if pays else {}
    request = awsrequest.AWSRequest("GET", url, headers=extra)
    request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
    request.context["payload_signing_enabled"] = True
    signer = auth.S3SigV4Auth(credentials.Credentials("AKID", "SeCrEt", token or None), "s3", region)
    signer.add_auth(request)
    stamp = dt.datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    mine = signed_headers(url, region, Keys("AKID", "SeCrEt", token), stamp, extra)
    assert mine["Authorization"] == request.headers["Authorization"]


def _botocore() -> tuple[Any, Any, Any]:
    parts = ("auth", "awsrequest", "credentials")
    auth, awsrequest, credentials = (pytest.importorskip(f"botocore.{part}") for part in parts)
    return auth, awsrequest, credentials


class TestKeys:
    def test_from_the_environment(self) -> None:
        keys = keys_of({"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B", "AWS_SESSION_TOKEN": "C"})
        assert keys == Keys("A", "B", "C")
        assert "B" not in repr(keys)

    def test_none_where_they_are_not_wanted(self) -> None:
        found = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B", "AWS_NO_SIGN_REQUEST": "YES"}
        assert keys_of(found) is None

    def test_from_a_profile(self, tmp_path: Path) -> None:
        file = tmp_path / "credentials"
        file.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\n[cdse]\naws_access_key_id = C\n"
                        "aws_secret_access_key = D\n")  # fmt: skip
        assert keys_of({"AWS_SHARED_CREDENTIALS_FILE": str(file)}) == Keys("A", "B")
        assert keys_of({"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "cdse"}) == Keys("C", "D")
        assert keys_of({"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "none"}) is None
        assert keys_of({"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}) is None


@pytest.fixture
def store(archive_folder: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An object store on loopback whose bucket ``files`` is the archive's folder; path by path, S3 is plain HTTP."""
    assert catalog.exists()
    counts: Counter[str] = Counter()
    with serve(make_app([], [], archive_folder, counts)) as url:
        for name, value in {
            "AWS_S3_ENDPOINT": url.removeprefix("http://"),
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_ACCESS_KEY_ID": "AKID",
            "AWS_SECRET_ACCESS_KEY": "SeCrEt",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield counts


def test_a_catalogue_on_s3_is_the_catalogue_on_disk(store: Counter[str], catalog: Path) -> None:
    there = open_archive(StacSource(catalog="s3://files/stac/catalog.json"), "optical")
    here = open_archive(StacSource(catalog=str(catalog)), "optical")
    remote, _ = there.search("optical", aoi(), [SEASON], max_cloud_percent=80.0)
    local, _ = here.search("optical", aoi(), [SEASON], max_cloud_percent=80.0)
    assert [scene.id for scene in remote] == [scene.id for scene in local]
    assert remote[0].item["assets"]["B02"]["href"] == "s3://files/S2A_20210610/B02.tif"
    assert (there.read(remote[0], ["B02"], GRID)["B02"] == here.read(local[0], ["B02"], GRID)["B02"]).all()
    assert store["files 200"] > 5


@pytest.mark.usefixtures("store")
def test_a_catalogue_that_is_not_there() -> None:
    archive = open_archive(StacSource(catalog="s3://files/none/catalog.json"), "optical")
    with pytest.raises(SourceError, match=r"s3://files/none/catalog.json cannot be read \(HTTPError: 404") as caught:
        archive.search("optical", aoi(), [SEASON], max_cloud_percent=80.0)
    assert "SeCrEt" not in str(caught.value)
