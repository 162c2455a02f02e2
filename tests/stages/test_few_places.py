"""What train says where a class lies in too few places for the folds, and of a start that does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wetmap.classes import MapClass
from wetmap.cluster import Workers
from wetmap.errors import SplitError, TrainingError, UsageError
from wetmap.geo import Grid
from wetmap.recipe import Recipe
from wetmap.samples import Samples
from wetmap.stages import cubes, train
from wetmap.stages.check import check_recipe
from wetmap.stages.context import Context, Silent
from wetmap.training.start import write_start
from wetmap.workspace import Workspace

CLASSES = [MapClass(1, "bog", "#aa5533"), MapClass(2, "fen", "#0d3783")]
GRID = Grid("EPSG:32619", 10.0, 600000.0, 5100000.0, 400, 400)


def samples(fen: int) -> Samples:
    """Two hundred pixels of bog everywhere and some of fen in one place."""
    draw = np.random.default_rng(1)
    row, col = (np.r_[draw.integers(0, 400, 200), 7 + np.arange(fen)].astype(np.int32) for _ in range(2))
    label = np.r_[np.zeros(200), np.ones(fen)].astype(np.uint8)
    return Samples(row, col, label, np.arange(len(row), dtype=np.int32))


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    with Workers(Recipe().cluster, tmp_path / "dask") as found:
        yield found


def context(tmp_path: Path, workers: Workers, **parts: Any) -> Context:
    recipe = Recipe.model_validate(parts)
    return Context(recipe, recipe, Workspace(tmp_path), workers, Silent())


def refusal(made: Context, fen: int, side_px: int | None = None) -> str:
    with pytest.raises(SplitError) as caught:
        cubes.split_of(made, samples(fen), GRID, CLASSES, side_px)
    return str(caught.value)


def test_the_window_is_named_and_a_smaller_one_advised(tmp_path: Path, workers: Workers) -> None:
    text = refusal(context(tmp_path, workers, model={"name": "vvt-micro"}), 4)
    assert "Class fen is not in every one of the 5 folds" in text
    assert "The window is 32 px, because of vvt-micro. Folds are kept at least as far apart" in text
    assert "choose a smaller window in the recipe, model.options.window: 16, 18, 20, 22, 24, 26, 28, 30." in text
    # compare says it in its own words
    assert "window is" not in refusal(context(tmp_path, workers), 4, side_px=32)
    assert "this one has no smaller window" in refusal(context(tmp_path, workers, model={"name": "forest"}), 4)


def test_a_class_at_its_cap_is_told_of_the_cap(tmp_path: Path, workers: Workers) -> None:
    made = context(tmp_path, workers, samples={"per_class": 10, "min_per_class": 4})
    assert "Use more than 10 samples.per_class, fewer splits.folds" in refusal(made, 10)
    assert "Use fewer splits.folds" in refusal(made, 9)


def test_a_start_is_checked_before_anything_is_computed(tmp_path: Path) -> None:
    source = {"name": "a.pth", "kind": "torch", "sha256": "0" * 64, "bytes": 1}
    path = tmp_path / "start.safetensors"
    write_start(path, {}, model="vvt-tiny", bands=3, source=source, taken=())
    parts = {"model": {"name": "vvt-micro"}, "training": {"start": str(path)}}
    with pytest.raises(TrainingError, match="made for 3 bands, and the cube has 16"):
        check_recipe(Recipe.model_validate(parts))
    write_start(path, {}, model="vvt-tiny", bands=16, source=source, taken=())
    with pytest.raises(TrainingError, match="is of vvt-tiny with 16 bands, another network"):
        check_recipe(Recipe.model_validate(parts))


def test_a_workspaces_own_model_is_no_start_for_itself(tmp_path: Path, workers: Workers) -> None:
    made = context(tmp_path, workers, training={"start": str(tmp_path / "model")})
    with pytest.raises(UsageError, match="this workspace's own model, which training replaces"):
        train._start_identity(made)
