"""Streaming a model over blocks, knowing nothing about models."""

from wetmap.mapping.blocks import BlockInput, BlockMap, GridReader, Predictor, map_block, read_block, whole_tiles
from wetmap.mapping.layers import Keep
from wetmap.mapping.memory import block_bytes, kept_bytes

__all__ = [
    "BlockInput",
    "BlockMap",
    "GridReader",
    "Keep",
    "Predictor",
    "block_bytes",
    "kept_bytes",
    "map_block",
    "read_block",
    "whole_tiles",
]
