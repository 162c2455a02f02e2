"""GDAL's cache of raster blocks, bounded once for a whole process.

Left alone, GDAL keeps what it read and wrote until 5 % of the machine's memory are full, in every process. rasterio's
``Env`` is no way to bound it: it takes bytes where GDAL's own variable takes MB, and at its end it puts the default
back, also for other threads that write at that time (rasterio 1.4.4).
"""

from __future__ import annotations

import functools
import os

#: Size of the cache, MB: some tiles of each band for every thread that reads.
CACHE_MB = 64
#: GDAL's variable of the environment, MB; who sets it has chosen.
VARIABLE = "GDAL_CACHEMAX"


@functools.cache
def bound_gdal_cache() -> None:
    """Bound the cache of this process, for good; called before rasters are read or written."""
    if VARIABLE not in os.environ:
        from rasterio.env import set_gdal_config

        set_gdal_config(VARIABLE, CACHE_MB << 20)
