"""Classes that the map lacks: translated by the recipe, refused where they are most, told with their points."""

from __future__ import annotations

import csv
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.stages.test_assess import CLASSES, fill, sampled, truth, write_map
from tests.stages.test_assess import source as source  # noqa: PLC0414 - a fixture
from tests.walk.conftest import run_here
from wetmap.classes import MapClass
from wetmap.errors import AssessmentError, ReferenceWarning
from wetmap.products.class_map import ClassMap, open_class_map
from wetmap.products.style import write_class_style
from wetmap.stages import assess_files
from wetmap.stages.assess import assess
from wetmap.stages.assess_reading import spellings, with_words
from wetmap.stages.assess_unknown import reference_words, refuse_foreign, warn_of_unknown

#: The same ground in other classes.
ANEW = (MapClass(1, "peatland", "#aa4400"), MapClass(2, "reeds", "#22aa44"), MapClass(5, "dry land", "#dddddd"))
RECIPE = """
classes:
  - {name: peatland, reference: [Bog & Fen]}
  - {name: reeds, reference: ["marsh <b>", 1]}
  - {name: dry land, reference: [upland, field]}
"""


@pytest.fixture
def workspace(source: ClassMap, tmp_path: Path) -> tuple[Path, Path]:
    """A workspace whose map was made anew with other classes, and a sample of the old one, filled."""
    sample = sampled(source, units=120, least=30)
    fill(sample)
    root = tmp_path / "space"
    (root / "map").mkdir(parents=True)
    write_class_style(write_map(root / "map", truth()), ANEW)
    return root, sample


def test_a_sample_of_other_classes_is_refused_and_the_old_figures_stay(workspace: tuple[Path, Path]) -> None:
    root, sample = workspace
    (root / "recipe.yaml").write_text("classes: [{name: peatland}, {name: reeds}, {name: dry land}]\n")
    (root / "assessment").mkdir()
    (root / "assessment" / "accuracy.json").write_text("{}")
    done = run_here(["assess", "--workspace", str(root), "--reference", str(sample)])
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "120 of 120 interpreted points of sample.gpkg have a class that the map lacks: bog & fen (" in said
    assert "classes are peatland, reeds, dry land" in said
    assert "Draw a new sample" in said
    assert (root / "assessment" / "accuracy.json").read_text() == "{}"


def test_the_recipe_translates_the_classes_of_an_older_sample(workspace: tuple[Path, Path]) -> None:
    root, sample = workspace
    (root / "recipe.yaml").write_text(RECIPE)
    done = run_here(["assess", "--workspace", str(root), "--reference", str(sample), "--json"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["overall"]["value"] == pytest.approx(1)
    assert [row["class"] for row in told["classes"]] == ["peatland", "reeds", "dry land"]
    assert "has no class" not in done.stderr


def test_words_stand_for_classes_and_names_and_codes_stay_what_they_are() -> None:
    names = with_words(
        spellings([(1, "open water"), (5, "bog")]),
        ["water", "bog"],
        {"Open_Water": "water", "bog": "water", "5": "water", "lake": "water", "moss": "lost class"},
    )
    assert {key: names[key] for key in ("open water", "bog", "1", "5", "lake")} == {
        "open water": "water",
        "bog": "bog",
        "1": "water",
        "5": "bog",
        "lake": "water",
    }
    assert "moss" not in names


def test_words_come_from_the_recipe_of_the_map_alone(tmp_path: Path) -> None:
    own = tmp_path / "map" / "classes.tif"
    assert reference_words(tmp_path, own) == {}
    (tmp_path / "recipe.yaml").write_text("classes: [{name: a, reference: [x, y]}, {name: b, reference: [y, 7]}]\n")
    assert reference_words(tmp_path, own) == {"x": "a", "7": "b"}
    assert reference_words(tmp_path, tmp_path / "other.tif") == {}
    (tmp_path / "recipe.yaml").write_text("no such key: 1\n")
    assert reference_words(tmp_path, own) == {}


def test_half_may_be_unknown_and_more_may_not() -> None:
    refuse_foreign([("bog",), ("swamp",)], ["bog"], "s.gpkg", "reference")
    refuse_foreign([("none of these",)] * 9, ["bog"], "s.gpkg", "reference")
    with pytest.raises(AssessmentError, match=r"2 of 3 interpreted points of s.gpkg .*: fen \(1\), swamp \(2\)\."):
        refuse_foreign([("bog",), ("swamp",), ("swamp", "fen")], ["bog"], "s.gpkg", "reference")


def test_every_unknown_class_is_told_with_its_points_and_what_was_meant() -> None:
    values = ["water"] * 3 + ["opne water"] * 7 + ["dunes", "none of these", *(f"no {n}" for n in range(12))]
    with pytest.warns(ReferenceWarning) as told:
        others = warn_of_unknown(values, ["open water", "water"], list(range(11, 11 + len(values))))
    said = str(told[0].message)
    assert len(others) == 15
    assert "opne water (7 points: 14, 15, 16, 17, 18, ...; did you mean open water?)" in said
    assert "dunes (1 point: 21)," in said
    assert "no 11 (1 point: 34)" in said


def test_a_misspelt_class_is_told_through_the_front_door_of_a_sample(source: ClassMap) -> None:
    path = sampled(source, units=100, least=30)
    fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sample SET reference = 'uplnad' WHERE unit IN (3, 9)")
    with pytest.warns(ReferenceWarning, match=r"uplnad \(2 points: 3, 9; did you mean upland\?\)"):
        result = assess(source, path)
    row = result["classes"][-1]
    assert row["producers"] == {
        "value": 0.0,
        "se": None,
        "low": None,
        "high": None,
        "method": "definition",
        "why": "the map has no such class",
    }
    assess_files.write_files(path.parent / "out", result)
    with (path.parent / "out" / "accuracy.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))[-1]
    assert (cells["producers_value"], cells["producers_low"], cells["producers_se"]) == ("0", "", "")
    (line,) = [line for line in assess_files.lines(result) if line.startswith("uplnad")]
    assert "0.00 (-)" in line


def test_of_a_map_of_one_class_only_what_is_certain_has_no_interval(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    plain = write_map(tmp_path / "one", np.full((50, 50), 5, np.uint8))
    write_class_style(plain, (CLASSES[2],))
    one = open_class_map(plain)
    path = sampled(one, units=30)
    with sqlite3.connect(path) as connection:
        for trigger in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger[0]}")
        connection.execute("UPDATE sample SET reference = 'upland'")
    (row,) = assess(one, path)["classes"]
    assert row["producers"]["why"] == "the map has no other class"
    for figure in ("users", "hectares"):
        assert row[figure]["low"] < row[figure]["high"], figure


def test_points_of_another_kind_know_the_words_too(source: ClassMap, tmp_path: Path) -> None:
    from tests.stages.test_assess_bad_input import points

    points(["moss", "moss", "upland"]).to_file(tmp_path / "points.gpkg")
    with pytest.raises(AssessmentError, match=r"2 of 3 interpreted points of points.gpkg"):
        assess(source, tmp_path / "points.gpkg", class_field="kind")
    known = replace(source, words={"Moss": "bog & fen"})
    assert assess(known, tmp_path / "points.gpkg", class_field="kind")["classes"][0]["seen"] == 2


def test_a_folder_of_a_map_is_taken_and_others_are_told(source: ClassMap, tmp_path: Path) -> None:
    sample = tmp_path / "sample.gpkg"
    done = run_here(["sample", "--map", str(source.path.parent), "--units", "60", "--output", str(sample)])
    assert done.returncode == 0, done.stderr
    fill(sample)
    folder = source.path.parent
    done = run_here(["assess", "--map", str(folder), "--reference", str(sample), "--output", str(tmp_path / "out")])
    assert done.returncode == 0, done.stderr
    (tmp_path / "empty").mkdir()
    done = run_here(["assess", "--map", str(tmp_path / "empty"), "--reference", str(sample)])
    assert done.returncode == 2
    assert "is a folder without a map" in " ".join(done.stderr.split())
    (folder / "change.tif").touch()
    done = run_here(["sample", "--map", str(folder), "--units", "60", "--output", str(tmp_path / "x.gpkg")])
    assert "holds classes.tif and change.tif" in " ".join(done.stderr.split())
