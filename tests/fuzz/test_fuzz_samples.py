"""Samples as nobody fills them: assessed, or refused in words."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import parsers
from tests.fuzz.fuzzing import ODD_TEXTS, ODD_VALUES, cut_or_bent, fuzzed, mutate
from tests.stages.test_assess import HEIGHT, WIDTH, fill, sampled, truth, write_map
from wetmap.classes import MapClass
from wetmap.errors import WetmapError
from wetmap.products.class_map import ClassMap, open_class_map
from wetmap.recipe import ClassSpec
from wetmap.samples.class_table import codes_by_value, resolve_classes
from wetmap.stages.assess import assess

#: What SQLite can hold in a cell.
CELLS = st.one_of(
    st.sampled_from([value for value in ODD_VALUES if value is None or isinstance(value, int | float)]).filter(
        lambda value: not isinstance(value, int) or abs(value) < 2**63
    ),
    st.sampled_from([text for text in ODD_TEXTS if text.isascii()]),
    st.binary(max_size=8),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClassMap, Path]:
    """A map and its sample, filled."""
    folder = tmp_path_factory.mktemp("drawn")
    assert truth().shape == (HEIGHT, WIDTH)
    source = open_class_map(write_map(folder, truth()))
    path = sampled(source, units=30, least=5)
    fill(path)
    return source, path


def judged(source: ClassMap, path: Path) -> str:
    with parsers.quiet():
        try:
            found = assess(source, path)
        except WetmapError as error:
            return parsers.refused(error)
    assert found["basis"] in {"probability sample", "agreement"}
    return ""


@fuzzed(30)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(["unit", "reference", "lon", "note", "geom"]), st.integers(1, 30), CELLS),
        min_size=1,
        max_size=6,
    )
)
def test_odd_cells(changes: list[tuple[str, int, Any]], drawn: tuple[ClassMap, Path], inside: Path) -> None:
    source, path = drawn
    copy = Path(shutil.copy(path, inside / "sample.gpkg"))
    with closing(sqlite3.connect(copy)) as connection, connection:
        for column, row, value in changes:
            connection.execute(f"UPDATE sample SET {column} = ? WHERE fid = ?", (value, row))  # noqa: S608 - ours
    judged(source, copy)


@fuzzed(25)
@given(data=st.data())
def test_changed_bytes(data: Any, drawn: tuple[ClassMap, Path], inside: Path) -> None:
    source, path = drawn
    copy = inside / "sample.gpkg"
    copy.write_bytes(data.draw(cut_or_bent(path.read_bytes())))
    judged(source, copy)


@pytest.mark.parametrize(
    "design", ["", "{}", "[]", "null", "[" * 100_000, '{"rows": [' + "9" * 5000 + "]}", '{"kind": "x"}', "\x00"]
)
def test_odd_designs(design: str, drawn: tuple[ClassMap, Path], inside: Path) -> None:
    source, path = drawn
    copy = Path(shutil.copy(path, inside / "sample.gpkg"))
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE gpkg_metadata SET metadata = ?", (design,))
    assert judged(source, copy)


@fuzzed(50)
@given(rng=st.randoms(use_true_random=False))
def test_changed_designs(rng: Any, drawn: tuple[ClassMap, Path], inside: Path) -> None:
    source, path = drawn
    copy = Path(shutil.copy(path, inside / "sample.gpkg"))
    with closing(sqlite3.connect(copy)) as connection, connection:
        (text,) = connection.execute("SELECT metadata FROM gpkg_metadata").fetchone()
        changed = json.dumps(mutate(rng, json.loads(text)))
        connection.execute("UPDATE gpkg_metadata SET metadata = ?", (changed,))
    judged(source, copy)


VALUES = st.one_of(st.sampled_from(ODD_TEXTS), st.integers(-5, 300), st.floats(), st.none(), st.booleans())


@fuzzed(60)
@given(found=st.lists(VALUES, max_size=8), names=st.lists(st.text(min_size=1, max_size=8), max_size=4))
def test_odd_class_tables(found: list[Any], names: list[str]) -> None:
    specs = [ClassSpec(name=name, reference=[name]) for name in names]
    try:
        classes = resolve_classes(specs, found)
        codes = codes_by_value(specs, classes)
    except WetmapError as error:
        parsers.refused(error)
        return
    assert all(isinstance(row, MapClass) and 1 <= row.code <= 254 for row in classes)
    assert set(codes.values()) <= {row.code for row in classes}
