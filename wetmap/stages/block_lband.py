"""The L-band part of a block: the tiles of the yearly mosaic put together, in decibels.

No speckle filter: the mosaic's pixels of 25 m are means of many looks already. It belongs to no season.
"""

from __future__ import annotations

import numpy as np

from wetmap.imagery.radar import to_db
from wetmap.stages.block_reading import BlockReader, Values, feature, serves

LAYER = "lband"


def lband_features(reader: BlockReader) -> Values:
    """Backscatter of the polarisations that are wanted, dB, by name (y, x)."""
    names = [feature(band) for band in reader.bands(LAYER)]
    if not names:
        return {}
    tiles = tuple(scene for scene in reader.task.scenes if serves(scene, LAYER))
    powers = reader.read(tiles, names, 0)
    return {f"{LAYER}.{name}": to_db(power.astype(np.float64)).astype(np.float32) for name, power in powers.items()}
