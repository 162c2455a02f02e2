"""Which offset a Sentinel-2 item carries: the rule table, and the real items of five archives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from wetmap.sources.offset import Rule, band_metadata, reflectance_rule
from wetmap.sources.stac import ASSETS

#: Real scenes, where they lie beside the checkout.
SHARED = Path(__file__).resolve().parents[3] / "shared"
ITEMS = SHARED / "data" / "stac_items"
needs_items = pytest.mark.skipif(not ITEMS.is_dir(), reason="the real STAC items lie beside the checkout only here")


def rule_of(properties: dict[str, Any], *assets: dict[str, Any], name: str = "x") -> Rule | str:
    return reflectance_rule({"id": name, "properties": properties}, assets or ({},))


def declared(offset: float | None, scale: float = 1e-4) -> dict[str, Any]:
    return {"raster:bands": [{"scale": scale, **({} if offset is None else {"offset": offset})}]}


@pytest.mark.parametrize(
    ("properties", "assets", "name", "offset", "why"),
    [
        ({"s2:processing_baseline": "05.10"}, [{}], "x", -0.1, "s2:processing_baseline is 05.10"),
        ({"s2:processing_baseline": "04.00"}, [{}], "x", -0.1, "04.00"),
        ({"s2:processing_baseline": "03.01"}, [{}], "x", 0.0, "before 04.00"),
        ({"s2:processing_baseline": "99.99"}, [{}], "x", -0.1, "99.99"),
        ({"processing:version": "05.00"}, [{}], "x", -0.1, "processing:version"),
        # An old scene, reprocessed into Collection 1: its date says nothing.
        ({"datetime": "2018-07-01T00:00:00Z", "s2:processing_baseline": "05.00"}, [{}], "x", -0.1, "05.00"),
        # What the bands say is stronger than the baseline, and any value will do.
        ({"s2:processing_baseline": "02.12"}, [declared(-0.1)], "x", -0.1, "metadata give offset -0.1"),
        ({"s2:processing_baseline": "05.09"}, [declared(0.0)], "x", 0.0, "metadata give offset 0"),
        ({"s2:processing_baseline": "05.09"}, [declared(-0.2)], "x", -0.2, "metadata give offset -0.2"),
        # Earth Search took it out of the pixels, and left it in the metadata.
        (
            {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"},
            [declared(-0.1)],
            "x",
            0.0,
            "taken",
        ),
        (
            {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.09"},
            [declared(-0.1)],
            "x",
            -0.1,
            "-0.1",
        ),
        ({"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.09"}, [{}], "x", -0.1, "05.09"),
        ({"sentinel:boa_offset_applied": True}, [{}], "x", 0.0, "sentinel:boa_offset_applied"),
        # Nothing but a name.
        ({"s2:product_uri": "S2A_MSIL2A_20220301T0_N0400_R1_T1.SAFE"}, [{}], "x", -0.1, "baseline 04.00"),
        ({}, [{}], "S2A_MSIL2A_20190629T212529_N0212_R043_T06VVN_20201006T080531", 0.0, "baseline 02.12"),
    ],
)
def test_rule(properties: dict[str, Any], assets: list[dict[str, Any]], name: str, offset: float, why: str) -> None:
    rule = rule_of(properties, *assets, name=name)
    assert isinstance(rule, Rule)
    assert (rule.scale, rule.offset) == (1e-4, offset)
    assert why in rule.why


def test_no_metadata_is_no_rule_and_no_guess() -> None:
    assert "processing baseline" in str(rule_of({"datetime": "2023-07-01T00:00:00Z"}))


def test_bands_that_contradict_each_other_are_refused() -> None:
    assert "differ" in str(rule_of({"s2:processing_baseline": "05.09"}, declared(-0.1), declared(0.0)))


def test_an_offset_in_some_bands_only_does_not_decide() -> None:
    rule = rule_of({"s2:processing_baseline": "03.01"}, declared(-0.1), declared(None))
    assert isinstance(rule, Rule)
    assert rule.offset == 0.0


def test_every_spelling_of_stac_is_read() -> None:
    expected = {"scale": 2.0, "offset": -1.0, "nodata": 0}
    inner = {"scale": 2.0, "offset": -1.0, "nodata": 0}
    assert band_metadata({"raster:bands": [inner]}) == expected
    assert band_metadata({"bands": [{"raster:scale": 2.0, "raster:offset": -1.0, "nodata": 0}]}) == expected
    assert band_metadata({"raster:scale": 2.0, "raster:offset": -1.0, "nodata": 0}) == expected
    assert band_metadata({}) == {}


def real(path: str) -> dict[str, Any]:
    data = json.loads((ITEMS / path).read_text())
    items = data if isinstance(data, list) else data.get("features", [data])
    first: dict[str, Any] = items[0]
    return first


@needs_items
@pytest.mark.parametrize(
    ("path", "offset", "why"),
    [
        ("planetary_computer/sentinel-2-l2a_4items.json", -0.1, "s2:processing_baseline is 05.10"),
        ("planetary_computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json", 0.0, "02.12"),
        ("earthsearch_v0/S2A_28QCH_20200714_0_L2A.json", 0.0, "02.14"),
        ("earthsearch_v1/S2A_33TWL_20230815_0_L2A.localhrefs.json", 0.0, "earthsearch:boa_offset_applied"),
        # Seen in 2020, processed in 2023 into Collection 1.
        ("cdse/item_S2A_MSIL2A_20200301T090901_N0500_R050_T35UPU_20230630T033416.json", -0.1, "metadata give offset"),
        ("stactools_sentinel2/S2A_T07HFE_20190212T192646_L2A.json", 0.0, "metadata give offset 0"),
    ],
)
def test_real_items(path: str, offset: float, why: str) -> None:
    item = real(path)
    held = [
        item["assets"][a] for names in ASSETS["optical"].values() for a in names if a in item["assets"] and a != "scl"
    ]
    rule = reflectance_rule(item, [asset for asset in held if "SCL" not in asset["href"]])
    assert isinstance(rule, Rule), rule
    assert rule.offset == offset
    assert why in rule.why


@pytest.mark.real
@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the real scenes lie beside the checkout only here")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_real_pixels_agree_with_the_flag_and_not_with_the_metadata() -> None:
    """Earth Search: the metadata say offset -0.1 and the flag says it is gone; the darkest pixels decide."""
    scenes: list[Path] = sorted((SHARED / "data" / "s2_l2a_stac_120m").glob("S2*"))
    assert scenes
    for folder in scenes:
        item = json.loads(next(folder.glob("*.json")).read_text())
        rule = reflectance_rule(item, [item["assets"]["blue"], item["assets"]["nir"]])
        assert isinstance(rule, Rule)
        with rasterio.open(folder / "B02.tif") as dataset:
            stored = dataset.read(1)
        dark = float(np.percentile(stored[stored > 0], 1)) * rule.scale + rule.offset
        assert 0 < dark < 0.05
        assert dark - 0.1 < -0.05, "with the metadata's offset the darkest ground would be far below zero"
