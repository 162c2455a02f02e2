"""Shards: every block once, a ledger with many writers, locks, and the arithmetic of wetmap status."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.cube import Cube, bands_of
from wetmap.errors import LockedError, NoLocksWarning, TooManyFailuresError, UsageError, WorkspaceError
from wetmap.geo import Block, Grid
from wetmap.ledger import Entry, Ledger, latest
from wetmap.recipe import Recipe
from wetmap.stages.pace import FRESH_S, hours_left, parts_of, seconds_per_block
from wetmap.stages.shards import LIST, Shard, block_named, blocks_of, names_of, need_few_left, need_settled, shard_of
from wetmap.stages.status import lines, next_step, status, told
from wetmap.workspace import StageFolder, Workspace, write_json

NOW = 1_700_000_000.0
GRID = Grid("EPSG:32620", 10.0, 300_000.0, 5_090_000.0, 300, 520)


@given(st.integers(0, 500), st.integers(1, 80))
@settings(deadline=None, max_examples=60)
def test_shards_have_every_item_once_in_runs_of_equal_length(items: int, shards: int) -> None:
    parts = [Shard(number, shards).take(range(items)) for number in range(1, shards + 1)]
    assert [item for part in parts for item in part] == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_worked_example_of_ten_blocks_in_four_shards() -> None:
    assert [list(Shard(k, 4).take("abcdefghij")) for k in (1, 2, 3, 4)] == [
        ["a", "b"],
        ["c", "d", "e"],
        ["f", "g"],
        ["h", "i", "j"],
    ]


def test_shard_is_read_and_named() -> None:
    assert Shard.parse(" 3/64 ") == Shard(3, 64)
    assert shard_of(Shard(3, 64).name) == Shard(3, 64)
    assert str(Shard(3, 64)) == "shard 3 of 64"
    assert [shard_of(name) for name in ("0of1", "5of4", "nonsense")] == [None, None, None]


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/", "a/b", "-1/4", "3/0", "1/2/3", "1 of 2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="third of 64"):
        Shard.parse(text)


def test_blocks_are_listed_once_and_come_back_the_same(tmp_path: Path) -> None:
    made = blocks_of(tmp_path, GRID, 128, lambda: GRID.blocks(128))
    assert made == list(GRID.blocks(128))
    assert (made[-1].height, made[-1].width) == (300 - 2 * 128, 520 - 4 * 128)

    def never() -> list[Block]:
        raise AssertionError("the list is there")

    assert blocks_of(tmp_path, GRID, 128, never) == made
    assert blocks_of(tmp_path, GRID, 256, lambda: GRID.blocks(256)) == list(GRID.blocks(256)), "of another size: anew"
    with pytest.raises(WorkspaceError, match="is no block"):
        block_named("elsewhere", GRID, 128)


def test_nothing_is_made_before_the_plan(tmp_path: Path) -> None:
    folder = StageFolder("fetch", "abc", tmp_path)
    with pytest.raises(WorkspaceError, match="wetmap fetch --only plan"):
        need_settled(folder, "fetch")
    write_json(tmp_path / LIST, {"block_px": 128, "blocks": []})
    need_settled(folder, "fetch")


@pytest.mark.parametrize(
    ("failed", "untouched", "refused"), [(0, 0, False), (2, 0, False), (1, 1, False), (2, 1, True)]
)
def test_finishing_does_a_few_blocks_and_refuses_many(
    tmp_path: Path, failed: int, untouched: int, refused: bool
) -> None:
    names = [block.name for block in GRID.blocks(60)][:40]  # 5 % are two
    write_json(tmp_path / LIST, {"block_px": 60, "blocks": names})
    Ledger(tmp_path / "ledger", "1of2").add(Entry(name, "failed", "no answer") for name in names[:failed])
    Ledger(tmp_path / "ledger", "2of2").add(Entry(name, "done") for name in names[failed : 40 - untouched])
    folder = StageFolder("fetch", "abc", tmp_path)
    if not refused:
        need_few_left(folder, "fetch")
        return
    with pytest.raises(TooManyFailuresError) as told_so:
        need_few_left(folder, "fetch")
    for words in ("3 of 40 blocks", "1 were not worked on", f"2 failed, the first is {names[0]}: no answer"):
        assert words in str(told_so.value)


class TestLastWord:
    """Which line holds, whatever the clocks of the writers say."""

    def test_a_later_turn_holds_whoever_wrote_it(self) -> None:
        shard = [Entry("a", "failed", "no answer")]
        whole = [Entry("a", "done", turn=1)]
        for files in ([shard, whole], [whole, shard]):
            assert latest(files)["a"].status == "done"

    def test_of_one_file_the_last_line_holds_also_where_turns_are_not_told(self) -> None:
        assert latest([[Entry("a", "failed"), Entry("a", "done")]])["a"].status == "done"
        assert latest([[Entry("a", "done"), Entry("a", "failed")]])["a"].status == "failed"

    def test_of_two_at_once_the_one_that_leaves_more_to_do_holds(self) -> None:
        good, holes, bad = Entry("a", "done"), Entry("a", "done", detail=({"scene": "x"},)), Entry("a", "failed")
        for files in ([[good], [holes]], [[holes], [good]]):
            assert latest(files)["a"] == holes
        for files in ([[good], [bad]], [[bad], [good]]):
            assert latest(files)["a"] == bad

    @given(st.permutations(range(4)))
    @settings(deadline=None, max_examples=24)
    def test_order_of_the_files_says_nothing(self, order: list[int]) -> None:
        files = [
            [Entry("a", "failed"), Entry("a", "failed", turn=2)],
            [Entry("a", "done", turn=3)],
            [Entry("a", "failed", turn=1), Entry("b", "skipped")],
            [Entry("b", "done", detail=({"scene": "x"},))],
        ]
        found = latest([files[number] for number in order])
        assert (found["a"].status, found["a"].turn, found["b"].detail) == ("done", 3, ({"scene": "x"},))


WRITER = """
import sys
from pathlib import Path
from wetmap.ledger import Entry, Ledger
ledger = Ledger(Path(sys.argv[1]), sys.argv[2])
for number in range(200):
    ledger.add([Entry(f"{sys.argv[2]}-{number}", "done", facts={"text": "x" * 500})])
"""


def test_ledger_with_writers_at_the_same_time(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), f"{k}of3"]) for k in (1, 2, 3)]
    while any(writer.poll() is None for writer in writers):
        entries = list(Ledger(tmp_path).with_facts(Ledger(tmp_path).entries().values()))  # whole lines or none
        assert all(entry.status == "done" and len(entry.facts["text"]) == 500 for entry in entries)
        time.sleep(0.02)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert Ledger(tmp_path).settled() == {f"{k}of3-{number}" for k in (1, 2, 3) for number in range(200)}


CUBE_WRITER = """
import sys
from pathlib import Path
import numpy as np
from wetmap.cube import Cube
cube = Cube.open(Path(sys.argv[1]))
for again in range(int(sys.argv[2])):
    for number, block in enumerate(cube.grid.blocks(cube.block_px)):
        draw = np.random.default_rng(number)
        shape = (block.height, block.width)
        features = draw.normal(0.3, 0.1, (len(cube.bands), *shape)).astype("float32")
        seen = draw.random((len(cube.layers), *shape)) < 0.9
        cube.write_block(block, features, seen, draw.integers(0, 9, (1, *shape)).astype("uint16"))
"""


def test_two_processes_that_write_the_same_blocks_at_once_leave_the_bytes_of_one(tmp_path: Path) -> None:
    """As on two machines, where no lock keeps the one from the other's shard; blocks at the edge are parts of files."""
    grid = Grid("EPSG:32620", 10.0, 300_000.0, 5_090_000.0, 150, 201)

    def written(name: str, times: int, writers: int) -> dict[str, bytes]:
        bands = bands_of(Recipe())[:4]
        Cube.create(tmp_path / name, grid, bands, ["summer"], block_px=64, simulated=True)
        words = [sys.executable, "-c", CUBE_WRITER, str(tmp_path / name), str(times)]
        children = [subprocess.Popen(words) for _ in range(writers)]
        assert [child.wait() for child in children] == [0] * writers
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}

    one, two = written("one", 1, 1), written("two", 5, 2)
    assert two == one
    assert sum("features/c" in name for name in one) == 12, "a file for each block"


def test_a_file_system_without_locks_is_said_and_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    space = Workspace(tmp_path).open()
    monkeypatch.setattr("fcntl.flock", none)
    with pytest.warns(NoLocksWarning, match="has no locks"), space.lock("fetch", "1of2"):
        assert not space.locked("fetch", "1of2")


def test_old_lines_without_time_and_turn_are_read(tmp_path: Path) -> None:
    line = '{"block": "a", "detail": [], "facts": {"n": 1}, "reason": "", "status": "done"}\n'
    (tmp_path / "0of1.jsonl").write_text(line)
    ledger = Ledger(tmp_path)
    assert list(ledger.with_facts(ledger.entries().values())) == [Entry("a", "done", facts={"n": 1})]


def test_what_was_measured_lies_beside_and_a_kill_between_costs_the_block_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path, "1of2")
    ledger.add([Entry("a", "done", facts={"n": 1}), Entry("b", "skipped")])
    (facts,) = tmp_path.glob("1of2@*.facts")
    with facts.open("ab") as file:
        file.write(b'{"block": "c", "facts": {"n"')  # killed before its line
    ledger.add([Entry("d", "done", facts={"n": 4})])
    monkeypatch.setattr("socket.gethostname", lambda: "another/machine")
    Ledger(tmp_path, "1of2").add([Entry("e", "done", facts={"n": 5}), Entry("a", "done", facts={"n": 9}, turn=1)])
    entries = ledger.entries()
    assert entries["a"].facts == {}, "not read before it is asked for"
    assert {entry.block: entry.facts.get("n") for entry in ledger.with_facts(entries.values())} == {
        "a": 9,
        "b": None,
        "d": 4,
        "e": 5,
    }
    assert len(list(tmp_path.glob("1of2@*.jsonl"))) == 2, "two machines never write one file"
    facts.write_bytes(b"")
    with pytest.raises(WorkspaceError, match="is damaged: it does not say what was measured of block d"):
        list(ledger.with_facts([entries["d"]]))


def test_shards_work_beside_each_other_and_not_beside_the_whole_stage(tmp_path: Path) -> None:
    space = Workspace(tmp_path).open()
    with space.lock("fetch", "1of3"), space.lock("fetch", "2of3"):
        assert space.locked("fetch", "1of3")
        assert not space.locked("fetch", "3of3")
        with pytest.raises(LockedError, match=r"on its shard 1/3 or on all of it"), space.lock("fetch", "1of3"):
            pass
        with pytest.raises(LockedError, match=r"works on fetch in [^,]*\."), space.lock("fetch"):
            pass
        with space.lock("predict"):
            pass
    with space.lock("fetch"), pytest.raises(LockedError), space.lock("fetch", "1of3"):
        pass
    assert not space.locked("fetch")


class TestPace:
    def test_worked_example(self) -> None:
        assert seconds_per_block([NOW, NOW + 10, NOW + 30, NOW + 60]) == pytest.approx(20.0)

    def test_a_pause_is_not_counted_and_a_slow_block_is(self) -> None:
        night = [NOW - 40_000, NOW - 39_990, NOW, NOW + 10, NOW + 20]
        assert seconds_per_block(night) == pytest.approx(10.0)
        assert seconds_per_block([NOW, NOW + 800, NOW + 1600, NOW + 3000]) == pytest.approx(1000.0)

    def test_too_little_to_tell(self) -> None:
        assert seconds_per_block([]) is None
        assert seconds_per_block([NOW]) is None
        assert seconds_per_block([0.0, 0.0]) is None

    def test_hours_left_of_two_shards_and_one_that_begins(self) -> None:
        names = [f"b{number}" for number in range(90)]

        def worked(shard: Shard, count: int, every: float) -> list[Entry]:
            own = shard.take(names)[:count]
            return [Entry(name, "done", at=NOW - every * (count - 1 - place)) for place, name in enumerate(own)]

        entries = {"1of3": worked(Shard(1, 3), 11, 60.0), "2of3": worked(Shard(2, 3), 11, 120.0)}
        known = latest(entries.values())
        parts = parts_of(names, known, entries.items(), held=["3of3"], now=NOW + 5)
        assert [(part.name, part.settled, part.left, part.at_work) for part in parts] == [
            ("1/3", 11, 19, True),
            ("2/3", 11, 19, True),
            ("3/3", 0, 30, True),
        ]
        # 60 and 30 an hour, and a third shard of which nothing is known: as fast as the mean of the two
        per_hour, hours = hours_left(parts, 68)
        assert per_hour == pytest.approx(135.0)
        assert hours == pytest.approx(68 / 135)
        later = parts_of(names, known, entries.items(), held=[], now=NOW + 2 * FRESH_S)
        assert [part.at_work for part in later] == [False, False, False]
        assert hours_left(later, 68)[0] == pytest.approx(90.0), "the pace of when it last worked"

    def test_nobody_has_begun(self) -> None:
        assert parts_of(["a"], {}, [], [], NOW) == ()
        assert hours_left((), 5) == (None, None)


def stage(space: Workspace, name: str, asked: dict[str, object], *, complete: bool = True) -> StageFolder:
    folder = space.stage(name, asked)
    space.begin(folder, asked)
    if complete:
        write_json(folder.path / "manifest.json", {})
    return folder


def listed(folder: StageFolder, count: int) -> list[str]:
    names = [f"r00000c{number:05d}" for number in range(count)]
    write_json(folder.path / LIST, {"block_px": 512, "blocks": names})
    return names


class TestStatus:
    def test_table_of_shards_and_the_next_step(self, tmp_path: Path) -> None:
        space = Workspace(tmp_path).open()
        planned = stage(space, "plan", {"area": 1})
        fetched = stage(space, "fetch", {"plan": f"{planned.key} settled x"}, complete=False)
        names = listed(fetched, 40)
        Ledger(fetched.path / "ledger", "1of4").add(Entry(name, "done") for name in names[:10])
        Ledger(fetched.path / "ledger", "2of4").add(
            [Entry(names[10], "skipped", "sea"), Entry(names[11], "failed", "no answer")]
        )
        rows = status(space)
        row = rows[1]
        assert [one.name for one in rows] == ["plan", "fetch", "train", "predict", "map"]
        assert [one.state for one in rows] == ["done", "at work", "to do", "to do", "to do"]
        assert (row.blocks, row.done, row.skipped, row.failed, row.left) == (40, 10, 1, 1, 29)
        assert row.failures == ({"block": names[11], "reason": "no answer"},)
        assert [part.at_work for part in row.parts] == [False, True, False, False]
        assert next_step(rows, ["--workspace", "w"], None)["what"].startswith("wait: fetch")
        later = status(space, now=time.time() + 2 * FRESH_S)
        told_next = next_step(later, ["--workspace", "my w"], None)
        assert told_next["what"] == "fetch: 3 of 4 shards have blocks left (2/4, 3/4, 4/4)"
        assert told_next["command"] == "wetmap fetch --workspace 'my w' --shard 2/4"
        assert next_step(later, [], "wetmap submit nb.yaml")["command"] == "wetmap submit nb.yaml"
        text = "\n".join(lines(told(space, rows, [])))
        assert "fetch    at work: 40 blocks, 10 done, 1 skipped, 29 left (1 of them failed)" in text
        assert "4 shards: 1 through, 1 at work, 2 not begun, 0 stopped" in text
        assert f"failed {names[11]}: no answer" in text
        json.dumps(told(space, rows, []))

    def test_when_all_shards_are_through_it_is_closed(self, tmp_path: Path) -> None:
        space = Workspace(tmp_path).open()
        planned = stage(space, "plan", {"area": 1})
        fetched = stage(space, "fetch", {"plan": planned.key}, complete=False)
        Ledger(fetched.path / "ledger", "1of1").add(Entry(name, "done") for name in listed(fetched, 3))
        row = next_step(status(space), ["--recipe", "nb.yaml"], None)
        assert row["command"] == "wetmap fetch --recipe nb.yaml --only finish"

    def test_what_an_earlier_recipe_made_is_to_do(self, tmp_path: Path) -> None:
        space = Workspace(tmp_path).open()
        planned = stage(space, "plan", {"area": 1})
        fetched = stage(space, "fetch", {"plan": planned.key})
        cubes = stage(space, "cubes", {"fetch": f"{fetched.key} without y"})
        trained = stage(space, "train", {"cubes": cubes.key})
        mapped = stage(space, "predict", {"fetch": fetched.key, "model": trained.key})
        joined = stage(space, "mosaic", {"predict": mapped.key})
        stage(space, "report", {"mosaic": joined.key})
        assert [row.state for row in status(space)] == ["done"] * 5
        assert next_step(status(space), [], None) == {"what": "the map is finished", "command": ""}
        stage(space, "predict", {"fetch": fetched.key, "model": "f" * 64})
        assert [row.state for row in status(space, own_model=False)] == ["done", "done", "done", "to do"]
        stage(space, "plan", {"area": 2})
        assert [row.state for row in status(space)] == ["done", "to do", "to do", "to do", "to do"]

    def test_a_stage_that_no_shard_has_begun_is_to_do(self, tmp_path: Path) -> None:
        space = Workspace(tmp_path).open()
        planned = stage(space, "plan", {"area": 1})
        listed(stage(space, "fetch", {"plan": planned.key}, complete=False), 1)
        assert [row.state for row in status(space)] == ["done", *["to do"] * 4]
        assert "fetch    to do: 1 block, 0 done, 1 left" in lines(told(space, status(space), []))

    def test_work_shows_before_its_stage_has_a_folder_and_without_a_row(self, tmp_path: Path) -> None:
        space = Workspace(tmp_path)
        with pytest.raises(WorkspaceError, match=r"no work of wetmap yet\. Begin with wetmap run nb.yaml"):
            status(space, recipe=Path("nb.yaml"))
        space.open()
        with space.lock("simulate"):
            rows = status(space, simulated=True)
            assert (rows[0].name, rows[0].state) == ("simulate", "at work")
            assert next_step(rows, [], None)["what"] == "wait: simulate is at work"
        for step in ("postprocess", "mosaic", "background", "report"):
            with space.lock("cubes"), space.lock(step):
                states = {row.name: row.state for row in status(space)}
            waiting = dict.fromkeys(("plan", "fetch", "predict"), "to do")
            assert states == waiting | {"train": "at work", "map": "at work"}, step

    def test_no_more_than_ten_failures_are_named(self, tmp_path: Path) -> None:
        space = Workspace(tmp_path).open()
        planned = stage(space, "plan", {"area": 1})
        fetched = stage(space, "fetch", {"plan": planned.key}, complete=False)
        Ledger(fetched.path / "ledger").add(Entry(name, "failed", "no answer") for name in listed(fetched, 25))
        text = "\n".join(lines(told(space, status(space), [])))
        assert text.count("no answer") == 10
        assert "... and 15 more failed" in text

    def test_no_workspace(self, tmp_path: Path) -> None:
        with pytest.raises(WorkspaceError, match="holds no work of wetmap"):
            status(Workspace(tmp_path / "nowhere"))
        assert list(tmp_path.iterdir()) == []


def test_a_list_that_is_not_there_yet(tmp_path: Path) -> None:
    assert names_of(tmp_path) is None
