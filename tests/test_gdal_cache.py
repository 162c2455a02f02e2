"""GDAL's cache has a bound in MB that holds for the whole process, whoever writes in another thread and ends first."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from rasterio.env import get_gdal_config

from wetmap.gdal_cache import CACHE_MB, VARIABLE
from wetmap.geo import Grid
from wetmap.products.geotiff import write_cog

GRID = Grid("EPSG:32620", 10.0, 300_000.0, 5_100_000.0, 600, 600)
CHOSEN = """
from rasterio.env import get_gdal_config
from wetmap.gdal_cache import VARIABLE, bound_gdal_cache
bound_gdal_cache()
print(get_gdal_config(VARIABLE))
"""


def ones(block):
    return np.ones((block.height, block.width), dtype=np.uint8)


def write(path, read):
    layer = {"dtype": "uint8", "nodata": 0, "overview": "mode", "colours": None, "description": "class", "tags": {}}
    write_cog(path, GRID, read, **layer)


@pytest.mark.skipif(VARIABLE in os.environ, reason=f"{VARIABLE} is set here")
def test_a_file_that_another_thread_has_finished_leaves_the_cache_bounded(tmp_path):
    seen = []

    def read(block):
        if not seen:
            other = threading.Thread(target=write, args=(tmp_path / "other.tif", ones))
            other.start()
            other.join()
        seen.append(get_gdal_config(VARIABLE))
        return ones(block)

    write(tmp_path / "map.tif", read)
    assert set(seen) == {CACHE_MB * 2**20}  # bytes


def test_a_bound_in_the_environment_stays():
    environment = {**os.environ, VARIABLE: "200"}
    run = subprocess.run([sys.executable, "-c", CHOSEN], env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.strip() == str(200 * 2**20)
