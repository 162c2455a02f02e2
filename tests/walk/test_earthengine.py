"""`wetmap fetch` from Earth Engine, through the front door: the real client asks a local service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.fakes import earth_engine_archive, tiny_archive
from tests.fakes.earth_engine import FakeEarthEngine
from tests.walk.conftest import Run
from wetmap.cube import Cube
from wetmap.sources import earthengine_client


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEarthEngine]:
    folder = tmp_path_factory.mktemp("archive")
    with FakeEarthEngine() as service:
        earth_engine_archive.fill(service, folder, tiny_archive.write_files(folder))
        yield service
        earthengine_client.disconnect()


def write(folder: Path, **changes: object) -> Path:
    """The area of the tiny archive, and a recipe."""
    area = tiny_archive.aoi()
    (folder / "area.geojson").write_text(json.dumps(area.geometry.__geo_interface__))
    recipe = {
        "aoi": "area.geojson",
        "workspace": "space",
        "grid": {"block_px": 40},
        "seasons": [{"name": "summer", "start": "2021-06-01", "end": "2021-09-30"}],
        "features": {"preset": "seasonal"},
        "coregistration": {"radar": "off"},
        "cluster": {"workers": 1},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def sources(fake: FakeEarthEngine, **words: object) -> dict[str, dict[str, object]]:
    one = {"from": "earth-engine", "url": fake.url, "project": fake.project, **words}
    return {"optical": one, "radar": one, "terrain": one}


def texts(folder: Path) -> str:
    """All that a run wrote down."""
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_fetch(fake: FakeEarthEngine, tmp_path: Path, wetmap: Run) -> None:
    secret = earth_engine_archive.write_key(tmp_path / "key.json", fake)
    recipe = write(tmp_path, sources=sources(fake, credentials="key.json"))
    expected = json.loads(wetmap("fetch", "--recipe", recipe, "--json", "--dry-run").stdout)["fetch"]
    assert expected["scenes"]["optical"] == 3
    assert not (tmp_path / "space/stages").exists()
    told = json.loads(wetmap("fetch", "--recipe", recipe, "--json").stdout)
    assert told["scenes"] == {"optical": 3, "radar": 4, "terrain": 1}
    cube = Cube.open(Path(told["cube"]))
    values, observed = cube.read_window(0, 0, *cube.grid.shape)
    names = [band.name for band in cube.bands]
    assert names[:2] == ["summer.B02", "summer.B03"]
    assert {"summer.NDVI", "summer.VV_ascending", "terrain.twi"} <= set(names)
    assert {band.kind for band in cube.bands if ".VV" in band.name} == {"sigma0_db"}
    assert all(layer.mean() > 0.5 for layer in observed)
    vv = values[names.index("summer.VV_ascending")]
    assert np.nanmedian(vv) == pytest.approx(-10, abs=1.5), "0.1 in linear power, less what the speckle filter leaves"
    plan = json.loads(next((tmp_path / "space/stages/plan").glob("*/plan.json")).read_text())
    radar = [scene for scene in plan["scenes"] if scene["sensor"] == "radar"]
    assert {scene["item"]["backscatter"] for scene in radar} == {"sigma0"}
    manifest = json.loads(next((tmp_path / "space/stages/fetch").glob("*/manifest.json")).read_text())
    assert manifest["backscatter"] == "sigma0"
    written = texts(tmp_path / "space")
    assert str(tmp_path / "key.json") in written, "the path of the key"
    assert secret not in written
    assert "secret-token" not in written
    asked = len(fake.log)
    assert "already done" in wetmap("fetch", "--recipe", recipe).stderr
    again = write(tmp_path, sources=sources(fake, credentials="other.json", requests=2))
    assert "already done" in wetmap("fetch", "--recipe", again).stderr, "another way to the same pixels"
    assert len(fake.log) == asked


def test_what_cannot_run_there_is_refused_before_anything_is_asked(
    fake: FakeEarthEngine, tmp_path: Path, wetmap: Run
) -> None:
    recipe = write(tmp_path, sources=sources(fake), radar={"speckle": "quegan"})
    before = len(fake.log)
    said = wetmap("fetch", "--recipe", recipe, expect=2).stderr
    assert "radar.speckle is quegan" in said
    assert "mode: scenes" in said
    assert len(fake.log) == before
    recipe = write(tmp_path, sources=sources(fake, mode="scenes"), radar={"speckle": "quegan"})
    wetmap("fetch", "--recipe", recipe)


def test_yearly_embeddings(fake: FakeEarthEngine, tmp_path: Path, wetmap: Run) -> None:
    """64 bands of their own layer, and nothing else; a year that is not there is said."""
    vectors = np.random.default_rng(1).normal(size=(64, tiny_archive.SIDE, tiny_archive.SIDE))
    vectors /= np.linalg.norm(vectors, axis=0)
    fake.add_image(
        "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL/tile",
        {f"A{number:02d}": band for number, band in enumerate(vectors)},
        tiny_archive.CRS,
        tiny_archive.at(10),
        start="2021-01-01T00:00:00Z",
    )
    one = sources(fake)["optical"]
    places = {"optical": None, "radar": None, "terrain": None, "embeddings": one}
    recipe = write(tmp_path, sources=places, features={"embeddings": True})
    told = json.loads(wetmap("fetch", "--recipe", recipe, "--json").stdout)
    cube = Cube.open(Path(told["cube"]))
    assert [band.name for band in cube.bands] == [f"embedding.A{number:02d}" for number in range(64)]
    assert cube.layers == ("embedding",)
    values, observed = cube.read_window(0, 0, *cube.grid.shape)
    assert observed.all()
    row, col = round((tiny_archive.TOP - cube.grid.top) / 10), round((cube.grid.left - tiny_archive.LEFT) / 10)
    expected = vectors[:, row : row + cube.grid.height, col : col + cube.grid.width]
    np.testing.assert_allclose(values, expected, atol=2.6e-5)
    recipe = write(tmp_path, sources=places, features={"embeddings": 2018})
    assert "No embeddings images" in wetmap("fetch", "--recipe", recipe, expect=1).stderr
    recipe = write(tmp_path, features={"embeddings": True})
    assert "sources.embeddings is not" in wetmap("fetch", "--recipe", recipe, expect=2).stderr
