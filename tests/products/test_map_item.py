"""map.json: a valid STAC item that says of every file what it is, read back through pystac's own classes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pystac
import pytest
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from pystac.validation.local_validator import get_local_schema_cache
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.warp import transform_bounds

from wetmap.classes import MapClass
from wetmap.geo import Grid
from wetmap.products.geotiff import write_cog
from wetmap.products.stac_item import MapFacts, write_item
from wetmap.products.style import write_class_style

GRID = Grid("EPSG:32620", 10.0, 400_000.0, 5_100_000.0, 40, 60)
CLASSES = (MapClass(1, "bog & <fen>", "#aa4400"), MapClass(2, "沼泽", "#22aa44"), MapClass(5, "Upland", "#dddddd"))
DAYS = dt.date(2021, 5, 1), dt.date(2021, 9, 30)
FACTS = MapFacts("Grand Lake", GRID, CLASSES, DAYS, {"wetmap": "0.1.0"}, "Mapped by wetmap.", simulated=True)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "map"
    folder.mkdir()
    layer = {"overview": "mode", "colours": {1: "#aa4400"}, "description": "class", "tags": {}}
    write_cog(
        folder / "classes.tif",
        GRID,
        lambda block: np.ones((block.height, block.width), np.uint8),
        dtype="uint8",
        nodata=0,
        **layer,
    )
    write_class_style(folder / "classes.tif", CLASSES)
    layer = {"overview": "average", "colours": None, "description": "entropy", "tags": {"units": "bit"}}
    write_cog(
        folder / "entropy.tif",
        GRID,
        lambda block: np.zeros((block.height, block.width), np.float32),
        dtype="float32",
        nodata=float("nan"),
        **layer,
    )
    (folder / "areas.csv").write_text("code,class\n")
    return {path.name: path for path in folder.iterdir()}


def item_of(folder: Path, facts: MapFacts, files: dict[str, Path]) -> pystac.Item:
    write_item(folder / "map.json", facts, files)
    return pystac.Item.from_file(str(folder / "map.json"))


def validate_offline(item: pystac.Item) -> None:
    """The core schema, from the copies inside pystac: nothing is fetched."""
    validator = JsonSchemaSTACValidator()
    validator.schema_cache.update(get_local_schema_cache())
    data = item.to_dict(transform_hrefs=False)
    validator.validate_core(data, pystac.STACObjectType.ITEM, "1.1.0")


def test_item_is_valid_and_says_when_where_and_how(tmp_path: Path, files: dict[str, Path]) -> None:
    item = item_of(tmp_path, FACTS, files)
    validate_offline(item)
    assert item.id == "Grand-Lake"
    assert item.datetime is None
    assert item.common_metadata.start_datetime == dt.datetime(2021, 5, 1, tzinfo=dt.UTC)
    assert item.common_metadata.end_datetime == dt.datetime(2021, 9, 30, 23, 59, 59, tzinfo=dt.UTC)
    assert item.properties["wetmap:simulated"] is True
    assert item.properties["title"] == "Grand Lake (SIMULATED)"
    assert item.properties["description"].startswith("SIMULATED")
    assert item.properties["processing:software"] == {"wetmap": "0.1.0"}
    assert item.properties["processing:lineage"] == "Mapped by wetmap."
    assert any("/processing/" in uri for uri in item.stac_extensions)


def test_a_broken_item_would_be_found(tmp_path: Path, files: dict[str, Path]) -> None:
    item = item_of(tmp_path, FACTS, files)
    del item.properties["start_datetime"]
    with pytest.raises(pystac.STACValidationError):
        validate_offline(item)


def test_place_is_the_grids(tmp_path: Path, files: dict[str, Path]) -> None:
    item = item_of(tmp_path, FACTS, files)
    projection = ProjectionExtension.ext(item)
    assert projection.code == "EPSG:32620"
    assert projection.shape == [40, 60]
    assert projection.transform == [10.0, 0.0, 400_000.0, 0.0, -10.0, 5_100_000.0]
    assert projection.bbox == [400_000.0, 5_099_600.0, 400_600.0, 5_100_000.0]
    west, south, east, north = transform_bounds("EPSG:32620", "EPSG:4326", *GRID.bounds, densify_pts=7)
    assert item.bbox == pytest.approx([west, south, east, north], abs=1e-7)
    ring = np.array(item.geometry["coordinates"][0])
    assert (ring[0] == ring[-1]).all()
    assert np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]) > 0  # counter-clockwise


def test_a_crs_without_a_code_is_given_in_full(tmp_path: Path, files: dict[str, Path]) -> None:
    from pyproj import CRS

    own = CRS.from_user_input("+proj=laea +lat_0=46 +lon_0=-66 +datum=WGS84 +units=m").to_wkt()
    item = item_of(tmp_path, replace(FACTS, grid=replace(GRID, crs=own, left=0.0, top=0.0)), files)
    validate_offline(item)
    projection = ProjectionExtension.ext(item)
    assert projection.code is None
    assert projection.wkt2 == own


def test_classes_are_read_back_with_their_names_and_colours(tmp_path: Path, files: dict[str, Path]) -> None:
    asset = item_of(tmp_path, FACTS, files).assets["classes.tif"]
    rows = ClassificationExtension.ext(asset).classes
    assert [(row.value, row.to_dict()["title"], row.color_hint) for row in rows] == [
        (1, "bog & <fen>", "AA4400"),
        (2, "沼泽", "22AA44"),
        (5, "Upland", "DDDDDD"),
    ]
    assert [row.name for row in rows] == ["bog-fen", "class-2", "upland"]


def test_bands_are_those_of_the_files(tmp_path: Path, files: dict[str, Path]) -> None:
    assets = item_of(tmp_path, FACTS, files).assets
    (band,) = RasterExtension.ext(assets["classes.tif"]).bands
    assert (band.data_type, band.nodata, band.spatial_resolution) == ("uint8", 0, 10.0)
    (band,) = RasterExtension.ext(assets["entropy.tif"]).bands
    assert (band.data_type, band.nodata, band.unit) == ("float32", "nan", "bit")
    assert assets["entropy.tif"].title == "Entropy (%)"
    assert [row["name"] for row in assets["entropy.tif"].extra_fields["bands"]] == ["b1"]
    assert RasterExtension.ext(assets["areas.csv"]).bands is None


def test_every_file_is_an_asset_beside_the_item_with_its_checksum(tmp_path: Path, files: dict[str, Path]) -> None:
    assets = item_of(tmp_path, FACTS, files).assets
    assert sorted(assets) == sorted(files)
    for name, asset in assets.items():
        assert asset.href == f"./{name}"
        about = FileExtension.ext(asset)
        assert about.checksum == "1220" + hashlib.sha256(files[name].read_bytes()).hexdigest()
        assert about.size == files[name].stat().st_size
    assert assets["classes.tif"].media_type == pystac.MediaType.COG
    assert assets["classes.tif.aux.xml"].media_type == "application/xml"


def test_same_map_gives_the_same_bytes_wherever_it_lies(tmp_path: Path, files: dict[str, Path]) -> None:
    write_item(tmp_path / "map.json", FACTS, files)
    other = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "map", other)
    moved = {path.name: path for path in sorted(other.iterdir(), reverse=True)}
    write_item(tmp_path / "other.json", FACTS, moved)
    assert (tmp_path / "other.json").read_bytes() == (tmp_path / "map.json").read_bytes()
    assert str(tmp_path) not in (tmp_path / "map.json").read_text()
    assert json.loads((tmp_path / "map.json").read_text())["links"] == []
