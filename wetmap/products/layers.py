"""What the files of a map's folder are to a person: their titles, and the order in which a GIS shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["classes", "measure", "polygons"]
"""Codes of classes, a measured value per pixel, or one polygon per patch."""


@dataclass(frozen=True)
class MapLayer:
    """One layer of a map's folder."""

    file: str
    """Name of the file in the folder."""
    title: str
    """What it is called in a list of layers."""
    kind: Kind
    """What it holds."""
    shown: bool = False
    """Whether it is switched on when the map is opened."""


#: From the top of the list of layers to the bottom.
KNOWN_LAYERS = (
    MapLayer("polygons.gpkg", "Polygons", "polygons"),
    MapLayer("classes.tif", "Classes", "classes", shown=True),
    MapLayer("confidence.tif", "Confidence (%)", "measure"),
    MapLayer("entropy.tif", "Entropy (%)", "measure"),
    MapLayer("applicability.tif", "Unlike the training samples (% of the threshold)", "measure"),
    MapLayer("clear_count.tif", "Clear looks", "measure"),
    MapLayer("probabilities.tif", "Probabilities of the classes", "measure"),
)


def map_layers(names: Iterable[str]) -> list[MapLayer]:
    """The layers among the files of a map's folder, the topmost first.

    Args:
        names: Names of files.

    Returns:
        The known ones in their order, then other GeoTIFFs by name, titled by it.
    """
    there = set(names)
    known = [layer for layer in KNOWN_LAYERS if layer.file in there]
    others = sorted(name for name in there - {layer.file for layer in known} if name.endswith(".tif"))
    titles = [name.removesuffix(".tif").replace("_", " ").capitalize() for name in others]
    return known + [MapLayer(name, title, "measure") for name, title in zip(others, titles, strict=True)]
