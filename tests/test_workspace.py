"""Workspace and ledger: keys, locks, atomic publishing, lines cut short by a kill."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetmap.errors import LockedError, WorkspaceError
from wetmap.ledger import Entry, Ledger
from wetmap.workspace import Workspace, because, differences, key_of, read_json, write_bytes, write_json

LEAVES = st.none() | st.booleans() | st.integers() | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.text(), JSON))
def test_key_does_not_depend_on_order(data: dict[str, object]) -> None:
    assert key_of(data) == key_of(dict(reversed(list(data.items()))))


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text()), st.text(min_size=1), st.integers())
def test_key_follows_every_value(data: dict[str, object], name: str, value: int) -> None:
    changed = {**data, name: value}
    assert (key_of(changed) == key_of(data)) == (changed == data)


def test_differences_name_the_path_and_both_values() -> None:
    before = {"seasons": [{"start": "2021-06-01"}], "seed": 1}
    after = {"seasons": [{"start": "2021-06-15"}], "seed": 1, "new": True}
    assert list(differences(before, after)) == ["new: null -> true", "seasons.0.start: 2021-06-01 -> 2021-06-15"]


def test_differences_of_lists_name_what_came_and_what_went() -> None:
    before, after = {"bands": ["B02", "B03", "VV"]}, {"bands": ["B02", "VV", "VH", "slope"]}
    assert list(differences(before, after)) == ["bands: without B03, with VH, with slope"]
    assert list(differences({"a": [1]}, {"a": [1, 1]})) == ["a: 1 -> 2 entries"]


def test_hashes_and_long_values_are_said_in_words() -> None:
    one, two = "a" * 60 + "0000", "a" * 60 + "1111"
    before = {"assessment": one, "model": "f5765bef62c9", "sha256": one, "pipe": "x" * 50, "kind": "forest"}
    after = {"assessment": two, "model": "47b7819c93d0 without b", "sha256": two, "pipe": "x" * 51, "kind": "unet"}
    told = ["the assessment", "kind: forest -> unet", "the model", "pipe (changed)", "sha256 (changed)"]
    assert list(differences(before, after)) == told
    classes = [{"name": name, "code": place, "reference": ["a"] * 20} for place, name in enumerate("abcdefgh")]
    changed = differences({"classes": classes[:3]}, {"classes": classes[1:5]})
    assert list(changed) == ["classes: without a, with d, with e"]
    assert list(differences({"classes": classes}, {"classes": []})) == ["classes: 8 gone, 0 new"]


def test_reasons_fit_into_a_line() -> None:
    assert because(["the model"]) == "the model"
    assert because(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"
    assert because(["x" * 100, "y" * 100]) == f"{'x' * 100}; and 1 more"
    assert len(because(["z" * 1000] * 5)) <= 125


def test_stage_says_what_changed(tmp_path: Path) -> None:
    space = Workspace(tmp_path).open()
    first = space.stage("fetch", {"a": 1})
    assert first.changes == ()
    space.begin(first, {"a": 1})
    assert space.stage("fetch", {"a": 2}).changes == ("a: 1 -> 2",)
    assert space.stage("fetch", {"a": 1}) == first
    assert not first.complete
    write_json(first.path / "manifest.json", {})
    assert first.complete


def test_second_process_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    space = Workspace(tmp_path).open()
    code = (
        "import sys, pathlib, os\n"
        "from wetmap.workspace import Workspace\n"
        f"with Workspace(pathlib.Path({str(tmp_path)!r})).lock('fetch'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "held"
    with pytest.raises(LockedError, match="Another wetmap works on fetch"), space.lock("fetch"):
        pass
    with pytest.raises(LockedError), space.lock("fetch", "3of64"):
        pass
    with space.lock("predict"), space.lock("train", "3of64"):
        pass
    child.kill()
    child.wait()
    child.communicate()
    with space.lock("fetch"):
        pass


def test_publish_replaces_everything_at_once(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "space").open()
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    target = space.publish("map", {"a": tmp_path / "one", "b/c": tmp_path / "one"}, {"key": 1})
    assert (target / "b/c").read_text() == "one"
    space.publish("map", {"a": tmp_path / "two"}, {"key": 2})
    assert sorted(path.name for path in target.iterdir()) == ["a", "manifest.json"]
    assert (target / "a").read_text() == "two"
    assert read_json(target / "manifest.json") == {"key": 2}


def test_publish_recovers_from_a_kill_between_the_two_renames(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "space").open()
    (tmp_path / "one").write_text("one")
    target = space.publish("map", {"a": tmp_path / "one"}, {"key": 1})
    target.rename(space.root / ".old-map")
    assert space.publish("map", {"a": tmp_path / "one"}, {"key": 1}) == target
    assert (target / "a").read_text() == "one"
    assert not (space.root / ".old-map").exists()


def test_publish_mends_a_damaged_file(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "space").open()
    (tmp_path / "one").write_text("one")
    target = space.publish("map", {"a": tmp_path / "one"}, {"key": 1})
    (target / "a").unlink()
    (target / "a").write_text("shorter or longer")
    space.publish("map", {"a": tmp_path / "one"}, {"key": 1})
    assert (target / "a").read_text() == "one"


def test_full_disk_keeps_the_old_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkspaceError, match="disk is full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(WorkspaceError, match=r"bad\.json is damaged"):
        read_json(tmp_path / "bad.json")
    assert read_json(tmp_path / "none.json") is None


def test_workspace_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        Workspace(tmp_path / "file" / "space").open()


def test_ledger_keeps_the_last_word(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.add([Entry("a", "done", detail=({"scene": "s"},)), Entry("b", "failed", "no answer")])
    ledger.add([Entry("c", "skipped", "outside")])
    assert ledger.settled() == {"a", "c"}
    ledger.add([Entry("b", "done")])
    assert Ledger(tmp_path / "ledger").settled() == {"a", "b", "c"}
    assert ledger.entries()["a"].detail == ({"scene": "s"},)


@given(cut=st.integers(1, 60))
def test_line_cut_short_is_not_done_and_hides_no_other(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger = Ledger(folder)
    ledger.add([Entry("a", "done")])
    ledger.add([Entry("b", "done")])
    file = next(folder.glob("0of1@*.jsonl"))
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.truncate(size - min(cut, 60))
    ledger.add([Entry("c", "done")])
    assert {"a", "c"} <= ledger.settled() <= {"a", "b", "c"}


def test_shards_have_files_of_their_own(tmp_path: Path) -> None:
    Ledger(tmp_path, "1of2").add([Entry("a", "done")])
    Ledger(tmp_path, "2of2").add([Entry("b", "done")])
    assert Ledger(tmp_path).settled() == {"a", "b"}
    assert len(list(tmp_path.iterdir())) == 2
