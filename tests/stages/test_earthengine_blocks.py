"""Features of blocks from Earth Engine: the real client asks a local service that has the pixels of a STAC archive."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.fakes import earth_engine_archive, tiny_archive
from tests.fakes.earth_engine import FakeEarthEngine
from tests.fakes.tiny_archive import GRID, SEASON, aoi
from wetmap.classes import MapClass
from wetmap.cube import Band, bands_of, layers_of, pack, unpack
from wetmap.errors import BundleError, RecipeError, SourceError
from wetmap.geo import Block
from wetmap.model_card import ModelCard, WeightsFile, check_fits
from wetmap.models.contract import Geometry
from wetmap.recipe import EarthEngineSource, Features, Optical, Radar, Recipe, Season, Sensor, Sources, StacSource
from wetmap.recipe_file import plain
from wetmap.sources import Archive, Scene, earthengine_client, open_archive
from wetmap.stages.block_features import BlockResult, block_features
from wetmap.stages.block_reading import FetchTask
from wetmap.stages.check import check_recipe
from wetmap.stages.earthengine_rules import embeddings_year, refuse_unrunnable, seasons_of, what_counts

WHOLE = Block(0, 0, 0, 0, GRID.height, GRID.width)
SENSORS: tuple[Sensor, ...] = ("optical", "radar", "terrain")
FEATURES = Features(
    preset="custom",
    indices=["NDVI", "NDMI"],
    orbit_states=["ascending", "descending", "any"],
    radar_statistics=["mean", "std"],
    radar_ratio=True,
    terrain=["elevation", "slope", "tpi"],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archive")


@pytest.fixture(scope="module")
def items(folder: Path) -> list[tiny_archive.Json]:
    return tiny_archive.write_files(folder)


@pytest.fixture(scope="module")
def fake(folder: Path, items: list[tiny_archive.Json]) -> Iterator[FakeEarthEngine]:
    with FakeEarthEngine() as service:
        earth_engine_archive.fill(service, folder, items)
        yield service
        earthengine_client.disconnect()


def make_task(recipe: Recipe) -> FetchTask:
    """What fetch gives to its workers."""
    archives: dict[str, Archive] = {}
    scenes: list[Scene] = []
    for sensor in SENSORS:
        source = recipe.sources.of(sensor)
        assert source is not None
        archives[sensor] = open_archive(source, sensor)
        scenes += archives[sensor].search(sensor, aoi(), recipe.seasons, max_cloud_percent=80)[0]
    return FetchTask(
        grid=GRID,
        bands=bands_of(recipe),
        seasons=("summer",),
        scenes=tuple(scenes),
        archives=archives,
        optical=recipe.optical,
        radar=recipe.radar,
    )


def recipe_of(source: Any, **changes: Any) -> Recipe:
    sources = Sources(optical=source, radar=source, terrain=source)
    given = {"features": FEATURES, "optical": Optical(), "radar": Radar(border_m=30), **changes}
    return Recipe(sources=sources, seasons=[SEASON], **given)


@pytest.fixture(scope="module")
def stac(folder: Path, items: list[tiny_archive.Json]) -> StacSource:
    return StacSource(catalog=str(tiny_archive.write_catalog(folder, items)))


def source_of(fake: FakeEarthEngine, **words: Any) -> EarthEngineSource:
    return EarthEngineSource(url=fake.url, project=fake.project, **words)


def assert_same(ours: BlockResult, theirs: BlockResult, task: FetchTask) -> None:
    np.testing.assert_array_equal(ours.clear_count, theirs.clear_count)
    for number, layer in enumerate(layers_of(task.bands)):
        np.testing.assert_array_equal(ours.observed[number], theirs.observed[number], err_msg=layer)
    for number, band in enumerate(task.bands):
        # elevation is in degrees: positions agree to a millimetre, not to the last bit, and slopes are differences
        close = 1e-3 if band.layer == "terrain" else 2e-6
        np.testing.assert_allclose(
            ours.features[number], theirs.features[number], rtol=close, atol=close, err_msg=band.name
        )


@pytest.mark.parametrize(
    ("optical", "radar"),
    [
        (Optical(), Radar(border_m=30)),
        (Optical(composite="percentile", percentile=25), Radar(border_m=30, speckle="boxcar", window_px=3)),
        (Optical(dilate_m=0, keep_dark_water=False), Radar(border_m=0, speckle="none", weight="tracks")),
    ],
    ids=["median-lee", "percentile-boxcar", "plain"],
)
class TestTheSameAsStac:
    def test_composites_of_the_service(
        self, fake: FakeEarthEngine, stac: StacSource, optical: Optical, radar: Radar
    ) -> None:
        theirs = make_task(recipe_of(stac, optical=optical, radar=radar))
        ours = make_task(recipe_of(source_of(fake), optical=optical, radar=radar))
        assert [band.name for band in ours.bands] == [band.name for band in theirs.bands]
        assert [band.unit for band in ours.bands] == [band.unit for band in theirs.bands]
        found = block_features(ours, WHOLE)
        assert found.observed.any(axis=(1, 2)).all()
        assert_same(found, block_features(theirs, WHOLE), ours)

    def test_scenes_read_one_by_one(
        self, fake: FakeEarthEngine, stac: StacSource, optical: Optical, radar: Radar
    ) -> None:
        """All steps run here. Rims differ by design: where a file of the other archive ends is no footprint's edge."""
        radar = radar.model_copy(update={"border_m": 0})
        theirs = make_task(recipe_of(stac, optical=optical, radar=radar))
        ours = make_task(recipe_of(source_of(fake, mode="scenes"), optical=optical, radar=radar))
        assert_same(block_features(ours, WHOLE), block_features(theirs, WHOLE), ours)


def test_blocks_leave_no_trace(fake: FakeEarthEngine) -> None:
    task = make_task(recipe_of(source_of(fake)))
    whole = block_features(task, WHOLE)
    for block in GRID.blocks(33):
        part = block_features(task, block)
        where = (slice(None), *block.slices)
        np.testing.assert_array_equal(part.features, whole.features[where])
        np.testing.assert_array_equal(part.observed, whole.observed[where])
        np.testing.assert_array_equal(part.clear_count, whole.clear_count[where])


def test_one_request_per_season_and_layer(fake: FakeEarthEngine) -> None:
    task = make_task(recipe_of(source_of(fake), features=FEATURES.model_copy(update={"terrain": []})))
    before = len(fake.asked(":computePixels"))
    block_features(task, WHOLE)
    assert len(fake.asked(":computePixels")) - before == 4, "optical, and radar of three orbit states"


def test_the_task_is_small_and_pickles(fake: FakeEarthEngine) -> None:
    data = pickle.dumps(make_task(recipe_of(source_of(fake))))
    assert len(data) < 30_000
    assert b"ee." not in data, "no object of the client travels"


def test_a_composite_that_fails_fails_the_block(fake: FakeEarthEngine) -> None:
    """Its scenes cannot be left out one by one: the block is made again when the command is run again."""
    task = make_task(recipe_of(source_of(fake)))
    fake.fail = [(400, "no such function")]
    with pytest.raises(SourceError, match="the optical composite of 3 passes"):
        block_features(task, WHOLE)
    fake.fail = []


class TestEmbeddings:
    def test_a_layer_of_64_bands(self, fake: FakeEarthEngine) -> None:
        rng = np.random.default_rng(1)
        vectors = rng.normal(size=(64, 84, 84))
        vectors /= np.linalg.norm(vectors, axis=0)
        bands = {f"A{number:02d}": vectors[number] for number in range(64)}
        for year in (2020, 2021):
            fake.add_image(
                f"GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL/t{year}",
                {name: band if year == 2021 else -band for name, band in bands.items()},
                tiny_archive.CRS,
                tiny_archive.at(10),
                start=f"{year}-01-01T00:00:00Z",
            )
        recipe = Recipe(
            sources=Sources(optical=None, radar=None, terrain=None, embeddings=source_of(fake)),
            features=Features(embeddings=True),
            seasons=[SEASON],
        )
        archive = open_archive(source_of(fake), "embeddings")
        scenes, _ = archive.search("embeddings", aoi(), seasons_of(recipe, "embeddings"), max_cloud_percent=80)
        assert [scene.id for scene in scenes] == ["t2021"]
        task = FetchTask(
            grid=GRID,
            bands=bands_of(recipe),
            seasons=("summer",),
            scenes=tuple(scenes),
            archives={"embeddings": archive},
            optical=recipe.optical,
            radar=recipe.radar,
        )
        assert [band.name for band in task.bands] == [f"embedding.A{number:02d}" for number in range(64)]
        assert {(band.kind, band.unit, band.layer) for band in task.bands} == {("embedding", "1", "embedding")}
        found = block_features(task, WHOLE)
        assert found.observed.all()
        np.testing.assert_allclose(found.features, vectors[:, 12:73, 10:67].astype(np.float32), rtol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found.features, axis=0), 1, rtol=1e-5)
        stored = unpack(pack(found.features, task.bands), task.bands)
        assert np.abs(stored - found.features).max() <= 2.6e-5, "half a step of 5e-5, and float32"

    def test_the_year(self) -> None:
        both = [SEASON, Season(name="winter", start=dt.date(2021, 12, 1), end=dt.date(2022, 2, 28))]
        assert embeddings_year(Recipe(features=Features(preset="seasonal", embeddings=2019), seasons=both)) == 2019
        assert embeddings_year(Recipe(features=Features(embeddings=True), seasons=[SEASON])) == 2021
        with pytest.raises(RecipeError, match="2021 and 2022") as caught:
            embeddings_year(Recipe(features=Features(preset="seasonal", embeddings=True), seasons=both))
        assert "embeddings: 2022" in caught.value.do

    def test_without_a_source(self) -> None:
        with pytest.raises(RecipeError, match=r"sources\.embeddings is not") as caught:
            check_recipe(Recipe(features=Features(embeddings=True)))
        assert "earth-engine" in caught.value.do

    def test_no_other_source_has_them(self) -> None:
        with pytest.raises(ValidationError):
            Sources(embeddings={"from": "stac"})


class TestRefusals:
    @pytest.mark.parametrize("speckle", ["refined-lee", "gamma-map", "lee-sigma", "quegan"])
    def test_speckle_filters_of_our_own(self, speckle: str) -> None:
        recipe = Recipe(sources=Sources(radar=EarthEngineSource()), radar=Radar(speckle=speckle))
        with pytest.raises(RecipeError, match=f"radar.speckle is {speckle}") as caught:
            check_recipe(recipe)
        assert "mode: scenes" in caught.value.do
        scenes = Recipe(sources=Sources(radar=EarthEngineSource(mode="scenes")), radar=recipe.radar)
        refuse_unrunnable(scenes)

    @pytest.mark.parametrize("composite", ["medoid", "best-pixel"])
    def test_composites_of_our_own(self, composite: str) -> None:
        recipe = Recipe(sources=Sources(optical=EarthEngineSource()), optical=Optical(composite=composite))
        with pytest.raises(RecipeError, match=f"optical.composite is {composite}"):
            check_recipe(recipe)
        refuse_unrunnable(Recipe(optical=Optical(composite=composite)))

    def test_two_ways_to_the_service(self) -> None:
        recipe = Recipe(sources=Sources(optical=EarthEngineSource(project="a"), radar=EarthEngineSource(project="b")))
        with pytest.raises(RecipeError, match="different ways"):
            check_recipe(recipe)

    def test_addresses_without_encryption(self) -> None:
        with pytest.raises(ValidationError):
            EarthEngineSource(url="http://example.org")
        with pytest.raises(ValidationError):
            EarthEngineSource(url="http://localhost.example.org")


def card(bands: Sequence[Band]) -> ModelCard:
    return ModelCard(
        model="forest",
        bands=tuple(bands),
        layers=layers_of(bands),
        classes=(MapClass(1, "water", "#0000ff"), MapClass(2, "bog", "#00ff00")),
        window=1,
        geometry=Geometry(tile=64, margin=0, stride=1),
        res_m=10.0,
        simulated=False,
        weights=WeightsFile(name="forest.skops", sha256="0" * 64, bytes=1),
    )


class TestBackscatter:
    def test_a_model_of_gamma_is_not_for_a_cube_of_sigma(self) -> None:
        stac = bands_of(Recipe(seasons=[SEASON]))
        ours = bands_of(Recipe(seasons=[SEASON], sources=Sources(radar=EarthEngineSource())))
        assert [band.name for band in ours] == [band.name for band in stac]
        assert [band.unit for band in ours] == [band.unit for band in stac]
        model = card(stac)
        check_fits(model, bands=stac, layers=layers_of(stac), res_m=10)
        with pytest.raises(BundleError, match=r"kind sigma0_db in the cube and gamma0_db in the model") as caught:
            check_fits(model, bands=ours, layers=layers_of(ours), res_m=10)
        assert "terrain" in caught.value.what
        with pytest.raises(BundleError, match=r"kind gamma0_db in the cube and sigma0_db in the model"):
            check_fits(card(ours), bands=stac, layers=layers_of(stac), res_m=10)


def test_how_the_service_is_reached_makes_nothing_new() -> None:
    one = plain(EarthEngineSource(project="a", requests=3))
    other = plain(EarthEngineSource(project="b", credentials=Path("/k.json"), url="http://127.0.0.1:1"))
    assert what_counts(one) == what_counts(other)
    assert what_counts(one) != what_counts(plain(EarthEngineSource(mode="scenes")))
    assert what_counts(plain(StacSource())) == plain(StacSource())
