"""One archive, reached in three ways and under every fault, through the front door: the same cube, or a named hole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer
from shapely.geometry import mapping

from tests.fakes import tiny_archive
from tests.fakes.faults import Faults, Kind
from tests.fakes.stac_api import make_app, serve
from tests.walk.conftest import Run
from wetmap.sources import network, signing

pytestmark = pytest.mark.timeout(120)

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "aoi": "area.geojson",
    "workspace": "space",
    "grid": {"block_px": 32, "crs": tiny_archive.CRS},
    "seasons": [{"name": "summer", "start": "2021-06-01", "end": "2021-09-30"}],
    "features": {
        "preset": "custom",
        "optical": ["B03"],
        "indices": [],
        "radar": ["VV"],
        "orbit_states": ["ascending"],
        "terrain": ["elevation"],
    },
    "network": {"first_wait_s": 0.02, "timeout_s": 1, "patience_s": 30},
    "cluster": {"workers": 1},
}
#: Faults that pass: what happens to the next requests for which file.
STORM: list[tuple[Kind, int, str]] = [
    ("503", 4, "S2A_20210610/B03.tif"),
    ("429", 3, "S2B_20210715/B03.tif"),
    ("truncated", 4, "S2A_20210820/B03.tif"),
    ("404", 2, "S2A_20210610/SCL.tif"),
    ("html", 4, "S2B_20210715/SCL.tif"),
    ("500", 2, "S2A_20210820/SCL.tif"),
    ("short", 3, "S1A_2021-06-12_ascending_0/vv.tif"),
    ("reset", 3, "S1A_2021-07-06_ascending_0/vv.tif"),
    ("stall", 1, "dem/dem.tif"),
]
#: Faults that stay, and how the manifest puts them.
STAYING: list[tuple[Kind, str]] = [
    ("404", "the server answers 404: not there; tried 3 times"),
    ("truncated", "not all of it arrived, or it is damaged"),
]
#: Files by name.
Files = dict[str, bytes]
LOST = "S2A_20210610"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the tiny archive."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "items.json").write_text(json.dumps(tiny_archive.write_files(folder)))
    return folder


@pytest.fixture(scope="module")
def items(files: Path) -> list[tiny_archive.Json]:
    """Its items, links relative to the folder."""
    return list(json.loads((files / "items.json").read_text()))


@pytest.fixture
def faults(files: Path) -> Faults:
    """No faults yet, and nothing remembered of other servers."""
    network._SHARED.strained.clear()
    return Faults(files)


@pytest.fixture
def api(files: Path, items: list[tiny_archive.Json], faults: Faults) -> Iterator[str]:
    """The archive behind an API, its files over HTTP with faults."""
    served = tiny_archive.link_to(items, "")
    with serve(faults.around(make_app(tiny_archive.collections(items), served, files, Counter()))) as url:
        relink(served, f"{url}/files")
        yield url


def relink(items: Sequence[tiny_archive.Json], base: str) -> None:
    for one in items:
        for body in one["assets"].values():
            body["href"] = f"{base}{body['href']}"


def write(folder: Path, catalog: str | Path, **changes: Any) -> Path:
    """The recipe with this catalogue for every sensor."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "area.geojson").write_text(json.dumps(mapping(tiny_archive.aoi().geometry)))
    source = {"from": "stac", "catalog": str(catalog)}
    path = folder / "recipe.yaml"
    data = {**RECIPE, "sources": dict.fromkeys(("optical", "radar", "terrain"), source), **changes}
    path.write_text(yaml.safe_dump(data))
    return path


def cube_of(folder: Path) -> Files:
    """Every file of the cube, by its name."""
    cube = next((folder / "space/stages/fetch").glob("*/cube.zarr"))
    return {str(path.relative_to(cube)): path.read_bytes() for path in sorted(cube.rglob("*")) if path.is_file()}


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads(next((folder / "space/stages/fetch").glob("*/manifest.json")).read_text()))


@pytest.fixture(scope="module")
def calm(files: Path, items: list[tiny_archive.Json], tmp_path_factory: pytest.TempPathFactory, wetmap: Run) -> Files:
    """The cube of the static catalogue on disk."""
    folder = tmp_path_factory.mktemp("calm")
    wetmap("fetch", "--recipe", write(folder, tiny_archive.write_catalog(files, items)))
    assert manifest_of(folder)["failed_reads"] == []
    return cube_of(folder)


@pytest.fixture(scope="module")
def without(
    files: Path, items: list[tiny_archive.Json], tmp_path_factory: pytest.TempPathFactory, wetmap: Run
) -> Files:
    """The cube of the archive that never had the scene ``LOST``."""
    folder = tmp_path_factory.mktemp("without")
    root = folder / "less"
    for name in {path.relative_to(files).parts[0] for path in files.rglob("*.tif")}:
        root.mkdir(exist_ok=True)
        (root / name).symlink_to(files / name)
    catalog = tiny_archive.write_catalog(root, [one for one in items if one["id"] != LOST])
    wetmap("fetch", "--recipe", write(folder, catalog))
    return cube_of(folder)


@pytest.fixture(scope="module")
def cubes(calm: Files, without: Files) -> tuple[Files, Files]:
    """With the scene ``LOST``, and without it."""
    return calm, without


class TestThreeWays:
    def test_over_http(self, api: str, tmp_path: Path, wetmap: Run, calm: Files, faults: Faults) -> None:
        wetmap("fetch", "--recipe", write(tmp_path, api))
        assert cube_of(tmp_path) == calm
        assert faults.seen["calm"] > 0

    def test_over_s3(
        self,
        files: Path,
        items: list[tiny_archive.Json],
        tmp_path: Path,
        wetmap: Run,
        calm: Files,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        store.start()
        try:
            host = "{}:{}".format(*store.get_host_and_port())
            secrets = {"AWS_ACCESS_KEY_ID": "AKIAFAKEFAKE", "AWS_SECRET_ACCESS_KEY": "notasecretatall"}
            settings = {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
            for name, value in {**secrets, **settings, "AWS_DEFAULT_REGION": "us-east-1"}.items():
                monkeypatch.setenv(name, value)
            client = boto3.client("s3", endpoint_url=f"http://{host}")
            client.create_bucket(Bucket="eodata")
            for path in files.rglob("*.tif"):
                client.upload_file(str(path), "eodata", path.relative_to(files).as_posix())
            linked = tiny_archive.link_to(items, "s3://eodata")
            with serve(make_app(tiny_archive.collections(items), linked, files, Counter())) as url:
                wetmap("fetch", "--recipe", write(tmp_path / "s3", url))
                assert cube_of(tmp_path / "s3") == calm
                (lost,) = (one for one in linked if one["id"] == LOST)
                lost["assets"]["B03"]["href"] = f"s3://eodata/{LOST}/none.tif"
                recipe = write(tmp_path / "hole", url)
                done = wetmap("fetch", "--recipe", recipe, "--max-failed", "0.5")
        finally:
            store.stop()
        (reason,) = {row["reason"] for row in manifest_of(tmp_path / "hole")["failed_reads"]}
        assert reason.startswith(f"s3://eodata/{LOST}/none.tif cannot be read (")
        assert "not there" in reason
        assert_no_secret(tmp_path, done.stdout + done.stderr, tuple(secrets.values()))


class TestFaults:
    def test_faults_that_pass_leave_no_trace(
        self, api: str, faults: Faults, tmp_path: Path, wetmap: Run, calm: Files
    ) -> None:
        for kind, times, ending in STORM:
            faults.add(kind, ending, times, retry_after="0")
        done = wetmap("fetch", "--recipe", write(tmp_path, api))
        assert {kind: faults.seen[kind] for kind, _, _ in STORM} == {kind: times for kind, times, _ in STORM}
        assert manifest_of(tmp_path)["failed_reads"] == []
        assert cube_of(tmp_path) == calm
        assert "left out:" not in done.stderr

    def test_a_server_that_is_down_ends_in_an_error_soon(
        self, api: str, faults: Faults, tmp_path: Path, wetmap: Run
    ) -> None:
        """Not in 4 blocks x 7 scenes x 5 tries: from the second read on each is tried once."""
        faults.add("503", ".tif")
        said = wetmap("fetch", "--recipe", write(tmp_path, api), expect=1).stderr
        assert "503: out of order" in " ".join(said.split())
        assert faults.seen["503"] < 150

    @pytest.mark.parametrize(("kind", "said"), STAYING)
    def test_a_fault_that_stays_is_a_hole_with_a_name_and_the_next_run_fills_it(
        self, api: str, faults: Faults, tmp_path: Path, wetmap: Run, cubes: tuple[Files, Files], kind: Kind, said: str
    ) -> None:
        calm, without = cubes
        faults.add(kind, f"{LOST}/B03.tif")
        recipe = write(tmp_path, api)
        refused = wetmap("fetch", "--recipe", recipe, expect=1).stderr
        if kind == "404":  # three tries for the first of four blocks, and what is asked beside them; then no more
            assert faults.paths[f"/files/{LOST}/B03.tif"] <= 3 * 4
        assert f"{api}/files/{LOST}/B03.tif cannot be read ({said}" in " ".join(refused.split())
        done = wetmap("fetch", "--recipe", recipe, "--max-failed", "0.5", "--json")
        told, rows = json.loads(done.stdout), manifest_of(tmp_path)["failed_reads"]
        assert {row["scene"] for row in rows} == {LOST}
        assert said in rows[0]["reason"]
        assert (told["failed_reads"], told["lost_scenes"]) == (len(rows), 1)
        assert done.stderr.count(f"{LOST} is left out") == 1
        if kind != "truncated":  # of which some blocks can be read
            assert len(rows) == told["blocks"]
            assert cube_of(tmp_path) == without
        faults.calm()
        again = wetmap("fetch", "--recipe", recipe)
        assert "tried again" in again.stderr
        assert manifest_of(tmp_path)["failed_reads"] == []
        assert cube_of(tmp_path) == calm
        assert "already done" in wetmap("fetch", "--recipe", recipe).stderr

    def test_expired_tokens_are_renewed_and_never_written_down(
        self,
        api: str,
        faults: Faults,
        tmp_path: Path,
        wetmap: Run,
        calm: Files,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        class Doorkeeper:
            def __init__(self) -> None:
                self.token, self.signed = "", 0

            def sign(self, href: str) -> str:
                self.signed += 1
                if self.signed % 25 == 0:
                    faults.expire()
                if not self.token:
                    self.token = signing._fetch_token(f"{api}/api/sas/v1/token/account/container")[0]
                return f"{href}?{self.token}"

            def renew(self, _: str) -> None:
                self.token = ""

        monkeypatch.setitem(signing.SIGNERS, "", Doorkeeper())
        faults.guarded = True
        done = wetmap("fetch", "--recipe", write(tmp_path, api))
        assert faults.seen["403"] > 0
        assert cube_of(tmp_path) == calm
        faults.add("404", f"{LOST}/B03.tif")
        lost = write(tmp_path / "lost", api)
        said = wetmap("fetch", "--recipe", lost, "--max-failed", "0.5")
        assert manifest_of(tmp_path / "lost")["failed_reads"]
        printed = done.stdout + done.stderr + said.stdout + said.stderr
        assert_no_secret(tmp_path, printed, ("sig=", *(f"secret{n}" for n in range(faults.tokens + 1))))


def assert_no_secret(folder: Path, printed: str, secrets: Sequence[str]) -> None:
    """Nothing of it was printed, or lies in any file of the workspace."""
    texts = [printed, *(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())]
    assert len(texts) > 5
    for secret in secrets:
        assert not any(secret in text for text in texts), secret
