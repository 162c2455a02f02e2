"""The folder that a fuzz test may write to, and a guard that nothing appears beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


def _listing(folder: Path, but: Path) -> set[str]:
    """Everything below a folder but for one part of it."""
    return {str(path) for path in folder.rglob("*") if but not in path.parents and path != but}


def _names(*folders: Path) -> set[str]:
    """What lies in folders; caches that tools keep are hidden."""
    return {str(path) for folder in folders for path in folder.iterdir() if not path.name.startswith((".", "__"))}


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder two levels below the test's own, and the current one; what lands outside of it fails the test."""
    folder = tmp_path / "outer" / "inside"
    folder.mkdir(parents=True)
    root, around = Path.cwd(), tmp_path.parent
    monkeypatch.chdir(folder)
    before, names = _listing(tmp_path, folder), _names(root, around, Path("/"))
    yield folder
    new = _listing(tmp_path, folder) - before | (_names(root, around, Path("/")) - names)
    assert not {name for name in new if not name.endswith((".lock", ".tmp"))}, f"written outside: {sorted(new)}"
