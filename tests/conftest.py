"""Fixtures that several folders of tests share."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

#: Real scenes and golden tensors, where they lie beside the checkout.
SHARED = Path(__file__).resolve().parents[2] / "shared"


#: What takes longest, first: at the end of a run no process waits long for another. Two beginnings that do not need
#: the same thing, and then the walks; all else is short.
FIRST = (
    "training/test_ranks",
    "walk/test_restart",
    "walk/",
    "stages/test_canary_models",
    "stages/test_coregister",
    "sources/test_network",
    "models/test_export",
    "training/test_fit",
    "models/",
    "exchange/",
    "training/",
)

# One thread, also where nobody says so: small work is fastest with it, and tests that compare the bytes of this process
# with those of another need the same number in both. It counts when the compiled libraries are loaded, later than here.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, each whole and in its own order."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(here).as_posix()
        return next((number for number, start in enumerate(FIRST) if path.startswith(start)), len(FIRST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported; it would look at all of it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


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
