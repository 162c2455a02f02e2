"""Radar passes to features: every filter through the front of a block, tracks, statistics, counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import tiny_archive
from tests.fakes.tiny_archive import GRID, SEASON, aoi
from wetmap.cube import bands_of
from wetmap.errors import RecipeError
from wetmap.geo import Block, Grid
from wetmap.imagery.radar import from_db, to_db
from wetmap.imagery.speckle import lee, quegan
from wetmap.recipe import Features, Radar, Recipe, Sources, StacSource
from wetmap.sources import EXTENT, Scene, open_archive
from wetmap.stages.block_features import block_features
from wetmap.stages.block_reading import FetchTask

WHOLE = Block(0, 0, 0, 0, GRID.height, GRID.width)
SPECKLE = ["none", "boxcar", "lee", "refined-lee", "gamma-map", "lee-sigma", "quegan"]
Floats = NDArray[np.float64]


def recipe(states: list[str], **radar: Any) -> Recipe:
    """Radar alone, with every feature that it can give."""
    features = Features.model_validate(
        {
            "preset": "custom",
            "optical": [],
            "indices": [],
            "orbit_states": states,
            "radar_statistics": ["mean", "std"],
            "radar_ratio": True,
        }
    )
    return Recipe(
        features=features, seasons=[SEASON], sources=Sources(optical=None, terrain=None), radar=Radar(**radar)
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FetchTask:
    """The tiny archive's radar: two ascending passes, one of them in two pieces, and one descending with a rim."""
    folder = tmp_path_factory.mktemp("archive")
    catalog = tiny_archive.write_catalog(folder, tiny_archive.write_files(folder))
    archive = open_archive(StacSource(catalog=str(catalog)), "radar")
    asked = recipe(["ascending", "descending"], border_m=30)
    return FetchTask(
        grid=GRID,
        bands=bands_of(asked),
        seasons=("summer",),
        scenes=tuple(archive.search("radar", aoi(), [SEASON], max_cloud_percent=80)[0]),
        archives={"radar": archive},
        optical=asked.optical,
        radar=asked.radar,
        strong_power={"VV": 0.2, "VH": 0.04},
    )


def with_radar(task: FetchTask, **changes: Any) -> FetchTask:
    return dataclasses.replace(task, radar=task.radar.model_copy(update=changes))


def values_of(task: FetchTask, block: Block = WHOLE) -> dict[str, Floats]:
    """Features by name without the season."""
    features = block_features(task, block).features.astype(np.float64)
    return {band.name.partition(".")[2]: features[number] for number, band in enumerate(task.bands)}


class MadeUp:
    """An archive of passes that lie in memory on the grid, row 0 at ``first``; passes of a name in ``gone`` fail."""

    def __init__(self, passes: dict[str, dict[str, Floats]]) -> None:
        self.passes = passes
        self.reads: list[str] = []

    def read(self, scene: Scene, names: list[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        self.reads.append(scene.id)
        top, left = round((GRID.top - window.top) / 10), round((window.left - GRID.left) / 10)
        out = {}
        for name in [*names]:
            held = self.passes[scene.id]
            band = np.full(window.shape, np.nan, dtype=np.float32)
            source = np.ones(GRID.shape) if name == EXTENT else held[name]
            y0, x0 = max(top, 0), max(left, 0)
            y1, x1 = min(top + window.height, GRID.height), min(left + window.width, GRID.width)
            band[y0 - top : y1 - top, x0 - left : x1 - left] = source[y0:y1, x0:x1]
            out[name] = band
        return out


def scene(name: str, track: int | None, day: int, platform: str = "SENTINEL-1A") -> Scene:
    return Scene(
        id=name,
        sensor="radar",
        datetime=f"2021-07-{day:02d}T22:00:00Z",
        platform=platform,
        orbit_state="ascending",
        relative_orbit=track,
        seasons=("summer",),
        bands=("VV", "VH"),
    )


def made_up(passes: dict[str, dict[str, Floats]], tracks: list[int | None], **radar: Any) -> tuple[FetchTask, MadeUp]:
    """A task of ascending passes, their tracks in order."""
    archive = MadeUp(passes)
    asked = recipe(["ascending"], border_m=0, **radar)
    scenes = tuple(scene(name, track, day + 1) for day, (name, track) in enumerate(zip(passes, tracks, strict=True)))
    task = FetchTask(
        grid=GRID,
        bands=bands_of(asked),
        seasons=("summer",),
        scenes=scenes,
        archives={"radar": archive},  # type: ignore[dict-item]
        optical=asked.optical,
        radar=asked.radar,
    )
    return task, archive


def constant(vv: float, vh: float = 0.02) -> dict[str, Floats]:
    return {"VV": np.full(GRID.shape, vv), "VH": np.full(GRID.shape, vh)}


def speckled(seed: int, mean: float = 0.1) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray((k * mean * rng.gamma(4.4, 1 / 4.4, GRID.shape)).astype(np.float32), dtype=np.float64)
        for name, k in (("VV", 1.0), ("VH", 0.2))
    }


class TestEveryFilter:
    @pytest.mark.parametrize("speckle", SPECKLE)
    def test_the_same_bits_whatever_the_blocks(self, tiny: FetchTask, speckle: str) -> None:
        task = with_radar(tiny, speckle=speckle, window_px=7)
        expected = block_features(task, WHOLE)
        assert expected.observed.mean() > 0.9
        for block in GRID.blocks(23):
            got = block_features(task, block)
            np.testing.assert_array_equal(got.features, expected.features[(slice(None), *block.slices)])
            np.testing.assert_array_equal(got.observed, expected.observed[(slice(None), *block.slices)])

    @pytest.mark.parametrize("speckle", SPECKLE)
    def test_the_margin_is_wide_enough_for_the_filter_alone(self, tiny: FetchTask, speckle: str) -> None:
        """Without a rim nothing else widens what is read; many pixels count as strong."""
        task = with_radar(tiny, speckle=speckle, window_px=5, border_m=0)
        task = dataclasses.replace(task, strong_power={"VV": 0.12, "VH": 0.024})
        expected = block_features(task, WHOLE)
        for block in GRID.blocks(13):
            got = block_features(task, block)
            np.testing.assert_array_equal(got.features, expected.features[(slice(None), *block.slices)])

    @pytest.mark.parametrize("speckle", SPECKLE)
    def test_the_level_stays_and_the_rim_goes(self, tiny: FetchTask, speckle: str) -> None:
        values = values_of(with_radar(tiny, speckle=speckle, window_px=7))
        assert 10 * np.log10(np.nanmean(from_db(values["VV_ascending"]))) == pytest.approx(-10.0, abs=0.15)
        assert 10 * np.log10(np.nanmean(from_db(values["VH_ascending"]))) == pytest.approx(-17.0, abs=0.15)
        # The rim of 30 m: zeros to column 12 of the scene and noise to 14, which is column 4 of the map.
        np.testing.assert_array_equal(np.isnan(values["VV_descending"][20]), np.arange(GRID.width) < 12 + 3 - 10)

    def test_filters_differ(self, tiny: FetchTask) -> None:
        found = {speckle: values_of(with_radar(tiny, speckle=speckle))["VV_ascending"] for speckle in SPECKLE}
        for number, one in enumerate(SPECKLE):
            for other in SPECKLE[number + 1 :]:
                assert np.nanmax(np.abs(found[one] - found[other])) > 0.1, (one, other)

    def test_looks_must_be_settled(self, tiny: FetchTask) -> None:
        with pytest.raises(RecipeError, match="estimate"):
            block_features(with_radar(tiny, looks="estimate"), WHOLE)

    def test_strong_targets_are_those_of_the_plan(self, tiny: FetchTask) -> None:
        """The tiny archive's speckle has no clusters; with a low threshold every cluster stays as it is."""
        task = dataclasses.replace(with_radar(tiny, speckle="lee-sigma"), strong_power={"VV": 0.0, "VH": 0.0})
        kept, plain = values_of(task), values_of(with_radar(tiny, speckle="none"))
        np.testing.assert_array_equal(kept["VV_descending"], plain["VV_descending"])


class TestStatistics:
    def test_names_and_units(self, tiny: FetchTask) -> None:
        assert [(band.name, band.unit) for band in tiny.bands[:5]] == [
            ("summer.VV_ascending", "dB"),
            ("summer.VH_ascending", "dB"),
            ("summer.VV_std_ascending", "dB"),
            ("summer.VH_std_ascending", "dB"),
            ("summer.VV_VH_ratio_ascending", "1"),
        ]
        assert {band.layer for band in tiny.bands} == {"summer.radar_ascending", "summer.radar_descending"}

    def test_by_hand(self) -> None:
        """Powers 0.1, 0.1 and 0.01: the mean is 0.07, dB values -10, -10, -20 deviate by sqrt(200 / 9)."""
        passes = {"a": constant(0.1), "b": constant(0.1), "c": constant(0.01)}
        values = values_of(made_up(passes, [62, 62, 62], speckle="none")[0])
        np.testing.assert_allclose(values["VV_ascending"], 10 * np.log10(0.07), rtol=1e-6)
        np.testing.assert_allclose(values["VV_std_ascending"], np.sqrt(200 / 9), rtol=1e-6)
        np.testing.assert_allclose(values["VH_std_ascending"], 0.0, atol=1e-5)
        np.testing.assert_allclose(values["VV_VH_ratio_ascending"], 3.5, rtol=1e-6)

    def test_against_the_passes_one_by_one(self) -> None:
        passes = {name: speckled(seed) for seed, name in enumerate("abcd")}
        passes["c"]["VV"][10:20] = np.nan
        task, archive = made_up(passes, [62] * 4, speckle="lee")
        values = values_of(task)
        kept = {n: np.where(np.isnan(p["VV"]), np.nan, p["VV"]) for n, p in passes.items()}
        stack = np.stack([lee(kept[name], 5, 4.4) for name in passes])
        np.testing.assert_allclose(values["VV_ascending"], to_db(np.nanmean(stack, axis=0)), rtol=1e-6)
        np.testing.assert_allclose(values["VV_std_ascending"], np.nanstd(to_db(stack), axis=0), rtol=1e-5)
        assert archive.reads == list("abcd"), "every pass is read once"

    def test_a_pass_alone_does_not_deviate(self) -> None:
        values = values_of(made_up({"a": speckled(0)}, [62])[0])
        np.testing.assert_array_equal(values["VV_std_ascending"], 0.0)

    def test_quegan_in_one_go_is_quegan_of_the_stack(self) -> None:
        """Mean and deviation come out of sums, without a second reading; held against the filtered passes."""
        passes = {name: speckled(seed, 0.05 * (seed + 1)) for seed, name in enumerate("abcde")}
        for band in ("VV", "VH"):  # where one polarisation is missing the other is not used either
            passes["b"][band][5:9, 5:9] = np.nan
        task, archive = made_up(passes, [62, 171, 62, 62, 171], speckle="quegan", window_px=5)
        values = values_of(task)
        stack = quegan(np.stack([one["VV"] for one in passes.values()]), 5)
        np.testing.assert_allclose(from_db(values["VV_ascending"]), np.nanmean(stack, axis=0), rtol=1e-6)
        tracks = [to_db(stack[[0, 2, 3]]), to_db(stack[[1, 4]])]
        squares = sum(np.nansum((one - np.nanmean(one, axis=0)) ** 2, axis=0) for one in tracks)
        seen = np.isfinite(stack).sum(axis=0)
        np.testing.assert_allclose(values["VV_std_ascending"], np.sqrt(squares / seen), rtol=1e-5)
        assert archive.reads == list("acdbe"), "one track after the other, each pass once"


class TestTracks:
    PASSES = ("a", "b", "c", "d")

    def passes(self) -> dict[str, dict[str, Floats]]:
        return {"a": constant(0.1), "b": constant(0.1), "c": constant(0.1), "d": constant(0.02)}

    def test_every_pass_counts_the_same_by_default(self) -> None:
        values = values_of(made_up(self.passes(), [62, 62, 62, 171])[0])
        np.testing.assert_allclose(from_db(values["VV_ascending"]), (0.3 + 0.02) / 4, rtol=1e-6)

    def test_every_track_may_count_the_same(self) -> None:
        values = values_of(made_up(self.passes(), [62, 62, 62, 171], weight="tracks")[0])
        np.testing.assert_allclose(from_db(values["VV_ascending"]), (0.1 + 0.02) / 2, rtol=1e-6)

    @pytest.mark.parametrize("weight", ["passes", "tracks"])
    def test_tracks_at_other_angles_do_not_look_like_change(self, weight: str) -> None:
        values = values_of(made_up(self.passes(), [62, 62, 62, 171], weight=weight)[0])
        np.testing.assert_allclose(values["VV_std_ascending"], 0.0, atol=1e-5)

    def test_a_track_that_did_not_see_the_pixel_does_not_count(self) -> None:
        passes = self.passes()
        for band in ("VV", "VH"):
            passes["d"][band][:10] = np.nan
        values = values_of(made_up(passes, [62, 62, 62, 171], weight="tracks")[0])
        np.testing.assert_allclose(from_db(values["VV_ascending"])[:8], 0.1, rtol=1e-6)
        np.testing.assert_allclose(from_db(values["VV_ascending"])[14:], 0.06, rtol=1e-6)

    def test_tracks_that_nobody_names_are_one(self) -> None:
        values = values_of(made_up(self.passes(), [None] * 4, weight="tracks")[0])
        np.testing.assert_allclose(from_db(values["VV_ascending"]), (0.3 + 0.02) / 4, rtol=1e-6)


def test_power_that_is_not_above_zero_is_not_observed() -> None:
    """Whatever the archive lets through."""
    passes = {"a": constant(0.1)}
    passes["a"]["VV"][5, 5], passes["a"]["VH"][7, 7] = 0.0, -1e-4
    values = values_of(made_up(passes, [62], speckle="boxcar")[0])
    gaps = np.argwhere(np.isnan(values["VV_ascending"]))
    np.testing.assert_array_equal(gaps, [[5, 5], [7, 7]])
    np.testing.assert_allclose(values["VV_ascending"][6, 6], -10, rtol=1e-6)
