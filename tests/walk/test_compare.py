"""Comparing models through the front door: one table, each fit kept for good, stopped and gone on with."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.walk.conftest import RECIPE, Run, command, copy_of_fetched, write_recipe
from wetmap.cluster import Workers
from wetmap.errors import ModelFailedWarning, TrainingError
from wetmap.recipe_file import load_recipe
from wetmap.report.compare_table import CompareRow
from wetmap.stages import compare, fits
from wetmap.stages.context import Context, Silent
from wetmap.workspace import Workspace

#: A dense network and a classifier of windows, for about a second each.
MODELS = ("--models", "unet,vit", "--minutes", "0.02")
TRAINING = {**RECIPE["training"], "epochs": 2}


@pytest.fixture(scope="module")
def fetched(small: Path, tmp_path_factory: pytest.TempPathFactory, wetmap: Run) -> Path:
    """A folder with a cube."""
    folder = copy_of_fetched(small, tmp_path_factory.mktemp("compare"))
    wetmap("fetch", "--recipe", write_recipe(folder, training=TRAINING))
    return folder


@pytest.fixture(scope="module")
def compared(fetched: Path, tmp_path_factory: pytest.TempPathFactory, wetmap: Run) -> tuple[Path, dict[str, Any]]:
    """The cube, four models compared on it, and what was printed. Tests look and do not touch."""
    folder = copy(fetched, tmp_path_factory.mktemp("compared"))
    return folder, json.loads(ask(wetmap, folder, *MODELS, "--json").stdout)


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target / "copy")
    return target / "copy"


def ask(wetmap: Run, folder: Path, *more: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    return wetmap("compare", "--recipe", folder / "recipe.yaml", *more, expect=expect)


def kept(folder: Path) -> dict[tuple[str, int], tuple[int, bytes]]:
    """Every finished fit by model and fold: when its manifest was written, and its answers."""
    found = {}
    for path in (folder / "space/stages/fits").glob("*/manifest.json"):
        facts = json.loads(path.read_text())
        answers = (path.parent / "test.npz").read_bytes()
        found[facts["label"], facts["test_fold"]] = (path.stat().st_mtime_ns, answers)
    return found


def test_one_table_of_all_models_in_every_form(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, said = compared
    published = folder / "space/compare"
    rows = [CompareRow.from_json(row) for row in said["rows"]]
    by_name = {row.model: row for row in rows}
    assert sorted(by_name) == ["boosting", "forest", "unet", "vit"]
    assert [row.macro_f1 for row in rows] == sorted((row.macro_f1 for row in rows), reverse=True)
    assert [by_name[name].answers for name in ("forest", "unet", "vit")] == ["pixel", "dense", "window"]
    for row in rows:
        assert list(row.class_f1) == ["water", "wetland", "upland"]
        assert row.macro_f1 == pytest.approx(np.mean([value or 0 for value in row.class_f1.values()]))
        assert row.macro_f1_interval[0] <= row.macro_f1 <= row.macro_f1_interval[1]
        assert row.pixels_per_s > 100
        assert row.training_s > 0
        assert 0 <= row.ece_before <= 1
        assert 0 <= row.ece_after <= 1
        assert (row.parameters is None) == (row.macs_per_pixel is None) == (row.answers == "pixel")
    assert by_name["forest"].difference is None
    gain = by_name["unet"].difference
    assert gain == pytest.approx(by_name["unet"].macro_f1 - by_name["forest"].macro_f1)
    assert by_name["unet"].difference_interval[0] < gain < by_name["unet"].difference_interval[1]
    assert said["simulated"] is True
    assert said["leaks"] is False
    # the files say the same
    table = json.loads((published / "compare.json").read_text())
    assert table["rows"] == said["rows"]
    assert table["mark"] == "SIMULATED"
    cells = [*csv.DictReader((published / "compare.csv").read_text(encoding="utf-8").splitlines())]
    assert [float(row["macro_f1"]) for row in cells] == [row.macro_f1 for row in rows]
    assert {row["mark"] for row in cells} == {"SIMULATED"}
    text = (published / "compare.md").read_text(encoding="utf-8")
    assert "> **SIMULATED**" in text
    assert "Measured leakage: 0.0%" in text
    assert all(f"| {name}" in text for name in by_name)
    for name in ("accuracy-speed.png", "class-f1.png"):
        with Image.open(published / name) as picture:
            assert min(picture.size) > 400
    assert "<svg" in (published / "accuracy-speed.svg").read_text(encoding="utf-8")


def test_scores_and_groups_are_those_of_the_answers_that_were_kept(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, said = compared
    row = next(row for row in said["rows"] if row["model"] == "unet")
    (path,) = (
        path.parent / "test.npz"
        for path in (folder / "space/stages/fits").glob("*/manifest.json")
        if json.loads(path.read_text())["label"] == "unet"
    )
    with np.load(path, allow_pickle=False) as answers:
        right = answers["probabilities"].argmax(axis=1) == answers["label"]
        assert row["overall_accuracy"] == pytest.approx(right.mean())
        assert said["head"]["samples"] == len(right)
        assert said["head"]["groups"] == len(np.unique(answers["polygon"]))
        blocks = len(np.unique(np.stack([answers["row"] // 16, answers["col"] // 16]), axis=1).T)  # 160 m
        assert any(f"over {blocks} blocks of the split" in note for note in said["head"]["notes"])


def test_finished_fits_are_kept_and_a_model_more_is_fitted_alone(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path, wetmap: Run
) -> None:
    folder = copy(compared[0], tmp_path)
    before = kept(folder)
    again = ask(wetmap, folder, *MODELS)
    assert "compare: already done" in again.stderr
    assert kept(folder) == before
    lines = again.stdout.splitlines()
    assert lines[0] == "SIMULATED"
    assert lines[1].split("|")[1:4] == [cell for cell in lines[1].split("|")[1:4] if cell.strip()]
    assert sum(line.startswith("| ") for line in lines) == 6
    more = ask(wetmap, folder, "--models", "vit,unet,resnet", "--minutes", "0.02")
    assert "vit, fold 0 (3 of 5): already done" in more.stderr
    after = kept(folder)
    assert {key: after[key] for key in before} == before
    assert set(after) - set(before) == {("resnet", 0)}
    assert "resnet" in (folder / "space/compare/compare.md").read_text()
    # what the flags of one comparison said is not remembered for other verbs
    assert "resnet" not in (folder / "space/recipe.yaml").read_text()


def test_killed_in_between_it_goes_on_with_what_is_missing(fetched: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = copy(fetched, tmp_path)
    child = subprocess.Popen(
        command("compare", "--recipe", folder / "recipe.yaml", *MODELS),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(kept_so_far(folder)) < 2 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = kept(folder)
    assert 2 <= len(before) < 4
    assert not (folder / "space/compare").exists()
    ask(wetmap, folder, *MODELS)
    after = kept(folder)
    assert {key: after[key] for key in before} == before
    assert {name for name, _ in after} == {"forest", "boosting", "unet", "vit"}
    assert (folder / "space/compare/compare.md").exists()
    assert not [path for path in (folder / "space").rglob(".tmp-*") if "stages/compare" in str(path)]


def kept_so_far(folder: Path) -> list[Path]:
    return [*(folder / "space/stages/fits").glob("*/manifest.json")]


def test_several_folds_are_pooled_and_every_sample_is_tested_once(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path, wetmap: Run
) -> None:
    folder = copy(compared[0], tmp_path)
    asked = ("--models", "unet", "--minutes", "0.02", "--folds", "1,0", "--json")
    said = json.loads(ask(wetmap, folder, *asked).stdout)
    assert said["head"]["split"].startswith("Blocks of 160 m: folds 0, 1 of 3 held out in turn")
    assert {row["model"] for row in said["rows"]} == {"forest", "boosting", "unet"}
    places: dict[int, set[tuple[int, int]]] = {}
    right, n = 0, 0
    for path in (folder / "space/stages/fits").glob("*/manifest.json"):
        facts = json.loads(path.read_text())
        if facts["label"] == "unet":
            with np.load(path.parent / "test.npz", allow_pickle=False) as answers:
                places[facts["test_fold"]] = set(zip(answers["row"], answers["col"], strict=True))
                right += int((answers["probabilities"].argmax(axis=1) == answers["label"]).sum())
                n += len(answers["label"])
    assert sorted(places) == [0, 1]
    assert not places[0] & places[1]
    assert len(places[0]) == compared[1]["head"]["samples"]
    assert said["head"]["samples"] == n == len(places[0]) + len(places[1])
    (row,) = (row for row in said["rows"] if row["model"] == "unet")
    assert row["overall_accuracy"] == pytest.approx(right / n)


def test_a_split_that_leaks_marks_the_table(fetched: Path, tmp_path: Path, wetmap: Run) -> None:
    folder = copy(fetched, tmp_path)
    write_recipe(folder, training=TRAINING, splits={"kind": "paper"})
    done = ask(wetmap, folder, "--models", "forest")
    assert done.stdout.splitlines()[0] == "SIMULATED, LEAKS: paper split"
    published = folder / "space/compare"
    cells = [*csv.DictReader((published / "compare.csv").read_text(encoding="utf-8").splitlines())]
    assert {row["mark"] for row in cells} == {"SIMULATED, LEAKS: paper split"}
    assert "LEAKS: paper split" in (published / "compare.md").read_text(encoding="utf-8")
    ask(wetmap, folder, "--models", "forest", "--folds", "0", expect=2)


def test_a_model_that_cannot_be_trained_is_a_row_and_tried_again(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(compared[0], tmp_path)
    changes = {"compare.models": ["unet", "vit", "resnet"], "compare.minutes": 0.02}
    recipe = load_recipe(folder / "recipe.yaml", changes)
    tried = []

    def refuse(_context: Context, contender: Any, *_: Any) -> None:
        tried.append(contender.label)
        raise TrainingError("The training loss became nan in epoch 1.", do="Lower it.")

    monkeypatch.setattr(fits, "run", refuse)
    with Workers(recipe.cluster, tmp_path / "dask") as workers:
        context = Context(recipe, recipe, Workspace(folder / "space"), workers, Silent())
        for _ in range(2):
            with pytest.warns(ModelFailedWarning, match="resnet is left out: The training loss became nan"):
                compare.run(context)
        result = compare.summary(context)
    assert tried == ["resnet", "resnet"]
    (row,) = (row for row in result["rows"] if row["model"] == "resnet")
    assert row["note"] == "could not be trained: fold 0: The training loss became nan in epoch 1."
    assert row["macro_f1"] is None
    assert result["rows"][-1] == row
    assert "resnet" in (folder / "space/compare/compare.md").read_text()


def test_without_any_network_that_learns_the_table_is_there_and_the_command_fails(
    fetched: Path, tmp_path: Path, wetmap: Run
) -> None:
    folder = copy(fetched, tmp_path)
    write_recipe(folder, training={**TRAINING, "learning_rate": 1e35, "warmup_epochs": 0, "gradient_norm": 0.0})
    done = ask(wetmap, folder, *MODELS, expect=1)
    assert "None of the 2 networks could be trained" in done.stderr
    text = (folder / "space/compare/compare.md").read_text()
    assert text.count("could not be trained: fold 0: The") == 2
    assert "| forest" in text


def test_a_dry_run_says_what_is_there_and_writes_nothing(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path, wetmap: Run
) -> None:
    folder = copy(compared[0], tmp_path)
    files = sorted((folder / "space").rglob("*"))
    asked = ("--models", "unet,vit,resnet", "--minutes", "0.02", "--dry-run")
    said = json.loads(ask(wetmap, folder, *asked, "--json").stdout)
    states = {name: state["0"] for name, state in said["models"].items()}
    assert states == {**dict.fromkeys(("forest", "boosting", "unet", "vit"), "already done"), "resnet": "to do"}
    assert (said["networks_to_train"], said["window_px"]) == (1, 16)
    assert "Model:  resnet: fold 0 to do" in ask(wetmap, folder, *asked).stdout
    assert sorted((folder / "space").rglob("*")) == files


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--models", "nosuch"), "There is no model called 'nosuch'"),
        (("--models", ","), "--models names no model"),
        (("--folds", "3"), "folds are numbered 0 to 2"),
        (("--folds", "0,0"), "a fold is named twice"),
        (("--folds", "a"), "is not a list of numbers"),
        (("--minutes", "0"), "compare.minutes is 0"),
        (("--models", "vvt-micro", "--window", "8"), "the smallest window of vvt-micro is 16 px"),
    ],
)
def test_what_cannot_be_compared_is_refused(fetched: Path, wetmap: Run, asked: tuple[str, ...], told: str) -> None:
    assert told in ask(wetmap, fetched, *asked, expect=2).stderr
    assert not (fetched / "space/stages/fits").exists()


def test_a_window_that_the_blocks_cannot_hold_names_the_models_that_ask_for_it(
    fetched: Path, tmp_path: Path, wetmap: Run
) -> None:
    said = ask(wetmap, copy(fetched, tmp_path), "--models", "vit,vvt-micro", expect=1).stderr
    assert "The window is 32 px, because of vvt-micro." in said
    assert "--window" in said
