"""The pages of class tables and crosswalks say what the tables say."""

from __future__ import annotations

from pathlib import Path

import pytest

from wetmap.classes import class_table, synonyms, table_names, table_title
from wetmap.crosswalk import crosswalk_names, packaged

PAGES = Path(__file__).resolve().parents[1] / "docs/classes"


def rows_of(page: Path, head: str) -> list[list[str]]:
    """The rows of the table that begins with these columns, cell by cell."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = lines.index(head) + 2
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]


def test_every_table_has_its_page() -> None:
    assert sorted(page.stem for page in PAGES.glob("*.md")) == sorted(table_names())


@pytest.mark.parametrize("name", table_names())
def test_a_page_lists_the_classes_as_they_are(name: str) -> None:
    page, also = PAGES / f"{name}.md", synonyms(name)
    assert page.read_text(encoding="utf-8").startswith(f"# {table_title(name)}\n")
    expected = [
        [str(row.code), row.name + " (dry land)" * row.upland, f"`{row.colour}`", ", ".join(also[row.name])]
        for row in class_table(name)
    ]
    assert rows_of(page, "| code | class | colour | also called |") == expected


@pytest.mark.parametrize("name", crosswalk_names())
def test_a_page_lists_the_rows_of_its_crosswalk(name: str) -> None:
    rows = rows_of(PAGES / f"{name}.md", "| class | becomes | rests on | what to know |")
    assert rows == [[row.source, row.target, row.rests_on, row.note] for row in packaged(name).rows]
