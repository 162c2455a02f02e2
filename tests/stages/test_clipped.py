"""Values that the cube cannot hold are counted and told, never silently cut."""

from __future__ import annotations

import numpy as np
import pytest

from wetmap.cube import Band, clipped
from wetmap.errors import ClippedWarning
from wetmap.ledger import Entry
from wetmap.stages import fetch


def test_what_would_be_clipped_is_counted() -> None:
    bands = (Band("s.NDVI", "index", "1", "s.optical"), Band("s.WRI", "index", "1", "s.optical"))
    values = np.array([[[0.5, np.nan, -1.0]], [[3.2767, 3.3, -7.0]]], dtype=np.float32)
    assert clipped(values, bands) == {"s.WRI": 2}


def test_the_blocks_counts_are_added_and_told() -> None:
    entries = [
        Entry("r0c0", "done", facts={"clipped": {"s.WRI": 2}}),
        Entry("r0c1", "done", facts={}),
        Entry("r0c2", "done", facts={"clipped": {"s.WRI": 1234}}),
    ]
    with pytest.warns(ClippedWarning, match=r"s\.WRI goes beyond what the cube stores in 1,236 pixels"):
        assert fetch._clipped(entries) == {"s.WRI": 1236}
    assert fetch._clipped(entries[1:2]) == {}
