"""What the plan settles for radar: tracks, numbers of passes, looks and strong targets."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from wetmap.cube import bands_of
from wetmap.errors import SceneSkippedWarning, SourceError
from wetmap.geo import Grid
from wetmap.recipe import Features, Radar, Recipe
from wetmap.sources import Scene
from wetmap.stages.lost_reads import passes_by_layer
from wetmap.stages.radar_plan import (
    SAMPLE_PX,
    SAMPLE_SCENES,
    RadarSamples,
    keep_tracks,
    measure,
    samples_wanted,
    tracks_of,
)

GRID = Grid("EPSG:32619", 10.0, 700_000.0, 5_010_000.0, 600, 300)


def scene(name: str, track: int | None = 62, day: int = 1, **changes: object) -> Scene:
    body = {
        "platform": "SENTINEL-1A",
        "orbit_state": "ascending",
        "seasons": ("summer",),
        "bands": ("VV", "VH"),
        **changes,
    }
    return Scene(
        id=name,
        sensor="radar",
        datetime=f"2021-07-{day:02d}T22:00:00Z",
        relative_orbit=track,
        **body,  # type: ignore[arg-type]
    )


class Speckled:
    """Even ground of a given number of looks; what a pixel gets depends on the scene and the window."""

    def __init__(self, looks: float = 4.4, broken: tuple[str, ...] = ()) -> None:
        self.looks, self.broken = looks, broken
        self.windows: list[Grid] = []

    def read(self, scene: Scene, names: list[str], window: Grid) -> dict[str, NDArray[np.float32]]:
        if scene.id in self.broken:
            raise SourceError(f"{scene.id} cannot be read.", do="Look at it.")
        self.windows.append(window)
        rng = np.random.default_rng([int(window.left), int(window.top), *scene.id.encode()])
        means = {"VV": 0.1, "VH": 0.02}
        return {n: (means[n] * rng.gamma(self.looks, 1 / self.looks, window.shape)).astype(np.float32) for n in names}


class TestTracks:
    SCENES = (scene("a", 62), scene("b", 171), scene("c", None))

    def test_all_by_default(self) -> None:
        assert keep_tracks("radar", self.SCENES, Radar()) == (list(self.SCENES), [])

    def test_only_those_named(self) -> None:
        kept, left_out = keep_tracks("radar", self.SCENES, Radar(relative_orbits=[171, 5]))
        assert [one.id for one in kept] == ["b"]
        assert [(row.id, row.reason) for row in left_out] == [
            ("a", "relative orbit 62 is not in radar.relative_orbits"),
            ("c", "relative orbit None is not in radar.relative_orbits"),
        ]

    def test_other_sensors_are_let_alone(self) -> None:
        assert len(keep_tracks("optical", self.SCENES, Radar(relative_orbits=[1]))[0]) == 3

    def test_none_left(self) -> None:
        with pytest.raises(SourceError, match=r"relative orbit 5 .*are of 62, 171\.") as caught:
            keep_tracks("radar", self.SCENES, Radar(relative_orbits=[5]))
        assert "leave radar.relative_orbits out" in caught.value.do


def test_rows_for_the_manifest() -> None:
    """A pass in two pieces is one pass; a second satellite on the same track has its own row."""
    scenes = [
        scene("a0", 62, 1),
        scene("a1", 62, 1),
        scene("b", 62, 13),
        scene("c", 62, 7, platform="SENTINEL-1B"),
        scene("d", None, 9, orbit_state="descending", seasons=("spring", "summer")),
    ]
    rows = [tuple(row.values()) for row in tracks_of(scenes)]
    assert rows == [
        ("spring", "descending", None, "SENTINEL-1A", 1, 1),
        ("summer", "ascending", 62, "SENTINEL-1A", 2, 3),
        ("summer", "ascending", 62, "SENTINEL-1B", 1, 1),
        ("summer", "descending", None, "SENTINEL-1A", 1, 1),
    ]
    bands = bands_of(
        Recipe(
            features=Features(preset="custom", orbit_states=["ascending", "any"]),
            seasons=[{"name": "summer", "start": "2021-06-01", "end": "2021-09-30"}],  # type: ignore[list-item]
        )
    )
    told = passes_by_layer(bands, scenes, [])
    assert {layer: row["planned"] for layer, row in told.items() if "radar" in layer} == {
        "summer.radar_ascending": 3,
        "summer.radar_any": 4,
    }


class TestSamples:
    def test_nothing_wanted_nothing_read(self) -> None:
        archive = Speckled()
        wanted = samples_wanted(Radar(), ["VV"])
        assert wanted == {}
        assert measure(archive, [scene("a")], GRID, wanted) is None  # type: ignore[arg-type]
        assert archive.windows == []

    @pytest.mark.parametrize("looks", [1.5, 4.4, 9.0])
    def test_looks(self, looks: float) -> None:
        wanted = samples_wanted(Radar(looks="estimate"), ["VV", "VH"])
        scenes = [scene(f"s{day}", day=day) for day in range(1, 4)]
        found = measure(Speckled(looks), scenes, GRID, wanted)  # type: ignore[arg-type]
        assert found is not None
        assert found.looks == pytest.approx(looks, rel=0.12)
        assert found.strong_power == {}
        assert [row["scene"] for row in found.scenes] == ["s1", "s2", "s3"]
        assert set(found.scenes[0]["looks"]) == {"VV", "VH"}
        assert found == measure(Speckled(looks), scenes, GRID, wanted)  # type: ignore[arg-type]
        assert RadarSamples.from_json(json.loads(json.dumps(found.to_json()))) == found
        assert found.settle(Radar(looks="estimate")).looks == found.looks
        assert "looks (" in found.describe()

    def test_strong_targets(self) -> None:
        wanted = samples_wanted(Radar(speckle="lee-sigma"), ["VV", "VH"])
        found = measure(Speckled(), [scene("a")], GRID, wanted)  # type: ignore[arg-type]
        assert found is not None
        assert found.looks is None
        assert found.settle(Radar(looks=3.0)).looks == 3.0
        draws = 0.1 * np.random.default_rng(0).gamma(4.4, 1 / 4.4, 100_000)
        assert found.strong_power["VV"] == pytest.approx(np.percentile(draws, 98), rel=0.03)
        assert found.strong_power["VV"] == pytest.approx(5 * found.strong_power["VH"], rel=0.05)

    def test_reads_are_few_and_inside_the_area(self) -> None:
        archive = Speckled()
        scenes = [scene(f"s{number}") for number in range(30)]
        measure(archive, scenes, GRID, samples_wanted(Radar(looks="estimate"), ["VV"]))  # type: ignore[arg-type]
        assert len(archive.windows) == SAMPLE_SCENES * 3 * 2
        for window in archive.windows:
            assert window.shape == (SAMPLE_PX, SAMPLE_PX)
            assert GRID.left <= window.left
            assert window.bounds[2] <= GRID.bounds[2]
            assert window.bounds[1] >= GRID.bounds[1]

    def test_a_scene_that_fails_is_named(self) -> None:
        wanted = samples_wanted(Radar(looks="estimate"), ["VV"])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = measure(Speckled(broken=("b",)), [scene("a"), scene("b")], GRID, wanted)  # type: ignore[arg-type]
        assert found is not None
        assert found.scenes[1] == {"scene": "b", "reason": "b cannot be read."}
        assert [one.category for one in caught] == [SceneSkippedWarning]

    @pytest.mark.filterwarnings("ignore::wetmap.errors.SceneSkippedWarning")
    @pytest.mark.parametrize("radar", [Radar(looks="estimate"), Radar(speckle="lee-sigma")])
    def test_no_scene_can_be_read(self, radar: Radar) -> None:
        with pytest.raises(SourceError, match="sampled radar scene"):
            measure(Speckled(broken=("a",)), [scene("a")], GRID, samples_wanted(radar, ["VV"]))  # type: ignore[arg-type]


class TestRecipe:
    @pytest.mark.parametrize("looks", [0, -1.0, float("inf"), "measure"])
    def test_looks_must_be_a_number_above_zero_or_the_word(self, looks: object) -> None:
        with pytest.raises(ValueError, match="looks"):
            Radar.model_validate({"looks": looks})

    def test_a_ratio_needs_two_polarisations(self) -> None:
        with pytest.raises(ValueError, match="radar_ratio needs VV and VH"):
            Features(preset="custom", radar=["VV"], radar_ratio=True)
        assert Features(preset="custom", radar=["HH", "HV"], radar_ratio=True).ratios == [("HH", "HV")]

    @pytest.mark.parametrize("more", [{"radar_ratio": True}, {"radar_statistics": ["mean", "std"]}])
    def test_presets_stay_as_they_are(self, more: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="use preset custom"):
            Features.model_validate({"preset": "paper16", **more})

    def test_defaults_ask_for_the_same_bands(self) -> None:
        names = [band.name for band in bands_of(Recipe()) if "radar" in band.layer]
        assert [name.partition(".")[2] for name in names] == [
            "VV_ascending",
            "VH_ascending",
            "VV_descending",
            "VH_descending",
        ]
