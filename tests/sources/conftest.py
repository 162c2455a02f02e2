"""The tiny archive, written once for all tests of this folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import tiny_archive
from tests.fakes.stac_api import make_app, serve


@pytest.fixture(scope="session")
def archive_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's files; items.json is not needed, ``write_files`` gives the items."""
    return tmp_path_factory.mktemp("archive")


@pytest.fixture(scope="session")
def items(archive_folder: Path) -> list[tiny_archive.Json]:
    """The archive's items, links relative to its folder."""
    return tiny_archive.write_files(archive_folder)


@pytest.fixture(scope="session")
def catalog(archive_folder: Path, items: list[tiny_archive.Json]) -> Path:
    """The archive as a static catalogue."""
    return tiny_archive.write_catalog(archive_folder, items)


@pytest.fixture
def requests() -> Counter[str]:
    """What the API was asked."""
    return Counter()


@pytest.fixture
def api(archive_folder: Path, items: list[tiny_archive.Json], requests: Counter[str]) -> Iterator[str]:
    """The archive behind an API on loopback; gives its URL."""
    served = tiny_archive.link_to(items, "")
    with serve(make_app(tiny_archive.collections(items), served, archive_folder, requests)) as url:
        for one in served:
            for body in one["assets"].values():
                body["href"] = f"{url}/files{body['href']}"
        yield url
