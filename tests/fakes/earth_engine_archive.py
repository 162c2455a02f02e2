"""The tiny archive as Earth Engine has it: the same pixels under its collections, bands and properties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fakes.earth_engine import FakeEarthEngine
from tests.fakes.tiny_archive import CRS, Json

#: Stands for "masked" in the arrays given to the fake.
GAP = -32768.0


def fill(fake: FakeEarthEngine, folder: Path, items: list[Json]) -> None:
    """Put the items that ``tiny_archive.write_files`` made into the fake."""
    for item in items:
        add = {"sentinel-2-l2a": _optical, "sentinel-1-rtc": _radar, "cop-dem-glo-30": _terrain}[item["collection"]]
        add(fake, folder, item)


def write_key(path: Path, fake: FakeEarthEngine) -> str:
    """A key file of a service account that the fake gives tokens to; gives a line of its secret."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "type": "service_account",
        "client_email": "robot@wetmap-test.iam.gserviceaccount.com",
        "private_key": text,
        "token_uri": f"{fake.url}/token",
        "project_id": fake.project,
    }
    path.write_text(json.dumps(account))
    return text.splitlines()[3]


def _optical(fake: FakeEarthEngine, folder: Path, item: Json) -> None:
    properties = item["properties"]
    added = 1000 if float(properties["s2:processing_baseline"]) >= 4 else 0
    bands, transforms = {}, {}
    for name, asset in item["assets"].items():
        theirs = name if name in {"SCL", "B8A"} else f"B{int(name[1:])}"
        stored, transforms[theirs] = _raster(folder, asset)
        bands[theirs] = np.where(stored == 0, GAP, stored - (0 if name == "SCL" else added))
    fake.add_image(
        f"COPERNICUS/S2_SR_HARMONIZED/{item['id']}",
        bands,
        CRS,
        transforms["B4"],
        start=properties["datetime"],
        nodata=GAP,
        transforms=transforms,
        properties={
            "CLOUDY_PIXEL_PERCENTAGE": properties["eo:cloud_cover"],
            "SPACECRAFT_NAME": properties["platform"],
            "SENSING_ORBIT_DIRECTION": properties["sat:orbit_state"].upper(),
            "SENSING_ORBIT_NUMBER": properties["sat:relative_orbit"],
            "PROCESSING_BASELINE": properties["s2:processing_baseline"],
        },
    )


def _radar(fake: FakeEarthEngine, folder: Path, item: Json) -> None:
    properties = item["properties"]
    rasters = {name.upper(): _raster(folder, asset) for name, asset in item["assets"].items()}
    fake.add_image(
        f"COPERNICUS/S1_GRD_FLOAT/{item['id']}",
        {name: values for name, (values, _) in rasters.items()},
        CRS,
        rasters["VV"][1],
        start=properties["datetime"],
        nodata=GAP,
        properties={
            "instrumentMode": "IW",
            "orbitProperties_pass": properties["sat:orbit_state"].upper(),
            "relativeOrbitNumber_start": properties["sat:relative_orbit"],
            "platform_number": "A",
            "transmitterReceiverPolarisation": list(rasters),
        },
    )


def _terrain(fake: FakeEarthEngine, folder: Path, item: Json) -> None:
    values, transform = _raster(folder, item["assets"]["data"])
    fake.add_image(f"COPERNICUS/DEM/GLO30/{item['id']}", {"DEM": values}, "EPSG:4326", transform)


def _raster(folder: Path, asset: Json) -> tuple[np.ndarray, Affine]:
    with rasterio.open(folder / asset["href"]) as dataset:
        return dataset.read(1).astype(float), dataset.transform
