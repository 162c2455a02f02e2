"""Change between two maps through the front door: the map of transitions, its tables, a sample of it, hectares."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sqlite3
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from tests.walk.conftest import Run
from wetmap.classes import MapClass
from wetmap.errors import UsageError
from wetmap.products.change_table import ARROW, change_table_of
from wetmap.products.class_map import open_class_map
from wetmap.products.sample_file import read_design
from wetmap.products.style import write_class_style
from wetmap.stages.change import Counts, Wish, compare_maps, count_pairs, shown_codes, write_change_map

CLASSES = (MapClass(1, "bog <b>", "#aa4400"), MapClass(2, "water", "#1144cc"), MapClass(5, "upland", "#dddddd"))
NAMES = {item.code: item.name for item in CLASSES}
HEIGHT, WIDTH = 600, 300


def write_map(
    folder: Path, codes: NDArray[np.uint8], classes: Sequence[MapClass] = CLASSES, *, top: float = 5_100_000.0
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "classes.tif"
    profile = {"driver": "GTiff", "count": 1, "height": codes.shape[0], "width": codes.shape[1], "dtype": "uint8"}
    place = {"crs": "EPSG:32620", "transform": Affine(10, 0, 400_000, 0, -10, top), "nodata": 0}
    with rasterio.open(path, "w", **profile, **place) as out:
        out.write(codes, 1)
    write_class_style(path, classes)
    return path


def truth() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What was there and what is: a bog of 3 km2 of which 60 ha became water, and 20 ha of upland that became bog."""
    before = np.full((HEIGHT, WIDTH), 5, np.uint8)
    before[100:400, 50:150] = 1
    before[500:540, 200:260] = 2
    after = before.copy()
    after[100:160, 50:150] = 2
    after[450:470, 50:150] = 1
    return before, after


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, Path]:
    """Maps of it with errors of their own, and a corner without a class in each."""
    folders = tmp_path / "nb 2019", tmp_path / "nb-2023"
    for number, (folder, codes) in enumerate(zip(folders, truth(), strict=True)):
        wrong = np.random.default_rng(number).random(codes.shape) < 0.02
        codes[wrong] = 1
        codes[: 10 * (number + 1), :20] = 0
        write_map(folder / "map", codes)
    return folders


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def fill(path: Path, *, fields: tuple[str, str] = ("before", "after"), but: int = 0) -> None:
    """Interpret the units by what is there; the first few stay empty."""
    design = read_design(path)
    assert design is not None
    seen = [codes[list(design.rows), list(design.cols)].tolist() for codes in truth()]
    with sqlite3.connect(path) as connection:
        for trigger in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger[0]}")  # they call functions of the editor's own SQLite
        known = {row[1] for row in connection.execute("PRAGMA table_info(sample)")}
        for name in set(fields) - known:
            connection.execute(f"ALTER TABLE sample ADD COLUMN {name} TEXT")
        for number, pair in enumerate(zip(*seen, strict=True), start=1):
            if number > but:
                words = [NAMES[code] for code in pair]
                connection.execute(
                    f"UPDATE sample SET {fields[0]} = ?, {fields[1]} = ? WHERE unit = ?",  # noqa: S608 - our own names
                    (*words, number),
                )


def check_the_map(out: Path, maps: tuple[Path, Path]) -> None:
    """Every pixel is the pair of its classes, under a name and a colour of its own."""
    tif = out / "change.tif"
    before, after = (open_class_map(folder / "map/classes.tif") for folder in maps)
    table = change_table_of(tif)
    assert table is not None
    assert (table.before, table.after) == ("nb 2019", "nb-2023")
    assert table.before_sha256 == before.sha256
    with rasterio.open(tif) as raster, rasterio.open(before.path) as one, rasterio.open(after.path) as other:
        shown, b, a = raster.read(1), one.read(1), other.read(1)
        assert raster.nodata == 0
        colours = raster.colormap(1)
    assert ((shown == 0) == ((b == 0) | (a == 0))).all()
    for row in table.shown:
        pairs = {(int(x), int(y)) for x, y in zip(b[shown == row.code], a[shown == row.code], strict=True)}
        assert pairs == set(row.pairs)
    legend = open_class_map(tif).classes
    assert [item.name for item in legend][:3] == ["stable bog <b>", "stable water", "stable upland"]
    assert {"bog <b> -> water", "upland -> bog <b>"} <= {item.name for item in legend}
    assert len({item.colour for item in legend}) == len(legend)
    assert all(colours[item.code][:3] == item.rgb for item in legend)
    style = ElementTree.parse(out / "change.qml")  # noqa: S314 - our own file
    assert [entry.get("label") for entry in style.iter("paletteEntry")] == [item.name for item in legend]

    rows = rows_of(out / "transitions.csv")
    assert sum(int(row["pixels"]) for row in rows) == int((shown > 0).sum())
    assert all(row["basis"].startswith("pixel count, not an estimate") for row in rows)
    lost = next(row for row in rows if (row["before"], row["after"]) == ("bog <b>", "water"))
    assert int(lost["pixels"]) == int(((b == 1) & (a == 2)).sum())
    assert float(lost["hectares"]) == pytest.approx(int(lost["pixels"]) / 100, rel=2e-3)
    matrix = rows_of(out / "matrix.csv")
    assert float(matrix[-1]["all"]) == pytest.approx(sum(float(row["hectares"]) for row in rows), abs=1e-3)
    told = json.loads((out / "change.json").read_text())
    assert told["left_out_ha"]["only_before"] == pytest.approx(2.0, rel=2e-3)
    assert told["left_out_ha"]["only_after"] == 0


def check_the_form(sample: Path) -> None:
    """It asks for two classes, each from a list, and says nothing of the strata."""
    columns = set(pyogrio.read_dataframe(sample, layer="sample").columns)
    assert columns == {"unit", "before", "after", "certainty", "interpreter", "note", "lon", "lat", "geometry"}
    with sqlite3.connect(sample) as connection:
        text = connection.execute("SELECT styleQML FROM layer_styles").fetchone()[0]
    form = ElementTree.fromstring(text)  # noqa: S314 - our own file
    for name in ("before", "after"):
        field = next(one for one in form.iter("field") if one.get("name") == name)
        values = [one.get("value") for one in field.iter("Option") if one.get("type") == "QString"]
        assert values[1:] == [item.name for item in CLASSES]
    assert "reference" not in text


def test_from_two_maps_to_hectares_of_change(maps: tuple[Path, Path], tmp_path: Path, wetmap: Run) -> None:
    out, sample = tmp_path / "change", tmp_path / "sample.gpkg"
    said = wetmap("change", *maps, "--out", out)
    assert "Comparing two maps multiplies their errors" in said.stdout
    assert "2.0 ha have a class in" in said.stderr  # ten rows of twenty pixels have one in the first map alone
    check_the_map(out, maps)
    tif = out / "change.tif"
    said = wetmap("sample", "--map", tif, "--units", 500, "--least", 40, "--output", sample)
    assert "fill the fields before and after" in said.stdout
    check_the_form(sample)
    fill(sample, but=3)

    arguments = ("--map", tif, "--reference", sample, "--output", tmp_path / "figures")
    result = json.loads(wetmap("assess", *arguments, "--json").stdout)
    by_name = {row["class"]: row["hectares"] for row in result["classes"]}
    for name, hectares in (("bog <b> -> water", 60), ("upland -> bog <b>", 20)):
        assert by_name[name]["low"] < hectares * 1.001
        assert by_name[name]["high"] > hectares * 0.999
    change = {row["class"]: row for row in result["change"]}
    for name, gain, loss in (("bog <b>", 20, 60), ("water", 60, 0), ("upland", 0, 20)):
        for figure, hectares in (("gain", gain), ("loss", loss), ("net", gain - loss)):
            one = change[name][figure]
            assert one["low"] <= hectares + 0.1, (name, figure)
            assert one["high"] >= hectares - 0.1, (name, figure)
    assert change["bog <b>"]["net"]["high"] < 0, "the loss of bog is beyond doubt"
    rows = rows_of(tmp_path / "figures/change.csv")
    assert [row["class"] for row in rows] == list(NAMES.values())
    assert float(rows[0]["net_ha_value"]) == pytest.approx(change["bog <b>"]["net"]["value"], rel=1e-5)
    words = wetmap("assess", *arguments)
    assert "net change, ha" in words.stdout
    assert "3 of 500 units of sample.gpkg are not interpreted" in words.stderr


def test_half_an_answer_is_none(maps: tuple[Path, Path], tmp_path: Path, wetmap: Run) -> None:
    tif, sample = tmp_path / "change/change.tif", tmp_path / "sample.gpkg"
    wetmap("change", *maps, "--out", tif.parent)
    wetmap("sample", "--map", tif, "--units", 200, "--least", 20, "--output", sample)
    fill(sample)
    with sqlite3.connect(sample) as connection:
        connection.execute("UPDATE sample SET after = NULL WHERE unit = 7")
        connection.execute("UPDATE sample SET after = 'swamp' WHERE unit = 8")
        connection.execute("UPDATE sample SET after = 'watre' WHERE unit IN (9, 11)")
    done = wetmap("assess", "--map", tif, "--reference", sample, "--output", tmp_path / "figures", "--json")
    result = json.loads(done.stdout)
    assert result["interpreted"] == 199
    assert "Points of sample.gpkg with a class for one date only: 1 (7)" in done.stderr
    assert "swamp" in {row["class"] for row in result["change"]}, "a class that neither map has"
    said = " ".join(done.stderr.split())
    assert "swamp (1 point: 8), watre (2 points: 9, 11; did you mean water?)" in said


def test_memory_does_not_grow_with_the_maps(tmp_path: Path) -> None:
    peaks = []
    for side in (1024, 1536):
        codes = np.random.default_rng(1).integers(1, 3, (side, side)).astype(np.uint8)
        pair = [open_class_map(write_map(tmp_path / f"{side}-{n}", codes)) for n in range(2)]
        tracemalloc.start()
        assert count_pairs(*pair).pixels[1, 1] == int((codes == 1).sum())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_the_same_maps_give_the_same_bytes(maps: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with pytest.warns(match="left out"):
            write_change_map(tmp_path / name / "change.tif", compare_maps(*maps, Wish()), *maps)
    for file in ("change.tif", "change.qml", "change.tif.aux.xml"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_sample_of_one_of_the_maps_will_do(maps: tuple[Path, Path], tmp_path: Path, wetmap: Run) -> None:
    """Strata are the classes of the first map, not the transitions (Stehman 2014)."""
    codes = [open_class_map(folder / "map/classes.tif") for folder in maps]
    for one, after in zip(codes, truth(), strict=True):  # without the corners, so that both cover the same
        write_map(one.path.parent, after)
    out = tmp_path / "change"
    wetmap("change", *maps, "--out", out)
    wetmap("sample", "--map", codes[0].path, "--units", 400, "--least", 80, "--output", tmp_path / "one.gpkg")
    fill(tmp_path / "one.gpkg", fields=("reference", "now"))
    fields = ("--before-field", "reference", "--after-field", "now")
    arguments = ("--map", out / "change.tif", "--reference", tmp_path / "one.gpkg", "--output", tmp_path / "figures")
    done = wetmap("assess", *arguments, *fields, "--json")
    result = json.loads(done.stdout)
    assert result["map_changed"]
    names = {item.name for item in open_class_map(out / "change.tif").classes}
    assert {row["class"] for row in result["classes"]} == names, "no row for classes of the sampled map"
    net = next(row for row in result["change"] if row["class"] == "bog <b>")["net"]
    assert net["low"] < -40 < net["high"] < 0
    refused = wetmap("assess", *arguments, expect=2)
    assert "has no field before" in refused.stderr
    assert "--before-field" in refused.stderr
    idle = wetmap("assess", *arguments, "--class-field", "now", expect=2)
    assert "needs a class for each date" in idle.stderr
    idle = wetmap("assess", "--map", codes[0].path, *arguments[2:], *fields, expect=2)
    assert "this is no map of change" in idle.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top": 5_100_010.0}, "lie on different grids"),
        ({"classes": (CLASSES[0], MapClass(2, "fen", "#1144cc"), CLASSES[2])}, "code 2 is 'water'"),
        ({"classes": CLASSES[:2]}, "code 5 is 'upland' in"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(
    maps: tuple[Path, Path], wetmap: Run, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    codes = truth()[1]
    if len(change.get("classes", CLASSES)) < len(CLASSES):  # type: ignore[arg-type]
        codes[codes == 5] = 1
    other = write_map(tmp_path / "other", codes, **change)  # type: ignore[arg-type]
    done = wetmap("change", maps[0], other, "--out", tmp_path / "change", expect=2)
    assert said in done.stderr
    assert "recipe" in done.stderr, "and what to do"
    assert not (tmp_path / "change").exists()


def test_nonsense_is_refused(maps: tuple[Path, Path], wetmap: Run, tmp_path: Path) -> None:
    assert "is no map" in wetmap("change", tmp_path, maps[1], "--out", tmp_path / "x", expect=2).stderr
    told = json.loads(wetmap("change", *maps, "--out", tmp_path / "change", "--json").stdout)
    tif = Path(told["files"]["change.tif"])
    assert told["changed_ha"] > 1.5 * 80, "errors of both maps look like change"
    assert "itself a map of change" in wetmap("change", tif, tif, "--out", tmp_path / "x", expect=2).stderr
    (tmp_path / "file").touch()
    assert "is a file" in wetmap("change", *maps, "--out", tmp_path / "file", expect=2).stderr
    apart = truth()[1]
    apart[:] = 0
    shutil.rmtree(maps[1])
    write_map(maps[1], apart)
    assert "has a class in both" in wetmap("change", *maps, "--out", tmp_path / "x", expect=1).stderr


def counts_of(hectares: dict[tuple[int, int], float]) -> Counts:
    return Counts({pair: round(100 * ha) for pair, ha in hectares.items()}, hectares, 0.0, 0.0)


def test_the_sample_that_is_advised_can_be_drawn(tmp_path: Path, wetmap: Run) -> None:
    """Enough points for every entry, however many there are; of two maps that agree there is nothing to sample."""
    codes = np.random.default_rng(5).integers(1, 6, (100, 300)).astype(np.uint8)
    table = [MapClass(code, f"c{code}", f"#12345{code}") for code in range(1, 6)]
    write_map(tmp_path / "one", codes, table)
    write_map(tmp_path / "two", np.flipud(codes), table)
    said = wetmap("change", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "many").stdout
    (line,) = [line for line in said.splitlines() if line.startswith("Next: wetmap sample")]
    assert line.endswith("--units 1600 --least 50"), "25 entries of 50 points, and 300 for the large ones"
    assert "has 25 entries" in said
    wetmap(*shlex.split(line.removeprefix("Next: wetmap ")), "--output", tmp_path / "drawn.gpkg")
    few = wetmap("sample", "--map", tmp_path / "many", "--units", 600, "--least", 50, expect=1).stderr
    assert "25 strata of at least 50" in " ".join(few.split())
    assert "larger --least-ha, or --stable one" in " ".join(few.split())
    same = wetmap("change", tmp_path / "one", tmp_path / "one", "--out", tmp_path / "same").stdout
    assert "there is no change to sample" in same
    assert "Next:" not in same


class TestGroups:
    def test_small_transitions_are_one_entry(self) -> None:
        counts = counts_of({(1, 1): 50, (1, 2): 20, (1, 5): 0.4, (2, 1): 0.3, (2, 2): 9, (5, 5): 0.2})
        rows = {row.name: row.pairs for row in shown_codes(CLASSES, counts, Wish(least_ha=1))}
        assert rows["other change"] == ((1, 5), (2, 1))
        assert list(rows)[-1] == "other change"
        assert "stable upland" in rows, "a group of one says less than its name"
        everything = shown_codes(CLASSES, counts, Wish(least_ha=0))
        assert len(everything) == 6

    def test_a_single_pixel_takes_in_the_next(self) -> None:
        counts = counts_of({(1, 1): 50, (1, 2): 20, (1, 5): 0.01, (2, 1): 7, (2, 2): 9})
        rows = {row.name: row.pairs for row in shown_codes(CLASSES, counts, Wish(least_ha=1))}
        assert rows["other change"] == ((1, 5), (2, 1))

    def test_all_that_stayed_as_one(self) -> None:
        counts = counts_of({(1, 1): 50, (2, 2): 0.1, (1, 2): 20})
        rows = [row.name for row in shown_codes(CLASSES, counts, Wish(stable="one"))]
        assert rows == ["no change", f"bog <b>{ARROW}water"]

    @pytest.mark.parametrize("classes", [20, 60, 250])
    def test_there_are_254_codes_at_most(self, classes: int) -> None:
        table = [MapClass(code, f"c{code}", "#123456") for code in range(1, classes + 1)]
        counts = counts_of({(b, a): float(b + a) for b in range(1, classes + 1) for a in range(1, classes + 1)})
        rows = shown_codes(table, counts, Wish(least_ha=0))
        assert [row.code for row in rows] == list(range(1, 255))
        assert sorted(pair for row in rows for pair in row.pairs) == sorted(counts.pixels)
        assert rows[-1].name == "other change"
        kept = [counts.hectares[row.pairs[0]] for row in rows if ARROW in row.name]
        assert max(counts.hectares[pair] for pair in rows[-1].pairs) <= min(kept)

    def test_names_that_would_be_alike_are_refused(self) -> None:
        table = [MapClass(1, "a", "#000000"), MapClass(2, "b -> c", "#111111"), MapClass(3, "a -> b", "#222222")]
        table.append(MapClass(4, "c", "#333333"))
        with pytest.raises(UsageError, match="would be called 'a -> b -> c'"):
            shown_codes(table, counts_of({(1, 2): 3.0, (3, 4): 3.0}), Wish())
