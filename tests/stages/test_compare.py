"""Which models are compared, how fast they map, and how their folds are put together."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wetmap import models
from wetmap.errors import RecipeError, UsageError
from wetmap.models.contract import Geometry
from wetmap.recipe import Recipe
from wetmap.stages.compare_rows import compared, row_of
from wetmap.stages.contenders import contenders, folds_of, model_list, training_of
from wetmap.stages.fits import Outcome
from wetmap.stages.speed import pixels_per_second
from wetmap.training.calibration import calibrate

CLASSES = ("bog", "fen")


def recipe(**compare: Any) -> Recipe:
    return Recipe.model_validate({"compare": compare, "training": {"forest_trees": 30}})


def test_the_forest_and_boosting_are_always_there_and_nothing_twice() -> None:
    found = contenders(recipe(models=["vit", "forest", "vit", {"name": "vit", "options": {"window": 8}}]))
    assert [row.label for row in found] == ["forest", "boosting", "vit"]
    assert found[0].options["trees"] == 30


def test_one_model_may_stand_there_with_several_options() -> None:
    wanted = ["unet", {"name": "unet", "options": {"window": 24}}, {"name": "forest", "options": {"trees": 5}}]
    found = contenders(recipe(models=wanted))
    assert [row.label for row in found] == ["forest", "boosting", "unet", "unet (window 24)", "forest (trees 5)"]
    assert [row.window_px for row in found] == [8, 8, 16, 24, 8]
    assert [row.options.get("trees") for row in found] == [30, 100, None, None, 5]


def test_a_laptop_compares_every_model_but_the_large_sizes() -> None:
    laptop = model_list("laptop")
    assert {"wetmapformer", "wetmapformer-window", "wetmapformer-published"} <= set(laptop)
    assert {"vvt-micro", "supervit-micro", "unet", "hybridsn", "resnet", "vit", "swin", "coatnet"} <= set(laptop)
    assert not {"vvt-tiny", "vvt-large", "supervit-small", "supervit-small-dense"} & set(laptop)
    assert model_list("all") == list(models.model_names())
    by_default = contenders(Recipe())
    assert {row.name for row in by_default} == set(laptop)


def test_a_bound_on_the_window_holds_for_usual_windows_alone() -> None:
    wanted = ["vvt-micro", "vit", "unet", {"name": "swin", "options": {"window": 24}}]
    found = {row.name: row.window_px for row in contenders(recipe(models=wanted, window_px=21))}
    assert found == {"forest": 8, "boosting": 8, "vvt-micro": 20, "vit": 8, "unet": 16, "swin": 24}
    with pytest.raises(RecipeError, match="the smallest window of vvt-micro is 16 px"):
        contenders(recipe(models=["vvt-micro"], window_px=8))


def test_networks_learn_as_the_recipe_says_but_from_nothing_and_for_the_minutes() -> None:
    asked = Recipe.model_validate(
        {"training": {"start": "some.safetensors", "learning_rate": 0.01}, "compare": {"minutes": 7}}
    )
    training = training_of(asked)
    assert (training.start, training.learning_rate, training.minutes) == (None, 0.01, 7)
    assert training.epochs == training.patience > 10_000


def test_folds_are_those_of_the_split() -> None:
    splits = {"kind": "blocks", "folds": 4, "test_fold": 2}
    assert folds_of(Recipe.model_validate({"splits": splits})) == (2,)
    assert folds_of(Recipe.model_validate({"splits": splits, "compare": {"folds": [3, 0]}})) == (0, 3)
    with pytest.raises(UsageError, match="numbered 0 to 3"):
        folds_of(Recipe.model_validate({"splits": splits, "compare": {"folds": [0, 4]}}))
    with pytest.raises(UsageError, match="has no folds"):
        folds_of(Recipe.model_validate({"splits": {"kind": "paper"}, "compare": {"folds": [0]}}))


def outcome(index: list[int], label: list[int], *, row: int, temperature: float, speed: float) -> Outcome:
    probabilities = np.where(np.eye(2)[index] > 0, 0.9, 0.1).astype(np.float32)
    n = len(index)
    facts = {"temperature": temperature, "floor": 0.0, "pixels_per_s": speed, "notes": [f"at {speed:g}"]}
    facts |= {"parameters": 10, "macs_per_pixel": 3.0, "training_s": speed, "epochs": 4, "best_epoch": None}
    place = np.arange(n, dtype=np.int64)
    return Outcome(facts, probabilities, np.array(label), place + 100 * row, np.full(n, row), 10 * place)


def test_folds_are_scored_together_and_their_times_averaged() -> None:
    one = outcome([0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 1], row=0, temperature=1.0, speed=100.0)
    other = outcome([1, 1, 0, 0], [1, 1, 0, 0], row=40, temperature=1e-3, speed=300.0)
    found = compared("a", [one, other], CLASSES, block_px=20, seed=1)
    # of bog: 4 hits, 5 true, 5 guessed; of fen the same
    assert found.scores.macro_f1.value == pytest.approx(0.8)
    assert found.scores.overall_accuracy.value == pytest.approx(0.8)
    assert found.scores.groups == 10
    assert found.blocks.tolist() == [0, 0, 1, 1, 2, 2, 6, 6, 7, 7]
    # 8 of 10 right at probability 0.9; each fold has its own temperature: 4 of 6 at 0.9 and 4 of 4 at 1
    assert found.ece[0] == pytest.approx(0.1, abs=1e-6)
    assert found.ece[1] == pytest.approx((6 * (0.9 - 4 / 6) + 0) / 10, abs=1e-6)
    row = row_of(found, None, CLASSES, seed=1)
    assert (row.pixels_per_s, row.training_s, row.epochs, row.best_epoch) == (200.0, 200.0, 4, None)
    assert row.note == "at 100; at 300"


def test_the_difference_is_paired_over_blocks() -> None:
    """Wrong in the same places, both are equal whatever is drawn; reference features would be as many groups."""
    label = [0, 1] * 30
    forest = compared(
        "forest", [outcome([0] * 60, label, row=0, temperature=1.0, speed=1.0)], CLASSES, block_px=30, seed=1
    )
    same = compared("b", [outcome([0] * 60, label, row=0, temperature=1.0, speed=1.0)], CLASSES, block_px=30, seed=1)
    better = compared("c", [outcome(label, label, row=0, temperature=1.0, speed=1.0)], CLASSES, block_px=30, seed=1)
    assert row_of(forest, forest, CLASSES, seed=1).difference is None
    equal = row_of(same, forest, CLASSES, seed=1)
    assert (equal.difference, equal.difference_interval) == (0.0, (0.0, 0.0))
    gain = row_of(better, forest, CLASSES, seed=1)
    assert gain.difference == pytest.approx(2 / 3)
    assert gain.difference_interval[0] > 0.5
    assert len(np.unique(better.blocks)) == 20


class Slow:
    """A model of single pixels that takes 2 ms per tile."""

    geometry = Geometry(tile=8, margin=0, stride=1)

    def __init__(self) -> None:
        self.seen: list[float] = []

    def tile_probabilities(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        assert observed is not None
        self.seen.append(float(features[0, 0, 0, 0]))
        time.sleep(0.002)
        return torch.full((1, 2, 8, 8), 0.5)


class Reader:
    """A cube whose only band holds the row of the pixel; only the pixels of rows 8 to 23 were observed."""

    def read_window(self, y0: int, _x0: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.broadcast_to(np.arange(y0, y0 + height, dtype=np.float32)[:, None], (height, width))
        return rows[None].copy(), ((rows >= 8) & (rows < 24))[None].copy()


def test_speed_is_that_of_tiles_that_hold_something() -> None:
    model = Slow()
    calibration = calibrate([[0.6, 0.4], [0.3, 0.7]], [0, 0])
    threads = torch.get_num_threads()
    rate = pixels_per_second(model, calibration, Reader(), [(9, 3), (15, 3), (16, 0), (23, 70)], threads=1)
    assert set(model.seen) == {8.0, 16.0}
    assert 64 / 0.05 < rate <= 64 / 0.002
    assert torch.get_num_threads() == threads
