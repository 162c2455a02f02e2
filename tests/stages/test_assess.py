"""From a finished map to a table of hectares with intervals: drawn, interpreted, assessed, and what goes wrong."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from tests.walk.conftest import run_here
from wetmap.classes import MapClass
from wetmap.errors import AssessmentError, ReferenceDataError, ReferenceWarning, UsageError
from wetmap.products.class_map import ClassMap, open_class_map
from wetmap.products.sample_file import read_design, write_sample
from wetmap.products.style import write_class_style
from wetmap.stages import assess_files
from wetmap.stages.assess import assess
from wetmap.stages.sample import Wish, draw

CLASSES = (MapClass(1, "bog & fen", "#aa4400"), MapClass(2, "marsh <b>", "#22aa44"), MapClass(5, "upland", "#dddddd"))
HEIGHT, WIDTH = 700, 300
NAMES = {item.code: item.name for item in CLASSES}


def write_map(folder: Path, codes: NDArray[np.uint8]) -> Path:
    path = folder / "classes.tif"
    profile = {"driver": "GTiff", "count": 1, "height": codes.shape[0], "width": codes.shape[1], "dtype": "uint8"}
    place = {"crs": "EPSG:32620", "transform": Affine(10, 0, 400_000, 0, -10, 5_100_000), "nodata": 0}
    with rasterio.open(path, "w", **profile, **place) as out:
        out.write(codes, 1)
    write_class_style(path, CLASSES)
    return path


def truth() -> NDArray[np.uint8]:
    """What is there: mostly upland, a bog, a small marsh."""
    codes = np.full((HEIGHT, WIDTH), 5, np.uint8)
    codes[100:400, 50:150] = 1
    codes[500:540, 200:260] = 2
    return codes


@pytest.fixture
def source(tmp_path: Path) -> ClassMap:
    """A map of it with mistakes, and a corner without a class."""
    codes = truth()
    wrong = np.random.default_rng(3).random(codes.shape) < 0.1
    codes[wrong] = 5
    codes[:20, :20] = 0
    return open_class_map(write_map(tmp_path, codes))


def fill(path: Path, *, but: int = 0) -> None:
    """Interpret the units by what is there; the first few stay empty."""
    design = read_design(path)
    assert design is not None
    seen = truth()[list(design.rows), list(design.cols)]
    with sqlite3.connect(path) as connection:
        for trigger in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger[0]}")  # they call functions of the editor's own SQLite
        for number, code in enumerate(seen[but:], start=but + 1):
            connection.execute("UPDATE sample SET reference = ? WHERE unit = ?", (NAMES[int(code)], number))


def sampled(source: ClassMap, **wish: Any) -> Path:
    path = source.path.with_name("sample.gpkg")
    path.unlink(missing_ok=True)
    write_sample(path, draw(source, Wish(**wish)), source.grid)
    return path


def test_the_map_is_read_back(source: ClassMap) -> None:
    assert source.classes == CLASSES
    assert not source.simulated
    assert source.grid.shape == (HEIGHT, WIDTH)
    assert source.codes_at(np.array([0, 250, 699, -1]), np.array([0, 100, 299, 5])).tolist()[0::3] == [0, 0]


@pytest.mark.parametrize("kind", ["stratified", "simple", "systematic"])
def test_every_design_finds_the_truth(source: ClassMap, kind: str) -> None:
    path = sampled(source, kind=kind, units=600, least=40)
    fill(path)
    result = assess(source, path)
    there = truth()
    known = source.codes_at(*np.indices(there.shape).reshape(2, -1)).reshape(there.shape) != 0
    for row in result["classes"]:
        hectares = float(((there == row["code"]) & known).sum()) / 100
        assert row["hectares"]["low"] < hectares * 1.0005, row["class"]
        assert row["hectares"]["high"] > hectares * 0.9995, row["class"]
    assert sum(row["hectares"]["value"] for row in result["classes"]) == pytest.approx(result["hectares"])
    assert result["basis"] == "probability sample"
    assert result["classes"][0]["users"]["value"] == 1
    assert 0.8 < result["classes"][0]["producers"]["value"] <= 1


def test_a_design_is_drawn_again_the_same_and_each_pixel_once(source: ClassMap) -> None:
    first, again = draw(source, Wish(units=300, seed=4)), draw(source, Wish(units=300, seed=4))
    assert first == again
    assert first != draw(source, Wish(units=300, seed=5))
    assert len(set(zip(first.rows, first.cols, strict=True))) == 300
    assert [
        source.codes_at(np.array([r]), np.array([c]))[0] for r, c in zip(first.rows[:9], first.cols[:9], strict=True)
    ] == list(first.codes[:9])


def test_the_interpreter_does_not_see_the_map(source: ClassMap) -> None:
    path = sampled(source, units=60, allocation="equal")
    table = pyogrio.read_dataframe(path, layer="sample")
    assert set(table.columns) == {"unit", "reference", "certainty", "interpreter", "note", "lon", "lat", "geometry"}
    design = read_design(path)
    assert design is not None
    codes = np.array(design.codes)
    assert (np.diff(codes) != 0).sum() > 20, "units in order of their stratum would tell"
    with sqlite3.connect(path) as connection:
        style = connection.execute("SELECT styleQML FROM layer_styles").fetchone()[0]
    assert 'value="marsh &lt;b&gt;"' in style
    layers = [name for name, _ in pyogrio.list_layers(path)]
    assert set(layers) <= {"sample", "layer_styles"}, "QGIS would ask which of them to open"


def test_a_filled_sample_is_never_overwritten(source: ClassMap) -> None:
    path = sampled(source, units=60)
    with pytest.raises(UsageError, match="somebody may have worked on it"):
        write_sample(path, draw(source, Wish(units=60)), source.grid)


def test_away_from_training_polygons(source: ClassMap, tmp_path: Path) -> None:
    polygons = geopandas.GeoDataFrame(
        geometry=geopandas.GeoSeries.from_wkt(
            ["POLYGON ((400500 5099000, 401500 5099000, 401500 5096000, 400500 5096000, 400500 5099000))"],
            crs="EPSG:32620",
        )
    )
    polygons.to_file(tmp_path / "training.gpkg")
    design = draw(source, Wish(units=200, away_from=tmp_path / "training.gpkg", away_m=50))
    rows, cols = np.array(design.rows), np.array(design.cols)
    assert not ((rows > 95) & (rows < 405) & (cols > 45) & (cols < 155)).any()
    assert design.left_out_ha == pytest.approx(110 * 310 / 100, rel=0.02)
    write_sample(tmp_path / "away.gpkg", design, source.grid)
    fill(tmp_path / "away.gpkg")
    result = assess(source, tmp_path / "away.gpkg")
    assert result["away_m"] == 50
    assert result["hectares"] == pytest.approx((HEIGHT * WIDTH - 400) / 100 - design.left_out_ha, rel=1e-3)


def test_a_map_that_was_changed_is_said_and_assessed(source: ClassMap, tmp_path: Path) -> None:
    """Strata are the old map's then, which the estimator allows."""
    path = sampled(source, units=400, least=60)
    fill(path)
    (tmp_path / "new").mkdir()
    other = open_class_map(write_map(tmp_path / "new", truth()))
    with pytest.warns(ReferenceWarning, match="not the map that sample.gpkg was drawn from"):
        result = assess(other, path)
    assert result["map_changed"]
    assert result["overall"]["value"] == pytest.approx(1)
    assert result["overall"]["low"] < 0.995
    mapped = {row["class"]: row["mapped_ha"] for row in result["classes"]}
    assert mapped["bog & fen"] == pytest.approx(300, rel=1e-3), "of the map that is assessed"


def test_units_that_nobody_filled(source: ClassMap) -> None:
    path = sampled(source, units=120, least=30)
    with pytest.raises(AssessmentError, match=r"No unit of sample.gpkg is interpreted"):
        assess(source, path)
    fill(path, but=10)
    with pytest.warns(ReferenceWarning, match="10 of 120 units of sample.gpkg are not interpreted"):
        assert assess(source, path)["interpreted"] == 110
    thin = sampled(source, units=60, least=2)
    design = read_design(thin)
    assert design is not None
    marsh = [number for number, code in enumerate(design.codes, start=1) if code == 2]
    fill(thin)
    with sqlite3.connect(thin) as connection:
        connection.executemany("UPDATE sample SET reference = NULL WHERE unit = ?", [(unit,) for unit in marsh[1:]])
    with pytest.warns(ReferenceWarning), pytest.raises(AssessmentError, match=r"too few: marsh <b> \(1\)"):
        assess(source, thin)


def test_classes_that_the_map_lacks_count_against_it(source: ClassMap) -> None:
    path = sampled(source, units=100, least=30)
    fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sample SET reference = 'beaver pond' WHERE unit < 6")
    with pytest.warns(ReferenceWarning, match="The map has no class beaver pond"):
        result = assess(source, path)
    row = result["classes"][-1]
    assert (row["class"], row["code"], row["seen"], row["users"]) == ("beaver pond", None, 5, None)
    assert row["producers"]["value"] == 0


def test_spelling_is_forgiven_where_it_is_plain(source: ClassMap) -> None:
    path = sampled(source, units=100, least=30)
    fill(path)
    expected = assess(source, path)["overall"]
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sample SET reference = 'Bog_&  FEN' WHERE reference = 'bog & fen' AND unit % 2")
        connection.execute("UPDATE sample SET reference = '5' WHERE reference = 'upland' AND unit % 2")
    assert assess(source, path)["overall"] == expected
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sample SET certainty = 'high'")
    with pytest.raises(AssessmentError, match="No value of certainty is a class of the map: high"):
        assess(source, path, class_field="certainty")


def test_moved_points_are_refused(source: ClassMap, tmp_path: Path) -> None:
    path = sampled(source, units=60, least=10)
    fill(path)
    table = pyogrio.read_dataframe(path, layer="sample")
    table.loc[table["unit"] == 5, "geometry"] = table.geometry[table["unit"] == 5].translate(500)
    moved = tmp_path / "moved.gpkg"
    moved.write_bytes(path.read_bytes())
    pyogrio.write_dataframe(table, moved, layer="sample", append=False)
    assert read_design(moved) is not None
    with pytest.raises(
        AssessmentError, match=r"1 points of moved.gpkg do not lie in the pixel that was drawn, among them 5"
    ):
        assess(source, moved)


def test_simple_samples_with_too_few_of_a_class_say_so(source: ClassMap) -> None:
    path = sampled(source, kind="simple", units=20)
    fill(path)
    with pytest.warns(ReferenceWarning, match="classes are not used as strata"):
        result = assess(source, path)
    assert not result["poststratified"]


def test_no_interval_is_of_zero_width(tmp_path: Path) -> None:
    (tmp_path / "right").mkdir()
    right = open_class_map(write_map(tmp_path / "right", truth()))
    path = sampled(right, units=700, least=60)
    fill(path)
    for row in assess(right, path)["classes"]:
        for figure in ("hectares", "users", "producers"):
            assert row[figure]["high"] > row[figure]["low"], (row["class"], figure)


def test_designs_that_cannot_be_are_explained(source: ClassMap, tmp_path: Path) -> None:
    with pytest.raises(AssessmentError, match="1,000,000 units are wanted, and the map has 209,600 pixels"):
        draw(source, Wish(units=1_000_000))
    assert len(draw(source, Wish(kind="systematic", units=333)).rows) == 333
    # an allocation other than the best needs more units for the same standard error
    best, equal = (len(draw(source, Wish(target_se=0.02, allocation=kind)).rows) for kind in ("neyman", "equal"))
    assert best < equal
    far = geopandas.GeoDataFrame(geometry=geopandas.GeoSeries.from_wkt(["POINT (0 0)"], crs="EPSG:32620"))
    far.to_file(tmp_path / "far.gpkg")
    with pytest.warns(ReferenceWarning, match="lies nowhere near the map"):
        draw(source, Wish(units=50, away_from=tmp_path / "far.gpkg", away_m=100))
    with pytest.raises(AssessmentError, match=r"ha of classes.tif lie within 1e\+07 m"):
        draw(source, Wish(units=50, away_from=tmp_path / "far.gpkg", away_m=1e7))
    with pytest.raises(UsageError, match="not the name of a GeoPackage"):
        write_sample(tmp_path / "x.csv", draw(source, Wish(units=50)), source.grid)


def test_another_sample_is_no_second_interpretation(source: ClassMap, tmp_path: Path) -> None:
    path = sampled(source, units=60, least=10)
    fill(path)
    write_sample(tmp_path / "other.gpkg", draw(source, Wish(units=60, seed=9)), source.grid)
    with pytest.raises(AssessmentError, match=r"other.gpkg is not the same sample as sample.gpkg"):
        assess(source, path, second=tmp_path / "other.gpkg")


def test_copied_points_are_refused(source: ClassMap) -> None:
    path = sampled(source, units=50, least=10)
    fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sample SET unit = 7 WHERE unit = 8")
    with pytest.raises(AssessmentError, match="unknown none; twice 7"):
        assess(source, path)


def test_a_second_interpreter(source: ClassMap, tmp_path: Path) -> None:
    path = sampled(source, units=100, least=30)
    fill(path)
    other = tmp_path / "second.gpkg"
    other.write_bytes(path.read_bytes())
    with sqlite3.connect(other) as connection:
        connection.execute("UPDATE sample SET reference = 'marsh <b>' WHERE unit IN (3, 9)")
    found = assess(source, path, second=other)["second"]
    assert found["common"] == 100
    assert set(found["units"]) <= {3, 9}
    assert found["differ"] == len(found["units"]) >= 1
    assert 0 < found["share_of_area"] < 0.1


def test_points_of_another_kind_are_agreement(source: ClassMap, tmp_path: Path) -> None:
    places = {
        "bog & fen": [(401000.0, 5098000.0)] * 2,
        "upland": [(400250.0, 5095000.0), (500000.0, 0.0), (400005.0, 5099995.0)],
    }
    rows = [(name, x, y) for name, points in places.items() for x, y in points] + [("", 402000.0, 5095000.0)]
    table = geopandas.GeoDataFrame(
        {"kind": [row[0] for row in rows]},
        geometry=geopandas.points_from_xy([row[1] for row in rows], [row[2] for row in rows], crs="EPSG:32620"),
    )
    table.to_crs("EPSG:4326").to_file(tmp_path / "points.gpkg")
    with pytest.warns(ReferenceWarning) as told:
        result = assess(source, tmp_path / "points.gpkg", class_field="kind")
    assert "1 points of points.gpkg are left out: outside the map." in [str(one.message) for one in told]
    assert result["basis"] == "agreement"
    assert result["used"] == 2
    assert result["left_out"] == {
        "without a class": 1,
        "outside the map": 1,
        "where the map has no class": 1,
        "in the pixel of another point": 1,
    }


def test_through_the_front_door(source: ClassMap, tmp_path: Path) -> None:
    done = run_here(["sample", "--map", str(source.path), "--target-se", "0.03", "--least", "20", "--json"])
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    # (0.433 / 0.03)^2 are 209; 20 of the marsh are more than its share, and the others need theirs
    assert said["units"] == 225
    fill(Path(said["sample"]))
    done = run_here(["assess", "--map", str(source.path), "--reference", said["sample"]])
    assert done.returncode == 0, done.stderr
    assert "Overall accuracy: " in done.stdout
    assert (tmp_path / "assessment" / "accuracy.csv").read_bytes().count(b"\r\n") == 4
    done = run_here(["sample", "--map", str(source.path), "--target-se", "0.1", "--expected", "swamp=0.5"])
    assert "--expected names swamp" in done.stderr
    assert done.returncode == 2
    for idle in (["--design", "simple", "--least", "5"], ["--expected", "upland=0.5"], ["--away-m", "5"]):
        done = run_here(["sample", "--map", str(source.path), "--units", "10", *idle])
        assert "would change nothing here" in done.stderr, idle
    # what is filled in must not lie in the folder that the next map replaces
    (tmp_path / "space" / "map").mkdir(parents=True)
    (tmp_path / "space" / "recipe.yaml").touch()
    moved = source.path.rename(tmp_path / "space" / "map" / "classes.tif")
    done = run_here(["sample", "--map", str(moved), "--units", "20", "--json"])
    assert Path(json.loads(done.stdout)["sample"]) == tmp_path / "space" / "sample.gpkg"


def test_files_that_are_no_vector_files_are_named_in_one_sentence(source: ClassMap, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("bog: 12")
    with pytest.raises(ReferenceDataError, match=r"notes.txt cannot be read as a vector file\. Give a GeoPackage"):
        assess(source, tmp_path / "notes.txt")


def test_class_names_never_become_formulas_of_a_spreadsheet(tmp_path: Path) -> None:
    row = {"class": '=HYPERLINK("http://example.org")', "mapped": 1, "seen": 1, "agreed": 1}
    assess_files.write_files(tmp_path, {"basis": "agreement", "simulated": False, "classes": [row], "matrix": [[1]]})
    for name in ("accuracy.csv", "error_matrix.csv"):
        assert "\r\n\"'=HYPERLINK" in (tmp_path / name).read_bytes().decode(), name
