"""The pages, and the fenced blocks in them with what a comment before a block says about running it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]

#: Languages of blocks that are lines for a terminal; a block without a language is one too.
TERMINAL = ("", "bash", "sh", "console")
#: What a comment before a block can say.
MARK = re.compile(r"<!-- (not run|run with|exit code|save as): (.+?) -->")


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None = None
    """Why no test runs it; None where one does."""
    run_with: str = ""
    """A verb or a script, and options that the test adds to its commands: ``train --epochs 1``."""
    exit_code: int = 0
    """What its last command answers."""
    save_as: str | None = None
    """The file that the page tells to save it in."""

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name}:{self.line}"


def fences(page: Path) -> Iterator[Fence]:
    """The fenced blocks of a page, also those indented under a list."""
    opened: tuple[int, str, str] | None = None
    body: list[str] = []
    marks: dict[str, str] = {}
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if match := re.fullmatch(r"( *)```(\w*)", line.rstrip()):
            if opened is None:
                opened, body = (number, match[1], match[2]), []
            else:
                yield _fence(page, opened[0], opened[2], "\n".join(body) + "\n", marks)
                opened, marks = None, {}
        elif opened is not None:
            body.append(line.removeprefix(opened[1]))
        elif mark := MARK.fullmatch(line.strip()):
            marks[mark[1]] = mark[2]
        elif line.strip():
            assert not marks, f"{page.name}:{number}: a comment about a block stands before no block"
    assert opened is None, f"{page}: the block of line {opened[0]} has no end"


def _fence(page: Path, line: int, language: str, text: str, marks: dict[str, str]) -> Fence:
    return Fence(
        page,
        line,
        language,
        text,
        not_run=marks.get("not run"),
        run_with=marks.get("run with", ""),
        exit_code=int(marks.get("exit code", 0)),
        save_as=marks.get("save as"),
    )


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```\s*$", "", page.read_text(encoding="utf-8"))
