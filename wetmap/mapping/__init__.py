"""Streaming a model over blocks, knowing nothing about models."""

from wetmap.mapping.blocks import BlockMap, Predictor, map_block, whole_tiles

__all__ = ["BlockMap", "Predictor", "map_block", "whole_tiles"]
