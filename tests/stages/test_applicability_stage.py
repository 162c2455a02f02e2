"""The layer of the area of applicability on a small cube of its own, and what train keeps for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import yaml

from wetmap.assessment.applicability import BATCH, Applicability, Known, measure
from wetmap.bundle import (
    APPLICABILITY_FILE,
    Bundle,
    ModelCard,
    load_applicability,
    load_bundle,
    pixel_payload,
    save_bundle,
)
from wetmap.classes import MapClass
from wetmap.cluster import Workers, handfuls
from wetmap.cube import Cube, bands_of
from wetmap.errors import BlockFailedWarning, BundleError, TooManyFailuresError
from wetmap.geo import Block
from wetmap.models.forest import ForestSettings, fit_forest
from wetmap.recipe_file import load_recipe
from wetmap.stages import applicability, chain, fetch, mosaic, plan, predict, summary
from wetmap.stages.check import check_recipe
from wetmap.stages.context import Context, Silent
from wetmap.workspace import Workspace, write_json

STRANGE = 40  # the first rows of the cube are like nothing in the samples


def open_context(folder: Path, **changes: Any) -> Context:
    recipe = load_recipe(folder / "recipe.yaml", {"products.applicability": True, **changes})
    workers = Workers(recipe.cluster, folder / "space/.dask")
    return Context(recipe, recipe, Workspace(folder / "space").open(), workers, Silent())


def samples(bands: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0.3, 0.05, (90, bands)).astype(np.float32)


def known(bands: int) -> Applicability:
    fold = (np.arange(90) % 3).astype(np.int16)
    place = np.arange(90, dtype=np.int64)[:, None]
    made = measure(Known(samples(bands), fold, np.zeros(90, np.uint8), place))
    assert made is not None
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """About 150 x 100 pixels in blocks of 64, a strange strip, a gap in one layer, a hole in all, and a forest."""
    west, south = -64.41, 45.90
    east, north = west + 1500 / 77_500, south + 1000 / 111_150
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    recipe = {
        "aoi": "area.geojson",
        "predict": {"bundle": "model"},
        "features": {
            "preset": "custom",
            "optical": ["B04", "B08"],
            "indices": [],
            "radar": ["VV"],
            "orbit_states": ["ascending"],
        },
        "sources": {"terrain": None},
        "cluster": {"workers": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    context = open_context(tmp_path)
    grid, planned, fetched = context.grid, plan.folder_of(context), fetch.folder_of(context)
    context.workspace.begin(planned, plan.asked(context))
    plan._write_inside(context, planned.path / "inside.zarr")
    write_json(
        planned.path / "plan.json",
        {"grid": grid.to_json(), "scenes": [], "skipped": [], "coregistration": {"groups": [], "tie_blocks": []}},
    )
    write_json(planned.path / "manifest.json", {"stage": "plan"})
    context.workspace.begin(fetched, fetch.asked(context))
    bands = bands_of(context.recipe)
    cube = Cube.create(fetch.cube_path(fetched), grid, bands, ["summer"], block_px=64, simulated=True)
    draw = np.random.default_rng(3)
    features = draw.normal(0.3, 0.05, (len(bands), *grid.shape)).astype(np.float32)
    features[:, :STRANGE] += 1
    seen = np.ones((len(cube.layers), *grid.shape), dtype=np.bool_)
    seen[-1, :, 70:90] = seen[:, 60:80, 20:30] = False
    band_layer = [cube.layers.index(band.layer) for band in cube.bands]
    features[~seen[band_layer]] = np.nan
    for block in grid.blocks(64):
        rows, cols = block.slices
        cube.write_block(block, features[:, rows, cols], seen[:, rows, cols], seen[:1, rows, cols].astype(np.uint16))
    write_json(fetched.path / "manifest.json", {"stage": "fetch", "failed": [], "failed_reads": [], "simulated": True})
    save_forest(tmp_path / "model", cube, known(len(bands)))
    return tmp_path


def save_forest(target: Path, cube: Cube, ground: Applicability | None) -> Bundle:
    x = samples(len(cube.bands))
    band_layer = [cube.layers.index(band.layer) for band in cube.bands]
    labels = np.digitize(x[:, 0], [0.3])
    known_layers = ForestSettings(layers=len(cube.layers), band_layer=band_layer)
    model = fit_forest(x, labels, classes=2, trees=3, seed=1, threads=1, settings=known_layers)
    payload = pixel_payload(model)
    card = ModelCard(
        model="forest",
        bands=cube.bands,
        layers=cube.layers,
        classes=(MapClass(3, "fen", "#336699"), MapClass(7, "bog", "#993366")),
        window=8,
        geometry=model.geometry,
        res_m=10.0,
        simulated=True,
        weights=payload.file,
    )
    return save_bundle(target, card, payload, applicability=ground)


def whole(context: Context) -> np.ndarray:
    height, width = context.grid.shape
    return predict.read_map(applicability.folder_of(context), "applicability", Block(0, 0, 0, 0, height, width))


def plain(context: Context) -> np.ndarray:
    """The layer, all pixels of the grid at once."""
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    features, observed = cube.read_window(0, 0, *cube.shape)
    inside = plan.read_inside(plan.load(plan.folder_of(context)).inside, Block(0, 0, 0, 0, *cube.shape))
    made = known(len(cube.bands))
    layer = made.layer(made.index(features.reshape(len(features), -1).T).reshape(cube.shape))
    return np.where(inside & observed.any(axis=0), layer, 255)


def test_the_layer_is_written_with_its_style_and_its_hectares(folder: Path) -> None:
    context = open_context(folder)
    chain.predict(context)
    expected = plain(context)
    np.testing.assert_array_equal(whole(context), expected)
    made = folder / "space/map"
    with rasterio.open(made / "applicability.tif") as source:
        np.testing.assert_array_equal(source.read(1), expected)
        assert source.nodata == 255
        assert source.tags()["SIMULATED"]
        assert float(source.tags()["DI_THRESHOLD"]) == known(3).threshold
    style = ElementTree.parse(made / "applicability.qml").getroot()  # noqa: S314 - our own
    assert style.find(".//rasterrenderer").get("classificationMax") == "200"
    mapped = expected[expected < 255]
    assert 0.3 < (mapped > 100).mean() < 0.5
    assert (expected[:STRANGE][expected[:STRANGE] < 255] > 100).all(), "the strange strip is outside"
    assert (expected[STRANGE:][expected[STRANGE:] < 255] <= 100).mean() > 0.9
    row = (mosaic.folder_of(context).manifest or {})["applicability"]
    assert (row["pixels_inside"], row["pixels_outside"]) == ((mapped <= 100).sum(), (mapped > 100).sum())
    area = context.grid.pixel_area_m2() / 1e4
    assert row["hectares_outside"] == pytest.approx(area[(expected > 100) & (expected < 255)].sum(), rel=1e-6)
    lines = summary.lines(summary.of_map(context))
    assert f"Ground: {applicability.sentence(row)}" in lines
    assert f"{row['hectares_outside']:,.1f} ha" in applicability.sentence(row)


def test_any_block_size_and_a_restart_give_the_same_layer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applicability, "BLOCK_PX", 64)
    monkeypatch.setattr(handfuls, "MOST", 1)  # one that fails beside others would be tried again at once
    measured, calls = applicability._measure_block, []

    def breaks(task: Any) -> Any:
        calls.append(task.block.name)
        if task.block.name == "r00001c00001" and len(calls) < 9:
            raise OSError("the disk went away")
        return measured(task)

    monkeypatch.setattr(applicability, "_measure_block", breaks)
    context = open_context(folder)
    with pytest.raises(TooManyFailuresError, match="disk went away"), pytest.warns(BlockFailedWarning):
        applicability.run(context)
    assert not applicability.folder_of(context).complete
    first, calls[:] = len(calls), ["another time"] * 9
    applicability.run(context)
    assert first == 6
    assert calls[9:] == ["r00001c00001"], "what was done stays done"
    np.testing.assert_array_equal(whole(context), plain(context))
    applicability.run(context)
    assert len(calls) == 10


def test_squares_are_whole_batches() -> None:
    assert applicability.SQUARE_PX**2 == BATCH
    assert applicability.BLOCK_PX % applicability.SQUARE_PX == 0


def test_off_by_default_and_then_nothing_is_asked_or_written(folder: Path) -> None:
    context = open_context(folder, **{"products.applicability": False})
    (folder / "model" / APPLICABILITY_FILE).unlink()
    chain.predict(context)
    assert not (folder / "space/map/applicability.tif").exists()
    assert not (folder / "space/stages/applicability").exists()
    assert "applicability" not in mosaic.asked(context)
    assert not [line for line in summary.lines(summary.of_map(context)) if line.startswith("Ground")]


def test_a_model_without_it_still_maps_and_is_refused_only_for_the_layer(folder: Path) -> None:
    bundle = load_bundle(folder / "model")
    assert load_applicability(bundle) is not None
    (folder / "model" / APPLICABILITY_FILE).unlink()
    assert load_applicability(load_bundle(folder / "model")) is None
    context = open_context(folder)
    with pytest.raises(BundleError, match=r"no applicability\.safetensors"):
        chain.predict(context)
    assert not predict.folder_of(context).path.exists(), "refused before the map is computed"
    with pytest.raises(BundleError, match=r"no applicability\.safetensors"):
        check_recipe(context.recipe)


def test_another_model_gives_another_layer(folder: Path) -> None:
    context = open_context(folder)
    before = applicability.asked(context), mosaic.asked(context)
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    other = measure(
        Known(
            samples(3)[:60], (np.arange(60) % 2).astype(np.int16), np.zeros(60, np.uint8), np.zeros((60, 1), np.int64)
        )
    )
    save_forest(folder / "model", cube, other)
    assert applicability.asked(context) != before[0]
    assert mosaic.asked(context) != before[1]
