"""Scenes to features, for one block: read, harmonise, mask, composite; filter, average, decibels; terrain.

Every step that looks at neighbours is given a margin, so that a pixel's features do not depend on the blocking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.cube import Band, layers_of
from wetmap.geo import Block
from wetmap.sources import Scene
from wetmap.stages.block_lband import lband_features
from wetmap.stages.block_optical import optical_features
from wetmap.stages.block_radar import radar_features
from wetmap.stages.block_reading import BlockReader, FetchTask, Values, serves
from wetmap.stages.block_server import composites_of, embedding_features, server_optical, server_radar
from wetmap.stages.block_terrain import terrain_features
from wetmap.stages.scenes_check import CheckRow


@dataclass(frozen=True)
class BlockResult:
    """The features of one block."""

    features: NDArray[np.float32]
    """(band, y, x), NaN where the band's layer was not observed."""
    observed: NDArray[np.bool_]
    """(layer, y, x)."""
    clear_count: NDArray[np.uint16]
    """Clear optical looks, (season, y, x)."""
    failures: tuple[dict[str, str], ...] = ()
    """Scenes that could not be read, as rows for the manifest: scene, sensor, reason."""
    checks: tuple[CheckRow, ...] = ()
    """How the optical scenes compare, for the manifest."""


def unserved_layers(bands: Sequence[Band], scenes: Sequence[Scene]) -> tuple[str, ...]:
    """Layers that no scene can fill, whatever the block, in order."""
    return tuple(layer for layer in layers_of(bands) if not any(serves(scene, layer) for scene in scenes))


def block_features(task: FetchTask, block: Block) -> BlockResult:
    """Make the features of one block.

    Args:
        task: What is wanted, from which scenes.
        block: A block of the task's grid.

    Returns:
        Features, where they were observed, and the scenes that failed. A scene that cannot be read twice is left out,
        with a row in ``failures``.
    """
    reader = BlockReader(task, task.grid.window(block.y0, block.x0, block.height, block.width))
    values: Values = {}
    clear = np.zeros((len(task.seasons), block.height, block.width), dtype=np.uint16)
    checks: list[CheckRow] = []
    for number, season in enumerate(task.seasons):
        archive = composites_of(task.archives, "optical")
        optical = server_optical(reader, season, archive) if archive else optical_features(reader, season)
        values |= optical.values
        clear[number] = optical.count
        checks += optical.checks
        archive = composites_of(task.archives, "radar")
        values |= server_radar(reader, season, archive) if archive else radar_features(reader, season)
    values |= terrain_features(reader)
    values |= lband_features(reader)
    values |= embedding_features(reader)
    nothing = np.full((block.height, block.width), np.nan, dtype=np.float32)
    features = np.stack([values.get(band.name, nothing) for band in task.bands])
    observed = _mark_observed(task.bands, features)
    return BlockResult(features, observed, clear, tuple(reader.failures), tuple(checks))


def _mark_observed(bands: Sequence[Band], features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """A layer is observed where all its bands are; elsewhere its bands are made NaN together, in place."""
    layers = layers_of(bands)
    observed = np.empty((len(layers), *features.shape[1:]), dtype=np.bool_)
    for number, layer in enumerate(layers):
        members = [index for index, band in enumerate(bands) if band.layer == layer]
        observed[number] = np.isfinite(features[members]).all(axis=0)
        for index in members:
            features[index][~observed[number]] = np.nan
    return observed
