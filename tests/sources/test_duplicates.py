"""Scenes that were processed again: the newest product is read, the others are named; pieces of a datatake stay."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box, mapping

from wetmap.recipe import Sensor
from wetmap.sources import Scene
from wetmap.sources.duplicates import newest

WHOLE, WEST, EAST = box(10, 50, 11.5, 51), box(10, 50, 10.8, 51), box(10.7, 50, 11.5, 51)


def scene(name: str, outline: Any = WHOLE, sensor: Sensor = "optical", **properties: Any) -> Scene:
    item = {"id": name, "geometry": mapping(outline), "properties": properties, "assets": {}}
    return Scene(name, sensor, "2020-07-03T10:30:31.024000Z", platform="s", orbit_state="descending", item=item)


def planetary(
    tile: str, made: str, datatake: str = "20200703T103031", *, outline: Any = WHOLE, **properties: Any
) -> Scene:
    return scene(f"S2A_MSIL2A_{datatake}_R108_{tile}_{made}", outline, **properties)


def ids(scenes: list[Scene]) -> list[str]:
    return [one.id for one in scenes]


def test_the_higher_baseline_is_read_and_the_other_named() -> None:
    old = planetary("T32TMT", "20201006T080531", **{"s2:processing_baseline": "02.14"})
    new = planetary("T32TMT", "20230613T212700", **{"s2:processing_baseline": "05.00"})
    kept, skipped = newest([old, new])
    assert ids(kept) == [new.id]
    assert [row.id for row in skipped] == [old.id]
    assert f"processed again: {new.id} is newer (baseline 05.00, processed 20230613T212700)" in skipped[0].reason


def test_a_later_run_of_a_lower_baseline_is_not_newer() -> None:
    """Planetary Computer ran scenes of 2019 in October 2020 with baseline 02.12, after ESA had run them with 02.13."""
    esa = planetary("T32TMT", "20190704T000000", **{"s2:processing_baseline": "02.13"})
    again = planetary("T32TMT", "20201006T080531", **{"s2:processing_baseline": "02.12"})
    assert ids(newest([esa, again])[0]) == [esa.id]


def test_the_same_baseline_later_is_newer() -> None:
    about = {
        "grid:code": "MGRS-32TMT",
        "s2:datatake_id": "GS2A_20200703T103031_026274_N05.00",
        "s2:processing_baseline": "05.00",
    }
    first = scene("a", **about, **{"s2:generation_time": "2023-06-13T21:27:00.000000Z"})
    later = scene("b", **about, **{"s2:generation_time": "2023-09-01T00:00:00.000000Z"})
    assert ids(newest([later, first])[0]) == ["b"]


def test_a_trial_baseline_gives_way() -> None:
    trial = planetary("T32TMT", "20240101T000000", **{"s2:processing_baseline": "99.99"})
    numbered = planetary("T32TMT", "20230101T000000", **{"s2:processing_baseline": "05.00"})
    assert ids(newest([trial, numbered])[0]) == [numbered.id]


@pytest.mark.parametrize(
    "other",
    [
        planetary("T32TNT", "20230101T000000"),  # the neighbouring tile
        planetary("T32TMT", "20230101T000000", "20200705T103031"),  # another day
        scene("S2B_MSIL2A_20200703T103031_R108_T32TMT_20230101T000000"),  # another satellite
        scene("no name and no tile"),
    ],
)
def test_other_acquisitions_stay(other: Scene) -> None:
    one = planetary("T32TMT", "20201006T080531")
    assert newest([one, other]) == ([one, other], [])


def test_two_pieces_of_a_datatake_stay_and_each_gives_way_to_its_own_successor() -> None:
    """They differ in the beginning of their data strip and share less than half of their ground."""

    def strip(at: str, made: str, outline: Any, baseline: str) -> Scene:
        return planetary("T13TDE", made, outline=outline, **{
            "s2:processing_baseline": baseline, "s2:datastrip_id": f"S2B_OPER_MSI_L2A_DS_X_{made}_S{at}_N{baseline}",
        })  # fmt: skip

    west, east = (
        strip("20240530T175011", "20240530T231838", WEST, "05.10"),
        strip("20240530T180249", "20240531T000206", EAST, "05.10"),
    )
    assert newest([west, east]) == ([west, east], [])
    newer = strip("20240530T175011", "20250101T000000", WEST, "05.11")
    kept, skipped = newest([west, east, newer])
    assert ids(kept) == [east.id, newer.id]
    assert [row.id for row in skipped] == [west.id]


def test_strips_cut_anew_are_duplicates_where_they_show_the_same_ground() -> None:
    def at(begins: str, made: str) -> Scene:
        return planetary("T13TDE", made, **{"eopf:datastrip_id": f"S2B_OPER_MSI_L2A_DS_X_{made}_S{begins}_N05.00"})

    assert len(newest([at("20240530T175011", "20240601T000000"), at("20240530T175013", "20240602T000000")])[0]) == 1


def test_radar_slices_processed_again() -> None:
    times = {"start_datetime": "2020-05-05 01:52:58.26+00:00", "end_datetime": "2020-05-05 01:53:23.25+00:00"}
    first = scene("first", sensor="radar", **times, **{"s1:processing_datetime": "2020-05-05T03:00:00Z"})
    again = scene("again", sensor="radar", **times, **{"s1:processing_datetime": "2020-05-06T03:00:00Z"})
    piece = scene("tile beside it", box(12, 50, 13, 51), sensor="radar", **times)
    following = scene(
        "next slice", sensor="radar", start_datetime="2020-05-05 01:53:23", end_datetime="2020-05-05 01:53:48"
    )
    kept, skipped = newest([first, again, piece, following])
    assert ids(kept) == ["again", "tile beside it", "next slice"]
    assert [row.id for row in skipped] == ["first"]


def test_elevation_tiles_of_two_editions() -> None:
    old = scene("Copernicus_DSM_COG_10_N46_00_W065_00_DEM", sensor="terrain", created="2021-04-22T00:00:00Z")
    new = scene("Copernicus_DSM_10_N46_00_W065_00_2024", sensor="terrain", created="2024-11-01T00:00:00Z")
    assert ids(newest([new, old])[0]) == [new.id]


@settings(deadline=None, max_examples=40)
@given(order=st.permutations(range(6)))
def test_what_stays_does_not_depend_on_the_order(order: list[int]) -> None:
    scenes = [
        planetary(tile, made, **{"s2:processing_baseline": baseline})
        for tile, (made, baseline) in itertools.product(
            ("T32TMT", "T32TNT"),
            (("20200704T000000", "02.14"), ("20230613T000000", "05.00"), ("20210101T000000", "03.01")),
        )
    ]
    kept, skipped = newest([scenes[at] for at in order])
    assert sorted(ids(kept)) == sorted([scenes[1].id, scenes[4].id])
    assert len(kept) + len(skipped) == 6
    assert ids(kept) == [scenes[at].id for at in order if at in {1, 4}], "in the order given"
