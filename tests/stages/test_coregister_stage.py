"""Shifts of radar tracks and optical passes, measured in the plan: what is claimed, done, said and kept."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.walk.conftest import write_recipe
from wetmap.cluster import Workers, handfuls
from wetmap.errors import CoregistrationWarning, SourceError
from wetmap.geo import Block, Grid
from wetmap.imagery.coregister import Tie
from wetmap.recipe import Coregistration, Recipe
from wetmap.recipe_file import load_recipe
from wetmap.sources import Scene
from wetmap.stages import coregister, fetch, plan, simulate, tie_blocks
from wetmap.stages.context import Context, Silent
from wetmap.stages.coregister_words import sentence, sentences
from wetmap.workspace import StageFolder, Workspace, write_json

#: Rows and columns by which the simulated descending track lies off, pixels of 10 m.
SHIFT_PX = (1.3, -0.8)


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)


class Impatient(Told):
    """Stops the run when four blocks are done."""

    def progress(self, done: int, total: int, unit: str) -> None:  # noqa: ARG002 - part of the protocol
        """Stop."""
        if done == 4:
            raise KeyboardInterrupt


def context_of(folder: Path, recipe: Recipe, **settings: Any) -> Context:
    recipe = recipe.model_copy(update={"coregistration": Coregistration(**settings)})
    workspace = Workspace(folder / "space").open()
    return Context(recipe, recipe, workspace, Workers(recipe.cluster, folder), Told())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated archive, written once; nothing is planned yet."""
    folder = tmp_path_factory.mktemp("shifts")
    simulated = {
        "seed": 7,
        "start": "2021-06-01",
        "end": "2021-08-31",
        "optical_every_days": 23,
        "radar_every_days": 24,
        "shift_px": list(SHIFT_PX),
    }
    write_recipe(folder, simulated=simulated, features={"preset": "custom", "optical": ["B04"], "indices": []})
    simulate.run(context_of(folder, recipe_of(folder)))
    return folder


def recipe_of(folder: Path) -> Recipe:
    return load_recipe(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def planned(folder: Path) -> tuple[Context, plan.Plan]:
    """The plan with everything as it is by default."""
    context = context_of(folder, recipe_of(folder))
    return context, plan.load(plan.run(context))


def moves(scenes: Sequence[Scene], sensor: str = "radar") -> dict[str, set[tuple[float, float]]]:
    found: dict[str, set[tuple[float, float]]] = {}
    for scene in scenes:
        if scene.sensor == sensor:
            found.setdefault(scene.orbit_state, set()).add(scene.shift_m)
    return found


class TestWalk:
    def test_a_track_that_lies_off_is_moved_back_and_the_other_is_left(
        self, planned: tuple[Context, plan.Plan]
    ) -> None:
        """1.3 px south and 0.8 px west: moved 13 m north and 8 m east; the error is below 0.15 px."""
        found = moves(planned[1].scenes)
        assert found["ascending"] == {(0.0, 0.0)}
        ((east, north),) = found["descending"]
        assert np.hypot(east - 8, north - 13) < 1.5

    def test_what_was_measured_is_in_plan_and_manifest_and_said(self, planned: tuple[Context, plan.Plan]) -> None:
        context, made = planned
        rows = {row["key"]: row for row in made.coregistration["groups"]}
        row = rows["SENTINEL-1A 171 descending"]
        assert row["confident"]
        assert row["agreeing"] <= row["used"] <= row["blocks"] == len(row["arrows"])
        assert 0 < row["error_m"] < 2
        manifest = plan.folder_of(context).manifest
        assert manifest is not None
        brief = {one["key"]: one for one in manifest["coregistration"]["groups"]}
        assert brief["SENTINEL-1A 171 descending"]["off_m"] == row["off_m"]
        said = [line for line in context.listener.lines if line.startswith("Co-registration")]  # type: ignore[attr-defined]
        assert len(said) == 2
        assert "track 171 descending" in said[1]
        assert "moved back" in said[1]
        assert (plan.folder_of(context).path / "coregistration.png").read_bytes().startswith(b"\x89PNG")
        picture, words = coregister.picture(context, plan.folder_of(context), made.coregistration)
        assert picture is not None
        assert "moved back" in words

    def test_measured_again_nothing_is_left(self, planned: tuple[Context, plan.Plan], tmp_path: Path) -> None:
        """One round mends it: the moved scenes lie where the optical ones lie."""
        context, made = planned
        again = StageFolder("plan", "again", tmp_path)
        archives = plan.archives(context)
        _, report = coregister.run(context, again, made.inside, archives, made.scenes)
        (row,) = [row for row in report["groups"] if "descending" in row["key"]]
        assert row["confident"]
        assert np.hypot(*row["off_m"]) < 1.5

    def test_only_measured_is_a_warning_and_no_move(self, folder: Path) -> None:
        context = context_of(folder, recipe_of(folder), radar="measure")
        with pytest.warns(CoregistrationWarning, match=r"track 171 descending.*the recipe only measures"):
            made = plan.load(plan.run(context))
        assert moves(made.scenes) == {"ascending": {(0.0, 0.0)}, "descending": {(0.0, 0.0)}}

    def test_off_reads_nothing_and_says_why(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(coregister, "run_blocks", lambda *_: pytest.fail("nothing is to be measured"))
        context = context_of(folder, recipe_of(folder), radar="off")
        made = plan.load(plan.run(context))
        assert made.coregistration["why_not"] == "the recipe turns it off"
        assert moves(made.scenes) == {"ascending": {(0.0, 0.0)}, "descending": {(0.0, 0.0)}}

    def test_stopped_half_way_goes_on_to_the_same_bytes(
        self, planned: tuple[Context, plan.Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context, made = planned
        done = plan.folder_of(context).path
        again = StageFolder("plan", "again", tmp_path)
        scenes = [dataclasses.replace(scene, shift_m=(0.0, 0.0)) for scene in made.scenes]
        stopped = dataclasses.replace(context, listener=Impatient())
        monkeypatch.setattr(handfuls, "MOST", 1)  # it stops after a block, and not after what was done beside it
        with pytest.raises(KeyboardInterrupt):
            coregister.run(stopped, again, made.inside, plan.archives(context), scenes)
        assert 4 <= len(list((tmp_path / coregister.FOLDER).glob("*.json"))) < 9
        measured: list[str] = []

        def counted(task: Any) -> Any:
            measured.append(task.block.name)
            return tie_blocks.measure_block(task)

        monkeypatch.setattr(coregister, "measure_block", counted)
        moved, report = coregister.run(context, again, made.inside, plan.archives(context), scenes)
        assert len(measured) == 5
        assert tuple(moved) == made.scenes
        assert report == made.coregistration
        for path in (done / coregister.FOLDER).glob("*.json"):
            assert (tmp_path / coregister.FOLDER / path.name).read_bytes() == path.read_bytes()

    def test_optical_passes_against_each_other(self, planned: tuple[Context, plan.Plan], tmp_path: Path) -> None:
        """One pass is moved by hand by 12 m east: it is found; the others lie on each other."""
        context, made = planned
        context = dataclasses.replace(context, recipe=with_part(context.recipe, radar="off", optical="correct"))
        optical = sorted((s for s in made.scenes if s.sensor == "optical"), key=lambda s: s.cloud_percent or 0)
        off = dataclasses.replace(optical[0], shift_m=(12.0, 0.0))
        scenes = [off, *optical[1:]]
        _, report = coregister.run(
            context, StageFolder("plan", "optical", tmp_path), made.inside, plan.archives(context), scenes
        )
        rows = {row["key"]: row for row in report["groups"] if row["confident"]}
        (found,) = [row for key, row in rows.items() if key.endswith(off.datetime[:10])]
        assert found["off_m"] == pytest.approx([12, 0], abs=1.0)
        assert found["moved_m"] == pytest.approx([-12, 0], abs=1.0)
        assert any("optical:" in line.lower() for line in sentences(report))


class TestHole:
    def test_a_scene_that_cannot_be_read_is_told_and_the_next_run_measures_again(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A descending pass is away for a day; what is settled then is another shift."""
        context = context_of(folder, recipe_of(folder), tie_blocks=8)
        archives = plan.archives(context)
        lost = min(s.id for s in plan.search(context)[0] if s.sensor == "radar" and s.orbit_state == "descending")
        monkeypatch.setattr(plan, "archives", lambda _: {**archives, "radar": Away(archives["radar"], lost)})
        with pytest.warns(CoregistrationWarning, match=f"{lost} is missing from co-registration: {lost} is away"):
            made = plan.run(context)
        manifest = made.manifest or {}
        rows = manifest["failed_reads"]
        assert {(row["scene"], row["sensor"], row["reason"]) for row in rows} == {(lost, "radar", f"{lost} is away.")}
        assert len(rows) == manifest["coregistration"]["tie_blocks"]
        assert any("failed while shifts" in line for line in context.listener.lines)  # type: ignore[attr-defined]
        lacking, key = plan.load(made), fetch.folder_of(context).key
        with pytest.warns(CoregistrationWarning, match="is missing from co-registration"):
            plan.run(context)
        assert fetch.folder_of(context).key == key, "still away: the same plan"
        assert plan.load(made) == lacking

        monkeypatch.setattr(plan, "archives", lambda _: archives)
        plan.run(context)
        assert (made.manifest or {})["failed_reads"] == []
        whole = plan.load(made)
        assert whole.scenes != lacking.scenes, "else this shows nothing"
        assert fetch.folder_of(context).key != key
        monkeypatch.setattr(coregister, "measure_block", lambda _: pytest.fail("there is nothing to measure"))
        plan.run(context)


class Away:
    """An archive one of whose scenes cannot be read today."""

    moves_scenes = True

    def __init__(self, archive: Any, lost: str) -> None:
        self.archive, self.lost = archive, lost

    def search(self, *arguments: Any, **named: Any) -> Any:
        """Search as ever."""
        return self.archive.search(*arguments, **named)

    def read(self, scene: Scene, *arguments: Any) -> Any:
        """Read, or fail."""
        if scene.id == self.lost:
            raise SourceError(f"{scene.id} is away.", do="Wait.")
        return self.archive.read(scene, *arguments)


def with_part(recipe: Recipe, **settings: Any) -> Recipe:
    return recipe.model_copy(update={"coregistration": Coregistration(**settings)})


class TestAsked:
    def test_the_part_is_asked_where_it_matters(self) -> None:
        default = Coregistration()
        assert coregister.asked(default, ["optical", "radar"]) is not None
        assert coregister.asked(default, ["radar"]) is None
        assert coregister.asked(default, ["optical"]) is None
        assert coregister.asked(Coregistration(optical="measure"), ["optical"]) is not None

    def test_own_files_have_no_track(self) -> None:
        assert coregister.radar_groups([Scene("1-a", "radar", "", orbit_state="ascending")]) == []


def scene(number: int, platform: str = "S1A", track: int = 62, day: int = 1) -> Scene:
    return Scene(f"{platform}-{track}-{number}", "radar", f"2021-06-{day:02d}T10:00:00Z", platform, "ascending", track)


def test_groups_are_satellites_and_tracks_with_whole_passes() -> None:
    scenes = [scene(1), scene(2), scene(3, day=13), scene(4, "S1B", day=7), scene(5, track=135, day=2)]
    groups = coregister.radar_groups(scenes)
    assert [group.key for group in groups] == ["S1A 135 ascending", "S1A 62 ascending", "S1B 62 ascending"]
    assert [len(one) for one in groups[1].passes] == [2, 1]


def result(rows: float, cols: float) -> dict[str, Any]:
    one = Tie((rows, cols), (0.01, 0.0, 0.01), 12.0, 2.0, 0.1)
    return json.loads(json.dumps(dataclasses.asdict(one)))  # type: ignore[no-any-return]


def decided(
    folder: Path, ties: Mapping[str, Mapping[str, tuple[float, float]]], *, able: bool = True, **settings: Any
) -> list[dict[str, Any]]:
    """What is decided when every one of six tie blocks says the same."""
    blocks = [Block(0, col, 0, col * 64, 64, 64) for col in range(6)]
    (folder / coregister.FOLDER).mkdir()
    for block in blocks:
        radar = {key: {part: result(*shift) for part, shift in parts.items()} for key, parts in ties.items()}
        write_json(folder / coregister.FOLDER / f"{block.name}.json", {"radar": radar, "optical": {}, "failures": []})
    groups = [coregister.Group(key, f"radar, {key}", "radar", ((scene(1),),)) for key in ties]
    grid = Grid("EPSG:32620", 10.0, 0.0, 0.0, 64, 384)
    context: Any = SimpleNamespace(recipe=Recipe(coregistration=Coregistration(**settings)), grid=grid)
    archives: Any = {"radar": SimpleNamespace(moves_scenes=able)}
    return list(coregister.decide(context, StageFolder("plan", "x", folder), blocks, groups, archives)["groups"])


class TestDecide:
    def test_within_the_tolerance_nothing_moves(self, tmp_path: Path) -> None:
        (row,) = decided(tmp_path, {"a": {"all": (0.2, 0.1)}})
        assert row["confident"]
        assert row["moved_m"] == [0.0, 0.0]
        assert "within the tolerance" in sentence(row)

    def test_south_and_east_of_the_reference_is_moved_north_and_west(self, tmp_path: Path) -> None:
        (row,) = decided(tmp_path, {"a": {"all": (1.0, 2.0)}})
        assert row["off_m"] == [20.0, -10.0]
        assert row["moved_m"] == [-20.0, 10.0]
        assert "20.0 m east and 10.0 m south" in sentence(row)

    def test_a_step_in_time_is_not_corrected(self, tmp_path: Path) -> None:
        """Two pixels between the earlier and the later passes: their mean is right for neither."""
        parts = {"all": (1.0, 0.0), "early": (0.0, 0.0), "late": (2.0, 0.0)}
        (row,) = decided(tmp_path, {"a": parts})
        assert row["step"]
        assert not row["confident"]
        assert row["moved_m"] == [0.0, 0.0]
        assert "earlier and later passes differ by 20.0 m" in sentence(row)

    def test_a_group_elsewhere_than_the_others_is_odd(self, tmp_path: Path) -> None:
        ties = {"a": {"all": (0.1, 0.0)}, "b": {"all": (0.0, 0.1)}, "c": {"all": (0.0, 0.0)}, "d": {"all": (2.0, 1.0)}}
        rows = decided(tmp_path, ties)
        assert [row["odd"] for row in rows] == [False, False, False, True]
        context: Any = SimpleNamespace(listener=Told())
        with pytest.warns(CoregistrationWarning, match="elsewhere than the other radar groups"):
            coregister._tell(context, rows)

    def test_a_source_that_cannot_move_its_scenes_says_so(self, tmp_path: Path) -> None:
        (row,) = decided(tmp_path, {"a": {"all": (1.0, 2.0)}}, able=False)
        assert row["moved_m"] == [0.0, 0.0]
        assert row["left"] == "this source's scenes cannot be moved"

    def test_thin_evidence_is_said_and_nothing_moves(self, tmp_path: Path) -> None:
        ties = {"a": {"early": (1.0, 1.0)}}
        (row,) = decided(tmp_path, ties)
        assert row["off_m"] is None
        assert "none of the 6 tie blocks shows edges" in sentence(row)
        context: Any = SimpleNamespace(listener=Told())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            coregister._tell(context, [row])
        assert "stay as they are" in context.listener.lines[0]


class Broken:
    """An archive that cannot be read."""

    def read(self, *_: Any) -> Any:
        """Fail."""
        raise SourceError("a.tif cannot be read.", do="Wait.")


def test_a_block_of_which_nothing_can_be_read_is_tried_again(tmp_path: Path) -> None:
    """A network that is down is no evidence of a bay."""
    optical = Scene("o", "optical", "2021-06-01T10:00:00Z", bands=("B04", "SCL"))
    archives: Any = {"optical": Broken(), "radar": Broken()}
    grid = Grid("EPSG:32620", 10.0, 0.0, 0.0, 64, 64)
    work = tie_blocks.TieWork(grid, archives, ((optical,),), {"a": ((scene(1),),)}, {}, tmp_path)
    entry = tie_blocks.measure_block(tie_blocks.BlockTask(Block(0, 0, 0, 0, 64, 64), work))
    assert entry.status == "failed"
    assert "cannot be read" in entry.reason
    assert list(tmp_path.iterdir()) == []


class TestChoice:
    @settings(max_examples=25, deadline=None)
    @given(rows=st.integers(1, 12), cols=st.integers(1, 12), most=st.integers(1, 30), seed=st.integers(0, 9))
    def test_blocks_are_apart_inside_and_no_more_than_wanted(self, rows: int, cols: int, most: int, seed: int) -> None:
        inside = np.random.default_rng(seed).random((rows, cols))
        blocks = tie_blocks.choose_blocks(inside, 64, (-10, 5), most)
        wanted = int((inside >= min(0.25, inside.max())).sum())
        assert len(blocks) == min(most, wanted)
        assert len({(block.row, block.col) for block in blocks}) == len(blocks)
        assert all(block.y0 == -10 + 64 * block.row and block.x0 == 5 + 64 * block.col for block in blocks)
        assert blocks == tie_blocks.choose_blocks(inside, 64, (-10, 5), most)

    def test_they_are_spread(self) -> None:
        """Four of a hundred cells: the middle and three corners."""
        blocks = tie_blocks.choose_blocks(np.ones((10, 10)), 64, (0, 0), 4)
        assert {(block.row, block.col) for block in blocks} >= {(9, 9)}
        assert min(np.hypot(a.row - b.row, a.col - b.col) for n, a in enumerate(blocks) for b in blocks[:n]) > 5

    def test_no_area_no_blocks(self) -> None:
        assert tie_blocks.choose_blocks(np.zeros((3, 3)), 64, (0, 0), 4) == []

    @pytest.mark.parametrize(("size", "side"), [(150, 64), (128, 64), (10, 64), (1000, 256)])
    def test_the_lattice_covers_evenly(self, size: int, side: int) -> None:
        count, first = tie_blocks.lattice(size, side)
        assert first <= 0
        assert first + count * side >= size
        assert abs((first + count * side - size) + first) <= 1

    def test_passes_are_spread_over_time(self) -> None:
        passes = [(scene(n, day=1 + n),) for n in range(20)]
        chosen = tie_blocks.spread_over(passes, 6)
        assert [one[0].datetime[8:10] for one in chosen] == ["01", "05", "09", "12", "16", "20"]
        assert dt.date.fromisoformat(chosen[0][0].datetime[:10]) == dt.date(2021, 6, 1)
