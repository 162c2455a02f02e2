"""A catalogue of the network cannot make its reader open files of this machine."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import pytest

from tests.fakes import tiny_archive
from tests.fakes.stac_api import make_app, serve
from tests.fakes.tiny_archive import GRID, SEASON, aoi
from wetmap.errors import SceneSkippedWarning, SourceError
from wetmap.recipe import StacSource
from wetmap.sources import open_archive

ONE = "S2A_20210610"


@pytest.mark.parametrize("prefix", ["file://", "zip://", "/vsicurl_streaming/file://", "/vsicurl/file://"])
def test_a_scene_that_names_local_files_is_left_out(
    prefix: str, archive_folder: Path, items: list[tiny_archive.Json]
) -> None:
    served = tiny_archive.link_to(copy.deepcopy(items), "")
    with serve(make_app(tiny_archive.collections(items), served, archive_folder, Counter())) as url:
        for one in served:
            for name, body in one["assets"].items():
                local = one["id"] == ONE and name == "B03"
                body["href"] = f"{prefix}{archive_folder}{body['href']}" if local else f"{url}/files{body['href']}"
        archive = open_archive(StacSource(catalog=url), "optical")
        with pytest.warns(SceneSkippedWarning, match="the catalogue is of the network"):
            scenes, skipped = archive.search("optical", aoi(), [SEASON], max_cloud_percent=80.0)
    assert ONE not in [scene.id for scene in scenes]
    assert ONE in [row.id for row in skipped]


def test_a_remote_list_of_files_is_not_followed(archive_folder: Path, items: list[tiny_archive.Json]) -> None:
    served = tiny_archive.link_to(copy.deepcopy(items), "")
    here = next(archive_folder.rglob("*B03*.tif"))
    trap = archive_folder / "trap.vrt"
    trap.write_text(
        '<VRTDataset rasterXSize="84" rasterYSize="84"><SRS>EPSG:32619</SRS>'
        "<GeoTransform>700000, 10, 0, 5010000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename relativeToVRT="0">{here}'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    with serve(make_app(tiny_archive.collections(items), served, archive_folder, Counter())) as url:
        for one in served:
            for name, body in one["assets"].items():
                trapped = one["id"] == ONE and name == "B03"
                body["href"] = f"{url}/files/trap.vrt" if trapped else f"{url}/files{body['href']}"
        archive = open_archive(StacSource(catalog=url), "optical")
        scenes, _ = archive.search("optical", aoi(), [SEASON], max_cloud_percent=80.0)
        scene = next(scene for scene in scenes if scene.id == ONE)
        with pytest.raises(SourceError, match=r"trap\.vrt cannot be read"):
            archive.read(scene, ("B03",), GRID)
