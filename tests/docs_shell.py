"""A reader at a terminal: the lines of a page's blocks, one after the other, in one folder.

``wetmap`` runs in this process; set-up lines are held against the project's own files; all else is given to bash.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from tests.docs_pages import ROOT, Fence

#: The command line in this process: words and folder in, what was printed and the exit code out.
RunHere = Callable[[list[str], Path], "subprocess.CompletedProcess[str]"]
#: What a reader does where a comment tells it: the comment, the folder.
Hand = Callable[[Path], None]

ACTIVATE = "source .venv/bin/activate"
PYTHON = ("python", ".venv/bin/python")
WETMAP = ("wetmap", ".venv/bin/wetmap")


@dataclass
class Shell:
    """What one reader has done so far."""

    folder: Path
    run_here: RunHere
    hands: dict[str, Hand] = field(default_factory=dict)
    """What is done where a comment, or a command, holds the text."""
    names: dict[str, Any] = field(default_factory=dict)
    """Names of the Python blocks."""
    said: list[str] = field(default_factory=list)
    """What was printed, block by block."""
    exported: dict[str, str] = field(default_factory=dict)

    def run(self, fence: Fence) -> None:
        """Run a block of lines for a terminal."""
        lines = [line for line in fence.text.replace("\\\n", " ").splitlines() if line.strip()]
        calls = [line for line in lines if not line.lstrip().startswith("#")]
        self.said.append("")
        for line in lines:
            expected = fence.exit_code if calls and line is calls[-1] else 0
            code, text = self._line(line.strip().removeprefix("$ "), fence.run_with)
            assert code == expected, f"{fence.name}: `{line.strip()}` ends with {code}\n{text}"
            self.said[-1] += text
            for words, hand in self.hands.items():
                if words in line:
                    hand(self.folder)

    def run_python(self, fence: Fence) -> None:
        """Run a block of Python."""
        out = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out):
            exec(compile(fence.text, fence.name, "exec"), self.names)  # noqa: S102 - the project's own pages
        self.said.append(out.getvalue())

    def _line(self, line: str, more: str) -> tuple[int, str]:
        """Exit code and output of one line."""
        if line.startswith("#"):
            return 0, ""
        if line == ACTIVATE or line.startswith("make "):
            return 0, self._set_up(line)
        words = shlex.split(line, comments=True)
        variables: dict[str, str] = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        if words[:2] == ["pip", "install"]:
            assert not unknown_extras(line), line
            return 0, ""
        if words and words[0] == "export":
            self.exported |= dict(word.split("=", 1) for word in words[1:])
            return 0, ""
        with mock.patch.dict(os.environ, {**self.exported, **variables}):
            if words[0] in WETMAP or words[:3] in ([name, "-m", "wetmap"] for name in PYTHON):
                return self._wetmap(words[1:] if words[0] in WETMAP else words[3:], more)
            if words[0] in PYTHON and words[1].startswith("benchmarks/"):
                line = shlex.join(["python", str(ROOT / words[1]), *words[2:], *added(more, words[1])])
            return self._bash(line)

    def _set_up(self, line: str) -> str:
        """Lines that make an environment, which is there already: the Makefile knows the target."""
        if line == ACTIVATE:
            return ""
        target = shlex.split(line, comments=True)[1]
        assert re.search(rf"(?m)^{re.escape(target)}:", (ROOT / "Makefile").read_text()), line
        if target == "sample" and (self.folder / "pipelines").exists():
            return self._wetmap(["run", "pipelines/sample.yaml"], "")[1]
        return ""

    def _wetmap(self, words: list[str], more: str) -> tuple[int, str]:
        """Run a command, with options added where the block's comment names its verb."""
        file = None
        if ">" in words:
            words, file = words[: words.index(">")], words[words.index(">") + 1]
        done = self.run_here([*words, *added(more, *words)], self.folder)
        if file is not None:
            (self.folder / file).write_text(done.stdout)
        return done.returncode, done.stderr + ("" if file else done.stdout)

    def _bash(self, line: str) -> tuple[int, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=self.folder,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr


def added(more: str, *words: str) -> list[str]:
    """The options that a comment adds to a command, where it names one of its words."""
    name, *options = shlex.split(more) or [""]
    return options if name in words else []


def unknown_extras(line: str) -> list[str]:
    """What a ``pip install`` line asks of this project and pyproject.toml does not have."""
    asked = re.findall(r"wetmap\[([\w,]+)\]", line)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [extra for group in asked for extra in group.split(",") if extra not in known]
