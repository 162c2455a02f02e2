"""The layers beside classes and confidence, from the model's answer to the files, on the small cube of test_predict."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio

from tests.stages.test_predict import folder, open_context
from wetmap.bundle import load_bundle, load_predictor
from wetmap.cube import Cube
from wetmap.geo import Block
from wetmap.mapping.layers import normalised_entropy
from wetmap.recipe_file import load_recipe
from wetmap.stages import fetch, kept_layers, mosaic, plan, predict, summary
from wetmap.stages.context import Context

__all__ = ["folder"]  # a fixture

EVERYTHING = {"products.probabilities": True}
NOTHING = {"products.entropy": False, "products.clear_count": False}


def context_of(folder: Path, **changes: Any) -> Context:
    return replace(open_context(folder), recipe=load_recipe(folder / "recipe.yaml", changes))


def looked_at(cube: Cube) -> Cube:
    """Give the cube clear looks to tell pixels apart by: the row plus the column, modulo 7."""
    height, width = cube.shape
    looks = np.add.outer(np.arange(height), np.arange(width)) % 7
    cube._clear[0] = np.where(cube.read_observed(0, 0, height, width)[0], looks, 0).astype(np.uint16)
    return cube


def probabilities_of(folder: Path, cube: Cube) -> np.ndarray:
    """The model's own answers, tile by tile."""
    predictor = load_predictor(load_bundle(folder / "model"))
    assert predictor.geometry.margin == 0
    tile, (height, width) = predictor.geometry.tile, cube.shape
    found = np.zeros((3, height, width), np.float32)
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            features, observed = cube.read_window(y, x, tile, tile)
            here = found[:, y : y + tile, x : x + tile]
            here[:] = predictor.tile_probabilities(features[None], observed[None])[
                0, :, : here.shape[1], : here.shape[2]
            ]
    return found


def test_files_hold_the_models_own_probabilities_their_entropy_and_the_looks(folder: Path) -> None:
    context = context_of(folder, **EVERYTHING)
    cube = looked_at(Cube.open(fetch.cube_path(fetch.folder_of(context))))
    predict.run(context)
    made = mosaic.run(context).path
    whole = Block(0, 0, 0, 0, *cube.shape)
    inside = plan.read_inside(plan.load(plan.folder_of(context)).inside, whole)
    valid = inside & cube.read_observed(*whole_window(cube))[0]
    expected = probabilities_of(folder, cube)
    with rasterio.open(made / "probabilities.tif") as source:
        shares = source.read()
        assert source.descriptions == ("class 3", "class 7", "class 9")
        assert (source.nodata, source.tags()["units"], source.overviews(3)) == (255, "percent", [2])
        assert "SIMULATED" in source.tags()
        assert "before any step after it" in source.tags()["basis"]
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    np.testing.assert_array_equal(shares[:, valid], np.rint(expected * 100)[:, valid])
    assert (shares[:, ~valid] == 255).all()
    assert np.abs(shares[:, valid].sum(axis=0, dtype=int) - 100).max() <= 1
    with rasterio.open(made / "entropy.tif") as source:
        entropy = source.read(1)
        assert (source.nodata, source.tags()["units"], source.overviews(1)) == (255, "percent", [2])
    np.testing.assert_array_equal(entropy[valid], np.rint(normalised_entropy(expected) * 100)[valid])
    assert (entropy[~valid] == 255).all()
    assert 20 < entropy[valid].max() <= 100
    with rasterio.open(made / "confidence.tif") as source:
        np.testing.assert_array_equal(source.read(1)[valid], shares.max(axis=0)[valid])
    with rasterio.open(made / "clear_count.tif") as source:
        looks = source.read()
        assert (source.descriptions, source.nodata, source.dtypes) == (("summer",), 65535, ("uint16",))
        assert (source.tags()["units"], source.overviews(1)) == ("clear optical looks", [2])
    np.testing.assert_array_equal(looks[0][inside], cube.read_clear_count(whole)[0][inside])
    assert (looks[0][~inside] == 65535).all()
    assert (looks[0][inside & ~valid] == 0).all(), "an area without a look is known to have none"
    for name, top in (("probabilities", "100"), ("entropy", "100"), ("clear_count", "6")):
        style = ElementTree.parse(made / f"{name}.qml")  # noqa: S314 - our own
        shader = style.find("pipe/rasterrenderer/rastershader/colorrampshader")
        assert shader is not None
        assert float(shader.get("maximumValue", "")) == float(top)


def whole_window(cube: Cube) -> tuple[int, int, int, int]:
    return 0, 0, *cube.shape


def test_blocks_change_no_byte_of_the_layers(folder: Path) -> None:
    files: dict[int, dict[str, bytes]] = {}
    for block_px in (256, 9999):
        context = context_of(folder, **EVERYTHING, **{"predict.block_px": block_px})
        predict.run(context)
        made = mosaic.run(context).path
        files[block_px] = {path.name: path.read_bytes() for path in made.glob("*.tif")}
        shutil.rmtree(predict.folder_of(context).path)
        shutil.rmtree(made)
    assert sorted(files[256]) == [
        "classes.tif",
        "clear_count.tif",
        "confidence.tif",
        "entropy.tif",
        "probabilities.tif",
    ]
    assert files[256] == files[9999]


def test_what_is_not_asked_is_neither_made_nor_part_of_the_request(folder: Path) -> None:
    context = context_of(folder, **NOTHING)
    predict.run(context)
    made = mosaic.run(context).path
    assert sorted(path.name for path in made.glob("*.tif")) == ["classes.tif", "confidence.tif"]
    arrays = {path.name for path in (predict.folder_of(context).path / "map.zarr").iterdir() if path.is_dir()}
    assert arrays == {"classes", "confidence"}
    plain = predict.asked(context)
    assert "layers" not in plain
    assert not {"layers", "clear_count"} & set(mosaic.asked(context))
    usual, large = context_of(folder), context_of(folder, **EVERYTHING)
    assert predict.asked(usual) == {**plain, "layers": ["entropy"]}
    assert predict.asked(large) == {**plain, "layers": ["entropy", "probabilities"]}
    counted = context_of(folder, **{"products.entropy": False})
    assert predict.asked(counted) == plain, "clear looks are the cube's: no map is made new for them"
    assert mosaic.folder_of(counted).key != mosaic.folder_of(context).key


@pytest.mark.parametrize(
    ("changes", "per_pixel"),
    [(NOTHING, 4), ({}, 4 + 2 + 2), (EVERYTHING, 4 + 2 * (1 + 3) + 2), ({**EVERYTHING, **NOTHING}, 4 + 2 * 3)],
)
def test_the_dry_run_counts_them(folder: Path, changes: dict[str, bool], per_pixel: int) -> None:
    context = context_of(folder, **changes)
    pixels = context.grid.height * context.grid.width
    assert summary.estimate(context, ["predict"])["predict"]["write_gb_at_most"] == round(pixels * per_pixel / 1e9, 3)


def test_before_there_is_a_model_the_dry_run_says_what_each_class_takes(folder: Path) -> None:
    context = context_of(folder, **EVERYTHING, **{"predict.bundle": None})
    assert summary._written_gb(context, 10**9) == "8.0 and 2.0 for each class"
    named = context_of(folder, **EVERYTHING, **{"classes": [{"name": "bog"}, {"name": "fen"}]})
    assert summary._written_gb(named, 10**9) == 12.0
    seasons = [{"name": name, "start": "2021-06-01", "end": "2021-06-30"} for name in ("one", "two")]
    assert kept_layers.written_bytes(context_of(folder, seasons=seasons).recipe, 3) == 4 + 2 + 2 * 2
    assert kept_layers.written_bytes(context_of(folder, **{"sources.optical": None}).recipe, 3) == 4 + 2
