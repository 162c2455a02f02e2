"""The script that takes the documentation's pictures: it takes them all, of a small map, and they show it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.system.conftest import need, qgis_missing

# the fixtures of the walk: one small recipe, run once
from tests.walk.conftest import small as small  # noqa: PLC0414 - a fixture
from tests.walk.conftest import wetmap_apart as wetmap_apart  # noqa: PLC0414 - a fixture
from wetmap.products.class_map import open_class_map

pytestmark = pytest.mark.system

SCRIPT = Path(__file__).resolve().parents[2] / "docs/make_pictures.py"
MOST = 300_000


def take(kind: str, small: Path, out: Path) -> list[Path]:
    """Run the script as a person does."""
    words = [sys.executable, SCRIPT, "--map", small / "space/map", "--out", out, "--only", kind]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return sorted(out.iterdir())


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def colours_of(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(map(int, colour)) for colour, count in zip(colours, counts, strict=True) if count > 100}


def test_pictures_of_the_window_of_qgis(small: Path, tmp_path: Path) -> None:
    lacking = [name for name in ("qgis", "xvfb-run") if shutil.which(name) is None]
    reason = qgis_missing() or (f"there is no {' and no '.join(lacking)}" if lacking else None)
    need("pictures", reason)
    found = take("qgis", small, tmp_path)
    assert [path.name for path in found] == ["qgis-form.png", "qgis-legend.png", "qgis-map.png"]
    assert all(path.stat().st_size <= MOST for path in found)
    assert {size_of(path) for path in found} == {(1280, 800)}
    source = open_class_map(small / "space/map/classes.tif")
    near = [np.array(colour) for colour in colours_of(tmp_path / "qgis-map.png")]
    for row in source.classes:  # a palette of 256 colours moves a colour a little
        assert min(int(np.abs(colour - np.array(row.rgb)).max()) for colour in near) <= 6, row.name


def test_pictures_of_the_report(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("playwright")
    need("pictures", None if shutil.which("chromium") else "there is no chromium")
    found = take("report", small, tmp_path)
    assert [path.name for path in found] == ["report-phone.png", "report.png"]
    assert all(path.stat().st_size <= MOST for path in found)
    assert all(len(colours_of(path)) > 8 for path in found)
    assert size_of(tmp_path / "report-phone.png") == (780, 1688)
