"""The reader that runs the pages' blocks: what it notices, and what it leaves alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.docs_output import same_keys, unknown_lines
from tests.docs_pages import fences
from tests.docs_shell import Shell


def shell_of(folder: Path, code: int = 0) -> tuple[Shell, list[list[str]]]:
    """A reader whose wetmap answers with a code, and what it was asked."""
    asked: list[list[str]] = []

    def answer(words: list[str], _: Path) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        return subprocess.CompletedProcess(words, code, "{}\n", "said\n")

    return Shell(folder, answer), asked


def block(folder: Path, text: str) -> tuple[Path, str]:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return page, text


def run(folder: Path, text: str, code: int = 0) -> list[list[str]]:
    page, _ = block(folder, text)
    shell, asked = shell_of(folder, code)
    for fence in fences(page):
        shell.run(fence)
    return asked


def test_lines_become_commands(tmp_path: Path) -> None:
    text = "```bash\nX=1 wetmap fetch --aoi a.geojson \\\n  --json > out.json   # a word\ncat out.json\n```\n"
    assert run(tmp_path, text) == [["fetch", "--aoi", "a.geojson", "--json"]]
    assert (tmp_path / "out.json").read_text() == "{}\n"


def test_comments_say_what_differs(tmp_path: Path) -> None:
    text = "<!-- run with: train --epochs 1 -->\n```\nwetmap train\nwetmap predict\n```\n"
    assert run(tmp_path, text) == [["train", "--epochs", "1"], ["predict"]]
    assert (
        run(tmp_path, "<!-- run with: benchmarks/speckle.py --help -->\n```\npython benchmarks/speckle.py\n```\n") == []
    )
    assert run(tmp_path, "<!-- exit code: 2 -->\n\n```sh\nwetmap train\n```\n", code=2) == [["train"]]
    page, _ = block(tmp_path, "<!-- not run: no account -->\n```\nwetmap fetch\n```\n\n```\nls\n```\n")
    assert [fence.not_run for fence in fences(page)] == ["no account", None]


@pytest.mark.parametrize(
    "text", ["```\nwetmap train\n```\n", "<!-- exit code: 3 -->\n```\nwetmap train\n```\n"], ids=["0", "3"]
)
def test_another_end_than_promised_is_noticed(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"page.md:\d: `wetmap train` ends with 1"):
        run(tmp_path, text, code=1)


@pytest.mark.parametrize("line", ["cat none.txt", "false | true", "no-such-programme", "make nothing"])
def test_what_fails_in_a_shell_is_noticed(line: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"ends with|make"):
        run(tmp_path, f"```\n{line}\n```\n")


def test_an_extra_that_is_not_there_is_noticed(tmp_path: Path) -> None:
    run(tmp_path, "```\npip install 'wetmap[onnx]'\n```\n")
    with pytest.raises(AssertionError, match="onyx"):
        run(tmp_path, "```\npip install 'wetmap[onyx]'\n```\n")


def test_a_comment_that_belongs_to_no_block_is_noticed(tmp_path: Path) -> None:
    page, _ = block(tmp_path, "<!-- not run: no account -->\nSome words.\n")
    with pytest.raises(AssertionError, match="before no block"):
        list(fences(page))


def test_output_is_held_against_what_was_printed() -> None:
    said = "Grid:   EPSG:32620, 12 x 34 px of 10 m\n  bog    1.2 ha    7.7 %\nMap:    /tmp/a/map/classes.tif\n"
    page = "Grid: EPSG:32620, 260 x 259 px of 10 m\n...\n  bog  42.0 ha 3 %\nMap: .../classes.tif\n"
    assert unknown_lines(page, said) == []
    assert unknown_lines("Grid is EPSG:32620 and quxes wobble\n", said) == ["Grid is EPSG:32620 and quxes wobble"]
    assert unknown_lines("  fenny  42.0 ha  3 %\n", said) == ["  fenny  42.0 ha  3 %"]
    quoted = "wetmap: interrupted. What is finished is kept; the same command continues."
    assert unknown_lines(quoted, "") == []
    assert unknown_lines(quoted.replace("finished", "fabulous").replace("same command", "sane"), "") != []
    assert same_keys('{"a": 1, "b": 2}', 'words\n{"a": 3, "b": 4, "c": 5}\n')
    assert not same_keys('{"a": 1, "d": 2}', '{"a": 3, "b": 4}\n')
