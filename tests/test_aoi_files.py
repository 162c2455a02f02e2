"""The areas of interest in ``aoi/``: readable, valid, of the right size and place, and what their script makes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import geopandas
import pytest
import shapely
from shapely.geometry import MultiPolygon

from wetmap.geo import Aoi, read_aoi

FOLDER = Path(__file__).parents[1] / "aoi"
#: Real boundaries, beside the checkout on some machines only: to check with, never copied.
BOUNDARIES = Path(__file__).parents[2] / "shared" / "data" / "boundaries_new_brunswick"

#: Area in square kilometres (least, most) and UTM zone of each file. Statistics Canada's boundaries give 72 440,
#: 1 802, 8 283 and 69 km2; the sample is a square of about 2.6 km with its corners and a hole cut out.
EXPECTED = {
    "nb": (71_000.0, 74_000.0, "EPSG:32619"),
    "albert_county": (1_700.0, 1_900.0, "EPSG:32620"),
    "york_county": (8_000.0, 8_700.0, "EPSG:32619"),
    "grand_bay_westfield": (63.0, 73.0, "EPSG:32619"),
    "sample": (4.5, 6.8, "EPSG:32620"),
}
#: File with the real boundary, and the least share of overlap (intersection over union) that README.md promises.
OVERLAP = {
    "nb": ("newbrunswick-csd.geojson", 0.95),
    "albert_county": ("albert_county.geojson", 0.90),
    "york_county": ("york_county.geojson", 0.90),
    "grand_bay_westfield": ("grand_bay_westfield.geojson", 0.88),
}


def _read(name: str) -> Aoi:
    return read_aoi(FOLDER / f"{name}.geojson")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_aoi", FOLDER / "make_aoi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_file_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.geojson")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_area_and_zone(name: str) -> None:
    least, most, zone = EXPECTED[name]
    aoi = _read(name)
    assert aoi.geometry.is_valid
    assert least <= aoi.area_ha / 100 <= most
    assert aoi.utm_crs() == zone
    projected = aoi.geometry_in(zone)
    assert projected.is_valid
    assert projected.area / 1e4 == pytest.approx(aoi.area_ha, rel=0.01)


@pytest.mark.parametrize("name", EXPECTED)
def test_is_small_rfc_7946_with_provenance(name: str) -> None:
    path = FOLDER / f"{name}.geojson"
    assert path.stat().st_size <= 60_000
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    assert "crs" not in content  # RFC 7946, section 4: always WGS 84
    (feature,) = content["features"]
    assert all(feature["properties"].get(key) for key in ("name", "source", "licence", "note"))
    for part in _parts(feature["geometry"]):  # section 3.1.6: closed, outer rings anticlockwise, holes clockwise
        for number, ring in enumerate(part):
            assert ring[0] == ring[-1]
            assert shapely.LinearRing(ring).is_ccw == (number == 0)


def _parts(geometry: dict[str, Any]) -> list[Any]:
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]


def test_province_has_its_islands_and_not_its_neighbours() -> None:
    geometry = _read("nb").geometry
    assert len(geometry.geoms) == 6
    inside = {"Fredericton": (-66.65, 45.95), "Edmundston": (-68.33, 47.38), "Grand Manan": (-66.80, 44.70)}
    outside = {"Maine": (-68.0, 46.0), "Quebec": (-68.0, 48.0), "Nova Scotia": (-64.1, 45.6), "PEI": (-63.8, 46.4)}
    for place, where in (inside | outside).items():
        assert geometry.contains(shapely.Point(where)) == (place in inside), place


def test_counties_and_town_lie_in_the_province() -> None:
    province = _read("nb").geometry
    for name in ("albert_county", "york_county", "grand_bay_westfield"):
        part = _read(name).geometry
        least = 0.95 if name == "grand_bay_westfield" else 0.999  # the river that the town reaches into is water there
        assert part.intersection(province).area / part.area >= least


def test_sample_is_one_polygon_with_a_hole_of_stated_size() -> None:
    aoi = _read("sample")
    (polygon,) = aoi.geometry.geoms
    assert len(polygon.interiors) == 1
    left, bottom, right, top = aoi.bounds_in("EPSG:32620")
    assert right - left == pytest.approx(2600, abs=50)
    assert top - bottom == pytest.approx(2600, abs=50)
    feature = json.loads((FOLDER / "sample.geojson").read_text(encoding="utf-8"))["features"][0]
    assert "simulated" in feature["properties"]["name"]


def test_script_makes_the_files(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    province = MultiPolygon(_read("nb").geometry)
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    script.write_province(province)
    script.write_outlines(province)
    for name in EXPECTED:
        made = (tmp_path / f"{name}.geojson").read_bytes()
        assert made == (FOLDER / f"{name}.geojson").read_bytes(), f"{name}: run aoi/make_aoi.py again"


def test_script_refuses_another_package(script: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"not the wheel")
    with pytest.raises(ValueError, match="not the wheel"):
        script.province(wheel)


@pytest.mark.skipif(not BOUNDARIES.is_dir(), reason="the real boundaries are not beside this checkout")
@pytest.mark.parametrize("name", OVERLAP)
def test_overlap_with_the_real_boundary(name: str) -> None:
    file, least = OVERLAP[name]
    frame = geopandas.read_file(BOUNDARIES / file).to_crs("EPSG:2953")
    real = frame.geometry.make_valid().union_all()
    ours = _read(name).geometry_in("EPSG:2953")
    assert ours.intersection(real).area / ours.union(real).area >= least


@pytest.mark.skipif(not BOUNDARIES.is_dir(), reason="the real boundaries are not beside this checkout")
@pytest.mark.parametrize("name", ["albert_county", "york_county", "grand_bay_westfield"])
def test_no_corner_is_copied_from_the_real_boundary(script: ModuleType, name: str) -> None:
    real = geopandas.read_file(BOUNDARIES / OVERLAP[name][0]).geometry.union_all()
    copied = {(round(x, 4), round(y, 4)) for x, y in shapely.get_coordinates(real)} & set(script.OUTLINES[name])
    assert not copied
