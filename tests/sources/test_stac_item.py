"""What an item says about itself, and what is made of it: small items made up for one rule each."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from wetmap.recipe import Season, Sensor
from wetmap.sources import Scene, Skipped
from wetmap.sources.providers import provider_of
from wetmap.sources.stac_item import decide, relative_orbit_of, sensor_of, slim, unsigned

ANY = provider_of("")
SUMMER = Season(name="summer", start=dt.date(2021, 6, 1), end=dt.date(2021, 8, 31))


def radar(files: str = "iw-vv.tiff", collection: str = "mine", **properties: Any) -> dict[str, Any]:
    about = {"datetime": "2021-07-01T00:00:00Z", "platform": "sentinel-1a", "sat:orbit_state": "descending"}
    return {
        "id": "x",
        "collection": collection,
        "properties": {**about, **properties},
        "assets": {"vv": {"href": f"https://x.org/a/{files}", "title": "terrain-corrected RTC gamma0"}},
    }


def optical(**more: Any) -> dict[str, Any]:
    properties = {"datetime": "2021-07-01T00:00:00Z", "platform": "sentinel-2a", "s2:processing_baseline": "05.00"}
    assets = {"B02": {"href": "B02.tif"}, "SCL": {"href": "SCL.tif"}}
    return {"id": "x", "properties": {**properties, **more.pop("properties", {})}, "assets": assets, **more}


def decided(item: dict[str, Any], sensor: Sensor) -> Scene | Skipped:
    return decide(item, sensor, [SUMMER], ANY)


class TestRadar:
    @pytest.mark.parametrize(
        ("item", "why"),
        [
            (radar(**{"sar:product_type": "RTC"}), "its product type is RTC"),
            (radar(**{"sar:product_type": "RTC-S1"}), "its product type is RTC-S1"),
            (radar(**{"product:type": "NRB"}), "its product type is NRB"),
            (radar(collection="sentinel-1-rtc", **{"sar:product_type": "GRD"}), "its collection is sentinel-1-rtc"),
            (radar("iw-vv.rtc.tiff", **{"sar:product_type": "GRD"}), "its files are named so: iw-vv.rtc.tiff"),
            (radar("Gamma0_VV.tif?sig=1", **{"sar:product_type": "GRD"}), "gamma0_vv.tif"),
            (radar(), "the item does not say"),
        ],
    )
    def test_terrain_corrected(self, item: dict[str, Any], why: str) -> None:
        scene = decided(item, "radar")
        assert isinstance(scene, Scene), scene
        assert why in scene.offset_rule

    @pytest.mark.parametrize("kind", ["GRD", "SLC", "IW_GRDH_1S", "OCN"])
    @pytest.mark.parametrize("key", ["sar:product_type", "product:type"])
    def test_what_is_not(self, kind: str, key: str) -> None:
        """Its title says that it is: titles are not believed. Nor is a folder's name."""
        for file in ("iw-vv.tiff", "rtc/iw-vv.tiff", "cart.tiff"):
            row = decided(radar(file, **{key: kind}), "radar")
            assert isinstance(row, Skipped)
            assert f"it is {kind} without terrain correction" in row.reason

    def test_mode_and_orbit(self) -> None:
        wide, unknown = radar(**{"sar:instrument_mode": "EW"}), radar(**{"sat:orbit_state": None})
        assert "mode is EW" in decided(wide, "radar").reason  # type: ignore[union-attr]
        assert "sat:orbit_state" in decided(unknown, "radar").reason  # type: ignore[union-attr]


class TestOptical:
    @pytest.mark.parametrize(
        ("item", "reason"),
        [
            (optical(properties={"s2:product_type": "S2MSI1C"}), "L1C"),
            (optical(collection="sentinel-2-l1c"), "L1C"),
            (optical(id="S2B_MSIL1C_20240206T131259_N0510_R081_T27VWK_20240206T133903"), "L1C"),
            (optical(properties={"processing:level": "L3"}), "mosaic of many dates"),
            (optical(properties={"product:type": "S2MSI_L3__MCQ"}), "mosaic of many dates"),
            (optical(assets={}), "no asset for any of B02"),
            (optical(assets={"B02": {"href": "x"}}), "no scene classification"),
            (optical(properties={"s2:processing_baseline": None}), "processing baseline"),
        ],
    )
    def test_left_out(self, item: dict[str, Any], reason: str) -> None:
        row = decided(item, "optical")
        assert isinstance(row, Skipped)
        assert reason in row.reason

    def test_track_from_the_products_name(self) -> None:
        """Earth Search gives no ``sat:relative_orbit``, and a track is what tells neighbouring swaths apart."""
        name = "S2A_MSIL2A_20230815T095031_N0509_R079_T33TWL_20230815T155057.SAFE"
        assert relative_orbit_of(optical(properties={"s2:product_uri": name})) == 79
        assert relative_orbit_of(optical(properties={"sat:relative_orbit": "12", "s2:product_uri": name})) == 12
        assert relative_orbit_of(optical(properties={"sat:relative_orbit": 12.0})) == 12
        assert relative_orbit_of(optical()) is None

    @pytest.mark.parametrize(
        ("broken", "reason"),
        [
            ({"properties": {"datetime": "last summer"}}, "its time is not given, or cannot be read"),
            ({"properties": {"datetime": None}}, "its time is not given"),
            ({"assets": {"B02": {"raster:bands": [{"scale": "x"}]}, "SCL": {}}}, "cannot be read (ValueError"),
            ({"assets": {"B02": {"raster:bands": ["x"]}, "SCL": {}}}, "cannot be read (AttributeError"),
        ],
    )
    def test_a_broken_item_is_left_out_and_not_the_search(self, broken: dict[str, Any], reason: str) -> None:
        item = optical(
            properties=broken.get("properties", {}), **({"assets": broken["assets"]} if "assets" in broken else {})
        )
        row = decided(item, "optical")
        assert isinstance(row, Skipped)
        assert reason in row.reason

    def test_a_signature_in_a_link_is_in_no_plan(self) -> None:
        item = optical(assets={"B02": {"href": "https://x.org/B02.tif?sig=SECRET"}, "SCL": {"href": "SCL.tif"}})
        scene = decided(item, "optical")
        assert isinstance(scene, Scene)
        assert "SECRET" not in str(scene.to_json())

    def test_seasons_clouds_and_links(self) -> None:
        scene = decided(optical(properties={"eo:cloud_cover": 99.0}), "optical")
        assert isinstance(scene, Scene)
        assert (scene.seasons, scene.cloud_percent, scene.bands) == (("summer",), 99.0, ("B02", "SCL"))


class TestSensor:
    @pytest.mark.parametrize(
        ("item", "sensor"),
        [
            ({"id": "S2B_x", "properties": {}}, "optical"),
            ({"id": "x", "properties": {"constellation": "Sentinel 2"}}, "optical"),
            ({"id": "x", "properties": {"platform": "SENTINEL-1C"}}, "radar"),
            ({"id": "x", "properties": {"sar:frequency_band": "C"}}, "radar"),
            ({"id": "x", "properties": {"sar:frequency_band": "L", "platform": "ALOS-2"}}, None),
            ({"id": "Copernicus_DSM_COG_10_N46", "properties": {}}, "terrain"),
            ({"id": "x", "collection": "cop-dem-glo-30", "properties": {}}, "terrain"),
            ({"id": "x", "collection": "academic", "properties": {}}, None),
            ({"id": "60W-2023", "collection": "io-lulc", "properties": {}}, None),
        ],
    )
    def test_which(self, item: dict[str, Any], sensor: str | None) -> None:
        assert sensor_of(item) == sensor

    def test_another_sensors_items_are_refused(self) -> None:
        row = decided(optical(), "radar")
        assert isinstance(row, Skipped)
        assert row.reason == "it is Sentinel-2, not Sentinel-1"

    def test_classes_are_no_elevation(self) -> None:
        item = {"id": "x", "properties": {"datetime": None}, "assets": {"data": {"href": "x", "file:values": []}}}
        row = decided(item, "terrain")
        assert isinstance(row, Skipped)
        assert row.reason == "its values are classes, not metres"


@pytest.mark.parametrize(
    ("href", "clean"),
    [
        (
            "https://a.blob.core.windows.net/c/f.tif?sv=2021&se=2024-01-01&sig=abc",
            "https://a.blob.core.windows.net/c/f.tif",
        ),
        ("https://b.s3.amazonaws.com/f.tif?X-Amz-Credential=k&X-Amz-Signature=s", "https://b.s3.amazonaws.com/f.tif"),
        ("https://x.org/f.tif?access_token=abc", "https://x.org/f.tif"),
        ("https://x.org/get?file=f.tif&size=10", "https://x.org/get?file=f.tif&size=10"),
        ("s3://eodata/a b/f.jp2", "s3://eodata/a b/f.jp2"),
        ("/data/f.tif", "/data/f.tif"),
    ],
)
def test_signatures_are_cut_off(href: str, clean: str) -> None:
    assert unsigned(href) == clean
    item = {
        "id": "x",
        "links": [{"href": href}],
        "assets": {"B02": {"href": href, "alternate": {"https": {"href": href}}}},
    }
    kept = slim(item, "optical", ANY)
    assert kept == {"id": "x", "assets": {"B02": {"href": clean, "alternate": {"https": {"href": clean}}}}}
