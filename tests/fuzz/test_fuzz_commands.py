"""Command lines that nobody meant: an exit code of 0, 1 or 2 and a line of words, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzzing import ODD_TEXTS, fuzzed
from tests.walk.conftest import run_here, write_recipe
from wetmap.cli.main import app

#: Verbs that would begin to work for minutes: they only say what they would do.
LONG = {"fetch", "train", "compare", "predict", "run", "submit"}
#: Verbs that look at the machine, whatever they are told.
LEFT_OUT = {"doctor", "bench"}
#: What stands where a value should: nothing that names a file outside.
VALUES = (
    *(text for text in ODD_TEXTS if "\x00" not in text and "\ud800" not in text and ".." not in text
      and not text.startswith(("/", "http", "s3:", "file:"))),
    "0", "-1", "1e400", "nan", "area.geojson", "recipe.yaml", "area.geojson/x", "bog=0.5", "bog=nan", "=", "summer",
    "name\udce9", "EPSG:4326", "EPSG:32620", "forest", "9" * 30, "2GiB", "-1GiB", "local", "tcp://x", "3/2", "0/0",
)  # fmt: skip


def commands(group: Any, before: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every verb with its words."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, command in group.commands.items():
        words = (*before, name)
        found += commands(command, words) if hasattr(command, "commands") else [(words, command)]
    return found


VERBS = [(words, command) for words, command in commands(typer.main.get_command(app)) if words[0] not in LEFT_OUT]


@st.composite
def lines(draw: Any) -> list[str]:
    """A verb, some of its options with some values, some words without."""
    words, command = draw(st.sampled_from(VERBS))
    line = list(words)
    for _ in range(draw(st.integers(0, 5)) if command.params else 0):
        option = draw(st.sampled_from(command.params))
        if isinstance(option, click.Argument) or getattr(option, "param_type_name", "") == "argument":
            line.append(draw(st.sampled_from(VALUES)))
            continue
        line.append(draw(st.sampled_from(option.opts)))
        if not getattr(option, "is_flag", False) and draw(st.integers(0, 9)):
            line.append(draw(st.sampled_from(VALUES)))
    known = {name for option in command.params for name in option.opts}
    if words[0] in LONG and "--dry-run" in known and "--dry-run" not in line:
        line.insert(len(words), "--dry-run")
    return line


@fuzzed(25)
@given(line=lines())
def test_any_line(line: list[str], inside: Path) -> None:
    write_recipe(inside)
    done = run_here(line)
    assert done.returncode in {0, 1, 2}, done
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or done.stderr.strip(), line
    if "--json" in line and done.returncode == 1:
        assert set(json.loads(done.stdout.splitlines()[-1])) >= {"error", "do"}


@pytest.mark.parametrize(
    "line",
    [
        ["fetch", "--aoi", "a" * 5000],
        ["fetch", "--aoi", "area.geojson", "--workspace", "w" * 5000, "--dry-run"],
        ["fetch", "--aoi", "area.geojson/x"],
        ["run", "r" * 5000],
        ["run", "area.geojson"],
        ["run", "."],
        ["run", "name\udce9.yaml"],
        ["assess", "--map", "area.geojson", "--reference", "recipe.yaml"],
        ["assess", "--map", ".", "--reference", "."],
        ["assess", "--map", "m" * 5000, "--reference", "r" * 5000],
        ["sample", "--map", "area.geojson", "--units", "9" * 30],
        ["sample", "--map", "recipe.yaml", "--units", "10"],
        ["change", "area.geojson", "recipe.yaml"],
        ["predict", "--aoi", "area.geojson", "--model", "x" * 5000, "--dry-run"],
        ["model", "show", "x" * 5000],
        ["model", "import", "area.geojson"],
        ["status", "--workspace", "area.geojson"],
        ["status", "--workspace", "x" * 5000],
        ["recipe", "check", "x" * 5000],
        ["recipe", "init", "area.geojson/x.yaml"],
        ["recipe", "init", "x" * 5000],
        ["--version", "x"],
        [""],
        ["\ud800"],
    ],
    ids=lambda line: " ".join(line)[:30].encode("ascii", "replace").decode(),
)
def test_traps(line: list[str], inside: Path) -> None:
    write_recipe(inside)
    done = run_here(line)
    assert done.returncode in {0, 1, 2}, done
    assert done.returncode == 0 or done.stderr.strip()
