"""What benchmarks/fetch.py compares is the same: our composite and the plain one, pixel by pixel."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from rasterio.errors import NotGeoreferencedWarning

from benchmarks import fetch


def test_both_ways_make_the_same_composite(tmp_path: Path) -> None:
    catalog = fetch.write_scenes(tmp_path, 4, 160)
    ours = fetch.ours(catalog, 160, 2)
    with warnings.catch_warnings():
        # all of odc-stac, odc-geo and numpy.nanmedian (a pixel without any look)
        for category in (NotGeoreferencedWarning, DeprecationWarning, PendingDeprecationWarning, RuntimeWarning):
            warnings.simplefilter("ignore", category)
        plain = fetch.plain(catalog, 160, 2)
    assert np.isfinite(ours).any()
    np.testing.assert_allclose(ours, plain, atol=1e-6)
