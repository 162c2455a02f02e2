"""The report of a finished map, as a user gets it; and how an assessment and a comparison come into it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_page import Page
from tests.walk.conftest import Run
from wetmap.products.sample_file import read_design
from wetmap.report.compare_table import CompareHead, CompareRow, compare_json


def page_of(folder: Path) -> Page:
    return Page(folder / "space/map/report.html")


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of the map's files, but for those that the report writes."""
    files = [path for path in sorted((folder / "space/map").iterdir()) if path.name != "manifest.json"]
    own = {"report.html", "map.json", "map.qgz"}
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name not in own}


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    """A copy of the finished map, to be assessed. The area's file is where the recipe says."""
    shutil.copytree(small / "space", tmp_path / "space")
    return tmp_path


def fill(path: Path) -> None:
    """Interpret every unit as it was drawn, but for every sixth, which is water."""
    design = read_design(path)
    assert design is not None
    names = {item.code: item.name for item in design.classes}
    with sqlite3.connect(path) as connection:
        for trigger in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger[0]}")
        for unit, code in enumerate(design.codes, start=1):
            seen = "water" if unit % 6 == 0 else names[code]
            connection.execute("UPDATE sample SET reference = ? WHERE unit = ?", (seen, unit))


def sampled(wetmap: Run, folder: Path) -> Path:
    wetmap("sample", "--workspace", folder / "space", "--units", "90", "--least", "20")
    fill(folder / "space/sample.gpkg")
    return folder / "space/sample.gpkg"


def assess(wetmap: Run, folder: Path, *more: str | Path) -> dict[str, Any]:
    done = wetmap("assess", "--workspace", folder / "space", "--reference", *more, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_map_that_nobody_assessed_says_so_and_shows_the_rest(small: Path) -> None:
    page = page_of(small)
    assert "counts of pixels, not estimates" in page.text
    assert "wetmap sample --workspace space --units 600 --least 50" in page.text
    assert "Nobody has assessed this map" in page.text
    for name in ("wetmapformer-window", "forest", "boosting", "commonest class (", "water", "wetland", "upland"):
        assert name in page.text, name
    alts = [item["alt"] for item in page.all("img")]
    card = json.loads((small / "space/model/model.json").read_text())
    assert any(re.search(r"Learning curves over \d+ epochs?: training loss from \d", alt) for alt in alts)
    assert any(f"{card['calibration']['test_ece_after']:.3f} after calibration" in alt for alt in alts)
    interval = card["intervals"]["forest"]["macro_f1"]
    assert f"{interval['low']:.2f} to {interval['high']:.2f}" in page.text
    assert "10 or more looks" in page.text
    assert "It was not asked for." in page.text
    assert "Models compared" not in page.text


def test_the_checksums_on_the_page_are_those_of_the_files(small: Path) -> None:
    cells = page_of(small).cells
    for name, sha256 in sums(small).items():
        assert sha256 in cells[cells.index(name) + 2], name


def test_an_assessment_comes_into_the_report_and_changes_nothing_else(wetmap: Run, copied: Path) -> None:
    before = sums(copied)
    stages = {path.parent.name: path.stat().st_mtime_ns for path in copied.glob("space/stages/*/*/manifest.json")}
    found = assess(wetmap, copied, sampled(wetmap, copied))
    assert found["report"] == str(copied / "space/map/report.html")
    page = page_of(copied)
    row = next(row for row in found["classes"] if row["class"] == "water")
    cells = [cell.strip() for cell in page.cells]
    at = cells.index("Points seen so")
    place = next(at + 1 + 7 * number for number, one in enumerate(found["classes"]) if one["class"] == "water")
    assert cells[place] == "water"
    shown = re.fullmatch(r"(.+) (\d[\d\u202f.]*) to (.+)", cells[place + 1])
    assert shown is not None
    assert f"{row['hectares']['high']:,.1f}".replace(",", "\u202f") == shown[3]
    assert cells[place + 5 : place + 7] == [str(row["sampled"]), str(row["seen"])]
    assert "90 of 90 points of a stratified random sample" in page.text
    assert "Nobody has assessed this map" not in page.text
    assert "counts of pixels, not estimates" not in page.text
    assert sums(copied) == before
    again = {path.parent.name: path.stat().st_mtime_ns for path in copied.glob("space/stages/*/*/manifest.json")}
    assert {name: again.get(name) for name in stages} == stages
    assert len(again) == len(stages) + 1  # the page's
    item = json.loads((copied / "space/map/map.json").read_text())
    digest = hashlib.sha256((copied / "space/map/report.html").read_bytes()).hexdigest()
    assert item["assets"]["report.html"]["file:checksum"] == f"1220{digest}"


def test_the_same_assessment_again_is_the_same_page_and_the_next_run_keeps_it(wetmap: Run, copied: Path) -> None:
    sample = sampled(wetmap, copied)
    assess(wetmap, copied, sample)
    first = (copied / "space/map/report.html").read_bytes()
    assess(wetmap, copied, sample)
    done = wetmap("predict", "--workspace", copied / "space")
    assert "report: already done" in done.stderr
    assert (copied / "space/map/report.html").read_bytes() == first
    (copied / "space/assessment/accuracy.json").unlink()
    done = wetmap("predict", "--workspace", copied / "space")
    assert "mosaic: already done" in done.stderr
    assert "Nobody has assessed this map" in page_of(copied).text


def test_agreement_is_called_so(wetmap: Run, copied: Path) -> None:
    sample = sampled(wetmap, copied)
    with sqlite3.connect(sample) as connection:
        rows = connection.execute("SELECT lon, lat, reference FROM sample LIMIT 20").fetchall()
    features = [
        {"type": "Feature", "properties": {"kind": name}, "geometry": {"type": "Point", "coordinates": [lon, lat]}}
        for lon, lat, name in rows
    ]
    points = copied / "points.geojson"
    points.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assess(wetmap, copied, points, "--class-field", "kind")
    text = page_of(copied).text
    assert "Agreement, not accuracy." in text
    assert "no area and no interval follows" in text
    assert "counts of pixels, not estimates" in text


def test_an_assessment_of_another_map_is_named_and_not_shown(copied: Path, wetmap: Run) -> None:
    (copied / "space/assessment").mkdir()
    found = {"basis": "agreement", "overall": 1.0, "map_sha256": "0" * 64}
    (copied / "space/assessment/accuracy.json").write_text(json.dumps(found))
    done = wetmap("predict", "--workspace", copied / "space")
    assert "mosaic: already done" in done.stderr
    assert "is of another map than this one" in page_of(copied).text
    assert "Nobody has assessed this map" in page_of(copied).text


def test_an_assessment_stands_where_the_report_cannot_be_made_new(wetmap: Run, copied: Path) -> None:
    sample = sampled(wetmap, copied)
    recipe = next(copied.glob("space/stages/report/*/recipe.yaml"))
    recipe.write_text(re.sub(r"(?m)^aoi: .*$", f"aoi: {copied / 'gone.geojson'}", recipe.read_text()))
    done = wetmap("assess", "--workspace", copied / "space", "--reference", sample)
    assert "The report is not made new: " in done.stderr
    assert "gone.geojson" in done.stderr
    assert "Report:" not in done.stdout
    assert (copied / "space/assessment/accuracy.json").exists()


def test_a_comparison_on_the_same_cube_is_shown(copied: Path, wetmap: Run) -> None:
    key = next(copied.glob("space/stages/fetch/*/manifest.json")).parent.name
    head = CompareHead(title="Models compared: small", split="Blocks of 160 m.", simulated=True)
    rows = [CompareRow("unet", "dense", macro_f1=0.71234), CompareRow("forest", "pixel", macro_f1=0.6)]
    folder = copied / "space/compare"
    folder.mkdir()
    (folder / "compare.json").write_text(compare_json(rows, head))
    (folder / "manifest.json").write_text(json.dumps({"cube": key}))
    wetmap("predict", "--workspace", copied / "space")
    cells = [cell.strip() for cell in page_of(copied).cells]
    assert cells[cells.index("Pixels per second") + 1 :][:2] == ["unet", "0.71"]
    (folder / "manifest.json").write_text(json.dumps({"cube": "another"}))
    wetmap("predict", "--workspace", copied / "space")
    assert "Models compared" not in page_of(copied).text
