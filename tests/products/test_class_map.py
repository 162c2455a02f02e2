"""A finished map read back: its classes, its checksum, and files that are no map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from wetmap.classes import MapClass
from wetmap.errors import SourceError
from wetmap.products.class_map import open_class_map
from wetmap.products.style import write_class_style

CLASSES = (MapClass(1, 'bog & "fen" <b>', "#aa4400"), MapClass(5, "沼泽", "#dddddd"))
PLACE = Affine(10, 0, 400_000, 0, -10, 5_100_000)


def write(path: Path, **changes: Any) -> Path:
    codes = np.zeros((6, 8), np.uint8)
    codes[:3], codes[3:, 4:] = 1, 5
    profile: dict[str, Any] = {"driver": "GTiff", "count": 1, "height": 6, "width": 8, "dtype": "uint8", "nodata": 0}
    profile |= {"crs": "EPSG:32620", "transform": PLACE, **changes}
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.broadcast_to(codes, (profile["count"], 6, 8)).astype(profile["dtype"]))
    return path


def test_names_come_back_and_codes_without_one_are_numbered(tmp_path: Path) -> None:
    path = write(tmp_path / "classes.tif")
    write_class_style(path, CLASSES[:1])
    found = open_class_map(path)
    assert [(item.code, item.name) for item in found.classes] == [(1, CLASSES[0].name), (5, "class 5")]
    write_class_style(path, CLASSES)
    assert open_class_map(path).classes == CLASSES
    assert found.codes_at(np.array([0, 5, 5, 99]), np.array([0, 7, 0, 0])).tolist() == [1, 5, 0, 0]


def test_the_checksum_is_of_the_classes_and_not_of_the_file(tmp_path: Path) -> None:
    one = open_class_map(write(tmp_path / "one.tif", compress="deflate"))
    other = open_class_map(write(tmp_path / "other.tif", compress="lzw"))
    moved = open_class_map(write(tmp_path / "moved.tif", transform=Affine(10, 0, 400_010, 0, -10, 5_100_000)))
    assert one.path.read_bytes() != other.path.read_bytes()
    assert one.sha256 == other.sha256
    assert one.sha256 != moved.sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "float32"},
        {"count": 3},
        {"crs": None},
        {"transform": Affine(10, 1, 400_000, 1, -10, 5_100_000)},
        {"transform": Affine(10, 0, 400_000, 0, -20, 5_100_000)},
    ],
    ids=["float", "three bands", "no CRS", "turned", "oblong"],
)
def test_rasters_of_another_kind_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=r"is not a map of classes: one band .* Give the classes\.tif"):
        open_class_map(write(tmp_path / "x.tif", **changes))


def test_a_measure_is_no_map_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "confidence.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=8, width=16, dtype="uint8", crs="EPSG:32620", transform=PLACE
    ) as out:
        out.write(np.arange(128, dtype=np.uint8).reshape(8, 16), 1)
    with pytest.raises(SourceError, match="it holds 127 values, 127 of them without a name"):
        open_class_map(path)


@pytest.mark.parametrize("text", ["<PAMDataset", "<!DOCTYPE x [<!ENTITY a 'b'>]><PAMDataset/>", "no xml"])
def test_a_damaged_table_of_names_is_told(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "classes.tif")
    path.with_name("classes.tif.aux.xml").write_text(text)
    with pytest.raises(SourceError, match=r"class names in .*classes\.tif\.aux\.xml cannot be read"):
        open_class_map(path)


@pytest.mark.parametrize(
    "make", [lambda path: path.touch(), lambda path: path.write_text("x"), lambda path: path.mkdir()]
)
def test_files_that_are_no_raster_are_told(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "classes.tif")
    with pytest.raises(SourceError, match=r"classes\.tif cannot be read"):
        open_class_map(tmp_path / "classes.tif")
