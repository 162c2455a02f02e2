"""Scenes that could not be read: counted alike everywhere, and said wherever a map is handed over."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wetmap.cube import Band
from wetmap.errors import CoregistrationWarning, SceneSkippedWarning, SourceError
from wetmap.geo import Block, Grid
from wetmap.ledger import Entry
from wetmap.sources import Scene
from wetmap.stages import clear_cover, coregister, estimate_words, fetch_block, plan, summary, tie_blocks
from wetmap.stages.context import _name_lost_scenes
from wetmap.stages.lost_reads import counted, lacks, passes_by_layer, scenes_of, words
from wetmap.stages.radar_plan import RadarSamples
from wetmap.workspace import StageFolder, write_json


def optical(name: str, day: int) -> Scene:
    return Scene(name, "optical", f"2021-07-{day:02d}T15:00:00Z", "S2A", bands=("B04", "SCL"), seasons=("summer",))


def row(block: str, scene: str, sensor: str = "optical") -> dict[str, str]:
    return {"block": block, "scene": scene, "sensor": sensor, "bands": "B04", "reason": f"{scene}.tif cannot be read"}


BANDS = (Band("summer.B04", "optical", "1", "summer.optical"), Band("terrain.slope", "slope", "1", "terrain"))


class TestCounts:
    def test_a_pass_counts_as_lost_where_one_of_its_scenes_is_missing(self) -> None:
        """Two tiles of one pass and a second pass: three blocks lack a scene, one pass is touched."""
        scenes = [optical("a", 1), optical("a2", 1), optical("b", 9)]
        lost = [row("r0c0", "a"), row("r0c1", "a"), row("r0c1", "a2"), row("r5c5", "a2"), row("r1c1", "dem", "terrain")]
        assert passes_by_layer(BANDS, scenes, lost) == {"summer.optical": {"planned": 2, "lost": 1, "in_blocks": 3}}
        assert passes_by_layer(BANDS, scenes, []) == {"summer.optical": {"planned": 2, "lost": 0, "in_blocks": 0}}

    def test_in_words(self) -> None:
        lost = [row("r0c0", "a"), row("r0c1", "a"), row("r0c1", "a", "radar")]
        assert scenes_of(lost) == {("optical", "a"), ("radar", "a")}
        assert words(lost, 12) == "2 of them could not be read in 2 of 12 blocks"
        assert words(lost, 1).endswith("of 1 block")
        assert words([], 12) == ""
        assert [counted(number, "read") for number in (0, 1, 1234)] == ["0 reads", "1 read", "1,234 reads"]

    def test_what_is_lacking_is_told_without_why(self) -> None:
        manifest = {"failed": ["b"], "failed_reads": [row("a", "s"), {**row("a", "s"), "bands": "SCL", "reason": "x"}]}
        assert lacks(manifest, "failed") == ["b", ["a", "optical", "s"]]
        assert lacks({}, "failed") == []

    def test_one_scene_is_not_scenes(self) -> None:
        entry = fetch_block._entry("r0c0", [row("r0c0", "a")], 1, 0.0, {})
        assert "1 scenes" not in entry.reason


def trouble(**changes: Any) -> dict[str, Any]:
    """What ``summary._imagery`` gives where all is fine."""
    fine: dict[str, Any] = {
        "failed_blocks": [],
        "failed_reads": 0,
        "lost_scenes": 0,
        "few_looks": [],
        "suspect_scenes": [],
        "unmeasured_scenes": [],
        "terrain_notes": [],
    }
    return {**fine, **changes}


HOLES = {"failed_reads": 1, "lost_scenes": 1, "unmeasured_scenes": ["S1_a"], "few_looks": ["summer: 3.0 ha (1 %)"]}


def fetched(**changes: Any) -> dict[str, Any]:
    return {
        "verb": "fetch",
        "grid": "a grid",
        "scenes": {"optical": 20, "radar": 12},
        "skipped_scenes": 3,
        "shifts": ["Radar, track 62: lies 1 m east."],
        "lost_words": "",
        "bands": ["a"],
        "blocks": 12,
        "cube": "cube.zarr",
        **trouble(**changes),
        **{name: value for name, value in changes.items() if name == "lost_words"},
    }


def mapped(**changes: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("operating_point", "postprocess", "applicability", "polygons", "truth", "scores"))
    paths = dict.fromkeys(("map", "project", "areas_csv", "report"), "x")
    result = {"verb": "predict", "grid": "a grid", "areas": [], "leak_note": "", "failed_blocks": [], **empty, **paths}
    return {**result, "postprocess": [], "imagery": trouble(**changes)}


class TestSummary:
    def test_found_is_used_and_left_out(self) -> None:
        out = summary.lines(fetched(lost_words="2 of them could not be read in 4 of 12 blocks"))
        assert (
            "Scenes: 35 scenes found: 20 optical, 12 radar used, 3 left out; "
            "2 of them could not be read in 4 of 12 blocks" in out
        )
        assert "Shift:  Radar, track 62: lies 1 m east." in out

    def test_what_is_wrong_with_the_cube_is_said_of_the_map_too(self) -> None:
        for result in (fetched(**HOLES), mapped(**HOLES)):
            said = "\n".join(summary.lines(result))
            assert "Failed: 0 blocks, 1 read of 1 scene (" in said
            assert "Failed: 1 scene not read while shifts and speckle were measured, the first S1_a (" in said
            assert "Looks:  summer: 3.0 ha (1 %)" in said
            assert said.count("tries them again") == 2

    def test_nothing_is_said_where_nothing_is_wrong(self) -> None:
        for result in (fetched(), mapped()):
            assert not {"Failed", "Looks", "Check", "Note"} & {line.partition(":")[0] for line in summary.lines(result)}

    @pytest.mark.parametrize(("looks", "few"), [([0, 0, 0, 9], False), ([0, 0, 1, 9], True), ([1, 0, 0, 9], True)])
    def test_looks_are_said_where_some_of_the_area_has_few(self, looks: list[float], few: bool) -> None:
        season = {"season": "summer", "hectares_by_looks": [*looks, *[0.0] * 7], "hectares": sum(looks)}
        assert clear_cover.is_few(season, 1) is few

    def test_shifts_in_words_and_why_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        context: Any = SimpleNamespace(recipe=None)
        nothing = {"groups": [], "tie_blocks": [], "why_not": "the recipe turns it off"}
        monkeypatch.setattr(plan, "sensors_wanted", lambda _: ("optical", "radar", "terrain"))
        assert summary._shifts(context, nothing) == ["Nothing was measured: the recipe turns it off."]
        monkeypatch.setattr(plan, "sensors_wanted", lambda _: ("optical", "terrain"))
        assert summary._shifts(context, nothing) == []


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"write_gb": 0.0}, "less than 1 MB to write"),
        ({"blocks": 9, "write_gb": 0.012}, "blocks 9, 12 MB to write"),
        ({"write_gb_at_most": 0.0}, "less than 1 MB to write"),
        ({"write_gb_at_most": 12.34}, "at most 12.3 GB to write"),
        ({"write_gb_at_most": "0.1 and 0.02 for each class"}, "at most 0.1 GB and 0.02 GB for each class to write"),
        (
            {"hours": 0.2, "block_px": 512, "pixels_per_s_per_worker": 12345},
            "blocks of 512 pixels a side, 12,345 p",
        ),
    ],
)
def test_a_dry_run_speaks_no_keys(told: dict[str, Any], said: str) -> None:
    out = estimate_words.facts(told)
    assert out.startswith(said)
    assert "gb" not in out


class Lacking:
    """An archive of even ground in which some scenes cannot be read."""

    def __init__(self, *lost: str) -> None:
        self.lost = lost

    def read(self, scene: Scene, names: list[str], window: Grid) -> dict[str, Any]:
        """Fail, or give ones; the classification says vegetation."""
        if scene.id in self.lost:
            raise SourceError(f"https://x.org/{scene.id}.tif?sig=secret cannot be read.", do="Wait.")
        return {name: np.full(window.shape, 4.0 if name == "SCL" else 1.0, np.float32) for name in names}


class TestTieBlocks:
    def measured(self, folder: Path, *lost: str) -> Entry:
        archive: Any = Lacking(*lost)
        radar = Scene("r", "radar", "2021-07-02T10:00:00Z", "S1A", "ascending", 62, bands=("VH",))
        work = tie_blocks.TieWork(
            Grid("EPSG:32620", 10.0, 0.0, 0.0, 64, 64),
            {"optical": archive, "radar": archive},
            ((optical("a", 1),), (optical("b", 9),)),
            {"S1A 62": ((radar,),)},
            {},
            folder,
        )
        return tie_blocks.measure_block(tie_blocks.BlockTask(Block(0, 0, 0, 0, 64, 64), work))

    def test_a_scene_that_is_missing_is_a_row_and_the_block_is_not_settled(self, tmp_path: Path) -> None:
        entry = self.measured(tmp_path, "a")
        assert entry.status == "done"
        (found,) = entry.detail
        assert (found["scene"], found["sensor"]) == ("a", "optical")
        assert found["reason"].startswith("https://x.org/a.tif")
        assert "secret" not in found["reason"]
        assert self.measured(tmp_path).detail == ()

    def test_what_an_earlier_run_found_does_not_outlive_a_failure(self, tmp_path: Path) -> None:
        self.measured(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        entry = self.measured(tmp_path, "a", "b", "r")
        assert entry.status == "failed"
        assert {one["scene"] for one in entry.detail} == {"a", "b"}
        assert list(tmp_path.iterdir()) == []

    def test_the_warning_names_scene_and_reason_and_what_it_is_missing_from(self) -> None:
        entry = Entry("r0c0", "done", detail=(row("r0c0", "a"),))
        with pytest.warns(CoregistrationWarning, match=r"scene a is missing from co-registration: a\.tif"):
            _name_lost_scenes(entry, set(), "plan")
        with pytest.warns(SceneSkippedWarning, match="optical scene a is left out"):
            _name_lost_scenes(entry, set(), "fetch")


class TestIdentity:
    def test_what_was_settled_is_part_of_what_identifies_the_plan(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan, "folder_of", lambda _: StageFolder("plan", "abc", tmp_path))

        def identity(moved: list[float], looks: float | None = None) -> str:
            radar = None if looks is None else RadarSamples(looks)
            report = {"groups": [{"sensor": "radar", "key": "S1A 62", "moved_m": moved}]}
            write_json(tmp_path / "manifest.json", {"settled": plan._settled(report, radar)})
            return plan.identity(None)  # type: ignore[arg-type]

        assert identity([0.0, 0.0]) == "abc"
        found = [identity([3.0, 4.0]), identity([3.0, 4.01]), identity([0.0, 0.0], 4.4), identity([0.0, 0.0], 4.5)]
        assert len({*found, "abc"}) == 5
        assert identity([3.0, 4.0]) == found[0]

    def test_radar_scenes_that_were_not_sampled_are_rows(self) -> None:
        samples = RadarSamples(4.4, scenes=({"scene": "a", "looks": {"VV": 4.4}}, {"scene": "b", "reason": "gone"}))
        (found,) = samples.lost()
        assert (found["scene"], found["sensor"], found["reason"]) == ("b", "radar", "gone")

    def test_moves(self) -> None:
        groups = [
            {"sensor": "radar", "key": name, "moved_m": move} for name, move in (("a", [0.0, 0.0]), ("b", [1, 0]))
        ]
        assert coregister.moves_of({"groups": groups}) == [["radar", "b", [1, 0]]]
