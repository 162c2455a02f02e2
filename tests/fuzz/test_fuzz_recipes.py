"""Recipes that nobody meant: a Recipe or a refusal in words, never a traceback, never a hang."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import parsers
from tests.fuzz.fuzzing import cut_or_bent, fuzzed, mutations
from tests.walk.conftest import RECIPE
from wetmap.recipe import Recipe
from wetmap.recipe_file import plain

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
WHOLE: dict[str, Any] = {**plain(Recipe()), **RECIPE}
TEXTS = [path.read_bytes() for path in sorted(PIPELINES.glob("*.yaml"))]
#: A recipe must be read, or refused, within this, seconds; it takes hundredths.
SOON_S = 20.0


def test_the_recipes_that_are_changed_are_good(inside: Path) -> None:
    for data in (yaml.safe_dump(WHOLE).encode(), *TEXTS):
        assert isinstance(parsers.recipe(data, inside), Recipe)


@fuzzed(60)
@given(data=mutations(WHOLE))
def test_changed_values(data: Any, inside: Path) -> None:
    text = yaml.dump(data, allow_unicode=True).encode("utf-8", errors="surrogatepass")
    parsers.recipe(text, inside)


@fuzzed(40)
@given(data=st.sampled_from(TEXTS).flatmap(cut_or_bent))
def test_changed_text(data: bytes, inside: Path) -> None:
    parsers.recipe(data, inside)


@fuzzed(40)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_bytes(data: bytes, inside: Path) -> None:
    parsers.recipe(data, inside)


def laughs(levels: int, start: str = '"lol"') -> str:
    """Lists of ten of the list before, which hold 10 ** levels words when they are written out."""
    lines = [f"x0: &x0 [{start}]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    """The same with merged mappings."""
    lines = ["x0: &x0 {a: 1, b: 2}"]
    lines += [f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * 10)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (laughs(12), "written out"),
        (merges(9), "written out"),
        ("aoi: &a [*a]", "refers to itself"),
        ("&a aoi: {b: &b {c: *b}}", "refers to itself"),
        ("sources: " + "[" * 100_000, "nested"),
        ("{a: " * 3000, "nested"),
        ("a: 1\nb: 2\na: 3", "a twice"),
        ("grid:\n  res_m: 10\n  crs: auto\n  res_m: 20", "res_m twice"),
        ("seed: 0x" + "f" * 9000, "long"),
        ("seed: " + "9" * 9000, "long"),
        ("seed: " + "1:" * 3000 + "1", "long"),
        ("seasons: [{name: a, start: 2021-13-45, end: 2021-06-01}]", "2021-13-45"),
        ("seasons: [{name: a, start: 0000-00-00, end: 2021-06-01}]", "0000-00-00"),
        ("grid: {res_m: .nan}", "grid.res_m"),
        ("grid: {res_m: .inf}", "grid.res_m"),
        ("2021-06-01: x", "2021-06-01"),
        ("? [a, b]\n: x", "not YAML"),
        ("1: x", "1"),
        ('name: "\\ud800"', "nothing can show"),
        ('aoi: "a\\0b"', "nothing can show"),
        ("sources: {optical: {from: stac, catalog: " + "a" * 5000 + "}}", ""),
        ("!!python/object/apply:os.system [echo]", "not YAML"),
        ("name: !!binary aGVsbG8=", ""),
        ("name: !!binary /w==", "name"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("name: [" + "x, " * 20_000 + "x]", "name"),
    ],
)
def test_traps(text: str, words: str, inside: Path) -> None:
    before = time.monotonic()
    found = parsers.recipe(text.encode(), inside)
    assert time.monotonic() - before < SOON_S
    assert isinstance(found, str) or not words
    assert words in str(found)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00name", b"name: \xe9", b"\x00", b"name: \x07"])
def test_bytes_that_are_no_text(data: bytes, inside: Path) -> None:
    assert "recipe" in str(parsers.recipe(data, inside))


def test_an_alias_may_be_used(inside: Path) -> None:
    text = "sources: {optical: &here {from: stac, catalog: earth-search}, terrain: *here}"
    found = parsers.recipe(text.encode(), inside)
    assert isinstance(found, Recipe)
    assert found.sources.optical == found.sources.terrain


def test_what_is_merged_may_be_said_otherwise(inside: Path) -> None:
    text = "x: &x {from: stac, catalog: cdse}\nsources: {optical: {<<: *x, catalog: earth-search}}"
    assert "x is not a key" in str(parsers.recipe(text.encode(), inside))
