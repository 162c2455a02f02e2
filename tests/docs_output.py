"""Blocks of output against what the programme prints: the words, not the figures.

A line of a page is held against the lines that the commands before it printed; numbers, keys and paths may differ, and
``...`` stands for anything. What a page quotes without its command (a warning, say) must at least stand in the
programme's own texts.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs_pages import ROOT

#: Figures, keys of stages and paths: what differs from run to run.
CHANGES = re.compile(
    r"https?://\S+|(?:\.{3}|/)?(?:[\w.-]*/)+[\w.-]*|\b[\w-]+\.(?:sh|tif|csv|yaml)\b|\b[0-9a-f]{12}\b|[-+]?\d[\d,.:x]*%?"
)
#: Lines of up to so many words are looked up word by word.
SHORT = 6
#: What stands for the end of a page's line, or for lines that are left out.
CUT = "..."


def unknown_lines(text: str, said: str) -> list[str]:
    """Lines of a page's block that neither the commands before it printed, nor the programme could print."""
    printed = [skeleton(line) for line in said.splitlines()]
    return [
        line
        for line in text.splitlines()
        if line.strip() not in {"", CUT}
        and not any(pattern(line).fullmatch(other) for other in printed)
        and not in_the_programme(line)
        and not in_the_programme(re.sub(r"^\s*(?:\w+: +)+", "", line))  # a stage says it
    ]


def same_keys(text: str, said: str) -> bool:
    """Whether a JSON block has the keys of some JSON that was printed."""
    wanted = set(json.loads(text))
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return any(wanted <= set(one) for one in found)


def skeleton(line: str) -> str:
    """A line without what differs from run to run."""
    return " ".join(CHANGES.sub("#", line).split())


def pattern(line: str) -> re.Pattern[str]:
    """What lines a line of a page stands for."""
    parts = [re.escape(skeleton(part)) for part in line.split(CUT)]
    return re.compile(r".*".join(parts))


def in_the_programme(line: str) -> bool:
    """Whether half of a line, two words at a time, is in texts of the programme; of a short one every word.

    Not all of it has to be: names and words of a list are filled in.
    """
    pieces = [piece.split() for part in line.split(CUT) for piece in re.split(r"""[#():;,"'{}]""", skeleton(part))]
    runs = [" ".join(words[at : at + 2]) for words in pieces for at in range(len(words) - 1)]
    if runs and 2 * sum(run in texts() for run in runs) >= len(runs):
        return True
    words = re.findall(r"[A-Za-z]{3,}", " ".join(word for words in pieces for word in words))
    return len(words) <= SHORT and all(word in texts() for word in words)


@functools.cache
def texts() -> str:
    """Every text in the programme's code; what is filled in is ``#``."""
    found = []
    for file in sorted((ROOT / "wetmap").rglob("*.py")):
        found += [" ".join(CHANGES.sub("#", text).split()) for text in _texts_in(file)]
    return "\n".join(found)


def _texts_in(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "#" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
