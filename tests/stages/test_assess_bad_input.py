"""Samples as people hand them back: exported, retyped, half broken. Each is explained, none lost in silence."""

from __future__ import annotations

import contextlib
import errno
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.test_assess import CLASSES, NAMES, fill, sampled, truth, write_map
from tests.stages.test_assess import source as source  # noqa: PLC0414 - a fixture
from tests.walk.conftest import run_here
from wetmap.classes import MapClass
from wetmap.errors import AssessmentError, ReferenceDataError, ReferenceWarning, UsageError, WorkspaceError
from wetmap.products import sample_file
from wetmap.products.class_map import ClassMap, open_class_map
from wetmap.products.sample_file import read_design, write_sample
from wetmap.products.sample_form import OTHER
from wetmap.products.style import write_class_style
from wetmap.stages import assess_files
from wetmap.stages.assess import assess
from wetmap.stages.assess_reading import as_in_the_legend, spellings
from wetmap.stages.sample import Wish, draw


def filled(source: ClassMap, **wish: Any) -> Path:
    path = sampled(source, **{"units": 120, "least": 30, **wish})
    fill(path)
    return path


def table_of(path: Path) -> geopandas.GeoDataFrame:
    return pyogrio.read_dataframe(path, layer="sample")


def points(values: list[Any], name: str = "kind") -> geopandas.GeoDataFrame:
    """Points in the bog, one per pixel."""
    xs = 401_000.0 + 10 * np.arange(len(values))
    return geopandas.GeoDataFrame(
        {name: values}, geometry=geopandas.points_from_xy(xs, np.full(len(values), 5_098_000.0), crs="EPSG:32620")
    )


# -- copies of a sample -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crs", ["EPSG:32620", "EPSG:4326"])
def test_a_copy_that_qgis_exported_is_told_and_taken_with_its_sample(
    source: ClassMap, tmp_path: Path, crs: str
) -> None:
    path = filled(source)
    expected = assess(source, path)
    copy = tmp_path / "exported.gpkg"
    table_of(path).to_crs(crs).to_file(copy, layer="exported")
    with pytest.raises(AssessmentError, match=r"exported.gpkg is a copy of a sample .* --sample sample.gpkg"):
        assess(source, copy)
    assert assess(source, copy, drawn=path) == {**expected, "file": "exported.gpkg"}


def test_a_spreadsheet_of_the_units_is_taken_with_its_sample(source: ClassMap, tmp_path: Path) -> None:
    path = filled(source)
    expected = assess(source, path)
    rows = table_of(path)[["unit", "reference"]].sample(frac=1, random_state=1)
    rows.to_csv(tmp_path / "filled.csv", index=False)
    with pytest.raises(ReferenceDataError, match=r"has no places or no CRS.*--sample sample\.gpkg"):
        assess(source, tmp_path / "filled.csv")
    assert assess(source, tmp_path / "filled.csv", drawn=path)["classes"] == expected["classes"]
    done = run_here(
        ["assess", "--map", str(source.path), "--reference", str(tmp_path / "filled.csv"), "--sample", str(path)]
    )
    assert done.returncode == 0, done.stderr
    assert "120 of 120 units of a stratified sample" in done.stdout
    with pytest.raises(UsageError, match="is not a sample of wetmap sample, which --sample needs"):
        assess(source, path, drawn=tmp_path / "filled.csv")
    other = tmp_path / "other.gpkg"
    write_sample(other, draw(source, Wish(units=60, seed=9)), source.grid)
    with pytest.raises(AssessmentError, match=r"sample.gpkg is not the same sample as other.gpkg"):
        assess(source, path, drawn=other)


def test_a_sample_saved_in_other_degrees_is_the_same_sample(source: ClassMap) -> None:
    """GeoPackages keep their design when a layer in them is replaced."""
    path = filled(source)
    expected = assess(source, path)["overall"]
    pyogrio.write_dataframe(table_of(path).to_crs("EPSG:2953"), path, layer="sample", append=False)
    assert assess(source, path)["overall"] == expected


def test_a_second_interpretation_is_another_file(source: ClassMap, tmp_path: Path) -> None:
    path = filled(source)
    with pytest.raises(UsageError, match=r"--second is sample.gpkg itself"):
        assess(source, path, second=path)
    copy = tmp_path / "theirs.csv"
    table_of(path)[["unit", "reference"]].to_csv(copy, index=False)
    with pytest.raises(AssessmentError, match=r"theirs.csv is not the same sample .* --sample"):
        assess(source, path, second=copy)
    assert assess(source, path, second=copy, drawn=path)["second"]["differ"] == 0


def test_a_file_name_is_no_address(source: ClassMap, tmp_path: Path) -> None:
    """SQLite is asked by an address, in which ? and # and % mean something."""
    path = filled(source).rename(tmp_path / "100% of #1? yes.gpkg")
    assert read_design(path) is not None
    assert assess(source, path)["basis"] == "probability sample"


def test_a_file_that_cannot_be_looked_into_is_not_taken_for_another_kind(source: ClassMap) -> None:
    path = filled(source)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.MonkeyPatch.context() as patch:
            real = sqlite3.connect
            patch.setattr(sqlite3, "connect", lambda *words, **more: real(*words, **{**more, "timeout": 0.05}))
            with pytest.raises(ReferenceDataError, match=r"cannot be looked into \(database is locked\)"):
                assess(source, path)


# -- what was written in the fields -------------------------------------------------------------------------------


def test_codes_as_numbers_with_a_point_are_codes(source: ClassMap) -> None:
    path = filled(source)
    expected = assess(source, path)
    codes = {name: code for code, name in NAMES.items()}
    table = table_of(path)
    table["reference"] = [float(codes[name]) for name in table["reference"]]
    pyogrio.write_dataframe(table, path, layer="sample", append=False)
    assert assess(source, path) == expected
    table["reference"] = [f"{code:04.1f}" for code in table["reference"]]
    pyogrio.write_dataframe(table, path, layer="sample", append=False)
    assert assess(source, path) == expected
    table.loc[:9, "reference"] = None
    pyogrio.write_dataframe(table, path, layer="sample", append=False)
    with pytest.warns(ReferenceWarning, match="10 of 120 units of sample.gpkg are not interpreted"):
        assess(source, path)


def test_a_class_whose_name_is_another_ones_code_is_meant_by_its_name(tmp_path: Path) -> None:
    path = write_map(tmp_path, truth())
    write_class_style(path, (MapClass(1, "5", "#aa4400"), MapClass(2, "Fen", "#22aa44"), MapClass(5, "fen", "#dddddd")))
    source = open_class_map(path)
    sample = sampled(source, units=60, least=10)
    design = read_design(sample)
    assert design is not None
    names = {1: "5", 2: "Fen", 5: "fen"}
    table = table_of(sample)
    table["reference"] = [names[code] for code in design.codes]
    pyogrio.write_dataframe(table, sample, layer="sample", append=False)
    result = assess(source, sample)
    assert result["overall"]["value"] == pytest.approx(1)
    assert [row["class"] for row in result["classes"]] == ["5", "Fen", "fen"]


def test_names_with_markup_and_control_characters_stay_text(source: ClassMap) -> None:
    path = filled(source)
    table = table_of(path)
    table.loc[:2, "reference"] = ["<script>x</script>", "\x1b[31mred\x1b[0m", "=1+1"]
    pyogrio.write_dataframe(table, path, layer="sample", append=False)
    with pytest.warns(ReferenceWarning) as told:
        result = assess(source, path)
    assert [row["class"] for row in result["classes"][3:]] == ["<script>x</script>", "=1+1", "[31mred [0m"]
    assert not any("\x1b" in str(one.message) for one in told)


# -- maps that were changed ----------------------------------------------------------------------------------------


def test_a_new_map_with_other_codes_is_read_by_its_own_legend(source: ClassMap, tmp_path: Path) -> None:
    """The codes of two classes changed places: the map says the same as before."""
    path = filled(source)
    expected = {row["class"]: row["users"] for row in assess(source, path)["classes"]}
    (tmp_path / "new").mkdir()
    codes = source.codes_at(*np.indices(truth().shape).reshape(2, -1)).reshape(truth().shape)
    swapped = np.choose(codes, [0, 2, 1, 3, 4, 5]).astype(np.uint8)
    new = write_map(tmp_path / "new", swapped)
    write_class_style(new, (replace(CLASSES[1], code=1), replace(CLASSES[0], code=2), CLASSES[2]))
    with pytest.warns(ReferenceWarning, match="not the map that sample.gpkg was drawn from"):
        result = assess(open_class_map(new), path)
    assert {row["class"]: row["code"] for row in result["classes"]} == {"marsh <b>": 1, "bog & fen": 2, "upland": 5}
    for row in result["classes"]:
        assert row["users"]["value"] == pytest.approx(expected[row["class"]]["value"]), row["class"]


def test_classes_that_only_the_old_map_had_count_as_missed(source: ClassMap, tmp_path: Path) -> None:
    path = filled(source, least=20)  # fewer than half are of the lost classes
    (tmp_path / "new").mkdir()
    there = truth()
    new = write_map(tmp_path / "new", np.where(there == 2, 1, there).astype(np.uint8))
    write_class_style(new, (replace(CLASSES[0], name="peatland"), CLASSES[2]))
    with pytest.warns(ReferenceWarning):
        result = assess(open_class_map(new), path)
    rows = {row["class"]: row for row in result["classes"]}
    assert rows["bog & fen"]["code"] is None
    assert rows["bog & fen"]["producers"]["value"] == 0
    assert (rows["peatland"]["seen"], rows["peatland"]["users"]["value"]) == (0, 0)


def test_units_on_ground_that_the_new_map_leaves_out_are_told(source: ClassMap, tmp_path: Path) -> None:
    path = filled(source)
    (tmp_path / "new").mkdir()
    there = truth()
    there[:, 150:] = 0
    with pytest.warns(ReferenceWarning), pytest.raises(AssessmentError, match="units lie where the map has no class"):
        assess(open_class_map(write_map(tmp_path / "new", there)), path)


def test_a_map_on_another_grid_is_told(source: ClassMap, tmp_path: Path) -> None:
    path = filled(source)
    (tmp_path / "new").mkdir()
    other = open_class_map(write_map(tmp_path / "new", np.ascontiguousarray(truth()[::2, ::2])))
    shifted = replace(other, grid=replace(other.grid, left=other.grid.left + 1000))
    with pytest.warns(ReferenceWarning), pytest.raises(AssessmentError, match="the map has another grid"):
        assess(shifted, path)


# -- few points, few pixels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_a_class_of_a_few_pixels_is_looked_at_whole(tmp_path: Path, pixels: int) -> None:
    """Drawn to the last pixel, it has no error of sampling; its true area need not be a whole number of pixels."""
    codes = np.full((700, 300), 5, np.uint8)
    codes[0, :pixels] = 1
    codes[300:400] = 2
    source = open_class_map(write_map(tmp_path, codes))
    path = sampled(source, units=80, least=30)
    design = read_design(path)
    assert design is not None
    table = table_of(path)
    table["reference"] = [NAMES[code] for code in design.codes]
    pyogrio.write_dataframe(table, path, layer="sample", append=False)
    row = assess(source, path)["classes"][0]
    assert row["sampled"] == pixels
    assert row["hectares"]["value"] == pytest.approx(pixels / 100, rel=3e-3)
    assert row["users"]["value"] == 1


def test_one_interpreted_unit_makes_no_variance(source: ClassMap) -> None:
    path = filled(source, kind="simple", least=0)
    table = table_of(path)
    table.loc[1:, "reference"] = None
    pyogrio.write_dataframe(table, path, layer="sample", append=False)
    with pytest.warns(ReferenceWarning), pytest.raises(AssessmentError, match="Only one unit is interpreted"):
        assess(source, path)


def test_too_few_units_for_the_classes_are_told_before_drawing(source: ClassMap) -> None:
    with pytest.raises(AssessmentError, match=r"2 units are too few for 3 strata of at least 2 each\. Take at least 6"):
        draw(source, Wish(units=2))


# -- points of another kind ----------------------------------------------------------------------------------------


def test_points_may_be_named_by_code_and_others_are_told(source: ClassMap, tmp_path: Path) -> None:
    points([1.0, 1.0, 5.0, np.nan, 77.0]).to_file(tmp_path / "points.gpkg")
    with pytest.warns(ReferenceWarning) as told:
        result = assess(source, tmp_path / "points.gpkg", class_field="kind")
    said = " ".join(str(one.message) for one in told)
    assert "1 points of points.gpkg are left out: without a class" in said
    assert "The map has no class 77" in said
    assert [(row["class"], row["seen"]) for row in result["classes"]] == [
        ("bog & fen", 2),
        ("marsh <b>", 0),
        ("upland", 1),
        ("77", 1),
    ]
    assert "agreement with points" in assess_files.lines(result)[0]


def test_points_none_of_whose_classes_the_map_has_are_refused(source: ClassMap, tmp_path: Path) -> None:
    points(["A1", "B2"]).to_file(tmp_path / "points.gpkg")
    with pytest.raises(
        AssessmentError, match="No value of kind is a class of the map: A1, B2; the classes are bog & fen"
    ):
        assess(source, tmp_path / "points.gpkg", class_field="kind")


def test_a_point_without_a_class_takes_nothing_from_the_one_beside_it(source: ClassMap, tmp_path: Path) -> None:
    table = points(["", "bog & fen"])
    table.geometry = [table.geometry[0]] * 2
    table.to_file(tmp_path / "points.gpkg")
    with pytest.warns(ReferenceWarning, match="without a class"):
        assert assess(source, tmp_path / "points.gpkg", class_field="kind")["used"] == 1


def test_of_several_layers_one_has_to_be_named(source: ClassMap, tmp_path: Path) -> None:
    path = tmp_path / "two.gpkg"
    points(["upland"]).to_file(path, layer="old")
    points(["bog & fen"]).to_file(path, layer="new")
    with pytest.raises(UsageError, match=r"two.gpkg has 2 layers: old, new. Name the one to read with --layer"):
        assess(source, path, class_field="kind")
    with pytest.raises(UsageError, match=r"has no layer newer; it has old, new"):
        assess(source, path, class_field="kind", layer="newer")
    assert assess(source, path, class_field="kind", layer="new")["classes"][0]["agreed"] == 1


def test_files_without_points_are_told(source: ClassMap, tmp_path: Path) -> None:
    def refused(name: str, match: str, kind: type[Exception] = ReferenceDataError) -> None:
        with pytest.raises(kind, match=match):
            assess(source, tmp_path / name, class_field="kind")

    (tmp_path / "nothing.gpkg").touch()
    refused("nothing.gpkg", "cannot be read as a vector file")
    with contextlib.closing(sqlite3.connect(tmp_path / "empty.gpkg")) as connection:
        for statement in ("PRAGMA application_id = 1196444487", "PRAGMA user_version = 10300", "CREATE TABLE a (kind)"):
            connection.execute(statement)
    refused("empty.gpkg", "cannot be read as a vector file|holds no layer|has no places")
    points(["upland"])[:0].to_file(tmp_path / "none.gpkg")
    refused("none.gpkg", "holds no point")
    table = points(["upland", "upland"])
    table.loc[1, "geometry"] = None
    table.to_file(tmp_path / "lost.gpkg")
    refused("lost.gpkg", "holds 1 features without a place")
    points(["upland"]).assign(geometry=lambda rows: rows.buffer(5)).to_file(tmp_path / "round.gpkg")
    refused("round.gpkg", r"holds Polygon.*Centroids")
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        points(["upland"]).set_crs(None, allow_override=True).to_file(tmp_path / "nowhere.gpkg")
    refused("nowhere.gpkg", "has no places or no CRS")
    points(["upland"]).to_file(tmp_path / "other.gpkg")
    with pytest.raises(UsageError, match=r"has no field type; it has kind"):
        assess(source, tmp_path / "other.gpkg", class_field="type")
    (tmp_path / "folder.gpkg").mkdir()
    refused("folder.gpkg", "cannot be read as a vector file")


# -- what cannot be written ----------------------------------------------------------------------------------------


def test_tables_that_cannot_be_written_are_told(source: ClassMap, tmp_path: Path) -> None:
    path = filled(source)
    (tmp_path / "taken").write_text("a file")
    words = ["assess", "--map", str(source.path), "--reference", str(path), "--output", str(tmp_path / "taken")]
    done = run_here(words)
    assert done.returncode == 1
    assert f"The tables cannot be written into {tmp_path / 'taken'} (File exists)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sample_that_cannot_be_written_leaves_nothing(
    source: ClassMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: Any, **_more: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(sample_file.pyogrio, "write_dataframe", refuse)
    with pytest.raises(WorkspaceError, match=r"sample.gpkg could not be written .*Permission denied.*--output"):
        write_sample(tmp_path / "sample.gpkg", draw(source, Wish(units=20)), source.grid)
    assert not list(tmp_path.glob("*sample*"))


def test_json_of_bad_input_names_its_kind(source: ClassMap, tmp_path: Path) -> None:
    (tmp_path / "notes.gpkg").write_text("bog: 12")
    done = run_here(["assess", "--map", str(source.path), "--reference", str(tmp_path / "notes.gpkg"), "--json"])
    assert done.returncode == 1
    assert json.loads(done.stdout)["kind"] == "ReferenceDataError"


def test_none_of_these_is_a_class_that_the_map_misses(source: ClassMap) -> None:
    path = filled(source)
    table = table_of(path)
    table.loc[:3, "reference"] = OTHER[1]
    pyogrio.write_dataframe(table, path, layer="sample", append=False)
    with pytest.warns(ReferenceWarning, match="The map has no class none of these"):
        row = assess(source, path)["classes"][-1]
    assert (row["class"], row["seen"], row["producers"]["value"]) == ("none of these", 4, 0)


def test_edits_that_a_gis_keeps_in_a_file_beside_are_read(source: ClassMap) -> None:
    """While QGIS has a GeoPackage open, what was saved lies in NAME.gpkg-wal."""
    path = filled(source)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("UPDATE sample SET reference = NULL WHERE unit <= 7")
        assert path.with_name("sample.gpkg-wal").stat().st_size > 0
        with pytest.warns(ReferenceWarning, match="7 of 120 units of sample.gpkg are not interpreted"):
            assert assess(source, path)["interpreted"] == 113


def test_files_to_keep_away_from_that_hold_nothing_are_told(source: ClassMap, tmp_path: Path) -> None:
    def away(path: Path) -> Any:
        return draw(source, Wish(units=60, away_from=path, away_m=50))

    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "nothing.gpkg").touch()
    table = points(["bog & fen", "bog & fen"])
    table[:0].to_file(tmp_path / "none.gpkg")
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        table.set_crs(None, allow_override=True).to_file(tmp_path / "nowhere.gpkg")
    for name, match in (
        ("table.csv", "holds nothing to keep away from"),
        ("none.gpkg", "holds nothing to keep away from"),
        ("nothing.gpkg", "cannot be read as a vector file"),
        ("missing.gpkg", "cannot be read as a vector file"),
        ("nowhere.gpkg", "cannot be read as a vector file with a CRS"),
    ):
        with pytest.raises(UsageError, match=match):
            away(tmp_path / name)
    path = tmp_path / "two.gpkg"
    table.loc[0, "geometry"] = None
    table.to_file(path, layer="old")
    points(["upland"]).assign(geometry=lambda rows: rows.translate(0, -1000)).to_file(path, layer="new")
    # the outlines of both layers, not of the first alone: a circle of 50 m each, in pixels that it touches
    assert away(path).left_out_ha == pytest.approx(2 * np.pi * 50**2 / 1e4, rel=0.6)


LEGENDS = st.lists(
    st.one_of(st.sampled_from(["5", "05", "1", "Fen", "fen", "FEN ", "a-b", "a_b", "a b", "<b>"]), st.text(min_size=1)),
    min_size=1,
    max_size=6,
    unique=True,
)


@settings(deadline=None, max_examples=80)
@given(LEGENDS)
def test_a_name_of_the_legend_always_means_its_own_class(names: list[str]) -> None:
    legend = list(enumerate(names, start=1))
    assert as_in_the_legend(names, spellings(legend), "reference") == names
    codes = [str(code) for code, _ in legend]
    taken = {name.strip() for name in names}
    for code, name in zip(codes, as_in_the_legend([*codes, names[0]], spellings(legend), "reference"), strict=False):
        assert code in taken or name == names[int(code) - 1]
