"""Scenes that could not be read, in numbers and in words: the same wherever they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wetmap.cube import Band, layers_of
from wetmap.sources import Scene
from wetmap.stages.block_reading import passes_of, serves

#: A row of ``failed_reads`` in a manifest: block, scene, sensor, bands, reason.
Row = Mapping[str, Any]


def counted(number: int, one: str) -> str:
    """``1 scene``, ``2 scenes``."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def scenes_of(rows: Sequence[Row]) -> set[tuple[str, str]]:
    """Sensor and id of the scenes that some block lacks."""
    return {(str(row["sensor"]), str(row["scene"])) for row in rows}


def lacks(manifest: Mapping[str, Any], blocks: str) -> list[Any]:
    """What a stage's work lacks, for keys: its failed blocks, and which block lacks which scene; not why.

    Args:
        manifest: The stage's manifest.
        blocks: Its entry with the names of blocks that failed.
    """
    rows = {(row["block"], row["sensor"], row["scene"]) for row in manifest.get("failed_reads", [])}
    return [*sorted(manifest.get(blocks, [])), *(list(row) for row in sorted(rows))]


def passes_by_layer(bands: Sequence[Band], scenes: Sequence[Scene], rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Passes of each optical and radar layer, for the manifest of fetch.

    Args:
        bands: Bands of the cube.
        scenes: Scenes of the plan.
        rows: What could not be read.

    Returns:
        By layer: ``planned`` passes; ``lost``, those of which some block lacks a scene; ``in_blocks``, how many blocks
        lack a scene of the layer.
    """
    blocks: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        blocks.setdefault((row["sensor"], row["scene"]), set()).add(row["block"])
    told = {}
    for layer in layers_of(bands):
        if not layer.partition(".")[2].startswith(("optical", "radar")):
            continue
        serving = passes_of([scene for scene in scenes if serves(scene, layer)])
        gone = [set().union(*(blocks.get((scene.sensor, scene.id), set()) for scene in one)) for one in serving]
        lacking: set[str] = set().union(*gone)
        told[layer] = {"planned": len(serving), "lost": sum(bool(one) for one in gone), "in_blocks": len(lacking)}
    return told


def words(rows: Sequence[Row], blocks: int) -> str:
    """``2 of them could not be read in 4 of 12 blocks``; empty where all could be read.

    Args:
        rows: What could not be read.
        blocks: Blocks of the cube.
    """
    if not rows:
        return ""
    among = len({row["block"] for row in rows})
    return f"{len(scenes_of(rows))} of them could not be read in {among} of {counted(blocks, 'block')}"
