"""How long a map takes on this machine: the reckoning, the table, and the verb."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from wetmap import models
from wetmap.budget import duration_text
from wetmap.bundle import ModelCard, Payload, pixel_payload, save_bundle
from wetmap.classes import MapClass
from wetmap.cli.main import app
from wetmap.cube import bands_of, layers_of
from wetmap.errors import RecipeError
from wetmap.models.contract import Geometry
from wetmap.models.pixels import PixelSamples, fit_pixel_model
from wetmap.recipe_file import load_recipe
from wetmap.stages import bench, speed
from wetmap.stages.contenders import LARGE_SIZES
from wetmap.stages.context import Silent

RING = [[-64.411, 45.897], [-64.392, 45.897], [-64.392, 45.911], [-64.411, 45.911], [-64.411, 45.897]]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(bench, "SECONDS_EACH", 0.05)
    monkeypatch.setattr(bench, "FITTED_PIXELS", 300)
    monkeypatch.setattr(bench, "FEW_TREES", 4)


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-4, 1e-1), st.floats(0, 1), st.integers(1, 40), st.integers(0, 300))
def test_a_tile_follows_from_two_parts_of_it(per_px, margin, side, more):
    def takes(px: int) -> float:
        return (per_px * px + margin) ** 2

    tile = 2 * side + more
    found = speed.tile_seconds([(side, takes(side)), (2 * side, takes(2 * side))], tile)
    assert found == pytest.approx(takes(tile), rel=1e-6)


def test_one_part_alone_and_parts_that_contradict_each_other_are_taken_as_they_are():
    assert speed.tile_seconds([(8, 2.0)], 16) == pytest.approx(8.0)
    # noise: the larger part was quicker; no tile is quicker than a part of it
    assert speed.tile_seconds([(8, 3.0), (16, 2.0)], 64) == pytest.approx(2.0)
    # or took more than in proportion: then in proportion
    assert speed.tile_seconds([(8, 0.1), (16, 2.0)], 32) == pytest.approx(8.0)


@given(st.integers(1, 24), st.integers(1, 24))
def test_parts_are_multiples_of_the_stride_and_end_with_the_tile(stride, count):
    tile = stride * count
    sides = speed.part_sides(tile, stride)
    assert sides[-1] == tile
    assert all(side % stride == 0 for side in sides)
    assert all(a < b <= 2 * a or b == tile for a, b in itertools.pairwise(sides))


class Slow:
    """A model that takes 10 ms for a part of 8 pixels with its margin, and in proportion to the pixels."""

    geometry = Geometry(tile=64, margin=4, stride=1)

    def __init__(self) -> None:
        self.now = 0.0
        self.sides: list[int] = []

    def perf_counter(self) -> float:
        return self.now

    def tile_probabilities(self, features, observed):
        side = features.shape[2] - 8
        assert features.shape == (1, 3, side + 8, side + 8)
        assert observed.shape == (1, 2, side + 8, side + 8)
        self.sides.append(side)
        self.now += 0.01 * (side + 8) ** 2 / 256
        return np.zeros((1, 2, side, side), np.float32)


@pytest.mark.parametrize(("seconds", "largest"), [(0.1, 16), (10, 64)])
def test_a_slow_model_is_timed_on_a_part_and_reckoned_to_the_tile(monkeypatch, seconds, largest):
    slow = Slow()
    monkeypatch.setattr(speed, "time", slow)
    rate = speed.pixels_per_second_in_memory(slow, 3, 2, threads=1, seconds=seconds)
    assert max(slow.sides) == largest
    assert rate == pytest.approx(64**2 / (0.01 * 72**2 / 256))
    assert slow.now < 2 * seconds


def test_words_for_time():
    assert [duration_text(s) for s in (4.2, 750, 3 * 3600 + 600)] == ["4.2 s", "12.5 min", "3.2 h"]


def test_models_are_named_once_and_unknown_ones_are_refused_with_the_list():
    laptop = bench.wanted_models(["laptop", "unet"])
    assert laptop.count("unet") == 1
    assert {"wetmapformer", "forest", "boosting", "vvt-micro"} <= set(laptop)
    assert not any(LARGE_SIZES & set(name.split("-")) for name in laptop)
    assert bench.wanted_models(["all"]) == list(models.model_names())
    with pytest.raises(RecipeError, match=r"unett.*laptop, all, wetmapformer"):
        bench.wanted_models(["unett"])


def verb(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["bench", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


@pytest.mark.usefixtures("quick")
def test_the_verb_without_an_area_is_about_a_sentinel2_tile():
    code, said = verb("--models", "unet,forest,boosting", "--workers", "3", "--json")
    assert code == 0
    found = json.loads(said)
    assert found["pixels"] == 10980**2
    assert (found["bands"], found["classes"], found["workers"]) == (16, 9, 3)
    assert {row["model"] for row in found["rows"]} == {"unet", "forest", "boosting"}
    for row in found["rows"]:
        assert row["seconds"] == pytest.approx(10980**2 / (3 * row["pixels_per_s"]))
    assert [row["seconds"] for row in found["rows"]] == sorted(row["seconds"] for row in found["rows"])
    assert "vvt-large" in found["left_out"]


@pytest.mark.usefixtures("quick")
def test_an_area_and_the_model_of_its_workspace(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fen.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [RING]}))
    card, payload = a_forest()
    save_bundle(Path("fen-wetmap/model"), card, payload)
    # as bundles were before trees mapped in tiles of 256 pixels
    written = json.loads(Path("fen-wetmap/model/model.json").read_text())
    written["geometry"] = {"tile": 64, "margin": 0, "stride": 1}
    Path("fen-wetmap/model/model.json").write_text(json.dumps(written))
    code, said = verb("--aoi", "fen.geojson", "--models", "unet", "--workers", "1")
    assert code == 0
    assert "forest (trained)" in said
    assert "unet" in said
    assert "fen, 10 m" in said
    assert "vvt-large" in said
    assert "come on top" in said
    # 1.47 km x 1.56 km
    pixels = int(said.partition("Area:")[2].split()[0].replace(",", ""))
    assert pixels == pytest.approx(147.4 * 155.6, rel=0.01)
    Path("elsewhere.yaml").write_text("aoi: fen.geojson\nworkspace: fen-wetmap\n")
    code, said = verb("--recipe", "elsewhere.yaml", "--models", "unet", "--workers", "1")
    assert code == 0
    assert "forest (trained)" in said


def a_forest() -> tuple[ModelCard, Payload]:
    draw, recipe = np.random.default_rng(0), load_recipe()
    bands = bands_of(recipe)
    layers = layers_of(bands)
    x = draw.normal(size=(50, len(bands))).astype(np.float32)
    place = tuple(layers.index(band.layer) for band in bands)
    samples = PixelSamples(x, np.arange(50) % 3, 3, len(layers), place)
    model = fit_pixel_model("forest", samples, options={"trees": 2}, seed=0, threads=1)
    payload = pixel_payload(model)
    card = ModelCard(
        model="forest",
        bands=bands,
        layers=layers,
        classes=tuple(MapClass(code=code, name=f"class {code}", colour="#112233") for code in (1, 2, 3)),
        window=1,
        geometry=model.geometry,
        res_m=10,
        simulated=True,
        weights=payload.file,
    )
    return card, payload


def test_a_model_that_cannot_be_made_is_a_row_and_not_the_end(monkeypatch):
    recipe = load_recipe(None, {"model.name": "vit", "model.options": {"window": 9}})
    monkeypatch.setattr(bench, "SECONDS_EACH", 0.02)
    found = bench.run(recipe, ["vit", "unet"], None, Silent())
    assert [row["model"] for row in found["failed"]] == ["vit"]
    assert [row["model"] for row in found["rows"]] == ["unet"]
    assert any("window" in line for line in bench.lines(found))
