"""Names of terrain-corrected Sentinel-1 files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import shape

from tests.conftest import SHARED
from wetmap.sources.rtc_names import BESIDE, RtcName, read_name, solar_direction, track_of

ITEMS = SHARED / "data/stac_items"


def name_of(path: str) -> RtcName:
    found = read_name(path)
    assert isinstance(found, RtcName), found
    return found


class TestConventions:
    @pytest.mark.parametrize(("letter", "stored"), [("p", "power"), ("a", "amplitude"), ("d", "decibel")])
    def test_hyp3(self, letter: str, stored: str) -> None:
        name = name_of(f"x/S1A_IW_20210809T173953_DVP_RTC10_G_g{letter}uned_1A2B_VH.tif")
        assert (name.stored, name.polarisation, name.platform) == (stored, "VH", "SENTINEL-1A")
        assert name.time == "2021-08-09T17:39:53Z"
        assert name.scene == f"S1A_IW_20210809T173953_DVP_RTC10_G_g{letter}uned_1A2B"
        assert name.orbit_state is None
        assert name.note == ""

    def test_hyp3_sigma_is_refused_and_masks_and_filters_are_told(self) -> None:
        assert "sigma-0" in str(read_name("S1A_IW_20210809T173953_DVP_RTC10_G_spuned_1A2B_VV.tif"))
        note = name_of("S1B_IW_20210809T173953_DHR_RTC30_G_gpwfcm_1A2B_HV.tif").note
        assert "water is masked" in note
        assert "filtered before" in note

    def test_opera(self) -> None:
        name = name_of("OPERA_L2_RTC-S1_T035-073251-IW2_20240113T020816Z_20240113T113128Z_S1A_30_v1.0_VV.tif")
        assert (name.stored, name.relative_orbit, name.time) == ("power", 35, "2024-01-13T02:08:16Z")
        assert (name.mode, name.platform, name.polarisation) == ("IW", "SENTINEL-1A", "VV")

    def test_planetary_computer_by_the_folder_of_the_scene(self) -> None:
        scene = "S1A_IW_GRDH_1SDV_20240419T045904_20240419T045916_053498_067DF2"
        for path in (f"{scene}_DCEC/measurement/iw-vv.rtc.tiff", f"{scene}_rtc_vv.tif", f"a/{scene}_rtc/vv.tif"):
            name = name_of(path)
            assert (name.scene, name.stored, name.relative_orbit) == (f"{scene}_rtc", "power", 51)
        assert "when it was taken" in str(read_name("downloads/iw-vv.rtc.tiff"))

    def test_pyrosar(self) -> None:
        name = name_of("S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif")
        assert (name.orbit_state, name.stored, name.time) == ("ascending", "decibel", "2015-03-09T17:30:17Z")
        assert name_of("S1B__IW___D_20150309T173017_VH_gamma0-rtc.tif").stored == "power"
        assert name_of("S1B__IW___D_20150309T173017_VH_grd_mli_geo.tif").stored is None, "perhaps not terrain-corrected"
        assert "pyroSAR or SNAP" in str(read_name("S1A__IW___A_20150309T173017_VV_NR_Orb_Cal_sigma0-rtc.tif"))
        assert isinstance(read_name("S1A__IW___A_20150309T173017_VV_gamma0-elp_db.tif"), str)

    @pytest.mark.parametrize(
        "path",
        [
            "measurement/s1a-iw-grd-vv-20210809t173953-20210809t174018-039156-049f13-001.tiff",
            "S1B_IW_GRDH_1SDV_20200508T141252_20200508T141322_021491_028CDD_C1D0/measurement/iw-vh.tiff",
        ],
    )
    def test_ground_range_is_refused_with_ways_out(self, path: str) -> None:
        reason = str(read_name(path))
        assert "without terrain correction" in reason
        assert "HyP3" in reason
        assert "sentinel-1-rtc" in reason

    def test_other_names_are_read_as_far_as_they_go(self) -> None:
        name = name_of("radar_20210809_VV.tif")
        assert (name.stored, name.orbit_state, name.clock) == (None, None, False)
        assert name.scene == "radar_20210809_"
        assert name_of("S1A-20210809T173953-vv.tiff").clock
        assert read_name("dem_20210809.tif") is None
        assert read_name("radar_VV.tif") is None
        assert read_name("radar_20219999_VV.tif") is None
        assert read_name("notes_20210809_VV.txt") is None

    @pytest.mark.parametrize(
        "end", ["inc_map.tif", "ls_map.tif", "dem.tif", "VV.tif.xml", "rgb.png", "mask.tif", "x.kmz"]
    )
    def test_files_beside_the_bands_are_known(self, end: str) -> None:
        assert BESIDE.search(f"S1A_IW_20210809T173953_DVP_RTC10_G_gpuned_1A2B_{end}")
        assert not BESIDE.search("S1A_IW_20210809T173953_DVP_RTC10_G_gpuned_1A2B_VV.tif")

    @settings(deadline=None, max_examples=50)
    @given(st.text(alphabet=st.sampled_from("S1A_IWVH0129T-.tifrGRDx/"), max_size=60))
    def test_any_text_is_read_without_an_error(self, text: str) -> None:
        assert read_name(text) is None or isinstance(read_name(text), str | RtcName)


def real_passes() -> Iterator[tuple[str, dict[str, Any], tuple[float, float]]]:
    for path in sorted(ITEMS.glob("*/*entinel-1*items.json")) + sorted(ITEMS.glob("stactools_sentinel1/*.json")):
        data = json.loads(path.read_text())
        for item in data.get("features", [data]) if isinstance(data, dict) else data:
            centre = shape(item["geometry"]).centroid
            yield item["id"], item["properties"], (centre.x, centre.y)


class TestOrbit:
    @pytest.mark.real
    @pytest.mark.skipif(not ITEMS.is_dir(), reason="the real items are not beside the checkout")
    def test_real_passes_fly_where_the_sun_says(self) -> None:
        found = list(real_passes())
        assert len(found) >= 8
        for name, properties, (lon, lat) in found:
            assert solar_direction(properties["datetime"], lon, lat) == properties["sat:orbit_state"], name

    @pytest.mark.real
    @pytest.mark.skipif(not ITEMS.is_dir(), reason="the real items are not beside the checkout")
    def test_real_tracks_follow_from_absolute_orbits(self) -> None:
        for name, properties, _ in real_passes():
            unit = name[2]
            assert track_of(unit, properties["sat:absolute_orbit"]) == properties["sat:relative_orbit"], name

    def test_the_sun_says_nothing_near_the_poles_and_no_track_of_new_satellites(self) -> None:
        assert solar_direction("2021-08-09T17:39:53Z", 4.0, 45.0) == "ascending"
        assert solar_direction("2021-08-09T05:39:53Z", 4.0, 45.0) == "descending"
        assert solar_direction("2021-08-09T05:39:53Z", 179.0, 45.0) == "ascending"
        assert solar_direction("2021-08-09T17:39:53Z", 4.0, 75.0) is None
        assert track_of("C", 1000) is None
