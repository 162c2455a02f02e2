"""What a comparison, a budget of minutes and a map that begins say to people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wetmap.cluster import Workers
from wetmap.errors import RecipeError
from wetmap.recipe import Recipe
from wetmap.stages import compare
from wetmap.stages.compare_rows import calibration_notes, compared, interval_notes, row_of
from wetmap.stages.contenders import contenders, window_notes
from wetmap.stages.context import Context, Silent
from wetmap.stages.fits import Outcome
from wetmap.workspace import Workspace

CLASSES = ("bog", "fen")


def recipe(**compare_part: Any) -> Recipe:
    return Recipe.model_validate({"compare": compare_part})


def outcome(*, groups: int, block_rows: int, right: bool = True, temperature: float = 1.0) -> Outcome:
    """Twelve samples in so many reference features and blocks of 10 px."""
    n = 12
    label = np.arange(n) % 2
    probabilities = np.where(np.eye(2)[label if right else 1 - label] > 0, 0.8, 0.2).astype(np.float32)
    facts = {"temperature": temperature, "floor": 0.0, "pixels_per_s": 1.0, "notes": [], "parameters": 1}
    facts |= {"macs_per_pixel": 1.0, "training_s": 1.0, "epochs": 4, "best_epoch": 2}
    return Outcome(
        facts, probabilities, label, np.arange(n) % groups, 10 * (np.arange(n) % block_rows), np.zeros(n, int)
    )


def test_a_window_of_a_models_own_goes_before_the_bound_and_that_is_said() -> None:
    own = {"name": "unet", "options": {"window": 32}}
    asked = recipe(models=[own, "vit"], window_px=16)
    assert max(row.window_px for row in contenders(asked)) == 32
    (note,) = window_notes(asked)
    assert note.startswith("unet (window 32) keeps its own window of 32 px: the bound of 16 px (compare.window_px")
    assert window_notes(recipe(models=[own, "vit"])) == []
    assert window_notes(recipe(models=["unet", "vit"], window_px=16)) == []


def test_a_bound_that_no_model_can_take_exactly_is_said() -> None:
    asked = recipe(models=["vit", "unet"], window_px=13)
    assert window_notes(asked) == ["No model here has a window of 13 px: the largest up to that is 8 px."]
    assert window_notes(recipe(models=["vit", "unet"], window_px=8)) == []
    # larger than what any asks for: nothing is cut down
    assert window_notes(recipe(models=["unet"], window_px=19)) == []


def test_advice_on_windows_is_of_use_to_who_gave_them() -> None:
    bounded = compare.window_advice(contenders(recipe(models=["unet", "vvt-micro"])), 32)
    assert "--window" in bounded
    assert "vvt-micro" in bounded
    own = compare.window_advice(contenders(recipe(models=[{"name": "unet", "options": {"window": 32}}])), 32)
    assert "--window" not in own
    assert "options.window of unet (window 32)" in own


@pytest.fixture
def context(tmp_path: Path) -> Any:
    asked = recipe(models=["unet"], minutes=2)
    with Workers(asked.cluster, tmp_path / "dask") as workers:
        yield Context(asked, asked, Workspace(tmp_path), workers, Told())


class Told(Silent):
    """Notes what is said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def stage(self, name: str, state: str) -> None:
        self.said.append((name, state))


def test_a_stage_continues_only_where_it_was_begun(context: Any) -> None:
    """The operating point is settled, and kept in the stage's folder, before the map is begun."""
    folder = context.workspace.open().stage("predict", {"a": 1})
    folder.path.mkdir(parents=True)
    (folder.path / "operating_point.json").write_text("{}")
    for _ in range(2):
        assert context.begin(folder, {"a": 1})
    assert context.listener.said == [("predict", "begins"), ("predict", "continues where it stopped")]


def test_the_dry_run_counts_in_words_and_promises_no_more_than_it_keeps() -> None:
    result = {"verb": "estimate", "models": {"unet": {"0": "to do"}}, "window_px": 16, "window_notes": ["Told so."]}
    lines = compare.lines({**result, "networks_to_train": 1, "minutes_each": 2.0, "training_minutes": 2.0})
    assert lines[-1] == (
        "Time:   1 network to train, 2 min: about 2 min, and the time of trees and of measuring. A network makes at "
        "least one step and one validation, whatever the minutes"
    )
    assert "        Told so." in lines
    several = compare.lines({**result, "networks_to_train": 3, "minutes_each": 2.0, "training_minutes": 6.0})
    assert several[-1].startswith("Time:   3 networks to train, 2 min each: about 6 min, and")


def test_why_there_is_no_interval() -> None:
    few = compared("a", [outcome(groups=3, block_rows=2)], CLASSES, block_px=10, seed=1)
    assert interval_notes(few, "blocks of the split") == [
        "There is no interval of the macro F1: its groups are 3 reference features, and fewer than 5 cannot show how "
        "much groups differ.",
        "There is no interval against forest: its groups are 2 blocks of the split, and fewer than 5 cannot show how "
        "much groups differ.",
    ]
    assert interval_notes(compared("a", [outcome(groups=6, block_rows=6)], CLASSES, block_px=10, seed=1), "b") == [
        "The interval of the macro F1 leans on classes in few groups, so it is likely too narrow: bog (3), fen (3)."
    ]
    assert interval_notes(compared("a", [outcome(groups=12, block_rows=6)], CLASSES, block_px=10, seed=1), "b") == []


def test_epochs_are_counted_from_one_and_a_worse_calibration_is_noted() -> None:
    good = compared("a", [outcome(groups=12, block_rows=6)], CLASSES, block_px=10, seed=1)
    assert row_of(good, None, CLASSES, seed=1).best_epoch == 3
    assert calibration_notes([good]) == []
    # all are right at 0.8: a temperature above 1 makes the model too timid still
    worse = compared("b", [outcome(groups=12, block_rows=6, temperature=3.0)], CLASSES, block_px=10, seed=1)
    assert calibration_notes([good, worse]) == ["Calibration made the error on the test samples larger: b."]


def test_a_name_in_other_letters_is_recognised() -> None:
    with pytest.raises(RecipeError, match=r"no model called 'UNet'\. Did you mean unet\?"):
        contenders(recipe(models=["UNet"]))
    with pytest.raises(RecipeError, match=r"no model called 'zzz'\. Choose one of"):
        contenders(recipe(models=["zzz"]))
