"""The optical part of a block: every composite, in bounded memory, from files that are read once."""

from __future__ import annotations

import datetime as dt
import itertools
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wetmap.cube import bands_of
from wetmap.errors import FewLooksWarning, SceneCheckWarning
from wetmap.geo import Block, Grid
from wetmap.recipe import Features, Optical, Radar, Recipe, Season, Sources, StacSource
from wetmap.sources import Scene
from wetmap.stages import clear_cover, look_stack
from wetmap.stages.block_features import BlockResult, block_features
from wetmap.stages.block_reading import FetchTask
from wetmap.stages.look_stack import LookStack
from wetmap.stages.scenes_check import check_scenes, warn_of_suspects

SIDE = 150
GRID = Grid("EPSG:32619", 10.0, 700_000.0, 5_010_000.0, SIDE, SIDE)
WHOLE = Block(0, 0, 0, 0, SIDE, SIDE)
SEASON = Season(name="summer", start=dt.date(2021, 6, 1), end=dt.date(2021, 9, 30))
BANDS = ("B03", "B04", "B08")
COMPOSITES = ("median", "percentile", "medoid", "best-pixel")


@dataclass
class Archive:
    """Scenes as functions of the pixel: smooth ground, noise, a drifting cloud with its shadow, a gap."""

    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    added: dict[str, float] = field(default_factory=dict)
    """Reflectance added to single scenes."""
    lake: slice | None = None
    """Columns that every scene calls shadow."""

    def read(self, scene: Scene, names: Sequence[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        self.asked.update((scene.id, name) for name in names)
        row0 = round((GRID.top - window.top) / window.res_m)
        col0 = round((window.left - GRID.left) / window.res_m)
        rows = np.arange(row0, row0 + window.height)[:, np.newaxis]
        cols = np.arange(col0, col0 + window.width)[np.newaxis, :]
        number = int(scene.id.partition("_")[2])
        return {name: self._band(name, number, rows, cols).astype(np.float32) for name in names}

    def _band(self, name: str, number: int, rows: Any, cols: Any) -> Any:
        if name == "SCL":
            scl = np.full(np.broadcast_shapes(rows.shape, cols.shape), 4.0)
            if self.lake is not None:
                scl[:, (cols[0] >= self.lake.start) & (cols[0] < self.lake.stop)] = 3
            across, down = 37 * number % 130, 23 * number % 120
            scl[(abs(rows - down) < 12) & (abs(cols - across) < 15)] = 9
            scl[(abs(rows - down - 25) < 9) & (abs(cols - across - 9) < 12)] = 3
            return scl
        base = 0.03 + 0.05 * BANDS.index(name) + 0.02 * np.sin(rows / 9 + BANDS.index(name)) * np.cos(cols / 13)
        noise = np.sin(rows * 12.9898 + cols * 78.233 + number * 3.7 + len(name)) * 43758.5453 % 1  # any hash will do
        value = base + 0.02 * noise + self.added.get(f"s_{number}", 0.0)
        return np.where((cols + 2 * number) % 60 == 0, np.nan, np.rint(value * 1e4) / 1e4)


def make_task(archive: Archive, composite: str = "median", scenes: int = 7, **settings: Any) -> FetchTask:
    features = Features(preset="custom", optical=list(BANDS), indices=["NDVI"], radar=[], terrain=[])
    sources = Sources(optical=StacSource(catalog="none"), radar=None, terrain=None)
    recipe = Recipe(features=features, seasons=[SEASON], sources=sources)
    days = [SEASON.start + dt.timedelta(days=number * 120 // scenes) for number in range(scenes)]
    return FetchTask(
        grid=GRID,
        bands=bands_of(recipe),
        seasons=("summer",),
        scenes=tuple(
            Scene(
                id=f"s_{number}",
                sensor="optical",
                datetime=f"{day}T15:00:00Z",
                seasons=("summer",),
                bands=(*BANDS, "SCL"),
                cloud_percent=10.0 * (number % 4),
            )
            for number, day in enumerate(days)
        ),
        archives={"optical": archive},  # type: ignore[dict-item]
        optical=Optical.model_validate({"composite": composite, "dilate_m": 30, **settings}),
        radar=Radar(),
        days={"summer": (SEASON.start, SEASON.end)},
    )


def same(one: BlockResult, other: BlockResult) -> None:
    assert one.features.tobytes() == other.features.tobytes()
    np.testing.assert_array_equal(one.observed, other.observed)
    np.testing.assert_array_equal(one.clear_count, other.clear_count)


class TestComposites:
    @pytest.mark.parametrize("composite", COMPOSITES)
    def test_blocks_leave_no_trace(self, composite: str) -> None:
        task = make_task(Archive(), composite)
        whole = block_features(task, WHOLE)
        assert 0.9 < whole.observed.mean() <= 1
        for block in GRID.blocks(64):
            found = block_features(task, block)
            place = (slice(None), *block.slices)
            np.testing.assert_array_equal(found.features, whole.features[place])
            np.testing.assert_array_equal(found.clear_count, whole.clear_count[place])

    @pytest.mark.parametrize("composite", COMPOSITES)
    @pytest.mark.parametrize("budget", [1, 20_000, 200_000])
    def test_strips_leave_no_trace(self, composite: str, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
        task = make_task(Archive(), composite)
        expected = block_features(task, WHOLE)
        monkeypatch.setattr(look_stack, "STACK_BYTES", budget)
        same(block_features(task, WHOLE), expected)

    @pytest.mark.parametrize("composite", COMPOSITES)
    def test_every_file_is_read_once(self, composite: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(look_stack, "STACK_BYTES", 20_000)
        archive = Archive()
        block_features(make_task(archive, composite), WHOLE)
        assert archive.asked == Counter({(f"s_{n}", name): 1 for n in range(7) for name in (*BANDS, "SCL")})

    def test_median_is_numpys(self) -> None:
        task = make_task(Archive(), dilate_m=0, keep_dark_water=False)
        archive = task.archives["optical"]
        stack = []
        for scene in task.scenes:
            read = archive.read(scene, ["B08", "SCL"], GRID)
            stack.append(np.where(read["SCL"] == 4, read["B08"], np.nan))
        whole = block_features(task, WHOLE)
        seen = whole.observed[0]
        np.testing.assert_array_equal(whole.features[2][seen], np.nanmedian(stack, axis=0)[seen])

    @pytest.mark.parametrize("composite", ["medoid", "best-pixel"])
    def test_spectra_are_real(self, composite: str) -> None:
        task = make_task(Archive(), composite)
        whole = block_features(task, WHOLE)
        bands = whole.features[:3]
        found = np.zeros(GRID.shape, dtype=bool)
        for scene in task.scenes:
            read = task.archives["optical"].read(scene, BANDS, GRID)
            found |= np.all([bands[number] == read[name] for number, name in enumerate(BANDS)], axis=0)
        np.testing.assert_array_equal(found, whole.observed[0])

    def test_percentile_is_darker(self) -> None:
        low, high = (
            block_features(make_task(Archive(), "percentile", percentile=p), WHOLE).features[2] for p in (10, 90)
        )
        seen = np.isfinite(low)
        assert (low[seen] <= high[seen]).all()
        assert float((high - low)[seen].mean()) > 0.005

    def test_best_pixel_takes_the_middle_of_the_season_where_all_are_clear(self) -> None:
        """Of seven scenes without cloud nearby the fourth, of day 51 of 121, is nearest the middle."""
        task = make_task(Archive(), "best-pixel")
        cloudless = [Scene(**{**vars(scene), "cloud_percent": 0.0}) for scene in task.scenes]
        task = FetchTask(**{**vars(task), "scenes": tuple(cloudless)})
        archive = task.archives["optical"]
        archive._band = lambda name, number, rows, cols: (  # type: ignore[attr-defined]
            np.full(np.broadcast_shapes(rows.shape, cols.shape), 4.0 if name == "SCL" else 0.1 * number)
        )
        np.testing.assert_allclose(block_features(task, WHOLE).features[:3], 0.4, rtol=1e-6)

    @pytest.mark.parametrize("composite", COMPOSITES)
    def test_memory_does_not_grow_with_the_looks(self, composite: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stack of 60 looks of one band alone would take 5.4 MB more than one of ten."""
        monkeypatch.setattr(look_stack, "STACK_BYTES", 500_000)
        peaks = []
        for scenes in (10, 60):
            task = make_task(Archive(), composite, scenes)
            tracemalloc.start()
            block_features(task, WHOLE)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] + 2_500_000

    def test_a_lake_that_is_always_called_shadow_is_seen(self) -> None:
        for keep, least in ((True, 3), (False, 0)):
            task = make_task(Archive(lake=slice(60, 90)), keep_dark_water=keep)
            count = block_features(task, WHOLE).clear_count[0]
            assert count[:, 64:86].min() >= least
            assert (count[:, 64:86].max() > 0) == keep


class TestLookStack:
    @pytest.mark.parametrize("budget", [1, 700, 10**6])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_gives_back_what_was_put_in(self, budget: int, dtype: Any) -> None:
        draw = np.random.default_rng(0)
        planes = draw.integers(0, 200, (5, 11, 7)).astype(dtype)
        with LookStack(5, (11, 7), dtype, budget=budget) as stack:
            for number in (3, 0, 4, 1, 2):
                stack.put(number, planes[number][:, ::-1][:, ::-1])
            strips = list(stack.strips())
            assert [strips[0][0], strips[-1][1]] == [0, 11]
            assert all(before[1] == after[0] for before, after in itertools.pairwise(strips))
            found = np.concatenate([stack.rows(0, 5, y0, y1) for y0, y1 in strips], axis=1)
            np.testing.assert_array_equal(found, planes)
            np.testing.assert_array_equal(stack.plane(4), planes[4])
            assert found.dtype == dtype
            assert len(strips) == (1 if budget == 10**6 else 11 if budget == 1 else len(strips))

    def test_nothing_in_it(self) -> None:
        with LookStack(0, (3, 4)) as stack:
            assert [stack.rows(0, 0, *strip).shape for strip in stack.strips()] == [(0, 3, 4)]


class TestScenesCheck:
    def test_a_scene_without_its_offset_is_named_over_all_blocks(self) -> None:
        task = make_task(Archive(added={"s_3": 0.1}))
        rows = [row for block in GRID.blocks(64) for row in block_features(task, block).checks]
        checked = check_scenes(rows)
        assert {row["scene"]: row["verdict"] for row in checked} == {
            f"s_{number}": "offset-missing" if number == 3 else "" for number in range(7)
        }
        bands = next(row["bands"] for row in checked if row["scene"] == "s_3")
        assert bands["B04"]["difference"] == pytest.approx(0.1, abs=0.01)
        with pytest.warns(SceneCheckWarning, match=r"summer: scene s_3 is \+0.1.*may not have been applied"):
            warn_of_suspects(checked)

    def test_the_sampled_pixels_do_not_depend_on_the_blocks(self) -> None:
        task = make_task(Archive())
        whole = check_scenes(block_features(task, WHOLE).checks)
        for side in (50, 64):
            parts = check_scenes(row for block in GRID.blocks(side) for row in block_features(task, block).checks)
            for one, other in zip(whole, parts, strict=True):
                for name in BANDS:
                    assert one["bands"][name]["clear_samples"] == other["bands"][name]["clear_samples"]
                    assert one["bands"][name]["common_samples"] == other["bands"][name]["common_samples"]

    def test_scenes_that_agree_give_no_warning(self) -> None:
        warn_of_suspects(check_scenes(block_features(make_task(Archive()), WHOLE).checks))

    @pytest.mark.parametrize("composite", COMPOSITES)
    def test_the_same_whatever_the_composite(self, composite: str) -> None:
        expected = block_features(make_task(Archive()), WHOLE).checks
        assert sorted(block_features(make_task(Archive(), composite), WHOLE).checks, key=str) == sorted(
            expected, key=str
        )

    def test_tiles_of_one_pass_are_judged_apart(self) -> None:
        """A pass of two items with the same footprint, the later with a wrong offset: it counts, and it is named."""
        task = make_task(Archive(added={"s_17": 0.1}))
        scene = task.scenes[3]
        twin = Scene(**{**vars(scene), "id": "s_17"})
        task = FetchTask(**{**vars(task), "scenes": (*task.scenes[:4], twin, *task.scenes[4:])})
        checked = {row["scene"]: row for row in check_scenes(block_features(task, WHOLE).checks)}
        assert checked["s_17"]["verdict"] == "offset-missing"
        assert "s_3" not in checked, "none of its pixels count on the sampled lattice"


class TestClearCover:
    def test_hectares_by_looks(self) -> None:
        """Four pixels of 100 m2, one outside; 0, 2 and 40 looks."""
        count = np.array([[0, 2, 40, 5]], dtype=np.uint16)
        inside = np.array([[True, True, True, False]])
        found = clear_cover.clear_hectares(count, inside, np.full((1, 4), 100.0))
        assert found == [0.01, 0, 0.01, 0, 0, 0, 0, 0, 0, 0, 0.01]

    def test_blocks_add_up_and_the_warning_says_it(self) -> None:
        part = {"summer": [0.0] * 11, "autumn": [0.0] * 10 + [50.0]}
        part["summer"][0], part["summer"][2], part["summer"][7] = 2.0, 6.0, 42.0
        rows = clear_cover.told([part, part])
        assert [(row["season"], row["hectares"]) for row in rows] == [("summer", 100.0), ("autumn", 100.0)]
        said = r"summer: 4.0 ha \(4 %\) of the area have no clear look, 16.0 ha \(16 %\) fewer than 3. "
        with pytest.warns(FewLooksWarning, match=said) as caught:
            clear_cover.warn_of_few_looks(rows, 1)
        assert len(caught) == 1

    def test_enough_looks_give_no_warning(self) -> None:
        rows = clear_cover.told([{"summer": [0.0, 0.0, 5.0] + [0.0] * 8}])
        clear_cover.warn_of_few_looks(rows, 2)
        with pytest.warns(FewLooksWarning, match=r"summer: 5.0 ha \(100 %\) of the area have fewer than 3 clear looks"):
            clear_cover.warn_of_few_looks(rows, 3)
