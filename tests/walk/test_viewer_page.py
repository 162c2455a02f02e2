"""The map on the page of a small map: what is in it is what the map's files hold."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray


def page_of(small: Path) -> str:
    return (small / "space/map/report.html").read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def codes(row: dict[str, Any]) -> NDArray[np.uint8]:
    raw = zlib.decompress(base64.b64decode(row["codes"]))
    return np.frombuffer(raw, np.uint8).reshape(row["height"], row["width"])


def raster(small: Path, name: str, band: int = 1) -> NDArray[Any]:
    with rasterio.open(small / "space/map" / name) as source:
        found: NDArray[Any] = source.read(band)
        return found


def test_every_pixel_of_the_small_map_is_in_the_page(small: Path) -> None:
    data = data_of(page_of(small))
    np.testing.assert_array_equal(codes(data["raster"]), raster(small, "classes.tif"))
    by_title = {row["title"]: row for row in data["measures"]}
    np.testing.assert_array_equal(codes(by_title["Confidence"]), raster(small, "confidence.tif"))
    looks = by_title["Clear looks, summer"]
    truth = raster(small, "clear_count.tif")
    known = truth != 65535
    found = codes(looks)
    assert (found[~known] == 255).all()
    np.testing.assert_allclose(looks["offset"] + found[known] * looks["step"], truth[known], atol=looks["step"] / 2)
    assert [row["title"] for row in data["backgrounds"]] == ["True colour, summer"]


def test_the_only_scripts_are_those_that_the_policy_names(small: Path) -> None:
    page = page_of(small)
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert [bool(attributes) for attributes, _ in scripts] == [True, False]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    parts = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    assert parts["script-src"] == f"'sha256-{digest}'"
    assert parts["default-src"] == "'none'"
    assert parts["img-src"] == "data:"


def test_the_background_is_made_once(small: Path) -> None:
    made = list((small / "space/stages/background").glob("*/manifest.json"))
    assert len(made) == 1
    told = json.loads(made[0].read_text())
    assert told["season"] == "summer"
    assert (made[0].parent / told["pictures"][0]["file"]).read_bytes()[:2] == b"\xff\xd8"  # a JPEG
