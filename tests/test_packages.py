"""What wetmap is made of: every import is declared, and every package it brings is pinned."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9A-Za-z.!+-]*)( *;.*)?")
#: Extras that wetmap itself imports from, inside the functions that need them.
USED_EXTRAS = ("cluster", "onnx")
#: What is there with every Python environment.
TOOLS = {"pip", "setuptools", "wheel"}


def declared(*extras: str) -> set[str]:
    """Packages that pyproject.toml names."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(line).name) for line in lines} - {"wetmap"}


def pins() -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    found = {}
    for line in filter(None, lines):
        match = PIN.fullmatch(line)
        assert match, f"{line} is no pin (name==version)"
        assert canonicalize_name(match[1]) not in found, f"{match[1]} is pinned twice"
        found[canonicalize_name(match[1])] = match[2]
    return found


def test_every_line_is_one_exact_version() -> None:
    assert len(pins()) > 100


def test_every_import_is_declared() -> None:
    known = packages_distributions()
    allowed = declared(*USED_EXTRAS)
    missing = []
    for path in sorted((ROOT / "wetmap").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for top in {name.partition(".")[0] for name in names} - {"wetmap", "__future__"} - sys.stdlib_module_names:
                owners = {canonicalize_name(owner) for owner in known.get(top, (top,))}
                if not owners & allowed:
                    missing.append(f"{path.relative_to(ROOT)}: {top} ({', '.join(sorted(owners))})")
    assert not missing


def test_every_package_that_is_brought_is_pinned() -> None:
    """From the declared ones on, by what the installed packages say that they need here."""
    pinned = pins()
    extras = set(PROJECT["optional-dependencies"])
    left, seen = [(name, frozenset[str]()) for name in sorted(declared(*extras))], set()
    missing = set()
    while left:
        name, wanted = left.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        if name not in pinned and name not in TOOLS:
            missing.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # for another platform, or an extra that is not installed
            continue
        for line in lines:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                left.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    assert not {name for name in missing if not name.startswith(("nvidia-", "cuda-", "triton"))}
