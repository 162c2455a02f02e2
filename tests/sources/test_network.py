"""Remote files under every fault: read as if there had been none, or named; never a silent hole, never a hang."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from tests.fakes.faults import Faults, Kind
from tests.fakes.stac_api import make_app, serve
from tests.fakes.tiny_archive import write_raster
from wetmap.errors import SourceError, UnusableFileError
from wetmap.geo import Grid
from wetmap.recipe import Network
from wetmap.sources import network, signing
from wetmap.sources.reader import RasterBand, extent_on, read_onto
from wetmap.sources.trouble import Trouble

pytestmark = pytest.mark.timeout(60)

SIDE = 96
WINDOW = Grid("EPSG:32619", 10.0, 700_000.0, 5_010_000.0, SIDE, SIDE)
QUICK = Network(first_wait_s=0.02, timeout_s=1, patience_s=20)
VALUES = np.random.default_rng(1).random((SIDE, SIDE)).astype(np.float32)
#: Faults that pass, and after how many requests.
PASSING: list[tuple[Kind, int]] = [
    *(("503", 3), ("500", 2), ("429", 2), ("404", 2), ("403", 2)),
    *(("reset", 2), ("short", 3), ("truncated", 4), ("html", 3), ("stall", 1)),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Faults]]:
    """One server for all tests of the module, and its faults."""
    faults = Faults(tmp_path_factory.mktemp("files"))
    with serve(faults.around(make_app([], [], faults.folder, Counter()))) as url:
        yield url, faults


@pytest.fixture
def faults(server: tuple[str, Faults]) -> Iterator[Faults]:
    """The server's faults, none at the beginning."""
    server[1].calm()
    yield server[1]
    server[1].calm()


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Reads that give up soon, and no memory of hosts in trouble."""
    network._SHARED.strained.clear()
    with network.using(QUICK):
        yield


@pytest.fixture
def href(server: tuple[str, Faults], faults: Faults, request: pytest.FixtureRequest) -> str:
    """A file of its own for each test: what GDAL remembers of one must not help another."""
    name = f"{abs(hash(request.node.name))}.tif"
    write(faults.folder / name)
    return f"{server[0]}/files/{name}"


@pytest.fixture
def s3(server: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same server as an object store."""
    for name, value in {
        "AWS_S3_ENDPOINT": server[0].removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "AKIAFAKEFAKE",
        "AWS_SECRET_ACCESS_KEY": "notasecretatall",
    }.items():
        monkeypatch.setenv(name, value)


def write(path: Path, values: NDArray[Any] = VALUES) -> Path:
    """A raster larger than what GDAL reads when it opens a file, so that reading asks again."""
    return write_raster(path, values, Affine(10, 0, 700_000, 0, -10, 5_010_000))


def read(href: str, **changes: Any) -> NDArray[np.float32]:
    return read_onto(RasterBand(href, **changes), WINDOW)


class TestPassing:
    @pytest.mark.parametrize(("kind", "times"), PASSING)
    def test_a_fault_that_passes_leaves_no_trace(self, href: str, faults: Faults, kind: Kind, times: int) -> None:
        faults.add(kind, ".tif", times)
        np.testing.assert_array_equal(read(href), VALUES)
        assert faults.seen[kind] == times

    @pytest.mark.parametrize(("kind", "times"), PASSING[:-1])
    @pytest.mark.usefixtures("s3")
    def test_on_an_object_store(self, href: str, faults: Faults, kind: Kind, times: int) -> None:
        faults.add(kind, ".tif", times)
        np.testing.assert_array_equal(read(f"s3://files/{href.rpartition('/')[2]}"), VALUES)
        assert faults.seen[kind] == times

    @pytest.mark.parametrize("kind", ["503", "reset", "short"])
    def test_in_the_middle_of_the_reading(self, href: str, faults: Faults, kind: Kind) -> None:
        """The file is opened well, and then its tiles do not come."""
        faults.add(kind, ".tif", 2, after=1)
        np.testing.assert_array_equal(read(href), VALUES)
        assert faults.seen[kind] > 0

    def test_every_other_request_fails(self, href: str, faults: Faults) -> None:
        with network.using(QUICK.model_copy(update={"tries": 20})):
            for _ in range(10):
                faults.add("503", ".tif", 1)
                faults.add("reset", ".tif", 1)
                np.testing.assert_array_equal(read(href), VALUES)

    def test_the_outline_too(self, href: str, faults: Faults) -> None:
        faults.add("503", ".tif", 2)
        assert np.isfinite(extent_on(href, WINDOW)).all()

    def test_gdal_alone_would_remember_the_failure(self, href: str, faults: Faults) -> None:
        """What all this is for: the server is well again, and GDAL does not ask it."""
        faults.add("404", ".tif", 1)
        for _ in range(2):
            with rasterio.Env(**network.environment(href, QUICK)), pytest.raises(rasterio.errors.RasterioIOError):
                rasterio.open(href)
        assert faults.seen == {"404": 1}
        np.testing.assert_array_equal(read(href), VALUES)


class TestStaying:
    @pytest.mark.parametrize(
        ("kind", "error", "said", "requests"),
        [
            ("404", UnusableFileError, "the server answers 404: not there; tried 3 times", 12),
            ("403", UnusableFileError, "the server answers 403: no permission; tried 3 times", 12),
            ("html", UnusableFileError, "what the server sends is no raster but text/html; tried 3 times", 20),
            ("503", SourceError, "the server answers 503: out of order; tried 5 times", 20),
            ("429", SourceError, "the server answers 429: too many requests; tried 5 times", 20),
            ("truncated", SourceError, "not all of it arrived, or it is damaged", 60),
            ("short", SourceError, "; tried 5 times in", 50),
        ],
    )
    def test_it_is_named_and_given_up(
        self, href: str, faults: Faults, kind: Kind, error: type[SourceError], said: str, requests: int
    ) -> None:
        faults.add(kind, ".tif")
        with pytest.raises(SourceError) as caught:
            read(f"{href}?sig=SECRET")
        assert type(caught.value) is error
        assert said in caught.value.what
        assert caught.value.what.startswith(f"{href} cannot be read (")
        assert "?" not in str(caught.value)
        assert faults.seen[kind] <= requests

    @pytest.mark.parametrize(
        ("kind", "error"),
        [("404", UnusableFileError), ("403", UnusableFileError), ("html", UnusableFileError), ("503", SourceError)],
    )
    @pytest.mark.usefixtures("s3")
    def test_on_an_object_store(self, href: str, faults: Faults, kind: Kind, error: type[SourceError]) -> None:
        faults.add(kind, ".tif")
        with pytest.raises(SourceError, match=r"s3://files/\d+\.tif cannot be read") as caught:
            read(f"s3://files/{href.rpartition('/')[2]}")
        assert type(caught.value) is error
        assert "notasecretatall" not in str(caught.value)
        assert "AKIAFAKEFAKE" not in str(caught.value)

    def test_no_server_at_all(self) -> None:
        with pytest.raises(SourceError, match="the connection fails; tried 5 times"):
            read("http://127.0.0.1:9/a.tif")

    def test_a_stalled_server_costs_its_limit_and_no_more(self, href: str, faults: Faults) -> None:
        faults.add("stall", ".tif")
        start = time.monotonic()
        with network.using(QUICK.model_copy(update={"tries": 2})), pytest.raises(SourceError, match="in time"):
            read(href)
        assert time.monotonic() - start < 5

    def test_patience_ends(self, href: str, faults: Faults) -> None:
        faults.add("503", ".tif")
        start = time.monotonic()
        with (
            network.using(Network(tries=20, first_wait_s=0.3, timeout_s=1, patience_s=1)),
            pytest.raises(SourceError, match="503"),
        ):
            read(href)
        assert time.monotonic() - start < 4

    def test_a_server_in_trouble_is_tried_once_for_each_read_until_it_is_well(
        self, server: tuple[str, Faults], faults: Faults
    ) -> None:
        names = [write(faults.folder / f"strained{number}.tif").name for number in range(3)]
        faults.add("503", ".tif")
        for name, tries in zip(names[:2], ("tried 5 times", "out of order)"), strict=True):
            with pytest.raises(SourceError) as caught:
                read(f"{server[0]}/files/{name}")
            assert tries in caught.value.what
        faults.calm()
        np.testing.assert_array_equal(read(f"{server[0]}/files/{names[2]}"), VALUES)
        faults.add("503", ".tif", 4)
        np.testing.assert_array_equal(read(f"{server[0]}/files/{names[0]}"), VALUES)

    def test_a_server_that_is_down_is_asked_now_and_then(
        self, href: str, faults: Faults, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(network, "REST_S", 0.3)
        faults.add("503", ".tif")
        for _ in range(network.DOWN_AFTER + 10):
            with pytest.raises(SourceError) as caught:
                read(href)
        assert "failed 20 times in a row, and is asked once in 0.3 s" in caught.value.what
        asked = faults.seen["503"]
        assert asked < 5 * 3 + network.DOWN_AFTER * 3
        with pytest.raises(SourceError, match="in a row"):
            read(href)
        assert faults.seen["503"] == asked
        time.sleep(0.3)
        faults.calm()
        np.testing.assert_array_equal(read(href), VALUES)
        np.testing.assert_array_equal(read(href), VALUES)


class TestManners:
    def test_retry_after_is_honoured(self, href: str, faults: Faults) -> None:
        faults.add("429", ".tif", 3, retry_after="1")
        start = time.monotonic()
        np.testing.assert_array_equal(read(href), VALUES)
        assert time.monotonic() - start > 0.95

    def test_a_server_that_asks_for_too_long_is_given_up_at_once(self, href: str, faults: Faults) -> None:
        faults.add("503", ".tif", retry_after="3600")
        start = time.monotonic()
        with pytest.raises(SourceError, match=r"503: out of order\)"):
            read(href)
        assert time.monotonic() - start < 2

    def test_waits_double_with_jitter_and_are_not_all_the_same(self) -> None:
        busy = Trouble("busy", "no")
        settings = Network(first_wait_s=1)
        for failed in range(1, 8):
            waits = [network._wait(f"file {number}", failed, busy, settings) for number in range(50)]
            longest = min(2 ** (failed - 1), network.LONGEST_WAIT_S)
            assert longest / 2 <= min(waits) < max(waits) <= longest
            assert len(set(waits)) == 50

    @pytest.mark.parametrize(("per_host", "most"), [(2, 2), (8, 8)])
    def test_files_of_a_host_are_read_a_few_at_a_time(
        self, server: tuple[str, Faults], faults: Faults, per_host: int, most: int
    ) -> None:
        faults.slow_s = 0.05
        names = [write(faults.folder / f"slot{per_host}{number}.tif").name for number in range(8)]

        def one(name: str) -> None:
            with network.using(QUICK.model_copy(update={"per_host": per_host})):
                read(f"{server[0]}/files/{name}")

        threads = [threading.Thread(target=one, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # the server may hear of a file's end a little after the next one has begun, and a busy machine begins them late
        assert (4 if per_host == 8 else 1) <= faults.most_files_at_once <= most + 1

    def test_rasterio_logs_no_signed_link(
        self, href: str, faults: Faults, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        faults.add("503", ".tif")
        with caplog.at_level(logging.DEBUG), pytest.raises(SourceError):
            read(f"{href}?sig=SECRET")
        assert "SECRET" not in caplog.text
        assert "SECRET" not in capfd.readouterr().err
        logging.getLogger("rasterio._env").warning("others are heard")
        assert "others are heard" in caplog.text

    def test_the_environment_is_left_alone(self, href: str, faults: Faults) -> None:
        before = dict(os.environ)
        faults.add("503", ".tif", 2)
        read(href)
        assert dict(os.environ) == before
        assert "CPL_VSIL_CURL_NON_CACHED" not in (rasterio.env.getenv() if rasterio.env.hasenv() else {})

    def test_hosts(self) -> None:
        assert network.host_of("https://a.org:8443/x/y.tif?z") == "a.org:8443"
        assert network.host_of("/vsicurl/https://a.org/x.tif") == "a.org"
        assert network.host_of("s3://eodata/x/y.tif") == "s3/eodata"
        assert network.host_of("/vsis3/eodata/x/y.tif") == "vsis3/eodata"

    def test_copernicus_store_is_known_and_the_environment_goes_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_S3_ENDPOINT", raising=False)
        options = network.environment("s3://eodata/Sentinel-2/B03.jp2", QUICK)
        assert options["AWS_S3_ENDPOINT"] == "eodata.dataspace.copernicus.eu"
        assert options["AWS_VIRTUAL_HOSTING"] == "FALSE"
        assert "AWS_S3_ENDPOINT" not in network.environment("s3://sentinel-cogs/B03.tif", QUICK)
        monkeypatch.setenv("AWS_S3_ENDPOINT", "127.0.0.1:1")
        assert "AWS_S3_ENDPOINT" not in network.environment("s3://eodata/B03.jp2", QUICK)
        assert not any("SECRET" in name or "KEY" in name for name in options)


class Doorkeeper:
    """Signs links of the local server with the tokens that it gives, as the Planetary Computer does with its own."""

    def __init__(self, url: str) -> None:
        self.url, self.token, self.asked = url, "", 0

    def sign(self, href: str) -> str:
        if not self.token:
            self.asked += 1
            self.token = signing._fetch_token(f"{self.url}/api/sas/v1/token/account/container")[0]
        return f"{href}?{self.token}"

    def renew(self, href: str) -> None:
        assert "sig" not in href
        self.token = ""


class TestSigning:
    @pytest.fixture
    def door(self, server: tuple[str, Faults], faults: Faults, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doorkeeper]:
        faults.guarded = True
        keeper = Doorkeeper(server[0])
        monkeypatch.setitem(signing.SIGNERS, "planetary-computer", keeper)
        yield keeper
        faults.guarded = False

    def test_a_token_that_has_expired_is_renewed(self, href: str, faults: Faults, door: Doorkeeper) -> None:
        np.testing.assert_array_equal(read(href, signer="planetary-computer"), VALUES)
        assert door.asked == 1
        faults.expire()
        for name in ("one", "two"):
            write(faults.folder / f"expired-{name}.tif")
            other = f"{href.rpartition('/')[0]}/expired-{name}.tif"
            np.testing.assert_array_equal(read(other, signer="planetary-computer"), VALUES)
        assert door.asked == 2

    def test_also_where_the_host_is_in_trouble(self, href: str, faults: Faults, door: Doorkeeper) -> None:
        network._strain("", network.host_of(href), Trouble("busy", "no"))
        door.sign(href)
        faults.expire()
        np.testing.assert_array_equal(read(href, signer="planetary-computer"), VALUES)

    @pytest.mark.usefixtures("door")
    def test_unsigned_it_is_refused(self, href: str) -> None:
        with pytest.raises(UnusableFileError, match="403: no permission"):
            read(href)

    def test_planetary_computer_tokens(
        self, server: tuple[str, Faults], faults: Faults, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{server[0]}/api/sas/v1/token")
        signer, first = signing.PlanetaryComputer(), faults.tokens
        link = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/10/T/B03.tif"
        signed = [signer.sign(link) for _ in range(3)]
        assert signed == [f"{link}?sv=1&sig=secret{first + 1}"] * 3
        assert signer.sign(signed[0]) == signed[0]
        assert signer.sign(link.replace("sentinel2-l2/", "other/")).endswith(f"secret{first + 2}")
        signer.renew(link)
        assert signer.sign(link) == f"{link}?sv=1&sig=secret{first + 3}"
        assert signer.sign("https://elsewhere.org/a/b.tif") == "https://elsewhere.org/a/b.tif"

    def test_a_token_that_soon_ends_is_renewed(
        self, server: tuple[str, Faults], faults: Faults, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{server[0]}/api/sas/v1/token")
        monkeypatch.setattr(faults, "token_s", signing.REMAINING_S - 10)
        signer, first = signing.PlanetaryComputer(), faults.tokens
        for number in (1, 2):
            assert signer.sign("https://a.blob.core.windows.net/b/c.tif").endswith(f"secret{first + number}")

    def test_no_token_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PC_SDK_SAS_URL", "http://127.0.0.1:9/token")
        said = "no token for a/b from the Planetary Computer: the connection fails; tried 5 times"
        with pytest.raises(SourceError, match=said):
            read("https://a.blob.core.windows.net/b/c.tif", signer="planetary-computer")


def test_settings_hold_for_a_thread_and_as_long_as_they_last() -> None:
    found: list[int] = []

    def other() -> None:
        found.append(network._settings.get().tries)

    with network.using(Network(tries=9)):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert network._settings.get().tries == 9
    assert found == [Network().tries]
    assert network._settings.get() is QUICK
