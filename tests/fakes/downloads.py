"""The tiny archive as a user would have downloaded it: SAFE products, folders or zips, and RTC GeoTIFFs."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from tests.fakes.tiny_archive import CRS, FINE, LEFT, SIDE, TOP, Json, lonlat, write_raster

PRODUCT = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
 <n1:General_Info><Product_Info>
  <PRODUCT_START_TIME>{time}</PRODUCT_START_TIME>
  <PRODUCT_URI>{name}.SAFE</PRODUCT_URI>
  <PROCESSING_LEVEL>{level}</PROCESSING_LEVEL>
  <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
  <GENERATION_TIME>{time}</GENERATION_TIME>
  <Datatake datatakeIdentifier="GS2A_{stamp}_000001_N{baseline}">
   <SPACECRAFT_NAME>Sentinel-{unit}</SPACECRAFT_NAME>
   <SENSING_ORBIT_NUMBER>11</SENSING_ORBIT_NUMBER>
   <SENSING_ORBIT_DIRECTION>DESCENDING</SENSING_ORBIT_DIRECTION>
  </Datatake>
 </Product_Info><Product_Image_Characteristics>
  <QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
  </QUANTIFICATION_VALUES_LIST>{offsets}
 </Product_Image_Characteristics></n1:General_Info>
 <n1:Geometric_Info><Product_Footprint><Product_Footprint><Global_Footprint>
  <EXT_POS_LIST>{outline}</EXT_POS_LIST>
 </Global_Footprint></Product_Footprint></Product_Footprint></n1:Geometric_Info>
 <n1:Quality_Indicators_Info><Cloud_Coverage_Assessment>{cloud}</Cloud_Coverage_Assessment></n1:Quality_Indicators_Info>
</n1:Level-2A_User_Product>
"""
TILE = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
 <n1:Geometric_Info><Tile_Geocoding>
  <HORIZONTAL_CS_CODE>{crs}</HORIZONTAL_CS_CODE>
  <Size resolution="10"><NROWS>{side}</NROWS><NCOLS>{side}</NCOLS></Size>
  <Geoposition resolution="10"><ULX>{left}</ULX><ULY>{top}</ULY><XDIM>10</XDIM><YDIM>-10</YDIM></Geoposition>
 </Tile_Geocoding></n1:Geometric_Info>
 <n1:Quality_Indicators_Info><CLOUDY_PIXEL_PERCENTAGE>{cloud}</CLOUDY_PIXEL_PERCENTAGE></n1:Quality_Indicators_Info>
</n1:Level-2A_Tile_ID>
"""


def product_xml(name: str, *, time: str, baseline: str, level: str = "Level-2A", cloud: float = 20.0) -> str:
    """MTD_MSIL2A.xml of a product of the tiny archive, with BOA_ADD_OFFSET from baseline 04.00 on."""
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{number}">-1000</BOA_ADD_OFFSET>' for number in range(13))
    ring = lonlat(LEFT, TOP - SIDE * 10, LEFT + SIDE * 10, TOP).exterior.coords
    return PRODUCT.format(
        name=name,
        unit=name[1:3],
        time=time,
        stamp=time.replace("-", "").replace(":", "")[:15],
        baseline=baseline,
        level=level,
        cloud=cloud,
        outline=" ".join(f"{lat} {lon}" for lon, lat in ring),
        offsets=f"<BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST>" if float(baseline) >= 4 else "",
    )


def safe_name(item: Json) -> str:
    """Name of a Sentinel-2 item of the tiny archive as a product, without ``.SAFE``."""
    time = item["properties"]["datetime"].replace("-", "").replace(":", "")[:15]
    baseline = item["properties"]["s2:processing_baseline"].replace(".", "")
    return f"{item['id'][:3]}_MSIL2A_{time}_N{baseline}_R011_T19TGK_{time[:8]}T180000"


def write_safe(folder: Path, archive: Path, item: Json) -> Path:
    """Write a Sentinel-2 item of the tiny archive as a SAFE folder with lossless JPEG 2000; gives its path."""
    name, properties = safe_name(item), item["properties"]
    root = folder / f"{name}.SAFE"
    granule = root / "GRANULE" / "L2A_T19TGK_A000001_20210610T151000"
    cloud = properties["eo:cloud_cover"]
    for band, asset in item["assets"].items():
        res = "10m" if band in FINE else "20m"
        path = granule / "IMG_DATA" / f"R{res}" / f"T19TGK_20210610T151000_{band}_{res}.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(archive / asset["href"]) as dataset:
            write_jp2(path, dataset.read(1), dataset.transform)
    (root / "MTD_MSIL2A.xml").write_text(
        product_xml(name, time=properties["datetime"], baseline=properties["s2:processing_baseline"], cloud=cloud)
    )
    text = TILE.format(crs=CRS, side=SIDE, left=int(LEFT), top=int(TOP), cloud=cloud)
    (granule / "MTD_TL.xml").write_text(text)
    (root / "HTML").mkdir()
    (root / "HTML" / "UserProduct_index.html").write_text("<html></html>")
    return root


def write_jp2(path: Path, values: NDArray[Any], transform: Affine) -> None:
    """A lossless JPEG 2000 of one band."""
    profile = {"driver": "JP2OpenJPEG", "count": 1, "dtype": str(values.dtype), "crs": CRS, "transform": transform}
    height, width = values.shape
    with rasterio.open(path, "w", height=height, width=width, QUALITY="100", REVERSIBLE="YES", **profile) as dataset:
        dataset.write(values, 1)


def zipped(root: Path) -> Path:
    """Put a folder into a zip beside it, as archives serve products, and take the folder away."""
    path = root.with_name(f"{root.name.removesuffix('.SAFE')}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent).as_posix())
    shutil.rmtree(root)
    return path


def write_rtc(folder: Path, archive: Path, item: Json) -> None:
    """Write a Sentinel-1 item of the tiny archive as linear GeoTIFFs with names of pyroSAR's."""
    properties = item["properties"]
    state = properties["sat:orbit_state"][0].upper()
    time = properties["datetime"].replace("-", "").replace(":", "")[:15]
    for pol, asset in item["assets"].items():
        name = f"S1A__IW___{state}_{time}_{pol.upper()}_gamma0-rtc.tif"
        with rasterio.open(archive / asset["href"]) as dataset:
            write_raster(folder / name, dataset.read(1), dataset.transform, nodata=dataset.nodata)


def download(folder: Path, archive: Path, items: list[Json], *, zips: bool = False) -> Path:
    """The whole tiny archive but for elevation, in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        if item["collection"] == "sentinel-2-l2a":
            root = write_safe(folder, archive, item)
            if zips:
                zipped(root)
        elif item["collection"] == "sentinel-1-rtc":
            write_rtc(folder, archive, item)
    return folder


def mosaic(folder: Path, year: int, *, name: str = "N46W067", made: str = "2022-03-24T17:05:51Z") -> Json:
    """A tile of the L-band mosaic over the tiny archive, 0.8 seconds of arc, and its STAC item.

    Its ``datetime`` is the day on which the item was made, and the mask's file is described as classes, as in real
    items of Planetary Computer.
    """
    west, south, east, north = lonlat(LEFT - 1000, TOP - 1840, LEFT + 1840, TOP + 1000).bounds
    step = 0.8 / 3600
    height, width = int((north - south) / step), int((east - west) / step)
    y, x = np.mgrid[0:height, 0:width]
    hh = (4000 + 20 * x + 5 * y + (year - 2015)).astype(np.uint16)
    mask = np.full((height, width), 255, dtype=np.uint8)
    rows, cols = height // 2, width // 2
    hh[rows - 12 : rows - 8, cols : cols + 5], mask[rows - 12 : rows - 8, cols : cols + 5] = 0, 0
    hh[rows : rows + 6, cols : cols + 6], mask[rows : rows + 6, cols : cols + 6] = 60000, 100
    mask[rows : rows + 6, cols + 6 : cols + 9], mask[rows + 6 : rows + 12, cols - 6 : cols] = 150, 50
    transform = Affine(step, 0, west, 0, -step, north)
    where = folder / "lband" / f"{name}_{year}"
    bands = {"HH": hh, "HV": (hh // 2).astype(np.uint16), "mask": mask}
    assets = {
        band: {
            "href": write_raster(where / f"{band}.tif", values, transform, crs="EPSG:4326")
            .relative_to(folder)
            .as_posix(),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data-mask" if band == "mask" else "data"],
            **({"file:values": [{"values": [0], "summary": "no data"}]} if band == "mask" else {}),
        }
        for band, values in bands.items()
    }
    outline = lonlat(LEFT - 1000, TOP - 1840, LEFT + 1840, TOP + 1000)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"{name}_{year % 100:02d}_MOS",
        "collection": "alos-palsar-mosaic",
        "geometry": {"type": "Polygon", "coordinates": [[list(point) for point in outline.exterior.coords]]},
        "bbox": list(outline.bounds),
        "properties": {
            "datetime": made,
            "start_datetime": f"{year}-01-01T00:00:00Z",
            "end_datetime": f"{year}-12-31T23:59:59Z",
            "platform": "ALOS-2",
            "instruments": ["PALSAR-2"],
        },
        "assets": assets,
        "links": [],
    }
