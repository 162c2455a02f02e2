"""Fixtures that several folders of tests share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

#: Real scenes and golden tensors, where they lie beside the checkout.
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def write_area(tmp_path: Path) -> Callable[..., Path]:
    """Write a GeoJSON rectangle and give its path."""

    def write(
        west: float = -64.42, south: float = 45.89, east: float = -64.40, north: float = 45.90, name: str = "area"
    ) -> Path:
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        path = tmp_path / f"{name}.geojson"
        path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        return path

    return write
